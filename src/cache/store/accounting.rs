//! How much a store has: exact as long as everybody who adds or removes says so, and set
//! right by a count, which needs nobody to stop meanwhile.
//!
//! The size is a base and the sum of all that has been added in each shard since the start.
//! A count of a shard is good when nothing was added while it went on.

use super::crash_state::Size;
use super::shards::SHARDS;
use crate::id::OutputId;
use std::sync::atomic::{AtomicI64, Ordering};

/// Bytes and outputs.
#[derive(Debug, Default)]
struct Pair {
    bytes: AtomicI64,
    outputs: AtomicI64,
}

/// How much there is.
#[derive(Debug)]
pub struct Accounting {
    base: Pair,
    /// Added in each shard since the start; less than nothing when more was removed.
    added: [Pair; SHARDS],
}

impl Pair {
    fn add(&self, bytes: i64, outputs: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.outputs.fetch_add(outputs, Ordering::Relaxed);
    }

    fn get(&self) -> (i64, i64) {
        (
            self.bytes.load(Ordering::Relaxed),
            self.outputs.load(Ordering::Relaxed),
        )
    }
}

impl Accounting {
    /// What there is at the start.
    pub fn new(size: Size) -> Self {
        let usage = Self {
            base: Pair::default(),
            added: std::array::from_fn(|_| Pair::default()),
        };
        usage.base.add(size.bytes as i64, size.outputs as i64);
        usage
    }

    /// Something was added, or removed when the numbers are negative. The caller has the
    /// lock of the output's shard.
    pub fn add(&self, output: &OutputId, bytes: i64, outputs: i64) {
        self.added[usize::from(output.0[0])].add(bytes, outputs);
    }

    /// How much there is.
    pub fn size(&self) -> Size {
        let (mut bytes, mut outputs) = self.base.get();
        for added in &self.added {
            let (more_bytes, more_outputs) = added.get();
            bytes += more_bytes;
            outputs += more_outputs;
        }
        Size {
            bytes: bytes.max(0) as u64,
            outputs: outputs.max(0) as u64,
        }
    }

    /// What has been added in a shard so far: to be asked before and after it is counted.
    pub fn added(&self, shard: usize) -> (i64, i64) {
        self.added[shard].get()
    }

    /// A count is done: `base` is all that was counted, less what had been added in each shard
    /// by then.
    pub fn correct(&self, base: (i64, i64)) {
        self.base.bytes.store(base.0, Ordering::Relaxed);
        self.base.outputs.store(base.1, Ordering::Relaxed);
    }
}
