//! The client: what it answers to `go`, with and without a daemon, and to what no `go` says.

use crate::support::{BUILDER, Daemon, TempDir, archive, binary, signal, stop, suspend};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A client, with the test in the place of `go`.
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    fn start(runtime_dir: &Path, build_top: &Path) -> Self {
        Self::start_in_mode(runtime_dir, build_top, "")
    }

    fn start_in_mode(runtime_dir: &Path, build_top: &Path, mode: &str) -> Self {
        Self::start_with(runtime_dir, build_top, &[("NIX_GOCACHEPROG", mode)])
    }

    fn start_with(runtime_dir: &Path, build_top: &Path, vars: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(binary()), runtime_dir, build_top, vars)
    }

    /// One that gives up on a daemon within a second.
    fn start_impatient(runtime_dir: &Path, build_top: &Path) -> Self {
        let mut command = Command::new(binary());
        command
            .args(["client", "--give-up-after", "1s", "--runtime-dir"])
            .arg(runtime_dir)
            .env("NIX_BUILD_TOP", build_top)
            .env_remove("IN_NIX_SHELL");
        Self::spawn(command)
    }

    fn start_by(
        mut command: Command,
        runtime_dir: &Path,
        build_top: &Path,
        vars: &[(&str, &str)],
    ) -> Self {
        command
            .args(["client", "--runtime-dir"])
            .arg(runtime_dir)
            .env("NIX_BUILD_TOP", build_top)
            .env_remove("IN_NIX_SHELL")
            .envs(vars.iter().copied());
        Self::spawn(command)
    }

    /// Starts it with this command, and hears its greeting.
    pub fn spawn(mut command: Command) -> Self {
        if command.get_current_dir().is_none() {
            // A client looks at all that is below.
            let empty = std::env::temp_dir().join("nix-gocacheprog-empty");
            std::fs::create_dir_all(&empty).unwrap();
            command.current_dir(empty);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut client = Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        let greeting = client.answer();
        assert_eq!(greeting["ID"], 0);
        assert_eq!(
            greeting["KnownCommands"],
            serde_json::json!(["get", "put", "close"])
        );
        client
    }

    fn say(&mut self, text: &str) {
        self.stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    fn answer(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    pub fn get(&mut self, id: u32, action: u8) -> serde_json::Value {
        let action = STANDARD.encode([action; 32]);
        self.say(&format!(
            "{{\"ID\":{id},\"Command\":\"get\",\"ActionID\":\"{action}\"}}\n"
        ));
        self.answer()
    }

    /// Puts a body that is announced with another size.
    fn put_as(&mut self, id: u32, action: u8, body: &[u8], size: usize) -> serde_json::Value {
        self.say(&put_request(id, action, body, size));
        self.answer()
    }

    pub fn put(&mut self, id: u32, action: u8, body: &[u8]) -> serde_json::Value {
        self.put_as(id, action, body, body.len())
    }

    /// Closes as `go` does; gives what was said on stderr.
    pub fn close(mut self) -> String {
        self.say("{\"ID\":99,\"Command\":\"close\"}\n");
        assert_eq!(self.answer(), serde_json::json!({"ID": 99}));
        self.end(true)
    }

    fn end(mut self, success: bool) -> String {
        drop(self.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), success, "{text}");
        text
    }
}

/// The client by a shell, which takes the place of a `go` with this command. A client that runs as another user than we
/// needs it: it shares nothing when it cannot see who has started it.
pub fn by_go(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "\"$@\"; exit $?", command]).arg(binary());
    shell
}

fn put_request(id: u32, action: u8, body: &[u8], size: usize) -> String {
    let action = STANDARD.encode([action; 32]);
    let output = STANDARD.encode(Sha256::digest(body));
    let mut request = format!(
        "{{\"ID\":{id},\"Command\":\"put\",\"ActionID\":\"{action}\",\"OutputID\":\"{output}\",\
         \"BodySize\":{size}}}\n"
    );
    if size > 0 {
        request += &format!("\n\"{}\"\n", STANDARD.encode(body));
    }
    request
}

pub fn no_daemon() -> std::path::PathBuf {
    "/nonexistent/nix-gocacheprog".into()
}

/// Reads the file that an answer names.
pub fn file(answer: &serde_json::Value) -> Vec<u8> {
    let path = answer["DiskPath"]
        .as_str()
        .unwrap_or_else(|| panic!("no DiskPath in {answer}"));
    assert_eq!(Path::new(path).extension(), None, "`go` wants none");
    std::fs::read(path).unwrap()
}

/// Bodies around every size at which the client or the daemon does something else.
fn bodies() -> Vec<Vec<u8>> {
    [0, 1, 47, 48, 49, 4096, 49_151, 65_536, 1 << 20, 3_000_001]
        .into_iter()
        .map(|size: usize| (0..size).map(|i| (i * i / 7) as u8).collect())
        .collect()
}

/// `dated` says whether answers are to say when an output was put.
fn puts_and_gets(runtime_dir: &Path, dated: bool) {
    let top = TempDir::new();
    let mut first = Client::start(runtime_dir, top.path());
    for (action, body) in (0..).zip(bodies()) {
        assert_eq!(first.get(1, action)["Miss"], true);
        assert_eq!(file(&first.put(2, action, &body)), body);
    }
    // Another command of the same build.
    let mut second = Client::start(runtime_dir, top.path());
    for (action, body) in (0..).zip(bodies()) {
        let hit = second.get(3, action);
        assert_eq!(hit["ID"], 3);
        assert_eq!(hit["Size"], body.len());
        assert_eq!(hit["OutputID"], STANDARD.encode(Sha256::digest(&body)));
        let nanos = hit["TimeNanos"].as_i64();
        let time = hit["Time"].as_str();
        assert_eq!(
            nanos.map(|n| n > 1_700_000_000_000_000_000),
            dated.then_some(true)
        );
        assert_eq!(time.map(|time| time.ends_with('Z')), dated.then_some(true));
        assert_eq!(file(&hit), body);
    }
    let files = second.get(4, 0)["DiskPath"].clone();
    first.close();
    second.close();
    assert!(
        Path::new(files.as_str().unwrap()).exists(),
        "a path stays valid after the close"
    );
}

#[test]
fn bodies_of_every_size_go_in_and_come_out() {
    puts_and_gets(&Daemon::start().runtime_dir(), false);
}

#[test]
fn without_a_daemon_a_build_has_a_cache_of_its_own() {
    puts_and_gets(&no_daemon(), true);
}

#[test]
fn without_a_daemon_one_line_says_so() {
    let top = TempDir::new();
    let client = Client::start(&no_daemon(), top.path());
    let said = client.close();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("/nonexistent/nix-gocacheprog"), "{said}");
    assert!(said.contains("goes on without the shared cache"), "{said}");
}

#[test]
fn with_a_daemon_nothing_is_said() {
    let daemon = Daemon::start();
    let top = TempDir::new();
    let mut client = Client::start(&daemon.runtime_dir(), top.path());
    assert_eq!(client.get(1, 1)["Miss"], true);
    assert_eq!(client.close(), "");
}

#[test]
fn a_machine_that_sleeps_in_between_changes_nothing() {
    let daemon = Daemon::start();
    let top = TempDir::new();
    let mut client = Client::start(&daemon.runtime_dir(), top.path());
    client.put(1, 1, b"body");
    // So that the client waits for it.
    stop(daemon.pid());
    let pid = client.child.id();
    let got = std::thread::scope(|scope| {
        let asked = scope.spawn(|| client.get(2, 1));
        for _ in 0..20 {
            suspend(pid);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        signal(daemon.pid(), "CONT");
        asked.join().unwrap()
    });
    assert_eq!(file(&got), b"body");
    suspend(daemon.pid());
    client.put(3, 2, &[7; 1 << 20]);
    assert_eq!(client.close(), "");
    assert_eq!(daemon.session_end().hits, 1);
}

#[test]
fn a_bad_request_gets_an_error_and_the_next_one_an_answer() {
    let daemon = Daemon::start();
    for runtime_dir in [daemon.runtime_dir(), no_daemon()] {
        let top = TempDir::new();
        let mut client = Client::start(&runtime_dir, top.path());
        for line in [
            r#"{"ID":1,"Command":"shutdown"}"#,
            r#"{"ID":1,"Command":"get"}"#,
            r#"{"ID":1,"Command":"get","ActionID":""}"#,
            r#"{"ID":1,"Command":"get","ActionID":"../../../etc/passwd"}"#,
            r#"{"ID":1,"Command":"get","ActionID":"a/b=.."}"#,
            r#"{"ID":1,"Command":"put","ActionID":"AAAA","OutputID":"AAAA","BodySize":0}"#,
            &format!(
                r#"{{"ID":1,"Command":"get","ActionID":"{}"}}"#,
                "A".repeat(10_000)
            ),
            "{\"ID\":1,\"Command\":\"put\",\"ActionID\":\"!\",\"OutputID\":\"\",\"BodySize\":3}\n\n\"AAAA\"",
        ] {
            client.say(&format!("{line}\n"));
            let answer = client.answer();
            assert_eq!(answer["ID"], 1, "{line}");
            assert!(answer["Err"].is_string(), "{line}: {answer}");
        }
        // A body that is shorter or longer than announced, small and large.
        for size in [5, 200_000] {
            let body = vec![3; size];
            for wrong in [size - 1, size + 1] {
                let answer = client.put_as(2, 9, &body, wrong);
                assert!(answer["Err"].is_string(), "{size} as {wrong}: {answer}");
                assert_eq!(client.get(3, 9)["Miss"], true);
            }
        }
        assert_eq!(file(&client.put(4, 9, b"body")), b"body");
        assert_eq!(file(&client.get(5, 9)), b"body");
        client.close();
    }
}

#[test]
fn a_close_that_comes_before_the_answers_is_answered_after_them() {
    let daemon = Daemon::start();
    let top = TempDir::new();
    let put = put_request(1, 1, b"body", 4);
    // What would be lost is lost by chance.
    for _ in 0..300 {
        let mut client = Client::start(&daemon.runtime_dir(), top.path());
        client.say(&format!("{put}{{\"ID\":2,\"Command\":\"close\"}}\n"));
        assert_eq!(file(&client.answer()), b"body");
        assert_eq!(client.answer(), serde_json::json!({"ID": 2}));
        client.end(true);
    }
}

#[test]
fn what_is_no_request_ends_the_client_with_an_error() {
    let daemon = Daemon::start();
    for text in [
        "GET / HTTP/1.1\r\n\r\n",
        "{\"ID\":1,\"Command\":\"get\"",
        "[1,2,3]\n",
        "{\"ID\":1,\"Command\":\"put\",\"BodySize\":-3}\n",
    ] {
        let top = TempDir::new();
        let mut client = Client::start(&daemon.runtime_dir(), top.path());
        client.say(text);
        let said = client.end(false);
        assert!(said.contains("request"), "{text}: {said}");
    }
}

#[test]
fn a_readonly_build_gets_from_the_shared_cache_and_puts_into_its_own() {
    let daemon = Daemon::start();
    let runtime_dir = daemon.runtime_dir();
    let (top, other_top) = (TempDir::new(), TempDir::new());
    let mut writer = Client::start(&runtime_dir, other_top.path());
    writer.put(1, 1, b"shared");
    let mut reader = Client::start_in_mode(&runtime_dir, top.path(), "readonly");
    assert_eq!(file(&reader.get(2, 1)), b"shared");
    assert_eq!(file(&reader.put(3, 2, b"private")), b"private");
    assert_eq!(file(&reader.get(4, 2)), b"private");
    assert_eq!(writer.get(5, 2)["Miss"], true);
    // The next command of the same build has it.
    let mut next = Client::start_in_mode(&runtime_dir, top.path(), "readonly");
    assert_eq!(file(&next.get(6, 2)), b"private");
    for client in [writer, reader, next] {
        assert_eq!(client.close(), "");
    }
}

#[test]
fn what_a_test_has_read_stays_in_its_build() {
    let daemon = Daemon::start();
    let runtime_dir = daemon.runtime_dir();
    let (top, other_top) = (TempDir::new(), TempDir::new());
    // One that is sent in pieces, and one that is not.
    let long = [b"# test log\n".as_slice(), &b"open x\n".repeat(50_000)].concat();
    let log: &[u8] = b"# test log\nstat testdata/poem.txt\n";
    let mut tester = Client::start(&runtime_dir, top.path());
    assert_eq!(file(&tester.put(1, 1, log)), log);
    assert_eq!(file(&tester.put(2, 2, &long)), long);
    assert_eq!(file(&tester.put(3, 3, b"a package")), b"a package");
    assert_eq!(file(&tester.get(4, 1)), log);
    let mut same = Client::start(&runtime_dir, top.path());
    assert_eq!(file(&same.get(5, 2)), long);
    let mut other = Client::start(&runtime_dir, other_top.path());
    assert_eq!(other.get(6, 1)["Miss"], true);
    assert_eq!(other.get(7, 2)["Miss"], true);
    let hit = other.get(8, 3);
    assert_eq!(file(&hit), b"a package");
    assert!(hit["Time"].is_null() && hit["TimeNanos"].is_null());
    for client in [tester, same, other] {
        assert_eq!(client.close(), "");
    }
    // In a shell the times of files are what they are elsewhere, and `go clean -testcache` is of use.
    let home = TempDir::new();
    let shell = || {
        let vars = [
            ("IN_NIX_SHELL", "impure"),
            ("XDG_CACHE_HOME", home.path().to_str().unwrap()),
        ];
        Client::start_by(by_go("test"), &runtime_dir, top.path(), &vars)
    };
    shell().put(9, 9, log);
    let hit = shell().get(10, 9);
    assert_eq!(file(&hit), log);
    assert!(hit["TimeNanos"].as_i64().unwrap() > 1_700_000_000_000_000_000);
    assert!(hit["Time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn builds_with_other_c_libraries_share_only_what_c_has_no_part_in() {
    let daemon = Daemon::start();
    let top = TempDir::new();
    let client = |flags: &str| {
        let vars = [("NIX_CFLAGS_COMPILE", flags), ("CGO_ENABLED", "1")];
        Client::start_with(&daemon.runtime_dir(), top.path(), &vars)
    };
    let old = "-isystem /nix/store/a-zlib-1.2/include";
    let new = "-isystem /nix/store/b-zlib-1.3/include";
    let (pure, with_c) = (archive(&[]), archive(&[("_x001.o", b"\x7fELF")]));
    let mut first = client(old);
    first.put(1, 1, &pure);
    first.put(2, 2, &with_c);
    first.put(3, 3, b"something");
    let mut second = client(new);
    assert_eq!(file(&second.get(4, 1)), pure);
    assert_eq!(second.get(5, 2)["Miss"], true);
    assert_eq!(second.get(6, 3)["Miss"], true);
    let mut third = client(old);
    for (action, body) in [(1, &pure[..]), (2, &with_c), (3, b"something")] {
        assert_eq!(file(&third.get(7, action)), body);
    }
}

#[test]
fn a_shell_that_wants_no_shared_cache_has_its_own() {
    let daemon = Daemon::start();
    let (top, home) = (TempDir::new(), TempDir::new());
    for (mode, lines) in [("off", 0), ("on", 0), ("readonyl", 1)] {
        let vars = [
            ("IN_NIX_SHELL", "impure"),
            ("XDG_CACHE_HOME", home.path().to_str().unwrap()),
            ("NIX_GOCACHEPROG", mode),
        ];
        let mut client = Client::start_with(&daemon.runtime_dir(), top.path(), &vars);
        assert_eq!(file(&client.put(1, 1, b"body")), b"body");
        let said = client.close();
        assert_eq!(said.lines().count(), lines, "{said}");
    }
    daemon.session_end();
    assert_eq!(daemon.sessions().len(), 0, "only one of them had a session");
}

#[test]
fn a_client_that_go_leaves_without_a_word_ends() {
    let daemon = Daemon::start();
    let top = TempDir::new();
    let mut client = Client::start(&daemon.runtime_dir(), top.path());
    assert_eq!(client.get(1, 1)["Miss"], true);
    client.end(true);
    assert_eq!(daemon.session_end().gets, 1);
}

#[test]
fn a_daemon_that_does_not_even_accept_is_given_up_on() {
    let run = TempDir::new();
    std::fs::create_dir(run.path().join("build")).unwrap();
    let socket = run.path().join("build/sock");
    let listener = UnixListener::bind(&socket).unwrap();
    shorten_queue(&listener);
    // It fills up with those who wait: from then on a connect takes for ever.
    let _waiting = UnixStream::connect(&socket).unwrap();
    let top = TempDir::new();
    let mut client = Client::start_impatient(run.path(), top.path());
    assert_eq!(file(&client.put(1, 1, b"body")), b"body");
    let said = client.close();
    assert!(said.contains("cannot reach the daemon"), "{said}");
}

#[test]
fn a_build_waits_for_a_hung_daemon_once() {
    let run = TempDir::new();
    std::fs::create_dir(run.path().join("build")).unwrap();
    let listener = UnixListener::bind(run.path().join("build/sock")).unwrap();
    let (top, other) = (TempDir::new(), TempDir::new());

    let said = Client::start_impatient(run.path(), top.path()).close();
    assert!(said.contains("said nothing for too long"), "{said}");
    let _first = listener.accept().unwrap();
    listener.set_nonblocking(true).unwrap();

    for action in [1, 2] {
        let mut next = Client::start_impatient(run.path(), top.path());
        assert_eq!(file(&next.put(1, action, b"body")), b"body");
        let said = next.close();
        assert!(said.contains("an earlier command of this build"), "{said}");
        assert!(listener.accept().is_err(), "it has asked the daemon again");
    }
    // A minute later, or in another build, it is asked.
    let note = top.path().join(".nix-gocacheprog/daemon-hung");
    let minute = std::time::Duration::from_secs(61);
    let then = std::time::SystemTime::now() - minute;
    std::fs::File::open(note)
        .unwrap()
        .set_modified(then)
        .unwrap();
    for top in [&top, &other] {
        let said = Client::start_impatient(run.path(), top.path()).close();
        assert!(said.contains("said nothing for too long"), "{said}");
        assert!(listener.accept().is_ok());
    }
}

#[test]
fn a_daemon_that_stops_in_the_middle_is_remembered_too() {
    let (daemon, top) = (Daemon::start(), TempDir::new());
    let start = || Client::start_impatient(&daemon.runtime_dir(), top.path());
    let mut client = start();
    assert_eq!(file(&client.put(1, 1, b"body")), b"body");
    stop(daemon.pid());
    assert_eq!(client.get(2, 2)["Miss"], true);
    let said = client.close();
    assert!(said.contains("has not answered for 1s"), "{said}");
    let said = start().close();
    signal(daemon.pid(), "CONT");
    assert!(said.contains("an earlier command of this build"), "{said}");
}

/// Lets one connection wait to be accepted, and no more.
#[allow(unsafe_code)]
fn shorten_queue(listener: &UnixListener) {
    use std::os::fd::AsRawFd;
    // SAFETY: listen takes a descriptor, which is open as long as `listener` lives.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
}

#[test]
fn what_builds_of_a_name_have_used_is_ready_for_the_next_one() {
    let (daemon, dir) = (Daemon::start_for_builder(), TempDir::new());
    // Links are for those who cannot change what they lead to, as in every sandbox.
    let build = |name: &str, vars: &[(&str, &str)]| {
        let top = dir.path().join(name);
        std::fs::create_dir(&top).unwrap();
        chown(&top, Some(BUILDER), Some(BUILDER)).expect("root");
        let mut command = by_go("build");
        command
            .args(["client", "--runtime-dir"])
            .arg(daemon.runtime_dir())
            .env("NIX_BUILD_TOP", &top)
            .env("name", name)
            .env_remove("IN_NIX_SHELL")
            .envs(vars.iter().copied())
            .uid(BUILDER)
            .gid(BUILDER);
        Client::spawn(command)
    };
    let files = |directory: &str| {
        let found = std::fs::read_dir(daemon.cache_dir().join(directory)).unwrap();
        let paths: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
        paths
    };
    let mut first = build("program-1.0", &[]);
    for action in 0..3 {
        first.put(1, action, &[action; 100]);
    }
    assert_eq!(first.close(), "");
    daemon.session_end();
    daemon.wait_until("what was used is noted", || {
        let lists = files("lists");
        lists.iter().any(|path| path.extension().is_none())
    });
    std::fs::remove_dir_all(dir.path().join("program-1.0")).unwrap();

    let mut second = build("program-1.1", &[]);
    let is_ready = || files("builds").iter().any(|dir| dir.join("ready").exists());
    daemon.wait_until("it is ready", is_ready);
    for action in 0..3 {
        let hit = second.get(2, action);
        let output = STANDARD.encode(Sha256::digest([action; 100]));
        assert_eq!(hit["OutputID"], output.as_str());
        let path = Path::new(hit["DiskPath"].as_str().unwrap());
        assert_eq!(std::fs::read(path).unwrap(), [action; 100]);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name.len(), 24, "it was found without the daemon: {name}");
    }
    assert_eq!(second.get(3, 9)["Miss"], true);
    // Several at once, as `go` asks for them, are answered while a further request is cut off: within its line, or
    // before its body.
    let line = |id: u32, action: u8| {
        let action = STANDARD.encode([action; 32]);
        format!("{{\"ID\":{id},\"Command\":\"get\",\"ActionID\":\"{action}\"}}\n\n")
    };
    let third = line(12, 2);
    let (begin, end) = third.split_at(40);
    second.say(&(line(10, 0) + &line(11, 1) + begin));
    assert_eq!(
        (&second.answer()["ID"], &second.answer()["ID"]),
        (&10.into(), &11.into())
    );
    let (action, output) = (
        STANDARD.encode([8; 32]),
        STANDARD.encode(Sha256::digest(b"body")),
    );
    let put = format!(
        "{{\"ID\":13,\"Command\":\"put\",\"ActionID\":\"{action}\",\"OutputID\":\"{output}\",\"BodySize\":4}}\n"
    );
    second.say(&(end.to_string() + &put));
    assert_eq!(second.answer()["ID"], 12);
    second.say(&format!("\n\"{}\"\n", STANDARD.encode(b"body")));
    assert_eq!(file(&second.answer()), b"body");
    // What the build has put itself is newer than what was ready.
    second.put(4, 0, &[7; 50]);
    assert_eq!(second.get(5, 0)["Size"], 50);
    // With its daemon gone, what is ready is there still.
    let mut third = build("program-1.2", &[]);
    daemon.wait_until("both are ready", || {
        let dirs = files("builds");
        dirs.iter().filter(|dir| dir.join("ready").exists()).count() == 2
    });
    assert_eq!(second.close(), "");
    let counted = daemon.session_end();
    assert_eq!((counted.gets, counted.hits, counted.puts), (8, 7, 2));
    let directories = files("builds");
    let mut daemon = daemon;
    daemon.kill();
    assert_eq!(third.get(6, 2)["Size"], 100);
    assert_eq!(third.get(7, 9)["Miss"], true);
    // The next daemon may remove it.
    for dir in directories {
        std::fs::remove_dir_all(dir).unwrap();
    }
    assert_eq!(third.get(8, 2)["Miss"], true);
    assert!(third.close().contains("goes on without the shared cache"));
}
