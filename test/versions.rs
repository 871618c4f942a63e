//! A client and a daemon of different releases.

use crate::client::{Client, file};
use crate::peer::Peer;
use crate::support::{Daemon, TempDir, binary};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// A daemon of another release: it answers one hello with this welcome, and waits for the end.
fn other_daemon(runtime_dir: &Path, welcome: &'static str) {
    std::fs::create_dir_all(runtime_dir.join("build")).unwrap();
    let listener = UnixListener::bind(runtime_dir.join("build/sock")).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(&stream).lines();
        lines.next().unwrap().unwrap();
        (&stream).write_all(welcome.as_bytes()).unwrap();
        while let Some(Ok(_)) = lines.next() {}
    });
}

#[test]
fn a_daemon_of_another_protocol_is_named_and_the_build_goes_on() {
    for welcome in [
        // One that looks at our version, and one that does not.
        "{\"version\":2,\"error\":\"it speaks version 2\"}\n",
        "{\"version\":2,\"release\":\"9.9\",\"build\":\"0123456789abcdef0123456789abcdef\",\"directory\":\"/tmp\"}\n",
    ] {
        let dir = TempDir::new();
        other_daemon(dir.path(), welcome);
        let mut command = Command::new(binary());
        command.args(["client", "--runtime-dir"]).arg(dir.path());
        command
            .env("NIX_BUILD_TOP", dir.path())
            .env_remove("IN_NIX_SHELL");
        let mut client = Client::spawn(command);
        assert_eq!(file(&client.put(1, 1, b"body")), b"body");
        assert_eq!(file(&client.get(2, 1)), b"body");
        let said = client.close();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("version 2"), "{said}");
        assert!(said.contains("goes on without the shared cache"), "{said}");
    }
}

#[test]
fn a_client_of_another_protocol_is_told_so_and_one_with_more_to_say_is_served() {
    let daemon = Daemon::start();
    let refused = Peer::hello(&daemon, r#"{"version":2,"name":"newer"}"#)
        .err()
        .unwrap();
    assert!(
        refused.contains("version 2") && refused.contains("same release"),
        "{refused}"
    );
    let newer = r#"{"version":1,"name":"newer","colour":"blue","more":{"and":["more"]}}"#;
    let mut peer = Peer::hello(&daemon, newer).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(peer.put(1, b"body"), 's');
    assert_eq!(peer.get(1), 'h');
}
