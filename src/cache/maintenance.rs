//! What the daemon does on its own account: eviction, sync points, the check after a
//! crash. One thread, which steps back behind everybody else; no request waits for it.

use crate::cache::stats::Stats;
use crate::cache::store::{Goal, Limits, Store};
use crate::config::{
    AGE_CHECK_EVERY, EVICT_AGAIN_AFTER, IDLE_AGES, SYNC_AT_LEAST_EVERY, SYNC_EVERY, UPKEEP_EVERY,
};
use crate::error::{Error, Result};
use crate::log;
use crate::report::Swept;
use crate::size::{show_age, show_size};
use crate::sync::lock;
use crate::sys;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is asked of the builds that are registered.
pub trait BuildsOfUsers {
    /// Whether a session is open.
    fn have_sessions(&self) -> bool;
    /// Gives up those that registered themselves, have no session and were not used for so long; says how many went.
    fn release_idle(&self, unused_for: Duration) -> usize;
    /// How many sessions have ended so far of builds that registered themselves: what these used can be given up then.
    fn own_sessions_ended(&self) -> u64 {
        0
    }
    /// Writes what a later daemon is to know of how long they took.
    fn save_times(&self) {}
}

/// A cache without build directories.
impl BuildsOfUsers for () {
    fn have_sessions(&self) -> bool {
        false
    }

    fn release_idle(&self, _unused_for: Duration) -> usize {
        0
    }
}

/// Wakes the thread, and stops it.
#[derive(Debug, Default)]
pub struct Maintenance {
    woken: Mutex<bool>,
    wake: Condvar,
    stop: AtomicBool,
    /// Builds have ended since an eviction was in vain.
    worthwhile: AtomicBool,
}

impl Maintenance {
    /// There may be something to do.
    pub fn wake(&self) {
        *lock(&self.woken) = true;
        self.wake.notify_all();
    }

    /// There is more to be evicted now than there was before.
    pub fn builds_have_ended(&self) {
        self.worthwhile.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Ends the thread soon, whatever it does.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// True once all this is to end.
    pub fn stopping(&self) -> &AtomicBool {
        &self.stop
    }

    /// The thread.
    pub fn run(&self, store: &Store, stats: &Stats, limits: &Limits, builds: &dyn BuildsOfUsers) {
        sys::lower_priority();
        if let Err(e) = self.check_suspects(store)
            && !matches!(e, Error::Stopped)
        {
            log::warn(e.chain());
        }
        let mut synced = Instant::now();
        let mut sweeper = Sweeper::default();
        let mut size_is_a_guess = store.size_is_a_guess();
        while !self.stop.load(Ordering::Relaxed) {
            if self.worthwhile.swap(false, Ordering::Relaxed) {
                sweeper.in_vain = None;
            }
            let goal = match store.overdue(limits) {
                Ok(Some(goal)) if sweeper.may_try(builds.own_sessions_ended()) => Some(goal),
                Ok(_) if size_is_a_guess || stats.since_sweep() > AGE_CHECK_EVERY => {
                    store.goal(limits).ok()
                }
                Ok(_) => None,
                Err(e) => {
                    log::warn(e.chain());
                    None
                }
            };
            if let Some(goal) = goal {
                match sweeper.sweep(store, &goal, builds, &self.stop) {
                    Ok(swept) => {
                        stats.swept();
                        stats.evicted(&swept);
                        size_is_a_guess = false;
                    }
                    Err(Error::Stopped) => {}
                    Err(e) => log::warn(format!("eviction failed: {}", e.chain())),
                }
            }
            // It stalls whoever writes meanwhile.
            let is_due = synced.elapsed() >= SYNC_EVERY && !builds.have_sessions();
            if is_due || synced.elapsed() >= SYNC_AT_LEAST_EVERY {
                // Again and again, until the disk takes it: then what it has not taken before is found.
                let done = store.sync().and_then(|()| self.check_suspects(store));
                if let Err(e) = done
                    && !matches!(e, Error::Stopped)
                {
                    log::warn(e.chain());
                }
                stats.save();
                builds.save_times();
                synced = Instant::now();
            }
            self.wait();
        }
    }

    /// Reads what a crash or a failed write may have damaged, if there is any.
    fn check_suspects(&self, store: &Store) -> Result<()> {
        let checked = store.verify_suspects(&self.stop)?;
        if checked > 0 {
            log::info(format!(
                "verified {checked} outputs that a crash or a failed write may have damaged"
            ));
        }
        Ok(())
    }

    fn wait(&self) {
        let woken = lock(&self.woken);
        let (mut woken, _) = self
            .wake
            .wait_timeout_while(woken, UPKEEP_EVERY, |woken| !*woken)
            .unwrap_or_else(PoisonError::into_inner);
        *woken = false;
    }
}

/// Sweeps, but not over and over when that is of no use.
#[derive(Debug, Default)]
struct Sweeper {
    /// When it was in vain, and how many sessions of dev shells had ended then.
    in_vain: Option<(Instant, u64)>,
    said: bool,
}

impl Sweeper {
    fn may_try(&self, sessions_ended: u64) -> bool {
        self.in_vain.is_none_or(|(then, ended_by_then)| {
            let wait = if sessions_ended == ended_by_then {
                EVICT_AGAIN_AFTER
            } else {
                UPKEEP_EVERY
            };
            then.elapsed() >= wait
        })
    }

    fn sweep(
        &mut self,
        store: &Store,
        goal: &Goal,
        builds: &dyn BuildsOfUsers,
        stop: &AtomicBool,
    ) -> Result<Swept> {
        let begun = Instant::now();
        // Whatever comes of it, not at once again.
        self.in_vain = Some((begun, builds.own_sessions_ended()));
        let mut ages = IDLE_AGES.into_iter();
        if store.size() > goal.keep {
            ages.next().map(|age| builds.release_idle(age));
        }
        let mut swept = store.sweep(goal, false, stop)?;
        for age in ages {
            if reached(goal, &swept) || builds.release_idle(age) == 0 {
                continue;
            }
            let again = store.sweep(goal, false, stop)?;
            swept = Swept {
                outputs: swept.outputs + again.outputs,
                actions: swept.actions + again.actions,
                bytes: swept.bytes + again.bytes,
                ..again
            };
        }
        if swept.outputs + swept.actions > 0 {
            log::info(format!(
                "evicted {} outputs and {} actions, {} in {:.1}s; {} in {} outputs remain, the oldest last used \
                 {} ago",
                swept.outputs,
                swept.actions,
                show_size(swept.bytes),
                begun.elapsed().as_secs_f64(),
                show_size(swept.left_bytes),
                swept.left_outputs,
                show_age(std::time::Duration::from_secs(swept.oldest))
            ));
        }
        if reached(goal, &swept) {
            *self = Self::default();
        } else if !self.said {
            self.said = true;
            log::warn(format!(
                "cache still above its limit: {} used, {} allowed, {} in use by running builds; trying again when they \
                 have ended",
                show_size(swept.left_bytes),
                show_size(goal.keep),
                show_size(swept.live_bytes)
            ));
        }
        Ok(swept)
    }
}

fn reached(goal: &Goal, swept: &Swept) -> bool {
    swept.left_bytes <= goal.keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OpenDirectory;
    use crate::id::{ActionId, OutputId};
    use crate::test_dir::TestDir;
    use sha2::{Digest, Sha256};

    /// Builds of users that notes which of them are to go.
    #[derive(Default)]
    struct Idle(Mutex<Vec<Duration>>);

    impl BuildsOfUsers for Idle {
        fn have_sessions(&self) -> bool {
            false
        }

        fn release_idle(&self, unused_for: Duration) -> usize {
            lock(&self.0).push(unused_for);
            1
        }
    }

    #[test]
    fn what_was_used_least_recently_is_given_up_first_and_no_more_than_is_wanted() {
        for (is_live, asked) in [(false, 1), (true, IDLE_AGES.len())] {
            let dir = TestDir::new();
            let store = Store::open(&dir.path().join("cache")).unwrap();
            let output = OutputId(Sha256::digest(b"body").into());
            let action = ActionId([1; 32]);
            let put = store.put(&action, &output, 4, &mut &b"body"[..]);
            if is_live {
                let directory = OpenDirectory::open(dir.path()).unwrap();
                store
                    .link(&action, &put.unwrap(), &directory, "link")
                    .unwrap();
            }
            let builds = Idle::default();
            let goal = Goal {
                keep: 0,
                max_age: Duration::ZERO,
            };
            let never = AtomicBool::new(false);
            Sweeper::default()
                .sweep(&store, &goal, &builds, &never)
                .unwrap();
            assert_eq!(*lock(&builds.0), IDLE_AGES[..asked]);
        }
        assert!(IDLE_AGES.is_sorted_by(|one, next| one > next));
    }

    #[test]
    fn what_was_in_vain_is_tried_again_soon_after_a_session_of_a_dev_shell_has_ended() {
        let tried = |before: Duration| {
            let now = Instant::now();
            let sweeper = Sweeper {
                in_vain: Some((now.checked_sub(before).unwrap(), 7)),
                said: true,
            };
            (sweeper.may_try(7), sweeper.may_try(8))
        };
        assert_eq!(tried(Duration::ZERO), (false, false));
        assert_eq!(tried(UPKEEP_EVERY), (false, true));
        assert_eq!(tried(EVICT_AGAIN_AFTER), (true, true));
        assert!(Sweeper::default().may_try(0));
    }
}
