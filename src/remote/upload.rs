//! Uploads: in the background, at the lowest priority, the output before the entry that names it.

use super::counters::count;
use super::result::action_key;
use super::server::Failure;
use super::{Remote, Trouble};
use crate::cache::history::{self, Use};
use crate::cache::store::Store;
use crate::entry::Entry;
use crate::id::{ActionId, BuildId, OutputId};
use crate::log;
use crate::sync::lock;
use crate::sys;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// How long one that may send nothing waits before it looks again.
const REST: Duration = Duration::from_secs(1);

/// How long a thread waits for something to upload, before it looks whether anything else is to be done …
const WAIT: Duration = Duration::from_secs(60);

/// … and the keeper, who writes down what has changed.
const KEEPER_WAIT: Duration = Duration::from_secs(1);

enum Sent {
    /// So many bytes of an output, and the entry.
    Now(u64),
    There,
    /// It is in our own store no more.
    Gone,
}

impl Remote {
    /// A thread that uploads, until all is to end. One of them, the keeper, looks after the lists too.
    pub fn upload(&self, store: &Store, is_keeper: bool) {
        sys::lower_priority();
        let wait = if is_keeper { KEEPER_WAIT } else { WAIT };
        while !self.queue.stopping() {
            self.queue.save_at_times();
            // It counts as waiting until it is done.
            let record = if is_keeper {
                lock(&self.records).front().cloned()
            } else {
                None
            };
            if let Some((build, name, used)) = record {
                self.record(build, &name, used);
                lock(&self.records).pop_front();
            } else if !self.mode.writes() || self.queue.waiting() > 0 && !self.may_write() {
                self.queue.rest(REST);
            } else if let Some(action) = self.queue.take(wait) {
                self.upload_action(store, action);
            } else if is_keeper && self.queue.len() == 0 {
                self.upload_list();
            }
        }
    }

    fn may_write(&self) -> bool {
        self.writes.may_pass(Instant::now())
    }

    fn upload_action(&self, store: &Store, action: ActionId) {
        match self.send(store, &action) {
            Ok(sent) => {
                match sent {
                    Sent::Now(bytes) => {
                        count(&self.counters.uploads, 1);
                        count(&self.counters.sent, bytes);
                    }
                    Sent::There => count(&self.counters.there, 1),
                    Sent::Gone => count(&self.counters.refused, 1),
                }
                self.written(&Ok(()));
                self.queue.done(&action);
            }
            Err(Trouble::Remote(failure)) => {
                let is_of_request = failure.is_of_request;
                if is_of_request {
                    count(&self.counters.refused, 1);
                    log::warn(format!(
                        "the remote {} does not take an action: {}",
                        self.server.url(),
                        failure.why
                    ));
                }
                self.written(&Err(failure));
                if is_of_request {
                    self.queue.done(&action);
                } else {
                    self.queue.put_back(action);
                }
            }
            // Nothing is sent for want of room.
            Err(Trouble::NoRoom) => self.queue.done(&action),
            Err(Trouble::Local(e)) => {
                log::warn(format!("an action is not uploaded: {}", e.chain()));
                count(&self.counters.refused, 1);
                self.queue.done(&action);
            }
        }
    }

    fn send(&self, store: &Store, action: &ActionId) -> Result<Sent, Trouble> {
        let Some(entry) = store.get(action).map_err(Trouble::Local)? else {
            return Ok(Sent::Gone);
        };
        if self.seen.knows(action) {
            return Ok(Sent::There);
        }
        let key = action_key(action);
        let anew = self.seen.must_renew(&entry.output);
        if !anew && !self.seen.misses(action) && self.server.has_entry(&key)? {
            self.seen.is_there(action);
            return Ok(Sent::There);
        }
        let mut bytes = 0;
        if !self.seen.knows_output(&entry.output) {
            let Some(file) = store.open_output(&entry).map_err(Trouble::Local)? else {
                return Ok(Sent::Gone);
            };
            bytes = self.server.put_output(&entry, &file, anew)?.unwrap_or(0);
            self.seen.has_output(&entry.output);
        }
        self.server.put_entry(&key, &entry)?;
        self.seen.is_there(action);
        Ok(Sent::Now(bytes))
    }

    /// Notes what a `go` command of a build has used.
    pub(super) fn record(&self, build: BuildId, name: &str, used: Vec<Use>) {
        if self.mode.writes() {
            // What was here before there was a remote, or what that has lost.
            for (action, _) in &used {
                if !self.seen.knows(action) {
                    self.queue.push(*action);
                }
            }
        }
        let key = history::key(name);
        match self.lists.record(&key, build, used) {
            Ok(true) => {
                lock(&self.listed).remove(&key);
            }
            Ok(false) => {}
            Err(e) => {
                return log::warn(format!("what a build has used is not kept: {}", e.chain()));
            }
        }
        if self.mode.writes() && !lock(&self.listed).contains(&key) {
            self.lists.mark(&key, true);
        }
    }

    /// Sends a list, once all that it names is there.
    fn upload_list(&self) {
        let Some(key) = self.lists.next_unsent() else {
            return;
        };
        if !self.may_write() {
            return;
        }
        let bytes = history::encode(&self.lists.get(&key));
        let entry = Entry {
            output: OutputId(Sha256::digest(&bytes).into()),
            size: bytes.len() as u64,
            time: 0,
        };
        let sent = self.send_list(&key, &entry, &bytes);
        if sent
            .as_ref()
            .err()
            .is_none_or(|failure| failure.is_of_request)
        {
            self.lists.mark(&key, false);
            lock(&self.listed).insert(key);
        }
        self.written(&sent);
    }

    fn send_list(&self, key: &str, entry: &Entry, bytes: &[u8]) -> Result<(), Failure> {
        // Whatever else is there under that key is in the way.
        if let Ok(Some(there)) = self.server.entry(key)
            && there.output == entry.output
        {
            return Ok(());
        }
        self.server.put_bytes(&entry.output, bytes)?;
        self.server.put_entry(key, entry)
    }

    fn written(&self, sent: &Result<(), Failure>) {
        self.judge(&self.writes, "sent to", sent);
    }
}
