//! What a session has used, in its order: what the next build of the same name will want.

use crate::cache::history::{ACTIONS_MAX, Use};
use crate::cache::store::Store;
use crate::config::NOTED_MAX;
use crate::entry::Entry;
use crate::id::ActionId;
use crate::sync::lock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

/// What a session has used, bounded for it alone and for all sessions together.
#[derive(Debug)]
pub struct Uses<'a> {
    noted: Mutex<Vec<(ActionId, Option<Entry>)>>,
    /// How many uses all sessions hold.
    total: &'a AtomicUsize,
}

impl<'a> Uses<'a> {
    /// Nothing used yet; `total` counts the uses of all sessions.
    pub fn new(total: &'a AtomicUsize) -> Self {
        Self {
            noted: Mutex::default(),
            total,
        }
    }

    /// Notes a use, unless there are too many already.
    pub fn add(&self, action: &ActionId, entry: Option<Entry>) {
        let mut noted = self.noted();
        if noted.len() < ACTIONS_MAX && self.total.load(Ordering::Relaxed) < NOTED_MAX {
            self.total.fetch_add(1, Ordering::Relaxed);
            noted.push((*action, entry));
        }
    }

    /// All uses, with the entries of what the client has found by itself.
    pub fn resolve(&self, store: &Store) -> Vec<Use> {
        let noted = self.noted();
        let uses = noted.iter().copied().filter_map(|(action, entry)| {
            let entry = entry.or_else(|| store.get(&action).ok().flatten())?;
            Some((action, entry))
        });
        uses.collect()
    }

    fn noted(&self) -> MutexGuard<'_, Vec<(ActionId, Option<Entry>)>> {
        lock(&self.noted)
    }
}

impl Drop for Uses<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.noted().len(), Ordering::Relaxed);
    }
}
