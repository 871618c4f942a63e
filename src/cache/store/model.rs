//! Randomised tests of the store against a simple model of it.
//!
//! A seed decides everything: which puts, gets, sweeps, restarts and crashes of the daemon and
//! of the machine come in which order, and where file operations fail. The model is a map of
//! what was put. A get must give exactly what was put last under its action, or what was
//! put before while a put that failed is in doubt, or a miss.
//!
//! `NIX_GOCACHEPROG_SEED=N` runs one seed, as a failure prints it, and
//! `NIX_GOCACHEPROG_SEEDS=N` runs so many.

use super::*;
use crate::cache::session::Session;
use crate::fs::faults::{self, Fault};
use crate::test_dir::TestDir;
use std::cell::Cell;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;

/// Steps in one run; with all seeds that makes some ten thousand.
const STEPS: u32 = 400;

const SEEDS: u64 = 25;

thread_local! {
    /// Microseconds since 1970. It moves when somebody looks at it, and when a test says so.
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

fn clock() -> SystemTime {
    pass(Duration::from_micros(1));
    UNIX_EPOCH + Duration::from_micros(CLOCK.get())
}

fn pass(time: Duration) {
    CLOCK.set(CLOCK.get() + time.as_micros() as u64);
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn id_of(body: &[u8]) -> OutputId {
    OutputId(Sha256::digest(body))
}

/// A body is known by its number.
fn body(number: u64) -> Vec<u8> {
    let length = [0, 1, 100, 4096, 5000, 70_000, 140_000][number as usize % 7];
    let mut random = Random(number);
    (0..length)
        .map(|at| {
            if at % 64 == 0 {
                random.next() as u8
            } else {
                at as u8
            }
        })
        .collect()
}

fn action(number: u64) -> ActionId {
    ActionId::of(b"model", &number.to_le_bytes())
}

const ACTIONS: u64 = 60;
const BODIES: u64 = 80;

struct Run {
    random: Random,
    dir: TestDir,
    boot: u64,
    store: Store,
    /// For each action, the bodies that a get may give: the one put last, and after a failure
    /// those from before.
    model: HashMap<u64, Vec<u64>>,
    links: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        CLOCK.set(2_000_000_000_000_000);
        let dir = TestDir::in_memory();
        let store = open(&dir, 0).unwrap();
        std::fs::create_dir(dir.path().join("build")).unwrap();
        Self {
            random: Random(seed),
            dir,
            boot: 0,
            store,
            model: HashMap::new(),
            links: 0,
        }
    }

    fn step(&mut self) {
        let faulty = self.random.below(5) == 0;
        if faulty {
            let fault = match self.random.below(4) {
                0 => Fault::Fails(libc::ENOSPC),
                1 => Fault::Fails(libc::EIO),
                2 => Fault::Short,
                _ => Fault::Kill,
            };
            faults::inject(self.random.below(12) as u32, fault);
        }
        match self.random.below(100) {
            0..50 => self.put(),
            50..85 => self.get(faulty),
            85..91 => self.sweep(),
            91..93 => {
                let _ = self.store.sync();
            }
            93..95 => {
                let _ = self.store.verify_suspects(&AtomicBool::new(false));
            }
            95..97 => pass(Duration::from_secs(self.random.below(5 * 24 * 3600))),
            97 => {
                let closed = self.store.close().is_ok();
                if closed && !faults::killed() {
                    faults::clear();
                    let boot = self.boot + self.random.below(2);
                    self.reopen(boot);
                }
            }
            98 => {
                faults::clear();
                self.crash_daemon();
            }
            _ => {
                faults::clear();
                self.crash_machine();
            }
        }
        if faults::killed() {
            faults::clear();
            match self.random.below(3) {
                0 => self.crash_machine(),
                _ => self.crash_daemon(),
            }
        }
        faults::clear();
    }

    fn put(&mut self) {
        let (number, of) = (self.random.below(ACTIONS), self.random.below(BODIES));
        let body = body(of);
        let put = self.store.put(
            &action(number),
            &id_of(&body),
            body.len() as u64,
            &mut &body[..],
        );
        let may = self.model.entry(number).or_default();
        if put.is_ok() {
            may.clear();
        }
        may.push(of);
    }

    fn get(&mut self, faulty: bool) {
        let number = self.random.below(ACTIONS);
        // Under a fault nothing is promised but that what comes is right.
        let found = self.fetch(number);
        if !faulty {
            assert!(found.is_ok(), "{found:?}");
        }
    }

    /// What a build gets, checked against the model.
    fn fetch(&mut self, number: u64) -> Result<Option<u64>> {
        let action = action(number);
        let Some(entry) = self.store.get(&action)? else {
            return Ok(None);
        };
        self.links += 1;
        let build = self.dir.path().join("build");
        let (directory, name) = (OpenDirectory::open(&build)?, self.links.to_string());
        if !self.store.link(&action, &entry, &directory, &name)? {
            return Ok(None);
        }
        let name = build.join(name);
        let found = std::fs::read(&name).unwrap();
        // Some builds live on.
        if self.random.below(4) > 0 {
            std::fs::remove_file(&name).unwrap();
        }
        let may = self.model.get(&number).map_or(&[][..], |may| &may[..]);
        let known = may.iter().find(|of| body(**of) == found);
        assert!(known.is_some(), "action {number} gives what was never put");
        assert_eq!(id_of(&found), entry.output);
        assert_eq!(found.len() as u64, entry.size);
        Ok(known.copied())
    }

    fn sweep(&mut self) {
        let goal = Goal {
            keep: self.random.below(1 << 20),
            max_age: Duration::from_secs(self.random.below(30 * 24 * 3600)),
        };
        if self.random.below(3) == 0 {
            self.end_builds();
        }
        let swept = self.store.sweep(&goal, false, &AtomicBool::new(false));
        if let (Ok(swept), false) = (swept, faults::killed()) {
            faults::clear();
            if swept.left_bytes > goal.keep {
                // Only what is in use, or as new as the sweep itself, may be beyond the goal.
                assert!(swept.left_bytes - goal.keep <= swept.live_bytes + (1 << 19));
            }
        }
    }

    fn end_builds(&self) {
        for entry in std::fs::read_dir(self.dir.path().join("build")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    fn reopen(&mut self, boot: u64) {
        self.boot = boot;
        // The lock goes with the old store, as with its process.
        drop(self.store._lock.take());
        self.store = open(&self.dir, boot).unwrap();
        assert!(files(&self.store.root.join("tmp")).is_empty());
    }

    fn crash_daemon(&mut self) {
        self.reopen(self.boot);
    }

    /// The machine stops: whatever was written since the last sync point is damaged or lost.
    fn crash_machine(&mut self) {
        let state = std::fs::read_to_string(self.store.root.join("state")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
        if state["clean"] != true {
            let synced = state["synced"].as_u64().unwrap_or(0);
            let synced = UNIX_EPOCH + Duration::from_secs(synced);
            for path in files(&self.store.root.join("outputs")) {
                let metadata = std::fs::metadata(&path).unwrap();
                if modified(&metadata) > synced {
                    self.damage(&path, metadata.len());
                }
            }
            for path in files(&self.store.root.join("actions")) {
                let target = std::fs::read_link(&path).unwrap();
                let entry = Entry::decode(target.as_os_str().as_bytes()).unwrap();
                if entry.put_at() > synced && self.random.below(4) == 0 {
                    std::fs::remove_file(&path).unwrap();
                }
            }
        }
        // No build survives that.
        self.end_builds();
        self.reopen(self.boot + 1);
    }

    /// Keeps the time: a file system that lost it would have to lose the file.
    fn damage(&mut self, path: &Path, length: u64) {
        let mtime = modified(&std::fs::metadata(path).unwrap());
        match self.random.below(4) {
            0 => std::fs::remove_file(path).unwrap(),
            1 => {
                let zeros = vec![0; length as usize];
                std::fs::remove_file(path).unwrap();
                std::fs::write(path, zeros).unwrap();
            }
            2 => {
                let half = std::fs::read(path).unwrap();
                std::fs::remove_file(path).unwrap();
                std::fs::write(path, &half[..half.len() / 2]).unwrap();
            }
            _ => return,
        }
        if path.exists() {
            sys::set_times(path, mtime).unwrap();
        }
    }

    /// What must hold once all is quiet.
    fn check(&mut self) {
        self.end_builds();
        let stop = AtomicBool::new(false);
        self.store.verify_suspects(&stop).unwrap();
        let all = Goal {
            keep: u64::MAX,
            max_age: Duration::from_secs(u64::from(u32::MAX)),
        };
        self.store.sweep(&all, false, &stop).unwrap();
        let verified = self
            .store
            .verify(false, &stop, |event| {
                if let Event::Damage(damage) = event {
                    panic!("{damage}")
                }
            })
            .unwrap();
        // No output that nothing names, and none missing.
        let mut named = std::collections::HashSet::new();
        self.store
            .walk_actions(&stop, |_, entry| {
                named.insert(entry.unwrap().output);
            })
            .unwrap();
        assert_eq!(named.len() as u64, verified.outputs);
        assert_eq!(self.store.size(), verified.bytes, "the accounted size");
        assert_eq!(self.store.usage.size().outputs, verified.outputs);
        for path in files(&self.store.root.join("outputs")) {
            assert_eq!(std::fs::metadata(path).unwrap().nlink(), 1);
        }
        // A get gives what was put, and a put works.
        for number in 0..ACTIONS {
            self.fetch(number).unwrap();
        }
        self.end_builds();
        let body = body(3);
        self.store
            .put(&action(0), &id_of(&body), body.len() as u64, &mut &body[..])
            .unwrap();
        self.model.insert(0, vec![3]);
        assert_eq!(self.fetch(0).unwrap(), Some(3));
    }
}

fn open(dir: &TestDir, boot: u64) -> Result<Store> {
    let machine = Machine {
        now: clock,
        boot: boot.to_string(),
    };
    Store::open_on(machine, &dir.path().join("cache"))
}

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        // The seed alone decides.
        paths.sort();
        paths
    };
    list(dir).iter().flat_map(|shard| list(shard)).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap())
}

#[test]
fn the_store_is_as_its_model_whatever_fails_and_stops() {
    let seeds: Vec<u64> = match number("NIX_GOCACHEPROG_SEED") {
        Some(seed) => vec![seed],
        None => {
            let count = number("NIX_GOCACHEPROG_SEEDS").unwrap_or(SEEDS);
            let first = some_seed();
            (0..count).map(|nth| first.wrapping_add(nth)).collect()
        }
    };
    for seed in seeds {
        println!("NIX_GOCACHEPROG_SEED={seed}");
        let mut run = Run::new(seed);
        for step in 0..STEPS {
            run.step();
            if step % 100 == 99 {
                run.check();
            }
        }
    }
}

/// Lets one operation fail after the other while a store that a crash has damaged is worked on, until none is left that
/// could: the damaged output must not be served then, nor later.
fn is_never_served(work: impl Fn(&Store, &Path) -> Result<()>) {
    for failing in 0.. {
        CLOCK.set(2_000_000_000_000_000);
        let dir = TestDir::in_memory();
        let build = dir.path().join("build");
        std::fs::create_dir(&build).unwrap();
        let body = body(3);
        let put = |store: &Store| {
            store
                .put(&action(0), &id_of(&body), body.len() as u64, &mut &body[..])
                .unwrap();
        };
        put(&open(&dir, 0).unwrap());
        lose(&dir, body.len());
        let store = open(&dir, 1).unwrap();
        faults::inject(failing, Fault::Fails(libc::EIO));
        let done = work(&store, &build);
        let has_failed = !faults::clear();
        let served = |name: &str| std::fs::read(build.join(name)).is_ok_and(|found| found != body);
        assert!(
            !served("during"),
            "while operation {failing} failed: {done:?}"
        );
        if let Some(entry) = store.get(&action(0)).unwrap() {
            let directory = OpenDirectory::open(&build).unwrap();
            store.link(&action(0), &entry, &directory, "after").unwrap();
            assert!(
                !served("after"),
                "after operation {failing} failed: {done:?}"
            );
        }
        put(&store);
        let stop = AtomicBool::new(false);
        assert_eq!(store.verify(false, &stop, |_| ()).unwrap().damaged, 0);
        if !has_failed {
            done.unwrap();
            assert!(failing > 2, "nothing could fail");
            break;
        }
    }
}

#[test]
fn a_damaged_output_is_not_trusted_whatever_fails_while_it_is_verified() {
    is_never_served(|store, _| store.verify_suspects(&AtomicBool::new(false)).map(|_| ()));
}

#[test]
fn a_damaged_output_is_not_served_whatever_fails_while_it_is_asked_for() {
    is_never_served(|store, build| {
        let entry = store.get(&action(0))?.unwrap();
        let directory = OpenDirectory::open(build)?;
        store
            .link(&action(0), &entry, &directory, "during")
            .map(|_| ())
    });
}

/// The kernel says once that the disk did not take something, and then goes on as if it had.
#[test]
fn what_the_disk_did_not_take_is_read_before_it_is_served() {
    for is_restarted in [false, true] {
        CLOCK.set(2_000_000_000_000_000);
        let dir = TestDir::in_memory();
        let mut store = open(&dir, 0).unwrap();
        let body = body(3);
        store
            .put(&action(0), &id_of(&body), body.len() as u64, &mut &body[..])
            .unwrap();
        faults::inject(0, Fault::Fails(libc::EIO));
        store.sync().unwrap_err();
        faults::clear();
        lose(&dir, body.len());
        store.sync().unwrap();
        if is_restarted {
            store.close().unwrap();
            drop(store);
            store = open(&dir, 0).unwrap();
        }
        let entry = store.get(&action(0)).unwrap().unwrap();
        let directory = OpenDirectory::open(dir.path()).unwrap();
        assert!(!store.link(&action(0), &entry, &directory, "file").unwrap());
        assert_eq!(store.get(&action(0)).unwrap(), None);
        store.verify_suspects(&AtomicBool::new(false)).unwrap();
        assert!(!store.survival.as_ref().unwrap().is_suspicious());
    }
}

/// The only output is of zeros now, and looks as before.
fn lose(dir: &TestDir, length: usize) {
    let [path] = &files(&dir.path().join("cache/outputs"))[..] else {
        panic!("not one output");
    };
    let last_used = modified(&std::fs::metadata(path).unwrap());
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, vec![0; length]).unwrap();
    std::fs::set_permissions(
        path,
        std::os::unix::fs::PermissionsExt::from_mode(OUTPUT_MODE),
    )
    .unwrap();
    sys::set_times(path, last_used).unwrap();
}

/// A body that takes its time, so that others come in between.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_micros(500));
        self.0.read(buffer)
    }
}

#[test]
fn puts_and_gets_go_on_while_all_is_evicted_again_and_again() {
    let dir = TestDir::in_memory();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    let all = Goal {
        keep: 0,
        max_age: Duration::ZERO,
    };
    let done = AtomicBool::new(false);
    let evicted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..4)
            .map(|nth| {
                let (dir, store, evicted) = (&dir, &store, &evicted);
                scope.spawn(move || {
                    let mut random = Random(nth);
                    for round in 0..4000 {
                        // On a busy machine the eviction is late.
                        if round >= 40 && evicted.load(Ordering::Relaxed) > 0 {
                            break;
                        }
                        let build = dir.path().join(format!("build-{nth}-{round}"));
                        std::fs::create_dir(&build).unwrap();
                        let mut session = Session::new(store, OpenDirectory::open(&build).unwrap());
                        for _ in 0..50 {
                            // The same few outputs in all sessions, and the same actions.
                            let of = random.below(10);
                            let body = body(of);
                            let action = action(of + 10 * random.below(3));
                            if random.below(2) == 0 {
                                let size = body.len() as u64;
                                session
                                    .put(&action, &id_of(&body), size, &mut Slow(&body))
                                    .unwrap();
                            } else if let Some(entry) = session.get(&action).unwrap() {
                                let name = crate::cache::builds::output_name(&build, &entry.output);
                                assert!(std::fs::read(name).unwrap() == body);
                            }
                        }
                        std::fs::remove_dir_all(&build).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let stop = AtomicBool::new(false);
                let swept = store.sweep(&all, false, &stop).unwrap();
                evicted.fetch_add(swept.outputs, Ordering::Relaxed);
            }
        });
        // Counting in between must not make the store believe what is not so.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.contents(&AtomicBool::new(false)).unwrap();
            }
        });
        let ended: Vec<_> = sessions.into_iter().map(|session| session.join()).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert!(evicted.into_inner() > 0, "nothing was evicted at all");
    let stop = AtomicBool::new(false);
    let believed = store.usage.size();
    let counted = store.contents(&stop).unwrap();
    assert_eq!(
        (believed.bytes, believed.outputs),
        (counted.bytes, counted.outputs)
    );
    store
        .verify(false, &stop, |event| {
            if let Event::Damage(damage) = event {
                panic!("{damage}")
            }
        })
        .unwrap();
    store.sweep(&all, false, &stop).unwrap();
    assert_eq!(store.usage.size(), Size::default());
    assert_eq!(store.count_actions(&stop).unwrap(), 0);
}

fn some_seed() -> u64 {
    let mut seed = [0; 4];
    sys::random(&mut seed).unwrap();
    u64::from(u32::from_le_bytes(seed))
}
