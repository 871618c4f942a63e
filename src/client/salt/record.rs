//! Things by which actions are told apart, hashed one after the other.

use sha2::{Digest, Sha256};

/// Named values, in the order in which they are added. No two lists of them have the same bytes.
#[derive(Clone, Debug)]
pub struct Record(Sha256);

impl Record {
    /// An empty one; the label keeps this use of the hash from others.
    pub fn new(label: &str) -> Self {
        let mut record = Self(Sha256::new());
        record.add("", label);
        record
    }

    /// Adds a value.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// Adds a number.
    pub fn add_number(&mut self, name: &str, value: u64) {
        self.add(name, value.to_le_bytes());
    }

    /// What all of it comes to.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
