//! The record of an installation: what was not there before it, and so goes with it.
//!
//! It is written before the first change, so that it covers an interrupted installation too.

use super::layout::{Host, Mode};
use super::limits::Limits;
use super::plan::{Content, File, temporary_name};
use crate::error::{Error, Result};
use crate::fs;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What an installation has added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// All changes are made and known to who must know.
    pub finished: bool,
    /// How builds get at the cache.
    pub mode: Mode,
    /// Files that were not there.
    pub files: Vec<PathBuf>,
    /// Directories that were not there, outermost first.
    pub directories: Vec<PathBuf>,
    /// Files of Nix's configuration with a block of ours.
    pub confs: Vec<PathBuf>,
    /// Whether the daemon's user was not there.
    pub user: bool,
    /// Files of somebody else's that stood where one of these is now. They are kept beside it, under
    /// [`kept_name`], and `uninstall` puts them back.
    #[serde(default)]
    pub replaced: Vec<PathBuf>,
    /// The daemon's cache, where it is not in the usual place.
    #[serde(default)]
    pub cache_dir: Option<PathBuf>,
    /// Where the cache was before it was put elsewhere. What is there goes with the cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_caches: Vec<PathBuf>,
    /// What the daemon keeps its cache within.
    #[serde(default)]
    pub limits: Limits,
    /// What `ci start` has set up, and `ci finish` takes away, in place of `install` and `uninstall`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci: Option<Ci>,
}

/// What `ci finish` has to know beyond that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ci {
    /// When `ci start` was run, in seconds since 1970.
    pub started: u64,
    /// The cache is somebody's who keeps it: it was there before, or was named.
    pub keeps_cache: bool,
    /// Whose it is to be again: the user and the group.
    pub cache_owner: (u32, u32),
    /// What builds put is uploaded.
    pub uploads: bool,
}

/// Where a file of somebody else's is kept.
pub fn kept_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.before-nix-gocacheprog"))
}

impl Record {
    /// Where it is.
    pub fn path(host: &Host) -> PathBuf {
        host.at(&host.layout.lib.join("installed.json"))
    }

    /// Reads it; `None` when nothing is installed.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(host: &Host) -> Result<Option<Self>> {
        let path = Self::path(host);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == Some(std::io::ErrorKind::NotFound) => return Ok(None),
            Err(e) => return Err(e),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| Error::input(format!("cannot understand {}: {e}", path.display())))
    }

    /// Writes it. The directories that it needs appear together with it: one without it would be nobody's.
    ///
    /// # Errors
    /// When the disk or a missing right prevents it.
    pub fn write(&self, host: &Host) -> Result<()> {
        let path = Self::path(host);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::input(e.to_string()))?;
        let content = Content::Text(text + "\n", 0o644);
        let lib = host.at(&host.layout.lib);
        let Some(top) = outermost_missing(&lib) else {
            return File { path, content }.make();
        };
        let fresh = temporary_name(top);
        fs::remove_dir_all(&fresh)?;
        let aside = fresh.join(path.strip_prefix(top).unwrap_or(&path));
        aside.parent().map_or(Ok(()), fs::create_dir_all)?;
        let path = aside;
        File { path, content }.make()?;
        fs::rename(&fresh, top)
    }

    /// Removes it.
    ///
    /// # Errors
    /// When a missing right prevents it.
    pub fn remove(host: &Host) -> Result<()> {
        let path = Self::path(host);
        fs::remove_file(&temporary_name(&path))?;
        fs::remove_file(&path)
    }

    /// Removes what is left of an installation that was killed before its record was there, or of an uninstallation
    /// that was killed after its record was gone.
    ///
    /// # Errors
    /// When a missing right prevents it.
    pub fn remove_traces(host: &Host) -> Result<()> {
        let lib = host.at(&host.layout.lib);
        if let Some(top) = outermost_missing(&lib) {
            return fs::remove_dir_all(&temporary_name(top));
        }
        fs::remove_file(&temporary_name(&Self::path(host)))?;
        // Somebody else may have put something there.
        let _ = std::fs::remove_dir(&lib);
        Ok(())
    }

    /// Notes a file that was not there.
    pub fn add_file(&mut self, path: PathBuf) {
        add(&mut self.files, path);
    }

    /// Notes a file of somebody else's that is to be kept.
    pub fn add_replaced(&mut self, path: PathBuf) {
        add(&mut self.replaced, path);
    }

    /// Notes that the cache is elsewhere from now on.
    pub fn move_cache(&mut self, from: PathBuf, to: PathBuf) {
        self.former_caches.retain(|dir| *dir != to);
        add(&mut self.former_caches, from);
        self.cache_dir = Some(to);
    }

    /// Notes a directory that was not there.
    pub fn add_directory(&mut self, path: PathBuf) {
        add(&mut self.directories, path);
    }

    /// Notes a file of Nix's configuration that gets a block.
    pub fn add_conf(&mut self, path: PathBuf) {
        add(&mut self.confs, path);
    }
}

/// The outermost directory that has to be made for this one to be there.
fn outermost_missing(dir: &Path) -> Option<&Path> {
    dir.ancestors().take_while(|dir| !dir.exists()).last()
}

fn add(list: &mut Vec<PathBuf>, path: PathBuf) {
    if !list.contains(&path) {
        list.push(path);
    }
}
