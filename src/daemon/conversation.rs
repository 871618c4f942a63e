//! One conversation with a client on the build socket: the hello, then requests and answers.

use crate::cache::builds::{BuildDir, Registration};
use crate::cache::history::family;
use crate::cache::session::Session;
use crate::cache::store::Store;
use crate::cache::tier::Tier;
use crate::config::{BODY_MAX, HELLO_LIMIT, NOTED_MAX, NOTED_OF_USERS_MAX, READ_BUFFER};
use crate::counts::Counts;
use crate::daemon::comparison::Held;
use crate::daemon::misses::Misses;
use crate::daemon::remote_gets::RemoteGets;
use crate::daemon::service::Service;
use crate::daemon::sessions::OpenSession;
use crate::daemon::uses::{Put, Uses};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::fs::{self, OpenDirectory};
use crate::id::{ActionId, BuildId};
use crate::log;
use crate::mode::Mode;
use crate::protocol::wire::{self, Answer, Hello, Request, Welcome};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The most that is kept of what a session says of its environment, in bytes.
const ENVIRONMENT_BYTES: usize = 6 << 10;

/// Serves one client until it closes its side, breaks the rules or is told to end; logs
/// the session's line. What it may share goes to the remote too, if there is one.
pub fn serve(stream: &UnixStream, open: &OpenSession) {
    let service = open.service();
    let store = &service.store;
    let connection = Connection {
        stream,
        hello_until: Some(Instant::now() + HELLO_LIMIT),
    };
    let mut reader = BufReader::with_capacity(READ_BUFFER, connection);
    let (build, view, is_shared) = match greet(&mut reader, open) {
        Ok(Some(entered)) => entered,
        Ok(None) => return,
        Err(e) => {
            log::warn(format!("session refused: {}", e.chain()));
            return;
        }
    };
    let mut session = view.session(store);
    let misses = Misses::default();
    let mut counter = Counter {
        build: &build,
        view: &view,
        open,
        misses: &misses,
        counted: Counts::default(),
    };
    // Apart, or the sessions of a user would leave no room for what builds of Nix use.
    let uses = match view.tier {
        Tier::Shared => Uses::new(&service.uses_noted, NOTED_MAX),
        Tier::Own(..) => Uses::new(&service.uses_noted_of_users, NOTED_OF_USERS_MAX),
    };
    let (ended, later) = match service.remote.get().filter(|_| is_shared) {
        Some(remote) => RemoteGets::run(
            remote,
            store,
            &build,
            &view,
            stream,
            &uses,
            &misses,
            open,
            |remote_gets| {
                converse(
                    &mut reader,
                    &mut session,
                    &mut counter,
                    &uses,
                    Some(remote_gets),
                )
            },
        ),
        None => {
            let ended = converse(&mut reader, &mut session, &mut counter, &uses, None);
            // The peer need not wait for what comes.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            (ended, Counts::default())
        }
    };
    // Whoever waits for all uploads waits for this session's list, too.
    let ending = open.ending();
    counter.count(session.counts);
    let build = format!(
        "build={} name={:?}{}",
        build.id().short(),
        build.name(),
        view.shown()
    );
    let mut counts = session.counts;
    counts += later;
    match ended {
        Ok(()) => log::info(format!("session ended: {build} {counts}")),
        Err(e) => {
            counter.build.note(|record| record.broken_off = true);
            log::warn(format!(
                "session broken off: {build} {counts}: {}",
                e.chain()
            ));
        }
    }
    let puts = uses.puts();
    let used_before = match puts.is_empty() {
        true => HashSet::new(),
        false => open.used_before(counter.build),
    };
    // What needed somebody's credentials is nobody else's, so it is not in a list either.
    if is_shared && !counter.build.name().is_empty() {
        let used = uses.resolve(store);
        if !used.is_empty() {
            open.used(counter.build, used);
        }
    }
    drop(ending);
    open.compiled(counter.build, &puts, &used_before);
}

/// Passes on what has happened in a session while it goes on.
struct Counter<'a> {
    build: &'a BuildDir,
    view: &'a View,
    open: &'a OpenSession,
    misses: &'a Misses,
    counted: Counts,
}

impl Counter<'_> {
    fn count(&mut self, counts: Counts) {
        let since = counts - self.counted;
        if since != Counts::default() {
            self.build.count(since);
            self.open.count(self.view.family(), since);
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
    open: &OpenSession,
) -> Result<Option<(BuildDir, View, bool)>> {
    let mut is_shared = false;
    let entered = match wire::read_line::<Hello>(reader) {
        Ok(None) => return Ok(None),
        Ok(Some(hello)) if hello.records => {
            let records = open.service().records_of(open.user());
            let mut welcome = Welcome::of_this_release();
            welcome.error = records.as_ref().err().map(ToString::to_string);
            welcome.records = records.ok();
            return wire::write_line(&mut reader.get_mut().stream, &welcome).map(|()| None);
        }
        Ok(Some(hello)) if hello.summary => {
            let welcome = Welcome {
                counts: Some(open.service().builds.counts(
                    hello.build.as_deref().and_then(BuildId::parse),
                    hello.top.as_deref().map(Path::new),
                    open.user(),
                )),
                ..Welcome::of_this_release()
            };
            return wire::write_line(&mut reader.get_mut().stream, &welcome).map(|()| None);
        }
        Ok(Some(hello)) => {
            is_shared = hello.shared;
            enter(&hello, open)
        }
        Err(e) => Err(e),
    };
    let mut welcome = Welcome::of_this_release();
    match &entered {
        Ok((build, view)) => {
            is_shared &= view.tier == Tier::Shared && view.mode != Mode::Audit;
            welcome.build = build.id().to_string();
            welcome.directory = view.directory.path().to_string_lossy().into_owned();
            welcome.first = true;
            welcome.parts = true;
            welcome.ready = is_shared && view.copies.is_none() && open.makes_ready(build.name());
            if view.mode != view.said {
                welcome.mode = Some(view.mode.name().into());
            }
        }
        Err(e) => welcome.error = Some(e.to_string()),
    }
    let connection = reader.get_mut();
    let answered = wire::write_line(&mut connection.stream, &welcome);
    let (build, view) = entered?;
    answered?;
    connection.take_time()?;
    Ok(Some((build, view, is_shared)))
}

/// What a session sees of the cache and of its build, and what it may do.
#[derive(Clone, Debug)]
pub struct View {
    directory: Arc<OpenDirectory>,
    /// Where the copies are of what is in it, for a peer that could change the store's own files.
    copies: Option<PathBuf>,
    tier: Tier,
    mode: Mode,
    /// What the peer has said that its mode is.
    said: Mode,
    /// The family of names that its counts are kept under.
    family: String,
}

impl View {
    /// What this user's session sees of its build. Root, and this daemon's own user, could change the mode and the bytes of a
    /// link to the store's file, and `go` does: they get copies. Outside of a sandbox, where nothing keeps `go` from moving
    /// them away, each session has a directory of its own.
    fn of(build: &BuildDir, hello: &Hello, open: &OpenSession) -> Result<Self> {
        let (policy, user) = (&open.service().policy, open.user());
        let tier = policy.tier(user, build.is_hooked());
        let said = Mode::parse(hello.mode.as_deref().unwrap_or_default());
        let mode = policy.mode(build.name(), said).max(build.mode());
        if mode == Mode::Off {
            return Err(Error::peer(format!(
                "the shared cache is off for build {:?}",
                build.name()
            )));
        }
        let path = build.path().to_path_buf();
        let copies = policy.gets_copies(user).then(|| path.clone());
        let mut directory = path;
        if copies.is_some() && !build.is_hooked() {
            directory.push(format!("s{}", BuildId::new()?));
            fs::create_dir(&directory, 0o711)?;
        }
        Ok(Self {
            directory: Arc::new(OpenDirectory::open(&directory)?),
            copies,
            tier,
            mode,
            said,
            // Nobody counts under the name of a build of Nix.
            family: match tier {
                Tier::Shared => family(build.name()),
                Tier::Own(..) => tier.name(),
            },
        })
    }

    /// The family of names that its counts are kept under.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// A session that sees this.
    pub fn session<'a>(&self, store: &'a Store) -> Session<'a> {
        let directory = Arc::clone(&self.directory);
        let session = match &self.copies {
            None => Session::new(store, directory),
            Some(copies) => Session::with_copies(store, directory, copies),
        };
        session
            .in_tier(self.tier)
            .auditing(self.mode == Mode::Audit)
    }

    /// How long it took to compile what a hit of this action gives, in milliseconds; 0 when that was not measured.
    pub fn saved_ms(&self, service: &Service, action: &ActionId) -> u64 {
        let mut times = self
            .tier
            .keys(action)
            .map(|key| service.compile_times.ms(&key));
        times.find(|ms| *ms > 0).unwrap_or(0)
    }

    /// What is unusual about it, for the log.
    fn shown(&self) -> String {
        let tier = match self.tier {
            Tier::Shared => String::new(),
            Tier::Own(user, _) => format!(" user={user}"),
        };
        match self.mode {
            Mode::On => tier,
            mode => format!("{tier} mode={}", mode.name()),
        }
    }
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

fn enter(hello: &Hello, open: &OpenSession) -> Result<(BuildDir, View)> {
    if hello.version != wire::VERSION {
        return Err(Error::peer(format!(
            "the client speaks version {} of the protocol, this daemon version {}: install the same release on \
             both sides",
            hello.version,
            wire::VERSION
        )));
    }
    let service = open.service();
    let (policy, builds, user) = (&service.policy, &service.builds, open.user());
    let named =
        match &hello.build {
            Some(text) => Some(BuildId::parse(text).ok_or_else(|| {
                Error::peer("malformed build ID: it must be 32 hexadecimal digits")
            })?),
            None => None,
        };
    let id = match named {
        Some(id) => id,
        None => {
            // A directory and a record of it are two files, and users have as many builds as they like.
            if !policy.is_trusted(user) {
                service
                    .room
                    .check(service.store.root(), &service.limits, 0)?;
            }
            builds.register(Registration {
                name: hello.name.clone().unwrap_or_default(),
                lifeline: hello.top.as_deref().map(PathBuf::from),
                user: Some(user),
                account: Some(policy.account(user)),
                mode: Mode::On,
                // A build user builds for everybody in turn.
                has_user_budget: !policy.is_builder(user) && user != 0,
                ..Registration::default()
            })?
        }
    };
    let build = builds.enter_as(id, user, policy.is_trusted(user))?;
    let view = View::of(&build, hello, open)?;
    build.note(|record| {
        record.mode = view.mode.name().into();
        record.add_environment(bounded(&hello.environment));
    });
    // Nobody learns from it what others have built, and root and the daemon's own user could change what it links.
    let is_fed = hello.shared && view.tier == Tier::Shared && view.mode != Mode::Audit;
    if named.is_none() && is_fed {
        open.begun(id, build.name(), view.copies.is_none());
    }
    Ok((build, view))
}

/// What a client says of its environment, which is kept: no longer than a record can hold, and fit for a terminal.
fn bounded(environment: &[(String, String)]) -> Vec<(String, String)> {
    let mut left = ENVIRONMENT_BYTES;
    let shown = |text: &str, most: usize| -> String {
        let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        clean.take(most).collect()
    };
    let parts = environment
        .iter()
        .map(|(name, value)| (shown(name, 128), shown(value, 1024)));
    let fits = |(name, value): &(String, String)| {
        let length = name.len() + value.len();
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    };
    parts.take_while(fits).collect()
}

fn converse(
    reader: &mut BufReader<Connection<'_>>,
    session: &mut Session<'_>,
    counter: &mut Counter<'_>,
    uses: &Uses,
    remote_gets: Option<&RemoteGets<'_>>,
) -> Result<()> {
    let (build, open) = (counter.build, counter.open);
    let service = open.service();
    let mut stream = reader.get_ref().stream;
    let mut answers = Vec::new();
    loop {
        let idle = reader.buffer().is_empty();
        if idle || answers.len() >= READ_BUFFER {
            // Before the answers are out: a build may ask for its sum as soon as it has them.
            counter.count(session.counts);
            let _turn = remote_gets.map(RemoteGets::turn);
            stream
                .write_all(&answers)
                .map_err(|e| Error::io("answer on", "the connection", e))?;
            answers.clear();
        }
        if idle {
            if !open.end() || reader.fill_buf().is_ok_and(<[u8]>::is_empty) {
                return Ok(());
            }
            open.begin();
        }
        let Some(request) = wire::read_request(reader)? else {
            return Ok(());
        };
        let (request, answer) = match request {
            Request::Get { request, action } => {
                match get(session, counter, uses, remote_gets, request, &[action]) {
                    Some(answer) => (request, answer),
                    None => continue,
                }
            }
            Request::First { request, actions } => {
                match get(session, counter, uses, remote_gets, request, &actions) {
                    Some(answer) => (request, answer),
                    None => continue,
                }
            }
            Request::Found {
                request,
                action,
                size,
            } => {
                // Nothing is ready for anybody else, and nobody else makes root's statistics up.
                if counter.view.tier == Tier::Shared {
                    session.found(size);
                    session.counts.saved_ms += counter.view.saved_ms(service, &action);
                    uses.add(&action, None);
                }
                if request == 0 {
                    continue;
                }
                (request, Answer::Stored)
            }
            Request::Parts(parts) => {
                build.note(|record| record.add_environment(bounded(&parts)));
                continue;
            }
            Request::Put {
                request,
                action,
                output,
                size,
            } => {
                let since = Instant::now();
                let compiled_in = counter.misses.take(&action);
                let mut body = reader.take(size);
                let may_put = may_put(build, counter.view, service, &action, size);
                session.counts.errors += u64::from(may_put.is_err());
                let stored = may_put.and_then(|()| {
                    let held = Held::before(session, &service.store, &action);
                    let is_new = held.is_none();
                    let entry = session.put(&action, &output, size, &mut body)?;
                    compare(session, counter, &action, held, &entry);
                    Ok(Put {
                        action,
                        entry,
                        is_new,
                    })
                });
                // What was refused must still be read, or the next request is not found.
                std::io::copy(&mut body, &mut std::io::sink())
                    .map_err(|e| Error::io("read", "the body", e))?;
                if body.limit() > 0 {
                    return Err(Error::peer("the connection ended within a body"));
                }
                if let Ok(put) = &stored {
                    service.stats.puts.add(since.elapsed().as_micros() as u64);
                    service.stats.outputs.add(size);
                    if let Some(time) = compiled_in {
                        let key = counter.view.tier.key(&action);
                        service.compile_times.record(&key, time);
                    }
                    uses.add_put(*put);
                    if let Some(remote_gets) = remote_gets {
                        remote_gets.stored(&action);
                    }
                }
                let stored = stored.map(|_| Answer::Stored);
                (request, answer(stored, session.counts.errors))
            }
        };
        log::debug(|| format!("request {request}: {answer:?}"));
        wire::push_answer(&mut answers, request, &answer);
    }
}

/// Answers a get; `None` when the remote is asked, and it is answered later.
fn get(
    session: &mut Session<'_>,
    counter: &Counter<'_>,
    uses: &Uses,
    remote_gets: Option<&RemoteGets<'_>>,
    request: u64,
    actions: &[ActionId],
) -> Option<Answer> {
    let service = counter.open.service();
    let since = Instant::now();
    let found = session.get_first(actions);
    service.stats.gets.add(since.elapsed().as_micros() as u64);
    match found {
        Ok(Some((action, entry))) => {
            session.counts.saved_ms += counter.view.saved_ms(service, &action);
            uses.add(&action, Some(entry));
            Some(Answer::Hit(entry))
        }
        Ok(None) => {
            counter.misses.add(actions);
            let is_asked = remote_gets.is_some_and(|gets| gets.ask(request, actions));
            (!is_asked).then_some(Answer::Miss)
        }
        Err(e) => Some(answer(Err(e), session.counts.errors)),
    }
}

fn may_put(
    build: &BuildDir,
    view: &View,
    service: &Service,
    action: &ActionId,
    size: u64,
) -> Result<()> {
    if view.mode == Mode::Readonly {
        return Err(Error::peer("this build may only read from the cache"));
    }
    // Later builds would check a wrong one against their go.sum, but what has no hash there would fail them for good.
    if build.fetches_nothing() && action.is_module() {
        return Err(Error::peer("only a fixed-output build may put modules"));
    }
    if size > BODY_MAX {
        return Err(Error::peer(format!(
            "a body of {size} bytes is larger than the {BODY_MAX} that a build may put"
        )));
    }
    build.charge(size)?;
    service
        .room
        .check(service.store.root(), &service.limits, size)
}

/// Compares what a build has put with what the cache held before.
fn compare(
    session: &mut Session<'_>,
    counter: &Counter<'_>,
    action: &ActionId,
    held: Option<Held>,
    put: &Entry,
) {
    let service = counter.open.service();
    let (view, build) = (counter.view, counter.build);
    let key = view.tier.key(action);
    let (is_audit, is_shared) = (view.mode == Mode::Audit, view.tier == Tier::Shared);
    if let Some(held) = held.filter(Held::is_comparable) {
        session.counts.compared += u64::from(is_audit);
        if held.differs(put) {
            let before = service.putters.of(&key);
            let names = [
                before.as_deref().unwrap_or("of unknown name"),
                build.name().as_ref(),
            ];
            let line = || held.describe(&service.store, action, put, names);
            if is_audit {
                session.counts.different += 1;
                log::warn(format!("audit: outputs differ: {}", line()));
                if let Err(e) = session.withdraw(action) {
                    log::warn(e.chain());
                }
                return;
            }
            if held.is_own {
                session.counts.replaced += 1;
                if is_shared && service.putters.is_first_difference(&key) {
                    log::warn(format!("a put replaces another output: {}", line()));
                }
            }
        }
    }
    // What users put in tiers of their own would push the others out.
    if is_shared {
        service.putters.record(&key, build.name());
    }
}

/// What a peer is told. Of a session in which `errors` requests have failed, this one included, only the first failure
/// is logged at the usual level: a full disk fails thousands.
pub(super) fn answer(done: Result<Answer>, errors: u64) -> Answer {
    done.unwrap_or_else(|e| {
        let line = || format!("request failed: {}", e.chain());
        if errors <= 1 {
            log::warn(line());
        } else {
            log::debug(line);
        }
        Answer::Refused(e.chain())
    })
}
