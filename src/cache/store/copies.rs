//! Copies of outputs, for builds whose user could change the store's own files: root, and the store's owner.
//!
//! A copy shares its blocks with the output where the file system can (btrfs, XFS, bcachefs). It carries marks, a mode and
//! a time, by which a copy that somebody has changed is told from a sound one.

use super::{OUTPUT_MODE, Store, TmpFile, in_dir};
use crate::config::USE_RECORDED_EVERY;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::ActionId;
use crate::sys::{self, Status, modified};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The mtime of every copy, in seconds since 1970: whoever writes to one moves it.
const COPIED: u64 = 1;

/// How often a copy is made anew that another process has replaced.
const COPY_TRIES: u32 = 20;

impl Store {
    /// Makes `name` another name of `copy`, a copy of an entry's output that is made if there is none or it was changed.
    /// `false` when the output is missing or damaged: the entry is forgotten then, and the action a miss.
    ///
    /// # Errors
    /// When the system fails to copy the output or to make the link.
    pub fn link_copy(
        &self,
        action: &ActionId,
        entry: &Entry,
        copy: &Path,
        name: &Path,
    ) -> Result<bool> {
        let _pinned = self.pin(&entry.output);
        let mut tries = 0;
        loop {
            if !self.has_copy(entry, copy) && !self.copy(action, entry, copy)? {
                return Ok(false);
            }
            match self.link_name(copy, name) {
                // Another process of this build has put its own copy in the place of ours just now: a file whose last name
                // goes cannot be linked any more.
                Err(e) if e.kind() == Some(ErrorKind::NotFound) && tries < COPY_TRIES => {
                    tries += 1;
                }
                done => return done.map(|()| true),
            }
        }
    }

    fn link_name(&self, copy: &Path, name: &Path) -> Result<()> {
        match fs::hard_link(copy, name) {
            Err(e) if e.kind() == Some(ErrorKind::AlreadyExists) => {
                let (of, is) = (fs::symlink_metadata(copy)?, fs::symlink_metadata(name)?);
                if of.ino() != is.ino() {
                    // The name of a copy that was changed.
                    let tmp = TmpFile::new(self.tmp_path());
                    in_dir(&tmp.0, || fs::hard_link(copy, &tmp.0))?;
                    fs::rename(&tmp.0, name)?;
                    tmp.keep();
                }
                Ok(())
            }
            done => done,
        }
    }

    /// Whether there is a sound copy. The output's last use moves on all the same.
    fn has_copy(&self, entry: &Entry, copy: &Path) -> bool {
        let sound = |m: &Metadata| {
            m.is_file()
                && self.damage(&Status::from(m), entry.size).is_none()
                && m.mtime() == COPIED as i64
        };
        if !fs::symlink_metadata(copy).is_ok_and(|m| sound(&m)) {
            return false;
        }
        let path = self.output_path(&entry.output);
        if let Ok(metadata) = fs::metadata(&path) {
            self.record_use(|| path, modified(&metadata), USE_RECORDED_EVERY);
        }
        true
    }

    fn copy(&self, action: &ActionId, entry: &Entry, copy: &Path) -> Result<bool> {
        let path = self.output_path(&entry.output);
        if !self.is_trusted(&entry.output, &path)? {
            self.discard(action, entry, "has an output that a crash has damaged")?;
            return Ok(false);
        }
        let mut from = match fs::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => {
                self.forget_dangling(action, entry)?;
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        let metadata = from
            .metadata()
            .map_err(|e| Error::io("look at", &path, e))?;
        let status = Status::from(&metadata);
        if let Some(what) = self.damage(&status, entry.size) {
            self.discard(action, entry, what)?;
            return Ok(false);
        }
        let tmp = TmpFile::new(self.tmp_path());
        let mut to = in_dir(&tmp.0, || fs::create_new(&tmp.0, 0o600))?;
        if sys::clone_file(&from, &to).is_err() {
            std::io::copy(&mut from, &mut to).map_err(|e| Error::io("copy to", &tmp.0, e))?;
        }
        fs::set_mode(&tmp.0, OUTPUT_MODE)?;
        fs::set_times(&tmp.0, copied())?;
        fs::rename(&tmp.0, copy)?;
        tmp.keep();
        self.record_uses(action, entry, status.modified);
        Ok(true)
    }
}

fn copied() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(COPIED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::builds::output_name;
    use crate::cache::session::Session;
    use crate::fs::OpenDirectory;
    use crate::id::OutputId;
    use crate::test_dir::TestDir;
    use sha2::{Digest, Sha256};
    use std::os::unix::fs::PermissionsExt;

    struct Made {
        dir: TestDir,
        store: Store,
        action: ActionId,
        output: OutputId,
    }

    const BODY: &[u8] = b"an archive";

    impl Made {
        fn new() -> Self {
            let dir = TestDir::new();
            let store = Store::open(dir.path()).unwrap();
            let (action, output) = (ActionId([1; 32]), OutputId(Sha256::digest(BODY).into()));
            store
                .put(&action, &output, BODY.len() as u64, &mut &BODY[..])
                .unwrap();
            for name in ["build", "build/s1", "build/s2"] {
                std::fs::create_dir(dir.path().join(name)).unwrap();
            }
            Self {
                dir,
                store,
                action,
                output,
            }
        }

        fn session(&self, name: &str) -> (Session<'_>, std::path::PathBuf) {
            let build = self.dir.path().join("build");
            let directory = build.join(name);
            let opened = OpenDirectory::open(&directory).unwrap();
            let session = Session::with_copies(&self.store, opened, &build);
            (session, output_name(&directory, &self.output))
        }
    }

    #[test]
    fn what_is_done_to_a_copy_reaches_neither_the_store_nor_the_next_answer() {
        let made = Made::new();
        let (mut one, name) = made.session("s1");
        let (mut two, other) = made.session("s2");
        assert!(one.get(&made.action).unwrap().is_some());
        assert!(two.get(&made.action).unwrap().is_some());
        // As `go build -o x.a` does it.
        let x = made.dir.path().join("x.a");
        std::fs::set_permissions(&name, PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::rename(&name, &x).unwrap();
        assert_eq!(
            std::fs::read(&other).unwrap(),
            BODY,
            "the other session's name stays"
        );
        std::fs::write(&x, b"something").unwrap();
        for (session, name) in [(&mut one, &name), (&mut two, &other)] {
            assert!(session.get(&made.action).unwrap().is_some());
            assert_eq!(std::fs::read(name).unwrap(), BODY);
            assert_eq!(std::fs::metadata(name).unwrap().mode() & 0o7777, 0o444);
        }
        assert_eq!(
            std::fs::read(made.store.output_path(&made.output)).unwrap(),
            BODY
        );
    }

    #[test]
    fn an_output_whose_mode_was_changed_is_damage_and_a_put_repairs_it() {
        let made = Made::new();
        let path = made.store.output_path(&made.output);
        for _ in 0..2 {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
            let name = made.dir.path().join("name");
            let directory = OpenDirectory::open(made.dir.path()).unwrap();
            let link = |entry| {
                made.store
                    .link(&made.action, entry, &directory, "name")
                    .unwrap()
            };
            let entry = made.store.get(&made.action).unwrap().unwrap();
            assert!(!link(&entry));
            assert!(!name.exists() && made.store.get(&made.action).unwrap().is_none());
            made.store
                .put(
                    &made.action,
                    &made.output,
                    BODY.len() as u64,
                    &mut &BODY[..],
                )
                .unwrap();
            assert!(link(&entry));
            std::fs::remove_file(&name).unwrap();
        }
    }
}
