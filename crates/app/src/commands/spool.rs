//! Standard input and pipes as inputs of a command that reads files. They are copied into its temporary folder first,
//! since only a file can be read again from a position and has a known end.

use super::stopping::Stopping;
use crate::inspect::{SAMPLE_BYTES_MAX, SAMPLE_LINES};
use crate::pattern::literally;
use crate::terminal;
use adtally_model::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The name of standard input among files.
const STDIN: &str = "-";

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 * 1024;

/// How often the end of a copy is checked.
const POLL: Duration = Duration::from_millis(10);

/// The number of checks after which a message says what the command waits for: five seconds.
const TOLD_AFTER_POLLS: u32 = 500;

/// The part of a stream to copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Share {
    /// All of it.
    Whole,
    /// Only the sample that `inspect` reads.
    Sample,
}

/// Copies of the streams among a command's files.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    /// The path of each copy, and the name of its stream.
    copies: Vec<(PathBuf, String)>,
}

/// Whether a name on the command line is standard input or a pipe.
pub(crate) fn is_stream(name: &str) -> bool {
    name == STDIN || std::fs::metadata(name).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

impl Spool {
    /// Copies the streams among `names` into a folder, one after another. Returns the names as patterns, with the
    /// copies in place of the streams; `None` if the command was asked to stop before.
    ///
    /// # Errors
    /// External when a stream cannot be read or the folder cannot be written.
    pub(crate) fn fill(
        names: &[String],
        share: Share,
        folder: &Path,
        stopping: &Stopping,
    ) -> Result<Option<(Spool, Vec<String>)>> {
        let (mut spool, mut patterns) = (Spool::default(), Vec::new());
        for name in names {
            if !is_stream(name) {
                patterns.push(name.clone());
                continue;
            }
            let path = folder.join(format!("stream-{}", spool.copies.len() + 1));
            if !copy_unless_stopped(name, share, &path, stopping)? {
                return Ok(None);
            }
            patterns.push(literally(&path.display().to_string()));
            spool.copies.push((path, name.clone()));
        }
        Ok(Some((spool, patterns)))
    }

    /// The paths of the copies.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.copies.iter().map(|(path, _)| path.as_path())
    }

    /// Replaces the paths of copies in a message by the names of the streams.
    pub(crate) fn named(&self, text: &str) -> String {
        self.copies.iter().fold(text.to_owned(), |text, (path, name)| {
            let shown = if name == STDIN { "standard input" } else { name };
            text.replace(&path.display().to_string(), shown)
        })
    }
}

/// Copies on a thread, so that signals are handled while no data arrives. Returns whether the copy was completed.
fn copy_unless_stopped(name: &str, share: Share, to: &Path, stopping: &Stopping) -> Result<bool> {
    if name == STDIN && std::io::stdin().is_terminal() {
        terminal::say("reading standard input; Ctrl-D on an empty line ends it");
    }
    let copied = Arc::new(AtomicU64::new(0));
    let copying = {
        let (name, to, copied) = (name.to_owned(), to.to_owned(), Arc::clone(&copied));
        let copying = std::thread::Builder::new().name("spool".into()).spawn(move || copy(&name, share, &to, &copied));
        copying.map_err(|e| Error::external("the thread that reads a stream cannot be started").because(e))?
    };
    for polls in 1_u32.. {
        if copying.is_finished() {
            break;
        }
        if stopping.flag().load(Ordering::Relaxed) {
            return Ok(false);
        }
        if polls == TOLD_AFTER_POLLS && copied.load(Ordering::Relaxed) == 0 {
            let name = terminal::on_one_line(name);
            terminal::say(&format!("no data from {name} yet: waiting for its writer to write data and close it"));
        }
        std::thread::sleep(POLL);
    }
    let ended = copying.join().map_err(|_| Error::internal("the thread that reads a stream panicked"))?;
    ended.map(|()| true)
}

fn copy(name: &str, share: Share, to: &Path, copied: &AtomicU64) -> Result<()> {
    let unreadable = |e: std::io::Error| Error::external(format!("{name} cannot be read")).because(e);
    let unwritable = |e: std::io::Error| super::temporary_folder_failed(to.parent().unwrap_or(to)).because(e);
    let mut from: Box<dyn Read> = match name {
        STDIN => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).map_err(unreadable)?),
    };
    let mut file = File::create_new(to).map_err(unwritable)?;
    let mut buffer = vec![0; COPY_BYTES];
    let (mut lines, mut bytes) = (0, 0);
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(unreadable(e)),
        };
        file.write_all(&buffer[..read]).map_err(unwritable)?;
        copied.fetch_add(read as u64, Ordering::Relaxed);
        bytes += read;
        if share == Share::Sample {
            lines += buffer[..read].iter().filter(|&&byte| byte == b'\n').count();
            if lines >= SAMPLE_LINES || bytes >= SAMPLE_BYTES_MAX {
                return Ok(());
            }
        }
    }
}
