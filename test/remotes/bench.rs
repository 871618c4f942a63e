//! Two machines in network namespaces, with a line between them that takes its time: one fills the remote, and the other
//! builds for the first time.

use crate::machine::{Machine, Program, build_without};
use crate::relay;
use crate::servers::{Kind, Server, Setup};
use crate::support::{TempDir, text};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A line between two machines.
struct Shape {
    name: &'static str,
    /// How long a byte takes from one machine to the other, in milliseconds.
    delay: u64,
    /// How many millions of bits pass in a second, each way; any number when it is 0.
    megabits: u64,
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "0ms",
        delay: 0,
        megabits: 0,
    },
    Shape {
        name: "10ms",
        delay: 10,
        megabits: 0,
    },
    Shape {
        name: "50ms",
        delay: 50,
        megabits: 0,
    },
    Shape {
        name: "100Mbit",
        delay: 20,
        megabits: 100,
    },
    Shape {
        name: "20Mbit",
        delay: 40,
        megabits: 20,
    },
];

/// A namespace with an address in it, which is gone when this is dropped.
struct Namespace(&'static str);

impl Namespace {
    fn new(name: &'static str) -> Self {
        let _ = Command::new("ip").args(["netns", "del", name]).output();
        ip(&["netns", "add", name]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        Self(name)
    }

    fn behind(&self) -> [&str; 4] {
        ["ip", "netns", "exec", self.0]
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", self.0]).output();
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args:?}, which needs root: {}",
        text(&output.stderr)
    );
}

/// The line, from another address of machine A to its server.
struct Line(Child);

impl Line {
    fn start(namespace: &Namespace, target: &str, shape: &Shape) -> (Self, String) {
        let [first, rest @ ..] = namespace.behind();
        let mut child = Command::new(first)
            .args(rest)
            .arg(std::env::current_exe().unwrap())
            .args(["relay", HOST_A, target])
            .args([shape.delay.to_string(), shape.megabits.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut address).unwrap();
        (Self(child), address.trim().into())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const HOST_A: &str = "10.199.77.1";

/// Runs the relay, as another process of the benchmark.
pub fn relay(args: &[String]) -> ! {
    let [host, target, delay, megabits] = args else {
        panic!("relay HOST TARGET DELAY MEGABITS")
    };
    let bytes = megabits.parse::<u64>().unwrap() * 1_000_000 / 8;
    relay::run(
        host,
        target,
        Duration::from_millis(delay.parse().unwrap()),
        Some(bytes).filter(|bytes| *bytes > 0),
    )
}

pub fn run() {
    let program = Program {
        dir: std::env::var_os("NIX_GOCACHEPROG_BENCH_PROGRAM")
            .unwrap()
            .into(),
        package: "./cmd/containerd",
        name: "containerd-2.4.2",
    };
    let a = Namespace::new("gocacheprog-a");
    let b = Namespace::new("gocacheprog-b");
    ip(&[
        "-n", a.0, "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b", "netns", b.0,
    ]);
    for (namespace, device, address) in [
        (&a, "veth-a", "10.199.77.1/24"),
        (&b, "veth-b", "10.199.77.2/24"),
    ] {
        ip(&["-n", namespace.0, "addr", "add", address, "dev", device]);
        ip(&["-n", namespace.0, "link", "set", device, "up"]);
    }
    let dir = TempDir::new();
    let storage = dir.path().join("storage");
    let setup = Setup::plain(Kind::BazelRemote);
    let server = Server::start_in(setup, dir, &storage, HOST_A, &a.behind());
    eprintln!("remote: machine A builds and fills the remote");
    let filling = Machine::start(&a.behind(), &["--remote", &server.url]);
    let filled = filling.build(&program);
    filling.wait_for_uploads();
    let report = &filling.stats()["remote"];
    eprintln!(
        "remote: filled in {:.1} s: {} actions, {} MB, and {} errors",
        filled.wall,
        report["uploads"],
        report["sent"].as_u64().unwrap() / 1_000_000,
        report["errors"]
    );
    drop(filling);
    println!(
        "{:>8} {:>10} {:>12} {:>8} {:>10} {:>10} {:>8} {:>8} {:>8}",
        "line", "cold, s", "with it, s", "ratio", "MB", "wire, MB", "ahead", "hits", "misses"
    );
    let mut summary = Vec::new();
    let mut on_the_wire = Vec::new();
    for shape in &SHAPES {
        let cold = build_without(&program);
        assert!(cold.hash == filled.hash, "another program");
        let line = (shape.delay > 0).then(|| Line::start(&a, &server.address, shape));
        let address = line
            .as_ref()
            .map_or(&server.address, |(_, address)| address);
        let url = format!("http://{address}");
        let before = received(&b);
        let machine = Machine::start(&b.behind(), &["--remote", &url, "--remote-mode", "read"]);
        let first = machine.build(&program);
        assert!(first.hash == cold.hash, "another program");
        let told = machine.stats()["remote"].clone();
        let wire = received(&b) - before;
        let plain = told["received"].as_u64().unwrap();
        on_the_wire.push(wire as f64 / plain as f64);
        let ratio = cold.wall / first.wall;
        println!(
            "{:>8} {:>10.1} {:>12.1} {:>7.1}x {:>10} {:>10} {:>8} {:>8} {:>8}",
            shape.name,
            cold.wall,
            first.wall,
            ratio,
            plain / 1_000_000,
            wire / 1_000_000,
            told["ahead"],
            told["hits"],
            told["misses"]
        );
        assert_eq!(told["errors"], 0, "{}", machine.log());
        summary.push(format!("{} {ratio:.1}x", shape.name));
    }
    let wire = on_the_wire.into_iter().fold(0.0, f64::max);
    println!("remote: {}, wire {wire:.2}", summary.join(", "));
}

/// What has come to machine B in all, with the heads of packets.
fn received(namespace: &Namespace) -> u64 {
    let [first, rest @ ..] = namespace.behind();
    let output = Command::new(first)
        .args(rest)
        .args(["cat", "/sys/class/net/veth-b/statistics/rx_bytes"])
        .output()
        .unwrap();
    text(&output.stdout).trim().parse().unwrap()
}
