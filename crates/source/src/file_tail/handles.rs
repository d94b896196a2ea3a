//! Bounds the number of open files and the memory of decoders of compressed files, whatever the number of inputs.

use super::input::Input;
use super::open_file::OpenFile;
use super::tailer::Tailer;
use adtally_model::InputId;

/// How long a decoder may deliver nothing before another file takes its place, in milliseconds: longer than a round
/// over all files being read, and short compared with the wait for inputs that hold back the watermark.
const STREAM_KEEP_MS: i64 = 3_000;

/// When the maximum number of files is open, this share of them is closed at once, so that the search for the least
/// used files costs little per opened file.
const CLOSED_SHARE: usize = 8;

impl Tailer {
    /// Whether an input may be read now; always if it is not compressed. If the decoders use all the memory they may
    /// use, an input without one waits until another decoder is idle or is given up ([`Tailer::give_way`]). A new
    /// decoder starts from the beginning, so active decoders are not closed here.
    pub(super) fn may_stream(&mut self, id: InputId, now_ms: i64) -> bool {
        if self.inputs.get(&id).is_none_or(|input| !input.disk.is_compressed() || input.stream_bytes() > 0) {
            return true;
        }
        let inputs = &self.inputs;
        self.streaming.retain(|id| inputs.get(id).is_some_and(|input| input.stream_bytes() > 0));
        let held = || self.streaming.iter().filter_map(|id| self.inputs.get(id));
        // The size of a decoder is unknown before it starts, so one decoder may exceed the limit.
        if held().map(|input| input.stream_bytes()).sum::<usize>() < self.settings.stream_bytes_max {
            self.streaming.insert(id);
            return true;
        }
        let rests = |open: &OpenFile| now_ms.saturating_sub(open.used_at_ms) >= STREAM_KEEP_MS;
        let least =
            held().filter_map(|input| Some((input.file.as_ref().filter(|open| rests(open))?.used, input.id))).min();
        let Some((_, least)) = least else { return false };
        self.give_way(least);
        self.streaming.insert(id);
        true
    }

    /// The number of open files.
    pub fn open_files(&self) -> usize {
        let is_open = |id: &&InputId| self.inputs.get(id).is_some_and(|input| input.file.is_some());
        self.opened.iter().filter(is_open).count()
    }

    /// Whether an input's file has a decoder, which could be given up for another file.
    pub fn is_streaming(&self, id: InputId) -> bool {
        self.inputs.get(&id).is_some_and(|input| input.stream_bytes() > 0)
    }

    /// Gives up the decoder of a compressed input in favour of another that waits for one. The next read decodes again
    /// up to its position.
    pub fn give_way(&mut self, id: InputId) {
        if let Some(input) = self.inputs.get_mut(&id) {
            input.text.overlong = None;
            if let Some(open) = &mut input.file {
                open.stream = None;
            }
        }
        self.streaming.remove(&id);
    }

    /// Keeps a file open for an input, and closes others if too many are open.
    pub(super) fn hold_open(&mut self, id: InputId, open: OpenFile) {
        if self.opened.len() >= self.settings.open_max {
            self.close_least_used();
        }
        if let Some(input) = self.inputs.get_mut(&id) {
            input.file = Some(Box::new(open));
            self.opened.insert(id);
        }
    }

    /// Closes the least recently used files: first those of ended inputs, last those with a decoder, which would have
    /// to start again. A file without a listed name could not be opened again, so it stays open; there are few of
    /// these.
    fn close_least_used(&mut self) {
        let inputs = &self.inputs;
        self.opened.retain(|id| inputs.get(id).is_some_and(|input| input.file.is_some()));
        if self.opened.len() < self.settings.open_max {
            return;
        }
        let rank = |input: &Input| {
            let open = input.file.as_ref()?;
            let ended = input.stage.is_ended();
            (!input.disk.place.is_nowhere() || ended).then(|| (!ended, open.stream.is_some(), open.used, input.id))
        };
        let mut ranked: Vec<_> = self.opened.iter().filter_map(|id| rank(self.inputs.get(id)?)).collect();
        ranked.sort_unstable();
        for (.., id) in ranked.into_iter().take((self.settings.open_max / CLOSED_SHARE).max(1)) {
            if let Some(input) = self.inputs.get_mut(&id) {
                input.close();
            }
            self.opened.remove(&id);
        }
    }
}
