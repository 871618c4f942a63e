//! What a build remembers of a daemon that has stopped moving.
//!
//! nixpkgs runs one `go` for each folder of a program. Without a note that one of them has waited in vain, each of the others
//! would wait as long again.

use crate::client::private;
use crate::config::HUNG_REMEMBERED;
use crate::error::{Error, Result};
use crate::fs;
use crate::log;
use std::io::ErrorKind;
use std::time::Duration;

const NAME: &str = "daemon-hung";

/// Notes it for the build's next commands, if the daemon was given up on because it did not move. Outside of a build nobody
/// is told: a person may be about to start the daemon again.
pub fn remember(why: &Error) {
    if !is_hung(why) || private::build_top().is_none() {
        return;
    }
    let noted = private::directory(None).and_then(|dir| fs::replace(&dir.join(NAME), b"", 0o600));
    if let Err(e) = noted {
        log::debug(|| format!("the next command waits for the daemon too: {}", e.chain()));
    }
}

/// Whether it is worth waiting for the daemon.
///
/// # Errors
/// When it has not moved for an earlier command of this build, less than [`HUNG_REMEMBERED`] ago.
pub fn check() -> Result<()> {
    match age().filter(|age| *age < HUNG_REMEMBERED) {
        Some(age) => Err(Error::peer(format!(
            "the daemon did not answer an earlier command of this build, {} s ago: it is asked again after {} s",
            age.as_secs(),
            HUNG_REMEMBERED.as_secs()
        ))),
        None => Ok(()),
    }
}

fn age() -> Option<Duration> {
    let note = private::build_directory()?.join(NAME);
    fs::metadata(&note).ok()?.modified().ok()?.elapsed().ok()
}

fn is_hung(why: &Error) -> bool {
    matches!(
        why.kind(),
        Some(ErrorKind::WouldBlock | ErrorKind::TimedOut)
    )
}
