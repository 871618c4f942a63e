//! The module proxy: `go` asks it for modules, and it asks the cache and the upstreams of the
//! user's own GOPROXY list.
//!
//! tiny_http in front, ureq behind, the cache in between. It may be slow or missing, for `go` has
//! the user's own list behind it; it must never give a file that an upstream would not have
//! given. It holds nothing of the build's open, and ends with the build.

mod answers;
mod body;
mod cache;
mod check;

pub mod list;
pub mod path;
mod single_flight;
mod standalone;
mod upstream;

use crate::cache::store;
use crate::config::{REQUESTS_MAX, STOP_LIMIT};
use crate::error::{Error, Result};
use crate::log;
use crate::sync::lock;
use crate::sys;
use answers::{Answer, Answers};
use cache::{Cache, Place};
use list::{Entry, Source};
use path::Path;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tiny_http::{Header, Method, Request, Response, Server, StatusCode};
pub use upstream::Limits;
use upstream::{Refusal, Upstreams};

/// How often a process that cannot be waited for is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the server is woken at most.
const WAKE_PAUSE: Duration = Duration::from_millis(50);

/// What is written at a time, in bytes.
const PIECE: usize = 256 << 10;

/// The longest body of a request that is read past, in bytes. `go` sends none.
const BODY_MAX: usize = 64 << 10;

/// Room for the head of an answer, in bytes.
const HEAD: usize = 1 << 10;

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
    /// Where modules are kept when there is no daemon, if not in a directory of this user's.
    pub cache_dir: Option<PathBuf>,
    /// What that is kept within.
    pub keep: store::Limits,
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
    sys::raise_descriptor_limit();
    let listener = TcpListener::bind(&options.listen)
        .map_err(|e| Error::io("listen on", &options.listen, e))?;
    let address = listener
        .local_addr()
        .and_then(|address| {
            set_up(&listener)?;
            Ok(address)
        })
        .map_err(|e| Error::io("listen on", &options.listen, e))?;
    refuse_itself(&entries, address)?;
    let place = match build {
        Some(_) => Place::Build,
        None => Place::Standalone(options.cache_dir.clone(), options.keep),
    };
    let answers = Arc::new(Answers::new(
        entries,
        Upstreams::from_env(options.limits),
        Cache::new(options.runtime_dir.clone(), place),
        build.is_some(),
    ));
    let server = Server::from_listener(listener, None)
        .map_err(|e| Error::input(format!("cannot serve on {address}: {e}")))?;
    let running = Arc::new(Running::default());
    let waker = wake(address);
    let ended = serve(server, waker, Arc::clone(&answers), Arc::clone(&running));
    log::info(format!("proxy on http://{address}"));
    // Closed at once: whoever reads the URL waits for nothing more.
    sys::stdout()
        .write_all(format!("http://{address}\n").as_bytes())
        .map_err(|e| Error::io("print the URL to", "stdout", e))?;
    let served = wait(&termination, build.as_ref(), &ended);
    let is_idle = build.is_none() && running.wait_for_none();
    answers.end(is_idle);
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

/// Sets what connections have from their listener: they send at once what is written, and end
/// when their client has vanished.
fn set_up(listener: &TcpListener) -> std::io::Result<()> {
    sys::keep_alive(listener)?;
    let socket = TcpStream::from(OwnedFd::from(listener.try_clone()?));
    socket.set_nodelay(true)
}

/// A proxy that is its own upstream would ask itself without end.
fn refuse_itself(entries: &[Entry], address: SocketAddr) -> Result<()> {
    let names_us = |entry: &Entry| match &entry.source {
        Source::Upstream(url) => {
            let is_here = url.is_loopback() || url.address() == Some(address.ip());
            is_here && url.port() == address.port()
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
        if let Some(why) = ended.why() {
            return Err(why);
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

/// Why the server cannot go on.
#[derive(Default)]
struct Ended(Mutex<Option<Error>>);

impl Ended {
    fn with(&self, why: Error) {
        *lock(&self.0) = Some(why);
    }

    fn why(&self) -> Option<Error> {
        lock(&self.0).take()
    }
}

/// Starts the thread that takes requests and starts a thread for each.
fn serve(
    server: Server,
    waker: Thread,
    answers: Arc<Answers>,
    running: Arc<Running>,
) -> Arc<Ended> {
    let ended = Arc::new(Ended::default());
    let end = Arc::clone(&ended);
    thread::spawn(move || {
        loop {
            let request = match server.recv() {
                Ok(request) => request,
                Err(e) => {
                    end.with(Error::io("accept", "a connection", e));
                    return;
                }
            };
            if let Some(length) = request.body_length()
                && length > BODY_MAX
            {
                // tiny_http 0.12 allocates all that was announced when it drops a request, and ends the process when
                // it cannot. So this one is kept, with its connection, and never answered.
                log::warn(format!(
                    "a request to {} with a body of {length} bytes is not answered",
                    request.url()
                ));
                std::mem::forget(request);
                continue;
            }
            let turn = Running::enter(&running);
            waker.unpark();
            let (answers, end) = (Arc::clone(&answers), Arc::clone(&end));
            let started = thread::Builder::new()
                .name("request".into())
                .spawn(move || {
                    // tiny_http lets nobody close a connection: only the end of the process does.
                    if let Err(e) = respond(request, &answers) {
                        end.with(e);
                    }
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
/// takes over what waits; this makes such connections, soon after each request and seldom otherwise.
fn wake(address: SocketAddr) -> Thread {
    let waker = thread::spawn(move || {
        loop {
            thread::park_timeout(LOOK_EVERY);
            let _ = TcpStream::connect(address);
            thread::sleep(WAKE_PAUSE);
        }
    });
    waker.thread().clone()
}

/// Answers a request. An error is ours, not the client's, which waits for the rest of the answer then.
fn respond(request: Request, answers: &Answers) -> Result<()> {
    let answer = match request.method() {
        Method::Get | Method::Head => match Path::parse(request.url()) {
            Some(path) => answers.answer(&path),
            None => {
                Refusal::new(404, "not found: this is no path of the GOPROXY protocol\n").into()
            }
        },
        _ => Refusal::new(405, "a module proxy is only read from\n").into(),
    };
    let mut piece = head(&request, &answer);
    let with_body = *request.method() != Method::Head;
    let mut left = if with_body { answer.body.len() } else { 0 };
    let mut reader = answer.body.reader();
    let mut writer = request.into_writer();
    loop {
        // The first one goes with the head.
        let next = left.min(PIECE as u64);
        let at = piece.len();
        piece.resize(at + next as usize, 0);
        if let Err(e) = reader.read_exact(&mut piece[at..]) {
            // No other answer may come where the rest of this one is waited for.
            std::mem::forget(writer);
            return Err(Error::io("read", "an answer that was kept", e));
        }
        left -= next;
        let written = writer.write_all(&piece);
        if let Err(e) = written.and_then(|()| writer.flush()) {
            // A client that has gone needs no answer.
            log::debug(|| format!("cannot answer: {e}"));
            return Ok(());
        }
        if left == 0 {
            return Ok(());
        }
        piece.clear();
    }
}

/// The status line and the headers, always with a Content-Length.
fn head(request: &Request, answer: &Answer) -> Vec<u8> {
    let content_type = Header::from_bytes("Content-Type", answer.content_type.as_bytes());
    let response = Response::new(
        StatusCode(answer.status),
        content_type.into_iter().collect(),
        std::io::empty(),
        usize::try_from(answer.body.len()).ok(),
        None,
    )
    .with_chunked_threshold(usize::MAX);
    let room = answer.body.len().min(PIECE as u64) as usize;
    let mut head = Vec::with_capacity(HEAD + room);
    // The client's headers could ask for another form of body. A Vec takes all that it is given.
    let _ = response.raw_print(&mut head, request.http_version().clone(), &[], true, None);
    head
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
        let count = lock(&running.count);
        let mut count = running
            .changed
            .wait_while(count, |count| *count >= REQUESTS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        Turn(Arc::clone(running))
    }

    /// Waits for a bounded time until all are answered; says whether they are.
    fn wait_for_none(&self) -> bool {
        let until = Instant::now() + STOP_LIMIT;
        let count = lock(&self.count);
        let left = until.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(count, left, |count| *count > 0);
        let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock(&self.0.count) -= 1;
        self.0.changed.notify_all();
    }
}
