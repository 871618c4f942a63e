//! The flags of a `go` command: those of GOFLAGS, then those of its command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The words in which flags are given.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<OsString>);

impl Flags {
    /// Those of GOFLAGS, and of a command line; the command's own name may be among them.
    pub fn new(goflags: &OsStr, line: &[OsString]) -> Self {
        let mut words = split(goflags.as_bytes());
        words.extend_from_slice(line);
        Self(words)
    }

    /// The values of a flag, wherever it is given, the one that holds last.
    pub fn values(&self, flag: &str) -> Vec<&OsStr> {
        let given = self.given(&[flag]).into_iter();
        given
            .filter(|(name, _)| *name == flag)
            .filter_map(|(_, value)| value)
            .collect()
    }

    /// Each flag that is given, with its value. Those of `with_value` have the next word for it if their own has none.
    pub fn given(&self, with_value: &[&str]) -> Vec<(&OsStr, Option<&OsStr>)> {
        let mut found = Vec::new();
        let mut words = self.0.iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            let Some(flag) = bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-")) else {
                continue;
            };
            let mut parts = flag.splitn(2, |byte| *byte == b'=').map(OsStr::from_bytes);
            let name = parts.next().unwrap_or_default();
            let value = match parts.next() {
                None if with_value.iter().any(|flag| name == *flag) => {
                    words.next().map(OsString::as_os_str)
                }
                value => value,
            };
            found.push((name, value));
        }
        found
    }

    /// All words.
    pub fn words(&self) -> &[OsString] {
        &self.0
    }
}

/// The words of GOFLAGS: divided by blanks, with quotes around what holds some (`quoted.Split` in cmd/internal/quoted).
fn split(text: &[u8]) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut quote = None;
    for byte in text {
        match (quote, byte) {
            (Some(open), byte) if open == *byte => quote = None,
            (None, b'\'' | b'"') => quote = Some(*byte),
            (None, byte) if byte.is_ascii_whitespace() => words.push(std::mem::take(&mut word)),
            (_, byte) => word.push(*byte),
        }
    }
    words.push(word);
    let words = words.into_iter().filter(|word| !word.is_empty());
    words.map(OsString::from_vec).collect()
}
