//! The remote: the cache of a team, on an HTTP server that they run already, behind the local store.
//!
//! A get that misses locally is fetched in the background while its session goes on, and answered when it is there; a put is
//! answered at once and uploaded later; and what a build of the same name has used before is fetched before `go` asks.
//! Everything goes through the local store: what comes in is hashed there, and a build is given it like anything else.
//!
//! A remote that is dead, slow, lying or full costs a bounded time and no build: see `circuit_breaker.rs` and `wait_budget.rs`.

mod access;
mod circuit_breaker;
mod counters;
mod download;
mod fetch;
mod known;
pub mod packing;
mod queue;
pub mod result;
mod s3;
mod server;
mod shelf;
pub mod signing;
mod upload;
mod wait_budget;

use crate::cache::history::{UsageHistory, Use};
use crate::config::{REMOTE_FETCHERS, REMOTE_UPLOADERS};
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, BuildId, unhex};
use crate::log;
use crate::report::RemoteReport;
use crate::sync::lock;
pub use access::{Mode, Options};
use circuit_breaker::{Change, CircuitBreaker};
use counters::{Counters, count};
use fetch::Fetches;
use known::Known;
use queue::Queue;
use result::action_key;
use server::Failure;
use shelf::{Lookup, Shelf};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
pub use wait_budget::WaitBudget;

/// A name whose builds have begun just now is not read ahead for again.
const AHEAD_EVERY: Duration = Duration::from_secs(10);

/// Accounts and names that are remembered, before all are forgotten.
const REMEMBERED: usize = 4096;

/// The records that may wait to be written; further ones are written by whoever brings them.
const RECORDS_MAX: usize = 64;

/// The remote, and all that is under way to it and from it.
#[derive(Debug)]
pub struct Remote {
    shelf: Shelf,
    mode: Mode,
    fetches: Fetches,
    queue: Queue,
    lists: Arc<UsageHistory>,
    /// The lists that are to be sent, by what their keys spell.
    list_queue: Queue,
    reads: Lane,
    writes: Lane,
    known: Known,
    counters: Counters,
    wait_budget: Mutex<HashMap<BuildId, Arc<WaitBudget>>>,
    /// When builds of a name last began.
    begun: Mutex<HashMap<String, Instant>>,
    /// What `go` commands have used, with their build and its name, and what is not in the lists yet.
    records: Mutex<VecDeque<(BuildId, String, Vec<Use>)>>,
    /// The keys of the lists that are on the remote as they are here.
    listed: Mutex<HashSet<String>>,
    /// Why the last upload failed that did.
    upload_failure: Mutex<Option<String>>,
    running: Mutex<usize>,
    ended: Condvar,
    /// Sessions whose peer has gone, and of which it is not noted yet what they used.
    ending: AtomicUsize,
}

/// One direction, and when it is left alone.
#[derive(Debug)]
struct Lane {
    breaker: CircuitBreaker,
    /// What goes this way, in the plural.
    name: &'static str,
    /// Whether the last request failed because of the credentials.
    is_denied: AtomicBool,
}

impl Lane {
    fn new(name: &'static str) -> Self {
        Self {
            breaker: CircuitBreaker::default(),
            name,
            is_denied: AtomicBool::new(false),
        }
    }
}

/// What goes wrong on the way from the remote into the store, or back.
#[derive(Debug)]
enum Trouble {
    Remote(Failure),
    Local(Error),
    /// The disk has no room for it.
    NoRoom,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Remote(failure)
    }
}

/// A session that ends; it counts until this is dropped.
#[derive(Debug)]
pub struct Ending<'a>(&'a Remote);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.ending.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A thread that fetches; it has ended when this is dropped.
#[derive(Debug)]
pub struct Worker<'a>(&'a Remote);

impl Remote {
    /// Reads what the flags name, and what an earlier daemon has left. Nothing is sent yet.
    ///
    /// # Errors
    /// When the flags are wrong, or a file cannot be read.
    pub fn open(options: &Options, cache: &Path, lists: Arc<UsageHistory>) -> Result<Self> {
        let directory = cache.join("remote");
        fs::ensure_dir(&directory, 0o700)?;
        Ok(Self {
            shelf: Self::open_shelf(options)?,
            mode: options.mode,
            fetches: Fetches::default(),
            queue: Queue::open(directory.join("queue"))?,
            list_queue: Queue::of(lists.unsent().iter().filter_map(|key| list_id(key))),
            lists,
            reads: Lane::new("reads"),
            writes: Lane::new("uploads"),
            known: Known::default(),
            counters: Counters::default(),
            wait_budget: Mutex::default(),
            begun: Mutex::default(),
            records: Mutex::default(),
            listed: Mutex::default(),
            upload_failure: Mutex::default(),
            running: Mutex::default(),
            ended: Condvar::new(),
            ending: AtomicUsize::new(0),
        })
    }

    fn open_shelf(options: &Options) -> Result<Shelf> {
        let shelf = Shelf::open(options)?;
        if options.mode.reads() && !shelf.keys().verifies() {
            log::info(format!(
                "remote {}: entries are not verified, so whoever can write there decides what builds here get \
                 (--remote-trusted-public-keys)",
                shelf.url()
            ));
        }
        Ok(shelf)
    }

    /// How many threads are to fetch and how many to upload.
    pub fn threads(&self) -> (usize, usize) {
        let fetchers = if self.mode.reads() {
            REMOTE_FETCHERS
        } else {
            0
        };
        // One at least keeps the lists.
        let uploaders = if self.mode.writes() {
            REMOTE_UPLOADERS
        } else {
            1
        };
        (fetchers, uploaders)
    }

    /// Counts a thread that fetches.
    pub fn enter(&self) -> Worker<'_> {
        *lock(&self.running) += 1;
        Worker(self)
    }

    /// Ends all threads. Those that fetch may be writing to the store, and are waited for, up to this limit; says whether
    /// they have ended. An upload that is cut off is done by the next daemon.
    pub fn stop(&self, limit: Duration) -> bool {
        self.fetches.stop();
        self.queue.stop();
        self.list_queue.stop();
        let (running, _) = self
            .ended
            .wait_timeout_while(lock(&self.running), limit, |running| *running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        let all_ended = *running == 0;
        drop(running);
        // Of the sessions that have ended just now.
        for (build, name, used) in std::mem::take(&mut *lock(&self.records)) {
            self.record(build, &name, used);
        }
        self.queue.save();
        all_ended
    }

    /// Whether there is something to upload, and to a server that takes it.
    pub fn is_busy(&self) -> bool {
        let waiting = self.lists_waiting(Queue::active) + self.queue.active();
        self.mode.writes() && waiting > 0 && self.writes.breaker.why_open().is_none()
    }

    /// Whether the server refuses the credentials, for reads or for uploads.
    pub fn is_denied(&self) -> bool {
        [&self.reads, &self.writes]
            .iter()
            .any(|lane| lane.is_denied.load(Ordering::Relaxed))
    }

    fn waiting(&self) -> usize {
        self.lists_waiting(Queue::len) + self.queue.len()
    }

    /// Asked first: in the order in which one thing becomes the next.
    fn lists_waiting(&self, count: fn(&Queue) -> usize) -> usize {
        let ending = self.ending.load(Ordering::SeqCst);
        let records = lock(&self.records).len();
        ending + records + count(&self.list_queue)
    }

    /// Counts a session whose peer has gone as something that waits, until what it used is noted.
    pub fn ending(&self) -> Ending<'_> {
        self.ending.fetch_add(1, Ordering::SeqCst);
        Ending(self)
    }

    /// What is known of a build's waiting.
    pub fn wait_budget(&self, build: BuildId) -> Arc<WaitBudget> {
        let mut all = lock(&self.wait_budget);
        if all.len() >= REMEMBERED && !all.contains_key(&build) {
            all.clear();
        }
        let account = all
            .entry(build)
            .or_insert_with(|| Arc::new(WaitBudget::new(Instant::now())));
        Arc::clone(account)
    }

    /// Fetches an action into the store, and calls `done` then, or when that failed. `false` when it is not worth
    /// waiting: nothing is done then.
    pub fn ask(&self, action: &ActionId, done: impl FnOnce() + Send + 'static) -> bool {
        self.mode.reads()
            // It is seen again, by whoever makes the request, whether it may pass.
            && self.reads.breaker.is_due(Instant::now())
            && self.fetches.ask(*action, Box::new(done))
    }

    /// A get has waited for so long.
    pub fn waited(&self, time: Duration, in_time: bool) {
        self.counters.waited(time);
        if !in_time {
            count(&self.counters.late, 1);
        }
    }

    /// A build has put this.
    pub fn stored(&self, action: &ActionId) {
        if self.mode.writes() {
            self.queue.push(*action);
        }
    }

    /// A build of this name has begun.
    pub fn begin(&self, name: &str) {
        if name.is_empty() || !self.mode.reads() {
            return;
        }
        let now = Instant::now();
        let mut begun = lock(&self.begun);
        if begun.len() >= REMEMBERED {
            begun.clear();
        }
        let last = begun.insert(name.into(), now);
        if last.is_none_or(|at| now.duration_since(at) >= AHEAD_EVERY) {
            drop(begun);
            self.fetches.begin(name);
        }
    }

    /// A `go` command in a build of this name has used this.
    pub fn used(&self, build: BuildId, name: &str, used: Vec<Use>) {
        let mut records = lock(&self.records);
        if records.len() < RECORDS_MAX {
            records.push_back((build, name.into(), used));
            return;
        }
        drop(records);
        self.record(build, name, used);
    }

    /// How things are.
    pub fn report(&self) -> RemoteReport {
        let (wire_received, wire_sent) = self.shelf.on_the_wire();
        RemoteReport {
            url: self.shelf.url().to_string(),
            mode: self.mode.name().into(),
            verifies: self.shelf.keys().verifies(),
            signs: self.shelf.keys().signs(),
            wire_received,
            wire_sent,
            queue: self.waiting() as u64,
            dropped: self.queue.dropped() + self.list_queue.dropped(),
            given_up: (self.queue.given_up() + self.list_queue.given_up()) as u64,
            upload_failure: lock(&self.upload_failure).clone(),
            reading_paused: self.reads.breaker.why_open(),
            writing_paused: self.writes.breaker.why_open(),
            ..self.counters.report()
        }
    }

    /// Asks the server for something that nobody has, to see whether it answers.
    ///
    /// # Errors
    /// When it does not, or not as it should.
    pub fn check(&self) -> Result<Duration> {
        let start = Instant::now();
        let nothing = ActionId::of(b"nix-gocacheprog: an action of nobody\0", b"");
        match self.shelf.entry(&action_key(&nothing)) {
            Ok(Lookup::Malformed) => Err(Error::peer(
                "something else than an entry where nothing can be: this is not a cache server",
            )),
            Ok(_) => Ok(start.elapsed()),
            Err(failure) => Err(Error::peer(failure.why)),
        }
    }

    /// Takes note of how a request ended.
    fn judge(&self, lane: &Lane, ended: &std::result::Result<(), Failure>) {
        let (url, name) = (self.shelf.url(), lane.name);
        let is_denied = |failure| self.shelf.refuses_credentials(failure);
        lane.is_denied
            .store(ended.as_ref().is_err_and(is_denied), Ordering::Relaxed);
        let change = match ended {
            Ok(()) => lane.breaker.succeeded(),
            // It was heard, and understood.
            Err(failure) if failure.is_of_request => {
                count(&self.counters.errors, 1);
                lane.breaker.succeeded()
            }
            Err(failure) => {
                count(&self.counters.errors, 1);
                log::debug(|| format!("remote {url}: {}", failure.why));
                lane.breaker.failed(Instant::now(), &failure.why)
            }
        };
        match (change, ended) {
            (Change::Opened(wait), Err(failure)) => {
                if lane.name == self.reads.name {
                    self.fetches.forget_ahead();
                }
                log::warn(format!(
                    "remote {url}: {name} paused for {}s after repeated failures (last: {})",
                    wait.as_secs(),
                    failure.why
                ));
            }
            (Change::Closed, _) => log::info(format!("remote {url}: {name} resumed")),
            _ => {}
        }
    }
}

/// What stands for a list in a queue.
fn list_id(key: &str) -> Option<ActionId> {
    unhex(key.as_bytes()).map(ActionId)
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        *lock(&self.0.running) -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn remote(dir: &TestDir) -> Remote {
        let options = Options {
            url: "http://127.0.0.1:9".into(),
            mode: Mode::Write,
            credentials: None,
            ca: None,
            cert: None,
            key: None,
            secret_key: None,
            trusted_keys: String::new(),
            insecure_http: false,
        };
        let lists = Arc::new(UsageHistory::open(dir.path()).unwrap());
        Remote::open(&options, dir.path(), lists).unwrap()
    }

    #[test]
    fn however_many_sessions_end_at_once_all_that_they_used_is_noted() {
        let dir = TestDir::new();
        let remote = remote(&dir);
        let entry = crate::entry::Entry {
            output: crate::id::OutputId([1; 32]),
            size: 1,
            time: 0,
        };
        let sessions = RECORDS_MAX + 10;
        for n in 0..sessions {
            let used = vec![(ActionId::of(b"test", &n.to_le_bytes()), entry)];
            remote.used(BuildId::new().unwrap(), &format!("program{n}"), used);
        }
        assert!(remote.stop(Duration::ZERO));
        let noted = |n: &usize| {
            let key = crate::cache::history::key(&format!("program{n}"));
            remote.lists.has(&key)
        };
        assert_eq!((0..sessions).filter(noted).count(), sessions);
    }

    #[test]
    fn a_session_that_ends_is_waited_for_until_its_list_is_on_its_way() {
        let dir = TestDir::new();
        let remote = remote(&dir);
        assert!(remote.report().queue == 0 && !remote.is_busy());
        let ending = remote.ending();
        assert!(remote.report().queue == 1 && remote.is_busy());
        remote.used(BuildId::new().unwrap(), "x", Vec::new());
        drop(ending);
        assert_eq!(remote.report().queue, 1, "as its list does");
    }
}
