//! A team: many machines that read from one server while a few fill it. Each has a daemon of its own; only `go` is
//! simulated, by sessions that ask for what a build asks for. All of it shares this machine's processors: with more readers
//! than these can carry, waits are given up and hits become fewer.

use crate::cpu::cpu;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::servers::{Kind, Server, Setup};
use crate::support::TempDir;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many machines read at the same time.
const READERS: [usize; 6] = [2, 4, 8, 16, 32, 64];

/// How many fill the server meanwhile, each with a program of its own.
const WRITERS: u64 = 4;

/// How many builds of one program each reader runs at the same time.
const BUILDS: u64 = 2;

/// The actions of one program: a tenth of containerd's.
const ACTIONS: u64 = 300;

/// Requests that a session has on the way at one time, as `go` does.
const AT_ONCE: u64 = 24;

/// What one package takes to compile.
const COMPILING: Duration = Duration::from_millis(200);

/// One program's output: as many small and large ones as Go has, which pack to about a quarter.
fn output(program: u64, n: u64) -> Vec<u8> {
    let length = match n % 10 {
        0..4 => 300 + n % 3_000,
        4..9 => 20_000 + n * 977 % 200_000,
        _ => 600_000,
    };
    let mut text = String::new();
    let mut line = program << 32 | n;
    while (text.len() as u64) < length {
        line = line.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let _ = write!(text, "{:012x} a symbol of package p{n} ", line >> 16);
    }
    text.into_bytes()
}

fn action(program: u64, n: u64) -> [u8; 32] {
    Sha256::digest(format!("fleet {program} {n}")).into()
}

/// What makes the server count its requests.
const COUNTING: [&str; 2] = ["env", "BAZEL_REMOTE_ENABLE_ENDPOINT_METRICS=true"];

/// A session with a machine's daemon.
struct Session(Peer);

impl Session {
    fn start(machine: &Machine, program: u64) -> Self {
        let stream = UnixStream::connect(machine.socket()).unwrap();
        let name = format!("fleet-{program}-1.0");
        let hello = serde_json::json!({"version": 1, "name": name, "shared": true});
        Self(Peer::hello_on(stream, &hello.to_string()).unwrap())
    }

    fn put_all(&mut self, program: u64) {
        for n in 0..ACTIONS {
            let body = output(program, n);
            let mut frame = frame(b'p', program, n);
            frame.extend(Sha256::digest(&body));
            frame.extend((body.len() as u64).to_le_bytes());
            frame.extend(body);
            self.0.send(&frame);
            assert_eq!(self.0.answer(), 's');
        }
    }

    /// Says how many were hits. What is not there is compiled, which takes its time: a daemon that cannot keep up answers
    /// that it has nothing.
    fn get_all(&mut self, program: u64) -> u64 {
        for n in 0..AT_ONCE {
            self.0.send(&frame(b'g', program, n));
        }
        let mut hits = 0;
        for n in AT_ONCE..ACTIONS + AT_ONCE {
            match self.0.answer() {
                'h' => hits += 1,
                _ => std::thread::sleep(COMPILING),
            }
            if n < ACTIONS {
                self.0.send(&frame(b'g', program, n));
            }
        }
        hits
    }
}

fn frame(tag: u8, program: u64, n: u64) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.extend(n.to_le_bytes());
    frame.extend(action(program, n));
    frame
}

/// What the server has done in all.
struct Work {
    requests: u64,
    /// Of the processor, in seconds.
    cpu: f64,
}

impl Work {
    fn of(server: &Server) -> Self {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let counts = text
            .lines()
            .filter(|line| line.starts_with("bazel_remote_incoming_requests_total{"));
        let counts = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        let requests = counts.sum::<f64>() as u64;
        Self {
            requests,
            cpu: cpu(server.pid()),
        }
    }
}

pub fn run() {
    let plain: usize = (0..ACTIONS).map(|n| output(0, n).len()).sum();
    println!(
        "a program has {ACTIONS} outputs, {:.1} MB; {WRITERS} machines fill the server with others meanwhile",
        plain as f64 / 1e6
    );
    println!(
        "{:>8} {:>8} {:>10} {:>8} {:>12} {:>12} {:>16} {:>14} {:>8}",
        "readers",
        "builds",
        "wall, s",
        "hits, %",
        "MB each",
        "requests",
        "server CPU, s",
        "ms each build",
        "errors"
    );
    let mut last = String::new();
    let mut next = 1;
    for readers in READERS {
        let dir = TempDir::new();
        let storage = dir.path().join("storage");
        let setup = Setup::plain(Kind::BazelRemote);
        let server = Server::start_in(setup, dir, &storage, "127.0.0.1", &COUNTING);
        let writes = ["--remote", &server.url];
        let filling = Machine::start(&[], &writes);
        Session::start(&filling, 0).put_all(0);
        filling.wait_for_uploads();
        let reads = ["--remote", &server.url, "--remote-mode", "read"];
        let machines: Vec<_> = (0..readers).map(|_| Machine::start(&[], &reads)).collect();
        let programs = next..next + WRITERS;
        next += WRITERS;
        let writers: Vec<_> = programs
            .map(|program| (Machine::start(&[], &writes), program))
            .collect();
        let before = Work::of(&server);
        let hits = &AtomicU64::new(0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (machine, program) in &writers {
                scope.spawn(move || {
                    Session::start(machine, *program).put_all(*program);
                    machine.wait_for_uploads();
                });
            }
            for machine in &machines {
                for _ in 0..BUILDS {
                    scope.spawn(move || {
                        hits.fetch_add(Session::start(machine, 0).get_all(0), Ordering::Relaxed);
                    });
                }
            }
        });
        let wall = start.elapsed().as_secs_f64();
        let after = Work::of(&server);
        let told: Vec<_> = machines
            .iter()
            .map(|machine| machine.stats()["remote"].clone())
            .collect();
        let sum = |what: &str| {
            told.iter()
                .map(|told| told[what].as_u64().unwrap())
                .sum::<u64>()
        };
        let each = sum("received") as f64 / readers as f64;
        let written: u64 = writers
            .iter()
            .map(|(machine, _)| machine.remote("uploads"))
            .sum();
        let requests = after.requests - before.requests;
        let cpu = after.cpu - before.cpu;
        let builds = readers as u64 * BUILDS;
        let share = 100.0 * hits.load(Ordering::Relaxed) as f64 / (builds * ACTIONS) as f64;
        println!(
            "{readers:>8} {builds:>8} {wall:>10.1} {share:>8.1} {:>12.1} {requests:>12} {cpu:>16.1} {:>14.1} {:>8}",
            each / 1e6,
            1e3 * cpu / builds as f64,
            sum("errors")
        );
        assert!(requests > 0 && share > 0.0);
        last = format!(
            "fleet: {readers} readers and {WRITERS} writers ({written} uploads): {:.2} of the bytes of one build for {BUILDS}, \
             {requests} requests, server CPU {:.0} ms for each build",
            each / plain as f64,
            1e3 * cpu / builds as f64
        );
    }
    println!("{last}");
}
