//! SHA-256, which most of what this program hashes goes through: outputs, keys, and what source trees hold.
//!
//! ring's is twice as fast as that of sha2 on processors without instructions for it, and as fast on the others.

use ring::digest::{Context, Digest, SHA256, digest};
use std::io::Write;

/// A hash that has read something, or nothing yet.
#[derive(Clone)]
pub struct Sha256(Context);

impl Sha256 {
    /// One that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that has read this.
    pub fn new_with_prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self::new().chain_update(prefix)
    }

    /// Reads what comes next.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref());
    }

    /// The same with what comes next.
    pub fn chain_update(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.update(bytes);
        self
    }

    /// The hash of all that was read.
    pub fn finalize(self) -> [u8; 32] {
        array(&self.0.finish())
    }

    /// The hash of these bytes.
    pub fn digest(bytes: impl AsRef<[u8]>) -> [u8; 32] {
        array(&digest(&SHA256, bytes.as_ref()))
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

/// What is written is read.
impl Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

/// ring's digests have room for longer ones.
fn array(digest: &Digest) -> [u8; 32] {
    std::array::from_fn(|at| digest.as_ref()[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Digest as _;

    #[test]
    fn hashes_are_those_of_another_implementation_however_they_are_fed() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n * n / 8) as u8).collect();
        for length in [0, 1, 55, 56, 63, 64, 65, 128, 1000] {
            let expected: [u8; 32] = sha2::Sha256::digest(&bytes[..length]).into();
            assert_eq!(Sha256::digest(&bytes[..length]), expected);
            for cut in [0, length / 3, length] {
                let begun = Sha256::new_with_prefix(&bytes[..cut]);
                assert_eq!(
                    begun.clone().chain_update(&bytes[cut..length]).finalize(),
                    expected
                );
                assert_eq!(begun.chain_update(&bytes[cut..length]).finalize(), expected);
            }
        }
    }
}
