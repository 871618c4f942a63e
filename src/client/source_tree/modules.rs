//! What C and Go's assembler can read of modules in the module cache.
//!
//! `go` hashes the files of a package's own folder, and with -trimpath the path and version that the module is required by
//! (`buildActionID` in cmd/go/internal/work/exec.go). Which module that really is, `replace` directives and go.sum say.

use super::assembler::Followed;
use super::roots::Roots;
use super::settings::Settings;
use super::walk::{Class, Except, FILES_MAX, Walk};
use crate::sha256::Sha256;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The modules of a command.
#[derive(Debug)]
pub struct Modules {
    /// One may have assembler files that include something `go` does not hash.
    pub may_be_open: bool,
    /// A hash over all modules that C or the assembler can read more of than `go` hashes; `None` if there are none.
    pub digest: Option<[u8; 32]>,
    /// Nobody says which modules there are: go.sum is yet to be written.
    pub is_unknown: bool,
}

impl Modules {
    /// Those that the go.sum files name. A module that is not there may be fetched at any moment, and have anything in it.
    pub fn find<F: Fn(&str) -> Option<OsString>>(roots: &Roots, settings: &Settings<F>) -> Self {
        let mut found = Self {
            may_be_open: false,
            digest: None,
            is_unknown: false,
        };
        if !roots.uses_module_cache {
            return found;
        }
        let cache = folder(settings);
        found.may_be_open = cache.is_none() || roots.sums.is_empty();
        let mut counting: BTreeSet<String> = roots.replacements.clone();
        let (mut is_any_there, mut is_any_missing) = (false, false);
        for sum in &roots.sums {
            let text = match std::fs::read_to_string(sum) {
                Ok(text) => text,
                // A module that needs no other has none.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    is_any_missing = true;
                    continue;
                }
                Err(_) => {
                    found.is_unknown = true;
                    continue;
                }
            };
            is_any_there = true;
            for line in text.lines() {
                let Some(module) = module(line) else { continue };
                let module = cache.as_ref().map(|cache| look(&cache.join(module)));
                let module = module.unwrap_or(Module::UNKNOWN);
                found.may_be_open |= module.is_open;
                if module.has_inputs {
                    counting.insert(line.trim().to_owned());
                }
            }
        }
        found.is_unknown |= is_any_missing && !is_any_there && roots.has_requirements;
        found.may_be_open |= found.is_unknown;
        if !counting.is_empty() {
            let mut hash = Sha256::new_with_prefix("nix-gocacheprog: modules\0");
            for line in counting {
                hash.update(line);
                hash.update([0]);
            }
            found.digest = Some(hash.finalize());
        }
        found
    }
}

fn folder<F: Fn(&str) -> Option<OsString>>(settings: &Settings<F>) -> Option<PathBuf> {
    if let Some(cache) = settings.path("GOMODCACHE") {
        return Some(cache);
    }
    let gopath = match settings.get("GOPATH") {
        Some(path) => std::env::split_paths(&path).next()?,
        None => settings.path("HOME")?.join("go"),
    };
    Some(gopath.join("pkg/mod"))
}

/// The folder of a module that a line of go.sum names, if it is not the line of its go.mod alone. Capitals are
/// written as `escapeString` in golang.org/x/mod/module does.
fn module(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (path, version) = (words.next()?, words.next()?);
    if version.ends_with("/go.mod") {
        return None;
    }
    let mut folder = String::new();
    for letter in path.chars().chain(['@']).chain(version.chars()) {
        if letter.is_ascii_uppercase() {
            folder.push('!');
        }
        folder.push(letter.to_ascii_lowercase());
    }
    Some(folder)
}

/// What can be in a module.
struct Module {
    /// An assembler file that includes something `go` does not hash.
    is_open: bool,
    /// Files that C or the assembler can read.
    has_inputs: bool,
}

impl Module {
    const UNKNOWN: Self = Self {
        is_open: true,
        has_inputs: true,
    };
}

fn look(folder: &Path) -> Module {
    let mut walk = Walk::new(Except::default(), FILES_MAX);
    if !folder.is_dir() || walk.add(folder).is_err() {
        return Module::UNKNOWN;
    }
    let mut files = walk.files.iter();
    let mut assemblers = walk
        .files
        .iter()
        .filter(|file| file.class == Class::Assembler);
    let is_open = |path: PathBuf| !Followed::default().file(&path).is_closed();
    Module {
        is_open: assemblers.any(|file| is_open(walk.path(file))),
        has_inputs: files.any(|file| !matches!(file.class, Class::Go | Class::NeverRead)),
    }
}
