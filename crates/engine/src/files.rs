//! The source of an embedded process: log files.

use crate::clock::Clock;
use crate::options::Ending;
use crate::settings::Settings;
use adtally_model::{PartitionState, Result};
use adtally_source::{FileSystem, Source, TailSettings, Tailer};

/// A source that follows the files of the settings, continuing from a recovered state.
///
/// # Errors
/// A user error for invalid settings or for paths that lead nowhere.
pub fn file_source(
    settings: &Settings,
    ending: Ending,
    files: Box<dyn FileSystem + Send>,
    state: &PartitionState,
    clock: &dyn Clock,
) -> Result<Box<dyn Source>> {
    let last_rows_before_ms = match ending {
        Ending::Scratch => Some(i64::MAX),
        Ending::Final => Some(clock.wall_ms() - settings.time.idle_timeout_ms),
        Ending::UntilEnd | Ending::Never => None,
    };
    let source = &settings.source;
    let tail = TailSettings { bounded: ending.is_bounded(), last_rows_before_ms, ..source.tail.clone() };
    let known = state.inputs.values().cloned().collect();
    let next_input = state.progress.next_input.max(1);
    Ok(Box::new(Tailer::new(files, tail, &source.paths, known, next_input)?))
}
