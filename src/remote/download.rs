//! From the remote into the store: what a get waits for, and what is read ahead. Whatever comes is hashed on its way, and what is
//! not what its name says goes no further.

use super::counters::count;
use super::fetch::{Fetches, Job};
use super::result::action_key;
use super::server::Failure;
use super::{Remote, Trouble};
use crate::cache::history::{self, Use};
use crate::cache::store::{Limits, Store};
use crate::config::{BODY_MAX, REMOTE_AHEAD_PART};
use crate::entry::Entry;
use crate::error::Error;
use crate::id::ActionId;
use crate::log;
use crate::size::show_size;
use crate::sys;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::{self, ErrorKind, Read};
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
        let is_here = || store.get(action).is_ok_and(|found| found.is_some());
        if ahead && is_here() || !self.reads.may_pass(Instant::now()) {
            return;
        }
        let got = match self.bring(store, limits, action, hint, ahead) {
            Ok(got) => got,
            // What is here is worth more, and no fault of the remote's.
            Err(Trouble::NoRoom) => return self.judge(&self.reads, "asked of", &Ok(())),
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
        limits: &Limits,
        action: &ActionId,
        hint: Option<Entry>,
        ahead: bool,
    ) -> std::result::Result<Option<u64>, Trouble> {
        if let Some(entry) = hint {
            if self.receive(store, limits, action, &entry)? {
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
        if self.receive(store, limits, action, &entry)? {
            return Ok(Some(entry.size));
        }
        self.seen.lacks_output(&entry.output);
        Ok(None)
    }

    fn receive(
        &self,
        store: &Store,
        limits: &Limits,
        action: &ActionId,
        entry: &Entry,
    ) -> std::result::Result<bool, Trouble> {
        if entry.size > BODY_MAX {
            return Err(Failure::new(format!("an entry of {} bytes", entry.size)).into());
        }
        if !has_room(store, limits, entry.size) {
            return Err(Trouble::NoRoom);
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
            fetches: &self.fetches,
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
        let key = history::key(name);
        let mut list = self.lists.get(&key);
        if self.reads.may_pass(Instant::now()) {
            let shared = self.shared_list(&key);
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
                if let Err(e) = self.lists.replace(&key, &list) {
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
    fn shared_list(&self, key: &str) -> std::result::Result<Vec<Use>, Failure> {
        let Some(entry) = self.server.entry(key)? else {
            return Ok(Vec::new());
        };
        if entry.size > history::LIST_MAX {
            return Err(Failure::new("a list that is too long"));
        }
        let Some(body) = self.server.output(&entry.output, entry.size)? else {
            return Ok(Vec::new());
        };
        let mut bytes = Vec::new();
        body.take(history::LIST_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::new(format!("a list that is cut off: {e}")))?;
        if *Sha256::digest(&bytes) != entry.output.0 {
            count(&self.counters.damaged, 1);
            return Err(Failure::new("it gives wrong outputs"));
        }
        Ok(history::decode(&bytes))
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
            Err(io::Error::new(ErrorKind::TimedOut, "it comes too slowly"))
        } else if self.fetches.stopping() {
            Err(io::Error::other("the daemon ends"))
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
