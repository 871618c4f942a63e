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
    BUILD_LIMIT, OWN_BUILDS_MAX, PUTS_PER_BUILD_MAX, SESSIONS_PER_BUILD_MAX, UNSEEN_BUILD_LIMIT,
};
use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{BuildId, OutputId, hex_path};
use crate::log;
use crate::report::{BuildRecord, LiveBuild};
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// All builds that are registered.
#[derive(Debug)]
pub struct Builds {
    directories: PathBuf,
    records: PathBuf,
    now: fn() -> SystemTime,
    /// Guards the table and, with it, which directories exist.
    table: Mutex<HashMap<BuildId, Build>>,
}

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
    /// The user whose processes are the build: who said the first hello.
    #[serde(default)]
    pinned: Option<u32>,
}

#[derive(Debug)]
struct Build {
    record: Record,
    created: SystemTime,
    last_used: SystemTime,
    sessions: usize,
    /// What it has put so far, in bytes.
    put: u64,
    /// What has happened in all its sessions since the daemon's start.
    counts: Arc<Mutex<Counts>>,
}

/// A build directory in use by a session: it stays as long as this does.
#[derive(Debug)]
pub struct BuildDir {
    id: BuildId,
    name: String,
    path: PathBuf,
    counts: Arc<Mutex<Counts>>,
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
            table: Mutex::default(),
        };
        fs::ensure_dir(&builds.directories, 0o711)?;
        fs::ensure_dir(&builds.records, 0o700)?;
        let mut table = HashMap::new();
        for entry in fs::read_dir(&builds.records)? {
            let path = entry?.path();
            match builds.read_record(&path) {
                Some((id, build)) => {
                    table.insert(id, build);
                }
                None => fs::remove_file(&path)?,
            }
        }
        for entry in fs::read_dir(&builds.directories)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(BuildId::parse);
            if id.is_none_or(|id| !table.contains_key(&id)) {
                remove_directory(&entry.path())?;
            }
        }
        *builds.table() = table;
        Ok(builds)
    }

    /// Registers a build and makes its directory. `lifeline` is a path on this host that
    /// exists as long as the build; one that is not there now says nothing. `user` is whose build
    /// registers itself, if it is not the hook that does it.
    ///
    /// # Errors
    /// When the record or the directory cannot be written, or the user has too many builds.
    pub fn register(
        &self,
        name: &str,
        lifeline: Option<&Path>,
        user: Option<u32>,
    ) -> Result<BuildId> {
        if let Some(user) = user {
            self.make_room(user)?;
        }
        let id = BuildId::new()?;
        let record = Record {
            name: name.chars().filter(|c| !c.is_control()).take(200).collect(),
            lifeline: lifeline
                .filter(|path| path.is_absolute() && is_lifeline_of(path, user))
                .map(Path::to_path_buf),
            user,
            pinned: user,
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
                created: now,
                last_used: now,
                sessions: 0,
                put: 0,
                counts: Arc::default(),
            },
        );
        Ok(id)
    }

    fn write_record(&self, id: BuildId, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|e| Error::input(e.to_string()))?;
        let fresh = self.records.join(format!("{id}.new"));
        let written = std::fs::write(&fresh, text)
            .map_err(|e| Error::io("write", &fresh, e))
            .and_then(|()| fs::rename(&fresh, &self.records.join(id.to_string())));
        if written.is_err() {
            fs::remove_file(&fresh)?;
        }
        written
    }

    /// The path of a build's directory.
    pub fn directory(&self, id: BuildId) -> PathBuf {
        self.directories.join(id.to_string())
    }

    /// Lets a user's process into a build. The first one says whose the build is: a build ID can be read in
    /// `/proc/PID/mountinfo` by anybody, and opens nothing to anybody else.
    ///
    /// # Errors
    /// When there is no such build, it is another user's, or it has too many sessions; or when the hook registered it and
    /// this user is none of Nix's.
    pub fn enter_as(self: &Arc<Self>, id: BuildId, user: u32, is_nix: bool) -> Result<BuildDir> {
        let unknown = || Error::peer("no build of that ID is registered here");
        let mut table = self.table();
        let record = &mut table.get_mut(&id).ok_or_else(unknown)?.record;
        match record.pinned {
            _ if record.user.is_none() && !is_nix => {
                return Err(Error::peer(format!(
                    "user {user} is none of Nix's build users, and this is a build of Nix: start the daemon with \
                     --build-users-group or --trusted-user if it should be"
                )));
            }
            Some(pinned) if pinned == user => drop(table),
            Some(_) => {
                return Err(Error::peer(format!(
                    "the build of that ID is not one of user {user}"
                )));
            }
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

    /// Holds a build's directory.
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
            name: build.record.name.clone(),
            path: self.directory(id),
            counts: Arc::clone(&build.counts),
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
                let build = table.get(&id);
                if let Some(build) = build.filter(|build| build.record.pinned == Some(user)) {
                    sum = of(build);
                }
            }
            (None, Some(top)) => table
                .values()
                .filter(|build| build.record.pinned == Some(user))
                .filter(|build| build.record.lifeline.as_deref() == Some(top))
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
        table
            .iter()
            .filter_map(|(id, build)| build.to_record(*id))
            .collect()
    }

    /// Removes the directories of builds that have ended, and gives `record` what is to be recorded of each; says how many
    /// builds are left.
    pub fn reap(&self, record: &mut dyn FnMut(BuildRecord)) -> usize {
        let now = (self.now)();
        let mut ended = Vec::new();
        let mut records = Vec::new();
        let mut table = self.table();
        table.retain(|id, build| {
            let over = build.sessions == 0 && build.has_ended(now);
            if over {
                ended.push(*id);
                records.extend(build.to_record(*id));
            }
            !over
        });
        let left = table.len();
        drop(table);
        records.into_iter().for_each(record);
        self.remove(ended);
        left
    }

    /// Makes sure that a user may have one more build that registered itself.
    fn make_room(&self, user: u32) -> Result<()> {
        let mut table = self.table();
        let of_user = |build: &Build| build.record.user == Some(user);
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

    fn read_record(&self, path: &Path) -> Option<(BuildId, Build)> {
        let id = BuildId::parse(path.file_name()?.to_str()?)?;
        let record: Record = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let created = path.metadata().ok()?.modified().ok()?;
        // Each new link in the directory was a use.
        let last_used = self.directory(id).metadata().ok()?.modified().ok()?;
        Some((
            id,
            Build {
                record,
                created,
                last_used,
                sessions: 0,
                put: 0,
                counts: Arc::default(),
            },
        ))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<BuildId, Build>> {
        // A session that panicked has left the table whole.
        lock(&self.table)
    }
}

impl Build {
    /// What is recorded of it; nothing of a build that asked for nothing.
    fn to_record(&self, id: BuildId) -> Option<BuildRecord> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let counts = *lock(&self.counts);
        (counts != Counts::default()).then(|| BuildRecord {
            user: self.record.pinned,
            build: id.short().to_string(),
            name: self.record.name.clone(),
            started: seconds(self.created),
            ended: seconds(self.last_used),
            counts,
            ..BuildRecord::default()
        })
    }

    fn has_ended(&self, now: SystemTime) -> bool {
        let older = |time, limit| now.duration_since(time).is_ok_and(|age| age > limit);
        if older(self.created.max(self.last_used), BUILD_LIMIT) {
            return true;
        }
        match &self.record.lifeline {
            Some(path) => match path.symlink_metadata() {
                Ok(_) => false,
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    true
                }
                // Out of sight is not gone.
                Err(_) => older(self.last_used, UNSEEN_BUILD_LIMIT),
            },
            None => older(self.last_used, UNSEEN_BUILD_LIMIT),
        }
    }
}

impl BuildDir {
    /// The build's ID.
    pub fn id(&self) -> BuildId {
        self.id
    }

    /// The derivation's name, or what the build calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory's path on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to what has happened in the build.
    pub fn count(&self, counts: Counts) {
        *lock(&self.counts) += counts;
    }

    /// Counts a put of so many bytes.
    ///
    /// # Errors
    /// When the build has put as much as one build may.
    pub fn charge(&self, size: u64) -> Result<()> {
        let mut table = self.builds.table();
        let Some(build) = table.get_mut(&self.id) else {
            return Ok(());
        };
        let put = build.put.saturating_add(size);
        if put > PUTS_PER_BUILD_MAX {
            return Err(Error::peer(format!(
                "the build has put {} bytes already, and may put {PUTS_PER_BUILD_MAX}",
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
    }
}

/// Whether a path that a build names can say how long the build lives: it is there, and the build's user made it, so that
/// nobody keeps files for as long as `/` exists. The hook names what Nix made.
fn is_lifeline_of(path: &Path, user: Option<u32>) -> bool {
    let owner = path.symlink_metadata().map(|metadata| metadata.uid());
    owner.is_ok_and(|owner| user.is_none_or(|user| user == owner || user == 0))
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
    use std::time::Duration;

    fn later() -> SystemTime {
        SystemTime::now() + UNSEEN_BUILD_LIMIT + Duration::from_secs(60)
    }

    fn much_later() -> SystemTime {
        SystemTime::now() + BUILD_LIMIT + Duration::from_secs(60)
    }

    fn builds(dir: &TestDir) -> Arc<Builds> {
        Arc::new(Builds::open(dir.path()).unwrap())
    }

    #[test]
    fn a_build_directory_can_be_entered_but_not_listed_by_others() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let id = builds.register("hello", None, None).unwrap();
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
        let id = builds.register("hello", Some(&chroot), None).unwrap();
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
            .register("hello", Some(Path::new("/no/such/top")), None)
            .unwrap();
        assert_eq!(builds.reap(&mut |_| {}), 1);
        builds.now = later;
        assert_eq!(builds.reap(&mut |_| {}), 0);
    }

    #[test]
    fn a_chroot_that_a_killed_nix_left_behind_does_not_keep_a_build_for_ever() {
        let dir = TestDir::new();
        let mut builds = Builds::open(dir.path()).unwrap();
        builds.register("hello", Some(dir.path()), None).unwrap();
        builds.now = later;
        assert_eq!(builds.reap(&mut |_| {}), 1);
        builds.now = much_later;
        assert_eq!(builds.reap(&mut |_| {}), 0);
    }

    #[test]
    fn a_build_may_put_only_so_much_and_have_only_so_many_sessions() {
        let dir = TestDir::new();
        let builds = builds(&dir);
        let id = builds.register("greedy", None, None).unwrap();
        let session = builds.enter(id).unwrap();
        session.charge(PUTS_PER_BUILD_MAX).unwrap();
        assert!(session.charge(1).is_err());
        assert!(session.charge(u64::MAX).is_err());
        session.charge(0).unwrap();
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
        let of_hook = builds.register("of the hook", None, None).unwrap();
        let of_other = builds.register("of another user", None, Some(2)).unwrap();
        let held = builds.register("held", None, Some(1)).unwrap();
        let session = builds.enter(held).unwrap();
        // A lifeline that is there for ever is no way around it.
        for lifeline in [None, Some(dir.path())] {
            for _ in 0..OWN_BUILDS_MAX + 10 {
                builds.register("abandoned", lifeline, Some(1)).unwrap();
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
        let running = builds_before.register("a", Some(dir.path()), None).unwrap();
        let output = output_name(&builds_before.directory(running), &OutputId([1; 32]));
        std::fs::write(&output, "kept").unwrap();
        let stray = builds_before.directory(BuildId::new().unwrap());
        std::fs::create_dir(&stray).unwrap();
        std::fs::write(dir.path().join("registered/nonsense"), "").unwrap();
        drop(builds_before);
        let builds = builds(&dir);
        assert_eq!(builds.reap(&mut |_| {}), 1);
        assert_eq!(builds.enter(running).unwrap().name(), "a");
        assert!(output.exists());
        assert!(!stray.exists());
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
                            let user = (round % 2 == 0).then(sys::effective_uid);
                            let id = builds.register("race", Some(&chroot), user).unwrap();
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
            .map(|_| builds_before.register("x", Some(&ended), None).unwrap())
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
}
