//! The store at ten thousand, a hundred thousand and a million actions: how quick it stays.
//!
//! Each store is written as the layout at the top of `src/cache/store/mod.rs` says, with uses spread over a
//! month, because a million puts would take longer than all that is measured. All that is
//! measured goes through a daemon.

use crate::build::{Build, action};
use crate::figures::{median, quantile};
use crate::support::{Daemon, TempDir, binary};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::fs::{File, FileTimes};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// What one action with its output takes on a disk with blocks of the usual size, in bytes.
const DISK_EACH: u64 = 4096 + 2 * 512;

/// Gets in each of so many builds. A build gets what an earlier build of the same program has put, which was put together;
/// the builds are far from each other.
const BUILDS: u64 = 3;
const GETS: u64 = 2500;

const PUTS: u64 = 2000;

const STARTS: usize = 7;

/// A month, over which the uses are spread.
const MONTH: u64 = 30 * 24 * 60 * 60;

/// What was measured at one size. Times are in microseconds.
struct Measured {
    actions: u64,
    start_ms: f64,
    get: Latencies,
    /// Of actions that have nothing to do with each other.
    scattered: Latencies,
    put: Latencies,
    evict_s: f64,
    get_meanwhile: Latencies,
    rss_mib: f64,
}

struct Latencies {
    p50: f64,
    p99: f64,
}

impl Latencies {
    fn of(values: &[f64]) -> Self {
        Self {
            p50: quantile(values, 0.5),
            p99: quantile(values, 0.99),
        }
    }
}

pub(crate) fn run(json: bool) {
    check_space();
    let measured: Vec<Measured> = SIZES.iter().map(|actions| measure(*actions)).collect();
    let (first, last) = (&measured[0], &measured[measured.len() - 1]);
    let summary = format!(
        "store: p50 1M/10k {:.2}, start {:.0}ms, rss {:.0}MiB",
        last.get.p50 / first.get.p50,
        measured.iter().map(|m| m.start_ms).fold(0.0, f64::max),
        measured.iter().map(|m| m.rss_mib).fold(0.0, f64::max),
    );
    if json {
        let rows: Vec<_> = measured
            .iter()
            .map(|m| {
                serde_json::json!({"actions": m.actions, "start_ms": m.start_ms, "get_p50_us": m.get.p50,
                    "get_p99_us": m.get.p99, "scattered_p50_us": m.scattered.p50,
                    "scattered_p99_us": m.scattered.p99, "put_p50_us": m.put.p50, "put_p99_us": m.put.p99,
                    "evict_s": m.evict_s, "get_meanwhile_p50_us": m.get_meanwhile.p50,
                    "get_meanwhile_p99_us": m.get_meanwhile.p99, "rss_mib": m.rss_mib})
            })
            .collect();
        println!("{}", serde_json::json!({"rows": rows, "summary": summary}));
        return;
    }
    let row = |name: &str, value: &dyn Fn(&Measured) -> String| {
        print!("{name:<44}");
        for m in &measured {
            print!("{:>12}", value(m));
        }
        println!();
    };
    row("actions", &|m| m.actions.to_string());
    row("start to first answer, ms", &|m| {
        format!("{:.1}", m.start_ms)
    });
    row("get p50, µs", &|m| format!("{:.1}", m.get.p50));
    row("get p99, µs", &|m| format!("{:.1}", m.get.p99));
    row("get p50, scattered, µs", &|m| {
        format!("{:.1}", m.scattered.p50)
    });
    row("get p99, scattered, µs", &|m| {
        format!("{:.1}", m.scattered.p99)
    });
    row("put of 4 KiB p50, µs", &|m| format!("{:.1}", m.put.p50));
    row("put of 4 KiB p99, µs", &|m| format!("{:.1}", m.put.p99));
    row("eviction of a tenth, s", &|m| format!("{:.2}", m.evict_s));
    row("get p50 meanwhile, µs", &|m| {
        format!("{:.1}", m.get_meanwhile.p50)
    });
    row("get p99 meanwhile, µs", &|m| {
        format!("{:.1}", m.get_meanwhile.p99)
    });
    row("daemon's peak memory, MiB", &|m| {
        format!("{:.1}", m.rss_mib)
    });
    println!("{summary}");
}

/// Ends with a clear word when the largest store has no room.
fn check_space() {
    let dir = std::env::temp_dir();
    let df = Command::new("df")
        .args(["--output=avail,iavail", "-B1"])
        .arg(&dir)
        .output()
        .unwrap();
    let text = String::from_utf8(df.stdout).unwrap();
    let mut numbers = text.lines().nth(1).unwrap().split_whitespace();
    let mut next = || numbers.next().and_then(|n| n.parse::<u64>().ok());
    let (bytes, inodes) = (next(), next());
    let most = SIZES[SIZES.len() - 1];
    // Some more, for the floor of free space below which the daemon evicts.
    let (need_bytes, need_inodes) = (most * DISK_EACH + (12 << 30), most * 2 + 100_000);
    // A file system without a fixed number of inodes says 0 or nothing.
    let few_inodes = inodes.is_some_and(|inodes| inodes > 0 && inodes < need_inodes);
    if bytes.is_none_or(|bytes| bytes < need_bytes) || few_inodes {
        eprintln!(
            "bench: {} has {bytes:?} bytes and {inodes:?} inodes free, and {need_bytes} and {need_inodes} are \
             needed: set TMPDIR to a larger disk",
            dir.display()
        );
        std::process::exit(1)
    }
}

fn measure(actions: u64) -> Measured {
    eprintln!("store: writing {actions} actions");
    let dir = TempDir::new();
    // It makes the directories, and says what it was left with.
    Daemon::start_in(dir.path()).end();
    fill(&dir.path().join("cache"), actions);
    let daemon = Daemon::start_in(dir.path());
    stats(&daemon);
    let body = b"so that the state is kept";
    let answer = Build::new(&daemon, dir.path(), "top").put(u64::MAX, &Sha256::digest(body), body);
    assert_eq!(answer, 's');
    daemon.end();

    eprintln!("store: starting, getting, putting");
    let starts: Vec<f64> = (0..STARTS)
        .map(|nth| {
            let start = Instant::now();
            let daemon = Daemon::start_in(dir.path());
            let mut build = Build::new(&daemon, dir.path(), "top");
            assert_eq!(build.get(nth as u64), 'h');
            let taken = start.elapsed().as_secs_f64() * 1e3;
            drop(build);
            daemon.end();
            taken
        })
        .collect();
    let daemon = Daemon::start_in(dir.path());
    let mut gets = Vec::new();
    for nth in 0..BUILDS {
        let mut build = Build::new(&daemon, dir.path(), "top");
        let first = actions / BUILDS * nth;
        for nth in first..first + GETS {
            let start = Instant::now();
            assert_eq!(build.get(nth), 'h');
            gets.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    // Coprime to all sizes: every action once, all over the store.
    let mut nth = 0;
    let mut build = Build::new(&daemon, dir.path(), "top");
    let scattered: Vec<f64> = (0..GETS)
        .map(|_| {
            nth = (nth + 7_919_777) % actions;
            let start = Instant::now();
            assert_eq!(build.get(nth), 'h');
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    drop(build);
    let mut build = Build::new(&daemon, dir.path(), "top");
    let puts: Vec<f64> = (0..PUTS)
        .map(|nth| {
            let mut body = vec![1; 4096];
            body[..8].copy_from_slice(&nth.to_le_bytes());
            let output = Sha256::digest(&body);
            let start = Instant::now();
            assert_eq!(build.put(actions + nth, &output, &body), 's');
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    drop(build);
    // It also clears the directories of the builds that have ended.
    stats(&daemon);

    eprintln!("store: evicting a tenth, and getting meanwhile");
    let keep = (actions + PUTS) * 4096 / 10 * 9;
    let start = Instant::now();
    let mut gc = Command::new(binary())
        .args(["gc", "--max-size", &keep.to_string(), "--runtime-dir"])
        .arg(daemon.runtime_dir())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut build = Build::new(&daemon, dir.path(), "top");
    let mut meanwhile = Vec::new();
    while gc.try_wait().unwrap().is_none() {
        for _ in 0..20 {
            nth = (nth + 7_919_777) % actions;
            let start = Instant::now();
            assert!(matches!(build.get(nth), 'h' | 'm'));
            meanwhile.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    let evict_s = start.elapsed().as_secs_f64();
    assert!(gc.wait().unwrap().success());
    drop(build);
    let rss_mib = daemon.peak_memory() as f64 / f64::from(1 << 20);
    daemon.end();
    let (start_ms, get) = (median(&starts), Latencies::of(&gets));
    // To remove a million files takes a while too.
    eprintln!(
        "store: {actions} actions: start {start_ms:.0}ms, get p50 {:.1}µs, eviction {evict_s:.1}s, rss {rss_mib:.0}MiB",
        get.p50
    );
    Measured {
        actions,
        start_ms,
        get,
        scattered: Latencies::of(&scattered),
        put: Latencies::of(&puts),
        evict_s,
        get_meanwhile: Latencies::of(&meanwhile),
        rss_mib,
    }
}

fn stats(daemon: &Daemon) {
    let stats = Command::new(binary())
        .args(["stats", "--runtime-dir"])
        .arg(daemon.runtime_dir())
        .stdout(Stdio::null())
        .status();
    assert!(stats.unwrap().success());
}

/// Writes a store with so many actions, each with an output of its own.
fn fill(cache: &Path, actions: u64) {
    for kind in ["outputs", "actions"] {
        for shard in 0..256 {
            let _ = std::fs::create_dir(cache.join(kind).join(format!("{shard:02x}")));
        }
    }
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                (0..actions)
                    .filter(|nth| nth % 2 == half)
                    .for_each(|nth| write(cache, nth));
            });
        }
    });
}

fn write(cache: &Path, nth: u64) {
    let body = format!("output {nth}");
    let output: [u8; 32] = Sha256::digest(&body).into();
    let action = action(nth);
    // Spread by the action, so that the order on disk says nothing of the use.
    let age = u64::from_le_bytes(action[8..16].try_into().unwrap()) % MONTH;
    let used = SystemTime::now() - Duration::from_secs(age);
    let mut file = File::create(path(cache, "outputs", &output)).unwrap();
    file.write_all(body.as_bytes()).unwrap();
    file.set_times(FileTimes::new().set_modified(used)).unwrap();
    let micros = used.duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let mut entry = output.to_vec();
    entry.extend(&(body.len() as u64).to_be_bytes()[3..]);
    entry.extend(&micros.to_be_bytes()[1..]);
    let entry = URL_SAFE_NO_PAD.encode(entry);
    std::os::unix::fs::symlink(entry, path(cache, "actions", &action)).unwrap();
}

fn path(cache: &Path, kind: &str, id: &[u8; 32]) -> std::path::PathBuf {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    cache.join(kind).join(hex(&id[..1])).join(hex(&id[1..]))
}
