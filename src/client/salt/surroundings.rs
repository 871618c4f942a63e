//! Libraries that a build has put beside its source, and that flags and .pc files lead a C toolchain to.
//!
//! All of it is below the build's own directory, where every build has the same paths. The source itself is in the hands
//! of `source_tree`, and so is all the rest when a program of the toolchain is the build's own.

use super::identity::Identities;
use super::record::Record;
use super::variables::Variables;
use crate::client::pkg_config;
use crate::client::source_tree::normal;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many files and folders are followed. A build with more shares nothing of C.
const FOLLOWED_MAX: usize = 10_000;

/// The folders of an installed library.
const OF_PREFIX: [&str; 4] = ["include", "lib", "lib64", "share"];

/// Adds what these paths lead to; those that are not the build's own lead nowhere. `go` runs in `folder`. `false` if that is
/// too much, or cannot be told.
pub fn add(
    record: &mut Record,
    variables: &Variables,
    identities: &Identities,
    folder: Option<&Path>,
    paths: impl Iterator<Item = PathBuf>,
) -> bool {
    let top = variables.get("NIX_BUILD_TOP").map(Path::new);
    let Some(top) = top.filter(|top| top.parent().is_some()).map(normal) else {
        return true;
    };
    let mut search = Search {
        source: folder.and_then(|folder| source(&top, folder)),
        top: &top,
        left: paths.collect(),
        followed: BTreeSet::new(),
        is_beyond: false,
    };
    while let Some(path) = search.left.pop_first() {
        if search.followed.len() >= FOLLOWED_MAX {
            return false;
        }
        search.follow(record, identities, &normal(&path));
    }
    !search.is_beyond
}

/// The folder right in the build's own directory that `go` runs below.
fn source(top: &Path, folder: &Path) -> Option<PathBuf> {
    let below = folder.strip_prefix(top).ok()?;
    Some(top.join(below.components().next()?))
}

struct Search<'a> {
    top: &'a Path,
    source: Option<PathBuf>,
    left: BTreeSet<PathBuf>,
    followed: BTreeSet<PathBuf>,
    /// Nobody can tell what else is read.
    is_beyond: bool,
}

impl Search<'_> {
    fn follow(&mut self, record: &mut Record, identities: &Identities, path: &Path) {
        if !path.starts_with(self.top) || !self.followed.insert(path.to_path_buf()) {
            return;
        }
        let is_source = self
            .source
            .as_ref()
            .is_some_and(|source| path.starts_with(source));
        let Ok(found) = path.metadata() else {
            return record.add("missing", path.as_os_str().as_bytes());
        };
        // What flags name is added by whoever looks at them; the top would be all.
        if !is_source && path != self.top {
            identities.add_file(record, "beside", path);
        }
        if !found.is_dir() {
            return self.pc_file(path);
        }
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            self.pc_file(&entry.path());
        }
        // A .pc file can name its library by its own place.
        if path.ends_with("pkgconfig") {
            match path.ancestors().nth(2) {
                Some(prefix) if prefix == self.top => self.add_prefix_at_top(),
                prefix => self.left.extend(prefix.map(Path::to_path_buf)),
            }
        }
    }

    /// Adds a library that is where the source is, too, and all that Nix and `go` have there.
    fn add_prefix_at_top(&mut self) {
        let folders = OF_PREFIX.map(|name| self.top.join(name));
        self.left.extend(folders);
    }

    /// Adds what pkg-config tells a compiler, if this is a .pc file.
    fn pc_file(&mut self, path: &Path) {
        if path.extension().is_none_or(|extension| extension != "pc") {
            return;
        }
        let values = || {
            let folder = path.parent()?.to_str()?;
            pkg_config::values(&std::fs::read(path).ok()?, folder)
        };
        let Some(values) = values() else {
            return self.is_beyond = true;
        };
        for value in values {
            let words = value.split_whitespace();
            let paths: Vec<_> = words.filter_map(path_in).collect();
            for path in paths {
                if path != self.top {
                    self.left.insert(path);
                } else if value.starts_with('/') {
                    // The prefix itself, which no compiler is told of.
                    self.add_prefix_at_top();
                } else {
                    self.is_beyond = true;
                }
            }
        }
    }
}

/// The absolute path in a word of a .pc file, whatever option stands before it.
fn path_in(word: &str) -> Option<PathBuf> {
    let path = word[word.find('/')?..].trim_end_matches(['"', '\'']);
    Some(normal(Path::new(OsStr::new(path))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    /// A build's own directory, in which flags lead somewhere.
    struct Build {
        _dir: TestDir,
        top: PathBuf,
    }

    impl Build {
        fn new() -> Self {
            let dir = TestDir::new();
            let top = dir.path().canonicalize().unwrap();
            Self { _dir: dir, top }
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.top.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.replace("TOP", self.top.to_str().unwrap())).unwrap();
        }

        /// `None` if that cannot be told.
        fn find(&self, start: &str) -> Option<[u8; 32]> {
            let top = self.top.to_str().unwrap();
            let vars = [("NIX_BUILD_TOP", top)];
            let variables = Variables::new(vars.iter().map(|(k, v)| (k.into(), v.into())));
            let identities = Identities::new(vec![self.top.clone()]);
            let mut record = Record::new("test");
            let folder = self.top.join("source/go");
            let starts = std::iter::once(self.top.join(start));
            let is_all = add(&mut record, &variables, &identities, Some(&folder), starts);
            is_all.then(|| record.finish())
        }

        /// Whether this file counts for what that leads to.
        fn counts(&self, name: &str, start: &str) -> bool {
            self.write(name, "1");
            let first = self.find(start).unwrap();
            assert_eq!(self.find(start), Some(first));
            self.write(name, "2");
            self.find(start) != Some(first)
        }
    }

    #[test]
    fn an_installed_library_counts_by_its_pc_file() {
        let build = Build::new();
        build.write("prefix/lib/pkgconfig/x.pc", "prefix=${pcfiledir}/../..\n");
        build.write(
            "pc/y.pc",
            "prefix=TOP/installed\nCflags: -I${prefix}/include\n",
        );
        assert!(build.counts("prefix/include/x.h", "prefix/lib/pkgconfig"));
        assert!(build.counts("prefix/lib/libx.a", "source/../prefix/lib/pkgconfig"));
        assert!(build.counts("installed/include/y.h", "pc"));
        assert!(
            build.counts("installed/go.mod", "pc"),
            "a library with Go in it"
        );
        assert!(!build.counts("installed/include/y.h", "prefix/lib/pkgconfig"));
        build.write("lib/pkgconfig/z.pc", "prefix=${pcfiledir}/../..\n");
        assert!(build.counts("include/z.h", "lib/pkgconfig"));
        assert!(build.counts("lib/libz.a", "lib/pkgconfig"));
        assert!(!build.counts("unrelated/z.h", "lib/pkgconfig"));
    }

    #[test]
    fn a_library_counts_wherever_its_pc_file_is() {
        let build = Build::new();
        for (folder, up) in [("pc/x", "../.."), ("source/pc", "../.."), ("source", "..")] {
            let prefix = format!("prefix=${{pcfiledir}}/{up}/staged");
            let name = format!("{folder}/x.pc");
            build.write(&name, &(prefix + "\nCflags: \"-I${prefix}/include\" -DX\n"));
            assert!(build.counts("staged/include/deep/x.h", folder), "{folder}");
            assert!(build.counts("staged/include/deep/x.h", &name), "{name}");
            std::fs::remove_file(build.top.join(name)).unwrap();
            assert!(!build.counts("staged/include/deep/x.h", folder), "{folder}");
        }
        for text in ["Cflags: -ITOP", "Cflags: -I${prefix}/x"] {
            build.write("pc/x/x.pc", text);
            assert_eq!(build.find("pc/x"), None, "{text}");
        }
    }

    #[test]
    fn the_source_is_in_other_hands() {
        let build = Build::new();
        assert!(!build.counts("source/lib/x.h", "source/lib"));
        assert!(!build.counts("source/lib/pkgconfig/x.h", "source/lib/pkgconfig"));
        assert!(build.counts("sourced/lib/x.h", "sourced/lib"));
    }
}
