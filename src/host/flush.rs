//! `flush`: waits until the daemon has uploaded everything, for machines that are about to go away.

use crate::error::{Error, Result};
use crate::output;
use crate::protocol::control::{self, Ask, Reply};
use crate::report::RemoteReport;
use crate::size::{count, show_age, show_size};
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

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All is uploaded, which this says.
    All(String),
    /// Nothing is left to upload, but some was given up: how much, and why.
    Part(String),
}

/// Waits until nothing is left to upload, and says what was.
///
/// # Errors
/// When no daemon answers, it uploads nothing, something is left when the time is over, or was given up.
pub fn run(options: &Options) -> Result<()> {
    match wait(options)? {
        Flushed::All(text) => output::print(&text),
        Flushed::Part(why) => Err(Error::input(why)),
    }
}

/// Waits until nothing is left to upload.
///
/// # Errors
/// When no daemon answers, it uploads nothing, or something is left when the time is over.
pub fn wait(options: &Options) -> Result<Flushed> {
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
    Ok(flushed(&now))
}

/// What has become of everything, once nothing is left.
fn flushed(report: &RemoteReport) -> Flushed {
    if report.given_up > 0 {
        let why = report.upload_failure.as_ref();
        return Flushed::Part(format!(
            "not everything was uploaded to {}: {} given up since the daemon started ({}); its log says more",
            report.url,
            count(report.given_up, "upload"),
            why.map_or("too many waited".into(), |why| format!(
                "last failure: {why}"
            ))
        ));
    }
    Flushed::All(format!(
        "all uploaded to {}: {} sent since the daemon started ({} on the wire)\n",
        report.url,
        show_size(report.sent),
        show_size(report.wire_sent)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_not_uploaded() {
        let mut report = RemoteReport {
            url: "https://cache.test".into(),
            sent: 5 << 20,
            ..RemoteReport::default()
        };
        let Flushed::All(text) = flushed(&report) else {
            panic!("all is uploaded");
        };
        assert!(text.starts_with("all uploaded to https://cache.test: 5"));
        report.given_up = 2;
        report.upload_failure = Some("status 413".into());
        let Flushed::Part(text) = flushed(&report) else {
            panic!("not all is uploaded");
        };
        assert!(!text.contains("all uploaded"), "{text}");
        assert!(
            text.contains("2 uploads given up") && text.contains("status 413"),
            "{text}"
        );
    }
}
