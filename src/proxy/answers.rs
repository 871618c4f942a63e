//! From what is asked to the answer: the cache, then the upstreams in the order of the list.
//!
//! Which of them is asked next, and which failure is told in the end, is what `go` does with the
//! same list (cmd/go/internal/modfetch/proxy.go, `TryProxies`). No answer has bytes that
//! are not those of a whole file, as far as the upstream lets us know.

use super::body::Body;
use super::cache::{Audience, Cache};
use super::check::check;
use super::list::{Entry, Source};
use super::path::{ModulePath, Sumdb, SumdbName};
use super::response::Response;
use super::single_flight::SingleFlight;
use super::upstream::Upstreams;
use crate::error::Error;
use crate::id::ActionId;
use crate::log;
use crate::sync::lock;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Answers requests.
pub struct Answers {
    entries: Vec<Entry>,
    /// For each entry, all that decides which files it shows: itself and those that are asked
    /// before it, with their credentials.
    keys: Vec<String>,
    upstreams: Upstreams,
    cache: Cache,
    flights: SingleFlight<ModulePath, Response>,
    /// The entry through which each checksum database is reached.
    databases: Mutex<HashMap<SumdbName, usize>>,
    /// `go` asks its own list after every failure of ours.
    before_list: bool,
    counts: Counts,
}

/// What happened.
#[derive(Default)]
pub struct Counts {
    requests: AtomicU64,
    cached: AtomicU64,
    fetched: AtomicU64,
    refused: AtomicU64,
    kept: AtomicU64,
    /// Upstreams that were asked for a file that never changes.
    immutable: AtomicU64,
}

type Outcome<T> = std::result::Result<T, Response>;

impl Answers {
    /// Answers with what the entries of a list give. `before_list` says that `go` goes on to
    /// the same list by itself after any failure.
    pub fn new(entries: Vec<Entry>, upstreams: Upstreams, cache: Cache, before_list: bool) -> Self {
        let mut key = String::new();
        let keys = entries
            .iter()
            .map(|entry| {
                if let Source::Upstream(url) = &entry.source {
                    key.push_str(&upstreams.secret(url));
                }
                let own = key.clone();
                key.push(if entry.on_any_error { '|' } else { ',' });
                own
            })
            .collect();
        Self {
            entries,
            keys,
            upstreams,
            cache,
            flights: SingleFlight::default(),
            databases: Mutex::default(),
            before_list,
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
            found.map_or_else(
                |refusal| self.refusal(path, refusal),
                |body| Response::file(path.content_type(), body),
            )
        });
        log::debug(|| format!("{path}: {} ({} bytes)", answer.status, answer.body.len()));
        answer
    }

    /// What has happened so far, as one line.
    pub fn summary(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "requests={} cached={} fetched={} kept={} refused={} upstream={} upstream_immutable={}",
            count(&self.counts.requests),
            count(&self.counts.cached),
            count(&self.counts.fetched),
            count(&self.counts.kept),
            count(&self.counts.refused),
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
        // Of all failures `go` makes the least of this one: what it then gets from its own
        // list is what it would have got without us. Behind `supported` it asks no list.
        let asks_on = !matches!(path, ModulePath::Sumdb(_, what) if *what != Sumdb::Supported);
        let status = if self.before_list && asks_on && !refusal.is_not_found() {
            404
        } else {
            refusal.status
        };
        Response { status, ..refusal }
    }

    fn module(&self, path: &ModulePath) -> Outcome<Body> {
        if path.is_immutable() {
            let cached = (0..self.entries.len()).find_map(|index| self.cached(index, path));
            if let Some(body) = cached {
                return Ok(body);
            }
        }
        self.try_entries(path).map(|(_, body)| body)
    }

    fn supported(&self, name: &SumdbName, path: &ModulePath) -> Outcome<Body> {
        let (index, body) = self.try_entries(path)?;
        self.databases().insert(name.clone(), index);
        Ok(body)
    }

    /// Asks a checksum database through the entry that supports it, and through no other.
    fn database(&self, name: &SumdbName, path: &ModulePath) -> Outcome<Body> {
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
            && let Some(body) = self.cached(index, path)
        {
            return Ok(body);
        }
        self.ask(index, path)
    }

    /// Asks one entry after the other, and says which one gave the answer.
    fn try_entries(&self, path: &ModulePath) -> Outcome<(usize, Body)> {
        let mut best: Option<Response> = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.source == Source::Direct {
                let text = "not found: nix-gocacheprog leaves GOPROXY=direct to go\n";
                return Err(Response::text(404, text));
            }
            let refusal = match self.ask(index, path) {
                Ok(body) => return Ok((index, body)),
                Err(refusal) => refusal,
            };
            let not_found = refusal.is_not_found();
            // Of several failures `go` tells the last one that means more than "not found".
            if !not_found || best.as_ref().is_none_or(Response::is_not_found) {
                best = Some(refusal);
            }
            if !entry.on_any_error && !not_found {
                break;
            }
        }
        Err(best.unwrap_or_else(|| Response::text(404, "not found: GOPROXY has no entries\n")))
    }

    /// Asks one entry.
    fn ask(&self, index: usize, path: &ModulePath) -> Outcome<Body> {
        match &self.entries[index].source {
            Source::Upstream(url) => {
                if path.is_immutable() {
                    self.counts.immutable.fetch_add(1, Ordering::Relaxed);
                }
                let fetched = self.upstreams.fetch(&url.join(&path.url_path()))?;
                self.counts.fetched.fetch_add(1, Ordering::Relaxed);
                if let Err(why) = check(path, &fetched.body) {
                    return Err(Response::not_the_file(&format!("{url}: {path} is {why}")));
                }
                if path.is_immutable() && fetched.complete {
                    let action = self.action(index, path);
                    let audience = self.audience(index, path);
                    self.cache
                        .put(&action, &fetched.output, &fetched.body, audience);
                    self.counts.kept.fetch_add(1, Ordering::Relaxed);
                }
                Ok(fetched.body)
            }
            Source::Directory(directory) => read(&directory.join(path.file_name())),
            Source::Direct => Err(Response::text(404, "not found: GOPROXY=direct\n")),
            // The words are those of `go`.
            Source::Off => Err(Response::text(
                404,
                "module lookup disabled by GOPROXY=off\n",
            )),
        }
    }

    fn cached(&self, index: usize, path: &ModulePath) -> Option<Body> {
        if !matches!(self.entries[index].source, Source::Upstream(_)) {
            return None;
        }
        let audience = self.audience(index, path);
        let body = self.cache.get(&self.action(index, path), audience)?;
        self.counts.cached.fetch_add(1, Ordering::Relaxed);
        Some(body)
    }

    /// Who may have what an entry gives: what took credentials, be it those of an entry that was asked before, stays here.
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

    fn action(&self, index: usize, path: &ModulePath) -> ActionId {
        let key = format!("{}\0{path}", self.keys[index]);
        ActionId::of(b"nix-gocacheprog: a module file\0", key.as_bytes())
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
