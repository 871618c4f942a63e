//! The table of a tree's times as they were, beside the tree, until they are put back.
//!
//! A head, then for each row ten little-endian numbers of 8 bytes and the path: its length, then its bytes. A table that is
//! cut short or of another version is not read at all.

use crate::error::{Error, Result};
use crate::fs;
use crate::sys::Mtime;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The version, in a head of 8 bytes.
const HEAD: &[u8; 8] = b"times 1\n";

/// The numbers of a row.
const NUMBERS: usize = 10;

/// A file, a link or a directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    pub path: PathBuf,
    /// Its mtime without us.
    pub before: Mtime,
    /// Its mtime while it is stamped.
    pub stamp: Mtime,
    inode: u64,
    size: u64,
    /// When its inode was last changed, which nobody can set.
    changed: (i64, i64),
}

impl Row {
    pub fn new(path: PathBuf, found: &Metadata, stamp: Mtime) -> Self {
        let mut row = Row {
            path,
            before: mtime(found),
            stamp,
            inode: 0,
            size: 0,
            changed: (0, 0),
        };
        row.note(found);
        row
    }

    /// Remembers it as it is now.
    pub fn note(&mut self, found: &Metadata) {
        self.inode = found.ino();
        self.size = found.size();
        self.changed = (found.ctime(), found.ctime_nsec());
    }

    /// Whether nothing at all was done to it since it was noted.
    pub fn is_unchanged(&self, found: &Metadata) -> bool {
        self.is_as_before(found) && self.changed == (found.ctime(), found.ctime_nsec())
    }

    /// Whether it is the same thing, with the time that it had.
    pub fn is_as_before(&self, found: &Metadata) -> bool {
        mtime(found) == self.before && self.inode == found.ino() && self.size == found.size()
    }

    /// Whether it has its stamp, so that nobody has written to it since.
    pub fn is_stamped(&self, found: &Metadata) -> bool {
        mtime(found) == self.stamp
    }
}

fn mtime(found: &Metadata) -> Mtime {
    Mtime {
        seconds: found.mtime(),
        nanoseconds: found.mtime_nsec() as u32,
    }
}

/// Writes it, replacing an older one as a whole.
pub fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let mut bytes = HEAD.to_vec();
    for row in rows {
        let name = row.path.as_os_str().as_bytes();
        let numbers: [i64; NUMBERS] = [
            row.before.seconds,
            row.before.nanoseconds.into(),
            row.stamp.seconds,
            row.stamp.nanoseconds.into(),
            row.inode as i64,
            row.size as i64,
            row.changed.0,
            row.changed.1,
            0,
            name.len() as i64,
        ];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(name);
    }
    let fresh = path.with_extension("new");
    fs::remove_file(&fresh)?;
    let file = fs::create_new(&fresh, 0o600)?;
    fs::write_all(&file, &fresh, &bytes)?;
    fs::rename(&fresh, path)
}

/// Reads one.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let bytes = fs::read(path)?;
    let rows = bytes.strip_prefix(HEAD).and_then(parse);
    rows.ok_or_else(|| Error::input(format!("{} is not a table of times", path.display())))
}

fn parse(mut bytes: &[u8]) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let mut numbers = [0; NUMBERS];
        for number in &mut numbers {
            let (first, rest) = bytes.split_first_chunk()?;
            (*number, bytes) = (i64::from_le_bytes(*first), rest);
        }
        let [
            before,
            before_ns,
            stamp,
            stamp_ns,
            inode,
            size,
            changed,
            changed_ns,
            _,
            length,
        ] = numbers;
        let (name, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
        bytes = rest;
        let time = |seconds, nanoseconds| {
            let nanoseconds = u32::try_from(nanoseconds).ok()?;
            Some(Mtime {
                seconds,
                nanoseconds,
            })
        };
        rows.push(Row {
            path: OsStr::from_bytes(name).into(),
            before: time(before, before_ns)?,
            stamp: time(stamp, stamp_ns)?,
            inode: inode as u64,
            size: size as u64,
            changed: (changed, changed_ns),
        });
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn a_table_is_read_as_it_was_written_or_not_at_all() {
        let dir = TestDir::new();
        let path = dir.path().join("times");
        let found = fs::metadata(dir.path()).unwrap();
        let stamp = Mtime {
            seconds: 400_000_000,
            nanoseconds: 999_999_999,
        };
        let rows = ["a", "b\nc", ""].map(|name| Row::new(name.into(), &found, stamp));
        write(&path, &rows).unwrap();
        assert_eq!(read(&path).unwrap(), rows);
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 7, 9, 40, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(read(&path).is_err(), "{length}");
        }
        assert_eq!(parse(&[]).unwrap(), []);
    }
}
