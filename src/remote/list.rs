//! Which actions builds of one name have used, in the order in which they did, so that they can be fetched before `go`
//! asks for them. A list is kept in `CACHE/remote/lists`, and on the remote, where machines share it.
//!
//! A list is only a hint: what it leads to is checked like anything else from the remote. So one that is
//! damaged, or old, is none.

use super::result::list_key;
use crate::error::Result;
use crate::fs;
use crate::id::{ActionId, ID_LEN, OutputId};
use crate::store::{Entry, SIZE_MAX};
use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most actions in a list: several times those of the largest programs.
pub const ACTIONS_MAX: usize = 1 << 15;

/// The most lists that are kept on this machine, each of some hundred KB.
const LISTS_MAX: usize = 200;

const HEAD: &[u8] = b"nix-gocacheprog list 1\n";

const RECORD: usize = ID_LEN + ID_LEN + 8 + 8;

/// The longest list, in bytes.
pub const LIST_MAX: u64 = (HEAD.len() + ACTIONS_MAX * RECORD) as u64;

/// An action that a build has used, and what it got or put.
pub type Used = (ActionId, Entry);

/// What a derivation's name has in common with those of its other versions: the words that do not begin with a digit.
/// One version uses most of what the next one does.
pub fn family(name: &str) -> String {
    let words = name.split('-');
    let kept: Vec<_> = words
        .enumerate()
        .filter(|(n, word)| *n == 0 || !word.starts_with(|c: char| c.is_ascii_digit()))
        .map(|(_, word)| word)
        .collect();
    kept.join("-")
}

/// The list as it is kept and sent.
pub fn encode(used: &[Used]) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    for (action, entry) in used.iter().take(ACTIONS_MAX) {
        bytes.extend_from_slice(&action.0);
        bytes.extend_from_slice(&entry.output.0);
        bytes.extend_from_slice(&entry.size.to_le_bytes());
        bytes.extend_from_slice(&entry.time.to_le_bytes());
    }
    bytes
}

/// Reads what `encode` wrote; empty when it is anything else.
pub fn decode(bytes: &[u8]) -> Vec<Used> {
    let Some(records) = bytes.strip_prefix(HEAD) else {
        return Vec::new();
    };
    let read = |record: &[u8]| {
        let (action, rest) = record.split_first_chunk::<ID_LEN>()?;
        let (output, rest) = rest.split_first_chunk::<ID_LEN>()?;
        let (size, time) = rest.split_first_chunk::<8>()?;
        let entry = Entry {
            output: OutputId(*output),
            size: Some(u64::from_le_bytes(*size)).filter(|size| *size <= SIZE_MAX)?,
            time: i64::from_le_bytes(time.try_into().ok()?).max(0),
        };
        Some((ActionId(*action), entry))
    };
    records
        .chunks_exact(RECORD)
        .map_while(read)
        .take(ACTIONS_MAX)
        .collect()
}

/// The list after one more `go` command. When that one used a good part of what the list has, the rest is of no use
/// any more; otherwise it was a small one, or one that failed, and comes first.
pub fn merge(used: Vec<Used>, list: Vec<Used>) -> Vec<Used> {
    let mut seen: HashSet<ActionId> = HashSet::with_capacity(used.len());
    let mut merged: Vec<_> = used
        .into_iter()
        .filter(|(action, _)| seen.insert(*action))
        .collect();
    if merged.len() * 2 < list.len() {
        merged.extend(list.into_iter().filter(|(action, _)| seen.insert(*action)));
    }
    merged.truncate(ACTIONS_MAX);
    merged
}

/// The lists on this machine.
#[derive(Debug)]
pub struct Lists(PathBuf);

impl Lists {
    /// Those in a directory, which is made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path) -> Result<Self> {
        fs::ensure_dir(directory, 0o700)?;
        Ok(Self(directory.into()))
    }

    /// The list for a family of names; empty when there is none.
    pub fn get(&self, family: &str) -> Vec<Used> {
        let mut bytes = Vec::new();
        let read = fs::open(&self.path(family))
            .is_ok_and(|file| file.take(LIST_MAX).read_to_end(&mut bytes).is_ok());
        if read { decode(&bytes) } else { Vec::new() }
    }

    /// Keeps a list, in place of the one that was not written to for longest when there are too many.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn set(&self, family: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(family);
        if fs::metadata(&path).is_err() {
            self.make_room()?;
        }
        fs::replace(&path, bytes, 0o600)
    }

    fn make_room(&self) -> Result<()> {
        let mut lists = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let written = fs::metadata(&path).ok().and_then(|m| m.modified().ok());
            lists.push((written, path));
        }
        lists.sort();
        let over = (lists.len() + 1).saturating_sub(LISTS_MAX);
        lists
            .iter()
            .take(over)
            .try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn path(&self, family: &str) -> PathBuf {
        // Names hold what no file name can.
        let key = list_key(family);
        self.0.join(&key[..32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn used(numbers: impl IntoIterator<Item = u32>) -> Vec<Used> {
        numbers
            .into_iter()
            .map(|n| {
                let entry = Entry {
                    output: OutputId([n as u8; 32]),
                    size: u64::from(n),
                    time: 1000,
                };
                (ActionId::of(b"test", &n.to_le_bytes()), entry)
            })
            .collect()
    }

    #[test]
    fn versions_of_a_program_are_a_family() {
        for (name, expected) in [
            ("containerd-2.4.2", "containerd"),
            ("containerd-2.4.2-go-modules", "containerd-go-modules"),
            ("foo-unstable-2025-11-25", "foo-unstable"),
            ("foo-0-unstable-2024-01-01", "foo-unstable"),
            ("7zip-2.0", "7zip"),
            ("x", "x"),
            ("", ""),
        ] {
            assert_eq!(family(name), expected, "{name}");
        }
    }

    #[test]
    fn a_list_reads_back_and_anything_else_is_none() {
        let list = used(0..100);
        let bytes = encode(&list);
        assert_eq!(decode(&bytes), list);
        assert_eq!(decode(&bytes[..bytes.len() - 1]), list[..99]);
        assert_eq!(decode(b""), []);
        assert_eq!(decode(&bytes[1..]), []);
        assert!(encode(&used(0..ACTIONS_MAX as u32 + 9)).len() as u64 == LIST_MAX);
    }

    #[test]
    fn a_whole_build_replaces_the_list_and_a_small_one_adds_to_it() {
        assert_eq!(merge(used(50..100), used(0..100)), used(50..100));
        let merged = merge(used([7, 200, 7]), used(0..10));
        assert_eq!(merged, used([7, 200, 0, 1, 2, 3, 4, 5, 6, 8, 9]));
        assert_eq!(merge(used(0..2), Vec::new()), used(0..2));
    }

    #[test]
    fn the_number_of_lists_is_bounded() {
        let dir = TestDir::new();
        let lists = Lists::open(&dir.path().join("lists")).unwrap();
        for n in 0..LISTS_MAX + 5 {
            lists.set(&n.to_string(), &encode(&used([3]))).unwrap();
        }
        assert_eq!(std::fs::read_dir(&lists.0).unwrap().count(), LISTS_MAX);
        assert_eq!(lists.get(&(LISTS_MAX + 4).to_string()), used([3]));
        assert_eq!(lists.get("never seen"), []);
    }
}
