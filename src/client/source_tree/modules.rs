//! Assembler files of modules in the module cache.

use super::assembler::Followed;
use super::settings::Settings;
use super::walk::{Class, Except, FILES_MAX, Walk};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Whether a module that these go.sum files name, or one that they do not, may have assembler files that include
/// something `go` does not hash. A module that is not there may be fetched at any moment.
pub fn may_be_open<F: Fn(&str) -> Option<OsString>>(
    sums: &[PathBuf],
    settings: &Settings<F>,
) -> bool {
    let Some(cache) = folder(settings) else {
        return true;
    };
    if sums.is_empty() {
        return true;
    }
    for sum in sums {
        let text = match std::fs::read_to_string(sum) {
            Ok(text) => text,
            // A module that needs no other has none.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) => return true,
        };
        let modules = text.lines().filter_map(module);
        if modules
            .into_iter()
            .any(|module| is_open(&cache.join(module)))
        {
            return true;
        }
    }
    false
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

fn is_open(folder: &Path) -> bool {
    let mut walk = Walk::new(Except::default(), FILES_MAX);
    if !folder.is_dir() || walk.add(folder).is_err() {
        return true;
    }
    let mut files = walk
        .files
        .iter()
        .filter(|file| file.class == Class::Assembler);
    files.any(|file| !Followed::default().file(&walk.path(file)).is_closed())
}
