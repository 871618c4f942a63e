//! What is known of the remote without asking it again. It is only what saves a question: forgotten when there is too
//! much of it, and with the daemon's end.

use crate::id::{ActionId, OutputId};
use crate::sync::lock;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

/// The most that one set holds.
const MOST: usize = 1 << 15;

/// What is known.
#[derive(Debug, Default)]
pub struct Known(Mutex<Sets>);

#[derive(Debug, Default)]
struct Sets {
    there: HashSet<ActionId>,
    missing: HashSet<ActionId>,
    outputs: HashSet<OutputId>,
    bad: HashSet<OutputId>,
}

fn add<T: Eq + Hash>(set: &mut HashSet<T>, id: T) {
    if set.len() >= MOST {
        set.clear();
    }
    set.insert(id);
}

impl Known {
    /// The remote has this action and its output.
    pub fn is_there(&self, action: &ActionId) {
        let mut sets = self.sets();
        sets.missing.remove(action);
        add(&mut sets.there, *action);
    }

    /// The remote does not have it.
    pub fn is_missing(&self, action: &ActionId) {
        let mut sets = self.sets();
        sets.there.remove(action);
        add(&mut sets.missing, *action);
    }

    /// The remote has this output.
    pub fn has_output(&self, output: &OutputId) {
        let mut sets = self.sets();
        sets.bad.remove(output);
        add(&mut sets.outputs, *output);
    }

    /// What the remote has of this output is wrong, or an entry names it and it is gone: it must be sent anew.
    pub fn lacks_output(&self, output: &OutputId) {
        let mut sets = self.sets();
        sets.outputs.remove(output);
        add(&mut sets.bad, *output);
    }

    /// Whether an action is known to be there.
    pub fn knows(&self, action: &ActionId) -> bool {
        self.sets().there.contains(action)
    }

    /// Whether an action is known to be missing.
    pub fn misses(&self, action: &ActionId) -> bool {
        self.sets().missing.contains(action)
    }

    /// Whether an output is known to be there.
    pub fn knows_output(&self, output: &OutputId) -> bool {
        self.sets().outputs.contains(output)
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
        let seen = Known::default();
        let action = ActionId([1; 32]);
        seen.is_missing(&action);
        assert!(seen.misses(&action));
        seen.is_there(&action);
        assert!(seen.knows(&action) && !seen.misses(&action));
        let output = OutputId([2; 32]);
        seen.has_output(&output);
        seen.lacks_output(&output);
        assert!(seen.must_renew(&output) && !seen.knows_output(&output));
        seen.has_output(&output);
        assert!(!seen.must_renew(&output));
        for n in 0..MOST as u32 + 10 {
            seen.is_there(&ActionId::of(b"test", &n.to_le_bytes()));
        }
        assert!(seen.sets().there.len() <= MOST);
    }
}
