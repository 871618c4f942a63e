//! Who feeds whose builds: real clients of several users on one daemon. Takes root.

use crate::client::{Client, by_go, file};
use crate::support::{Daemon, TempDir};
use serde_json::Value;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Users that no machine has.
const DAEMON: u32 = 30_880;
const ALICE: u32 = 30_881;
const BOB: u32 = 30_882;

/// One that Nix allocates for a build.
const BUILD_USER: u32 = 872_415_233;

/// A client of this user, in a build of its own.
fn client(daemon: &Daemon, top: &TempDir, user: u32) -> Client {
    let build = top.path().join(user.to_string());
    if !build.exists() {
        std::fs::create_dir(&build).unwrap();
        chown(&build, Some(user), Some(user)).expect("root");
    }
    let mut command = by_go("build");
    command
        .args(["client", "--runtime-dir"])
        .arg(daemon.runtime_dir())
        .env("NIX_BUILD_TOP", &build)
        .env_remove("IN_NIX_SHELL")
        .uid(user)
        .gid(user);
    Client::spawn(command)
}

fn is_miss(answer: &Value) -> bool {
    answer["Miss"] == Value::Bool(true)
}

#[test]
fn what_a_user_puts_no_build_of_nix_and_no_other_user_gets() {
    let daemon = Daemon::start_as(DAEMON);
    let top = TempDir::new();
    let mut alice = client(&daemon, &top, ALICE);
    alice.put(1, 7, b"alice's");
    assert_eq!(file(&alice.get(2, 7)), b"alice's");
    for user in [BOB, BUILD_USER, 0] {
        let mut other = client(&daemon, &top, user);
        assert!(is_miss(&other.get(1, 7)), "{user}");
        assert_eq!(other.close(), "", "it went alone");
    }
    assert_eq!(alice.close(), "", "it went alone");
    let mut later = client(&daemon, &top, ALICE);
    assert_eq!(file(&later.get(1, 7)), b"alice's");
    assert_eq!(later.close(), "", "it went alone");
}

#[test]
fn everybody_gets_what_builds_of_nix_have_put_and_replaces_nothing_of_it() {
    let daemon = Daemon::start_as(DAEMON);
    let top = TempDir::new();
    let mut build = client(&daemon, &top, BUILD_USER);
    build.put(1, 8, b"the build's");
    let mut alice = client(&daemon, &top, ALICE);
    assert_eq!(file(&alice.get(1, 8)), b"the build's");
    alice.put(2, 8, b"something else");
    assert_eq!(file(&alice.get(3, 8)), b"something else");
    for user in [BUILD_USER, BOB, 0] {
        let mut other = client(&daemon, &top, user);
        assert_eq!(file(&other.get(1, 8)), b"the build's", "{user}");
        assert_eq!(other.close(), "", "it went alone");
    }
    assert_eq!(alice.close(), "", "it went alone");
    assert_eq!(build.close(), "", "it went alone");
}

#[test]
fn a_trusted_user_feeds_builds_of_nix() {
    let dir = TempDir::new();
    let daemon = Daemon::start_with(dir.path(), &["--trusted-user", &ALICE.to_string()]);
    let top = TempDir::new();
    let mut alice = client(&daemon, &top, ALICE);
    alice.put(1, 9, b"alice's");
    assert_eq!(alice.close(), "", "it went alone");
    let mut build = client(&daemon, &top, BUILD_USER);
    assert_eq!(file(&build.get(1, 9)), b"alice's");
    assert_eq!(build.close(), "", "it went alone");
    daemon.end();
}

/// A hello of this user on the build socket, by way of Perl; gives the daemon's answer.
fn hello(daemon: &Daemon, user: u32, hello: &str) -> String {
    let script = "my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; print $s \"$ARGV[1]\\n\"; \
                  $s->flush; print scalar <$s>";
    let output = Command::new("perl")
        .args(["-MIO::Socket::UNIX", "-e", script])
        .arg(daemon.runtime_dir().join("build/sock"))
        .arg(hello)
        .uid(user)
        .gid(user)
        .output()
        .expect("perl, which Debian's perl-base has");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_build_id_that_another_user_has_read_opens_nothing() {
    let daemon = Daemon::start_as(DAEMON);
    let registered = register(&daemon, "hello-1.0");
    let hello_of = format!("{{\"version\":1,\"build\":\"{registered}\",\"shared\":true}}");
    // Not even before the build has said anything.
    assert!(hello(&daemon, ALICE, &hello_of).contains("has no build of that ID"));
    let ours = hello(&daemon, BUILD_USER, &hello_of);
    assert!(
        ours.contains(&registered) && !ours.contains("error"),
        "{ours}"
    );
    for user in [BUILD_USER + 1, ALICE] {
        let answer = hello(&daemon, user, &hello_of);
        assert!(answer.contains("error"), "{answer}");
    }
    let sum = format!("{{\"version\":1,\"build\":\"{registered}\",\"summary\":true}}");
    assert!(!hello(&daemon, ALICE, &sum).contains("\"hits\":1"));
}

/// Registers a build as the hook does it; gives its ID.
fn register(daemon: &Daemon, name: &str) -> String {
    let socket = daemon.runtime_dir().join("control/sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let ask = serde_json::json!({"ask": "register", "name": name});
    std::io::Write::write_all(&mut stream, format!("{ask}\n").as_bytes()).unwrap();
    let reply: Value = serde_json::from_reader(stream).unwrap();
    reply["build"].as_str().unwrap().to_string()
}
