//! What a build has put beside its source for its C toolchain: scripts in a compiler's place with what lies beside them, and
//! libraries that were installed there, which .pc files name.
//!
//! All of it is below the build's own directory, where every build has the same paths. Nobody knows what a script reads, so
//! its whole folder counts, and whatever of this build it names, and so on from there. The source itself is in the hands
//! of `source_tree`.

use super::identity::Identities;
use super::record::Record;
use super::variables::Variables;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A larger file is not looked at for what it names, in bytes.
const TEXT_MAX: u64 = 64 << 10;

/// How many files and folders are followed. A build with more shares nothing of C.
const FOLLOWED_MAX: usize = 10_000;

/// Folders of a build that hold nothing for C, or that `go` looks after.
const OF_GO: [&str; 4] = ["GOPATH", "GOCACHE", "GOMODCACHE", "GOBIN"];

/// The folders of an installed library.
const OF_PREFIX: [&str; 4] = ["include", "lib", "lib64", "share"];

/// Adds what these lead to; those that are not the build's own lead nowhere. `false` if that is too much.
pub fn add(
    record: &mut Record,
    variables: &Variables,
    identities: &Identities,
    starts: impl Iterator<Item = PathBuf>,
) -> bool {
    let Some(top) = variables.get("NIX_BUILD_TOP").map(Path::new) else {
        return true;
    };
    let path = variables.get("PATH").unwrap_or_default();
    let mut search = Search {
        top,
        except: OF_GO
            .iter()
            .filter_map(|name| variables.get(name))
            .map(PathBuf::from)
            .collect(),
        left: std::env::split_paths(path).collect(),
        followed: BTreeSet::new(),
    };
    search.left.extend(starts);
    while let Some(path) = search.left.pop_first() {
        if search.followed.len() >= FOLLOWED_MAX {
            return false;
        }
        search.follow(record, identities, &path);
    }
    true
}

struct Search<'a> {
    top: &'a Path,
    except: Vec<PathBuf>,
    left: BTreeSet<PathBuf>,
    followed: BTreeSet<PathBuf>,
}

impl Search<'_> {
    fn follow(&mut self, record: &mut Record, identities: &Identities, path: &Path) {
        let is_excepted = || self.except.iter().any(|folder| path.starts_with(folder));
        if !path.starts_with(self.top) || is_excepted() || !self.followed.insert(path.to_path_buf())
        {
            return;
        }
        let Ok(found) = path.metadata() else {
            return record.add("missing", path.as_os_str().as_bytes());
        };
        if found.is_dir() {
            self.folder(record, identities, path);
        } else {
            identities.add_file(record, "beside", path);
            if found.is_file() && found.len() <= TEXT_MAX {
                self.named_in(path);
            }
            self.left.extend(path.parent().map(Path::to_path_buf));
        }
    }

    fn folder(&mut self, record: &mut Record, identities: &Identities, folder: &Path) {
        let has_module = |folder: &Path| folder.join("go.mod").is_file();
        if has_module(folder) {
            return;
        }
        if folder == self.top {
            return self.files_of_top(record, identities);
        }
        // Of the source, no more than the files beside a script.
        let is_source = folder
            .ancestors()
            .take_while(|above| *above != self.top)
            .any(has_module);
        identities.add_folder(record, "beside", folder, !is_source);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let is_text = |path: &Path| {
                path.extension().is_some_and(|extension| extension == "pc")
                    || identities.is_script(path)
            };
            if is_text(&path) {
                self.named_in(&path);
            }
        }
        // A .pc file can name its library by its own place.
        if folder.file_name().is_some_and(|name| name == "pkgconfig") {
            match folder.ancestors().nth(2) {
                // Where the source is, too, and all that Nix and `go` have there.
                Some(top) if top == self.top => {
                    self.left.extend(OF_PREFIX.map(|name| top.join(name)));
                }
                prefix => self.left.extend(prefix.map(Path::to_path_buf)),
            }
        }
    }

    /// Adds the files of the build's own directory that are not Nix's, stdenv's or ours.
    fn files_of_top(&self, record: &mut Record, identities: &Identities) {
        let entries = std::fs::read_dir(self.top).into_iter().flatten().flatten();
        let files: BTreeSet<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.is_file())
            .collect();
        for file in files {
            let name = file.file_name().unwrap_or_default().as_bytes();
            let is_known = [&b".attrs."[..], b".nix-gocacheprog"];
            if name != b"env-vars" && !is_known.iter().any(|known| name.starts_with(known)) {
                identities.add_file(record, "beside", &file);
            }
        }
    }

    /// Whatever of this build a text names.
    fn named_in(&mut self, file: &Path) {
        let Ok(text) = std::fs::read(file) else {
            return;
        };
        let top = self.top.as_os_str().as_bytes();
        let mut rest = text.as_slice();
        while let Some(at) = rest.windows(top.len()).position(|part| part == top) {
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-@".contains(byte);
            let length = rest[at..].iter().position(|byte| !is_part(byte));
            let end = length.map_or(rest.len(), |length| at + length);
            let path = Path::new(OsStr::from_bytes(&rest[at..end]));
            // By its parts: without a slash at its end.
            self.left.insert(path.components().collect());
            rest = &rest[end.max(at + top.len())..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    /// A build's own directory, in which PATH and flags lead somewhere.
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

        fn found(&self, start: &str) -> [u8; 32] {
            let top = self.top.to_str().unwrap();
            let gopath = format!("{top}/go");
            let path = format!("/nix/store/a/bin:{gopath}/bin");
            let vars = [("NIX_BUILD_TOP", top), ("PATH", &path), ("GOPATH", &gopath)];
            let variables = Variables::new(vars.iter().map(|(k, v)| (k.into(), v.into())));
            let identities = Identities::new(vec![self.top.clone()]);
            let mut record = Record::new("test");
            let start = std::iter::once(self.top.join(start));
            assert!(add(&mut record, &variables, &identities, start));
            record.finish()
        }

        /// Whether this file counts for what that leads to.
        fn counts(&self, name: &str, start: &str) -> bool {
            self.write(name, "1");
            let first = self.found(start);
            assert_eq!(self.found(start), first);
            self.write(name, "2");
            self.found(start) != first
        }
    }

    #[test]
    fn what_lies_beside_a_script_counts_and_what_it_names() {
        let build = Build::new();
        build.write(
            "tools/cc",
            "#!/bin/sh\nexec TOP/more/cc -I\"TOP/include/\" \"$@\"\n",
        );
        build.write("more/cc", "#!/bin/sh\nexec gcc @TOP/flags/all \"$@\"\n");
        build.write("flags/all", "-I'TOP/other'");
        for name in [
            "tools/flags",
            "tools/deep/x",
            "more/x",
            "flags/x",
            "include/v.h",
            "other/deep/v.h",
        ] {
            assert!(build.counts(name, "tools/cc"), "{name}");
        }
        for name in ["unrelated/x", "go/bin/x", "env-vars", "x"] {
            assert!(!build.counts(name, "tools/cc"), "{name}");
        }
        build.write("cc", "#!/bin/sh\nexec gcc $(cat \"${0%/*}/x\") \"$@\"\n");
        assert!(build.counts("x", "cc"));
        assert!(!build.counts("env-vars", "cc"));
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
        assert!(build.counts("prefix/lib/libx.a", "prefix/lib/pkgconfig"));
        assert!(build.counts("installed/include/y.h", "pc"));
        assert!(!build.counts("installed/include/y.h", "prefix/lib/pkgconfig"));
        build.write("lib/pkgconfig/z.pc", "prefix=${pcfiledir}/../..\n");
        assert!(build.counts("include/z.h", "lib/pkgconfig"));
        assert!(build.counts("lib/libz.a", "lib/pkgconfig"));
        assert!(!build.counts("unrelated/z.h", "lib/pkgconfig"));
    }

    #[test]
    fn of_the_source_only_what_lies_beside_a_script_counts() {
        let build = Build::new();
        build.write("source/go.mod", "module x");
        build.write("source/cc", "#!/bin/sh\n");
        build.write("source/tools/cc", "#!/bin/sh\n");
        assert!(!build.counts("source/main.go", "source/cc"));
        assert!(build.counts("source/tools/flags.txt", "source/tools/cc"));
        assert!(!build.counts("source/tools/deep/main.go", "source/tools/cc"));
    }
}
