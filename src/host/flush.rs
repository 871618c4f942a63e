//! `flush`: waits until the daemon has uploaded everything, for machines that are about to go away.

use crate::error::{Error, Result};
use crate::output;
use crate::protocol::control::{self, Ask, Reply};
use crate::report::RemoteReport;
use crate::size::{show_age, show_size};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_millis(500);

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How `flush` is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the daemon's control socket is.
    pub socket: std::path::PathBuf,
    /// How long to wait.
    pub timeout: Duration,
}

/// Waits until nothing is left to upload, and says what was.
///
/// # Errors
/// When no daemon answers, it uploads nothing, or something is left when the time is over.
pub fn run(options: &Options) -> Result<()> {
    output::print(&wait(options)?)
}

/// As [`run`]; gives what there is to say.
///
/// # Errors
/// As [`run`].
pub fn wait(options: &Options) -> Result<String> {
    let start = Instant::now();
    let first = ask(&options.socket)?;
    if first.mode == "read" {
        return Err(Error::input(
            "the daemon uploads nothing: it runs with --remote-mode read",
        ));
    }
    let visible = std::io::stderr().is_terminal();
    let mut most = first.queue;
    let mut now = first.clone();
    while now.queue > 0 {
        most = most.max(now.queue);
        if visible {
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{} of {most} uploads left{}",
                now.queue,
                paused(&now)
            );
        }
        if start.elapsed() >= options.timeout {
            clear(visible);
            return Err(Error::input(format!(
                "{} uploads left after {}{}",
                now.queue,
                show_age(options.timeout),
                paused(&now)
            )));
        }
        std::thread::sleep(EVERY);
        now = ask(&options.socket)?;
    }
    clear(visible);
    Ok(format!(
        "all uploaded to {}: {} sent since the daemon started ({} on the wire), {} refused, {} dropped\n",
        now.url,
        show_size(now.sent),
        show_size(now.wire_sent),
        now.refused,
        now.dropped
    ))
}

fn clear(visible: bool) {
    if visible {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

fn paused(report: &RemoteReport) -> String {
    match &report.writing_paused {
        Some(why) => format!("; uploads are paused: {why}"),
        None => String::new(),
    }
}

fn ask(socket: &Path) -> Result<RemoteReport> {
    match control::ask(socket, &Ask::Live.into(), ANSWER_LIMIT, &mut |_| {})
        .map_err(control::only_root)?
    {
        Reply::Live(live) => live
            .remote
            .ok_or_else(|| Error::input("the daemon has no remote: start it with --remote URL")),
        _ => Err(Error::peer(
            "unexpected answer: is the daemon of another version?",
        )),
    }
}
