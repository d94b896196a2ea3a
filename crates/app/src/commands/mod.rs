//! The commands, one per file: each reads its arguments, calls the rooms and prints.

#[cfg(feature = "scale-out")]
pub mod agent;
pub mod backfill;
mod closing;
pub mod config;
mod control;
mod correct;
pub mod count;
pub mod dead_letters;
pub mod demo;
mod found;
pub mod generate;
pub mod inspect;
pub mod ledger;
pub mod reconcile;
pub mod repair;
#[cfg(feature = "scale-out")]
pub mod repartition;
pub mod retire;
pub mod run;
pub mod serve;
mod serving;
pub mod settings;
mod spool;
pub mod sql;
mod stopping;
pub mod verify;
#[cfg(feature = "scale-out")]
pub mod worker;

use adtally_model::{Error, Result};
use adtally_store::backing::StoreUrl;
use std::io::ErrorKind;
use std::path::Path;

/// Stack of the runtime's threads, in bytes: DataFusion plans recursively, and needs deep stacks in unoptimised builds.
const THREAD_STACK_BYTES: usize = 8 << 20;

/// How long the process waits at its end for threads that still compute.
pub(crate) const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// A runtime for the stores' and the server's I/O.
///
/// # Errors
/// External when threads cannot be started.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|e| Error::external("the I/O threads cannot be started").because(e))
}

/// Keeps a runtime alive until the process ends. The lake's library panics if its tasks are cancelled, such as those of
/// an abandoned recovery. They need not finish, and may continue.
pub(crate) fn leave_running(runtime: tokio::runtime::Runtime) {
    std::mem::forget(runtime);
}

/// Rejects a missing data directory, since reading commands must not create one. An object store is examined when it is
/// read.
pub(crate) fn existing(data_dir: &StoreUrl) -> Result<()> {
    let Some(place) = data_dir.folder() else { return Ok(()) };
    for folder in ["epochs", "lake"] {
        match std::fs::metadata(place.join(folder)) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => {
                let what = format!("the data directory {data_dir} cannot be read");
                return Err(Error::external(what).because(error));
            }
        }
    }
    Err(Error::user(format!(
        "{data_dir} is not a data directory of adtally: use the --data-dir of a `run` that has committed something"
    )))
}

/// The error of a command whose temporary folder cannot be written.
pub(crate) fn temporary_folder_failed(folder: &Path) -> Error {
    let parent = folder.parent().unwrap_or(folder).display();
    Error::external(format!(
        "the temporary folder {} cannot be written: free some space in {parent}, or set TMPDIR to another folder",
        folder.display()
    ))
}
