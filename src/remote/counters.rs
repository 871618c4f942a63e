//! What happened between us and the remote, in numbers, and how a person gets to see it.

use crate::size::show_size;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the daemon's start.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) ahead: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) uploads: AtomicU64,
    pub(super) there: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) errors: AtomicU64,
    waits: AtomicU64,
    waited_us: AtomicU64,
}

/// Adds to a counter.
pub fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Counters {
    /// A request for something that somebody waits for was answered after so long.
    pub fn waited(&self, time: Duration) {
        count(&self.waits, 1);
        count(&self.waited_us, time.as_micros() as u64);
    }

    /// The numbers as they are now; the rest is the caller's to fill in.
    pub fn report(&self) -> Report {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            hits: get(&self.hits),
            misses: get(&self.misses),
            ahead: get(&self.ahead),
            late: get(&self.late),
            received: get(&self.received),
            sent: get(&self.sent),
            uploads: get(&self.uploads),
            there: get(&self.there),
            refused: get(&self.refused),
            damaged: get(&self.damaged),
            errors: get(&self.errors),
            waited_us: get(&self.waited_us),
            latency_us: get(&self.waited_us) / get(&self.waits).max(1),
            ..Report::default()
        }
    }
}

/// How things are with the remote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Where it is, without credentials.
    pub url: String,
    /// What may be done with it.
    pub mode: String,
    /// Gets that it answered with an output.
    pub hits: u64,
    /// Gets that it had nothing for.
    pub misses: u64,
    /// Outputs that were fetched before anybody asked.
    pub ahead: u64,
    /// Gets that did not wait for it any longer.
    pub late: u64,
    /// Bytes of outputs that came from it.
    pub received: u64,
    /// Bytes of outputs that went there.
    pub sent: u64,
    /// Actions that were uploaded.
    pub uploads: u64,
    /// Actions that were there already.
    pub there: u64,
    /// Actions that it would not take, or that were gone before their turn came.
    pub refused: u64,
    /// Actions that wait to be uploaded.
    pub queue: u64,
    /// Actions that are not uploaded because too many waited.
    pub dropped: u64,
    /// Outputs that were not what their name says, and were thrown away.
    pub damaged: u64,
    /// Requests that failed.
    pub errors: u64,
    /// How long gets have waited for it in all, in microseconds.
    pub waited_us: u64,
    /// The mean time of a request that somebody waited for, in microseconds.
    pub latency_us: u64,
    /// Why nothing is asked of it for now, if it is so.
    pub reading_paused: Option<String>,
    /// Why nothing is uploaded for now, if it is so.
    pub writing_paused: Option<String>,
}

impl Report {
    /// As a person reads it: a line for each thing.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<14} {value}");
        };
        line("remote", format!("{} ({})", self.url, self.mode));
        line(
            "  gets",
            format!(
                "{} hits, {} misses, {} read ahead, {} received, {:.1} ms each",
                self.hits,
                self.misses,
                self.ahead,
                show_size(self.received),
                self.latency_us as f64 / 1000.0
            ),
        );
        line(
            "  puts",
            format!(
                "{} uploaded, {} there already, {} refused, {} sent; {} wait, {} dropped",
                self.uploads,
                self.there,
                self.refused,
                show_size(self.sent),
                self.queue,
                self.dropped
            ),
        );
        line(
            "  trouble",
            format!(
                "{} errors, {} damaged outputs thrown away, {} gets too slow",
                self.errors, self.damaged, self.late
            ),
        );
        for (what, paused) in [
            ("asked", &self.reading_paused),
            ("sent", &self.writing_paused),
        ] {
            if let Some(why) = paused {
                line("  paused", format!("nothing is {what} for now: {why}"));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_what_happened_and_what_is_wrong() {
        let counters = Counters::default();
        count(&counters.hits, 3);
        counters.waited(Duration::from_millis(10));
        counters.waited(Duration::from_millis(15));
        let mut report = counters.report();
        report.url = "https://cache.test".into();
        report.mode = "read".into();
        assert!(report.table().contains("3 hits"));
        assert!(report.table().contains("12.5 ms"));
        assert!(!report.table().contains("paused"));
        report.reading_paused = Some("it is gone".into());
        assert!(
            report
                .table()
                .contains("nothing is asked for now: it is gone")
        );
        // What an older daemon does not say is nothing.
        let older: Report = serde_json::from_str("{\"url\":\"x\"}").unwrap();
        assert_eq!(older.hits, 0);
    }
}
