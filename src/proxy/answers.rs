//! From a request to its answer: the cache first, then the upstreams in the order of the list.
//!
//! Which upstream is asked next, and which failure is reported in the end, is what `go` does with the
//! same list (cmd/go/internal/modfetch/proxy.go, `TryProxies`). No answer is a part of a file, as far as the
//! upstream tells where the file ends.

use super::body::{Body, Spool};
use super::cache::{Audience, Cache};
use super::check::check;
use super::go_sum::ExpectedHashes;
use super::list::{Entry, Source};
use super::path::{ModulePath, Sumdb, SumdbName};
use super::response::Response;
use super::single_flight::SingleFlight;
use super::upstream::{Fetched, Upstreams};
use crate::error::Error;
use crate::id::{ActionId, OutputId};
use crate::log;
use crate::sync::lock;
use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What answers the requests of all clients.
pub struct Answers {
    entries: Vec<Entry>,
    upstreams: Upstreams,
    cache: Cache,
    flights: SingleFlight<ModulePath, Response>,
    /// The entry through which each checksum database is reached.
    databases: Mutex<HashMap<SumdbName, usize>>,
    serves: Serves,
    /// What was remembered of which path, by its hash, and when.
    remembered: Mutex<HashMap<ActionId, (OutputId, Instant)>>,
    counts: Counts,
}

/// Whom a proxy serves.
pub enum Serves {
    /// One build, whose `go` asks the same list after every failure of the proxy, and which expects these hashes.
    Build(ExpectedHashes),
    /// A team, which gets what the upstreams said last when they are down.
    Team {
        /// The upstreams are not asked for anything.
        offline: bool,
    },
}

/// For so many answers it is known when they were stored last; above that all are stored again.
const REMEMBERED_MAX: usize = 100_000;

/// An answer that may change is stored again this often, even if it has not changed.
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);

/// Counts for the last line of the log.
#[derive(Default)]
pub struct Counts {
    requests: AtomicU64,
    cached: AtomicU64,
    fetched: AtomicU64,
    refused: AtomicU64,
    kept: AtomicU64,
    stale: AtomicU64,
    /// Upstreams that were asked for a file that never changes.
    immutable: AtomicU64,
}

/// What the keys of files are made from that never change.
const KEPT: &[u8] = b"nix-gocacheprog: a module file\0";

/// What the keys of the last answers are made from: 8 bytes with their time, in seconds since 1970, and the answer.
const REMEMBERED: &[u8] = b"nix-gocacheprog: the last answer\0";

type Outcome<T> = std::result::Result<T, Response>;

impl Answers {
    /// Answers with what the entries of a list give.
    pub fn new(entries: Vec<Entry>, upstreams: Upstreams, cache: Cache, serves: Serves) -> Self {
        Self {
            entries,
            upstreams,
            cache,
            flights: SingleFlight::default(),
            databases: Mutex::default(),
            serves,
            remembered: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// The answer to a request. It may take as long as the upstreams do.
    pub fn answer(&self, path: &ModulePath) -> Response {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        log::debug(|| format!("{path}: asked for"));
        let answer = self.flights.share(path, || {
            let found = match path {
                ModulePath::Sumdb(name, Sumdb::Supported) => self.supported(name, path),
                ModulePath::Sumdb(name, _) => self.database(name, path),
                _ => self.module(path),
            };
            found.unwrap_or_else(|refusal| self.refusal(path, refusal))
        });
        log::debug(|| format!("{path}: {} ({} bytes)", answer.status, answer.body.len()));
        answer
    }

    /// What has happened so far, as one line.
    pub fn summary(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "requests={} cached={} fetched={} kept={} refused={} stale={} upstream={} upstream_immutable={}",
            count(&self.counts.requests),
            count(&self.counts.cached),
            count(&self.counts.fetched),
            count(&self.counts.kept),
            count(&self.counts.refused),
            count(&self.counts.stale),
            self.upstreams.requests(),
            count(&self.counts.immutable)
        )
    }

    /// Lets go of what outlives this process. `is_idle` says that no request is running.
    pub fn end(&self, is_idle: bool) {
        self.cache.end(is_idle);
    }

    fn refusal(&self, path: &ModulePath, refusal: Response) -> Response {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        if !refusal.is_not_found() {
            log::info(format!("{path}: {}", refusal.first_line()));
        }
        // After a 404 `go` asks its own list, and gets what it would get without a proxy. After
        // `supported` it asks no list.
        let asks_on = !matches!(path, ModulePath::Sumdb(_, what) if *what != Sumdb::Supported);
        let status =
            if matches!(self.serves, Serves::Build(_)) && asks_on && !refusal.is_not_found() {
                404
            } else {
                refusal.status
            };
        Response { status, ..refusal }
    }

    fn module(&self, path: &ModulePath) -> Outcome<Response> {
        if path.is_immutable() {
            let cached = (0..self.entries.len()).find_map(|index| self.cached(index, path));
            if let Some(found) = cached {
                return Ok(found);
            }
        }
        self.try_entries(path).map(|(_, found)| found)
    }

    fn supported(&self, name: &SumdbName, path: &ModulePath) -> Outcome<Response> {
        let (index, found) = self.try_entries(path)?;
        self.databases().insert(name.clone(), index);
        Ok(found)
    }

    /// Asks a checksum database through the entry that supports it, and through no other.
    fn database(&self, name: &SumdbName, path: &ModulePath) -> Outcome<Response> {
        let known = self.databases().get(name).copied();
        let index = match known {
            Some(index) => index,
            None => {
                let supported = ModulePath::Sumdb(name.clone(), Sumdb::Supported);
                self.supported(name, &supported)?;
                self.databases().get(name).copied().unwrap_or_default()
            }
        };
        if path.is_immutable()
            && let Some(found) = self.cached(index, path)
        {
            return Ok(found);
        }
        let answer = self.ask(index, path);
        if let (Serves::Build(hashes), ModulePath::Sumdb(_, Sumdb::Lookup(..)), Ok(found)) =
            (&self.serves, path, &answer)
        {
            hashes.learn(&found.body);
        }
        answer.or_else(|refusal| self.remembered(index, path, &refusal).ok_or(refusal))
    }

    /// Asks one entry after the other; returns the answer and which entry gave it.
    fn try_entries(&self, path: &ModulePath) -> Outcome<(usize, Response)> {
        let mut best: Option<Response> = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.source == Source::Direct {
                let text = "not found: nix-gocacheprog leaves GOPROXY=direct to go\n";
                return Err(Response::text(404, text));
            }
            let refusal = match self.ask(index, path) {
                Ok(found) => return Ok((index, found)),
                Err(refusal) => refusal,
            };
            let not_found = refusal.is_not_found();
            // Of several failures `go` reports the last one that means more than "not found".
            if !not_found || best.as_ref().is_none_or(Response::is_not_found) {
                best = Some(refusal);
            }
            if !entry.on_any_error && !not_found {
                break;
            }
        }
        let best =
            best.unwrap_or_else(|| Response::text(404, "not found: GOPROXY has no entries\n"));
        let remembered = (0..self.entries.len())
            .find_map(|index| Some((index, self.remembered(index, path, &best)?)));
        remembered.ok_or(best)
    }

    /// Asks one entry.
    fn ask(&self, index: usize, path: &ModulePath) -> Outcome<Response> {
        match &self.entries[index].source {
            Source::Upstream(_) if matches!(self.serves, Serves::Team { offline: true }) => {
                let text = "nix-gocacheprog: offline, and this is not in the cache\n";
                Err(Response::text(503, text))
            }
            Source::Upstream(url) => {
                if path.is_immutable() {
                    self.counts.immutable.fetch_add(1, Ordering::Relaxed);
                }
                let place = || (self.action(KEPT, index, path), self.audience(index, path));
                let before = place();
                let fetched = self.upstreams.fetch(&url.join(&path.url_path()))?;
                self.counts.fetched.fetch_add(1, Ordering::Relaxed);
                let checked = check(path, &fetched.body).and_then(|()| match &self.serves {
                    Serves::Build(hashes) => hashes.check(path, &fetched.body),
                    Serves::Team { .. } => Ok(true),
                });
                let is_checked = checked.map_err(|why| {
                    let why = format!("{url}: {path} is {}", why.chain());
                    Response::not_the_file(&why)
                })?;
                // Where credentials have come or gone meanwhile, nobody knows which of them it was fetched with.
                let is_placed = place() == before;
                if path.is_immutable() && fetched.complete && is_checked && is_placed {
                    let (action, audience) = before;
                    self.cache
                        .put(&action, &fetched.output, &fetched.body, audience);
                    self.counts.kept.fetch_add(1, Ordering::Relaxed);
                } else if !path.is_immutable() && matches!(self.serves, Serves::Team { .. }) {
                    self.remember(index, path, &fetched);
                }
                Ok(Response::file(path.content_type(), fetched.body))
            }
            Source::Directory(directory) => read(&directory.join(path.file_name()))
                .map(|body| Response::file(path.content_type(), body)),
            Source::Direct => Err(Response::text(404, "not found: GOPROXY=direct\n")),
            // The words are those of `go`.
            Source::Off => Err(Response::text(
                404,
                "module lookup disabled by GOPROXY=off\n",
            )),
        }
    }

    fn cached(&self, index: usize, path: &ModulePath) -> Option<Response> {
        if !matches!(self.entries[index].source, Source::Upstream(_)) {
            return None;
        }
        let audience = self.audience(index, path);
        let body = self.cache.get(&self.action(KEPT, index, path), audience)?;
        if let Serves::Build(hashes) = &self.serves {
            match hashes.check(path, &body) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(why) => {
                    log::warn(format!("{path}: removed from the cache: {}", why.chain()));
                    return None;
                }
            }
        }
        self.counts.cached.fetch_add(1, Ordering::Relaxed);
        Some(Response::file(path.content_type(), body))
    }

    /// Remembers an answer that may change, for when the upstream is down.
    fn remember(&self, index: usize, path: &ModulePath, fetched: &Fetched) {
        let action = self.action(REMEMBERED, index, path);
        let known = lock(&self.remembered).get(&action).copied();
        if known
            .is_some_and(|(output, at)| output == fetched.output && at.elapsed() < REMEMBERED_FOR)
        {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut spool = Spool::default();
        let mut reader = fetched.body.reader();
        let head = now.unwrap_or_default().as_secs().to_le_bytes();
        let mut piece = vec![0; 32 << 10];
        let mut copied = spool.push(&head);
        while copied.is_ok() {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => copied = spool.push(&piece[..n]),
                Err(_) => return,
            }
        }
        if copied.is_ok() {
            let (body, output) = spool.finish();
            self.cache.put(&action, &output, &body, Audience::Machine);
            let mut remembered = lock(&self.remembered);
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(action, (fetched.output, Instant::now()));
        }
    }

    /// What an entry said last, if it does not answer now. A refusal of credentials is an answer.
    fn remembered(&self, index: usize, path: &ModulePath, refusal: &Response) -> Option<Response> {
        let is_down = refusal.status >= 500 || refusal.status == 429 || refusal.malformed;
        if !is_down
            || path.is_immutable()
            || !matches!(self.serves, Serves::Team { .. })
            || !matches!(self.entries[index].source, Source::Upstream(_))
        {
            return None;
        }
        let action = self.action(REMEMBERED, index, path);
        let body = self.cache.get(&action, Audience::Machine)?;
        let head = body.slice(0, 8).ok()?.try_into().ok()?;
        let at = UNIX_EPOCH + Duration::from_secs(u64::from_le_bytes(head));
        let age = SystemTime::now().duration_since(at).unwrap_or_default();
        self.counts.stale.fetch_add(1, Ordering::Relaxed);
        log::info(format!(
            "{path}: answered from a copy {} s old: {}",
            age.as_secs(),
            refusal.first_line()
        ));
        Some(Response {
            stale: Some(age),
            ..Response::file(path.content_type(), body.without_first(8).ok()?)
        })
    }

    /// Who may have an entry's files: what took credentials, its own or those of an entry before it, stays on this machine.
    fn audience(&self, index: usize, path: &ModulePath) -> Audience {
        let url_path = path.url_path();
        let secret = self.entries[..=index]
            .iter()
            .any(|entry| match &entry.source {
                Source::Upstream(url) => self.upstreams.has_secret(&url.join(&url_path)),
                _ => false,
            });
        if secret {
            Audience::Machine
        } else {
            Audience::Team
        }
    }

    /// The key of a file. It holds all that decides which files an entry shows: the entry itself and those that are asked
    /// before it, with their credentials as they are now.
    fn action(&self, what: &[u8], index: usize, path: &ModulePath) -> ActionId {
        let mut key = String::new();
        for (nth, entry) in self.entries[..=index].iter().enumerate() {
            if let Source::Upstream(url) = &entry.source {
                key.push_str(&self.upstreams.secret(url));
            }
            if nth < index {
                key.push(if entry.on_any_error { '|' } else { ',' });
            }
        }
        ActionId::of_module(what, format!("{key}\0{path}").as_bytes())
    }

    fn databases(&self) -> MutexGuard<'_, HashMap<SumdbName, usize>> {
        lock(&self.databases)
    }
}

/// Reads a file of an upstream that is a directory.
fn read(file: &std::path::Path) -> Outcome<Body> {
    let opened = std::fs::File::open(file).and_then(|file| {
        let metadata = file.metadata()?;
        if metadata.is_file() {
            Ok(file)
        } else {
            Err(ErrorKind::IsADirectory.into())
        }
    });
    match opened {
        Ok(file) => Ok(Body::file(file)?),
        Err(e) => Err(match e.kind() {
            ErrorKind::NotFound => Response::text(404, "not found\n"),
            ErrorKind::PermissionDenied => Response::text(403, "permission denied\n"),
            _ => Response::from(Error::io("open", file, e)),
        }),
    }
}
