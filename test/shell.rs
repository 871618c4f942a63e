//! Outside of Nix builds: a dev shell, with a daemon and without, and `doctor`.

use crate::client::{Client, file, no_daemon};
use crate::support::{Daemon, TempDir, binary, text};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// A client in a dev shell of a user with this home.
fn client(runtime_dir: &Path, home: &Path, args: &[&str]) -> Client {
    let mut command = Command::new(binary());
    command
        .args(["client", "--runtime-dir"])
        .arg(runtime_dir)
        .args(args)
        .env_remove("NIX_BUILD_TOP")
        .env("XDG_CACHE_HOME", home.join("cache"));
    Client::spawn(command)
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn the_commands_of_one_user_go_on_with_one_build_directory_and_those_of_another_have_their_own() {
    let daemon = Daemon::start();
    let (alice, bob) = (TempDir::new(), TempDir::new());
    for _ in 0..3 {
        let mut client = client(&daemon.runtime_dir(), alice.path(), &[]);
        assert_eq!(file(&client.put(1, 1, b"body")), b"body");
        assert_eq!(client.close(), "");
    }
    assert_eq!(entries(&daemon.cache_dir().join("builds")), 1);
    let mut client = client(&daemon.runtime_dir(), bob.path(), &[]);
    assert_eq!(file(&client.get(1, 1)), b"body");
    client.close();
    assert_eq!(entries(&daemon.cache_dir().join("builds")), 2);
}

#[test]
fn a_build_directory_that_the_daemon_has_forgotten_is_replaced_by_a_new_one() {
    let daemon = Daemon::start();
    let alice = TempDir::new();
    let note = alice.path().join("cache/nix-gocacheprog/build");
    std::fs::create_dir_all(note.parent().unwrap()).unwrap();
    for forgotten in ["0123456789abcdef0123456789abcdef", "nonsense"] {
        std::fs::write(&note, forgotten).unwrap();
        let mut client = client(&daemon.runtime_dir(), alice.path(), &[]);
        assert_eq!(file(&client.put(1, 1, b"body")), b"body");
        assert_eq!(client.close(), "");
        assert_ne!(std::fs::read_to_string(&note).unwrap(), forgotten);
    }
}

#[test]
fn without_a_daemon_a_user_has_a_cache_that_lasts() {
    let alice = TempDir::new();
    let named = alice.path().join("named");
    let named = named.to_str().unwrap();
    for args in [&[][..], &["--cache-dir", named]] {
        let mut first = client(&no_daemon(), alice.path(), args);
        let path = first.put(1, 1, b"body");
        first.close();
        let mut second = client(&no_daemon(), alice.path(), args);
        // In a folder of its own, from which `go` may move it.
        let again = second.get(1, 1);
        assert_ne!(again["DiskPath"], path["DiskPath"]);
        assert_eq!(file(&again), b"body");
        assert_eq!(second.get(2, 2)["Miss"], true);
        second.close();
        assert_eq!(file(&path), b"body");
    }
    assert!(Path::new(named).join("outputs").is_dir());
    assert!(alice.path().join("cache/nix-gocacheprog/outputs").is_dir());
}

#[test]
fn doctor_says_what_is_right_and_what_is_wrong() {
    let doctor = |runtime_dir: &Path, cache_dir: &Path, json: bool| {
        let mut command = Command::new(binary());
        command.arg("doctor").arg("--runtime-dir").arg(runtime_dir);
        command.arg("--cache-dir").arg(cache_dir);
        if json {
            command.arg("--json");
        }
        command.output().unwrap()
    };
    let daemon = Daemon::start();
    let output = doctor(&daemon.runtime_dir(), &daemon.cache_dir(), true);
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let about = |check: &str| {
        let about = findings.iter().filter(|finding| finding["check"] == check);
        about
            .map(|finding| finding["state"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(about("sockets"), ["right", "right"]);
    assert_eq!(about("daemon"), ["right"]);
    assert_eq!(
        entries(&daemon.cache_dir().join("builds")),
        0,
        "it registers no build"
    );

    // One cause, one line, one fix.
    let output = doctor(&no_daemon(), Path::new("/nonexistent/cache"), false);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.starts_with("✗ installation"), "{said}");
    assert_eq!(said.matches("fix: ").count(), 1, "{said}");

    let half = TempDir::new();
    std::fs::create_dir_all(half.path().join("build")).unwrap();
    std::fs::write(half.path().join("build/sock"), "").unwrap();
    let output = doctor(half.path(), Path::new("/nonexistent/cache"), false);
    let said = text(&output.stdout);
    assert!(
        said.contains("✗ sockets") && !said.contains("✗ cache"),
        "{said}"
    );
}

#[test]
fn doctor_waits_for_a_hung_daemon_once() {
    let run = TempDir::new();
    let sockets = [("build", 0o666), ("control", 0o600)].map(|(name, mode)| {
        let socket = run.path().join(name).join("sock");
        std::fs::create_dir(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, Permissions::from_mode(mode)).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let output = Command::new(binary())
        .args(["doctor", "--runtime-dir"])
        .arg(run.path())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("✗ daemon"), "{said}");
    let mut questions = 0;
    for socket in &sockets {
        while socket.accept().is_ok() {
            questions += 1;
        }
    }
    assert_eq!(questions, 1, "each question costs a wait: {said}");
}
