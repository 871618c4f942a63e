//! The daemon's figures as Prometheus reads them: names and units by its conventions.

use crate::histogram::Snapshot;
use crate::report::Report;
use std::fmt::Write;

/// The metrics, in Prometheus' text format.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut metric = |kind: &str, name: &str, help: &str, value: f64| {
        let _ = write!(
            out,
            "# HELP gocacheprog_{name} {help}\n# TYPE gocacheprog_{name} {kind}\ngocacheprog_{name} {value}\n"
        );
    };
    let counts = &report.since_start;
    let contents = &report.contents;
    metric(
        "counter",
        "gets_total",
        "Gets since the daemon started.",
        counts.gets as f64,
    );
    metric(
        "counter",
        "hits_total",
        "Gets answered with an output.",
        counts.hits as f64,
    );
    metric(
        "counter",
        "misses_total",
        "Gets answered without one.",
        counts.misses() as f64,
    );
    metric("counter", "puts_total", "Puts stored.", counts.puts as f64);
    metric(
        "counter",
        "request_errors_total",
        "Requests that failed.",
        counts.errors as f64,
    );
    metric(
        "counter",
        "read_bytes_total",
        "Size of the outputs of all hits.",
        counts.bytes_read as f64,
    );
    metric(
        "counter",
        "written_bytes_total",
        "Size of the outputs of all puts.",
        counts.bytes_written as f64,
    );
    metric(
        "counter",
        "saved_compile_seconds_total",
        "Time it took to compile the outputs of all hits, as measured when they were put.",
        counts.saved_ms as f64 / 1e3,
    );
    metric(
        "gauge",
        "store_bytes",
        "What outputs take on disk.",
        contents.bytes as f64,
    );
    metric(
        "gauge",
        "store_limit_bytes",
        "The most that outputs may take on disk.",
        report.max_size as f64,
    );
    metric(
        "gauge",
        "store_outputs",
        "Outputs in the store.",
        contents.outputs as f64,
    );
    metric(
        "gauge",
        "store_actions",
        "Actions in the store.",
        contents.actions as f64,
    );
    metric(
        "gauge",
        "live_bytes",
        "What running builds use of the store.",
        contents.live_bytes as f64,
    );
    metric(
        "gauge",
        "oldest_output_seconds",
        "Age of the least recently used output.",
        contents.oldest as f64,
    );
    metric(
        "gauge",
        "filesystem_free_bytes",
        "Free space on the cache's file system.",
        report.free as f64,
    );
    metric(
        "gauge",
        "filesystem_reserve_bytes",
        "Free space that is left to others.",
        report.min_free as f64,
    );
    metric(
        "gauge",
        "builds",
        "Builds that are registered.",
        report.builds as f64,
    );
    metric(
        "gauge",
        "sessions",
        "Sessions that are open.",
        report.sessions as f64,
    );
    metric(
        "gauge",
        "uptime_seconds",
        "Time since the daemon started.",
        report.running as f64,
    );
    if let Some(remote) = &report.remote {
        metric(
            "counter",
            "remote_hits_total",
            "Gets that the remote answered with an output.",
            remote.hits as f64,
        );
        metric(
            "counter",
            "remote_misses_total",
            "Gets that the remote had nothing for.",
            remote.misses as f64,
        );
        metric(
            "counter",
            "remote_prefetched_total",
            "Outputs fetched before anybody asked.",
            remote.ahead as f64,
        );
        metric(
            "counter",
            "remote_received_bytes_total",
            "Bytes of outputs fetched.",
            remote.received as f64,
        );
        metric(
            "counter",
            "remote_sent_bytes_total",
            "Bytes of outputs uploaded.",
            remote.sent as f64,
        );
        metric(
            "counter",
            "remote_uploads_total",
            "Actions uploaded.",
            remote.uploads as f64,
        );
        metric(
            "counter",
            "remote_errors_total",
            "Requests to the remote that failed.",
            remote.errors as f64,
        );
        metric(
            "gauge",
            "remote_queue",
            "Actions that wait for their upload.",
            remote.queue as f64,
        );
        let paused = |why: &Option<String>| f64::from(u8::from(why.is_some()));
        metric(
            "gauge",
            "remote_reads_paused",
            "1 while nothing is asked of the remote.",
            paused(&remote.reading_paused),
        );
        metric(
            "gauge",
            "remote_uploads_paused",
            "1 while nothing is uploaded.",
            paused(&remote.writing_paused),
        );
    }
    let latencies = &report.latencies;
    histogram(
        &mut out,
        "get_duration_seconds",
        "Time that gets took in the daemon.",
        &latencies.get_us,
        1e6,
    );
    histogram(
        &mut out,
        "put_duration_seconds",
        "Time that puts took in the daemon.",
        &latencies.put_us,
        1e6,
    );
    histogram(
        &mut out,
        "output_size_bytes",
        "Sizes of the outputs that were put.",
        &latencies.output_bytes,
        1.0,
    );
    out
}

/// `scale` units make up one of the metric's.
fn histogram(out: &mut String, name: &str, help: &str, of: &Snapshot, scale: f64) {
    let _ = write!(
        out,
        "# HELP gocacheprog_{name} {help}\n# TYPE gocacheprog_{name} histogram\n"
    );
    let mut below = 0;
    for (bound, count) in &of.buckets {
        below += count;
        let _ = writeln!(
            out,
            "gocacheprog_{name}_bucket{{le=\"{}\"}} {below}",
            *bound as f64 / scale
        );
    }
    let count = of.count();
    let _ = write!(
        out,
        "gocacheprog_{name}_bucket{{le=\"+Inf\"}} {count}\ngocacheprog_{name}_sum {}\ngocacheprog_{name}_count {count}\n",
        of.sum as f64 / scale
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;

    #[test]
    fn buckets_are_cumulative_and_in_base_units() {
        let histogram_of = Histogram::new(16);
        histogram_of.add(10);
        histogram_of.add(60);
        let mut out = String::new();
        histogram(
            &mut out,
            "x_seconds",
            "Help.",
            &histogram_of.snapshot(),
            1e6,
        );
        assert!(out.starts_with(
            "# HELP gocacheprog_x_seconds Help.\n# TYPE gocacheprog_x_seconds histogram\n\
             gocacheprog_x_seconds_bucket{le=\"0.000016\"} 1\ngocacheprog_x_seconds_bucket{le=\"0.000064\"} 2\n"
        ));
        assert!(out.ends_with(
            "gocacheprog_x_seconds_bucket{le=\"+Inf\"} 2\ngocacheprog_x_seconds_sum 0.00007\n\
             gocacheprog_x_seconds_count 2\n"
        ));
    }
}
