//! The flags for compiler and linker that variables hold: which of them count, and what they name.

use crate::client::programs::words;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What nixpkgs' wrappers do with a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Its words go to the compiler.
    Compile,
    /// Its words go to the compiler when it links.
    Link,
    /// Its words go to the linker.
    Ld,
}

impl Use {
    /// By its name, to which a role and the platform may be added.
    pub fn of(name: &[u8]) -> Option<Self> {
        if name.starts_with(b"NIX_CFLAGS_COMPILE") {
            Some(Self::Compile)
        } else if name.starts_with(b"NIX_CFLAGS_LINK") {
            Some(Self::Link)
        } else if name.starts_with(b"NIX_LDFLAGS") {
            Some(Self::Ld)
        } else {
            None
        }
    }
}

/// The words of a variable that count, with a blank between them. What names this build and is not read: the seed of the
/// names that a compiler makes up, where the program will find its libraries, and where the linker is to look for
/// libraries of the build's own.
pub fn counting(value: &[u8], used: Use, own: &[&Path]) -> Vec<u8> {
    let is_own = |path: &[u8]| {
        own.iter()
            .any(|own| Path::new(std::ffi::OsStr::from_bytes(path)).starts_with(own))
    };
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut words = words(value).peekable();
    while let Some(word) = words.next() {
        let dropped = match used {
            Use::Compile => word.starts_with(b"-frandom-seed="),
            Use::Link | Use::Ld => {
                let prefixes: &[&[u8]] = match used {
                    Use::Link => &[b"-L", b"-Wl,-rpath,", b"-Wl,-rpath="],
                    _ => &[b"-L", b"-rpath="],
                };
                let takes_next = word == b"-L" || (used == Use::Ld && word == b"-rpath");
                if takes_next && words.peek().is_some_and(|next| is_own(next)) {
                    words.next();
                    true
                } else {
                    prefixes
                        .iter()
                        .any(|prefix| word.strip_prefix(*prefix).is_some_and(is_own))
                }
            }
        };
        if !dropped {
            kept.push(word);
        }
    }
    kept.join(&b' ')
}

/// The absolute path in a flag such as `-I/usr/include`, `-Wl,-rpath,/opt/lib` or `/build/libx.a`.
pub fn path_in(word: &[u8]) -> Option<PathBuf> {
    let begin = word.iter().position(|byte| *byte == b'/')?;
    let path = word[begin..]
        .split(|byte| matches!(byte, b',' | b'"' | b'\''))
        .next()?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_a_part_of_a_word() {
        let of = |value: &[u8]| counting(value, Use::Compile, &[]);
        assert_ne!(of(b"-DV='1'"), of(b"-DV='1"));
    }

    #[test]
    fn only_places_of_the_builds_own_libraries_are_left_out() {
        let own = [Path::new("/nix/store/own")];
        for (used, value, expected) in [
            (
                Use::Ld,
                " -rpath /nix/store/own/lib  -L/nix/store/own/lib -lz ",
                "-lz",
            ),
            (
                Use::Ld,
                "-rpath=/nix/store/own -L /nix/store/own/lib64 -L",
                "-L",
            ),
            (
                Use::Ld,
                "-rpath /nix/store/other/lib",
                "-rpath /nix/store/other/lib",
            ),
            (
                Use::Ld,
                "-rpath /nix/store/owner/lib",
                "-rpath /nix/store/owner/lib",
            ),
            (Use::Ld, "-T /nix/store/own/x", "-T /nix/store/own/x"),
            (
                Use::Link,
                "-Wl,-rpath,/nix/store/own/lib -L/nix/store/own/lib",
                "",
            ),
            (Use::Link, "-rpath /nix/store/own", "-rpath /nix/store/own"),
            (Use::Compile, "-frandom-seed=abc -O2", "-O2"),
            (Use::Compile, "-L/nix/store/own/lib", "-L/nix/store/own/lib"),
            (
                Use::Compile,
                "-isystem /nix/store/own/include",
                "-isystem /nix/store/own/include",
            ),
        ] {
            let kept = counting(value.as_bytes(), used, &own);
            assert_eq!(String::from_utf8(kept).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn a_path_is_found_behind_the_flags_name() {
        for (word, path) in [
            ("-I/usr/include", Some("/usr/include")),
            ("/build/libx.a", Some("/build/libx.a")),
            ("-Wl,-rpath,/opt/lib,-x", Some("/opt/lib")),
            ("--sysroot=/opt", Some("/opt")),
            ("-O2", None),
        ] {
            assert_eq!(path_in(word.as_bytes()), path.map(PathBuf::from), "{word}");
        }
    }
}
