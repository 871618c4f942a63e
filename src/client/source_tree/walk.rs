//! All files below the roots, without a look at any of them.

use super::roots::normal;
use super::text::kind;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, FileType};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// More files than any source tree has: a symbolic link leads somewhere else.
pub const FILES_MAX: usize = 1_000_000;

/// Where a version control system keeps what it knows, and what is in there. `go` does not build from there.
const VERSION_CONTROL: [(&str, &str); 8] = [
    (".git", "HEAD"),
    (".hg", "requires"),
    (".svn", "wc.db"),
    (".bzr", "branch-format"),
    ("_darcs", "format"),
    ("CVS", "Entries"),
    (".jj", "repo"),
    (".pijul", "pristine"),
];

/// What the names of folders begin with that `go` makes in a temporary one; digits follow.
const GOS_TEMPORARY: [&[u8]; 5] = [
    b"go-build",
    b"go-link-",
    b"cgo-gcc-",
    b"go-tool-",
    b"gotest",
];

/// What is there does not change.
const STORE: &str = "/nix/store";

/// So many files are looked at to see whether there is a package where a link leads.
const LOOK_MAX: usize = 1000;

/// Whether a folder is the system's, and of no source tree. Shared memory is a file system like others.
fn is_system(folder: &Path) -> bool {
    let system = ["/proc", "/sys", "/dev"];
    system.iter().any(|system| folder.starts_with(system)) && !folder.starts_with("/dev/shm")
}

/// Whether a Go file is right in a folder, so it may be a package.
fn is_package(folder: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().as_bytes().ends_with(b".go")))
}

/// Whether a Go file may be anywhere below a folder.
fn may_hold_package(folder: &Path) -> bool {
    let (mut folders, mut seen) = (vec![folder.to_path_buf()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > LOOK_MAX || entry.file_name().as_bytes().ends_with(b".go") {
                return true;
            }
            // A link may lead to a package, too.
            let kind = entry.file_type();
            if kind.is_ok_and(|kind| kind.is_dir()) || entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    false
}

/// Files that no C compiler and no assembler reads unless a text names one of their kind: extensions, and names
/// without one, in lower case and sorted.
const NEVER_READ: &[&str] = &[
    "adoc",
    "authors",
    "avif",
    "avsc",
    "bash",
    "bat",
    "bazel",
    "bmp",
    "build",
    "bzl",
    "changelog",
    "changes",
    "cmd",
    "codeowners",
    "conf",
    "containerfile",
    "contributing",
    "contributors",
    "copying",
    "crt",
    "css",
    "csv",
    "cue",
    "diff",
    "dockerfile",
    "dockerignore",
    "drawio",
    "editorconfig",
    "eot",
    "eslintrc",
    "example",
    "feature",
    "fish",
    "gif",
    "gitattributes",
    "gitignore",
    "gitkeep",
    "gitmodules",
    "gnumakefile",
    "go",
    "gohtml",
    "golden",
    "gotmpl",
    "gql",
    "graphql",
    "gz",
    "hcl",
    "htm",
    "html",
    "ico",
    "ini",
    "ipynb",
    "jar",
    "java",
    "jenkinsfile",
    "jpeg",
    "jpg",
    "js",
    "json",
    "json5",
    "jsonl",
    "jsonnet",
    "jsx",
    "key",
    "kt",
    "less",
    "libsonnet",
    "license",
    "lock",
    "log",
    "mailmap",
    "maintainers",
    "makefile",
    "map",
    "markdown",
    "md",
    "mdx",
    "mjs",
    "mmd",
    "mod",
    "mp3",
    "mp4",
    "news",
    "nix",
    "notice",
    "npmrc",
    "otf",
    "owners",
    "parquet",
    "patch",
    "patents",
    "pdf",
    "pem",
    "php",
    "pl",
    "png",
    "prettierrc",
    "procfile",
    "properties",
    "proto",
    "ps1",
    "pub",
    "puml",
    "py",
    "pyc",
    "rb",
    "readme",
    "rego",
    "rst",
    "sass",
    "scss",
    "sh",
    "snap",
    "sql",
    "star",
    "sum",
    "svelte",
    "svg",
    "swift",
    "tar",
    "tf",
    "tgz",
    "tmpl",
    "todo",
    "toml",
    "tpl",
    "ts",
    "tsv",
    "tsx",
    "ttf",
    "txt",
    "vagrantfile",
    "vue",
    "wasm",
    "webm",
    "webp",
    "woff",
    "woff2",
    "work",
    "workspace",
    "xml",
    "xz",
    "yaml",
    "yml",
    "zip",
    "zsh",
    "zst",
];

/// What a file can be, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Go.
    Go,
    /// Assembler, by Go's assembler unless its package has C.
    Assembler,
    /// An interface that SWIG makes C and Go of.
    Swig,
    /// Of a kind that only a text's naming it makes an input.
    NeverRead,
    /// Anything else: an input of C's.
    Input,
}

impl Class {
    fn of(name: &[u8]) -> Self {
        match kind(name).as_str() {
            "go" => Self::Go,
            // By the letter: `.S` is the C compiler's.
            "s" if name.ends_with(b".s") => Self::Assembler,
            "swig" | "swigcxx" => Self::Swig,
            // Fortran's modules are.
            "mod" | "sum" | "work" if !name.starts_with(b"go.") => Self::Input,
            kind if NEVER_READ.binary_search(&kind).is_ok() => Self::NeverRead,
            _ => Self::Input,
        }
    }
}

/// A file below a root.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The root, by number, and the path below it.
    pub name: (usize, OsString),
    /// What it is by its name.
    pub class: Class,
    /// Neither a file nor a link to one, or a directory that cannot be read: its name counts, and where a link leads.
    pub is_name_only: bool,
}

/// What to leave out.
#[derive(Debug, Default)]
pub struct Except {
    /// Folders whose content is `go`'s own: its caches.
    pub folders: Vec<PathBuf>,
    /// Where `go` makes its temporary folders, and Nix and stdenv their lists of variables.
    pub temporary: Vec<PathBuf>,
    /// What `go` downloads and installs, which may be anywhere around the source.
    pub around: Vec<PathBuf>,
}

impl Except {
    fn has(&self, folder: &Path, name: &[u8], is_folder: bool) -> bool {
        let is_temporary = || self.temporary.iter().any(|temporary| temporary == folder);
        if name.starts_with(b".nix-gocacheprog") {
            return is_temporary();
        }
        if !is_folder {
            return (name == b"env-vars" || name.starts_with(b".attrs.")) && is_temporary();
        }
        let path = || folder.join(OsStr::from_bytes(name));
        let numbered = GOS_TEMPORARY
            .iter()
            .find_map(|begin| name.strip_prefix(*begin));
        let is_gos_own = numbered
            .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
            && is_temporary();
        let is_version_control = || {
            let known = VERSION_CONTROL.iter();
            let mut known = known.filter(|(own, _)| own.as_bytes() == name);
            known.any(|(_, holds)| path().join(holds).exists())
        };
        let is_cache = || !self.folders.is_empty() && self.folders.contains(&path());
        // Whatever it is called, `go` may build from it.
        (is_gos_own || is_version_control() || is_cache()) && !is_package(&path())
    }
}

/// Whether a link to the store is one that `nix build`, direnv or devenv leaves behind, and leads to no package.
fn is_left_by_tool(link: &Path) -> bool {
    let name = link.file_name().unwrap_or_default().as_bytes();
    let mut folders = link.components().map(|part| part.as_os_str());
    folders.any(|folder| folder == ".direnv" || folder == ".devenv")
        || name.starts_with(b"result") && !may_hold_package(link)
}

/// Lists the files below folders that are added one after the other, in an order that depends on their names alone.
#[derive(Debug, Default)]
pub struct Walk {
    /// All so far.
    pub files: Vec<Found>,
    /// The folders that were listed.
    pub folders: Vec<PathBuf>,
    /// What was left out by name.
    left_out: Vec<PathBuf>,
    /// What is below a root that is around others, and was left out there.
    left_apart: Vec<PathBuf>,
    /// How many there may be.
    max: usize,
    except: Except,
    roots: Vec<PathBuf>,
    /// Folders that links lead to, real paths.
    linked: BTreeSet<PathBuf>,
    /// All links to folders, and where they lead.
    links: Vec<(PathBuf, PathBuf)>,
    /// Those to the store that may lead to packages.
    to_store: Vec<(PathBuf, PathBuf)>,
}

impl Walk {
    /// An empty one, for so many files.
    pub fn new(except: Except, max: usize) -> Self {
        Self {
            except,
            max,
            ..Self::default()
        }
    }

    /// What is left out.
    pub fn except(&self) -> &Except {
        &self.except
    }

    /// Whether a path is below a root, and was not left out there.
    pub fn has(&self, path: &Path) -> bool {
        let deepest = |folders: &[PathBuf]| {
            let around = folders.iter().filter(|folder| path.starts_with(folder));
            around.map(|folder| folder.components().count()).max()
        };
        deepest(&self.roots) > deepest(&self.left_apart)
    }

    /// Where the walk began, and what it was led to, by number.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// Whether a folder is where the walk began, or was led to.
    pub fn is_root(&self, folder: &Path) -> bool {
        self.roots.iter().any(|root| root == folder)
    }

    /// The folders of version control that were left out. Whether one is still left out shows in it.
    pub fn version_control(&self) -> impl Iterator<Item = &PathBuf> {
        let is_one = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default();
            VERSION_CONTROL.iter().any(|(own, _)| name == *own)
        };
        self.left_out.iter().filter(is_one)
    }

    /// Whether links lead to folders, so that one may have several paths.
    pub fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// The names of links that lead to a folder.
    pub fn names_of(&self, folder: &Path) -> impl Iterator<Item = &OsStr> {
        let links = self.links.iter().filter(move |(_, real)| real == folder);
        links.filter_map(|(link, _)| link.file_name())
    }

    /// Whether there may be packages in folders that were not walked: links lead to the store.
    pub fn leads_to_store(&self) -> bool {
        !self.to_store.is_empty()
    }

    /// Those links, and where they lead.
    pub fn links_to_store(&self) -> &[(PathBuf, PathBuf)] {
        &self.to_store
    }

    /// A path below a root, by the root's number and without it; one that is nowhere here has no number.
    pub fn below_root<'a>(&self, path: &'a Path) -> (usize, &'a Path) {
        let mut roots = self.roots.iter().enumerate();
        let found = roots.find_map(|(nth, root)| Some((nth, path.strip_prefix(root).ok()?)));
        found.unwrap_or((usize::MAX, path))
    }

    /// Where a file is.
    pub fn path(&self, file: &Found) -> PathBuf {
        self.roots[file.name.0].join(&file.name.1)
    }

    /// Adds all below a folder, unless it is below one already. Of a folder around others, what is not in them.
    ///
    /// # Errors
    /// When there are more files than a source tree can have, or the folder is the system's.
    pub fn add(&mut self, root: &Path) -> Result<()> {
        let root = root.canonicalize().unwrap_or_else(|_| normal(root));
        if self.has(&root) {
            return Ok(());
        }
        if is_system(&root) {
            return Err(Error::input(format!(
                "{} is the system's, and no place for source",
                root.display()
            )));
        }
        self.roots.push(root.clone());
        self.walk(self.roots.len() - 1, root)
    }

    fn walk(&mut self, root: usize, start: PathBuf) -> Result<()> {
        let is_inner = |other: &PathBuf| *other != start && other.starts_with(&start);
        let is_around = self.roots.iter().any(is_inner);
        let apart = self.except.around.iter().filter(|_| is_around);
        let apart: Vec<_> = apart
            .filter_map(|folder| folder.canonicalize().ok())
            .collect();
        let mut folders = vec![start];
        while let Some(folder) = folders.pop() {
            let listed = std::fs::read_dir(&folder).and_then(Iterator::collect);
            let Ok::<Vec<DirEntry>, _>(entries) = listed else {
                self.folders.push(folder.clone());
                self.push(root, folder, true)?;
                continue;
            };
            let mut entries: Vec<(OsString, Option<FileType>)> = entries
                .into_iter()
                .map(|entry| (entry.file_name(), entry.file_type().ok()))
                .collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            for (name, kind) in entries {
                let is_folder = kind.is_some_and(|kind| kind.is_dir());
                if self.except.has(&folder, name.as_bytes(), is_folder) {
                    self.left_out.push(folder.join(name));
                    continue;
                }
                let path = folder.join(name);
                let is_other_root = is_around && self.is_root(&path);
                match kind {
                    Some(kind) if kind.is_dir() && is_other_root => {}
                    Some(kind) if kind.is_dir() && apart.contains(&path) => {
                        self.left_apart.push(path);
                    }
                    Some(kind) if kind.is_dir() => folders.push(path),
                    Some(kind) if kind.is_file() => self.push(root, path, false)?,
                    Some(kind) if kind.is_symlink() => self.link(root, path)?,
                    _ => self.push(root, path, true)?,
                }
            }
            self.folders.push(folder);
        }
        Ok(())
    }

    /// A link to a file is read as one. A folder that a link leads to is walked where it is, unless it is below a
    /// root, in the store, which does not change, or of the system's.
    fn link(&mut self, root: usize, path: PathBuf) -> Result<()> {
        let Ok(found) = path.metadata() else {
            return self.push(root, path, true);
        };
        if !found.is_dir() {
            return self.push(root, path, !found.is_file());
        }
        let real = path.canonicalize();
        self.push(root, path.clone(), true)?;
        let Ok(real) = real else {
            return Ok(());
        };
        if !real.starts_with(STORE) && !self.has(&real) && !is_system(&real) {
            self.linked.insert(real.clone());
        }
        if real.starts_with(STORE) && !is_left_by_tool(&path) {
            self.to_store.push((path.clone(), real.clone()));
        }
        self.links.push((path, real));
        Ok(())
    }

    /// Walks the folders that links lead to, and those that links in there do.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_linked(&mut self) -> Result<()> {
        while let Some(folder) = self.linked.pop_first() {
            self.add(&folder)?;
        }
        Ok(())
    }

    fn push(&mut self, root: usize, path: PathBuf, is_name_only: bool) -> Result<()> {
        if self.files.len() >= self.max {
            return Err(Error::input(format!(
                "there are more than {} files below {}",
                self.max,
                self.roots[root].display()
            )));
        }
        let name = path.strip_prefix(&self.roots[root]).unwrap_or(&path);
        self.files.push(Found {
            class: path
                .file_name()
                .map_or(Class::Input, |name| Class::of(name.as_bytes())),
            name: (root, name.as_os_str().to_owned()),
            is_name_only,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::os::unix::fs::symlink;

    fn write(dir: &TestDir, names: &[&str]) {
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
    }

    fn names(walk: &Walk) -> Vec<String> {
        let names = walk
            .files
            .iter()
            .map(|file| file.name.1.to_str().unwrap().to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn the_list_of_kinds_is_sorted() {
        assert!(NEVER_READ.is_sorted());
    }

    #[test]
    fn a_name_says_what_a_file_can_be() {
        for (name, class) in [
            ("a.go", Class::Go),
            ("a.s", Class::Assembler),
            ("a.S", Class::Input),
            ("a.swig", Class::Swig),
            ("a.md", Class::NeverRead),
            ("a.PNG", Class::NeverRead),
            ("LICENSE", Class::NeverRead),
            (".gitignore", Class::NeverRead),
            ("a.h", Class::Input),
            ("a.inc", Class::Input),
            ("libx.so.1", Class::Input),
            ("x.pc", Class::Input),
            ("vector", Class::Input),
            ("a.unheard-of", Class::Input),
        ] {
            assert_eq!(Class::of(name.as_bytes()), class, "{name}");
        }
    }

    #[test]
    fn every_folder_is_walked_but_those_of_version_control_and_of_go() {
        let dir = TestDir::new();
        write(
            &dir,
            &[
                "a.h",
                ".dot/a.h",
                "_x/testdata/a.h",
                "node_modules/a/a.h",
                ".git/HEAD",
                ".git/a.h",
                "sub/.hg/requires",
                "sub/.hg/a.h",
                "CVS/a.h",
                ".jj/repo",
                ".jj/a.go",
                "cache/a.h",
                "tmp/go-build123/a.h",
                "sub/go-build123/a.h",
                "tmp/env-vars",
                "tmp/.nix-gocacheprog/a.h",
                "tmp/gotestutil/a.h",
                "tmp/go-build7/a.go",
            ],
        );
        let real = dir.path().canonicalize().unwrap();
        let mut walk = Walk::new(
            Except {
                folders: vec![real.join("cache")],
                temporary: vec![real.join("tmp")],
                around: Vec::new(),
            },
            FILES_MAX,
        );
        walk.add(dir.path()).unwrap();
        assert_eq!(
            names(&walk),
            [
                ".dot/a.h",
                ".jj/a.go",
                ".jj/repo",
                "CVS/a.h",
                "_x/testdata/a.h",
                "a.h",
                "node_modules/a/a.h",
                "sub/go-build123/a.h",
                "tmp/go-build7/a.go",
                "tmp/gotestutil/a.h",
            ]
        );
    }

    #[test]
    fn links_are_followed_and_loops_of_them_end() {
        let dir = TestDir::new();
        write(
            &dir,
            &["root/sub/a.h", "outside/b.h", "outside/deep/c.h", "file.h"],
        );
        let root = dir.path().join("root");
        symlink("..", root.join("sub/up")).unwrap();
        symlink(".", root.join("self")).unwrap();
        symlink("../outside/deep", root.join("link")).unwrap();
        symlink("..", dir.path().join("outside/deep/loop")).unwrap();
        symlink("../file.h", root.join("file.h")).unwrap();
        symlink("nowhere", root.join("dangling.h")).unwrap();
        let mut walk = Walk::new(Except::default(), FILES_MAX);
        walk.add(&root).unwrap();
        walk.add_linked().unwrap();
        assert_eq!(
            names(&walk),
            [
                "b.h",
                "c.h",
                "dangling.h",
                "file.h",
                "link",
                "loop",
                "self",
                "sub/a.h",
                "sub/up"
            ]
        );
        let is_file = |name: &str| {
            walk.files
                .iter()
                .any(|file| file.name.1 == name && !file.is_name_only)
        };
        assert!(is_file("file.h") && is_file("b.h"));
        assert!(!is_file("dangling.h") && !is_file("link"));
    }

    #[test]
    fn the_order_depends_on_names_alone() {
        let list = |names: &[&str]| {
            let dir = TestDir::new();
            write(&dir, names);
            let mut walk = Walk::new(Except::default(), FILES_MAX);
            walk.add(dir.path()).unwrap();
            walk.files
                .into_iter()
                .map(|file| file.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(list(&["a/x", "b/y", "c"]), list(&["c", "b/y", "a/x"]));
    }

    #[test]
    fn of_a_folder_around_others_the_rest_is_listed() {
        let dir = TestDir::new();
        let all = ["source/v.h", "beside/deep/w.h", "x.h", "go/pkg/mod/m/y.h"];
        write(&dir, &all);
        let except = Except {
            around: vec![dir.path().canonicalize().unwrap().join("go/pkg")],
            ..Except::default()
        };
        let mut walk = Walk::new(except, FILES_MAX);
        walk.add(&dir.path().join("source")).unwrap();
        walk.add(dir.path()).unwrap();
        walk.add(&dir.path().join("beside")).unwrap();
        assert_eq!(names(&walk), ["beside/deep/w.h", "v.h", "x.h"]);
        walk.add(&dir.path().join("go/pkg/mod/m")).unwrap();
        assert_eq!(names(&walk), ["beside/deep/w.h", "v.h", "x.h", "y.h"]);
    }
}
