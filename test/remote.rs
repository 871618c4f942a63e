//! A remote behind daemons: what goes there and comes from there, and what does not. The server is a small one of the
//! tests' own, which can be made to wait; `test/remote` does it with real servers and real `go`.

use crate::peer::{Peer, get_frame, put_frame};
use crate::support::{Daemon, TempDir, activated, binary, text, zstd_bomb};
use crate::upstream::{self, Upstream};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
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
    /// A name that nothing can be put under, and the answer.
    closed: Option<(String, &'static str)>,
    /// A body that is never taken.
    hated: Vec<u8>,
    /// Outputs are said to be below this URL.
    elsewhere: Option<String>,
    /// Whatever is asked for, a page comes.
    is_portal: bool,
    /// Puts that are to leave alone what is there are refused.
    knows_no_condition: bool,
    /// An output that may be packed is said to be, and nothing is sent.
    fails_to_pack: bool,
    /// The `Authorization` of each request.
    authorizations: Vec<String>,
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
        let (mut first, mut length, mut authorization) = (String::new(), 0, String::new());
        let (mut is_conditional, mut may_pack) = (false, false);
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
            may_pack |= line.to_lowercase().starts_with("accept-encoding: zstd");
            is_conditional |= line.to_lowercase().starts_with("if-none-match:");
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("authorization")
            {
                authorization = value.trim().into();
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
        kept.authorizations.push(authorization);
        let elsewhere = kept.elsewhere.as_ref().map(|url| format!("{url}{path}"));
        let found = kept.files.get(path).cloned();
        let mut header = String::new();
        let (status, body) = match (method, found) {
            _ if kept.refusal.is_some() => (kept.refusal.unwrap(), Vec::new()),
            ("GET", _) if kept.is_portal => ("200 OK", b"<html>Sign in here".to_vec()),
            ("PUT", _) if kept.closed.as_ref().is_some_and(|(name, _)| name == path) => {
                (kept.closed.as_ref().unwrap().1, Vec::new())
            }
            ("PUT", _) if is_conditional && kept.knows_no_condition => {
                ("501 Not Implemented", Vec::new())
            }
            ("PUT", _) if body == kept.hated && !body.is_empty() => {
                ("507 Insufficient Storage", Vec::new())
            }
            ("GET", _) if elsewhere.is_some() && path.starts_with("/cas/") => {
                header = format!("Location: {}\r\n", elsewhere.unwrap());
                ("302 Found", Vec::new())
            }
            ("GET", Some(_)) if kept.fails_to_pack && may_pack => {
                header = "Content-Encoding: zstd\r\n".into();
                ("200 OK", Vec::new())
            }
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
            "HTTP/1.1 {status}\r\n{header}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let body = if method == "HEAD" { &[][..] } else { &body };
        if to.write_all(&[head.as_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

/// Two pairs of signing keys.
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test/data/keys");

/// A machine with a daemon that has this remote.
struct Machine {
    daemon: Daemon,
    dir: TempDir,
}

impl Machine {
    fn start(shelf: &Shelf, mode: &str) -> Self {
        Self::start_with(shelf, mode, &[])
    }

    fn start_with(shelf: &Shelf, mode: &str, args: &[&str]) -> Self {
        let dir = TempDir::new();
        let remote = ["--remote", &shelf.url, "--remote-mode", mode];
        let daemon = Daemon::start_with(dir.path(), &[&remote[..], args].concat());
        Self { daemon, dir }
    }

    /// One that signs what it puts.
    fn signing(shelf: &Shelf) -> Self {
        let key = format!("{KEYS}/test-1.secret");
        Self::start_with(shelf, "read-write", &["--remote-secret-key-file", &key])
    }

    /// One that uses only what the first key has signed.
    fn trusting(shelf: &Shelf, mode: &str) -> Self {
        let key = std::fs::read_to_string(format!("{KEYS}/test-1.public")).unwrap();
        Self::start_with(shelf, mode, &["--remote-trusted-public-keys", &key])
    }

    fn peer(&self, name: &str) -> Peer {
        let hello = serde_json::json!({"version": 1, "name": name, "shared": true});
        Peer::hello(&self.daemon, &hello.to_string()).unwrap()
    }

    fn remote(&self, what: &str) -> u64 {
        self.daemon.stats()["remote"][what].as_u64().unwrap()
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
    let mut peer = second.peer("b-2.0");
    assert_eq!(peer.get(1), 'h');
    assert_eq!(peer.get(2), 'h');
    assert_eq!(peer.get(3), 'm');
    assert_eq!(peer.files().len(), 2);
    assert_eq!((second.remote("hits"), second.remote("misses")), (2, 1));
    drop(peer);
    let session = second.daemon.session_end();
    assert_eq!((session.gets, session.hits, session.misses), (3, 2, 1));
    // All versions of a name are one user, whoever has answered the gets.
    let stats = second.daemon.stats();
    let users = stats["users"].as_array().unwrap();
    let users: Vec<_> = users.iter().map(|user| &user[0]).collect();
    assert_eq!(users, ["b"]);
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
    // Its own questions are whether something is there already, and, of the empty output, whether the server packs.
    assert_eq!(shelf.count("GET /cas/"), shelf.count("GET /cas/e3b0c442"));
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
        let is_list = |file: &Vec<u8>| file.starts_with(b"nix-gocacheprog list 2");
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
    let mode = ["--remote-mode", "read-write"];
    let daemon = Daemon::start_with(dir.path(), &[&["--remote", &url], &mode[..]].concat());
    let hello = r#"{"version":1,"shared":true}"#;
    assert_eq!(Peer::hello(&daemon, hello).unwrap().put(1, b"late"), 's');
    daemon.end();
    let shelf = Shelf::start();
    let daemon = Daemon::start_with(dir.path(), &[&["--remote", &shelf.url], &mode[..]].concat());
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
    for wrong in [&b"wrong"[..], b"rig", b"", b"wrong and long"] {
        let shelf = Shelf::start();
        let first = Machine::start(&shelf, "read-write");
        assert_eq!(first.peer("").put(1, b"right"), 's');
        first.wait_for_uploads();
        for file in shelf.state().files.values_mut().filter(|f| *f == b"right") {
            *file = wrong.into();
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
        assert!(shelf.has(b"right") && !shelf.has(wrong));
    }
}

#[test]
fn a_malformed_entry_is_a_miss_and_is_replaced() {
    for junk in [&b""[..], b"{}", b"{\"outputFiles\":[{", b"<html>"] {
        let shelf = Shelf::start();
        let first = Machine::start(&shelf, "read-write");
        for action in 1..10 {
            assert_eq!(first.peer("").put(action, &[action]), 's');
        }
        first.wait_for_uploads();
        for (name, file) in &mut shelf.state().files {
            if name.starts_with("/ac/") {
                *file = junk.into();
            }
        }
        let reader = Machine::start(&shelf, "read-write");
        let mut peer = reader.peer("");
        assert_eq!(peer.get(100), 'm');
        for action in 1..10 {
            assert_eq!(peer.get(action), 'm');
        }
        assert_eq!(
            (reader.remote("malformed"), reader.remote("errors")),
            (9, 0)
        );
        // Whoever has the outputs, and whether they have read the entry or not, puts that right.
        assert_eq!(peer.put(1, &[1]), 's');
        reader.wait_for_uploads();
        let writer = Machine::start(&shelf, "write");
        for action in [50, 2] {
            assert_eq!(writer.peer("").put(action, &[action]), 's');
            writer.wait_for_uploads();
        }
        let last = Machine::start(&shelf, "read");
        let mut peer = last.peer("");
        assert_eq!([peer.get(1), peer.get(2)], ['h', 'h']);
    }
}

#[test]
fn a_page_in_place_of_every_answer_pauses_reads() {
    let shelf = Shelf::start();
    shelf.state().is_portal = true;
    let machine = Machine::start(&shelf, "read");
    let mut peer = machine.peer("");
    for action in 0..100 {
        assert_eq!(peer.get(action), 'm');
    }
    assert!(shelf.count("GET /ac/") < 50);
    assert_eq!(doctor(&machine).0, "wrong");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that become much smaller, as many as `go` puts at one time.
fn text_of(line: &str) -> Vec<u8> {
    format!("{line}: a line of a program\n").repeat(5000).into()
}

#[test]
fn outputs_are_packed_and_plain_ones_of_earlier_releases_are_found() {
    let shelf = Shelf::start();
    let first = Machine::start(&shelf, "read-write");
    let body = text_of("x");
    assert_eq!(first.peer("").put(1, &body), 's');
    first.wait_for_uploads();
    let (sent, on_the_wire) = (first.remote("sent"), first.remote("wire_sent"));
    assert_eq!(sent, body.len() as u64);
    assert!(on_the_wire < sent / 10, "{on_the_wire} of {sent}");
    assert!(!shelf.has(&body));
    let packed = |name: &String| name.ends_with(".zst");
    assert_eq!(
        shelf
            .state()
            .files
            .keys()
            .filter(|name| packed(name))
            .count(),
        1
    );
    let second = Machine::start(&shelf, "read");
    assert_eq!(second.peer("").get(1), 'h');
    assert!(second.remote("wire_received") < sent / 10);
    // As an earlier release would have put it.
    let hash = hex(&Sha256::digest(&body));
    shelf.state().files.retain(|name, _| !packed(name));
    shelf.state().files.insert(format!("/cas/{hash}"), body);
    assert_eq!(Machine::start(&shelf, "read").peer("").get(1), 'h');
}

#[test]
fn a_server_that_fails_to_pack_is_asked_for_plain_outputs() {
    let shelf = Shelf::start();
    let bodies = [b"one", b"two"];
    let first = Machine::start(&shelf, "read-write");
    for (action, body) in (1..).zip(bodies) {
        assert_eq!(first.peer("").put(action, body), 's');
    }
    first.wait_for_uploads();
    let asked = shelf.count("GET /cas/");
    shelf.state().fails_to_pack = true;
    let second = Machine::start(&shelf, "read");
    for action in [1, 2] {
        assert_eq!(second.peer("").get(action), 'h');
    }
    assert_eq!(second.remote("errors"), 0);
    // It has failed once, and is not asked for that again.
    assert_eq!(shelf.count("GET /cas/"), asked + 3);
}

#[test]
fn a_packed_output_that_is_damaged_a_bomb_or_plain_after_all_is_a_miss() {
    let shelf = Shelf::start();
    let first = Machine::start(&shelf, "read-write");
    assert_eq!(first.peer("").put(1, &text_of("x")), 's');
    first.wait_for_uploads();
    let name = {
        let state = shelf.state();
        let packed = state.files.keys().find(|name| name.ends_with(".zst"));
        packed.unwrap().clone()
    };
    let whole = shelf.state().files[&name].clone();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let cut = whole[..whole.len() - 3].to_vec();
    for wrong in [damaged, cut, zstd_bomb(), text_of("x"), Vec::new()] {
        shelf.state().files.insert(name.clone(), wrong);
        let machine = Machine::start(&shelf, "read");
        assert_eq!(machine.peer("").get(1), 'm');
        assert_eq!(machine.daemon.actions(), 0);
        assert!(machine.daemon.peak_memory() < 64 << 20);
    }
    shelf.state().files.insert(name, whole);
    assert_eq!(Machine::start(&shelf, "read").peer("").get(1), 'h');
}

#[test]
fn with_trusted_keys_only_what_they_have_signed_is_used() {
    let shelf = Shelf::start();
    let signing = Machine::signing(&shelf);
    let mut peer = signing.peer("");
    assert_eq!(peer.put(1, b"one"), 's');
    assert_eq!(peer.put(2, b"two"), 's');
    signing.wait_for_uploads();
    let entries = || -> HashMap<String, Vec<u8>> {
        let mut files = shelf.state().files.clone();
        files.retain(|name, _| name.starts_with("/ac/"));
        files
    };
    let signed = entries();
    assert_eq!(signed.len(), 2);
    let gets = |machine: &Machine| {
        let mut peer = machine.peer("");
        [peer.get(1), peer.get(2)]
    };
    assert_eq!(gets(&Machine::trusting(&shelf, "read")), ['h', 'h']);
    // The entries change places, each with its signature.
    let names: Vec<_> = signed.keys().cloned().collect();
    for (from, to) in [(0, 1), (1, 0)] {
        let moved = signed[&names[from]].clone();
        shelf.state().files.insert(names[to].clone(), moved);
    }
    let machine = Machine::trusting(&shelf, "read");
    assert_eq!(gets(&machine), ['m', 'm']);
    assert_eq!(
        (machine.remote("untrusted"), machine.daemon.actions()),
        (2, 0)
    );
    // They are those of another output, of another size or time, of somebody else, or of nobody.
    for (what, with) in [
        ("sizeBytes\":\"3", "sizeBytes\":\"4"),
        (
            "\"nix-gocacheprog-time\",\"value\":\"1",
            "\"nix-gocacheprog-time\",\"value\":\"2",
        ),
        ("test-1:", "test-2:"),
        ("nix-gocacheprog-signature", "a-signature"),
    ] {
        for (name, entry) in &signed {
            let text = String::from_utf8(entry.clone()).unwrap();
            assert!(text.contains(what), "{text}");
            let spoilt = text.replace(what, with).into_bytes();
            shelf.state().files.insert(name.clone(), spoilt);
        }
        let machine = Machine::trusting(&shelf, "read");
        assert_eq!(gets(&machine), ['m', 'm'], "{what}");
        assert_eq!(machine.daemon.actions(), 0);
    }
    // A machine with the key puts it right.
    let signing = Machine::signing(&shelf);
    let mut peer = signing.peer("");
    assert_eq!(peer.put(1, b"one"), 's');
    assert_eq!(peer.put(2, b"two"), 's');
    signing.wait_for_uploads();
    assert_eq!(gets(&Machine::trusting(&shelf, "read")), ['h', 'h']);
    // The key is withdrawn.
    let other = std::fs::read_to_string(format!("{KEYS}/test-2.public")).unwrap();
    let machine = Machine::start_with(&shelf, "read", &["--remote-trusted-public-keys", &other]);
    assert_eq!(gets(&machine), ['m', 'm']);
}

#[test]
fn a_machine_that_signs_takes_in_nothing_unsigned_and_signs_nothing_of_others() {
    let shelf = Shelf::start();
    let other = Machine::start(&shelf, "read-write");
    assert_eq!(other.peer("").put(1, b"anybody's"), 's');
    other.wait_for_uploads();
    let signing = Machine::signing(&shelf);
    let mut peer = signing.peer("program-1.0");
    assert_eq!(peer.get(1), 'm');
    assert_eq!(peer.put(2, b"its own"), 's');
    drop(peer);
    signing.daemon.session_end();
    signing.wait_for_uploads();
    assert_eq!(
        (signing.remote("untrusted"), signing.daemon.actions()),
        (1, 1)
    );
    let trusting = Machine::trusting(&shelf, "read");
    let mut peer = trusting.peer("");
    assert_eq!([peer.get(1), peer.get(2)], ['m', 'h']);
}

#[test]
fn a_list_says_which_actions_never_which_output_and_must_be_signed_too() {
    let shelf = Shelf::start();
    let signing = Machine::signing(&shelf);
    let mut peer = signing.peer("program-1.0");
    for action in 0..20 {
        assert_eq!(peer.put(action, &[action; 1000]), 's');
    }
    drop(peer);
    signing.daemon.session_end();
    let list = |shelf: &Shelf| {
        let state = shelf.state();
        let is_list = |file: &&Vec<u8>| file.starts_with(b"nix-gocacheprog list 2\n");
        state.files.values().find(is_list).cloned()
    };
    signing
        .daemon
        .wait_until("the list is there", || list(&shelf).is_some());
    signing.wait_for_uploads();
    // It holds no more than the actions.
    let bytes = list(&shelf).unwrap();
    assert_eq!(bytes.len(), b"nix-gocacheprog list 2\n".len() + 20 * 32);
    let machine = Machine::trusting(&shelf, "read");
    let _peer = machine.peer("program-1.1");
    machine
        .daemon
        .wait_until("all is read ahead", || machine.remote("ahead") == 20);
    // Somebody puts a list of their own there.
    let hash = Sha256::digest(&bytes);
    let forged = [&bytes[..], &[7; 32]].concat();
    let forged_hash = hex(&Sha256::digest(&forged));
    {
        let mut state = shelf.state();
        let hash = hex(&hash);
        for entry in state.files.values_mut() {
            let text = String::from_utf8_lossy(entry);
            if text.contains(&hash) {
                *entry = text
                    .replace(&hash, &forged_hash)
                    .replace(&bytes.len().to_string(), &forged.len().to_string())
                    .into_bytes();
            }
        }
        state.files.insert(format!("/cas/{forged_hash}"), forged);
    }
    let machine = Machine::trusting(&shelf, "read");
    let mut peer = machine.peer("program-1.1");
    machine
        .daemon
        .wait_until("the list is refused", || machine.remote("untrusted") == 1);
    assert_eq!(peer.get(1), 'h');
    assert_eq!(machine.remote("ahead"), 0);
}

#[test]
fn an_upload_that_always_fails_holds_up_no_other() {
    let shelf = Shelf::start();
    shelf.state().hated = b"the bad one".to_vec();
    let machine = Machine::start(&shelf, "read-write");
    let mut peer = machine.peer("program-1.0");
    assert_eq!(peer.put(0, b"the bad one"), 's');
    for action in 1..30 {
        assert_eq!(peer.put(action, &[action; 100]), 's');
    }
    drop(peer);
    machine.daemon.wait_until("the others are there", || {
        (1..30).all(|action| shelf.has(&[action; 100]))
    });
    machine
        .daemon
        .wait_until("the list is there", || !lists(&shelf).is_empty());
    assert_eq!((machine.remote("queue"), machine.remote("dropped")), (1, 0));
    machine.wait_for_uploads();
    assert_eq!(machine.remote("dropped"), 1);
    // Three tries of one request each, and no more; the rest are the others and the list.
    let tries = shelf.count("PUT /cas/") - 30;
    assert_eq!(tries, 3);
}

/// The names of the entries of lists, in their order.
fn lists(shelf: &Shelf) -> Vec<String> {
    let state = shelf.state();
    let hashes: Vec<_> = state
        .files
        .values()
        .filter(|file| file.starts_with(b"nix-gocacheprog list 2\n"))
        .map(|file| hex(&Sha256::digest(file)))
        .collect();
    let is_list = |(name, file): &(&String, &Vec<u8>)| {
        let text = String::from_utf8_lossy(file);
        name.starts_with("/ac/") && hashes.iter().any(|hash| text.contains(hash))
    };
    let mut names: Vec<_> = state.files.iter().filter(is_list).collect();
    names.sort();
    names.into_iter().map(|(name, _)| name.clone()).collect()
}

#[test]
fn a_list_that_the_server_does_not_take_holds_up_no_other_list_and_no_upload() {
    let shelf = Shelf::start();
    let machine = Machine::start(&shelf, "read-write");
    let names = ["one-1.0", "two-1.0", "three-1.0", "four-1.0"];
    let build = |first: u8| {
        for (action, name) in (first..).zip(names) {
            let mut peer = machine.peer(name);
            assert_eq!(peer.put(action, &[action; 100]), 's');
            drop(peer);
            machine.daemon.session_end();
        }
    };
    build(0);
    machine.wait_for_uploads();
    let before = shelf.state().files.clone();
    // All are replaced but this one.
    let lists = lists(&shelf);
    shelf.state().closed = Some((lists[0].clone(), "403 Forbidden"));
    build(10);
    machine.wait_for_uploads();
    let changed = lists
        .iter()
        .map(|name| shelf.state().files[name] != before[name]);
    assert_eq!(changed.collect::<Vec<_>>(), [false, true, true, true]);
    let tries = shelf.count(&format!("PUT {}", lists[0]));
    assert_eq!((tries, machine.remote("given_up")), (1 + 3, 1));
    assert!(machine.daemon.stats()["remote"]["writing_paused"].is_null());
}

#[test]
fn a_redirect_is_followed_and_credentials_stay_behind() {
    let shelf = Shelf::start();
    let first = Machine::start(&shelf, "read-write");
    assert_eq!(first.peer("").put(1, b"an output"), 's');
    first.wait_for_uploads();
    let elsewhere = Shelf::start();
    elsewhere.state().files = shelf.state().files.clone();
    shelf.state().elsewhere = Some(elsewhere.url.clone());
    let dir = TempDir::new();
    let path = dir.path().join("credentials");
    std::fs::write(&path, "a-token").unwrap();
    let args = ["--remote-credentials", path.to_str().unwrap()];
    let second = Machine::start_with(&shelf, "read", &args);
    assert_eq!(second.peer("").get(1), 'h');
    assert_eq!(elsewhere.count("GET /cas/"), 1);
    assert_eq!(elsewhere.state().authorizations, [""]);
    assert!(
        shelf
            .state()
            .authorizations
            .iter()
            .any(|a| a == "Bearer a-token")
    );
    // Round and round.
    shelf.state().elsewhere = Some(shelf.url.clone());
    assert_eq!(Machine::start(&shelf, "read").peer("").get(1), 'm');
}

#[test]
fn credentials_that_expire_are_read_again_from_their_file() {
    let shelf = Shelf::start();
    let dir = TempDir::new();
    let path = dir.path().join("credentials");
    std::fs::write(&path, "old").unwrap();
    let args = ["--remote-credentials", path.to_str().unwrap()];
    let machine = Machine::start_with(&shelf, "read", &args);
    let mut peer = machine.peer("");
    assert_eq!(peer.get(1), 'm');
    std::fs::write(&path, "a-new-one").unwrap();
    assert_eq!(peer.get(2), 'm');
    let state = shelf.state();
    assert_eq!(state.authorizations.first().unwrap(), "Bearer old");
    assert_eq!(state.authorizations.last().unwrap(), "Bearer a-new-one");
}

#[test]
fn a_daemon_whose_loaded_credentials_are_refused_ends_once_idle_so_that_they_are_loaded_again() {
    let dirs = [TempDir::new(), TempDir::new()];
    let (shelves, mut daemons): (Vec<_>, Vec<_>) = ["401 Unauthorized", "404 Not Found"]
        .iter()
        .zip(&dirs)
        .map(|(answer, dir)| {
            let shelf = Shelf::start();
            shelf.state().refusal = Some(answer);
            let daemon = start_as_systemd_does(dir.path(), &shelf);
            let hello = r#"{"version":1,"shared":true}"#;
            let stream = UnixStream::connect(dir.path().join("build")).unwrap();
            assert_eq!(Peer::hello_on(stream, hello).unwrap().get(1), 'm');
            assert_eq!(shelf.state().authorizations, ["Basic bWU6d29yZA=="]);
            (shelf, daemon)
        })
        .unzip();
    assert!(daemons[0].wait().unwrap().success());
    assert!(
        daemons[1].try_wait().unwrap().is_none(),
        "it may be idle for minutes"
    );
    daemons[1].kill().unwrap();
    daemons[1].wait().unwrap();
    drop(shelves);
}

/// A daemon with both sockets and a copy of a file with credentials.
fn start_as_systemd_does(dir: &Path, shelf: &Shelf) -> Child {
    let copies = dir.join("credentials");
    std::fs::create_dir(&copies).unwrap();
    std::fs::write(copies.join("password"), "me:word").unwrap();
    let bind = |name: &str| UnixListener::bind(dir.join(name)).unwrap();
    activated(bind("control"), bind("build"))
        .args(["--remote", &shelf.url])
        .args(["--remote-credentials", "password", "--cache-dir"])
        .arg(dir.join("cache"))
        .env("CREDENTIALS_DIRECTORY", &copies)
        .spawn()
        .unwrap()
}

#[test]
fn an_object_store_without_conditional_puts_is_given_plain_ones() {
    let dir = TempDir::new();
    for knows_no_condition in [false, true] {
        let shelf = Shelf::start();
        shelf.state().knows_no_condition = knows_no_condition;
        let machine = machine_of_bucket(&shelf, dir.path());
        let mut peer = machine.peer("");
        for action in 1..4 {
            assert_eq!(peer.put(action, &[action; 100]), 's');
            machine.wait_for_uploads();
            assert!(shelf.has(&[action; 100]));
        }
        // The store is asked for it once.
        let puts = shelf.count("PUT /bucket/go/cas/");
        assert_eq!(puts, 3 + usize::from(knows_no_condition));
    }
}

/// A machine to which this server is an object store. Its credentials are in the folder.
fn machine_of_bucket(shelf: &Shelf, dir: &Path) -> Machine {
    let path = dir.join("credentials");
    let keys = "[default]\naws_access_key_id = me\naws_secret_access_key = secret\n";
    std::fs::write(&path, keys).unwrap();
    let bucket = Shelf {
        url: format!("s3://bucket/go?endpoint={}", shelf.url),
        state: Arc::clone(&shelf.state),
    };
    let args = ["--remote-credentials", path.to_str().unwrap()];
    Machine::start_with(&bucket, "read-write", &args)
}

#[test]
fn an_upload_waits_while_an_object_store_says_that_the_credentials_have_expired() {
    let (dir, shelf) = (TempDir::new(), Shelf::start());
    let machine = machine_of_bucket(&shelf, dir.path());
    let mut peer = machine.peer("");
    // What is known to be missing is sent without a question.
    assert_eq!(peer.get(1), 'm');
    shelf.state().refusal = Some("400 Bad Request");
    assert_eq!(peer.put(1, b"an output"), 's');
    machine
        .daemon
        .wait_until("it is refused", || machine.remote("errors") > 0);
    shelf.state().refusal = None;
    machine.wait_for_uploads();
    assert!(shelf.has(b"an output"));
    assert_eq!(machine.remote("refused"), 0);
}

#[test]
fn plain_http_to_another_machine_has_to_be_permitted() {
    let dir = TempDir::new();
    for url in ["http://cache.test", "https://cache.test/?token=secret"] {
        let mut command = Command::new(binary());
        command.args(["daemon", "--remote", url]);
        command.arg("--cache-dir").arg(dir.path().join("cache"));
        command.arg("--runtime-dir").arg(dir.path().join("run"));
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        let wanted = if url.contains('?') {
            "--remote-credentials"
        } else {
            "--remote-insecure-http"
        };
        assert!(!output.status.success() && said.contains(wanted), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn flush_returns_once_everything_is_uploaded_and_fails_when_something_is_left() {
    let shelf = Shelf::start();
    let machine = Machine::start(&shelf, "read-write");
    let flush = |machine: &Machine, timeout: &str| {
        Command::new(binary())
            .args(["flush", "--timeout", timeout, "--runtime-dir"])
            .arg(machine.daemon.runtime_dir())
            .output()
            .unwrap()
    };
    let mut peer = machine.peer("");
    for action in 0..50 {
        assert_eq!(peer.put(action, &[action; 100]), 's');
    }
    let output = flush(&machine, "5m");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("all uploaded"));
    assert!((0..50).all(|action| shelf.has(&[action; 100])));
    // What is too large for the server is given up, and then it is not.
    let path = format!("/cas/{}", hex(&Sha256::digest(b"large")));
    shelf.state().closed = Some((path, "413 Payload Too Large"));
    assert_eq!(peer.put(50, b"large"), 's');
    let output = flush(&machine, "5m");
    let said = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(
        said.contains("1 upload given up") && said.contains("413"),
        "{said}"
    );
    shelf.state().closed = None;
    assert_eq!(peer.put(50, b"large"), 's');
    let output = flush(&machine, "5m");
    assert!(output.status.success(), "{}", text(&output.stderr));
    shelf.state().refusal = Some("503 Service Unavailable");
    assert_eq!(peer.put(51, b"late"), 's');
    let output = flush(&machine, "1s");
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("1 uploads left"),
        "{}",
        text(&output.stderr)
    );
    let reader = Machine::start(&shelf, "read");
    let output = flush(&reader, "1s");
    assert!(text(&output.stderr).contains("--remote-mode read"));
}
