//! The daemon where no systemd runs, for `ci start`: a process in the background, with its log and the number of its process
//! in the runtime directory. It is found again by the program that it runs, so a `start` that was killed loses none.

use super::layout::{self, Host};
use super::limits::Limits;
use super::remote as options;
use crate::config::control_socket;
use crate::error::{Error, Result};
use crate::fs;
use crate::protocol::control::{self, Ask};
use crate::remote;
use crate::sys;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a daemon may take until it answers: it looks at a cache first that may be large and on a slow disk.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A daemon that was told to end lets requests finish first, within 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How often it is asked.
const EVERY: Duration = Duration::from_millis(50);

/// How much of the log is shown when it does not start, in lines.
const LOG_LINES: usize = 5;

/// Where its log goes.
pub fn log_path(host: &Host) -> PathBuf {
    host.at(&host.layout.runtime_dir.join("daemon.log"))
}

/// Starts it, and waits until it answers. One that runs already is ended first.
///
/// # Errors
/// When it does not start, with the end of its log.
pub fn start(host: &Host, remote: Option<&remote::Options>, limits: &Limits) -> Result<()> {
    stop(host)?;
    let layout = &host.layout;
    let runtime_dir = host.at(&layout.runtime_dir);
    fs::ensure_dir(&runtime_dir, 0o755)?;
    let program = host.at(&layout.program);
    let mut command = Command::new(&program);
    command.arg("daemon");
    command.arg("--cache-dir").arg(&layout.cache_dir);
    command.arg("--runtime-dir").arg(&layout.runtime_dir);
    for (name, value) in [
        ("--max-size", &limits.max_size),
        ("--max-age", &limits.max_age),
        ("--min-free", &limits.min_free),
    ] {
        if let Some(value) = value {
            command.args([name, value]);
        }
    }
    command.env_remove("CREDENTIALS_DIRECTORY");
    if let Some(remote) = remote {
        command.args(options::arguments(remote));
        let credentials = runtime_dir.join("credentials");
        lend_files(remote, &credentials)?;
        command.env("CREDENTIALS_DIRECTORY", credentials);
    }
    let path = log_path(host);
    fs::remove_file(&path)?;
    let log = fs::create_new(&path, 0o644)?;
    let output = |log: &File| log.try_clone().map_err(|e| Error::io("open", &path, e));
    command
        .stdin(Stdio::null())
        .stdout(output(&log)?)
        .stderr(output(&log)?)
        .current_dir("/")
        // What ends the caller's step, or Ctrl-C, is not for the daemon.
        .process_group(0);
    let mut child = command.spawn().map_err(|e| Error::io("run", &program, e))?;
    let pid_file = runtime_dir.join("daemon.pid");
    fs::replace(&pid_file, format!("{}\n", child.id()).as_bytes(), 0o644)?;
    wait_for(&mut child, &control_socket(&runtime_dir)).map_err(|e| {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("; ");
        Error::input(format!("{}: its log ends with {end:?}", e.chain()))
    })
}

fn wait_for(child: &mut Child, socket: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = control::ask(socket, &Ask::Live.into(), START_LIMIT, &mut |_| {});
        let ended = child.try_wait();
        match (answer, ended) {
            (_, Ok(Some(status))) => {
                return Err(Error::input(format!("the daemon ended at once, {status}")));
            }
            (Ok(_), _) => return Ok(()),
            (Err(e), _) if start.elapsed() >= START_LIMIT => return Err(e),
            _ => sleep(EVERY),
        }
    }
}

/// Copies what only root can read to where the daemon finds it and nobody else does, as systemd's LoadCredential= does.
fn lend_files(remote: &remote::Options, dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir)?;
    fs::create_dir(dir, 0o700)?;
    for (name, from) in options::files(remote) {
        let (to, bytes) = (dir.join(name), fs::read(from)?);
        fs::write_all(&fs::create_new(&to, 0o400)?, &to, &bytes)?;
        if let Some((uid, gid)) = layout::user_ids() {
            fs::chown(&to, uid, gid)?;
        }
    }
    match layout::user_ids() {
        Some((uid, gid)) => fs::chown(dir, uid, gid),
        None => Ok(()),
    }
}

/// Ends it, if it runs.
///
/// # Errors
/// When it runs and cannot be ended.
pub fn stop(host: &Host) -> Result<()> {
    let start = Instant::now();
    loop {
        let running = running(host);
        if running.is_empty() {
            return Ok(());
        }
        let is_late = start.elapsed() >= STOP_LIMIT;
        for process in &running {
            sys::end(process, is_late).map_err(|e| Error::io("end", "the daemon", e))?;
        }
        for process in &running {
            let _ = sys::wait_readable([process.as_raw_fd()], STOP_LIMIT);
        }
        if start.elapsed() >= 2 * STOP_LIMIT {
            return Err(Error::input("the daemon does not end"));
        }
    }
}

/// The daemons that run the installed program. The same path in a container is another program.
fn running(host: &Host) -> Vec<OwnedFd> {
    let program = host.at(&host.layout.program);
    let Ok(program) = fs::canonicalize(&program) else {
        return Vec::new();
    };
    let replaced = PathBuf::from(format!("{} (deleted)", program.display()));
    let look = |pid: &str, what: &str| std::fs::read_link(format!("/proc/{pid}/{what}"));
    let Ok(here) = look("self", "ns/mnt") else {
        return Vec::new();
    };
    let is_daemon = |pid: u32| {
        let id = pid.to_string();
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        look(&id, "exe").is_ok_and(|exe| exe == program || exe == replaced)
            && look(&id, "ns/mnt").is_ok_and(|there| there == here)
            && arguments.split(|byte| *byte == 0).nth(1) == Some(b"daemon")
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            // Held before it is looked at, so that what is ended is what was seen.
            let process = sys::process(pid).ok()?;
            is_daemon(pid).then_some(process)
        })
        .collect()
}
