//! What a file or a folder is, as far as a build can depend on it.
//!
//! What is in the Nix store never changes, so there the path is enough. Below the build's own directory and outputs nothing
//! but the bytes says anything: all times are of this build. Everywhere else it is path, size, time and inode,
//! as it is for Make and its like, since to read a compiler at each `go` command would take too long.

use super::record::Record;
use crate::sha256::Sha256;
use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const STORE: &str = "/nix/store";

/// How many files of a folder are looked at. A folder with more is known by what was looked at and by when it was last
/// looked at: it is never the same twice.
const FILES_MAX: usize = 100_000;

/// Scripts are read, whatever is larger is a compiled program.
const SCRIPT_MAX: u64 = 64 << 10;

/// Where only bytes count.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    /// The build's own directory and outputs.
    own: Vec<PathBuf>,
}

impl Identities {
    /// With the directories that this build fills itself.
    pub fn new(own: Vec<PathBuf>) -> Self {
        Self { own }
    }

    /// Whether this build fills it itself.
    pub fn is_own(&self, path: &Path) -> bool {
        self.own.iter().any(|own| path.starts_with(own))
    }

    /// Whether it is in the store, and not of this build.
    pub fn is_fixed(&self, path: &Path) -> bool {
        path.starts_with(STORE) && !self.is_own(path)
    }

    /// Adds a program, or a file that it is told of by path.
    pub fn add_file(&self, record: &mut Record, name: &str, path: &Path) {
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(e) => return record.add_failure(name, path, &e),
        };
        record.add(name, real.as_os_str().as_bytes());
        if self.is_fixed(&real) {
            return;
        }
        match real.metadata() {
            Ok(found) if found.is_dir() => self.add_folder(record, name, &real, true),
            Ok(found) => self.add_content(record, &real, &found),
            Err(e) => record.add_failure(name, &real, &e),
        }
    }

    /// Adds a folder, with all that is below it if it is `deep`.
    pub fn add_folder(&self, record: &mut Record, name: &str, path: &Path, deep: bool) {
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(e) => return record.add_failure(name, path, &e),
        };
        record.add(name, real.as_os_str().as_bytes());
        if !self.is_fixed(&real) {
            let mut left = FILES_MAX;
            let mut followed = HashSet::from([real.clone()]);
            self.walk(record, &real, deep, &mut left, &mut followed);
            if left == 0 {
                record.add(
                    "too many files",
                    format!("{:?}", std::time::SystemTime::now()),
                );
            }
        }
    }

    fn walk(
        &self,
        record: &mut Record,
        folder: &Path,
        deep: bool,
        left: &mut usize,
        followed: &mut HashSet<PathBuf>,
    ) {
        let listed = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<_>>);
        let mut entries: Vec<_> = match listed {
            Ok(entries) => entries,
            Err(e) => return record.add_failure("folder", folder, &e),
        };
        entries.sort_unstable_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return;
            }
            let path = entry.path();
            record.add("entry", entry.file_name().as_bytes());
            if let Ok(target) = std::fs::read_link(&path) {
                record.add("link", target.as_os_str().as_bytes());
            }
            match path.metadata() {
                Ok(found) if found.is_dir() => {
                    let is_link = !entry.file_type().is_ok_and(|kind| kind.is_dir());
                    // What a link leads to is walked once, for it may lead back here, and only in the build's own directories:
                    // elsewhere it may lead anywhere.
                    let leads_to = is_link.then(|| path.canonicalize().unwrap_or_default());
                    let is_followed =
                        |real: &PathBuf| self.is_own(real) && followed.insert(real.clone());
                    if deep && leads_to.as_ref().is_none_or(is_followed) {
                        self.walk(
                            record,
                            leads_to.as_ref().unwrap_or(&path),
                            deep,
                            left,
                            followed,
                        );
                    }
                    record.add("end", "");
                }
                Ok(found) if found.is_file() => self.add_content(record, &path, &found),
                Ok(_) => {}
                Err(e) => record.add_failure("entry", &path, &e),
            }
        }
    }

    /// Adds what a file holds: its bytes, or what says that they have not changed.
    fn add_content(&self, record: &mut Record, path: &Path, found: &Metadata) {
        let is_script = || found.len() <= SCRIPT_MAX && begins_as_script(path);
        if found.is_file() && (self.is_own(path) || is_script()) {
            match hash(path) {
                Ok(bytes) => record.add("bytes", bytes),
                Err(e) => record.add_failure("bytes", path, &e),
            }
        } else {
            add_state(record, found);
        }
    }
}

/// Adds what changes when a file does.
pub fn add_state(record: &mut Record, found: &Metadata) {
    record.add_number("size", found.len());
    record.add_number("seconds", found.mtime() as u64);
    record.add_number("nanoseconds", found.mtime_nsec() as u64);
    record.add_number("inode", found.ino());
}

fn begins_as_script(path: &Path) -> bool {
    let mut start = [0; 2];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start == *b"#!"
}

fn hash(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut file = BufReader::new(File::open(path)?);
    std::io::copy(&mut file, &mut hash)?;
    Ok(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::fs::write;

    fn of(identities: &Identities, path: &Path) -> [u8; 32] {
        let mut record = Record::new("test");
        identities.add_file(&mut record, "file", path);
        record.finish()
    }

    #[test]
    fn in_the_builds_own_directories_bytes_count_and_times_do_not() {
        let dir = TestDir::new();
        let own = Identities::new(vec![dir.path().canonicalize().unwrap()]);
        let (folder, file) = (
            dir.path().join("include"),
            dir.path().join("include/deep/v.h"),
        );
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        write(&file, "#define V 1").unwrap();
        let first = [of(&own, &file), of(&own, &folder)];
        std::fs::remove_file(&file).unwrap();
        write(&file, "#define V 1").unwrap();
        assert_eq!([of(&own, &file), of(&own, &folder)], first);
        write(&file, "#define V 2").unwrap();
        assert_ne!(of(&own, &file), first[0]);
        assert_ne!(of(&own, &folder), first[1]);
        write(&file, "#define V 1").unwrap();
        write(folder.join("other.h"), "").unwrap();
        assert_ne!(of(&own, &folder), first[1]);
    }

    #[test]
    fn what_a_link_in_an_own_folder_leads_to_counts_and_may_lead_back() {
        let dir = TestDir::new();
        let top = dir.path().canonicalize().unwrap();
        let own = Identities::new(vec![top.clone()]);
        for folder in ["staged", "library/include"] {
            std::fs::create_dir_all(top.join(folder)).unwrap();
        }
        std::os::unix::fs::symlink("../library/include", top.join("staged/library")).unwrap();
        std::os::unix::fs::symlink("../../staged", top.join("library/include/back")).unwrap();
        let of_version = |version: &str| {
            write(top.join("library/include/v.h"), version).unwrap();
            of(&own, &top.join("staged"))
        };
        assert_eq!(of_version("1"), of_version("1"));
        assert_ne!(of_version("1"), of_version("2"));
    }

    #[test]
    fn elsewhere_a_file_that_was_replaced_is_another() {
        let dir = TestDir::new();
        let file = dir.path().join("gcc");
        write(&file, "\x7fELF 1").unwrap();
        let first = of(&Identities::default(), &file);
        assert_eq!(of(&Identities::default(), &file), first);
        write(dir.path().join("new"), "\x7fELF 2").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        assert_ne!(of(&Identities::default(), &file), first);
    }

    #[test]
    fn a_script_is_known_by_its_bytes() {
        let dir = TestDir::new();
        let file = dir.path().join("cc");
        let of_script = |text: &str| {
            let _ = std::fs::remove_file(&file);
            write(&file, text).unwrap();
            of(&Identities::default(), &file)
        };
        assert_eq!(of_script("#!/bin/sh\ngcc"), of_script("#!/bin/sh\ngcc"));
        assert_ne!(of_script("#!/bin/sh\ngcc"), of_script("#!/bin/sh\nclang"));
    }
}
