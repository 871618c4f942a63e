//! Whether Go's assembler reads nothing that `go` has not hashed.
//!
//! `go` hashes the `.s` and `.h` files of a package's own folder that it does not ignore (`buildActionID` in
//! cmd/go/internal/work/exec.go, `matchFile` in go/build/build.go). The assembler looks for an included file in that
//! folder, in `go`'s temporary one, where `go_asm.h` is, and in GOROOT/pkg/include (`include` in
//! cmd/asm/internal/lex/input.go, `asmArgs` in work/gc.go).

use super::roots::normal;
use super::text::{assembler_includes, kind, may_be_constrained};
use super::walk::{Class, Walk};
use super::{SAID_MAX, TEXT_MAX, add_name};
use crate::client::parts::{self, Part};
use crate::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What is in GOROOT/pkg/include of every release since Go 1.21, and `go_asm.h`.
const GOS_OWN: [&str; 5] = [
    "asm_amd64.h",
    "asm_ppc64x.h",
    "funcdata.h",
    "go_asm.h",
    "textflag.h",
];

/// Extensions that `go` hashes and that text is included from.
const HASHED: [&str; 5] = ["h", "hh", "hpp", "hxx", "s"];

/// What a name of a file ends with that `go` takes for one system or processor alone (internal/syslist).
const SYSTEMS: [&str; 42] = [
    "386",
    "aix",
    "amd64",
    "amd64p32",
    "android",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "solaris",
    "sparc",
    "sparc64",
    "wasip1",
    "wasm",
    "windows",
    "zos",
];

/// What assembler files include.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Assembler {
    /// There are none.
    None,
    /// Only what `go` hashes.
    Closed,
    /// Something else, or it cannot be told.
    Open,
    /// A file that `go` ignores takes the place of one of Go's own headers. Everywhere else, what is hashed says
    /// whether a package is closed.
    Hiding,
}

impl Assembler {
    /// Whether Go's assembler includes nothing that `go` does not hash, in any package that a build can compile.
    /// Packages of the standard library are not looked at: they are part of Go.
    pub fn is_closed(self) -> bool {
        self <= Self::Closed
    }

    /// Whether the assembler reads another file in the place of one of Go's own headers without `go` hashing it. Then
    /// not even what was proven elsewhere to depend only on what `go` hashes holds.
    pub fn hides_headers(self) -> bool {
        self == Self::Hiding
    }
}

/// Assembler files that were followed to all that they include.
#[derive(Debug, Default)]
pub struct Followed {
    /// What is included and `go` does not hash, with a hash of its bytes.
    pub included: BTreeMap<PathBuf, [u8; 32]>,
    /// All that was looked at.
    pub seen: BTreeSet<PathBuf>,
    /// It cannot be told what one of them includes: a text says it in no plain way, or it is not in the package's folder, and
    /// `go` may have made it (`build` in work/exec.go makes a `v_GOOS.h` of a `v_linux.h`).
    pub is_lost: bool,
    /// A file upward is included that is not there. The assembler looks for it by the path's words, too, which a link may
    /// have brought it by.
    pub misses_upward: bool,
}

impl Followed {
    /// Looks at an assembler file, and at all that it includes. Included names are looked for in the folder of the file that
    /// is assembled, whichever file has them.
    pub fn file(&mut self, path: &Path) -> Assembler {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut names = BTreeSet::new();
        let mut left = vec![path.to_path_buf()];
        let mut worst = Assembler::Closed;
        while let Some(path) = left.pop() {
            let text = read_text(&path);
            self.seen.insert(path);
            let Some(included) = text.and_then(|text| assembler_includes(&text)) else {
                self.is_lost = true;
                worst = worst.max(Assembler::Open);
                continue;
            };
            for name in included {
                if names.contains(&name) {
                    continue;
                }
                let path = folder.join(&name);
                let is_gos = GOS_OWN.contains(&name.as_str());
                match std::fs::metadata(&path) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound && is_gos => {}
                    Ok(found) if found.is_file() && is_hashed(&name, &path) => left.push(path),
                    _ => {
                        worst = worst.max(match is_gos {
                            true => Assembler::Hiding,
                            false => Assembler::Open,
                        });
                        match read_text(&path) {
                            Some(bytes) => {
                                let hash = Sha256::digest(bytes);
                                self.included.insert(path.clone(), hash);
                                left.push(path);
                            }
                            None => {
                                self.seen.insert(path);
                                self.is_lost = true;
                                self.misses_upward |= name.contains("..");
                            }
                        }
                    }
                }
                names.insert(name);
            }
        }
        worst
    }
}

/// The assembler files of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assemblers {
    /// The worst of them.
    pub worst: Assembler,
    /// All that they include and `go` does not hash; `None` if that cannot be told.
    pub included: Option<Included>,
    /// The names of the folders that have an open one; `None` if such a folder is the root of a module, whose name says
    /// nothing of its package's path.
    open: Option<BTreeSet<String>>,
    /// Links lead to packages in the store, which were not looked at.
    is_open_in_store: bool,
    /// A file may be included that nobody can find, for it depends on the path by which `go` comes to a package.
    pub is_beyond_reach: bool,
}

impl Assemblers {
    /// Those of a tree, and all paths that were looked at.
    /// `by_link` says that the command itself was started in a folder that a link leads to.
    pub fn of_tree(walk: &Walk, by_link: bool) -> (Self, BTreeSet<PathBuf>) {
        let mut found = Self {
            worst: Assembler::None,
            included: None,
            open: Some(BTreeSet::new()),
            is_open_in_store: walk.leads_to_store(),
            is_beyond_reach: false,
        };
        let mut followed = Followed::default();
        let files = walk.files.iter();
        let files = files.filter(|file| file.class == Class::Assembler);
        for file in files.map(|file| walk.path(file)) {
            let one = followed.file(&file);
            found.worst = found.worst.max(one);
            let folder = file.parent().unwrap_or(Path::new("/"));
            if one.is_closed() {
                continue;
            }
            let name = folder.file_name().and_then(|name| name.to_str());
            let name = name.filter(|_| !walk.is_root(folder) && !folder.join("go.mod").exists());
            let Some(open) = found.open.as_mut().filter(|_| name.is_some()) else {
                found.open = None;
                continue;
            };
            open.extend(name.map(String::from));
            // A package is named after the link through which it is imported.
            let links = walk.names_of(folder);
            open.extend(links.map(|name| name.to_string_lossy().into_owned()));
        }
        if found.is_open_in_store {
            found.worst = found.worst.max(Assembler::Open);
        } else if !followed.is_lost {
            found.included = Some(Included::new(&followed.included, walk));
        }
        found.is_beyond_reach = followed.misses_upward && (by_link || walk.has_links());
        (found, followed.seen)
    }

    /// Whether an open one may be of the package with this path, which ends with the name of its folder unless that is the
    /// root of a module. The main module may be named like a package of the standard library; what `go` finds elsewhere
    /// may not.
    pub fn may_be_open(&self, package: &str, is_standard: bool) -> bool {
        if self.worst.is_closed() {
            return false;
        }
        if self.is_open_in_store && !is_standard {
            return true;
        }
        let name = package.rsplit('/').next().unwrap_or(package);
        // A program's path says nothing of its folder, and an escaped one is not looked into.
        let says_folder =
            !["main", "command-line-arguments"].contains(&package) && !name.contains('%');
        let is_open = |open: &BTreeSet<String>| open.contains(name);
        !says_folder || self.open.as_ref().is_none_or(is_open)
    }
}

/// What assembler files include and `go` does not hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Included {
    /// A hash over names and bytes; `None` if nothing is.
    pub digest: Option<[u8; 32]>,
    /// The files, as a person is told of them.
    pub said: Vec<Part>,
}

impl Included {
    fn new(files: &BTreeMap<PathBuf, [u8; 32]>, walk: &Walk) -> Self {
        let mut hash = Sha256::new_with_prefix("nix-gocacheprog: what assembler files include\0");
        let mut said = Vec::new();
        for (path, bytes) in files {
            let path = normal(path);
            let (root, name) = walk.below_root(&path);
            add_name(&mut hash, root, name.as_os_str());
            hash.update(bytes);
            said.push((name.to_string_lossy().into_owned(), parts::digits(bytes)));
        }
        said.truncate(SAID_MAX);
        Self {
            digest: (!files.is_empty()).then(|| hash.finalize()),
            said,
        }
    }
}

/// Whether the assembler can read a file of this name: its own, and what it includes that `go` hashes.
pub fn may_read(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    HASHED.contains(&kind(name).as_str())
}

/// The bytes of a regular file that is no larger than a text can be.
fn read_text(path: &Path) -> Option<Vec<u8>> {
    let found = std::fs::metadata(path).ok()?;
    // Anything else could have no end, or be somebody else's to read.
    let is_text = found.is_file() && found.len() <= TEXT_MAX;
    is_text.then(|| std::fs::read(path).ok()).flatten()
}

/// Whether `go` hashes a file of a package's folder in any build of that package. It goes by the letter of the extension
/// (`fileListForExt` in go/build/build.go).
fn is_hashed(name: &str, path: &Path) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let stem = name.split('.').next().unwrap_or_default();
    let is_for_one_system = stem
        .split_once('_')
        .is_some_and(|(_, rest)| rest.split('_').any(|part| SYSTEMS.contains(&part)));
    !name.starts_with(['_', '.'])
        && !name.contains('/')
        && HASHED.contains(&extension)
        && !is_for_one_system
        && read_text(path).is_some_and(|text| !may_be_constrained(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn of(files: &[(&str, &str)]) -> Assembler {
        let dir = TestDir::new();
        let folder = dir.path().join("p");
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        Followed::default().file(&folder.join("a.s"))
    }

    #[test]
    fn what_go_hashes_may_be_included() {
        let headers = "#include \"textflag.h\"\n#include \"go_asm.h\"\n#include \"v.h\"\n";
        assert_eq!(
            of(&[
                ("a.s", headers),
                ("v.h", "#include \"w.h\"\n"),
                ("w.h", "#include \"v.h\"\n")
            ]),
            Assembler::Closed
        );
        assert_eq!(of(&[("a.s", "RET\n")]), Assembler::Closed);
    }

    #[test]
    fn nothing_else_may() {
        for (text, name, content) in [
            ("#include \"v.inc\"\n", "v.inc", ""),
            ("#include \"../v.h\"\n", "v.h", ""),
            ("#include \"v.h\"\n", "other.h", ""),
            ("#include \"_v.h\"\n", "_v.h", ""),
            ("#include \"v_windows.h\"\n", "v_windows.h", ""),
            ("#include \"v_linux_test.h\"\n", "v_linux_test.h", ""),
            (
                "#include \"v.h\"\n",
                "v.h",
                "//go:build ignore\n\n#define V 1\n",
            ),
            ("#include \"v.h\"\n", "v.h", "#include \"v.inc\"\n"),
            ("#include \"v.h\"\n", "v.h", "#include <v.inc>\n"),
            ("#include \"v_GOOS.h\"\n", "v_linux.h", ""),
            ("#include \"v.H\"\n", "v.H", ""),
            ("#include \"v.S\"\n", "v.S", ""),
            ("#include \"h\"\n", "h", ""),
        ] {
            assert_eq!(
                of(&[("a.s", text), (name, content)]),
                Assembler::Open,
                "{text} {content}"
            );
        }
    }

    #[test]
    fn an_ignored_file_in_the_place_of_gos_own_is_noticed() {
        let hiding = [
            ("a.s", "#include \"textflag.h\"\n"),
            ("textflag.h", "// +build ignore\n"),
        ];
        assert_eq!(of(&hiding), Assembler::Hiding);
        let hashed = [
            ("a.s", "#include \"textflag.h\"\n"),
            ("textflag.h", "#define X 1\n"),
        ];
        assert_eq!(of(&hashed), Assembler::Closed);
    }

    #[test]
    fn what_is_included_is_followed_from_the_folder_that_is_assembled() {
        let dir = TestDir::new();
        let path = |name: &str| dir.path().join(name);
        for folder in ["p", "q"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        for (name, text) in [
            ("p/a.s", "#include \"../q/v.h\"\n#include \"textflag.h\"\n"),
            ("q/v.h", "#include \"w.inc\"\n"),
            ("p/w.inc", "#include \"../q/x.h\"\n"),
            ("q/w.inc", "#define W 2\n"),
            ("q/x.h", "#include \"a.s\"\n"),
        ] {
            std::fs::write(path(name), text).unwrap();
        }
        let mut followed = Followed::default();
        assert_eq!(followed.file(&path("p/a.s")), Assembler::Open);
        let included: Vec<_> = followed.included.keys().map(|path| normal(path)).collect();
        assert_eq!(
            included,
            ["q/v.h", "q/x.h", "w.inc"].map(|name| match name {
                "w.inc" => path("p/w.inc"),
                name => path(name),
            })
        );
        assert!(!followed.is_lost);
        for text in [
            "#include \"v_GOOS.h\"\n",
            "#include \"../missing.h\"\n",
            "#include V\n",
            "#include \"../q\"\n",
        ] {
            std::fs::write(path("p/a.s"), text).unwrap();
            let mut followed = Followed::default();
            assert_eq!(followed.file(&path("p/a.s")), Assembler::Open);
            assert!(followed.is_lost, "{text}");
        }
    }

    #[test]
    fn the_systems_are_each_there_once() {
        assert!(SYSTEMS.is_sorted());
    }
}
