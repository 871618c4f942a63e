//! HTTP to clients: reads requests, and writes what the rest of the proxy answers.
//!
//! All that knows tiny_http is here. tiny_http parses requests and prints the heads of answers. Left alone it also
//! accepts connections, and there it reads lines of any length, queues any number of requests, cannot close a connection,
//! keeps some of them waiting for others, and ends when descriptors run out. So it gets one connection, from
//! this file, and no socket that anybody else can reach. Connections from clients are accepted, limited and closed
//! here; one request's head at a time is passed on, once it is whole, short and well-formed.
//!
//! Whatever a client sends or does not read, only its own connection ends.

use super::request::{self, Head};
use super::response::Response;
use super::token::Token;
use crate::config::{PROXY_CONNECTIONS_MAX, REQUESTS_MAX, STOP_LIMIT};
use crate::error::{Error, Result};
use crate::id::BuildId;
use crate::sync::lock;
use crate::{fs, log};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tiny_http::{HTTPVersion, Header, Request, StatusCode};

/// How long a connection may wait for its next request.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a request's head may take from its first byte to its last.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long a client may take to read one piece of an answer.
const PIECE_LIMIT: Duration = Duration::from_secs(60);

/// What is written at a time, in bytes: with `PIECE_LIMIT`, the slowest client that is served reads 1 KiB/s.
const PIECE: usize = 64 << 10;

/// How long, and how many bytes, are read and dropped after a request was refused unread: closing a socket with unread
/// bytes in it would destroy the answer on its way.
const LINGER_LIMIT: Duration = Duration::from_secs(2);
const LINGER_MAX: usize = 256 << 10;

/// How long to wait when there are no descriptors or no memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long tiny_http may take to parse a head.
const PARSE_LIMIT: Duration = Duration::from_secs(10);

/// Room for the head of an answer, in bytes.
const HEAD_ROOM: usize = 1 << 10;

/// A running server. It ends with the process.
pub struct Server(Arc<Shared>);

/// What answers the path of a request.
type Answer = dyn Fn(&str) -> Response + Send + Sync;

struct Shared {
    parser: Mutex<Parser>,
    connections: Connections,
    /// How many more requests may be answered at this time.
    slots: Slots,
    token: Option<Token>,
    answer: Box<Answer>,
}

impl Server {
    /// Begins to accept connections. Requests that begin with the token, if there is one, are answered.
    ///
    /// # Errors
    /// When no thread or no socket can be made.
    pub fn start(
        listener: TcpListener,
        descriptors: u64,
        token: Option<Token>,
        answer: impl Fn(&str) -> Response + Send + Sync + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            parser: Mutex::new(Parser::start()?),
            connections: Connections::new(descriptors),
            slots: Slots(Mutex::new(REQUESTS_MAX), Condvar::new()),
            token,
            answer: Box::new(answer),
        });
        let accepting = Arc::clone(&shared);
        thread::Builder::new()
            .name("accept".into())
            .spawn(move || accepting.accept(&listener))
            .map_err(|e| Error::io("start", "a thread", e))?;
        Ok(Self(shared))
    }

    /// Waits for a bounded time until no request is being answered; says whether none is.
    pub fn wait_until_idle(&self) -> bool {
        self.0.connections.wait_until_idle(STOP_LIMIT)
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        let mut warned = false;
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => continue,
                Err(e) => {
                    if !std::mem::replace(&mut warned, true) {
                        log::warn(format!("cannot accept a connection, trying again: {e}"));
                    }
                    self.connections.end_longest_waiting();
                    thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            warned = false;
            let Some(connection) = Connections::open(&self.connections, stream) else {
                continue;
            };
            let shared = Arc::clone(&self);
            let thread = thread::Builder::new().name("connection".into());
            // Without a thread the connection is closed.
            if let Err(e) = thread.spawn(move || shared.converse(&connection)) {
                log::warn(format!("cannot start a thread for a connection: {e}"));
            }
        }
    }

    /// Answers the requests of one connection, one after the other.
    fn converse(&self, connection: &Connection) {
        let stream = &*connection.stream;
        let mut unread = Vec::new();
        loop {
            self.connections.set_waiting(connection, true);
            let head = match read_head(stream, &mut unread) {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(refusal) => return refuse(stream, &refusal),
            };
            self.connections.set_waiting(connection, false);
            let head = match request::check(&head) {
                Ok(head) => head,
                Err(refusal) => return refuse(stream, &refusal),
            };
            match self.respond(stream, &head) {
                Ok(true) => {}
                Ok(false) => return,
                Err(e) => {
                    log::debug(|| format!("connection broken off: {}", e.chain()));
                    return;
                }
            }
        }
    }

    /// Answers one request; says whether another may follow.
    fn respond(&self, stream: &TcpStream, head: &Head) -> Result<bool> {
        let path = match &self.token {
            Some(token) => token.strip(&head.path),
            None => Some(head.path.as_str()),
        };
        let Some(path) = path else {
            refuse(stream, &Response::text(404, "not found\n"));
            return Ok(false);
        };
        let request = lock(&self.parser).parse(&head.bytes)?;
        let version = request.http_version().clone();
        let with_body = *request.method() != tiny_http::Method::Head;
        // With its writer tiny_http would answer a request that is dropped, to its own end of the inlet.
        drop(request.into_writer());
        let response = {
            let _slot = self.slots.take();
            (self.answer)(path)
        };
        let mut piece = print_head(version, &response, head.keep_alive);
        let mut left = if with_body { response.body.len() } else { 0 };
        let mut reader = response.body.reader();
        loop {
            // The first one goes with the head.
            let next = left.min(PIECE as u64);
            let at = piece.len();
            piece.resize(at + next as usize, 0);
            reader.read_exact(&mut piece[at..]).map_err(|e| {
                log::warn(format!("{path}: cannot read the cached file: {e}"));
                Error::io("read", "a cached file", e)
            })?;
            left -= next;
            write_within(stream, &piece, PIECE_LIMIT)
                .map_err(|e| Error::io("answer", "a client", e))?;
            if left == 0 {
                return Ok(head.keep_alive);
            }
            piece.clear();
        }
    }
}

/// Reads the next head; `None` when the client has closed the connection, or was silent for too long.
fn read_head(
    stream: &TcpStream,
    unread: &mut Vec<u8>,
) -> std::result::Result<Option<Vec<u8>>, Response> {
    let mut until = Instant::now() + IDLE_LIMIT;
    let mut searched = 0;
    let mut buffer = [0; 4 << 10];
    loop {
        if let Some(at) = memchr::memmem::find(&unread[searched..], b"\r\n\r\n") {
            let rest = unread.split_off(searched + at + 4);
            return Ok(Some(std::mem::replace(unread, rest)));
        }
        if unread.len() > request::HEAD_MAX {
            return Err(Response::text(431, "the head of a request is too long\n"));
        }
        searched = unread.len().saturating_sub(3);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return if unread.is_empty() {
                Ok(None)
            } else {
                Err(Response::text(408, "the head of a request took too long\n"))
            };
        }
        let read = stream.set_read_timeout(Some(left)).and_then(|()| {
            let mut stream = stream;
            stream.read(&mut buffer)
        });
        match read {
            Ok(0) => return Ok(None),
            Ok(n) => {
                if unread.is_empty() {
                    until = Instant::now() + HEAD_LIMIT;
                }
                unread.extend_from_slice(&buffer[..n]);
            }
            Err(e) if is_passing(e.kind()) => {}
            Err(_) => return Ok(None),
        }
    }
}

/// Whether the same call may go better now: a time limit is looked at elsewhere.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
    )
}

/// Writes all of it, or fails at the latest when the time is over.
fn write_within(mut stream: &TcpStream, mut bytes: &[u8], limit: Duration) -> io::Result<()> {
    let until = Instant::now() + limit;
    while !bytes.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if is_passing(e.kind()) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Answers a request that is not read any further. The connection is to be closed then.
fn refuse(mut stream: &TcpStream, refusal: &Response) {
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        refusal.status,
        StatusCode(refusal.status).default_reason_phrase(),
        refusal.content_type,
        refusal.body.len()
    )
    .into_bytes();
    answer.extend(refusal.body.slice(0, PIECE).unwrap_or_default());
    let until = Instant::now() + LINGER_LIMIT;
    if write_within(stream, &answer, LINGER_LIMIT).is_err() {
        return;
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut buffer = vec![0; 16 << 10];
    let mut dropped = 0;
    while dropped < LINGER_MAX {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => dropped += n,
            Err(e) if is_passing(e.kind()) => {}
            Err(_) => return,
        }
    }
}

/// The status line and the headers, always with a Content-Length.
fn print_head(version: HTTPVersion, response: &Response, keep_alive: bool) -> Vec<u8> {
    let mut headers = vec![("Content-Type", response.content_type.clone())];
    if let Some(age) = response.stale {
        headers.push(("Age", age.as_secs().to_string()));
        // RFC 7234, 5.5.1.
        let warning = "110 nix-gocacheprog \"Response is Stale\"";
        headers.push(("Warning", warning.to_string()));
    }
    let headers = headers
        .iter()
        .filter_map(|(name, value)| Header::from_bytes(*name, value.as_bytes()).ok());
    let printed = tiny_http::Response::new(
        StatusCode(response.status),
        headers.collect(),
        io::empty(),
        usize::try_from(response.body.len()).ok(),
        None,
    )
    .with_chunked_threshold(usize::MAX);
    let room = response.body.len().min(PIECE as u64) as usize;
    let mut head = Vec::with_capacity(HEAD_ROOM + room);
    // The client's headers could ask for another form of body. A Vec takes all that it is given.
    let _ = printed.raw_print(&mut head, version, &[], true, None);
    if !keep_alive && head.ends_with(b"\r\n\r\n") {
        // tiny_http prints no header of this name.
        head.truncate(head.len() - 2);
        head.extend(b"Connection: close\r\n\r\n");
    }
    head
}

/// tiny_http, as a parser: it reads from the only connection that it ever gets.
struct Parser {
    http: tiny_http::Server,
    inlet: UnixStream,
}

impl Parser {
    fn start() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!(".nix-gocacheprog-{}", BuildId::new()?));
        fs::create_dir(&directory, 0o700)?;
        let parser = Self::start_in(&directory);
        fs::remove_dir_all(&directory)?;
        parser
    }

    fn start_in(directory: &std::path::Path) -> Result<Self> {
        let failed = |e| Error::io("make a socket in", directory, e);
        // A socket's path is short, whatever the directory's is.
        let opened = fs::open(directory)?;
        let path = format!("/proc/self/fd/{}/http", opened.as_raw_fd());
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let other = listener.try_clone().map_err(failed)?;
        let http = tiny_http::Server::from_listener(listener, None)
            .map_err(|e| Error::input(format!("cannot start the HTTP parser: {e}")))?;
        let inlet = UnixStream::connect(&path).map_err(failed)?;
        inlet.set_write_timeout(Some(PARSE_LIMIT)).map_err(failed)?;
        let mut parser = Self { http, inlet };
        drop(
            parser
                .try_parse(b"HEAD / HTTP/1.1\r\n\r\n")
                .map_err(failed)?
                .into_writer(),
        );
        // It has accepted the connection, and is not to accept another: shut down, the listener says so.
        let other = UnixStream::from(OwnedFd::from(other));
        other.shutdown(Shutdown::Both).map_err(failed)?;
        // What tiny_http says of that.
        let _ = parser.http.recv_timeout(PARSE_LIMIT);
        Ok(parser)
    }

    /// Parses a head that [`request::check`] has let through. After an error a new parser is in this one's place.
    fn parse(&mut self, head: &[u8]) -> Result<Request> {
        self.try_parse(head).map_err(|e| {
            match Self::start() {
                Ok(parser) => *self = parser,
                Err(e) => log::error(e.chain()),
            }
            Error::io("parse", "a request", e)
        })
    }

    fn try_parse(&mut self, head: &[u8]) -> io::Result<Request> {
        self.inlet.write_all(head)?;
        let request = self.http.recv_timeout(PARSE_LIMIT)?;
        request.ok_or_else(|| ErrorKind::TimedOut.into())
    }
}

/// The connections that are open.
struct Connections {
    open: Arc<Mutex<Open>>,
    changed: Condvar,
    max: usize,
}

#[derive(Default)]
struct Open {
    next: u64,
    streams: HashMap<u64, State>,
}

struct State {
    stream: Arc<TcpStream>,
    /// Since when it waits for a request, if it does.
    waiting: Option<Instant>,
}

/// One of them. It is closed when this is dropped.
struct Connection {
    number: u64,
    stream: Arc<TcpStream>,
    open: Arc<Mutex<Open>>,
}

impl Connections {
    fn new(descriptors: u64) -> Self {
        // Each may need a file, a connection to an upstream and one to the daemon besides.
        let affordable = usize::try_from(descriptors / 4).unwrap_or(PROXY_CONNECTIONS_MAX);
        Self {
            open: Arc::default(),
            changed: Condvar::new(),
            max: affordable.clamp(1, PROXY_CONNECTIONS_MAX),
        }
    }

    /// Makes room for one more; `None` when there is none, because all others are being answered.
    fn open(&self, stream: TcpStream) -> Option<Connection> {
        let mut open = lock(&self.open);
        if open.streams.len() >= self.max && !open.end_longest_waiting() {
            drop(open);
            // It must not hold up those who come next.
            let _ = stream.set_nonblocking(true);
            let _ = (&stream).write_all(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
            return None;
        }
        let stream = Arc::new(stream);
        let number = open.next;
        open.next += 1;
        let state = State {
            stream: Arc::clone(&stream),
            waiting: Some(Instant::now()),
        };
        open.streams.insert(number, state);
        Some(Connection {
            number,
            stream,
            open: Arc::clone(&self.open),
        })
    }

    fn end_longest_waiting(&self) {
        lock(&self.open).end_longest_waiting();
    }

    fn set_waiting(&self, connection: &Connection, waiting: bool) {
        if let Some(state) = lock(&self.open).streams.get_mut(&connection.number) {
            state.waiting = waiting.then(Instant::now);
        }
        self.changed.notify_all();
    }

    fn wait_until_idle(&self, limit: Duration) -> bool {
        let busy = |open: &mut Open| open.streams.values().any(|state| state.waiting.is_none());
        let (mut open, _) = self
            .changed
            .wait_timeout_while(lock(&self.open), limit, busy)
            .unwrap_or_else(PoisonError::into_inner);
        !busy(&mut open)
    }
}

impl Open {
    /// Closes the connection that waits for a request longest; says whether there was one.
    fn end_longest_waiting(&mut self) -> bool {
        let waiting = self
            .streams
            .iter()
            .filter_map(|(number, state)| Some((state.waiting?, *number)));
        let Some((_, number)) = waiting.min() else {
            return false;
        };
        if let Some(state) = self.streams.remove(&number) {
            // Its thread sees the end of it.
            let _ = state.stream.shutdown(Shutdown::Both);
        }
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.open).streams.remove(&self.number);
    }
}

/// Room for work that is done at one time.
struct Slots(Mutex<usize>, Condvar);

struct Slot<'a>(&'a Slots);

impl Slots {
    /// Waits until there is room.
    fn take(&self) -> Slot<'_> {
        let mut free = self
            .1
            .wait_while(lock(&self.0), |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.0) += 1;
        self.0.1.notify_one();
    }
}
