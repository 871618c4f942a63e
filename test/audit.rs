//! Audits by real `go` of caches that were made wrong on purpose: what is wrong reaches an ordinary build, an audit finds
//! it, names both builds, and removes it.

use crate::go::{Go, Workspace, assert_same, programs, run};
use crate::peer::Peer;
use crate::support::{BUILDER, Daemon, TempDir, binary, text};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a folder of `go` holds when it has built: its programs.
type Programs = Vec<(String, Vec<u8>)>;

/// A program, the cache that its builds go through, and what surrounds them.
struct Stage {
    go: Go,
    work: Workspace,
    daemon: Daemon,
    /// The package that is built, and the variables of all its builds.
    package: &'static str,
    variables: Vec<(&'static str, String)>,
}

impl Stage {
    fn new(package: &'static str) -> Self {
        Self {
            go: Go::pinned("1.27"),
            work: Workspace::new(),
            daemon: Daemon::start(),
            package,
            variables: Vec::new(),
        }
    }

    /// A build of this name, as a derivation of that name runs it; and the folder that its programs are in.
    fn command(&self, name: &str) -> (Command, String) {
        let out = self.work.new_folder();
        let args = ["build", "-o", &out, self.package];
        let mut command = self
            .work
            .go_with(self.daemon.runtime_dir(), &self.go, &args);
        let top = self.top(name);
        fs::create_dir_all(&top).unwrap();
        command
            .env("name", name)
            .env("NIX_BUILD_TOP", top)
            .envs(self.variables.iter().cloned());
        (command, out)
    }

    /// Each build has a directory of its own, by which the daemon tells builds apart.
    fn top(&self, name: &str) -> PathBuf {
        self.work.file("..").join(format!("build-{name}"))
    }

    fn build(&self, name: &str) -> Programs {
        let (mut command, out) = self.command(name);
        run(&mut command);
        self.daemon.session_end();
        programs(&out)
    }

    /// The same without a cache.
    fn cold(&self) -> Programs {
        let (mut command, out) = self.command("cold");
        run(command.env_remove("GOCACHEPROG"));
        programs(&out)
    }

    /// The program is what a build without a cache makes, and an audit, which has to be one, finds so many differences.
    fn audit_finds(&self, cold: &Programs, first: &str, packages: &[&str]) {
        let (mut command, out) = self.command("release-1.0");
        run(command.env("NIX_GOCACHEPROG", "audit"));
        let session = self.daemon.session_end();
        assert_eq!((session.hits, session.errors), (0, 0), "{session:?}");
        assert_same(&programs(&out), cold, "the audit");

        let lines = self.daemon.said("audit: outputs differ: ");
        assert_eq!(lines.len(), packages.len(), "{lines:?}");
        for (line, package) in lines.iter().zip(packages) {
            let builds = [
                format!("build {first} put "),
                "build release-1.0 puts ".into(),
            ];
            for part in [&format!("(package {package})"), &builds[0], &builds[1]] {
                assert!(line.contains(part.as_str()), "no {part:?} in {line}");
            }
        }
        let (compared, different) = (self.summary("release-1.0"), packages.len());
        let ends = format!(" equal, {different} different");
        assert!(
            compared.contains("audit: ") && compared.trim_end().ends_with(&ends),
            "{compared}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&stats(&self.daemon, &["--json"])).unwrap();
        let since_start = &json["since_start"];
        assert_eq!(since_start["different"], different, "{since_start}");
        assert!(since_start["compared"].as_u64() > Some(50), "{since_start}");
        let table = stats(&self.daemon, &[]);
        let differed = |line: &str| line.starts_with(&format!("audits         {different} of "));
        assert!(table.lines().any(differed), "{table}");

        // What differed is gone, and nothing else.
        assert_same(&self.build("next-1.0"), cold, "after the audit");
        let next = self.summary("next-1.0");
        // And one that `go` links, which it keeps in no GOCACHEPROG.
        let misses = format!(" {} misses ", different + 1);
        assert!(next.contains(&misses), "{next}");
    }

    /// What the build's log says at its end.
    fn summary(&self, name: &str) -> String {
        let said = Command::new(binary())
            .args(["client", "--summary", "--runtime-dir"])
            .arg(self.daemon.runtime_dir())
            .env("NIX_BUILD_TOP", self.top(name))
            .output()
            .unwrap();
        text(&said.stderr).into()
    }

    fn gocacheprog(&self) -> String {
        let runtime_dir = self.daemon.runtime_dir();
        format!(
            "{} client --runtime-dir {}",
            binary().display(),
            runtime_dir.display()
        )
    }

    /// Writes a file of the source.
    fn write(&self, name: &str, content: &str) {
        let path = self.work.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Sets a variable for the builds that come.
    fn set(&mut self, name: &'static str, value: impl ToString) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_string()));
    }

    /// The output that holds a package, by name.
    fn archive(&self, package: &str) -> String {
        let args = ["list", "-export", "-f", "{{.Export}}", package];
        let listed = run(&mut self
            .work
            .go_with(self.daemon.runtime_dir(), &self.go, &args));
        self.daemon.session_end();
        let path = Path::new(text(&listed.stdout).trim_end());
        path.file_name().unwrap().to_str().unwrap().into()
    }

    /// Where the cache has an output.
    fn output(&self, name: &str) -> PathBuf {
        let (shard, rest) = name.split_at(2);
        self.daemon
            .cache_dir()
            .join("outputs")
            .join(shard)
            .join(rest)
    }

    /// The link of the only action that names an output, and its target.
    fn action_of(&self, output: &str) -> (PathBuf, Vec<u8>) {
        let shards = fs::read_dir(self.daemon.cache_dir().join("actions")).unwrap();
        let folders = shards
            .map(|shard| shard.unwrap().path())
            .filter(|path| path.is_dir());
        let links = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
        let mut found: Vec<_> = links
            .map(|link| link.unwrap().path())
            .map(|link| (entry(&link), link))
            .filter(|(entry, _)| hex(&entry[..32]) == output)
            .map(|(entry, link)| (link, entry))
            .collect();
        assert_eq!(found.len(), 1, "{output}");
        found.remove(0)
    }
}

fn stats(daemon: &Daemon, args: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.arg("stats").args(args).arg("--runtime-dir");
    text(&run(command.arg(daemon.runtime_dir())).stdout).into()
}

/// The bytes of an entry: the output's hash, five bytes of its size, seven of a time (`src/entry.rs`).
fn entry(link: &Path) -> Vec<u8> {
    let target = fs::read_link(link).unwrap();
    URL_SAFE_NO_PAD.decode(target.to_str().unwrap()).unwrap()
}

/// Makes an action name another output.
fn point(link: &Path, entry: &[u8]) {
    fs::remove_file(link).unwrap();
    symlink(URL_SAFE_NO_PAD.encode(entry), link).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const GREETING: &str = "example.org/program/greeting";

#[test]
fn an_audit_finds_bytes_that_no_compiler_has_written() {
    let stage = Stage::new("./cmd/words");
    let right = stage.build("first-1.0");
    let name = stage.archive("./greeting");
    let (link, mut entry) = stage.action_of(&name);
    // Whole, as far as anybody can tell: the hash is that of its bytes.
    let mut bytes = fs::read(stage.output(&name)).unwrap();
    // The text is the name of a symbol too.
    for at in 0..bytes.len() - 6 {
        if bytes[at..].starts_with(b"hello, ") {
            bytes[at] = b'j';
        }
    }
    let wrong = hex(&Sha256::digest(&bytes));
    let path = stage.output(&wrong);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(stage.output(&name), &path).unwrap();
    fs::write(&path, &bytes).unwrap();
    entry[..32].copy_from_slice(&Sha256::digest(&bytes));
    point(&link, &entry);

    assert!(stage.build("hello-1.0") != right, "the cache is wrong");
    let cold = stage.work.reference(&stage.go, &[stage.package]);
    stage.audit_finds(&cold, "first-1.0", &[GREETING]);
}

#[test]
fn an_audit_finds_an_action_that_names_the_output_of_another() {
    let stage = Stage::new("./cmd/words");
    stage.build("first-1.0");
    let (link, _) = stage.action_of(&stage.archive("./greeting"));
    // Both are intact.
    let (_, other) = stage.action_of(&stage.archive("./counter"));
    point(&link, &other);

    let (mut command, _) = stage.command("hello-1.0");
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success(), "the cache is wrong");
    assert!(text(&stderr).contains("greeting"), "{}", text(&stderr));
    stage.daemon.session_end();
    let cold = stage.work.reference(&stage.go, &[stage.package]);
    stage.audit_finds(&cold, "first-1.0", &[GREETING]);
}

/// What a C compiler takes from outside of the package's own folder.
const VALUE: &str = r#"package main

// #cgo CFLAGS: -I${SRCDIR}/../../include
// #ifndef V
// #include <v.h>
// #endif
// static int value(void) { return V; }
import "C"

func main() { println(C.value()) }
"#;

/// A program whose C says 1 or 2, built first by a client whose salt leaves out what it is that `set` changes: `told` is put
/// before its command, so that it sees that as it will be for the second build, and all the rest as it is.
fn finds_what_a_salt_leaves_out(told: &str, set: impl Fn(&mut Stage, u8)) {
    let mut stage = Stage::new("./cmd/value");
    stage.write("cmd/value/main.go", VALUE);
    // As nixpkgs' wrapper does, and as that where no build can write: of a build's own compiler nobody knows what it reads.
    let name = format!("audit-cc-{}-{}", std::process::id(), told.len());
    let compiler = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(
        &compiler,
        "#!/bin/sh\nexec gcc $NIX_CFLAGS_COMPILE \"$@\"\n",
    )
    .unwrap();
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
    stage.set("CC", compiler.display());
    stage.set("CGO_ENABLED", 1);
    let says = |programs: &Programs| {
        let program = TempDir::new();
        let path = program.path().join("value");
        fs::write(&path, &programs[0].1).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let said = run(&mut Command::new(&path));
        text(&said.stderr).trim_end().to_owned()
    };

    set(&mut stage, 1);
    let told = told.replace("TOP", &stage.work.file("..").display().to_string());
    let (mut first, out) = stage.command("forgetful-1.0");
    run(first.env("GOCACHEPROG", format!("{told} {}", stage.gocacheprog())));
    stage.daemon.session_end();
    assert_eq!(says(&programs(&out)), "1");

    set(&mut stage, 2);
    let cold = stage.cold();
    assert_eq!(says(&cold), "2");
    assert_eq!(says(&stage.build("hello-1.0")), "1", "the cache is wrong");
    stage.audit_finds(&cold, "forgetful-1.0", &["main"]);
    fs::remove_file(&compiler).unwrap();
}

#[test]
fn an_audit_finds_a_salt_without_a_variable_of_the_compilers_wrapper() {
    finds_what_a_salt_leaves_out("env NIX_CFLAGS_COMPILE=-DV=2", |stage, v| {
        stage.set("NIX_CFLAGS_COMPILE", format!("-DV={v}"));
    });
}

#[test]
fn an_audit_finds_a_salt_without_a_variable_of_the_compilers_own() {
    finds_what_a_salt_leaves_out("env C_INCLUDE_PATH=TOP/headers-2", |stage, v| {
        for v in [1, 2] {
            let header = stage.work.file(&format!("../headers-{v}/v.h"));
            if !header.exists() {
                stage.write(&format!("../headers-{v}/v.h"), &format!("#define V {v}\n"));
            }
        }
        let folder = stage.work.file("..").join(format!("headers-{v}"));
        stage.set("C_INCLUDE_PATH", folder.display());
    });
}

#[test]
fn an_audit_finds_a_salt_without_a_header_of_the_source() {
    // The client looks at the source as it will be.
    finds_what_a_salt_leaves_out("env -C TOP/later", |stage, v| {
        stage.write("include/v.h", "#define V 2\n");
        let later = stage.work.file("../later");
        if !later.exists() {
            run(Command::new("cp")
                .arg("-a")
                .arg(stage.work.file("."))
                .arg(later));
        }
        stage.write("include/v.h", &format!("#define V {v}\n"));
    });
}

#[test]
fn a_put_over_another_output_is_counted_and_logged_once_with_both_builds() {
    const USER: u32 = 31_003;
    let daemon = Daemon::start_for_builder();
    let put = |user: u32, name: &str, action: u8, body: &str| {
        let hello = format!(r#"{{"version":1,"name":"{name}"}}"#);
        let mut peer = Peer::hello_as(&daemon, user, &hello).unwrap();
        assert_eq!(peer.put(action, body.as_bytes()), 's');
    };
    for (name, text) in [("one-1.0", "one"), ("two-1.0", "two"), ("six-1.0", "six")] {
        put(BUILDER, name, 1, text);
        put(BUILDER, name, 2, "the same");
        // What a test has read, and what it has said: there are times in both.
        put(BUILDER, name, 3, &format!("# test log\nstat {text}\n"));
        put(BUILDER, name, 4, &format!("PASS\nok  \t{text}\t0.003s\n"));
    }
    // What another tier has replaces nothing of this one. Its own differences are counted, and not logged.
    put(USER, "user's", 1, "user's");
    put(USER, "user's", 1, "user's other");

    let lines = daemon.said("a put replaces another output: ");
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    for part in ["action 0101", "build one-1.0 put ", "build two-1.0 puts "] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    let json: serde_json::Value = serde_json::from_str(&stats(&daemon, &["--json"])).unwrap();
    assert_eq!(json["since_start"]["replaced"], 3);
    let shown = "replaced       3 outputs by other ones of the same action in the last day";
    let table = stats(&daemon, &[]);
    assert!(table.contains(shown), "{table}");
}
