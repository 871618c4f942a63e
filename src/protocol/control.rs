//! The control socket: what the hook and the administrator ask of the daemon. A line of
//! JSON with the question, one question a connection, and one or more lines with the
//! answer, of which the last is not [`Reply::Progress`] or [`Reply::Damaged`]. It is never
//! bound into a sandbox.

use crate::builds::Builds;
use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::BuildId;
use crate::lists::Lists;
use crate::preparations::Preparations;
use crate::remote::{self, Remote};
use crate::stats::{Stats, User};
use crate::store::{Contents, Damage, Goal, Limits, Store, Swept, Verified};
use crate::sys;
use crate::upkeep::Upkeep;
use crate::wire;
use serde::{Deserialize, Serialize};
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How many of the largest users are told.
const USERS_TOLD: usize = 10;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// Register a build.
    Register {
        /// The derivation's name.
        name: String,
        /// Nix's chroot for the build, which is gone when the build has ended.
        chroot: Option<PathBuf>,
    },
    /// Say how things are.
    Stats {
        /// The cache that is meant, if it is named.
        cache: Option<PathBuf>,
    },
    /// Evict.
    Gc {
        /// The cache that is meant, if it is named.
        cache: Option<PathBuf>,
        /// What to evict.
        what: Gc,
        /// Only say what would go.
        dry_run: bool,
    },
    /// Ask the remote for something, to see whether it answers.
    CheckRemote,
    /// Read everything and look whether it is whole.
    Verify {
        /// The cache that is meant, if it is named.
        cache: Option<PathBuf>,
        /// Remove what is damaged.
        repair: bool,
    },
}

/// What to evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gc {
    /// What the limits of the daemon, or these in their place, do not allow.
    Beyond {
        /// In bytes.
        max_size: Option<u64>,
        /// The time since the last use.
        max_age: Option<Duration>,
    },
    /// All that no live build uses.
    All,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The question could not be answered.
    Failed {
        /// Why.
        error: String,
    },
    /// This daemon has another cache than the one that is meant.
    Elsewhere {
        /// The one it has.
        cache: PathBuf,
    },
    /// The build is registered.
    Registered {
        /// Its ID.
        build: String,
        /// Its directory's path on the host.
        directory: PathBuf,
    },
    /// How things are.
    Stats(Box<Report>),
    /// What has come of asking the remote.
    Remote {
        /// Where it is; none when there is no remote.
        url: Option<String>,
        /// What is wrong.
        error: Option<String>,
        /// How long it took, in microseconds.
        time: u64,
    },
    /// It is being worked on.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes to be done in all.
        total: u64,
    },
    /// Something is damaged.
    Damaged {
        /// What, and how.
        what: String,
    },
    /// Everything was read.
    Verified(Verified),
    /// What was evicted, or would be.
    Swept(Swept),
}

/// How things are.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The daemon's version.
    pub version: String,
    /// The cache directory.
    pub cache: PathBuf,
    /// The most that outputs may take on disk, in bytes.
    pub max_size: u64,
    /// What was not used for so long goes, in seconds.
    pub max_age: u64,
    /// How much of the file system is to be left free, in bytes.
    pub min_free: u64,
    /// How much of it is free, in bytes.
    pub free: u64,
    /// What is in the store.
    pub contents: Contents,
    /// Builds that are registered and have not ended.
    pub builds: usize,
    /// Sessions that are open.
    pub sessions: usize,
    /// How long ago the daemon was started, in seconds.
    pub running: u64,
    /// What happened since then.
    pub since_start: Counts,
    /// What happened in the last 24 hours.
    pub last_day: Counts,
    /// The derivation names whose builds have got and put most.
    pub users: Vec<(String, User)>,
    /// How things are with the remote, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<remote::Report>,
}

/// What questions are about.
#[derive(Debug)]
pub struct Parts {
    /// Actions and outputs.
    pub store: Store,
    /// Build directories.
    pub builds: Arc<Builds>,
    /// What was served.
    pub stats: Stats,
    /// What the store is kept within.
    pub limits: Limits,
    /// Whoever keeps it there.
    pub upkeep: Upkeep,
    /// What builds of each name have used.
    pub lists: Arc<Lists>,
    /// Whoever makes that ready for the next one.
    pub ready: Preparations,
    /// The cache of a team behind it.
    pub remote: Option<Remote>,
}

/// Answers one question.
///
/// # Errors
/// When the connection fails or what is asked is not understood.
pub fn serve(mut stream: &UnixStream, parts: &Parts) -> Result<()> {
    let ask = match wire::read_line::<Ask>(&mut BufReader::new(stream)) {
        Ok(None) => return Ok(()),
        Ok(Some(ask)) => ask,
        Err(e) => {
            return wire::write_line(&mut stream, &Reply::Failed { error: e.chain() });
        }
    };
    let mut told = Ok(());
    let reply = parts.answer(ask, &mut |reply| {
        if told.is_ok() {
            told = wire::write_line(&mut stream, &reply);
        }
    });
    told?;
    let reply = reply.unwrap_or_else(|e| Reply::Failed { error: e.chain() });
    wire::write_line(&mut stream, &reply)
}

impl Parts {
    /// Answers a question; `meanwhile` gets what can be said before the last word.
    ///
    /// # Errors
    /// When what is asked cannot be done.
    pub fn answer(&self, ask: Ask, meanwhile: &mut impl FnMut(Reply)) -> Result<Reply> {
        match &ask {
            Ask::Stats { cache: Some(cache) }
            | Ask::Gc {
                cache: Some(cache), ..
            }
            | Ask::Verify {
                cache: Some(cache), ..
            } if fs::canonicalize(cache)? != fs::canonicalize(self.store.root())? => {
                return Ok(Reply::Elsewhere {
                    cache: self.store.root().into(),
                });
            }
            _ => {}
        }
        match ask {
            Ask::Register { name, chroot } => {
                let id = self.builds.register(&name, chroot.as_deref(), None)?;
                self.begun(id, &name);
                Ok(Reply::Registered {
                    build: id.to_string(),
                    directory: self.builds.directory(id),
                })
            }
            Ask::Stats { .. } => Ok(Reply::Stats(Box::new(self.report()?))),
            Ask::Gc { what, dry_run, .. } => {
                let goal = self.goal(what)?;
                let swept = self.store.sweep(&goal, dry_run, self.upkeep.stopping())?;
                Ok(Reply::Swept(swept))
            }
            Ask::CheckRemote => Ok(self.check_remote()),
            Ask::Verify { repair, .. } => self.verify(repair, meanwhile),
        }
    }

    /// A build has been registered: what builds of its name use is fetched, and made ready.
    pub fn begun(&self, build: BuildId, name: &str) {
        self.ready.begin(&self.lists, build, name);
        if let Some(remote) = &self.remote {
            remote.begin(name);
        }
    }

    /// Removes the directories of builds that have ended. What they used can be evicted then.
    pub fn reap(&self) {
        let (before, _) = self.builds.live();
        if self.builds.reap() < before {
            self.upkeep.builds_have_ended();
        }
    }

    fn goal(&self, what: Gc) -> Result<Goal> {
        match what {
            Gc::All => Ok(Goal {
                keep: 0,
                max_age: Duration::ZERO,
            }),
            Gc::Beyond { max_size, max_age } => {
                let goal = self.store.goal(&self.limits)?;
                Ok(Goal {
                    keep: max_size.unwrap_or(goal.keep),
                    max_age: max_age.unwrap_or(goal.max_age),
                })
            }
        }
    }

    fn report(&self) -> Result<Report> {
        let space = sys::space(self.store.root())?;
        let (since_start, running) = self.stats.since_start();
        self.reap();
        let (builds, sessions) = self.builds.live();
        Ok(Report {
            version: env!("CARGO_PKG_VERSION").into(),
            cache: self.store.root().into(),
            max_size: self.limits.max_size,
            max_age: self.limits.max_age.as_secs(),
            min_free: self.limits.floor(space),
            free: space.free,
            contents: self.store.contents(self.upkeep.stopping())?,
            builds,
            sessions,
            running: running.as_secs(),
            since_start,
            last_day: self.stats.last_day(),
            users: self.stats.largest_users(USERS_TOLD),
            remote: self.remote.as_ref().map(Remote::report),
        })
    }

    fn check_remote(&self) -> Reply {
        let checked = self.remote.as_ref().map(Remote::check);
        Reply::Remote {
            url: self.remote.as_ref().map(|remote| remote.report().url),
            time: match &checked {
                Some(Ok(time)) => time.as_micros() as u64,
                _ => 0,
            },
            error: checked.and_then(Result::err).map(|e| e.chain()),
        }
    }

    fn verify(&self, repair: bool, meanwhile: &mut impl FnMut(Reply)) -> Result<Reply> {
        let mut told = Instant::now();
        // Both closures have something to tell.
        let meanwhile = std::cell::RefCell::new(meanwhile);
        let verified = self.store.verify(
            repair,
            self.upkeep.stopping(),
            |done, total| {
                if told.elapsed() >= PROGRESS_EVERY {
                    told = Instant::now();
                    (meanwhile.borrow_mut())(Reply::Progress { done, total });
                }
            },
            |damage| {
                let what = match damage {
                    Damage::Output(id, how) => format!("output {id} {how}"),
                    Damage::Action(id, how) => format!("action {id} {how}"),
                };
                (meanwhile.borrow_mut())(Reply::Damaged { what });
            },
        )?;
        Ok(Reply::Verified(verified))
    }
}

/// Asks the daemon, and waits for each line of its answer for at most `limit`; gives
/// `meanwhile` what it says before the last one.
///
/// # Errors
/// When there is no daemon, or it does not answer, or says that it failed.
pub fn ask(
    socket: &Path,
    what: &Ask,
    limit: Duration,
    meanwhile: &mut impl FnMut(Reply),
) -> Result<Reply> {
    let mut stream =
        UnixStream::connect(socket).map_err(|e| Error::io("reach the daemon at", socket, e))?;
    stream
        .set_read_timeout(Some(limit))
        .and_then(|()| stream.set_write_timeout(Some(limit)))
        .map_err(|e| Error::io("set the time limit of", socket, e))?;
    wire::write_line(&mut stream, what)?;
    let mut reader = BufReader::new(&stream);
    loop {
        match wire::read_line(&mut reader)? {
            Some(Reply::Failed { error }) => {
                return Err(Error::peer(format!("the daemon says: {error}")));
            }
            Some(reply @ (Reply::Progress { .. } | Reply::Damaged { .. })) => meanwhile(reply),
            Some(reply) => return Ok(reply),
            None => return Err(Error::peer("the daemon closed the connection unanswered")),
        }
    }
}
