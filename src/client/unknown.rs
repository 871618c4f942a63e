//! What keys hold of something that cannot be looked at.

use crate::id::BuildId;
use crate::sha256::Sha256;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Whether a failure to read this file or folder says what a compiler finds there, which is nothing. After any other failure
/// nobody knows what is there, and it must be told apart from all else.
pub fn is_nothing(path: &Path, failure: &Error) -> bool {
    match failure.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) => true,
        // No compiler of this user's can read it either. But where a folder may be entered and not be listed, its files can be
        // found by name.
        Some(libc::EACCES) => path.join(".").metadata().is_err(),
        Some(_) => false,
        // It never came to the system: no file has such a name.
        None => failure.kind() == ErrorKind::InvalidInput,
    }
}

/// Something that is nowhere else.
pub fn nonce() -> [u8; 32] {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hash = Sha256::new_with_prefix("nix-gocacheprog: a nonce\0");
    // The first says enough. The others are for a system that has no random numbers.
    if let Ok(random) = BuildId::new() {
        hash.update(random.to_string());
    }
    hash.update(format!(
        "{:?} {} {}",
        SystemTime::now(),
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ));
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn only_what_is_not_there_or_closed_to_all_is_nothing() {
        let dir = TestDir::new();
        let of = |path: &Path, errno| is_nothing(path, &Error::from_raw_os_error(errno));
        let file = dir.path().join("v.h");
        std::fs::write(&file, "").unwrap();
        assert!(of(&file, libc::ENOENT) && of(&file, libc::ENOTDIR));
        assert!(of(&file, libc::EACCES));
        assert!(
            !of(dir.path(), libc::EACCES),
            "its files can be found by name"
        );
        for errno in [libc::EIO, libc::EMFILE, libc::ENOMEM, libc::ENOTCONN] {
            assert!(!of(&file, errno) && !of(dir.path(), errno));
        }
    }

    #[test]
    fn a_nonce_is_nowhere_else() {
        assert_ne!(nonce(), nonce());
    }
}
