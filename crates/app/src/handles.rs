//! How many files a process may have open, and who gets how many of them.
//!
//! Logs and clients come in any number. Commits and answers need handles as well, so these are set aside.

use crate::config::Config;
use adtally_engine::{Ending, RunOptions};
use adtally_serve::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Handles set aside for commits, the lake and its questions, the lock and the threads' own: some 60 were seen at most.
const RESERVED: usize = 128;

/// Log files held open at most, however many handles there are.
const FILES_MAX: usize = 16_384;

/// Handles by use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Log files held open at a time; others are opened again when they are read.
    pub files: usize,
    /// HTTP connections at a time.
    pub connections: usize,
}

/// Raises the soft limit of this process to the hard one, as far as the system lets it.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What it may not have it does without: the shares follow from what there is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// A run that ends like this, and tries so often to write before it gives up, within the handles that it may have.
pub fn run_options(config: &Config, ending: Ending, attempts_max: u32) -> RunOptions {
    let mut settings = config.run.clone();
    // A bounded run serves nobody.
    let connections = if ending.is_bounded() { 0 } else { config.limits.connections_max };
    settings.source.tail.open_max = share_of_process(connections).files;
    RunOptions { settings, ending, attempts_max }
}

/// Bounds of the HTTP server within the handles that it may have.
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

/// How this process shares its handles out, if `connections` are wanted.
pub fn share_of_process(connections: usize) -> Share {
    let limit = getrlimit(Resource::Nofile).current;
    share(limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)), connections)
}

/// How a number of handles is shared out, if `connections` are wanted: of what is not reserved, connections get half at
/// most.
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
