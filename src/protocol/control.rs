//! The control socket: what the hook and the administrator ask of the daemon. A line of
//! JSON with the question, one question a connection, and one or more lines with the
//! answer, of which the last is not [`Reply::Progress`] or [`Reply::Damaged`]. It is never
//! bound into a sandbox.

use crate::error::{Error, Result};
use crate::mode::Mode;
use crate::protocol::wire;
use crate::report::{BuildRecord, Live, Report, Swept, Verified};
use serde::{Deserialize, Serialize};
use std::io::{BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest line of an answer, in bytes: the records of a month can be long.
const ANSWER_MAX: u64 = 64 << 20;

/// A question as it crosses the socket.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// The cache that is meant, if it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

impl From<Ask> for Question {
    /// Asks a daemon whatever its cache is.
    fn from(ask: Ask) -> Self {
        Self { cache: None, ask }
    }
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// Register a build.
    Register {
        /// The derivation's name.
        name: String,
        /// Nix's chroot for the build, which is gone when the build has ended.
        chroot: Option<PathBuf>,
        /// What the derivation says that it may do.
        #[serde(default)]
        mode: Mode,
        /// Whether its output is fixed by a hash: only such a build fetches modules. None when that is unknown.
        #[serde(default)]
        fixed: Option<bool>,
    },
    /// Say how things are.
    Stats,
    /// Evict.
    Gc {
        /// What to evict.
        what: Gc,
        /// Only say what would go.
        dry_run: bool,
    },
    /// Say what is going on right now, which costs no walk over the store.
    Live,
    /// The records of builds that have ended.
    Builds {
        /// How far back, in seconds.
        since: u64,
        /// The most that are wanted: the newest.
        limit: usize,
        /// Those too that have not ended.
        #[serde(default)]
        live: bool,
    },
    /// Ask the remote for something, to see whether it answers.
    CheckRemote,
    /// Read everything and look whether it is whole.
    Verify {
        /// Remove what is damaged.
        repair: bool,
    },
}

/// What to evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gc {
    /// What the limits of the daemon, or these in their place, do not allow.
    Beyond {
        /// In bytes.
        max_size: Option<u64>,
        /// The time since the last use.
        max_age: Option<Duration>,
    },
    /// All that no live build uses.
    All,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The question could not be answered.
    Failed {
        /// Why.
        error: String,
    },
    /// This daemon has another cache than the one that is meant.
    Elsewhere {
        /// The one it has.
        cache: PathBuf,
    },
    /// The build is registered.
    Registered {
        /// Its ID.
        build: String,
        /// Its directory's path on the host.
        directory: PathBuf,
    },
    /// How things are.
    Stats(Box<Report>),
    /// What is going on.
    Live(Box<Live>),
    /// Builds that have ended, oldest first.
    Builds {
        /// Their records.
        builds: Vec<BuildRecord>,
    },
    /// What has come of asking the remote.
    Remote {
        /// Where it is; none when there is no remote.
        url: Option<String>,
        /// What is wrong.
        error: Option<String>,
        /// How long it took, in microseconds.
        time: u64,
    },
    /// It is being worked on.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes to be done in all.
        total: u64,
    },
    /// Something is damaged.
    Damaged {
        /// What, and how.
        what: String,
    },
    /// Everything was read.
    Verified(Verified),
    /// What was evicted, or would be.
    Swept(Swept),
}

/// The error of what only root may do, with what to do about it.
pub fn only_root(error: Error) -> Error {
    if error.kind() != Some(ErrorKind::PermissionDenied) {
        return error;
    }
    Error::input(format!(
        "{}: only root may do this; run it with sudo",
        error.chain()
    ))
}

/// Asks the daemon, and waits for each line of its answer for at most `limit`; gives
/// `meanwhile` what it says before the last one.
///
/// # Errors
/// When there is no daemon, or it does not answer, or says that it failed.
pub fn ask(
    socket: &Path,
    question: &Question,
    limit: Duration,
    meanwhile: &mut impl FnMut(Reply),
) -> Result<Reply> {
    let mut stream =
        UnixStream::connect(socket).map_err(|e| Error::io("reach the daemon at", socket, e))?;
    stream
        .set_read_timeout(Some(limit))
        .and_then(|()| stream.set_write_timeout(Some(limit)))
        .map_err(|e| Error::io("set the time limit of", socket, e))?;
    let unreachable = |e: Error| e.on("the daemon");
    wire::write_line(&mut stream, question).map_err(unreachable)?;
    let mut reader = BufReader::new(&stream);
    loop {
        match wire::read_line_within(&mut reader, ANSWER_MAX).map_err(unreachable)? {
            Some(Reply::Failed { error }) => {
                return Err(Error::peer(format!("the daemon says: {error}")));
            }
            Some(reply @ (Reply::Progress { .. } | Reply::Damaged { .. })) => meanwhile(reply),
            Some(reply) => return Ok(reply),
            None => {
                return Err(Error::peer(
                    "the daemon closed the connection without an answer",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_those_of_earlier_releases() {
        let question = |cache: Option<&str>, ask| {
            let cache = cache.map(PathBuf::from);
            serde_json::to_string(&Question { cache, ask }).unwrap()
        };
        assert_eq!(
            question(Some("/c"), Ask::Verify { repair: true }),
            r#"{"cache":"/c","ask":"verify","repair":true}"#
        );
        assert_eq!(question(None, Ask::Live), r#"{"ask":"live"}"#);
        for text in [
            r#"{"ask":"stats","cache":null}"#,
            r#"{"ask":"gc","cache":"/c","what":"all","dry_run":false}"#,
            r#"{"ask":"gc","cache":null,"what":{"beyond":{"max_size":5,"max_age":{"secs":1,"nanos":0}}},"dry_run":true}"#,
            r#"{"ask":"register","name":"x","chroot":null}"#,
            r#"{"ask":"builds","since":18446744073709551615,"limit":3}"#,
        ] {
            serde_json::from_str::<Question>(text).unwrap();
        }
    }
}
