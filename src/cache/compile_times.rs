//! How long it took to make what actions name: what a hit has saved. The table is in memory, for a hit must cost no system
//! call more, and is kept in `CACHE/compile-times`. It is a set-associative cache of fixed size, in which the oldest of
//! eight goes; what is wrong or missing in it makes a figure too small, and nothing else.

use crate::fs;
use crate::id::ActionId;
use crate::log;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Sets of slots; with eight slots of four bytes each the table takes 1 MiB and holds 262,144 times.
const SETS: usize = 1 << 15;

/// Slots of a set, those written last first.
const WAYS: usize = 8;

/// A slot's lower bits are milliseconds, the others tell actions of the same set apart.
const TIME_BITS: u32 = 20;

/// The longest time that is believed: a build may have been stopped meanwhile.
const TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// What the file begins with. Another release's says nothing.
const HEAD: &[u8; 16] = b"compile times 1\n";

/// How long it took to make what actions name.
#[derive(Debug)]
pub struct CompileTimes {
    path: PathBuf,
    slots: Box<[AtomicU32]>,
    is_changed: AtomicBool,
}

impl CompileTimes {
    /// Reads what an earlier daemon has left.
    pub fn open(cache: &Path) -> Self {
        let path = cache.join("compile-times");
        let slots: Box<[AtomicU32]> = (0..SETS * WAYS).map(|_| AtomicU32::new(0)).collect();
        let bytes = fs::read(&path).unwrap_or_default();
        let times = bytes.strip_prefix(HEAD).unwrap_or_default();
        if times.len() == slots.len() * 4 {
            for (slot, bytes) in slots.iter().zip(times.chunks_exact(4)) {
                let bytes = bytes.try_into().unwrap_or_default();
                slot.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
            }
        }
        Self {
            path,
            slots,
            is_changed: AtomicBool::new(false),
        }
    }

    /// It took so long to make what an action names.
    pub fn record(&self, action: &ActionId, time: Duration) {
        let (set, tag) = self.place(action);
        let at = set
            .iter()
            .position(|slot| slot.load(Ordering::Relaxed) >> TIME_BITS == tag)
            .unwrap_or(WAYS - 1);
        for to in (1..=at).rev() {
            set[to].store(set[to - 1].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        // Never zero, which is no time.
        let ms = time.min(TIME_MAX).as_nanos().div_ceil(1_000_000).max(1) as u32;
        set[0].store(tag << TIME_BITS | ms, Ordering::Relaxed);
        self.is_changed.store(true, Ordering::Relaxed);
    }

    /// How long it took, in milliseconds; 0 when that is not known.
    pub fn ms(&self, action: &ActionId) -> u64 {
        let (set, tag) = self.place(action);
        set.iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .find(|slot| slot >> TIME_BITS == tag)
            .map_or(0, |slot| u64::from(slot & ((1 << TIME_BITS) - 1)))
    }

    /// Writes what a later daemon is to know, if there is anything new.
    pub fn save(&self) {
        if !self.is_changed.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut bytes = HEAD.to_vec();
        for slot in &self.slots {
            bytes.extend(slot.load(Ordering::Relaxed).to_le_bytes());
        }
        if let Err(e) = fs::replace(&self.path, &bytes, 0o600) {
            self.is_changed.store(true, Ordering::Relaxed);
            log::warn(format!("compile times not saved: {}", e.chain()));
        }
    }

    /// The set of an action, and what it is told by there. Action IDs are hashes.
    fn place(&self, action: &ActionId) -> (&[AtomicU32], u32) {
        let number = u64::from_le_bytes(std::array::from_fn(|at| action.0[at]));
        let set = number as usize % SETS;
        let tag = (number >> 32) as u32 >> TIME_BITS;
        (&self.slots[set * WAYS..][..WAYS], tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::faults::{self, Fault};
    use crate::test_dir::TestDir;
    use sha2::{Digest, Sha256};

    fn action(n: u32) -> ActionId {
        ActionId(Sha256::digest(n.to_le_bytes()).into())
    }

    #[test]
    fn times_are_found_again_by_the_next_daemon() {
        let dir = TestDir::new();
        let times = CompileTimes::open(dir.path());
        for n in 0..1000 {
            times.record(&action(n), Duration::from_millis(n.into()));
        }
        times.record(&action(7), Duration::from_micros(1_234_567));
        times.record(&action(8), Duration::from_secs(100_000));
        times.save();
        let times = CompileTimes::open(dir.path());
        assert_eq!(times.ms(&action(999)), 999);
        assert_eq!(times.ms(&action(0)), 1, "no time is a time too");
        assert_eq!(times.ms(&action(7)), 1235, "the last one counts");
        assert_eq!(times.ms(&action(8)), 600_000, "there is a bound");
        assert_eq!(times.ms(&action(1000)), 0);
    }

    #[test]
    fn the_oldest_go_from_a_table_that_is_full() {
        let dir = TestDir::new();
        let times = CompileTimes::open(dir.path());
        for n in 0..400_000 {
            times.record(&action(n), Duration::from_millis(5));
        }
        let known = |from| {
            (from..from + 10_000)
                .filter(|n| times.ms(&action(*n)) == 5)
                .count()
        };
        assert!(known(390_000) > 9_900, "{}", known(390_000));
        assert!(known(0) < 3_000, "{}", known(0));
    }

    #[test]
    fn what_cannot_be_read_or_written_costs_the_times_alone() {
        let dir = TestDir::new();
        std::fs::write(dir.path().join("compile-times"), b"compile times 1\nshort").unwrap();
        let times = CompileTimes::open(dir.path());
        times.record(&action(1), Duration::from_secs(1));
        faults::inject(1, Fault::Fails(libc::ENOSPC));
        times.save();
        assert!(!faults::clear());
        assert_eq!(times.ms(&action(1)), 1000);
        times.save();
        assert_eq!(CompileTimes::open(dir.path()).ms(&action(1)), 1000);
    }
}
