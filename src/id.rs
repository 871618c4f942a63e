//! The three kinds of ID. Each is parsed once, where it enters the program, and
//! never checked again; none of them can ever hold a path separator or a dot.

use crate::error::{Error, Result};
use crate::sha256::Sha256;
use crate::sys;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Bytes in an action ID or an output ID.
pub const ID_LEN: usize = 32;

/// The longest action ID that is taken from a peer, in bytes.
const ACTION_ID_MAX: usize = 64;

/// How the action IDs of module files end.
const MODULE_MARK: &[u8; 8] = b"-module\0";

/// The key of a cache entry: what `go` hashed together to name a piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActionId(pub [u8; ID_LEN]);

/// The SHA-256 of an output's bytes, which is also its name on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutputId(pub [u8; ID_LEN]);

/// Names one build and its build directory. It is a secret of that build.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuildId([u8; 16]);

impl ActionId {
    /// Takes an action ID of 1 to 64 bytes. `go` sends 32, which are kept as they
    /// are; another length is hashed to 32, so that it cannot collide with one of
    /// `go`'s.
    ///
    /// # Errors
    /// When the ID is empty or over-long.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if let Ok(id) = bytes.try_into() {
            return Ok(Self(id));
        }
        if bytes.is_empty() || bytes.len() > ACTION_ID_MAX {
            return Err(Error::input(format!(
                "an action ID has 1 to {ACTION_ID_MAX} bytes, this one has {}",
                bytes.len()
            )));
        }
        Ok(Self::of(
            b"nix-gocacheprog: an action ID of another length\0",
            bytes,
        ))
    }

    /// The action ID of a module file: a hash over a label and the key, with a mark by which the daemon knows it. No other
    /// hash has that mark but by an accident of 1 in 2^64.
    pub fn of_module(label: &[u8], key: &[u8]) -> Self {
        let Self(mut id) = Self::of(label, key);
        id[ID_LEN - MODULE_MARK.len()..].copy_from_slice(MODULE_MARK);
        Self(id)
    }

    /// Whether this is the action ID of a module file.
    pub fn is_module(&self) -> bool {
        self.0.ends_with(MODULE_MARK)
    }

    /// The action ID of something that is not `go`'s: a hash over a label, which
    /// keeps one use from another, and the key itself.
    pub fn of(label: &[u8], key: &[u8]) -> Self {
        Self(
            Sha256::new()
                .chain_update(label)
                .chain_update(key)
                .finalize(),
        )
    }
}

impl OutputId {
    /// Takes an output ID, which has 32 bytes.
    ///
    /// # Errors
    /// When the ID has another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        bytes.try_into().map(Self).map_err(|_| {
            Error::input(format!(
                "an output ID is a SHA-256 of {ID_LEN} bytes, this one has {}",
                bytes.len()
            ))
        })
    }
}

impl BuildId {
    /// A new ID that nobody can guess: 128 random bits.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self> {
        let mut id = [0; 16];
        sys::random(&mut id)?;
        Ok(Self(id))
    }

    /// Reads what `Display` writes; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text.as_bytes()).map(Self)
    }

    /// Enough of the ID to tell builds apart in a log, too little to use it.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_string()
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    String::from_utf8_lossy(&text).into_owned()
}

/// The path in a directory whose name is these bytes in hexadecimal.
pub fn hex_path(directory: &Path, bytes: &[u8]) -> PathBuf {
    let directory = directory.as_os_str().as_bytes();
    let mut path = Vec::with_capacity(directory.len() + 1 + 2 * bytes.len());
    path.extend_from_slice(directory);
    path.push(b'/');
    push_hex(&mut path, bytes);
    PathBuf::from(OsString::from_vec(path))
}

/// Writes lower-case hexadecimal digits.
pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    for (pair, byte) in out[start..].chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Reads exactly `N` bytes of lower-case hexadecimal digits.
pub fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    fn digit(c: u8) -> Option<u8> {
        match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        }
    }
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for OutputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActionId({self})")
    }
}

impl fmt::Debug for OutputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputId({self})")
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({}…)", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_id_of_gos_length_is_kept_as_it_is() {
        assert_eq!(ActionId::from_bytes(&[7; 32]).unwrap().0, [7; 32]);
    }

    #[test]
    fn action_ids_of_other_lengths_are_told_apart() {
        let short = ActionId::from_bytes(b"a").unwrap();
        assert_ne!(short, ActionId::from_bytes(b"b").unwrap());
        assert_ne!(short, ActionId::from_bytes(b"a\0").unwrap());
        assert_eq!(short, ActionId::from_bytes(b"a").unwrap());
    }

    #[test]
    fn empty_and_over_long_ids_are_refused() {
        assert!(ActionId::from_bytes(b"").is_err());
        assert!(ActionId::from_bytes(&[0; 64]).is_ok());
        assert!(ActionId::from_bytes(&[0; 65]).is_err());
        assert!(OutputId::from_bytes(&[0; 31]).is_err());
        assert!(OutputId::from_bytes(&[0; 33]).is_err());
    }

    #[test]
    fn a_build_id_reads_back_and_nothing_else_does() {
        let id = BuildId::new().unwrap();
        assert_eq!(BuildId::parse(&id.to_string()), Some(id));
        for bad in [
            "",
            "..",
            "../../../../../../../../etc/passwd",
            "0123456789abcdef0123456789abcde/",
            "0123456789ABCDEF0123456789ABCDEF",
        ] {
            assert_eq!(BuildId::parse(bad), None, "{bad}");
        }
    }
}
