//! A store of the proxy's own, for one that serves no build and finds no daemon: a team's machine runs it
//! for months.
//!
//! No other process uses it. So it is looked after as the daemon's is, by the same thread: kept within its
//! limits while it is in use, brought to disk, and checked after a crash.

use crate::cache::maintenance::Maintenance;
use crate::cache::session::Session;
use crate::cache::stats::Stats;
use crate::cache::store::{Limits, Store};
use crate::client::private;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::BuildId;
use crate::log;
use crate::sync::lock;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

/// The store, and what looks after it.
pub struct StandaloneCache {
    store: Store,
    limits: Limits,
    stats: Stats,
    upkeep: Maintenance,
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
        let own: &'static Self = Box::leak(Box::new(Self {
            stats: Stats::open(&root),
            store,
            limits,
            upkeep: Maintenance::default(),
            thread: Mutex::default(),
            links,
        }));
        let thread = thread::Builder::new()
            .name("upkeep".into())
            .spawn(|| own.upkeep.run(&own.store, &own.stats, &own.limits))
            .map_err(|e| Error::io("start", "a thread", e))?;
        *own.thread() = Some(thread);
        log::info(format!("modules are kept in {}", root.display()));
        Ok(own)
    }

    /// A session, and the directory in which its outputs appear. They need not stay there.
    pub fn session(&'static self) -> Result<(Session<'static>, PathBuf)> {
        let directory = self.links.join(BuildId::new()?.to_string());
        fs::create_dir(&directory, 0o700)?;
        Ok((Session::new(&self.store, &directory), directory))
    }

    /// There is more in it than before, or something has failed, as it does on a full disk.
    pub fn look_after(&self, failed: bool) {
        if failed || self.store.size() > self.limits.max_size {
            self.upkeep.wake();
        }
    }

    /// Ends what looks after it. `is_idle` says that nobody is writing to it.
    pub fn end(&self, is_idle: bool) {
        self.upkeep.stop();
        let thread = self.thread().take();
        let ended = thread.is_none_or(|thread| thread.join().is_ok());
        self.stats.save();
        // Else the next one sees that it was not closed, and looks closer.
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
