//! What is ready in a build directory before the build asks for it.
//!
//! Most builds are of something that was built before, and use what that build has used. To ask the daemon for each
//! output costs two wake-ups, and more than all that `go` does with it. So when a build is registered, what builds
//! of its name have used (`lists.rs`) is linked into its directory, and the client finds it there by itself.
//!
//! ```text
//! CACHE/builds/<build id>/ready         a head of 8 bytes, then sorted records: a tag (8), an entry (44)
//! CACHE/builds/<build id>/<24 digits>   hard links to the outputs
//! ```
//!
//! A build sees no more by this than by asking. The directory cannot be listed, and tag, name and the key that the entry is
//! sealed with all come from a hash of the action ID: whoever cannot name the action finds nothing, opens
//! nothing, and learns nothing of an entry. The client tells the daemon what it has found, for the counts and the lists.

use crate::builds::{BuildDir, Builds};
use crate::config::READY_WAITING_MAX;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, BuildId, hex};
use crate::lists::{self, ACTIONS_MAX, Lists, Used};
use crate::log;
use crate::store::{ENTRY_LEN, Entry, Store};
use sha2::{Digest, Sha512};
use std::collections::{HashSet, VecDeque};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

const FILE: &str = "ready";

const HEAD: &[u8; 8] = b"ready 1\n";

const TAG_LEN: usize = 8;

const RECORD: usize = TAG_LEN + ENTRY_LEN;

/// The longest file, in bytes.
const FILE_MAX: usize = HEAD.len() + ACTIONS_MAX * RECORD;

type Tag = [u8; TAG_LEN];

/// What only those can know who can name the action.
struct Secret([u8; 64]);

impl Secret {
    fn of(action: &ActionId) -> Self {
        let hash = Sha512::new()
            .chain_update(b"nix-gocacheprog: an action that is ready\0")
            .chain_update(action.0)
            .finalize();
        Self(hash.into())
    }

    /// By which its record is found.
    fn tag(&self) -> Tag {
        std::array::from_fn(|at| self.0[at])
    }

    /// The link's name: 96 bits that cannot be guessed.
    fn name(&self) -> String {
        hex(&self.0[TAG_LEN..64 - ENTRY_LEN])
    }

    /// Makes an entry unreadable, or readable again.
    fn seal(&self, entry: &[u8; ENTRY_LEN]) -> [u8; ENTRY_LEN] {
        std::array::from_fn(|at| entry[at] ^ self.0[64 - ENTRY_LEN + at])
    }
}

/// The builds for which something is to be made ready, and the thread that does so.
#[derive(Debug, Default)]
pub struct Preparations {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(BuildId, String)>,
    stopping: bool,
}

impl Preparations {
    /// A build has been registered: whatever its name's builds have used is made ready.
    pub fn begin(&self, lists: &Lists, build: BuildId, name: &str) {
        let key = lists::key(name);
        if name.is_empty() || !lists.has(&key) {
            return;
        }
        let mut state = self.state();
        // Whoever gets nothing asks the daemon, as ever.
        if state.waiting.len() < READY_WAITING_MAX {
            state.waiting.push_back((build, key));
            self.more.notify_one();
        }
    }

    /// Ends the thread soon.
    pub fn stop(&self) {
        self.state().stopping = true;
        self.more.notify_all();
    }

    /// The thread.
    pub fn run(&self, store: &Store, builds: &std::sync::Arc<Builds>, lists: &Lists) {
        while let Some((id, key)) = self.next() {
            // Entered, so that the directory stays meanwhile. A build that has ended needs nothing.
            let Ok(build) = builds.enter(id) else {
                continue;
            };
            match self.prepare(store, &build, &lists.get(&key)) {
                Ok(count) => {
                    log::debug(|| format!("{count} outputs are ready for build {}", id.short()));
                }
                // The build asks for what is missing.
                Err(e) => log::warn(format!("a build finds nothing ready: {}", e.chain())),
            }
        }
    }

    fn next(&self) -> Option<(BuildId, String)> {
        let mut state = self
            .more
            .wait_while(self.state(), |s| s.waiting.is_empty() && !s.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.stopping).then(|| state.waiting.pop_front())?
    }

    fn prepare(&self, store: &Store, build: &BuildDir, list: &[Used]) -> Result<usize> {
        let mut records = Vec::new();
        for (action, _) in list {
            if self.state().stopping {
                return Ok(0);
            }
            let Some(entry) = store.get(action)? else {
                continue;
            };
            let secret = Secret::of(action);
            if store.link(action, &entry, &build.path().join(secret.name()))? {
                let mut record = [0; RECORD];
                record[..TAG_LEN].copy_from_slice(&secret.tag());
                record[TAG_LEN..].copy_from_slice(&secret.seal(&entry.to_bytes()));
                records.push(record);
            }
        }
        records.sort_unstable();
        let mut bytes = HEAD.to_vec();
        bytes.extend(records.iter().flatten());
        // It appears as a whole.
        let fresh = build.path().join("ready.new");
        let file = fs::create_new(&fresh, 0o444)?;
        fs::write_all(&file, &fresh, &bytes)?;
        fs::rename(&fresh, &build.path().join(FILE))?;
        Ok(records.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client finds ready in its build's directory.
#[derive(Debug)]
pub struct Ready {
    directory: PathBuf,
    /// The records; none until the file is there.
    records: Option<Vec<u8>>,
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
            self.records = read(&self.directory.join(FILE)).ok();
        }
        let records = self.records.as_deref()?;
        let secret = Secret::of(action);
        let tag = secret.tag();
        let record = find(records, &tag)?;
        if self.outdated.contains(&tag) {
            return None;
        }
        let entry = Entry::from_bytes(&secret.seal(record[TAG_LEN..].try_into().ok()?))?;
        let path = self.directory.join(secret.name());
        // Whatever is wrong with it, the daemon is asked.
        let length = std::fs::metadata(&path).ok()?.len();
        (length == entry.size).then_some((entry, path))
    }

    /// The build has put this action: what was ready is not the last word any more.
    pub fn forget(&mut self, action: &ActionId) {
        let Some(records) = &self.records else { return };
        let tag = Secret::of(action).tag();
        if find(records, &tag).is_some() {
            self.outdated.insert(tag);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read", path, e))?;
    match bytes.strip_prefix(HEAD) {
        Some(records) => Ok(records.to_vec()),
        // Another release's: nothing is ready for this one.
        None => Ok(Vec::new()),
    }
}

/// The record with this tag.
fn find<'a>(records: &'a [u8], tag: &Tag) -> Option<&'a [u8]> {
    let (mut from, mut to) = (0, records.len() / RECORD);
    while from < to {
        let middle = (from + to) / 2;
        let record = &records[middle * RECORD..][..RECORD];
        match record[..TAG_LEN].cmp(tag) {
            std::cmp::Ordering::Less => from = middle + 1,
            std::cmp::Ordering::Equal => return Some(record),
            std::cmp::Ordering::Greater => to = middle,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OutputId;
    use crate::test_dir::TestDir;
    use sha2::Sha256;
    use std::sync::Arc;

    struct Made {
        dir: TestDir,
        store: Store,
        builds: Arc<Builds>,
        lists: Lists,
    }

    fn action(n: u8) -> ActionId {
        ActionId([n; 32])
    }

    impl Made {
        /// A cache with so many actions, which a build of the name `x` has used.
        fn new(actions: u8) -> Self {
            let dir = TestDir::new();
            let store = Store::open(dir.path()).unwrap();
            let builds = Arc::new(Builds::open(dir.path()).unwrap());
            let lists = Lists::open(dir.path()).unwrap();
            let used = (0..actions).map(|n| {
                let body = [n; 100];
                let output = OutputId(Sha256::digest(body).into());
                let entry = store.put(&action(n), &output, 100, &mut &body[..]);
                (action(n), entry.unwrap())
            });
            let used = used.collect();
            let build = BuildId::new().unwrap();
            lists.record(&lists::key("x"), build, used).unwrap();
            Self {
                dir,
                store,
                builds,
                lists,
            }
        }

        fn build(&self, name: &str) -> (Ready, BuildDir) {
            let id = self.builds.register(name, None, None).unwrap();
            let build = self.builds.enter(id).unwrap();
            let preparations = Preparations::default();
            preparations.begin(&self.lists, id, name);
            let begun = preparations.state().waiting.pop_front();
            if let Some((_, key)) = begun {
                let list = self.lists.get(&key);
                preparations.prepare(&self.store, &build, &list).unwrap();
            }
            (Ready::new(build.path()), build)
        }
    }

    #[test]
    fn what_builds_of_the_name_have_used_is_found_by_who_can_name_it() {
        let made = Made::new(200);
        let (mut ready, build) = made.build("x-2.0");
        for n in 0..200 {
            let (entry, path) = ready.find(&action(n)).unwrap();
            assert_eq!(Some(entry), made.store.get(&action(n)).unwrap());
            assert_eq!(std::fs::read(path).unwrap(), [n; 100]);
        }
        assert_eq!(ready.find(&action(201)), None);
        let bytes = std::fs::read(build.path().join(FILE)).unwrap();
        for n in 0..200 {
            let output = Sha256::digest([n; 100]);
            let contains = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            assert!(!contains(&output[..8]), "no output's ID can be read");
            assert!(!contains(&action(n).0[..8]));
        }
        drop(made.dir);
    }

    #[test]
    fn what_was_put_since_or_is_damaged_has_to_be_asked_for() {
        let made = Made::new(3);
        let (mut ready, build) = made.build("x");
        assert!(ready.find(&action(0)).is_some());
        ready.forget(&action(0));
        assert_eq!(ready.find(&action(0)), None);
        std::fs::remove_file(build.path().join(Secret::of(&action(1)).name())).unwrap();
        assert_eq!(ready.find(&action(1)), None);
        assert!(ready.find(&action(2)).is_some());
    }

    #[test]
    fn nothing_is_ready_for_a_name_that_is_not_known_or_in_a_file_of_another_release() {
        let made = Made::new(3);
        let (mut ready, build) = made.build("y");
        assert_eq!(ready.find(&action(0)), None);
        std::fs::write(build.path().join(FILE), "ready 2\nwhatever").unwrap();
        ready.look_in = 0;
        assert_eq!(ready.find(&action(0)), None);
    }
}
