//! What the next daemon must know of this one's end: the file `CACHE/state`.
//!
//! When only the daemon dies, the kernel still has all that it wrote. When the machine
//! stops, whatever was written since the last sync point may be there in part, with its
//! right name and length. So the state says in which boot of the machine the store was
//! written, whether it was left with everything on disk, and since when that may not be
//! so. After a crash of the machine, outputs from that time on are suspect until their
//! hash has been checked.
//!
//! The same holds when the disk refuses what is in memory. The kernel says that once, to whoever waits for the disk next,
//! and goes on as if the data were there: so a later sync that succeeds says nothing of what was written before.
//!
//! The state must be on disk before the first put: it is what says that there are any.

use crate::config::SYNC_SLACK;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::OutputId;
use crate::log;
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file's content. Times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    /// The boot of the machine in which the store was last written.
    boot: String,
    /// All that was written is on disk.
    clean: bool,
    /// What was written before is on disk.
    synced: i64,
    /// A crash may have damaged what was written from then on.
    suspect_from: Option<i64>,
    /// What was in the store.
    #[serde(default)]
    size: Size,
}

/// How much there is in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// What the outputs take on disk, in bytes.
    pub bytes: u64,
    /// How many there are.
    pub outputs: u64,
}

/// Tells what a crash may have damaged, and keeps the state.
#[derive(Debug)]
pub struct CrashGuard {
    path: PathBuf,
    /// The directory, opened before anything is written: the kernel tells of a failed write by descriptors that were open then.
    directory: File,
    boot: String,
    /// Guards the file too.
    state: Mutex<State>,
    /// The file says that the store is being written.
    writing: AtomicBool,
    /// Something was written since the last sync point.
    unsynced: AtomicBool,
    /// Seconds since 1970; `i64::MAX` when nothing is suspect.
    suspect_from: AtomicI64,
    /// The outputs from then on that are known to be whole: the first bytes of their IDs.
    verified: Mutex<HashSet<u64>>,
    /// The size at the start may be wrong.
    pub size_is_a_guess: bool,
}

impl CrashGuard {
    /// Reads the state, and says how much was in the store then. A new store has none, and
    /// nothing in it.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn open(
        path: PathBuf,
        boot: String,
        now: SystemTime,
        is_new: bool,
    ) -> Result<(Self, Size)> {
        let directory = fs::open(path.parent().unwrap_or(&path))?;
        let before: Option<State> = match fs::read_to_string(&path) {
            // What cannot be understood was damaged by a crash.
            Ok(text) => serde_json::from_str(&text).ok(),
            Err(e) if matches!(e.kind(), Some(ErrorKind::NotFound | ErrorKind::InvalidData)) => {
                None
            }
            Err(e) => return Err(e),
        };
        let clean = before.as_ref().is_some_and(|state| state.clean);
        let state = match before {
            Some(state) if state.clean || state.boot == boot => State {
                boot: boot.clone(),
                ..state
            },
            Some(state) => {
                let from = state.suspect_from.unwrap_or(i64::MAX).min(state.synced);
                log::warn("unclean shutdown: verifying recent outputs before serving them");
                State {
                    boot: boot.clone(),
                    clean: false,
                    // Whatever can be read now has come from the disk.
                    synced: seconds(now),
                    suspect_from: Some(from),
                    size: state.size,
                }
            }
            None => State {
                boot: boot.clone(),
                clean: false,
                synced: seconds(now),
                suspect_from: (!is_new).then_some(i64::MIN),
                size: Size::default(),
            },
        };
        let size = state.size;
        Ok((
            Self {
                path,
                directory,
                boot,
                suspect_from: AtomicI64::new(state.suspect_from.unwrap_or(i64::MAX)),
                state: Mutex::new(state),
                writing: AtomicBool::new(false),
                unsynced: AtomicBool::new(false),
                verified: Mutex::default(),
                size_is_a_guess: !clean && !is_new,
            },
            size,
        ))
    }

    /// Is called before each put; the first one waits until the disk has the state.
    ///
    /// # Errors
    /// When the state cannot be written: nothing may be put then.
    pub fn begin_writing(&self, now: SystemTime) -> Result<()> {
        if !self.unsynced.load(Ordering::Relaxed) {
            self.unsynced.store(true, Ordering::Relaxed);
        }
        if self.writing.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = self.state();
        if self.writing.load(Ordering::Acquire) {
            return Ok(());
        }
        let next = State {
            boot: self.boot.clone(),
            clean: false,
            // A clock that has been set back must not hide what is written now.
            synced: state.synced.min(seconds(now)),
            ..state.clone()
        };
        self.write(&next)?;
        *state = next;
        self.writing.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether anything is suspect at all.
    pub fn is_suspicious(&self) -> bool {
        self.suspect_from.load(Ordering::Acquire) != i64::MAX
    }

    /// Whether a crash may have damaged this output, which was last written or used then.
    pub fn suspects(&self, output: &OutputId, mtime: SystemTime) -> bool {
        let from = self.suspect_from.load(Ordering::Acquire);
        from != i64::MAX
            && seconds(mtime) >= from.saturating_sub(SYNC_SLACK.as_secs() as i64)
            && !self.verified().contains(&prefix(output))
    }

    /// This output is known to be whole.
    pub fn trust(&self, output: &OutputId) {
        if self.is_suspicious() {
            self.verified().insert(prefix(output));
        }
    }

    /// Every output has been checked.
    pub fn end_suspicion(&self) {
        self.state().suspect_from = None;
        self.suspect_from.store(i64::MAX, Ordering::Release);
        *self.verified() = HashSet::new();
        // The file may say otherwise until it is next written: that costs a check, no more.
        self.unsynced.store(true, Ordering::Relaxed);
    }

    /// Writes all that is in memory to disk, if anything has been written since the last
    /// time, and then says so in the state. `last` when nothing more will be written.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self, now: SystemTime, size: Size, last: bool) -> Result<()> {
        if !self.unsynced.swap(false, Ordering::Relaxed) && !last {
            return Ok(());
        }
        let mut state = self.state();
        // Nothing was written by this process, and by none before it that crashed.
        if last && !self.writing.load(Ordering::Acquire) && state.clean {
            return Ok(());
        }
        let dir = self.path.parent().unwrap_or(&self.path);
        if let Err(e) = fs::sync_file_system(&self.directory, dir) {
            self.unsynced.store(true, Ordering::Relaxed);
            self.suspect_unsynced(&mut state);
            return Err(e);
        }
        let synced = (|| {
            let next = State {
                clean: last,
                synced: seconds(now),
                size,
                ..state.clone()
            };
            self.write(&next)?;
            *state = next;
            Ok(())
        })();
        if synced.is_err() {
            self.unsynced.store(true, Ordering::Relaxed);
        }
        synced
    }

    /// What was written since the last sync point may not be on disk, and never come there.
    fn suspect_unsynced(&self, state: &mut State) {
        let from = state.suspect_from.unwrap_or(i64::MAX).min(state.synced);
        *state = State {
            clean: false,
            suspect_from: Some(from),
            ..state.clone()
        };
        self.suspect_from.store(from, Ordering::Release);
        // What was known of them was known from memory.
        *self.verified() = HashSet::new();
        if let Err(e) = self.write(state) {
            log::warn(e.chain());
        }
    }

    fn write(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).map_err(|e| Error::input(e.to_string()))?;
        fs::replace(&self.path, &text, 0o600)?;
        let dir: &Path = self.path.parent().unwrap_or(&self.path);
        fs::open(dir)?
            .sync_all()
            .map_err(|e| Error::io("sync", dir, e))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is replaced as a whole.
        lock(&self.state)
    }

    fn verified(&self) -> MutexGuard<'_, HashSet<u64>> {
        lock(&self.verified)
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs() as i64
}

fn prefix(output: &OutputId) -> u64 {
    output.0[..8]
        .iter()
        .fold(0, |n, byte| n << 8 | u64::from(*byte))
}
