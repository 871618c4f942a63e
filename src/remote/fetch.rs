//! What is to be fetched: what somebody waits for first, then what is read ahead. However many want the same action, it
//! is fetched once. It knows of no HTTP and of no disk; `Remote` has the threads.

use crate::config::REMOTE_AHEAD;
use crate::entry::Entry;
use crate::id::ActionId;
use crate::sync::lock;
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The most that may wait to be fetched: no build's gets and lists come near it.
const MOST: usize = 1 << 17;

/// Called once an action has been fetched, or could not be.
pub type Waiter = Box<dyn FnOnce() + Send>;

/// What is to be fetched.
#[derive(Default)]
pub struct Fetches {
    state: Mutex<State>,
    /// Told whenever there is something more, and when all is to end.
    more: Condvar,
}

#[derive(Default)]
struct State {
    /// Names whose builds have begun.
    names: VecDeque<String>,
    asked: VecDeque<ActionId>,
    ahead: VecDeque<ActionId>,
    /// All actions of the two above, and those that are being fetched.
    flights: HashMap<ActionId, Flight>,
    /// How many are being fetched that nobody had asked for when they began.
    running_ahead: usize,
    stopping: bool,
}

#[derive(Default)]
struct Flight {
    /// What a list says of the action.
    hint: Option<Entry>,
    waiters: Vec<Waiter>,
    is_running: bool,
}

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Job {
    /// Read ahead for a build of this name.
    Name(String),
    /// Fetch an action.
    Action {
        /// Which.
        action: ActionId,
        /// What a list says of it.
        hint: Option<Entry>,
        /// Nobody waits for it.
        ahead: bool,
    },
}

impl std::fmt::Debug for Fetches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetches")
    }
}

impl Fetches {
    /// Wants an action; `waiter` is called once it is there, or known not to be. `false` when too much waits already:
    /// then nothing is fetched, and nobody called.
    pub fn ask(&self, action: ActionId, waiter: Waiter) -> bool {
        let mut state = self.state();
        let is_known = state.flights.contains_key(&action);
        if state.stopping || !is_known && state.flights.len() >= MOST {
            return false;
        }
        let flight = state.flights.entry(action).or_default();
        flight.waiters.push(waiter);
        if !flight.is_running && flight.waiters.len() == 1 {
            state.asked.push_back(action);
            self.more.notify_one();
        }
        true
    }

    /// Wants an action for later.
    pub fn ahead(&self, action: ActionId, hint: Entry) {
        let mut state = self.state();
        if state.flights.len() >= MOST || state.stopping {
            return;
        }
        let flight = state.flights.entry(action).or_default();
        if flight.hint.is_none() && !flight.is_running {
            flight.hint = Some(hint);
            if flight.waiters.is_empty() {
                state.ahead.push_back(action);
                self.more.notify_one();
            }
        }
    }

    /// A build of this name has begun.
    pub fn begin(&self, name: &str) {
        self.state().names.push_back(name.into());
        self.more.notify_one();
    }

    /// The next thing to do, for which a thread waits; `None` when all is to end.
    pub fn take(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(job) = state.next() {
                return Some(job);
            }
            state = self
                .more
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An action that was taken is done with.
    pub fn landed(&self, action: &ActionId, ahead: bool) {
        let mut state = self.state();
        let flight = state.flights.remove(action);
        if ahead {
            state.running_ahead -= 1;
            // One that was left aside for it.
            self.more.notify_one();
        }
        drop(state);
        for waiter in flight.into_iter().flat_map(|flight| flight.waiters) {
            waiter();
        }
    }

    /// Forgets what is to be read ahead.
    pub fn forget_ahead(&self) {
        let mut state = self.state();
        for action in std::mem::take(&mut state.ahead) {
            let idle = |flight: &Flight| !flight.is_running && flight.waiters.is_empty();
            if state.flights.get(&action).is_some_and(idle) {
                state.flights.remove(&action);
            }
        }
    }

    /// Ends all waiting.
    pub fn stop(&self) {
        self.state().stopping = true;
        self.more.notify_all();
    }

    /// Whether all is to end.
    pub fn stopping(&self) -> bool {
        self.state().stopping
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn next(&mut self) -> Option<Job> {
        while let Some(action) = self.asked.pop_front() {
            if let Some(job) = self.begin(action, false) {
                return Some(job);
            }
        }
        if let Some(name) = self.names.pop_front() {
            return Some(Job::Name(name));
        }
        while self.running_ahead < REMOTE_AHEAD {
            let action = self.ahead.pop_front()?;
            if let Some(job) = self.begin(action, true) {
                self.running_ahead += 1;
                return Some(job);
            }
        }
        None
    }

    /// Takes an action, unless somebody else has.
    fn begin(&mut self, action: ActionId, ahead: bool) -> Option<Job> {
        let flight = self.flights.get_mut(&action)?;
        if std::mem::replace(&mut flight.is_running, true) {
            return None;
        }
        Some(Job::Action {
            action,
            hint: flight.hint,
            ahead,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OutputId;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn id(n: u8) -> ActionId {
        ActionId([n; 32])
    }

    const HINT: Entry = Entry {
        output: OutputId([9; 32]),
        size: 1,
        time: 0,
    };

    fn job(n: u8, ahead: bool) -> Option<Job> {
        Some(Job::Action {
            action: id(n),
            hint: ahead.then_some(HINT),
            ahead,
        })
    }

    #[test]
    fn whoever_waits_goes_first_and_nothing_is_fetched_twice() {
        let fetches = Fetches::default();
        let called = Arc::new(AtomicUsize::new(0));
        let waiter = || -> Waiter {
            let called = Arc::clone(&called);
            Box::new(move || {
                called.fetch_add(1, Ordering::Relaxed);
            })
        };
        fetches.ahead(id(1), HINT);
        fetches.ahead(id(2), HINT);
        fetches.begin("x");
        assert!(fetches.ask(id(3), waiter()));
        assert!(fetches.ask(id(2), waiter()));
        assert!(fetches.ask(id(2), waiter()));
        assert_eq!(fetches.take(), job(3, false));
        // With what the list says of it.
        assert_eq!(
            fetches.take(),
            Some(Job::Action {
                action: id(2),
                hint: Some(HINT),
                ahead: false
            })
        );
        assert_eq!(fetches.take(), Some(Job::Name("x".into())));
        assert_eq!(fetches.take(), job(1, true));
        // Both are on their way: nobody begins anew.
        assert!(fetches.ask(id(1), waiter()));
        fetches.ahead(id(2), HINT);
        fetches.landed(&id(2), false);
        assert_eq!(called.load(Ordering::Relaxed), 2);
        fetches.landed(&id(1), true);
        assert_eq!(called.load(Ordering::Relaxed), 3);
        fetches.stop();
        assert_eq!(fetches.take(), None);
        assert!(!fetches.ask(id(5), waiter()));
    }

    #[test]
    fn reading_ahead_leaves_room_for_whoever_waits() {
        let fetches = Fetches::default();
        for n in 0..100 {
            fetches.ahead(id(n), HINT);
        }
        for n in 0..REMOTE_AHEAD as u8 {
            assert_eq!(fetches.take(), job(n, true));
        }
        fetches.ask(id(99), Box::new(|| {}));
        assert!(
            matches!(fetches.take(), Some(Job::Action { action, ahead: false, .. }) if action == id(99))
        );
        fetches.landed(&id(0), true);
        assert_eq!(fetches.take(), job(REMOTE_AHEAD as u8, true));
        fetches.forget_ahead();
        fetches.landed(&id(1), true);
        fetches.begin("the next thing that there is");
        assert!(matches!(fetches.take(), Some(Job::Name(_))));
    }
}
