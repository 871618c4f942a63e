//! What was written after a subcommand, held against its entry in the table.

use super::help::flag_names;
use super::table::{Flag, GENERAL, Subcommand, Takes};
use crate::error::{Error, Result};
use crate::size;
use lexopt::prelude::*;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who said what an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    CommandLine,
    /// An environment variable.
    Environment,
    /// Nobody: it is the default.
    Default,
}

/// A command line that fits its subcommand.
#[derive(Debug)]
pub struct Arguments {
    flags: Vec<(&'static Flag, OsString)>,
    words: Vec<OsString>,
    of: Vec<&'static Flag>,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked<T> {
    /// That something be done.
    For(T),
    /// The help.
    Help,
    /// The version.
    Version,
}

impl Arguments {
    /// Reads all that follows the subcommand.
    ///
    /// # Errors
    /// When it does not fit; the text names the option.
    pub fn parse(
        subcommand: &'static Subcommand,
        args: &mut lexopt::Parser,
    ) -> Result<Asked<Self>> {
        let of: Vec<_> = subcommand.flags().chain(GENERAL.iter()).collect();
        let mut flags = Vec::new();
        let mut words = Vec::new();
        while let Some(arg) = args.next().map_err(misuse)? {
            match arg {
                Short('h') => return Ok(Asked::Help),
                Short('V') => return Ok(Asked::Version),
                Long("help") => return Ok(Asked::Help),
                Long("version") => return Ok(Asked::Version),
                Long(name) => {
                    let Some(flag) = of.iter().find(|flag| flag.name == name) else {
                        return Err(Error::input(format!("there is no option --{name}")));
                    };
                    let value = match flag.takes {
                        Takes::Nothing => OsString::new(),
                        _ => args.value().map_err(misuse)?,
                    };
                    flags.push((*flag, value));
                }
                Value(word) if words.len() < subcommand.arguments.len() => words.push(word),
                Value(word) => {
                    return Err(Error::input(format!("unexpected argument {word:?}")));
                }
                other => return Err(misuse(other.unexpected())),
            }
        }
        let arguments = Self { flags, words, of };
        arguments.check(subcommand)?;
        Ok(Asked::For(arguments))
    }

    fn check(&self, subcommand: &Subcommand) -> Result<()> {
        for (flag, _) in &self.flags {
            if let Some(other) = flag.conflicts.iter().find(|name| self.is_given(name)) {
                return Err(Error::input(format!(
                    "--{} and --{other} exclude each other",
                    flag.name
                )));
            }
            let required = flag.requires;
            if !required.is_empty() && !required.iter().any(|name| self.is_given(name)) {
                let required: Vec<_> = required
                    .iter()
                    .map(|name| flag_names(self.flag(name)))
                    .collect();
                let required: Vec<_> = required.iter().map(String::as_str).collect();
                return Err(Error::input(format!(
                    "--{} requires {}",
                    flag.name,
                    any_of(&required)
                )));
            }
        }
        let missing = subcommand.arguments.get(self.words.len());
        if let Some(argument) = missing.filter(|argument| argument.required) {
            return Err(Error::input(format!(
                "{} is missing: {}{}",
                argument.name,
                argument.help,
                match argument.takes.words() {
                    [] => String::new(),
                    words => format!(", {}", any_of(words)),
                }
            )));
        }
        for (argument, word) in subcommand.arguments.iter().zip(&self.words) {
            if !argument.takes.words().is_empty() {
                one_of(argument.name, argument.takes.words(), word)?;
            }
        }
        Ok(())
    }

    /// The option of this name.
    ///
    /// # Panics
    /// When the subcommand has none such, which a test of every handler would find.
    fn flag(&self, name: &str) -> &'static Flag {
        self.of
            .iter()
            .copied()
            .find(|flag| flag.name == name)
            .unwrap_or_else(|| panic!("no entry of the table is called --{name}"))
    }

    /// Whether a switch is on, or an option is on the command line.
    pub fn is_given(&self, name: &str) -> bool {
        self.flags.iter().any(|(flag, _)| flag.name == name)
    }

    /// Who said what this option is.
    pub fn source(&self, name: &str) -> Source {
        if self.is_given(name) {
            Source::CommandLine
        } else if self.flag(name).env.iter().any(|name| is_set(name)) {
            Source::Environment
        } else {
            Source::Default
        }
    }

    /// All values of an option that repeats.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &OsStr> {
        let given = self.flags.iter().filter(move |(flag, _)| flag.name == name);
        given.map(|(_, value)| value.as_os_str())
    }

    fn value(&self, name: &str) -> Option<OsString> {
        let flag = self.flag(name);
        self.all(name)
            .last()
            .map(OsString::from)
            .or_else(|| {
                let set = flag.env.iter().find(|name| is_set(name))?;
                std::env::var_os(set)
            })
            .or_else(|| flag.default.map(OsString::from))
    }

    /// A text that is not blank, as one made of unset variables is.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match value.into_string() {
            Ok(text) if text.trim().is_empty() => Err(Error::input(format!("--{name} is empty"))),
            Ok(text) => Ok(Some(text)),
            Err(value) => Err(Error::input(format!("--{name}: {value:?} is not UTF-8"))),
        }
    }

    /// One of the words that the table lists.
    pub fn word(&self, name: &str) -> Result<Option<&'static str>> {
        let words = self.flag(name).takes.words();
        self.value(name)
            .map(|value| one_of(&format!("--{name}"), words, &value))
            .transpose()
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let parse = |text: String| {
            text.parse()
                .map_err(|_| Error::input(format!("--{name}: {text:?} is not a number")))
        };
        self.text(name)?.map(parse).transpose()
    }

    /// A size in bytes.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        let parse = |text: String| {
            size::parse_size(&text).map_err(|e| Error::input(format!("--{name}: {e}")))
        };
        self.text(name)?.map(parse).transpose()
    }

    /// An age.
    pub fn age(&self, name: &str) -> Result<Option<Duration>> {
        let parse = |text: String| {
            size::parse_age(&text).map_err(|e| Error::input(format!("--{name}: {e}")))
        };
        self.text(name)?.map(parse).transpose()
    }

    /// A time limit: a second at least, which something can keep.
    pub fn limit(&self, name: &str) -> Result<Option<Duration>> {
        let limit = self.age(name)?;
        Ok(limit.map(|limit| limit.max(Duration::from_secs(1))))
    }

    /// A directory, absolute.
    pub fn dir(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(path) = self.file(name)? else {
            return Ok(None);
        };
        std::path::absolute(&path)
            .map(Some)
            .map_err(|e| Error::io("find", &path, e))
    }

    /// A file, as it was written.
    pub fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        match self.value(name) {
            Some(value) if value.is_empty() => {
                Err(Error::input(format!("--{name}: the name is empty")))
            }
            value => Ok(value.map(PathBuf::from)),
        }
    }

    /// A file with a secret or a certificate: systemd puts those that it is told to load into a directory of its own.
    pub fn credential(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(path) = self.file(name)? else {
            return Ok(None);
        };
        let loaded = std::env::var_os("CREDENTIALS_DIRECTORY");
        let loaded = loaded.map(|dir| Path::new(&dir).join(&path));
        Ok(Some(loaded.filter(|path| path.exists()).unwrap_or(path)))
    }

    /// The words that are not options.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn one_of(name: &str, words: &[&'static str], value: &OsStr) -> Result<&'static str> {
    let found = words.iter().copied().find(|word| *word == value);
    found.ok_or_else(|| Error::input(format!("{name} is {}, not {value:?}", any_of(words))))
}

/// Words as a sentence lists them: `read, write or read-write`.
fn any_of(words: &[&str]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// What lexopt has to say, in this program's words where they are better.
pub fn misuse(e: lexopt::Error) -> Error {
    Error::input(match e {
        lexopt::Error::MissingValue { option } => {
            format!("{} requires a value", option.unwrap_or_default())
        }
        lexopt::Error::UnexpectedValue { option, value } => {
            format!("{option} takes no value, but was given {value:?}")
        }
        lexopt::Error::UnexpectedOption(option) => format!("there is no option {option}"),
        lexopt::Error::UnexpectedArgument(word) => format!("unexpected argument {word:?}"),
        other => other.to_string(),
    })
}
