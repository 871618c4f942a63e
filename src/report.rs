//! What the daemon reports about itself, in the form that crosses the control socket and that `stats --json` prints.

use crate::counts::Counts;
use crate::histogram::Snapshot;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The most packages that are recorded of a build.
pub const COMPILED_MAX: usize = 100;

/// The most parts of an environment that are recorded of a build.
pub const ENVIRONMENT_MAX: usize = 128;

/// How things are.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format: fields are added without a new one.
    #[serde(default = "first")]
    pub schema: u32,
    /// The daemon's version.
    pub version: String,
    /// The cache directory.
    pub cache: PathBuf,
    /// The most that outputs may take on disk, in bytes.
    pub max_size: u64,
    /// What was not used for so long goes, in seconds.
    pub max_age: u64,
    /// How much of the file system is to be left free, in bytes.
    pub min_free: u64,
    /// How much of it is free, in bytes.
    pub free: u64,
    /// What is in the store.
    pub contents: Contents,
    /// Builds that are registered and have not ended.
    pub builds: usize,
    /// Sessions that are open.
    pub sessions: usize,
    /// How long ago the daemon was started, in seconds.
    pub running: u64,
    /// What happened since then.
    pub since_start: Counts,
    /// What happened in the last 24 hours.
    pub last_day: Counts,
    /// The derivation names whose builds have got and put most.
    pub users: Vec<(String, User)>,
    /// How long requests took, and how large outputs were, since the daemon's start.
    #[serde(default)]
    pub latencies: Latencies,
    /// What was evicted on each day, the oldest first; days without are left out.
    #[serde(default)]
    pub evicted: Vec<EvictedDay>,
    /// How things are with the remote, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteReport>,
}

/// What was evicted on one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvictedDay {
    /// Days since 1970.
    pub day: u64,
    /// Outputs that went.
    pub outputs: u64,
    /// What they took on disk, in bytes.
    pub bytes: u64,
}

fn first() -> u32 {
    1
}

/// How long requests took in the daemon, and how large outputs were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// Gets, in microseconds.
    pub get_us: Snapshot,
    /// Puts, in microseconds.
    pub put_us: Snapshot,
    /// Outputs that were put, in bytes.
    pub output_bytes: Snapshot,
}

/// What there is in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Outputs.
    pub outputs: u64,
    /// What they take on disk, in bytes.
    pub bytes: u64,
    /// What live builds use of that, in bytes.
    pub live_bytes: u64,
    /// Actions.
    pub actions: u64,
    /// How long ago the least recently used output was used, in seconds.
    pub oldest: u64,
    /// What caches take that were set aside for their format, in bytes.
    #[serde(default)]
    pub set_aside: u64,
}

/// What a sweep has done, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Outputs that went.
    pub outputs: u64,
    /// Actions that went.
    pub actions: u64,
    /// What the outputs that went took on disk, in bytes.
    pub bytes: u64,
    /// Outputs that stay.
    pub left_outputs: u64,
    /// Actions that stay.
    pub left_actions: u64,
    /// What the outputs that stay take on disk, in bytes.
    pub left_bytes: u64,
    /// What live builds use of that, in bytes.
    pub live_bytes: u64,
    /// How long ago that which stays was last used at most, in seconds.
    pub oldest: u64,
    /// What went of caches that were set aside, in bytes.
    #[serde(default)]
    pub set_aside: u64,
}

/// What a verification has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Outputs that were read.
    pub outputs: u64,
    /// What they take on disk, in bytes.
    pub bytes: u64,
    /// Outputs that are damaged.
    pub damaged: u64,
    /// Actions that are damaged, or whose output is missing or damaged.
    pub actions: u64,
}

/// What the builds of one derivation name, in all its versions, have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The size of the outputs they got, in bytes.
    pub read: u64,
    /// The size of the outputs they put, in bytes.
    pub written: u64,
    /// The last time, in seconds since 1970.
    pub last: u64,
}

impl std::ops::AddAssign for User {
    fn add_assign(&mut self, more: Self) {
        self.read = self.read.saturating_add(more.read);
        self.written = self.written.saturating_add(more.written);
        self.last = self.last.max(more.last);
    }
}

/// How things are with the remote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoteReport {
    /// Where it is, without credentials.
    pub url: String,
    /// What may be done with it.
    pub mode: String,
    /// Gets that it answered with an output.
    pub hits: u64,
    /// Gets that it had nothing for.
    pub misses: u64,
    /// Outputs that were fetched before anybody asked.
    pub ahead: u64,
    /// Gets that did not wait for it any longer.
    pub late: u64,
    /// Bytes of outputs that came from it.
    pub received: u64,
    /// Bytes of outputs that went there.
    pub sent: u64,
    /// Bytes of bodies that came from it, packed as they came.
    pub wire_received: u64,
    /// Bytes of bodies that went there, packed as they went.
    pub wire_sent: u64,
    /// Entries and lists that were ignored for want of a signature by a trusted key.
    pub untrusted: u64,
    /// Entries and lists that were ignored because they could not be read.
    pub malformed: u64,
    /// Only entries that are signed by a trusted key count.
    pub verifies: bool,
    /// What is put is signed.
    pub signs: bool,
    /// Actions that were uploaded.
    pub uploads: u64,
    /// Actions that were there already.
    pub there: u64,
    /// Actions that it would not take, or that were gone before their turn came.
    pub refused: u64,
    /// Actions that wait to be uploaded.
    pub queue: u64,
    /// Actions that are not uploaded because too many waited.
    pub dropped: u64,
    /// Actions and lists that were given up for any of these reasons, but for those that were gone, and not uploaded since.
    pub given_up: u64,
    /// Why the last upload failed that did.
    pub upload_failure: Option<String>,
    /// Outputs that were not what their name says, and were thrown away.
    pub damaged: u64,
    /// Requests that failed.
    pub errors: u64,
    /// How long gets have waited for it in all, in microseconds.
    pub waited_us: u64,
    /// The mean time of a request that somebody waited for, in microseconds.
    pub latency_us: u64,
    /// Why nothing is asked of it for now, if it is so.
    pub reading_paused: Option<String>,
    /// Why nothing is uploaded for now, if it is so.
    pub writing_paused: Option<String>,
}

/// What stands for the name of a build that has none.
pub const NO_NAME: &str = "(dev shell)";

/// Whose counts these are, for a person: those of all builds of a name, or of a user's dev shells.
pub fn whose(name: &str) -> String {
    if name.is_empty() {
        "(dev shells)".into()
    } else if name.starts_with("user ") {
        // As a tier calls itself; no derivation's name has a blank.
        format!("(dev shells) of {name}")
    } else {
        name.into()
    }
}

/// What is recorded of a build that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildRecord {
    /// The first digits of the build ID, enough to tell builds apart.
    pub build: String,
    /// The derivation's name; empty for a dev shell.
    pub name: String,
    /// When it was registered, in seconds since 1970.
    pub started: u64,
    /// When its last session ended, in seconds since 1970.
    pub ended: u64,
    /// What it got and put.
    pub counts: Counts,
    /// How long it took to compile what came from the cache, as measured when it was put, in milliseconds.
    pub saved_ms: u64,
    /// `on`, `readonly` or `audit`.
    pub mode: String,
    /// The user whose processes it was.
    pub user: Option<u32>,
    /// `shared`, or the user whose tier it was.
    pub tier: String,
    /// A session broke off, so the build may have gone on without the cache.
    pub broken_off: bool,
    /// What separates builds of this name from each other: names and short values, as the client said them (`parts.rs`).
    pub environment: Vec<(String, String)>,
    /// The packages whose archives it put, in the order in which they came: the first of them, if there are many.
    pub compiled: Vec<Compiled>,
    /// How many packages it put.
    pub packages: u64,
    /// How many actions it put that an earlier build of this name had used: their outputs were evicted.
    pub evicted: u64,
}

/// A package that a build has compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// Its path.
    pub package: String,
    /// Why.
    pub cause: Cause,
}

/// Why a package was compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// It imports nothing that was compiled with it: its own files have changed, or what it is built with.
    Changed,
    /// It imports something that was compiled.
    Depends,
    /// An earlier build had the same action, whose output is not there any more.
    Evicted,
}

/// What is going on right now: cheap to ask for, each second if need be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// What happened since the daemon's start.
    pub since_start: Counts,
    /// What outputs take on disk, in bytes.
    pub bytes: u64,
    /// The most that they may take, in bytes.
    pub max_size: u64,
    /// Builds that are registered and have not ended, the one used last first.
    pub builds: Vec<LiveBuild>,
    /// How things are with the remote, if there is one.
    pub remote: Option<RemoteReport>,
}

/// A build that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveBuild {
    /// The first digits of the build ID.
    pub build: String,
    /// The derivation's name; empty for a dev shell.
    pub name: String,
    /// How long ago it was registered, in seconds.
    pub age: u64,
    /// Sessions that are open.
    pub sessions: usize,
    /// What it got and put.
    pub counts: Counts,
}

impl BuildRecord {
    /// Adds what a session has said of what separates it from others. One build may have several of a name.
    pub fn add_environment(&mut self, environment: Vec<(String, String)>) {
        for part in environment {
            if !self.environment.contains(&part) && self.environment.len() < ENVIRONMENT_MAX {
                self.environment.push(part);
            }
        }
    }

    /// Adds what a later daemon has seen of the same build.
    pub fn merge(&mut self, later: Self) {
        self.started = self.started.min(later.started);
        self.ended = self.ended.max(later.ended);
        self.counts += later.counts;
        self.saved_ms += later.saved_ms;
        self.broken_off |= later.broken_off;
        self.compiled.extend(later.compiled);
        self.compiled.truncate(COMPILED_MAX);
        self.packages += later.packages;
        self.evicted += later.evicted;
        self.add_environment(later.environment);
    }
}
