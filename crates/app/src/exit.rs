//! Exit codes, one a kind of outcome.

use adtally_model::{Error, ErrorKind};
use std::process::ExitCode;

/// What a process ends with. `adtally --help` shows this table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Something outside failed: a disk, a network, a file that cannot be read.
    Failure = 1,
    /// A wrong argument, configuration or query.
    Usage = 2,
    /// Stored data is damaged, or `verify` found a difference.
    Damaged = 3,
    /// The data directory is in use, or another process took the partition over.
    Fenced = 4,
    /// A defect of Adtally: an invariant does not hold.
    Defect = 5,
    /// A bounded run was stopped by a signal before its end; what it had read is committed.
    Interrupted = 130,
}

/// The table for `--help`.
pub const TABLE: &str = "Exit codes:
  0    done
  1    something outside failed: a disk, a network, a file that cannot be read
  2    a wrong argument, configuration or query
  3    stored data is damaged, or `verify` found a difference
  4    the data directory is in use, or another process took it over
  5    a defect of adtally: an invariant does not hold; please report it
  130  stopped by a signal before the end; what was read is committed";

impl Exit {
    /// How an error ends the process.
    pub fn of(error: &Error) -> Exit {
        match error.kind() {
            ErrorKind::User => Exit::Usage,
            ErrorKind::External => Exit::Failure,
            ErrorKind::Corrupt => Exit::Damaged,
            ErrorKind::Fenced => Exit::Fenced,
            ErrorKind::Internal => Exit::Defect,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
