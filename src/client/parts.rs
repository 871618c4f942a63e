//! What separates this build's actions from those of others, in words: names and short values. The salt says them while it
//! hashes, the daemon records them, and `why` compares them with those of the build before. Nothing here decides what is
//! shared.
//!
//! No secrets: what is neither a path of the Nix store nor a flag is known by its hash, but for variables that are known to
//! hold none. `#` and some digits are a hash, alone or behind what it says more of.

use crate::sha256::Sha256;
use std::fmt::Write;

/// A name and a short value.
pub type Part = (String, String);

/// The longest value that is said as it is, in bytes; of a longer one the end is left out.
const VALUE_MAX: usize = 900;

/// The longest name, in bytes: of a file it can be a path.
const NAME_MAX: usize = 120;

/// How much all parts may take together, in bytes. The daemon keeps no more of a session.
const ALL_MAX: usize = 5 << 10;

/// How many parts there may be: the daemon keeps some more of a build.
const PARTS_MAX: usize = 96;

/// The part that says for what the others count.
pub const COUNTS: &str = "counts";

const STORE: &str = "/nix/store/";

/// The digits of a hash that are said.
const HASH_DIGITS: usize = 8;

/// Variables whose words are said as they are, besides those of nixpkgs and of Go.
const SAID: [&str; 14] = [
    "CC",
    "CXX",
    "FC",
    "AR",
    "AS",
    "LD",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "PKG_CONFIG",
    "SOURCE_DATE_EPOCH",
    "LANG",
];

/// What is in the name of something that nobody else should know.
const SECRET: [&str; 6] = ["TOKEN", "SECRET", "PASS", "KEY", "CREDENTIAL", "AUTH"];

/// Says that all parts have been said, and whether what C can depend on counts for anything that this build has compiled, or
/// nothing but which Go it is and what `go` knows itself.
pub fn counts(all: bool) -> Part {
    (COUNTS.into(), if all { "all" } else { "go" }.into())
}

/// What is said of a variable.
pub fn variable(name: &[u8], value: &[u8]) -> Part {
    let (name, text) = (lossy(name), lossy(value));
    let is_said = SAID.contains(&name.as_str())
        || ["NIX_", "GO", "CGO_", "PKG_CONFIG_"]
            .iter()
            .any(|start| name.starts_with(start));
    let is_known = |word: &str| word.starts_with(STORE) || word.starts_with('-');
    let shown = if is_secret(&name) || !(is_said || words(&text).all(is_known)) {
        hash(value)
    } else {
        in_short(&text)
    };
    (name, shown)
}

/// `#` and some digits, by which one value is told from another.
pub fn hash(value: &[u8]) -> String {
    digits(&Sha256::digest(value))
}

/// The same of a hash that is known.
pub fn digits(hash: &[u8; 32]) -> String {
    let mut text = String::from("#");
    for byte in &hash[..HASH_DIGITS / 2] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A path, or anything else, in a word: a store path cut to some digits of its hash and its name, as `a0b1c2d3-zlib-1.3`.
pub fn short(word: &[u8]) -> String {
    let word = lossy(word);
    let path = word.find(STORE).and_then(|at| {
        let path = word[at + STORE.len()..].split(['/', ':', '"']).next()?;
        let (hash, name) = path.split_once('-')?;
        Some(format!(
            "{}-{name}",
            hash.get(..HASH_DIGITS).unwrap_or(hash)
        ))
    });
    path.unwrap_or(word)
}

/// As much of these as there is room for; the rest by one hash. What says more than that it has changed comes first.
pub fn bounded(parts: &[Part]) -> Vec<Part> {
    let is_hash = |part: &&Part| part.1.starts_with('#');
    let (hashes, words): (Vec<_>, Vec<_>) = parts.iter().partition(is_hash);
    let mut left = ALL_MAX;
    let mut kept: Vec<Part> = Vec::new();
    let mut rest = Sha256::new();
    let mut has_rest = false;
    for (name, value) in words.into_iter().chain(hashes) {
        let name = name_in_short(name);
        let length = name.len() + value.len();
        if value.is_empty() || kept.iter().any(|part| part.0 == name && part.1 == *value) {
            continue;
        }
        if length <= left && kept.len() < PARTS_MAX {
            left -= length;
            kept.push((name, value.clone()));
        } else {
            has_rest = true;
            rest.update(format!("{name}\0{value}\0"));
        }
    }
    if has_rest {
        kept.push(("other inputs".into(), digits(&rest.finalize())));
    }
    kept
}

/// The words of a value, each once and in short, and a hash of the whole where they do not say all of it.
fn in_short(text: &str) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut length = 0;
    for word in words(text) {
        if ["-isystem", "-rpath"].contains(&word) {
            continue;
        }
        let shown = match is_secret_word(word) {
            true => hash(word.as_bytes()),
            false => short(word.as_bytes()),
        };
        if said.contains(&shown) {
            continue;
        }
        length += shown.len() + 1;
        if length > VALUE_MAX {
            break;
        }
        said.push(shown);
    }
    let mut all = said.join(" ");
    if all != text {
        let _ = write!(all, " {}", hash(text.as_bytes()));
    }
    all.trim_start().into()
}

/// What is divided by blanks or, in a list of paths, by colons.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_list = text.starts_with('/') && !text.contains(' ');
    text.split(move |c: char| c.is_ascii_whitespace() || (is_list && c == ':'))
        .filter(|word| !word.is_empty())
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// Whether a flag has something in it that a variable of such a name would.
fn is_secret_word(word: &str) -> bool {
    !word.contains(STORE) && (is_secret(word) || (word.contains("://") && word.contains('@')))
}

/// The end of a long path tells more than its beginning.
fn name_in_short(name: &str) -> String {
    if name.len() <= NAME_MAX {
        return name.into();
    }
    let least = name.len() - NAME_MAX + "…".len();
    let cut = (least..name.len()).find(|at| name.is_char_boundary(*at));
    format!("…{}", &name[cut.unwrap_or(name.len())..])
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, value: &str) -> String {
        let (said, value) = variable(name.as_bytes(), value.as_bytes());
        assert_eq!(said, name);
        value
    }

    /// Without the hash of the whole.
    fn words_of(name: &str, value: &str) -> String {
        let said = said(name, value);
        said.rsplit_once(" #")
            .map_or(said.clone(), |(words, _)| words.into())
    }

    #[test]
    fn each_input_is_said_once_and_in_short() {
        let zlib = "/nix/store/abcdefghijklmnopabcdefghijklmnop-zlib-1.3";
        let flags =
            format!("-isystem {zlib}-dev/include -isystem {zlib}-dev/include -O2 -L{zlib}/lib");
        assert_eq!(
            words_of("NIX_CFLAGS_COMPILE", &flags),
            "abcdefgh-zlib-1.3-dev -O2 abcdefgh-zlib-1.3"
        );
        assert_eq!(
            words_of("C_INCLUDE_PATH", &format!("{zlib}-dev/include:/opt/x")),
            "abcdefgh-zlib-1.3-dev /opt/x"
        );
        assert_eq!(said("NIX_HARDENING_ENABLE", "pic format"), "pic format");
        assert_eq!(short(b"/usr/bin/go"), "/usr/bin/go");
    }

    #[test]
    fn what_is_said_in_short_is_told_apart_all_the_same() {
        let zlib = "/nix/store/abcdefghijklmnopabcdefghijklmnop-zlib-1.3";
        let of = |flag: &str| said("NIX_CFLAGS_COMPILE", &format!("{flag}{zlib}/include"));
        assert_ne!(of("-I"), of("-isystem "));
        let long = |n: usize| said("CGO_CFLAGS", &format!("-Dé={} -D{n}", "é ".repeat(20_000)));
        assert_ne!(long(1), long(2));
        assert!(long(1).len() < VALUE_MAX + 20);
    }

    #[test]
    fn what_could_be_a_secret_is_known_by_its_hash() {
        let zlib = "/nix/store/abcdefghijklmnopabcdefghijklmnop-zlib-1.3";
        for (name, value) in [
            ("NIX_SIGNING_KEY", "-x"),
            ("my_token", "-x"),
            ("GOAUTH_X", "-x"),
            ("SOMETHING", "hunter2"),
            ("SOMETHING", "-O2 hunter2"),
            ("SOMETHING", &format!("{zlib}:hunter2")),
        ] {
            let said = said(name, value);
            assert_eq!(said, hash(value.as_bytes()), "{name}");
            assert_ne!(said, variable(name.as_bytes(), b"-y").1);
        }
        for word in ["--token=hunter2", "-Dx=https://a:hunter2@b/"] {
            let said = said("CGO_CFLAGS", &format!("-O2 {word}"));
            assert!(
                said.starts_with("-O2 #") && !said.contains("hunter2"),
                "{said}"
            );
        }
        assert_eq!(
            words_of("SOMETHING", &format!("{zlib}/x -O2")),
            "abcdefgh-zlib-1.3 -O2"
        );
    }

    #[test]
    fn all_together_is_bounded_and_still_told_apart() {
        let parts = |last: &str| -> Vec<Part> {
            let many = (0..200).map(|n| (format!("V{n}"), hash(&[n])));
            let long = (0..8).map(|n| (format!("L{n}"), format!("-D{}", "x".repeat(800))));
            let path = (format!("{}/é.h", "é/".repeat(200)), hash(b""));
            many.chain(long)
                .chain([path, ("last".into(), hash(last.as_bytes()))])
                .collect()
        };
        let kept = bounded(&parts("a"));
        let length: usize = kept
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(length < ALL_MAX + 40, "{length}");
        assert_eq!(kept[0].0, "L0");
        assert_eq!(kept.last().unwrap().0, "other inputs");
        assert_ne!(kept, bounded(&parts("b")));
        let twice = [("a", "-x"), ("a", "-x"), ("b", "")];
        let twice = twice.map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(bounded(&twice), twice[..1]);
        let path = &bounded(&parts("a")[208..])[0].0;
        assert!(path.len() <= NAME_MAX && path.ends_with("/é.h"), "{path}");
    }
}
