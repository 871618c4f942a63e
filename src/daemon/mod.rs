//! The daemon: owns the cache, listens on both sockets, a thread for each connection.
//!
//! It runs unprivileged and knows nothing of Nix. What a build may do comes in on the
//! build socket alone; the control socket is for the hook and the administrator.

use crate::builds::{BuildDir, Builds};
use crate::config::{
    self, CONNECTIONS_MAX, CONNECTIONS_PER_USER_MAX, HELLO_LIMIT, REAP_EVERY, STACK, STOP_LIMIT,
};
use crate::control::{self, Parts};
use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::BuildId;
use crate::lists::{self, Lists, Used};
use crate::log;
use crate::preparations::Preparations;
use crate::remote::{self, Remote};
use crate::session::{self, Gate};
use crate::stats::Stats;
use crate::store::{Limits, Store};
use crate::sys;
use crate::upkeep::Upkeep;
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How a daemon is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the cache is.
    pub cache_dir: PathBuf,
    /// Where the sockets are, unless systemd passes them.
    pub runtime_dir: PathBuf,
    /// What the cache is kept within.
    pub limits: Limits,
    /// A daemon that systemd starts on demand ends after so long without a session.
    pub idle_exit: Duration,
    /// The cache of a team behind this one.
    pub remote: Option<remote::Options>,
}

/// Runs until SIGTERM or SIGINT, or until it has been idle for long.
///
/// # Errors
/// When the cache or the sockets cannot be had.
pub fn run(options: &Options) -> Result<()> {
    // Before the first thread, so that no other one gets the signals.
    let termination = sys::Termination::new()?;
    sys::raise_descriptor_limit();
    sys::set_usual_umask();
    let store = Store::open(&options.cache_dir)?;
    let builds = Arc::new(Builds::open(&options.cache_dir)?);
    let lists = Arc::new(Lists::open(&options.cache_dir)?);
    let remote = match &options.remote {
        Some(remote) => Some(Remote::open(
            remote,
            &options.cache_dir,
            Arc::clone(&lists),
        )?),
        None => None,
    };
    let sockets = Sockets::new(&options.runtime_dir)?;
    log::info(format!(
        "version {} serves {} on {}",
        env!("CARGO_PKG_VERSION"),
        options.cache_dir.display(),
        sockets.place
    ));
    let served = Arc::new(Served {
        parts: Parts {
            store,
            builds,
            stats: Stats::open(&options.cache_dir),
            limits: options.limits,
            upkeep: Upkeep::default(),
            lists,
            ready: Preparations::default(),
            remote,
        },
        sessions: Sessions::default(),
    });
    let upkeep = served.start_upkeep()?;
    served.start_preparing();
    served.start_remote();
    let mut idle_since = Instant::now();
    let mut reaped = Instant::now();
    loop {
        let [build, control, stop] = sys::wait_readable(
            [
                sockets.build.as_raw_fd(),
                sockets.control.as_raw_fd(),
                termination.as_raw_fd(),
            ],
            REAP_EVERY.min(options.idle_exit),
        )
        .map_err(|e| Error::io("wait on", "the sockets", e))?;
        if stop {
            log::info("told to stop: running requests are finished first");
            break;
        }
        if build {
            served.start_session(&sockets.build);
        }
        if control {
            served.start_control(&sockets.control);
        }
        if reaped.elapsed() >= REAP_EVERY {
            served.start_reaping();
            reaped = Instant::now();
        }
        let uploads = served.parts.remote.as_ref().is_some_and(Remote::is_busy);
        if build || control || uploads || !served.sessions.none_open() {
            idle_since = Instant::now();
        } else if sockets.activated && idle_since.elapsed() >= options.idle_exit {
            log::info("idle: ends until the next build");
            break;
        }
    }
    let mut all_ended = served.sessions.stop();
    if let Some(remote) = &served.parts.remote {
        all_ended &= remote.stop(STOP_LIMIT / 2);
    }
    served.parts.ready.stop();
    served.parts.upkeep.stop();
    let upkeep_ended = upkeep.join();
    served.parts.builds.reap();
    served.parts.stats.save();
    // Whoever is cut off may be writing still.
    if all_ended
        && upkeep_ended.is_ok()
        && let Err(e) = served.parts.store.close()
    {
        // The next daemon sees that, and looks closer.
        log::warn(e.chain());
    }
    Ok(())
}

/// What every thread works on.
#[derive(Debug)]
struct Served {
    parts: Parts,
    sessions: Sessions,
}

impl Served {
    fn start_upkeep(self: &Arc<Self>) -> Result<thread::JoinHandle<()>> {
        let served = Arc::clone(self);
        thread::Builder::new()
            .name("upkeep".into())
            .spawn(move || {
                let parts = &served.parts;
                parts.upkeep.run(&parts.store, &parts.stats, &parts.limits);
            })
            .map_err(|e| Error::io("start", "a thread", e))
    }

    /// Starts the thread that makes things ready for builds.
    fn start_preparing(self: &Arc<Self>) {
        let served = Arc::clone(self);
        start("ready", move || {
            let parts = &served.parts;
            parts.ready.run(&parts.store, &parts.builds, &parts.lists);
        });
    }

    /// Starts the threads that fetch and upload, all of them at once: they mostly sleep, and take no more then than some
    /// address space.
    fn start_remote(self: &Arc<Self>) {
        let Some(remote) = &self.parts.remote else {
            return;
        };
        let (fetchers, uploaders) = remote.threads();
        for n in 0..fetchers + uploaders {
            let served = Arc::clone(self);
            start(if n < fetchers { "fetch" } else { "upload" }, move || {
                let parts = &served.parts;
                let Some(remote) = &parts.remote else { return };
                if n < fetchers {
                    let _counted = remote.enter();
                    remote.fetch(&parts.store, &parts.limits);
                } else {
                    remote.upload(&parts.store, n == fetchers);
                }
            });
        }
    }

    /// To remove a large build's directory takes a while, and the next build must not wait for it.
    fn start_reaping(self: &Arc<Self>) {
        let served = Arc::clone(self);
        start("reap", move || {
            sys::step_back();
            served.parts.reap();
        });
    }

    fn start_session(self: &Arc<Self>, listener: &UnixListener) {
        let Some(stream) = accept(listener) else {
            return;
        };
        match Open::new(self, &stream) {
            Ok(open) => start("session", move || {
                let parts = &open.served.parts;
                let remote = parts.remote.as_ref();
                session::serve(&stream, &parts.store, &parts.builds, remote, &open);
            }),
            Err(e) => {
                log::warn(format!("no session: {}", e.chain()));
                session::refuse(&stream, &e);
            }
        }
    }

    fn start_control(self: &Arc<Self>, listener: &UnixListener) {
        let Some(stream) = accept(listener) else {
            return;
        };
        let served = Arc::clone(self);
        start("control", move || {
            // A silent peer must not hold a thread for ever.
            let _ = stream.set_read_timeout(Some(HELLO_LIMIT));
            let _ = stream.set_write_timeout(Some(HELLO_LIMIT));
            if let Err(e) = control::serve(&stream, &served.parts) {
                log::warn(format!("on the control socket: {}", e.chain()));
            }
        });
    }
}

fn accept(listener: &UnixListener) -> Option<UnixStream> {
    match listener.accept() {
        Ok((stream, _)) => Some(stream),
        // The peer has left again.
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(e) => {
            log::error(format!("cannot accept a connection: {e}"));
            // Out of descriptors, most likely: give sessions time to end.
            thread::sleep(Duration::from_millis(50));
            None
        }
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) {
    // A thread that cannot be had drops the connection, and its client goes on alone.
    if let Err(e) = thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(work)
    {
        log::error(format!("cannot start a thread: {e}"));
    }
}

/// The sessions that are open, so that the daemon can wait for them and end them.
#[derive(Debug, Default)]
struct Sessions {
    table: Mutex<Table>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    stopping: bool,
    serial: u64,
    open: HashMap<u64, Conversation>,
}

#[derive(Debug)]
struct Conversation {
    stream: UnixStream,
    /// The peer's user.
    user: u32,
    /// A request is running.
    busy: bool,
}

/// One open session; it is closed when this is dropped.
struct Open {
    served: Arc<Served>,
    serial: u64,
}

impl Open {
    /// Opens a session, if there is room for one more.
    fn new(served: &Arc<Served>, stream: &UnixStream) -> Result<Self> {
        let user = sys::peer_user(stream)
            .map_err(|e| Error::io("find the user of", "the connection", e))?;
        let mut table = served.sessions.table();
        let of_user = table.open.values().filter(|c| c.user == user).count();
        if table.open.len() >= CONNECTIONS_MAX || of_user >= CONNECTIONS_PER_USER_MAX {
            return Err(Error::peer(format!(
                "too many connections ({} in all, {of_user} of user {user})",
                table.open.len()
            )));
        }
        let stream = stream
            .try_clone()
            .map_err(|e| Error::io("hold on to", "the connection", e))?;
        table.serial += 1;
        let serial = table.serial;
        table.open.insert(
            serial,
            Conversation {
                stream,
                user,
                busy: false,
            },
        );
        drop(table);
        Ok(Self {
            served: Arc::clone(served),
            serial,
        })
    }
}

impl Sessions {
    fn none_open(&self) -> bool {
        self.table().open.is_empty()
    }

    /// Ends the sessions: those between two requests at once, the others after the one
    /// that is running, for which it waits a bounded time; says whether all have ended.
    fn stop(&self) -> bool {
        let mut table = self.table();
        table.stopping = true;
        for conversation in table.open.values().filter(|c| !c.busy) {
            // The peer may have closed it just now.
            let _ = conversation.stream.shutdown(std::net::Shutdown::Both);
        }
        let (table, _) = self
            .closed
            .wait_timeout_while(table, STOP_LIMIT, |table| !table.open.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if !table.open.is_empty() {
            log::warn(format!(
                "{} sessions are cut off: they did not end within {}s",
                table.open.len(),
                STOP_LIMIT.as_secs()
            ));
        }
        table.open.is_empty()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A session that panicked has left the table whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Open {
    fn begin(&self) {
        if let Some(conversation) = self.served.sessions.table().open.get_mut(&self.serial) {
            conversation.busy = true;
        }
    }

    fn end(&self) -> bool {
        let mut table = self.served.sessions.table();
        if let Some(conversation) = table.open.get_mut(&self.serial) {
            conversation.busy = false;
        }
        !table.stopping
    }

    fn count(&self, name: &str, counts: Counts) {
        let parts = &self.served.parts;
        parts.stats.add(name, counts);
        let is_large = counts.puts > 0 && parts.store.size() > parts.limits.max_size;
        // The disk may be full.
        if is_large || counts.errors > 0 {
            parts.upkeep.wake();
        }
    }

    fn begun(&self, build: BuildId, name: &str) {
        self.served.parts.begun(build, name);
    }

    fn makes_ready(&self, name: &str) -> bool {
        self.served.parts.lists.has(&lists::key(name))
    }

    fn used(&self, build: &BuildDir, used: Vec<Used>) {
        let parts = &self.served.parts;
        if let Some(remote) = &parts.remote {
            return remote.used(build.id(), build.name(), used);
        }
        let key = lists::key(build.name());
        if let Err(e) = parts.lists.record(&key, build.id(), used) {
            log::warn(format!("what a build has used is not kept: {}", e.chain()));
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.served.sessions.table().open.remove(&self.serial);
        self.served.sessions.closed.notify_all();
    }
}

/// The two listening sockets.
#[derive(Debug)]
struct Sockets {
    build: UnixListener,
    control: UnixListener,
    /// systemd holds them while we are away.
    activated: bool,
    /// Where they are, for the log.
    place: String,
}

impl Sockets {
    /// Takes the sockets from systemd if it passes them, and binds them otherwise.
    fn new(runtime_dir: &Path) -> Result<Self> {
        let mut passed = sys::listen_fds()?;
        let sockets = if passed.is_empty() {
            fs::create_dir_all(runtime_dir)?;
            Self {
                // First, so that whoever sees the other one finds this one too.
                control: bind(&config::control_socket(runtime_dir), 0o700, 0o600)?,
                build: bind(&config::build_socket(runtime_dir), 0o755, 0o666)?,
                activated: false,
                place: runtime_dir.display().to_string(),
            }
        } else {
            let names: Vec<_> = passed.iter().map(|(name, _)| name.clone()).collect();
            let mut take = |wanted: &str| {
                let at = passed.iter().position(|(name, _)| name == wanted);
                at.map(|at| passed.swap_remove(at).1).ok_or_else(|| {
                    Error::input(format!(
                        "systemd passed sockets named {names:?}, without one named {wanted:?}: set \
                         FileDescriptorName= in the socket units"
                    ))
                })
            };
            Self {
                build: take("build")?,
                control: take("control")?,
                activated: true,
                place: "the sockets from systemd".into(),
            }
        };
        for listener in [&sockets.build, &sockets.control] {
            listener
                .set_nonblocking(true)
                .map_err(|e| Error::io("set up", "a listening socket", e))?;
        }
        Ok(sockets)
    }
}

fn bind(path: &Path, dir_mode: u32, mode: u32) -> Result<UnixListener> {
    let dir = path.parent().unwrap_or(path);
    fs::ensure_dir(dir, dir_mode)?;
    if UnixStream::connect(path).is_ok() {
        return Err(Error::input(format!(
            "another daemon listens on {}: stop that one, or give this one a --runtime-dir of its own",
            path.display()
        )));
    }
    // Left by a daemon that was killed.
    fs::remove_file(path)?;
    let listener = UnixListener::bind(path).map_err(|e| Error::io("listen on", path, e))?;
    fs::set_mode(path, mode)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::io::{BufRead, BufReader, Read, Write};

    fn served(dir: &TestDir) -> Arc<Served> {
        Arc::new(Served {
            parts: Parts {
                store: Store::open(dir.path()).unwrap(),
                builds: Arc::new(Builds::open(dir.path()).unwrap()),
                stats: Stats::open(dir.path()),
                limits: Limits::default(),
                upkeep: Upkeep::default(),
                lists: Arc::new(Lists::open(dir.path()).unwrap()),
                ready: Preparations::default(),
                remote: None,
            },
            sessions: Sessions::default(),
        })
    }

    #[test]
    fn a_panic_ends_its_own_session_whatever_it_held() {
        let dir = TestDir::new();
        let served = served(&dir);
        let socket = dir.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut peer = UnixStream::connect(&socket).unwrap();
        served.start_session(&listener);
        peer.write_all(b"{\"version\":1}\n").unwrap();
        let mut peer = BufReader::new(peer);
        let mut welcome = String::new();
        peer.read_line(&mut welcome).unwrap();

        let (mut other_end, stream) = UnixStream::pair().unwrap();
        let open = Open::new(&served, &stream).unwrap();
        let build = served.parts.builds.register("bad", None, None).unwrap();
        start("session", move || {
            let _stream = stream;
            let served = Arc::clone(&open.served);
            let _build = served.parts.builds.enter(build);
            let _open = open;
            // Poisoned, as by a panic at the worst of times.
            let _held = served.sessions.table.lock().unwrap();
            panic!("a bug");
        });
        assert_eq!(other_end.read(&mut [0]).unwrap(), 0, "it is hung up on");
        assert_eq!(served.parts.builds.live().1, 1, "its build is let go");

        // A get of an action that nobody has put.
        let mut get = vec![b'g'];
        get.extend([0; 40]);
        peer.get_mut().write_all(&get).unwrap();
        let mut answer = [0; 9];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], b'm', "the other session goes on");
        drop(peer);
        assert!(served.sessions.stop(), "and nothing waits for the dead one");
    }
}
