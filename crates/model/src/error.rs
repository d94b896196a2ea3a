//! One error type for all rooms. It tells the caller what to do, not which library failed.

use crate::Invariant;
use std::error::Error as StdError;
use std::fmt;

/// The party that must act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The user: wrong argument, configuration or query.
    User,
    /// The environment: disk, network, another process. See [`Error::is_retryable`].
    External,
    /// Stored data is damaged or contradicts itself; the message names the repair.
    Corrupt,
    /// Another process owns the partition; this one must stop and write nothing more.
    Fenced,
    /// A defect of Adtally: an invariant does not hold.
    Internal,
}

/// An error: its message says what went wrong, where, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    retryable: bool,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Shorthand for results of this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind that is not retryable.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, retryable: false, message: message.into(), source: None }
    }

    /// The user must change something.
    pub fn user(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::User, message)
    }

    /// The environment failed, and a retry may succeed.
    pub fn transient(message: impl Into<String>) -> Self {
        Error { retryable: true, ..Error::new(ErrorKind::External, message) }
    }

    /// The environment failed, and a retry will not help.
    pub fn external(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::External, message)
    }

    /// Stored data is damaged.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Corrupt, message)
    }

    /// Another process owns the partition.
    pub fn fenced(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Fenced, message)
    }

    /// A defect of Adtally.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// An invariant does not hold: the process must stop.
    pub fn violated(invariant: Invariant, message: impl fmt::Display) -> Self {
        Error::internal(format!("invariant {invariant} is violated: {message}"))
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The party that must act.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The message, followed by the messages of its causes.
    pub fn report(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let message = error.to_string();
            if !text.ends_with(&message) {
                text.push_str(": ");
                text.push_str(&message);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
