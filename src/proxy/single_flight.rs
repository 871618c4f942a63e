//! Requests for the same file at the same time: one of them does the work, the others wait for
//! what it gets.
//!
//! Nobody waits for one that has ended without a result.

use super::answers::Answer;
use super::path::Path;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The requests that are being worked on.
#[derive(Default)]
pub struct SingleFlight(Mutex<HashMap<Path, Arc<Flight>>>);

#[derive(Default)]
struct Flight {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Flying,
    Landed(Answer),
    Lost,
}

impl SingleFlight {
    /// Gives what `work` gives, or what another thread's `work` for the same path is giving.
    pub fn share(&self, path: &Path, work: impl FnOnce() -> Answer) -> Answer {
        let joined = {
            let mut flying = lock(&self.0);
            match flying.get(path) {
                Some(flight) => Some(Arc::clone(flight)),
                None => {
                    flying.insert(path.clone(), Arc::default());
                    None
                }
            }
        };
        let Some(flight) = joined else {
            let ending = Ending {
                flights: self,
                path,
            };
            let answer = work();
            ending.land(&answer);
            return answer;
        };
        let mut state = lock(&flight.state);
        loop {
            match &*state {
                State::Flying => {
                    state = flight
                        .landed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                State::Landed(answer) => return answer.clone(),
                State::Lost => break,
            }
        }
        drop(state);
        work()
    }
}

/// Wakes those who wait, even if the work panics.
struct Ending<'a> {
    flights: &'a SingleFlight,
    path: &'a Path,
}

impl Ending<'_> {
    fn land(self, answer: &Answer) {
        self.end(State::Landed(answer.clone()));
        // By now the path may be another flight's.
        std::mem::forget(self);
    }

    fn end(&self, state: State) {
        if let Some(flight) = lock(&self.flights.0).remove(self.path) {
            *lock(&flight.state) = state;
            flight.landed.notify_all();
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.end(State::Lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::body::Body;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn answer() -> Answer {
        Answer {
            status: 200,
            content_type: String::new(),
            body: Body::text("x"),
        }
    }

    #[test]
    fn the_same_path_is_worked_on_once_and_others_go_on() {
        let flights = SingleFlight::default();
        let works = AtomicUsize::new(0);
        let begun = Barrier::new(2);
        let go_on = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                flights.share(&path("/a.b/c/@v/list"), || {
                    begun.wait();
                    works.fetch_add(1, Ordering::Relaxed);
                    go_on.wait();
                    answer()
                })
            });
            begun.wait();
            let second = scope.spawn(|| flights.share(&path("/a.b/c/@v/list"), || unreachable!()));
            flights.share(&path("/a.b/other/@v/list"), answer);
            // Until the second waits: it holds the flight too.
            while Arc::strong_count(&lock(&flights.0)[&path("/a.b/c/@v/list")]) < 2 {
                std::thread::yield_now();
            }
            go_on.wait();
            assert_eq!(second.join().unwrap().status, 200);
        });
        assert_eq!(works.load(Ordering::Relaxed), 1);
        assert!(lock(&flights.0).is_empty());
    }

    #[test]
    fn nobody_waits_for_one_that_panicked() {
        let flights = SingleFlight::default();
        std::thread::scope(|scope| {
            let lost = scope.spawn(|| flights.share(&path("/a.b/c/@v/list"), || panic!("lost")));
            assert!(lost.join().is_err());
        });
        assert!(lock(&flights.0).is_empty());
        assert_eq!(flights.share(&path("/a.b/c/@v/list"), answer).status, 200);
    }
}
