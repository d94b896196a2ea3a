//! The layout of an input: how its lines are parsed.

use crate::block::Format;
use std::sync::Arc;

/// How the lines of an input are parsed, as far as this is known.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Its format, once its first bytes are known.
    pub(super) format: Option<Format>,
    /// The header of CSV.
    pub(super) header: Header,
}

/// The header line for rows whose file has no header of its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Header {
    /// It is not known, and other files were not searched for it yet.
    #[default]
    Unknown,
    /// There is no header, or none is needed because the lines are JSON.
    Missing,
    /// This line.
    Line(Arc<[u8]>),
}

impl Header {
    /// The line if it is known; otherwise unknown.
    pub(super) fn of(line: Option<Arc<[u8]>>) -> Header {
        line.map_or(Header::Unknown, Header::Line)
    }

    /// The line, if it is known.
    pub(super) fn line(&self) -> Option<&Arc<[u8]>> {
        if let Header::Line(line) = self { Some(line) } else { None }
    }
}

impl Layout {
    /// Sets the format, or `None` if it is not known yet.
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

    /// Whether a header still has to be searched for.
    pub(super) fn may_lack_header(&self) -> bool {
        self.format.is_none() && self.header == Header::Unknown
    }
}
