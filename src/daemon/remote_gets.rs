//! The part of a session that waits for the remote: gets that miss here go on there, while the session's own thread reads
//! the next request. A second thread of the session answers them, when they have come or have taken too long, and never
//! later than after a fixed time.
//!
//! Only that thread and the session's own touch the build directory and the connection, and both have ended before the session
//! has: whoever works for the remote brings outputs into the store, and no further.

use crate::cache::builds::BuildDir;
use crate::cache::session::Session;
use crate::cache::store::Store;
use crate::config::{REMOTE_GET_LIMIT, REMOTE_GETS_PER_SESSION};
use crate::counts::Counts;
use crate::daemon::conversation::{self, View};
use crate::daemon::misses::Misses;
use crate::daemon::sessions::OpenSession;
use crate::daemon::uses::Uses;
use crate::id::ActionId;
use crate::log;
use crate::protocol::wire::{self, Answer};
use crate::remote::{Remote, WaitBudget};
use crate::sync::lock;
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// What a session does with the remote.
pub struct RemoteGets<'a> {
    remote: &'a Remote,
    store: &'a Store,
    build: &'a BuildDir,
    view: &'a View,
    stream: &'a UnixStream,
    wait_budget: Arc<WaitBudget>,
    /// Held while frames are written, so that they stay whole.
    turn: Mutex<()>,
    /// Gets that wait.
    waiting: AtomicUsize,
    /// To the second thread.
    news: Mutex<News>,
    /// What the session has used.
    uses: &'a Uses<'a>,
    /// When it was told of what misses.
    misses: &'a Misses,
}

struct News {
    to: Sender<Message>,
    serial: u64,
}

enum Message {
    /// A get goes on.
    Asked(u64, Waiting),
    /// Its output is in the store now, or will not be.
    Landed(u64),
    /// The session ends.
    End,
}

struct Waiting {
    request: u64,
    /// What is still to be looked up, in this order; the first is being asked for.
    actions: VecDeque<ActionId>,
    since: Instant,
}

impl<'a> RemoteGets<'a> {
    /// Runs a session that may use the remote; gives what it gives, and what was answered by the second thread.
    #[allow(clippy::too_many_arguments, reason = "all that a session has")]
    pub fn run<T>(
        remote: &'a Remote,
        store: &'a Store,
        build: &'a BuildDir,
        view: &'a View,
        stream: &'a UnixStream,
        uses: &'a Uses<'a>,
        misses: &'a Misses,
        open: &OpenSession,
        session: impl FnOnce(&Self) -> T,
    ) -> (T, Counts) {
        let (to, from) = channel();
        let gets = Self {
            remote,
            store,
            build,
            view,
            stream,
            wait_budget: remote.wait_budget(build.id()),
            turn: Mutex::default(),
            waiting: AtomicUsize::new(0),
            news: Mutex::new(News { to, serial: 0 }),
            uses,
            misses,
        };
        thread::scope(|scope| {
            let gets = &gets;
            let answering = thread::Builder::new()
                .name("remote gets".into())
                .stack_size(crate::config::STACK)
                .spawn_scoped(scope, move || gets.answer(&from, open));
            if let Err(e) = &answering {
                // Without it nothing is asked of the remote.
                gets.waiting
                    .store(REMOTE_GETS_PER_SESSION, Ordering::Relaxed);
                log::error(format!("cannot start a thread: {e}"));
            }
            let ended = session(gets);
            // Whoever writes to a peer that does not read any more stops.
            let _ = stream.shutdown(Shutdown::Both);
            let _ = gets.news().to.send(Message::End);
            let counts = match answering {
                Ok(answering) => answering.join().unwrap_or_default(),
                Err(_) => Counts::default(),
            };
            (ended, counts)
        })
    }

    /// A put was stored.
    pub fn stored(&self, action: &ActionId) {
        self.remote.stored(action);
    }

    /// Held while frames are written.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.turn)
    }

    /// A get of any of these actions is a miss here; says whether the remote is asked, and it needs no answer yet.
    pub fn ask(&self, request: u64, actions: &[ActionId]) -> bool {
        let since = Instant::now();
        if self.waiting.load(Ordering::Relaxed) >= REMOTE_GETS_PER_SESSION
            || !self.wait_budget.lasts(since)
        {
            return false;
        }
        let mut news = self.news();
        news.serial += 1;
        let serial = news.serial;
        let to = news.to.clone();
        drop(news);
        let Some(action) = actions.first().copied() else {
            return false;
        };
        let waiting = Waiting {
            request,
            actions: actions.iter().copied().collect(),
            since,
        };
        // Before it can land.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if to.send(Message::Asked(serial, waiting)).is_ok() {
            self.fetch(serial, &action, to);
        }
        true
    }

    /// Asks the remote for an action; the second thread hears when that has ended.
    fn fetch(&self, serial: u64, action: &ActionId, to: Sender<Message>) {
        let done = to.clone();
        let asked = self.remote.ask(action, move || {
            // The session may have ended meanwhile.
            let _ = done.send(Message::Landed(serial));
        });
        if !asked {
            let _ = to.send(Message::Landed(serial));
        }
    }

    /// The second thread.
    fn answer(&self, from: &Receiver<Message>, open: &OpenSession) -> Counts {
        let mut session = self.view.session(self.store);
        let mut counts = Counts::default();
        let mut waiting: HashMap<u64, Waiting> = HashMap::new();
        loop {
            let first = waiting.values().map(|w| w.since).min();
            let message = match first {
                Some(since) => {
                    let left = REMOTE_GET_LIMIT.saturating_sub(since.elapsed());
                    from.recv_timeout(left.max(Duration::from_millis(1)))
                }
                None => from.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Asked(serial, one)) => {
                    waiting.insert(serial, one);
                }
                Ok(Message::Landed(serial)) => {
                    let Some(mut one) = waiting.remove(&serial) else {
                        continue;
                    };
                    if one.actions.len() > 1 && matches!(session.find(&one.actions[0]), Ok(None)) {
                        one.actions.pop_front();
                        let next = one.actions[0];
                        waiting.insert(serial, one);
                        let to = self.news().to.clone();
                        self.fetch(serial, &next, to);
                    } else {
                        counts += self.tell(&mut session, open, &mut one, true);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let late: Vec<_> = waiting
                        .iter()
                        .filter(|(_, one)| one.since.elapsed() >= REMOTE_GET_LIMIT)
                        .map(|(serial, _)| *serial)
                        .collect();
                    for mut one in late.iter().filter_map(|serial| waiting.remove(serial)) {
                        counts += self.tell(&mut session, open, &mut one, false);
                    }
                }
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return counts,
            }
        }
    }

    /// Answers a get with what the store has now.
    fn tell(
        &self,
        session: &mut Session<'_>,
        open: &OpenSession,
        one: &mut Waiting,
        in_time: bool,
    ) -> Counts {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let found = session.find_first(one.actions.make_contiguous());
        // The get itself has been counted as a miss.
        let mut counts = Counts::default();
        let mut got = None;
        match &found {
            Ok(Some((action, entry))) => {
                counts.hits = 1;
                counts.bytes_read = entry.size;
                counts.saved_ms = self.view.saved_ms(open.service(), action);
                got = Some(entry.size);
                self.uses.add(action, Some(*entry));
            }
            // It is compiled from now on, and not since the remote was asked.
            Ok(None) => self.misses.add(one.actions.make_contiguous()),
            Err(_) => counts.errors = 1,
        }
        let now = Instant::now();
        let time = now.duration_since(one.since);
        self.wait_budget.waited(now, time, got);
        self.remote.waited(time, in_time);
        if counts != Counts::default() {
            self.build.count(counts);
            open.count(self.view.family(), counts);
        }
        let found = found.map(|found| found.map_or(Answer::Miss, |(_, entry)| Answer::Hit(entry)));
        let answer = conversation::answer(found, 1);
        log::debug(|| {
            format!(
                "request {}: {answer:?} ({} ms)",
                one.request,
                time.as_millis()
            )
        });
        let mut frame = Vec::with_capacity(wire::ANSWER_LEN);
        wire::push_answer(&mut frame, one.request, &answer);
        let _turn = self.turn();
        // A peer that has gone is the other thread's to notice.
        let _ = (&mut &*self.stream).write_all(&frame);
        counts
    }

    fn news(&self) -> MutexGuard<'_, News> {
        lock(&self.news)
    }
}
