//! Build directories: what one build can see of the cache.
//!
//! ```text
//! CACHE/builds/<build id>/<output id>   hard links to the outputs of this build's requests
//! CACHE/registered/<build id>           what is known of the build, for a restarted daemon
//! ```
//!
//! `builds` can be entered but not listed by others, and a build ID cannot be guessed. A build
//! directory is removed when its build has ended and its last session too, and not before.

use crate::cache::prefetched;
use crate::config::{
    ACTION_SIZE, BUILD_LIMIT, OWN_BUILDS_MAX, PUTS_PER_BUILD_MAX, PUTS_PER_USER_EVERY,
    SESSIONS_PER_BUILD_MAX, UNSEEN_BUILD_LIMIT,
};
use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{BuildId, OutputId, hex_path};
use crate::log;
use crate::mode::Mode;
use crate::report::{BuildRecord, LiveBuild};
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// All builds that are registered.
#[derive(Debug)]
pub struct Builds {
    directories: PathBuf,
    records: PathBuf,
    now: fn() -> SystemTime,
    /// What one build may put, and one user's builds in a day, in bytes.
    put_limit: u64,
    /// Guards the table and, with it, which directories exist. Nothing that a peer named is looked at under it.
    table: Mutex<HashMap<BuildId, Build>>,
    /// What each user's builds have put.
    users: Mutex<HashMap<u32, Spent>>,
    /// Who looks at lifelines right now.
    reapers: Mutex<Reapers>,
    /// Sessions that have ended of builds that registered themselves.
    own_sessions_ended: AtomicU64,
}

/// What is said of a build when it is registered.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// The derivation's name, or what the build calls itself.
    pub name: String,
    /// A path on this host that is there as long as the build is.
    pub lifeline: Option<PathBuf>,
    /// The user whose build registers itself; none when the hook does it.
    pub user: Option<u32>,
    /// Whom it is counted as one of; its user if none.
    pub account: Option<u32>,
    /// What the build may do.
    pub mode: Mode,
    /// All builds of the user share one budget.
    pub has_user_budget: bool,
    /// Nix gives the build no network, so it has no modules to put.
    pub fetches_nothing: bool,
}

/// What a user's builds have put since a point in time, in bytes.
#[derive(Debug)]
struct Spent {
    since: SystemTime,
    bytes: u64,
}

/// The threads that look at lifelines: a path of a peer's may lead to a server that does not answer.
#[derive(Debug, Default)]
struct Reapers {
    /// When the latest began, unless it has ended.
    running: Option<Instant>,
    /// Those that did not come back in time.
    stuck: usize,
    serial: u64,
}

/// The longest name of a build, in bytes; a store path's has no more.
const NAME_MAX: usize = 211;

/// A thread that looks at lifelines for longer than this is left behind.
const REAPER_LIMIT: Duration = Duration::from_secs(60);

/// With so many threads left behind, lifelines that users have named are not looked at any more.
const STUCK_MAX: usize = 8;

/// What is known of a build, as it stands in its record.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    /// The derivation's name, or what the build calls itself.
    name: String,
    /// A path on this host that is there as long as the build is.
    lifeline: Option<PathBuf>,
    /// The user whose build registered itself; none when the hook did it.
    #[serde(default)]
    user: Option<u32>,
    /// The user of a build that the hook registered: the first that said hello.
    #[serde(default)]
    pinned: Option<u32>,
    #[serde(default)]
    mode: Mode,
    /// Whom it is counted as one of; its user if none.
    #[serde(default)]
    account: Option<u32>,
    #[serde(default)]
    has_user_budget: bool,
    #[serde(default)]
    fetches_nothing: bool,
}

impl Record {
    /// Whom limits count a build that registered itself as one of.
    fn account(&self) -> Option<u32> {
        self.account.or(self.user)
    }
}

#[derive(Debug)]
struct Build {
    record: Record,
    /// A thread looks at its lifeline.
    is_looked_at: bool,
    created: SystemTime,
    last_used: SystemTime,
    sessions: usize,
    /// What it has put so far, in bytes.
    put: u64,
    /// What has happened in all its sessions since the daemon's start.
    counts: Arc<Mutex<Counts>>,
    /// What else is to be recorded of it.
    noted: Arc<Mutex<BuildRecord>>,
}

/// A build directory in use by a session: it stays as long as this does.
#[derive(Debug)]
pub struct BuildDir {
    id: BuildId,
    name: Arc<str>,
    mode: Mode,
    is_hooked: bool,
    budget_of: Option<u32>,
    fetches_nothing: bool,
    path: PathBuf,
    counts: Arc<Mutex<Counts>>,
    noted: Arc<Mutex<BuildRecord>>,
    builds: Arc<Builds>,
}

impl Builds {
    /// Opens the build directories of a cache, with those of builds that an earlier daemon
    /// registered.
    ///
    /// # Errors
    /// When a directory cannot be made or read.
    pub fn open(cache: &Path) -> Result<Self> {
        let builds = Self {
            directories: cache.join("builds"),
            records: cache.join("registered"),
            now: SystemTime::now,
            put_limit: PUTS_PER_BUILD_MAX,
            table: Mutex::default(),
            users: Mutex::default(),
            reapers: Mutex::default(),
            own_sessions_ended: AtomicU64::default(),
        };
        fs::ensure_dir(&builds.directories, 0o711)?;
        fs::ensure_dir(&builds.records, 0o700)?;
        let mut table = HashMap::new();
        for entry in fs::read_dir(&builds.records)? {
            let path = entry?.path();
            match builds.read_record(&path) {
                Ok(Some((id, build))) => {
                    table.insert(id, build);
                }
                Ok(None) => fs::remove_file(&path)?,
                // The build may be running, and was told of files in its directory.
                Err(e) => log::warn(format!(
                    "keeping a build's directory without knowing whose it is: {}",
                    e.chain()
                )),
            }
        }
        for entry in fs::read_dir(&builds.directories)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(BuildId::parse);
            let record = id.map(|id| builds.records.join(id.to_string()));
            if !matches!(record, Some(record) if fs::metadata_if_there(&record)?.is_some()) {
                remove_directory(&entry.path())?;
            }
        }
        *builds.table() = table;
        Ok(builds)
    }

    /// The same, with one build, and one user's builds in a day, putting at most so many bytes.
    pub fn with_put_limit(self, put_limit: u64) -> Self {
        Self { put_limit, ..self }
    }

    /// Registers a build and makes its directory. A lifeline that is not there, or that is not its user's own, says
    /// nothing.
    ///
    /// # Errors
    /// When the record or the directory cannot be written, or the user has too many builds.
    pub fn register(&self, build: Registration) -> Result<BuildId> {
        if let Some(account) = build.account.or(build.user) {
            self.make_room(account)?;
        }
        let id = BuildId::new()?;
        let is_own = |metadata: &Metadata| build.user.is_none_or(|user| metadata.uid() == user);
        let record = Record {
            name: bounded_name(&build.name),
            lifeline: build.lifeline.filter(|path| {
                path.is_absolute() && path.symlink_metadata().is_ok_and(|m| is_own(&m))
            }),
            user: build.user,
            pinned: None,
            mode: build.mode,
            account: build.account,
            has_user_budget: build.has_user_budget,
            fetches_nothing: build.fetches_nothing,
        };
        let made = self
            .write_record(id, &record)
            .and_then(|()| fs::create_dir(&self.directory(id), 0o711));
        if let Err(e) = made {
            // A full disk must not be filled with what is left of failures.
            fs::remove_file(&self.records.join(id.to_string()))?;
            return Err(e);
        }
        let now = (self.now)();
        self.table().insert(
            id,
            Build {
                record,
                is_looked_at: false,
                created: now,
                last_used: now,
                sessions: 0,
                put: 0,
                counts: Arc::default(),
                noted: Arc::default(),
            },
        );
        Ok(id)
    }

    /// The path of a build's directory.
    pub fn directory(&self, id: BuildId) -> PathBuf {
        self.directories.join(id.to_string())
    }

    fn write_record(&self, id: BuildId, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|e| Error::input(e.to_string()))?;
        let path = self.records.join(id.to_string());
        let fresh = self.records.join(format!("{id}.new"));
        let written = std::fs::write(&fresh, text)
            .map_err(|e| Error::io("write", &fresh, e))
            .and_then(|()| fs::rename(&fresh, &path));
        if written.is_err() {
            // The first error says more than a second one.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    /// Holds a build's directory for a session of this user. A build that registered itself is its user's. One that the hook
    /// registered belongs to the first of Nix's users that enters it: a build ID can be read in `/proc/PID/mountinfo` by
    /// anybody, and opens nothing to anybody else.
    ///
    /// # Errors
    /// When there is no such build, it is another user's, or it has too many sessions.
    pub fn enter_as(self: &Arc<Self>, id: BuildId, user: u32, is_nix: bool) -> Result<BuildDir> {
        // The same error, or it would say that there is one.
        let unknown = || {
            Error::peer(format!(
                "user {user} has no build of that ID; for one of Nix's builds, start the daemon with \
                 --build-users-group or --trusted-user"
            ))
        };
        let mut table = self.table();
        let record = &mut table.get_mut(&id).ok_or_else(unknown)?.record;
        match record.user.or(record.pinned) {
            Some(owner) if owner == user => drop(table),
            Some(_) => return Err(unknown()),
            None if !is_nix => return Err(unknown()),
            None => {
                record.pinned = Some(user);
                let record = record.clone();
                drop(table);
                // For the next daemon. It does not matter to this one.
                if let Err(e) = self.write_record(id, &record) {
                    log::warn(e.chain());
                }
            }
        }
        self.enter(id)
    }

    /// Holds a build's directory, whoever its user is.
    ///
    /// # Errors
    /// When there is no such build, or it has too many sessions.
    pub fn enter(self: &Arc<Self>, id: BuildId) -> Result<BuildDir> {
        let mut table = self.table();
        let build = table
            .get_mut(&id)
            .ok_or_else(|| Error::peer("no build of that ID is registered here"))?;
        if build.sessions >= SESSIONS_PER_BUILD_MAX {
            return Err(Error::peer(format!(
                "the build has {SESSIONS_PER_BUILD_MAX} sessions already"
            )));
        }
        build.sessions += 1;
        Ok(BuildDir {
            id,
            name: build.record.name.as_str().into(),
            mode: build.record.mode,
            is_hooked: build.record.user.is_none(),
            budget_of: build
                .record
                .account()
                .filter(|_| build.record.has_user_budget),
            fetches_nothing: build.record.fetches_nothing,
            path: self.directory(id),
            counts: Arc::clone(&build.counts),
            noted: Arc::clone(&build.noted),
            builds: Arc::clone(self),
        })
    }

    /// What has happened in a build of this user: in the one of this ID or, without one, in all that
    /// registered themselves from this directory.
    pub fn counts(&self, id: Option<BuildId>, top: Option<&Path>, user: u32) -> Counts {
        let table = self.table();
        let mut sum = Counts::default();
        let of = |build: &Build| *lock(&build.counts);
        match (id, top) {
            (Some(id), _) => {
                if let Some(build) = table.get(&id).filter(|build| build.is_of(user)) {
                    sum = of(build);
                }
            }
            (None, Some(top)) => table
                .values()
                .filter(|build| build.is_of(user) && build.record.lifeline.as_deref() == Some(top))
                .for_each(|build| sum += of(build)),
            (None, None) => {}
        }
        sum
    }

    /// How many builds are registered, and how many sessions they have open.
    pub fn live(&self) -> (usize, usize) {
        let table = self.table();
        let sessions = table.values().map(|build| build.sessions).sum();
        (table.len(), sessions)
    }

    /// How many sessions have ended so far of builds that registered themselves.
    pub fn own_sessions_ended(&self) -> u64 {
        self.own_sessions_ended.load(Ordering::Relaxed)
    }

    /// The builds that are registered, the one used last first.
    pub fn live_builds(&self) -> Vec<LiveBuild> {
        let now = (self.now)();
        let table = self.table();
        let mut builds: Vec<_> = table
            .iter()
            .map(|(id, build)| {
                let age = now.duration_since(build.created).unwrap_or_default();
                let live = LiveBuild {
                    build: id.short().to_string(),
                    name: build.record.name.clone(),
                    age: age.as_secs(),
                    sessions: build.sessions,
                    counts: *lock(&build.counts),
                };
                (build.sessions == 0, build.last_used, live)
            })
            .collect();
        drop(table);
        builds.sort_by_key(|(idle, last_used, _)| (*idle, std::cmp::Reverse(*last_used)));
        builds.into_iter().map(|(.., live)| live).collect()
    }

    /// What is to be recorded of the builds that have not ended, when the daemon does.
    pub fn records(&self) -> Vec<BuildRecord> {
        let table = self.table();
        let records = table.iter();
        let records =
            records.filter_map(|(id, build)| Some((build.last_used, build.to_record(*id)?)));
        in_order(records.collect()).collect()
    }

    /// Removes the directories of builds that have ended, and gives `record` what is to be recorded of each; says how many
    /// builds are left. One thread at a time does so, and one that does not come back is left behind with what it looks at.
    pub fn reap(&self, record: &mut dyn FnMut(BuildRecord)) -> usize {
        self.reap_of(Lifelines::All, record)
    }

    /// The same without a look at what users have named, for a thread that must come back.
    pub fn reap_hooked(&self, record: &mut dyn FnMut(BuildRecord)) -> usize {
        self.reap_of(Lifelines::OfTheHook, record)
    }

    fn reap_of(&self, which: Lifelines, record: &mut dyn FnMut(BuildRecord)) -> usize {
        let now = (self.now)();
        let turn = match which {
            Lifelines::OfTheHook => None,
            Lifelines::All => match self.begin_reaping() {
                None => return self.table().len(),
                turn => turn,
            },
        };
        let looks_at_users = turn.is_some_and(|(_, looks_at_users)| looks_at_users);
        let lifelines: Vec<_> = {
            let mut table = self.table();
            let idle = table.iter_mut().filter(|(_, build)| {
                build.sessions == 0
                    && !build.is_looked_at
                    && (looks_at_users || build.record.user.is_none())
            });
            let looked_at = idle.map(|(id, build)| {
                build.is_looked_at = true;
                (
                    build.record.user.is_some(),
                    *id,
                    build.record.lifeline.clone(),
                )
            });
            looked_at.collect()
        };
        let (own, hooked): (Vec<_>, Vec<_>) = lifelines.into_iter().partition(|(own, ..)| *own);
        let mut ended = Vec::new();
        let mut records = Vec::new();
        // What users have named comes last: it may never end.
        for (_, id, lifeline) in hooked.into_iter().chain(own) {
            let sight = Sight::of(lifeline.as_deref());
            let mut table = self.table();
            let Some(build) = table.get_mut(&id) else {
                continue;
            };
            build.is_looked_at = false;
            if build.sessions == 0 && build.has_ended(sight, now) {
                records.extend(build.to_record(id).map(|record| (build.last_used, record)));
                table.remove(&id);
                ended.push(id);
            }
        }
        if let Some((turn, _)) = turn {
            self.end_reaping(turn);
        }
        let left = self.table().len();
        in_order(records).for_each(record);
        self.remove(ended);
        left
    }

    /// Begins to look at lifelines, unless another thread does so; says too whether those may be looked at that users have
    /// named.
    fn begin_reaping(&self) -> Option<(u64, bool)> {
        let mut reapers = lock(&self.reapers);
        if let Some(since) = reapers.running {
            if since.elapsed() < REAPER_LIMIT {
                return None;
            }
            reapers.stuck += 1;
            log::warn(
                "cannot check whether a build has ended: the file system of the path that it named does not respond",
            );
        }
        reapers.running = Some(Instant::now());
        reapers.serial += 1;
        Some((reapers.serial, reapers.stuck < STUCK_MAX))
    }

    fn end_reaping(&self, turn: u64) {
        let mut reapers = lock(&self.reapers);
        if reapers.serial == turn {
            reapers.running = None;
        } else {
            // It has come back after all.
            reapers.stuck = reapers.stuck.saturating_sub(1);
        }
    }

    /// Gives up builds that registered themselves, have no session and have not been used for so long, the oldest first.
    /// Says how many went.
    pub fn release_idle(&self, unused_for: Duration, record: &mut dyn FnMut(BuildRecord)) -> usize {
        let now = (self.now)();
        let mut table = self.table();
        let is_old = |time| now.duration_since(time).is_ok_and(|age| age >= unused_for);
        let mut idle: Vec<_> = table
            .iter()
            .filter(|(_, build)| build.record.user.is_some() && build.sessions == 0)
            .filter(|(_, build)| unused_for.is_zero() || is_old(build.last_used))
            .map(|(id, build)| (build.last_used, *id))
            .collect();
        idle.sort_unstable_by_key(|(last_used, _)| *last_used);
        let records: Vec<_> = idle
            .iter()
            .filter_map(|(_, id)| table.remove(id)?.to_record(*id))
            .collect();
        drop(table);
        records.into_iter().for_each(record);
        let count = idle.len();
        self.remove(idle.into_iter().map(|(_, id)| id).collect());
        count
    }

    /// Makes sure that a user, and those that it may become, may have one more build that registered itself.
    fn make_room(&self, user: u32) -> Result<()> {
        let mut table = self.table();
        let of_user = |build: &Build| build.record.account() == Some(user);
        let count = table.values().filter(|build| of_user(build)).count();
        if count < OWN_BUILDS_MAX {
            return Ok(());
        }
        let mut idle: Vec<_> = table
            .iter()
            .filter(|(_, build)| of_user(build) && build.sessions == 0)
            .map(|(id, build)| (build.last_used, *id))
            .collect();
        idle.sort_unstable_by_key(|(last_used, _)| *last_used);
        // Some more than one, so that it is not looked for again with the next.
        let oldest: Vec<_> = idle
            .into_iter()
            .map(|(_, id)| id)
            .take(count + 1 + OWN_BUILDS_MAX / 8 - OWN_BUILDS_MAX)
            .collect();
        for id in &oldest {
            table.remove(id);
        }
        drop(table);
        if oldest.is_empty() {
            return Err(Error::peer(format!(
                "user {user} has {count} builds with open sessions"
            )));
        }
        self.remove(oldest);
        Ok(())
    }

    /// Removes the directories of builds that are not in the table any more.
    fn remove(&self, ended: Vec<BuildId>) {
        for id in ended {
            let removed = remove_directory(&self.directory(id))
                .and_then(|()| fs::remove_file(&self.records.join(id.to_string())));
            match removed {
                Ok(()) => log::debug(|| {
                    format!("build {} has ended: its directory is removed", id.short())
                }),
                // The record is still there: the next daemon tries again.
                Err(e) => log::warn(e.chain()),
            }
        }
    }

    /// What an earlier daemon has recorded; `None` for what is no build's record any more.
    ///
    /// # Errors
    /// When it cannot be read, or says what another release wrote there not long ago.
    fn read_record(&self, path: &Path) -> Result<Option<(BuildId, Build)>> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(BuildId::parse) else {
            return Ok(None);
        };
        let created = changed(&fs::metadata(path)?);
        let text = fs::read(path)?;
        let Some(directory) = fs::metadata_if_there(&self.directory(id))? else {
            return Ok(None);
        };
        let record: Record = match serde_json::from_slice(&text) {
            Ok(record) => record,
            Err(_) if is_older(created, BUILD_LIMIT, (self.now)()) => return Ok(None),
            Err(e) => return Err(Error::input(format!("{}: {e}", path.display()))),
        };
        // Each new link in the directory was a use.
        let last_used = changed(&directory);
        Ok(Some((
            id,
            Build {
                record,
                is_looked_at: false,
                created,
                last_used,
                sessions: 0,
                put: 0,
                counts: Arc::default(),
                noted: Arc::default(),
            },
        )))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<BuildId, Build>> {
        // A session that panicked has left the table whole.
        lock(&self.table)
    }
}

/// Records by when their builds ended, which they have in seconds only.
fn in_order(mut records: Vec<(SystemTime, BuildRecord)>) -> impl Iterator<Item = BuildRecord> {
    records.sort_by_key(|(ended, _)| *ended);
    records.into_iter().map(|(_, record)| record)
}

impl Build {
    /// What is recorded of it; nothing of a build that asked for nothing.
    fn to_record(&self, id: BuildId) -> Option<BuildRecord> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let counts = *lock(&self.counts);
        (counts != Counts::default()).then(|| BuildRecord {
            user: self.record.user.or(self.record.pinned),
            build: id.short().to_string(),
            name: self.record.name.clone(),
            started: seconds(self.created),
            ended: seconds(self.last_used),
            counts,
            saved_ms: counts.saved_ms,
            ..lock(&self.noted).clone()
        })
    }

    /// Whether a user may know what has happened in it: root may.
    fn is_of(&self, user: u32) -> bool {
        user == 0 || self.record.user.or(self.record.pinned) == Some(user)
    }

    fn has_ended(&self, sight: Sight, now: SystemTime) -> bool {
        let older = |time, limit| is_older(time, limit, now);
        older(self.created.max(self.last_used), BUILD_LIMIT)
            || match sight {
                Sight::There => false,
                Sight::Gone => true,
                // Out of sight is not gone.
                Sight::Unknown => older(self.last_used, UNSEEN_BUILD_LIMIT),
            }
    }
}

fn is_older(time: SystemTime, limit: Duration, now: SystemTime) -> bool {
    now.duration_since(time).is_ok_and(|age| age > limit)
}

/// When a file or a directory was last changed.
fn changed(metadata: &Metadata) -> SystemTime {
    // Every system that this runs on has that time.
    metadata.modified().unwrap_or(UNIX_EPOCH)
}

/// Which lifelines are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifelines {
    All,
    /// Those that Nix has made.
    OfTheHook,
}

/// What can be seen of a lifeline.
#[derive(Clone, Copy, Debug)]
enum Sight {
    There,
    Gone,
    Unknown,
}

impl Sight {
    fn of(lifeline: Option<&Path>) -> Self {
        match lifeline.map(Path::symlink_metadata) {
            Some(Ok(_)) => Self::There,
            Some(Err(e)) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Self::Gone
            }
            _ => Self::Unknown,
        }
    }
}

impl BuildDir {
    /// The build's ID.
    pub fn id(&self) -> BuildId {
        self.id
    }

    /// The derivation's name, or what the build calls itself.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the build may do, as it was registered.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the hook has registered it.
    pub fn is_hooked(&self) -> bool {
        self.is_hooked
    }

    /// Whether Nix gives the build no network, as far as the hook has said.
    pub fn fetches_nothing(&self) -> bool {
        self.fetches_nothing
    }

    /// The directory's path on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to what has happened in the build.
    pub fn count(&self, counts: Counts) {
        *lock(&self.counts) += counts;
    }

    /// Changes what is to be recorded of the build, besides its counts.
    pub fn note(&self, change: impl FnOnce(&mut BuildRecord)) {
        change(&mut lock(&self.noted));
    }

    /// Counts a put of so many bytes, and its action.
    ///
    /// # Errors
    /// When the build, or all builds of its user together, have put as much as they may.
    pub fn charge(&self, size: u64) -> Result<()> {
        let limit = self.builds.put_limit;
        let size = size.saturating_add(ACTION_SIZE);
        if let Some(user) = self.budget_of {
            let now = (self.builds.now)();
            let mut users = lock(&self.builds.users);
            let is_over = |spent: &Spent| {
                now.duration_since(spent.since)
                    .map_or(true, |age| age > PUTS_PER_USER_EVERY)
            };
            users.retain(|of, spent| *of == user || !is_over(spent));
            let spent = users.entry(user).or_insert(Spent {
                since: now,
                bytes: 0,
            });
            if is_over(spent) {
                *spent = Spent {
                    since: now,
                    bytes: 0,
                };
            }
            if spent.bytes.saturating_add(size) > limit {
                return Err(Error::peer(format!(
                    "the builds of user {user} have put {} bytes in a day already, and may put {limit}",
                    spent.bytes
                )));
            }
            spent.bytes += size;
            return Ok(());
        }
        let mut table = self.builds.table();
        let Some(build) = table.get_mut(&self.id) else {
            return Ok(());
        };
        let put = build.put.saturating_add(size);
        if put > limit {
            return Err(Error::peer(format!(
                "the build has put {} bytes already, and may put {limit}",
                build.put
            )));
        }
        build.put = put;
        Ok(())
    }
}

impl Drop for BuildDir {
    fn drop(&mut self) {
        let now = (self.builds.now)();
        if let Some(build) = self.builds.table().get_mut(&self.id) {
            build.sessions -= 1;
            build.last_used = now;
        }
        if !self.is_hooked {
            let ended = &self.builds.own_sessions_ended;
            ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A name as it is kept, without what a terminal or a log would take for something else.
fn bounded_name(name: &str) -> String {
    let mut kept = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        kept.push(c);
    }
    kept
}

/// Removes a build directory, or what is in its place. What is ready in it is not found any more when it begins to go.
fn remove_directory(path: &Path) -> Result<()> {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_file(&path.join(prefetched::FILE))?;
    }
    fs::remove_dir_all(path)
}

/// The name of an output in a build directory, wherever that is seen from. It has no
/// extension, as the protocol wants it.
pub fn output_name(directory: &Path, output: &OutputId) -> PathBuf {
    hex_path(directory, &output.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use crate::test_dir::TestDir;
    use std::os::unix::fs::PermissionsExt;

    fn later() -> SystemTime {
        SystemTime::now() + UNSEEN_BUILD_LIMIT + Duration::from_secs(60)
    }

    fn much_later() -> SystemTime {
        SystemTime::now() + BUILD_LIMIT + Duration::from_secs(60)
    }

    fn registration(name: &str, lifeline: Option<&Path>, user: Option<u32>) -> Registration {
        Registration {
            name: name.into(),
            lifeline: lifeline.map(Path::to_path_buf),
            user,
            ..Registration::default()
        }
    }

    fn builds(dir: &TestDir) -> Arc<Builds> {
        Arc::new(Builds::open(dir.path()).unwrap())
    }

    #[test]
    fn a_build_directory_can_be_entered_but_not_listed_by_others() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let id = builds.register(registration("hello", None, None)).unwrap();
        for path in [dir.path().join("builds"), builds.directory(id)] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o711);
        }
    }

    #[test]
    fn a_build_ends_with_its_lifeline_and_its_last_session() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let chroot = dir.path().join("x.drv.chroot");
        std::fs::create_dir(&chroot).unwrap();
        let id = builds
            .register(registration("hello", Some(&chroot), None))
            .unwrap();
        let session = builds.enter(id).unwrap();
        assert_eq!(builds.reap(&mut |_| {}), 1);
        std::fs::remove_dir(&chroot).unwrap();
        assert_eq!(builds.reap(&mut |_| {}), 1, "a session is open");
        drop(session);
        assert_eq!(builds.reap(&mut |_| {}), 0);
        assert!(!builds.directory(id).exists());
        assert!(builds.enter(id).is_err());
    }

    #[test]
    fn a_build_without_a_lifeline_is_kept_for_a_day_after_its_last_use() {
        let dir = TestDir::new();
        let mut builds = Builds::open(dir.path()).unwrap();
        builds
            .register(registration("hello", Some(Path::new("/no/such/top")), None))
            .unwrap();
        assert_eq!(builds.reap(&mut |_| {}), 1);
        builds.now = later;
        assert_eq!(builds.reap(&mut |_| {}), 0);
    }

    #[test]
    fn a_chroot_that_a_killed_nix_left_behind_does_not_keep_a_build_for_ever() {
        let dir = TestDir::new();
        let mut builds = Builds::open(dir.path()).unwrap();
        builds
            .register(registration("hello", Some(dir.path()), None))
            .unwrap();
        builds.now = later;
        assert_eq!(builds.reap(&mut |_| {}), 1);
        builds.now = much_later;
        assert_eq!(builds.reap(&mut |_| {}), 0);
    }

    #[test]
    fn a_build_may_put_only_so_much_and_have_only_so_many_sessions() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let id = builds.register(registration("greedy", None, None)).unwrap();
        let session = builds.enter(id).unwrap();
        session
            .charge(PUTS_PER_BUILD_MAX - 2 * ACTION_SIZE)
            .unwrap();
        assert!(session.charge(1).is_err());
        assert!(session.charge(u64::MAX).is_err());
        session.charge(0).unwrap();
        assert!(session.charge(0).is_err(), "an action counts too");
        let mut sessions = vec![session];
        while let Ok(session) = builds.enter(id) {
            sessions.push(session);
        }
        assert_eq!(sessions.len(), SESSIONS_PER_BUILD_MAX);
        sessions.pop();
        assert!(builds.enter(id).is_ok());
    }

    #[test]
    fn builds_that_register_themselves_are_kept_in_a_bounded_number_for_each_user() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let of_hook = builds
            .register(registration("of the hook", None, None))
            .unwrap();
        let of_other = builds
            .register(registration("of another user", None, Some(2)))
            .unwrap();
        let held = builds
            .register(registration("held", None, Some(1)))
            .unwrap();
        let session = builds.enter(held).unwrap();
        // A lifeline that is there for ever is no way around it.
        for lifeline in [None, Some(dir.path())] {
            for _ in 0..OWN_BUILDS_MAX + 10 {
                builds
                    .register(registration("abandoned", lifeline, Some(1)))
                    .unwrap();
            }
            let (count, _) = builds.live();
            assert!(count <= OWN_BUILDS_MAX + 2, "{count}");
            let left = std::fs::read_dir(dir.path().join("builds")).unwrap();
            assert_eq!(left.count(), count);
            let records = std::fs::read_dir(dir.path().join("registered")).unwrap();
            assert_eq!(records.count(), count);
        }
        assert!(session.path().exists());
        for id in [of_hook, of_other] {
            assert!(builds.enter(id).is_ok());
        }
    }

    #[test]
    fn a_restarted_daemon_keeps_running_builds_and_clears_the_rest() {
        let dir = TestDir::new();
        let builds_before = builds(&dir);
        let running = builds_before
            .register(registration("a", Some(dir.path()), None))
            .unwrap();
        let output = output_name(&builds_before.directory(running), &OutputId([1; 32]));
        std::fs::write(&output, "kept").unwrap();
        let stray = builds_before.directory(BuildId::new().unwrap());
        std::fs::create_dir(&stray).unwrap();
        std::fs::write(dir.path().join("registered/nonsense"), "").unwrap();
        drop(builds_before);
        let builds = builds(&dir);
        assert_eq!(builds.reap(&mut |_| {}), 1);
        assert_eq!(&**builds.enter(running).unwrap().name(), "a");
        assert!(output.exists());
        assert!(!stray.exists());
    }

    #[test]
    fn a_record_that_cannot_be_read_takes_no_file_from_a_build() {
        let dir = TestDir::new();
        let before = builds(&dir);
        let [unreadable, of_another_release, old] = ["a", "b", "c"].map(|name| {
            let id = before
                .register(registration(name, Some(dir.path()), None))
                .unwrap();
            let output = output_name(&before.directory(id), &OutputId([1; 32]));
            std::fs::write(&output, "kept").unwrap();
            (dir.path().join("registered").join(id.to_string()), output)
        });
        drop(before);
        std::fs::remove_file(&unreadable.0).unwrap();
        std::fs::create_dir(&unreadable.0).unwrap();
        for (record, _) in [&of_another_release, &old] {
            std::fs::write(record, r#"{"name":"b","mode":"unheard of"}"#).unwrap();
        }
        let long_ago = SystemTime::now() - BUILD_LIMIT - Duration::from_secs(1);
        crate::sys::set_times(&old.0, long_ago).unwrap();
        drop(builds(&dir));
        assert!(unreadable.1.exists() && of_another_release.1.exists());
        assert!(!old.0.exists() && !old.1.exists());
    }

    #[test]
    fn registering_linking_and_removing_at_once_lose_no_file_of_a_running_build() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let outputs = TestDir::new();
        let original = outputs.path().join("output");
        std::fs::write(&original, "bytes").unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reaper = scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    builds.reap(&mut |_| {});
                }
            });
            let threads: Vec<_> = (0..4u8)
                .map(|thread| {
                    let (builds, outputs, original) = (&builds, &outputs, &original);
                    scope.spawn(move || {
                        for round in 0..100 {
                            let chroot = outputs.path().join(format!("{thread}-{round}.chroot"));
                            std::fs::create_dir(&chroot).unwrap();
                            let user = (round % 2 == 0).then_some(crate::sys::effective_uid());
                            let id = builds
                                .register(registration("race", Some(&chroot), user))
                                .unwrap();
                            let session = builds.enter(id).unwrap();
                            // The build may end before its last session does.
                            std::fs::remove_dir(&chroot).unwrap();
                            for n in 0..10 {
                                let name = output_name(session.path(), &OutputId([n; 32]));
                                std::fs::hard_link(original, &name).unwrap();
                                assert_eq!(std::fs::read(&name).unwrap(), b"bytes");
                            }
                            let again = builds.enter(id).unwrap();
                            drop(session);
                            assert!(again.path().is_dir());
                            drop(again);
                            // Gone or still there, but never half of it.
                            if let Ok(late) = builds.enter(id) {
                                assert_eq!(std::fs::read_dir(late.path()).unwrap().count(), 10);
                            }
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            reaper.join().unwrap();
        });
        assert_eq!(builds.reap(&mut |_| {}), 0);
        for part in ["builds", "registered"] {
            assert_eq!(std::fs::read_dir(dir.path().join(part)).unwrap().count(), 0);
        }
        assert_eq!(std::fs::read(&original).unwrap(), b"bytes");
    }

    #[test]
    fn what_is_planted_in_the_place_of_a_build_directory_is_not_followed() {
        let dir = TestDir::new();
        let others = TestDir::new();
        let precious = others.path().join("precious");
        std::fs::write(&precious, "bytes").unwrap();
        let builds_before = builds(&dir);
        let ended = others.path().join("ended.chroot");
        std::fs::create_dir(&ended).unwrap();
        let ids: Vec<_> = (0..3)
            .map(|_| {
                builds_before
                    .register(registration("x", Some(&ended), None))
                    .unwrap()
            })
            .collect();
        let [link, hard_link, inner] =
            [ids[0], ids[1], ids[2]].map(|id| builds_before.directory(id));
        for path in [&link, &hard_link] {
            std::fs::remove_dir(path).unwrap();
        }
        std::os::unix::fs::symlink(others.path(), &link).unwrap();
        std::fs::hard_link(&precious, &hard_link).unwrap();
        std::os::unix::fs::symlink(others.path(), inner.join("link")).unwrap();
        std::fs::remove_dir(&ended).unwrap();
        builds_before.reap(&mut |_| {});
        drop(builds_before);
        // What could not be removed as a directory is cleared by the next daemon.
        let after = builds(&dir);
        assert_eq!(after.reap(&mut |_| {}), 0);
        assert_eq!(std::fs::read(&precious).unwrap(), b"bytes");
        assert_eq!(
            std::fs::read_dir(dir.path().join("builds"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn a_build_of_the_hook_is_the_first_users_and_one_that_registered_itself_its_own() {
        let dir = TestDir::new();
        let before = builds(&dir);
        let id = before.register(registration("hooked", None, None)).unwrap();
        assert!(
            before.enter_as(id, 5, false).is_err(),
            "it cannot be theirs"
        );
        drop(before.enter_as(id, 1, true).unwrap());
        drop(before);
        // The next daemon knows it too.
        let builds = builds(&dir);
        assert!(builds.enter_as(id, 2, true).is_err());
        assert!(builds.enter_as(id, 1, false).is_ok());
        let own = builds.register(registration("own", None, Some(3))).unwrap();
        assert!(builds.enter_as(own, 3, false).is_ok());
        assert!(builds.enter_as(own, 0, true).is_err());
        for (user, gets) in [(1, 7), (2, 0)] {
            builds.enter(id).unwrap().count(Counts {
                gets: if user == 1 { 7 } else { 0 },
                ..Counts::default()
            });
            assert_eq!(builds.counts(Some(id), None, user).gets, gets);
        }
    }

    #[test]
    fn the_builds_of_a_user_share_a_budget_that_comes_back_after_a_day() {
        let dir = TestDir::new();
        let mut builds = Builds::open(dir.path()).unwrap().with_put_limit(1 << 20);
        let enter = |builds: Builds, user| {
            let builds = Arc::new(builds);
            let id = builds.register(Registration {
                user: Some(user),
                has_user_budget: true,
                ..Registration::default()
            });
            let entered = builds.enter(id.unwrap()).unwrap();
            let charged = entered.charge(600 << 10);
            drop(entered);
            (Arc::into_inner(builds).unwrap(), charged.is_ok())
        };
        for (now, user, fits) in [
            (SystemTime::now as fn() -> SystemTime, 1, true),
            (SystemTime::now, 1, false),
            (SystemTime::now, 2, true),
            (later, 1, true),
            (later, 1, false),
        ] {
            builds.now = now;
            let charged;
            (builds, charged) = enter(builds, user);
            assert_eq!(charged, fits, "user {user}");
        }
    }

    #[test]
    fn idle_builds_that_registered_themselves_are_given_up_when_space_is_wanted() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let hooked = builds.register(registration("hooked", None, None)).unwrap();
        let own: Vec<_> = (0..3)
            .map(|_| builds.register(registration("own", None, Some(1))).unwrap())
            .collect();
        let open = builds.enter(own[0]).unwrap();
        let hour = Duration::from_secs(60 * 60);
        assert_eq!(builds.release_idle(hour, &mut |_| {}), 0, "they are new");
        assert_eq!(builds.release_idle(Duration::ZERO, &mut |_| {}), 2);
        drop(open);
        assert!(builds.enter(own[0]).is_ok(), "it had a session");
        assert!(builds.enter(hooked).is_ok());
        assert!(!builds.directory(own[1]).exists());
    }

    #[test]
    fn users_that_one_user_may_become_have_no_more_builds_than_that_one() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        for user in 0..OWN_BUILDS_MAX as u32 + 10 {
            let build = Registration {
                user: Some(100_000 + user),
                account: Some(1000),
                has_user_budget: true,
                ..Registration::default()
            };
            builds.register(build).unwrap();
        }
        assert!(builds.live().0 <= OWN_BUILDS_MAX);
    }

    #[test]
    fn who_must_come_back_looks_at_nothing_that_users_have_named() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let gone = dir.path().join("gone");
        let own = sys::effective_uid();
        for user in [None, Some(own)] {
            std::fs::create_dir(&gone).unwrap();
            let build = registration("x", Some(&gone), user);
            builds.register(build).unwrap();
            std::fs::remove_dir(&gone).unwrap();
        }
        assert_eq!(builds.reap_hooked(&mut |_| {}), 1);
        assert_eq!(builds.reap(&mut |_| {}), 0);
    }

    #[test]
    fn a_reaper_that_hangs_is_left_behind_and_stops_nobody() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let (first, _) = builds.begin_reaping().unwrap();
        assert!(builds.begin_reaping().is_none(), "one at a time");
        assert_eq!(builds.reap(&mut |_| {}), 0);
        let back_then = Instant::now().checked_sub(REAPER_LIMIT).unwrap();
        for left in 1..=STUCK_MAX {
            lock(&builds.reapers).running = Some(back_then);
            let (_, looks_at_users) = builds.begin_reaping().unwrap();
            assert_eq!(looks_at_users, left < STUCK_MAX);
        }
        builds.end_reaping(first);
        assert_eq!(lock(&builds.reapers).stuck, STUCK_MAX - 1);
    }
}
