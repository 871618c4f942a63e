//! `export` and `import`: from one machine's daemon to another's, with signatures and without.

use crate::peer::Peer;
use crate::support::{Daemon, TempDir, binary, text};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SECRET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test/data/keys/test-1.secret");
const PUBLIC: &str = include_str!("data/keys/test-1.public");
const OTHER: &str = include_str!("data/keys/test-2.public");

fn body(action: u8) -> Vec<u8> {
    format!("what action {action} has\n")
        .repeat(100)
        .into_bytes()
}

fn build(daemon: &Daemon, name: &str) -> Peer {
    let hello = serde_json::json!({"version": 1, "name": name, "shared": true});
    Peer::hello(daemon, &hello.to_string()).unwrap()
}

fn lists(daemon: &Daemon) -> usize {
    let Ok(entries) = std::fs::read_dir(daemon.cache_dir().join("lists")) else {
        return 0;
    };
    // One that is being written has an extension.
    let names = entries.map(|entry| PathBuf::from(entry.unwrap().file_name()));
    names.filter(|name| name.extension().is_none()).count()
}

/// A machine on which builds of two names have used actions, one of them both.
fn full() -> Daemon {
    let daemon = Daemon::start();
    for (name, actions) in [("hello-1", 0..20), ("world-2", 15..30)] {
        let mut peer = build(&daemon, name);
        for action in actions {
            if peer.get(action) != 'h' {
                assert_eq!(peer.put(action, &body(action)), 's');
            }
        }
    }
    daemon.wait_until("both builds are in the history", || lists(&daemon) == 2);
    daemon
}

fn run(daemon: &Daemon, args: &[&str], file: &Path) -> Output {
    Command::new(binary())
        .args(args)
        .arg(file)
        .arg("--runtime-dir")
        .arg(daemon.runtime_dir())
        .output()
        .unwrap()
}

fn succeeds(output: &Output, says: &str) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains(says), "{said}");
}

fn fails(output: &Output, says: &str) {
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains(says), "{said}");
}

#[test]
fn what_is_exported_is_there_after_an_import_with_its_history() {
    let dir = TempDir::new();
    let (file, again) = (dir.path().join("first.zst"), dir.path().join("again.zst"));
    let both = ["export", "--builds", "hello-1", "--builds", "world-2"];
    let first = full();
    succeeds(&run(&first, &both, &file), "exported 30 outputs");
    let one = run(&first, &["export", "--builds", "world-3"], &again);
    succeeds(&one, "exported 15 outputs");
    let none = ["export", "--builds", "hello-1", "--builds", "nobody"];
    fails(&run(&first, &none, &again), "no build of nobody is known");
    fails(&run(&first, &["export"], &again), "--builds NAME");
    first.end();

    let second = Daemon::start();
    succeeds(&run(&second, &["import"], &file), "imported 30 outputs");
    let mut peer = build(&second, "other");
    for action in 0..30 {
        assert_eq!(peer.get(action), 'h', "{action}");
    }
    drop(peer);
    // The second name's builds use what came with the first one's, too.
    let world = ["export", "--builds", "world-2"];
    second.wait_until("the history is there", || {
        text(&run(&second, &world, &again).stdout).contains("exported 15 outputs")
    });
    succeeds(&run(&second, &["import"], &file), "imported 30 outputs");
    second.end();
}

#[test]
fn an_import_takes_nothing_that_is_not_signed_or_not_whole() {
    let dir = TempDir::new();
    let file = dir.path().join("export.zst");
    let first = full();
    let second = Daemon::start();
    let import = ["import", "--trusted-public-keys", PUBLIC.trim()];
    run(&first, &["export", "--builds", "hello-1"], &file);
    fails(&run(&second, &import, &file), "no trusted key has signed");
    let signed = ["export", "--builds", "hello-1", "--secret-key-file", SECRET];
    succeeds(&run(&first, &signed, &file), ", signed");
    let other = ["import", "--trusted-public-keys", OTHER.trim()];
    fails(&run(&second, &other, &file), "no trusted key has signed");
    assert_eq!(second.actions(), 0);

    // The last body is another one, with the signatures as they were.
    let plain = zstd::decode_all(&std::fs::read(&file).unwrap()[..]).unwrap();
    let mut changed = plain.clone();
    let at = changed.len() - 5;
    changed[at] ^= 1;
    let pack = |bytes: &[u8]| std::fs::write(&file, zstd::encode_all(bytes, 1).unwrap()).unwrap();
    pack(&changed);
    fails(&run(&second, &import, &file), "the daemon");
    assert_eq!(second.actions(), 19);
    pack(&plain[..plain.len() - 1]);
    fails(&run(&second, &import, &file), "cannot read");
    pack(b"something else");
    fails(&run(&second, &import, &file), "not written by");
    pack(&plain);
    succeeds(&run(&second, &import, &file), "imported 20 outputs");
    assert_eq!(second.actions(), 20);
    first.end();
    second.end();
}

#[test]
fn an_import_is_for_root_alone() {
    let output = Command::new(binary())
        .args(["import", "/nowhere"])
        .uid(65534)
        .output()
        .unwrap();
    fails(&output, "this needs root");
}
