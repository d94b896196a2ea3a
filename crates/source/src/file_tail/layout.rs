//! How the lines of an input are to be read.

use crate::block::Format;
use std::sync::Arc;

/// How the lines of an input are to be read, as far as that was found out.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Its format, once its first bytes tell.
    pub(super) format: Option<Format>,
    /// The header of CSV.
    pub(super) header: Header,
}

/// The header line under which rows are read, or would be if their file had none of its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Header {
    /// It is not known yet, and was not looked for elsewhere.
    #[default]
    Unknown,
    /// There is none, or it is of no use: the lines are JSON.
    Missing,
    /// This line.
    Line(Arc<[u8]>),
}

impl Header {
    /// The line if it is known; else it is still to be looked for.
    pub(super) fn of(line: Option<Arc<[u8]>>) -> Header {
        line.map_or(Header::Unknown, Header::Line)
    }

    /// The line, where it is known.
    pub(super) fn line(&self) -> Option<&Arc<[u8]>> {
        if let Header::Line(line) = self { Some(line) } else { None }
    }
}

impl Layout {
    /// Notes the format, or that it is not known yet.
    pub(super) fn set_format(&mut self, format: Option<Format>) {
        match &format {
            Some(Format::Csv(header)) => {
                if let Some(line) = header.usable() {
                    self.header = Header::Line(line.into());
                }
            }
            Some(Format::Ndjson) => self.header = Header::Missing,
            None => {}
        }
        self.format = format;
    }

    /// Whether a header is still to be looked for.
    pub(super) fn may_lack_header(&self) -> bool {
        self.format.is_none() && self.header == Header::Unknown
    }
}
