//! The daemon: owns the cache, listens on both sockets, a thread for each connection.
//!
//! It runs unprivileged and knows nothing of Nix. What a build may do comes in on the
//! build socket alone; the control socket is for the hook and the administrator.

mod comparison;
mod compiled;
mod conversation;
mod metrics_file;
mod misses;
pub mod policy;
mod remote_gets;
pub mod service;
mod sessions;
mod sockets;
mod uses;

use crate::cache::store::{Limits, Store};
use crate::config::{HELLO_LIMIT, REAP_EVERY, STACK, STOP_LIMIT};
use crate::error::{Error, Result};
use crate::log;
use crate::remote::{self, Remote};
use crate::sys;
use metrics_file::MetricsFile;
use service::Service;
use sessions::{OpenSession, Sessions};
use sockets::Sockets;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer waits until builds that have ended are reaped.
const REAP_LIMIT: Duration = Duration::from_secs(1);

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
    /// Where metrics are written for node_exporter, if at all.
    pub metrics_file: Option<PathBuf>,
    /// Who may do what.
    pub policy: Box<policy::Options>,
}

/// What root writes into somebody's cache its owner could not read later.
fn become_owner(cache_dir: &Path) -> Result<()> {
    match std::fs::metadata(cache_dir) {
        Ok(cache) if sys::effective_uid() == 0 && cache.uid() != 0 => {
            log::info(format!(
                "switching to user {}, who owns {}",
                cache.uid(),
                cache_dir.display()
            ));
            sys::drop_privileges(cache.uid(), cache.gid())
        }
        _ => Ok(()),
    }
}

/// Runs until SIGTERM or SIGINT, or until it has been idle for long.
///
/// # Errors
/// When the cache or the sockets cannot be had.
pub fn run(options: &Options) -> Result<()> {
    // Before the first thread, so that no other one gets the signals.
    let termination = sys::Termination::new()?;
    let descriptors = sys::raise_descriptor_limit();
    sys::set_usual_umask();
    let sockets = Sockets::new(&options.runtime_dir)?;
    become_owner(&options.cache_dir)?;
    let store = Store::open(&options.cache_dir)?;
    let service = Service::open(
        store,
        options.limits,
        (*options.policy).clone(),
        options.remote.as_ref(),
    )?;
    log::info(format!(
        "version {} serves {} on {}",
        env!("CARGO_PKG_VERSION"),
        options.cache_dir.display(),
        sockets.place
    ));
    let daemon = Arc::new(Daemon {
        service,
        sessions: Sessions::within(descriptors),
        metrics: options.metrics_file.clone().map(MetricsFile::new),
        answering: Arc::default(),
    });
    daemon.start_reaping();
    let maintenance = daemon.start_maintenance()?;
    daemon.start_prefetcher();
    daemon.start_remote();
    let mut awaited = Awaited::of(options);
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
            log::info("stopping: finishing running requests first");
            break;
        }
        if build {
            daemon.start_session(&sockets.build);
        }
        if control {
            daemon.start_control(&sockets.control);
        }
        if reaped.elapsed() >= REAP_EVERY {
            daemon.start_reaping();
            awaited.look(&daemon);
            reaped = Instant::now();
        }
        if build || control || daemon.is_busy() {
            idle_since = Instant::now();
        } else if sockets.activated && idle_since.elapsed() >= awaited.idle_exit(&daemon, options) {
            log::info("idle: stopping until the next build");
            break;
        }
    }
    let mut all_ended = daemon.sessions.stop();
    if let Some(remote) = daemon.service.remote.get() {
        all_ended &= remote.stop(STOP_LIMIT / 2);
    }
    daemon.service.prefetcher.stop();
    daemon.service.maintenance.stop();
    let maintenance_ended = maintenance.join();
    daemon.service.reap_hooked();
    daemon.service.record_live_builds();
    daemon.service.journal.prune(options.limits.max_age);
    daemon.service.stats.save();
    daemon.service.compile_times.save();
    if let Some(metrics) = &daemon.metrics {
        metrics.write_last(&daemon.service);
    }
    // Whoever is cut off may be writing still.
    if all_ended
        && maintenance_ended.is_ok()
        && let Err(e) = daemon.service.store.close()
    {
        // The next daemon sees that, and looks closer.
        log::warn(e.chain());
    }
    Ok(())
}

/// A remote for which a file is missing, until it is there.
#[derive(Debug)]
struct Awaited<'a>(Option<&'a remote::Options>);

impl<'a> Awaited<'a> {
    fn of(options: &'a Options) -> Self {
        let remote = options.remote.as_ref();
        let missing = remote.and_then(|remote| Some((remote, remote.missing_file()?)));
        if let Some((remote, file)) = missing {
            log::warn(format!(
                "{} is missing: serving without the remote {} until it appears",
                file.display(),
                remote.url
            ));
        }
        Self(missing.map(|(remote, _)| remote))
    }

    /// Takes the remote up when nothing is missing any more.
    fn look(&mut self, daemon: &Arc<Daemon>) {
        let Some(remote) = self.0 else { return };
        match daemon.service.take_up_remote(remote) {
            Ok(false) => {}
            Ok(true) => {
                self.0 = None;
                log::info(format!(
                    "the missing file has appeared: serving with the remote {}",
                    remote.url
                ));
                daemon.start_remote();
            }
            // It is being written, perhaps.
            Err(e) => log::warn(e.chain()),
        }
    }

    /// What systemd has loaded stays as it was: only the next daemon sees what has come or changed since.
    fn idle_exit(&self, daemon: &Daemon, options: &Options) -> Duration {
        let remote = options.remote.as_ref();
        let is_denied = remote.is_some_and(remote::Options::has_copied_credentials)
            && daemon.service.remote.get().is_some_and(Remote::is_denied);
        if self.0.is_some() || is_denied {
            options.idle_exit.min(REAP_EVERY)
        } else {
            options.idle_exit
        }
    }
}

/// What every thread works on.
#[derive(Debug)]
struct Daemon {
    service: Service,
    sessions: Sessions,
    metrics: Option<MetricsFile>,
    /// Each conversation on the control socket has a clone of it.
    answering: Arc<()>,
}

impl Daemon {
    /// Whether something goes on that must not be cut off by idleness.
    fn is_busy(&self) -> bool {
        !self.sessions.none_open()
            || Arc::strong_count(&self.answering) > 1
            || self.service.remote.get().is_some_and(Remote::is_busy)
    }

    fn start_maintenance(self: &Arc<Self>) -> Result<thread::JoinHandle<()>> {
        let daemon = Arc::clone(self);
        thread::Builder::new()
            .name("maintenance".into())
            .spawn(move || {
                let service = &daemon.service;
                service
                    .maintenance
                    .run(&service.store, &service.stats, &service.limits, service);
            })
            .map_err(|e| Error::io("start", "a thread", e))
    }

    /// Starts the thread that makes things ready for builds.
    fn start_prefetcher(self: &Arc<Self>) {
        let daemon = Arc::clone(self);
        start("prefetch", move || {
            let service = &daemon.service;
            service
                .prefetcher
                .run(&service.store, &service.builds, &service.history);
        });
    }

    /// Starts the threads that fetch and upload, all of them at once: they mostly sleep, and take no more then than some
    /// address space.
    fn start_remote(self: &Arc<Self>) {
        let Some(remote) = self.service.remote.get() else {
            return;
        };
        let (fetchers, uploaders) = remote.threads();
        for n in 0..fetchers + uploaders {
            let daemon = Arc::clone(self);
            start(if n < fetchers { "fetch" } else { "upload" }, move || {
                let service = &daemon.service;
                let Some(remote) = service.remote.get() else {
                    return;
                };
                if n < fetchers {
                    let _counted = remote.enter();
                    remote.fetch(&service.store, &service.limits);
                } else {
                    remote.upload(&service.store, n == fetchers);
                }
            });
        }
    }

    /// To remove a large build's directory takes a while, and the next build must not wait for it, nor for the metrics.
    fn start_reaping(self: &Arc<Self>) {
        let daemon = Arc::clone(self);
        start("reap", move || {
            sys::lower_priority();
            daemon.service.reap();
            if let Some(metrics) = &daemon.metrics {
                metrics.write(&daemon.service);
            }
        });
    }

    /// Reaps, and waits for that as long as this.
    fn reap_within(self: &Arc<Self>, limit: Duration) {
        let daemon = Arc::clone(self);
        let (done, is_done) = std::sync::mpsc::channel();
        start("reap", move || {
            daemon.service.reap();
            let _ = done.send(());
        });
        // It goes on behind the answer if it takes longer.
        let _ = is_done.recv_timeout(limit);
    }

    fn start_session(self: &Arc<Self>, listener: &UnixListener) {
        let Some(stream) = accept(listener) else {
            return;
        };
        match OpenSession::new(self, &stream) {
            Ok(open) => start("session", move || {
                conversation::serve(&stream, &open);
            }),
            Err(e) => {
                log::warn(format!("session refused: {}", e.chain()));
                conversation::refuse(&stream, &e);
            }
        }
    }

    fn start_control(self: &Arc<Self>, listener: &UnixListener) {
        let Some(stream) = accept(listener) else {
            return;
        };
        let daemon = Arc::clone(self);
        let answering = Arc::clone(&self.answering);
        start("control", move || {
            // A silent peer must not hold a thread for ever.
            let _ = stream.set_read_timeout(Some(HELLO_LIMIT));
            let _ = stream.set_write_timeout(Some(HELLO_LIMIT));
            let reap = || daemon.reap_within(REAP_LIMIT);
            if let Err(e) = service::serve(&stream, &daemon.service, &reap) {
                log::warn(format!("control socket: {}", e.chain()));
            }
            drop(answering);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::builds::Registration;
    use crate::test_dir::TestDir;
    use std::io::{BufRead, BufReader, Read, Write};

    fn daemon(dir: &TestDir) -> Arc<Daemon> {
        Arc::new(Daemon {
            service: Service::open(
                Store::open(dir.path()).unwrap(),
                Limits::default(),
                policy::Options::default(),
                None,
            )
            .unwrap(),
            sessions: Sessions::within(u64::MAX),
            metrics: None,
            answering: Arc::default(),
        })
    }

    #[test]
    fn a_panic_ends_its_own_session_whatever_it_held() {
        let dir = TestDir::new();
        let daemon = daemon(&dir);
        let socket = dir.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut peer = UnixStream::connect(&socket).unwrap();
        daemon.start_session(&listener);
        peer.write_all(b"{\"version\":1}\n").unwrap();
        let mut peer = BufReader::new(peer);
        let mut welcome = String::new();
        peer.read_line(&mut welcome).unwrap();

        let (mut other_end, stream) = UnixStream::pair().unwrap();
        let open = OpenSession::new(&daemon, &stream).unwrap();
        let build = daemon
            .service
            .builds
            .register(Registration::default())
            .unwrap();
        start("session", move || {
            let _stream = stream;
            let daemon = Arc::clone(&open.daemon);
            let _build = daemon.service.builds.enter(build);
            let _open = open;
            // Poisoned, as by a panic at the worst of times.
            let _held = daemon.sessions.table.lock().unwrap();
            panic!("a bug");
        });
        assert_eq!(other_end.read(&mut [0]).unwrap(), 0, "it is hung up on");
        assert_eq!(daemon.service.builds.live().1, 1, "its build is let go");

        // A get of an action that nobody has put.
        let mut get = vec![b'g'];
        get.extend([0; 40]);
        peer.get_mut().write_all(&get).unwrap();
        let mut answer = [0; 9];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], b'm', "the other session goes on");
        drop(peer);
        assert!(daemon.sessions.stop(), "and nothing waits for the dead one");
    }
}
