//! `go build` of a real program, through each cache in turn, each time in a mount namespace of its own. Ours looks there as it
//! does in a sandbox: the build is registered as the hook does it, some time before `go` starts, and its directory, the client
//! and the socket are in `/gocache`. The source has the times that the setup hook gives it while a phase runs `go`, so `go`
//! uses its module index in all candidates, and ours shares it. Giving it these times is measured for itself.

use crate::Options;
use crate::cpu::cpu;
use crate::figures::{Report, median, ratios, row};
use crate::support::{BUILDER, Daemon, TempDir, binary};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A way for `go` to keep its cache.
struct Cache {
    name: String,
    /// What GOCACHEPROG is set to, if anything.
    prog: Option<String>,
    /// Of ours: the binary, and its daemon.
    daemon: Option<(PathBuf, Daemon)>,
    dir: TempDir,
    /// What CGO_ENABLED is set to.
    cgo: &'static str,
}

/// What one build took.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
    /// Before it, giving the source its times.
    stamp: f64,
}

impl Cache {
    /// Go's own, unless it is given a program.
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            prog: None,
            daemon: None,
            dir: TempDir::new(),
            cgo: "0",
        }
    }

    fn ours(name: &str, binary: PathBuf) -> Self {
        let daemon = Daemon::start_for_builder_from(&binary, &[]);
        Self {
            prog: Some("/gocache/client".into()),
            daemon: Some((binary, daemon)),
            ..Self::new(name)
        }
    }

    /// All candidates, ours first and Go's own second, then an earlier version of ours, on a source that is stamped.
    fn all(options: &Options) -> Vec<Self> {
        own_source();
        let peers = options.peers.iter().map(|(name, command)| Self {
            prog: Some(command.clone()),
            ..Self::new(name)
        });
        let mut ours = options
            .versions()
            .into_iter()
            .map(|(name, binary)| Self::ours(name, binary));
        let first = ours.next().unwrap();
        [first, Self::new("go")]
            .into_iter()
            .chain(ours)
            .chain(peers)
            .map(|cache| match options.cgo {
                true => Self { cgo: "1", ..cache },
                false => cache,
            })
            .collect()
    }

    /// Builds the program, as a build of its own: what it gets is linked for the first time.
    fn build(&self) -> Took {
        let top = self.dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        for path in [self.dir.path(), &top] {
            chown(path, Some(BUILDER), Some(BUILDER)).expect("root");
        }
        let stamp = self.stamp(&top);
        let before = self.cpu();
        let goroot = PathBuf::from(std::env::var_os("GOROOT").unwrap());
        let program = program();
        let mut namespace = Command::new("unshare");
        namespace.args(["--mount", "--pid", "--fork"]);
        namespace.args(["sh", "-euc", &[NEW_ROOT, NAMESPACE].concat(), "sh"]);
        // As in a sandbox: root, and the daemon's own user, get copies instead of links.
        namespace.arg(BUILDER.to_string());
        namespace.arg(&program);
        match &self.daemon {
            Some((binary, daemon)) => {
                let (id, directory) = register(daemon, &top);
                namespace.arg(binary).arg(daemon.runtime_dir());
                namespace.arg(id).arg(directory)
            }
            None => namespace.args(["", "", "", ""]),
        };
        // The phases before the first `go` of a real build give some time. What is made ready in it is counted as the daemon's
        // CPU time. All candidates have it, or some would begin on a processor that is warm.
        std::thread::sleep(Duration::from_millis(500));
        namespace
            .arg(goroot.join("bin/go"))
            .args(["build", "-mod=vendor", "-trimpath", "-buildvcs=false", "-o"])
            .arg(self.dir.path().join("program"))
            .arg("./cmd/containerd")
            .env("NIX_GOCACHEPROG_STAMPED", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        self.set_variables(&mut namespace, &top);
        if let Some(prog) = &self.prog {
            namespace.env("GOCACHEPROG", prog);
        }
        let mut go = namespace.spawn().unwrap();
        let mut said = BufReader::new(go.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "ready");
        let start = Instant::now();
        go.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let built = said.next().is_some();
        let wall = start.elapsed().as_secs_f64();
        let ended = go.wait().unwrap();
        assert!(built && ended.success(), "{}: go build", self.name);
        std::fs::remove_dir_all(&top).unwrap();
        Took {
            wall,
            cpu: self.cpu() - before,
            stamp,
        }
    }

    /// Gives the source the times that say its content, as the setup hook does; says how long that took, in seconds.
    /// Nobody needs the old ones back: the next time gives the same.
    fn stamp(&self, top: &Path) -> f64 {
        let mut stamper = Command::new(binary());
        stamper.args(["client", "--stamp"]).arg(program());
        stamper.arg("--times").arg(top.join("times"));
        stamper.current_dir(program()).uid(BUILDER).gid(BUILDER);
        self.set_variables(&mut stamper, top);
        let start = Instant::now();
        let stamped = stamper.status().unwrap();
        assert!(stamped.success(), "the source cannot be stamped");
        start.elapsed().as_secs_f64()
    }

    /// The variables of the build.
    fn set_variables(&self, command: &mut Command, top: &Path) {
        command
            .env("GOCACHE", self.dir.path().join("gocache"))
            .env("GOENV", "off")
            .env("GOFLAGS", "")
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", self.cgo)
            .env("NIX_BUILD_TOP", top)
            .env_remove("IN_NIX_SHELL")
            .env_remove("GOCACHEPROG");
    }

    /// The CPU time of all that has been waited for, and of the daemon, in seconds.
    fn cpu(&self) -> f64 {
        children_cpu()
            + self
                .daemon
                .as_ref()
                .map_or(0.0, |(_, daemon)| cpu(daemon.pid()))
    }
}

/// Mounts all of the machine at `$root`, but for /nix, where a sandbox has its own.
pub const NEW_ROOT: &str = r#"
root=/mnt
mount -t tmpfs none "$root"
for path in /*; do
    if [ -L "$path" ]; then cp -P "$path" "$root$path"
    elif [ "$path" = /proc ]; then mkdir "$root$path"; mount -t proc proc "$root$path"
    elif [ -d "$path" ] && [ "$path" != "$root" ] && [ "$path" != /nix ]; then
        mkdir "$root$path"; mount --rbind "$path" "$root$path"
    fi
done
"#;

/// Starts a program in a mount namespace once a line is read, and says when it has ended. `go` waits for
/// no GOCACHEPROG to end: whatever it leaves ends with the shell, which is the first process of a namespace, and so its CPU
/// time is the shell's too. Arguments: the user to start it as, and the directory; for a build of ours the client, the runtime
/// directory, the build's ID and its directory; the command.
const NAMESPACE: &str = r#"
user=$1 cwd=$2 client=$3 runtime=$4 id=$5 directory=$6
shift 6
if [ -n "$id" ]; then
    mkdir -p "$root/gocache/run/build" "$root/gocache/$id"
    touch "$root/gocache/client"
    mount --bind "$client" "$root/gocache/client"
    mount --bind "$runtime/build" "$root/gocache/run/build"
    mount --bind "$directory" "$root/gocache/$id"
fi
echo ready
read -r _
exec chroot --userspec="$user:$user" --groups= "$root" sh -euc 'cd "$1"; shift; "$@" >&2; echo built' sh "$cwd" "$@"
"#;

/// The source of what is built.
fn program() -> PathBuf {
    std::env::var_os("NIX_GOCACHEPROG_BENCH_PROGRAM")
        .unwrap()
        .into()
}

/// Gives the source to the user of the builds, as Nix unpacks it.
fn own_source() {
    let owner = format!("{BUILDER}:{BUILDER}");
    let mut chown = Command::new("chown");
    let owned = chown.args(["-R", &owner]).arg(program());
    assert!(owned.status().unwrap().success());
}

/// Registers a build as the hook does.
fn register(daemon: &Daemon, top: &Path) -> (String, PathBuf) {
    let ask = serde_json::json!({"ask": "register", "name": "containerd-2.4.2", "chroot": top});
    let mut stream = UnixStream::connect(daemon.runtime_dir().join("control/sock")).unwrap();
    writeln!(stream, "{ask}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let reply: serde_json::Value = serde_json::from_str(&line).unwrap();
    let directory = PathBuf::from(reply["directory"].as_str().unwrap());
    (reply["build"].as_str().unwrap().into(), directory)
}

/// The CPU time in seconds of all processes that this one, and those, have waited for.
#[allow(unsafe_code)]
pub fn children_cpu() -> f64 {
    // SAFETY: the structure is one of numbers, for which zero is a value; the function writes to it and keeps no pointer.
    let (failed, usage) = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        let failed = libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        (failed, usage)
    };
    assert_eq!(failed, 0);
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn report(part: &str, caches: &[String], took: &[Vec<Took>]) -> Report {
    let walls: Vec<Vec<f64>> = took
        .iter()
        .map(|took| took.iter().map(|t| t.wall).collect())
        .collect();
    let cpus: Vec<Vec<f64>> = took
        .iter()
        .map(|took| took.iter().map(|t| t.cpu).collect())
        .collect();
    let mut rows = Vec::new();
    for (at, name) in caches.iter().enumerate() {
        rows.push(row(format!("{name}: wall"), "s", walls[at].clone()));
        rows.push(row(format!("{name}: CPU"), "s", cpus[at].clone()));
        let stamps = took[at].iter().map(|took| took.stamp);
        rows.push(row(format!("{name}: times set"), "s", stamps.collect()));
    }
    for (at, name) in caches.iter().enumerate().filter(|(at, _)| *at != 1) {
        rows.push(row(
            format!("{name}/go: wall"),
            "ratio",
            ratios(&walls[at], &walls[1]),
        ));
        rows.push(row(
            format!("{name}/go: CPU"),
            "ratio",
            ratios(&cpus[at], &cpus[1]),
        ));
    }
    if let Some(at) = caches.iter().position(|name| name == "earlier") {
        for (what, took) in [("wall", &walls), ("CPU", &cpus)] {
            rows.push(row(
                format!("ours/earlier: {what}"),
                "ratio",
                ratios(&took[0], &took[at]),
            ));
        }
    }
    let wall = median(&ratios(&walls[0], &walls[1]));
    let cpu = median(&ratios(&cpus[0], &cpus[1]));
    let pairs = walls[0].len();
    Report {
        rows,
        summary: match part {
            "warm" => format!("warm: ours/go {wall:.2} ({pairs} pairs)"),
            _ => format!("cold: ours/go {wall:.2}, CPU {cpu:.2} ({pairs} pairs)"),
        },
    }
}

pub(crate) fn warm(options: &Options) -> Report {
    let caches = Cache::all(options);
    for cache in &caches {
        eprintln!("filling: {}", cache.name);
        cache.build();
        // Once more, for what only a second build finds.
        cache.build();
    }
    // Or what filling has written is written to the disk meanwhile.
    sync();
    let mut took = vec![Vec::new(); caches.len()];
    for pair in 0..options.pairs {
        eprintln!("warm: pair {} of {}", pair + 1, options.pairs);
        for at in turns(caches.len(), pair) {
            took[at].push(caches[at].build());
        }
    }
    let names: Vec<_> = caches.iter().map(|cache| cache.name.clone()).collect();
    report("warm", &names, &took)
}

pub(crate) fn cold(options: &Options) -> Report {
    // All of them stay until the end: where many files have been deleted within minutes, ext4 takes long to make one
    // (`recently_deleted` in fs/ext4/ialloc.c).
    let mut caches: Vec<Vec<Cache>> = Vec::new();
    let mut took: Vec<Vec<Took>> = Vec::new();
    for pair in 0..options.pairs {
        eprintln!("cold: pair {} of {}", pair + 1, options.pairs);
        let mut empty = Cache::all(options);
        took.resize_with(empty.len(), Vec::new);
        for at in turns(empty.len(), pair) {
            // Or what the one before has written is written to the disk meanwhile.
            sync();
            took[at].push(empty[at].build());
            // It has more to sync later.
            if let Some((_, daemon)) = &mut empty[at].daemon {
                daemon.terminate();
                assert!(daemon.wait().success());
            }
        }
        caches.push(empty);
    }
    let names = caches.iter().flatten().map(|cache| cache.name.clone());
    let names: Vec<_> = names.take(took.len()).collect();
    report("cold", &names, &took)
}

/// Who comes when in a pair: a machine that gets slower or faster meanwhile is nobody's gain.
pub fn turns(candidates: usize, pair: usize) -> Vec<usize> {
    let mut turns: Vec<_> = (0..candidates).collect();
    if pair % 2 == 1 {
        turns.reverse();
    }
    turns
}

fn sync() {
    assert!(Command::new("sync").status().unwrap().success());
}

/// The most memory resident, of a daemon and of its client, while a cache is filled.
pub fn memory() -> Report {
    own_source();
    let cache = Cache::ours("ours", binary());
    let (_, daemon) = cache.daemon.as_ref().unwrap();
    let idle = daemon.peak_memory();
    let client = std::thread::scope(|scope| {
        let build = scope.spawn(|| cache.build());
        let mut peak = 0;
        while !build.is_finished() {
            peak = peak.max(client_memory());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        peak
    });
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let filling = daemon.peak_memory();
    Report {
        rows: vec![
            row("daemon, idle", "MiB", vec![mib(idle)]),
            row("daemon, while a cache is filled", "MiB", vec![mib(filling)]),
            row("client, while a cache is filled", "MiB", vec![mib(client)]),
        ],
        summary: format!(
            "memory: daemon {:.1}MiB idle, {:.1}MiB filling, client {:.1}MiB",
            mib(idle),
            mib(filling),
            mib(client)
        ),
    }
}

/// The peak of the largest client in a namespace of ours, in bytes.
fn client_memory() -> u64 {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = line.split(|byte| *byte == 0);
            if words.next()? != b"/gocache/client" {
                return None;
            }
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let peak = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))?;
            Some(peak.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
        })
        .max()
        .unwrap_or(0)
}
