//! Signatures of entries, with Nix's own keys: `NAME:BASE64`, of ed25519, as `nix key generate-secret` writes them.
//!
//! A signature covers the remote's key of the action or list, the output, its size and its time. So it cannot be moved to
//! another action, and what the server adds to an entry does not matter.

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::path::Path;

const SEED_LEN: usize = 32;

const PUBLIC_LEN: usize = 32;

const SIGNATURE_LEN: usize = 64;

/// The keys of one machine: what it signs with, and whose signatures count.
#[derive(Debug, Default)]
pub struct Keys {
    secret: Option<SecretKey>,
    trusted: Vec<PublicKey>,
}

struct SecretKey {
    name: String,
    pair: Ed25519KeyPair,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PublicKey {
    name: String,
    key: [u8; PUBLIC_LEN],
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

impl Keys {
    /// Reads the secret key from a file, and trusted public keys from their text, as in nix.conf with spaces between them.
    ///
    /// # Errors
    /// When the file cannot be read, anything is malformed, or the text has blanks and no key. The text shows no secret.
    pub fn new(secret: Option<&Path>, text: &str) -> Result<Self> {
        let secret = match secret {
            Some(path) => Some(SecretKey::parse(&fs::read_to_string(path)?).ok_or_else(|| {
                Error::input(format!(
                    "{} holds no secret key; `nix-store --generate-binary-cache-key NAME SECRET PUBLIC` makes one",
                    path.display()
                ))
            })?),
            None => None,
        };
        let trusted = text
            .split_whitespace()
            .map(|key| {
                PublicKey::parse(key).ok_or_else(|| {
                    // What follows the name may be a secret key, by mistake.
                    let name = key.split(':').next().unwrap_or_default();
                    Error::input(format!(
                        "malformed public key {name:?}: it must be NAME:BASE64, with 32 bytes"
                    ))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        // Without keys everything counts, which nobody wants who gives some.
        if !text.is_empty() && trusted.is_empty() {
            return Err(Error::input(
                "no public key is given: name at least one as NAME:BASE64, or leave the option out",
            ));
        }
        Ok(Self { secret, trusted })
    }

    /// Trusts the own key if there is one and no other is trusted; gives its name then. What nobody has signed must not
    /// come in, to be signed and sent on from here.
    pub fn trust_own(&mut self) -> Option<&str> {
        let secret = self.secret.as_ref().filter(|_| self.trusted.is_empty())?;
        self.trusted.push(PublicKey {
            name: secret.name.clone(),
            key: secret.pair.public_key().as_ref().try_into().ok()?,
        });
        Some(&secret.name)
    }

    /// Whether only signed entries count.
    pub fn verifies(&self) -> bool {
        !self.trusted.is_empty()
    }

    /// Whether entries are signed here.
    pub fn signs(&self) -> bool {
        self.secret.is_some()
    }

    /// The signature of an entry under a key of the remote, if there is a secret key.
    pub fn sign(&self, key: &str, entry: &Entry) -> Option<String> {
        let secret = self.secret.as_ref()?;
        let signature = secret.pair.sign(fingerprint(key, entry).as_bytes());
        Some(format!("{}:{}", secret.name, STANDARD.encode(signature)))
    }

    /// Whether one of the signatures is by a trusted key.
    pub fn are_trusted<'a>(
        &self,
        key: &str,
        entry: &Entry,
        mut signatures: impl Iterator<Item = &'a str>,
    ) -> bool {
        let text = fingerprint(key, entry);
        signatures.any(|signature| {
            let Some((name, signature)) = split(signature, SIGNATURE_LEN) else {
                return false;
            };
            self.trusted
                .iter()
                .filter(|trusted| trusted.name == name)
                .any(|trusted| {
                    UnparsedPublicKey::new(&ED25519, trusted.key)
                        .verify(text.as_bytes(), &signature)
                        .is_ok()
                })
        })
    }
}

/// What is signed. Times are as exact as the store keeps them.
fn fingerprint(key: &str, entry: &Entry) -> String {
    format!(
        "nix-gocacheprog entry 1;{key};sha256:{};{};{}",
        hex(&entry.output.0),
        entry.size,
        entry.time / 1000
    )
}

fn split(text: &str, length: usize) -> Option<(&str, Vec<u8>)> {
    let (name, bytes) = text.trim().split_once(':')?;
    let bytes = STANDARD.decode(bytes).ok()?;
    (!name.is_empty() && bytes.len() == length).then_some((name, bytes))
}

impl SecretKey {
    fn parse(text: &str) -> Option<Self> {
        let (name, bytes) = split(text, SEED_LEN + PUBLIC_LEN)?;
        let (seed, public) = bytes.split_at(SEED_LEN);
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()?;
        debug_assert_eq!(pair.public_key().as_ref(), public);
        Some(Self {
            name: name.into(),
            pair,
        })
    }
}

impl PublicKey {
    fn parse(text: &str) -> Option<Self> {
        let (name, bytes) = split(text, PUBLIC_LEN)?;
        Some(Self {
            name: name.into(),
            key: bytes.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OutputId;
    use crate::test_dir::TestDir;

    /// Made by `nix-store --generate-binary-cache-key test-1`.
    const SECRET: &str = include_str!("../../test/data/keys/test-1.secret");

    const PUBLIC: &str = include_str!("../../test/data/keys/test-1.public");

    const OTHER: &str = include_str!("../../test/data/keys/test-2.public");

    const ENTRY: Entry = Entry {
        output: OutputId([1; 32]),
        size: 5,
        time: 1_700_000_000_000_001_000,
    };

    fn keys(trusted: &str) -> Keys {
        let dir = TestDir::new();
        let path = dir.path().join("secret");
        std::fs::write(&path, SECRET).unwrap();
        Keys::new(Some(&path), trusted).unwrap()
    }

    #[test]
    fn a_signature_counts_for_its_own_entry_and_key_only() {
        let keys = keys(&format!("{OTHER} {PUBLIC}"));
        let signature = keys.sign("k1", &ENTRY).unwrap();
        let is_trusted = |key: &str, entry: &Entry, signature: &str| {
            keys.are_trusted(key, entry, ["x", "test-1:AAAA", signature].into_iter())
        };
        assert!(is_trusted("k1", &ENTRY, &signature));
        assert!(!is_trusted("k2", &ENTRY, &signature));
        for other in [
            Entry { size: 6, ..ENTRY },
            Entry {
                time: ENTRY.time + 1000,
                ..ENTRY
            },
            Entry {
                output: OutputId([2; 32]),
                ..ENTRY
            },
        ] {
            assert!(!is_trusted("k1", &other, &signature));
        }
        let renamed = signature.replace("test-1:", "test-2:");
        assert!(!is_trusted("k1", &ENTRY, &renamed));
    }

    #[test]
    fn nothing_is_trusted_without_the_key_that_has_signed_it() {
        let signature = keys(PUBLIC).sign("k", &ENTRY).unwrap();
        for trusted in ["", OTHER] {
            let keys = keys(trusted);
            assert!(!keys.are_trusted("k", &ENTRY, [signature.as_str()].into_iter()));
        }
    }

    #[test]
    fn whoever_signs_trusts_their_own_key_unless_others_are_named() {
        let is_trusted = |keys: &Keys| {
            let signature = keys.sign("k", &ENTRY).unwrap();
            keys.are_trusted("k", &ENTRY, [signature.as_str()].into_iter())
        };
        let mut own = keys("");
        assert_eq!(own.trust_own(), Some("test-1"));
        assert!(own.verifies() && is_trusted(&own));
        let mut others = keys(OTHER);
        assert_eq!(others.trust_own(), None);
        assert!(others.verifies() && !is_trusted(&others));
        let mut nobody = Keys::new(None, "").unwrap();
        assert_eq!(nobody.trust_own(), None);
        assert!(!nobody.verifies());
    }

    #[test]
    fn blanks_in_place_of_keys_are_refused() {
        assert!(Keys::new(None, "").is_ok());
        for blank in [" ", "\n", " \t "] {
            assert!(Keys::new(None, blank).is_err(), "{blank:?}");
        }
    }

    #[test]
    fn a_malformed_key_is_refused_and_never_shown() {
        for bad in ["x", "x:", ":AAAA", "x:!!", SECRET] {
            assert!(Keys::new(None, bad).is_err(), "{bad}");
        }
        let dir = TestDir::new();
        let path = dir.path().join("secret");
        let cut = &SECRET[..SECRET.len() / 2];
        std::fs::write(&path, cut).unwrap();
        let error = Keys::new(Some(&path), "").unwrap_err().chain();
        assert!(
            error.contains("secret key") && !error.contains(&cut[7..]),
            "{error}"
        );
    }
}
