//! What is known of the remote without asking it again. It is only what saves a question: forgotten when there is too
//! much of it, and with the daemon's end.

use crate::id::{ActionId, OutputId};
use crate::sync::lock;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

/// The most that one set holds.
const CAPACITY: usize = 1 << 15;

/// What is known.
#[derive(Debug, Default)]
pub struct Known(Mutex<Sets>);

#[derive(Debug, Default)]
struct Sets {
    there: HashSet<ActionId>,
    missing: HashSet<ActionId>,
    /// And whether it is under the name of a packed one.
    outputs: HashMap<OutputId, bool>,
    bad: HashSet<OutputId>,
}

fn add<T: Eq + Hash>(set: &mut HashSet<T>, id: T) {
    if set.len() >= CAPACITY {
        set.clear();
    }
    set.insert(id);
}

impl Known {
    /// The remote has this action and its output.
    pub fn record_present(&self, action: &ActionId) {
        let mut sets = self.sets();
        sets.missing.remove(action);
        add(&mut sets.there, *action);
    }

    /// The remote does not have it.
    pub fn record_missing(&self, action: &ActionId) {
        let mut sets = self.sets();
        sets.there.remove(action);
        add(&mut sets.missing, *action);
    }

    /// The remote has this output, under the name of a packed one or its own.
    pub fn record_output(&self, output: &OutputId, is_packed: bool) {
        let mut sets = self.sets();
        sets.bad.remove(output);
        if sets.outputs.len() >= CAPACITY {
            sets.outputs.clear();
        }
        sets.outputs.insert(*output, is_packed);
    }

    /// What the remote has of this output is wrong, or an entry names it and it is gone: it must be sent anew.
    pub fn record_bad_output(&self, output: &OutputId) {
        let mut sets = self.sets();
        sets.outputs.remove(output);
        add(&mut sets.bad, *output);
    }

    /// Whether an action is known to be there.
    pub fn is_present(&self, action: &ActionId) -> bool {
        self.sets().there.contains(action)
    }

    /// Whether an action is known to be missing.
    pub fn is_missing(&self, action: &ActionId) -> bool {
        self.sets().missing.contains(action)
    }

    /// Whether an output that is known to be there is under the name of a packed one.
    pub fn output(&self, output: &OutputId) -> Option<bool> {
        self.sets().outputs.get(output).copied()
    }

    /// Whether an output must be sent anew.
    pub fn must_renew(&self, output: &OutputId) -> bool {
        self.sets().bad.contains(output)
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_no_set_grows_without_end() {
        let known = Known::default();
        let action = ActionId([1; 32]);
        known.record_missing(&action);
        assert!(known.is_missing(&action));
        known.record_present(&action);
        assert!(known.is_present(&action) && !known.is_missing(&action));
        let output = OutputId([2; 32]);
        known.record_output(&output, true);
        known.record_bad_output(&output);
        assert!(known.must_renew(&output) && known.output(&output).is_none());
        known.record_output(&output, true);
        assert!(!known.must_renew(&output));
        for n in 0..CAPACITY as u32 + 10 {
            known.record_present(&ActionId::of(b"test", &n.to_le_bytes()));
        }
        assert!(known.sets().there.len() <= CAPACITY);
    }
}
