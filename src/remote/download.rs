//! From the remote into the store: what a get waits for, and what is read ahead. Whatever comes is hashed on its way, and what is
//! not what its name says goes no further.

use super::counters::count;
use super::fetch::{Allowance, Fetch, Fetches, Job};
use super::result::{Record, action_key, list_key};
use super::server::Failure;
use super::shelf::Lookup;
use super::{Remote, Trouble};
use crate::cache::history;
use crate::cache::store::{Limits, Store};
use crate::config::{BODY_MAX, REMOTE_AHEAD_PART, REMOTE_AHEAD_UNVERIFIED};
use crate::error::Error;
use crate::id::ActionId;
use crate::log;
use crate::sha256::Sha256;
use crate::sys;
use std::collections::HashSet;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// An output that comes more slowly than this, in bytes a second, is given up …
const SLOWEST: u64 = 64 << 10;

/// … after this time at the earliest.
const SLOW_AFTER: Duration = Duration::from_secs(10);

impl Remote {
    /// A thread that fetches, until all is to end.
    pub fn fetch(&self, store: &Store, limits: &Limits) {
        while let Some(job) = self.fetches.take() {
            match job {
                Job::Name(name) => self.read_ahead(&name, store, limits),
                Job::Fetch(fetch) => {
                    self.fetch_action(store, limits, &fetch);
                    self.fetches.landed(&fetch);
                }
            }
        }
    }

    fn fetch_action(&self, store: &Store, limits: &Limits, fetch: &Fetch) {
        let action = &fetch.action;
        let is_here = || store.get(action).is_ok_and(|found| found.is_some());
        if fetch.ahead.is_some() && is_here() || !self.reads.breaker.may_pass(Instant::now()) {
            return;
        }
        let got = match self.bring(store, limits, fetch) {
            Ok(got) => got,
            // What is here is worth more, and no fault of the remote's.
            Err(Trouble::NoRoom) => return self.judge(&self.reads, &Ok(())),
            Err(Trouble::Local(e)) => {
                log::warn(format!(
                    "remote {}: storing an output failed: {}",
                    self.shelf.url(),
                    e.chain()
                ));
                // The remote has done its part.
                return self.judge(&self.reads, &Ok(()));
            }
            Err(Trouble::Remote(failure)) => return self.judge(&self.reads, &Err(failure)),
        };
        let is_ahead = fetch.ahead.is_some();
        match got {
            Some(size) => {
                self.known.record_present(action);
                count(&self.counters.received, size);
                count(
                    if is_ahead {
                        &self.counters.ahead
                    } else {
                        &self.counters.hits
                    },
                    1,
                );
            }
            None if !is_ahead => {
                self.known.record_missing(action);
                count(&self.counters.misses, 1);
            }
            None => {}
        }
        self.judge(&self.reads, &Ok(()));
    }

    /// Brings an action into the store; gives its size, or `None` when the remote does not have it.
    fn bring(
        &self,
        store: &Store,
        limits: &Limits,
        fetch: &Fetch,
    ) -> std::result::Result<Option<u64>, Trouble> {
        let Some(record) = self.trusted_entry(&action_key(&fetch.action))? else {
            return Ok(None);
        };
        let entry = &record.entry;
        if let Some(allowance) = &fetch.ahead
            && !allowance.take(entry.size)
        {
            return Ok(None);
        }
        if self.receive(store, limits, &fetch.action, &record)? {
            return Ok(Some(entry.size));
        }
        self.known.record_bad_output(&entry.output);
        Ok(None)
    }

    /// An entry that counts. One that does not is counted, and said once.
    fn trusted_entry(&self, key: &str) -> std::result::Result<Option<Record>, Failure> {
        match self.shelf.entry(key)? {
            Lookup::Found(record) => Ok(Some(record)),
            Lookup::Missing => Ok(None),
            Lookup::Malformed => {
                if self.counters.malformed.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::warn(format!(
                        "remote {}: ignored a malformed entry, ac/{key}; further ones are only counted",
                        self.shelf.url()
                    ));
                }
                Ok(None)
            }
            Lookup::Untrusted => {
                if self.counters.untrusted.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::warn(format!(
                        "remote {}: ignored an entry without a signature by a trusted key (--remote-trusted-public-keys); \
                         further ones are only counted",
                        self.shelf.url()
                    ));
                }
                Ok(None)
            }
        }
    }

    fn receive(
        &self,
        store: &Store,
        limits: &Limits,
        action: &ActionId,
        record: &Record,
    ) -> std::result::Result<bool, Trouble> {
        let entry = &record.entry;
        if entry.size > BODY_MAX {
            return Err(Failure::new(format!("an entry of {} bytes", entry.size)).into());
        }
        if !has_room(store, limits, entry.size) {
            return Err(Trouble::NoRoom);
        }
        let reader: Box<dyn Read> = match entry.size {
            // Whatever has no bytes is here already.
            0 => Box::new(io::empty()),
            _ => match self.shelf.output(record)? {
                Some(reader) => reader,
                None => return Ok(false),
            },
        };
        let mut body = Incoming {
            reader,
            until: Instant::now() + SLOW_AFTER + Duration::from_secs(entry.size / SLOWEST),
            fetches: &self.fetches,
            failed: None,
        };
        match store.adopt(action, entry, &mut body) {
            Ok(()) => {
                // To the very end, so that the connection can be used again.
                let _ = body.read(&mut [0]);
                self.known.record_output(&entry.output, record.is_packed);
                Ok(true)
            }
            Err(e) => Err(match (body.failed, &e) {
                (Some(why), _) => {
                    // What cannot be unpacked is of no use to anybody.
                    self.known.record_bad_output(&entry.output);
                    Failure::new(format!("reading an output failed: {why}")).into()
                }
                (None, Error::Io { .. }) => Trouble::Local(e),
                (None, _) => {
                    count(&self.counters.damaged, 1);
                    self.known.record_bad_output(&entry.output);
                    log::warn(format!(
                        "remote {}: discarded a damaged output: {}",
                        self.shelf.url(),
                        e.chain()
                    ));
                    Failure::new("wrong outputs").into()
                }
            }),
        }
    }

    /// Wants all that builds of this name have used and that is not here.
    fn read_ahead(&self, name: &str, store: &Store, limits: &Limits) {
        let key = history::key(name);
        let local: Vec<_> = self.lists.get(&key).into_iter().map(|(a, _)| a).collect();
        let mut shared = Vec::new();
        if self.reads.breaker.may_pass(Instant::now()) {
            let found = self.shared_list(&key);
            self.judge(
                &self.reads,
                &found.as_ref().map(|_| ()).map_err(Clone::clone),
            );
            shared = found.unwrap_or_default();
        }
        if !shared.is_empty() {
            // What this build uses is added to it later.
            if let Err(e) = self.lists.adopt(&key, &shared) {
                log::warn(format!("saving a remote list failed: {}", e.chain()));
            }
        }
        let part = limits.max_size / REMOTE_AHEAD_PART;
        let bytes = if self.shelf.keys().verifies() {
            part
        } else {
            part.min(REMOTE_AHEAD_UNVERIFIED)
        };
        let allowance = Arc::new(Allowance::new(bytes));
        let mut wanted = HashSet::new();
        for action in shared.into_iter().chain(local) {
            if self.fetches.stopping() {
                return;
            }
            if wanted.contains(&action) || store.get(&action).is_ok_and(|found| found.is_some()) {
                continue;
            }
            wanted.insert(action);
            self.fetches.ahead(action, &allowance);
        }
        if !wanted.is_empty() {
            log::info(format!(
                "remote: fetching up to {} actions ahead for a build of {name:?}",
                wanted.len()
            ));
        }
    }

    /// The list that machines share; empty when there is none.
    fn shared_list(&self, key: &str) -> std::result::Result<Vec<ActionId>, Failure> {
        if let Some(bytes) = self.list_under(&list_key(key))? {
            return Ok(history::decode_actions(&bytes));
        }
        // One that an earlier release has left.
        Ok(match self.list_under(key)? {
            Some(bytes) => history::decode(&bytes)
                .into_iter()
                .map(|(a, _)| a)
                .collect(),
            None => Vec::new(),
        })
    }

    fn list_under(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, Failure> {
        let Some(record) = self.trusted_entry(key)? else {
            return Ok(None);
        };
        let entry = &record.entry;
        if entry.size > history::LIST_MAX {
            return Err(Failure::new("a list that is too long"));
        }
        let Some(body) = self.shelf.output(&record)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        body.take(history::LIST_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::new(format!("a list that is cut off: {e}")))?;
        if Sha256::digest(&bytes) != entry.output.0 {
            count(&self.counters.damaged, 1);
            return Err(Failure::new("wrong outputs"));
        }
        Ok(Some(bytes))
    }
}

/// Whether there is room on the disk, whatever an entry says of its output.
fn has_room(store: &Store, limits: &Limits, size: u64) -> bool {
    sys::space(store.root())
        .is_ok_and(|space| space.free > limits.floor(space).saturating_add(size))
}

/// An output on its way in, which must not take for ever.
struct Incoming<'a, R> {
    reader: R,
    until: Instant,
    /// They say when all is to end.
    fetches: &'a Fetches,
    failed: Option<String>,
}

impl<R: Read> Read for Incoming<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = if Instant::now() > self.until {
            Err(io::Error::new(ErrorKind::TimedOut, "too slow"))
        } else if self.fetches.stopping() {
            Err(io::Error::other("the daemon is stopping"))
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
