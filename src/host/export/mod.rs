//! `export` and `import`: what the builds of some names use, as one file, for a machine that reaches no remote.
//!
//! `export` reads the cache directory. `import` puts everything through the daemon, as a build of each name would, so that
//! every hash is checked and the history is that name's.

mod file;

use crate::cache::history::{self, UsageHistory};
use crate::cache::store::Store;
use crate::client::connection::{Daemon, Shared};
use crate::config::{GIVE_UP_AFTER, control_socket};
use crate::error::{Error, Result};
use crate::fs;
use crate::host::admin::Target;
use crate::id::{ActionId, BuildId};
use crate::mode::Mode;
use crate::output;
use crate::protocol::control::{self, Ask, Question, Reply};
use crate::protocol::wire::{self, Answer, Request};
use crate::remote::signing::Keys;
use crate::size::{count, show_size};
use crate::sys;
use file::{Reader, Record, Writer};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What to export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The cache.
    pub place: Target,
    /// The names of the builds.
    pub names: Vec<String>,
    /// The file.
    pub file: PathBuf,
    /// The file with the key that signs it.
    pub secret_key: Option<PathBuf>,
}

/// What to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Where the daemon's sockets are.
    pub runtime_dir: PathBuf,
    /// The file.
    pub file: PathBuf,
    /// The keys whose signatures count; without any, all of the file does.
    pub trusted_keys: String,
}

/// Writes the file.
///
/// # Errors
/// When nothing is known of a name, the cache cannot be read, or the file not written.
pub fn export(options: &Export) -> Result<()> {
    if options.names.is_empty() {
        return Err(Error::input(
            "name the builds whose outputs are wanted: --builds NAME",
        ));
    }
    let keys = Keys::new(options.secret_key.as_deref(), "")?;
    let signed = if keys.signs() { "signed" } else { "not signed" };
    let cache = cache_of(&options.place);
    // Another directory is not made into a cache by being looked at.
    fs::metadata(&cache.join("format"))?;
    let store = Store::open_shared(&cache)?;
    let history = UsageHistory::open(&cache)?;
    let lists = options.names.iter().map(|name| {
        let used = history.get(&history::key(name));
        if used.is_empty() {
            return Err(Error::input(format!(
                "no build of {name} is known here; `nix-gocacheprog stats --builds --since 30d` lists builds"
            )));
        }
        Ok((name, used.into_iter().map(|(action, _)| action).collect()))
    });
    let lists: Vec<(_, Vec<ActionId>)> = lists.collect::<Result<_>>()?;
    let mut writer = Writer::create(&options.file, keys)?;
    let (mut outputs, mut bytes) = (0, 0);
    let mut seen = HashSet::new();
    for (name, actions) in &lists {
        writer.list(name, actions)?;
        for action in actions.iter().filter(|action| seen.insert(**action)) {
            let Some(entry) = store.get(action)? else {
                continue;
            };
            let pin = store.pin(&entry.output);
            if let Some(file) = store.open_output(&entry)? {
                writer.output(action, &entry, file)?;
                outputs += 1;
                bytes += entry.size;
            }
            drop(pin);
        }
    }
    let packed = writer.finish()?;
    output::print(&format!(
        "exported {} ({}) to {}, {}, {signed}\n",
        count(outputs, "output"),
        show_size(bytes),
        options.file.display(),
        show_size(packed),
    ))
}

/// The daemon's cache, unless another one is named.
fn cache_of(place: &Target) -> PathBuf {
    // A daemon that is asked about what cannot be its cache says which it has.
    let question = Question {
        cache: Some("/".into()),
        ask: Ask::Live,
    };
    let socket = control_socket(&place.runtime_dir);
    let ask = || control::ask(&socket, &question, ANSWER_LIMIT, &mut |_| {});
    match (!place.is_named).then(ask) {
        Some(Ok(Reply::Elsewhere { cache })) => cache,
        _ => place.cache_dir.clone(),
    }
}

/// Puts all that the file holds into the daemon's cache, for Nix's builds.
///
/// # Errors
/// When it is not for this user to do, or anything in the file is not as it should be. What came before that is stored.
pub fn import(options: &Import) -> Result<()> {
    if sys::effective_uid() != 0 {
        return Err(Error::input(
            "this needs root, because it decides what Nix's builds get: run it with sudo",
        ));
    }
    let keys = Keys::new(None, &options.trusted_keys)?;
    let mut reader = Reader::open(&options.file, keys)?;
    let socket = control_socket(&options.runtime_dir);
    let most = match control::ask(&socket, &Ask::Live.into(), ANSWER_LIMIT, &mut |_| {})? {
        Reply::Live(live) => live.max_size,
        _ => return Err(Error::peer("unexpected answer from the daemon")),
    };
    let (mut outputs, mut bytes) = (0, 0);
    let mut build: Option<Build> = None;
    loop {
        match reader.next()? {
            Record::List(name, actions) => {
                finish(build.take())?;
                build = Some(Build::begin(&options.runtime_dir, &name, actions)?);
            }
            Record::Output(action, entry) => {
                let Some(build) = &mut build else {
                    return Err(Error::input("the file names no build"));
                };
                bytes += entry.size;
                if bytes > most {
                    return Err(Error::input(format!(
                        "the file holds more than this cache may ({}): give the daemon a larger --max-size",
                        show_size(most)
                    )));
                }
                build.session.send(&frame(&Request::Put {
                    request: 1,
                    action,
                    output: entry.output,
                    size: entry.size,
                }))?;
                reader.bytes(entry.size, |bytes| build.session.send(bytes))?;
                match build.answer()? {
                    Answer::Stored => outputs += 1,
                    Answer::Refused(why) => {
                        return Err(Error::peer(format!("the daemon refused an output: {why}")));
                    }
                    _ => return Err(Error::peer("unexpected answer from the daemon")),
                }
                build.put.insert(action);
            }
            Record::End => break,
        }
    }
    finish(build)?;
    output::print(&format!(
        "imported {} ({}) from {}\n",
        count(outputs, "output"),
        show_size(bytes),
        options.file.display()
    ))
}

/// What the daemon takes for a build of one name.
struct Build {
    session: Daemon,
    actions: Vec<ActionId>,
    put: HashSet<ActionId>,
    /// It has ended when this file is gone.
    lifeline: PathBuf,
}

impl Build {
    fn begin(runtime_dir: &Path, name: &str, actions: Vec<ActionId>) -> Result<Self> {
        let lifeline = runtime_dir.join(format!("import-{}", std::process::id()));
        fs::remove_file(&lifeline)?;
        fs::create_new(&lifeline, 0o644)?;
        let ask = Ask::Register {
            name: name.into(),
            chroot: Some(lifeline.clone()),
            mode: Mode::On,
            fixed: Some(false),
        };
        let socket = control_socket(runtime_dir);
        let build = match control::ask(&socket, &ask.into(), ANSWER_LIMIT, &mut |_| {})? {
            Reply::Registered { build, .. } => BuildId::parse(&build),
            _ => None,
        };
        let build = build.ok_or_else(|| Error::peer("unexpected answer from the daemon"))?;
        let shared = Some(Shared::default());
        let session =
            Daemon::connect_as(Some(runtime_dir), GIVE_UP_AFTER, Some(build), None, shared)?;
        Ok(Self {
            session,
            actions,
            put: HashSet::new(),
            lifeline,
        })
    }

    fn answer(&self) -> Result<Answer> {
        let answer = wire::read_answer(&mut self.session.reader());
        let answer = answer.map_err(|e| e.on("the daemon"))?;
        let (_, answer) = answer.ok_or_else(|| Error::peer("the daemon has ended the session"))?;
        Ok(answer)
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        self.session.hang_up();
        let _ = fs::remove_file(&self.lifeline);
    }
}

/// Uses what builds of this name use and builds of a name before it have put, so that the history names it.
fn finish(build: Option<Build>) -> Result<()> {
    let Some(build) = build else { return Ok(()) };
    for action in build
        .actions
        .iter()
        .filter(|action| !build.put.contains(*action))
    {
        build.session.send(&frame(&Request::Get {
            request: 1,
            action: *action,
        }))?;
        build.answer()?;
    }
    Ok(())
}

fn frame(request: &Request) -> Vec<u8> {
    let mut frame = Vec::new();
    wire::push_request(&mut frame, request);
    frame
}
