//! Named moments of a commit at which a test kills the process, to see what the next one makes of what is left.
//!
//! They are part of every build, where they cost a look into an empty map a few times an epoch, so that what is tested
//! is what runs. Only builds with debug assertions read the environment variable `FAILPOINTS` that arms them: nobody's
//! environment can stop a release.

/// All of them, in the order in which a commit and its projection pass them.
pub const FAIL_POINTS: [&str; 10] = [
    "before_stage",
    "after_stage",
    "before_record",
    RECORD_TEMPORARY_WRITTEN,
    "after_record",
    "before_projection",
    "between_tables",
    "after_projection",
    "before_collect",
    "while_collecting",
];

/// What is created once and never overwritten (a record of the epoch log, an entry of a Delta log) lies on the local
/// disk under a temporary name, and not yet under its own.
pub const RECORD_TEMPORARY_WRITTEN: &str = "record_temporary_written";

/// The HTTP server is about to accept a connection: a test has it die there by `panic`.
pub const ACCEPTING: &str = "accepting";

/// Recovery is about to read a record of the epoch log: a test makes it slow by `sleep(milliseconds)`.
pub const RECOVERING: &str = "recovering";

/// Columns were added to a table of the lake that an earlier version made.
pub const COLUMNS_ADDED: &str = "columns_added";

/// Moments that are no part of a commit.
const ELSEWHERE: [&str; 3] = [ACCEPTING, RECOVERING, COLUMNS_ADDED];

/// A process reaches one of [`FAIL_POINTS`] or another moment that is named here. Where a test armed it with `return`, that is the process's end, as abrupt
/// as that of a SIGKILL.
pub fn reach(point: &str) {
    debug_assert!(FAIL_POINTS.contains(&point) || ELSEWHERE.contains(&point), "{point} is not in the list");
    fail::fail_point!(point, |_| std::process::abort());
}

/// Arms the points as the environment variable `FAILPOINTS` says, until what is returned is dropped. Does nothing in a
/// release build.
pub fn arm() -> Option<fail::FailScenario<'static>> {
    cfg!(debug_assertions).then(fail::FailScenario::setup)
}
