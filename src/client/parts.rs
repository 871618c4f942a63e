//! What separates this build's actions from those of others, in words: names and short values. The daemon records them, and
//! `why` compares them with those of the build before. Nothing here decides what is shared: that is the salt's work.

use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::Path;

/// A name and a short value.
pub type Part = (String, String);

/// Variables whose words bring something into a build that `go` cannot see, or that are part of its own keys.
const VARIABLES: [&str; 22] = [
    "NIX_CFLAGS_COMPILE",
    "NIX_CFLAGS_LINK",
    "NIX_LDFLAGS",
    "C_INCLUDE_PATH",
    "CPATH",
    "LIBRARY_PATH",
    "CC",
    "CXX",
    "CGO_ENABLED",
    "CGO_CFLAGS",
    "CGO_CPPFLAGS",
    "CGO_CXXFLAGS",
    "CGO_LDFLAGS",
    "GOOS",
    "GOARCH",
    "GOAMD64",
    "GOARM64",
    "GOFLAGS",
    "GOEXPERIMENT",
    "GOFIPS140",
    "GODEBUG",
    "NIX_GOCACHEPROG",
];

/// The longest value that is said as it is, in bytes; of a longer one the end is replaced by its hash.
const VALUE_MAX: usize = 900;

/// How much all parts may take together, in bytes: the hello of an older daemon may have 16 KiB.
const ALL_MAX: usize = 5 << 10;

const STORE: &str = "/nix/store/";

/// The digits of a store path's hash that are said.
const HASH_DIGITS: usize = 8;

/// The parts of the build that this process is part of, whose `go` is this program.
pub fn parts(go: Option<&Path>) -> Vec<Part> {
    parts_of(go, |name| std::env::var_os(name))
}

fn parts_of(go: Option<&Path>, var: impl Fn(&str) -> Option<OsString>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    if let Some(go) = go {
        parts.push(("go".into(), short(&go.to_string_lossy())));
    }
    let out = ["out", "dev", "lib", "bin"].map(|name| var(name).unwrap_or_default());
    for name in VARIABLES {
        if let Some(value) = var(name).filter(|value| !value.is_empty()) {
            parts.push((name.into(), words(&value, &out)));
        }
    }
    parts.retain(|(_, value)| !value.is_empty());
    let mut left = ALL_MAX;
    for (name, value) in &mut parts {
        if name.len() + value.len() > left {
            *value = hash(value);
        }
        left = left.saturating_sub(name.len() + value.len());
    }
    parts
}

/// The words of a value, each once, with store paths in short. What names this build itself does not count.
fn words(value: &OsStr, own: &[OsString]) -> String {
    let value = value.to_string_lossy();
    let is_own = |word: &str| {
        own.iter()
            .filter_map(|path| path.to_str())
            .any(|path| path.starts_with('/') && word.contains(path))
    };
    let mut said: Vec<String> = Vec::new();
    for word in value.split_ascii_whitespace() {
        let is_noise = word.starts_with("-frandom-seed=") || ["-isystem", "-rpath"].contains(&word);
        let shown = short(word);
        if !is_noise && !is_own(word) && !said.contains(&shown) {
            said.push(shown);
        }
    }
    let all = said.join(" ");
    if all.len() <= VALUE_MAX {
        return all;
    }
    let cut = (0..=VALUE_MAX - 2 * HASH_DIGITS)
        .rev()
        .find(|at| all.is_char_boundary(*at));
    format!("{} {}", &all[..cut.unwrap_or(0)], hash(&all))
}

/// `hash:` and some digits, by which one long value is told from another.
fn hash(value: &str) -> String {
    let digest = Sha256::digest(value.as_bytes());
    let mut text = String::from("hash:");
    for byte in &digest[..HASH_DIGITS / 2] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A word with its first store path cut to some digits of the hash and the name: `a0b1c2d3-zlib-1.3`.
fn short(word: &str) -> String {
    let path = word.find(STORE).and_then(|at| {
        let path = word[at + STORE.len()..].split('/').next()?;
        let (hash, name) = path.split_once('-')?;
        Some(format!(
            "{}-{name}",
            hash.get(..HASH_DIGITS).unwrap_or(hash)
        ))
    });
    path.unwrap_or_else(|| word.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(go: &str, vars: &[(&str, &str)]) -> Vec<Part> {
        parts_of(Some(Path::new(go)), |name| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn each_input_is_said_once_and_in_short() {
        let go = "/nix/store/0123456789abcdef0123456789abcdef-go-1.27.3/share/go/bin/go";
        let zlib = "/nix/store/abcdefghijklmnopabcdefghijklmnop-zlib-1.3";
        let flags = format!(
            " -frandom-seed=x1 -isystem {zlib}-dev/include -isystem {zlib}-dev/include -O2"
        );
        let links = format!("-rpath /nix/store/own-x/lib -L{zlib}/lib");
        let parts = said(
            go,
            &[
                ("NIX_CFLAGS_COMPILE", &flags),
                ("NIX_LDFLAGS", &links),
                ("out", "/nix/store/own-x"),
                ("GOOS", ""),
            ],
        );
        let expected = [
            ("go", "01234567-go-1.27.3"),
            ("NIX_CFLAGS_COMPILE", "abcdefgh-zlib-1.3-dev -O2"),
            ("NIX_LDFLAGS", "abcdefgh-zlib-1.3"),
        ];
        assert_eq!(
            parts,
            expected.map(|(name, value)| (name.to_string(), value.to_string()))
        );
        assert_eq!(said("/usr/bin/go", &[])[0].1, "/usr/bin/go");
    }

    #[test]
    fn long_values_are_bounded_and_still_told_apart() {
        let long = |n: usize| format!("-Dé={} -Dlast={n}", "x".repeat(20_000));
        let of = |n| {
            said(
                "/usr/bin/go",
                &[("CGO_CFLAGS", &long(n)), ("GOFLAGS", "-v")],
            )
        };
        let (one, other) = (of(1), of(2));
        assert_ne!(one, other);
        let many: Vec<_> = VARIABLES.iter().map(|name| (*name, long(1))).collect();
        let many: Vec<_> = many
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let all = said("/usr/bin/go", &many);
        assert_eq!(all.len(), VARIABLES.len() + 1);
        let length: usize = all
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(length < ALL_MAX + 30 * VARIABLES.len(), "{length}");
    }
}
