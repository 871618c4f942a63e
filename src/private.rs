//! The private cache of a build that has no daemon: the same store and session, in a
//! directory of the build's own.

use crate::error::{Error, Result};
use crate::fs;
use crate::id::BuildId;
use crate::session::Session;
use crate::store::Store;
use crate::sys;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Opens it, creating what is missing; says where its outputs appear.
///
/// # Errors
/// When no directory can be made or written.
pub fn open() -> Result<(Session<'static>, PathBuf)> {
    let root = directory()?;
    let store: &'static Store = Box::leak(Box::new(Store::open_shared(&root)?));
    let files = root.join("files");
    fs::ensure_dir(&files, 0o700)?;
    Ok((Session::new(store, &files), files))
}

/// Where its store is: a directory that nobody else can enter, made if it is missing.
///
/// # Errors
/// When no directory can be made, or it belongs to another user.
pub fn directory() -> Result<PathBuf> {
    let root = root()?;
    fs::create_dir_all(&root)?;
    if fs::metadata(&root)?.uid() != sys::effective_uid() {
        return Err(Error::input(format!(
            "{} belongs to another user: remove it, or set TMPDIR to a directory of your own",
            root.display()
        )));
    }
    fs::set_mode(&root, 0o700)?;
    Ok(root)
}

/// A build's own directory; outside of a build, the user's cache directory.
fn root() -> Result<PathBuf> {
    let dir = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path: &PathBuf| path.is_absolute())
    };
    if let Some(top) = dir("NIX_BUILD_TOP") {
        return Ok(top.join(".nix-gocacheprog"));
    }
    let user = dir("XDG_CACHE_HOME").or_else(|| Some(dir("HOME")?.join(".cache")));
    if let Some(user) = user.filter(|path| can_be_made(path)) {
        return Ok(user.join("nix-gocacheprog"));
    }
    Ok(std::env::temp_dir().join(format!("nix-gocacheprog-{}", BuildId::new()?)))
}

fn can_be_made(path: &Path) -> bool {
    fs::create_dir_all(path).is_ok()
}
