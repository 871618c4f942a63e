//! Requests for the same thing at the same time: one of them does the work, the others wait for
//! its result.
//!
//! Nobody waits for one that has ended without a result.

use crate::sync::lock;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The work in progress, by its key.
pub struct SingleFlight<K, V>(Mutex<HashMap<K, Arc<Flight<V>>>>);

struct Flight<V> {
    state: Mutex<State<V>>,
    ended: Condvar,
}

enum State<V> {
    Running,
    Done(V),
    Panicked,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// Returns the result of `work`, or of another thread's `work` for the same key.
    pub fn share(&self, key: &K, work: impl FnOnce() -> V) -> V {
        let joined = {
            let mut running = lock(&self.0);
            let joined = running.get(key).map(Arc::clone);
            if joined.is_none() {
                running.insert(
                    key.clone(),
                    Arc::new(Flight {
                        state: Mutex::new(State::Running),
                        ended: Condvar::new(),
                    }),
                );
            }
            joined
        };
        let Some(flight) = joined else {
            let ending = Ending { flights: self, key };
            let result = work();
            ending.finish(&result);
            return result;
        };
        let state = flight
            .ended
            .wait_while(lock(&flight.state), |state| matches!(state, State::Running))
            .unwrap_or_else(PoisonError::into_inner);
        if let State::Done(result) = &*state {
            return result.clone();
        }
        drop(state);
        work()
    }
}

/// Wakes those who wait, even if the work panics.
struct Ending<'a, K: Clone + Eq + Hash, V: Clone> {
    flights: &'a SingleFlight<K, V>,
    key: &'a K,
}

impl<K: Clone + Eq + Hash, V: Clone> Ending<'_, K, V> {
    fn finish(self, result: &V) {
        self.end(State::Done(result.clone()));
        // By now the key may be another flight's.
        std::mem::forget(self);
    }

    fn end(&self, state: State<V>) {
        if let Some(flight) = lock(&self.flights.0).remove(self.key) {
            *lock(&flight.state) = state;
            flight.ended.notify_all();
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Drop for Ending<'_, K, V> {
    fn drop(&mut self) {
        self.end(State::Panicked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_same_key_is_worked_on_once_and_others_go_on() {
        let flights = SingleFlight::default();
        let works = AtomicUsize::new(0);
        let begun = Barrier::new(2);
        let go_on = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                flights.share(&"one", || {
                    begun.wait();
                    works.fetch_add(1, Ordering::Relaxed);
                    go_on.wait();
                    200
                })
            });
            begun.wait();
            let second = scope.spawn(|| flights.share(&"one", || unreachable!()));
            flights.share(&"other", || 300);
            // Until the second waits: it holds the flight too.
            while Arc::strong_count(&lock(&flights.0)[&"one"]) < 2 {
                std::thread::yield_now();
            }
            go_on.wait();
            assert_eq!(second.join().unwrap(), 200);
        });
        assert_eq!(works.load(Ordering::Relaxed), 1);
        assert!(lock(&flights.0).is_empty());
    }

    #[test]
    fn nobody_waits_for_one_that_panicked() {
        let flights = SingleFlight::default();
        std::thread::scope(|scope| {
            let lost = scope.spawn(|| flights.share(&"one", || panic!("lost")));
            assert!(lost.join().is_err());
        });
        assert!(lock(&flights.0).is_empty());
        assert_eq!(flights.share(&"one", || 200), 200);
    }
}
