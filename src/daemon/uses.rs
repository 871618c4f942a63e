//! What a session has used, in its order: what the next build of the same name will want.

use crate::cache::history::{ACTIONS_MAX, Use};
use crate::cache::store::Store;
use crate::entry::Entry;
use crate::id::ActionId;
use crate::sync::lock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

/// What a session has used, bounded for it alone and for all sessions together.
#[derive(Debug)]
pub struct Uses<'a> {
    noted: Mutex<Noted>,
    /// How many uses all sessions hold that are counted together.
    total: &'a AtomicUsize,
    /// How many those may hold.
    most: usize,
}

#[derive(Debug, Default)]
struct Noted {
    uses: Vec<(ActionId, Option<Entry>)>,
    /// Which of them are puts, and whether there was nothing for the action before.
    puts: Vec<(u32, bool)>,
}

/// What was put.
#[derive(Clone, Copy, Debug)]
pub struct Put {
    pub action: ActionId,
    pub entry: Entry,
    /// There was nothing for the action before.
    pub is_new: bool,
}

impl<'a> Uses<'a> {
    /// Nothing used yet; `total` counts the uses of all sessions that together may hold so many.
    pub fn new(total: &'a AtomicUsize, most: usize) -> Self {
        Self {
            noted: Mutex::default(),
            total,
            most,
        }
    }

    /// Notes a use, unless there are too many already.
    pub fn add(&self, action: &ActionId, entry: Option<Entry>) {
        self.note(&mut self.noted(), action, entry);
    }

    /// Notes that an action was put, unless there are too many already.
    pub fn add_put(&self, put: Put) {
        let mut noted = self.noted();
        if let Some(at) = self.note(&mut noted, &put.action, Some(put.entry)) {
            noted.puts.push((at, put.is_new));
        }
    }

    fn note(&self, noted: &mut Noted, action: &ActionId, entry: Option<Entry>) -> Option<u32> {
        if noted.uses.len() >= ACTIONS_MAX || self.total.load(Ordering::Relaxed) >= self.most {
            return None;
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        noted.uses.push((*action, entry));
        u32::try_from(noted.uses.len() - 1).ok()
    }

    /// What was put, in this order.
    pub fn puts(&self) -> Vec<Put> {
        let noted = self.noted();
        let put = |(at, is_new): &(u32, bool)| {
            let (action, entry) = *noted.uses.get(*at as usize)?;
            Some(Put {
                action,
                entry: entry?,
                is_new: *is_new,
            })
        };
        noted.puts.iter().filter_map(put).collect()
    }

    /// All uses, with the entries of what the client has found by itself.
    pub fn resolve(&self, store: &Store) -> Vec<Use> {
        let noted = self.noted();
        let uses = noted.uses.iter().copied().filter_map(|(action, entry)| {
            let entry = entry.or_else(|| store.get(&action).ok().flatten())?;
            Some((action, entry))
        });
        uses.collect()
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        lock(&self.noted)
    }
}

impl Drop for Uses<'_> {
    fn drop(&mut self) {
        self.total
            .fetch_sub(self.noted().uses.len(), Ordering::Relaxed);
    }
}
