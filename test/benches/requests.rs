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
use std::ops::Range;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// What is in the cache; each build gets each action once, as `go` does.
const ACTIONS: u64 = 10_000;

/// How many gets one version makes before it is the other's turn, in one session or through a client: some hundredths of a
/// second, in which no machine gets slower.
const SLICE: u64 = 250;

/// Gets on the socket.
struct Load {
    /// How many sessions get at the same time.
    sessions: u64,
    /// How many gets each of them makes in a turn …
    slice: u64,
    /// … and in all.
    gets: u64,
}

const ONE: Load = Load {
    sessions: 1,
    slice: SLICE,
    gets: ACTIONS,
};

const MANY: Load = Load {
    sessions: 64,
    slice: 50,
    gets: 2_500,
};

/// A version of ours, and its daemon with all actions in its cache.
struct Version {
    name: &'static str,
    binary: PathBuf,
    daemon: Daemon,
    dir: TempDir,
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
        };
        // A client has keys of its own for all of them.
        let mut client = Client::start(&filled, None);
        (0..ACTIONS).for_each(|nth| client.put(nth));
        client.end();
        filled
    }

    /// What a row of this version is called.
    fn row_name(&self, what: &str) -> String {
        match self.name {
            "ours" => what.to_string(),
            other => format!("{other}: {what}"),
        }
    }
}

/// The output of an action: a package's archive without C, as nearly all are that `go` asks for.
fn body(nth: u64) -> Vec<u8> {
    let mut data = [1; 4096];
    data[..8].copy_from_slice(&nth.to_le_bytes());
    archive_of(&data, &[])
}

/// What a version's gets took.
#[derive(Default)]
struct Took {
    one: Vec<Gets>,
    many: Vec<Gets>,
    asked: ThroughClient,
    ready: ThroughClient,
}

/// A slice of gets on the socket.
struct Gets {
    /// Gets a second, of all sessions together.
    rate: f64,
    /// Of each get, in microseconds.
    latencies: Vec<f64>,
    /// CPU time of the daemon, in microseconds a get.
    daemon_cpu: f64,
}

/// Gets through a client.
#[derive(Default)]
struct ThroughClient {
    slices: Vec<ClientGets>,
    /// The CPU time of the daemon and of the client before the first get and after the last, of each build, in milliseconds:
    /// starting, making outputs ready, and removing them.
    around: Vec<[f64; 2]>,
}

/// The CPU time of a slice of gets through a client, in microseconds a get.
struct ClientGets {
    daemon: f64,
    client: f64,
}

impl ThroughClient {
    fn both(&self) -> Vec<f64> {
        each_of(&self.slices, |gets| gets.daemon + gets.client)
    }
}

/// Gets of builds that have one session each, the versions in turn.
fn socket_gets(
    versions: &[Version],
    took: &mut [Took],
    load: &Load,
    of: impl Fn(&mut Took) -> &mut Vec<Gets>,
) {
    for version in versions {
        wait_until_removed(&version.daemon);
    }
    let slice = load.slice;
    let mut builds: Vec<Vec<Build>> = versions
        .iter()
        .map(|of| {
            let top = |session| Build::new(&of.daemon, of.dir.path(), &format!("top-{session}"));
            (0..load.sessions).map(top).collect()
        })
        .collect();
    for nth in 0..load.gets / slice {
        for at in turns(versions.len(), nth as usize) {
            let actions = nth * slice..(nth + 1) * slice;
            let gets = slice_of_gets(&versions[at].daemon, &mut builds[at], actions);
            of(&mut took[at]).push(gets);
        }
    }
}

/// All builds get these actions as fast as they are answered.
fn slice_of_gets(daemon: &Daemon, builds: &mut [Build], actions: Range<u64>) -> Gets {
    let before = cpu(daemon.pid());
    let start = Instant::now();
    let latencies: Vec<f64> = match builds {
        [build] => latencies(build, actions),
        builds => std::thread::scope(|scope| {
            let threads: Vec<_> = builds
                .iter_mut()
                .map(|build| scope.spawn(|| latencies(build, actions.clone())))
                .collect();
            let joined = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap());
            joined.collect()
        }),
    };
    let count = latencies.len() as f64;
    Gets {
        rate: count / start.elapsed().as_secs_f64(),
        latencies,
        daemon_cpu: (cpu(daemon.pid()) - before) * 1e6 / count,
    }
}

/// How long each get took, in microseconds.
fn latencies(build: &mut Build, actions: Range<u64>) -> Vec<f64> {
    let took = actions.map(|nth| {
        let start = Instant::now();
        assert_eq!(build.get(nth), 'h');
        start.elapsed().as_secs_f64() * 1e6
    });
    took.collect()
}

/// Gets through a client of each version, in a build of its own: of a name for whose builds all of it is made ready first, or
/// of none.
fn client_gets(
    versions: &[Version],
    took: &mut [Took],
    name: Option<&str>,
    of: impl Fn(&mut Took) -> &mut ThroughClient,
) {
    let daemon_cpu = |at: usize| cpu(versions[at].daemon.pid());
    let mut clients = Vec::new();
    let mut before = Vec::new();
    for (at, version) in versions.iter().enumerate() {
        wait_until_removed(&version.daemon);
        before.push(daemon_cpu(at));
        clients.push(Client::start(version, name));
        if name.is_some() {
            version
                .daemon
                .wait_until("the build finds something ready", || {
                    builds(&version.daemon).any(|build| build.join("ready").exists())
                });
        }
    }
    let mut used = vec![[0.0; 2]; versions.len()];
    for slice in 0..ACTIONS / SLICE {
        for at in turns(versions.len(), slice as usize) {
            let client = &mut clients[at];
            let start = [daemon_cpu(at), cpu(client.pid)];
            client.get_all(slice * SLICE..(slice + 1) * SLICE);
            let slice = [daemon_cpu(at) - start[0], cpu(client.pid) - start[1]];
            let [daemon, client] = slice.map(|cpu| cpu * 1e6 / SLICE as f64);
            of(&mut took[at]).slices.push(ClientGets { daemon, client });
            used[at] = [used[at][0] + slice[0], used[at][1] + slice[1]];
        }
    }
    for (at, client) in clients.into_iter().enumerate() {
        let children = children_cpu();
        client.end();
        wait_until_removed(&versions[at].daemon);
        let all = [daemon_cpu(at) - before[at], children_cpu() - children];
        let around = [(all[0] - used[at][0]) * 1e3, (all[1] - used[at][1]) * 1e3];
        of(&mut took[at]).around.push(around);
    }
}

/// The benchmark, its daemons and what it starts run on one processor, until this is dropped.
struct OneProcessor {
    pids: Vec<u32>,
    all: String,
}

impl OneProcessor {
    fn bind(versions: &[Version]) -> Self {
        let daemons = versions.iter().map(|of| of.daemon.pid());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mut lines = status.lines();
        let all = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let bound = Self {
            pids: daemons.chain([std::process::id()]).collect(),
            all: all.unwrap().trim().into(),
        };
        bound.run_on(bound.all.split([',', '-']).next_back().unwrap());
        bound
    }

    fn run_on(&self, processors: &str) {
        for pid in &self.pids {
            let mut taskset = Command::new("taskset");
            taskset.args(["--all-tasks", "--pid", "--cpu-list", processors]);
            let done = taskset.arg(pid.to_string()).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        }
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        self.run_on(&self.all);
    }
}

/// What was linked for builds that have ended is gone.
fn wait_until_removed(daemon: &Daemon) {
    daemon.wait_until("what was linked is removed", || {
        builds(daemon).next().is_none()
    });
}

/// The build directories.
fn builds(daemon: &Daemon) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(daemon.cache_dir().join("builds")).unwrap();
    entries.map(|entry| entry.unwrap().path())
}

pub(crate) fn get(options: &Options) -> Report {
    let versions = Version::all(options);
    for of in &versions {
        // So that there is something to make ready.
        let mut client = Client::start(of, Some("bench-1.0"));
        client.get_all(0..ACTIONS);
        client.end();
    }
    let mut took: Vec<Took> = versions.iter().map(|_| Took::default()).collect();
    for pair in 0..options.pairs {
        eprintln!("get: pair {} of {}", pair + 1, options.pairs);
        socket_gets(&versions, &mut took, &MANY, |took| &mut took.many);
        // Whether what wakes up does so on the same processor makes more difference than all that is measured.
        let _one = OneProcessor::bind(&versions);
        socket_gets(&versions, &mut took, &ONE, |took| &mut took.one);
        client_gets(&versions, &mut took, None, |took| &mut took.asked);
        client_gets(&versions, &mut took, Some("bench-1.1"), |took| {
            &mut took.ready
        });
    }
    let mut rows = Vec::new();
    for (of, took) in versions.iter().zip(&took) {
        rows.extend(socket_rows(&of.row_name("one session"), &took.one));
        rows.extend(socket_rows(&of.row_name("64 sessions"), &took.many));
        rows.extend(client_rows(&of.row_name("client, ready"), &took.ready));
        rows.extend(client_rows(&of.row_name("client, asking"), &took.asked));
    }
    let ours = &took[0];
    for (of, earlier) in versions.iter().zip(&took).skip(1) {
        let mut ratio = |what: &str, of_took: &dyn Fn(&Took) -> Vec<f64>| {
            let name = format!("ours/{}: {what}", of.name);
            rows.push(row(
                name,
                "ratio",
                ratios(&of_took(ours), &of_took(earlier)),
            ));
        };
        ratio("one session: gets a second", &|of| rates(&of.one));
        ratio("64 sessions: gets a second", &|of| rates(&of.many));
        ratio("client, ready: CPU for a get", &|of| of.ready.both());
        ratio("client, asking: CPU for a get", &|of| of.asked.both());
    }
    let [ready, asked] = [&ours.ready, &ours.asked].map(|of| median(&of.both()));
    let scaling = median(&rates(&ours.many)) / median(&rates(&ours.one));
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

fn socket_rows(name: &str, of: &[Gets]) -> Vec<Row> {
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

fn client_rows(name: &str, of: &ThroughClient) -> Vec<Row> {
    let rows = |what: &str, unit, values| row(format!("{name}: {what}"), unit, values);
    let around = |at: usize| each_of(&of.around, |around| around[at]);
    vec![
        rows(
            "daemon CPU for a get",
            "us",
            each_of(&of.slices, |gets| gets.daemon),
        ),
        rows(
            "client CPU for a get",
            "us",
            each_of(&of.slices, |gets| gets.client),
        ),
        rows("both", "us", of.both()),
        rows("daemon CPU before and after", "ms", around(0)),
        rows("client CPU before and after", "ms", around(1)),
    ]
}

/// A client with the benchmark in the place of `go`.
struct Client {
    child: Child,
    /// Of the client itself, which a shell in the place of `go` has started.
    pid: u32,
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
            pid: 0,
            top,
        };
        assert_eq!(client.answer(), "ready\n");
        client
    }

    fn begin(&mut self) {
        self.stdin.write_all(b"go\n").unwrap();
        self.answer();
        let shell = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        self.pid = children.unwrap().trim().parse().unwrap();
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

    fn get_all(&mut self, actions: Range<u64>) {
        for nth in actions {
            // No request has the number zero.
            let answer = self.get(nth + ACTIONS);
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
    let versions = Version::all(options);
    // In milliseconds.
    let mut started = vec![Vec::new(); versions.len()];
    for at in 0..options.pairs * 10 {
        for version in turns(versions.len(), at) {
            let mut client = Client::prepare(&versions[version], None);
            let start = Instant::now();
            client.begin();
            assert!(client.get(at as u64).contains("DiskPath"));
            started[version].push(start.elapsed().as_secs_f64() * 1e3);
            client.end();
        }
    }
    let mut rows = Vec::new();
    for (of, started) in versions.iter().zip(&started) {
        let name = format!("{}: from start to first answer", of.name);
        rows.push(row(name, "ms", started.clone()));
    }
    let ours = &started[0];
    for (of, earlier) in versions.iter().zip(&started).skip(1) {
        let name = format!("ours/{}", of.name);
        rows.push(row(name, "ratio", ratios(ours, earlier)));
    }
    let summary = format!("start: first answer after {:.2}ms", median(ours));
    Report { rows, summary }
}
