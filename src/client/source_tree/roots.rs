//! The folders that a `go` command builds from.
//!
//! How `go` finds them: `findModuleRoot`, `FindGoWork` and `loadModFile` in cmd/go/internal/modload/init.go. In doubt
//! there is one folder too many here: a go.work counts even where GOFLAGS turns it off.

use super::settings::Settings;
use crate::client::unknown;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Where source is, and where else packages come from.
#[derive(Debug, Default)]
pub struct Roots {
    /// Each folder once, the main module's first. Some may be below others.
    pub folders: Vec<PathBuf>,
    /// The main module's folder, or where the command runs if there is none.
    pub main: PathBuf,
    /// There is a go.mod.
    pub has_module: bool,
    /// The command was started in a folder that a link leads to, and may go by either path.
    pub by_link: bool,
    /// A go.mod or go.work cannot be read, or says a path in a way that is not understood here.
    pub is_odd: bool,
    /// Modules may be taken from the module cache.
    pub uses_module_cache: bool,
    /// A go.mod requires another module.
    pub has_requirements: bool,
    /// The go.sum files that name them; none, when it cannot be told which they are.
    pub sums: Vec<PathBuf>,
    /// The `replace` directives that have another module, or another version, take the place of one. `go` hashes the path
    /// and version of the one that is replaced (`buildActionID` in cmd/go/internal/work/exec.go).
    pub replacements: BTreeSet<String>,
}

impl Roots {
    /// Those of a command that runs in `cwd`. (`go -C` has changed it before it starts anything.) Where PWD is another path of
    /// the same folder, `go` goes by that (`Getwd` in os/getwd.go).
    pub fn find<F: Fn(&str) -> Option<OsString>>(cwd: &Path, settings: &Settings<F>) -> Self {
        let mut roots = Self::default();
        let identity = |path: &Path| {
            let found = path.metadata().ok();
            found.map(|found| (found.dev(), found.ino()))
        };
        let said = settings
            .path("PWD")
            .filter(|said| said.is_absolute() && said != cwd && identity(said) == identity(cwd));
        roots.add_all(said.as_deref().unwrap_or(cwd), settings);
        if said.is_some() {
            roots.by_link = true;
            roots.add_all(cwd, settings);
        }
        roots
    }

    fn add_all<F: Fn(&str) -> Option<OsString>>(&mut self, cwd: &Path, settings: &Settings<F>) {
        let roots = self;
        let module = nearest(cwd, "go.mod");
        let work = match settings.get("GOWORK") {
            Some(off) if off == "off" => None,
            Some(path) if path != "auto" => Some(PathBuf::from(path)),
            _ => nearest(cwd, "go.work").map(|folder| folder.join("go.work")),
        };
        roots.has_module |= module.is_some();
        if roots.main.as_os_str().is_empty() {
            roots.main = module.as_deref().unwrap_or(cwd).to_path_buf();
        }
        roots.add_source(module.as_deref().unwrap_or(cwd), settings);
        if let Some(module) = &module {
            let file = settings.flag("modfile").map(|file| cwd.join(file));
            roots.add_module(module, file.as_deref(), settings);
        }
        if let Some(work) = &work {
            roots.add_work(work, settings);
        }
        if module.is_none() || settings.get("GO111MODULE").is_some_and(|on| on == "off") {
            roots.add_gopath(settings);
        }
        // Files that are named one by one can be anywhere.
        for word in settings.words() {
            if word.as_bytes().ends_with(b".go")
                && let Some(folder) = Path::new(word).parent()
            {
                roots.add(normal(&cwd.join(folder)));
            }
        }
        // The go.work or go.mod beside whose vendor folder `go` looks, and since which release of Go it needs no flag for that.
        let vendor = match &work {
            Some(work) => Some((work.clone(), (1, 22))),
            None => module.map(|folder| (folder.join("go.mod"), (1, 14))),
        };
        let mode = settings.flag("mod");
        let has_vendor = vendor.is_some_and(|(file, since)| {
            let is_told = || mode.is_some_and(|mode| mode == "vendor");
            let list = file.with_file_name("vendor/modules.txt");
            let is_fit = || vendors_workspace(&list) == Some(work.is_some());
            list.exists() && (is_told() || release(&file) >= Some(since) && is_fit())
        });
        let is_told = mode.is_some_and(|mode| mode != "vendor");
        // `go install example.com/command@version` builds from no go.mod.
        let has_version = settings
            .words()
            .iter()
            .any(|word| word.as_bytes().contains(&b'@'));
        roots.uses_module_cache |= !has_vendor || is_told || has_version;
        if has_version {
            roots.sums.clear();
        }
    }

    /// Adds a folder of source, with all that was unpacked around it: a build of Nix may have its module in a folder
    /// below, and C files beside it.
    fn add_source<F: Fn(&str) -> Option<OsString>>(
        &mut self,
        folder: &Path,
        settings: &Settings<F>,
    ) {
        let top = settings.path("NIX_BUILD_TOP");
        let below = top
            .as_deref()
            .and_then(|top| folder.strip_prefix(top).ok().map(|rest| (top, rest)));
        if let Some((top, rest)) = below
            && let Some(first) = rest.components().next()
        {
            self.add(top.join(first));
        }
        self.add(folder.to_path_buf());
    }

    fn add(&mut self, folder: PathBuf) {
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }

    /// Adds what the go.mod in this folder brings in; `file` is read beside it if it is given.
    fn add_module<F: Fn(&str) -> Option<OsString>>(
        &mut self,
        folder: &Path,
        file: Option<&Path>,
        settings: &Settings<F>,
    ) {
        for file in [Some(folder.join("go.mod")), file.map(Path::to_path_buf)]
            .into_iter()
            .flatten()
        {
            let text = self.read(&file);
            self.add_replaced(&text, folder, settings);
            self.has_requirements |= !directives(&text, "require").is_empty();
            self.sums.push(file.with_extension("sum"));
        }
    }

    /// What a go.mod or go.work says. `go` reads it whatever its comments hold; a word that is not text is not understood here.
    fn read(&mut self, file: &Path) -> String {
        let bytes = std::fs::read(file).unwrap_or_else(|e| {
            self.is_odd |= !unknown::is_nothing(file, &e);
            Vec::new()
        });
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut words = text.lines().flat_map(words);
        self.is_odd |= words.any(|word| word.contains(char::REPLACEMENT_CHARACTER));
        text
    }

    /// Adds what the `replace` directives of a file say that is in this folder: of each the right side, which is a path where
    /// it has no version (<https://go.dev/ref/mod#go-mod-file-grammar>).
    fn add_replaced<F: Fn(&str) -> Option<OsString>>(
        &mut self,
        text: &str,
        folder: &Path,
        settings: &Settings<F>,
    ) {
        // What is between quotes can have escapes.
        let mut lines = text.lines();
        self.is_odd |= lines.any(|line| line.contains('"') && line.contains('\\'));
        for words in directives(text, "replace") {
            let right = words.iter().position(|word| word == "=>");
            let Some(path) = right.and_then(|at| words.get(at + 1)) else {
                continue;
            };
            let is_path = ["./", "../", "/"]
                .iter()
                .any(|start| path.starts_with(start))
                || path == "."
                || path == "..";
            if is_path {
                self.add_source(&normal(&folder.join(path)), settings);
            } else {
                self.replacements.insert(words.join(" "));
            }
        }
    }

    fn add_work<F: Fn(&str) -> Option<OsString>>(&mut self, file: &Path, settings: &Settings<F>) {
        let folder = file.parent().unwrap_or(Path::new("/"));
        let text = self.read(file);
        for words in directives(&text, "use") {
            let Some(path) = words.first() else { continue };
            let module = normal(&folder.join(path));
            self.add_source(&module, settings);
            self.add_module(&module, None, settings);
        }
        self.add_replaced(&text, folder, settings);
        self.add(folder.join("vendor"));
        self.sums.push(folder.join("go.work.sum"));
    }

    fn add_gopath<F: Fn(&str) -> Option<OsString>>(&mut self, settings: &Settings<F>) {
        let gopath = settings
            .get("GOPATH")
            .or_else(|| Some(PathBuf::from(settings.get("HOME")?).join("go").into()));
        for folder in std::env::split_paths(&gopath.unwrap_or_default()) {
            if folder.is_absolute() {
                self.add(folder.join("src"));
            }
        }
    }
}

/// The nearest folder upward that has such a file.
fn nearest(from: &Path, name: &str) -> Option<PathBuf> {
    let folders = from.ancestors();
    let mut folders = folders.filter(|folder| folder.join(name).is_file());
    folders.next().map(Path::to_path_buf)
}

/// Without `.` and `..`, by the names alone.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// Whether a modules.txt is that of a go.work: else `go` takes it only where it is told to, and the other way round
/// (`modulesTextIsForWorkspace` in cmd/go/internal/modload/init.go).
fn vendors_workspace(list: &Path) -> Option<bool> {
    let text = std::fs::read(list).ok()?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let notes = line.strip_prefix(b"## ").unwrap_or_default();
    let mut notes = notes.split(|byte| *byte == b';');
    Some(notes.any(|note| note.trim_ascii() == b"workspace"))
}

/// The release of Go that a go.mod or go.work says, as far as it matters.
fn release(file: &Path) -> Option<(u32, u32)> {
    let text = std::fs::read(file).ok()?;
    let words = directives(&String::from_utf8_lossy(&text), "go").pop()?;
    let mut numbers = words.first()?.splitn(3, |c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

/// The words of each directive of this kind in a go.mod or go.work.
fn directives(text: &str, directive: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut block = String::new();
    for line in text.lines() {
        let mut words = words(line);
        match words.first().map(String::as_str) {
            None => continue,
            Some(")") => {
                block.clear();
                continue;
            }
            Some(_) if block.is_empty() => {
                let kind = words.remove(0);
                // Anything else behind a parenthesis makes a line of its own of it (`parseStmt` in x/mod/modfile/read.go).
                match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                    ["("] => {
                        block = kind;
                        continue;
                    }
                    ["(", ")"] => continue,
                    _ => {}
                }
                if kind != directive {
                    continue;
                }
            }
            Some(_) if block != directive => continue,
            Some(_) => {}
        }
        found.push(words);
    }
    found
}

/// The words of a line, without quotes and comments.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            break;
        }
        let (word, after) = match first {
            '"' | '`' => rest[1..].split_once(first).unwrap_or((&rest[1..], "")),
            '(' | ')' => rest.split_at(1),
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "()".contains(c));
                // A comment needs no blank before it.
                let end = end.into_iter().chain(rest.find("//")).min();
                rest.split_at(end.unwrap_or(rest.len()))
            }
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn find(
        dir: &TestDir,
        files: &[(&str, &str)],
        cwd: &str,
        args: &[&str],
        vars: &[(&str, &str)],
    ) -> Roots {
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let args: Vec<_> = args.iter().map(OsString::from).collect();
        let settings = Settings::new(&args, |name| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| {
                OsString::from(value.replace("DIR", dir.path().to_str().unwrap()))
            })
        });
        let cwd = dir.path().join(cwd);
        std::fs::create_dir_all(&cwd).unwrap();
        Roots::find(&cwd, &settings)
    }

    fn names(dir: &TestDir, roots: &Roots) -> Vec<String> {
        let folders = roots.folders.iter();
        let names = folders.map(|folder| folder.strip_prefix(dir.path()).unwrap_or(folder));
        names
            .map(|name| name.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn replaced_modules_are_source_too() {
        let dir = TestDir::new();
        let text = "module a\nreplace b v1.0.0 => ../b // c\nreplace (\n\tc => \"../with blank\"\n\td => d v2\n)\n\
                    require (\n\te v1.0.0\n)\nreplace f => ./f\n";
        let roots = find(&dir, &[("a/go.mod", text)], "a/sub", &[], &[]);
        assert_eq!(names(&dir, &roots), ["a", "b", "with blank", "a/f"]);
        let other = [("a/other.mod", "module a\nreplace b => ../other\n")];
        let roots = find(
            &dir,
            &other,
            "a/sub",
            &["go", "build", "-modfile=../other.mod"],
            &[],
        );
        assert_eq!(
            names(&dir, &roots),
            ["a", "b", "with blank", "a/f", "other"]
        );
        let roots = find(
            &dir,
            &[],
            "a/sub",
            &[],
            &[("GOFLAGS", "-trimpath '-modfile=../other.mod'")],
        );
        assert!(names(&dir, &roots).contains(&"other".to_owned()));
    }

    #[test]
    fn paths_are_read_as_go_reads_them_or_given_up() {
        let dir = TestDir::new();
        let text = "module a\nreplace b => ../b//note\nreplace \"c\" => `../c`\n";
        let roots = find(&dir, &[("a/go.mod", text)], "a", &[], &[]);
        assert_eq!(names(&dir, &roots), ["a", "b", "c"]);
        assert!(!roots.is_odd);
        let text = "module a\nreplace b => \"../\\x62\"\n";
        assert!(find(&dir, &[("a/go.mod", text)], "a", &[], &[]).is_odd);
    }

    #[test]
    fn a_command_that_goes_by_a_links_path_has_the_roots_of_both() {
        let dir = TestDir::new();
        let files = [
            ("real/deep/a/go.mod", "module a\n"),
            ("ws/go.work", "go 1.24\nuse ./a\nuse ../b\n"),
            ("b/go.mod", "module b\n"),
        ];
        let pwd = [("PWD", "DIR/ws/a")];
        find(&dir, &files, "real/deep/a", &[], &[]);
        std::os::unix::fs::symlink("../real/deep/a", dir.path().join("ws/a")).unwrap();
        let roots = find(&dir, &[], "real/deep/a", &[], &pwd);
        assert!(roots.by_link);
        assert_eq!(
            names(&dir, &roots),
            ["ws/a", "b", "ws/vendor", "real/deep/a"]
        );
        let roots = find(&dir, &[], "real/deep/a", &[], &[("PWD", "DIR/b")]);
        assert_eq!(names(&dir, &roots), ["real/deep/a"]);
    }

    #[test]
    fn the_modules_of_a_workspace_are_source_too() {
        let dir = TestDir::new();
        let files = [
            (
                "w/go.work",
                "go 1.21\nuse ./a\nuse (\n\t../b\n)\nreplace x => ../x\n",
            ),
            ("w/a/go.mod", "module a\n"),
            ("b/go.mod", "module b\nreplace c => ../c\n"),
        ];
        let roots = find(&dir, &files, "w/a", &[], &[]);
        assert_eq!(names(&dir, &roots), ["w/a", "b", "c", "x", "w/vendor"]);
        let roots = find(&dir, &[], "w/a", &[], &[("GOWORK", "off")]);
        assert_eq!(names(&dir, &roots), ["w/a"]);
        let roots = find(&dir, &[], "b", &[], &[("GOWORK", "DIR/w/go.work")]);
        assert_eq!(names(&dir, &roots), ["b", "c", "w/a", "x", "w/vendor"]);
    }

    #[test]
    fn all_that_was_unpacked_in_a_build_is_source() {
        let dir = TestDir::new();
        let top = [("NIX_BUILD_TOP", "DIR")];
        let roots = find(
            &dir,
            &[("source/sub/go.mod", "module a\n")],
            "source/sub",
            &[],
            &top,
        );
        assert_eq!(names(&dir, &roots), ["source", "source/sub"]);
    }

    #[test]
    fn without_a_module_the_gopath_and_named_files_are_source() {
        let dir = TestDir::new();
        let vars = [("GOPATH", "DIR/one:DIR/two")];
        let roots = find(&dir, &[], "sub", &["go", "run", "../c/a.go"], &vars);
        assert_eq!(names(&dir, &roots), ["sub", "one/src", "two/src", "c"]);
    }

    #[test]
    fn modules_come_from_vendor_or_from_the_module_cache() {
        let dir = TestDir::new();
        let uses = |files: &[_], args: &[&str], vars: &[_]| {
            find(&dir, files, "a", args, vars).uses_module_cache
        };
        assert!(uses(&[("a/go.mod", "module a\n")], &[], &[]));
        let vendored = [("a/vendor/modules.txt", "")];
        assert!(uses(&vendored, &[], &[]), "no release is said");
        for (text, is_used) in [
            ("module a\ngo 1.13\n", true),
            ("module a\ngo 1.14\n", false),
            ("module a\ngo 1.24.3\n", false),
        ] {
            assert_eq!(uses(&[("a/go.mod", text)], &[], &[]), is_used, "{text}");
        }
        assert!(uses(&[], &["go", "build", "-mod", "mod"], &[]));
        assert!(uses(&[], &[], &[("GOFLAGS", "-mod=readonly")]));
        assert!(!uses(&[], &[], &[("GOFLAGS", "-mod=vendor")]));
        // A workspace has a vendor folder of its own.
        let work = [("go.work", "go 1.24\nuse ./a\n")];
        assert!(uses(&work, &[], &[]));
        assert!(!uses(&[("vendor/modules.txt", "## workspace\n")], &[], &[]));
        let roots = find(
            &dir,
            &[],
            "a",
            &["go", "install", "example.com/a@latest"],
            &[],
        );
        assert!(roots.uses_module_cache && roots.sums.is_empty());
    }

    #[test]
    fn what_go_env_has_written_counts() {
        let dir = TestDir::new();
        let files = [
            ("env", "GOWORK=off\nGOFLAGS=-mod=mod\n"),
            ("a/go.mod", "module a\n"),
        ];
        let roots = find(&dir, &files, "a", &[], &[("GOENV", "DIR/env")]);
        assert!(roots.uses_module_cache);
        std::fs::write(dir.path().join("go.work"), "use ./b\n").unwrap();
        let roots = find(&dir, &[], "a", &[], &[("GOENV", "DIR/env")]);
        assert_eq!(names(&dir, &roots), ["a"]);
    }

    #[test]
    fn an_empty_block_on_one_line_hides_nothing() {
        let dir = TestDir::new();
        let text = "module a\nrequire ( )\nreplace b => ../b\nexclude (\n)\nreplace c => ../c\n";
        let roots = find(&dir, &[("a/go.mod", text)], "a", &[], &[]);
        assert_eq!(names(&dir, &roots), ["a", "b", "c"]);
    }

    #[test]
    fn a_vendor_folder_of_the_other_kind_is_not_used_unless_go_is_told_to() {
        let of = |work: bool, list: &str, args: &[&str]| {
            let dir = TestDir::new();
            let mut files = vec![
                ("a/go.mod", "module a\ngo 1.24\n"),
                ("a/vendor/modules.txt", list),
            ];
            if work {
                files.push(("a/go.work", "go 1.24\nuse .\n"));
            }
            find(&dir, &files, "a", args, &[]).uses_module_cache
        };
        let of_work = "## workspace\n# b v1.0.0\n";
        assert!(!of(false, "# b v1.0.0\n", &[]) && !of(true, of_work, &[]));
        assert!(of(true, "# b v1.0.0\n", &[]) && of(false, of_work, &[]));
        assert!(!of(false, of_work, &["build", "-mod=vendor"]));
    }

    #[test]
    fn a_comment_that_is_not_text_hides_nothing() {
        let dir = TestDir::new();
        let of = |name: &str, bytes: &[u8]| {
            let folder = dir.path().join("a");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), bytes).unwrap();
            let roots = find(&dir, &[], "a", &[], &[]);
            (roots.is_odd, names(&dir, &roots).contains(&"b".to_string()))
        };
        let go_mod = b"module a // caf\xe9\nreplace b => ../b\n";
        assert_eq!(of("go.mod", go_mod), (false, true));
        assert_eq!(of("go.mod", b"module a\n"), (false, false));
        assert_eq!(of("go.work", b"// \xe9\nuse ../b\n"), (false, true));
        assert!(of("go.work", b"use ../\xe9\n").0);
    }
}
