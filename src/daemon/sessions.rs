//! The sessions that are open: how many there may be, and how they are ended.

use crate::cache::builds::BuildDir;
use crate::cache::history::{self, Use};
use crate::config::{
    CONNECTIONS_MAX, CONNECTIONS_PER_USER_PART, CONNECTIONS_RESERVED_PART, DESCRIPTORS_BESIDE,
    DESCRIPTORS_PER_CONNECTION, STOP_LIMIT,
};
use crate::counts::Counts;
use crate::daemon::Daemon;
use crate::daemon::compiled;
use crate::daemon::service::Service;
use crate::daemon::uses::Put;
use crate::error::{Error, Result};
use crate::id::{ActionId, BuildId};
use crate::log;
use crate::remote::Ending;
use crate::sync::lock;
use crate::sys;
use std::collections::{HashMap, HashSet};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The sessions that are open, so that the daemon can wait for them and end them.
#[derive(Debug)]
pub struct Sessions {
    /// Connections at one time.
    most: usize,
    pub(super) table: Mutex<Table>,
    closed: Condvar,
    /// They are to end.
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    serial: u64,
    open: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    /// Whom limits count the peer as.
    account: u32,
    /// A request is running. It is outside of the table's lock, which all sessions would take twice for each request.
    busy: Arc<AtomicBool>,
}

/// One open session; it is closed when this is dropped.
pub struct OpenSession {
    pub(super) daemon: Arc<Daemon>,
    serial: u64,
    user: u32,
    busy: Arc<AtomicBool>,
}

impl OpenSession {
    /// Opens a session, if there is room for one more.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(daemon: &Arc<Daemon>, stream: &UnixStream) -> Result<Self> {
        let user = sys::peer_user(stream)
            .map_err(|e| Error::io("find the user of", "the connection", e))?;
        // Nix's builds always find room, whatever others do.
        let (policy, most) = (&daemon.service.policy, daemon.sessions.most);
        let account = policy.account(user);
        let limit = if policy.is_trusted(user) {
            most
        } else {
            most - most / CONNECTIONS_RESERVED_PART
        };
        let mut table = daemon.sessions.table();
        let of_user = table.open.values().filter(|c| c.account == account).count();
        if table.open.len() >= limit || of_user >= most / CONNECTIONS_PER_USER_PART {
            return Err(Error::peer(format!(
                "too many connections ({} in all, {of_user} of user {user})",
                table.open.len()
            )));
        }
        let stream = stream
            .try_clone()
            .map_err(|e| Error::io("hold on to", "the connection", e))?;
        table.serial += 1;
        let serial = table.serial;
        let busy = Arc::new(AtomicBool::new(false));
        table.open.insert(
            serial,
            Connection {
                stream,
                account,
                busy: Arc::clone(&busy),
            },
        );
        drop(table);
        Ok(Self {
            daemon: Arc::clone(daemon),
            serial,
            user,
            busy,
        })
    }
}

impl Sessions {
    /// None open yet, and never more than this many descriptors allow.
    pub fn within(descriptors: u64) -> Self {
        let fit = descriptors.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_PER_CONNECTION;
        Self {
            most: usize::try_from(fit)
                .unwrap_or(usize::MAX)
                .clamp(16, CONNECTIONS_MAX),
            table: Mutex::default(),
            closed: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// No session is open.
    pub fn none_open(&self) -> bool {
        self.table().open.is_empty()
    }

    /// Ends the sessions: those between two requests at once, the others after the one
    /// that is running, for which it waits a bounded time; says whether all have ended.
    pub fn stop(&self) -> bool {
        let table = self.table();
        // Whoever ends a request sees this, or is seen to be idle here.
        self.stopping.store(true, Ordering::SeqCst);
        let is_idle = |c: &&Connection| !c.busy.load(Ordering::SeqCst);
        for connection in table.open.values().filter(is_idle) {
            // The peer may have closed it just now.
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        }
        let (table, _) = self
            .closed
            .wait_timeout_while(table, STOP_LIMIT, |table| !table.open.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if !table.open.is_empty() {
            log::warn(format!(
                "cutting off {} sessions that did not end within {}s",
                table.open.len(),
                STOP_LIMIT.as_secs()
            ));
        }
        table.open.is_empty()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A session that panicked has left the table whole.
        lock(&self.table)
    }
}

impl OpenSession {
    /// What the daemon offers.
    pub fn service(&self) -> &Service {
        &self.daemon.service
    }

    /// The user at the other end.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// A request has begun.
    pub fn begin(&self) {
        self.busy.store(true, Ordering::SeqCst);
    }

    /// It is answered; `false` when the session is to end now.
    pub fn end(&self) -> bool {
        self.busy.store(false, Ordering::SeqCst);
        !self.daemon.sessions.stopping.load(Ordering::SeqCst)
    }

    /// So much has happened in a build whose name is of this family.
    pub fn count(&self, family: &str, counts: Counts) {
        let service = &self.daemon.service;
        service.stats.add(family, counts);
        let is_large = counts.puts > 0 && service.store.size() > service.limits.max_size;
        // The disk may be full.
        if is_large || counts.errors > 0 {
            service.maintenance.wake();
        }
    }

    /// A build of the shared tier has registered itself.
    pub fn begun(&self, build: BuildId, name: &str, prefetches: bool) {
        self.daemon.service.begun(build, name, prefetches);
    }

    /// Whether outputs are prefetched for builds of this name.
    pub fn makes_ready(&self, name: &str) -> bool {
        self.daemon.service.history.has(&history::key(name))
    }

    /// Until this is dropped, the remote has something to wait for.
    pub fn ending(&self) -> Option<Ending<'_>> {
        self.daemon
            .service
            .remote
            .get()
            .map(|remote| remote.ending())
    }

    /// What builds of this name have used up to now.
    pub fn used_before(&self, build: &BuildDir) -> HashSet<ActionId> {
        let used = match build.name().as_ref() {
            "" => Vec::new(),
            name => self.daemon.service.history.get(&history::key(name)),
        };
        used.into_iter().map(|(action, _)| action).collect()
    }

    /// A session has ended that has put this. Nobody waits for what is found out of it.
    pub fn compiled(&self, build: &BuildDir, puts: &[Put], used_before: &HashSet<ActionId>) {
        if !puts.is_empty() {
            sys::lower_priority();
            compiled::note(build, &self.daemon.service.store, puts, used_before);
        }
    }

    /// A session has ended in which this was used.
    pub fn used(&self, build: &BuildDir, used: Vec<Use>) {
        let service = &self.daemon.service;
        if let Some(remote) = service.remote.get() {
            return remote.used(build.id(), build.name(), used);
        }
        let key = history::key(build.name());
        if let Err(e) = service.history.record(&key, build.id(), used) {
            log::warn(format!("recording what a build used failed: {}", e.chain()));
        }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.daemon.sessions.table().open.remove(&self.serial);
        self.daemon.sessions.closed.notify_all();
    }
}
