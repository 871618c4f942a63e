//! Which build has put an action: remembered for the latest puts, so that the log can name both sides of a difference.
//! It is lost when the daemon ends.

use crate::id::ActionId;
use crate::sync::lock;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

/// Puts that are remembered. Each takes some 40 bytes.
const REMEMBERED: usize = 1 << 16;

/// The builds that have put the latest actions.
#[derive(Debug, Default)]
pub struct Putters(Mutex<Table>);

/// Actions that the log has named, at most.
const NAMED_MAX: usize = 1 << 14;

#[derive(Debug, Default)]
struct Table {
    /// Actions that the log has named.
    named: HashSet<u64>,
    by_action: HashMap<u64, Arc<str>>,
    /// The oldest first.
    order: VecDeque<u64>,
}

impl Putters {
    /// A build of this name has put an action.
    pub fn record(&self, action: &ActionId, build: &Arc<str>) {
        let tag = tag(action);
        let mut table = lock(&self.0);
        if table.by_action.insert(tag, Arc::clone(build)).is_none() {
            table.order.push_back(tag);
            if table.order.len() > REMEMBERED
                && let Some(oldest) = table.order.pop_front()
            {
                table.by_action.remove(&oldest);
            }
        }
    }

    /// Whether the log has not named this action yet; it does now.
    pub fn is_first_difference(&self, action: &ActionId) -> bool {
        let named = &mut lock(&self.0).named;
        named.len() < NAMED_MAX && named.insert(tag(action))
    }

    /// The name of the build that put an action, as far as it is known.
    pub fn of(&self, action: &ActionId) -> Option<Arc<str>> {
        lock(&self.0).by_action.get(&tag(action)).cloned()
    }
}

fn tag(action: &ActionId) -> u64 {
    let (first, _) = action.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_puts_are_remembered_and_no_more() {
        let putters = Putters::default();
        let action = |n: usize| ActionId::of(b"test", &n.to_le_bytes());
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        for n in 0..REMEMBERED + 10 {
            putters.record(&action(n), &one);
        }
        putters.record(&action(20), &two);
        assert_eq!(putters.of(&action(9)), None);
        assert_eq!(putters.of(&action(10)), Some(one));
        assert_eq!(putters.of(&action(20)), Some(two));
        assert_eq!(lock(&putters.0).by_action.len(), REMEMBERED);
    }
}
