//! Which actions builds of one name have used, in the order in which they did, so that they are at hand before `go`
//! asks for them: from the remote in the store, and from the store in the build directory. A list is kept in
//! `CACHE/lists`, and on the remote, where machines share it.
//!
//! A list is only a hint: what it leads to is checked like anything else. So one that is damaged, or old, is none.

use crate::entry::{Entry, SIZE_MAX};
use crate::error::Result;
use crate::fs;
use crate::id::{ActionId, BuildId, ID_LEN, OutputId, hex, unhex};
use crate::log;
use crate::sync::lock;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// The most actions in a list: several times those of the largest programs.
pub const ACTIONS_MAX: usize = 1 << 15;

/// The most lists that are kept on this machine, each of some hundred KB.
const LISTS_MAX: usize = 200;

const HEAD: &[u8] = b"nix-gocacheprog list 1\n";

const RECORD: usize = ID_LEN + ID_LEN + 8 + 8;

/// What the name of a list on the remote is made from, and the version of what stands in it. Another version has other
/// names, so that no release ever reads what it does not understand.
const KEY: &[u8] = b"nix-gocacheprog remote 1: what builds of a name use\0";

/// The head of a list on the remote.
const ACTIONS_HEAD: &[u8] = b"nix-gocacheprog list 2\n";

/// The longest list, in bytes.
pub const LIST_MAX: u64 = (HEAD.len() + ACTIONS_MAX * RECORD) as u64;

/// An action that a build has used, and what it got or put.
pub type Use = (ActionId, Entry);

/// What an action of somebody else's list has, until it is used here. Nothing is ever served from a list.
const UNKNOWN: Entry = Entry {
    output: OutputId([0; ID_LEN]),
    size: 0,
    time: 0,
};

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

/// The file name of the list of this name and of its other versions. Earlier releases used it on the remote, too.
pub fn key(name: &str) -> String {
    hex(&ActionId::of(KEY, family(name).as_bytes()).0)
}

/// The actions of a list, as they are sent: which outputs they have is for their own entries to say.
pub fn encode_actions(used: &[Use]) -> Vec<u8> {
    let mut bytes = ACTIONS_HEAD.to_vec();
    for (action, _) in used.iter().take(ACTIONS_MAX) {
        bytes.extend_from_slice(&action.0);
    }
    bytes
}

/// Reads what `encode_actions` wrote; empty when it is anything else.
pub fn decode_actions(bytes: &[u8]) -> Vec<ActionId> {
    let (ids, _) = bytes
        .strip_prefix(ACTIONS_HEAD)
        .unwrap_or_default()
        .as_chunks::<ID_LEN>();
    ids.iter()
        .take(ACTIONS_MAX)
        .copied()
        .map(ActionId)
        .collect()
}

/// The list as it is kept.
pub fn encode(used: &[Use]) -> Vec<u8> {
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
pub fn decode(bytes: &[u8]) -> Vec<Use> {
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

/// The list after one more `go` command. When that one used a good part of what earlier builds have left there, the rest
/// is of no use any more; otherwise it was a small one, or one that failed, and comes first.
fn merge(used: Vec<Use>, list: Vec<Use>, of_same_build: bool) -> Vec<Use> {
    let mut seen: HashSet<ActionId> = HashSet::with_capacity(used.len());
    let mut merged: Vec<_> = used
        .into_iter()
        .filter(|(action, _)| seen.insert(*action))
        .collect();
    if of_same_build || merged.len() * 2 < list.len() {
        merged.extend(list.into_iter().filter(|(action, _)| seen.insert(*action)));
    }
    merged.truncate(ACTIONS_MAX);
    merged
}

/// The lists on this machine, each under the key that it has on the remote.
#[derive(Debug)]
pub struct UsageHistory {
    directory: PathBuf,
    /// The build that last changed each list. Held by whoever changes one.
    changed_by: Mutex<HashMap<String, BuildId>>,
    /// The keys of those that are to be sent, which stand in a file too.
    unsent: Mutex<BTreeSet<String>>,
    unsent_file: PathBuf,
}

impl UsageHistory {
    /// Those of a cache.
    ///
    /// # Errors
    /// When their directory cannot be made.
    pub fn open(cache: &Path) -> Result<Self> {
        let directory = cache.join("lists");
        fs::ensure_dir(&directory, 0o700)?;
        let unsent_file = directory.with_extension("unsent");
        let text = fs::read_to_string(&unsent_file).unwrap_or_default();
        let is_key = |line: &&str| unhex::<ID_LEN>(line.as_bytes()).is_some();
        Ok(Self {
            directory,
            changed_by: Mutex::default(),
            unsent: Mutex::new(text.lines().filter(is_key).map(String::from).collect()),
            unsent_file,
        })
    }

    /// The list under a key; empty when there is none.
    pub fn get(&self, key: &str) -> Vec<Use> {
        let mut bytes = Vec::new();
        let read = fs::open(&self.directory.join(key))
            .is_ok_and(|file| file.take(LIST_MAX).read_to_end(&mut bytes).is_ok());
        if read { decode(&bytes) } else { Vec::new() }
    }

    /// Whether there is a list under a key.
    pub fn has(&self, key: &str) -> bool {
        fs::metadata(&self.directory.join(key)).is_ok()
    }

    /// Adds what a `go` command of a build has used to the list of its name; says whether that changed what is in it.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn record(&self, key: &str, build: BuildId, used: Vec<Use>) -> Result<bool> {
        let mut changed_by = self.changed_by();
        let old = self.get(key);
        let new = merge(used, old.clone(), changed_by.get(key) == Some(&build));
        let actions = |list: &[Use]| {
            list.iter()
                .map(|(action, _)| *action)
                .collect::<HashSet<_>>()
        };
        // Nothing is written for the builds of a day that are all alike.
        let changes = actions(&old) != actions(&new);
        if changes {
            self.set(key, &new)?;
        }
        if changed_by.len() >= LISTS_MAX {
            changed_by.clear();
        }
        changed_by.insert(key.into(), build);
        Ok(changes)
    }

    /// Puts the actions of a list from elsewhere before those that are known here.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn adopt(&self, key: &str, actions: &[ActionId]) -> Result<()> {
        let _turn = self.changed_by();
        let here = self.get(key);
        let entries: HashMap<_, _> = here.iter().copied().collect();
        let theirs = actions.iter().map(|action| {
            let entry = entries.get(action).copied();
            (*action, entry.unwrap_or(UNKNOWN))
        });
        self.set(key, &merge(theirs.collect(), here.clone(), true))
    }

    /// Keeps a list, in place of the one that was not written to for longest when there are too many.
    ///
    /// # Errors
    /// When the disk refuses it.
    fn set(&self, key: &str, list: &[Use]) -> Result<()> {
        let path = self.directory.join(key);
        if fs::metadata(&path).is_err() {
            self.make_room()?;
        }
        fs::replace(&path, &encode(list), 0o600)
    }

    /// The keys of those that are to be sent.
    pub fn unsent(&self) -> Vec<String> {
        self.keys().iter().cloned().collect()
    }

    /// Notes that a list is to be sent, or is not any more.
    pub fn mark(&self, key: &str, is_unsent: bool) {
        let text = {
            let mut keys = self.keys();
            let is_new = if is_unsent {
                keys.insert(key.into())
            } else {
                keys.remove(key)
            };
            if !is_new {
                return;
            }
            keys.iter()
                .fold(String::new(), |text, key| text + key + "\n")
        };
        // At worst one is sent later, or once more.
        if let Err(e) = fs::replace(&self.unsent_file, text.as_bytes(), 0o600) {
            log::warn(e.chain());
        }
    }

    fn make_room(&self) -> Result<()> {
        let mut lists = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
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

    fn changed_by(&self) -> MutexGuard<'_, HashMap<String, BuildId>> {
        lock(&self.changed_by)
    }

    fn keys(&self) -> MutexGuard<'_, BTreeSet<String>> {
        lock(&self.unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn used(numbers: impl IntoIterator<Item = u32>) -> Vec<Use> {
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
    fn a_key_is_the_same_in_every_release() {
        assert_eq!(key("containerd-2.4.2"), key("containerd"));
        // Another release must find what this one has put on the remote.
        assert_eq!(
            key("containerd"),
            "678e20ea3565e76ef5b65e6a0d48c5d7425ee5046a40eda69456af431caac675"
        );
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
        assert_eq!(merge(used(50..100), used(0..100), false), used(50..100));
        let merged = merge(used([7, 200, 7]), used(0..10), false);
        assert_eq!(merged, used([7, 200, 0, 1, 2, 3, 4, 5, 6, 8, 9]));
        assert_eq!(merge(used(0..2), Vec::new(), false), used(0..2));
    }

    #[test]
    fn the_commands_of_one_build_share_a_list() {
        let dir = TestDir::new();
        let lists = UsageHistory::open(dir.path()).unwrap();
        let builds = [BuildId::new().unwrap(), BuildId::new().unwrap()];
        assert!(lists.record("x", builds[0], used(0..5)).unwrap());
        assert!(lists.record("x", builds[0], used(5..10)).unwrap());
        assert_eq!(lists.get("x").len(), 10);
        assert!(!lists.record("x", builds[0], used(0..10)).unwrap());
        assert!(lists.record("x", builds[1], used(2..12)).unwrap());
        assert_eq!(lists.get("x"), used(2..12));
    }

    #[test]
    fn the_number_of_lists_is_bounded() {
        let dir = TestDir::new();
        let lists = UsageHistory::open(dir.path()).unwrap();
        for n in 0..LISTS_MAX + 5 {
            lists.set(&n.to_string(), &used([3])).unwrap();
        }
        assert_eq!(
            std::fs::read_dir(&lists.directory).unwrap().count(),
            LISTS_MAX
        );
        assert_eq!(lists.get(&(LISTS_MAX + 4).to_string()), used([3]));
        assert_eq!(lists.get("never seen"), []);
    }

    #[test]
    fn what_is_to_be_sent_outlives_the_daemon() {
        let dir = TestDir::new();
        let lists = UsageHistory::open(dir.path()).unwrap();
        let keys = [1u8, 2].map(|n| hex(&[n; 32]));
        lists.mark(&keys[0], true);
        lists.mark(&keys[1], true);
        lists.mark(&keys[0], false);
        assert_eq!(
            UsageHistory::open(dir.path()).unwrap().unsent(),
            [keys[1].clone()]
        );
        std::fs::write(dir.path().join("lists.unsent"), "../../etc/passwd\n\0").unwrap();
        assert!(UsageHistory::open(dir.path()).unwrap().unsent().is_empty());
    }
}
