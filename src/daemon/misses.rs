//! The misses of a session, and when they were answered: what `go` then puts has taken so long to make.
//!
//! `go` looks an action up when all that it needs is there, and compiles at once after a miss. Several compile at the same
//! time, so the times add up to more than passes on the clock: it is time of compiling, as a single processor would take.

use crate::id::ActionId;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The most that are remembered. `go` has few in flight; what it never puts is forgotten.
const MISSES_MAX: usize = 1024;

/// The misses of a session.
#[derive(Debug, Default)]
pub struct Misses(Mutex<HashMap<ActionId, Instant>>);

impl Misses {
    /// `go` is told now that nothing is known of these actions.
    pub fn add(&self, actions: &[ActionId]) {
        let now = Instant::now();
        let mut misses = lock(&self.0);
        if misses.len() >= MISSES_MAX {
            misses.clear();
        }
        misses.extend(actions.iter().map(|action| (*action, now)));
    }

    /// An action is put: how long after its miss; `None` when it was not missed.
    pub fn take(&self, action: &ActionId) -> Option<Duration> {
        lock(&self.0).remove(action).map(|since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_timed_once_and_only_after_a_miss() {
        let misses = Misses::default();
        let action = |n| ActionId([n; 32]);
        misses.add(&[action(1), action(2)]);
        assert!(misses.take(&action(2)).is_some());
        assert_eq!(misses.take(&action(2)), None);
        assert_eq!(misses.take(&action(3)), None);
    }

    #[test]
    fn what_is_never_put_takes_no_more_memory_than_a_bound() {
        let misses = Misses::default();
        for n in 0..100_000u32 {
            let mut action = ActionId([0; 32]);
            action.0[..4].copy_from_slice(&n.to_le_bytes());
            misses.add(&[action]);
        }
        assert!(lock(&misses.0).len() <= MISSES_MAX);
    }
}
