//! What is ready in a build directory before the build asks for it: how it is written there, and how a client finds it.
//!
//! Most builds are of something that was built before, and use what that build has used. To ask the daemon for each
//! output costs two wake-ups, and more than all that `go` does with it. So when a build is registered, what builds
//! of its name have used is linked into its directory (`prefetch.rs`), and the client finds it there by itself.
//!
//! ```text
//! CACHE/builds/<build id>/ready         a head of 8 bytes, then sorted records: a tag (8), an entry (44)
//! CACHE/builds/<build id>/<24 digits>   hard links to the outputs
//! ```
//!
//! A build sees no more by this than by asking. The directory cannot be listed, and tag, name and the key that the entry is
//! sealed with all come from a hash of the action ID: whoever cannot name the action finds nothing, opens
//! nothing, and learns nothing of an entry. The client tells the daemon what it has found, for the counts and the lists.
//!
//! The links are checked as they are made, never change, and stay as long as the build has a session. When they go, the file
//! that names them goes first.

use crate::cache::history::ACTIONS_MAX;
use crate::entry::{ENTRY_LEN, Entry};
use crate::error::{Error, Result};
use crate::id::{ActionId, hex, hex_path};
use ring::digest::{Context, SHA512};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file's name in the build directory.
pub const FILE: &str = "ready";

const HEAD: &[u8; 8] = b"ready 1\n";

const TAG_LEN: usize = 8;

const RECORD: usize = TAG_LEN + ENTRY_LEN;

/// The longest file, in bytes.
const FILE_MAX: usize = HEAD.len() + ACTIONS_MAX * RECORD;

type Tag = [u8; TAG_LEN];

/// What only those can know who can name the action.
pub struct Secret([u8; 64]);

impl Secret {
    /// An action's.
    pub fn of(action: &ActionId) -> Self {
        let mut hash = Context::new(&SHA512);
        hash.update(b"nix-gocacheprog: an action that is ready\0");
        hash.update(&action.0);
        let hash = hash.finish();
        Self(std::array::from_fn(|at| hash.as_ref()[at]))
    }

    /// By which its record is found.
    fn tag(&self) -> Tag {
        std::array::from_fn(|at| self.0[at])
    }

    /// The name of the link in a build directory: 96 bits that cannot be guessed.
    pub fn name(&self) -> String {
        hex(self.name_bytes())
    }

    /// The path of that link.
    pub fn path(&self, directory: &Path) -> PathBuf {
        hex_path(directory, self.name_bytes())
    }

    fn name_bytes(&self) -> &[u8] {
        &self.0[TAG_LEN..64 - ENTRY_LEN]
    }

    /// Makes an entry unreadable, or readable again.
    fn seal(&self, entry: &[u8; ENTRY_LEN]) -> [u8; ENTRY_LEN] {
        std::array::from_fn(|at| entry[at] ^ self.0[64 - ENTRY_LEN + at])
    }
}

/// What the file says: sealed entries.
#[derive(Debug, Default)]
pub struct Records(HashMap<Tag, [u8; ENTRY_LEN]>);

impl Records {
    /// The file's bytes for what is ready.
    pub fn encode(ready: &[(Secret, Entry)]) -> Vec<u8> {
        let record = |(secret, entry): &(Secret, Entry)| {
            let mut record = [0; RECORD];
            record[..TAG_LEN].copy_from_slice(&secret.tag());
            record[TAG_LEN..].copy_from_slice(&secret.seal(&entry.to_bytes()));
            record
        };
        let mut records: Vec<_> = ready.iter().map(record).collect();
        // Their order says nothing of who used what when.
        records.sort_unstable();
        let mut bytes = HEAD.to_vec();
        bytes.extend(records.iter().flatten());
        bytes
    }

    /// Takes the file's bytes. Those of another release say nothing.
    pub fn decode(bytes: &[u8]) -> Self {
        let records = bytes.strip_prefix(HEAD).unwrap_or_default();
        // To grow would take as long again as all the rest.
        let mut found = HashMap::with_capacity(records.len() / RECORD);
        for record in records.chunks_exact(RECORD) {
            let (tag, entry) = record.split_at(TAG_LEN);
            if let (Ok(tag), Ok(entry)) = (Tag::try_from(tag), entry.try_into()) {
                found.insert(tag, entry);
            }
        }
        Self(found)
    }

    fn read(file: &File, path: &Path) -> Result<Self> {
        let failed = |e| Error::io("read", path, e);
        let size = file.metadata().map_err(failed)?.len() as usize;
        let mut bytes = Vec::with_capacity(size.min(FILE_MAX));
        file.take(FILE_MAX as u64)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(Self::decode(&bytes))
    }

    /// The entry of the action with this secret, if it is ready.
    pub fn entry(&self, secret: &Secret) -> Option<Entry> {
        Entry::from_bytes(&secret.seal(self.0.get(&secret.tag())?))
    }
}

/// What a client finds ready in its build's directory.
#[derive(Debug)]
pub struct Prefetched {
    directory: PathBuf,
    /// The file and what it says; none until it is there.
    records: Option<(File, Records)>,
    /// Gets until the file is looked for again.
    look_in: u32,
}

/// While the file is not there, it is looked for at every so many gets.
const LOOK_EVERY: u32 = 32;

impl Prefetched {
    /// In this directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
            records: None,
            look_in: 0,
        }
    }

    /// An action's entry, and the file that has its output; `None` when it has to be asked for. This holds
    /// as long as the build has a session.
    pub fn find(&mut self, action: &ActionId) -> Option<(Entry, PathBuf)> {
        let records = self.records()?;
        let secret = Secret::of(action);
        let entry = records.entry(&secret)?;
        Some((entry, secret.path(&self.directory)))
    }

    /// Whether what is found is there still, for a build that has no session any more.
    pub fn is_there(&self) -> bool {
        let linked = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        self.records.as_ref().is_none_or(|(file, _)| linked(file))
    }

    /// The build has put this action: what was ready is not the last word any more.
    pub fn forget(&mut self, action: &ActionId) {
        if let Some((_, records)) = &mut self.records {
            records.0.remove(&Secret::of(action).tag());
        }
    }

    fn records(&mut self) -> Option<&Records> {
        if self.records.is_none() {
            if self.look_in > 0 {
                self.look_in -= 1;
                return None;
            }
            self.look_in = LOOK_EVERY;
            let path = self.directory.join(FILE);
            let file = File::open(&path).ok()?;
            let records = Records::read(&file, &path).ok()?;
            self.records = Some((file, records));
        }
        self.records.as_ref().map(|(_, records)| records)
    }

    /// Looks for the file at the next get.
    #[cfg(test)]
    pub fn look_again(&mut self) {
        self.look_in = 0;
    }
}
