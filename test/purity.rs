//! Archives as real `go` makes them, and whose work the client takes them for.

use crate::go::{Go, run};
use crate::support::{TempDir, text};
use nix_gocacheprog::client::purity::{Classifier, Kind, subkey};
use nix_gocacheprog::id::ActionId;
use std::fs;
use std::path::Path;
use std::process::Command;

const ASSEMBLER: &str = "#include \"textflag.h\"\n\nTEXT ·One(SB), NOSPLIT, $0-8\n\tRET\n";

/// Packages, by what their archives are. Those with C in them use as little of it as there can be.
const FILES: [(&str, &str); 15] = [
    ("go.mod", "module example.com/kinds\n\ngo 1.21\n"),
    ("pure/a.go", "package pure\n\nfunc One() int { return 1 }\n"),
    (
        "pure/a_test.go",
        "package pure\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) { One() }\n",
    ),
    (
        "embed/a.go",
        "package embed\n\nimport _ \"embed\"\n\n//go:embed a.txt\nvar Text string\n",
    ),
    ("embed/a.txt", "text\n"),
    ("command/a.go", "package main\n\nfunc main() {}\n"),
    (
        "asm/a.go",
        "package asm\n\nfunc One() int\n\nfunc Two() int { return 2 }\n",
    ),
    ("asm/a_amd64.s", ASSEMBLER),
    ("asm/a_arm64.s", ASSEMBLER),
    (
        "asm/a_long_name_of_a_file_amd64.s",
        "#include \"go_asm.h\"\n",
    ),
    (
        "constants/a.go",
        "package constants\n\n// #define ONE 1\nimport \"C\"\n\nconst One = C.ONE\n",
    ),
    (
        "types/a.go",
        "package types\n\n// typedef int one;\nimport \"C\"\n\ntype One C.one\n",
    ),
    ("nothing/a.go", "package nothing\n\nimport \"C\"\n"),
    (
        "function/a.go",
        "package function\n\n// static int one(void) { return 1; }\nimport \"C\"\n\nvar One = int(C.one())\n",
    ),
    ("object/a.go", "package object\n"),
];

struct Packages {
    go: Go,
    dir: TempDir,
}

impl Packages {
    fn new(release: &str) -> Self {
        let (go, dir) = (Go::pinned(release), TempDir::new());
        for (name, content) in FILES {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        // An object of the assembler's of the machine, which `go` takes as it is.
        let source = dir.path().join("object.c");
        fs::write(&source, "int one;\n").unwrap();
        let object = dir.path().join("object/object.syso");
        run(Command::new("cc")
            .arg("-c")
            .arg(&source)
            .arg("-o")
            .arg(object));
        fs::remove_file(source).unwrap();
        Packages { go, dir }
    }

    fn go(&self, args: &[&str]) -> Command {
        let release = self.go.goroot.file_name().unwrap();
        let cache = self.go.goroot.parent().unwrap().with_file_name("go-build");
        let mut command = Command::new(self.go.goroot.join("bin/go"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.dir.path().join("home"))
            .env("GOCACHE", cache.join(release))
            .env("GOPATH", self.dir.path().join("gopath"))
            .env("GOENV", "off")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", "1");
        command
    }

    /// The kind of the archive of each package that is meant, with these flags.
    fn kinds(&self, flags: &[&str], packages: &[&str]) -> Vec<(String, Kind)> {
        let format = "-f={{.ImportPath}} {{.Export}}";
        let args = [&["list", "-export", format], flags, packages].concat();
        let output = run(&mut self.go(&args));
        let lines = text(&output.stdout).lines();
        let archives = lines.filter_map(|line| line.rsplit_once(' '));
        archives
            .filter(|(_, archive)| !archive.is_empty())
            .map(|(package, archive)| {
                let name = package
                    .strip_prefix("example.com/kinds/")
                    .unwrap_or(package);
                (name.to_owned(), kind(Path::new(archive)))
            })
            .collect()
    }
}

fn kind(archive: &Path) -> Kind {
    let mut classifier = Classifier::new();
    for piece in fs::read(archive).unwrap().chunks(1000) {
        classifier.push(piece);
    }
    classifier.finish()
}

fn archives_are_known_by_who_wrote_them(release: &str) {
    let packages = Packages::new(release);
    let flags: [&[&str]; 5] = [
        &[],
        &["-trimpath"],
        &["-race"],
        &["-cover"],
        &["-buildmode=pie"],
    ];
    for flags in flags {
        for (package, kind) in packages.kinds(flags, &["./..."]) {
            let expected = match package.as_str() {
                "pure" | "embed" | "command" => Kind::PureArchive,
                "asm" => Kind::AssemblerArchive,
                _ => Kind::Archive,
            };
            assert_eq!(kind, expected, "{package} with {flags:?}");
        }
    }
    // With its tests a package is compiled once more, and its own `main`.
    for (package, kind) in packages.kinds(&["-test"], &["./pure"]) {
        assert_eq!(kind, Kind::PureArchive, "{package}");
    }
}

/// A package of the standard library with C in it has an import of "C" or an object of its own.
fn the_standard_librarys_archives_are_known(release: &str) {
    let packages = Packages::new(release);
    let format =
        "-f={{.ImportPath}} {{.Export}} {{len .CgoFiles}}{{len .SysoFiles}} {{len .SFiles}}";
    let output = run(&mut packages.go(&["list", "-export", format, "std"]));
    let mut seen = [0; 3];
    for line in text(&output.stdout).lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [package, archive, c, assembler] = words[..] else {
            panic!("{line}");
        };
        if archive.is_empty() {
            continue;
        }
        let (nth, expected) = match (c, assembler) {
            ("00", "0") => (0, Kind::PureArchive),
            ("00", _) => (1, Kind::AssemblerArchive),
            _ => (2, Kind::Archive),
        };
        seen[nth] += 1;
        assert_eq!(kind(Path::new(archive)), expected, "{package}");
    }
    assert!(seen[0] > 100 && seen[1] > 10 && seen[2] > 3, "{seen:?}");
}

#[test]
fn archives_of_the_oldest_release_are_known_by_who_wrote_them() {
    archives_are_known_by_who_wrote_them("1.21");
    the_standard_librarys_archives_are_known("1.21");
}

#[test]
fn archives_of_the_newest_release_are_known_by_who_wrote_them() {
    archives_are_known_by_who_wrote_them("1.27");
    the_standard_librarys_archives_are_known("1.27");
}

#[test]
fn a_subkey_is_the_one_that_go_computes() {
    let packages = Packages::new("1.27");
    let mut command = packages.go(&["build", "./pure"]);
    let output = run(command.env("GODEBUG", "gocachehash=1"));
    let mut seen = 0;
    for line in text(&output.stderr).lines() {
        let words: Vec<_> = line.split(' ').collect();
        if let ["HASH", "subkey", parent, what, "=", key] = words[..] {
            let what = what.trim_matches('"');
            assert_eq!(subkey(&action(parent), what), action(key), "{line}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

fn action(hex: &str) -> ActionId {
    ActionId(std::array::from_fn(|nth| {
        u8::from_str_radix(&hex[2 * nth..2 * nth + 2], 16).unwrap()
    }))
}
