//! Which files are held open, and which compressed ones have a decoder: both are bounded, whatever the number of
//! inputs.

use super::input::Input;
use super::open_file::OpenFile;
use super::tailer::Tailer;
use adtally_model::InputId;

/// How long a compressed file brings nothing before its decoder gives way to another's, in milliseconds: longer than a
/// round over all that are being read takes, and short beside the wait for those that hold the watermark.
const STREAM_KEEP_MS: i64 = 3_000;

/// When as many files are open as may be, this share of them is closed at once, so that finding the least used costs
/// little for each file that is opened.
const CLOSED_SHARE: usize = 8;

impl Tailer {
    /// Whether an input, if it is compressed, may be read now. Where decoders take as much memory as they may together,
    /// one that has none waits until another's rests, or gives way ([`Tailer::give_way`]). Each decoder begins anew
    /// when it comes back, so those in use are not closed here.
    pub(super) fn may_stream(&mut self, id: InputId, now_ms: i64) -> bool {
        if self.inputs.get(&id).is_none_or(|input| !input.disk.is_compressed() || input.stream_bytes() > 0) {
            return true;
        }
        let inputs = &self.inputs;
        self.streaming.retain(|id| inputs.get(id).is_some_and(|input| input.stream_bytes() > 0));
        let held = || self.streaming.iter().filter_map(|id| self.inputs.get(id));
        // The size of the next is not known before it has begun: the sum may go over by one.
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

    /// Files held open.
    pub fn open_files(&self) -> usize {
        let is_open = |id: &&InputId| self.inputs.get(id).is_some_and(|input| input.file.is_some());
        self.opened.iter().filter(is_open).count()
    }

    /// Whether an input's file is being decoded, so that it could give way to another's.
    pub fn is_streaming(&self, id: InputId) -> bool {
        self.inputs.get(&id).is_some_and(|input| input.stream_bytes() > 0)
    }

    /// Gives up the decoder of a compressed input in favour of another that waits for one. It decodes again up to its
    /// position when it is read next.
    pub fn give_way(&mut self, id: InputId) {
        if let Some(input) = self.inputs.get_mut(&id) {
            input.text.overlong = None;
            if let Some(open) = &mut input.file {
                open.stream = None;
            }
        }
        self.streaming.remove(&id);
    }

    /// Holds a file open for an input, and closes others where there are too many.
    pub(super) fn hold_open(&mut self, id: InputId, open: OpenFile) {
        if self.opened.len() >= self.settings.open_max {
            self.close_least_used();
        }
        if let Some(input) = self.inputs.get_mut(&id) {
            input.file = Some(Box::new(open));
            self.opened.insert(id);
        }
    }

    /// Closes the files that were used longest ago: those of inputs that have ended first, those being decoded last,
    /// since they would have to begin anew. A file without a listed name could not be opened again; of those there are
    /// few.
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
