//! The C and assembler inputs of a source tree: what a C compiler, pkg-config, SWIG or Go's assembler can read there,
//! and `go` does not hash.
//!
//! `go` hashes the files of a package's own folder that have an extension it knows (`buildActionID` in
//! cmd/go/internal/work/exec.go); an include can lead anywhere. So all files of the tree count here, names and bytes,
//! except kinds that are never included, as long as no C or assembler text names one of their kind.
//!
//! A tree in which nothing is compiled by C, and whose assembler files include only what `go` hashes, has no such
//! inputs, so all such trees are the same. `go` hands files to a C compiler only for packages with a Go file that
//! imports "C" or with a SWIG file (`Package.load` in cmd/go/internal/load/pkg.go refuses other C files), whatever
//! else is in the tree.

mod assembler;
mod memory;
mod modules;
mod roots;
mod scan;
pub mod settings;
mod text;
mod walk;

pub use assembler::Assembler;
use assembler::Assemblers;

use crate::client::parts::Part;
use crate::error::{Error, Result};
use crate::sha256::Sha256;
use crate::sync::lock;
use memory::{Memory, Moment};
use modules::Modules;
use roots::Roots;
use scan::{Budget, Scan};
use serde::{Deserialize, Serialize};
use settings::Settings;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// A larger file is not looked at as a text, and C that may read it shares nothing, in bytes.
const TEXT_MAX: u64 = 64 << 20;

/// How many inputs, or folders of them, are said.
const SAID_MAX: usize = 40;

/// What C and assembler can read in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// A hash over the names and bytes of all inputs. It is the same for all trees without any.
    pub digest: [u8; 32],
    /// There is a package that a C compiler or SWIG has a part in, in any build of this tree. The assembler's files
    /// alone are no such part.
    pub has_c: bool,
    /// The inputs, by name, with a hash each. Of many, the folders, with a slash at their end.
    pub said: Vec<Part>,
}

/// What was found in a tree, to be remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    assemblers: Assemblers,
    /// Once they were asked for.
    inputs: Option<Inputs>,
}

/// A source tree, as far as C and assembler can read it.
#[derive(Debug)]
pub struct SourceTree {
    assemblers: Assemblers,
    /// What is not in the tree.
    modules: Modules,
    /// Flags replace sources or programs.
    is_replaced: bool,
    inputs: OnceLock<Result<Inputs>>,
    /// Until the inputs are found.
    scan: Mutex<Option<Scan>>,
}

impl SourceTree {
    /// Looks at the tree of the `go` command that runs in `cwd` with these arguments, before it compiles anything.
    /// `led_to` is what flags name of this build, and `env` has its variables. Where the tree is not remembered, this lists
    /// the files and reads those of Go's assembler.
    ///
    /// # Errors
    /// When there are more files than can be counted. Nothing that C or an assembler had a part in may be shared then.
    pub fn scan(
        cwd: &Path,
        args: &[OsString],
        led_to: BTreeSet<PathBuf>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        Self::scan_since(Memory::now, cwd, args, led_to, env)
    }

    /// Looks at the tree ahead of the `go` commands of a phase, which will remember it. All in it may have changed a moment
    /// ago.
    pub fn remember(cwd: &Path, led_to: BTreeSet<PathBuf>, env: impl Fn(&str) -> Option<OsString>) {
        // What cannot be looked at is for the commands to report.
        if let Ok(tree) = Self::scan_since(Memory::later, cwd, &[], led_to, env) {
            let compiles_c = lock(&tree.scan).as_ref().is_some_and(|scan| scan.cgo);
            if compiles_c {
                let _ = tree.inputs();
            }
        }
    }

    fn scan_since(
        since: impl Fn(&Memory) -> Result<Moment>,
        cwd: &Path,
        args: &[OsString],
        led_to: BTreeSet<PathBuf>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let settings = Settings::new(args, env);
        let roots = Roots::find(cwd, &settings);
        if roots.is_odd {
            return Err(Error::input(
                "go.mod or go.work cannot be read, or has a word with escapes between quotes or that is not UTF-8",
            ));
        }
        let memory = memory(&settings);
        let budget = match &memory {
            Some(_) => Budget::of_build(),
            None => Budget::of_shell(roots.has_module),
        };
        let modules = Modules::find(&roots, &settings);
        let mut scan = Scan::new(&settings, budget, roots, led_to, memory);
        let found = match scan.remembered() {
            Some(found) => found,
            None => scan.assemblers(since)?,
        };
        let inputs = OnceLock::new();
        if let Some(known) = found.inputs {
            let _ = inputs.set(Ok(known));
        }
        Ok(Self {
            assemblers: found.assemblers,
            modules,
            // The one replaces sources, the other one any program.
            is_replaced: settings.flag("overlay").is_some() || settings.flag("toolexec").is_some(),
            inputs,
            scan: Mutex::new(Some(scan)),
        })
    }

    /// What C and assembler can read, which is looked for when it is first asked for.
    ///
    /// # Errors
    /// When there is more than can be counted, or what cannot be known. Nothing that C or an assembler had a part in may be
    /// shared then.
    pub fn inputs(&self) -> std::result::Result<&Inputs, &Error> {
        let find = || {
            // Taken once, by whoever comes first.
            let scan = lock(&self.scan).take();
            let scan = scan.ok_or_else(|| Error::input("the source was looked at already"))?;
            scan.inputs(&self.assemblers)
        };
        self.inputs.get_or_init(find).as_ref()
    }

    /// A hash over the modules of the module cache that C or the assembler can read more of than `go` hashes, if there are any.
    ///
    /// # Errors
    /// When nobody knows which modules there are. Nothing that C or an assembler had a part in may be shared then.
    pub fn modules(&self) -> Result<Option<[u8; 32]>> {
        match self.modules.is_unknown {
            true => Err(Error::input("there is no go.sum yet")),
            false => Ok(self.modules.digest),
        }
    }

    /// What Go's assembler reads in all packages that may be compiled.
    pub fn assembler(&self) -> Assembler {
        let worst = self.assemblers.worst;
        match self.is_replaced || self.modules.may_be_open {
            true => worst.max(Assembler::Open),
            false => worst,
        }
    }

    /// Whether Go's assembler reads nothing that `go` does not hash in one package, by its path if that is known, which may be
    /// of Go's standard library.
    pub fn is_closed(&self, package: Option<&str>, is_standard: bool) -> bool {
        if self.is_replaced || self.assemblers.worst.hides_headers() {
            return false;
        }
        let may_be_open = || match package {
            Some(package) => self.assemblers.may_be_open(package, is_standard),
            None => !self.assemblers.worst.is_closed(),
        };
        (is_standard || !self.modules.may_be_open) && !may_be_open()
    }
}

/// That of a build of Nix. A shell has no end, and no directory of its own.
fn memory<F: Fn(&str) -> Option<OsString>>(settings: &Settings<F>) -> Option<Memory> {
    match settings.get("IN_NIX_SHELL") {
        Some(_) => None,
        None => Memory::of(
            &settings
                .path("NIX_BUILD_TOP")
                .filter(|top| top.is_absolute())?,
        ),
    }
}

fn add_name(hash: &mut Sha256, root: usize, name: &OsStr) {
    let name = name.as_bytes();
    hash.update((root as u64).to_le_bytes());
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
}

#[cfg(test)]
mod tests {
    use super::scan::{FILES_WITHOUT_MODULE_MAX, nothing};
    use super::*;
    use crate::test_dir::TestDir;
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    impl SourceTree {
        fn digest(&self) -> [u8; 32] {
            self.inputs().unwrap().digest
        }

        fn has_c(&self) -> bool {
            self.inputs().unwrap().has_c
        }
    }

    const CGO: &str = "package a\n\n// #include \"v.h\"\nimport \"C\"\n";

    /// A module in a directory of its own.
    struct Tree {
        dir: TestDir,
        vars: Vec<(&'static str, String)>,
        /// What flags name.
        led_to: Vec<&'static str>,
    }

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Tree {
                dir: TestDir::new(),
                vars: Vec::new(),
                led_to: Vec::new(),
            };
            tree.write("source/go.mod", "module example.com/a\n\ngo 1.24\n");
            // Modules of others come from here.
            tree.write("source/vendor/modules.txt", "");
            for (name, text) in files {
                tree.write(&format!("source/{name}"), text);
            }
            tree
        }

        fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
            self.vars.push((name, value.into()));
            self
        }

        /// As in a build of Nix, which has a memory.
        fn in_build(self) -> Self {
            let top = self.dir.path().to_str().unwrap().to_owned();
            self.with("NIX_BUILD_TOP", top)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn scan(&self) -> SourceTree {
            self.scan_with(&["go", "build"])
        }

        fn scan_with(&self, args: &[&str]) -> SourceTree {
            let args: Vec<_> = args.iter().map(OsString::from).collect();
            let led_to = self.led_to.iter().map(|name| self.path(name)).collect();
            SourceTree::scan(&self.path("source"), &args, led_to, |name| self.var(name)).unwrap()
        }

        fn var(&self, name: &str) -> Option<OsString> {
            let found = self.vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        }

        /// Whether writing this makes other inputs of it.
        fn counts(&self, name: &str, text: &str) -> bool {
            let before = self.scan().digest();
            self.write(name, text);
            self.scan().digest() != before
        }
    }

    /// The digest of a tree without inputs.
    fn none() -> [u8; 32] {
        nothing().digest
    }

    #[test]
    fn a_tree_without_c_has_no_inputs() {
        let tree = Tree::new(&[
            ("a.go", "package a\n"),
            ("v.h", "x"),
            ("b/x.c", "x"),
            ("README.md", ""),
        ]);
        let found = tree.scan();
        assert_eq!(
            (found.digest(), found.has_c(), found.assembler().is_closed()),
            (none(), false, true)
        );
        assert!(!tree.counts("v.h", "y") && !tree.counts("new.inc", ""));
        assert!(tree.counts("source/c/c.go", CGO));
        assert!(tree.scan().has_c());
    }

    #[test]
    fn whatever_c_can_read_counts() {
        let tree = Tree::new(&[("p/a.go", CGO), ("p/v.h", "1")]);
        for name in [
            "p/v.h",
            "include/v.h",
            "p/v.inc",
            "p/v.inl",
            "p/v.def",
            "lib/libx.a",
            "lib/x.o",
            "lib/libx.so.1",
            "x.pc",
            "p/x.i",
            ".dot/v.h",
            "_x/v.h",
            "testdata/v.h",
            "vendor/x/v.h",
            "vector",
            "x.unheard-of",
            "p/a.c",
            "p/a.s",
        ] {
            let name = format!("source/{name}");
            assert!(tree.counts(&name, "2"), "{name}");
            assert!(tree.counts(&name, "3"), "{name}");
            assert!(!tree.counts(&name, "3"), "{name}");
        }
        for name in [
            "README.md",
            "x.json",
            ".git/HEAD",
            ".git/v.h",
            "logo.png",
            "LICENSE",
            "p/other.go",
        ] {
            assert!(
                !tree.counts(&format!("source/{name}"), "package a\n"),
                "{name}"
            );
        }
        // Which file it was counts too.
        std::fs::rename(tree.path("source/x.pc"), tree.path("source/y.pc")).unwrap();
        let before = tree.scan().digest();
        std::fs::rename(tree.path("source/y.pc"), tree.path("source/z.pc")).unwrap();
        assert_ne!(tree.scan().digest(), before);
    }

    #[test]
    fn without_cgo_no_go_file_has_c() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "1")]).with("CGO_ENABLED", "0");
        let found = tree.scan();
        assert_eq!((found.digest(), found.has_c()), (none(), false));
    }

    #[test]
    fn a_kind_that_a_text_names_counts() {
        for (name, text) in [
            ("p/v.h", "#include \"table.json\"\n"),
            (
                "p/a.go",
                "package a\n\n// #include \"table.json\"\nimport \"C\"\n",
            ),
            (
                "p/a.go",
                "package a\n\n// #cgo CFLAGS: -include ${SRCDIR}/../table.json\nimport \"C\"\n",
            ),
            ("p/x.c", "__asm__(\".incbin \\\"table.json\\\"\");\n"),
            ("p/x.c", "#include TABLE\n"),
        ] {
            let tree = Tree::new(&[("p/a.go", CGO), (name, text)]);
            assert!(tree.counts("source/table.json", "1"), "{text}");
            assert!(tree.counts("source/table.json", "2"), "{text}");
        }
        let tree = Tree::new(&[("a.go", CGO)]).with("CGO_CFLAGS", "-include table.json");
        assert!(tree.counts("source/table.json", "1"));
        // What is named by what is named.
        let tree = Tree::new(&[
            ("a.go", CGO),
            ("x.c", "#include \"one.md\""),
            ("one.md", "#include \"two.txt\""),
        ]);
        assert!(tree.counts("source/two.txt", "1"));
    }

    #[test]
    fn a_program_that_was_built_in_the_tree_does_not_count_until_it_is_named() {
        let tree = Tree::new(&[("a.go", CGO)]);
        tree.write("source/bin/a", "\x7fELF 1");
        assert!(!tree.counts("source/bin/a", "\x7fELF 2"));
        assert!(tree.counts("source/bin/a.so", "\x7fELF 1"));
        tree.write("source/z.c", "asm(\".incbin \\\"bin/a\\\"\");");
        assert!(tree.counts("source/bin/a", "\x7fELF 3"));
    }

    #[test]
    fn files_behind_links_count() {
        let tree = Tree::new(&[("a.go", CGO)]);
        tree.write("outside/v.h", "1");
        tree.write("folder/sub/w.h", "1");
        symlink("../outside/v.h", tree.path("source/v.h")).unwrap();
        symlink("../folder", tree.path("source/link")).unwrap();
        symlink("missing", tree.path("source/dangling.h")).unwrap();
        symlink("..", tree.path("source/link/loop")).unwrap();
        assert!(tree.counts("outside/v.h", "2"));
        assert!(tree.counts("folder/sub/w.h", "2"));
        let before = tree.scan().digest();
        std::fs::remove_file(tree.path("source/dangling.h")).unwrap();
        symlink("elsewhere", tree.path("source/dangling.h")).unwrap();
        assert_ne!(tree.scan().digest(), before);
    }

    #[test]
    fn what_is_replaced_beside_or_named_upward_counts() {
        let tree = Tree::new(&[("go.mod", "module a\nreplace b => ../b\n"), ("a.go", CGO)]);
        assert!(tree.counts("b/v.h", "1"));
        assert!(!tree.counts("beside/v.h", "1"));
        // All that was unpacked belongs to a build.
        let tree = Tree::new(&[("sub/go.mod", "module b\n")]).in_build();
        assert!(!tree.counts("beside/v.h", "1"));
        let tree = Tree::new(&[(
            "p/a.go",
            "package a\n// #cgo CFLAGS: -I${SRCDIR}/../../beside\nimport \"C\"\n",
        )]);
        tree.write("beside/other.h", "");
        assert!(tree.counts("beside/deep/v.h", "1"));
        assert!(!tree.counts("further/v.h", "1"));
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "#include \"../w.h\"\n")]);
        tree.write("w.h", "1");
        assert!(tree.counts("w.h", "2"));
    }

    #[test]
    fn all_of_a_folder_around_the_tree_counts_that_c_is_led_to() {
        let flag = "package a\n// #cgo CFLAGS: -I${SRCDIR}/..\nimport \"C\"\n";
        for (text, header) in [(flag, "1"), (CGO, "#include \"../w.h\"\n")] {
            let tree = Tree::new(&[("a.go", text), ("v.h", header)]);
            let [cache, gopath] =
                ["mod", "go"].map(|name| tree.path(name).to_str().unwrap().to_owned());
            let tree = tree
                .with("GOMODCACHE", cache)
                .with("GOPATH", gopath)
                .in_build();
            tree.write("w.h", "#include \"lib/w.h\"\n");
            assert!(tree.counts("lib/w.h", "1"), "{text}");
            assert!(tree.counts("lib/deep/x.inc", "1"), "{text}");
            for own in ["mod/m@v1/v.h", "go/bin/tool", "go/pkg/mod/v.h", "env-vars"] {
                assert!(!tree.counts(own, "1"), "{own}");
            }
        }
    }

    #[test]
    fn nobody_can_tell_what_c_reads_of_a_whole_machine() {
        let of = |up: &str, home: &str, is_build: bool| {
            let text = format!("package a\n// #cgo CFLAGS: -I${{SRCDIR}}/{up}\nimport \"C\"\n");
            let tree = Tree::new(&[("a.go", &text)]);
            let home = tree.path(home).to_str().unwrap().to_owned();
            let tree = tree.with("HOME", home);
            let tree = if is_build { tree.in_build() } else { tree };
            let found = tree.scan();
            found.inputs().map(|_| ()).map_err(ToString::to_string)
        };
        assert!(of("..", "home", true).is_ok() && of("..", ".", true).is_ok());
        assert!(of("..", "none/of/these", false).is_err() && of("..", ".", false).is_err());
        for up in ["../..", "../../../../../../../.."] {
            let error = of(up, "home", true).unwrap_err();
            assert!(error.contains("C may read anything"), "{error}");
        }
    }

    #[test]
    fn where_a_pc_file_leads_counts() {
        let tree = Tree::new(&[
            (
                "p/a.go",
                "package a\n// #cgo pkg-config: ./x.pc\nimport \"C\"\n",
            ),
            (
                "p/x.pc",
                "prefix=${pcfiledir}/../../lib\nCflags: -I${prefix}/include\n",
            ),
        ]);
        tree.write("lib/include/v.h", "1");
        assert!(tree.counts("lib/include/v.h", "2"));
        tree.write("source/p/x.pc", "Cflags: -I${nowhere}/x\n");
        let error = tree.scan().inputs().unwrap_err().to_string();
        assert!(error.contains("says more"), "{error}");
        tree.write("source/p/a.go", CGO);
        assert!(tree.scan().inputs().is_ok(), "nobody asks pkg-config");
    }

    #[test]
    fn all_of_a_build_counts_that_has_its_own_compiler() {
        let tree = Tree::new(&[
            ("a.go", CGO),
            ("tools/cc", "#!/bin/sh\n"),
            ("flags.txt", ""),
        ]);
        let [cc, gopath] =
            ["source/../sdk/bin/cc", "go"].map(|name| tree.path(name).to_str().unwrap().to_owned());
        let tree = tree.with("CC", cc).with("GOPATH", gopath).in_build();
        for name in ["flags/all", "source/README.md", "sdk/include/v.h"] {
            assert!(!tree.counts(name, "1"), "{name}");
        }
        tree.write("sdk/bin/cc", "#!/bin/sh\n");
        for name in [
            "flags/all",
            "source/flags.txt",
            "sdk/include/v.h",
            "sdk/bin/cc",
            "v",
        ] {
            assert!(tree.counts(name, "2"), "{name}");
        }
        assert!(tree.counts("go/bin/tool", "1"), "it can be started");
        for name in ["env-vars", "go/pkg/mod/v.h"] {
            assert!(!tree.counts(name, "2"), "{name}");
        }
        let before = tree.scan().digest();
        std::fs::remove_file(tree.path("sdk/bin/cc")).unwrap();
        assert_ne!(tree.scan().digest(), before);
    }

    /// A build whose flags lead there.
    fn led_to(name: &'static str) -> Tree {
        let mut tree = Tree::new(&[("a.go", CGO)]).in_build();
        tree.led_to.push(name);
        tree
    }

    #[test]
    fn what_headers_name_that_flags_lead_to_counts() {
        for start in ["lib/include", "lib/include/v.h", "source/../lib/include"] {
            let tree = led_to(start);
            tree.write(
                "lib/include/v.h",
                "#include \"../src/v.c\"\n#include \"w.h\"\n",
            );
            tree.write("lib/src/v.c", "1");
            assert!(tree.counts("lib/src/v.c", "2"), "{start}");
            assert!(tree.counts("lib/include/w.h", "2"), "{start}");
            // What other modules have is compiled with them, too.
            std::fs::remove_file(tree.path("source/a.go")).unwrap();
            assert!(tree.counts("lib/include/w.h", "3"), "{start}");
        }
    }

    #[test]
    fn what_a_file_names_by_its_path_counts_if_flags_name_the_file() {
        for (name, text) in [
            ("ld/x.ld", "INPUT(TOP/other/v.a)"),
            ("gen/config", "#include \"TOP/other/v.h\""),
        ] {
            let tree = led_to(name);
            let top = tree
                .path("")
                .to_str()
                .unwrap()
                .trim_end_matches('/')
                .to_owned();
            tree.write(name, &text.replace("TOP", &top));
            for name in ["other/v.a", "other/v.h", "other/w"] {
                tree.write(name, "1");
            }
            assert!(tree.counts("other/w", "2"), "{name}");
        }
        let tree = led_to("lib/include");
        tree.write("lib/include/x.mod", "1");
        assert!(
            tree.counts("lib/include/x.mod", "2"),
            "of a Fortran compiler"
        );
        assert!(!tree.counts("source/go.sum", "example.com/b v1.0.0 h1:y=\n"));
        let file = tree.path("go-env");
        std::fs::write(&file, "CGO_CFLAGS=-I../lib\n").unwrap();
        let tree = tree.with("GOENV", file.to_str().unwrap());
        assert!(tree.scan().inputs().is_err());
    }

    #[test]
    fn where_folders_are_that_flags_lead_to_counts() {
        let flags = "// #cgo CFLAGS: -I${SRCDIR}/../../a -I${SRCDIR}/../../b\nimport \"C\"\n";
        let text = format!("package a\n{flags}");
        let of = |folder: &str| {
            let tree = Tree::new(&[("p/a.go", &text)]);
            tree.write(&format!("{folder}/v.h"), "1");
            tree.scan().digest()
        };
        assert_ne!(of("a"), of("b"));
    }

    #[test]
    fn a_library_counts_wherever_its_pc_file_is() {
        for (folder, up) in [("pc/x", "../.."), ("source/pc", "../.."), ("source", "..")] {
            let tree = led_to(folder);
            let prefix = format!("prefix=${{pcfiledir}}/{up}/staged");
            let name = format!("{folder}/x.pc");
            tree.write(&name, &(prefix + "\nCflags: \"-I${prefix}/include\" -DX\n"));
            tree.write("staged/include/v.h", "#include <staged/deep/w.h>");
            assert!(tree.counts("staged/include/deep/x.h", "1"), "{folder}");
            std::fs::remove_file(tree.path(&name)).unwrap();
            assert!(!tree.counts("staged/include/deep/x.h", "2"), "{folder}");
        }
        let tree = led_to("deep/deeper/pc");
        tree.write(
            "stage/lib/pkgconfig/x.pc",
            "prefix=${pcfiledir}/../..\nLibs: -L${prefix}/lib\n",
        );
        std::fs::create_dir_all(tree.path("deep/deeper/pc")).unwrap();
        let link = tree.path("deep/deeper/pc/x.pc");
        symlink("../../../stage/lib/pkgconfig/x.pc", link).unwrap();
        assert!(tree.counts("stage/include/v.h", "1"), "by a link");
        let tree = led_to("prefix/lib/pkgconfig");
        tree.write(
            "prefix/lib/pkgconfig/x.pc",
            "prefix=/nowhere\nLibs: -L${prefix}/lib\n",
        );
        assert!(
            tree.counts("prefix/lib/libx.a", "1"),
            "it can name it by its own place"
        );
        let tree = led_to("lib/pkgconfig");
        tree.write(
            "lib/pkgconfig/x.pc",
            "prefix=${pcfiledir}/../..\nLibs: -L${prefix}/lib\n",
        );
        assert!(tree.counts("lib/libx.a", "1") && tree.counts("include/x.h", "1"));
        assert!(!tree.counts("env-vars", "1"));
    }

    #[test]
    fn what_is_named_by_an_absolute_path_counts_if_the_build_has_made_it() {
        let tree = Tree::new(&[("go.mod", "module a\n")]).in_build();
        let top = tree.path("").display().to_string();
        let text = format!(
            "package a\n// #include \"{top}/made/v.h\"\n// #cgo LDFLAGS: -L{top}/lib\nimport \"C\"\n"
        );
        tree.write("source/a.go", &text);
        tree.write("made/v.h", "1");
        tree.write("lib/deep/x.a", "1");
        assert!(tree.counts("made/v.h", "2"));
        assert!(tree.counts("lib/deep/x.a", "2"));
        assert!(!tree.counts("further/v.h", "1"));
        let no_build = Tree::new(&[("go.mod", "module a\n"), ("a.go", &text)]);
        let before = no_build.scan().digest();
        tree.write("made/v.h", "3");
        assert_eq!(no_build.scan().digest(), before);
    }

    #[test]
    fn nothing_is_said_of_a_tree_whose_times_c_compiles_in() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "char *time = __TIMESTAMP__;")]);
        let error = tree.scan().inputs().unwrap_err().to_string();
        assert!(error.contains("__TIMESTAMP__"), "{error}");
    }

    #[test]
    fn special_files_are_known_by_name() {
        let tree = Tree::new(&[("a.go", CGO)]);
        let before = tree.scan().digest();
        let path = tree.path("source/x.h");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_ne!(tree.scan().digest(), before);
    }

    const CLOSED: &str = "#include \"textflag.h\"\n#include \"v.h\"\n";

    #[test]
    fn assembler_files_that_include_only_what_go_hashes_have_no_inputs() {
        let files = [
            ("p/a.s", CLOSED),
            ("p/v.h", "#define V 1\n"),
            ("p/a.go", "package a\n"),
        ];
        for cgo in ["0", "1"] {
            let tree = Tree::new(&files).with("CGO_ENABLED", cgo);
            let found = tree.scan();
            assert_eq!(
                (found.digest(), found.has_c(), found.assembler().is_closed()),
                (none(), false, true)
            );
            // Of its folder `go` hashes that.
            assert!(!tree.counts("source/p/v.h", "#define V 2\n"));
            tree.write("source/p/v.h", "#include \"../w.h\"\n");
            let found = tree.scan();
            assert!(
                !found.assembler().is_closed()
                    && !found.has_c()
                    && !found.assembler().hides_headers()
            );
            assert!(tree.counts("source/w.h", "#define V 2\n"));
            assert!(tree.counts("source/w.h", "#define V 3\n"));
        }
        let tree = Tree::new(&files);
        tree.write("source/p/textflag.h", "//go:build ignore\n");
        assert!(tree.scan().assembler().hides_headers());
    }

    #[test]
    fn assembler_files_of_other_modules_are_looked_at_or_distrusted() {
        let tree = Tree::new(&[
            ("a.go", "package a\n"),
            (
                "go.sum",
                "example.com/B v1.0.0 h1:x=\nexample.com/c v1.0.0/go.mod h1:x=\n",
            ),
        ]);
        let modules = tree.path("mod").to_str().unwrap().to_owned();
        let tree = tree.with("GOMODCACHE", modules);
        assert!(tree.scan().assembler().is_closed(), "vendored");
        std::fs::remove_file(tree.path("source/vendor/modules.txt")).unwrap();
        assert!(!tree.scan().assembler().is_closed(), "to be fetched");
        tree.write("mod/example.com/!b@v1.0.0/a.s", CLOSED);
        tree.write("mod/example.com/!b@v1.0.0/v.h", "");
        assert!(tree.scan().assembler().is_closed(), "closed");
        assert!(
            !tree
                .scan_with(&["go", "install", "example.com/d@latest"])
                .assembler()
                .is_closed()
        );
        assert!(
            !tree
                .scan_with(&["go", "build", "-overlay=x.json"])
                .assembler()
                .is_closed()
        );
        assert!(
            !tree
                .scan_with(&["go", "build", "-toolexec", "x"])
                .assembler()
                .is_closed()
        );
        tree.write(
            "mod/example.com/!b@v1.0.0/deep/b.s",
            "#include \"../v.h\"\n",
        );
        assert!(!tree.scan().assembler().is_closed(), "open");
        assert_eq!(tree.scan().digest(), none());
    }

    #[test]
    fn two_modules_of_one_name_in_a_tree_are_two() {
        let files = [
            ("one/go.mod", "module b\n"),
            ("two/go.mod", "module b\n"),
            ("p/a.s", "#include \"../v.inc\"\n"),
            ("v.inc", "1"),
            ("a.go", CGO),
        ];
        for cgo in ["0", "1"] {
            let tree = Tree::new(&files).with("CGO_ENABLED", cgo).in_build();
            let digest = |folder: &str| {
                let found = SourceTree::scan(&tree.path(folder), &[], BTreeSet::new(), |name| {
                    tree.var(name)
                });
                let found = found.unwrap();
                found.inputs().unwrap().digest
            };
            assert_ne!(digest("source/one"), digest("source/two"), "{cgo}");
            assert_eq!(digest("source/one"), digest("source/one"), "{cgo}");
        }
    }

    #[test]
    fn packages_in_folders_that_are_left_out_elsewhere_count() {
        for folder in ["CVS", ".jj/q", "result-p", "go-build1"] {
            let tree = Tree::new(&[("a.go", "package a\n")]).in_build();
            tree.write(&format!("source/{folder}/a.go"), CGO);
            tree.write(&format!("source/{folder}/v.h"), "1");
            assert!(
                tree.counts(&format!("source/{folder}/v.h"), "2"),
                "{folder}"
            );
        }
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let files = [
            ("x/y.s", "#include \"/dev/zero\"\n"),
            ("a.go", "package a\n"),
        ];
        let tree = Tree::new(&files).with("CGO_ENABLED", "0");
        let fifo = tree.path("source/x/x.s");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        assert!(!tree.scan().assembler().is_closed());
    }

    #[test]
    fn an_include_that_only_a_links_path_leads_to_is_beyond_reach() {
        let tree = Tree::new(&[("p/a.s", "#include \"../../w.inc\"\n")]);
        let tree = tree.with("CGO_ENABLED", "0");
        assert!(tree.scan().inputs().is_ok());
        symlink("p", tree.path("source/linked")).unwrap();
        assert!(tree.scan().inputs().is_err());
    }

    #[test]
    fn modules_that_c_can_read_count_by_what_they_really_are() {
        let files = [
            ("a.go", "package a\n"),
            (
                "go.sum",
                "example.com/b v1.0.0 h1:x=\nexample.com/b v1.0.0/go.mod h1:x=\n",
            ),
        ];
        let tree = Tree::new(&files);
        std::fs::remove_file(tree.path("source/vendor/modules.txt")).unwrap();
        let modules = tree.path("mod").to_str().unwrap().to_owned();
        let tree = tree.with("GOMODCACHE", modules);
        let of = |tree: &Tree| tree.scan().modules().unwrap();
        assert!(of(&tree).is_some(), "to be fetched");
        for name in ["b.go", "README.md"] {
            tree.write(&format!("mod/example.com/b@v1.0.0/{name}"), "package b\n");
        }
        assert_eq!(of(&tree), None, "Go alone");
        tree.write("source/go.mod", "module a\nreplace c => ../c\n");
        assert_eq!(of(&tree), None, "in the tree");
        let mut seen = vec![None];
        for text in [
            "replace (\n c v1 => d v1 // one\n)\n",
            "replace c v1 => d v2\n",
        ] {
            tree.write("source/go.mod", &format!("module a\n{text}"));
            assert!(!seen.contains(&of(&tree)), "{text}");
            seen.push(of(&tree));
        }
        tree.write("mod/example.com/b@v1.0.0/include/b.h", "");
        assert!(!seen.contains(&of(&tree)), "a header");
        seen.push(of(&tree));
        tree.write("source/go.sum", "example.com/b v1.0.0 h1:y=\n");
        assert!(!seen.contains(&of(&tree)), "another one of that version");
        tree.write("source/vendor/modules.txt", "");
        tree.write(
            "source/go.mod",
            "module a\n\ngo 1.24\nreplace c v1 => d v2\n",
        );
        assert_eq!(of(&tree), None, "vendored");
        // A go.sum that is yet to be written.
        std::fs::remove_file(tree.path("source/go.sum")).unwrap();
        std::fs::remove_file(tree.path("source/vendor/modules.txt")).unwrap();
        tree.write("source/go.mod", "module a\n\ngo 1.24\n");
        assert_eq!(of(&tree), None, "no other module");
        tree.write("source/go.mod", "module a\n\ngo 1.24\nrequire b v1.0.0\n");
        assert!(tree.scan().modules().is_err() && !tree.scan().assembler().is_closed());
    }

    #[test]
    fn only_a_text_that_a_compiler_can_come_to_names_files() {
        let tree = Tree::new(&[
            ("a.go", CGO),
            ("Makefile.common", "# include Makefile.common\n"),
        ]);
        assert!(!tree.counts("source/README.md", "1") && !tree.counts("source/README.md", "2"));
        // It counts by its bytes all the same.
        assert!(tree.counts("source/Makefile.common", "# include x\n"));
        tree.write("source/v.h", "#include \"v.common\"\n");
        assert!(
            tree.counts("source/README.md", "3"),
            "of a kind that is named"
        );
        for (name, text) in [("cc", "#!/bin/sh\n# include x\n"), ("b.s", "#include X\n")] {
            let tree = Tree::new(&[("a.go", CGO), ("README.md", "1")]);
            assert!(tree.counts(&format!("source/{name}"), text));
            assert!(tree.counts("source/README.md", "2"), "{name}");
        }
    }

    /// Puts something else in the place of what is remembered, to see by it whether that is used.
    fn forge(tree: &Tree) {
        let memory = tree.path(".nix-gocacheprog-source");
        for entry in std::fs::read_dir(memory).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let digest = b"\"digest\":[";
            let at = memchr::memmem::rfind(&bytes, digest).expect("inputs are remembered");
            let at = at + digest.len();
            let end = at + bytes[at..].iter().position(|byte| *byte == b']').unwrap();
            let forged = [9; 32].map(|byte: u8| byte.to_string()).join(",");
            bytes.splice(at..end, forged.into_bytes());
            let end = bytes.len() - 32;
            let hash = Sha256::digest(&bytes[..end]);
            bytes[end..].copy_from_slice(&hash);
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// As a command does whose tree was there for some time before.
    fn scan_later(tree: &Tree) -> SourceTree {
        SourceTree::remember(&tree.path("source"), BTreeSet::new(), |name| tree.var(name));
        tree.scan()
    }

    #[test]
    fn a_tree_is_remembered_with_all_that_its_inputs_depend_on() {
        let computed = "#include X\n";
        for (text, name, is_forgotten) in [
            ("1", "source/v.h", true),
            ("1", "source/a.go", true),
            ("1", "source/new.h", true),
            ("1", "source/deep/new.md", true),
            ("1", "source/README.md", false),
            (computed, "source/README.md", true),
            ("#include \"../w.h\"\n", "w.h", true),
            ("#include \"../later.h\"\n", "later.h", true),
        ] {
            let files = [
                ("a.go", CGO),
                ("v.h", text),
                ("README.md", ""),
                ("deep/b.h", ""),
            ];
            let tree = Tree::new(&files).in_build();
            tree.write("w.h", "1");
            let first = tree.scan().digest();
            assert_eq!(scan_later(&tree).digest(), first);
            forge(&tree);
            assert_eq!(tree.scan().digest(), [9; 32]);
            tree.write(name, if name == "source/a.go" { CGO } else { text });
            assert_eq!(
                tree.scan().digest() != [9; 32],
                is_forgotten,
                "{text} {name}"
            );
        }
    }

    #[test]
    fn what_was_looked_at_before_go_made_its_cache_is_remembered() {
        let tree = Tree::new(&[("a.go", CGO)]).in_build();
        let cache = tree.path("go-cache").to_str().unwrap().to_owned();
        let tree = tree.with("GOCACHE", cache);
        scan_later(&tree);
        forge(&tree);
        assert_eq!(tree.scan().digest(), [9; 32]);
        std::fs::create_dir(tree.path("go-cache")).unwrap();
        assert_eq!(tree.scan().digest(), [9; 32]);
    }

    #[test]
    fn what_changes_while_it_is_looked_at_is_not_remembered() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "1")]).in_build();
        assert_eq!(scan_later(&tree).digest(), tree.scan().digest());
        forge(&tree);
        // Another answer takes the place of the forged one only if it is a good one.
        tree.write("source/v.h", "1");
        let first = tree.scan().digest();
        assert_ne!(first, [9; 32]);
        assert_eq!(scan_later(&tree).digest(), first);
        forge(&tree);
        assert_eq!(tree.scan().digest(), [9; 32]);
    }

    #[test]
    fn without_c_it_is_remembered_what_assembler_files_include() {
        let files = [
            ("p/a.s", "#include \"../w.h\"\n#include \"v.h\"\n"),
            ("p/v.h", ""),
            ("w.h", "#include \"x.inc\"\n"),
            ("p/x.inc", "1"),
            ("other.h", ""),
            ("other.inc", ""),
        ];
        for (name, counts) in [
            ("w.h", true),
            ("p/x.inc", true),
            ("p/v.h", false),
            ("other.h", false),
            ("other.inc", false),
            ("new.inc", false),
            ("x.inc", false),
        ] {
            let tree = Tree::new(&files).with("CGO_ENABLED", "0").in_build();
            let first = scan_later(&tree);
            assert!(!first.assembler().is_closed());
            let said = &first.inputs().unwrap().said;
            let said: Vec<_> = said.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(said, ["w.h", "p/x.inc"]);
            let name = format!("source/{name}");
            let include = if name.ends_with("w.h") {
                "#include \"x.inc\"\n//"
            } else {
                "//"
            };
            assert_eq!(tree.counts(&name, include), counts, "{name}");
            assert!(!tree.counts(&name, include), "{name}");
        }
        // What flags add can include anything.
        let tree = Tree::new(&files).with("CGO_ENABLED", "0");
        let digest = |tree: &Tree| tree.scan_with(&["go", "build", "-asmflags=-I/x"]).digest();
        let before = digest(&tree);
        tree.write("source/other.inc", "2");
        assert_ne!(digest(&tree), before);
        // By a name that stands for `#`, too.
        let tree = Tree::new(&[("a.s", "INC include \"v.inc\"\n"), ("v.inc", "1")]);
        let tree = tree.with("CGO_ENABLED", "0");
        assert_eq!(tree.scan().digest(), none());
        let before = digest(&tree);
        tree.write("source/v.inc", "2");
        assert_ne!(digest(&tree), before);
    }

    #[test]
    fn assembler_of_one_package_says_nothing_of_others() {
        let open = "#include \"../v.h\"\n";
        let tree = Tree::new(&[
            ("v.h", ""),
            ("asm/x25519/a.s", open),
            ("vendor/example.com/b/c/a.s", "RET\n"),
        ]);
        let found = tree.scan();
        let is_closed = |package| found.is_closed(Some(package), false);
        assert!(!found.assembler().is_closed());
        assert!(is_closed("example.com/b/c") && is_closed("runtime"));
        for package in [
            "example.com/a/asm/x25519",
            "x25519",
            "main",
            "command-line-arguments",
            "a%2eb",
        ] {
            assert!(!is_closed(package), "{package}");
        }
        assert!(!found.is_closed(None, false) && found.is_closed(Some("runtime"), true));
        // Of a main module that is named like it.
        assert!(!found.is_closed(Some("x25519"), true));
        for (name, text, package, is_closed) in [
            ("a.s", open, "example.com/a", false),
            ("a.s", open, "example.com/b", false),
            ("deep/go.mod", "module x\n", "example.com/b", true),
            ("deep/a.s", open, "example.com/b", false),
            ("textflag.h", "//go:build ignore\n", "example.com/b", true),
        ] {
            let tree = Tree::new(&[(name, text)]);
            if name == "deep/a.s" {
                tree.write("source/deep/go.mod", "module x\n");
            }
            assert_eq!(
                tree.scan().is_closed(Some(package), false),
                is_closed,
                "{name} {package}"
            );
        }
        for (name, target, package, is_closed) in [
            ("linked", "source/asm/x25519", "example.com/a/linked", false),
            ("linked", "source/asm/x25519", "example.com/a/other", true),
            ("linked", "source/asm", "example.com/a/linked", true),
        ] {
            let tree = Tree::new(&[("v.h", ""), ("asm/x25519/a.s", open)]);
            symlink(tree.path(target), tree.path("source").join(name)).unwrap();
            assert_eq!(
                tree.scan().is_closed(Some(package), false),
                is_closed,
                "{target} {package}"
            );
        }
        for flag in ["-overlay=x.json", "-toolexec=x"] {
            let tree = Tree::new(&[("a.go", "package a\n")]);
            assert!(
                !tree
                    .scan_with(&["go", "build", flag])
                    .is_closed(Some("runtime"), true),
                "{flag}"
            );
        }
    }

    /// Makes a file's times old, as in the store: all but the one that nobody can set.
    fn age(path: &Path) {
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1))
            .unwrap();
    }

    #[test]
    fn equal_size_and_time_with_other_bytes_is_noticed() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "#define V 1")]).in_build();
        age(&tree.path("source/v.h"));
        let before = tree.scan().digest();
        tree.write("source/v.h", "#define V 2");
        age(&tree.path("source/v.h"));
        assert_ne!(tree.scan().digest(), before);
    }

    #[test]
    fn what_go_itself_writes_does_not_count() {
        let tree = Tree::new(&[("a.go", CGO)]);
        let [cache, tmp] =
            ["source/cache", "source/tmp"].map(|name| tree.path(name).to_str().unwrap().to_owned());
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::create_dir_all(&tmp).unwrap();
        let tree = tree.with("GOCACHE", cache).with("TMPDIR", tmp);
        assert!(!tree.counts("source/cache/00/x-d", "1"));
        assert!(!tree.counts("source/tmp/go-build1/b001/_cgo_export.h", "1"));
        assert!(tree.counts("source/tmp/other.h", "1"));
    }

    #[test]
    fn above_its_budget_a_file_counts_by_its_times() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "#define V 1")]);
        let digest = |bytes| {
            let settings = Settings::new(&[], |_| None);
            let budget = Budget {
                bytes,
                ..Budget::of_shell(true)
            };
            let roots = Roots::find(&tree.path("source"), &settings);
            let mut scan = Scan::new(&settings, budget, roots, BTreeSet::new(), None);
            let found = scan.assemblers(Memory::now).unwrap();
            scan.inputs(&found.assemblers).unwrap().digest
        };
        let (read, looked_at) = (digest(1 << 20), digest(0));
        assert_ne!(read, looked_at);
        assert_eq!(looked_at, digest(0));
        std::fs::remove_file(tree.path("source/v.h")).unwrap();
        tree.write("source/v.h", "#define V 1");
        assert_eq!(read, digest(1 << 20));
        assert_ne!(looked_at, digest(0));
    }

    #[test]
    fn where_there_is_no_module_few_files_are_looked_for() {
        let dir = crate::test_dir::TestDir::new();
        std::fs::write(dir.path().join("a.go"), "package main").unwrap();
        let scan = || SourceTree::scan(dir.path(), &[], BTreeSet::new(), |_| None);
        assert!(scan().is_ok());
        for n in 0..=FILES_WITHOUT_MODULE_MAX {
            std::fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        assert!(scan().is_err());
        std::fs::write(dir.path().join("go.mod"), "module a").unwrap();
        assert!(scan().is_ok());
    }
}
