//! Directories that environment variables name: those of a build, and those of the XDG Base Directory Specification.

use std::path::{Path, PathBuf};

/// An absolute path from a variable; a relative one is to be ignored, as the specification says.
pub fn directory(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

/// Where this user's configuration is kept.
pub fn config_home() -> Option<PathBuf> {
    below_home("XDG_CONFIG_HOME", ".config")
}

/// Where this user's caches are kept.
pub fn cache_home() -> Option<PathBuf> {
    below_home("XDG_CACHE_HOME", ".cache")
}

fn below_home(name: &str, usual: impl AsRef<Path>) -> Option<PathBuf> {
    directory(name).or_else(|| Some(directory("HOME")?.join(usual)))
}
