//! A store of the proxy's own, for one that serves no build and finds no daemon: a team's machine runs it
//! for months.
//!
//! No other process uses it. The daemon's own maintenance thread keeps it within its limits while it is in
//! use, syncs it to disk, and checks it after a crash.

use super::body::Body;
use super::link::Link;
use crate::cache::builds::output_name;
use crate::cache::maintenance::Maintenance;
use crate::cache::session::Session;
use crate::cache::stats::Stats;
use crate::cache::store::{Limits, Store};
use crate::client::private;
use crate::error::{Error, Result};
use crate::fs::{self, OpenDirectory};
use crate::id::{ActionId, BuildId, OutputId};
use crate::log;
use crate::sync::lock;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

/// The store, and its maintenance.
pub struct StandaloneCache {
    store: Store,
    limits: Limits,
    stats: Stats,
    maintenance: Maintenance,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Where sessions have their directories.
    links: PathBuf,
}

impl StandaloneCache {
    /// Opens it, in a directory of this user's unless another is named. It is open for as long as this
    /// process lives.
    ///
    /// # Errors
    /// When the directory cannot be made or written, or another proxy uses it.
    pub fn open(directory: Option<&Path>, limits: Limits) -> Result<&'static Self> {
        let root = match directory {
            Some(directory) => directory.to_path_buf(),
            None => private::beside("modules")?,
        };
        let store = Store::open(&root)?;
        let links = root.join("links");
        // Left by a proxy that was killed: they would keep their outputs for ever.
        if links.exists() {
            fs::remove_dir_all(&links)?;
        }
        fs::ensure_dir(&links, 0o700)?;
        let cache: &'static Self = Box::leak(Box::new(Self {
            stats: Stats::open(&root),
            store,
            limits,
            maintenance: Maintenance::default(),
            thread: Mutex::default(),
            links,
        }));
        let thread = thread::Builder::new()
            .name("maintenance".into())
            .spawn(|| {
                cache
                    .maintenance
                    .run(&cache.store, &cache.stats, &cache.limits, &())
            })
            .map_err(|e| Error::io("start", "a thread", e))?;
        *cache.thread() = Some(thread);
        log::info(format!("caching modules in {}", root.display()));
        Ok(cache)
    }

    /// A new session.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn link(&'static self) -> Result<StandaloneLink> {
        let directory = self.links.join(BuildId::new()?.to_string());
        fs::create_dir(&directory, 0o700)?;
        Ok(StandaloneLink {
            session: Session::new(&self.store, OpenDirectory::open(&directory)?),
            cache: self,
            directory,
        })
    }

    /// Wakes the maintenance after a put: the store may have grown over its limit, or the disk may be full.
    fn after_put(&self, failed: bool) {
        if failed || self.store.size() > self.limits.max_size {
            self.maintenance.wake();
        }
    }

    /// Stops the maintenance. `is_idle` says that nobody is writing to it.
    pub fn end(&self, is_idle: bool) {
        self.maintenance.stop();
        let thread = self.thread().take();
        let ended = thread.is_none_or(|thread| thread.join().is_ok());
        self.stats.save();
        // Otherwise the next one sees that it was not closed, and verifies what is recent.
        if is_idle
            && ended
            && let Err(e) = self.store.close()
        {
            log::warn(e.chain());
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        lock(&self.thread)
    }
}

/// A session with a standalone cache.
pub struct StandaloneLink {
    cache: &'static StandaloneCache,
    session: Session<'static>,
    /// Where outputs appear. Each is removed once it is open, so an evicted one frees its space.
    directory: PathBuf,
}

impl Link for StandaloneLink {
    fn get(&mut self, action: &ActionId) -> Result<Option<Body>> {
        let Some(entry) = self.session.get(action)? else {
            return Ok(None);
        };
        let path = output_name(&self.directory, &entry.output);
        let body = Body::file(fs::open(&path)?)?;
        fs::remove_file(&path)?;
        Ok(Some(body))
    }

    fn put(&mut self, action: &ActionId, output: &OutputId, body: &Body) -> Result<()> {
        let stored = self
            .session
            .put(action, output, body.len(), &mut body.reader());
        self.cache.after_put(stored.is_err());
        stored?;
        fs::remove_file(&output_name(&self.directory, output))
    }
}

impl Drop for StandaloneLink {
    fn drop(&mut self) {
        // What is left is empty; the next one has another name.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
