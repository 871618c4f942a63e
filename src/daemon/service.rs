//! What the daemon offers, and how it answers on the control socket.

use crate::cache::builds::{Builds, Registration};
use crate::cache::compile_times::CompileTimes;
use crate::cache::history::UsageHistory;
use crate::cache::journal::Journal;
use crate::cache::maintenance::{BuildsOfUsers, Maintenance};
use crate::cache::prefetch::Prefetcher;
use crate::cache::putters::Putters;
use crate::cache::stats::Stats;
use crate::cache::store::{Event, Goal, Limits, Room, Store};
use crate::cache::tier::{Secret, Tier};
use crate::config::{PUTS_PER_BUILD_MAX, PUTS_PER_BUILD_MIN, PUTS_PER_BUILD_PART};
use crate::daemon::policy::{self, Policy};
use crate::error::{Error, Result};
use crate::fs;
use crate::id::BuildId;
use crate::mode::Mode;
use crate::protocol::control::{Ask, Gc, Question, Reply};
use crate::protocol::wire;
use crate::remote::{self, Remote};
use crate::report::{BuildRecord, Contents, Live, Report};
use crate::sys;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// The most builds that are told of in one answer.
const BUILDS_TOLD: usize = 20_000;

/// The most builds that a user is told of who is not root, and how far they go back.
const RECORDS_OF_USERS_MAX: usize = 50;
const RECORDS_OF_USERS_SINCE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How many of the largest users are told.
const USERS_TOLD: usize = 10;

/// A cache and everything that works on it.
#[derive(Debug)]
pub struct Service {
    /// Actions and outputs.
    pub store: Store,
    /// Build directories.
    pub builds: Arc<Builds>,
    /// What was served.
    pub stats: Stats,
    /// How long it took to compile what is in the store.
    pub compile_times: CompileTimes,
    /// The builds that have ended.
    pub journal: Journal,
    /// Held while a user is told of their builds.
    telling_users: Mutex<()>,
    /// What the store is kept within.
    pub limits: Limits,
    /// Whoever keeps it there.
    pub maintenance: Maintenance,
    /// What builds of each name have used.
    pub history: Arc<UsageHistory>,
    /// Whoever makes that ready for the next one.
    pub prefetcher: Prefetcher,
    /// The cache of a team behind it. It comes later when a file that it needs was missing at first.
    pub remote: OnceLock<Remote>,
    /// Who may do what.
    pub policy: Policy,
    /// Which build has put an action.
    pub putters: Putters,
    /// Whether there is room for more.
    pub room: Room,
    /// How many uses all sessions together have noted.
    pub uses_noted: AtomicUsize,
    /// The same of the sessions of users who have a tier of their own.
    pub uses_noted_of_users: AtomicUsize,
}

/// Answers one question. `reap` is called before those about builds that have ended; it must come back soon, whatever
/// the file systems do that users have named.
///
/// # Errors
/// When the connection fails or what is asked is not understood.
pub fn serve(mut stream: &UnixStream, service: &Service, reap: &dyn Fn()) -> Result<()> {
    let question = match wire::read_line::<Question>(&mut BufReader::new(stream)) {
        Ok(None) => return Ok(()),
        Ok(Some(question)) => question,
        Err(e) => {
            return wire::write_line(&mut stream, &Reply::Failed { error: e.chain() });
        }
    };
    if matches!(question.ask, Ask::Stats | Ask::Builds { .. }) {
        reap();
    }
    let mut told = Ok(());
    let reply = service.answer(question, &mut |reply| {
        if told.is_ok() {
            told = wire::write_line(&mut stream, &reply);
        }
    });
    told?;
    let reply = reply.unwrap_or_else(|e| Reply::Failed { error: e.chain() });
    wire::write_line(&mut stream, &reply)
}

impl BuildsOfUsers for Service {
    fn have_sessions(&self) -> bool {
        self.builds.live().1 > 0
    }

    fn own_sessions_ended(&self) -> u64 {
        self.builds.own_sessions_ended()
    }

    fn save_times(&self) {
        self.compile_times.save();
    }

    fn release_idle(&self, unused_for: Duration) -> usize {
        self.builds
            .release_idle(unused_for, &mut |record| self.record(record))
    }
}

impl Service {
    /// Opens a cache and everything around it; nothing runs yet.
    ///
    /// # Errors
    /// When the cache cannot be opened, or the remote's options are wrong.
    pub fn open(
        store: Store,
        limits: Limits,
        policy: policy::Options,
        remote: Option<&remote::Options>,
    ) -> Result<Self> {
        let root = store.root().to_path_buf();
        let history = Arc::new(UsageHistory::open(&root)?);
        let remote = match remote.filter(|remote| remote.missing_file().is_none()) {
            Some(remote) => Remote::open(remote, &root, Arc::clone(&history))?.into(),
            None => OnceLock::new(),
        };
        // One build evicts no more than a part of what the others have put.
        let put_limit =
            (limits.max_size / PUTS_PER_BUILD_PART).clamp(PUTS_PER_BUILD_MIN, PUTS_PER_BUILD_MAX);
        Ok(Self {
            builds: Arc::new(Builds::open(&root)?.with_put_limit(put_limit)),
            policy: Policy::new(policy, Secret::open(&root)?),
            putters: Putters::default(),
            room: Room::default(),
            stats: Stats::open(&root),
            compile_times: CompileTimes::open(&root),
            journal: Journal::open(&root),
            telling_users: Mutex::default(),
            limits,
            maintenance: Maintenance::default(),
            history,
            prefetcher: Prefetcher::default(),
            remote,
            uses_noted: AtomicUsize::new(0),
            uses_noted_of_users: AtomicUsize::new(0),
            store,
        })
    }

    /// Opens the remote that could not be opened before, if all its files are there now; says whether it is open.
    ///
    /// # Errors
    /// When a file is not what it should be.
    pub fn take_up_remote(&self, options: &remote::Options) -> Result<bool> {
        if self.remote.get().is_some() || options.missing_file().is_some() {
            return Ok(self.remote.get().is_some());
        }
        let history = Arc::clone(&self.history);
        let remote = Remote::open(options, self.store.root(), history)?;
        Ok(self.remote.set(remote).is_ok())
    }

    /// Answers a question; `meanwhile` gets what can be said before the last word.
    ///
    /// # Errors
    /// When what is asked cannot be done.
    pub fn answer(&self, question: Question, meanwhile: &mut impl FnMut(Reply)) -> Result<Reply> {
        let Question { cache, ask } = question;
        if let Some(cache) = cache
            && fs::canonicalize(&cache)? != fs::canonicalize(self.store.root())?
        {
            return Ok(Reply::Elsewhere {
                cache: self.store.root().into(),
            });
        }
        match ask {
            Ask::Register {
                name,
                chroot,
                mode,
                fixed,
            } => {
                let mode = self.policy.hooked_mode(&name, mode);
                if mode == Mode::Off {
                    return Err(Error::input(format!(
                        "the shared cache is off for build {name:?}"
                    )));
                }
                let id = self.builds.register(Registration {
                    name: name.clone(),
                    lifeline: chroot,
                    mode,
                    fetches_nothing: fixed == Some(false),
                    ..Registration::default()
                })?;
                if mode != Mode::Audit {
                    self.begun(id, &name, true);
                }
                Ok(Reply::Registered {
                    build: id.to_string(),
                    directory: self.builds.directory(id),
                })
            }
            Ask::Stats => Ok(Reply::Stats(Box::new(self.report()?))),
            Ask::Gc { what, dry_run } => {
                if what == Gc::All && !dry_run {
                    self.release_idle(Duration::ZERO);
                }
                let goal = self.goal(what)?;
                let swept = self
                    .store
                    .sweep(&goal, dry_run, self.maintenance.stopping())?;
                if !dry_run {
                    self.stats.evicted(&swept);
                }
                Ok(Reply::Swept(swept))
            }
            Ask::Live => Ok(Reply::Live(Box::new(Live {
                since_start: self.stats.since_start().0,
                bytes: self.store.size(),
                max_size: self.limits.max_size,
                builds: self.builds.live_builds(),
                remote: self.remote.get().map(Remote::report),
            }))),
            Ask::Builds { since, limit, live } => {
                let since = Duration::from_secs(since);
                let builds = self.recorded(since, limit.min(BUILDS_TOLD), live)?;
                Ok(Reply::Builds { builds })
            }
            Ask::CheckRemote => Ok(self.check_remote()),
            Ask::Verify { repair } => self.verify(repair, meanwhile),
        }
    }

    /// A build has been registered: what builds of its name use is fetched, and made ready.
    pub fn begun(&self, build: BuildId, name: &str, prefetches: bool) {
        if prefetches && self.policy.links() {
            self.prefetcher.begin(&self.history, build, name);
        }
        if let Some(remote) = self.remote.get() {
            remote.begin(name);
        }
    }

    /// Removes the directories of builds that have ended. What they used can be evicted then.
    pub fn reap(&self) {
        let (before, _) = self.builds.live();
        if self.builds.reap(&mut |record| self.record(record)) < before {
            self.maintenance.builds_have_ended();
        }
    }

    /// The same for the builds of the hook, and at once whatever file systems users have: what they name may not answer.
    pub fn reap_hooked(&self) {
        let (before, _) = self.builds.live();
        if self.builds.reap_hooked(&mut |record| self.record(record)) < before {
            self.maintenance.builds_have_ended();
        }
    }

    /// Records the builds that the daemon has served and that have not ended.
    pub fn record_live_builds(&self) {
        for record in self.builds.records() {
            self.record(record);
        }
    }

    /// The newest records of builds, oldest first: of those that have ended, and of the others too if `live`.
    fn recorded(&self, since: Duration, limit: usize, live: bool) -> Result<Vec<BuildRecord>> {
        self.reap_hooked();
        let mut records = self.journal.read(since, limit)?;
        let live = if live {
            self.builds.records()
        } else {
            Vec::new()
        };
        for record in live.into_iter().map(|record| self.completed(record)) {
            // A daemon before this one may have recorded a part of it.
            match records.iter().position(|known| known.build == record.build) {
                Some(at) => {
                    let mut known = records.remove(at);
                    known.merge(record);
                    records.push(known);
                }
                None => records.push(record),
            }
        }
        records.sort_by_key(|record| record.ended);
        Ok(records)
    }

    /// The records of this user's own builds, for the user. Those of Nix's builds are root's alone: all of them run as a few
    /// users, and none may learn of another's.
    ///
    /// # Errors
    /// When the user has no builds that are theirs alone, or somebody else asks right now.
    pub fn records_of(&self, user: u32) -> Result<Vec<BuildRecord>> {
        let tier = self.policy.tier(user, false);
        if tier == Tier::Shared {
            return Err(Error::peer("only root may ask about the builds of Nix"));
        }
        // To read the journal takes a while, and everybody may ask.
        let Ok(_turn) = self.telling_users.try_lock() else {
            return Err(Error::peer("another user is asking right now: try again"));
        };
        let mut records = self.recorded(RECORDS_OF_USERS_SINCE, BUILDS_TOLD, true)?;
        records.retain(|record| record.user == Some(user) && record.tier == tier.name());
        let surplus = records.len().saturating_sub(RECORDS_OF_USERS_MAX);
        records.drain(..surplus);
        Ok(records)
    }

    fn record(&self, record: BuildRecord) {
        self.journal.append(&self.completed(record));
    }

    /// A record with what the build itself cannot know.
    fn completed(&self, mut record: BuildRecord) -> BuildRecord {
        let tier = record
            .user
            .map_or(Tier::Shared, |user| self.policy.tier(user, false));
        record.tier = tier.name();
        let remote = self.remote.get().map(Remote::report);
        let remote = match remote {
            None => "none".into(),
            Some(remote) if remote.reading_paused.is_some() => "paused".into(),
            Some(remote) => remote.mode,
        };
        record.add_environment(vec![("remote".into(), remote)]);
        record
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

    /// What is in the store, which takes a walk over it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn walk(&self) -> Result<Contents> {
        self.store.contents(self.maintenance.stopping())
    }

    fn report(&self) -> Result<Report> {
        self.reap_hooked();
        self.report_with(self.walk()?)
    }

    /// How things are, with this in the store.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn report_with(&self, contents: Contents) -> Result<Report> {
        let space = sys::space(self.store.root())?;
        let (since_start, running) = self.stats.since_start();
        let (builds, sessions) = self.builds.live();
        Ok(Report {
            schema: 1,
            version: env!("CARGO_PKG_VERSION").into(),
            cache: self.store.root().into(),
            max_size: self.limits.max_size,
            max_age: self.limits.max_age.as_secs(),
            min_free: self.limits.floor(space),
            free: space.free,
            contents,
            builds,
            sessions,
            running: running.as_secs(),
            since_start,
            last_day: self.stats.last_day(),
            users: self.stats.largest_users(USERS_TOLD),
            latencies: self.stats.latencies(),
            evicted: self.stats.evicted_by_day(),
            remote: self.remote.get().map(Remote::report),
        })
    }

    fn check_remote(&self) -> Reply {
        let checked = self.remote.get().map(Remote::check);
        Reply::Remote {
            url: self.remote.get().map(|remote| remote.report().url),
            time: match &checked {
                Some(Ok(time)) => time.as_micros() as u64,
                _ => 0,
            },
            error: checked.and_then(Result::err).map(|e| e.chain()),
        }
    }

    fn verify(&self, repair: bool, meanwhile: &mut impl FnMut(Reply)) -> Result<Reply> {
        let mut told = Instant::now();
        let verified =
            self.store
                .verify(repair, self.maintenance.stopping(), |event| match event {
                    Event::Progress { done, total } if told.elapsed() >= PROGRESS_EVERY => {
                        told = Instant::now();
                        meanwhile(Reply::Progress { done, total });
                    }
                    Event::Progress { .. } => {}
                    Event::Damage(damage) => meanwhile(Reply::Damaged {
                        what: damage.to_string(),
                    }),
                })?;
        Ok(Reply::Verified(verified))
    }
}
