//! What was found in a tree, for the next `go` command of the same build.
//!
//! A folder in the build's own directory, with a file for each question: what was found, and which paths that depends
//! on, with a hash over all that says whether one of them has changed since. ctime is among it, which nobody can set. (A
//! write through a mapping that was there before moves no ctime while its page stays dirty. Nothing in a build keeps a
//! source file mapped for writing from one `go` command to the next.) A folder that somebody else could write is not used.

use crate::error::{Error, Result};
use crate::fs;
use crate::sha256::Sha256;
use crate::sys;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The version of a file.
const VERSION: u8 = 5;

/// On another file system than the memory's own, whose clock may be another one, a file whose last change is younger than
/// this may change again without another ctime, in nanoseconds …
const YOUNG: i128 = 200_000_000;

/// … and where times are whole seconds, or every other one.
const YOUNG_BY_SECONDS: i128 = 2_000_000_000;

/// How long a new moment is waited for: no clock of a file system ticks more slowly than 100 times a second, but those that
/// have whole seconds, which are not waited for.
const TICK_MAX: Duration = Duration::from_millis(40);

/// A folder of what was found.
#[derive(Debug)]
pub struct Memory(PathBuf);

/// A moment, by the clock of the memory's file system: whatever changes from now on has this ctime or a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Nanoseconds since 1970.
    time: i128,
    device: u64,
}

impl Memory {
    /// That of a build whose own directory this is; `None` where there can be none.
    pub fn of(build_top: &Path) -> Option<Self> {
        let path = build_top.join(".nix-gocacheprog-source");
        match std::fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(_) => fs::create_dir(&path, 0o700).ok()?,
        }
        let found = std::fs::symlink_metadata(&path).ok()?;
        let is_ours =
            found.is_dir() && found.uid() == sys::effective_uid() && found.mode() & 0o077 == 0;
        is_ours.then_some(Self(path))
    }

    fn path(&self, question: &[u8; 32]) -> PathBuf {
        let hex: String = question.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.join(hex)
    }

    /// Now, as the file system sees it.
    ///
    /// # Errors
    /// When the disk refuses a file.
    pub fn now(&self) -> Result<Moment> {
        // Another command may do the same at this moment.
        let path = self.0.join(format!("now-{}", std::process::id()));
        fs::remove_file(&path)?;
        drop(fs::create_new(&path, 0o600)?);
        let found = fs::symlink_metadata(&path)?;
        fs::remove_file(&path)?;
        Ok(Moment {
            time: changed(&found),
            device: found.dev(),
        })
    }

    /// A moment that is later than all changes so far, for which this waits.
    ///
    /// # Errors
    /// As [`Self::now`].
    pub fn later(&self) -> Result<Moment> {
        let (first, step) = (self.now()?, Duration::from_millis(1));
        let mut waited = Duration::ZERO;
        let mut now = first;
        while now <= first && waited < TICK_MAX {
            std::thread::sleep(step);
            waited += step;
            now = self.now()?;
        }
        Ok(now)
    }

    /// What was found, if all that it depends on is as it was.
    pub fn get<T: DeserializeOwned>(&self, question: &[u8; 32]) -> Option<T> {
        let bytes = std::fs::read(self.path(question)).ok()?;
        let (rest, hash) = bytes.split_last_chunk::<32>()?;
        if Sha256::digest(rest) != *hash {
            return None;
        }
        let rest = rest.strip_prefix(&[VERSION])?;
        let (state, rest) = rest.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (paths, found) =
            rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let mut look = Look::new(None);
        for path in paths
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
        {
            look.add(Path::new(OsStr::from_bytes(path)));
        }
        match look.hash.finalize() == *state {
            true => serde_json::from_slice(found).ok(),
            false => None,
        }
    }

    /// Remembers what was found since a moment, unless something that it depends on has changed since, or could have without
    /// its ctime telling.
    ///
    /// # Errors
    /// When the disk refuses it. Nothing is remembered then.
    pub fn put(
        &self,
        question: &[u8; 32],
        since: Moment,
        depends: &BTreeSet<PathBuf>,
        found: &impl Serialize,
    ) -> Result<()> {
        let mut look = Look::new(Some(since));
        let mut paths = Vec::new();
        for path in depends {
            look.add(path);
            paths.extend_from_slice(path.as_os_str().as_bytes());
            paths.push(0);
        }
        if !look.is_settled {
            return Ok(());
        }
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&look.hash.finalize());
        bytes.extend_from_slice(&(paths.len() as u64).to_le_bytes());
        bytes.append(&mut paths);
        serde_json::to_writer(&mut bytes, found).map_err(|e| Error::input(e.to_string()))?;
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        let path = self.path(question);
        let fresh = path.with_extension(std::process::id().to_string());
        fs::remove_file(&fresh)?;
        let file = fs::create_new(&fresh, 0o600)?;
        let done = fs::write_all(&file, &fresh, &bytes).and_then(|()| fs::rename(&fresh, &path));
        if done.is_err() {
            // The first error says more than a second one.
            let _ = fs::remove_file(&fresh);
        }
        done
    }
}

/// A look at paths, as they are now.
struct Look {
    /// Over all that says whether one has changed.
    hash: Sha256,
    /// None can have changed without a trace since this moment.
    since: Option<Moment>,
    is_settled: bool,
}

impl Look {
    fn new(since: Option<Moment>) -> Self {
        Self {
            hash: Sha256::new_with_prefix("nix-gocacheprog: the state of paths\0"),
            since,
            is_settled: true,
        }
    }

    /// Of a link, where it leads counts too. That nothing is there is a state as well.
    fn add(&mut self, path: &Path) {
        let name = path.as_os_str().as_bytes();
        self.hash.update((name.len() as u64).to_le_bytes());
        self.hash.update(name);
        let Ok(found) = path.symlink_metadata() else {
            self.hash.update([0]);
            return;
        };
        self.note(&found);
        if found.is_symlink() {
            match path.metadata() {
                Ok(found) => self.note(&found),
                Err(_) => self.hash.update([0]),
            }
        }
    }

    fn note(&mut self, found: &Metadata) {
        if let Some(since) = self.since {
            let margin = match (found.dev() == since.device, found.ctime_nsec()) {
                (true, _) => 0,
                (false, 0) => YOUNG_BY_SECONDS,
                (false, _) => YOUNG,
            };
            self.is_settled &= changed(found) < since.time - margin;
        }
        let mut numbers = [0; 8 * 8];
        let all = [
            found.dev(),
            found.ino(),
            found.size(),
            u64::from(found.mode()),
            found.mtime() as u64,
            found.mtime_nsec() as u64,
            found.ctime() as u64,
            found.ctime_nsec() as u64,
        ];
        for (bytes, number) in numbers.chunks_exact_mut(8).zip(all) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        self.hash.update([1]);
        self.hash.update(numbers);
    }
}

/// When its inode was last changed, in nanoseconds since 1970.
fn changed(found: &Metadata) -> i128 {
    i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::source_tree::Inputs;
    use crate::test_dir::TestDir;
    use std::os::unix::fs::symlink;

    fn inputs() -> Inputs {
        Inputs {
            digest: [7; 32],
            has_c: true,
            said: vec![("v.h".into(), "#01234567".into())],
        }
    }

    fn nothing() -> BTreeSet<PathBuf> {
        BTreeSet::new()
    }

    fn get(memory: &Memory, question: u8) -> Option<Inputs> {
        memory.get(&[question; 32])
    }

    #[test]
    fn what_was_found_is_found_again_and_a_damaged_file_is_not() {
        let dir = TestDir::new();
        let memory = Memory::of(dir.path()).unwrap();
        assert_eq!(get(&memory, 1), None);
        let now = memory.now().unwrap();
        for _ in 0..2 {
            memory.put(&[1; 32], now, &nothing(), &inputs()).unwrap();
        }
        let memory = Memory::of(dir.path()).unwrap();
        assert_eq!(get(&memory, 1), Some(inputs()));
        assert_eq!(get(&memory, 2), None);
        let path = memory.path(&[1; 32]);
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 1, 35, 45, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(get(&memory, 1), None);
        }
        for at in [0, 40, bytes.len() - 40, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(get(&memory, 1), None);
        }
    }

    #[test]
    fn it_is_forgotten_with_whatever_it_depends_on() {
        let dir = TestDir::new();
        let memory = Memory::of(dir.path()).unwrap();
        let tree = dir.path().join("tree");
        let path = |name: &str| tree.join(name);
        std::fs::create_dir_all(path("folder")).unwrap();
        for name in ["file", "other", "folder/x"] {
            std::fs::write(path(name), "1").unwrap();
        }
        symlink("file", path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        let depends: BTreeSet<_> = ["file", "folder", "link", "dangling", "missing"]
            .map(path)
            .into();
        let change: [(&str, &dyn Fn()); 8] = [
            ("file", &|| std::fs::write(path("file"), "2").unwrap()),
            ("mode", &|| fs::set_mode(&path("file"), 0o600).unwrap()),
            ("new", &|| std::fs::write(path("folder/y"), "").unwrap()),
            ("gone", &|| std::fs::remove_file(path("folder/y")).unwrap()),
            ("there", &|| std::fs::write(path("missing"), "").unwrap()),
            ("leads somewhere", &|| {
                std::fs::write(path("nowhere"), "").unwrap()
            }),
            ("link", &|| {
                std::fs::remove_file(path("link")).unwrap();
                symlink("other", path("link")).unwrap();
            }),
            ("what a link leads to", &|| {
                std::fs::write(path("other"), "2").unwrap();
            }),
        ];
        for (name, change) in change {
            let now = memory.later().unwrap();
            memory.put(&[1; 32], now, &depends, &inputs()).unwrap();
            assert_eq!(get(&memory, 1), Some(inputs()), "{name}");
            std::fs::write(path("folder/x"), "another").unwrap();
            assert_eq!(get(&memory, 1), Some(inputs()), "{name}");
            change();
            assert_eq!(get(&memory, 1), None, "{name}");
        }
    }

    #[test]
    fn what_may_have_changed_meanwhile_is_not_remembered() {
        let dir = TestDir::new();
        let memory = Memory::of(dir.path()).unwrap();
        let file = dir.path().join("file");
        let depends = BTreeSet::from([file.clone()]);
        let now = memory.later().unwrap();
        std::fs::write(&file, "1").unwrap();
        memory.put(&[1; 32], now, &depends, &inputs()).unwrap();
        assert_eq!(get(&memory, 1), None);
        let now = memory.later().unwrap();
        memory.put(&[1; 32], now, &depends, &inputs()).unwrap();
        assert_eq!(get(&memory, 1), Some(inputs()));
        let elsewhere = Moment {
            device: now.device + 1,
            ..now
        };
        memory
            .put(&[2; 32], elsewhere, &depends, &inputs())
            .unwrap();
        assert_eq!(get(&memory, 2), None);
    }

    #[test]
    fn a_memory_that_others_could_write_is_not_used() {
        let dir = TestDir::new();
        let memory = Memory::of(dir.path()).unwrap();
        fs::set_mode(&memory.0, 0o770).unwrap();
        assert!(Memory::of(dir.path()).is_none());
        if sys::effective_uid() == 0 {
            fs::set_mode(&memory.0, 0o700).unwrap();
            fs::chown(&memory.0, 12345, 12345).unwrap();
            assert!(Memory::of(dir.path()).is_none());
        }
        let other = TestDir::new();
        std::os::unix::fs::symlink(&memory.0, other.path().join(".nix-gocacheprog-source"))
            .unwrap();
        assert!(Memory::of(other.path()).is_none());
    }
}
