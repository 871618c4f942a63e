//! Actions and outputs on a server that knows only names: `ac/<key>` has an entry, `cas/<hash>` an output's bytes.
//!
//! Outputs are packed with zstd. A server that packs by itself (bazel-remote) is sent packed bytes under the plain name, in
//! HTTP's own words; any other keeps them under `cas/<hash>.zst`, and the entry says so. Small and incompressible outputs
//! are kept as they are, and those of earlier releases are found.

use super::access::Options;
use super::packing::{Packed, Unpacked};
use super::result::{Record, decode, encode, is_json};
use super::server::{Content, Failure, Found, Outcome, Server};
use super::signing::Keys;
use crate::config::READ_BUFFER;
use crate::entry::Entry;
use crate::error::Result;
use crate::http::url::Url;
use crate::id::{OutputId, hex};
use crate::log;
use crate::remote::access::Access;
use crate::sync::lock;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// An entry is some 250 bytes, with a signature 400, and bazel-remote adds a little.
const ENTRY_MAX: u64 = 64 << 10;

const JSON: &str = "application/json";

const OCTETS: &str = "application/octet-stream";

/// An output of at most so many bytes is sent without asking first whether it is there.
const SENT_UNASKED: u64 = 32 << 10;

/// The output without bytes, which bazel-remote always has.
const EMPTY: &str = "cas/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The shelf.
#[derive(Debug)]
pub struct Shelf {
    server: Server,
    keys: Keys,
    /// Known once something was sent.
    packing: Mutex<Option<Packing>>,
    /// It says that it packs, and sends nothing.
    fails_to_pack: AtomicBool,
    /// It has answered as a cache does, with an entry or with none.
    is_cache: AtomicBool,
    received: Arc<AtomicU64>,
    sent: AtomicU64,
}

/// What an entry's key leads to.
#[derive(Debug)]
pub enum Lookup {
    /// Nothing.
    Missing,
    /// What a power cut or a server's fault has left of an entry: it is to be replaced.
    Malformed,
    /// An entry without a signature of a trusted key, which counts for nothing.
    Untrusted,
    /// An entry.
    Found(Record),
}

/// How a server keeps packed outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// It packs and unpacks by itself.
    Encoded,
    /// Under names of their own.
    Named,
    /// Not at all.
    Plain,
}

/// An output that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// It has been sent now, and has so many bytes unpacked.
    pub bytes: Option<u64>,
    /// It is under the name of a packed one.
    pub is_packed: bool,
}

impl Shelf {
    /// The shelf that the options name. Nothing is sent yet.
    ///
    /// # Errors
    /// When the options are wrong, or a file cannot be read.
    pub fn open(options: &Options) -> Result<Self> {
        let server = Server::new(Access::new(options)?)?;
        let mut keys = Keys::new(options.secret_key.as_deref(), &options.trusted_keys)?;
        if let Some(own) = keys.trust_own()
            && options.mode.reads()
        {
            log::info(format!(
                "remote {}: only entries that {own} has signed, the key of --remote-secret-key-file, are used \
                 (--remote-trusted-public-keys names others)",
                server.url()
            ));
        }
        Ok(Self {
            server,
            keys,
            packing: Mutex::default(),
            fails_to_pack: AtomicBool::new(false),
            is_cache: AtomicBool::new(false),
            received: Arc::default(),
            sent: AtomicU64::new(0),
        })
    }

    /// Where it is, for a person.
    pub fn url(&self) -> &Url {
        self.server.url()
    }

    /// Whose entries count, and how they are signed.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether a request failed because of the credentials.
    pub fn refuses_credentials(&self, failure: &Failure) -> bool {
        failure
            .status
            .is_some_and(|status| self.server.refuses_credentials(status))
    }

    /// Bytes of bodies that came and went, as they were on the wire.
    pub fn on_the_wire(&self) -> (u64, u64) {
        (
            self.received.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        )
    }

    /// What is under an entry's key.
    pub fn entry(&self, key: &str) -> Outcome<Lookup> {
        let found = self.server.get(&format!("ac/{key}"), JSON, false)?;
        self.read_entry(key, found)
    }

    fn read_entry(&self, key: &str, found: Option<Found>) -> Outcome<Lookup> {
        let Some(found) = found else {
            self.is_cache.store(true, Ordering::Relaxed);
            return Ok(Lookup::Missing);
        };
        let mut text = Vec::new();
        found
            .body
            .take(ENTRY_MAX)
            .read_to_end(&mut text)
            .map_err(|e| Failure::new(format!("an entry that is cut off: {e}")))?;
        self.received
            .fetch_add(text.len() as u64, Ordering::Relaxed);
        let Some(record) = decode(&text) else {
            // Whatever answers in a cache's place, as a captive portal does, has a page for every request.
            if !is_json(&text) && !self.is_cache.load(Ordering::Relaxed) {
                return Err(Failure::new("a page in place of an entry"));
            }
            return Ok(Lookup::Malformed);
        };
        self.is_cache.store(true, Ordering::Relaxed);
        let signatures = record.signatures.iter().map(String::as_str);
        if self.keys.verifies() && !self.keys.are_trusted(key, &record.entry, signatures) {
            return Ok(Lookup::Untrusted);
        }
        Ok(Lookup::Found(record))
    }

    /// Whether an entry is there that needs nothing from this machine. It is read, because one that is malformed, or that
    /// no trusted key has signed, must be replaced.
    pub fn has_entry(&self, key: &str) -> Outcome<bool> {
        let found = self.server.get_patiently(&format!("ac/{key}"), JSON)?;
        Ok(matches!(self.read_entry(key, found)?, Lookup::Found(_)))
    }

    /// An output's bytes, unpacked as they come: not checked, and maybe cut off. `None` when it is not there.
    pub fn output(&self, record: &Record) -> Outcome<Option<Box<dyn Read>>> {
        let Record {
            entry, is_packed, ..
        } = record;
        if *is_packed
            && let Some(found) = self.server.get(&packed_name(&entry.output), "*/*", false)?
        {
            return self.unpacked(found.body).map(Some);
        }
        let name = name(&entry.output);
        let mut may_pack = !self.fails_to_pack.load(Ordering::Relaxed);
        loop {
            let Some(found) = self.server.get(&name, "*/*", may_pack)? else {
                return Ok(None);
            };
            if !found.is_packed {
                return Ok(Some(Box::new(self.counted(found.body))));
            }
            // bazel-remote 2.1 to 2.3, where outputs are stored uncompressed: a 200, an encoding, and no byte.
            if found.length != Some(0) || entry.size == 0 {
                return self.unpacked(found.body).map(Some);
            }
            self.fails_to_pack.store(true, Ordering::Relaxed);
            may_pack = false;
        }
    }

    fn unpacked(&self, body: Box<dyn Read>) -> Outcome<Box<dyn Read>> {
        match Unpacked::new(self.counted(body)) {
            Ok(reader) => Ok(Box::new(reader)),
            Err(e) => Err(Failure::new(format!("zstd: {e}"))),
        }
    }

    fn counted(&self, body: Box<dyn Read>) -> Counted {
        Counted(body, Arc::clone(&self.received))
    }

    /// Sends an output, unless it is there already. `anew` sends it anyway.
    pub fn put_output(&self, entry: &Entry, file: &File, anew: bool) -> Outcome<Sent> {
        let unreadable = |e: io::Error| Failure {
            is_of_request: true,
            ..Failure::new(format!("the output cannot be read: {e}"))
        };
        let may_be_there = !anew && entry.size > SENT_UNASKED;
        let plain = name(&entry.output);
        let packing = self.packing()?;
        // It is asked for before it is packed, which takes longer.
        if may_be_there && packing != Packing::Named && self.server.head(&plain)? {
            return Ok(Sent::default());
        }
        let packed = match packing {
            Packing::Plain => None,
            _ => Packed::new(file, entry.size).map_err(unreadable)?,
        };
        let Some(packed) = packed else {
            if may_be_there && packing == Packing::Named && self.server.head(&plain)? {
                return Ok(Sent::default());
            }
            return self.put_plain(entry, file, anew);
        };
        let mut content = Content {
            kind: OCTETS,
            size: packed.size(),
            unpacked: None,
            keep: !anew,
        };
        let body = || packed.reader(file, entry.size);
        if packing == Packing::Encoded {
            content.unpacked = Some(entry.size);
            self.put(&plain, content, body)?;
            return Ok(Sent {
                bytes: Some(entry.size),
                is_packed: false,
            });
        }
        match self.put_named(&packed_name(&entry.output), content, may_be_there, body) {
            // A server that takes nothing but hashes as names, which an object store does not.
            Err(failure) if failure.status == Some(400) && !self.server.keeps_any_name() => {
                log::debug(|| format!("remote {}: no packed outputs there", self.url()));
                *lock(&self.packing) = Some(Packing::Plain);
                self.put_plain(entry, file, anew)
            }
            Err(failure) => Err(failure),
            Ok(was_sent) => Ok(Sent {
                bytes: was_sent.then_some(entry.size),
                is_packed: true,
            }),
        }
    }

    fn put_named<R: Read>(
        &self,
        name: &str,
        content: Content,
        may_be_there: bool,
        body: impl Fn() -> io::Result<R>,
    ) -> Outcome<bool> {
        if may_be_there && self.server.head(name)? {
            return Ok(false);
        }
        self.put(name, content, body).map(|()| true)
    }

    fn put_plain(&self, entry: &Entry, file: &File, anew: bool) -> Outcome<Sent> {
        let content = Content {
            kind: OCTETS,
            size: entry.size,
            unpacked: None,
            keep: !anew,
        };
        self.put(&name(&entry.output), content, || {
            let mut file = file;
            file.rewind()?;
            Ok(BufReader::with_capacity(READ_BUFFER, file).take(entry.size))
        })?;
        Ok(Sent {
            bytes: Some(entry.size),
            is_packed: false,
        })
    }

    /// Sends bytes as an output, as they are.
    pub fn put_bytes(&self, output: &OutputId, bytes: &[u8]) -> Outcome<()> {
        let content = Content {
            kind: OCTETS,
            size: bytes.len() as u64,
            unpacked: None,
            keep: true,
        };
        self.put(&name(output), content, || Ok(bytes))
    }

    /// Sends an entry, whose output must be there, signed if there is a key to sign with.
    pub fn put_entry(&self, key: &str, entry: &Entry, is_packed: bool) -> Outcome<()> {
        let record = Record {
            entry: *entry,
            is_packed,
            signatures: self.keys.sign(key, entry).into_iter().collect(),
        };
        let text = encode(&record);
        let content = Content {
            kind: JSON,
            size: text.len() as u64,
            unpacked: None,
            keep: false,
        };
        self.put(&format!("ac/{key}"), content, || Ok(&text[..]))
    }

    fn put<R: Read>(
        &self,
        name: &str,
        content: Content,
        body: impl Fn() -> io::Result<R>,
    ) -> Outcome<()> {
        self.server.put(name, content, body)?;
        self.sent.fetch_add(content.size, Ordering::Relaxed);
        Ok(())
    }

    /// How packed outputs are kept there, which one request shows.
    fn packing(&self) -> Outcome<Packing> {
        let mut known = lock(&self.packing);
        if let Some(packing) = *known {
            return Ok(packing);
        }
        let packs = !self.server.keeps_any_name()
            && self
                .server
                .get(EMPTY, "*/*", true)?
                .is_some_and(|found| found.is_packed);
        let packing = if packs {
            Packing::Encoded
        } else {
            Packing::Named
        };
        Ok(*known.insert(packing))
    }
}

/// The name of an output's own bytes.
fn name(output: &OutputId) -> String {
    format!("cas/{}", hex(&output.0))
}

/// The name of an output that was packed by whoever put it.
fn packed_name(output: &OutputId) -> String {
    format!("cas/{}.zst", hex(&output.0))
}

struct Counted(Box<dyn Read>, Arc<AtomicU64>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
