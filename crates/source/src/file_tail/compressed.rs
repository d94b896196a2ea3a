//! Streams text from gzip and zstd files that may still be growing, in bounded memory.

use super::settings::SCAN_BYTES_MAX;
use crate::compression::Compression;
use crate::file_system::{TailFile, read_full};
use flate2::{Decompress, FlushDecompress, Status};
use std::io;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

/// Compressed bytes read at a time.
const INPUT_BYTES: usize = 128 * 1024;

/// Text produced at a time.
const STEP_BYTES: usize = 256 * 1024;

/// Largest zstd window: 128 MiB, like the zstd command line tool; without a limit a file could request gigabytes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Why decoding stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Inflated {
    /// The requested amount of text was produced.
    Full,
    /// More text may follow, but much input produced none.
    Paused,
    /// The file ends here, after a complete member or frame.
    End,
    /// The file ends within a member or frame.
    Starved,
    /// The following bytes cannot be decoded.
    Corrupt(String),
}

enum Codec {
    Gzip(Box<Decompress>),
    Zstd(DCtx<'static>),
}

/// The text stream of a compressed file.
pub(super) struct Inflater {
    codec: Codec,
    /// Offset in the file of the next byte to decode.
    pub(super) consumed: u64,
    input: Vec<u8>,
    input_at: usize,
    /// Whether the next byte begins a member or frame.
    between: bool,
    /// Whether the decoder has no buffered text. It must then not be called without new bytes, since zstd treats a few
    /// such calls as an error.
    dry: bool,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("consumed", &self.consumed).finish_non_exhaustive()
    }
}

/// Bits of the gzip window, which is at most 32 KiB.
const GZIP_WINDOW_BITS: u8 = 15;

/// Memory of a gzip decoder, in bytes: the window, as much again for output, and its tables.
const GZIP_BYTES: usize = 80 * 1024;

impl Inflater {
    /// A stream from the beginning of the file.
    pub(super) fn new(compression: Compression) -> io::Result<Inflater> {
        let codec = match compression {
            Compression::Gzip => Codec::Gzip(Box::new(Decompress::new_gzip(GZIP_WINDOW_BITS))),
            Compression::Zstd => {
                let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
                let begun = context.init().and(context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)));
                begun.map_err(|code| io::Error::other(get_error_name(code)))?;
                Codec::Zstd(context)
            }
        };
        Ok(Inflater { codec, consumed: 0, input: Vec::new(), input_at: 0, between: true, dry: false })
    }

    /// Whether all members that were started are complete.
    pub(super) fn is_whole(&self) -> bool {
        self.between
    }

    /// Its approximate memory, in bytes: for zstd mostly the window, which each frame chooses.
    pub(super) fn bytes(&self) -> usize {
        let codec = match &self.codec {
            Codec::Gzip(_) => GZIP_BYTES,
            Codec::Zstd(context) => context.sizeof(),
        };
        codec + self.input.capacity()
    }

    /// Appends text to `out` until it contains `out_len` bytes or no more text follows; never reads beyond `limit`.
    pub(super) fn inflate(
        &mut self,
        file: &mut dyn TailFile,
        limit: u64,
        out: &mut Vec<u8>,
        out_len: usize,
    ) -> io::Result<Inflated> {
        let began_at = self.consumed;
        while out.len() < out_len {
            // Padding, empty members and skippable frames produce no text.
            if self.consumed - began_at >= SCAN_BYTES_MAX {
                return Ok(Inflated::Paused);
            }
            // Two bytes are needed to recognize what begins after a member.
            let wanted = if self.between { 2 } else { 1 };
            if self.have() < wanted {
                self.fill(file, limit)?;
            }
            let at_end = self.have() == 0;
            if self.between {
                if at_end {
                    return Ok(Inflated::End);
                }
                match self.begin_member() {
                    Begin::Member => {}
                    Begin::Padding => continue,
                    Begin::Starved => return Ok(Inflated::Starved),
                    Begin::Garbage => return Ok(Inflated::Corrupt("bytes follow that are not compressed".into())),
                }
            }
            if at_end && self.dry {
                return Ok(Inflated::Starved);
            }
            let before = (self.consumed, out.len());
            if let Some(corrupt) = self.step(out, out_len)? {
                return Ok(corrupt);
            }
            if (self.consumed, out.len()) == before && !self.between {
                return Ok(if at_end { Inflated::Starved } else { Inflated::Corrupt("the decoder is stuck".into()) });
            }
        }
        Ok(Inflated::Full)
    }

    /// Compressed bytes read and not yet decoded.
    fn have(&self) -> usize {
        self.input.len() - self.input_at
    }

    /// Reads more compressed bytes, if any exist.
    fn fill(&mut self, file: &mut dyn TailFile, limit: u64) -> io::Result<()> {
        self.input.drain(..self.input_at);
        self.input_at = 0;
        let have = self.input.len();
        let room = limit.saturating_sub(self.consumed + have as u64).min(INPUT_BYTES as u64) as usize;
        self.input.resize(have + room, 0);
        let more = match read_full(file, self.consumed + have as u64, &mut self.input[have..]) {
            Ok(more) => more,
            Err(error) => {
                self.input.truncate(have);
                return Err(error);
            }
        };
        self.input.truncate(have + more);
        Ok(())
    }

    /// Determines what begins after a complete member.
    fn begin_member(&mut self) -> Begin {
        let rest = &self.input[self.input_at..];
        match &mut self.codec {
            Codec::Zstd(_) => {}
            Codec::Gzip(decompress) => match rest {
                // Tape blocks are padded with zeros, which gzip itself also ignores.
                [0, ..] => {
                    let len = rest.iter().take_while(|&&byte| byte == 0).count();
                    self.input_at += len;
                    self.consumed += len as u64;
                    return Begin::Padding;
                }
                [0x1f, 0x8b, ..] => **decompress = Decompress::new_gzip(GZIP_WINDOW_BITS),
                [0x1f] => return Begin::Starved,
                _ => return Begin::Garbage,
            },
        }
        self.between = false;
        Begin::Member
    }

    /// Calls the decoder once; on failure, returns the reason.
    fn step(&mut self, out: &mut Vec<u8>, out_len: usize) -> io::Result<Option<Inflated>> {
        let rest = &self.input[self.input_at..];
        let room = (out_len - out.len()).min(STEP_BYTES);
        let start = out.len();
        out.resize(start + room, 0);
        let (used, made, ended, failed) = match &mut self.codec {
            Codec::Gzip(decompress) => {
                let (before_in, before_out) = (decompress.total_in(), decompress.total_out());
                let status = decompress.decompress(rest, &mut out[start..], FlushDecompress::None);
                let used = (decompress.total_in() - before_in) as usize;
                let made = (decompress.total_out() - before_out) as usize;
                match status {
                    Ok(status) => (used, made, status == Status::StreamEnd, None),
                    Err(error) => (used, made, false, Some(error.to_string())),
                }
            }
            Codec::Zstd(context) => {
                let mut input = InBuffer::around(rest);
                let mut output = OutBuffer::around(&mut out[start..]);
                let status = context.decompress_stream(&mut output, &mut input);
                let (used, made) = (input.pos(), output.pos());
                match status {
                    Ok(left) => (used, made, left == 0, None),
                    Err(code) => (used, made, false, Some(get_error_name(code).to_owned())),
                }
            }
        };
        out.truncate(start + made);
        self.input_at += used;
        self.consumed += used as u64;
        self.between = ended;
        self.dry = !ended && made < room;
        Ok(failed.map(Inflated::Corrupt))
    }
}

/// What was found where a member should begin.
enum Begin {
    Member,
    Padding,
    Starved,
    Garbage,
}
