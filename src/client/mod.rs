//! The client: `go` starts it as its GOCACHEPROG, inside the sandbox.
//!
//! Two threads. One reads `go`'s requests and passes them to the daemon, the other reads the
//! daemon's answers and passes them to `go`. Each request is pending, with the body of a
//! put, until it is answered. When there is no daemon, or anything at all goes wrong with it,
//! the client goes on alone: it answers what is pending, and whatever comes after, from a
//! private cache in the build's own temporary directory.
//!
//! Whatever happens, `go` gets a correct answer to each request: it ends the build otherwise.
//! stdout is protocol and nothing else is ever written there.

pub mod connection;
mod environment;
pub mod gocacheprog;
mod local_hits;
pub mod private;
pub mod purity;

mod salt;
pub mod source_tree;
mod spooled;
pub mod summary;

use crate::cache::builds::output_name;
use crate::cache::session::Session;
use crate::client::connection::Daemon;
use crate::config::{READ_BUFFER, RUNTIME_DIR};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::id::{ActionId, OutputId};
use crate::log;
use crate::protocol::wire::{self, Answer, Request};
use crate::sync::lock;
use crate::sys;
use gocacheprog::{Body, Command};
use local_hits::LocalHits;
use salt::Salt;
use spooled::Spooled;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces of a body are sent once they make up this much, in bytes.
const SEND_AT_LEAST: usize = 64 << 10;

/// How a client is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the daemon's sockets are, if not where a sandbox or the host has them.
    pub runtime_dir: Option<PathBuf>,
    /// A daemon that has stopped moving is given up on after so long.
    pub give_up_after: Duration,
    /// Whether the build puts into the shared cache; if not, its puts go to a private one.
    pub readonly: bool,
    /// Where the user's own cache is, for a client without a daemon.
    pub cache_dir: Option<PathBuf>,
}

/// Serves `go` until it closes our stdin.
///
/// # Errors
/// When `go` says something that is no request, or no longer listens.
pub fn run(options: &Options) -> Result<()> {
    // For each answer somebody waits.
    sys::request_short_slice();
    let mut stdout = sys::stdout();
    stdout.write_all(gocacheprog::GREETING).map_err(unheard)?;
    let go = salt::program_of_go();
    let (daemon, why_alone) = match Daemon::connect(
        options.runtime_dir.as_deref(),
        options.give_up_after,
        &environment::parts(go.as_deref()),
    ) {
        Ok(daemon) => (Some(daemon), None),
        Err(e) => (None, Some(e)),
    };
    let client = Client {
        options,
        salt: Salt::of_this_build(go),
        in_build: private::build_top().is_some(),
        daemon,
        stdout: Mutex::new(Some(stdout)),
        state: Mutex::new(State {
            pending: HashMap::new(),
            unsaid: false,
            progress: Instant::now(),
            alone: false,
            private: Private::Unused(options.cache_dir.clone()),
            said: false,
        }),
        answered: Condvar::new(),
        closing: AtomicBool::new(false),
    };
    if let Some(e) = why_alone {
        // A host where nothing is installed has no daemon to be missed.
        client.state().said = options.runtime_dir.is_none()
            && private::build_top().is_none()
            && !Path::new(RUNTIME_DIR).exists();
        client.go_alone(&e);
    }
    if options.readonly || private::is_begun() {
        // An earlier command of this build may have put something there.
        client.state().private.open();
    }
    let done = thread::scope(|scope| {
        if let Some(daemon) = &client.daemon {
            let started =
                thread::Builder::new().spawn_scoped(scope, || client.pass_answers(daemon));
            if let Err(e) = started {
                client.go_alone(&Error::io("start", "a thread", e));
            }
        }
        let mut stdin = BufReader::with_capacity(READ_BUFFER, std::io::stdin().lock());
        let done = client.pass_requests(&mut stdin);
        // `go` waits for this and for nothing after it: not until the other thread gets a processor.
        *client.stdout() = None;
        // Wakes the other thread, which ends the scope.
        client.state().alone = true;
        if let Some(daemon) = &client.daemon {
            daemon.hang_up();
        }
        done
    });
    // With its private cache, which may have to go.
    drop(client);
    private::tidy_up(options.cache_dir.as_deref());
    done
}

struct Client<'a> {
    options: &'a Options,
    salt: Salt,
    /// Of Nix's, and not somebody's shell.
    in_build: bool,
    daemon: Option<Daemon>,
    /// None when there is nothing more to say.
    stdout: Mutex<Option<File>>,
    state: Mutex<State>,
    /// Told whenever a request is answered, once somebody waits for that: it is a system call.
    answered: Condvar,
    closing: AtomicBool,
}

struct State {
    /// What `go` has asked and the daemon has not answered.
    pending: HashMap<i64, Pending>,
    /// Something is no longer pending, and `go` has not been told yet.
    unsaid: bool,
    /// When the daemon last gave a sign of life, or the first pending request was sent.
    progress: Instant,
    /// The daemon is not used any more.
    alone: bool,
    private: Private,
    /// The one line that a client may say has been said.
    said: bool,
}

/// A request on its way.
enum Pending {
    Get(ActionId),
    /// A put whose body the other thread is still sending.
    Sending(OutputId),
    /// The same, but the daemon has refused it already, or is not to have it.
    SendingInVain,
    /// `go` has not asked for anything: the daemon is told something.
    Telling,
    Put(Put),
}

impl Pending {
    /// Nothing but the answer is missing.
    fn is_sent(&self) -> bool {
        matches!(self, Self::Get(_) | Self::Put(_) | Self::Telling)
    }
}

struct Put {
    action: ActionId,
    output: OutputId,
    body: Spooled,
}

/// The cache of this build alone.
enum Private {
    /// Nothing needed it yet; in this directory, if one is named.
    Unused(Option<PathBuf>),
    Open(Session<'static>, PathBuf),
    Unavailable(Error),
}

impl Client<'_> {
    /// The thread that reads from `go`.
    fn pass_requests(&self, stdin: &mut BufReader<impl Read>) -> Result<()> {
        let mut finder = LocalHits::new(self.daemon.as_ref().and_then(Daemon::ready));
        // What was found and is not said yet. It is said before anything that could wait; what `go` asks at once is
        // answered at once.
        let mut out = Vec::new();
        let mut line = Vec::new();
        loop {
            if !gocacheprog::has_request(stdin.buffer()) {
                self.flush(&mut out)?;
            }
            let Some(request) = gocacheprog::read_request(stdin, &mut line)? else {
                return Ok(());
            };
            let (id, size) = (request.id, request.body_size);
            if size > 0 || !matches!(request.command, Command::Get(_)) {
                self.flush(&mut out)?;
            }
            match request.command {
                Command::Put(action, output) => {
                    let action = self.salt.apply(action);
                    finder.forget(&action);
                    self.put(id, action, output, size, stdin)?;
                }
                Command::Get(action) => {
                    Body::new(stdin, size).skip()?;
                    let action = self.salt.apply(action);
                    match self.find(&mut finder, &action) {
                        Some((entry, path)) => {
                            self.push_hit(&mut out, id, &entry, &path);
                            if let Some(frames) = finder.enough_to_tell() {
                                self.flush(&mut out)?;
                                self.send(&frames);
                            }
                        }
                        None => {
                            self.flush(&mut out)?;
                            self.get(id, action)?;
                        }
                    }
                }
                Command::Close => {
                    Body::new(stdin, size).skip()?;
                    if let Some(frames) = finder.all_to_tell(id as u64) {
                        self.tell_daemon(id, &frames);
                    }
                    self.wait_until_answered();
                    self.tell(|out| gocacheprog::push_closed(out, id))?;
                }
                Command::Bad(why) => {
                    Body::new(stdin, size).skip()?;
                    self.tell(|out| gocacheprog::push_error(out, id, &why))?;
                }
            }
        }
    }

    /// What is ready in the build directory stays there as long as our session.
    fn find(&self, finder: &mut LocalHits, action: &ActionId) -> Option<(Entry, PathBuf)> {
        let is_there = !self.state().alone || finder.is_there();
        is_there.then(|| finder.find(action))?
    }

    /// Answers a get. In a build there are no results of tests to be of a time, and `go` is quicker without.
    fn push_hit(&self, out: &mut Vec<u8>, id: i64, entry: &Entry, path: &Path) {
        if self.in_build {
            gocacheprog::push_hit(out, id, entry, path);
        } else {
            gocacheprog::push_dated_hit(out, id, entry, path);
        }
    }

    fn flush(&self, out: &mut Vec<u8>) -> Result<()> {
        if !out.is_empty() {
            self.write(out)?;
            out.clear();
        }
        Ok(())
    }

    fn get(&self, id: i64, action: ActionId) -> Result<()> {
        let mut state = self.state();
        if state.alone {
            let mut out = Vec::new();
            state.private.get(&mut out, id, &action);
            drop(state);
            return self.write(&out);
        }
        state.add(id, Pending::Get(action));
        drop(state);
        let mut frame = Vec::with_capacity(wire::GET_LEN);
        wire::push_request(
            &mut frame,
            &Request::Get {
                request: id as u64,
                action,
            },
        );
        self.send(&frame);
        Ok(())
    }

    /// Tells the daemon what was found without it; it answers once it has counted that.
    fn tell_daemon(&self, id: i64, frames: &[u8]) {
        let mut state = self.state();
        if !state.alone {
            state.add(id, Pending::Telling);
            drop(state);
            self.send(frames);
        }
    }

    fn put(
        &self,
        id: i64,
        action: ActionId,
        output: OutputId,
        size: u64,
        stdin: &mut impl BufRead,
    ) -> Result<()> {
        if self.options.readonly {
            return self.put_privately(id, action, output, size, stdin);
        }
        self.state().add(id, Pending::Sending(output));
        let mut frame = Vec::new();
        wire::push_request(
            &mut frame,
            &Request::Put {
                request: id as u64,
                action,
                output,
                size,
            },
        );
        let head = frame.len();
        let mut body = Body::new(stdin, size);
        let mut kept = Spooled::default();
        let mut sent = false;
        let mut withheld = false;
        loop {
            let from = frame.len();
            let more = match body.next_piece(&mut frame) {
                Ok(more) => more,
                Err(e) => {
                    // Past this point the daemon waits for the rest of a body that never comes.
                    if sent {
                        self.go_alone(&e);
                    }
                    body.skip()?;
                    self.state().pending.remove(&id);
                    self.announce();
                    return self.tell(|out| gocacheprog::push_error(out, id, &e.chain()));
                }
            };
            kept.push(&frame[from..]);
            if !more || frame.len() >= SEND_AT_LEAST {
                if !sent && !withheld && self.is_test_log(&frame[head..]) {
                    withheld = true;
                    self.state().add(id, Pending::SendingInVain);
                }
                if !withheld {
                    self.send(&frame);
                    self.state().progress = Instant::now();
                    sent = true;
                }
                frame.clear();
            }
            if !more {
                break;
            }
        }
        let put = Put {
            action,
            output,
            body: kept,
        };
        let mut state = self.state();
        let refused = match state.pending.get(&id) {
            // Answered already.
            None => return Ok(()),
            Some(pending) => matches!(pending, Pending::SendingInVain),
        };
        if !state.alone && !refused {
            state.pending.insert(id, Pending::Put(put));
            return Ok(());
        }
        state.pending.remove(&id);
        let mut out = Vec::new();
        state.private.put(&mut out, id, put);
        drop(state);
        self.announce();
        self.write(&out)
    }

    /// Answers a put from the private cache, with a body that nobody else is to have.
    fn put_privately(
        &self,
        id: i64,
        action: ActionId,
        output: OutputId,
        size: u64,
        stdin: &mut impl BufRead,
    ) -> Result<()> {
        let mut body = Body::new(stdin, size);
        let mut kept = Spooled::default();
        let mut piece = Vec::new();
        loop {
            piece.clear();
            match body.next_piece(&mut piece) {
                Ok(true) => kept.push(&piece),
                Ok(false) => break,
                Err(e) => {
                    body.skip()?;
                    return self.tell(|out| gocacheprog::push_error(out, id, &e.chain()));
                }
            }
        }
        kept.push(&piece);
        let put = Put {
            action,
            output,
            body: kept,
        };
        let mut out = Vec::new();
        self.state().private.put(&mut out, id, put);
        self.write(&out)
    }

    /// Whether a body is what `go` knows a test's result by: the files that the test has read, of which
    /// `go` compares sizes and times. In Nix all times are the same, so another build must not get
    /// it. The setup hook asks `go` not to keep any, but a derivation may say otherwise.
    fn is_test_log(&self, body: &[u8]) -> bool {
        self.in_build && body.starts_with(gocacheprog::TEST_LOG)
    }

    /// Sends to the daemon, unless we are alone.
    fn send(&self, frame: &[u8]) {
        let Some(daemon) = &self.daemon else { return };
        if let Err(e) = daemon.send(frame) {
            self.go_alone(&e);
        }
    }

    /// The thread that reads from the daemon.
    fn pass_answers(&self, daemon: &Daemon) {
        let mut reader = daemon.reader();
        let mut out = Vec::new();
        let ended = loop {
            // Whoever waits is told first what is known.
            if reader.buffer().len() < wire::ANSWER_LEN
                && !out.is_empty()
                && let Err(e) = self.say(&mut out)
            {
                break e;
            }
            match self.next_answer(&mut reader) {
                Ok((request, answer)) => {
                    if let Err(e) = self.pass_answer(daemon, request as i64, answer, &mut out) {
                        break e;
                    }
                }
                Err(e) => break e,
            }
        };
        // What was answered is no longer pending, so it must be said.
        let _ = self.say(&mut out);
        self.go_alone(&ended);
    }

    /// Tells `go` what the daemon has answered.
    fn say(&self, out: &mut Vec<u8>) -> Result<()> {
        let said = self.write(out);
        out.clear();
        self.state().unsaid = false;
        self.announce();
        said
    }

    fn next_answer(&self, reader: &mut impl BufRead) -> Result<(u64, Answer)> {
        while let Err(e) = reader.fill_buf() {
            match e.kind() {
                std::io::ErrorKind::WouldBlock => {
                    let state = self.state();
                    let limit = self.options.give_up_after;
                    // While a body is being sent it may be `go` that we wait for.
                    let waiting = state.pending.values().any(Pending::is_sent);
                    if waiting && state.progress.elapsed() > limit {
                        return Err(Error::peer(format!(
                            "the daemon has not answered for {}s",
                            limit.as_secs()
                        )));
                    }
                }
                std::io::ErrorKind::Interrupted => {}
                _ => return Err(Error::io("hear from", "the daemon", e)),
            }
        }
        wire::read_answer(reader)?
            .ok_or_else(|| Error::peer("the daemon has closed the connection"))
    }

    fn pass_answer(
        &self,
        daemon: &Daemon,
        id: i64,
        answer: Answer,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let mut state = self.state();
        state.progress = Instant::now();
        let Some(pending) = state.pending.get(&id) else {
            return Err(Error::peer(format!(
                "the daemon answered request {id}, which is not pending"
            )));
        };
        match (answer, pending) {
            (Answer::Miss, Pending::Get(action)) => {
                let action = *action;
                state.private.get_if_used(out, id, &action);
                state.pending.remove(&id);
            }
            (Answer::Hit(entry), Pending::Get(_)) => {
                let path = daemon.file(&entry.output, Some(entry.size))?;
                self.push_hit(out, id, &entry, &path);
                state.pending.remove(&id);
            }
            (Answer::Stored, Pending::Sending(output) | Pending::Put(Put { output, .. })) => {
                let path = daemon.file(output, None)?;
                gocacheprog::push_stored(out, id, &path);
                state.pending.remove(&id);
            }
            (Answer::Stored | Answer::Refused(_), Pending::Telling) => {
                state.pending.remove(&id);
            }
            (Answer::Refused(why), _) => {
                state.say(&format!("the daemon refused a request: {why}"));
                match state.pending.remove(&id) {
                    Some(Pending::Put(put)) => state.private.put(out, id, put),
                    Some(Pending::Get(action)) => state.private.get_if_used(out, id, &action),
                    _ => {
                        state.pending.insert(id, Pending::SendingInVain);
                    }
                }
            }
            _ => {
                return Err(Error::peer(format!(
                    "the daemon's answer to request {id} does not fit"
                )));
            }
        }
        state.unsaid = !out.is_empty();
        drop(state);
        self.announce();
        Ok(())
    }

    /// Does without the daemon from now on. What is pending is answered from the private
    /// cache.
    fn go_alone(&self, why: &Error) {
        let mut state = self.state();
        if state.alone {
            return;
        }
        state.alone = true;
        if let Some(daemon) = &self.daemon {
            daemon.hang_up();
        }
        state.say(&why.chain());
        let mut out = Vec::new();
        for (id, pending) in std::mem::take(&mut state.pending) {
            match pending {
                Pending::Get(action) => state.private.get(&mut out, id, &action),
                Pending::Put(put) => state.private.put(&mut out, id, put),
                Pending::Telling => {}
                // The thread that sends it will notice.
                Pending::Sending(_) | Pending::SendingInVain => {
                    state.pending.insert(id, pending);
                }
            }
        }
        // When `go` has gone, its stdin says so too.
        let _ = self.write(&out);
        drop(state);
        self.announce();
    }

    /// Something was answered: `pending` is what it is now.
    fn announce(&self) {
        if self.closing.load(Ordering::SeqCst) {
            self.answered.notify_all();
        }
    }

    fn wait_until_answered(&self) {
        // Before the first look: whoever answers after that sees it.
        self.closing.store(true, Ordering::SeqCst);
        let state = self.state();
        let _unused = self
            .answered
            .wait_while(state, |state| !state.pending.is_empty() || state.unsaid);
    }

    fn tell(&self, push: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut out = Vec::new();
        push(&mut out);
        self.write(&out)
    }

    fn write(&self, out: &[u8]) -> Result<()> {
        match &mut *self.stdout() {
            Some(stdout) => stdout.write_all(out).map_err(unheard),
            None => Ok(()),
        }
    }

    fn stdout(&self) -> MutexGuard<'_, Option<File>> {
        lock(&self.stdout)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn add(&mut self, id: i64, pending: Pending) {
        if self.pending.is_empty() {
            self.progress = Instant::now();
        }
        self.pending.insert(id, pending);
    }

    /// Says, once, what failed and what it means.
    fn say(&mut self, what: &str) {
        if !self.said {
            self.said = true;
            log::warn(format!(
                "{what}; the build goes on without the shared cache (see `nix-gocacheprog doctor` and the \
                 daemon's log on the host)"
            ));
        }
    }
}

impl Private {
    /// Answers a get that the daemon has missed: an output of this build, if it has put any here.
    fn get_if_used(&mut self, out: &mut Vec<u8>, id: i64, action: &ActionId) {
        match self {
            Self::Open(..) => self.get(out, id, action),
            _ => gocacheprog::push_miss(out, id),
        }
    }

    /// Answers a get: an output of this build, or a miss.
    fn get(&mut self, out: &mut Vec<u8>, id: i64, action: &ActionId) {
        if let Self::Open(session, directory) = self.open()
            && let Ok(Some(entry)) = session.get(action)
        {
            let path = output_name(directory, &entry.output);
            return gocacheprog::push_dated_hit(out, id, &entry, &path);
        }
        gocacheprog::push_miss(out, id);
    }

    /// Answers a put: its output must be in a file, wherever there is room for one.
    fn put(&mut self, out: &mut Vec<u8>, id: i64, put: Put) {
        let (size, body) = match put.body.into_reader() {
            Ok(kept) => kept,
            Err(e) => return gocacheprog::push_error(out, id, &e.chain()),
        };
        match self.open() {
            Self::Open(session, directory) => {
                let mut body = body;
                match session.put(&put.action, &put.output, size, &mut body) {
                    Ok(entry) => {
                        let path = output_name(directory, &entry.output);
                        gocacheprog::push_stored(out, id, &path);
                    }
                    Err(e) => gocacheprog::push_error(out, id, &e.chain()),
                }
            }
            Self::Unavailable(e) => gocacheprog::push_error(out, id, &e.chain()),
            Self::Unused(_) => {}
        }
    }

    fn open(&mut self) -> &mut Self {
        if let Self::Unused(cache_dir) = self {
            *self = match private::open(cache_dir.as_deref()) {
                Ok((session, directory)) => Self::Open(session, directory),
                Err(e) => Self::Unavailable(e),
            };
        }
        self
    }
}

fn unheard(e: std::io::Error) -> Error {
    Error::io("answer", "`go`", e)
}
