//! `ci start` and `ci finish`: the cache for one run of a CI system, on a machine that has nothing of it before or
//! afterwards. What is changed on the host is `install`'s business; here is the order, and what a log says.

mod summary;

use crate::config::control_socket;
use crate::error::{Error, Result};
use crate::host::doctor;
use crate::host::flush::{self, Flushed};
use crate::host::install::{self, Setup};
use crate::log;
use crate::output;
use crate::protocol::control::{self, Ask, Reply};
use crate::report::BuildRecord;
use crate::sys;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use summary::Summary;

/// How long an answer may take: systemd may have to start the daemon first.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The most builds that are asked for.
const BUILDS_MAX: usize = 20_000;

/// How `ci finish` is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// How long to wait for uploads, and then for builds that are still running.
    pub timeout: Duration,
    /// The file to which the summary is added, as Markdown.
    pub summary: Option<PathBuf>,
}

/// Sets this machine up, and says how things are. What does not work costs a build nothing but its time, so it is said and is
/// no failure.
///
/// # Errors
/// When this machine cannot be set up.
pub fn start(options: &install::Options) -> Result<()> {
    check_root()?;
    if let Some(setup) = Setup::find()?.filter(Setup::is_complete) {
        let socket = control_socket(setup.runtime_dir());
        if control::ask(&socket, &Ask::Live.into(), ANSWER_LIMIT, &mut |_| {}).is_ok() {
            return output::print(
                "the cache runs already; for other options run `nix-gocacheprog ci finish` first\n",
            );
        }
    }
    let options = install::Options {
        ci: true,
        cache_dir: match &options.cache_dir {
            Some(dir) if dir.exists() => Some(crate::fs::canonicalize(dir)?),
            dir => dir.clone(),
        },
        ..options.clone()
    };
    let setup = Setup::make(&options).map_err(|e| match Setup::find() {
        Ok(Some(_)) => Error::input(format!(
            "{}; `nix-gocacheprog ci finish` undoes what was done so far",
            e.chain()
        )),
        _ => e,
    })?;
    let socket = control_socket(setup.runtime_dir());
    control::ask(&socket, &Ask::Live.into(), ANSWER_LIMIT, &mut |_| {}).map_err(|e| {
        Error::input(format!(
            "{}; the log may say why: {}",
            e.chain(),
            setup.log()
        ))
    })?;
    output::print(&format!(
        "the cache is ready: {} (log: {})\n{}",
        setup.cache_dir().display(),
        setup.log(),
        remote_line(&socket, &options)
    ))?;
    if setup.must_restart_nix() {
        log::warn("restart nix-daemon, which has read its configuration before");
    }
    for fault in doctor::faults(&doctor::Options {
        json: false,
        runtime_dir: setup.runtime_dir().to_path_buf(),
        cache_dir: setup.cache_dir().to_path_buf(),
        is_named: true,
    }) {
        // That has been said.
        if !fault.starts_with("remote: ") {
            log::warn(fault);
        }
    }
    Ok(())
}

/// Whether the remote answers, in a line; nothing without a remote.
fn remote_line(socket: &Path, options: &install::Options) -> String {
    let Some(remote) = &options.remote else {
        return String::new();
    };
    let mode = remote.mode.name();
    match control::ask(socket, &Ask::CheckRemote.into(), ANSWER_LIMIT, &mut |_| {}) {
        Ok(Reply::Remote {
            url: Some(url),
            error: None,
            time,
        }) => format!(
            "the remote {url} answers, in {} ms, mode {mode}\n",
            time.div_ceil(1000)
        ),
        Ok(Reply::Remote {
            url: Some(url),
            error: Some(error),
            ..
        }) => format!("the remote {url} failed, and builds go on without it: {error}\n"),
        Ok(_) => "the daemon has no remote: the log may say why\n".into(),
        Err(e) => format!("the remote could not be checked: {}\n", e.chain()),
    }
}

/// Waits until all is uploaded, says what the cache has done, and undoes what `start` did.
///
/// # Errors
/// When nothing was started, something is not uploaded, or a change cannot be undone.
pub fn finish(options: &Finish) -> Result<()> {
    check_root()?;
    let Some(setup) = Setup::find()? else {
        return Err(Error::input(
            "`nix-gocacheprog ci start` has not been run here: there is nothing to finish",
        ));
    };
    let done = if setup.is_complete() {
        conclude(options, &setup)
    } else {
        output::print("`ci start` was cut off: nothing was uploaded\n")
    };
    match (done, setup.undo(options.timeout)) {
        (done, Ok(())) => done,
        (Ok(()), Err(e)) => Err(e),
        (Err(first), Err(second)) => {
            log::error(first.chain());
            Err(second)
        }
    }
}

/// Flushes, and says what the cache has done.
fn conclude(options: &Finish, setup: &Setup) -> Result<()> {
    let socket = control_socket(setup.runtime_dir());
    let ci = setup.ci();
    let flushed = if ci.uploads {
        flush::wait(&flush::Options {
            socket: socket.clone(),
            timeout: options.timeout,
        })
    } else {
        Ok(Flushed::All(String::new()))
    };
    let failure = match &flushed {
        Ok(Flushed::All(_)) => None,
        Ok(Flushed::Part(why)) => Some(why.clone()),
        Err(e) => Some(e.chain()),
    };
    let summary = ask_builds(&socket, ci.started).and_then(|builds| {
        Ok(Summary {
            builds,
            remote: ask_remote(&socket)?,
            failure,
        })
    });
    let summary = match summary {
        Ok(summary) => summary,
        Err(e) => {
            log::warn(format!("its log: {}", setup.log()));
            return Err(e);
        }
    };
    output::print(&summary.text())?;
    if let Some(file) = &options.summary {
        // Uploads count, and this does not.
        if let Err(e) = summary.append_to(file) {
            log::warn(e.chain());
        }
    }
    match flushed? {
        Flushed::All(text) => output::print(&text),
        // One output that is too large for the server would otherwise fail every run.
        Flushed::Part(why) => {
            log::warn(why);
            Ok(())
        }
    }
}

/// The builds since then. One that an earlier run has left in a cache that was restored is not among them.
fn ask_builds(socket: &Path, started: u64) -> Result<Vec<BuildRecord>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |time| time.as_secs());
    let ask = Ask::Builds {
        since: now.saturating_sub(started) + 1,
        limit: BUILDS_MAX,
        live: true,
    };
    match control::ask(socket, &ask.into(), ANSWER_LIMIT, &mut |_| {})? {
        Reply::Builds { builds } => Ok(builds
            .into_iter()
            .filter(|build| build.started >= started)
            .collect()),
        _ => Err(Error::peer("unexpected answer from the daemon")),
    }
}

fn ask_remote(socket: &Path) -> Result<Option<crate::report::RemoteReport>> {
    match control::ask(socket, &Ask::Live.into(), ANSWER_LIMIT, &mut |_| {})? {
        Reply::Live(live) => Ok(live.remote),
        _ => Err(Error::peer("unexpected answer from the daemon")),
    }
}

fn check_root() -> Result<()> {
    if sys::effective_uid() == 0 {
        return Ok(());
    }
    Err(Error::input("this needs root: run it with sudo"))
}
