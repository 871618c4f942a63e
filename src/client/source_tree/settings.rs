//! What a `go` command is told that decides which folders it builds from.

use crate::client::go_flags::Flags;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Variables, the file of `go env -w`, and flags.
pub struct Settings<F> {
    env: F,
    /// What `go env -w` has written (`cmd/go/internal/cfg`, `EnvFile`).
    file: HashMap<String, String>,
    flags: Flags,
}

impl<F: Fn(&str) -> Option<OsString>> Settings<F> {
    /// Of a command with these arguments; its own name may be among them.
    pub fn new(args: &[OsString], env: F) -> Self {
        let mut settings = Self {
            file: HashMap::new(),
            flags: Flags::default(),
            env,
        };
        settings.file = settings.read_file().unwrap_or_default();
        settings.flags = Flags::new(&settings.get("GOFLAGS").unwrap_or_default(), args);
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
        let text = std::fs::read(path).ok()?;
        let text = String::from_utf8_lossy(&text);
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
        self.flags.values(name).pop()
    }

    /// All words of the command line and of GOFLAGS.
    pub fn words(&self) -> &[OsString] {
        self.flags.words()
    }
}
