//! Faults for the tests: the file operations of one thread fail when the test says so.

use std::cell::Cell;
use std::io::{Error, Result};

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this `errno`; a write has written nothing.
    Fails(i32),
    /// A write writes half, then fails for want of space; anything else just fails.
    Short,
    /// The process ends here: neither this nor any later operation does anything.
    Kill,
}

thread_local! {
    static NEXT: Cell<Option<(u32, Fault)>> = const { Cell::new(None) };
    static DEAD: Cell<bool> = const { Cell::new(false) };
}

/// Lets `after` operations of this thread pass, and the next one fail.
pub fn inject(after: u32, fault: Fault) {
    NEXT.set(Some((after, fault)));
}

/// From now on nothing fails; says whether a fault is still to come.
pub fn clear() -> bool {
    DEAD.set(false);
    NEXT.take().is_some()
}

/// Whether this thread's process has ended.
pub fn killed() -> bool {
    DEAD.get()
}

pub(super) fn before(_op: &str) -> Result<()> {
    if DEAD.get() {
        return Err(Error::from_raw_os_error(libc::EIO));
    }
    let Some((after, fault)) = NEXT.get() else {
        return Ok(());
    };
    if after > 0 {
        NEXT.set(Some((after - 1, fault)));
        return Ok(());
    }
    NEXT.set(None);
    let errno = match fault {
        Fault::Fails(errno) => errno,
        Fault::Short => libc::ENOSPC,
        Fault::Kill => {
            DEAD.set(true);
            libc::EIO
        }
    };
    Err(Error::from_raw_os_error(errno))
}

/// How much of a write is done before it fails.
pub(super) fn before_write(length: usize) -> Option<usize> {
    match NEXT.get() {
        Some((0, Fault::Short | Fault::Kill)) if !DEAD.get() => Some(length / 2),
        _ => None,
    }
}
