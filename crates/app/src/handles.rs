//! How many files a process may open, and how they are divided.
//!
//! The numbers of logs and clients are unlimited. Commits and answers need handles too, so some are reserved.

use crate::config::Config;
use adtally_engine::{Ending, RunOptions};
use adtally_serve::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Handles reserved for commits, the lake and its queries, the lock and the threads: the most observed were some 60.
const RESERVED: usize = 128;

/// Maximum number of open log files, however many handles there are.
const FILES_MAX: usize = 16_384;

/// Numbers of handles by use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Maximum open log files at a time; others are opened again when they are read.
    pub files: usize,
    /// Maximum HTTP connections at a time.
    pub connections: usize,
}

/// Raises the soft limit of this process to the hard one, as far as the system allows.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Errors are ignored: the shares follow from the actual limit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// The options of a run with this ending and number of write attempts, within the available handles.
pub fn run_options(config: &Config, ending: Ending, attempts_max: u32) -> RunOptions {
    let mut settings = config.run.clone();
    // A bounded run has no HTTP server.
    let connections = if ending.is_bounded() { 0 } else { config.limits.connections_max };
    settings.source.tail.open_max = share_of_process(connections).files;
    RunOptions { settings, ending, attempts_max }
}

/// The bounds of the HTTP server within the available handles.
pub fn limits(config: &Config) -> Limits {
    let wished = config.limits.connections_max;
    let connections_max = share_of_process(wished).connections;
    if connections_max < wished {
        tracing::warn!(
            "only {connections_max} connections at a time instead of {wished} (serve.max_connections): the limit of \
             open files is too low; raise it (`ulimit -Hn`)"
        );
    }
    Limits { connections_max, ..config.limits }
}

/// The division of this process's handles, if `connections` are wanted.
pub fn share_of_process(connections: usize) -> Share {
    let limit = getrlimit(Resource::Nofile).current;
    share(limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)), connections)
}

/// Divides a number of handles, if `connections` are wanted. Connections get at most half of the unreserved ones.
fn share(handles: usize, connections: usize) -> Share {
    let free = handles.saturating_sub(RESERVED);
    let connections = connections.min(free / 2).max(1);
    Share { files: free.saturating_sub(connections).clamp(1, FILES_MAX), connections }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_and_answers_keep_theirs() {
        let check = |handles, connections, expected: (usize, usize)| {
            let share = share(handles, connections);
            assert_eq!((share.files, share.connections), expected, "{handles} handles");
        };
        check(usize::MAX, 512, (FILES_MAX, 512));
        check(20_000, 512, (FILES_MAX, 512));
        check(1_024, 512, (448, 448));
        check(1_024, 16, (880, 16));
        check(256, 512, (64, 64));
        check(64, 512, (1, 1));
    }
}
