//! What `go` has asked and nobody has answered yet.

use crate::client::spooled::Spooled;
use crate::id::{ActionId, OutputId};
use crate::protocol::wire::Keys;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request on its way.
#[derive(Debug)]
pub enum Pending {
    Get(Keys),
    Put(Put),
    /// `go` has not asked for anything: the daemon is told something.
    Telling,
}

/// A put whose body is complete.
#[derive(Clone, Debug)]
pub struct Put {
    pub key: ActionId,
    pub output: OutputId,
    pub body: Arc<Spooled>,
}

/// The requests on their way, by `go`'s number for them.
#[derive(Debug)]
pub struct Requests {
    pending: BTreeMap<i64, Pending>,
    /// When the daemon last gave a sign of life, or the first of them was sent.
    progress: Instant,
}

impl Requests {
    /// None yet.
    pub fn new() -> Self {
        Self {
            pending: BTreeMap::new(),
            progress: Instant::now(),
        }
    }

    /// Notes a request, before it is sent.
    pub fn add(&mut self, id: i64, request: Pending) {
        if self.pending.is_empty() {
            self.progress();
        }
        self.pending.insert(id, request);
    }

    /// The request with this number, which is answered now.
    pub fn take(&mut self, id: i64) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// All of them, which are answered now.
    pub fn take_all(&mut self) -> BTreeMap<i64, Pending> {
        std::mem::take(&mut self.pending)
    }

    /// Whether all are answered.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The daemon lives.
    pub fn progress(&mut self) {
        self.progress = Instant::now();
    }

    /// Whether somebody waits, and the daemon has not given a sign of life for so long.
    pub fn is_overdue(&self, limit: Duration) -> bool {
        !self.is_empty() && self.progress.elapsed() > limit
    }
}
