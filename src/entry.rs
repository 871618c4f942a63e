//! The entry: what an action names, and how that is written into a symbolic link.

use crate::id::{ID_LEN, OutputId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest output that an entry can describe, in bytes.
pub const SIZE_MAX: u64 = (1 << 40) - 1;

/// The length of an entry as bytes.
pub const ENTRY_LEN: usize = ID_LEN + 5 + 7;

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

impl Entry {
    /// When it was put.
    pub fn put_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.time.try_into().unwrap_or(0))
    }

    /// Output ID, size (5 bytes, big-endian) and time (7 bytes, big-endian, in microseconds).
    pub fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..ID_LEN].copy_from_slice(&self.output.0);
        bytes[ID_LEN..ID_LEN + 5].copy_from_slice(&self.size.to_be_bytes()[3..]);
        bytes[ID_LEN + 5..].copy_from_slice(&(self.time / 1000).to_be_bytes()[1..]);
        bytes
    }

    /// Reads what `to_bytes` gives; `None` when there is no such time.
    pub fn from_bytes(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
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

    /// The target of the link.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.to_bytes())
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
        Self::from_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
