//! The control socket of a data directory: other processes of this machine ask its owner to reconcile.
//!
//! A client sends one line of JSON, a [`Request`]. The owner answers with lines of JSON, each a [`Reply`]: progress, then
//! the report or an error. The socket is in the data directory, with mode 0600. Closing the connection does not stop a
//! run.

use crate::terminal;
use adtally_engine::reconciler::{Asked, ReconcilerHandle};
use adtally_model::time::{EVENT_TIME_END_MS, EVENT_TIME_MIN_MS};
use adtally_model::{Error, ErrorKind, Minute, Result};
use adtally_reconcile::{LetterSelection, ReconcileOptions, ReconcileReport};
use adtally_source::DecodeSettings;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// The name of the socket in the data directory.
const SOCKET: &str = "control.sock";

/// Longest request, in bytes. The settings of lines and the paths of files are the larger part.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// The time in which a client must send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Most progress lines that wait for a client; further ones are dropped.
const PROGRESS_MAX: usize = 16;

/// What a client asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// To reconcile.
    Reconcile { from: Option<Minute>, to: Option<Minute>, minutes: Option<Vec<Minute>> },
    /// To revert a run.
    Revert { run: u64 },
    /// To decode rejected lines again.
    Replay { reason: Option<String>, since_ms: Option<i64>, decode: Box<DecodeSettings> },
    /// To bring in files, given by their absolute paths.
    Backfill { paths: Vec<String>, decode: Box<DecodeSettings> },
}

/// One line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// The run begins when another one has ended.
    Waiting,
    /// What is done, and what is to do: minutes, lines or bytes.
    Progress(u64, u64),
    /// The result.
    Report(Box<ReconcileReport>),
    /// A failure: its message, and who must act.
    Error { message: String, kind: FailureKind },
}

/// Who must act after a failure.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FailureKind {
    /// The user.
    User,
    /// The operator: stored data is damaged.
    Damage,
    /// Another process: it has taken the partition over.
    Fenced,
    /// The developers: it is a defect.
    Defect,
    /// Nobody, or the environment.
    Other,
}

/// The socket of a data directory. A path through an open folder is short, whatever the folder's path: the path of a
/// socket has at most 107 bytes.
fn socket_of(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

fn open(data_dir: &Path) -> Result<File> {
    File::open(data_dir)
        .map_err(|error| Error::external(format!("{} cannot be opened", data_dir.display())).because(error))
}

/// Listens on the socket of a data directory that this process owns.
///
/// # Errors
/// External when the socket cannot be made.
pub(crate) fn listen(data_dir: &Path) -> Result<UnixListener> {
    let failed = |error| {
        Error::external(format!("the socket {} cannot be made", data_dir.join(SOCKET).display())).because(error)
    };
    let folder = open(data_dir)?;
    let path = socket_of(&folder);
    // A crash leaves the socket behind.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves requests until the task is dropped.
pub(crate) async fn serve(listener: UnixListener, reconciler: ReconcilerHandle) {
    loop {
        match listener.accept().await {
            // A group may enter the folder, and the socket had its final mode only after it was made.
            Ok((stream, _)) if !is_of_owner(&stream) => {
                tracing::warn!("a client of another user was refused at the control socket");
            }
            Ok((stream, _)) => {
                let reconciler = reconciler.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, reconciler).await {
                        tracing::debug!("a client of the control socket left: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("the control socket does not accept connections: {error}");
                tokio::time::sleep(REQUEST_TIMEOUT).await;
            }
        }
    }
}

/// Whether the process at the other end belongs to the user of this process, or to root.
fn is_of_owner(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn answer(stream: UnixStream, reconciler: ReconcilerHandle) -> std::io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut line = String::new();
    let mut limited = BufReader::new(reading.take(REQUEST_BYTES_MAX));
    let read = tokio::time::timeout(REQUEST_TIMEOUT, limited.read_line(&mut line)).await;
    let request = match read.map_err(std::io::Error::other)?.map(|_| serde_json::from_str(&line))? {
        Ok(request) => request,
        Err(error) => {
            let message = format!(
                "the service does not understand the request: use the same version of adtally for both ({error})"
            );
            return send(&mut writing, &Reply::Error { message, kind: FailureKind::User }).await;
        }
    };
    let asked = match request {
        Request::Reconcile { from, to, minutes }
            if [from, to]
                .into_iter()
                .flatten()
                .chain(minutes.iter().flatten().copied())
                .any(|minute| !is_accepted(minute)) =>
        {
            let message = "the minutes are not within the years 2000 to 2099".to_owned();
            return send(&mut writing, &Reply::Error { message, kind: FailureKind::User }).await;
        }
        Request::Reconcile { from, to, minutes } => {
            Asked::Reconcile(ReconcileOptions { from, to, minutes, made_by: "command" })
        }
        Request::Revert { run } => Asked::Revert(run),
        Request::Replay { reason, since_ms, decode } => Asked::Replay(LetterSelection { reason, since_ms }, decode),
        Request::Backfill { paths, decode } => Asked::Backfill(paths, decode),
    };
    let (progress, mut told) = mpsc::channel(PROGRESS_MAX);
    let watch = Box::new(move |done, minutes| {
        // Progress is dropped if the client does not read it.
        let _ = progress.try_send((done, minutes));
    });
    if reconciler.is_busy() {
        send(&mut writing, &Reply::Waiting).await?;
    }
    let run = reconciler.run(asked, watch);
    tokio::pin!(run);
    let done = loop {
        tokio::select! {
            done = &mut run => break done,
            Some((done, minutes)) = told.recv() => send(&mut writing, &Reply::Progress(done, minutes)).await?,
        }
    };
    let reply = match done {
        Ok(report) => Reply::Report(Box::new(report)),
        Err(error) => {
            let kind = match error.kind() {
                ErrorKind::User => FailureKind::User,
                ErrorKind::Corrupt => FailureKind::Damage,
                ErrorKind::Fenced => FailureKind::Fenced,
                ErrorKind::Internal => FailureKind::Defect,
                ErrorKind::External => FailureKind::Other,
            };
            Reply::Error { message: error.report(), kind }
        }
    };
    send(&mut writing, &reply).await
}

/// Whether clicks of a minute are accepted at all. The end of the last minute counts.
pub(crate) fn is_accepted(minute: Minute) -> bool {
    (Minute::of(EVENT_TIME_MIN_MS)..=Minute::of(EVENT_TIME_END_MS)).contains(&minute)
}

async fn send(writing: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_string(reply)?;
    line.push('\n');
    writing.write_all(line.as_bytes()).await
}

/// Asks the owner of a data directory for a run. `watch` is called with the minutes done and the minutes to do.
///
/// # Errors
/// Fenced when the owner does not listen, which is so in bounded runs; the owner's error; transient when it stops.
pub(crate) async fn ask(data_dir: &Path, asked: Asked, watch: impl Fn(u64, u64)) -> Result<ReconcileReport> {
    let folder = open(data_dir)?;
    let stream = UnixStream::connect(socket_of(&folder)).await.map_err(|error| {
        Error::fenced(format!(
            "{} is in use by a process that takes no requests: a bounded run, or a service that is starting. Try again when \
             the run has ended, or when `/readyz` of the service answers 200. If that does not help, look for {SOCKET} in the \
             log of the service",
            data_dir.display()
        ))
        .because(error)
    })?;
    let left = |error| {
        Error::transient(
            "the service stopped before the run ended: start it, and run the command again. What was committed is not \
             counted twice",
        )
        .because(error)
    };
    let (reading, mut writing) = stream.into_split();
    let request = match asked {
        Asked::Reconcile(ReconcileOptions { from, to, minutes, .. }) => Request::Reconcile { from, to, minutes },
        Asked::Revert(run) => Request::Revert { run },
        Asked::Replay(LetterSelection { reason, since_ms }, decode) => Request::Replay { reason, since_ms, decode },
        Asked::Backfill(paths, decode) => Request::Backfill { paths, decode },
    };
    let mut line = serde_json::to_string(&request)
        .map_err(|error| Error::internal("the request cannot be written").because(error))?;
    line.push('\n');
    if line.len() as u64 > REQUEST_BYTES_MAX {
        return Err(Error::user(format!(
            "the request to the service has {} bytes, but at most {REQUEST_BYTES_MAX} are allowed: give fewer files or minutes",
            line.len()
        )));
    }
    writing.write_all(line.as_bytes()).await.map_err(left)?;
    let mut replies = BufReader::new(reading).lines();
    while let Some(line) = replies.next_line().await.map_err(left)? {
        let reply = serde_json::from_str(&line).map_err(|error| {
            let what = format!(
                "the service that owns {} gives an answer that is not understood: use the same version of adtally for both",
                data_dir.display()
            );
            Error::user(what).because(error)
        })?;
        match reply {
            Reply::Waiting => terminal::say("waiting: the service does another run first"),
            Reply::Progress(done, minutes) => watch(done, minutes),
            Reply::Report(report) => return Ok(*report),
            Reply::Error { message, kind } => {
                return Err(match kind {
                    FailureKind::User => Error::user(message),
                    FailureKind::Damage => Error::corrupt(message),
                    FailureKind::Fenced => Error::fenced(message),
                    FailureKind::Defect => Error::internal(message),
                    FailureKind::Other => Error::external(message),
                });
            }
        }
    }
    Err(left(std::io::ErrorKind::UnexpectedEof.into()))
}
