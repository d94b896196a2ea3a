//! Exit codes, one per kind of outcome.

use adtally_model::{Error, ErrorKind};
use std::process::ExitCode;

/// The exit code of a process. `adtally --help` shows this table.
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
    /// A signal stopped a bounded run before its end (`run` has committed what it read), or a second one stopped any
    /// command at once.
    Interrupted = 130,
}

/// The table for `--help`.
pub const TABLE: &str = "Exit codes:
  0    done
  1    something outside failed: a disk, a network, a file that cannot be read
  2    a wrong argument, configuration or query
  3    stored data is damaged, `verify` found a difference, or `reconcile` found something that it did not correct
  4    the data directory is in use, or another process took it over
  5    a defect of adtally: an invariant does not hold; please report it
  130  a signal stopped a bounded run before its end (`run` has committed what it read), or a second one stopped any
       command at once";

impl Exit {
    /// The exit code for an error.
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

#[cfg(test)]
mod tests {
    use super::*;
    use adtally_model::Invariant;

    #[test]
    fn each_kind_of_error_has_its_code() {
        let check = |error: Error, expected: u8| assert_eq!(Exit::of(&error) as u8, expected, "{error}");
        check(Error::external("a disk"), 1);
        check(Error::transient("a disk for now"), 1);
        check(Error::user("an argument"), 2);
        check(Error::corrupt("a record"), 3);
        check(Error::new(ErrorKind::Fenced, "another process"), 4);
        check(Error::internal("a defect"), 5);
        check(Error::violated(Invariant::NoDoubleCount, "twice"), 5);
    }

    /// Operators read the README; `--help` must say the same.
    #[test]
    fn the_readme_has_the_same_table() {
        let readme = include_str!("../../../README.md");
        let (_, section) = readme.split_once("## Exit codes").expect("a section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = section.lines().filter_map(|row| row.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
        let rows: Vec<_> = rows.skip(1).map(|(code, meaning)| format!("{code:<5}{meaning}")).collect();
        let table: Vec<_> = TABLE.lines().skip(1).map(str::trim).collect();
        assert_eq!(table.join(" "), rows.join(" "));
    }
}
