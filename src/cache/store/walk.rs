//! Walks over all that is in a store, a shard at a time.

use super::Store;
use super::shards::SHARDS;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, ID_LEN, OutputId, unhex};
use crate::log;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// All shards.
pub const ALL: Range<usize> = 0..SHARDS;

impl Store {
    /// Visits the outputs in some shards. What cannot be looked at is logged and left out; says how
    /// many those were.
    ///
    /// # Errors
    /// When a shard cannot be listed, or this is to stop.
    pub(super) fn walk_outputs(
        &self,
        shards: Range<usize>,
        stop: &AtomicBool,
        mut visit: impl FnMut(OutputId, &Metadata),
    ) -> Result<u64> {
        let mut unseen = 0;
        self.walk("outputs", shards, stop, |id, entry| {
            match entry.metadata() {
                Ok(metadata) => visit(OutputId(id), &metadata),
                // Evicted since the directory was read.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => {
                    unseen += 1;
                    log::warn(format!("cannot examine {}: {e}", entry.path().display()));
                }
            }
        })?;
        Ok(unseen)
    }

    /// Visits all actions, with their entries: `None` for what is no entry.
    ///
    /// # Errors
    /// When a shard cannot be listed, or this is to stop.
    pub(super) fn walk_actions(
        &self,
        stop: &AtomicBool,
        mut visit: impl FnMut(ActionId, Option<Entry>),
    ) -> Result<()> {
        self.walk("actions", ALL, stop, |id, entry| {
            match fs::read_link(&entry.path()) {
                Ok(target) => visit(ActionId(id), Entry::decode(target.as_os_str().as_bytes())),
                Err(e) if e.kind() == Some(ErrorKind::NotFound) => {}
                Err(e) if e.kind() == Some(ErrorKind::InvalidInput) => visit(ActionId(id), None),
                Err(e) => log::warn(e.chain()),
            }
        })
    }

    /// How many actions there are.
    ///
    /// # Errors
    /// When a shard cannot be listed, or this is to stop.
    pub(super) fn count_actions(&self, stop: &AtomicBool) -> Result<u64> {
        let mut count = 0;
        self.walk("actions", ALL, stop, |_, _| count += 1)?;
        Ok(count)
    }

    fn walk(
        &self,
        kind: &str,
        shards: Range<usize>,
        stop: &AtomicBool,
        mut visit: impl FnMut([u8; ID_LEN], &std::fs::DirEntry),
    ) -> Result<()> {
        for first in shards {
            let dir = self.root.join(kind).join(format!("{first:02x}"));
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == Some(ErrorKind::NotFound) => continue,
                Err(e) => return Err(e),
            };
            for entry in entries {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                let entry = entry?;
                match id(first, Path::new(&entry.file_name())) {
                    Some(id) => visit(id, &entry),
                    None => log::warn(format!(
                        "{} does not belong to the cache: ignored",
                        entry.path().display()
                    )),
                }
            }
        }
        Ok(())
    }
}

fn id(first: usize, name: &Path) -> Option<[u8; ID_LEN]> {
    let rest: [u8; ID_LEN - 1] = unhex(name.as_os_str().as_bytes())?;
    let mut id = [0; ID_LEN];
    id[0] = u8::try_from(first).ok()?;
    id[1..].copy_from_slice(&rest);
    Some(id)
}
