//! From configuration to what runs: the settings of the rooms, within what the process may open.

use crate::config::Config;
use crate::handles;
use adtally_engine::{Ending, RunOptions};
use adtally_serve::Limits;

/// A run that ends like this, and tries so often to write before it gives up.
pub fn run_options(config: &Config, ending: Ending, attempts_max: u32) -> RunOptions {
    let mut settings = config.run.clone();
    // A bounded run serves nobody.
    let connections = if ending.is_bounded() { 0 } else { config.limits.connections_max };
    settings.source.tail.open_max = handles::share_of_process(connections).files;
    RunOptions { settings, ending, attempts_max }
}

/// Bounds of the HTTP server.
pub fn limits(config: &Config) -> Limits {
    let wished = config.limits.connections_max;
    let connections_max = handles::share_of_process(wished).connections;
    if connections_max < wished {
        tracing::warn!(
            "only {connections_max} connections at a time instead of {wished} (serve.max_connections): the limit of \
             open files is too low; raise it (`ulimit -Hn`)"
        );
    }
    Limits { connections_max, ..config.limits }
}
