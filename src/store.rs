//! The store: actions and outputs on disk, content-addressed, without a database.
//!
//! ```text
//! CACHE/format              the version of this layout
//! CACHE/lock                held by the daemon
//! CACHE/outputs/3f/a0…      an output: its bytes, in a file named by their SHA-256
//! CACHE/actions/7c/19…      an entry: a symbolic link named by the action ID
//! CACHE/tmp/                bodies on their way in
//! ```
//!
//! An action is a symbolic link whose target is not a path but the entry itself:
//! base64url of output ID (32 bytes), size (5, big-endian) and the time of the put in
//! microseconds since 1970 (7, big-endian). That makes 59 characters, which is just what
//! ext4 keeps within an inode: an action is created in one atomic system call, read in
//! one, and takes no disk block, where a small file takes four calls and 4 KiB.
//!
//! Nothing that is visible is ever rewritten in place, and an action appears after its
//! output. An output's mtime is its last use, moved forward at most hourly. Damage of any
//! kind is a miss: the entry is removed and the loss logged.
//!
//! The store knows of no builds, and never hands out a path below `outputs`.

use crate::config::USE_RECORDED_EVERY;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, ID_LEN, OutputId, push_hex};
use crate::log;
use crate::sys;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version of the layout above.
const FORMAT: &str = "nix-gocacheprog cache, format 1\n";

/// The largest output that an entry can describe, in bytes.
pub const SIZE_MAX: u64 = (1 << 40) - 1;

/// Bodies are read and written this much at a time, in bytes.
const CHUNK: usize = 128 << 10;

const ENTRY_LEN: usize = ID_LEN + 5 + 7;

/// What the store knows of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The output's ID.
    pub output: OutputId,
    /// The output's length in bytes.
    pub size: u64,
    /// When it was put, in nanoseconds since 1970 (whole microseconds).
    pub time: i64,
}

/// A directory of actions and outputs.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    now: fn() -> SystemTime,
    /// Numbers the files in `tmp`.
    serial: AtomicU64,
    /// Keeps the lock of a store that is ours alone.
    _lock: Option<File>,
}

impl Store {
    /// Opens the daemon's store, creating what is missing, for this process alone.
    ///
    /// # Errors
    /// When the directory cannot be made or written, is in use by another daemon, or
    /// has a format this version does not know.
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)?;
        // Builds must be able to reach CACHE/builds, and list nothing on the way.
        fs::ensure_dir(root, 0o711)?;
        let lock_path = root.join("lock");
        let lock = fs::open_or_create(&lock_path, 0o600)?;
        if !sys::try_lock(&lock).map_err(|e| Error::io("lock", &lock_path, e))? {
            let holder = fs::read_to_string(&lock_path).unwrap_or_default();
            return Err(Error::input(format!(
                "the cache {} is in use by another daemon (process {}): stop that one, or give this one \
                 a --cache-dir of its own",
                root.display(),
                holder.trim()
            )));
        }
        lock.set_len(0)
            .and_then(|()| (&lock).write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(|e| Error::io("write", &lock_path, e))?;
        let mut store = Self::open_shared(root)?;
        store._lock = Some(lock);
        store.clear_tmp()?;
        Ok(store)
    }

    /// Opens a store that several processes of one user may use at once.
    ///
    /// # Errors
    /// When the directory cannot be made or written, or has an unknown format.
    pub fn open_shared(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)?;
        let format = root.join("format");
        match fs::read_to_string(&format) {
            Ok(found) if found == FORMAT => {}
            Ok(found) => {
                return Err(Error::input(format!(
                    "{} says {:?}, which this version ({}) cannot read: use the version that wrote it, or \
                     another --cache-dir",
                    format.display(),
                    found.trim(),
                    FORMAT.trim()
                )));
            }
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => {
                for dir in ["outputs", "actions", "tmp"] {
                    fs::ensure_dir(&root.join(dir), 0o700)?;
                }
                let fresh = root
                    .join("tmp")
                    .join(format!("format-{}", std::process::id()));
                std::fs::write(&fresh, FORMAT).map_err(|e| Error::io("write", &fresh, e))?;
                fs::rename(&fresh, &format)?;
            }
            Err(e) => return Err(e),
        }
        Ok(Self {
            root: root.to_path_buf(),
            now: SystemTime::now,
            serial: AtomicU64::new(0),
            _lock: None,
        })
    }

    /// Looks an action up. What is damaged is a miss.
    ///
    /// # Errors
    /// When the system fails to read the entry.
    pub fn get(&self, action: &ActionId) -> Result<Option<Entry>> {
        let path = self.action_path(action);
        let target = match std::fs::read_link(&path) {
            Ok(target) => target,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            // Not a symbolic link: nothing of ours.
            Err(e) if e.kind() == ErrorKind::InvalidInput => {
                return self.forget(action, "is not an entry").map(|()| None);
            }
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let Some(entry) = Entry::decode(target.as_os_str().as_bytes()) else {
            return self.forget(action, "is not an entry").map(|()| None);
        };
        Ok(Some(entry))
    }

    /// Makes `name` another name of an entry's output. `false` when the output is
    /// missing or damaged: the entry is forgotten then, and the action a miss.
    ///
    /// # Errors
    /// When the system fails to make the link.
    pub fn link(&self, action: &ActionId, entry: &Entry, name: &Path) -> Result<bool> {
        let path = self.output_path(&entry.output);
        match std::fs::hard_link(&path, name) {
            Ok(()) => {}
            // This build has it already.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if !path.exists() {
                    return self.forget(action, "has lost its output").map(|()| false);
                }
                return Err(Error::io("link an output to", name, e));
            }
            // This file has as many names as the file system allows: go on with a copy.
            Err(e) if e.kind() == ErrorKind::TooManyLinks => {
                self.renew(&path)?;
                fs::hard_link(&path, name)?;
            }
            Err(e) => return Err(Error::io("link an output to", name, e)),
        }
        let metadata = fs::metadata(name)?;
        if metadata.len() != entry.size {
            fs::remove_file(name)?;
            fs::remove_file(&path)?;
            return self
                .forget(action, "has an output of the wrong size")
                .map(|()| false);
        }
        self.record_use(name, metadata.modified().ok());
        Ok(true)
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
        if size > SIZE_MAX {
            return Err(Error::input(format!(
                "an output of {size} bytes is larger than the store takes ({SIZE_MAX})"
            )));
        }
        let path = self.output_path(output);
        let present = std::fs::metadata(&path).is_ok_and(|m| m.len() == size);
        if present {
            // The body is checked all the same: who names an output must have it.
            receive(body, size, output, None)?;
            self.record_use(&path, None);
        } else {
            let tmp = TmpFile::new(self.tmp_path());
            let mut file = fs::create_new(&tmp.0, 0o444)?;
            receive(body, size, output, Some((&mut file, &tmp.0)))?;
            file.set_permissions(std::fs::Permissions::from_mode(0o444))
                .map_err(|e| Error::io("set the mode of", &tmp.0, e))?;
            in_shard(&path, || std::fs::rename(&tmp.0, &path))
                .map_err(|e| Error::io("move an output to", &path, e))?;
            tmp.keep();
        }
        let since = (self.now)()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let entry = Entry {
            output: *output,
            size,
            // Good until the year 2262.
            time: since.as_micros() as i64 * 1000,
        };
        self.write_entry(action, &entry)?;
        Ok(entry)
    }

    fn write_entry(&self, action: &ActionId, entry: &Entry) -> Result<()> {
        let path = self.action_path(action);
        let target = entry.encode();
        match in_shard(&path, || std::os::unix::fs::symlink(&target, &path)) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("write the entry", path, e)),
        }
        let tmp = TmpFile::new(self.tmp_path());
        std::os::unix::fs::symlink(&target, &tmp.0)
            .map_err(|e| Error::io("write the entry", &tmp.0, e))?;
        fs::rename(&tmp.0, &path)?;
        tmp.keep();
        Ok(())
    }

    /// Removes a damaged entry.
    fn forget(&self, action: &ActionId, why: &str) -> Result<()> {
        log::warn(format!(
            "action {action} {why}: it is removed and counts as a miss"
        ));
        fs::remove_file(&self.action_path(action))
    }

    /// Replaces an output by a copy of itself that has a single name.
    fn renew(&self, path: &Path) -> Result<()> {
        let tmp = TmpFile::new(self.tmp_path());
        // Copies the mode too.
        std::fs::copy(path, &tmp.0).map_err(|e| Error::io("copy an output to", &tmp.0, e))?;
        fs::rename(&tmp.0, path)?;
        tmp.keep();
        Ok(())
    }

    /// Moves an output's mtime to now, if it lies further back than an hour.
    fn record_use(&self, path: &Path, mtime: Option<SystemTime>) {
        let now = (self.now)();
        let recent = |mtime| {
            now.duration_since(mtime)
                .is_ok_and(|age| age < USE_RECORDED_EVERY)
        };
        let mtime = mtime.or_else(|| std::fs::metadata(path).ok()?.modified().ok());
        if mtime.is_some_and(recent) {
            return;
        }
        // A use that could not be recorded makes an output look older than it is, no more.
        if let Err(e) = sys::set_mtime(path, now) {
            log::debug(|| format!("cannot record the use of {}: {e}", path.display()));
        }
    }

    fn clear_tmp(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root.join("tmp"))? {
            fs::remove_file(&entry?.path())?;
        }
        Ok(())
    }

    fn tmp_path(&self) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.root
            .join("tmp")
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

impl Entry {
    /// The entry as the target of a symbolic link.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(ENTRY_LEN);
        bytes.extend_from_slice(&self.output.0);
        bytes.extend_from_slice(&self.size.to_be_bytes()[3..]);
        bytes.extend_from_slice(&(self.time / 1000).to_be_bytes()[1..]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what `encode` writes; anything else is `None`.
    pub fn decode(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; ENTRY_LEN];
        // The engine may want room for a whole last group.
        let mut room = [0; ENTRY_LEN + 4];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut room).ok()? != ENTRY_LEN {
            return None;
        }
        bytes.copy_from_slice(&room[..ENTRY_LEN]);
        let number = |range: std::ops::Range<usize>| {
            bytes[range]
                .iter()
                .fold(0u64, |n, byte| n << 8 | u64::from(*byte))
        };
        Some(Self {
            output: OutputId(bytes[..ID_LEN].try_into().ok()?),
            size: number(ID_LEN..ID_LEN + 5),
            time: i64::try_from(number(ID_LEN + 5..ENTRY_LEN))
                .ok()?
                .checked_mul(1000)?,
        })
    }
}

/// Reads a body of `size` bytes, to a file if one is given, and checks its hash.
fn receive(
    body: &mut impl Read,
    size: u64,
    output: &OutputId,
    mut to: Option<(&mut File, &Path)>,
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
        if let Some((file, path)) = &mut to {
            file.write_all(&chunk[..n])
                .map_err(|e| Error::io("write", path, e))?;
        }
        left -= n as u64;
    }
    let found = OutputId(hash.finalize().into());
    if found != *output {
        return Err(Error::peer(format!(
            "the body's SHA-256 is {found}, not {output} as announced"
        )));
    }
    Ok(())
}

/// Does something in a shard's directory, making the directory if it is missing.
fn in_shard(path: &Path, act: impl Fn() -> std::io::Result<()>) -> std::io::Result<()> {
    match act() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let shard = path.parent().unwrap_or(path);
            match std::fs::create_dir(shard) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
                _ => act(),
            }
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
        OutputId(Sha256::digest(body).into())
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
        let name = dir.path().join("linked");
        fs::remove_file(&name).unwrap();
        store
            .link(&action, &entry, &name)
            .unwrap()
            .then(|| std::fs::read(&name).unwrap())
    }

    fn tmp_is_empty(store: &Store) -> bool {
        std::fs::read_dir(store.root.join("tmp")).unwrap().count() == 0
    }

    #[test]
    fn an_entry_fits_in_an_inode_and_reads_back() {
        let entry = Entry {
            output: OutputId([0xfe; 32]),
            size: SIZE_MAX,
            time: 1_900_000_000_123_456_000,
        };
        let text = entry.encode();
        assert_eq!(text.len(), 59);
        assert_eq!(Entry::decode(text.as_bytes()), Some(entry));
        assert_eq!(Entry::decode(&text.as_bytes()[1..]), None);
        assert_eq!(Entry::decode(b"../../etc/passwd"), None);
        assert_eq!(Entry::decode(b""), None);
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
            sys::set_mtime(&path, then).unwrap();
            let entry = store.get(&ActionId([1; 32])).unwrap().unwrap();
            get(&store, &dir, 1).unwrap();
            assert_eq!(mtime() > then + Duration::from_secs(60), moves);
            // `go` is told of the put, not of the use.
            assert_eq!(store.get(&ActionId([1; 32])).unwrap().unwrap(), entry);
        }
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
