//! When a server fails again and again it is left alone for a while: then nobody waits for it. One request after that
//! while shows whether it is back. It knows of no HTTP, and of time only what it is told.

use crate::sync::lock;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A failure weighs as much as two requests that succeed, and with so many failures in a row the circuit opens. So it
/// does too, later, when every second request fails.
const FAILURES: u32 = 5;

/// For so long a server is left alone at first; each time that it still fails then, twice as long …
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// … but no longer than this.
const LAST_WAIT: Duration = Duration::from_secs(5 * 60);

/// A request that is to show whether the server is back, and of which nothing is heard, is forgotten after so long.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// Lets requests pass, or none.
#[derive(Debug, Default)]
pub struct CircuitBreaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    score: u32,
    /// Since when nothing passes, and for how long.
    open: Option<(Instant, Duration)>,
    /// When the request was let through that is to show whether the server is back.
    probing: Option<Instant>,
    /// The last failure.
    why: String,
}

/// What a request's end changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Nothing passes from now on, for so long.
    Opened(Duration),
    /// Requests pass again.
    Closed,
}

impl CircuitBreaker {
    /// Whether a request may pass now. Whoever asks must make the request then, and tell how it ended.
    pub fn may_pass(&self, now: Instant) -> bool {
        let mut state = self.state();
        if !state.is_due(now) {
            return false;
        }
        if state.open.is_some() {
            state.probing = Some(now);
        }
        true
    }

    /// Whether one could pass now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.state().is_due(now)
    }

    /// Why nothing passes, if it is so.
    pub fn why_open(&self) -> Option<String> {
        let state = self.state();
        state.open.map(|_| state.why.clone())
    }

    /// A request that was let pass has succeeded.
    pub fn succeeded(&self) -> Change {
        let mut state = self.state();
        state.score = state.score.saturating_sub(1);
        state.probing = None;
        match state.open.take() {
            Some(_) => {
                state.score = 0;
                Change::Closed
            }
            None => Change::None,
        }
    }

    /// A request that was let pass has failed.
    pub fn failed(&self, now: Instant, why: &str) -> Change {
        let mut state = self.state();
        state.why = why.into();
        let wait = match state.open {
            // One of those that were on their way when it opened.
            Some(_) if state.probing.is_none() => return Change::None,
            Some((_, wait)) => (wait * 2).min(LAST_WAIT),
            None => {
                state.score += 2;
                if state.score < 2 * FAILURES {
                    return Change::None;
                }
                FIRST_WAIT
            }
        };
        state.open = Some((now, wait));
        state.probing = None;
        Change::Opened(wait)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    fn is_due(&self, now: Instant) -> bool {
        let Some((since, wait)) = self.open else {
            return true;
        };
        let probing = self
            .probing
            .is_some_and(|at| now.duration_since(at) < PROBE_LIMIT);
        !probing && now.duration_since(since) >= wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let breaker = CircuitBreaker::default();
        let now = Instant::now();
        for _ in 1..FAILURES {
            assert!(breaker.may_pass(now));
            assert_eq!(breaker.failed(now, "x"), Change::None);
        }
        assert_eq!(breaker.why_open(), None);
        assert_eq!(breaker.failed(now, "gone"), Change::Opened(FIRST_WAIT));
        assert_eq!(breaker.why_open().as_deref(), Some("gone"));
        assert!(!breaker.may_pass(now));
        let later = now + FIRST_WAIT;
        assert!(breaker.may_pass(later), "one tries");
        assert!(!breaker.may_pass(later), "and no other one");
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert!(breaker.may_pass(later) && breaker.may_pass(later));
        assert_eq!(breaker.failed(later, "x"), Change::None);
    }

    #[test]
    fn each_try_in_vain_doubles_the_wait_up_to_a_limit() {
        let breaker = CircuitBreaker::default();
        let mut now = Instant::now();
        for _ in 0..FAILURES {
            breaker.failed(now, "x");
        }
        let mut wait = FIRST_WAIT;
        for _ in 0..10 {
            now += wait;
            assert!(breaker.may_pass(now));
            wait = (wait * 2).min(LAST_WAIT);
            assert_eq!(breaker.failed(now, "x"), Change::Opened(wait));
            assert!(!breaker.may_pass(now));
        }
        assert_eq!(wait, LAST_WAIT);
    }

    #[test]
    fn late_failures_of_others_do_not_prolong_it() {
        let breaker = CircuitBreaker::default();
        let now = Instant::now();
        for _ in 0..FAILURES {
            breaker.failed(now, "x");
        }
        assert_eq!(breaker.failed(now + FIRST_WAIT / 2, "x"), Change::None);
        assert!(breaker.may_pass(now + FIRST_WAIT));
    }

    #[test]
    fn a_try_of_which_nothing_is_heard_is_followed_by_another() {
        let breaker = CircuitBreaker::default();
        let now = Instant::now();
        for _ in 0..FAILURES {
            breaker.failed(now, "x");
        }
        let now = now + FIRST_WAIT;
        assert!(breaker.may_pass(now));
        assert!(!breaker.may_pass(now + PROBE_LIMIT / 2));
        assert!(breaker.may_pass(now + PROBE_LIMIT));
    }

    #[test]
    fn a_server_of_which_every_second_answer_fails_is_left_alone_too() {
        let breaker = CircuitBreaker::default();
        let now = Instant::now();
        let opened = (0..50).any(|_| {
            breaker.succeeded();
            breaker.failed(now, "x") != Change::None
        });
        assert!(opened);
        let breaker = CircuitBreaker::default();
        let opened = (0..500).any(|_| {
            breaker.succeeded();
            breaker.succeeded();
            breaker.failed(now, "x") != Change::None
        });
        assert!(!opened, "one with few failures is not");
    }
}
