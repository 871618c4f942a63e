//! `std::fs`, with the operation and the path in each error.

use crate::error::{Error, Result};
use crate::id::BuildId;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io("open", path, e))
}

/// Creates a new file with this mode; one that is there is an error.
pub fn create_new(path: &Path, mode: u32) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|e| Error::io("create", path, e))
}

/// Opens a file for reading and writing, creating it if need be.
pub fn open_or_create(path: &Path, mode: u32) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .open(path)
        .map_err(|e| Error::io("open", path, e))
}

/// Opens a new file for reading and writing, in the temporary directory and without a name: it
/// is gone when it is closed.
pub fn nameless_file() -> Result<File> {
    let path = std::env::temp_dir().join(format!(".nix-gocacheprog-{}", BuildId::new()?));
    let file = open_or_create(&path, 0o600)?;
    remove_file(&path)?;
    Ok(file)
}

/// Reads a whole text file.
pub fn read_to_string(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))
}

/// Makes one directory and gives it exactly this mode, whatever the umask.
/// One that is there already is kept, and given the mode.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(Error::io("create the directory", path, e)),
    }
    if metadata(path)?.permissions().mode() & 0o7777 != mode {
        set_mode(path, mode)?;
    }
    Ok(())
}

/// Makes a directory and those above it that are missing.
pub fn create_dir_all(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| Error::io("create the directory", path, e))
}

/// Makes one new directory; one that is there is an error.
pub fn create_dir(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .map_err(|e| Error::io("create the directory", path, e))?;
    set_mode(path, mode)
}

/// Sets the permission bits.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|e| Error::io("set the mode of", path, e))
}

/// What `stat` says, following links.
pub fn metadata(path: &Path) -> Result<Metadata> {
    std::fs::metadata(path).map_err(|e| Error::io("look at", path, e))
}

/// Makes `link` another name of the file `original`.
pub fn hard_link(original: &Path, link: &Path) -> Result<()> {
    std::fs::hard_link(original, link).map_err(|e| Error::io("link a file to", link, e))
}

/// Moves a file, replacing what was there.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| Error::io("move a file to", to, e))
}

/// Removes a file; one that is gone already is fine.
pub fn remove_file(path: &Path) -> Result<()> {
    gone_is_fine(std::fs::remove_file(path)).map_err(|e| Error::io("remove", path, e))
}

/// Removes a directory and all in it; one that is gone already is fine.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    gone_is_fine(std::fs::remove_dir_all(path)).map_err(|e| Error::io("remove", path, e))
}

/// The path with every link in it resolved.
pub fn canonicalize(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|e| Error::io("find", path, e))
}

/// The names in a directory.
pub fn read_dir(path: &Path) -> Result<impl Iterator<Item = Result<std::fs::DirEntry>>> {
    let dir = path.to_path_buf();
    Ok(std::fs::read_dir(path)
        .map_err(|e| Error::io("list", path, e))?
        .map(move |entry| entry.map_err(|e| Error::io("list", &dir, e))))
}

fn gone_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
