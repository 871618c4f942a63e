//! `why`, in staged cases: what differs is known, and has to be said.

use crate::client::{Client, by_go};
use crate::go::{Go, run};
use crate::see::{self, ended, wait_for_end};
use crate::support::{Daemon, TempDir, binary, text};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Asks about the last build of a name, or the one of an ID.
fn why(daemon: &Daemon, what: &str) -> String {
    let mut command = ask(daemon, what);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stdout).to_string();
    // The last of several.
    said.rsplit("\n\n").next().unwrap().into()
}

fn ask(daemon: &Daemon, what: &str) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["why", what, "--runtime-dir"])
        .arg(daemon.runtime_dir());
    command
}

/// A build of the name `hello-1.0` that asks for one output, and puts it if it is not there.
fn build(daemon: &Daemon, vars: &[(&str, &str)], user: Option<u32>) {
    let top = TempDir::new();
    let mut command = by_go("build");
    command
        .args(["client", "--runtime-dir"])
        .arg(daemon.runtime_dir())
        .env_clear()
        .env("NIX_BUILD_TOP", top.path())
        .env("name", "hello-1.0")
        .envs(vars.iter().copied());
    if let Some(user) = user {
        command.uid(user).gid(user);
        std::os::unix::fs::chown(top.path(), Some(user), Some(user)).unwrap();
    }
    let mut client = Client::spawn(command);
    if client.get(1, 7)["Miss"] == true {
        client.put(2, 7, b"an output");
    }
    client.close();
    wait_for_end(daemon);
}

const OPENSSL: &str =
    "-isystem /nix/store/00000000000000000000000000000000-openssl-3.0.14-dev/include -O2";
const NEWER: &str =
    "-isystem /nix/store/11111111111111111111111111111111-openssl-3.0.15-dev/include -O2";
const REBUILT: &str =
    "-isystem /nix/store/22222222222222222222222222222222-openssl-3.0.15-dev/include -O2";
const OLD_CC: &str = "/nix/store/44444444444444444444444444444444-gcc-wrapper-13.2.0";
const NEW_CC: &str = "/nix/store/55555555555555555555555555555555-gcc-wrapper-14.1.0";
const ZLIB: &str = "-L/nix/store/33333333333333333333333333333333-zlib-1.3/lib";

#[test]
fn why_names_what_separates_a_build_from_the_one_before() {
    let dir = TempDir::new();
    let mut daemon = Daemon::start_in(dir.path());
    let expect = |daemon: &Daemon, vars: &[(&str, &str)], expected: &str| {
        build(daemon, vars, None);
        let said = why(daemon, "hello");
        assert!(said.contains(expected), "no {expected:?} in\n{said}");
    };
    let one = [("NIX_CFLAGS_COMPILE", OPENSSL)];
    expect(
        &daemon,
        &one,
        "1 miss: it is the first build of this name\n",
    );
    expect(&daemon, &one, "1 hit, 0 misses (100%)\n");
    expect(
        &daemon,
        &[("NIX_CFLAGS_COMPILE", NEWER)],
        "1 miss: NIX_CFLAGS_COMPILE: openssl-3.0.14-dev -> openssl-3.0.15-dev\n",
    );
    expect(
        &daemon,
        &[("NIX_CFLAGS_COMPILE", REBUILT)],
        "1 miss: NIX_CFLAGS_COMPILE: openssl-3.0.15-dev built anew\n",
    );
    let both = [("NIX_CFLAGS_COMPILE", REBUILT), ("NIX_LDFLAGS", ZLIB)];
    expect(&daemon, &both, "1 miss: NIX_LDFLAGS: with zlib-1.3\n");
    expect(
        &daemon,
        &both[1..],
        "1 miss: NIX_CFLAGS_COMPILE: without -O2, openssl-3.0.15-dev\n",
    );
    let with = |name, value| [both[1], ("NIX_CC", OLD_CC), (name, value)];
    build(&daemon, &with("NIX_HARDENING_ENABLE", "fortify pic"), None);
    expect(
        &daemon,
        &with("NIX_HARDENING_ENABLE", "fortify"),
        "1 miss: NIX_HARDENING_ENABLE: without pic\n",
    );
    let newer_cc = [
        both[1],
        ("NIX_CC", NEW_CC),
        ("NIX_HARDENING_ENABLE", "fortify"),
    ];
    expect(
        &daemon,
        &newer_cc,
        "1 miss: the compiler wrapper: gcc-wrapper-13.2.0 -> gcc-wrapper-14.1.0\n",
    );
    build(&daemon, &with("SOMETHING", "hunter1"), None);
    expect(
        &daemon,
        &with("SOMETHING", "hunter2"),
        "1 miss: SOMETHING changed\n",
    );
    let told = format!("{:?}", ended(&daemon));
    assert!(
        told.contains("SOMETHING") && !told.contains("hunter"),
        "{told}"
    );
    build(&daemon, &both[1..], None);
    let pure = [both[1], ("CGO_ENABLED", "0")];
    expect(&daemon, &pure, "1 miss: CGO_ENABLED: with 0\n");
    // Evicted, and nothing else.
    let gc = |daemon: &Daemon| {
        let mut gc = Command::new(binary());
        gc.args(["gc", "--all", "--runtime-dir"])
            .arg(daemon.runtime_dir());
        run(&mut gc);
    };
    gc(&daemon);
    expect(
        &daemon,
        &pure,
        "1 miss: 1 output of an earlier build evicted\n",
    );
    // Readonly: the client keeps its puts to itself.
    gc(&daemon);
    let readonly = [pure[0], pure[1], ("NIX_GOCACHEPROG", "readonly")];
    expect(&daemon, &readonly, "1 miss: mode: on -> readonly\n");
    expect(
        &daemon,
        &readonly,
        "not known: what was compiled: a readonly build puts nothing",
    );
    // A remote that is there, and then is not.
    daemon.end();
    daemon = Daemon::start_with(dir.path(), &["--remote", "http://127.0.0.1:9/"]);
    build(&daemon, &pure, None);
    gc(&daemon);
    daemon.end();
    daemon = Daemon::start_in(dir.path());
    expect(&daemon, &one, "remote: ");
    assert!(why(&daemon, "hello").contains(" -> none"));
    // Another user has a tier of their own.
    build(&daemon, &[("NIX_CFLAGS_COMPILE", NEWER)], Some(4242));
    let said = why(&daemon, "hello");
    assert!(said.contains("tier: shared -> user 4242\n"), "{said}");
    let table = see::run(&daemon, &["stats"]);
    assert!(table.contains("\n(dev shells) of user 4242 "), "{table}");
}

#[test]
fn a_user_is_told_of_their_own_builds_and_no_others() {
    let daemon = Daemon::start();
    build(&daemon, &[("GOOS", "plan9")], None);
    build(&daemon, &[("GOOS", "linux")], Some(4243));
    let said_to = |user: u32| {
        let output = ask(&daemon, "hello").uid(user).gid(user).output().unwrap();
        (output.status.success(), format!("{output:?}"))
    };
    let (told, said) = said_to(4243);
    assert!(told && said.contains("hello-1.0, build "), "{said}");
    assert!(said.contains("no build of this name is recorded"), "{said}");
    let (told, said) = said_to(4244);
    assert!(
        !told && said.contains("no build is recorded that has"),
        "{said}"
    );
    // One of Nix's users would learn of other people's builds.
    let (told, said) = said_to(crate::support::BUILDER);
    assert!(
        !told && said.contains("only root may ask about the builds of Nix"),
        "{said}"
    );
}

/// A program of two packages that uses a vendored module.
struct Program(TempDir);

impl Program {
    fn new() -> Self {
        let program = Self(TempDir::new());
        program.write(
            "main.go",
            "package main\n\nimport \"example.org/p/a\"\n\nfunc main() { println(a.A()) }\n",
        );
        program.write(
            "a/a.go",
            "package a\n\nimport (\n\t\"example.org/p/b\"\n\t\"example.org/dep\"\n)\n\nfunc A() int { return b.B() + dep.D() }\n",
        );
        program.write("b/b.go", "package b\n\nfunc B() int { return 1 }\n");
        program.depend_on("v1.0.0", 1);
        program
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.0.path().join("p").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn depend_on(&self, version: &str, gives: u32) {
        self.write(
            "go.mod",
            &format!("module example.org/p\n\ngo 1.21\n\nrequire example.org/dep {version}\n"),
        );
        self.write(
            "vendor/modules.txt",
            &format!("# example.org/dep {version}\n## explicit; go 1.21\nexample.org/dep\n"),
        );
        self.write(
            "vendor/example.org/dep/dep.go",
            &format!("package dep\n\nfunc D() int {{ return {gives} }}\n"),
        );
    }

    /// Adds a package that is compiled by C, with a header elsewhere.
    fn add_c(&self) {
        self.write(
            "main.go",
            "package main\n\nimport \"example.org/p/c\"\n\nfunc main() { println(c.V) }\n",
        );
        self.write(
            "c/c.go",
            "package c\n\n// #cgo CFLAGS: -I${SRCDIR}/../include\n// #include \"v.h\"\nimport \"C\"\n\nconst V = C.V\n",
        );
        self.write("include/v.h", "#define V 1\n");
    }

    fn build(&self, daemon: &Daemon, go: &Go) {
        self.build_with(daemon, go, &[("CGO_ENABLED", "0")]);
    }

    fn build_with(&self, daemon: &Daemon, go: &Go, vars: &[(&str, &str)]) {
        let top = TempDir::new();
        let client = format!(
            "{} client --runtime-dir {}",
            binary().display(),
            daemon.runtime_dir().display()
        );
        run(Command::new(go.goroot.join("bin/go"))
            .args(["build", "-trimpath", "-o", "/dev/null", "."])
            .current_dir(self.0.path().join("p"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", top.path())
            .env("NIX_BUILD_TOP", top.path())
            .env("GOCACHE", top.path().join("gocache"))
            .env("GOENV", "off")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("name", "p-1.0")
            .env("GOCACHEPROG", client)
            .envs(vars.iter().copied()));
        wait_for_end(daemon);
    }
}

#[test]
fn why_names_the_packages_that_changed_and_those_that_depend_on_them() {
    let daemon = Daemon::start();
    let program = Program::new();
    let expect = |go: &Go, expected: &[&str]| {
        program.build(&daemon, go);
        let said = why(&daemon, "p-1.0");
        for expected in expected {
            assert!(said.contains(expected), "no {expected:?} in\n{said}");
        }
    };
    let (older, newer) = (Go::pinned("1.26"), Go::pinned("1.27"));
    expect(&older, &["it is the first build of this name"]);
    let path = |go: &Go| {
        let path = fs::canonicalize(go.goroot.join("bin/go")).unwrap();
        path.display().to_string()
    };
    let upgraded = format!("go: {} -> {}", path(&older), path(&newer));
    expect(
        &newer,
        &[&upgraded, " packages compiled\n", "depends on it: "],
    );
    program.write("b/b.go", "package b\n\nfunc B() int { return 2 }\n");
    expect(
        &newer,
        &[
            ": changed: example.org/p/b\n",
            "3 packages compiled\n",
            "depends on it: example.org/p/a, main\n",
        ],
    );
    program.depend_on("v1.1.0", 2);
    expect(
        &newer,
        &[
            ": changed: example.org/dep\n",
            "3 packages compiled\n",
            "depends on it: example.org/p/a, main\n",
        ],
    );
    program.write("main.go", "package main\n\nfunc main() {}\n");
    expect(&newer, &[": changed: main\n", "1 package compiled\n"]);
}

#[test]
fn why_names_what_c_depends_on_and_only_where_it_counts() {
    let daemon = Daemon::start();
    let program = Program::new();
    program.add_c();
    let go = Go::pinned("1.27");
    let expect = |vars: &[(&str, &str)], expected: &str| {
        program.build_with(&daemon, &go, vars);
        let said = why(&daemon, "p-1.0");
        assert!(said.contains(expected), "no {expected:?} in\n{said}");
    };
    let c = [("CGO_ENABLED", "1"), ("NIX_CFLAGS_COMPILE", OPENSSL)];
    expect(&c, ": it is the first build of this name\n");
    program.write("include/v.h", "#define V 2\n");
    expect(&c, ": include/v.h changed\n");
    program.write("c/more.go", "package c\n\nconst W = V\n");
    expect(&c, ": changed: example.org/p/c\n");
    expect(
        &[c[0], ("NIX_CFLAGS_COMPILE", NEWER)],
        ": NIX_CFLAGS_COMPILE: openssl-3.0.14-dev -> openssl-3.0.15-dev\n",
    );
    expect(
        &[c[0], ("NIX_CFLAGS_COMPILE", NEWER), ("GOFLAGS", "-tags=x")],
        ": flags: with -tags=x\n",
    );
    // Nothing of C is compiled now.
    program.write("main.go", "package main\n\nfunc main() {}\n");
    program.build(&daemon, &go);
    program.write("main.go", "package main\n\nfunc main() { println() }\n");
    expect(
        &[("CGO_ENABLED", "0"), ("NIX_LDFLAGS", ZLIB)],
        ": changed: main\n",
    );
    assert!(
        why(&daemon, "p-1.0").contains("of which nothing was compiled: NIX_LDFLAGS: with zlib-1.3"),
        "{}",
        why(&daemon, "p-1.0")
    );
}
