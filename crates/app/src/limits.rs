//! Limits that the shell sets on the process.

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Lets writing beyond `ulimit -f` fail like writing to a full disk: without somebody who listens, the signal SIGXFSZ kills
/// the process. Listening once is enough, and lasts as long as the process.
///
/// Where the signal cannot be listened to, the limit kills, as it does elsewhere.
pub(crate) fn survive_file_size() {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() {
        let _inside = runtime.enter();
        drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw())));
    }
}
