//! The daemon: what peers may say to it, what it survives, how it starts and ends.

use crate::peer::{Peer, body_of, get_frame, put_frame};
use crate::support::{BUILDER, Daemon, TempDir, activated, binary};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn what_was_put_is_a_hit_and_appears_in_the_build_directory_of_who_asks() {
    let daemon = Daemon::start();
    let (body, name) = body_of("a body");
    let mut first = Peer::connect(&daemon);
    assert_eq!(first.get(1), 'm');
    assert_eq!(first.put(1, &body), 's');
    let mut second = Peer::connect(&daemon);
    assert_eq!(second.files(), [""; 0], "nothing was asked for yet");
    assert_eq!(second.get(1), 'h');
    assert_eq!(second.files(), [name.as_str()]);
    assert_eq!(std::fs::read(second.directory.join(name)).unwrap(), body);
    assert_ne!(first.build, second.build);
}

#[test]
fn a_get_of_several_actions_finds_the_first_that_there_is() {
    let daemon = Daemon::start();
    let mut peer = Peer::connect(&daemon);
    assert_eq!(peer.put(2, b"two"), 's');
    assert_eq!(peer.get_first(&[1, 2]), 'h');
    assert_eq!(peer.get_first(&[2, 1]), 'h');
    assert_eq!(peer.get_first(&[1, 3, 4]), 'm');
    // Each is one get, whatever it names.
    drop(peer);
    let session = daemon.session_end();
    assert_eq!((session.gets, session.hits), (3, 2), "{session:?}");
}

#[test]
fn a_refused_put_leaves_nothing_and_the_session_goes_on() {
    let daemon = Daemon::start();
    let mut peer = Peer::connect(&daemon);
    let wrong = Sha256::digest(b"something else");
    peer.send(&put_frame(1, &wrong, 4));
    peer.send(b"body");
    assert_eq!(peer.answer(), 'r');
    assert_eq!(peer.get(1), 'm');
    assert_eq!(peer.put(1, b"body"), 's');
    assert_eq!(peer.get(1), 'h');
    assert_eq!(peer.files().len(), 1);
}

#[test]
fn a_bad_peer_ends_only_its_own_session() {
    let daemon = Daemon::start();
    let mut good = Peer::connect(&daemon);
    assert_eq!(good.put(1, b"body"), 's');

    for hello in [
        "not JSON",
        "[]",
        "{}",
        r#"{"version":"one"}"#,
        r#"{"version":999}"#,
        r#"{"version":1,"build":""}"#,
        r#"{"version":1,"build":".."}"#,
        r#"{"version":1,"build":"../../etc"}"#,
        r#"{"version":1,"build":"00000000000000000000000000000000"}"#,
        r#"{"version":1,"build":17}"#,
    ] {
        assert!(Peer::hello(&daemon, hello).is_err(), "{hello}");
        assert_eq!(good.get(1), 'h', "{hello}");
    }

    let half_a_put = {
        let mut frame = put_frame(2, &Sha256::digest(b"body"), 4);
        frame.extend(b"bo");
        frame
    };
    for frame in [
        b"{\"ID\":1,\"Command\":\"get\",\"ActionID\":\"AAAA\"}\n".to_vec(),
        b"x".to_vec(),
        vec![0; 100],
        get_frame(1)[..20].to_vec(),
        put_frame(2, &[0; 32], u64::MAX),
        half_a_put,
    ] {
        let mut bad = Peer::connect(&daemon);
        bad.send(&frame);
        bad.stream.get_ref().shutdown(Shutdown::Write).unwrap();
        assert_eq!(bad.answer(), '-', "{frame:?}");
        assert_eq!(good.get(1), 'h', "{frame:?}");
        assert_eq!(good.get(2), 'm', "{frame:?}");
    }
}

#[test]
fn a_hundred_megabytes_without_a_newline_are_refused_in_bounded_memory() {
    let daemon = Daemon::start();
    let mut good = Peer::connect(&daemon);
    let before = daemon.peak_memory();
    for socket in ["build/sock", "control/sock"] {
        let mut stream = UnixStream::connect(daemon.runtime_dir().join(socket)).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        // The daemon may hang up in the middle, and should.
        let _ = (0..100).try_for_each(|_| stream.write_all(&chunk));
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert_eq!(good.get(1), 'm');
    }
    let grown = daemon.peak_memory() - before;
    assert!(grown < 4 << 20, "memory grew by {grown} bytes");
}

#[test]
fn the_control_socket_answers_nonsense_with_an_error() {
    let daemon = Daemon::start();
    for question in [
        "nonsense\n",
        "{\"ask\":\"frobnicate\"}\n",
        "{}\n",
        "{\"ask\":\"register\"",
    ] {
        let mut stream = UnixStream::connect(daemon.runtime_dir().join("control/sock")).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"failed\""), "{question}: {answer}");
    }
}

#[test]
fn a_body_of_a_gigabyte_takes_no_memory() {
    let daemon = Daemon::start();
    let mut peer = Peer::connect(&daemon);
    assert_eq!(peer.put(1, b"warm up"), 's');
    let before = daemon.peak_memory();
    let chunk = vec![0x5a; 1 << 20];
    let mut hash = Sha256::new();
    for _ in 0..1024 {
        hash.update(&chunk);
    }
    peer.send(&put_frame(2, &hash.finalize(), 1 << 30));
    for _ in 0..1024 {
        peer.send(&chunk);
    }
    assert_eq!(peer.answer(), 's');
    let grown = daemon.peak_memory() - before;
    assert!(grown < 8 << 20, "memory grew by {grown} bytes");
}

#[test]
fn a_running_request_is_finished_before_the_daemon_ends() {
    let mut daemon = Daemon::start();
    let (body, name) = body_of("a body that comes in two halves");
    let mut idle = Peer::connect(&daemon);
    assert_eq!(idle.get(1), 'm');
    let mut busy = Peer::connect(&daemon);
    let (one, two) = body.split_at(10);
    busy.send(&put_frame(1, &Sha256::digest(&body), body.len() as u64));
    busy.send(one);
    // The put has begun once its temporary file is there.
    daemon.wait_until("the put has begun", || daemon.unfinished() == 1);
    daemon.terminate();
    assert_eq!(
        idle.answer(),
        '-',
        "a session between two requests ends at once"
    );
    busy.send(two);
    assert_eq!(busy.answer(), 's');
    assert_eq!(busy.answer(), '-');
    assert!(busy.directory.join(name).exists());
    assert!(daemon.wait().success());
}

#[test]
fn a_second_daemon_on_the_same_cache_or_sockets_says_who_is_there() {
    let daemon = Daemon::start();
    let other = TempDir::new();
    let refused = |cache: &std::path::Path, runtime: &std::path::Path| {
        let output = Command::new(binary())
            .args(["daemon", "--cache-dir"])
            .arg(cache)
            .arg("--runtime-dir")
            .arg(runtime)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(&daemon.cache_dir(), &other.path().join("run"));
    assert!(text.contains("in use by another daemon"), "{text}");
    let text = refused(&other.path().join("cache"), &daemon.runtime_dir());
    assert!(text.contains("another daemon listens"), "{text}");
    assert_eq!(Peer::connect(&daemon).get(1), 'm');
}

#[test]
fn a_restarted_daemon_knows_the_builds_and_outputs_of_the_one_before() {
    let mut daemon = Daemon::start_for_builder();
    let mut peer = Peer::hello_as(&daemon, BUILDER, r#"{"version":1}"#).unwrap();
    assert_eq!(peer.put(1, b"body"), 's');
    let (build, files) = (peer.build.clone(), peer.files());
    daemon.restart();
    let hello = format!(r#"{{"version":1,"build":"{build}"}}"#);
    let mut peer = Peer::hello_as(&daemon, BUILDER, &hello).unwrap();
    assert_eq!(peer.build, build);
    assert_eq!(peer.files(), files, "no file is taken from a running build");
    assert_eq!(peer.get(1), 'h');
}

#[test]
fn sockets_from_systemd_are_used_and_an_idle_daemon_ends() {
    let dir = TempDir::new();
    let bind = |name: &str| {
        let path = dir.path().join(name);
        (UnixListener::bind(&path).unwrap(), path)
    };
    let (build, build_path) = bind("b");
    let (control, control_path) = bind("c");
    let mut child = activated(control, build)
        .args(["--idle-exit", "1s", "--cache-dir"])
        .arg(dir.path().join("cache"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = UnixStream::connect(&build_path).unwrap();
    stream.write_all(b"{\"version\":1}\n").unwrap();
    let mut welcome = [0; 12];
    stream.read_exact(&mut welcome).unwrap();
    assert_eq!(&welcome, b"{\"version\":1");
    // A question that takes longer than that is answered all the same.
    let mut asking = UnixStream::connect(&control_path).unwrap();
    drop(stream);
    std::thread::sleep(Duration::from_secs(3));
    asking.write_all(b"{\"ask\":\"live\"}\n").unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"live\""), "{answer}");
    assert!(child.wait().unwrap().success());
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(log.contains("idle"), "{log}");
    assert!(build_path.exists(), "systemd's sockets stay");
}

#[test]
fn a_stolen_build_id_takes_no_file_from_the_build_it_was_stolen_from() {
    let daemon = Daemon::start_for_builder();
    let mut owner = Peer::hello_as(&daemon, BUILDER, r#"{"version":1}"#).unwrap();
    let (body, name) = body_of("the owner's");
    assert_eq!(owner.put(1, &body), 's');
    let hello = format!(r#"{{"version":1,"build":"{}"}}"#, owner.build);
    let mut thief = Peer::hello_as(&daemon, BUILDER, &hello).unwrap();
    let (other, other_name) = body_of("the thief's");
    // The same action, and the same output with other bytes.
    assert_eq!(thief.put(1, &other), 's');
    thief.send(&put_frame(2, &Sha256::digest(&body), other.len() as u64));
    thief.send(&other);
    assert_eq!(thief.answer(), 'r');
    drop(thief);
    let mut files = owner.files();
    files.sort_unstable();
    let mut expected = [name.clone(), other_name];
    expected.sort_unstable();
    assert_eq!(files, expected, "a thief can add, as the build itself can");
    assert_eq!(std::fs::read(owner.directory.join(name)).unwrap(), body);
    assert_eq!(owner.put(3, b"more"), 's');
}

#[test]
fn a_remote_whose_credentials_come_late_is_taken_up_while_the_daemon_runs() {
    let dir = TempDir::new();
    let file = dir.path().join("credentials");
    let args = [
        "--remote",
        "http://127.0.0.1:9",
        "--remote-credentials",
        file.to_str().unwrap(),
    ];
    let daemon = Daemon::start_with(dir.path(), &args);
    let has_remote = || !daemon.stats()["remote"].is_null();
    assert!(!has_remote());
    // A session that is open goes on.
    let mut peer = Peer::connect(&daemon);
    assert_eq!(peer.put(1, b"body"), 's');
    std::fs::write(&file, "me:word").unwrap();
    daemon.wait_until("the remote is taken up", has_remote);
    assert_eq!(peer.get(1), 'h');
}
