//! What is ready in a build directory before the build asks for it: how it is written there, and how a client finds it.
//!
//! Most builds are of something that was built before, and use what that build has used. To ask the daemon for each
//! output costs two wake-ups, and more than all that `go` does with it. So when a build is registered, what builds
//! of its name have used is linked into its directory (`preparations.rs`), and the client finds it there by itself.
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
//! The links are checked as they are made, and never change. They go only together with the directory, and after the file
//! that names them: as long as that is there, they are.

use crate::error::{Error, Result};
use crate::id::{ActionId, hex_path};
use crate::lists::ACTIONS_MAX;
use crate::store::{ENTRY_LEN, Entry};
use sha2::{Digest, Sha512};
use std::collections::HashSet;
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

/// Of which a record's first bytes are the big-endian form: records are sorted by it.
type Tag = u64;

/// What only those can know who can name the action.
pub struct Secret([u8; 64]);

impl Secret {
    /// An action's.
    pub fn of(action: &ActionId) -> Self {
        let hash = Sha512::new()
            .chain_update(b"nix-gocacheprog: an action that is ready\0")
            .chain_update(action.0)
            .finalize();
        Self(hash.into())
    }

    /// By which its record is found.
    fn tag(&self) -> Tag {
        tag(&self.0)
    }

    /// The link in a build directory: the name is 96 bits that cannot be guessed.
    pub fn path(&self, directory: &Path) -> PathBuf {
        hex_path(directory, &self.0[TAG_LEN..64 - ENTRY_LEN])
    }

    /// Makes an entry unreadable, or readable again.
    fn seal(&self, entry: &[u8; ENTRY_LEN]) -> [u8; ENTRY_LEN] {
        std::array::from_fn(|at| entry[at] ^ self.0[64 - ENTRY_LEN + at])
    }
}

/// What the file says.
#[derive(Debug, Default)]
pub struct Records(Vec<u8>);

impl Records {
    /// The file's bytes for what is ready.
    pub fn encode(ready: &[(Secret, Entry)]) -> Vec<u8> {
        let record = |(secret, entry): &(Secret, Entry)| {
            let mut record = [0; RECORD];
            record[..TAG_LEN].copy_from_slice(&secret.tag().to_be_bytes());
            record[TAG_LEN..].copy_from_slice(&secret.seal(&entry.to_bytes()));
            record
        };
        let mut records: Vec<_> = ready.iter().map(record).collect();
        records.sort_unstable();
        let mut bytes = HEAD.to_vec();
        bytes.extend(records.iter().flatten());
        bytes
    }

    /// Takes the file's bytes. Those of another release say nothing.
    pub fn decode(bytes: &[u8]) -> Self {
        Self(bytes.strip_prefix(HEAD).unwrap_or_default().to_vec())
    }

    fn read(path: &Path) -> Result<(File, Self)> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let mut bytes = Vec::new();
        (&file)
            .take(FILE_MAX as u64)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("read", path, e))?;
        Ok((file, Self::decode(&bytes)))
    }

    /// The entry of the action with this secret, if it is ready.
    pub fn entry(&self, secret: &Secret) -> Option<Entry> {
        let record = self.record(secret.tag())?;
        Entry::from_bytes(&secret.seal(record[TAG_LEN..].try_into().ok()?))
    }

    fn record(&self, wanted: Tag) -> Option<&[u8]> {
        let (mut from, mut to) = (0, self.0.len() / RECORD);
        while from < to {
            let middle = (from + to) / 2;
            let record = &self.0[middle * RECORD..][..RECORD];
            match tag(record).cmp(&wanted) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Some(record),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }
}

fn tag(bytes: &[u8]) -> Tag {
    Tag::from_be_bytes(std::array::from_fn(|at| bytes[at]))
}

/// What a client finds ready in its build's directory.
#[derive(Debug)]
pub struct Ready {
    directory: PathBuf,
    /// The file and what it says; none until it is there.
    records: Option<(File, Records)>,
    /// Gets until the file is looked for again.
    look_in: u32,
    /// What the build itself has put since.
    outdated: HashSet<Tag>,
}

/// While the file is not there, it is looked for at every so many gets.
const LOOK_EVERY: u32 = 32;

impl Ready {
    /// In this directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
            records: None,
            look_in: 0,
            outdated: HashSet::new(),
        }
    }

    /// An action's entry, and the file that has its output; `None` when it has to be asked for.
    pub fn find(&mut self, action: &ActionId) -> Option<(Entry, PathBuf)> {
        if self.records.is_none() {
            if self.look_in > 0 {
                self.look_in -= 1;
                return None;
            }
            self.look_in = LOOK_EVERY;
            self.records = Records::read(&self.directory.join(FILE)).ok();
        }
        let (file, records) = self.records.as_ref()?;
        let secret = Secret::of(action);
        let entry = records.entry(&secret)?;
        if self.outdated.contains(&secret.tag()) {
            return None;
        }
        // Half as long as to look at the output, which `go` does anyway.
        let is_there = file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        is_there.then(|| (entry, secret.path(&self.directory)))
    }

    /// The build has put this action: what was ready is not the last word any more.
    pub fn forget(&mut self, action: &ActionId) {
        let Some((_, records)) = &self.records else {
            return;
        };
        let tag = Secret::of(action).tag();
        if records.record(tag).is_some() {
            self.outdated.insert(tag);
        }
    }

    /// Looks for the file at the next get.
    #[cfg(test)]
    pub fn look_again(&mut self) {
        self.look_in = 0;
    }
}
