//! Whether the file system has room for more: puts stop where a floor begins, and are not what fills a disk.

use super::Limits;
use crate::error::{Error, Result};
use crate::sync::lock;
use crate::sys;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// For so long an answer of the file system is good.
const GOOD_FOR: Duration = Duration::from_millis(100);

/// Remembers how full a file system is.
#[derive(Debug, Default)]
pub struct Room(Mutex<Option<(Instant, sys::Space)>>);

impl Room {
    /// Whether an output of so many bytes may be put.
    ///
    /// # Errors
    /// When less is free than the limits leave to others.
    pub fn check(&self, root: &Path, limits: &Limits, size: u64) -> Result<()> {
        let mut known = lock(&self.0);
        let (asked, found) = match *known {
            Some((asked, space)) if asked.elapsed() < GOOD_FOR => (asked, space),
            _ => (Instant::now(), sys::space(root)?),
        };
        // What is put until it is asked again, at most: an output and its action are two files.
        let space = sys::Space {
            free: found.free.saturating_sub(size),
            free_files: found.free_files.saturating_sub(2),
            ..found
        };
        if space.free < limits.floor(space) {
            return Err(Error::input(format!(
                "only {} bytes free on the cache's file system ({} reserved)",
                space.free,
                limits.floor(space)
            )));
        }
        if space.free_files < limits.files_floor(space) {
            return Err(Error::input(format!(
                "only {} inodes free on the cache's file system ({} reserved)",
                space.free_files,
                limits.files_floor(space)
            )));
        }
        *known = Some((asked, space));
        Ok(())
    }
}
