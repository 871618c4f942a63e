//! What a version before this one has left: a cache in a format that this one does not know.
//!
//! It is set aside by renames, and the next sweep removes it, but for the directories of builds: those are
//! mounted into sandboxes, and builds that the older daemon has served may still run. They follow some
//! days later. What a running build may use is never removed here.

use super::Store;
use crate::config::ASIDE_KEPT;
use crate::error::Result;
use crate::fs;
use crate::log;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PREFIX: &str = "aside-";

/// The directories of builds, in a cache of any format.
const BUILDS: &str = "builds";

/// Moves a cache of another format out of the way.
pub(super) fn set_aside(root: &Path) -> Result<()> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let aside = root.join(format!("{PREFIX}{}", since.as_secs()));
    fs::ensure_dir(&aside, 0o700)?;
    // The format goes last: when this is cut off it is done again.
    for name in [
        "outputs",
        "actions",
        "tmp",
        BUILDS,
        "registered",
        "state",
        "format",
    ] {
        match fs::rename(&root.join(name), &aside.join(name)) {
            Err(e) if e.kind() != Some(ErrorKind::NotFound) => return Err(e),
            _ => {}
        }
    }
    log::warn(format!(
        "unknown cache format: moved the old cache to {}, to be removed within days, and started a new one",
        aside.display()
    ));
    Ok(())
}

/// Whether this is the name of a cache that was set aside.
pub(super) fn is_set_aside(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

impl Store {
    /// What caches that were set aside take on disk, in bytes.
    pub(super) fn set_aside_bytes(&self) -> Result<u64> {
        let asides = self.asides()?;
        asides.iter().map(|(path, _)| bytes_below(path)).sum()
    }

    /// Removes what no build can use any more of caches that were set aside; says how many bytes that
    /// frees. With `dry_run` it only says so.
    pub(super) fn sweep_aside(&self, now: SystemTime, dry_run: bool) -> Result<u64> {
        let mut freed = 0;
        for (path, since) in self.asides()? {
            // By a clock that was ahead, too.
            let age = now.duration_since(since).unwrap_or_else(|e| e.duration());
            let before = bytes_below(&path)?;
            let builds = path.join(BUILDS);
            if age > ASIDE_KEPT {
                if !dry_run {
                    fs::remove_dir_all(&path)?;
                    log::info(format!(
                        "removed the cache of an older version in {}",
                        path.display()
                    ));
                }
                freed += before;
                continue;
            }
            if dry_run {
                freed += before.saturating_sub(bytes_below(&builds)?);
                continue;
            }
            for entry in fs::read_dir(&path)? {
                let entry = entry?.path();
                if entry == builds {
                    continue;
                }
                if fs::symlink_metadata(&entry)?.is_dir() {
                    fs::remove_dir_all(&entry)?;
                } else {
                    fs::remove_file(&entry)?;
                }
            }
            freed += before.saturating_sub(bytes_below(&path)?);
        }
        Ok(freed)
    }

    /// Caches that were set aside, and when.
    fn asides(&self) -> Result<Vec<(PathBuf, SystemTime)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let since = name.to_str().and_then(|name| {
                let seconds = name.strip_prefix(PREFIX)?.parse().ok()?;
                UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
            });
            if let Some(since) = since {
                found.push((entry.path(), since));
            }
        }
        Ok(found)
    }
}

/// What all files below take on disk. Each name of an output counts for its part.
fn bytes_below(path: &Path) -> Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == Some(ErrorKind::NotFound) => return Ok(0),
        Err(e) => return Err(e),
    };
    if !metadata.is_dir() {
        return Ok(metadata.blocks() * 512 / metadata.nlink().max(1));
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += bytes_below(&entry?.path())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{Goal, Store};
    use super::*;
    use crate::test_dir::TestDir;
    use std::sync::atomic::AtomicBool;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn set_aside_with(root: &Path, files: &[&str]) -> PathBuf {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, vec![7; 100_000]).unwrap();
        }
        set_aside(root).unwrap();
        let name = |entry: std::fs::DirEntry| entry.file_name().to_str().unwrap().to_string();
        let found: Vec<_> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| name(entry.unwrap()))
            .filter(|name| name.starts_with(PREFIX))
            .collect();
        assert_eq!(found.len(), 1);
        root.join(&found[0])
    }

    #[test]
    fn what_was_set_aside_is_counted_and_goes_but_for_what_builds_may_use() {
        let dir = TestDir::new();
        let root = dir.path();
        let aside = set_aside_with(root, &["outputs/ab/cdef", "format", "state"]);
        let in_build = aside.join("builds/b/cdef");
        std::fs::create_dir_all(in_build.parent().unwrap()).unwrap();
        std::fs::hard_link(aside.join("outputs/ab/cdef"), &in_build).unwrap();
        let store = Store::open(root).unwrap();
        let all = Goal {
            keep: 0,
            max_age: Duration::ZERO,
        };
        let counted = || store.contents(&NEVER).unwrap().set_aside;
        let before = counted();
        assert!((300_000..400_000).contains(&before), "{before}");

        let would = store.sweep(&all, true, &NEVER).unwrap().set_aside;
        assert!(aside.join("outputs/ab/cdef").exists());
        let swept = store.sweep(&all, false, &NEVER).unwrap().set_aside;
        assert!(would >= swept && swept >= 200_000, "{would} {swept}");
        assert!(in_build.exists(), "a build may be running");
        assert!(!aside.join("outputs").exists() && !aside.join("format").exists());
        assert_eq!(counted(), before - swept);

        let later = SystemTime::now() + ASIDE_KEPT + Duration::from_secs(1);
        let left = counted();
        assert_eq!(store.sweep_aside(later, true).unwrap(), left);
        assert!(in_build.exists());
        assert_eq!(store.sweep_aside(later, false).unwrap(), left);
        assert!(!aside.exists());
        assert_eq!(counted(), 0);
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        let dir = TestDir::new();
        let store = Store::open(dir.path()).unwrap();
        let other = dir.path().join("aside-of-mine");
        std::fs::create_dir(&other).unwrap();
        let later = SystemTime::now() + 2 * ASIDE_KEPT;
        assert_eq!(store.sweep_aside(later, false).unwrap(), 0);
        assert!(other.exists());
    }
}
