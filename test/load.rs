//! Many peers at once, and peers that leave things behind: all are served in order, and nothing
//! stays when they have gone.

use crate::peer::{Peer, put_frame, raw, raw_as};
use crate::support::{BUILDER, Daemon, TempDir, fresh_bytes};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;

/// Requests that a client has on the way at one time, as `go` does.
const AT_ONCE: u64 = 24;

/// What a daemon holds.
#[derive(Debug)]
struct Held {
    threads: usize,
    descriptors: usize,
    builds: usize,
    records: usize,
    unfinished: usize,
}

impl Held {
    fn by(daemon: &Daemon) -> Self {
        let count = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().count();
        let process = std::path::PathBuf::from(format!("/proc/{}", daemon.pid()));
        Self {
            threads: count(process.join("task")),
            descriptors: count(process.join("fd")),
            builds: count(daemon.cache_dir().join("builds")),
            records: count(daemon.cache_dir().join("registered")),
            unfinished: daemon.unfinished(),
        }
    }
}

impl Held {
    /// By one that has served a session, so that all of it has started.
    fn at_rest(daemon: &Daemon) -> Self {
        drop(Peer::connect(daemon));
        daemon.session_end();
        Self::by(daemon)
    }

    /// Not more than this of anything. It may be less: that session may still have been ending.
    fn is_within(&self, other: &Self) -> bool {
        self.threads <= other.threads
            && self.descriptors <= other.descriptors
            && self.builds <= other.builds
            && self.records <= other.records
            && self.unfinished <= other.unfinished
    }
}

/// How long the clients go on: a moment, unless somebody wants to know better.
fn how_long() -> Duration {
    let seconds = std::env::var("NIX_GOCACHEPROG_TEST_LOAD_SECONDS");
    Duration::from_secs(seconds.map_or(2, |text| text.parse().unwrap()))
}

fn id(what: &str, n: u64) -> [u8; 32] {
    Sha256::digest(format!("{what} {n}")).into()
}

/// Bodies as a build has them: most are small, some empty, a few large.
fn body(n: u64) -> Vec<u8> {
    let size = match n % 16 {
        0 => 0,
        1..10 => 30 + n % 400,
        10..15 => 4_000 + n * 37 % 60_000,
        _ => 200_000 + n * 7919 % 500_000,
    };
    fresh_bytes(n, usize::try_from(size).unwrap())
}

/// One client: gets what nobody may have put yet, puts what is missing, gets it again.
fn client(peer: Peer, next: &AtomicU64, mut goes_on: impl FnMut() -> bool) {
    let directory = peer.directory.clone();
    let mut stream = peer.stream;
    let mut request = 0u64;
    while goes_on() {
        // Half of them are what others are just about to put, too.
        let first = next.fetch_add(AT_ONCE / 2, Ordering::Relaxed);
        let numbers: Vec<u64> = (first..first + AT_ONCE).collect();
        let mut ask = |stream: &mut BufReader<UnixStream>, puts: &[u64], gets: &[u64]| {
            let before = request;
            let (mut said, mut tags) = (Vec::new(), Vec::new());
            for n in puts {
                let body = body(*n);
                request += 1;
                said.push(b'p');
                said.extend(request.to_le_bytes());
                said.extend(id("action", *n));
                said.extend(Sha256::digest(&body));
                said.extend((body.len() as u64).to_le_bytes());
                said.extend(body);
            }
            for n in gets {
                request += 1;
                said.push(b'g');
                said.extend(request.to_le_bytes());
                said.extend(id("action", *n));
            }
            std::thread::scope(|scope| {
                // The daemon may want its answers read before it reads on.
                let mut to = stream.get_ref().try_clone().unwrap();
                scope.spawn(move || to.write_all(&said).unwrap());
                for expected in before + 1..=request {
                    let mut answer = [0; 9];
                    stream.read_exact(&mut answer).unwrap();
                    let number = u64::from_le_bytes(answer[1..].try_into().unwrap());
                    assert_eq!(number, expected, "served in order");
                    let mut entry = [0; 48];
                    if answer[0] == b'h' {
                        stream.read_exact(&mut entry).unwrap();
                    }
                    tags.push((char::from(answer[0]), entry));
                }
            });
            tags
        };
        let found = ask(&mut stream, &[], &numbers);
        let missing: Vec<u64> = numbers
            .iter()
            .zip(&found)
            .filter(|(_, (tag, _))| *tag == 'm')
            .map(|(n, _)| *n)
            .collect();
        for (tag, _) in ask(&mut stream, &missing, &[]) {
            assert_eq!(tag, 's');
        }
        for (n, (tag, entry)) in numbers.iter().zip(ask(&mut stream, &[], &numbers)) {
            assert_eq!(tag, 'h', "{n}");
            let body = body(*n);
            assert_eq!(entry[..32], Sha256::digest(&body)[..]);
            let name: String = entry[..32].iter().map(|b| format!("{b:02x}")).collect();
            assert!(std::fs::read(directory.join(name)).unwrap() == body, "{n}");
        }
    }
    stream.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
}

#[test]
fn sixty_four_clients_at_once_are_served_in_order_and_leave_nothing_behind() {
    let daemon = Daemon::start();
    let before = Held::at_rest(&daemon);
    let next = AtomicU64::new(0);
    let round = || {
        let until = Instant::now() + how_long();
        let tops: Vec<_> = (0..CLIENTS).map(|_| TempDir::new()).collect();
        std::thread::scope(|scope| {
            for top in &tops {
                let hello = serde_json::json!({"version": 1, "name": "load", "top": top.path()});
                let peer = Peer::hello(&daemon, &hello.to_string()).unwrap();
                scope.spawn(|| client(peer, &next, || Instant::now() < until));
            }
        });
        let sums: Vec<_> = tops.iter().map(|_| daemon.session_end()).collect();
        assert!(sums.iter().all(|s| s.errors == 0), "{sums:?}");
        drop(tops);
        daemon.wait_until("nothing is left of them", || {
            Held::by(&daemon).is_within(&before)
        });
        daemon.memory()
    };
    let first = round();
    let second = round();
    let grown = second.saturating_sub(first);
    assert!(grown < 4 << 20, "memory grew by {grown} bytes");
    eprintln!("{} actions", next.into_inner());
}

#[test]
fn a_thousand_silent_connections_hold_up_nobody_and_are_ended() {
    let daemon = Daemon::start();
    let before = Held::at_rest(&daemon);
    let mut silent: Vec<_> = (0..1000).map(|_| raw(&daemon)).collect();
    let mut peer = Peer::connect(&daemon);
    assert_eq!(peer.put(1, b"body"), 's');
    assert_eq!(peer.get(1), 'h');
    assert!(Held::by(&daemon).threads > 1000);
    // The daemon tells them why, and closes its side first.
    for stream in &mut silent {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.contains("error"), "{said}");
    }
    drop(peer);
    daemon.wait_until("their threads have ended", || {
        let now = Held::by(&daemon);
        now.threads <= before.threads && now.descriptors <= before.descriptors
    });
}

#[test]
fn a_hundred_builds_that_are_registered_and_abandoned_leave_nothing_behind() {
    let daemon = Daemon::start();
    let before = Held::at_rest(&daemon);
    let chroots = TempDir::new();
    for n in 0..100 {
        let chroot = chroots.path().join(format!("{n}.drv.chroot"));
        std::fs::create_dir(&chroot).unwrap();
        let ask = serde_json::json!({"ask": "register", "name": "left", "chroot": chroot});
        let control = daemon.runtime_dir().join("control/sock");
        let mut stream = UnixStream::connect(control).unwrap();
        stream.write_all(format!("{ask}\n").as_bytes()).unwrap();
        let mut reply = String::new();
        BufReader::new(&stream).read_line(&mut reply).unwrap();
        let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
        // Half of them begin a session and never end it, until their build is killed.
        if n % 2 == 0 {
            let hello = serde_json::json!({"version": 1, "build": reply["build"]});
            let mut peer = Peer::hello(&daemon, &hello.to_string()).unwrap();
            assert_eq!(peer.put(n, &[n; 100]), 's');
        }
    }
    let held = Held::by(&daemon);
    assert_eq!(
        (held.builds, held.records),
        (before.builds + 100, before.records + 100)
    );
    drop(chroots);
    daemon.wait_until("nothing is left of them", || {
        Held::by(&daemon).is_within(&before)
    });
}

/// Users of the machine that are none of Nix's.
const MALLORY: u32 = 31_010;

/// What peers do that want the daemon for themselves, or gone. Each is done again and again, by a user of its own.
const MISCHIEF: [fn(&Daemon, u32, u64); 8] = [
    // Says what is no hello.
    |daemon, user, _| {
        let mut stream = raw_as(daemon, user);
        let _ = stream.write_all(&[0xff; 20_000]);
        let _ = stream.read(&mut [0; 100]);
    },
    // Says nothing, on many connections.
    |daemon, user, _| {
        let silent: Vec<_> = (0..50).map(|_| raw_as(daemon, user)).collect();
        std::thread::sleep(Duration::from_millis(20));
        drop(silent);
    },
    // Asks, and reads no answer.
    |daemon, user, n| {
        let Ok(mut peer) = Peer::hello_as(daemon, user, HELLO) else {
            return;
        };
        let stream = peer.stream.get_mut();
        stream.set_nonblocking(true).unwrap();
        let ask = crate::peer::get_frame(n as u8).repeat(5_000);
        while matches!(stream.write(&ask), Ok(written) if written > 0) {}
    },
    // Puts as many small outputs as it can.
    |daemon, user, n| {
        let Ok(mut peer) = Peer::hello_as(daemon, user, HELLO) else {
            return;
        };
        for small in 0..200u64 {
            let body = [n.to_le_bytes(), small.to_le_bytes()].concat();
            let mut frame = put_frame(0, &Sha256::digest(&body), 16);
            frame[9..41].copy_from_slice(&id("small", n << 8 | small));
            peer.send(&[frame, body].concat());
        }
        for _ in 0..200 {
            assert!(matches!(peer.answer(), 's' | 'r'));
        }
    },
    // Announces a large body and leaves in the middle of it.
    |daemon, user, n| {
        let Ok(mut peer) = Peer::hello_as(daemon, user, HELLO) else {
            return;
        };
        peer.send(&put_frame(n as u8, &[7; 32], 100 << 20));
        peer.send(&vec![0; 1 << 20]);
    },
    // Sends a body that is not what it says.
    |daemon, user, n| {
        let Ok(mut peer) = Peer::hello_as(daemon, user, HELLO) else {
            return;
        };
        peer.send(&put_frame(n as u8, &[7; 32], 300_000));
        peer.send(&vec![1; 300_000]);
        assert_eq!(peer.answer(), 'r');
    },
    // Registers builds that nobody needs, as long as somebody listens.
    |daemon, user, _| {
        for _ in 0..20 {
            let _ = Peer::hello_as(daemon, user, HELLO);
        }
    },
    // Breaks off in the middle of a frame.
    |daemon, user, n| {
        let Ok(mut peer) = Peer::hello_as(daemon, user, HELLO) else {
            return;
        };
        peer.send(&put_frame(n as u8, &[7; 32], 5)[..50]);
    },
];

const HELLO: &str = r#"{"version":1,"name":"mischief"}"#;

/// Rounds of 24 actions that each of 64 builds makes.
fn rounds() -> u64 {
    std::env::var("NIX_GOCACHEPROG_TEST_LOAD_ROUNDS").map_or(2, |text| text.parse().unwrap())
}

/// Builds of Nix, all at once; how long they took beside what eight others do meanwhile.
fn builds_beside(daemon: &Daemon, next: &AtomicU64, other: impl Fn(usize, u64) + Sync) -> Duration {
    let ended = AtomicBool::new(false);
    let tops: Vec<_> = (0..CLIENTS).map(|_| TempDir::new()).collect();
    let took = std::thread::scope(|scope| {
        for at in 0..MISCHIEF.len() {
            let (ended, other) = (&ended, &other);
            scope.spawn(move || {
                for n in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    other(at, n);
                }
            });
        }
        let start = Instant::now();
        let builds: Vec<_> = tops
            .iter()
            .map(|top| {
                chown(top.path(), Some(BUILDER), Some(BUILDER)).expect("root");
                let hello = serde_json::json!({"version": 1, "name": "load", "top": top.path()});
                let peer = Peer::hello_as(daemon, BUILDER, &hello.to_string()).unwrap();
                let mut left = rounds();
                scope.spawn(move || {
                    client(peer, next, || {
                        left = left.wrapping_sub(1);
                        left != u64::MAX
                    });
                })
            })
            .collect();
        let done: Vec<_> = builds.into_iter().map(|build| build.join()).collect();
        let took = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        assert!(done.iter().all(Result::is_ok), "a build has failed");
        took
    });
    drop(tops);
    took
}

#[test]
fn sixty_four_builds_go_on_while_eight_peers_do_their_worst() {
    let daemon = Daemon::start_for_builder();
    let before = Held::at_rest(&daemon);
    let next = AtomicU64::new(0);
    let beside_loops = builds_beside(&daemon, &next, |_, n| {
        std::hint::black_box((0..n % 100_000).fold(0, |sum: u64, n| sum.wrapping_add(n)));
    });
    let memory = daemon.memory();
    let beside_peers = builds_beside(&daemon, &next, |at, n| {
        MISCHIEF[at](&daemon, MALLORY + at as u32, n);
    });
    // They register builds without an end, of which a bounded number is kept for a while.
    let bounded = Held {
        builds: before.builds + 1024,
        records: before.records + 1024,
        ..before
    };
    daemon.wait_until("nothing else is left of them", || {
        Held::by(&daemon).is_within(&bounded)
    });
    // A thousand builds of theirs are known for a while, and each thread had an arena of its own.
    let grown = daemon.memory().saturating_sub(memory);
    assert!(grown < 24 << 20, "memory grew by {grown} bytes");
    println!(
        "64 builds took {:.1} s beside 8 busy loops and {:.1} s beside 8 peers: {:.2} times as long",
        beside_loops.as_secs_f64(),
        beside_peers.as_secs_f64(),
        beside_peers.as_secs_f64() / beside_loops.as_secs_f64()
    );
}
