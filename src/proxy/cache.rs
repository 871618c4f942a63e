//! The cache behind the proxy: gets and puts over the ordinary build session.
//!
//! A few sessions are kept, so that a large put holds up nobody. Without a daemon, a build goes on
//! uncached, and a proxy that serves no build keeps a store of its own (`own.rs`). Whatever goes wrong here
//! is a miss.

use super::body::Body;
use super::standalone::StandaloneCache;
use crate::cache::builds::output_name;
use crate::cache::session::Session;
use crate::cache::store::Limits;
use crate::client::connection::Daemon;
use crate::config::GIVE_UP_AFTER;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, BuildId, OutputId};
use crate::log;
use crate::protocol::wire::{self, Answer, Request};
use crate::sync::lock;
use std::io::{BufRead, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A build directory keeps every file that was ever served, evicted or not. So a proxy that
/// serves no build begins a new one this often.
const RENEWED_EVERY: Duration = Duration::from_secs(60 * 60);

/// For so long nothing is asked of a daemon that could not be reached.
const UNREACHABLE_FOR: Duration = Duration::from_secs(5);

/// Sessions that are kept for the next request.
const KEPT_SESSIONS: usize = 16;

/// Where modules are kept.
pub struct Cache {
    runtime_dir: Option<PathBuf>,
    place: Place,
    state: Mutex<State>,
}

/// Whom modules are kept for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A build, which has a beginning and an end, and a directory of its own.
    Build,
    /// Whoever asks. Without a daemon they are kept within these limits, in this directory or in one of
    /// this user's.
    Standalone(Option<PathBuf>, Limits),
}

#[derive(Default)]
struct State {
    idle: Vec<Link>,
    /// The build that all sessions belong to, and what it lasts as long as.
    build: Option<(BuildId, Option<Lifeline>)>,
    /// Numbers the builds.
    generation: u64,
    since: Option<Instant>,
    unreachable: Option<Instant>,
    own: Option<&'static StandaloneCache>,
    /// That there is no daemon has been said.
    said: bool,
    /// That there is no store of our own either has been said.
    said_no_own: bool,
}

/// Who may have a module besides this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Nobody: it took credentials to get it.
    Machine,
    /// Whoever uses the same remote, if the daemon has one.
    Team,
}

/// A session, used by one request at a time.
struct Link {
    generation: u64,
    audience: Audience,
    kind: Kind,
}

enum Kind {
    Daemon(Daemon),
    /// A store of our own, and the directory in which its outputs appear.
    Standalone(&'static StandaloneCache, Session<'static>, PathBuf),
}

/// A directory that is there as long as a build is.
struct Lifeline(PathBuf);

impl Cache {
    /// A cache behind a daemon, which need not be there.
    pub fn new(runtime_dir: Option<PathBuf>, place: Place) -> Self {
        Self {
            runtime_dir,
            place,
            state: Mutex::default(),
        }
    }

    /// The output of an action.
    pub fn get(&self, action: &ActionId, audience: Audience) -> Option<Body> {
        self.with_link(audience, |link| link.get(action)).flatten()
    }

    /// Stores an action's output.
    pub fn put(&self, action: &ActionId, output: &OutputId, body: &Body, audience: Audience) {
        self.with_link(audience, |link| link.put(action, output, body));
    }

    /// Ends the sessions that no request is using, and with them a build that is only ours. `is_idle` says
    /// that no request is running.
    pub fn end(&self, is_idle: bool) {
        let mut state = self.state();
        state.generation += 1;
        state.idle.clear();
        state.build = None;
        if let Some(own) = state.own {
            own.end(is_idle);
        }
    }

    /// Runs one request on a session that is kept, or on a new one.
    fn with_link<T>(
        &self,
        audience: Audience,
        request: impl Fn(&mut Link) -> Result<T>,
    ) -> Option<T> {
        // A session that was kept may have ended with its daemon, and the next one too.
        loop {
            let kept = self.take(audience);
            let (mut link, is_new) = match kept {
                Some(link) => (link, false),
                None => (self.connect(audience)?, true),
            };
            match request(&mut link) {
                Ok(result) => {
                    self.give_back(link);
                    return Some(result);
                }
                Err(e) if is_new => {
                    log::warn(format!("a module goes without the cache: {}", e.chain()));
                    return None;
                }
                Err(_) => {}
            }
        }
    }

    fn take(&self, audience: Audience) -> Option<Link> {
        let mut state = self.state();
        let old = state
            .since
            .is_some_and(|since| since.elapsed() > RENEWED_EVERY);
        if old && self.place != Place::Build {
            *state = State {
                generation: state.generation + 1,
                own: state.own,
                said: state.said,
                said_no_own: state.said_no_own,
                ..State::default()
            };
        }
        let fits = state
            .idle
            .iter()
            .rposition(|link| link.audience == audience);
        fits.map(|at| state.idle.swap_remove(at))
    }

    fn give_back(&self, link: Link) {
        let mut state = self.state();
        if link.generation == state.generation && state.idle.len() < KEPT_SESSIONS {
            state.idle.push(link);
        }
    }

    fn connect(&self, audience: Audience) -> Option<Link> {
        let mut state = self.state();
        let waits = state
            .unreachable
            .is_some_and(|at| at.elapsed() < UNREACHABLE_FOR);
        if !waits {
            match self.connect_daemon(&mut state, audience) {
                Ok(daemon) => {
                    return Some(Link {
                        generation: state.generation,
                        audience,
                        kind: Kind::Daemon(daemon),
                    });
                }
                Err(e) => self.say_alone(&mut state, &e),
            }
        }
        let Place::Standalone(directory, limits) = &self.place else {
            return None;
        };
        match open_own(&mut state, audience, directory.as_deref(), *limits) {
            Ok(link) => Some(link),
            Err(e) => {
                if !std::mem::replace(&mut state.said_no_own, true) {
                    log::warn(format!("modules are not kept: {}", e.chain()));
                }
                None
            }
        }
    }

    fn connect_daemon(&self, state: &mut State, audience: Audience) -> Result<Daemon> {
        let connect = |build, top| {
            Daemon::connect_as(
                self.runtime_dir.as_deref(),
                GIVE_UP_AFTER,
                build,
                top,
                audience == Audience::Team,
            )
        };
        if let Some((build, _)) = &state.build
            && let Ok(daemon) = connect(Some(*build), None)
        {
            return Ok(daemon);
        }
        let (top, lifeline) = if self.place == Place::Build {
            (std::env::var("NIX_BUILD_TOP").ok(), None)
        } else {
            let lifeline = Lifeline::new()?;
            (lifeline.0.to_str().map(str::to_string), Some(lifeline))
        };
        let daemon = connect(None, top)?;
        state.build = Some((daemon.build(), lifeline));
        state.since = Some(Instant::now());
        state.unreachable = None;
        Ok(daemon)
    }

    fn say_alone(&self, state: &mut State, e: &Error) {
        state.unreachable = Some(Instant::now());
        if std::mem::replace(&mut state.said, true) {
            return;
        }
        let instead = if self.place == Place::Build {
            "modules are not cached"
        } else {
            "modules are kept in a cache of our own"
        };
        log::warn(format!("{instead}: {}", e.chain()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn open_own(
    state: &mut State,
    audience: Audience,
    directory: Option<&Path>,
    limits: Limits,
) -> Result<Link> {
    let own = match state.own {
        Some(own) => own,
        None => StandaloneCache::open(directory, limits)?,
    };
    state.own = Some(own);
    let (session, directory) = own.session()?;
    Ok(Link {
        generation: state.generation,
        audience,
        kind: Kind::Standalone(own, session, directory),
    })
}

impl Link {
    fn get(&mut self, action: &ActionId) -> Result<Option<Body>> {
        let path = match &mut self.kind {
            Kind::Daemon(daemon) => {
                let mut frame = Vec::new();
                let request = Request::Get {
                    request: 1,
                    action: *action,
                };
                wire::push_request(&mut frame, &request);
                daemon.send(&frame)?;
                match hear(daemon)? {
                    Answer::Hit(entry) => daemon.file(&entry.output, Some(entry.size))?,
                    Answer::Miss => return Ok(None),
                    Answer::Refused(why) => return Err(refused(&why)),
                    Answer::Stored => {
                        return Err(Error::peer("the daemon answered another question"));
                    }
                }
            }
            Kind::Standalone(_, session, directory) => match session.get(action)? {
                Some(entry) => output_name(directory, &entry.output),
                None => return Ok(None),
            },
        };
        let body = Body::file(fs::open(&path)?)?;
        self.forget(&path)?;
        Ok(Some(body))
    }

    fn put(&mut self, action: &ActionId, output: &OutputId, body: &Body) -> Result<()> {
        let size = body.len();
        match &mut self.kind {
            Kind::Daemon(daemon) => {
                let mut frame = Vec::new();
                let request = Request::Put {
                    request: 1,
                    action: *action,
                    output: *output,
                    size,
                };
                wire::push_request(&mut frame, &request);
                daemon.send(&frame)?;
                let mut reader = body.reader();
                let mut piece = vec![0; 64 << 10];
                loop {
                    let n = match reader.read(&mut piece) {
                        Ok(0) => break,
                        Ok(n) => n,
                        Err(e) => return Err(Error::io("read", "an answer that was kept", e)),
                    };
                    daemon.send(&piece[..n])?;
                }
                match hear(daemon)? {
                    Answer::Stored => Ok(()),
                    Answer::Refused(why) => Err(refused(&why)),
                    _ => Err(Error::peer("the daemon answered another question")),
                }
            }
            Kind::Standalone(own, session, directory) => {
                let stored = session.put(action, output, size, &mut body.reader());
                own.look_after(stored.is_err());
                stored?;
                let path = output_name(directory, output);
                self.forget(&path)
            }
        }
    }

    /// Removes an output from a directory of our own: it is open, and needs no name any more.
    fn forget(&self, path: &Path) -> Result<()> {
        match self.kind {
            Kind::Daemon(_) => Ok(()),
            Kind::Standalone(..) => fs::remove_file(path),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Kind::Standalone(.., directory) = &self.kind {
            // What is left is empty; the next one has another name.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl Lifeline {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("nix-gocacheprog-proxy-{}", BuildId::new()?));
        fs::create_dir(&path, 0o711)?;
        Ok(Self(path))
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        // One that stays makes the daemon keep a directory longer, no more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits for the answer to the only request of this session.
fn hear(daemon: &Daemon) -> Result<Answer> {
    let mut reader = daemon.reader();
    let until = Instant::now() + GIVE_UP_AFTER;
    while let Err(e) = reader.fill_buf() {
        match e.kind() {
            ErrorKind::WouldBlock if Instant::now() < until => {}
            ErrorKind::Interrupted => {}
            _ => return Err(Error::io("hear from", "the daemon", e)),
        }
    }
    match wire::read_answer(&mut reader)? {
        Some((_, answer)) => Ok(answer),
        None => Err(Error::peer("the daemon has closed the connection")),
    }
}

fn refused(why: &str) -> Error {
    Error::peer(format!("the daemon refused a request: {why}"))
}
