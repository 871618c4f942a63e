//! What a `go` command is told that decides which folders it builds from.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Variables, the file of `go env -w`, and flags.
pub struct Settings<F> {
    env: F,
    /// What `go env -w` has written (`cmd/go/internal/cfg`, `EnvFile`).
    file: HashMap<String, String>,
    /// Of GOFLAGS, then of the command line.
    words: Vec<OsString>,
}

impl<F: Fn(&str) -> Option<OsString>> Settings<F> {
    /// Of a command with these arguments; its own name may be among them.
    pub fn new(args: &[OsString], env: F) -> Self {
        let mut settings = Self {
            file: HashMap::new(),
            words: Vec::new(),
            env,
        };
        settings.file = settings.read_file().unwrap_or_default();
        let flags = settings.get("GOFLAGS").unwrap_or_default();
        // A quoted flag may hold blanks; its parts are found all the same, with the quotes.
        let flags = flags.as_bytes().split(u8::is_ascii_whitespace);
        settings.words = flags
            .map(|flag| {
                OsString::from_vec(
                    flag.iter()
                        .copied()
                        .filter(|b| !b"'\"".contains(b))
                        .collect(),
                )
            })
            .chain(args.iter().cloned())
            .collect();
        settings
    }

    fn read_file(&self) -> Option<HashMap<String, String>> {
        let path = match (self.env)("GOENV").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => {
                let config = (self.env)("XDG_CONFIG_HOME").filter(|path| !path.is_empty());
                let config = config
                    .map(PathBuf::from)
                    .or_else(|| Some(PathBuf::from((self.env)("HOME")?).join(".config")))?;
                config.join("go/env")
            }
        };
        let text = std::fs::read_to_string(path).ok()?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Some(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// A variable's value; `None` if it is not set, or empty.
    pub fn get(&self, name: &str) -> Option<OsString> {
        (self.env)(name)
            .filter(|value| !value.is_empty())
            .or_else(|| self.file.get(name).map(OsString::from))
            .filter(|value| !value.is_empty())
    }

    /// A path that a variable names.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// The last value of a flag, wherever it is given.
    pub fn flag(&self, name: &str) -> Option<&OsStr> {
        let mut found = None;
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            let word = word.as_bytes();
            let Some(flag) = word.strip_prefix(b"--").or(word.strip_prefix(b"-")) else {
                continue;
            };
            match flag.strip_prefix(name.as_bytes()) {
                Some([]) => found = words.next().map(OsString::as_os_str),
                Some([b'=', value @ ..]) => found = Some(OsStr::from_bytes(value)),
                _ => {}
            }
        }
        found
    }

    /// All words of the command line and of GOFLAGS.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }
}
