//! Named points of a commit at which a test kills the process, to check that the next one recovers.
//!
//! They are part of every build, so that tests run the code that is released. Each costs a lookup in an empty map a few
//! times per epoch. Only builds with debug assertions read the environment variable `FAILPOINTS`, which arms them: no
//! environment can stop a release build.

/// All fail points, in the order in which a commit and its projection reach them.
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

/// A file that is created once and never overwritten (a record of the epoch log, an entry of a Delta log) is on the
/// local disk under a temporary name, but not yet under its own.
pub const RECORD_TEMPORARY_WRITTEN: &str = "record_temporary_written";

/// The HTTP server is about to accept a connection; a test kills it there with `panic`.
pub const ACCEPTING: &str = "accepting";

/// Recovery is about to read a record of the epoch log; a test slows it down with `sleep(milliseconds)`.
pub const RECOVERING: &str = "recovering";

/// Columns were added to a lake table of an earlier version.
pub const COLUMNS_ADDED: &str = "columns_added";

/// The records of a transaction of `adtally repartition` were sent, and it is about to be committed.
pub const TRANSACTION_SENT: &str = "transaction_sent";

/// A transaction of `adtally repartition` was committed.
pub const TRANSACTION_COMMITTED: &str = "transaction_committed";

/// Points that are not part of a commit.
const ELSEWHERE: [&str; 5] = [ACCEPTING, RECOVERING, COLUMNS_ADDED, TRANSACTION_SENT, TRANSACTION_COMMITTED];

/// Marks that the process reaches one of [`FAIL_POINTS`] or another point that is named here. If a test armed it with
/// `return`, the process ends as abruptly as with SIGKILL.
pub fn reach(point: &str) {
    debug_assert!(FAIL_POINTS.contains(&point) || ELSEWHERE.contains(&point), "{point} is not in the list");
    fail::fail_point!(point, |_| std::process::abort());
}

/// Arms the points from the environment variable `FAILPOINTS` until the returned value is dropped. Does nothing in a
/// release build.
pub fn arm() -> Option<fail::FailScenario<'static>> {
    cfg!(debug_assertions).then(fail::FailScenario::setup)
}
