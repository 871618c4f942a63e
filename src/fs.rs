//! `std::fs`, with the operation and the path in each error.
//!
//! Every operation passes `faults::before`, where the tests make it fail; outside of them
//! that is nothing at all.

use crate::error::{Error, Result};
use crate::id::BuildId;
use crate::sys::{self, Status};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[cfg(test)]
pub mod faults;

#[cfg(not(test))]
mod faults {
    #[inline(always)]
    pub fn before(_op: &str) -> std::io::Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub fn before_write(_length: usize) -> Option<usize> {
        None
    }
}

fn attempt<T>(
    op: &'static str,
    path: &Path,
    act: impl FnOnce() -> std::io::Result<T>,
) -> Result<T> {
    faults::before(op)
        .and_then(|()| act())
        .map_err(|e| Error::io(op, path, e))
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File> {
    attempt("open", path, || File::open(path))
}

/// Creates a new file with this mode; one that is there is an error.
pub fn create_new(path: &Path, mode: u32) -> Result<File> {
    attempt("create", path, || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    })
}

/// Opens a file for reading and writing, creating it if need be.
pub fn open_or_create(path: &Path, mode: u32) -> Result<File> {
    attempt("open", path, || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .open(path)
    })
}

/// Writes to an open file; `path` is for the error.
pub fn write_all(mut file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(cut) = faults::before_write(bytes.len()) {
        let _ = file.write_all(&bytes[..cut]);
    }
    attempt("write", path, || file.write_all(bytes))
}

/// Replaces a small file as a whole: after a power cut it is there as it was before, or
/// as it is now.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let fresh = path.with_extension("new");
    remove_file(&fresh)?;
    let file = create_new(&fresh, mode)?;
    let replaced = write_all(&file, &fresh, bytes)
        .and_then(|()| attempt("sync", &fresh, || file.sync_data()))
        .and_then(|()| rename(&fresh, path));
    if replaced.is_err() {
        // The first error says more than a second one.
        let _ = remove_file(&fresh);
    }
    replaced
}

/// Writes all that is in memory of a file system to disk; `dir` is a directory on it, and `path` is for the error.
pub fn sync_file_system(dir: &File, path: &Path) -> Result<()> {
    attempt("sync", path, || sys::syncfs(dir))
}

/// Opens a new file for reading and writing, in the temporary directory and without a name: it
/// is gone when it is closed.
pub fn nameless_file() -> Result<File> {
    let path = std::env::temp_dir().join(format!(".nix-gocacheprog-{}", BuildId::new()?));
    let file = open_or_create(&path, 0o600)?;
    remove_file(&path)?;
    Ok(file)
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    attempt("read", path, || std::fs::read(path))
}

/// Reads a whole text file.
pub fn read_to_string(path: &Path) -> Result<String> {
    attempt("read", path, || std::fs::read_to_string(path))
}

/// Makes one directory and gives it exactly this mode, whatever the umask.
/// One that is there already is kept, and given the mode.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<()> {
    match attempt("create the directory", path, || {
        DirBuilder::new().mode(mode).create(path)
    }) {
        Err(e) if e.kind() != Some(std::io::ErrorKind::AlreadyExists) => return Err(e),
        _ => {}
    }
    if metadata(path)?.permissions().mode() & 0o7777 != mode {
        set_mode(path, mode)?;
    }
    Ok(())
}

/// As [`ensure_dir`], in a directory of another user's, who could put a link in its place: none is followed. `owner` is
/// set if it is given.
pub fn ensure_dir_nofollow(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    match attempt("create the directory", path, || {
        DirBuilder::new().mode(mode).create(path)
    }) {
        Err(e) if e.kind() != Some(std::io::ErrorKind::AlreadyExists) => return Err(e),
        _ => {}
    }
    let dir = attempt("open the directory", path, || {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
            .open(path)
    })?;
    attempt("set the mode of", path, || {
        dir.set_permissions(Permissions::from_mode(mode))
    })?;
    match owner {
        Some((uid, gid)) => attempt("set the owner of", path, || {
            std::os::unix::fs::fchown(&dir, Some(uid), Some(gid))
        }),
        None => Ok(()),
    }
}

/// Makes a directory and those above it that are missing.
pub fn create_dir_all(path: &Path) -> Result<()> {
    attempt("create the directory", path, || {
        std::fs::create_dir_all(path)
    })
}

/// Makes one new directory; one that is there is an error.
pub fn create_dir(path: &Path, mode: u32) -> Result<()> {
    attempt("create the directory", path, || {
        DirBuilder::new().mode(mode).create(path)
    })?;
    set_mode(path, mode)
}

/// Sets the permission bits.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    attempt("set the mode of", path, || {
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    })
}

/// Sets a file's mtime, or that of a symbolic link itself, and an atime that lies ahead.
pub fn set_times(path: &Path, mtime: SystemTime) -> Result<()> {
    attempt("set the times of", path, || sys::set_times(path, mtime))
}

/// Sets the mtime alone of a file, or of a symbolic link itself.
pub fn set_mtime(path: &Path, mtime: sys::Mtime) -> Result<()> {
    attempt("set the mtime of", path, || sys::set_mtime(path, mtime))
}

/// What `stat` says, following links.
pub fn metadata(path: &Path) -> Result<Metadata> {
    attempt("look at", path, || std::fs::metadata(path))
}

/// What `stat` says, following links; `None` only when nothing is there. That it cannot be looked at is an error, so
/// that nobody takes a file for gone that is merely hard to read.
pub fn metadata_if_there(path: &Path) -> Result<Option<Metadata>> {
    match metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == Some(std::io::ErrorKind::NotFound) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What `lstat` says.
pub fn symlink_metadata(path: &Path) -> Result<Metadata> {
    attempt("look at", path, || std::fs::symlink_metadata(path))
}

/// Makes `link` another name of the file `original`.
pub fn hard_link(original: &Path, link: &Path) -> Result<()> {
    attempt("link a file to", link, || {
        std::fs::hard_link(original, link)
    })
}

/// A directory that is held open: what is done to names in it does not walk along its path each time.
#[derive(Debug)]
pub struct OpenDirectory {
    path: PathBuf,
    file: File,
}

impl OpenDirectory {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Self> {
        let file = attempt("open the directory", path, || {
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
                .open(path)
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a name in it another name of the file `original`.
    pub fn hard_link(&self, original: &Path, name: &str) -> Result<()> {
        self.attempt("link a file to", name, || {
            sys::link_at(original, &self.file, name)
        })
    }

    /// What `lstat` says of a name in it.
    pub fn status(&self, name: &str) -> Result<Status> {
        self.attempt("look at", name, || sys::status_at(&self.file, name))
    }

    /// Removes a name in it; one that is gone already is fine.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        remove_file(&self.path.join(name))
    }

    fn attempt<T>(
        &self,
        op: &'static str,
        name: &str,
        act: impl FnOnce() -> std::io::Result<T>,
    ) -> Result<T> {
        faults::before(op)
            .and_then(|()| act())
            .map_err(|e| Error::io(op, self.path.join(name), e))
    }
}

/// Makes a symbolic link with this target.
pub fn symlink(target: impl AsRef<Path>, link: &Path) -> Result<()> {
    attempt("make the symbolic link", link, || {
        std::os::unix::fs::symlink(target, link)
    })
}

/// Sets the owner.
pub fn chown(path: &Path, uid: u32, gid: u32) -> Result<()> {
    attempt("set the owner of", path, || {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
    })
}

/// The target of a symbolic link.
pub fn read_link(path: &Path) -> Result<PathBuf> {
    attempt("read", path, || std::fs::read_link(path))
}

/// Moves a file, replacing what was there.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    attempt("move a file to", to, || std::fs::rename(from, to))
}

/// Copies a file with its mode.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    attempt("copy a file to", to, || std::fs::copy(from, to).map(|_| ()))
}

/// Removes a file; one that is gone already is fine.
pub fn remove_file(path: &Path) -> Result<()> {
    attempt("remove", path, || gone_is_fine(std::fs::remove_file(path)))
}

/// Removes a directory and all in it, or what is in its place; one that is gone already is fine.
/// No link is followed.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    attempt("remove", path, || {
        gone_is_fine(match std::fs::remove_dir_all(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => std::fs::remove_file(path),
            done => done,
        })
    })
}

/// The path with every link in it resolved.
pub fn canonicalize(path: &Path) -> Result<PathBuf> {
    attempt("find", path, || std::fs::canonicalize(path))
}

/// The names in a directory.
pub fn read_dir(path: &Path) -> Result<impl Iterator<Item = Result<std::fs::DirEntry>>> {
    let dir = path.to_path_buf();
    Ok(attempt("list", path, || std::fs::read_dir(path))?
        .map(move |entry| entry.map_err(|e| Error::io("list", &dir, e))))
}

fn gone_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
