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

/// The words of GOFLAGS: divided by blanks, or between quotes where a word begins with one. Quotes further inside do not count
/// (`Split` in cmd/internal/quoted).
fn split(text: &[u8]) -> Vec<OsString> {
    let is_blank = |byte: &u8| b" \t\n\r".contains(byte);
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.iter().position(|byte| !is_blank(byte)) {
        rest = &rest[begin..];
        let (word, after) = match rest[0] {
            // `go` ends where the second quote is missing.
            quote @ (b'\'' | b'"') => {
                let end = rest[1..].iter().position(|byte| *byte == quote);
                let end = end.map_or(rest.len(), |at| at + 1);
                (&rest[1..end], rest.get(end + 1..).unwrap_or_default())
            }
            _ => rest.split_at(rest.iter().position(is_blank).unwrap_or(rest.len())),
        };
        words.push(OsString::from_vec(word.to_vec()));
        rest = after;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_count_where_a_word_begins() {
        for (text, words) in [
            ("", &[][..]),
            (" -a\t-b\n", &["-a", "-b"]),
            ("'-ldflags=-X a=b' -v", &["-ldflags=-X a=b", "-v"]),
            ("\"-tags=a b\"-v", &["-tags=a b", "-v"]),
            (
                "-ldflags=-X=main.by=O'Brien -toolexec=/build/w.sh",
                &["-ldflags=-X=main.by=O'Brien", "-toolexec=/build/w.sh"],
            ),
            ("'' '-x", &["", "-x"]),
        ] {
            assert_eq!(split(text.as_bytes()), words, "{text}");
        }
    }
}
