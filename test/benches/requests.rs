//! Requests: on the socket, and through a client as `go` would make them.

use crate::Options;
use crate::build::{Build, action};
use crate::cpu::cpu;
use crate::figures::{Report, Row, median, quantile, ratios, row};
use crate::gobuild::{NEW_ROOT, children_cpu, turns};
use crate::support::{BUILDER, Daemon, TempDir, archive_of, binary};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// What is in the cache; each build gets each action once, as `go` does.
const ACTIONS: u64 = 10_000;

/// Gets of one session; many sessions make an eighth of them each.
const GETS: u64 = 20_000;

/// A version of ours, its daemon with all actions in its cache, and what was measured of it.
struct Version {
    name: &'static str,
    binary: PathBuf,
    daemon: Daemon,
    dir: TempDir,
    one: Vec<Gets>,
    many: Vec<Gets>,
    asked: Vec<ClientGets>,
    ready: Vec<ClientGets>,
    /// From start to first answer, in milliseconds.
    started: Vec<f64>,
}

impl Version {
    fn all(options: &Options) -> Vec<Self> {
        let versions = options.versions().into_iter();
        versions
            .map(|(name, binary)| Self::new(name, binary))
            .collect()
    }

    fn new(name: &'static str, binary: PathBuf) -> Self {
        let dir = TempDir::new();
        let daemon = Daemon::start_for_builder_from(&binary, &[]);
        let mut build = Build::new(&daemon, dir.path(), "filling");
        for nth in 0..ACTIONS {
            let body = body(nth);
            assert_eq!(build.put(nth, &Sha256::digest(&body), &body), 's');
        }
        drop(build);
        let filled = Self {
            name,
            binary,
            daemon,
            dir,
            one: Vec::new(),
            many: Vec::new(),
            asked: Vec::new(),
            ready: Vec::new(),
            started: Vec::new(),
        };
        // A client has keys of its own for all of them.
        let mut client = Client::start(&filled, None);
        (0..ACTIONS).for_each(|nth| client.put(nth));
        client.end();
        filled
    }

    /// The medians that the last line gives: the CPU time of a get in microseconds, prefetched and not.
    fn both(&self) -> [f64; 2] {
        [&self.ready, &self.asked].map(|of| median(&each_of(of, |gets| gets.daemon + gets.client)))
    }
}

/// The output of an action: a package's archive without C, as nearly all are that `go` asks for.
fn body(nth: u64) -> Vec<u8> {
    let mut data = [1; 4096];
    data[..8].copy_from_slice(&nth.to_le_bytes());
    archive_of(&data, &[])
}

/// What a number of gets took.
struct Gets {
    /// Gets a second, of all sessions together.
    rate: f64,
    /// Of each get, in microseconds.
    latencies: Vec<f64>,
    /// CPU time of the daemon, in microseconds a get.
    daemon_cpu: f64,
}

/// `sessions` sessions at a time that get as fast as they are answered; when one has got
/// everything, the next build begins.
fn gets(daemon: &Daemon, dir: &TempDir, sessions: u64) -> Gets {
    let each = GETS / sessions.min(8);
    let before = cpu(daemon.pid());
    let start = Instant::now();
    let latencies: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sessions)
            .map(|session| {
                scope.spawn(move || {
                    let name = format!("top-{session}");
                    let mut latencies = Vec::new();
                    for from in (0..each).step_by(ACTIONS as usize) {
                        let mut build = Build::new(daemon, dir.path(), &name);
                        for nth in from..each.min(from + ACTIONS) {
                            let start = Instant::now();
                            let answer = build.get(nth % ACTIONS);
                            latencies.push(start.elapsed().as_secs_f64() * 1e6);
                            assert_eq!(answer, 'h');
                        }
                    }
                    latencies
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        joined.collect()
    });
    let count = latencies.len() as f64;
    Gets {
        rate: count / start.elapsed().as_secs_f64(),
        latencies,
        daemon_cpu: (cpu(daemon.pid()) - before) * 1e6 / count,
    }
}

pub(crate) fn get(options: &Options) -> Report {
    let mut versions = Version::all(options);
    for of in &versions {
        // So that there is something to make ready.
        let mut client = Client::start(of, Some("bench-1.0"));
        client.get_all();
        client.end();
    }
    for pair in 0..options.pairs {
        eprintln!("get: pair {} of {}", pair + 1, options.pairs);
        for at in turns(versions.len(), pair) {
            let of = &mut versions[at];
            of.one.push(gets(&of.daemon, &of.dir, 1));
            of.many.push(gets(&of.daemon, &of.dir, 64));
            of.asked.push(client_gets(of, None));
            of.ready.push(client_gets(of, Some("bench-1.1")));
        }
    }
    let mut rows = Vec::new();
    for of in &versions {
        let name = |what: &str| match of.name {
            "ours" => what.to_string(),
            other => format!("{other}: {what}"),
        };
        rows.extend(sessions_rows(&name("one session"), &of.one));
        rows.extend(sessions_rows(&name("64 sessions"), &of.many));
        let scaling = ratios(&rates(&of.many), &rates(&of.one));
        rows.push(row(
            name("64 sessions/one: gets a second"),
            "ratio",
            scaling,
        ));
        rows.extend(client_rows(&name("client, ready"), &of.ready));
        rows.extend(client_rows(&name("client, asking"), &of.asked));
    }
    let ours = &versions[0];
    for earlier in &versions[1..] {
        let mut ratio = |what: &str, of: &dyn Fn(&Version) -> Vec<f64>| {
            let name = format!("ours/{}: {what}", earlier.name);
            rows.push(row(name, "ratio", ratios(&of(ours), &of(earlier))));
        };
        let cpu = |of: &[ClientGets]| each_of(of, |gets| gets.daemon + gets.client);
        ratio("one session: gets a second", &|of| rates(&of.one));
        ratio("64 sessions: gets a second", &|of| rates(&of.many));
        ratio("client, ready: CPU for a get", &|of| cpu(&of.ready));
        ratio("client, asking: CPU for a get", &|of| cpu(&of.asked));
    }
    let [ready, asked] = ours.both();
    let scaling = median(&ratios(&rates(&ours.many), &rates(&ours.one)));
    let summary = format!(
        "get: daemon + client CPU {ready:.1}us, {asked:.1}us when the daemon is asked, 64 sessions/one {scaling:.2}"
    );
    Report { rows, summary }
}

fn rates(of: &[Gets]) -> Vec<f64> {
    each_of(of, |gets| gets.rate)
}

fn each_of<T>(of: &[T], what: impl Fn(&T) -> f64) -> Vec<f64> {
    of.iter().map(what).collect()
}

fn sessions_rows(name: &str, of: &[Gets]) -> Vec<Row> {
    let part = |part| each_of(of, |gets| quantile(&gets.latencies, part));
    vec![
        row(
            format!("{name}: gets"),
            "1/s",
            each_of(of, |gets| gets.rate),
        ),
        row(format!("{name}: p50"), "us", part(0.5)),
        row(format!("{name}: p99"), "us", part(0.99)),
        row(
            format!("{name}: daemon CPU for a get"),
            "us",
            each_of(of, |gets| gets.daemon_cpu),
        ),
    ]
}

fn client_rows(name: &str, of: &[ClientGets]) -> Vec<Row> {
    let us = |what: &str, part: &dyn Fn(&ClientGets) -> f64| {
        row(format!("{name}: {what}"), "us", each_of(of, part))
    };
    vec![
        us("daemon CPU for a get", &|gets| gets.daemon),
        us("client CPU for a get", &|gets| gets.client),
        us("both", &|gets| gets.daemon + gets.client),
        us("daemon CPU before and after", &|gets| gets.around),
    ]
}

/// A client with the benchmark in the place of `go`.
struct Client {
    child: Child,
    top: PathBuf,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Starts a client once a line is read, as `go` of nixpkgs would: who has started it decides what its keys are made of. A
/// client that cannot see that, as it cannot with another user, shares nothing. Arguments: the user, the build's directory, the
/// client's command.
const STORE: &str = r#"
user=$1 top=$2
shift 2
mkdir -p "$root/nix/store/bench-go/bin"
cp /bin/sh "$root/nix/store/bench-go/bin/go"
echo ready
read -r _
exec chroot --userspec="$user:$user" --groups= "$root" /nix/store/bench-go/bin/go -c 'cd "$1"; shift; "$@"; exit $?' build "$top" "$@"
"#;

impl Client {
    /// In a build of this name, if it has one.
    fn start(of: &Version, name: Option<&str>) -> Self {
        let mut client = Self::prepare(of, name);
        client.begin();
        client
    }

    /// One that is not started yet.
    fn prepare(of: &Version, name: Option<&str>) -> Self {
        let top = of.dir.path().join("client");
        std::fs::create_dir(&top).unwrap();
        chown(&top, Some(BUILDER), Some(BUILDER)).expect("root");
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-euc", &[NEW_ROOT, STORE].concat(), "sh"])
            .arg(BUILDER.to_string())
            .arg(&top)
            .arg(&of.binary)
            .args(["client", "--runtime-dir"])
            .arg(of.daemon.runtime_dir())
            .env("NIX_BUILD_TOP", &top)
            .env("name", name.unwrap_or_default())
            // What C adds is found out once, while the client starts.
            .env("CGO_ENABLED", "0")
            .env_remove("IN_NIX_SHELL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut client = Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            top,
        };
        assert_eq!(client.answer(), "ready\n");
        client
    }

    fn begin(&mut self) {
        self.stdin.write_all(b"go\n").unwrap();
        self.answer();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn get(&mut self, id: u64) -> String {
        let action = STANDARD.encode(action(id % ACTIONS));
        let line = format!("{{\"ID\":{id},\"Command\":\"get\",\"ActionID\":\"{action}\"}}\n");
        self.stdin.write_all(line.as_bytes()).unwrap();
        self.answer()
    }

    fn put(&mut self, nth: u64) {
        let body = body(nth);
        let [action, output] =
            [action(nth), Sha256::digest(&body).into()].map(|id| STANDARD.encode(id));
        let size = body.len();
        let body = STANDARD.encode(body);
        let request = format!(
            "{{\"ID\":{nth},\"Command\":\"put\",\"ActionID\":\"{action}\",\"OutputID\":\"{output}\",\"BodySize\":{size}}}\n\n\
             \"{body}\"\n"
        );
        self.stdin.write_all(request.as_bytes()).unwrap();
        let answer = self.answer();
        assert!(answer.contains("DiskPath"), "{answer}");
    }

    fn get_all(&mut self) {
        for id in 1..=ACTIONS {
            let answer = self.get(id);
            assert!(answer.contains("DiskPath"), "{answer}");
        }
    }

    fn end(self) {
        drop(self.stdin);
        let mut child = self.child;
        assert!(child.wait().unwrap().success());
        std::fs::remove_dir_all(&self.top).unwrap();
    }
}

/// The CPU time of gets through a client, in microseconds a get.
struct ClientGets {
    daemon: f64,
    client: f64,
    /// The daemon's before the first get and after the last: making outputs ready, and removing them.
    around: f64,
}

/// Gets through a client, in a build of its own: of a name for whose builds all of it is made ready first, or of none.
fn client_gets(of: &Version, name: Option<&str>) -> ClientGets {
    let daemon = &of.daemon;
    let daemon_cpu = || cpu(daemon.pid());
    let remove = || {
        daemon.wait_until("what was linked is removed", || {
            builds(daemon).next().is_none()
        })
    };
    remove();
    let (before, clients_before) = (daemon_cpu(), children_cpu());
    let mut client = Client::start(of, name);
    if name.is_some() {
        daemon.wait_until("the build finds something ready", || {
            builds(daemon).any(|build| build.join("ready").exists())
        });
    }
    let before_gets = daemon_cpu();
    client.get_all();
    client.end();
    let of_gets = daemon_cpu() - before_gets;
    remove();
    let each = 1e6 / ACTIONS as f64;
    ClientGets {
        daemon: of_gets * each,
        client: (children_cpu() - clients_before) * each,
        around: (daemon_cpu() - before - of_gets) * each,
    }
}

/// The build directories.
fn builds(daemon: &Daemon) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(daemon.cache_dir().join("builds")).unwrap();
    entries.map(|entry| entry.unwrap().path())
}

pub(crate) fn put(options: &Options) -> Report {
    const SIZE: usize = 256 << 20;
    let dir = TempDir::new();
    let body: Vec<u8> = (0..SIZE as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let text = STANDARD.encode(&body);
    let encoded = dir.path().join("body.b64");
    std::fs::write(&encoded, &text).unwrap();
    let output = STANDARD.encode(Sha256::digest(&body));
    let request = dir.path().join("request");
    let mut file = File::create(&request).unwrap();
    let action = STANDARD.encode([1; 32]);
    write!(
        file,
        "{{\"ID\":1,\"Command\":\"put\",\"ActionID\":\"{action}\",\"OutputID\":\"{output}\",\"BodySize\":{SIZE}}}\n\n\
         \"{text}\"\n{{\"ID\":2,\"Command\":\"close\"}}\n"
    )
    .unwrap();
    drop((body, text, file));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        eprintln!("put: pair {} of {}", pair + 1, options.pairs);
        let daemon = Daemon::start();
        let start = Instant::now();
        let answers = Command::new(binary())
            .args(["client", "--runtime-dir"])
            .arg(daemon.runtime_dir())
            .current_dir(dir.path())
            .stdin(File::open(&request).unwrap())
            .output()
            .unwrap();
        ours.push(start.elapsed().as_secs_f64());
        let answers = String::from_utf8(answers.stdout).unwrap();
        assert!(answers.contains("{\"ID\":1,\"DiskPath\""), "{answers}");
        drop(daemon);
        let start = Instant::now();
        let status = Command::new("sh")
            .args(["-c", "base64 -d <body.b64 | tee body | sha256sum >sum"])
            .current_dir(dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        theirs.push(start.elapsed().as_secs_f64());
        std::fs::remove_file(dir.path().join("body")).unwrap();
    }
    let ratio = ratios(&ours, &theirs);
    let summary = format!("put: 256MiB, ours/pipeline {:.2}", median(&ratio));
    Report {
        rows: vec![
            row("ours: 256 MiB", "s", ours),
            row("base64 -d | tee FILE | sha256sum", "s", theirs),
            row("ours/pipeline", "ratio", ratio),
        ],
        summary,
    }
}

pub(crate) fn start(options: &Options) -> Report {
    let mut versions = Version::all(options);
    for at in 0..options.pairs * 10 {
        for version in turns(versions.len(), at) {
            let of = &mut versions[version];
            let mut client = Client::prepare(of, None);
            let start = Instant::now();
            client.begin();
            assert!(client.get(at as u64).contains("DiskPath"));
            of.started.push(start.elapsed().as_secs_f64() * 1e3);
            client.end();
        }
    }
    let mut rows = Vec::new();
    for of in &versions {
        let name = format!("{}: from start to first answer", of.name);
        rows.push(row(name, "ms", of.started.clone()));
    }
    let ours = &versions[0].started;
    for earlier in &versions[1..] {
        let name = format!("ours/{}", earlier.name);
        rows.push(row(name, "ratio", ratios(ours, &earlier.started)));
    }
    let summary = format!("start: first answer after {:.2}ms", median(ours));
    Report { rows, summary }
}
