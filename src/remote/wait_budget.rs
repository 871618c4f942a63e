//! How long one build may wait for the remote: a remote that is slower than compiling, or that has nothing, must not
//! make a build slower than it would be without.
//!
//! A build has an account. Each get that waits for the remote costs what it waits, and a hit is worth what compiling would
//! have taken, as far as one can tell from its size. When nothing is left the remote is asked only now and then.

use crate::sync::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a build begins with.
const INITIAL: f64 = 2.0;

/// The most that an account can hold, in seconds.
const CAPACITY: f64 = 10.0;

/// What comes back with time: this part of it. So a build of minutes loses no more than that.
const REFILL_RATE: f64 = 0.05;

/// What each hit is worth, in seconds …
const HIT_WORTH: f64 = 0.03;

/// … and one more second for so many bytes. The Go compiler, on one core, makes some 3 MB of outputs in a second.
const BYTES_PER_SECOND: f64 = 3e6;

/// A build's account.
#[derive(Debug)]
pub struct WaitBudget(Mutex<State>);

#[derive(Debug)]
struct State {
    left: f64,
    at: Instant,
}

impl WaitBudget {
    /// A new build's.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            left: INITIAL,
            at: now,
        }))
    }

    /// Whether a get may wait.
    pub fn lasts(&self, now: Instant) -> bool {
        self.change(now, 0.0) > 0.0
    }

    /// A get has waited for so long, and got an output of so many bytes, or nothing.
    pub fn waited(&self, now: Instant, time: Duration, got: Option<u64>) {
        let worth = got.map_or(0.0, |size| HIT_WORTH + size as f64 / BYTES_PER_SECOND);
        self.change(now, worth - time.as_secs_f64());
    }

    fn change(&self, now: Instant, by: f64) -> f64 {
        let mut state = lock(&self.0);
        let since = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = now.max(state.at);
        state.left = (state.left + since * REFILL_RATE + by).min(CAPACITY);
        state.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_that_has_nothing_costs_a_build_a_bounded_time() {
        let mut now = Instant::now();
        let budget = WaitBudget::new(now);
        let mut lost = Duration::ZERO;
        // A hundred seconds of a build that compiles everything, with a remote 100 ms away.
        for _ in 0..1000 {
            if budget.lasts(now) {
                let wait = Duration::from_millis(100);
                now += wait;
                lost += wait;
                budget.waited(now, wait, None);
            }
            now += Duration::from_millis(100);
        }
        assert!(lost < Duration::from_secs(9), "{lost:?}");
        assert!(lost > Duration::from_secs(5), "it is tried again: {lost:?}");
    }

    #[test]
    fn hits_pay_for_themselves_while_they_are_quicker_than_compiling() {
        let mut now = Instant::now();
        let budget = WaitBudget::new(now);
        for _ in 0..1000 {
            let wait = Duration::from_millis(50);
            now += wait;
            budget.waited(now, wait, Some(100_000));
            assert!(budget.lasts(now));
        }
        // And not when they are slower.
        let tried = (0..1000).take_while(|_| {
            let wait = Duration::from_millis(400);
            now += wait;
            budget.waited(now, wait, Some(100_000));
            budget.lasts(now)
        });
        assert!(tried.count() < 50);
    }

    #[test]
    fn one_stall_uses_it_up() {
        let now = Instant::now();
        let budget = WaitBudget::new(now);
        budget.waited(now, Duration::from_secs(10), None);
        assert!(!budget.lasts(now));
        assert!(budget.lasts(now + Duration::from_secs(200)));
    }
}
