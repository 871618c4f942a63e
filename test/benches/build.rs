//! A build of the benchmarks' own, on the daemon's socket.

use crate::peer::Peer;
use crate::support::{BUILDER, Daemon};
use sha2::{Digest, Sha256};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

/// A build that lasts as long as this: what it gets is linked for the first time, as for every build.
pub struct Build {
    peer: Peer,
    top: PathBuf,
}

impl Build {
    /// Registers itself, with a directory of its own below `dir`.
    pub fn new(daemon: &Daemon, dir: &Path, name: &str) -> Self {
        let top = dir.join(name);
        std::fs::create_dir(&top).unwrap();
        chown(&top, Some(BUILDER), Some(BUILDER)).expect("root");
        let hello = serde_json::json!({"version": 1, "name": "bench", "top": top});
        Self {
            peer: Peer::hello_as(daemon, BUILDER, &hello.to_string()).unwrap(),
            top,
        }
    }

    /// Gets an action and gives the answer's tag.
    pub fn get(&mut self, nth: u64) -> char {
        let mut frame = vec![b'g'];
        frame.extend(nth.to_le_bytes());
        frame.extend(action(nth));
        self.peer.send(&frame);
        self.peer.answer()
    }

    /// Puts an action and gives the answer's tag.
    pub fn put(&mut self, nth: u64, output: &[u8], body: &[u8]) -> char {
        let mut frame = vec![b'p'];
        frame.extend(nth.to_le_bytes());
        frame.extend(action(nth));
        frame.extend(output);
        frame.extend((body.len() as u64).to_le_bytes());
        frame.extend(body);
        self.peer.send(&frame);
        self.peer.answer()
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.top);
    }
}

/// The ID of an action.
pub fn action(nth: u64) -> [u8; 32] {
    Sha256::digest(nth.to_le_bytes()).into()
}
