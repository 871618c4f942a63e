//! What can go wrong, each with what was tried and on what.
//!
//! There is no `From<io::Error>`, so that a bare `?` that would lose the path does
//! not compile.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of anything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error as a person reads it: lower case, no full stop, the cause in `source`.
#[derive(Debug)]
pub enum Error {
    /// The system refused an operation on a file, a socket or a directory.
    Io {
        /// What was tried, as a verb: "open", "rename".
        op: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something given to us is wrong: the text says what, and what is right.
    Input(String),
    /// The peer of a conversation broke its rules, or ended it in the middle.
    Peer(String),
    /// The work was told to stop before it was done.
    Stopped,
}

impl Error {
    /// An I/O error with its operation and path.
    pub fn io(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// Bad input.
    pub fn input(text: impl Into<String>) -> Self {
        Self::Input(text.into())
    }

    /// A peer that broke the rules.
    pub fn peer(text: impl Into<String>) -> Self {
        Self::Peer(text.into())
    }

    /// The same I/O error, on something that whoever raised it could not name.
    pub fn on(self, path: impl AsRef<Path>) -> Self {
        match self {
            Self::Io { op, source, .. } => Self::io(op, path, source),
            other => other,
        }
    }

    /// The kind of the I/O error, if it is one.
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    /// The whole chain on one line: the error, then each cause.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { op, path, .. } => write!(f, "cannot {op} {}", path.display()),
            Self::Input(text) | Self::Peer(text) => f.write_str(text),
            Self::Stopped => f.write_str("stopped before it was done: the rest is left for later"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
