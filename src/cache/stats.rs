//! Statistics: what the daemon has served since its start and in the last day, and who
//! its largest users are. The file `CACHE/statistics` carries the latter two over a restart;
//! whatever is wrong with it, it is only begun anew.

use super::history::family;
use crate::counts::Counts;
use crate::error::Error;
use crate::fs;
use crate::histogram::Histogram;
use crate::log;
use crate::report::{EvictedDay, Latencies, Swept, User};
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many derivation names are remembered: those built last.
const USERS: usize = 200;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// On how many days' evictions are told.
const EVICTED_DAYS: usize = 60;

/// What was served.
#[derive(Debug)]
pub struct Stats {
    path: PathBuf,
    now: fn() -> SystemTime,
    started: SystemTime,
    /// How long gets took, in microseconds.
    pub gets: Histogram,
    /// How long puts took, in microseconds.
    pub puts: Histogram,
    /// The sizes of outputs that were put, in bytes.
    pub outputs: Histogram,
    table: Mutex<Table>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    #[serde(skip)]
    since_start: Counts,
    /// Since 1970, each with what happened in it. None is older than a day.
    #[serde(default)]
    hours: VecDeque<(u64, Counts)>,
    #[serde(default)]
    users: BTreeMap<String, User>,
    /// When the store was last swept, in seconds since 1970.
    #[serde(default)]
    swept: u64,
    /// What went on each day, the oldest first.
    #[serde(default)]
    evicted: VecDeque<EvictedDay>,
}

impl Stats {
    /// Reads what an earlier daemon has left.
    pub fn open(cache: &Path) -> Self {
        let path = cache.join("statistics");
        let mut table: Table = fs::read_to_string(&path)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        // An earlier release has left a user for each version.
        for (name, user) in std::mem::take(&mut table.users) {
            *table.users.entry(family(&name)).or_default() += user;
        }
        Self {
            path,
            now: SystemTime::now,
            started: SystemTime::now(),
            gets: Histogram::new(4),
            puts: Histogram::new(16),
            outputs: Histogram::new(64),
            table: Mutex::new(table),
        }
    }

    /// Adds what a build has done. All versions of a name are one user: it is the name's [`family`].
    pub fn add(&self, family: &str, counts: Counts) {
        let seconds = self.seconds();
        let mut table = self.table();
        table.since_start += counts;
        let hour = seconds / HOUR;
        match table.hours.back_mut() {
            Some((last, sum)) if *last == hour => *sum += counts,
            _ => table.hours.push_back((hour, counts)),
        }
        table.forget_before(hour);
        let done = User {
            read: counts.bytes_read,
            written: counts.bytes_written,
            last: seconds,
        };
        if let Some(user) = table.users.get_mut(family) {
            *user += done;
            return;
        }
        if table.users.len() >= USERS {
            let oldest = table.users.iter().min_by_key(|(_, user)| user.last);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                table.users.remove(&oldest);
            }
        }
        table.users.insert(family.into(), done);
    }

    /// What happened since the daemon's start, and how long ago that was.
    pub fn since_start(&self) -> (Counts, Duration) {
        let age = (self.now)()
            .duration_since(self.started)
            .unwrap_or_default();
        (self.table().since_start, age)
    }

    /// How long requests took, and how large outputs were.
    pub fn latencies(&self) -> Latencies {
        Latencies {
            get_us: self.gets.snapshot(),
            put_us: self.puts.snapshot(),
            output_bytes: self.outputs.snapshot(),
        }
    }

    /// What happened in the last 24 hours.
    pub fn last_day(&self) -> Counts {
        let mut table = self.table();
        table.forget_before(self.seconds() / HOUR);
        let mut sum = Counts::default();
        for (_, counts) in &table.hours {
            sum += *counts;
        }
        sum
    }

    /// The users that read and wrote most, the largest first.
    pub fn largest_users(&self, count: usize) -> Vec<(String, User)> {
        let table = self.table();
        let mut users: Vec<_> = table
            .users
            .iter()
            .map(|(name, user)| (name.clone(), *user))
            .collect();
        users.sort_by_key(|(_, user)| std::cmp::Reverse(user.read.saturating_add(user.written)));
        users.truncate(count);
        users
    }

    /// How long ago the store was last swept.
    pub fn since_sweep(&self) -> Duration {
        Duration::from_secs(self.seconds().saturating_sub(self.table().swept))
    }

    /// The store has been swept.
    pub fn swept(&self) {
        self.table().swept = self.seconds();
    }

    /// So much was evicted.
    pub fn evicted(&self, swept: &Swept) {
        if swept.outputs == 0 {
            return;
        }
        let day = self.seconds() / DAY;
        let mut table = self.table();
        if table.evicted.back().is_none_or(|last| last.day != day) {
            table.evicted.push_back(EvictedDay {
                day,
                ..EvictedDay::default()
            });
        }
        if let Some(today) = table.evicted.back_mut() {
            today.outputs += swept.outputs;
            today.bytes += swept.bytes;
        }
        while table.evicted.len() > EVICTED_DAYS {
            table.evicted.pop_front();
        }
    }

    /// What was evicted on each day, the oldest first.
    pub fn evicted_by_day(&self) -> Vec<EvictedDay> {
        self.table().evicted.iter().copied().collect()
    }

    /// Writes what a later daemon is to know.
    pub fn save(&self) {
        // Nobody waits for the disk with the table.
        let text = serde_json::to_vec(&*self.table());
        let saved = text
            .map_err(|e| Error::input(e.to_string()))
            .and_then(|text| fs::replace(&self.path, &text, 0o600));
        if let Err(e) = saved {
            log::warn(format!("saving the statistics failed: {}", e.chain()));
        }
    }

    fn seconds(&self) -> u64 {
        (self.now)()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // At worst a few numbers are missing.
        lock(&self.table)
    }
}

impl Table {
    fn forget_before(&mut self, hour: u64) {
        while self.hours.front().is_some_and(|(old, _)| old + 24 <= hour) {
            self.hours.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn hits(hits: u64) -> Counts {
        Counts {
            gets: hits,
            hits,
            bytes_read: hits * 10,
            ..Counts::default()
        }
    }

    #[test]
    fn the_last_day_and_the_users_outlive_the_daemon() {
        let dir = TestDir::new();
        let stats = Stats::open(dir.path());
        stats.add("hello", hits(3));
        stats.add("world", hits(4));
        stats.save();
        let mut stats = Stats::open(dir.path());
        assert_eq!(stats.since_start().0, Counts::default());
        assert_eq!(stats.last_day(), {
            let mut sum = hits(3);
            sum += hits(4);
            sum
        });
        assert_eq!(stats.largest_users(1)[0].0, "world");
        stats.now = || SystemTime::now() + Duration::from_secs(25 * HOUR);
        assert_eq!(stats.last_day(), Counts::default());
    }

    #[test]
    fn all_versions_of_a_name_are_one_user() {
        let dir = TestDir::new();
        let users = r#"{"users":{"hello-1.0":{"read":1,"written":2,"last":9},"hello-1.1":{"read":3,"written":4,"last":7}}}"#;
        std::fs::write(dir.path().join("statistics"), users).unwrap();
        let stats = Stats::open(dir.path());
        let hello = |read, last| User {
            read,
            written: 6,
            last,
        };
        assert_eq!(stats.largest_users(9), [("hello".into(), hello(4, 9))]);
        stats.add(&family("hello-2.0"), hits(1));
        let [(name, user)] = &stats.largest_users(9)[..] else {
            panic!("{:?}", stats.largest_users(9));
        };
        assert_eq!((name.as_str(), *user), ("hello", hello(14, user.last)));
    }

    #[test]
    fn the_number_of_users_is_bounded_and_a_new_one_gets_in() {
        let dir = TestDir::new();
        let stats = Stats::open(dir.path());
        for user in 0..USERS + 10 {
            stats.add(&user.to_string(), hits(1));
        }
        assert_eq!(stats.largest_users(usize::MAX).len(), USERS);
        stats.add("new", hits(100));
        assert_eq!(stats.largest_users(1)[0].0, "new");
    }

    #[test]
    fn evictions_add_up_by_day_and_outlive_the_daemon() {
        let dir = TestDir::new();
        let mut stats = Stats::open(dir.path());
        let swept = Swept {
            outputs: 2,
            bytes: 5,
            ..Swept::default()
        };
        stats.evicted(&Swept::default());
        assert_eq!(stats.evicted_by_day(), []);
        stats.now = || UNIX_EPOCH + Duration::from_secs(DAY);
        stats.evicted(&swept);
        stats.evicted(&swept);
        stats.save();
        let mut stats = Stats::open(dir.path());
        stats.now = || UNIX_EPOCH + Duration::from_secs(3 * DAY);
        stats.evicted(&swept);
        let days = stats.evicted_by_day();
        let days: Vec<_> = days
            .iter()
            .map(|of| (of.day, of.outputs, of.bytes))
            .collect();
        assert_eq!(days, [(1, 4, 10), (3, 2, 5)]);
    }

    #[test]
    fn a_damaged_file_is_begun_anew() {
        let dir = TestDir::new();
        std::fs::write(dir.path().join("statistics"), b"\0\0\0").unwrap();
        assert_eq!(Stats::open(dir.path()).last_day(), Counts::default());
    }
}
