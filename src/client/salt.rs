//! What a build's outputs depend on without `go` knowing it, mixed into every action ID.
//!
//! `go` hashes a package's sources and flags, but takes two things on trust, which it may on an ordinary
//! host and may not under Nix, where many versions of everything live side by side:
//!
//! - C headers and libraries ("the build cache does not detect changes to C libraries imported
//!   with cgo", `go help cache`). In Nix they come from store paths that the compiler's wrapper
//!   finds in environment variables which `go` never sees.
//! - Its own release: the tools of a released Go are identified by their version alone
//!   (`toolID` in the `buildid.go` of `cmd/go`), and two Nix packages of one version can hold
//!   different patches.
//!
//! So builds with other C inputs, or another Go package, have other actions.

use crate::id::ActionId;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Keeps this use of the hash from others.
const LABEL: &[u8] = b"nix-gocacheprog: an action of one environment\0";

/// Variables that bring C headers and libraries into a build (nixpkgs'
/// `pkgs/build-support/cc-wrapper`, `bintools-wrapper`, and the compilers' own).
const C_INPUTS: [&str; 6] = [
    "NIX_CFLAGS_COMPILE",
    "NIX_CFLAGS_LINK",
    "NIX_LDFLAGS",
    "C_INCLUDE_PATH",
    "CPATH",
    "LIBRARY_PATH",
];

/// What is mixed into the action IDs of one build: the hash of all that precedes an action ID, for the flags of a
/// compiler can be long, and every request needs it.
#[derive(Debug)]
pub struct Salt(Option<Sha256>);

/// The program of the `go` that has started this process.
pub fn program_of_go() -> Option<PathBuf> {
    let parent = std::os::unix::process::parent_id();
    std::fs::read_link(format!("/proc/{parent}/exe")).ok()
}

impl Salt {
    /// The salt of the build that this process is part of, by a `go` that is this program.
    pub fn of_this_build(go: Option<PathBuf>) -> Self {
        Self::new(go, |name| std::env::var_os(name))
    }

    fn new(go: Option<PathBuf>, var: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut text = Vec::new();
        if let Some(go) = go.filter(|go| go.starts_with("/nix/store")) {
            line(&mut text, "go", go.as_os_str().as_bytes());
        }
        if var("CGO_ENABLED").is_none_or(|enabled| enabled != "0") {
            let own = own_outputs(&var);
            for name in C_INPUTS {
                if let Some(value) = var(name) {
                    let words = value.as_bytes().split(u8::is_ascii_whitespace);
                    let words: Vec<_> = words.filter(|word| counts(word, &own)).collect();
                    if !words.is_empty() {
                        line(&mut text, name, &words.join(&b' '));
                    }
                }
            }
        }
        let hash = || Sha256::new().chain_update(LABEL).chain_update(&text);
        Self((!text.is_empty()).then(hash))
    }

    /// The action as the cache knows it.
    pub fn apply(&self, action: ActionId) -> ActionId {
        let Some(salt) = &self.0 else { return action };
        ActionId(salt.clone().chain_update(action.0).finalize().into())
    }
}

fn line(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.extend_from_slice(name.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value);
    text.push(b'\n');
}

/// The paths that this build will fill. They change with its every input, and nothing is read
/// from them.
fn own_outputs(var: &impl Fn(&str) -> Option<OsString>) -> Vec<OsString> {
    let names = var("outputs").unwrap_or_default();
    let names = names.to_string_lossy();
    // With structured attributes `outputs` is no variable, but the usual names are.
    ["out", "dev", "lib", "bin", "man", "doc", "static"]
        .into_iter()
        .chain(names.split_whitespace())
        .filter_map(var)
        .filter(|path| Path::new(path).is_absolute())
        .collect()
}

/// Whether a word says something about the inputs: not what names this build itself.
fn counts(word: &[u8], own: &[OsString]) -> bool {
    let contains = |part: &[u8]| word.windows(part.len()).any(|window| window == part);
    !word.is_empty()
        && !word.starts_with(b"-frandom-seed=")
        && !own.iter().any(|path| contains(path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By what they do to an action.
    impl PartialEq for Salt {
        fn eq(&self, other: &Self) -> bool {
            let action = ActionId([7; 32]);
            self.apply(action) == other.apply(action)
        }
    }

    fn salt(go: &str, vars: &[(&str, &str)]) -> Salt {
        Salt::new(Some(go.into()), |name| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn outside_of_nix_an_action_stays_what_it_is() {
        let plain = salt("/usr/local/go/bin/go", &[("PATH", "/bin")]);
        assert_eq!(plain.apply(ActionId([7; 32])), ActionId([7; 32]));
    }

    #[test]
    fn other_headers_make_other_actions() {
        let with = |flags| salt("/usr/bin/go", &[("NIX_CFLAGS_COMPILE", flags)]);
        let one = with("-isystem /nix/store/a-zlib-1.2/include");
        let two = with("-isystem /nix/store/b-zlib-1.3/include");
        let action = ActionId([7; 32]);
        assert_ne!(one.apply(action), two.apply(action));
        assert_eq!(
            one.apply(action),
            with(" -isystem   /nix/store/a-zlib-1.2/include ").apply(action)
        );
        assert_ne!(one.apply(action), one.apply(ActionId([8; 32])));
    }

    #[test]
    fn without_cgo_headers_do_not_count() {
        let vars = [
            ("CGO_ENABLED", "0"),
            (
                "NIX_CFLAGS_COMPILE",
                "-isystem /nix/store/a-zlib-1.2/include",
            ),
        ];
        assert_eq!(salt("/usr/bin/go", &vars), salt("/usr/bin/go", &[]));
    }

    #[test]
    fn another_package_of_the_same_go_makes_other_actions() {
        let one = salt("/nix/store/a-go-1.27.3/share/go/bin/go", &[]);
        let two = salt("/nix/store/b-go-1.27.3/share/go/bin/go", &[]);
        assert_ne!(one.apply(ActionId([7; 32])), two.apply(ActionId([7; 32])));
    }

    #[test]
    fn what_names_the_build_itself_does_not_count() {
        let build = |out: &str, dev: &str, seed: &str, outputs: &[(&str, &str)]| {
            let compile = format!(" -frandom-seed={seed} -isystem /nix/store/a-zlib/include");
            let link = format!("-rpath {out}/lib -L{dev}/lib -L/nix/store/a-zlib/lib");
            let mut vars = vec![
                ("NIX_CFLAGS_COMPILE", compile.as_str()),
                ("NIX_LDFLAGS", link.as_str()),
                ("out", out),
                ("headers", dev),
            ];
            vars.extend_from_slice(outputs);
            salt("/usr/bin/go", &vars)
        };
        let outputs = [("outputs", "out headers")];
        assert_eq!(
            build("/nix/store/1-x", "/nix/store/3-x-headers", "1abc", &outputs),
            build("/nix/store/2-x", "/nix/store/4-x-headers", "2def", &outputs)
        );
        // A name that is no output is an input.
        assert_ne!(
            build("/nix/store/1-x", "/nix/store/3-x-headers", "1abc", &[]),
            build("/nix/store/2-x", "/nix/store/4-x-headers", "2def", &[])
        );
    }
}
