//! The cache behind the proxy: gets and puts over the ordinary build session.
//!
//! A few sessions are kept, so that a large put holds up nobody. Without a daemon, a build goes on
//! uncached, and a proxy that serves no build keeps a store of its own (`standalone.rs`). A failure
//! here is a miss.

use super::body::Body;
use super::link::Link;
use super::standalone::StandaloneCache;
use crate::cache::store::Limits;
use crate::client::connection::{Daemon, Shared};
use crate::config::GIVE_UP_AFTER;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, BuildId, OutputId};
use crate::log;
use crate::sync::lock;
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
    /// A team. Without a daemon modules are kept within these limits, in this directory or in one of
    /// this user's.
    Standalone(Option<PathBuf>, Limits),
}

#[derive(Default)]
struct State {
    idle: Vec<IdleLink>,
    /// The build that all sessions belong to, and what it lasts as long as.
    build: Option<(BuildId, Option<Lifeline>)>,
    /// Numbers the builds.
    generation: u64,
    since: Option<Instant>,
    unreachable: Option<Instant>,
    standalone: Option<&'static StandaloneCache>,
    /// The log says that there is no daemon.
    warned: bool,
    /// The log says that there is no standalone cache either.
    warned_standalone: bool,
}

/// Who may have a module besides this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Nobody: it took credentials to get it.
    Machine,
    /// Everybody who uses the same remote, if the daemon has one.
    Team,
}

/// A session that waits for the next request.
struct IdleLink {
    generation: u64,
    audience: Audience,
    link: Box<dyn Link>,
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

    /// Ends the sessions that no request is using, and with them a build that this proxy registered. `is_idle` says
    /// that no request is running.
    pub fn end(&self, is_idle: bool) {
        let mut state = self.state();
        state.generation += 1;
        state.idle.clear();
        state.build = None;
        if let Some(standalone) = state.standalone {
            standalone.end(is_idle);
        }
    }

    /// Runs one request on a session that is kept, or on a new one.
    fn with_link<T>(
        &self,
        audience: Audience,
        request: impl Fn(&mut dyn Link) -> Result<T>,
    ) -> Option<T> {
        // A session that was kept may have ended with its daemon, and the next one too.
        loop {
            let kept = self.take(audience);
            let (mut idle, is_new) = match kept {
                Some(idle) => (idle, false),
                None => (self.connect(audience)?, true),
            };
            match request(&mut *idle.link) {
                Ok(result) => {
                    self.give_back(idle);
                    return Some(result);
                }
                Err(e) if is_new => {
                    log::warn(format!(
                        "module cache skipped for one request: {}",
                        e.chain()
                    ));
                    return None;
                }
                Err(_) => {}
            }
        }
    }

    fn take(&self, audience: Audience) -> Option<IdleLink> {
        let mut state = self.state();
        let old = state
            .since
            .is_some_and(|since| since.elapsed() > RENEWED_EVERY);
        if old && self.place != Place::Build {
            *state = State {
                generation: state.generation + 1,
                standalone: state.standalone,
                warned: state.warned,
                warned_standalone: state.warned_standalone,
                ..State::default()
            };
        }
        let fits = state
            .idle
            .iter()
            .rposition(|link| link.audience == audience);
        fits.map(|at| state.idle.swap_remove(at))
    }

    fn give_back(&self, link: IdleLink) {
        let mut state = self.state();
        if link.generation == state.generation && state.idle.len() < KEPT_SESSIONS {
            state.idle.push(link);
        }
    }

    fn connect(&self, audience: Audience) -> Option<IdleLink> {
        let mut state = self.state();
        let waits = state
            .unreachable
            .is_some_and(|at| at.elapsed() < UNREACHABLE_FOR);
        if !waits {
            match self.connect_daemon(&mut state, audience) {
                Ok(daemon) => {
                    return Some(IdleLink {
                        generation: state.generation,
                        audience,
                        link: Box::new(daemon),
                    });
                }
                Err(e) => self.note_unreachable(&mut state, &e),
            }
        }
        let Place::Standalone(directory, limits) = &self.place else {
            return None;
        };
        match open_standalone(&mut state, directory.as_deref(), *limits) {
            Ok(link) => Some(IdleLink {
                generation: state.generation,
                audience,
                link,
            }),
            Err(e) => {
                if !std::mem::replace(&mut state.warned_standalone, true) {
                    log::warn(format!("modules will not be cached: {}", e.chain()));
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
                (audience == Audience::Team).then_some(Shared::default()),
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

    fn note_unreachable(&self, state: &mut State, e: &Error) {
        state.unreachable = Some(Instant::now());
        if std::mem::replace(&mut state.warned, true) {
            return;
        }
        let instead = if self.place == Place::Build {
            "modules are not cached"
        } else {
            "modules are kept in a standalone cache"
        };
        log::warn(format!("{instead}: {}", e.chain()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn open_standalone(
    state: &mut State,
    directory: Option<&Path>,
    limits: Limits,
) -> Result<Box<dyn Link>> {
    let standalone = match state.standalone {
        Some(standalone) => standalone,
        None => StandaloneCache::open(directory, limits)?,
    };
    state.standalone = Some(standalone);
    Ok(Box::new(standalone.link()?))
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
