//! Reading: opens the file of an input, reads a step, and reports the result.

use super::content::is_continued;
use super::layout::Header;
use super::open_file::{OpenFile, Stream};
use super::outcome::ReadOutcome;
use super::stage::{Done, Rest, Stage};
use super::step::Step;
use super::tailer::Tailer;
use super::{read_compressed, read_plain};
use crate::compression::{Magic, magic};
use crate::file_system::read_range;
use adtally_model::{Error, InputId};
use std::io;
use std::path::Path;

impl Tailer {
    /// Continues to read an input.
    pub(super) fn read_input(&mut self, id: InputId, now_ms: i64) -> ReadOutcome {
        let Some(input) = self.inputs.get(&id) else { return ReadOutcome::Ended };
        match &input.stage {
            Stage::Ended { .. } => return ReadOutcome::Ended,
            Stage::Lost { .. } => return ReadOutcome::AtEnd,
            Stage::Done(done) => return told_end(done),
            Stage::Reading { .. } => {}
        }
        let name = input.name.clone();
        if !self.may_stream(id, now_ms) {
            return ReadOutcome::Waits;
        }
        self.look_for_header(id);
        let step = self.read_step(id, now_ms);
        self.unsettled |= !matches!(step, Ok(Step::Block(_) | Step::Busy));
        let Some(input) = self.inputs.get_mut(&id) else { return ReadOutcome::Ended };
        let (outcome, warning) = match step {
            Ok(Step::Block(block)) => (ReadOutcome::Block(block), None),
            Ok(Step::Busy) => (ReadOutcome::Busy, None),
            Ok(Step::AtEnd) => (ReadOutcome::AtEnd, None),
            Ok(Step::Lost) => {
                if input.disk.place.is_nowhere() && input.disk.len() > 0 {
                    self.warnings.note(format!(
                        "{name}: was truncated and written again after it was rotated: its new content is not read"
                    ));
                }
                input.detach();
                return ReadOutcome::AtEnd;
            }
            Ok(Step::Done(done, warning)) => {
                let told = told_end(&done);
                input.stage = Stage::Done(done);
                (told, warning)
            }
            Err(error) => {
                // A file without a name could not be opened again.
                if !input.disk.place.is_nowhere() {
                    input.close();
                }
                let message = format!("{name}: cannot be read: {error}");
                (ReadOutcome::Unreadable(Error::transient(message.clone()).because(error)), Some(message))
            }
        };
        match warning {
            Some(warning) => self.warnings.hold(&name, warning),
            None => self.warnings.clear(&name),
        }
        outcome
    }

    /// Searches for the header of an input that may have none of its own: the rotated file may have been read since its
    /// file was found.
    fn look_for_header(&mut self, id: InputId) {
        let Some(input) = self.inputs.get(&id) else { return };
        if !input.layout.may_lack_header() || input.text.head.bytes.first() == Some(&b'{') {
            return;
        }
        let Some(place) = input.disk.place.path().map(Path::to_owned) else { return };
        if self.generations.get(&place).is_some_and(|&generation| generation > 0) {
            let header = self.header_for(&place);
            if let Some(input) = self.inputs.get_mut(&id) {
                input.layout.header = header.map_or(Header::Missing, Header::Line);
            }
        }
    }

    /// Opens the file of an input and reads a step.
    fn read_step(&mut self, id: InputId, now_ms: i64) -> io::Result<Step> {
        if !self.ensure_open(id, now_ms)? {
            return Ok(Step::Lost);
        }
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(Step::Lost) };
        let Some(mut open) = input.file.take() else { return Ok(Step::Lost) };
        self.uses += 1;
        open.used = self.uses;
        let had_format = input.layout.format.is_some();
        let step = if input.disk.is_compressed() {
            read_compressed::step(input, &mut open, &self.settings, now_ms)
        } else {
            read_plain::step(input, open.file.as_mut(), &self.settings, now_ms, &mut self.spare)
        };
        if matches!(step, Ok(Step::Block(_) | Step::Busy)) {
            open.used_at_ms = now_ms;
        }
        input.file = Some(open);
        if !had_format
            && input.layout.format.is_some()
            && let (Some(header), Some(place)) = (input.layout.header.line(), input.disk.place.path())
        {
            self.headers.insert(place.to_owned(), header.clone());
        }
        step
    }

    /// Opens an input's file if it is not open; returns whether the file still belongs to the input.
    fn ensure_open(&mut self, id: InputId, now_ms: i64) -> io::Result<bool> {
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(false) };
        if input.file.is_none() {
            let Some(place) = input.disk.place.path() else { return Ok(false) };
            let mut file = match self.fs.open(place) {
                Ok(file) => file,
                // The next look determines what happened to it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            if !is_continued(file.as_mut(), input)? {
                return Ok(false);
            }
            input.observe(file.stat()?);
            self.uses += 1;
            let used = self.uses;
            self.hold_open(id, OpenFile { file, stream: None, used, used_at_ms: now_ms });
        }
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(false) };
        let compressed = input.disk.is_compressed();
        if let Some(open) = &mut input.file
            && compressed
            && open.stream.is_none()
        {
            match magic(&read_range(open.file.as_mut(), 0, 4)?) {
                Magic::Compressed(compression) => {
                    open.stream = Some(Box::new(Stream::new(compression, open.file.stat()?.changed_ns)?));
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// The outcome for a completely read file: its end. If there is a gap, the next look reports both.
fn told_end(done: &Done) -> ReadOutcome {
    if matches!(done.rest, Rest::Lost(_)) { ReadOutcome::AtEnd } else { ReadOutcome::Ended }
}
