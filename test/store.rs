//! The store as the daemon keeps it: limits, full disks, crashes, and the commands for
//! whoever looks after it.

use crate::go::{Go, Workspace, assert_same};
use crate::peer::Peer;
use crate::support::{BUILDER, Daemon, TempDir, binary, text};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Runs an administrator's command on a daemon's or a folder's cache.
fn admin(dir: &Path, args: &[&str]) -> Output {
    let cache_dir = dir.join("cache");
    Command::new(binary())
        .args(args)
        .arg("--cache-dir")
        .arg(&cache_dir)
        .arg("--runtime-dir")
        .arg(dir.join("run"))
        .output()
        .unwrap()
}

/// What it prints, when it succeeds.
fn told(dir: &Path, args: &[&str]) -> String {
    let output = admin(dir, args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout).to_string()
}

fn stats(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&told(dir, &["stats", "--json"])).unwrap()
}

fn bytes(dir: &Path) -> u64 {
    stats(dir)["contents"]["bytes"].as_u64().unwrap()
}

/// A build that ends when this is dropped.
struct Build {
    peer: Peer,
    top: PathBuf,
}

impl Build {
    fn start(daemon: &Daemon, dir: &Path, name: &str) -> Self {
        let top = dir.join(format!("top-{name}"));
        std::fs::create_dir(&top).unwrap();
        // Links are for those who cannot change what they lead to.
        std::os::unix::fs::chown(&top, Some(BUILDER), Some(BUILDER)).expect("root");
        let hello = serde_json::json!({"version": 1, "name": name, "top": top});
        Self {
            peer: Peer::hello_as(daemon, BUILDER, &hello.to_string()).unwrap(),
            top,
        }
    }

    fn put(&mut self, action: u8, size: usize) {
        assert_eq!(self.peer.put(action, &body(action, size)), 's');
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.top);
    }
}

fn body(action: u8, size: usize) -> Vec<u8> {
    vec![action; size]
}

/// A file system of its own, as small as it is wanted.
pub struct Mount(PathBuf);

impl Mount {
    pub fn tmpfs(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        Self::new(at, &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    /// The same folder once more, and read-only.
    pub fn read_only(at: &Path) -> Self {
        let mount = Self::new(at, &["--bind", at.to_str().unwrap()]);
        Self::new(at, &["-o", "remount,bind,ro"]).forget();
        mount
    }

    fn new(at: &Path, args: &[&str]) -> Self {
        let mounted = Command::new("mount").args(args).arg(at).output().unwrap();
        assert!(
            mounted.status.success(),
            "mounting needs root: {}",
            text(&mounted.stderr)
        );
        Self(at.into())
    }

    fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn the_least_recently_used_goes_when_the_limit_is_passed() {
    let dir = TempDir::new();
    let daemon = Daemon::start_with(dir.path(), &["--max-size", "1M", "--min-free", "0"]);
    let mut first = Build::start(&daemon, dir.path(), "first");
    for action in 0..14 {
        first.put(action, 64 << 10);
    }
    drop(first);
    // It sees that the build has ended, too.
    daemon.wait_until("the build has ended", || stats(dir.path())["builds"] == 0);
    assert_eq!(bytes(dir.path()), 14 << 16);
    // The first outputs are used again, an hour later.
    let old = std::time::SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    for output in files(&daemon.cache_dir().join("outputs")) {
        let file = std::fs::File::open(output).unwrap();
        file.set_modified(old).unwrap();
    }
    let mut second = Build::start(&daemon, dir.path(), "second");
    for action in 0..4 {
        assert_eq!(second.peer.get(action), 'h');
    }
    for action in 20..24 {
        second.put(action, 64 << 10);
    }
    // The limit may have been passed before the last put, which then leaves more than 90%.
    daemon.wait_until("the limit is kept", || bytes(dir.path()) <= 1 << 20);
    for action in (0..4).chain(20..24) {
        assert_eq!(second.peer.get(action), 'h', "{action}");
    }
    let gone = (4..14).filter(|action| second.peer.get(*action) == 'm');
    assert!(gone.count() >= 2);
    told(dir.path(), &["verify"]);
}

#[test]
fn what_a_live_build_uses_stays_whatever_the_limit() {
    let dir = TempDir::new();
    let daemon = Daemon::start_with(dir.path(), &["--max-size", "100K", "--min-free", "0"]);
    let mut build = Build::start(&daemon, dir.path(), "live");
    for action in 0..10 {
        build.put(action, 64 << 10);
    }
    assert!(told(dir.path(), &["gc", "--all"]).contains("evicted 0 outputs"));
    for action in 0..10 {
        assert_eq!(build.peer.get(action), 'h');
    }
    drop(build);
    daemon.wait_until("the build has ended", || stats(dir.path())["builds"] == 0);
    // Nobody has to ask.
    daemon.wait_until("the limit is kept", || bytes(dir.path()) <= 100 << 10);
    let dry = told(dir.path(), &["gc", "--all", "--dry-run"]);
    assert!(
        dry.contains("would evict 1 output and 1 action, 64 KiB"),
        "{dry}"
    );
    let evicted = told(dir.path(), &["gc", "--all"]);
    assert!(evicted.contains("evicted 1 output and 1 action, 64 KiB"));
    assert_eq!(bytes(dir.path()), 0);
}

#[test]
fn stats_gc_and_verify_work_with_a_daemon_and_without() {
    let dir = TempDir::new();
    let daemon = Daemon::start_in(dir.path());
    let mut build = Build::start(&daemon, dir.path(), "hello-1.2");
    build.put(1, 8192);
    assert_eq!((build.peer.get(1), build.peer.get(2)), ('h', 'm'));
    let table = told(dir.path(), &["stats"]);
    for part in ["8 KiB of 20 GiB", "1 action, 1 output\n", "50.0%", "hello "] {
        assert!(table.contains(part), "{part} is not in {table}");
    }
    // All versions of a name have one line.
    assert!(!table.contains("hello-1.2"), "{table}");
    drop(build);
    daemon.end();

    let after = stats(dir.path());
    assert_eq!(after["last_day"]["hits"], 1, "{after}");
    assert_eq!(after["contents"]["actions"], 1);
    assert!(told(dir.path(), &["verify"]).contains("1 output read, 8 KiB: no damage"));
    let output = &files(&dir.path().join("cache/outputs"))[0];
    std::fs::remove_file(output).unwrap();
    std::fs::write(output, body(9, 8192)).unwrap();
    let damaged = admin(dir.path(), &["verify"]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(text(&damaged.stdout).contains("has the SHA-256"));
    assert!(text(&damaged.stderr).contains("verify --repair"));
    assert!(
        told(dir.path(), &["verify", "--repair"])
            .contains("removed 1 output and 1 action, damaged")
    );
    assert!(told(dir.path(), &["verify"]).contains("0 outputs read, 0 B: no damage"));

    let nothing = admin(&dir.path().join("nowhere"), &["stats"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(text(&nothing.stderr).contains("there is no cache in"));
}

#[test]
fn a_command_for_another_cache_leaves_the_daemons_alone() {
    let (ours, other) = (TempDir::new(), TempDir::new());
    let daemon = Daemon::start_in(ours.path());
    let mut build = Build::start(&daemon, ours.path(), "a");
    build.put(1, 100);
    drop(build);
    daemon.wait_until("the build has ended", || stats(ours.path())["builds"] == 0);
    Daemon::start_in(other.path()).end();
    let done = Command::new(binary())
        .args(["gc", "--all", "--cache-dir"])
        .arg(other.path().join("cache"))
        .arg("--runtime-dir")
        .arg(daemon.runtime_dir())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(bytes(ours.path()), 4096);
}

#[test]
fn a_build_ends_with_one_line_on_what_the_cache_did() {
    let dir = TempDir::new();
    let daemon = Daemon::start_in(dir.path());
    let summary = |top: &Path| {
        let output = Command::new(binary())
            .args(["client", "--summary", "--runtime-dir"])
            .arg(daemon.runtime_dir())
            .env("NIX_BUILD_TOP", top)
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(output.stdout.is_empty());
        text(&output.stderr).to_string()
    };
    let mut build = Build::start(&daemon, dir.path(), "a");
    assert_eq!(summary(&build.top), "");
    build.put(1, 3 << 20);
    for _ in 0..3 {
        assert_eq!(build.peer.get(1), 'h');
    }
    build.peer.get(2);
    assert_eq!(
        summary(&build.top),
        "nix-gocacheprog: 3 hits, 1 miss (75.0%), 9 MiB from cache, 3 MiB added\n"
    );
    assert_eq!(summary(&dir.path().join("another")), "");
}

#[test]
fn a_summary_without_a_daemon_is_silent() {
    let dir = TempDir::new();
    let output = Command::new(binary())
        .args(["client", "--summary", "--runtime-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));
}

#[test]
fn real_builds_outlive_a_daemon_that_is_killed_again_and_again() {
    let go = Go::pinned("1.27");
    let work = Workspace::new();
    let reference = work.reference(&go, &["./cmd/..."]);
    let dir = TempDir::new();
    for round in 0..4 {
        let mut daemon = Daemon::start_in(dir.path());
        let out = work.new_folder();
        let mut build = work
            .go_with(
                daemon.runtime_dir(),
                &go,
                &["build", "-o", &out, "./cmd/..."],
            )
            .spawn()
            .unwrap();
        // Once some more has come in, each time at another moment.
        let before = files(&daemon.cache_dir().join("actions")).len();
        daemon.wait_until("something is put", || {
            files(&daemon.cache_dir().join("actions")).len() > before + 10 * round
                || build.try_wait().unwrap().is_some()
        });
        daemon.kill();
        assert!(build.wait().unwrap().success());
        assert_same(&crate::go::programs(&out), &reference, "after the kill");
        // The next one opens it as it is.
        told(dir.path(), &["verify"]);
    }
    let daemon = Daemon::start_in(dir.path());
    assert_same(
        &work.build(&daemon, &go, &["./cmd/..."]),
        &reference,
        "with what was kept",
    );
    assert_eq!(daemon.session_end().errors, 0);
    told(dir.path(), &["verify"]);
    assert_eq!(daemon.unfinished(), 0);
}

#[test]
fn real_builds_go_on_when_the_disk_is_full() {
    let go = Go::pinned("1.27");
    let work = Workspace::new();
    let reference = work.reference(&go, &["./cmd/..."]);
    let dir = TempDir::new();
    // The build wants several times as much.
    let _disk = Mount::tmpfs(&dir.path().join("cache"), "20M");
    let mut daemon = Daemon::start_with(dir.path(), &["--min-free", "0"]);
    assert_same(
        &work.build(&daemon, &go, &["./cmd/..."]),
        &reference,
        "on a full disk",
    );
    assert!(daemon.session_end().errors > 0, "the disk was not full");
    assert!(daemon.is_alive());
    told(dir.path(), &["verify"]);
    // Root has copies of it all, which take as much again.
    assert!(bytes(dir.path()) > 1 << 20, "what was whole is there");
    // With the build goes its directory, and what it used can be evicted.
    work.end_builds(|| {
        daemon.wait_until("there is room again", || {
            let stats = stats(dir.path());
            stats["builds"] == 0 && stats["free"].as_u64().unwrap() > 0
        });
    });
    assert_same(
        &work.build(&daemon, &go, &["./cmd/..."]),
        &reference,
        "with what was kept",
    );
    assert!(daemon.session_end().hits > 0);
    told(dir.path(), &["verify"]);
    assert_eq!(daemon.unfinished(), 0);
    daemon.end();
}

#[test]
fn a_floor_of_free_space_is_kept() {
    let dir = TempDir::new();
    let _disk = Mount::tmpfs(&dir.path().join("cache"), "32M");
    let daemon = Daemon::start_with(dir.path(), &["--min-free", "16M"]);
    let top = dir.path().join("top");
    std::fs::create_dir(&top).unwrap();
    std::os::unix::fs::chown(&top, Some(BUILDER), Some(BUILDER)).expect("root");
    let hello = serde_json::json!({"version": 1, "top": top});
    let mut build = Peer::hello_as(&daemon, BUILDER, &hello.to_string()).unwrap();
    let answers: String = (0..24)
        .map(|action| build.put(action, &body(action, 1 << 20)))
        .collect();
    let stored = answers.chars().filter(|answer| *answer == 's').count();
    assert!(stored >= 15, "puts stop there and not before: {answers}");
    assert!(answers.ends_with('r'), "{answers}");
    drop(build);
    std::fs::remove_dir(&top).unwrap();
    // It looks every few seconds, and after this.
    daemon.wait_until("the floor is kept", || {
        let stats = stats(dir.path());
        stats["free"].as_u64().unwrap() >= 16 << 20
    });
    assert!(bytes(dir.path()) > 8 << 20, "no more went than had to");
}

#[test]
fn a_cache_that_becomes_read_only_is_no_end_of_the_daemon() {
    let dir = TempDir::new();
    let cache = dir.path().join("cache");
    let _disk = Mount::tmpfs(&cache, "32M");
    let mut daemon = Daemon::start_with(dir.path(), &["--min-free", "0"]);
    let mut build = Build::start(&daemon, dir.path(), "a");
    build.put(1, 100);
    let read_only = Mount::read_only(&cache);
    assert_eq!(build.peer.put(2, b"another"), 'r');
    assert!(matches!(build.peer.get(1), 'h' | 'r'));
    assert_eq!(build.peer.get(3), 'm');
    assert!(daemon.is_alive());
    drop(read_only);
    build.put(2, 100);
    assert_eq!(build.peer.get(1), 'h');
    drop(build);
    daemon.end();
    let _read_only = Mount::read_only(&cache);
    let refused = admin(dir.path(), &["daemon"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("Read-only file system"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn after_a_power_cut_what_it_damaged_is_not_served() {
    let dir = TempDir::new();
    let mut daemon = Daemon::start_in(dir.path());
    let mut build = Build::start(&daemon, dir.path(), "a");
    for action in 0..4 {
        build.put(action, 8192);
    }
    drop(build);
    daemon.kill();
    // What a power cut leaves: another boot, and blocks that were never written.
    let state = daemon.cache_dir().join("state");
    let text = std::fs::read_to_string(&state).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["clean"], false);
    value["boot"] = "another".into();
    std::fs::write(&state, value.to_string()).unwrap();
    let damaged: Vec<_> = files(&daemon.cache_dir().join("outputs"))
        .into_iter()
        .filter(|path| std::fs::read(path).unwrap()[0] % 2 == 0)
        .collect();
    for path in &damaged {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, vec![0xff; 8192]).unwrap();
    }
    let daemon = Daemon::start_in(dir.path());
    let mut build = Build::start(&daemon, dir.path(), "b");
    for action in 0..4 {
        let expected = if action % 2 == 0 { 'm' } else { 'h' };
        assert_eq!(build.peer.get(action), expected, "{action}");
    }
    build.put(0, 8192);
    assert_eq!(build.peer.get(0), 'h');
    drop(build);
    daemon.end();
    assert!(
        std::fs::read_to_string(&state)
            .unwrap()
            .contains("\"clean\":true")
    );
}

#[test]
fn a_newer_format_is_refused_and_an_unknown_one_set_aside() {
    let dir = TempDir::new();
    Daemon::start_in(dir.path()).end();
    let format = dir.path().join("cache/format");
    std::fs::write(&format, "nix-gocacheprog cache, format 7\n").unwrap();
    let refused = admin(dir.path(), &["daemon"]);
    assert!(text(&refused.stderr).contains("format 7"));
    std::fs::write(&format, "something of long ago\n").unwrap();
    std::fs::write(dir.path().join("cache/outputs/gone"), [7; 9000]).unwrap();
    std::fs::write(dir.path().join("cache/builds/kept"), [7; 9000]).unwrap();
    Daemon::start_in(dir.path()).end();
    let aside = std::fs::read_dir(dir.path().join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("/aside-"))
        .unwrap();
    assert_eq!(bytes(dir.path()), 0);
    let stats = admin(dir.path(), &["stats"]);
    assert!(text(&stats.stdout).contains("set aside"), "{stats:?}");
    // The daemon may have begun with it.
    assert!(admin(dir.path(), &["gc", "--all"]).status.success());
    assert!(
        aside.join("builds/kept").exists(),
        "a build of the older daemon's may still run"
    );
    assert!(!aside.join("outputs").exists());
}

/// The files below the shards of a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    list(dir)
        .iter()
        .filter(|path| path.is_dir())
        .flat_map(|shard| list(shard))
        .collect()
}
