//! The remote: the cache of a team, on an HTTP server that they run already, behind the local store.
//!
//! A get that misses locally is fetched in the background while its session goes on, and answered when it is there; a put is
//! answered at once and uploaded later; and what a build of the same name has used before is fetched before `go` asks.
//! Everything goes through the local store: what comes in is hashed there, and a build is given it like anything else.
//!
//! A remote that is dead, slow, lying or full costs a bounded time and no build: see `circuit.rs` and `patience.rs`.

mod access;
mod circuit;
mod counters;
mod fetch;
mod list;
mod patience;
mod queue;
mod result;
mod seen;
mod server;
mod upload;

use crate::config::{BODY_MAX, REMOTE_AHEAD_PART, REMOTE_FETCHERS, REMOTE_UPLOADERS};
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, BuildId};
use crate::log;
use crate::size::show_size;
use crate::store::{Entry, Limits, Store};
use crate::sys;
use access::Access;
pub use access::{Mode, Options};
use circuit::{Change, Circuit};
pub use counters::Report;
use counters::{Counters, count};
use fetch::{Fetches, Job};
use list::{Lists, Used};
pub use patience::Patience;
use queue::Queue;
use result::{action_key, list_key};
use seen::Seen;
use server::{Failure, Server};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A name whose builds have begun just now is not read ahead for again.
const AHEAD_EVERY: Duration = Duration::from_secs(10);

/// An output that comes more slowly than this, in bytes a second, is given up …
const SLOWEST: u64 = 64 << 10;

/// … after this time at the earliest.
const SLOW_AFTER: Duration = Duration::from_secs(10);

/// Accounts and names that are remembered, before all are forgotten.
const REMEMBERED: usize = 4096;

/// The most that one session is to note of what it uses.
pub const USED_MAX: usize = list::ACTIONS_MAX;

/// The records that may wait to be written.
const RECORDS_MAX: usize = 64;

/// The remote, and all that is under way to it and from it.
#[derive(Debug)]
pub struct Remote {
    server: Server,
    mode: Mode,
    fetches: Fetches,
    queue: Queue,
    lists: Lists,
    reads: Circuit,
    writes: Circuit,
    seen: Seen,
    counters: Counters,
    patience: Mutex<HashMap<BuildId, Arc<Patience>>>,
    /// When builds of a name last began.
    begun: Mutex<HashMap<String, Instant>>,
    /// What `go` commands have used, by the name of their build, and what is not in the lists yet.
    records: Mutex<VecDeque<(String, Vec<Used>)>>,
    /// Held by whoever changes a list.
    recording: Mutex<()>,
    /// The families of names whose lists are to be uploaded.
    outbox: Mutex<HashSet<String>>,
    /// Those whose lists are on the remote as they are here.
    listed: Mutex<HashSet<String>>,
    running: Mutex<usize>,
    ended: Condvar,
}

/// What goes wrong on the way from the remote into the store, or back.
#[derive(Debug)]
enum Trouble {
    Remote(Failure),
    Local(Error),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Remote(failure)
    }
}

/// A thread that works for the remote; it has ended when this is dropped.
#[derive(Debug)]
pub struct Worker<'a>(&'a Remote);

impl Remote {
    /// Reads what the flags name, and what an earlier daemon has left. Nothing is sent yet.
    ///
    /// # Errors
    /// When the flags are wrong, or a file cannot be read.
    pub fn open(options: &Options, cache: &Path) -> Result<Self> {
        let directory = cache.join("remote");
        fs::ensure_dir(&directory, 0o700)?;
        Ok(Self {
            server: Server::new(Access::new(options)?)?,
            mode: options.mode,
            fetches: Fetches::default(),
            queue: Queue::open(directory.join("queue"))?,
            lists: Lists::open(&directory.join("lists"))?,
            reads: Circuit::default(),
            writes: Circuit::default(),
            seen: Seen::default(),
            counters: Counters::default(),
            patience: Mutex::default(),
            begun: Mutex::default(),
            records: Mutex::default(),
            recording: Mutex::default(),
            outbox: Mutex::default(),
            listed: Mutex::default(),
            running: Mutex::default(),
            ended: Condvar::new(),
        })
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

    /// Counts a thread.
    pub fn enter(&self) -> Worker<'_> {
        *lock(&self.running) += 1;
        Worker(self)
    }

    /// Ends all threads after what each is doing now, for which it waits a bounded time; says whether all have ended.
    pub fn stop(&self, limit: Duration) -> bool {
        self.fetches.stop();
        self.queue.stop();
        let (running, _) = self
            .ended
            .wait_timeout_while(lock(&self.running), limit, |running| *running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        let all_ended = *running == 0;
        drop(running);
        // Of the sessions that have ended just now.
        for (name, used) in std::mem::take(&mut *lock(&self.records)) {
            self.record(&name, used);
        }
        self.queue.save();
        all_ended
    }

    /// Whether there is something to upload, and to a server that takes it.
    pub fn is_busy(&self) -> bool {
        self.mode.writes() && self.waiting() > 0 && self.writes.why_open().is_none()
    }

    fn waiting(&self) -> usize {
        self.queue.len() + lock(&self.outbox).len() + lock(&self.records).len()
    }

    /// What is known of a build's waiting.
    pub fn patience(&self, build: BuildId) -> Arc<Patience> {
        let mut all = lock(&self.patience);
        if all.len() >= REMEMBERED && !all.contains_key(&build) {
            all.clear();
        }
        let account = all
            .entry(build)
            .or_insert_with(|| Arc::new(Patience::new(Instant::now())));
        Arc::clone(account)
    }

    /// Fetches an action into the store, and calls `done` then, or when that failed. `false` when it is not worth
    /// waiting: nothing is done then.
    pub fn ask(&self, action: &ActionId, done: impl FnOnce() + Send + 'static) -> bool {
        self.mode.reads()
            // It is seen again, by whoever makes the request, whether it may pass.
            && self.reads.is_due(Instant::now())
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
    pub fn used(&self, name: &str, used: Vec<Used>) {
        let mut records = lock(&self.records);
        if !name.is_empty() && !used.is_empty() && records.len() < RECORDS_MAX {
            records.push_back((name.into(), used));
        }
    }

    /// How things are.
    pub fn report(&self) -> Report {
        Report {
            url: self.server.url().to_string(),
            mode: self.mode.name().into(),
            queue: self.waiting() as u64,
            dropped: self.queue.dropped(),
            reading_paused: self.reads.why_open(),
            writing_paused: self.writes.why_open(),
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
        match self.server.has_entry(&action_key(&nothing)) {
            Ok(_) => Ok(start.elapsed()),
            Err(failure) => Err(Error::peer(failure.why)),
        }
    }

    /// A thread that fetches, until all is to end.
    pub fn fetch(&self, store: &Store, limits: &Limits) {
        while let Some(job) = self.fetches.take() {
            match job {
                Job::Name(name) => self.read_ahead(&name, store, limits),
                Job::Action {
                    action,
                    hint,
                    ahead,
                } => {
                    self.fetch_action(store, limits, &action, hint, ahead);
                    self.fetches.landed(&action, ahead);
                }
            }
        }
    }

    fn fetch_action(
        &self,
        store: &Store,
        limits: &Limits,
        action: &ActionId,
        hint: Option<Entry>,
        ahead: bool,
    ) {
        if ahead && !has_room(store, limits, hint) || !self.reads.may_pass(Instant::now()) {
            return;
        }
        let got = match self.bring(store, action, hint, ahead) {
            Ok(got) => got,
            Err(Trouble::Local(e)) => {
                log::warn(format!(
                    "an output from the remote is not kept: {}",
                    e.chain()
                ));
                // The remote has done its part.
                return self.judge(&self.reads, "asked of", &Ok(()));
            }
            Err(Trouble::Remote(failure)) => {
                return self.judge(&self.reads, "asked of", &Err(failure));
            }
        };
        match got {
            Some(size) => {
                self.seen.is_there(action);
                count(&self.counters.received, size);
                count(
                    if ahead {
                        &self.counters.ahead
                    } else {
                        &self.counters.hits
                    },
                    1,
                );
            }
            None if !ahead => {
                self.seen.is_missing(action);
                count(&self.counters.misses, 1);
            }
            None => {}
        }
        self.judge(&self.reads, "asked of", &Ok(()));
    }

    /// Brings an action into the store; gives its size, or `None` when the remote does not have it.
    fn bring(
        &self,
        store: &Store,
        action: &ActionId,
        hint: Option<Entry>,
        ahead: bool,
    ) -> std::result::Result<Option<u64>, Trouble> {
        if let Some(entry) = hint {
            if self.receive(store, action, &entry)? {
                return Ok(Some(entry.size));
            }
            // The list is old, or has run ahead of the outputs.
            if ahead {
                return Ok(None);
            }
        }
        let Some(entry) = self.server.entry(&action_key(action))? else {
            return Ok(None);
        };
        if self.receive(store, action, &entry)? {
            return Ok(Some(entry.size));
        }
        self.seen.lacks_output(&entry.output);
        Ok(None)
    }

    fn receive(
        &self,
        store: &Store,
        action: &ActionId,
        entry: &Entry,
    ) -> std::result::Result<bool, Trouble> {
        if entry.size > BODY_MAX {
            return Err(Failure::new(format!("an entry of {} bytes", entry.size)).into());
        }
        let reader: Box<dyn Read> = match entry.size {
            // Whatever has no bytes is here already.
            0 => Box::new(io::empty()),
            size => match self.server.output(&entry.output, size)? {
                Some(reader) => Box::new(reader),
                None => return Ok(false),
            },
        };
        let mut body = Incoming {
            reader,
            until: Instant::now() + SLOW_AFTER + Duration::from_secs(entry.size / SLOWEST),
            failed: None,
        };
        match store.adopt(action, entry, &mut body) {
            Ok(()) => {
                // To the very end, so that the connection can be used again.
                let _ = body.read(&mut [0]);
                self.seen.has_output(&entry.output);
                Ok(true)
            }
            Err(e) => Err(match (body.failed, &e) {
                (Some(why), _) => Failure::new(format!("an output that is cut off: {why}")).into(),
                (None, Error::Io { .. }) => Trouble::Local(e),
                (None, _) => {
                    count(&self.counters.damaged, 1);
                    self.seen.lacks_output(&entry.output);
                    log::warn(format!(
                        "the remote {} gave a wrong output, which is thrown away: {}",
                        self.server.url(),
                        e.chain()
                    ));
                    Failure::new("it gives wrong outputs").into()
                }
            }),
        }
    }

    /// Wants all that builds of this name have used and that is not here.
    fn read_ahead(&self, name: &str, store: &Store, limits: &Limits) {
        let family = list::family(name);
        let mut list = self.lists.get(&family);
        if self.reads.may_pass(Instant::now()) {
            let shared = self.shared_list(&family);
            self.judge(
                &self.reads,
                "asked of",
                &shared.as_ref().map(|_| ()).map_err(Clone::clone),
            );
            if let Ok(shared) = shared
                && !shared.is_empty()
            {
                let known: HashSet<_> = shared.iter().map(|(action, _)| *action).collect();
                let rest = list
                    .into_iter()
                    .filter(|(action, _)| !known.contains(action));
                list = shared.iter().copied().chain(rest).collect();
                // What this build uses is added to it later.
                let _turn = lock(&self.recording);
                if let Err(e) = self.lists.set(&family, &list::encode(&list)) {
                    log::warn(format!("a list from the remote is not kept: {}", e.chain()));
                }
            }
        }
        let (mut actions, mut bytes) = (0, 0);
        for (action, entry) in list {
            if store.get(&action).is_ok_and(|found| found.is_some()) {
                continue;
            }
            bytes += entry.size;
            if bytes > limits.max_size / REMOTE_AHEAD_PART || self.fetches.stopping() {
                break;
            }
            actions += 1;
            self.fetches.ahead(action, entry);
        }
        if actions > 0 {
            log::info(format!(
                "a build of {name:?} has begun: {actions} actions that such builds use, {}, are fetched ahead",
                show_size(bytes)
            ));
        }
    }

    /// The list that machines share; empty when there is none.
    fn shared_list(&self, family: &str) -> std::result::Result<Vec<Used>, Failure> {
        let Some(entry) = self.server.entry(&list_key(family))? else {
            return Ok(Vec::new());
        };
        if entry.size > list::LIST_MAX {
            return Err(Failure::new("a list that is too long"));
        }
        let Some(body) = self.server.output(&entry.output, entry.size)? else {
            return Ok(Vec::new());
        };
        let mut bytes = Vec::new();
        body.take(list::LIST_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::new(format!("a list that is cut off: {e}")))?;
        if *Sha256::digest(&bytes) != entry.output.0 {
            count(&self.counters.damaged, 1);
            return Err(Failure::new("it gives wrong outputs"));
        }
        Ok(list::decode(&bytes))
    }

    /// Takes note of how a request ended.
    fn judge(&self, circuit: &Circuit, what: &str, ended: &std::result::Result<(), Failure>) {
        let url = self.server.url();
        let change = match ended {
            Ok(()) => circuit.succeeded(),
            // It was heard, and understood.
            Err(failure) if failure.is_of_request => {
                count(&self.counters.errors, 1);
                circuit.succeeded()
            }
            Err(failure) => {
                count(&self.counters.errors, 1);
                log::debug(|| format!("the remote {url}: {}", failure.why));
                circuit.failed(Instant::now(), &failure.why)
            }
        };
        match (change, ended) {
            (Change::Opened(wait), Err(failure)) => {
                if std::ptr::eq(circuit, &self.reads) {
                    self.fetches.forget_ahead();
                }
                log::warn(format!(
                    "nothing is {what} the remote {url} for {}s, after failures, the last of which: {}",
                    wait.as_secs(),
                    failure.why
                ));
            }
            (Change::Closed, _) => log::info(format!("the remote {url} answers again")),
            _ => {}
        }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        *lock(&self.0.running) -= 1;
        self.0.ended.notify_all();
    }
}

/// Whether there is room on the disk for what nobody has asked for.
fn has_room(store: &Store, limits: &Limits, hint: Option<Entry>) -> bool {
    let size = hint.map_or(0, |entry| entry.size);
    sys::space(store.root())
        .is_ok_and(|space| space.free > limits.floor(space).saturating_add(size))
}

/// An output on its way in, which must not take for ever.
struct Incoming<R> {
    reader: R,
    until: Instant,
    failed: Option<String>,
}

impl<R: Read> Read for Incoming<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = if Instant::now() > self.until {
            Err(io::Error::new(ErrorKind::TimedOut, "it comes too slowly"))
        } else {
            self.reader.read(buffer)
        };
        if let Err(e) = &read
            && e.kind() != ErrorKind::Interrupted
        {
            self.failed = Some(e.to_string());
        }
        read
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
