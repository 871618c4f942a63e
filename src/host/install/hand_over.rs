//! Gives a cache to another user: a CI system restores it as one user, and the daemon runs as another.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// No cache has directories in directories so deep.
const DEPTH_MAX: usize = 8;

/// Gives a directory, and all in it that belongs to its owner or to `other`, to another user and group. Whoever owns it may
/// change it meanwhile: no link is followed, and a file of anybody else's, which may be a hard link, stays theirs. A
/// directory goes after what is in it, so that one that was cut off can be run again.
///
/// # Errors
/// When it is no directory, or a missing right prevents it.
pub fn hand_over(dir: &Path, other: Option<u32>, to: (u32, u32)) -> Result<()> {
    let open = open_dir(dir)?;
    let owner = open.metadata().map_err(|e| Error::io("look at", dir, e))?;
    let from = [owner.uid(), other.unwrap_or(owner.uid())];
    hand_over_below(&open, dir, from, to, 0)?;
    std::os::unix::fs::fchown(&open, Some(to.0), Some(to.1))
        .map_err(|e| Error::io("set the owner of", dir, e))
}

/// `shown` is the path for errors only: another directory may be there by now.
fn hand_over_below(
    dir: &File,
    shown: &Path,
    from: [u32; 2],
    to: (u32, u32),
    depth: usize,
) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::input(format!(
            "{} is deeper than any cache: name another directory",
            shown.display()
        )));
    }
    let place = through(dir);
    for entry in std::fs::read_dir(&place).map_err(|e| Error::io("list", shown, e))? {
        let name = entry.map_err(|e| Error::io("list", shown, e))?.file_name();
        let (path, shown) = (place.join(&name), shown.join(&name));
        let found = path
            .symlink_metadata()
            .map_err(|e| Error::io("look at", &shown, e))?;
        if !from.contains(&found.uid()) {
            continue;
        }
        if found.is_dir() {
            let below = open_dir(&path)?;
            hand_over_below(&below, &shown, from, to, depth + 1)?;
        }
        std::os::unix::fs::lchown(&path, Some(to.0), Some(to.1))
            .map_err(|e| Error::io("set the owner of", &shown, e))?;
    }
    Ok(())
}

/// A path into a directory that is open, wherever it has been moved to.
fn through(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

fn open_dir(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
        .open(path)
        .map_err(|e| Error::io("open the directory", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn owner(path: &Path) -> (u32, u32) {
        let found = path.symlink_metadata().unwrap();
        (found.uid(), found.gid())
    }

    #[test]
    fn what_is_given_away_is_the_owners_alone_and_no_link_is_followed() {
        if crate::sys::effective_uid() != 0 {
            // Nobody else can give anything away.
            return;
        }
        let dir = TestDir::new();
        let (cache, outside) = (dir.path().join("cache"), dir.path().join("outside"));
        std::fs::create_dir_all(cache.join("outputs/3f")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        std::fs::write(outside.join("theirs"), "x").unwrap();
        std::fs::write(cache.join("outputs/3f/a0"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, cache.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.join("secret"), cache.join("outputs/file")).unwrap();
        hand_over(&cache, None, (1001, 1002)).unwrap();
        // Root's own file under another name, as whoever owns the cache could have linked it.
        std::fs::hard_link(outside.join("theirs"), cache.join("outputs/linked")).unwrap();
        hand_over(&cache, None, (2001, 2002)).unwrap();
        for given in [
            "",
            "outputs",
            "outputs/3f",
            "outputs/3f/a0",
            "link",
            "outputs/file",
        ] {
            assert_eq!(owner(&cache.join(given)), (2001, 2002), "{given}");
        }
        for kept in ["", "secret", "theirs"] {
            assert_eq!(owner(&outside.join(kept)), (0, 0), "{kept}");
        }
        let link = dir.path().join("to-cache");
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        hand_over(&link, None, (1001, 1002)).unwrap_err();
        // Cut off in the middle, and given back.
        std::os::unix::fs::chown(&cache, Some(1001), None).unwrap();
        hand_over(&cache, Some(2001), (1001, 1002)).unwrap();
        assert_eq!(owner(&cache.join("outputs/3f/a0")), (1001, 1002));
    }
}
