//! The pre-build-hook: whole mounts or nothing, and never a failure.

use crate::support::{Daemon, TempDir, binary};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const WITH_HOOK: &str = r#"Derive([("out","/nix/store/0-x","","")],[("/nix/store/1-nix-gocacheprog-hook.drv",["out"])],[],"x86_64-linux","/bin/sh",[],[])"#;
const WITHOUT: &str = r#"Derive([("out","/nix/store/0-x","","")],[("/nix/store/1-other.drv",["out"])],[],"x86_64-linux","/bin/sh",[],[])"#;

/// A derivation and its chroot, as Nix has them.
struct Build {
    dir: TempDir,
}

impl Build {
    fn new(text: &[u8]) -> Self {
        let dir = TempDir::new();
        std::fs::write(dir.path().join("abc-hello.drv"), text).unwrap();
        std::fs::create_dir_all(dir.path().join("abc-hello.drv.chroot/root")).unwrap();
        Self { dir }
    }

    fn drv(&self) -> PathBuf {
        self.dir.path().join("abc-hello.drv")
    }

    fn chroot(&self) -> PathBuf {
        self.dir.path().join("abc-hello.drv.chroot")
    }
}

fn hook(runtime_dir: &Path, args: &[&Path]) -> Output {
    let output = Command::new(binary())
        .arg("hook")
        .args(args)
        .env("NIX_GOCACHEPROG_RUNTIME_DIR", runtime_dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The mounts that were printed, after a look at the grammar.
fn mounts(output: &Output) -> Vec<(String, PathBuf)> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let lines = text
        .strip_prefix("extra-sandbox-paths\n")
        .unwrap_or_else(|| panic!("{text:?} {}", said(output)))
        .strip_suffix("\n\n")
        .unwrap();
    lines
        .lines()
        .map(|line| {
            let (target, source) = line.split_once('=').unwrap();
            let source = PathBuf::from(source);
            assert_eq!(
                source.canonicalize().unwrap(),
                source,
                "a link would dangle"
            );
            (target.to_string(), source)
        })
        .collect()
}

#[test]
fn a_build_with_the_setup_hook_gets_three_mounts() {
    let daemon = Daemon::start();
    let build = Build::new(WITH_HOOK.as_bytes());
    // Nix up to 2.23, and from 2.24 on.
    for chroot in [build.chroot(), build.chroot().join("root")] {
        let mounts = mounts(&hook(&daemon.runtime_dir(), &[&build.drv(), &chroot]));
        let targets: Vec<_> = mounts.iter().map(|(target, _)| target.as_str()).collect();
        assert_eq!(targets[..2], ["/gocache/client", "/gocache/run/build"]);
        let id = targets[2].strip_prefix("/gocache/").unwrap();
        assert_eq!(id.len(), 32);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].1, binary().canonicalize().unwrap());
        assert!(mounts[1].1.join("sock").exists());
        assert!(mounts[2].1.ends_with(Path::new("builds").join(id)));
    }
}

#[test]
fn a_build_without_the_setup_hook_gets_nothing() {
    let daemon = Daemon::start();
    let build = Build::new(WITHOUT.as_bytes());
    let output = hook(&daemon.runtime_dir(), &[&build.drv(), &build.chroot()]);
    assert_eq!(output.stdout, b"");
    assert_eq!(said(&output), "");
    assert_eq!(
        std::fs::read_dir(daemon.cache_dir().join("builds"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_derivation_that_is_out_of_sight_is_found_beside_the_chroot_or_offered_the_mounts() {
    let daemon = Daemon::start();
    let away = Path::new("/nix/store/abc-hello.drv");
    let without = Build::new(WITHOUT.as_bytes());
    for chroot in [without.chroot(), without.chroot().join("root")] {
        assert_eq!(hook(&daemon.runtime_dir(), &[away, &chroot]).stdout, b"");
    }
    let with = Build::new(WITH_HOOK.as_bytes());
    assert_eq!(
        mounts(&hook(&daemon.runtime_dir(), &[away, &with.chroot()])).len(),
        3
    );
    std::fs::remove_file(with.drv()).unwrap();
    assert_eq!(
        mounts(&hook(&daemon.runtime_dir(), &[away, &with.chroot()])).len(),
        3
    );
    assert_eq!(mounts(&hook(&daemon.runtime_dir(), &[away])).len(), 3);
}

#[test]
fn a_file_that_is_no_derivation_does_no_harm() {
    let daemon = Daemon::start();
    for text in [
        &b""[..],
        b"Derive(",
        b"\xff\xfe",
        b"{}",
        &WITH_HOOK.as_bytes()[..90],
    ] {
        let build = Build::new(text);
        let output = hook(&daemon.runtime_dir(), &[&build.drv(), &build.chroot()]);
        assert_eq!(mounts(&output).len(), 3);
    }
}

#[test]
fn without_a_daemon_nothing_is_printed_and_one_line_says_so() {
    let dir = TempDir::new();
    let build = Build::new(WITH_HOOK.as_bytes());
    let output = hook(dir.path(), &[&build.drv(), &build.chroot()]);
    assert_eq!(output.stdout, b"");
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    assert!(said(&output).contains("goes on without the shared cache"));
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up_on() {
    let dir = TempDir::new();
    for part in ["build", "control"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
    }
    let _silent = UnixListener::bind(dir.path().join("control/sock")).unwrap();
    let build = Build::new(WITH_HOOK.as_bytes());
    let output = hook(dir.path(), &[&build.drv(), &build.chroot()]);
    assert_eq!(output.stdout, b"");
    assert!(said(&output).contains("goes on without the shared cache"));
}

#[test]
fn arguments_that_nix_does_not_give_are_no_failure() {
    let dir = TempDir::new();
    let link = dir.path().join("hook");
    std::os::unix::fs::symlink(binary(), &link).unwrap();
    let long = "x".repeat(100_000);
    for args in [
        &[][..],
        &["a", "b", "c"],
        &["--frobnicate"],
        &["", ""],
        &["--", "-x"],
        &["/", "/"],
        &["/nix/store/0-x.drv", "root"],
        &[&long, &long],
        &["--runtime-dir"],
    ] {
        let output = Command::new(&link)
            .args(args)
            .env("NIX_GOCACHEPROG_RUNTIME_DIR", dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}");
        assert_eq!(output.stdout, b"", "{args:?}");
    }
    let not_text = std::ffi::OsStr::from_bytes(b"/nix/store/\xff\xfe-\n.drv");
    let output = hook(dir.path(), &[Path::new(not_text), Path::new(not_text)]);
    assert_eq!(output.stdout, b"");
}

#[test]
fn a_huge_derivation_and_one_that_is_no_file_get_the_mounts() {
    let daemon = Daemon::start();
    let build = Build::new(WITH_HOOK.as_bytes());
    let huge = std::fs::File::create(build.drv()).unwrap();
    huge.set_len(5 << 30).unwrap();
    let output = hook(&daemon.runtime_dir(), &[&build.drv(), &build.chroot()]);
    assert_eq!(mounts(&output).len(), 3);
    std::fs::remove_file(build.drv()).unwrap();
    std::fs::create_dir(build.drv()).unwrap();
    let output = hook(&daemon.runtime_dir(), &[&build.drv(), &build.chroot()]);
    assert_eq!(mounts(&output).len(), 3);
}

#[test]
fn a_derivation_that_cannot_be_read_to_its_end_is_given_up_on() {
    let daemon = Daemon::start();
    let build = Build::new(WITH_HOOK.as_bytes());
    std::fs::remove_file(build.drv()).unwrap();
    // Nobody ever writes to it.
    let made = Command::new("mkfifo").arg(build.drv()).status().unwrap();
    assert!(made.success());
    let output = hook(&daemon.runtime_dir(), &[&build.drv(), &build.chroot()]);
    assert_eq!(output.stdout, b"");
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
}

#[test]
fn a_derivation_and_a_daemon_that_this_user_may_not_see_are_no_failure() {
    let daemon = Daemon::start();
    let build = Build::new(WITH_HOOK.as_bytes());
    std::fs::set_permissions(build.drv(), PermissionsExt::from_mode(0o000)).unwrap();
    // Whoever runs the tests as root sees everything otherwise.
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all"]);
    let output = command
        .arg(binary())
        .arg("hook")
        .args([build.drv(), build.chroot()])
        .env("NIX_GOCACHEPROG_RUNTIME_DIR", daemon.runtime_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mounts(&output).len(), 3);
}

#[test]
fn a_full_disk_at_the_daemon_leaves_no_half_a_build_and_no_mounts() {
    // Where only root may mount, a namespace in which one is root will do.
    let daemon = Daemon::start_by(
        r#"map=; [ "$(id -u)" = 0 ] || map=--map-root-user
           exec unshare --mount $map sh -c '
               mkdir -p "$dir" && mount -t tmpfs -o size=512k tmpfs "$dir" && exec "$@"' sh "$@""#,
    );
    let build = Build::new(WITH_HOOK.as_bytes());
    let cache = PathBuf::from(format!("/proc/{}/root", daemon.pid()))
        .join(daemon.cache_dir().strip_prefix("/").unwrap());
    let count = |part: &str| std::fs::read_dir(cache.join(part)).unwrap().count();
    let ask = serde_json::json!({"ask": "register", "name": "x", "chroot": build.chroot()});
    let register = || {
        use std::io::{Read, Write};
        let control = daemon.runtime_dir().join("control/sock");
        let mut stream = std::os::unix::net::UnixStream::connect(control).unwrap();
        stream.write_all(format!("{ask}\n").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    };
    let refused = (0..1000)
        .map(|_| register())
        .find(|reply| reply.contains("failed"))
        .expect("the disk is full at some time");
    assert!(refused.contains("No space left"), "{refused}");
    let (directories, records) = (count("builds"), count("registered"));
    assert_eq!(directories, records, "a record for each directory");
    let output = hook(&daemon.runtime_dir(), &[&build.drv(), &build.chroot()]);
    assert_eq!(output.stdout, b"");
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    assert!(said(&output).contains("No space left"), "{}", said(&output));
    assert_eq!(
        (count("builds"), count("registered")),
        (directories, records)
    );
}

#[test]
fn an_answer_that_is_no_answer_is_not_passed_on_to_nix() {
    use std::io::{BufRead, BufReader, Write};
    let dir = TempDir::new();
    for part in ["build", "control", "builds"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
    }
    let id = "0123456789abcdef0123456789abcdef";
    let link = dir.path().join("builds").join(id);
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    // Somebody's own, which others may not enter, and one of another user than what it is in.
    let other = "f123456789abcdef0123456789abcdef";
    let directory = |place: &str, mode: u32, owner: u32| {
        let path = dir.path().join(place).join("builds").join(other);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner), None).expect("root");
        path.to_string_lossy().into_owned()
    };
    let registered = |build: &str, directory: &str| {
        serde_json::json!({"reply": "registered", "build": build, "directory": directory})
            .to_string()
    };
    let listener = UnixListener::bind(dir.path().join("control/sock")).unwrap();
    let build = Build::new(WITH_HOOK.as_bytes());
    let garbage = vec!["x".repeat(100_000)];
    let answers = [
        "".to_string(),
        "\n".to_string(),
        "nonsense".to_string(),
        r#"{"reply":"registered"}"#.to_string(),
        registered(id, "/etc"),
        registered(id, "builds"),
        registered(id, &link.to_string_lossy()),
        registered(id, &format!("/nonexistent/builds/{id}")),
        registered(other, &directory("private", 0o700, 0)),
        registered(other, &directory("writable", 0o777, 0)),
        registered(other, &directory("foreign", 0o711, 31_004)),
        registered("..", "/etc/builds/.."),
        registered("x\n/etc=/etc", "/etc/builds/x\n/etc=/etc"),
    ];
    for answer in answers.into_iter().chain(garbage) {
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = String::new();
                BufReader::new(&stream).read_line(&mut question).unwrap();
                // It may have heard enough.
                let _ = stream.write_all(format!("{answer}\n").as_bytes());
            });
            hook(dir.path(), &[&build.drv(), &build.chroot()])
        });
        assert_eq!(output.stdout, b"", "{answer}");
        assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    }
}

#[test]
fn a_reader_that_takes_nothing_is_no_failure() {
    let daemon = Daemon::start();
    let build = Build::new(WITH_HOOK.as_bytes());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let status = Command::new(binary())
        .arg("hook")
        .args([build.drv(), build.chroot()])
        .env("NIX_GOCACHEPROG_RUNTIME_DIR", daemon.runtime_dir())
        .stdout(full.unwrap())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn an_odd_umask_changes_nothing() {
    let daemon = Daemon::start_by(r#"umask 777; exec "$@""#);
    let build = Build::new(WITH_HOOK.as_bytes());
    let output = Command::new("sh")
        .args(["-c", r#"umask 777; exec "$@""#, "sh"])
        .arg(binary())
        .arg("hook")
        .args([build.drv(), build.chroot()])
        .env("NIX_GOCACHEPROG_RUNTIME_DIR", daemon.runtime_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mounts = mounts(&output);
    assert_eq!(mounts.len(), 3);
    let id = mounts[2].1.file_name().unwrap();
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    for (path, expected) in [
        (daemon.runtime_dir(), 0o755),
        (daemon.runtime_dir().join("build"), 0o755),
        (daemon.runtime_dir().join("build/sock"), 0o666),
        (daemon.runtime_dir().join("control"), 0o700),
        (daemon.runtime_dir().join("control/sock"), 0o600),
        (daemon.cache_dir(), 0o711),
        (mounts[2].1.clone(), 0o711),
        (daemon.cache_dir().join("registered").join(id), 0o644),
    ] {
        assert_eq!(mode(path.clone()), expected, "{}", path.display());
    }
}

/// Another pre-build-hook: a shell script.
fn other_hook(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("other");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn chained(runtime_dir: &Path, other: &Path, build: &Build) -> Output {
    Command::new(binary())
        .args(["hook", "--chain"])
        .args([other, &build.drv(), &build.chroot()])
        .env("NIX_GOCACHEPROG_RUNTIME_DIR", runtime_dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn another_hook_runs_first_and_both_answers_are_given() {
    let daemon = Daemon::start();
    let dir = TempDir::new();
    // The second leaves out the blank line.
    for end in ["\\n\\n", "\\n"] {
        let other = other_hook(
            &dir,
            &format!("echo for $# >&2; printf 'extra-sandbox-paths\\n/a=%s{end}' \"$1\""),
        );
        let with = Build::new(WITH_HOOK.as_bytes());
        let output = chained(&daemon.runtime_dir(), &other, &with);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(said(&output), "for 2\n");
        let text = String::from_utf8(output.stdout).unwrap();
        let theirs = format!("extra-sandbox-paths\n/a={}\n\n", with.drv().display());
        let ours = text.strip_prefix(&theirs).unwrap();
        assert!(ours.starts_with("extra-sandbox-paths\n/gocache/client="));
        assert!(ours.ends_with("\n\n"));

        let without = Build::new(WITHOUT.as_bytes());
        let output = chained(&daemon.runtime_dir(), &other, &without);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("extra-sandbox-paths\n/a="), "{text}");
        assert!(!text.contains("gocache/client"), "{text}");
    }
}

#[test]
fn another_hooks_answer_is_given_without_a_daemon_too() {
    let dir = TempDir::new();
    let other = other_hook(&dir, "printf 'extra-sandbox-paths\\n/a\\n\\n'");
    let build = Build::new(WITH_HOOK.as_bytes());
    let output = chained(dir.path(), &other, &build);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"extra-sandbox-paths\n/a\n\n");
}

#[test]
fn another_hooks_failure_is_passed_on() {
    let daemon = Daemon::start();
    let dir = TempDir::new();
    let build = Build::new(WITH_HOOK.as_bytes());
    for (text, code) in [("echo lost; exit 3", 3), ("kill -TERM $$", 143)] {
        let output = chained(&daemon.runtime_dir(), &other_hook(&dir, text), &build);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(output.stdout, b"", "{text}");
    }
}

#[test]
fn a_chained_hook_that_is_gone_ends_no_build() {
    let daemon = Daemon::start();
    let build = Build::new(WITH_HOOK.as_bytes());
    let output = chained(&daemon.runtime_dir(), Path::new("/no/such/hook"), &build);
    assert!(output.status.success());
    assert_eq!(mounts(&output).len(), 3);
    assert!(said(&output).contains("/no/such/hook"), "{}", said(&output));
}

#[test]
fn a_derivation_in_the_environment_is_read() {
    let daemon = Daemon::start();
    let build = Build::new(WITHOUT.as_bytes());
    for (json, count) in [
        (
            r#"{"inputs":{"drvs":{"1-nix-gocacheprog-hook.drv":{}},"srcs":[]}}"#,
            3,
        ),
        (r#"{"inputs":["/nix/store/1-nix-gocacheprog-hook"]}"#, 3),
        (r#"{"inputs":{"drvs":{},"srcs":[]}}"#, 0),
        // Then it is the file that counts.
        ("{", 0),
    ] {
        let output = Command::new(binary())
            .args([Path::new("hook"), &build.drv(), &build.chroot()])
            .env("NIX_GOCACHEPROG_RUNTIME_DIR", daemon.runtime_dir())
            .env("NIX_DERIVATION_V4", json)
            .output()
            .unwrap();
        assert!(output.status.success(), "{json}");
        if count == 0 {
            assert_eq!(output.stdout, b"", "{json}");
        } else {
            assert_eq!(mounts(&output).len(), count, "{json}");
        }
    }
}
