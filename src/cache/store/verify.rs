//! Verification: reads outputs and compares them with their names.

use super::walk::ALL;
use super::{Store, modified, size_on_disk};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, OutputId};
use crate::log;
use crate::report::Verified;
use crate::sha256::Sha256;
use crate::sys;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What is damaged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// An output is not what its name says, or cannot be read.
    Output(OutputId, String),
    /// An action names nothing that is there.
    Action(ActionId, String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(output, how) => write!(f, "output {output} {how}"),
            Self::Action(action, how) => write!(f, "action {action} {how}"),
        }
    }
}

/// What a verification has to tell while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes read so far, and all bytes.
    Progress {
        /// Read so far.
        done: u64,
        /// To be read in all.
        total: u64,
    },
    /// Something is damaged.
    Damage(Damage),
}

/// The SHA-256 of a file, as it is on disk: what is in memory may be what the disk did not take.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> Result<OutputId> {
    let mut file = fs::open(path)?;
    sys::forget_pages(&file);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; super::CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(OutputId(hash.finalize())),
            Ok(n) => hash.update(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", path, e)),
        }
    }
}

impl Store {
    /// Reads everything, and tells what it finds. What is damaged is removed if `repair` says so.
    ///
    /// # Errors
    /// When the store cannot be listed, or this is to stop.
    pub fn verify(
        &self,
        repair: bool,
        stop: &AtomicBool,
        mut tell: impl FnMut(Event),
    ) -> Result<Verified> {
        let mut found = Verified::default();
        let total = self.size();
        self.walk_outputs(ALL, stop, |output, metadata| {
            found.outputs += 1;
            found.bytes += size_on_disk(metadata.len());
            if let Some(why) = self.examine(&output) {
                found.damaged += 1;
                tell(Event::Damage(Damage::Output(output, why)));
                if repair {
                    self.remove_damaged(&output);
                }
            }
            tell(Event::Progress {
                done: found.bytes,
                total: total.max(found.bytes),
            });
        })?;
        let mut damaged = |action: &ActionId, why: &str| {
            found.actions += 1;
            tell(Event::Damage(Damage::Action(*action, why.into())));
        };
        self.walk_actions(stop, |action, entry| {
            let Some(entry) = entry else {
                damaged(&action, "is not an entry");
                if repair && let Err(e) = self.forget(&action, "is not an entry") {
                    log::warn(e.chain());
                }
                return;
            };
            if let Some(why) = self.missing(&entry) {
                damaged(&action, why);
                if repair && let Err(e) = self.forget_dangling(&action, &entry) {
                    log::warn(e.chain());
                }
            }
        })?;
        Ok(found)
    }

    /// Reads what a crash may have damaged, removes what it has damaged, and then trusts
    /// the rest; says how many outputs were read.
    ///
    /// # Errors
    /// When the store cannot be listed, or this is to stop.
    pub fn verify_suspects(&self, stop: &AtomicBool) -> Result<u64> {
        let mut checked = 0;
        let Some(survival) = self.survival.as_ref().filter(|s| s.is_suspicious()) else {
            return Ok(0);
        };
        let mut left = 0;
        let unseen = self.walk_outputs(ALL, stop, |output, metadata| {
            if survival.suspects(&output, modified(metadata)) {
                checked += 1;
                match self.examine(&output) {
                    None => survival.trust(&output),
                    Some(why) => {
                        log::warn(format!(
                            "removing output {output}, which {why} after a crash or a failed write to disk"
                        ));
                        left += u64::from(!self.remove_damaged(&output));
                    }
                }
            }
        })?;
        // What is damaged and could not be removed must stay under suspicion.
        if unseen + left == 0 {
            survival.end_suspicion();
        }
        Ok(checked)
    }

    /// What is wrong with an output; one that is gone is not.
    fn examine(&self, output: &OutputId) -> Option<String> {
        match hash_file(&self.output_path(output)) {
            Ok(found) if found == *output => None,
            Ok(found) => Some(format!("has the SHA-256 {found}")),
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => None,
            Err(e) => Some(e.chain()),
        }
    }

    fn missing(&self, entry: &Entry) -> Option<&'static str> {
        match fs::metadata(&self.output_path(&entry.output)) {
            Ok(metadata) if metadata.len() == entry.size => None,
            Ok(_) => Some("has an output of the wrong size"),
            Err(_) => Some("has lost its output"),
        }
    }

    /// `false` when it could not be removed.
    fn remove_damaged(&self, output: &OutputId) -> bool {
        let _shard = self.shards.lock(output);
        // It may have been put again just now.
        if self.examine(output).is_some()
            && let Err(e) = self.remove_output(output)
        {
            log::warn(format!("removing a damaged output failed: {}", e.chain()));
            return false;
        }
        true
    }
}
