//! Who is busy with which output: a lock for each shard, and the outputs in it that puts
//! are under way for.
//!
//! Whoever makes an output and its entry appear, or both disappear, has the output's lock
//! while doing so. It is never held while a body is read.

use crate::id::OutputId;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// As many as there are first bytes of an ID.
pub const SHARDS: usize = 256;

/// The locks.
#[derive(Debug)]
pub struct Shards([Mutex<Vec<OutputId>>; SHARDS]);

/// Keeps an output from being evicted as long as it lives.
#[derive(Debug)]
pub struct Pin<'a> {
    shards: &'a Shards,
    output: OutputId,
}

impl Shards {
    /// Locks an output's shard; the guard has the outputs that are held, some more than once.
    pub fn lock(&self, output: &OutputId) -> MutexGuard<'_, Vec<OutputId>> {
        self.0[usize::from(output.0[0])]
            .lock()
            // A push or a removal is done or not.
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an output, whether it is there or not.
    pub fn pin(&self, output: &OutputId) -> Pin<'_> {
        self.lock(output).push(*output);
        Pin {
            shards: self,
            output: *output,
        }
    }
}

impl Default for Shards {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut held = self.shards.lock(&self.output);
        if let Some(at) = held.iter().position(|id| *id == self.output) {
            held.swap_remove(at);
        }
    }
}
