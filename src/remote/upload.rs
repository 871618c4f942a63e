//! Uploads: in the background, at the lowest priority, the output before the entry that names it.

use super::counters::count;
use super::result::{action_key, list_key};
use super::server::Failure;
use super::shelf::Lookup;
use super::{Remote, Trouble, list_id};
use crate::cache::history::{self, Use};
use crate::cache::store::Store;
use crate::entry::Entry;
use crate::id::{ActionId, BuildId, OutputId, hex};
use crate::log;
use crate::sha256::Sha256;
use crate::sync::lock;
use crate::sys;
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
            } else if !self.mode.writes() || self.queue.is_due() && !self.may_write() {
                self.queue.rest(REST);
            } else if let Some(action) = self.queue.take(wait) {
                self.upload_action(store, action);
            } else if is_keeper && self.queue.active() == 0 {
                self.upload_list();
            }
        }
    }

    fn may_write(&self) -> bool {
        self.writes.breaker.may_pass(Instant::now())
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
                self.list_queue.note_success();
            }
            Err(Trouble::Remote(failure)) => {
                let why = failure.why.clone();
                let is_of_request = failure.is_of_request;
                self.written(&Err(failure));
                let gave_up = if is_of_request {
                    self.queue.give_up(&action);
                    true
                } else {
                    self.queue.retry_later(action, Instant::now())
                };
                if gave_up {
                    count(&self.counters.refused, 1);
                    log::warn(format!(
                        "remote {}: upload of action {action} dropped (last failure: {why})",
                        self.shelf.url()
                    ));
                }
            }
            // Nothing is sent for want of room.
            Err(Trouble::NoRoom) => self.queue.give_up(&action),
            Err(Trouble::Local(e)) => {
                let why = e.chain();
                log::warn(format!("upload of action {action} failed: {why}"));
                count(&self.counters.refused, 1);
                *lock(&self.upload_failure) = Some(why);
                self.queue.give_up(&action);
            }
        }
    }

    fn send(&self, store: &Store, action: &ActionId) -> Result<Sent, Trouble> {
        let Some(entry) = store.get(action).map_err(Trouble::Local)? else {
            return Ok(Sent::Gone);
        };
        if self.known.is_present(action) {
            return Ok(Sent::There);
        }
        let key = action_key(action);
        let anew = self.known.must_renew(&entry.output);
        if !anew && !self.known.is_missing(action) && self.shelf.has_entry(&key)? {
            self.known.record_present(action);
            return Ok(Sent::There);
        }
        let mut bytes = 0;
        let is_packed = match self.known.output(&entry.output) {
            Some(is_packed) => is_packed,
            None => {
                let Some(file) = store.open_output(&entry).map_err(Trouble::Local)? else {
                    return Ok(Sent::Gone);
                };
                let anew = anew || self.queue.was_begun(action);
                let sent = self.shelf.put_output(&entry, &file, anew)?;
                bytes = sent.bytes.unwrap_or(0);
                self.known.record_output(&entry.output, sent.is_packed);
                sent.is_packed
            }
        };
        self.shelf.put_entry(&key, &entry, is_packed)?;
        self.known.record_present(action);
        Ok(Sent::Now(bytes))
    }

    /// Notes what a `go` command of a build has used.
    pub(super) fn record(&self, build: BuildId, name: &str, used: Vec<Use>) {
        if self.mode.writes() {
            // What was here before there was a remote, or what that has lost.
            for (action, _) in &used {
                if !self.known.is_present(action) {
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
                return log::warn(format!("recording what a build used failed: {}", e.chain()));
            }
        }
        if self.mode.writes() && !lock(&self.listed).contains(&key) {
            self.lists.mark(&key, true);
            if let Some(id) = list_id(&key) {
                self.list_queue.push(id);
            }
        }
    }

    /// Sends a list, once all that it names is there but for what has failed.
    fn upload_list(&self) {
        if !self.list_queue.is_due() || !self.may_write() {
            return;
        }
        let Some(id) = self.list_queue.take(Duration::ZERO) else {
            return;
        };
        let key = hex(&id.0);
        // Whoever changes it from now on takes this away.
        lock(&self.listed).insert(key.clone());
        let bytes = history::encode_actions(&self.lists.get(&key));
        let entry = Entry {
            output: OutputId(Sha256::digest(&bytes)),
            size: bytes.len() as u64,
            time: 0,
        };
        let mut took_output = false;
        let sent = self.send_list(&list_key(&key), &entry, &bytes, &mut took_output);
        // A server that has just taken the output refuses this one entry, as one does that lets nothing be replaced.
        let is_of_entry = |failure: &Failure| took_output && failure.status.is_some();
        self.written(&sent.clone().map_err(|failure| Failure {
            is_of_request: failure.is_of_request || is_of_entry(&failure),
            ..failure
        }));
        let is_settled = match &sent {
            Ok(()) => {
                self.list_queue.done(&id);
                true
            }
            Err(failure) if failure.is_of_request => {
                self.list_queue.give_up(&id);
                true
            }
            Err(_) => self.list_queue.retry_later(id, Instant::now()),
        };
        if is_settled {
            if let Err(failure) = &sent {
                log::warn(format!(
                    "remote {}: upload of the list ac/{} dropped (last failure: {})",
                    self.shelf.url(),
                    list_key(&key),
                    failure.why
                ));
            }
            if lock(&self.listed).contains(&key) {
                self.lists.mark(&key, false);
            } else {
                self.list_queue.push(id);
            }
        } else {
            lock(&self.listed).remove(&key);
        }
    }

    fn send_list(
        &self,
        key: &str,
        entry: &Entry,
        bytes: &[u8],
        took_output: &mut bool,
    ) -> Result<(), Failure> {
        // Whatever else is there under that key is in the way.
        if let Ok(Lookup::Found(there)) = self.shelf.entry(key)
            && there.entry.output == entry.output
        {
            return Ok(());
        }
        self.shelf.put_bytes(&entry.output, bytes)?;
        *took_output = true;
        self.list_queue.note_success();
        self.shelf.put_entry(key, entry, false)
    }

    fn written(&self, sent: &Result<(), Failure>) {
        if let Err(failure) = sent {
            *lock(&self.upload_failure) = Some(failure.why.clone());
        }
        self.judge(&self.writes, sent);
    }
}
