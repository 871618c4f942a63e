//! A directory for one unit test, removed with it.

use crate::id::BuildId;
use std::path::{Path, PathBuf};

pub struct TestDir(PathBuf);

impl TestDir {
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// In memory where that can be had: for what waits on the disk again and again.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            Self::below(memory)
        } else {
            Self::new()
        }
    }

    fn below(dir: &Path) -> Self {
        let path = dir.join(format!("nix-gocacheprog-{}", BuildId::new().unwrap()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
