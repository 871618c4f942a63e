//! A build's access to a store: what it gets or puts appears in its directory.
//!
//! The daemon holds a session for each client; a client that is alone holds one with itself.
//! A session can end only itself: nothing that a peer says reaches another one.

use crate::cache::builds::output_name;
use crate::cache::store::Store;
use crate::counts::Counts;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::id::{ActionId, OutputId};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A build's access to a store: what it gets or puts appears in its directory.
#[derive(Debug)]
pub struct Session<'a> {
    store: &'a Store,
    directory: PathBuf,
    /// What has happened so far.
    pub counts: Counts,
}

impl<'a> Session<'a> {
    /// A session whose outputs appear in `directory`, which must be on the store's file
    /// system.
    pub fn new(store: &'a Store, directory: &Path) -> Self {
        Self {
            store,
            directory: directory.to_path_buf(),
            counts: Counts::default(),
        }
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
        let Some(entry) = self.store.get(action)? else {
            return Ok(None);
        };
        let name = output_name(&self.directory, &entry.output);
        Ok(self.store.link(action, &entry, &name)?.then_some(entry))
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
        let entry = self.store.put(action, output, size, body)?;
        let name = output_name(&self.directory, output);
        if self.store.link(action, &entry, &name)? {
            Ok(entry)
        } else {
            Err(Error::input(format!(
                "output {output} was lost as soon as it was stored"
            )))
        }
    }
}
