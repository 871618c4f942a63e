//! What is to be fetched: what somebody waits for first, then what is read ahead. However many want the same action, it
//! is fetched once. It knows of no HTTP and of no disk; `Remote` has the threads.

use crate::config::REMOTE_AHEAD;
use crate::id::ActionId;
use crate::sync::lock;
use std::collections::hash_map::Entry::Vacant;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The most that may wait to be fetched: no build's gets and lists come near it.
const CAPACITY: usize = 1 << 17;

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
    ahead: VecDeque<(ActionId, Arc<Allowance>)>,
    /// All actions of the two above, and those that are being fetched.
    flights: HashMap<ActionId, Flight>,
    /// How many are being fetched that nobody had asked for when they began.
    running_ahead: usize,
    stopping: bool,
}

#[derive(Default)]
struct Flight {
    waiters: Vec<Waiter>,
    is_running: bool,
}

/// How many bytes may still be read ahead for one list.
#[derive(Debug)]
pub struct Allowance(AtomicU64);

impl Allowance {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// Takes this much of it, if there is as much left.
    pub fn take(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

/// Something to do.
#[derive(Debug)]
pub enum Job {
    /// Read ahead for a build of this name.
    Name(String),
    /// Fetch an action.
    Fetch(Fetch),
}

/// An action that is to be fetched.
#[derive(Debug)]
pub struct Fetch {
    /// Which.
    pub action: ActionId,
    /// Nobody waits for it, and it must fit into this.
    pub ahead: Option<Arc<Allowance>>,
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
        if state.stopping || !is_known && state.flights.len() >= CAPACITY {
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
    pub fn ahead(&self, action: ActionId, allowance: &Arc<Allowance>) {
        let mut state = self.state();
        if state.flights.len() >= CAPACITY || state.stopping {
            return;
        }
        if let Vacant(flight) = state.flights.entry(action) {
            flight.insert(Flight::default());
            state.ahead.push_back((action, Arc::clone(allowance)));
            self.more.notify_one();
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
    pub fn landed(&self, fetch: &Fetch) {
        let mut state = self.state();
        let flight = state.flights.remove(&fetch.action);
        if fetch.ahead.is_some() {
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
        for (action, _) in std::mem::take(&mut state.ahead) {
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
            if let Some(job) = self.begin(action, None) {
                return Some(job);
            }
        }
        if let Some(name) = self.names.pop_front() {
            return Some(Job::Name(name));
        }
        while self.running_ahead < REMOTE_AHEAD {
            let (action, allowance) = self.ahead.pop_front()?;
            if let Some(job) = self.begin(action, Some(allowance)) {
                self.running_ahead += 1;
                return Some(job);
            }
        }
        None
    }

    /// Takes an action, unless somebody else has.
    fn begin(&mut self, action: ActionId, ahead: Option<Arc<Allowance>>) -> Option<Job> {
        let flight = self.flights.get_mut(&action)?;
        if std::mem::replace(&mut flight.is_running, true) {
            return None;
        }
        Some(Job::Fetch(Fetch { action, ahead }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn id(n: u8) -> ActionId {
        ActionId([n; 32])
    }

    /// Takes the next one, which must fetch this, ahead or not.
    fn take(fetches: &Fetches, n: u8, ahead: bool) -> Fetch {
        let Some(Job::Fetch(fetch)) = fetches.take() else {
            panic!("nothing is to be fetched")
        };
        assert_eq!((fetch.action, fetch.ahead.is_some()), (id(n), ahead));
        fetch
    }

    #[test]
    fn whoever_waits_goes_first_and_nothing_is_fetched_twice() {
        let fetches = Fetches::default();
        let allowance = Arc::new(Allowance::new(1));
        let called = Arc::new(AtomicUsize::new(0));
        let waiter = || -> Waiter {
            let called = Arc::clone(&called);
            Box::new(move || {
                called.fetch_add(1, Ordering::Relaxed);
            })
        };
        fetches.ahead(id(1), &allowance);
        fetches.ahead(id(2), &allowance);
        fetches.begin("x");
        assert!(fetches.ask(id(3), waiter()));
        assert!(fetches.ask(id(2), waiter()));
        assert!(fetches.ask(id(2), waiter()));
        take(&fetches, 3, false);
        let second = take(&fetches, 2, false);
        assert!(matches!(fetches.take(), Some(Job::Name(name)) if name == "x"));
        let first = take(&fetches, 1, true);
        // Both are on their way: nobody begins anew.
        assert!(fetches.ask(id(1), waiter()));
        fetches.ahead(id(2), &allowance);
        fetches.landed(&second);
        assert_eq!(called.load(Ordering::Relaxed), 2);
        fetches.landed(&first);
        assert_eq!(called.load(Ordering::Relaxed), 3);
        fetches.stop();
        assert!(fetches.take().is_none());
        assert!(!fetches.ask(id(5), waiter()));
    }

    #[test]
    fn reading_ahead_leaves_room_for_whoever_waits() {
        let fetches = Fetches::default();
        let allowance = Arc::new(Allowance::new(1));
        let last = REMOTE_AHEAD as u8 + 40;
        for n in 0..=last {
            fetches.ahead(id(n), &allowance);
        }
        let begun: Vec<_> = (0..REMOTE_AHEAD as u8)
            .map(|n| take(&fetches, n, true))
            .collect();
        fetches.ask(id(last), Box::new(|| {}));
        take(&fetches, last, false);
        fetches.landed(&begun[0]);
        take(&fetches, REMOTE_AHEAD as u8, true);
        fetches.forget_ahead();
        fetches.landed(&begun[1]);
        fetches.begin("the next thing that there is");
        assert!(matches!(fetches.take(), Some(Job::Name(_))));
    }

    #[test]
    fn an_allowance_is_never_exceeded() {
        let allowance = Allowance::new(10);
        assert!(allowance.take(6));
        assert!(!allowance.take(5));
        assert!(allowance.take(4));
        assert!(!allowance.take(1) && allowance.take(0));
    }
}
