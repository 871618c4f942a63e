//! A remote behind daemons: what goes there and comes from there, and what does not. The server is a small one of the
//! tests' own, which can be made to wait; `test/remote` does it with real servers and real `go`.

use crate::peer::{Peer, get_frame, put_frame};
use crate::support::{Daemon, TempDir, binary, text};
use crate::upstream::{self, Upstream};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

/// A server that keeps what is PUT.
struct Shelf {
    url: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// `GET /cas/…` and the like, in their order.
    requests: Vec<String>,
    /// No entry is answered while this is so.
    is_slow: bool,
    /// Whatever is asked, this is the answer.
    refusal: Option<&'static str>,
}

impl Shelf {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let shelf = Self {
            url,
            state: Arc::clone(&state),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        shelf
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    fn be_slow(&self, is_slow: bool) {
        self.state().is_slow = is_slow;
        self.state.1.notify_all();
    }

    /// How many requests there were that begin so.
    fn count(&self, start: &str) -> usize {
        let state = self.state();
        state
            .requests
            .iter()
            .filter(|r| r.starts_with(start))
            .count()
    }

    /// Whether it was given an output with these bytes.
    fn has(&self, body: &[u8]) -> bool {
        self.state().files.values().any(|file| file == body)
    }
}

fn serve(stream: &TcpStream, state: &(Mutex<State>, Condvar)) {
    let mut reader = BufReader::new(stream);
    let mut to = stream;
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mut kept = state.0.lock().unwrap();
        kept.requests.push(format!("{method} {path}"));
        let found = kept.files.get(path).cloned();
        let (status, body) = match (method, found) {
            _ if kept.refusal.is_some() => (kept.refusal.unwrap(), Vec::new()),
            ("PUT", _) => {
                kept.files.insert(path.into(), body);
                ("201 Created", Vec::new())
            }
            (_, Some(body)) => ("200 OK", body),
            _ => ("404 Not Found", Vec::new()),
        };
        if method == "GET" && path.starts_with("/ac/") {
            kept = state.1.wait_while(kept, |state| state.is_slow).unwrap();
        }
        drop(kept);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let body = if method == "HEAD" { &[][..] } else { &body };
        if to.write_all(&[head.as_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

/// A machine with a daemon that has this remote.
struct Machine {
    daemon: Daemon,
    dir: TempDir,
}

impl Machine {
    fn start(shelf: &Shelf, mode: &str) -> Self {
        let dir = TempDir::new();
        let daemon =
            Daemon::start_with(dir.path(), &["--remote", &shelf.url, "--remote-mode", mode]);
        Self { daemon, dir }
    }

    fn peer(&self, name: &str) -> Peer {
        let hello = serde_json::json!({"version": 1, "name": name, "shared": true});
        Peer::hello(&self.daemon, &hello.to_string()).unwrap()
    }

    fn remote(&self, what: &str) -> u64 {
        let output = Command::new(binary())
            .args(["stats", "--json", "--runtime-dir"])
            .arg(self.daemon.runtime_dir())
            .output()
            .unwrap();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        told["remote"][what].as_u64().unwrap()
    }

    fn wait_for_uploads(&self) {
        self.daemon
            .wait_until("all is uploaded", || self.remote("queue") == 0);
    }
}

#[test]
fn what_one_machine_puts_another_one_gets() {
    let shelf = Shelf::start();
    let first = Machine::start(&shelf, "read-write");
    let mut peer = first.peer("a");
    assert_eq!(peer.put(1, b"an output"), 's');
    assert_eq!(peer.put(2, b""), 's');
    first.wait_for_uploads();
    assert!(shelf.has(b"an output"));
    let puts: Vec<_> = shelf.state().requests.clone();
    let at = |start: &str| puts.iter().position(|r| r.starts_with(start)).unwrap();
    assert!(
        at("PUT /cas/") < at("PUT /ac/"),
        "the output goes first: {puts:?}"
    );

    let second = Machine::start(&shelf, "read-write");
    let mut peer = second.peer("b");
    assert_eq!(peer.get(1), 'h');
    assert_eq!(peer.get(2), 'h');
    assert_eq!(peer.get(3), 'm');
    assert_eq!(peer.files().len(), 2);
    assert_eq!((second.remote("hits"), second.remote("misses")), (2, 1));
    drop(peer);
    let session = second.daemon.session_end();
    assert_eq!((session.gets, session.hits, session.misses), (3, 2, 1));
    // What came from there is not sent back.
    second.wait_for_uploads();
    assert_eq!(second.remote("uploads"), 0);
    // From now on it is here.
    let before = shelf.count("GET /cas/");
    assert_eq!(second.peer("").get(1), 'h');
    assert_eq!(shelf.count("GET /cas/"), before);
}

#[test]
fn a_slow_answer_holds_up_no_other_request() {
    let shelf = Shelf::start();
    let machine = Machine::start(&shelf, "read-write");
    let mut peer = machine.peer("");
    shelf.be_slow(true);
    peer.send(&get_frame(1));
    // On the same session, and on another one.
    assert_eq!(peer.put(2, b"x"), 's');
    assert_eq!(peer.get(2), 'h');
    assert_eq!(machine.peer("").put(3, b"y"), 's');
    // A session that ends meanwhile leaves the others alone.
    let mut gone = machine.peer("");
    gone.send(&get_frame(1));
    drop(gone);
    shelf.be_slow(false);
    assert_eq!(peer.answer(), 'm');
    assert_eq!(peer.get(3), 'h');
}

#[test]
fn a_server_that_says_nothing_costs_a_get_a_bounded_time() {
    let shelf = Shelf::start();
    let machine = Machine::start(&shelf, "read");
    shelf.be_slow(true);
    let mut peer = machine.peer("");
    assert_eq!(peer.get(1), 'm');
    // The patience of this build is used up: nobody is asked.
    let asked = shelf.count("GET /ac/");
    assert_eq!(peer.get(2), 'm');
    assert_eq!(shelf.count("GET /ac/"), asked);
    shelf.be_slow(false);
}

#[test]
fn a_mode_that_only_reads_sends_nothing_and_one_that_only_writes_asks_nothing() {
    let shelf = Shelf::start();
    let writer = Machine::start(&shelf, "write");
    let mut peer = writer.peer("x-1.0");
    assert_eq!(peer.get(1), 'm');
    assert_eq!(peer.put(1, b"output"), 's');
    drop(peer);
    writer.daemon.session_end();
    writer.wait_for_uploads();
    // Its own questions are whether something is there already.
    assert_eq!(shelf.count("GET /cas/"), 0);
    let sent = shelf.count("PUT ");
    let reader = Machine::start(&shelf, "read");
    let mut peer = reader.peer("x-1.1");
    assert_eq!(peer.get(1), 'h');
    assert_eq!(peer.put(2, b"another"), 's');
    drop(peer);
    reader.daemon.session_end();
    reader.daemon.end();
    assert_eq!(shelf.count("PUT "), sent);
}

#[test]
fn a_client_that_does_not_say_that_it_shares_does_not() {
    let shelf = Shelf::start();
    let machine = Machine::start(&shelf, "read-write");
    let mut old = Peer::connect(&machine.daemon);
    assert_eq!(old.get(1), 'm');
    assert_eq!(old.put(1, b"of an older client"), 's');
    drop(old);
    let mut new = machine.peer("");
    assert_eq!(new.put(2, b"of this one"), 's');
    machine.wait_for_uploads();
    assert!(shelf.has(b"of this one") && !shelf.has(b"of an older client"));
}

#[test]
fn what_builds_of_a_name_have_used_is_there_before_they_ask() {
    let shelf = Shelf::start();
    let first = Machine::start(&shelf, "read-write");
    let mut peer = first.peer("program-1.0");
    for action in 0..50 {
        assert_eq!(peer.put(action, &[action; 1000]), 's');
    }
    drop(peer);
    first.daemon.session_end();
    // The list goes when all that it names is there.
    first.daemon.wait_until("the list is there", || {
        let state = shelf.state();
        let is_list = |file: &Vec<u8>| file.starts_with(b"nix-gocacheprog list");
        state.files.values().any(is_list)
    });
    let second = Machine::start(&shelf, "read");
    let mut peer = second.peer("program-1.1");
    second
        .daemon
        .wait_until("all is read ahead", || second.remote("ahead") == 50);
    assert_eq!(second.daemon.actions(), 50);
    assert_eq!(peer.files().len(), 0, "a build sees what it asks for");
    assert_eq!(peer.get(7), 'h');
    assert_eq!(peer.files().len(), 1);
    assert_eq!(second.remote("hits"), 0);
}

#[test]
fn an_upload_that_is_cut_short_by_the_daemons_end_is_done_by_the_next_one() {
    let dir = TempDir::new();
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nowhere.local_addr().unwrap());
    drop(nowhere);
    let daemon = Daemon::start_with(dir.path(), &["--remote", &url]);
    let hello = r#"{"version":1,"shared":true}"#;
    assert_eq!(Peer::hello(&daemon, hello).unwrap().put(1, b"late"), 's');
    daemon.end();
    let shelf = Shelf::start();
    let daemon = Daemon::start_with(dir.path(), &["--remote", &shelf.url]);
    daemon.wait_until("it is uploaded", || shelf.has(b"late"));
}

#[test]
fn modules_go_the_same_way_unless_credentials_were_needed() {
    let shelf = Shelf::start();
    let machine = Machine::start(&shelf, "read-write");
    let upstream = Upstream::start(upstream::module);
    let private = Upstream::start_tls(|asked, to| {
        if asked.head.to_lowercase().contains("authorization: basic") {
            upstream::module(asked, to)
        } else {
            upstream::reply(to, "401 Unauthorized", "", b"")
        }
    });
    let path = "/example.test/m/@v/v1.0.0.mod";
    let public_key = shelf.count("PUT /cas/");
    let ask = |list: &str| {
        let mut proxy = Command::new(binary())
            .arg("proxy")
            .arg("--runtime-dir")
            .arg(machine.daemon.runtime_dir())
            .env("GOPROXY", list)
            .env("HOME", machine.dir.path())
            .env(
                "SSL_CERT_FILE",
                concat!(env!("CARGO_MANIFEST_DIR"), "/test/data/tls/ca.pem"),
            )
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(proxy.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        let reply = upstream::get(url.trim(), path);
        proxy.kill().unwrap();
        proxy.wait().unwrap();
        reply
    };
    let with_password = private.url.replace("https://", "https://me:secret@");
    assert_eq!(ask(&with_password).status, 200);
    machine.wait_for_uploads();
    assert_eq!(shelf.count("PUT "), public_key, "it stays here");
    assert_eq!(ask(&upstream.url).status, 200);
    machine.wait_for_uploads();
    machine.daemon.wait_until("the module is there", || {
        shelf.has(&upstream::file(path).unwrap())
    });
    // One that is asked after a private one tells what that does not have.
    let before = shelf.count("PUT /ac/");
    assert_eq!(
        ask(&format!("{with_password},{}", upstream.url)).status,
        200
    );
    machine.wait_for_uploads();
    assert_eq!(shelf.count("PUT /ac/"), before);
}

#[test]
fn a_server_that_refuses_all_questions_is_left_alone_and_doctor_says_what_it_wants() {
    for (refusal, wants) in [
        ("400 Bad Request", "--remote-cert"),
        ("401 Unauthorized", "--remote-credentials"),
    ] {
        let shelf = Shelf::start();
        shelf.state().refusal = Some(refusal);
        let machine = Machine::start(&shelf, "read");
        let mut peer = machine.peer("");
        for n in 0..100 {
            assert_eq!(peer.get(n), 'm');
        }
        let asked = shelf.count("GET /ac/");
        assert!(asked < 50, "{asked} of 100 questions were asked");
        let (state, text) = doctor(&machine);
        assert_eq!(state, "wrong");
        assert!(text.contains(wants), "{text}");
    }
}

/// What doctor says of the remote: its mark, and all of it.
fn doctor(machine: &Machine) -> (String, String) {
    let output = Command::new(binary())
        .args(["doctor", "--json", "--runtime-dir"])
        .arg(machine.daemon.runtime_dir())
        .arg("--cache-dir")
        .arg(machine.daemon.cache_dir())
        .output()
        .unwrap();
    let found: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let remote = found.iter().find(|f| f["check"] == "remote").unwrap();
    (remote["state"].as_str().unwrap().into(), remote.to_string())
}

#[test]
fn doctor_says_whether_the_remote_answers() {
    let state = |machine: &Machine| doctor(machine).0;
    let shelf = Shelf::start();
    assert_eq!(state(&Machine::start(&shelf, "read")), "right");
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = Shelf {
        url: format!("http://{}", nowhere.local_addr().unwrap()),
        state: Arc::default(),
    };
    drop(nowhere);
    assert_eq!(state(&Machine::start(&gone, "read")), "wrong");
}

#[test]
fn a_password_is_shown_to_nobody() {
    let dir = TempDir::new();
    let credentials = dir.path().join("credentials");
    std::fs::write(&credentials, "me:a-long-secret\n").unwrap();
    for (url, flag) in [
        ("http://me:a-long-secret@127.0.0.1:1", None),
        ("http://cache.test", Some(&credentials)),
    ] {
        let mut command = Command::new(binary());
        command.args(["daemon", "--remote", url]);
        command.arg("--cache-dir").arg(dir.path().join("cache"));
        command.arg("--runtime-dir").arg(dir.path().join("run"));
        if let Some(path) = flag {
            command.arg("--remote-credentials").arg(path);
        }
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && !said.contains("a-long-secret"),
            "{said}"
        );
        assert!(said.contains("--remote-credentials"), "{said}");
    }
}

#[test]
fn wrong_bytes_are_thrown_away_and_the_right_ones_sent_again() {
    let shelf = Shelf::start();
    let first = Machine::start(&shelf, "read-write");
    assert_eq!(first.peer("").put(1, b"right"), 's');
    first.wait_for_uploads();
    for file in shelf.state().files.values_mut().filter(|f| *f == b"right") {
        file.copy_from_slice(b"wrong");
    }
    let second = Machine::start(&shelf, "read-write");
    let mut peer = second.peer("");
    assert_eq!(peer.get(1), 'm');
    assert_eq!((second.remote("damaged"), second.daemon.actions()), (1, 0));
    assert!(peer.files().is_empty());
    peer.send(&put_frame(1, &Sha256::digest(b"right"), 5));
    peer.send(b"right");
    assert_eq!(peer.answer(), 's');
    second.wait_for_uploads();
    assert!(shelf.has(b"right") && !shelf.has(b"wrong"));
}
