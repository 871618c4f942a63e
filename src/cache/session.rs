//! A build's access to a store: what it gets or puts appears in its directory.
//!
//! The daemon holds a session for each client; a client that is alone holds one with itself.
//! A session can end only itself: nothing that a peer says reaches another one.

use crate::cache::builds::output_name;
use crate::cache::store::Store;
use crate::cache::tier::Tier;
use crate::counts::Counts;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::fs::OpenDirectory;
use crate::id::{ActionId, OutputId, hex};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A build's access to a store: what it gets or puts appears in its directory.
#[derive(Debug)]
pub struct Session<'a> {
    store: &'a Store,
    directory: Arc<OpenDirectory>,
    /// Where copies of outputs are, for a user who could change the store's own files.
    copies: Option<PathBuf>,
    tier: Tier,
    /// Every get is a miss.
    is_audit: bool,
    /// What has happened so far.
    pub counts: Counts,
}

impl<'a> Session<'a> {
    /// A session whose outputs appear in `directory`, which must be on the store's file
    /// system.
    pub fn new(store: &'a Store, directory: impl Into<Arc<OpenDirectory>>) -> Self {
        Self {
            store,
            directory: directory.into(),
            copies: None,
            tier: Tier::Shared,
            is_audit: false,
            counts: Counts::default(),
        }
    }

    /// A session for a user who could change the store's own files: what appears in `directory` are links to copies in
    /// `copies`, so that nothing done to them reaches the store. Both must be on the store's file system.
    ///
    /// `go build -o x.a` renames the file that it was handed, where the file's owner or root runs it (`moveOrCopyFile` in
    /// cmd/go), and makes it writable. With a directory for each session, no other session loses a name by that.
    pub fn with_copies(
        store: &'a Store,
        directory: impl Into<Arc<OpenDirectory>>,
        copies: &Path,
    ) -> Self {
        Self {
            copies: Some(copies.to_path_buf()),
            ..Self::new(store, directory)
        }
    }

    /// The same in another tier.
    pub fn in_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// The same with every get a miss, if it is an audit.
    pub fn auditing(self, is_audit: bool) -> Self {
        Self { is_audit, ..self }
    }

    /// Looks an action up; a hit's output is in the directory then.
    ///
    /// # Errors
    /// When the system fails to read the entry or to make the link.
    pub fn get(&mut self, action: &ActionId) -> Result<Option<Entry>> {
        let found = self.get_first(std::slice::from_ref(action))?;
        Ok(found.map(|(_, entry)| entry))
    }

    /// Looks several actions up, which count as one get; finds the first that has an entry.
    ///
    /// # Errors
    /// When the system fails to read an entry or to make the link.
    pub fn get_first(&mut self, actions: &[ActionId]) -> Result<Option<(ActionId, Entry)>> {
        self.counts.gets += 1;
        if self.is_audit {
            return Ok(None);
        }
        let found = self.find_first(actions);
        match &found {
            Ok(Some((_, entry))) => {
                self.counts.hits += 1;
                self.counts.bytes_read += entry.size;
            }
            Ok(None) => {}
            Err(_) => self.counts.errors += 1,
        }
        found
    }

    /// The build has found an output of so many bytes by itself.
    pub fn found(&mut self, size: u64) {
        self.counts.gets += 1;
        self.counts.hits += 1;
        self.counts.bytes_read = self.counts.bytes_read.saturating_add(size);
    }

    /// Looks an action up like [`Session::get`], without counting it.
    ///
    /// # Errors
    /// When the system fails to read the entry or to make the link.
    pub fn find(&self, action: &ActionId) -> Result<Option<Entry>> {
        for key in self.tier.keys(action) {
            if let Some(entry) = self.store.get(&key)?
                && self.expose(&key, &entry)?
            {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The entry that a put of this action is compared with, and whether that put replaces it: one of a lower tier never
    /// replaces the shared one.
    ///
    /// # Errors
    /// When the system fails to read an entry.
    pub fn held(&self, action: &ActionId) -> Result<Option<(Entry, bool)>> {
        let own = self.tier.key(action);
        for key in self.tier.keys(action) {
            if let Some(entry) = self.store.get(&key)? {
                return Ok(Some((entry, key == own)));
            }
        }
        Ok(None)
    }

    /// Removes the entry of an action that this session's tier has put.
    ///
    /// # Errors
    /// When the system fails to remove it.
    pub fn withdraw(&self, action: &ActionId) -> Result<()> {
        self.store.withdraw(&self.tier.key(action))
    }

    /// Makes an entry's output appear in the directory; `false` when it is missing or damaged.
    fn expose(&self, action: &ActionId, entry: &Entry) -> Result<bool> {
        match &self.copies {
            None => {
                let name = hex(&entry.output.0);
                self.store.link(action, entry, &self.directory, &name)
            }
            Some(copies) => {
                let name = output_name(self.directory.path(), &entry.output);
                let copy = output_name(copies, &entry.output);
                self.store.link_copy(action, entry, &copy, &name)
            }
        }
    }

    /// Looks several actions up, without counting it.
    ///
    /// # Errors
    /// When the system fails to read an entry or to make the link.
    pub fn find_first(&self, actions: &[ActionId]) -> Result<Option<(ActionId, Entry)>> {
        for action in actions {
            if let Some(entry) = self.find(action)? {
                return Ok(Some((*action, entry)));
            }
        }
        Ok(None)
    }

    /// Stores an action's output, which is in the directory then.
    ///
    /// # Errors
    /// When the body is not what its ID says, or the disk refuses it.
    pub fn put(
        &mut self,
        action: &ActionId,
        output: &OutputId,
        size: u64,
        body: &mut impl Read,
    ) -> Result<Entry> {
        let stored = self.keep(action, output, size, body);
        match &stored {
            Ok(_) => {
                self.counts.puts += 1;
                self.counts.bytes_written += size;
            }
            Err(_) => self.counts.errors += 1,
        }
        stored
    }

    fn keep(
        &self,
        action: &ActionId,
        output: &OutputId,
        size: u64,
        body: &mut impl Read,
    ) -> Result<Entry> {
        // It stays until it is in the directory, which keeps it then.
        let _held = self.store.pin(output);
        let key = self.tier.key(action);
        let entry = self.store.put(&key, output, size, body)?;
        if self.expose(&key, &entry)? {
            Ok(entry)
        } else {
            Err(Error::input(format!(
                "output {output} disappeared as soon as it was stored"
            )))
        }
    }
}
