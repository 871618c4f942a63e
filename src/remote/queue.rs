//! What waits to be uploaded: actions, in the order in which they were put. It is bounded, and stands on disk, in
//! `CACHE/remote/queue`, 32 bytes for each. Lists wait in a queue of their own, which their history keeps.
//!
//! The file may be old, cut off or full of zeros after a power cut, and that does no harm: an action that the store does
//! not know is passed over, and what the remote has already is not sent again.

use crate::error::Result;
use crate::fs;
use crate::id::{ActionId, ID_LEN};
use crate::log;
use crate::sync::lock;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many may wait: the puts of a dozen large builds.
const CAPACITY: usize = 1 << 16;

/// One that fails so often is dropped, if others have succeeded since its first upload began …
const TRIES: u32 = 3;

/// … and waits for so long before it is tried again, twice as long each time …
const FIRST_DELAY: Duration = Duration::from_secs(5);

/// … up to this.
const LAST_DELAY: Duration = Duration::from_secs(5 * 60);

/// How often what has changed is written.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// The queue.
#[derive(Debug)]
pub struct Queue {
    /// `None` when somebody else keeps what waits.
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// Told whenever there is something more, and when all is to end.
    more: Condvar,
    saving: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<ActionId>,
    /// Those that are being uploaded now, with how many had succeeded when their upload began.
    running: HashMap<ActionId, u64>,
    /// Those that have failed, and are tried again later, the first one first.
    later: BTreeSet<(Instant, ActionId)>,
    failed: HashMap<ActionId, Failed>,
    /// All of the above.
    known: HashSet<ActionId>,
    /// Those of them that come from an earlier daemon, which may have begun them.
    inherited: HashSet<ActionId>,
    /// Those that were given up, and have not succeeded since.
    given_up: HashSet<ActionId>,
    dropped: u64,
    /// How many have succeeded.
    succeeded: u64,
    changed: bool,
    saved: Option<Instant>,
    stopping: bool,
}

/// One that has failed.
#[derive(Debug)]
struct Failed {
    tries: u32,
    /// How many others had succeeded when its first upload began. All of them may have before that failed.
    succeeded: u64,
}

impl Queue {
    /// Opens the queue, with what an earlier daemon has left in it.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(path: PathBuf) -> Result<Self> {
        let mut state = State::default();
        let mut bytes = Vec::new();
        match fs::open(&path) {
            Ok(file) => {
                let read = file
                    .take((CAPACITY * ID_LEN) as u64)
                    .read_to_end(&mut bytes)
                    .map_err(|e| crate::error::Error::io("read", &path, e));
                read?;
            }
            Err(e) if e.kind() == Some(std::io::ErrorKind::NotFound) => {}
            Err(e) => return Err(e),
        }
        for id in bytes.chunks_exact(ID_LEN) {
            if let Ok(id) = id.try_into() {
                state.push(ActionId(id));
                state.inherited.insert(ActionId(id));
            }
        }
        Ok(Self {
            path: Some(path),
            ..Self::with(state)
        })
    }

    /// A queue with what somebody else keeps.
    pub fn of(waiting: impl IntoIterator<Item = ActionId>) -> Self {
        let mut state = State::default();
        for id in waiting {
            state.push(id);
        }
        Self::with(state)
    }

    fn with(state: State) -> Self {
        Self {
            path: None,
            state: Mutex::new(state),
            more: Condvar::new(),
            saving: Mutex::default(),
        }
    }

    /// Adds an action at the end; one that waits already stays where it is. When the queue is full it is
    /// dropped: what came first is what the rest builds upon.
    pub fn push(&self, action: ActionId) {
        if self.state().push(action) {
            self.more.notify_one();
        }
    }

    /// The next one, which is running then. `None` when there was none for so long, or all is to end.
    pub fn take(&self, wait: Duration) -> Option<ActionId> {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            if state.stopping {
                return None;
            }
            let now = Instant::now();
            state.wake(now);
            if let Some(action) = state.waiting.pop_front() {
                let succeeded = state.succeeded;
                state.running.insert(action, succeeded);
                return Some(action);
            }
            let left = wait.checked_sub(now.duration_since(start))?;
            let due = state.later.first().map(|(due, _)| due.duration_since(now));
            let (next, _) = self
                .more
                .wait_timeout(state, due.map_or(left, |due| due.min(left)))
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    /// One that was running has succeeded.
    pub fn done(&self, action: &ActionId) {
        let mut state = self.state();
        state.succeeded += 1;
        state.given_up.remove(action);
        state.forget(action);
    }

    /// Something else was uploaded: the server takes uploads.
    pub fn note_success(&self) {
        self.state().succeeded += 1;
    }

    /// One that was running is not tried again.
    pub fn give_up(&self, action: &ActionId) {
        let mut state = self.state();
        state.note_given_up(action);
        state.forget(action);
    }

    /// One that was running has failed. It is tried again later, behind all others, unless it has failed often while
    /// others succeeded: then it is dropped, and this says so.
    pub fn retry_later(&self, action: ActionId, now: Instant) -> bool {
        let mut state = self.state();
        let succeeded = state.succeeded;
        let began = state.running.remove(&action).unwrap_or(succeeded);
        let failed = state.failed.entry(action).or_insert(Failed {
            tries: 0,
            succeeded: began,
        });
        failed.tries += 1;
        let tries = failed.tries;
        if tries >= TRIES && succeeded > failed.succeeded {
            state.dropped += 1;
            state.note_given_up(&action);
            state.forget(&action);
            return true;
        }
        let delay = FIRST_DELAY * 2u32.saturating_pow(tries - 1);
        state.later.insert((now + delay.min(LAST_DELAY), action));
        false
    }

    /// Whether it may have been sent in part before: a server that was killed meanwhile can take a part for the whole.
    pub fn was_begun(&self, action: &ActionId) -> bool {
        let state = self.state();
        state.failed.contains_key(action) || state.inherited.contains(action)
    }

    /// How many wait or are running.
    pub fn len(&self) -> usize {
        self.state().known.len()
    }

    /// The same without those that have failed and wait for another try.
    pub fn active(&self) -> usize {
        let state = self.state();
        state.known.len() - state.later.len()
    }

    /// Whether one could be taken now.
    pub fn is_due(&self) -> bool {
        let mut state = self.state();
        state.wake(Instant::now());
        !state.waiting.is_empty()
    }

    /// Waits for so long, or until all is to end.
    pub fn rest(&self, time: Duration) {
        let state = self.state();
        let _ = self
            .more
            .wait_timeout_while(state, time, |state| !state.stopping);
    }

    /// How many were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// How many are not uploaded because they were given up or dropped: at least so many, when they are very many.
    pub fn given_up(&self) -> usize {
        self.state().given_up.len()
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

    /// Writes the file, if it is time to.
    pub fn save_at_times(&self) {
        let due = |state: &State| {
            state.changed && state.saved.is_none_or(|at| at.elapsed() >= SAVE_EVERY)
        };
        if due(&self.state()) {
            self.save();
        }
    }

    /// Writes the file.
    pub fn save(&self) {
        let Some(path) = &self.path else { return };
        let _saving = lock(&self.saving);
        let mut bytes = Vec::new();
        {
            let mut state = self.state();
            for action in state
                .running
                .keys()
                .chain(&state.waiting)
                .chain(state.later.iter().map(|(_, action)| action))
            {
                bytes.extend_from_slice(&action.0);
            }
            state.changed = false;
            state.saved = Some(Instant::now());
        }
        // Nobody waits for the disk with the queue.
        if let Err(e) = fs::replace(path, &bytes, 0o600) {
            log::warn(format!("saving the upload queue failed: {}", e.chain()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Those whose time has come wait again, behind all others.
    fn wake(&mut self, now: Instant) {
        while let Some((due, action)) = self.later.first().copied()
            && due <= now
        {
            self.later.pop_first();
            self.waiting.push_back(action);
        }
    }

    fn forget(&mut self, action: &ActionId) {
        self.running.remove(action);
        self.known.remove(action);
        self.failed.remove(action);
        self.inherited.remove(action);
        self.changed = true;
    }

    fn note_given_up(&mut self, action: &ActionId) {
        if self.given_up.len() < CAPACITY {
            self.given_up.insert(*action);
        }
    }

    fn push(&mut self, action: ActionId) -> bool {
        if self.known.len() >= CAPACITY {
            if self.dropped == 0 {
                log::warn("the upload queue is full: what builds put now is not uploaded");
            }
            self.dropped += 1;
            self.note_given_up(&action);
            return false;
        }
        let is_new = self.known.insert(action);
        if is_new {
            self.waiting.push_back(action);
            self.changed = true;
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    const SHORT: Duration = Duration::from_secs(1);

    fn id(n: u32) -> ActionId {
        ActionId::of(b"test", &n.to_le_bytes())
    }

    #[test]
    fn what_waits_and_what_is_running_outlives_the_daemon() {
        let dir = TestDir::new();
        let path = dir.path().join("queue");
        let queue = Queue::open(path.clone()).unwrap();
        for n in 0..5 {
            queue.push(id(n));
            queue.push(id(0));
        }
        assert_eq!(queue.take(SHORT), Some(id(0)));
        assert_eq!(queue.take(SHORT), Some(id(1)));
        queue.done(&id(0));
        queue.save();
        let queue = Queue::open(path).unwrap();
        assert_eq!(queue.len(), 4);
        let again: Vec<_> = std::iter::from_fn(|| (queue.len() > 0).then(|| queue.take(SHORT)))
            .take(4)
            .flatten()
            .collect();
        assert_eq!(again, [id(1), id(2), id(3), id(4)]);
        assert!(again.iter().all(|id| queue.was_begun(id)));
        queue.done(&id(1));
        queue.push(id(1));
        assert!(!queue.was_begun(&id(1)));
    }

    #[test]
    fn a_full_queue_drops_what_comes_last_and_counts_it() {
        let dir = TestDir::new();
        let queue = Queue::open(dir.path().join("queue")).unwrap();
        for n in 0..CAPACITY as u32 + 3 {
            queue.push(id(n));
        }
        assert_eq!((queue.len(), queue.dropped()), (CAPACITY, 3));
        assert_eq!(queue.given_up(), 3);
        assert_eq!(queue.take(SHORT), Some(id(0)));
        queue.done(&id(0));
        queue.push(id(1 << 30));
        assert_eq!((queue.len(), queue.dropped()), (CAPACITY, 3));
    }

    #[test]
    fn one_that_fails_goes_to_the_back_and_is_dropped_once_others_have_succeeded() {
        let dir = TestDir::new();
        let queue = Queue::open(dir.path().join("queue")).unwrap();
        // Tries in the past, so that the next one is due at once.
        let long_ago = Instant::now().checked_sub(LAST_DELAY).unwrap();
        queue.push(id(0));
        for _ in 0..2 * TRIES {
            assert_eq!(queue.take(SHORT), Some(id(0)));
            assert!(!queue.retry_later(id(0), long_ago), "nothing else succeeds");
        }
        queue.push(id(1));
        queue.push(id(2));
        assert_eq!(queue.take(SHORT), Some(id(1)));
        queue.done(&id(1));
        assert_eq!(queue.take(SHORT), Some(id(2)));
        queue.done(&id(2));
        assert_eq!(queue.take(SHORT), Some(id(0)));
        assert!(queue.retry_later(id(0), long_ago));
        assert_eq!((queue.len(), queue.dropped()), (0, 1));
        // All others succeed while the first upload of one is still under way.
        queue.push(id(4));
        queue.push(id(5));
        assert_eq!(queue.take(SHORT), Some(id(4)));
        assert_eq!(queue.take(SHORT), Some(id(5)));
        queue.done(&id(5));
        for tries in 1..=TRIES {
            assert_eq!(queue.retry_later(id(4), long_ago), tries == TRIES);
            assert_eq!(queue.take(SHORT), (tries < TRIES).then(|| id(4)));
        }
        // The server takes something that is in no queue.
        queue.push(id(6));
        for tries in 1..=TRIES {
            assert_eq!(queue.take(SHORT), Some(id(6)));
            queue.note_success();
            assert_eq!(queue.retry_later(id(6), long_ago), tries == TRIES);
        }
        // One that has just failed lets others pass, and keeps no daemon up.
        queue.push(id(3));
        assert_eq!(queue.take(SHORT), Some(id(3)));
        queue.retry_later(id(3), Instant::now());
        assert_eq!((queue.len(), queue.active()), (1, 0));
        assert!(!queue.is_due());
    }

    #[test]
    fn one_that_was_given_up_counts_until_it_has_succeeded_after_all() {
        let dir = TestDir::new();
        let queue = Queue::open(dir.path().join("queue")).unwrap();
        for _ in 0..2 {
            queue.push(id(0));
            assert_eq!(queue.take(SHORT), Some(id(0)));
            queue.give_up(&id(0));
            assert_eq!((queue.len(), queue.given_up()), (0, 1));
        }
        queue.push(id(0));
        assert_eq!(queue.take(SHORT), Some(id(0)));
        queue.done(&id(0));
        assert_eq!(queue.given_up(), 0);
    }

    #[test]
    fn a_file_that_a_power_cut_has_spoilt_is_read_as_far_as_it_goes() {
        let dir = TestDir::new();
        let path = dir.path().join("queue");
        let mut bytes = id(7).0.to_vec();
        bytes.extend([0; 100]);
        std::fs::write(&path, bytes).unwrap();
        let queue = Queue::open(path).unwrap();
        assert_eq!(queue.take(SHORT), Some(id(7)));
        // Three times the same, which no store knows.
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn an_end_wakes_whoever_waits() {
        let dir = TestDir::new();
        let queue = Queue::open(dir.path().join("queue")).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.take(SHORT));
            queue.stop();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
