//! Handles limits that the shell sets on the process.

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Makes a write beyond `ulimit -f` fail like one to a full disk. Without a handler, the signal SIGXFSZ kills the
/// process. Installing a handler once is enough for the life of the process.
///
/// If the handler cannot be installed, the limit kills the process.
pub(crate) fn survive_file_size() {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() {
        let _inside = runtime.enter();
        drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw())));
    }
}
