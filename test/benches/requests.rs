//! Requests: on the socket, and through a client as `go` would make them.

use crate::Options;
use crate::build::{Build, action};
use crate::cpu::cpu;
use crate::figures::{Report, Row, median, quantile, ratios, row};
use crate::gobuild::children_cpu;
use crate::support::{BUILDER, Daemon, TempDir, binary};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// What is in the cache; each build gets each action once, as `go` does.
const ACTIONS: u64 = 10_000;

/// Gets of one session; enough for the kernel's count of CPU time, which ticks 100 times a second.
const GETS: u64 = 40_000;

/// Clients, one after the other. After each the daemon takes some seconds to see that its build has ended.
const CLIENTS: u64 = 2;

fn filled(dir: &TempDir) -> Daemon {
    let daemon = Daemon::start_for_builder();
    let mut build = Build::new(&daemon, dir.path(), "filling");
    for nth in 0..ACTIONS {
        let mut body = [1; 4096];
        body[..8].copy_from_slice(&nth.to_le_bytes());
        assert_eq!(build.put(nth, &Sha256::digest(body), &body), 's');
    }
    daemon
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
    let before = cpu(daemon.pid(), 13);
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
        daemon_cpu: (cpu(daemon.pid(), 13) - before) * 1e6 / count,
    }
}

pub(crate) fn get(options: &Options) -> Report {
    let dir = TempDir::new();
    let daemon = filled(&dir);
    let (mut one, mut many) = (Vec::new(), Vec::new());
    let (mut asked, mut ready) = (Vec::new(), Vec::new());
    // So that there is something to make ready.
    let mut client = Client::start(&daemon, &dir, Some("bench-1.0"));
    client.get_all();
    client.end();
    for pair in 0..options.pairs {
        eprintln!("get: pair {} of {}", pair + 1, options.pairs);
        one.push(gets(&daemon, &dir, 1));
        many.push(gets(&daemon, &dir, 64));
        asked.push(client_gets(&daemon, &dir, None));
        ready.push(client_gets(&daemon, &dir, Some("bench-1.1")));
    }
    let rate = |of: &[Gets]| each_of(of, |gets| gets.rate);
    let scaling = ratios(&rate(&many), &rate(&one));
    let both = |of: &[ClientGets]| median(&each_of(of, |gets| gets.daemon + gets.client));
    let summary = format!(
        "get: daemon + client CPU {:.1}us, {:.1}us when the daemon is asked, 64 sessions/one {:.2}",
        both(&ready),
        both(&asked),
        median(&scaling)
    );
    let mut rows = sessions_rows("one session", &one);
    rows.extend(sessions_rows("64 sessions", &many));
    rows.push(row("64 sessions/one: gets a second", "ratio", scaling));
    rows.extend(client_rows("client, ready", &ready));
    rows.extend(client_rows("client, asking", &asked));
    Report { rows, summary }
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

impl Client {
    /// In a build of this name, if it has one.
    fn start(daemon: &Daemon, dir: &TempDir, name: Option<&str>) -> Self {
        let top = dir.path().join("client");
        std::fs::create_dir(&top).unwrap();
        chown(&top, Some(BUILDER), Some(BUILDER)).expect("root");
        // A client that cannot see who has started it, as it cannot with another user, shares nothing.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "\"$@\"; exit $?", "build"])
            .arg(binary())
            .args(["client", "--runtime-dir"])
            .arg(daemon.runtime_dir())
            .current_dir(&top)
            .env("NIX_BUILD_TOP", &top)
            .env("name", name.unwrap_or_default())
            .env_remove("IN_NIX_SHELL")
            .uid(BUILDER)
            .gid(BUILDER)
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
        client.answer();
        client
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

/// Gets through clients, one after the other, each in a build of its own: of a name for whose builds all of it is made
/// ready first, or of none.
fn client_gets(daemon: &Daemon, dir: &TempDir, name: Option<&str>) -> ClientGets {
    let daemon_cpu = || cpu(daemon.pid(), 13);
    let remove = || {
        daemon.wait_until("what was linked is removed", || {
            builds(daemon).next().is_none()
        })
    };
    remove();
    let (before, clients_before) = (daemon_cpu(), children_cpu());
    let mut of_gets = 0.0;
    for _ in 0..CLIENTS {
        let mut client = Client::start(daemon, dir, name);
        if name.is_some() {
            daemon.wait_until("the build finds something ready", || {
                builds(daemon).any(|build| build.join("ready").exists())
            });
        }
        let before = daemon_cpu();
        client.get_all();
        client.end();
        of_gets += daemon_cpu() - before;
        remove();
    }
    let each = 1e6 / (CLIENTS * ACTIONS) as f64;
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
    let dir = TempDir::new();
    let daemon = filled(&dir);
    let millis: Vec<_> = (0..options.pairs as u64 * 10)
        .map(|at| {
            let start = Instant::now();
            let mut client = Client::start(&daemon, &dir, None);
            assert!(client.get(at).contains("DiskPath"));
            let took = start.elapsed().as_secs_f64() * 1e3;
            client.end();
            took
        })
        .collect();
    let summary = format!("start: first answer after {:.2}ms", median(&millis));
    Report {
        rows: vec![row("from start to first answer", "ms", millis)],
        summary,
    }
}
