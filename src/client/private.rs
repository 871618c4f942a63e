//! The private cache of a client that has no daemon: the same store and session, in
//! a directory of the build's own or, outside of a build, of the user's.
//!
//! A build's goes with the build. A user's is kept within the same limits as the daemon's, by
//! whichever client ends when nobody else uses it and a day has passed since the last time.
//! It never keeps a file from being used that was handed out less than a day ago.

use crate::cache::session::Session;
use crate::cache::store::{Limits, Store};
use crate::config::PRIVATE_UPKEEP_EVERY;
use crate::environment;
use crate::error::{Error, Result};
use crate::fs::{self, OpenDirectory};
use crate::id::BuildId;
use crate::log;
use crate::sys;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Held, shared, by each process that uses the user's cache, until it ends.
static LOCK: OnceLock<File> = OnceLock::new();

/// Opens it, creating what is missing; says where its outputs appear.
///
/// # Errors
/// When no directory can be made or written.
// See `tidy`.
#[inline(never)]
pub fn open(cache_dir: Option<&Path>) -> Result<(Session<'static>, PathBuf)> {
    let root = directory(cache_dir)?;
    let store: &'static Store = Box::leak(Box::new(Store::open_shared(&root)?));
    let mut files = root.join("files");
    fs::ensure_dir(&files, 0o700)?;
    if LOCK.get().is_some() {
        // Links of some days ago would keep their outputs for ever.
        files.push(today().to_string());
        fs::ensure_dir(&files, 0o700)?;
    }
    // This user could change the store's own files, and `go` does.
    let copies = files.clone();
    files.push(format!("s{}", BuildId::new()?));
    fs::create_dir(&files, 0o700)?;
    let session = Session::with_copies(store, OpenDirectory::open(&files)?, &copies);
    Ok((session, files))
}

/// Whether an earlier command of this build has begun one.
pub fn is_begun() -> bool {
    build_top().is_some() && root(None).is_ok_and(|(root, _)| root.join("format").exists())
}

/// Where its store is: a directory that nobody else can enter, made if it is missing.
///
/// # Errors
/// When no directory can be made, or it belongs to another user.
pub fn directory(cache_dir: Option<&Path>) -> Result<PathBuf> {
    let (root, is_users) = root(cache_dir)?;
    claim(&root)?;
    if is_users && LOCK.get().is_none() {
        let path = root.join("lock");
        let lock = fs::open_or_create(&path, 0o600)?;
        match sys::lock_shared(&lock) {
            // Another thread may have been faster.
            Ok(()) => drop(LOCK.set(lock)),
            // A home on a network may have no locks: it is used all the same, and never swept.
            Err(e) => log::debug(|| format!("cannot lock {}: {e}", path.display())),
        }
    }
    Ok(root)
}

/// Where something else is that this user keeps: it is nobody else's either.
///
/// # Errors
/// When no directory can be made, or it belongs to another user.
pub fn beside(name: &str) -> Result<PathBuf> {
    let (root, _) = root(None)?;
    claim(&root)?;
    Ok(root.join(name))
}

fn claim(root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    if fs::metadata(root)?.uid() != sys::effective_uid() {
        return Err(Error::input(format!(
            "{} belongs to another user: remove it, or set TMPDIR to a directory of your own",
            root.display()
        )));
    }
    fs::set_mode(root, 0o700)
}

/// Brings the user's cache within its limits, if that is due and nobody else uses it. For a
/// process that is about to end.
pub fn tidy_up(cache_dir: Option<&Path>) {
    let Some(lock) = LOCK.get() else { return };
    let tidied = root(cache_dir).and_then(|(root, _)| tidy(&root, lock, SystemTime::now()));
    if let Err(e) = tidied {
        log::debug(|| format!("the private cache is not tidied up: {}", e.chain()));
    }
}

// A store is large. In the frame of the client's main function it would cost each client, of which few get here, new pages
// of the stack.
#[inline(never)]
fn tidy(root: &Path, lock: &File, now: SystemTime) -> Result<()> {
    let mark = root.join("tidied");
    let last = fs::metadata(&mark).ok().and_then(|m| m.modified().ok());
    let is_recent = |last| {
        now.duration_since(last)
            .is_ok_and(|age| age < PRIVATE_UPKEEP_EVERY)
    };
    if last.is_some_and(is_recent) || !sys::try_lock(lock).unwrap_or(false) {
        return Ok(());
    }
    // First, so that a failure below is not met again by every client.
    drop(fs::open_or_create(&mark, 0o600)?);
    fs::set_times(&mark, now)?;
    let oldest = days(now) - 1;
    for entry in fs::read_dir(&root.join("files"))? {
        let path = entry?.path();
        let day = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u64>().ok());
        if day.is_none_or(|day| day < oldest) {
            fs::remove_dir_all(&path)?;
        }
    }
    let store = Store::open_shared(root)?;
    store.clear_tmp()?;
    let never = AtomicBool::new(false);
    // Counted first, for a full disk is relieved by as much as is wanted and no more.
    store.contents(&never)?;
    store.sweep(&store.goal(&Limits::default())?, false, &never)?;
    Ok(())
}

fn today() -> u64 {
    days(SystemTime::now())
}

fn days(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_secs() / (24 * 60 * 60)
}

/// The directory of the build that this is a part of, if there is one.
pub fn build_top() -> Option<PathBuf> {
    // A Nix shell has the variable too, and is no build.
    match std::env::var_os("IN_NIX_SHELL") {
        Some(_) => None,
        None => environment::directory("NIX_BUILD_TOP"),
    }
}

/// Where a build keeps what is its own. It need not be there yet.
pub fn build_directory() -> Option<PathBuf> {
    Some(build_top()?.join(".nix-gocacheprog"))
}

/// This user's cache directory.
pub fn user_dir() -> Option<PathBuf> {
    Some(environment::cache_home()?.join("nix-gocacheprog"))
}

/// Where it is, and whether it is the user's.
fn root(cache_dir: Option<&Path>) -> Result<(PathBuf, bool)> {
    if let Some(dir) = cache_dir {
        return Ok((dir.to_path_buf(), true));
    }
    if let Some(dir) = build_directory() {
        return Ok((dir, false));
    }
    if let Some(dir) = user_dir().filter(|dir| fs::create_dir_all(dir).is_ok()) {
        return Ok((dir, true));
    }
    let name = format!("nix-gocacheprog-{}", BuildId::new()?);
    Ok((std::env::temp_dir().join(name), false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActionId, OutputId};
    use crate::test_dir::TestDir;
    use sha2::{Digest, Sha256};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_users_cache_is_tidied_once_a_day_and_forgets_old_links() {
        let dir = TestDir::new();
        let root = dir.path();
        let now = SystemTime::now();
        let files = root.join("files").join(days(now).to_string());
        let store = Store::open_shared(root).unwrap();
        std::fs::create_dir_all(&files).unwrap();
        let body = b"some output";
        let output = OutputId(Sha256::digest(body).into());
        let put = Session::new(&store, OpenDirectory::open(&files).unwrap())
            .put(
                &ActionId([1; 32]),
                &output,
                body.len() as u64,
                &mut &body[..],
            )
            .unwrap();
        std::fs::write(root.join("tmp/left"), "").unwrap();
        let lock = fs::open_or_create(&root.join("lock"), 0o600).unwrap();

        tidy(root, &lock, now).unwrap();
        assert!(!root.join("tmp/left").exists());
        assert_eq!(std::fs::read_dir(&files).unwrap().count(), 1);

        std::fs::write(root.join("tmp/left"), "").unwrap();
        tidy(root, &lock, now + DAY / 2).unwrap();
        assert!(root.join("tmp/left").exists(), "not yet");
        tidy(root, &lock, now + DAY).unwrap();
        assert!(files.exists(), "a path of yesterday may still be in use");
        tidy(root, &lock, now + 3 * DAY).unwrap();
        assert!(!files.exists());
        assert_eq!(store.get(&ActionId([1; 32])).unwrap(), Some(put));
    }

    #[test]
    fn a_cache_in_use_is_left_alone() {
        let dir = TestDir::new();
        let root = dir.path();
        Store::open_shared(root).unwrap();
        std::fs::create_dir(root.join("files")).unwrap();
        let path = root.join("lock");
        let other = fs::open_or_create(&path, 0o600).unwrap();
        sys::lock_shared(&other).unwrap();
        let lock = fs::open_or_create(&path, 0o600).unwrap();
        tidy(root, &lock, SystemTime::now()).unwrap();
        assert!(!root.join("tidied").exists());
    }
}
