//! The module proxy: `go` asks it for modules, and it asks the cache and the upstreams of the
//! user's own GOPROXY list.
//!
//! tiny_http in front, ureq behind, the cache in between. It may be slow or missing, for `go` has
//! the user's own list behind it; it must never give a file that an upstream would not have
//! given. It holds nothing of the build's open, and ends with the build.

mod answer;
mod body;
mod cache;
mod check;
mod flights;
mod list;
mod path;
mod upstream;

use crate::config::{REQUESTS_MAX, STOP_LIMIT};
use crate::error::{Error, Result};
use crate::log;
use crate::sys;
use answer::{Answer, Answers};
use cache::Cache;
use list::{Entry, Source};
use path::Path;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tiny_http::{Header, Method, Request, Response, Server, StatusCode};
pub use upstream::Limits;
use upstream::{Refusal, Upstreams};

/// How often a process that cannot be waited for is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the server is woken.
const WAKE_EVERY: Duration = Duration::from_millis(100);

/// How a proxy is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The address and the port to listen on.
    pub listen: String,
    /// The process of the build that is served, if it is only one.
    pub build: Option<u32>,
    /// Where the daemon's sockets are, if not where a sandbox or the host has them.
    pub runtime_dir: Option<PathBuf>,
    /// What is waited for, and for how long.
    pub limits: Limits,
}

/// Serves until SIGTERM or SIGINT, or until the build has ended.
///
/// # Errors
/// When the list is none, or the address cannot be listened on.
pub fn run(options: &Options) -> Result<()> {
    if options.build.is_some() {
        // Whoever waits for the build's end waits for its descriptors to be closed.
        sys::close_inherited();
        std::env::set_current_dir("/").map_err(|e| Error::io("change to", "/", e))?;
    }
    // Before the first thread, so that no other one gets the signals.
    let termination = sys::Termination::new()?;
    let build = match options.build {
        Some(pid) => match Build::find(pid)? {
            Some(build) => Some(build),
            None => return Ok(()),
        },
        None => None,
    };
    let entries = list::parse(&list()?)?;
    let listener = TcpListener::bind(&options.listen)
        .map_err(|e| Error::io("listen on", &options.listen, e))?;
    let address = listener
        .local_addr()
        .map_err(|e| Error::io("listen on", &options.listen, e))?;
    refuse_itself(&entries, address)?;
    let answers = Arc::new(Answers::new(
        entries,
        Upstreams::from_env(options.limits),
        Cache::new(options.runtime_dir.clone(), build.is_some()),
        build.is_some(),
    ));
    let server = Server::from_listener(listener, None)
        .map_err(|e| Error::input(format!("cannot serve on {address}: {e}")))?;
    let running = Arc::new(Running::default());
    let ended = serve(server, Arc::clone(&answers), Arc::clone(&running));
    wake(address);
    log::info(format!("proxy on http://{address}"));
    // Closed at once: whoever reads the URL waits for nothing more.
    sys::stdout()
        .write_all(format!("http://{address}\n").as_bytes())
        .map_err(|e| Error::io("print the URL to", "stdout", e))?;
    let served = wait(&termination, build.as_ref(), &ended);
    if build.is_none() {
        running.wait_for_none();
    }
    answers.end();
    log::info(format!("proxy ended: {}", answers.summary()));
    served
}

/// The list of the user's: `GOPROXY`, or what `go` takes when that is unset.
fn list() -> Result<String> {
    if let Some(list) = std::env::var_os("GOPROXY").filter(|list| !list.is_empty()) {
        return list
            .into_string()
            .map_err(|_| Error::input("GOPROXY is not text"));
    }
    let output = Command::new("go").args(["env", "GOPROXY"]).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
        }
        _ => Err(Error::input(
            "GOPROXY is unset, and there is no `go` to ask for its default: set GOPROXY to the upstreams",
        )),
    }
}

/// A proxy that is its own upstream would ask itself without end.
fn refuse_itself(entries: &[Entry], address: SocketAddr) -> Result<()> {
    let names_us = |entry: &Entry| match &entry.source {
        Source::Upstream(url) => {
            let host = url.host().trim_start_matches('[').trim_end_matches(']');
            let ip = host.parse::<std::net::IpAddr>();
            let local =
                host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback() || ip == address.ip());
            local && url.port() == address.port()
        }
        _ => false,
    };
    if entries.iter().any(names_us) {
        return Err(Error::input(format!(
            "GOPROXY lists this proxy itself (http://{address}): set it to the upstreams, for this command"
        )));
    }
    Ok(())
}

/// Waits for the end.
fn wait(termination: &sys::Termination, build: Option<&Build>, ended: &Ended) -> Result<()> {
    loop {
        let process = build.and_then(Build::descriptor);
        let [stop, gone] = sys::wait_readable(
            [
                termination.as_raw_fd(),
                process.unwrap_or(termination.as_raw_fd()),
            ],
            LOOK_EVERY,
        )
        .map_err(|e| Error::io("wait for", "the end of the build", e))?;
        if stop || gone || build.is_some_and(Build::has_ended) {
            return Ok(());
        }
        if let Some(why) = ended
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            return Err(Error::io("accept", "a connection", why));
        }
    }
}

/// The process that a proxy ends with.
struct Build {
    pid: u32,
    /// Readable once it has ended; none on a kernel that cannot tell.
    process: Option<OwnedFd>,
}

impl Build {
    /// `None` when it has ended already.
    fn find(pid: u32) -> Result<Option<Self>> {
        match sys::process(pid) {
            Ok(process) => Ok(Some(Self {
                pid,
                process: Some(process),
            })),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                Err(Error::io("find the build's process", pid.to_string(), e))
            }
            Err(_) => Ok(Some(Self { pid, process: None })),
        }
    }

    fn descriptor(&self) -> Option<i32> {
        self.process.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn has_ended(&self) -> bool {
        let path = format!("/proc/{}", self.pid);
        self.process.is_none()
            && std::fs::metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound)
    }
}

/// Why the server accepts no more connections.
struct Ended(Mutex<Option<std::io::Error>>);

/// Starts the thread that takes requests and starts a thread for each.
fn serve(server: Server, answers: Arc<Answers>, running: Arc<Running>) -> Arc<Ended> {
    let ended = Arc::new(Ended(Mutex::default()));
    let end = Arc::clone(&ended);
    thread::spawn(move || {
        loop {
            let request = match server.recv() {
                Ok(request) => request,
                Err(e) => {
                    *end.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                    return;
                }
            };
            let turn = Running::enter(&running);
            let answers = Arc::clone(&answers);
            let started = thread::Builder::new()
                .name("request".into())
                .spawn(move || {
                    respond(request, &answers);
                    drop(turn);
                });
            // The request is dropped, and answered with a 500.
            if let Err(e) = started {
                log::error(format!("cannot start a thread: {e}"));
            }
        }
    });
    ended
}

/// tiny_http 0.12 gives a connection to an idle thread even when that one has been given another
/// connection and has not woken yet. Then the second one waits until the first is closed, which
/// `go` does after minutes. A connection that finds no idle thread starts a new one, and that one
/// takes over what waits; this makes such connections.
fn wake(address: SocketAddr) {
    thread::spawn(move || {
        loop {
            thread::sleep(WAKE_EVERY);
            let _ = TcpStream::connect(address);
        }
    });
}

fn respond(request: Request, answers: &Answers) {
    let answer = match request.method() {
        Method::Get | Method::Head => match Path::parse(request.url()) {
            Some(path) => answers.answer(&path),
            None => {
                Refusal::new(404, "not found: this is no path of the GOPROXY protocol\n").into()
            }
        },
        _ => Refusal::new(405, "a module proxy is only read from\n").into(),
    };
    let content_type = Header::from_bytes("Content-Type", answer.content_type.as_bytes());
    let response = Response::new(
        StatusCode(answer.status),
        content_type.into_iter().collect(),
        answer.body.reader(),
        usize::try_from(answer.body.len()).ok(),
        None,
    )
    // Always with a Content-Length.
    .with_chunked_threshold(usize::MAX);
    // A client that has gone needs no answer.
    if let Err(e) = request.respond(response) {
        log::debug(|| format!("cannot answer: {e}"));
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status,
            content_type: refusal.content_type,
            body: refusal.text,
        }
    }
}

/// How many requests are being answered.
#[derive(Default)]
struct Running {
    count: Mutex<usize>,
    changed: Condvar,
}

/// One request that is being answered.
struct Turn(Arc<Running>);

impl Running {
    /// Waits until there is room for one more.
    fn enter(running: &Arc<Self>) -> Turn {
        let count = running.count.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = running
            .changed
            .wait_while(count, |count| *count >= REQUESTS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        Turn(Arc::clone(running))
    }

    /// Waits for a bounded time until all are answered.
    fn wait_for_none(&self) {
        let until = Instant::now() + STOP_LIMIT;
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let _ = self
            .changed
            .wait_timeout_while(count, left, |count| *count > 0);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.changed.notify_all();
    }
}
