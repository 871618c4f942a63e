//! The client: `go` starts it as its GOCACHEPROG, inside the sandbox.
//!
//! Two threads. One reads `go`'s requests and passes them to the daemon, the other reads the
//! daemon's answers and passes them to `go`. Each request is pending (`pending.rs`), with the body of a
//! put, until it is answered. Which key an action has, and who may get an output, says `salt/`. When there is no daemon, or anything at all goes wrong with it,
//! the client goes on alone: it answers what is pending, and whatever comes after, from a
//! private cache in the build's own temporary directory.
//!
//! Whatever happens, `go` gets a correct answer to each request: it ends the build otherwise.
//! stdout is protocol and nothing else is ever written there.

pub mod connection;
mod go_flags;
pub mod gocacheprog;
mod hung;
mod kept_tool;
mod local_hits;
pub mod parts;
mod pending;
mod pkg_config;
pub mod private;
mod private_cache;
mod processor;
mod programs;
pub mod purity;
mod put_body;
mod salt;
pub mod source_tree;
mod spooled;
pub mod summary;
mod unknown;

use crate::client::connection::{Daemon, Shared};
use crate::config::{READ_BUFFER, RUNTIME_DIR};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::id::{ActionId, OutputId};
use crate::log;
use crate::mode::Mode;
use crate::protocol::wire::{self, Answer, Keys, Request};
use crate::sync::lock;
use crate::sys;
use gocacheprog::{Body, Command};
use kept_tool::KeptTool;
use local_hits::LocalHits;
use pending::{Pending, Put, Requests};
use private_cache::PrivateCache;
use put_body::Companions;
use salt::{Place, Salt};
use source_tree::SourceTree;
use spooled::Spooled;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

/// A body is sent in pieces of this length, in bytes.
const SEND_AT_MOST: usize = 64 << 10;

/// How a client is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the daemon's sockets are, if not where a sandbox or the host has them.
    pub runtime_dir: Option<PathBuf>,
    /// A daemon that has stopped moving is given up on after so long.
    pub give_up_after: Duration,
    /// What the build may do with the shared cache.
    pub mode: Mode,
    /// Where the user's own cache is, for a client without a daemon.
    pub cache_dir: Option<PathBuf>,
}

/// Serves `go` until it closes our stdin.
///
/// # Errors
/// When `go` says something that is no request, or no longer listens.
pub fn run(options: &Options) -> Result<()> {
    sys::share_heap();
    // For each answer somebody waits.
    sys::request_short_slice();
    let mut stdout = sys::stdout();
    stdout.write_all(gocacheprog::GREETING).map_err(unheard)?;
    let in_build = private::build_top().is_some();
    let mut salt = Salt::of_this_command(in_build);
    let (daemon, why_alone) = match connect(options, &salt) {
        Ok(daemon) => (daemon, None),
        Err(e) => (None, Some(e)),
    };
    let mut is_readonly = options.mode == Mode::Readonly;
    if let Some(daemon) = &daemon {
        is_readonly |= daemon.is_readonly();
        if !daemon.knows_first() {
            salt.only_full();
        }
    }
    let mut client = Client {
        options,
        salt,
        in_build,
        is_readonly,
        stdout: Mutex::new(Some(stdout)),
        state: Mutex::new(State {
            requests: Requests::new(),
            unsaid: false,
            alone: daemon.is_none(),
            private: PrivateCache::Unused(options.cache_dir.clone()),
            said: false,
        }),
        unsaid_parts: AtomicBool::new(daemon.as_ref().is_some_and(Daemon::knows_parts)),
        unsaid_c: AtomicBool::new(daemon.as_ref().is_some_and(Daemon::knows_parts)),
        daemon,
        answered: Condvar::new(),
        closing: AtomicBool::new(false),
        kept_tool: OnceLock::new(),
    };
    if let Some(e) = why_alone {
        let mut state = client.state();
        // A host where nothing is installed has no daemon to be missed.
        state.said = options.runtime_dir.is_none() && !in_build && !Path::new(RUNTIME_DIR).exists();
        state.say(&e.chain());
    }
    if is_readonly || private::is_begun() {
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
    let kept_tool = client.kept_tool.take();
    // With its private cache, which may have to go.
    drop(client);
    if let Some(kept_tool) = kept_tool
        && let Err(e) = kept_tool.put_back()
    {
        cannot_keep(&e);
    }
    private::tidy_up(options.cache_dir.as_deref());
    done
}

/// Looks at the source that the `go` commands of a phase are about to build, once for all of them, where it has just been
/// given its times.
pub fn remember_source() {
    if let Ok(folder) = std::env::current_dir() {
        SourceTree::remember(&folder, salt::led_to_by_flags(), |name| {
            std::env::var_os(name)
        });
    }
}

/// Connects to the daemon, unless the build is to do without it.
fn connect(options: &Options, salt: &Salt) -> Result<Option<Daemon>> {
    if options.mode == Mode::Off {
        return Ok(None);
    }
    if salt.go().is_none() {
        return Err(Error::peer(
            "cannot examine the process that started this client, so its Go is unknown",
        ));
    }
    let runtime_dir = options.runtime_dir.as_deref();
    let shared = Shared {
        mode: options.mode,
        environment: &salt.go_parts(),
    };
    Daemon::connect(runtime_dir, options.give_up_after, shared).map(Some)
}

struct Client<'a> {
    options: &'a Options,
    salt: Salt,
    /// Of Nix's, and not somebody's shell.
    in_build: bool,
    /// What is put goes to the private cache.
    is_readonly: bool,
    daemon: Option<Daemon>,
    /// The daemon is to be told what separates this build from others …
    unsaid_parts: AtomicBool,
    /// … and that what C can depend on counts for something that was compiled.
    unsaid_c: AtomicBool,
    /// None when there is nothing more to say.
    stdout: Mutex<Option<File>>,
    state: Mutex<State>,
    /// Told whenever a request is answered, once somebody waits for that: it is a system call.
    answered: Condvar,
    closing: AtomicBool,
    kept_tool: OnceLock<KeptTool>,
}

/// What a client finds by itself.
enum LocalAnswer {
    /// An output that is ready: its entry, and its file.
    Hit(Entry, PathBuf),
    /// Nothing; these are the keys to ask for.
    Miss(Keys),
}

struct State {
    /// What `go` has asked and the daemon has not answered.
    requests: Requests,
    /// Something is no longer pending, and `go` has not been told yet.
    unsaid: bool,
    /// The daemon is not used any more.
    alone: bool,
    private: PrivateCache,
    /// The one line that a client may say has been said.
    said: bool,
}

impl Client<'_> {
    /// The thread that reads from `go`.
    fn pass_requests(&self, stdin: &mut BufReader<impl Read>) -> Result<()> {
        let mut finder = LocalHits::new(self.daemon.as_ref().and_then(Daemon::ready));
        let mut companions = Companions::default();
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
                    let mut body = Body::new(stdin, size);
                    match companions.receive(&action, &mut body) {
                        Ok((body, evidence)) => {
                            let place = self.salt.place(&action, &evidence);
                            let pure = self.salt.pure(&action);
                            let is_of_c = pure.map(Place::Shared) != Some(place);
                            for key in &*self.salt.keys_after(pure, &action) {
                                finder.forget(key);
                            }
                            self.put(id, place, is_of_c, output, body)?;
                        }
                        Err(e) => {
                            body.skip()?;
                            self.tell(|out| gocacheprog::push_error(out, id, &e.chain()))?;
                        }
                    }
                }
                Command::Get(action) => {
                    Body::new(stdin, size).skip()?;
                    match self.find(&mut finder, &action) {
                        LocalAnswer::Hit(entry, path) => {
                            self.push_hit(&mut out, id, &entry, &path);
                            if let Some(frames) = finder.enough_to_tell() {
                                self.flush(&mut out)?;
                                self.send(&[self.parts(), frames].concat());
                            }
                        }
                        LocalAnswer::Miss(keys) => {
                            self.flush(&mut out)?;
                            companions.asked(&action);
                            self.get(id, keys)?;
                        }
                    }
                }
                Command::Close => {
                    Body::new(stdin, size).skip()?;
                    if let Some(frames) = finder.all_to_tell(id as u64) {
                        self.tell_daemon(id, &frames);
                    }
                    self.wait_until_answered();
                    self.keep_tool();
                    self.tell(|out| gocacheprog::push_closed(out, id))?;
                }
                Command::Bad(why) => {
                    Body::new(stdin, size).skip()?;
                    self.tell(|out| gocacheprog::push_error(out, id, &why))?;
                }
            }
        }
    }

    /// What is ready in the build directory stays there as long as our session. What is not ready is asked for by these keys.
    fn find(&self, finder: &mut LocalHits, action: &ActionId) -> LocalAnswer {
        let is_there = finder.has_any() && (!self.state().alone || finder.is_there());
        let pure = self.salt.pure(action);
        if is_there
            && let Some(pure) = &pure
            && let Some((entry, path)) = finder.find(pure)
        {
            return LocalAnswer::Hit(entry, path);
        }
        let keys = self.salt.keys_after(pure, action);
        let mut rest = keys[usize::from(pure.is_some())..]
            .iter()
            .filter(|_| is_there);
        match rest.find_map(|key| finder.find(key)) {
            Some((entry, path)) => LocalAnswer::Hit(entry, path),
            None => LocalAnswer::Miss(keys),
        }
    }

    /// Answers a get. In a build there are no results of tests to be of a time, and `go` is quicker without.
    fn push_hit(&self, out: &mut Vec<u8>, id: i64, entry: &Entry, path: &Path) {
        if self.in_build {
            gocacheprog::push_hit(out, id, entry, path);
        } else {
            gocacheprog::push_dated_hit(out, id, entry, path);
        }
    }

    /// Keeps what `go` has printed the path of.
    fn keep_tool(&self) {
        match kept_tool::keep(self.salt.words()) {
            Ok(Some(tool)) => drop(self.kept_tool.set(tool)),
            Ok(None) => {}
            Err(e) => cannot_keep(&e),
        }
    }

    fn flush(&self, out: &mut Vec<u8>) -> Result<()> {
        if !out.is_empty() {
            self.write(out)?;
            out.clear();
        }
        Ok(())
    }

    fn get(&self, id: i64, keys: Keys) -> Result<()> {
        let mut state = self.state();
        if state.alone {
            let mut out = Vec::new();
            state.private.get(&mut out, id, &keys);
            drop(state);
            return self.write(&out);
        }
        state.requests.add(id, Pending::Get(keys));
        drop(state);
        let request = id as u64;
        let asked = match *keys {
            [action] => Request::Get { request, action },
            _ => Request::First {
                request,
                actions: keys,
            },
        };
        let mut frame = self.parts();
        frame.reserve(wire::FIRST_LEN);
        wire::push_request(&mut frame, &asked);
        self.send(&frame);
        Ok(())
    }

    /// Tells the daemon what was found without it; it answers once it has counted that.
    fn tell_daemon(&self, id: i64, frames: &[u8]) {
        let mut state = self.state();
        if !state.alone {
            state.requests.add(id, Pending::Telling);
            drop(state);
            self.send(&[&self.parts(), frames].concat());
        }
    }

    /// What separates this build from others, as a frame, once: for the first write after all of it has been found out. A
    /// command to which it makes no difference does not wait for it.
    fn parts(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        if let Some(parts) = self.salt.parts()
            && self.unsaid_parts.swap(false, Ordering::Relaxed)
        {
            let parts = [&[parts::counts(false)], parts].concat();
            wire::push_request(&mut frame, &Request::Parts(parts));
        }
        frame
    }

    /// That more counts than which Go it is, as a frame, once.
    fn counting_c(&self) -> Vec<u8> {
        let mut frame = self.parts();
        if self.unsaid_c.swap(false, Ordering::Relaxed) {
            wire::push_request(&mut frame, &Request::Parts(vec![parts::counts(true)]));
        }
        frame
    }

    /// Passes on a put, or answers it from the private cache.
    fn put(
        &self,
        id: i64,
        place: Place,
        is_of_c: bool,
        output: OutputId,
        body: Arc<Spooled>,
    ) -> Result<()> {
        let (Place::Shared(key) | Place::Private(key)) = place;
        let put = Put { key, output, body };
        let is_private = place == Place::Private(key);
        let mut state = self.state();
        let said = match is_of_c && !is_private && !state.alone {
            true => self.counting_c(),
            false => Vec::new(),
        };
        if state.alone || self.is_readonly || is_private {
            let mut out = Vec::new();
            state.private.put(&mut out, id, &put);
            drop(state);
            if !said.is_empty() {
                self.send(&said);
            }
            return self.write(&out);
        }
        state.requests.add(id, Pending::Put(put.clone()));
        drop(state);
        if let Err(e) = self.send_put(id, said, &put) {
            // The daemon waits for the rest of a body that never comes.
            self.go_alone(&e);
        }
        Ok(())
    }

    /// Sends a put, after some other frames.
    fn send_put(&self, id: i64, mut frame: Vec<u8>, put: &Put) -> Result<()> {
        let mut body = put.body.reader()?;
        frame.reserve(SEND_AT_MOST);
        wire::push_request(
            &mut frame,
            &Request::Put {
                request: id as u64,
                action: put.key,
                output: put.output,
                size: put.body.size(),
            },
        );
        loop {
            let room = SEND_AT_MOST.saturating_sub(frame.len()) as u64;
            let read = body.by_ref().take(room).read_to_end(&mut frame);
            let read = read.map_err(|e| Error::io("read", "a body", e))?;
            if !frame.is_empty() {
                self.send(&frame);
                self.state().requests.progress();
            }
            if read == 0 || (read as u64) < room {
                return Ok(());
            }
            frame.clear();
        }
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
                    let limit = self.options.give_up_after;
                    if self.state().requests.is_overdue(limit) {
                        let silence = format!("it has not answered for {}s", limit.as_secs());
                        let silence = std::io::Error::new(std::io::ErrorKind::TimedOut, silence);
                        return Err(Error::io("hear from", "the daemon", silence));
                    }
                }
                std::io::ErrorKind::Interrupted => {}
                _ => return Err(Error::io("hear from", "the daemon", e)),
            }
        }
        wire::read_answer(reader)
            .map_err(|e| e.on("the daemon"))?
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
        state.requests.progress();
        let Some(pending) = state.requests.take(id) else {
            return Err(Error::peer(format!(
                "the daemon answered request {id}, which is not pending"
            )));
        };
        if let Err(e) = self.conclude(daemon, &mut state, id, (answer, &pending), out) {
            // It is answered when the daemon is given up.
            state.requests.add(id, pending);
            return Err(e);
        }
        state.unsaid = !out.is_empty();
        drop(state);
        self.announce();
        Ok(())
    }

    fn conclude(
        &self,
        daemon: &Daemon,
        state: &mut State,
        id: i64,
        answer: (Answer, &Pending),
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match answer {
            (Answer::Miss, Pending::Get(keys)) => state.private.get_if_used(out, id, keys),
            (Answer::Hit(entry), Pending::Get(_)) => {
                let path = daemon.file(&entry.output, Some(entry.size))?;
                self.push_hit(out, id, &entry, &path);
            }
            (Answer::Stored, Pending::Put(put)) => {
                let path = daemon.file(&put.output, None)?;
                gocacheprog::push_stored(out, id, &path);
            }
            (Answer::Stored | Answer::Refused(_), Pending::Telling) => {}
            (Answer::Refused(why), pending) => {
                state.say(&format!("the daemon refused a request: {why}"));
                match pending {
                    Pending::Put(put) => state.private.put(out, id, put),
                    Pending::Get(keys) => state.private.get_if_used(out, id, keys),
                    Pending::Telling => {}
                }
            }
            _ => {
                return Err(Error::peer(format!(
                    "the daemon's answer to request {id} is of the wrong kind"
                )));
            }
        }
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
        hung::remember(why);
        state.say(&why.chain());
        let mut out = Vec::new();
        for (id, pending) in state.requests.take_all() {
            match pending {
                Pending::Get(keys) => state.private.get(&mut out, id, &keys),
                Pending::Put(put) => state.private.put(&mut out, id, &put),
                Pending::Telling => {}
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
            .wait_while(state, |state| !state.requests.is_empty() || state.unsaid);
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

fn cannot_keep(e: &Error) {
    log::warn(format!(
        "what `go tool -n` has printed cannot be kept, so it may be gone when it is run: {}; set GOCACHEPROG to nothing \
         for that command",
        e.chain()
    ));
}

fn unheard(e: std::io::Error) -> Error {
    Error::io("answer", "`go`", e)
}
