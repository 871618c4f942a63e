//! What happened with the remote, in numbers, and how a person gets to see it.

use crate::report::RemoteReport;
use crate::size::show_size;
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
    pub(super) untrusted: AtomicU64,
    pub(super) malformed: AtomicU64,
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
    pub fn report(&self) -> RemoteReport {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RemoteReport {
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
            untrusted: get(&self.untrusted),
            malformed: get(&self.malformed),
            waited_us: get(&self.waited_us),
            latency_us: get(&self.waited_us) / get(&self.waits).max(1),
            ..RemoteReport::default()
        }
    }
}

impl RemoteReport {
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
                "{} hits, {} misses, {} read ahead, {} received ({} on the wire), {:.1} ms each",
                self.hits,
                self.misses,
                self.ahead,
                show_size(self.received),
                show_size(self.wire_received),
                self.latency_us as f64 / 1000.0
            ),
        );
        line(
            "  puts",
            format!(
                "{} uploaded, {} there already, {} refused, {} sent ({} on the wire); {} wait, {} dropped",
                self.uploads,
                self.there,
                self.refused,
                show_size(self.sent),
                show_size(self.wire_sent),
                self.queue,
                self.dropped
            ),
        );
        line(
            "  trouble",
            format!(
                "{} errors, {} damaged outputs discarded, {} malformed entries, {} entries without a trusted signature, \
                 {} gets timed out",
                self.errors, self.damaged, self.malformed, self.untrusted, self.late
            ),
        );
        for (what, paused) in [
            ("reads", &self.reading_paused),
            ("uploads", &self.writing_paused),
        ] {
            if let Some(why) = paused {
                line("  paused", format!("{what}: {why}"));
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
        assert!(report.table().contains("reads: it is gone"));
        // What an older daemon does not say is nothing.
        let older: RemoteReport = serde_json::from_str("{\"url\":\"x\"}").unwrap();
        assert_eq!(older.hits, 0);
    }
}
