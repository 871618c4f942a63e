//! Locks that a panic elsewhere cannot poison.
//!
//! Each thread of the daemon works for one peer, and a panic must end that peer's session alone. Every table behind a
//! lock is whole between two statements, so what a panicking thread left is used as it is.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic of somebody who held the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
