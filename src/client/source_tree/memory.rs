//! What was found in a tree, for the next `go` command of the same build.
//!
//! A folder in the build's own directory, with a file for each state that the tree was seen in: named by a hash over
//! names, sizes, inodes and times of all files that matter. ctime is among them, which nobody can set. A folder that
//! somebody else could write is not used.

use crate::error::{Error, Result};
use crate::fs;
use crate::sys;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The version of a file: this, then what was found, as JSON.
const VERSION: u8 = 3;

/// A folder of what was found.
#[derive(Debug)]
pub struct Memory(PathBuf);

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

    fn path(&self, state: &[u8; 32]) -> PathBuf {
        let hex: String = state.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.join(hex)
    }

    /// What was found when the tree was as now.
    pub fn get<T: DeserializeOwned>(&self, state: &[u8; 32]) -> Option<T> {
        let bytes = std::fs::read(self.path(state)).ok()?;
        let found = bytes.strip_prefix(&[VERSION])?;
        serde_json::from_slice(found).ok()
    }

    /// Remembers it.
    ///
    /// # Errors
    /// When the disk refuses it. Nothing is remembered then.
    pub fn put(&self, state: &[u8; 32], found: &impl Serialize) -> Result<()> {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, found).map_err(|e| Error::input(e.to_string()))?;
        // Another command may do the same at this moment.
        let path = self.path(state);
        let fresh = path.with_extension(std::process::id().to_string());
        let file = fs::create_new(&fresh, 0o600)?;
        let done = fs::write_all(&file, &fresh, &bytes).and_then(|()| fs::rename(&fresh, &path));
        if done.is_err() {
            // The first error says more than a second one.
            let _ = fs::remove_file(&fresh);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::source_tree::Inputs;
    use crate::test_dir::TestDir;

    fn inputs() -> Inputs {
        Inputs {
            digest: [7; 32],
            has_c: true,
            said: vec![("v.h".into(), "#01234567".into())],
        }
    }

    #[test]
    fn what_was_found_is_found_again_and_a_damaged_file_is_not() {
        let dir = TestDir::new();
        let memory = Memory::of(dir.path()).unwrap();
        let get = |memory: &Memory, state| memory.get::<Inputs>(&[state; 32]);
        assert_eq!(get(&memory, 1), None);
        memory.put(&[1; 32], &inputs()).unwrap();
        memory.put(&[1; 32], &inputs()).unwrap();
        let memory = Memory::of(dir.path()).unwrap();
        assert_eq!(get(&memory, 1), Some(inputs()));
        assert_eq!(get(&memory, 2), None);
        let path = memory.path(&[1; 32]);
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 1, 35, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(get(&memory, 1), None);
        }
        std::fs::write(&path, [&[VERSION + 1], &bytes[1..]].concat()).unwrap();
        assert_eq!(get(&memory, 1), None);
    }

    #[test]
    fn a_memory_that_others_could_write_is_not_used() {
        let dir = TestDir::new();
        let memory = Memory::of(dir.path()).unwrap();
        memory.put(&[1; 32], &inputs()).unwrap();
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
