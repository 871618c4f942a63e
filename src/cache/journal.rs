//! The journal: one record for each build that has ended, a line of JSON in `CACHE/journal/<day>`.
//!
//! A day's file is only ever appended to, a whole line with one `write`, so a crash can cut the last line off and harm no
//! other. A line that cannot be read is skipped. Files older than the cache's `--max-age` are removed, and a day's file
//! has a limit. A journal that cannot be written loses records, never a build.

use crate::error::{Error, Result};
use crate::fs;
use crate::log;
use crate::report::BuildRecord;
use crate::sync::lock;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest file of one day, in bytes: some 8,000 builds.
const DAY_MAX: u64 = 16 << 20;

/// The longest line, in bytes; a longer record loses its environment.
const LINE_MAX: usize = 32 << 10;

const DAY: u64 = 24 * 60 * 60;

/// The records of builds that have ended.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    now: fn() -> SystemTime,
    /// Held while a record is appended; whether the last one failed, which is logged once.
    failing: Mutex<bool>,
}

impl Journal {
    /// The journal of a cache; nothing is read or created yet.
    pub fn open(cache: &Path) -> Self {
        Self {
            directory: cache.join("journal"),
            now: SystemTime::now,
            failing: Mutex::new(false),
        }
    }

    /// Appends a record. Several records of one build, as of a dev shell that outlives a daemon, add up.
    pub fn append(&self, record: &BuildRecord) {
        let mut failing = lock(&self.failing);
        match self.write(record) {
            Ok(()) => *failing = false,
            Err(e) if !*failing => {
                *failing = true;
                log::warn(format!("build not recorded: {}", e.chain()));
            }
            Err(_) => {}
        }
    }

    fn write(&self, record: &BuildRecord) -> Result<()> {
        let mut line = encode(record)?;
        if line.len() > LINE_MAX {
            line = encode(&BuildRecord {
                environment: Vec::new(),
                compiled: Vec::new(),
                ..record.clone()
            })?;
        }
        fs::ensure_dir(&self.directory, 0o700)?;
        let path = self.directory.join((self.seconds() / DAY).to_string());
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        let length = file
            .metadata()
            .map_err(|e| Error::io("look at", &path, e))?
            .len();
        if length + line.len() as u64 > DAY_MAX {
            return Err(Error::input(format!(
                "{} has reached {DAY_MAX} bytes",
                path.display()
            )));
        }
        file.write_all(&line)
            .map_err(|e| Error::io("append to", &path, e))
    }

    /// The records of builds that ended within `since` of now, oldest first. At most `limit` of them, the newest.
    ///
    /// # Errors
    /// When the directory is there and cannot be listed.
    pub fn read(&self, since: Duration, limit: usize) -> Result<Vec<BuildRecord>> {
        let from = self.seconds().saturating_sub(since.as_secs());
        let mut records: Vec<BuildRecord> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (day, path) in self.days()? {
            if (day + 1) * DAY <= from {
                continue;
            }
            let Ok(file) = fs::open(&path) else { continue };
            for line in BufReader::new(file.take(DAY_MAX)).split(b'\n') {
                let Ok(line) = line else { break };
                let Ok(record) = serde_json::from_slice::<BuildRecord>(&line) else {
                    continue;
                };
                if record.ended < from {
                    continue;
                }
                match places.get(&record.build) {
                    Some(at) => records[*at].merge(record),
                    None => {
                        places.insert(record.build.clone(), records.len());
                        records.push(record);
                    }
                }
            }
        }
        records.sort_by_key(|record| record.ended);
        let surplus = records.len().saturating_sub(limit);
        records.drain(..surplus);
        Ok(records)
    }

    /// Removes the files of days that lie more than `max_age` back.
    pub fn prune(&self, max_age: Duration) {
        let oldest = self.seconds().saturating_sub(max_age.as_secs()) / DAY;
        let days = self.days().unwrap_or_default();
        for (_, path) in days.iter().filter(|(day, _)| *day < oldest) {
            if let Err(e) = fs::remove_file(path) {
                log::warn(e.chain());
            }
        }
    }

    /// The days that have a file, oldest first.
    fn days(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut days = Vec::new();
        if !self.directory.exists() {
            return Ok(days);
        }
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(day) = name.to_str().and_then(|name| name.parse().ok()) {
                days.push((day, entry.path()));
            }
        }
        days.sort_unstable();
        Ok(days)
    }

    fn seconds(&self) -> u64 {
        (self.now)()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    }
}

fn encode(record: &BuildRecord) -> Result<Vec<u8>> {
    // On a line of its own, whatever a crash has left of the last one.
    let mut line = vec![b'\n'];
    serde_json::to_writer(&mut line, record).map_err(|e| Error::input(e.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn today() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(20_000 * DAY + 500)
    }

    fn journal(dir: &TestDir) -> Journal {
        Journal {
            now: today,
            ..Journal::open(dir.path())
        }
    }

    fn record(build: &str, ended: u64) -> BuildRecord {
        BuildRecord {
            build: build.into(),
            name: "hello-1.0".into(),
            ended,
            ..BuildRecord::default()
        }
    }

    #[test]
    fn records_read_back_oldest_first_and_those_of_one_build_add_up() {
        let dir = TestDir::new();
        let journal = journal(&dir);
        let now = 20_000 * DAY + 400;
        journal.append(&record("b", now));
        journal.append(&record("a", now - 10));
        let mut again = record("b", now + 5);
        again.counts.hits = 7;
        journal.append(&again);
        journal.append(&again);
        again.counts.hits = 14;
        let read = journal.read(Duration::from_secs(DAY), 10).unwrap();
        assert_eq!(read, [record("a", now - 10), again.clone()]);
        assert_eq!(journal.read(Duration::from_secs(DAY), 1).unwrap(), [again]);
        assert_eq!(journal.read(Duration::from_secs(3), 10).unwrap(), []);
    }

    #[test]
    fn a_torn_or_foreign_line_harms_no_other() {
        let dir = TestDir::new();
        let journal = journal(&dir);
        let now = 20_000 * DAY + 400;
        journal.append(&record("a", now));
        let path = dir.path().join("journal/20000");
        let mut bytes = std::fs::read(&path).unwrap();
        let torn = bytes[..bytes.len() / 2].to_vec();
        bytes.extend(b"\0\0\xff not json\n");
        bytes.extend(torn);
        std::fs::write(&path, bytes).unwrap();
        journal.append(&record("after the torn line", now));
        journal.append(&record("b", now));
        let read = journal.read(Duration::from_secs(DAY), 10).unwrap();
        let builds: Vec<_> = read.iter().map(|record| record.build.as_str()).collect();
        assert_eq!(builds, ["a", "after the torn line", "b"]);
    }

    #[test]
    fn old_days_go_and_a_days_file_is_bounded() {
        let dir = TestDir::new();
        let journal = journal(&dir);
        journal.append(&record("new", 20_000 * DAY));
        let old = dir.path().join("journal/19000");
        std::fs::write(&old, b"{}\n").unwrap();
        journal.prune(Duration::from_secs(60 * DAY));
        assert!(!old.exists());
        assert_eq!(journal.read(Duration::from_secs(DAY), 10).unwrap().len(), 1);
        let full = OpenOptions::new()
            .write(true)
            .open(dir.path().join("journal/20000"))
            .unwrap();
        full.set_len(DAY_MAX).unwrap();
        assert!(journal.write(&record("too much", 20_000 * DAY)).is_err());
    }

    #[test]
    fn a_long_environment_is_left_out_rather_than_the_record() {
        let dir = TestDir::new();
        let journal = journal(&dir);
        let mut long = record("long", 20_000 * DAY + 1);
        long.environment = vec![("NIX_CFLAGS_COMPILE".into(), "x".repeat(LINE_MAX))];
        journal.append(&long);
        let read = journal.read(Duration::from_secs(DAY), 10).unwrap();
        assert_eq!(read, [record("long", 20_000 * DAY + 1)]);
    }
}
