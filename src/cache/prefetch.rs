//! Makes ready what a build will most likely ask for (`prefetched.rs`), as soon as the build is registered.

use crate::cache::builds::{BuildDir, Builds};
use crate::cache::history::{self, UsageHistory, Use};
use crate::cache::prefetched::{FILE, Records, Secret};
use crate::cache::store::Store;
use crate::config::READY_WAITING_MAX;
use crate::error::Result;
use crate::fs::{self, OpenDirectory};
use crate::id::BuildId;
use crate::log;
use crate::sync::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The builds for which something is to be made ready, and the thread that does so.
#[derive(Debug, Default)]
pub struct Prefetcher {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(BuildId, String)>,
    stopping: bool,
}

impl Prefetcher {
    /// A build has been registered: whatever its name's builds have used is made ready.
    pub fn begin(&self, lists: &UsageHistory, build: BuildId, name: &str) {
        let key = history::key(name);
        if name.is_empty() || !lists.has(&key) {
            return;
        }
        let mut state = self.state();
        // Whoever gets nothing asks the daemon, as ever.
        if state.waiting.len() < READY_WAITING_MAX {
            state.waiting.push_back((build, key));
            self.more.notify_one();
        }
    }

    /// Ends the thread soon.
    pub fn stop(&self) {
        self.state().stopping = true;
        self.more.notify_all();
    }

    /// The thread.
    pub fn run(&self, store: &Store, builds: &std::sync::Arc<Builds>, lists: &UsageHistory) {
        while let Some((id, key)) = self.next() {
            // Entered, so that the directory stays meanwhile. A build that has ended needs nothing.
            let Ok(build) = builds.enter(id) else {
                continue;
            };
            match self.prepare(store, &build, &lists.get(&key)) {
                Ok(count) => {
                    log::debug(|| format!("{count} outputs are ready for build {}", id.short()));
                }
                // The build asks for what is missing.
                Err(e) => log::warn(format!("prefetching for a build failed: {}", e.chain())),
            }
        }
    }

    fn next(&self) -> Option<(BuildId, String)> {
        let mut state = self
            .more
            .wait_while(self.state(), |s| s.waiting.is_empty() && !s.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.stopping).then(|| state.waiting.pop_front())?
    }

    fn prepare(&self, store: &Store, build: &BuildDir, list: &[Use]) -> Result<usize> {
        let directory = OpenDirectory::open(build.path())?;
        let mut ready = Vec::new();
        for (action, _) in list {
            if self.state().stopping {
                return Ok(0);
            }
            let Some(entry) = store.get(action)? else {
                continue;
            };
            let secret = Secret::of(action);
            if store.link(action, &entry, &directory, &secret.name())? {
                ready.push((secret, entry));
            }
        }
        // It appears as a whole.
        let fresh = build.path().join("ready.new");
        let file = fs::create_new(&fresh, 0o444)?;
        fs::write_all(&file, &fresh, &Records::encode(&ready))?;
        fs::rename(&fresh, &build.path().join(FILE))?;
        Ok(ready.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::builds::Registration;
    use crate::cache::prefetched::Prefetched;
    use crate::fs::faults::{self, Fault};
    use crate::id::{ActionId, OutputId};
    use crate::test_dir::TestDir;
    use sha2::{Digest, Sha256};
    use std::sync::Arc;

    struct Made {
        dir: TestDir,
        store: Store,
        builds: Arc<Builds>,
        lists: UsageHistory,
    }

    fn action(n: u8) -> ActionId {
        ActionId([n; 32])
    }

    impl Made {
        /// A cache with so many actions, which a build of the name `x` has used.
        fn new(actions: u8) -> Self {
            let dir = TestDir::new();
            let store = Store::open(dir.path()).unwrap();
            let builds = Arc::new(Builds::open(dir.path()).unwrap());
            let lists = UsageHistory::open(dir.path()).unwrap();
            let used = (0..actions).map(|n| {
                let body = [n; 100];
                let output = OutputId(Sha256::digest(body).into());
                let entry = store.put(&action(n), &output, 100, &mut &body[..]);
                (action(n), entry.unwrap())
            });
            let used = used.collect();
            let build = BuildId::new().unwrap();
            lists.record(&history::key("x"), build, used).unwrap();
            Self {
                dir,
                store,
                builds,
                lists,
            }
        }

        fn build(&self, name: &str) -> (Prefetched, BuildDir) {
            let lifeline = self.dir.path().join(name);
            std::fs::create_dir(&lifeline).unwrap();
            let registration = Registration {
                name: name.into(),
                lifeline: Some(lifeline),
                ..Registration::default()
            };
            let id = self.builds.register(registration).unwrap();
            let build = self.builds.enter(id).unwrap();
            let preparations = Prefetcher::default();
            preparations.begin(&self.lists, id, name);
            let begun = preparations.state().waiting.pop_front();
            if let Some((_, key)) = begun {
                let list = self.lists.get(&key);
                preparations.prepare(&self.store, &build, &list).unwrap();
            }
            (Prefetched::new(build.path()), build)
        }
    }

    #[test]
    fn what_builds_of_the_name_have_used_is_found_by_who_can_name_it() {
        let made = Made::new(200);
        let (mut ready, build) = made.build("x-2.0");
        for n in 0..200 {
            let (entry, path) = ready.find(&action(n)).unwrap();
            assert_eq!(Some(entry), made.store.get(&action(n)).unwrap());
            assert_eq!(std::fs::read(path).unwrap(), [n; 100]);
        }
        assert_eq!(ready.find(&action(201)), None);
        let bytes = std::fs::read(build.path().join(FILE)).unwrap();
        for n in 0..200 {
            let output = Sha256::digest([n; 100]);
            let contains = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            assert!(!contains(&output[..8]), "no output's ID can be read");
            assert!(!contains(&action(n).0[..8]));
        }
        drop(made.dir);
    }

    #[test]
    fn what_was_put_since_has_to_be_asked_for() {
        let made = Made::new(3);
        let (mut ready, _build) = made.build("x");
        assert!(ready.find(&action(0)).is_some());
        ready.forget(&action(0));
        assert_eq!(ready.find(&action(0)), None);
        assert!(ready.find(&action(1)).is_some());
    }

    #[test]
    fn nothing_is_found_in_a_directory_that_is_being_removed() {
        let made = Made::new(3);
        let (mut ready, build) = made.build("x");
        let (_, path) = ready.find(&action(0)).unwrap();
        assert!(ready.is_there());
        drop(build);
        std::fs::remove_dir(made.dir.path().join("x")).unwrap();
        faults::inject(1, Fault::Fails(libc::EIO));
        assert_eq!(made.builds.reap(&mut |_| {}), 0);
        assert!(!faults::clear());
        assert!(path.exists(), "the removal had only begun");
        assert!(!ready.is_there());
    }

    #[test]
    fn nothing_is_ready_for_a_name_that_is_not_known_or_in_a_file_of_another_release() {
        let made = Made::new(3);
        let (mut ready, build) = made.build("y");
        assert_eq!(ready.find(&action(0)), None);
        std::fs::write(build.path().join(FILE), "ready 2\nwhatever").unwrap();
        ready.look_again();
        assert_eq!(ready.find(&action(0)), None);
    }
}
