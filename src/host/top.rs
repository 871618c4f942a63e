//! `top`: the running builds, refreshed in place. On a terminal it redraws each second until `q` or Ctrl-C and follows
//! the window's size; elsewhere it prints a plain line for each build each time.

use crate::error::{Error, Result};
use crate::output;
use crate::protocol::control::{self, Ask, Reply};
use crate::report::{Live, NO_NAME};
use crate::size::{show_count, show_size};
use crate::sys;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_secs(1);

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The lines above the builds.
const HEAD: usize = 4;

/// Shows the builds until the user has seen enough; `rounds` bounds how often, if it is given.
///
/// # Errors
/// When there is no daemon, or it does not answer.
pub fn run(socket: &Path, rounds: Option<u64>) -> Result<()> {
    let stdout = std::io::stdout();
    let plain = !stdout.is_terminal() || std::env::var_os("TERM").is_none_or(|t| t == "dumb");
    let colour = output::has_colour();
    let screen = if plain {
        None
    } else {
        Some(sys::Screen::enter()?)
    };
    let mut before: Option<(Instant, Live)> = None;
    let mut round = 0;
    loop {
        let live = match control::ask(socket, &Ask::Live.into(), LIMIT, &mut |_| {})
            .map_err(control::only_root)?
        {
            Reply::Live(live) => *live,
            _ => {
                return Err(Error::peer(
                    "unexpected answer: is the daemon of another version?",
                ));
            }
        };
        let now = Instant::now();
        let since = before
            .as_ref()
            .map(|(then, live)| (now.duration_since(*then), live));
        let text = match &screen {
            Some(screen) => {
                let (columns, rows) = screen.size();
                let mut text = String::from("\x1b[H");
                for line in frame(&live, since, columns, rows, colour) {
                    let _ = write!(text, "{line}\x1b[K\r\n");
                }
                text.push_str("\x1b[J");
                text
            }
            None => lines(&live),
        };
        let mut stdout = stdout.lock();
        if let Err(e) = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            // Whoever reads has had enough.
            return match e.kind() {
                std::io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(Error::io("write to", "stdout", e)),
            };
        }
        before = Some((now, live));
        round += 1;
        if rounds.is_some_and(|rounds| round >= rounds) {
            return Ok(());
        }
        match &screen {
            Some(screen) => {
                if screen.wait_for_key(EVERY, b"q\x03\x1b")? {
                    return Ok(());
                }
            }
            None => std::thread::sleep(EVERY),
        }
    }
}

/// A plain line for each running build.
fn lines(live: &Live) -> String {
    let mut out = String::new();
    for build in live.builds.iter().filter(|build| build.sessions > 0) {
        let _ = writeln!(
            out,
            "build={} name={:?} age={}s sessions={} {}",
            build.build, build.name, build.age, build.sessions, build.counts
        );
    }
    if out.is_empty() {
        out.push_str("no build is running\n");
    }
    out
}

/// The screen's lines, none longer than `columns`, no more than fit in `rows`.
fn frame(
    live: &Live,
    since: Option<(Duration, &Live)>,
    columns: usize,
    rows: usize,
    colour: bool,
) -> Vec<String> {
    let rate = |now: u64, then: u64, time: Duration| {
        (now.saturating_sub(then) as f64 / time.as_secs_f64().max(0.001)).round() as u64
    };
    let running = live
        .builds
        .iter()
        .filter(|build| build.sessions > 0)
        .count();
    let gets = since.map_or(0, |(time, then)| {
        rate(live.since_start.gets, then.since_start.gets, time)
    });
    let mut lines = vec![
        format!(
            "nix-gocacheprog  {running} running, {} registered   {} gets/s, {} hits   {} of {}",
            live.builds.len(),
            show_count(gets),
            live.since_start.rate(),
            show_size(live.bytes),
            show_size(live.max_size)
        ),
        match &live.remote {
            Some(remote) => format!(
                "remote {}  {} queued, {} received, {} sent{}",
                remote.url,
                remote.queue,
                show_size(remote.received),
                show_size(remote.sent),
                remote
                    .reading_paused
                    .as_ref()
                    .map_or("", |_| ", reads paused")
            ),
            None => String::new(),
        },
        String::new(),
    ];
    let wide = columns.saturating_sub(47).clamp(8, 48);
    lines.push(format!(
        "{:<wide$} {:>5} {:>8} {:>7} {:>7} {:>6} {:>8}",
        "BUILD", "AGE", "GETS/S", "HITS", "MISSES", "RATE", "READ"
    ));
    let before: HashMap<&str, u64> = since.map_or_else(HashMap::new, |(_, then)| {
        let gets = then.builds.iter();
        gets.map(|build| (build.build.as_str(), build.counts.gets))
            .collect()
    });
    let room = rows.saturating_sub(HEAD + 1);
    for build in live.builds.iter().take(room) {
        let name = if build.name.is_empty() {
            NO_NAME
        } else {
            &build.name
        };
        let name: String = name
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .take(wide)
            .collect();
        let gets = since.map_or(0, |(time, _)| {
            let then = before.get(build.build.as_str()).copied().unwrap_or(0);
            rate(build.counts.gets, then, time)
        });
        lines.push(format!(
            "{name:<wide$} {:>5} {gets:>8} {:>7} {:>7} {:>6} {:>8}",
            age(build.age),
            build.counts.hits,
            build.counts.misses(),
            build.counts.rate(),
            show_size(build.counts.bytes_read).replace(' ', "")
        ));
    }
    let mut lines: Vec<String> = lines
        .into_iter()
        .take(rows.saturating_sub(1))
        .map(|line| line.chars().take(columns).collect())
        .collect();
    if colour && let Some(head) = lines.get_mut(HEAD - 1) {
        *head = format!("\x1b[7m{head}\x1b[0m");
    }
    lines
}

/// `42s`, `12m`, `3h`, `9d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5_999 => format!("{}m", seconds / 60),
        6_000..=359_999 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Counts;
    use crate::report::LiveBuild;

    fn live(gets: u64) -> Live {
        let counts = Counts {
            gets,
            hits: gets - 1,
            bytes_read: 487 << 20,
            ..Counts::default()
        };
        Live {
            since_start: counts,
            bytes: 1 << 30,
            max_size: 20 << 30,
            builds: vec![
                LiveBuild {
                    build: "ab".into(),
                    name: "containerd-2.4.2\u{1b}[31m".into(),
                    age: 125,
                    sessions: 1,
                    counts,
                },
                LiveBuild::default(),
            ],
            remote: None,
        }
    }

    #[test]
    fn a_frame_fits_the_window_and_rates_are_per_second() {
        let (then, now) = (live(1000), live(3000));
        for (columns, rows) in [(80, 24), (40, 10), (20, 3), (200, 50)] {
            let lines = frame(
                &now,
                Some((Duration::from_secs(2), &then)),
                columns,
                rows,
                false,
            );
            assert!(lines.len() < rows, "{columns}x{rows}");
            assert!(lines.iter().all(|line| line.chars().count() <= columns));
            assert!(lines.iter().all(|line| !line.contains('\u{1b}')));
        }
        let lines = frame(&now, Some((Duration::from_secs(2), &then)), 80, 24, false);
        assert!(lines[0].contains("1,000 gets/s"), "{}", lines[0]);
        assert!(lines[4].contains("  2m     1000"), "{}", lines[4]);
        assert!(lines[5].starts_with("(dev shell)"));
    }

    #[test]
    fn without_a_terminal_each_running_build_has_a_line() {
        let text = lines(&live(5));
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with(
            "build=ab name=\"containerd-2.4.2\\u{1b}[31m\" age=125s sessions=1 gets=5"
        ));
        assert_eq!(lines(&Live::default()), "no build is running\n");
    }
}
