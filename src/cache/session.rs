//! One conversation: a build's gets and puts on a store.
//!
//! The daemon holds one with a client over the build socket; a client that is alone holds
//! one with itself. A session can end only itself: nothing that a peer says reaches
//! another one.

mod afar;

use crate::builds::{BuildDir, Builds, output_name};
use crate::config::{BODY_MAX, HELLO_LIMIT, NOTED_MAX, READ_BUFFER};
use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::id::{ActionId, BuildId, OutputId};
use crate::lists::{ACTIONS_MAX, Used};
use crate::log;
use crate::remote::Remote;
use crate::store::{Entry, Store};
use crate::sys;
use crate::wire::{self, Answer, Hello, Request, Welcome};
use afar::Afar;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A build's access to a store: what it gets or puts appears in its directory.
#[derive(Debug)]
pub struct Session<'a> {
    store: &'a Store,
    directory: PathBuf,
    counts: Counts,
}

impl<'a> Session<'a> {
    /// A session whose outputs appear in `directory`, which must be on the store's file
    /// system.
    pub fn new(store: &'a Store, directory: &Path) -> Self {
        Self {
            store,
            directory: directory.to_path_buf(),
            counts: Counts::default(),
        }
    }

    /// Looks an action up; a hit's output is in the directory then.
    ///
    /// # Errors
    /// When the system fails to read the entry or to make the link.
    pub fn get(&mut self, action: &ActionId) -> Result<Option<Entry>> {
        self.counts.gets += 1;
        let found = self.find(action);
        match &found {
            Ok(Some(entry)) => {
                self.counts.hits += 1;
                self.counts.bytes_read += entry.size;
            }
            Ok(None) => {}
            Err(_) => self.counts.errors += 1,
        }
        found
    }

    /// The build has found an output of so many bytes by itself.
    fn found(&mut self, size: u64) {
        self.counts.gets += 1;
        self.counts.hits += 1;
        self.counts.bytes_read = self.counts.bytes_read.saturating_add(size);
    }

    fn find(&self, action: &ActionId) -> Result<Option<Entry>> {
        let Some(entry) = self.store.get(action)? else {
            return Ok(None);
        };
        let name = output_name(&self.directory, &entry.output);
        Ok(self.store.link(action, &entry, &name)?.then_some(entry))
    }

    /// Stores an action's output, which is in the directory then.
    ///
    /// # Errors
    /// When the body is not what its ID says, or the disk refuses it.
    pub fn put(
        &mut self,
        action: &ActionId,
        output: &OutputId,
        size: u64,
        body: &mut impl Read,
    ) -> Result<Entry> {
        let stored = self.keep(action, output, size, body);
        match &stored {
            Ok(_) => {
                self.counts.puts += 1;
                self.counts.bytes_written += size;
            }
            Err(_) => self.counts.errors += 1,
        }
        stored
    }

    fn keep(
        &self,
        action: &ActionId,
        output: &OutputId,
        size: u64,
        body: &mut impl Read,
    ) -> Result<Entry> {
        // It stays until it is in the directory, which keeps it then.
        let _held = self.store.hold(output);
        let entry = self.store.put(action, output, size, body)?;
        let name = output_name(&self.directory, output);
        if self.store.link(action, &entry, &name)? {
            Ok(entry)
        } else {
            Err(Error::input(format!(
                "output {output} was lost as soon as it was stored"
            )))
        }
    }
}

/// The daemon around a session. It may end it, but not while a request is running.
pub trait Gate: Sync {
    /// A request has begun.
    fn begin(&self);
    /// It is answered; `false` when the session is to end now.
    fn end(&self) -> bool;
    /// So much has happened in a build of this name.
    fn count(&self, name: &str, counts: Counts);
    /// A build has registered itself.
    fn begun(&self, build: BuildId, name: &str);
    /// Whether something is made ready for builds of this name.
    fn makes_ready(&self, name: &str) -> bool;
    /// A session has ended in which this was used.
    fn used(&self, build: &BuildDir, used: Vec<Used>);
}

/// Serves one client until it closes its side, breaks the rules or is told to end; logs
/// the session's line. What it may share goes to the remote too, if there is one.
pub fn serve(
    stream: &UnixStream,
    store: &Store,
    builds: &Arc<Builds>,
    remote: Option<&Remote>,
    gate: &impl Gate,
) {
    let connection = Connection {
        stream,
        hello_until: Some(Instant::now() + HELLO_LIMIT),
    };
    let mut reader = BufReader::with_capacity(READ_BUFFER, connection);
    let (build, is_shared) = match greet(&mut reader, builds, gate) {
        Ok(Some(entered)) => entered,
        Ok(None) => return,
        Err(e) => {
            log::warn(format!("no session: {}", e.chain()));
            return;
        }
    };
    let mut session = Session::new(store, build.path());
    let mut counter = Counter {
        build: &build,
        gate,
        counted: Counts::default(),
    };
    let notes = Notes::default();
    let (ended, later) = match remote.filter(|_| is_shared) {
        Some(remote) => Afar::run(remote, store, &build, stream, &notes, gate, |afar| {
            converse(&mut reader, &mut session, &mut counter, &notes, Some(afar))
        }),
        None => {
            let ended = converse(&mut reader, &mut session, &mut counter, &notes, None);
            // The peer need not wait for what comes.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            (ended, Counts::default())
        }
    };
    counter.count(session.counts);
    let build = format!("build={} name={:?}", build.id().short(), build.name());
    let mut counts = session.counts;
    counts += later;
    match ended {
        Ok(()) => log::info(format!("session ended: {build} {counts}")),
        Err(e) => log::warn(format!(
            "session broken off: {build} {counts}: {}",
            e.chain()
        )),
    }
    // What needed somebody's credentials is nobody else's, so it is not in a list either.
    if is_shared && !counter.build.name().is_empty() {
        let used = notes.resolve(store);
        if !used.is_empty() {
            gate.used(counter.build, used);
        }
    }
}

/// How much all sessions have noted.
static NOTED: AtomicUsize = AtomicUsize::new(0);

/// What a session has used, in its order.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<(ActionId, Option<Entry>)>>);

impl Notes {
    fn add(&self, action: &ActionId, entry: Option<Entry>) {
        let mut notes = self.notes();
        if notes.len() < ACTIONS_MAX && NOTED.load(Ordering::Relaxed) < NOTED_MAX {
            NOTED.fetch_add(1, Ordering::Relaxed);
            notes.push((*action, entry));
        }
    }

    fn notes(&self) -> MutexGuard<'_, Vec<(ActionId, Option<Entry>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the entries of what the build has found by itself.
    fn resolve(&self, store: &Store) -> Vec<Used> {
        let notes = self.notes();
        let used = notes.iter().copied().filter_map(|(action, entry)| {
            let entry = entry.or_else(|| store.get(&action).ok().flatten())?;
            Some((action, entry))
        });
        used.collect()
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        NOTED.fetch_sub(self.notes().len(), Ordering::Relaxed);
    }
}

/// Passes on what has happened in a session while it goes on.
struct Counter<'a, G> {
    build: &'a BuildDir,
    gate: &'a G,
    counted: Counts,
}

impl<G: Gate> Counter<'_, G> {
    fn count(&mut self, counts: Counts) {
        let since = counts - self.counted;
        if since != Counts::default() {
            self.build.count(since);
            self.gate.count(self.build.name(), since);
            self.counted = counts;
        }
    }
}

/// Tells a client why it gets no session. It may not be listening, which must not hold us up.
pub fn refuse(mut stream: &UnixStream, why: &Error) {
    let welcome = Welcome {
        error: Some(why.to_string()),
        ..Welcome::of_this_release()
    };
    let _ = stream.set_nonblocking(true);
    let _ = wire::write_line(&mut stream, &welcome);
}

/// Hears the hello and answers it; `None` when the peer left without a word, or wanted to
/// know no more than what has happened in its build. With the build comes whether what it uses may be shared.
fn greet(
    reader: &mut BufReader<Connection<'_>>,
    builds: &Arc<Builds>,
    gate: &impl Gate,
) -> Result<Option<(BuildDir, bool)>> {
    let mut is_shared = false;
    let entered = match wire::read_line::<Hello>(reader) {
        Ok(None) => return Ok(None),
        Ok(Some(hello)) if hello.summary => {
            let welcome = Welcome {
                counts: Some(builds.counts(
                    hello.build.as_deref().and_then(BuildId::parse),
                    hello.top.as_deref().map(Path::new),
                )),
                ..Welcome::of_this_release()
            };
            return wire::write_line(&mut reader.get_mut().stream, &welcome).map(|()| None);
        }
        Ok(Some(hello)) => {
            is_shared = hello.shared;
            enter(&hello, builds, gate, reader.get_ref().stream)
        }
        Err(e) => Err(e),
    };
    let mut welcome = Welcome::of_this_release();
    match &entered {
        Ok(build) => {
            welcome.build = build.id().to_string();
            welcome.directory = build.path().to_string_lossy().into_owned();
            welcome.ready = is_shared && gate.makes_ready(build.name());
        }
        Err(e) => welcome.error = Some(e.to_string()),
    }
    let connection = reader.get_mut();
    let answered = wire::write_line(&mut connection.stream, &welcome);
    let build = entered?;
    answered?;
    connection.take_time()?;
    Ok(Some((build, is_shared)))
}

/// A connection, on which the hello must be said before a point in time: a peer that
/// sends a byte now and then must not hold a thread for ever.
struct Connection<'a> {
    stream: &'a UnixStream,
    hello_until: Option<Instant>,
}

impl Connection<'_> {
    /// From now on the peer may be silent for as long as it likes: a build is.
    fn take_time(&mut self) -> Result<()> {
        self.hello_until = None;
        self.stream
            .set_read_timeout(None)
            .map_err(|e| Error::io("set the time limit of", "the connection", e))
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some(until) = self.hello_until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        self.stream.read(buffer)
    }
}

fn enter(
    hello: &Hello,
    builds: &Arc<Builds>,
    gate: &impl Gate,
    stream: &UnixStream,
) -> Result<BuildDir> {
    if hello.version != wire::VERSION {
        return Err(Error::peer(format!(
            "the client speaks version {} of the protocol, this daemon version {}: install the same release on \
             both sides",
            hello.version,
            wire::VERSION
        )));
    }
    let id = match &hello.build {
        Some(text) => BuildId::parse(text)
            .ok_or_else(|| Error::peer("a build ID that is not 32 hexadecimal digits"))?,
        None => {
            let user = sys::peer_user(stream)
                .map_err(|e| Error::io("find the user of", "the connection", e))?;
            let name = hello.name.as_deref().unwrap_or_default();
            let id = builds.register(name, hello.top.as_deref().map(Path::new), Some(user))?;
            if hello.shared {
                gate.begun(id, name);
            }
            id
        }
    };
    builds.enter(id)
}

fn converse(
    reader: &mut BufReader<Connection<'_>>,
    session: &mut Session<'_>,
    counter: &mut Counter<'_, impl Gate>,
    notes: &Notes,
    afar: Option<&Afar<'_>>,
) -> Result<()> {
    let (build, gate) = (counter.build, counter.gate);
    let mut stream = reader.get_ref().stream;
    let mut answers = Vec::new();
    loop {
        let idle = reader.buffer().is_empty();
        if idle || answers.len() >= READ_BUFFER {
            // Before the answers are out: a build may ask for its sum as soon as it has them.
            counter.count(session.counts);
            let _turn = afar.map(Afar::turn);
            stream
                .write_all(&answers)
                .map_err(|e| Error::io("answer on", "the connection", e))?;
            answers.clear();
        }
        if idle {
            if !gate.end() || reader.fill_buf().is_ok_and(<[u8]>::is_empty) {
                return Ok(());
            }
            gate.begin();
        }
        let Some(request) = wire::read_request(reader)? else {
            return Ok(());
        };
        let (request, answer) = match request {
            Request::Get { request, action } => {
                let answer = session.get(&action).into();
                match &answer {
                    Answer::Hit(entry) => notes.add(&action, Some(*entry)),
                    Answer::Miss if afar.is_some_and(|afar| afar.ask(request, &action)) => continue,
                    _ => {}
                }
                (request, answer)
            }
            Request::Found {
                request,
                action,
                size,
            } => {
                session.found(size);
                notes.add(&action, None);
                if request == 0 {
                    continue;
                }
                (request, Answer::Stored)
            }
            Request::Put {
                request,
                action,
                output,
                size,
            } => {
                let mut body = reader.take(size);
                let stored = may_put(build, size)
                    .and_then(|()| session.put(&action, &output, size, &mut body));
                // What was refused must still be read, or the next request is not found.
                std::io::copy(&mut body, &mut std::io::sink())
                    .map_err(|e| Error::io("read", "the body", e))?;
                if body.limit() > 0 {
                    return Err(Error::peer("the connection ended within a body"));
                }
                if let Ok(entry) = &stored {
                    notes.add(&action, Some(*entry));
                    if let Some(afar) = afar {
                        afar.stored(&action);
                    }
                }
                (request, stored.map(|_| Answer::Stored).into())
            }
        };
        log::debug(|| format!("request {request}: {answer:?}"));
        wire::push_answer(&mut answers, request, &answer);
    }
}

fn may_put(build: &BuildDir, size: u64) -> Result<()> {
    if size > BODY_MAX {
        return Err(Error::peer(format!(
            "a body of {size} bytes is larger than the {BODY_MAX} that a build may put"
        )));
    }
    build.charge(size)
}

impl From<Result<Option<Entry>>> for Answer {
    fn from(found: Result<Option<Entry>>) -> Self {
        found
            .map(|found| found.map_or(Self::Miss, Self::Hit))
            .into()
    }
}

impl From<Result<Answer>> for Answer {
    fn from(done: Result<Answer>) -> Self {
        done.unwrap_or_else(|e| {
            log::warn(format!("a request failed: {}", e.chain()));
            Self::Refused(e.chain())
        })
    }
}
