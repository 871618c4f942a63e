//! The control socket: what the hook and the administrator ask of the daemon. One line of
//! JSON each way, one question a connection. It is never bound into a sandbox.

use crate::builds::Builds;
use crate::error::{Error, Result};
use crate::wire;
use serde::{Deserialize, Serialize};
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    },
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
    /// The build is registered.
    Registered {
        /// Its ID.
        build: String,
        /// Its directory's path on the host.
        directory: PathBuf,
    },
}

/// Answers one question.
///
/// # Errors
/// When the connection fails or what is asked is not understood.
pub fn serve(mut stream: &UnixStream, builds: &Builds) -> Result<()> {
    let reply = match wire::read_line::<Ask>(&mut BufReader::new(stream)) {
        Ok(None) => return Ok(()),
        Ok(Some(ask)) => answer(ask, builds),
        Err(e) => Err(e),
    };
    let reply = reply.unwrap_or_else(|e| Reply::Failed { error: e.chain() });
    wire::write_line(&mut stream, &reply)
}

fn answer(ask: Ask, builds: &Builds) -> Result<Reply> {
    match ask {
        Ask::Register { name, chroot } => {
            let id = builds.register(&name, chroot.as_deref())?;
            Ok(Reply::Registered {
                build: id.to_string(),
                directory: builds.directory(id),
            })
        }
    }
}

/// Asks the daemon, and waits for its answer for at most `limit`.
///
/// # Errors
/// When there is no daemon, or it does not answer, or says that it failed.
pub fn ask(socket: &Path, what: &Ask, limit: Duration) -> Result<Reply> {
    let mut stream =
        UnixStream::connect(socket).map_err(|e| Error::io("reach the daemon at", socket, e))?;
    stream
        .set_read_timeout(Some(limit))
        .and_then(|()| stream.set_write_timeout(Some(limit)))
        .map_err(|e| Error::io("set the time limit of", socket, e))?;
    wire::write_line(&mut stream, what)?;
    match wire::read_line(&mut BufReader::new(&stream))? {
        Some(Reply::Failed { error }) => Err(Error::peer(format!("the daemon says: {error}"))),
        Some(reply) => Ok(reply),
        None => Err(Error::peer("the daemon closed the connection unanswered")),
    }
}
