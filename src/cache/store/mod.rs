//! The store: actions and outputs on disk, content-addressed, without a database.
//!
//! ```text
//! CACHE/format              the version of this layout
//! CACHE/lock                held by the daemon
//! CACHE/state               what the next daemon must know: see `crash_state.rs`
//! CACHE/outputs/3f/a0…      an output: its bytes, in a file named by their SHA-256
//! CACHE/actions/7c/19…      an entry: a symbolic link named by the action ID
//! CACHE/tmp/17/…            outputs and entries on their way in, by turns in one of 32
//! CACHE/aside-…/            a cache in another format: see `old_format.rs`
//! ```
//!
//! An action is a symbolic link whose target is not a path but the entry itself:
//! base64url of output ID (32 bytes), size (5, big-endian) and the time of the put in
//! microseconds since 1970 (7, big-endian). That makes 59 characters, which is just what
//! ext4 keeps within an inode: an action is created whole in one system call, read in
//! one, and takes no disk block, where a small file takes four calls and 4 KiB.
//!
//! Nothing that is visible is ever rewritten in place, and an action appears after its
//! output and goes before it. An output's mtime is its last use, moved forward at most
//! hourly, or its last put; its atime lies ahead, so that no read writes one. Damage of any
//! kind is a miss: the entry is removed and the loss logged.
//!
//! Every output and entry is made below `tmp` and moved to its place. ext4 makes files near those of the same
//! directory, and takes up to 1 ms for one where many were deleted in the minutes before, as at the end of each
//! build. So it is asked to keep the directories below `tmp` apart from each other and from everything else.
//!
//! The store knows of no builds, and never hands out a path below `outputs`.

mod accounting;
mod copies;
mod crash_state;
mod evict;
#[cfg(test)]
mod model;
mod old_format;
mod room;
mod shards;
mod transfer;
mod verify;
mod walk;

use crate::config::{ACTION_USE_RECORDED_EVERY, USE_RECORDED_EVERY};
use crate::entry::{Entry, SIZE_MAX};
use crate::error::{Error, Result};
use crate::fs::{self, OpenDirectory};
use crate::id::{ActionId, ID_LEN, OutputId, push_hex};
use crate::log;
use crate::sha256::Sha256;
use crate::sys::{self, Status, modified};
use accounting::Accounting;
use crash_state::CrashGuard;
pub use crash_state::Size;
pub use evict::{Goal, Limits};
pub use room::Room;
use shards::{Pin, Shards};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
pub use verify::{Damage, Event};

/// The version of the layout above.
const FORMAT: u32 = 1;

/// How many directories there are below `tmp`. More take longer to make, each in its place, than they gain.
const TMP_DIRS: u64 = 32;

const FORMAT_PREFIX: &str = "nix-gocacheprog cache, format ";

/// The mode of an output. Nobody writes to one, its owner included.
const OUTPUT_MODE: u32 = 0o444;

/// Bodies are read and written this much at a time, in bytes.
const CHUNK: usize = 128 << 10;

/// File systems hand out space in blocks of this many bytes.
const BLOCK: u64 = 4096;

/// A directory of actions and outputs.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Who owns all of it.
    owner: u32,
    now: fn() -> SystemTime,
    /// Numbers the files in `tmp`.
    serial: AtomicU64,
    shards: Shards,
    usage: Accounting,
    /// Held by the one sweep that may run.
    sweeping: Mutex<()>,
    /// How many outputs a sweep looks at together, about.
    batch_size: u64,
    /// What tells a crash; a store that several processes share has none.
    survival: Option<CrashGuard>,
    /// Keeps the lock of a store that is ours alone.
    _lock: Option<File>,
}

/// The machine that a store is on, as far as the store asks: the tests have their own.
#[derive(Clone, Debug)]
struct Machine {
    now: fn() -> SystemTime,
    /// Another one after each start of the machine.
    boot: String,
}

impl Store {
    /// Opens the daemon's store, creating what is missing, for this process alone.
    ///
    /// # Errors
    /// When the directory cannot be made or written, is in use by another daemon, or
    /// has a newer format than this version knows.
    pub fn open(root: &Path) -> Result<Self> {
        let boot = fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?;
        let machine = Machine {
            now: SystemTime::now,
            boot: boot.trim().into(),
        };
        Self::open_on(machine, root)
    }

    /// Whether a directory can be made a cache: it is one, or is not there, or holds nothing but what an installation
    /// or an interrupted start has put there.
    pub fn is_fit(root: &Path) -> bool {
        const OURS: [&str; 8] = [
            "actions",
            "builds",
            "lists",
            "lock",
            "lost+found",
            "outputs",
            "registered",
            "tmp",
        ];
        let Ok(entries) = std::fs::read_dir(root) else {
            return !root.exists() || root.is_dir();
        };
        let (aside, entries): (Vec<_>, Vec<_>) = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .partition(|name| {
                name.as_ref()
                    .is_ok_and(|name| old_format::is_set_aside(name))
            });
        !aside.is_empty()
            || root.join("format").exists()
            || entries.iter().all(|name| {
                name.as_ref()
                    .is_ok_and(|name| OURS.iter().any(|ours| name == ours))
            })
    }

    fn open_on(machine: Machine, root: &Path) -> Result<Self> {
        if !Self::is_fit(root) {
            return Err(Error::input(format!(
                "{} is not empty and not a cache: name another directory with --cache-dir",
                root.display()
            )));
        }
        fs::create_dir_all(root)?;
        // Builds must be able to reach CACHE/builds, and list nothing on the way.
        fs::ensure_dir(root, 0o711)?;
        let lock = take_lock(root)?;
        let is_new = fs::metadata_if_there(&root.join("format"))?.is_none();
        let mut store = Self::open_shared(root)?;
        store.now = machine.now;
        store._lock = Some(lock);
        let (survival, size) =
            CrashGuard::open(root.join("state"), machine.boot, store.now(), is_new)?;
        store.usage = Accounting::new(size);
        store.survival = Some(survival);
        store.clear_tmp()?;
        Ok(store)
    }

    /// Opens a store that several processes of one user may use at once.
    ///
    /// # Errors
    /// When the directory cannot be made or written, or has a newer format.
    pub fn open_shared(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)?;
        let format = root.join("format");
        let found = match fs::read_to_string(&format) {
            Ok(found) => Some(found),
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => None,
            // Not text: nothing that any version wrote.
            Err(e) if e.kind() == Some(ErrorKind::InvalidData) => Some(String::new()),
            Err(e) => return Err(e),
        };
        let version = found.as_ref().map(|text| {
            text.strip_prefix(FORMAT_PREFIX)
                .and_then(|number| number.trim().parse::<u32>().ok())
                .unwrap_or(0)
        });
        match version {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => {
                return Err(Error::input(format!(
                    "{} says format {newer}, and this version of nix-gocacheprog knows {FORMAT} and older: use the \
                     version that wrote it, or another --cache-dir",
                    format.display()
                )));
            }
            Some(_) => old_format::set_aside(root)?,
            None => {}
        }
        if version != Some(FORMAT) {
            for dir in ["outputs", "actions", "tmp"] {
                fs::ensure_dir(&root.join(dir), 0o700)?;
            }
            // Nothing but speed is lost where that cannot be had.
            let _ = sys::spread_directories(&root.join("tmp"));
            let fresh = root
                .join("tmp")
                .join(format!("format-{}", std::process::id()));
            let file = fs::open_or_create(&fresh, 0o600)?;
            fs::write_all(
                &file,
                &fresh,
                format!("{FORMAT_PREFIX}{FORMAT}\n").as_bytes(),
            )?;
            fs::rename(&fresh, &format)?;
        }
        Ok(Self {
            owner: sys::effective_uid(),
            root: root.to_path_buf(),
            now: SystemTime::now,
            serial: AtomicU64::new(0),
            shards: Shards::default(),
            usage: Accounting::new(Size::default()),
            sweeping: Mutex::default(),
            batch_size: evict::BATCH,
            survival: None,
            _lock: None,
        })
    }

    /// The cache directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the outputs take on disk, in bytes. It may be wrong until the first sweep when
    /// the last daemon was killed.
    pub fn size(&self) -> u64 {
        self.usage.size().bytes
    }

    /// What the outputs take on disk, and how many there are, without a look at it: see [`Store::size`].
    pub fn accounted(&self) -> Size {
        self.usage.size()
    }

    /// Whether the size is not known exactly, because the last daemon was killed.
    pub fn size_is_a_guess(&self) -> bool {
        self.survival.as_ref().is_some_and(|s| s.size_is_a_guess)
    }

    /// Brings what was written to disk, so that a crash cannot damage it any more.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> Result<()> {
        self.sync_as(false)
    }

    /// The same, when nothing will be put any more.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn close(&self) -> Result<()> {
        self.sync_as(true)
    }

    fn sync_as(&self, last: bool) -> Result<()> {
        let size = self.usage.size();
        match &self.survival {
            Some(survival) => survival.sync(self.now(), size, last),
            None => Ok(()),
        }
    }

    /// Looks an action up. What is damaged is a miss.
    ///
    /// # Errors
    /// When the system fails to read the entry.
    pub fn get(&self, action: &ActionId) -> Result<Option<Entry>> {
        let path = self.action_path(action);
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => return Ok(None),
            // Not a symbolic link: nothing of ours.
            Err(e) if e.kind() == Some(ErrorKind::InvalidInput) => {
                return self.forget(action, "is not an entry").map(|()| None);
            }
            Err(e) => return Err(e),
        };
        let Some(entry) = Entry::decode(target.as_os_str().as_bytes()) else {
            return self.forget(action, "is not an entry").map(|()| None);
        };
        Ok(Some(entry))
    }

    /// Makes `name`, in that directory, another name of an entry's output. `false` when the output is
    /// missing or damaged: the entry is forgotten then, and the action a miss.
    ///
    /// # Errors
    /// When the system fails to make the link.
    pub fn link(
        &self,
        action: &ActionId,
        entry: &Entry,
        directory: &OpenDirectory,
        name: &str,
    ) -> Result<bool> {
        let path = self.output_path(&entry.output);
        // Before the build can see it.
        if !self.is_trusted(&entry.output, &path)? {
            self.discard(action, entry, "has an output that a crash has damaged")?;
            return Ok(false);
        }
        match directory.hard_link(&path, name) {
            Ok(()) => {}
            Err(e) => match e.kind() {
                // This build has it already.
                Some(ErrorKind::AlreadyExists) => {}
                Some(ErrorKind::NotFound) => {
                    if self.forget_dangling(action, entry)? {
                        return Ok(false);
                    }
                    // Evicted and put again just now, or it is the build directory that is gone.
                    directory.hard_link(&path, name)?;
                }
                // This file has as many names as the file system allows: go on with a copy.
                Some(ErrorKind::TooManyLinks) => {
                    self.renew(&path)?;
                    directory.hard_link(&path, name)?;
                }
                _ => return Err(e),
            },
        }
        let status = directory.status(name)?;
        if let Some(what) = self.damage(&status, entry.size) {
            directory.remove_file(name)?;
            self.discard(action, entry, what)?;
            return Ok(false);
        }
        self.record_uses(action, entry, status.modified);
        Ok(true)
    }

    /// Records a use of an output, last used then, and of the action that led there.
    fn record_uses(&self, action: &ActionId, entry: &Entry, last_used: SystemTime) {
        let output = || self.output_path(&entry.output);
        self.record_use(output, last_used, USE_RECORDED_EVERY);
        if self.age(entry.put_at()) > ACTION_USE_RECORDED_EVERY {
            let path = self.action_path(action);
            if let Ok(metadata) = fs::symlink_metadata(&path) {
                self.record_use(|| path, modified(&metadata), ACTION_USE_RECORDED_EVERY);
            }
        }
    }

    /// Keeps an output from being evicted as long as the answer lives.
    pub fn pin(&self, output: &OutputId) -> Pin<'_> {
        self.shards.pin(output)
    }

    /// Stores an action's output: reads exactly `size` bytes from `body`, unless
    /// something fails before. When the output is there already nothing is written but
    /// the entry.
    ///
    /// # Errors
    /// When the body is cut off or is not what its ID says, or the disk refuses it.
    /// Nothing is stored then.
    pub fn put(
        &self,
        action: &ActionId,
        output: &OutputId,
        size: u64,
        body: &mut impl Read,
    ) -> Result<Entry> {
        self.put_at(None, action, output, size, body)
    }

    /// The same, as of a time that is not now: in nanoseconds since 1970, whole microseconds.
    fn put_at(
        &self,
        time: Option<i64>,
        action: &ActionId,
        output: &OutputId,
        size: u64,
        body: &mut impl Read,
    ) -> Result<Entry> {
        if size > SIZE_MAX {
            return Err(Error::input(format!(
                "an output of {size} bytes is larger than the store takes ({SIZE_MAX})"
            )));
        }
        if let Some(survival) = &self.survival {
            survival.begin_writing(self.now())?;
        }
        let path = self.output_path(output);
        let _held = self.pin(output);
        let present = fs::metadata(&path)
            .is_ok_and(|m| self.damage(&Status::from(&m), size).is_none())
            && self.is_trusted(output, &path)?;
        let fresh = if present {
            // The body is checked all the same: who names an output must have it.
            receive(body, size, output, None)?;
            None
        } else {
            let tmp = TmpFile::new(self.tmp_path());
            let file = in_dir(&tmp.0, || fs::create_new(&tmp.0, 0o600))?;
            receive(body, size, output, Some((&file, &tmp.0)))?;
            fs::set_mode(&tmp.0, OUTPUT_MODE)?;
            Some(tmp)
        };
        let _shard = self.shards.lock(output);
        if let Some(tmp) = fresh {
            let before = fs::metadata_if_there(&path)?;
            in_dir(&path, || fs::rename(&tmp.0, &path))?;
            tmp.keep();
            if let Some(survival) = &self.survival {
                survival.trust(output);
            }
            self.usage.add(
                output,
                size_on_disk(size) as i64
                    - before.as_ref().map_or(0, |m| size_on_disk(m.len()) as i64),
                i64::from(before.is_none()),
            );
        }
        // A sweep that began before leaves it alone now. It fails when the output was removed as
        // damaged just now.
        let now = self.now();
        fs::set_times(&path, now)?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let entry = Entry {
            output: *output,
            size,
            // Good until the year 2262.
            time: time.unwrap_or(since.as_micros() as i64 * 1000),
        };
        self.write_entry(action, &entry)?;
        Ok(entry)
    }

    fn write_entry(&self, action: &ActionId, entry: &Entry) -> Result<()> {
        let tmp = TmpFile::new(self.tmp_path());
        in_dir(&tmp.0, || fs::symlink(entry.encode(), &tmp.0))?;
        let path = self.action_path(action);
        in_dir(&path, || fs::rename(&tmp.0, &path))?;
        tmp.keep();
        Ok(())
    }

    /// Removes an entry, whatever it names.
    ///
    /// # Errors
    /// When the system fails to remove it.
    pub fn withdraw(&self, action: &ActionId) -> Result<()> {
        fs::remove_file(&self.action_path(action))
    }

    /// Removes a damaged entry.
    fn forget(&self, action: &ActionId, why: &str) -> Result<()> {
        log::warn(format!("action {action} {why}: removed, counted as a miss"));
        fs::remove_file(&self.action_path(action))
    }

    /// Removes an entry whose output is missing; `false` when the output is there.
    fn forget_dangling(&self, action: &ActionId, entry: &Entry) -> Result<bool> {
        let _shard = self.shards.lock(&entry.output);
        if fs::metadata_if_there(&self.output_path(&entry.output))?.is_some() {
            return Ok(false);
        }
        // Evicted just now, both of them, or the output alone is lost.
        if self.get(action)? == Some(*entry) {
            self.forget(action, "has lost its output")?;
        }
        Ok(true)
    }

    /// Removes a damaged output and the entry that led to it. Others that name it are
    /// found to be dangling later.
    fn discard(&self, action: &ActionId, entry: &Entry, why: &str) -> Result<()> {
        let _shard = self.shards.lock(&entry.output);
        if self.get(action)? == Some(*entry) {
            self.forget(action, why)?;
        }
        self.remove_output(&entry.output)
    }

    /// Removes an output's file. The caller has the lock of its shard.
    fn remove_output(&self, output: &OutputId) -> Result<()> {
        let path = self.output_path(output);
        // One that is damaged, and taken for removed while it is there, would be trusted from then on.
        let Some(metadata) = fs::metadata_if_there(&path)? else {
            return Ok(());
        };
        fs::remove_file(&path)?;
        self.usage
            .add(output, -(size_on_disk(metadata.len()) as i64), -1);
        Ok(())
    }

    /// Whether an output can be served as it is: after a crash of the machine, what was
    /// written shortly before is read first. A missing one can.
    fn is_trusted(&self, output: &OutputId, path: &Path) -> Result<bool> {
        let Some(survival) = self.survival.as_ref().filter(|s| s.is_suspicious()) else {
            return Ok(true);
        };
        let Some(metadata) = fs::metadata_if_there(path)? else {
            // Nothing to distrust: whoever wants it finds out.
            return Ok(true);
        };
        if !survival.suspects(output, modified(&metadata)) {
            return Ok(true);
        }
        let whole = verify::hash_file(path).is_ok_and(|found| found == *output);
        if whole {
            survival.trust(output);
        }
        Ok(whole)
    }

    /// Replaces an output by a copy of itself that has a single name.
    fn renew(&self, path: &Path) -> Result<()> {
        let tmp = TmpFile::new(self.tmp_path());
        in_dir(&tmp.0, || fs::copy(path, &tmp.0))?;
        fs::rename(&tmp.0, path)?;
        tmp.keep();
        Ok(())
    }

    /// Moves the mtime of a file to now, if it lies further back than `every`.
    fn record_use(&self, path: impl FnOnce() -> PathBuf, modified: SystemTime, every: Duration) {
        let now = self.now();
        if now.duration_since(modified).is_ok_and(|age| age < every) {
            return;
        }
        // A use that could not be recorded makes an output look older than it is, no more.
        if let Err(e) = fs::set_times(&path(), now) {
            log::debug(|| format!("a use is not recorded: {}", e.chain()));
        }
    }

    /// What an output's file shows of a change that somebody made to it, as a user who could.
    fn damage(&self, status: &Status, size: u64) -> Option<&'static str> {
        if status.size != size {
            Some("has an output of the wrong size")
        } else if status.mode & 0o7777 != OUTPUT_MODE {
            Some("has an output whose mode was changed")
        } else if status.uid != self.owner {
            Some("has an output that belongs to another user")
        } else {
            None
        }
    }

    fn now(&self) -> SystemTime {
        (self.now)()
    }

    /// How long ago that was; nothing for a time to come.
    fn age(&self, time: SystemTime) -> Duration {
        self.now().duration_since(time).unwrap_or_default()
    }

    /// Removes what processes that were killed have left, when nobody but us is here.
    ///
    /// # Errors
    /// When the system fails to list or to remove something.
    pub fn clear_tmp(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root.join("tmp"))? {
            let path = entry?.path();
            if !fs::symlink_metadata(&path)?.is_dir() {
                fs::remove_file(&path)?;
                continue;
            }
            for entry in fs::read_dir(&path)? {
                fs::remove_file(&entry?.path())?;
            }
        }
        Ok(())
    }

    /// Another one each time.
    fn tmp_path(&self) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.root
            .join("tmp")
            .join((serial % TMP_DIRS).to_string())
            .join(format!("{}-{serial}", std::process::id()))
    }

    fn action_path(&self, action: &ActionId) -> PathBuf {
        self.sharded("/actions/", &action.0)
    }

    fn output_path(&self, output: &OutputId) -> PathBuf {
        self.sharded("/outputs/", &output.0)
    }

    fn sharded(&self, kind: &str, id: &[u8; ID_LEN]) -> PathBuf {
        let root = self.root.as_os_str().as_bytes();
        let mut path = Vec::with_capacity(root.len() + kind.len() + 2 * ID_LEN + 1);
        path.extend_from_slice(root);
        path.extend_from_slice(kind.as_bytes());
        push_hex(&mut path, &id[..1]);
        path.push(b'/');
        push_hex(&mut path, &id[1..]);
        PathBuf::from(OsString::from_vec(path))
    }
}

/// What an output of this length takes on disk, in bytes.
fn size_on_disk(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK
}

/// Takes the lock of a cache directory and writes into it who has it.
fn take_lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let lock = fs::open_or_create(&path, 0o600)?;
    if !sys::try_lock(&lock).map_err(|e| Error::io("lock", &path, e))? {
        let holder = fs::read_to_string(&path).unwrap_or_default();
        return Err(Error::input(format!(
            "the cache {} is in use by another daemon (process {}): stop that one, or give this one a \
             --cache-dir of its own",
            root.display(),
            holder.trim()
        )));
    }
    let noted = lock
        .set_len(0)
        .and_then(|()| (&lock).write_all(format!("{}\n", std::process::id()).as_bytes()));
    match noted {
        // On a full disk there must be a way to free some.
        Err(e) if e.kind() == ErrorKind::StorageFull => log::debug(|| e.to_string()),
        Err(e) => return Err(Error::io("write", &path, e)),
        Ok(()) => {}
    }
    Ok(lock)
}

/// Reads a body of `size` bytes, to a file if one is given, and checks its hash.
fn receive(
    body: &mut impl Read,
    size: u64,
    output: &OutputId,
    to: Option<(&File, &Path)>,
) -> Result<()> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
    let mut left = size;
    while left > 0 {
        let want = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = match body.read(&mut chunk[..want]) {
            Ok(0) => {
                return Err(Error::peer(format!(
                    "the body ended {left} bytes short of its {size}"
                )));
            }
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::io("read", "the body", e)),
        };
        hash.update(&chunk[..n]);
        if let Some((file, path)) = to {
            fs::write_all(file, path, &chunk[..n])?;
        }
        left -= n as u64;
    }
    let found = OutputId(hash.finalize());
    if found != *output {
        return Err(Error::peer(format!(
            "the body's SHA-256 is {found}, not {output} as announced"
        )));
    }
    Ok(())
}

/// Makes something in a directory, and the directory if it is missing.
fn in_dir<T>(path: &Path, act: impl Fn() -> Result<T>) -> Result<T> {
    match act() {
        Err(e) if e.kind() == Some(ErrorKind::NotFound) => {
            fs::ensure_dir(path.parent().unwrap_or(path), 0o700)?;
            act()
        }
        done => done,
    }
}

/// Removes a temporary file, unless it has become something else.
struct TmpFile(PathBuf);

impl TmpFile {
    fn new(path: PathBuf) -> Self {
        Self(path)
    }

    fn keep(mut self) {
        // Not `mem::forget`, which would leak the path, of each put.
        self.0 = PathBuf::new();
    }
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        if let Err(e) = fs::remove_file(&self.0) {
            log::warn(e.chain());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn id_of(body: &[u8]) -> OutputId {
        OutputId(Sha256::digest(body))
    }

    fn put(store: &Store, action: u8, body: &[u8]) -> Result<Entry> {
        store.put(
            &ActionId([action; 32]),
            &id_of(body),
            body.len() as u64,
            &mut &body[..],
        )
    }

    /// What a build would read for an action.
    fn get(store: &Store, dir: &TestDir, action: u8) -> Option<Vec<u8>> {
        let action = ActionId([action; 32]);
        let entry = store.get(&action).unwrap()?;
        let directory = OpenDirectory::open(dir.path()).unwrap();
        directory.remove_file("linked").unwrap();
        store
            .link(&action, &entry, &directory, "linked")
            .unwrap()
            .then(|| std::fs::read(dir.path().join("linked")).unwrap())
    }

    fn tmp_is_empty(store: &Store) -> bool {
        model::files(&store.root.join("tmp")).is_empty()
    }

    #[test]
    fn what_was_put_comes_back() {
        let dir = TestDir::new();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        assert_eq!(get(&store, &dir, 1), None);
        for (action, body) in [(1, &b"body"[..]), (2, b""), (3, &vec![7; CHUNK * 2 + 1])] {
            put(&store, action, body).unwrap();
            assert_eq!(get(&store, &dir, action).unwrap(), body);
        }
        assert!(tmp_is_empty(&store));
    }

    #[test]
    fn a_new_put_of_an_action_replaces_its_entry() {
        let dir = TestDir::new();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        put(&store, 1, b"old").unwrap();
        put(&store, 1, b"new").unwrap();
        assert_eq!(get(&store, &dir, 1).unwrap(), b"new");
        assert!(tmp_is_empty(&store));
    }

    #[test]
    fn a_body_that_is_not_what_its_id_says_is_refused() {
        let dir = TestDir::new();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let action = ActionId([1; 32]);
        for (size, body) in [(4, &b"evil"[..]), (5, b"body"), (3, b"body")] {
            assert!(
                store
                    .put(&action, &id_of(b"body"), size, &mut &body[..])
                    .is_err()
            );
            assert_eq!(store.get(&action).unwrap(), None);
        }
        assert!(tmp_is_empty(&store));
    }

    #[test]
    fn who_names_a_present_output_must_have_its_body() {
        let dir = TestDir::new();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        put(&store, 1, b"secret").unwrap();
        let guess = ActionId([2; 32]);
        assert!(
            store
                .put(&guess, &id_of(b"secret"), 6, &mut &b"guess!"[..])
                .is_err()
        );
        assert_eq!(store.get(&guess).unwrap(), None);
    }

    #[test]
    fn a_second_put_of_an_output_leaves_its_file_alone() {
        use std::os::unix::fs::MetadataExt;
        let dir = TestDir::new();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        put(&store, 1, b"body").unwrap();
        let inode = || {
            std::fs::metadata(store.output_path(&id_of(b"body")))
                .unwrap()
                .ino()
        };
        let before = inode();
        put(&store, 2, b"body").unwrap();
        assert_eq!(inode(), before);
        assert_eq!(get(&store, &dir, 2).unwrap(), b"body");
    }

    #[test]
    fn damage_is_a_miss_and_a_put_repairs_it() {
        let dir = TestDir::new();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let output = store.output_path(&id_of(b"body"));
        let action = store.action_path(&ActionId([1; 32]));
        let damages: [&dyn Fn(); 5] = [
            &|| std::fs::remove_file(&output).unwrap(),
            &|| {
                std::fs::remove_file(&output).unwrap();
                std::fs::write(&output, b"bod").unwrap();
            },
            &|| {
                std::fs::remove_file(&action).unwrap();
                std::os::unix::fs::symlink("nonsense", &action).unwrap();
            },
            &|| {
                std::fs::remove_file(&action).unwrap();
                std::fs::write(&action, b"nonsense").unwrap();
            },
            &|| std::fs::remove_file(&action).unwrap(),
        ];
        for damage in damages {
            put(&store, 1, b"body").unwrap();
            damage();
            assert_eq!(get(&store, &dir, 1), None);
            put(&store, 1, b"body").unwrap();
            assert_eq!(get(&store, &dir, 1).unwrap(), b"body");
        }
    }

    #[test]
    fn a_use_is_recorded_at_most_hourly() {
        let dir = TestDir::new();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        put(&store, 1, b"body").unwrap();
        let path = store.output_path(&id_of(b"body"));
        let mtime = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let ago = |age: Duration| SystemTime::now() - age;
        for (age, moves) in [
            (Duration::from_secs(1800), false),
            (Duration::from_secs(7200), true),
        ] {
            let then = ago(age);
            sys::set_times(&path, then).unwrap();
            let entry = store.get(&ActionId([1; 32])).unwrap().unwrap();
            get(&store, &dir, 1).unwrap();
            assert_eq!(mtime() > then + Duration::from_secs(60), moves);
            // `go` is told of the put, not of the use.
            assert_eq!(store.get(&ActionId([1; 32])).unwrap().unwrap(), entry);
        }
    }

    /// With relatime, as file systems are mounted if nobody says otherwise.
    #[test]
    fn a_read_writes_no_access_time() {
        use std::os::unix::fs::MetadataExt;
        let dir = TestDir::new();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        put(&store, 1, b"body").unwrap();
        // Links it, and reads it.
        for _ in 0..3 {
            get(&store, &dir, 1).unwrap();
        }
        let found = std::fs::metadata(store.output_path(&id_of(b"body"))).unwrap();
        assert_eq!(found.atime(), sys::LATEST);
        assert!(found.ctime() < sys::LATEST);
    }

    #[test]
    fn a_store_in_use_or_of_another_format_is_refused() {
        let dir = TestDir::new();
        let root = dir.path().join("cache");
        let store = Store::open(&root).unwrap();
        let refused = Store::open(&root).unwrap_err().to_string();
        assert!(refused.contains("in use by another daemon"), "{refused}");
        assert!(
            refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(store);
        std::fs::write(root.join("format"), "nix-gocacheprog cache, format 2\n").unwrap();
        let refused = Store::open(&root).unwrap_err().to_string();
        assert!(refused.contains("format 2"), "{refused}");
    }
}
