//! The hashes that a build expects: those of its go.sum files, and those that a checksum database has told it.
//!
//! `go` ends a build whose module has another hash than go.sum says. So a file that has another one is fetched anew
//! instead of served from the cache, and never kept. Where nothing is known of a module, anything goes, as with `go`.

use super::body::Body;
use super::path::{Kind, ModulePath};
use super::zip;
use crate::error::{Error, Result};
use crate::sync::lock;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

/// The largest go.sum that is read, in bytes.
const SIZE_MAX: u64 = 64 << 20;

/// Hashes by what they are of: `module version`, or `module version/go.mod`.
type Hashes = HashMap<String, Vec<String>>;

/// The hashes that a build expects.
#[derive(Default)]
pub struct ExpectedHashes {
    files: Vec<PathBuf>,
    /// What stands in the files, read again when they have changed: a phase may patch them.
    read: Mutex<HashMap<PathBuf, (Stamp, Hashes)>>,
    told: Mutex<Hashes>,
}

type Stamp = (SystemTime, u64);

impl ExpectedHashes {
    /// Those of the go.sum and go.work.sum files of a build that works in `directory`, or above it below `top`.
    pub fn of_build(directory: &Path, top: Option<&Path>) -> Self {
        let mut files = Vec::new();
        for directory in directory.ancestors() {
            files.extend(["go.sum", "go.work.sum"].map(|name| directory.join(name)));
            if top.is_none_or(|top| directory == top || !directory.starts_with(top)) {
                break;
            }
        }
        let flags = std::env::var("GOFLAGS").unwrap_or_default();
        let named = flags
            .split_whitespace()
            .filter_map(|flag| flag.trim_start_matches('-').strip_prefix("modfile="));
        files.extend(named.map(|file| directory.join(file).with_extension("sum")));
        Self {
            files,
            ..Self::default()
        }
    }

    /// Remembers what a checksum database says.
    pub fn learn(&self, lookup: &Body) {
        if let Ok(text) = lookup.slice(0, 64 << 10) {
            add(&mut lock(&self.told), &String::from_utf8_lossy(&text));
        }
    }

    /// Compares a file with what is expected of it; `false` when that is not known, because a go.sum cannot be read now.
    ///
    /// # Errors
    /// When it has another hash, or none.
    pub fn check(&self, path: &ModulePath, body: &Body) -> Result<bool> {
        let ModulePath::File(module, version, kind) = path else {
            return Ok(true);
        };
        let (key, hash): (_, fn(&Body) -> Result<String>) = match kind {
            Kind::Info => return Ok(true),
            Kind::Mod => (
                format!("{} {}/go.mod", module.as_str(), version.as_str()),
                zip::hash_go_mod,
            ),
            Kind::Zip => (
                format!("{} {}", module.as_str(), version.as_str()),
                zip::hash,
            ),
        };
        let (expected, is_all) = self.expected(&key);
        if expected.is_empty() {
            return Ok(is_all);
        }
        let found = hash(body)?;
        if expected.contains(&found) {
            return Ok(true);
        }
        Err(Error::peer(format!(
            "a file with the hash {found}, where go.sum or the checksum database has {}",
            expected.join(" and ")
        )))
    }

    /// The hashes that are expected, and whether these are all of them.
    fn expected(&self, key: &str) -> (Vec<String>, bool) {
        let mut found = lock(&self.told).get(key).cloned().unwrap_or_default();
        let mut is_all = true;
        let mut read = lock(&self.read);
        for file in &self.files {
            let stamp = std::fs::metadata(file).and_then(|m| Ok((m.modified()?, m.len())));
            let stamp = match stamp {
                Ok(stamp) => stamp,
                Err(e) => {
                    is_all &= e.kind() == ErrorKind::NotFound;
                    continue;
                }
            };
            let known = read.get(file).is_some_and(|(at, _)| *at == stamp);
            if !known && stamp.1 <= SIZE_MAX {
                let Ok(text) = std::fs::read(file) else {
                    is_all = false;
                    continue;
                };
                let mut hashes = Hashes::new();
                add(&mut hashes, &String::from_utf8_lossy(&text));
                read.insert(file.clone(), (stamp, hashes));
            }
            if let Some((_, hashes)) = read.get(file) {
                found.extend(hashes.get(key).into_iter().flatten().cloned());
            }
        }
        found.sort();
        found.dedup();
        (found, is_all)
    }
}

/// Adds what the lines of a go.sum say; other lines are left out.
fn add(hashes: &mut Hashes, text: &str) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(module), Some(version), Some(hash), None) =
            (words.next(), words.next(), words.next(), words.next())
            && hash.starts_with("h1:")
        {
            let known = hashes.entry(format!("{module} {version}")).or_default();
            known.push(hash.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    const GO_MOD: &[u8] = b"module example.test/m\n\ngo 1.21\n";
    /// As `go` writes it for these bytes.
    const HASH: &str = "h1:z9OQJ4oHniNGWtK3QLqdWKBjbtgWhq+iv7apsHHLWYk=";

    #[test]
    fn a_go_mod_is_compared_with_every_go_sum_up_to_the_top_of_the_build() {
        let dir = TestDir::new();
        let module = dir.path().join("top/source/module");
        std::fs::create_dir_all(&module).unwrap();
        let path = ModulePath::parse("/example.test/m/@v/v1.0.0.mod").unwrap();
        let body = Body::Memory(GO_MOD.into());
        let sums = ExpectedHashes::of_build(&module, Some(&dir.path().join("top")));
        let write = |file: &str, hash: &str| {
            let line = format!("example.test/m v1.0.0/go.mod {hash}\n");
            std::fs::write(dir.path().join(file), line).unwrap();
        };
        sums.check(&path, &body).unwrap();
        // Above the top it is somebody else's.
        write("go.sum", "h1:x");
        sums.check(&path, &body).unwrap();
        write("top/source/go.sum", "h1:xy");
        let error = sums.check(&path, &body).unwrap_err().to_string();
        let found = error
            .split("hash ")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap();
        assert_eq!(found, HASH);
        write("top/source/module/go.sum", HASH);
        sums.check(&path, &body).unwrap();
    }

    #[test]
    fn a_go_sum_that_cannot_be_read_vouches_for_nothing() {
        let dir = TestDir::new();
        let path = ModulePath::parse("/example.test/m/@v/v1.0.0.mod").unwrap();
        let body = Body::Memory(GO_MOD.into());
        let sums = ExpectedHashes::of_build(dir.path(), Some(dir.path()));
        assert!(sums.check(&path, &body).unwrap(), "there is none");
        let go_sum = dir.path().join("go.sum");
        std::fs::create_dir(&go_sum).unwrap();
        assert!(!sums.check(&path, &body).unwrap());
        // As soon as it can be read it counts.
        std::fs::remove_dir(&go_sum).unwrap();
        std::fs::write(&go_sum, "example.test/m v1.0.0/go.mod h1:x\n").unwrap();
        sums.check(&path, &body).unwrap_err();
    }
}
