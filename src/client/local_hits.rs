//! Finds what is ready in the build directory (`prefetched.rs`), and keeps what the daemon is to be told of it.

use crate::cache::prefetched::Prefetched;
use crate::entry::Entry;
use crate::id::ActionId;
use crate::protocol::wire::{self, Request};
use std::path::PathBuf;

/// The daemon is told of this much at a time, in bytes: it need not wake up for each.
const TELL_AT: usize = 16 << 10;

/// What is ready, and what was found of it.
pub struct LocalHits {
    ready: Option<Prefetched>,
    /// The last one found.
    last: Option<(ActionId, u64)>,
    /// Frames for all before it that the daemon was not told of.
    frames: Vec<u8>,
}

impl LocalHits {
    /// Finds what there is, if there is anything.
    pub fn new(ready: Option<Prefetched>) -> Self {
        Self {
            ready,
            last: None,
            frames: Vec::new(),
        }
    }

    /// Whether anything is ready at all.
    pub fn has_any(&self) -> bool {
        self.ready.is_some()
    }

    /// An action's entry and the file that has its output, if that is ready.
    pub fn find(&mut self, action: &ActionId) -> Option<(Entry, PathBuf)> {
        let found = self.ready.as_mut()?.find(action)?;
        if let Some(last) = self.last.replace((*action, found.0.size)) {
            self.push(last, 0);
        }
        Some(found)
    }

    /// Whether what was ready is there still, once there is no session any more.
    pub fn is_there(&self) -> bool {
        self.ready.as_ref().is_none_or(Prefetched::is_there)
    }

    /// The build puts this action.
    pub fn forget(&mut self, action: &ActionId) {
        if let Some(ready) = &mut self.ready {
            ready.forget(action);
        }
    }

    /// What the daemon is to be told now, if it is enough to be worth it.
    pub fn enough_to_tell(&mut self) -> Option<Vec<u8>> {
        (self.frames.len() >= TELL_AT).then(|| std::mem::take(&mut self.frames))
    }

    /// All that it is to be told, the last of it as a request of this number, which is answered.
    pub fn all_to_tell(&mut self, request: u64) -> Option<Vec<u8>> {
        let last = self.last.take()?;
        self.push(last, request);
        Some(std::mem::take(&mut self.frames))
    }

    fn push(&mut self, (action, size): (ActionId, u64), request: u64) {
        let found = Request::Found {
            request,
            action,
            size,
        };
        wire::push_request(&mut self.frames, &found);
    }
}
