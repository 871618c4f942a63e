//! What the tool shows of its work: builds that have ended, metrics, the page.

use crate::client::Client;
use crate::support::{Daemon, TempDir, binary};
use std::process::Command;

fn run(daemon: &Daemon, args: &[&str]) -> String {
    let output = Command::new(binary())
        .args(args)
        .arg("--cache-dir")
        .arg(daemon.cache_dir())
        .arg("--runtime-dir")
        .arg(daemon.runtime_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The builds that have ended.
fn ended(daemon: &Daemon) -> Vec<serde_json::Value> {
    let json = run(daemon, &["stats", "--builds", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(listed["schema"], 1);
    listed["builds"].as_array().unwrap().clone()
}

/// A client of a build.
fn client(daemon: &Daemon, top: &TempDir, name: &str) -> Client {
    let mut command = Command::new(binary());
    command
        .args(["client", "--runtime-dir"])
        .arg(daemon.runtime_dir())
        .env("NIX_BUILD_TOP", top.path())
        .env("name", name)
        .env_remove("IN_NIX_SHELL");
    Client::spawn(command)
}

/// One build with a hit and a miss.
fn build(daemon: &Daemon, name: &str) {
    let top = TempDir::new();
    let mut client = client(daemon, &top, name);
    client.get(1, 7);
    client.put(2, 7, b"an output");
    client.get(3, 7);
    assert_eq!(client.close(), "");
}

#[test]
fn builds_that_have_ended_are_listed_and_outlive_the_daemon() {
    let dir = TempDir::new();
    let mut daemon = Daemon::start_in(dir.path());
    build(&daemon, "<b>hello</b>-1.0");
    for _ in 0..2 {
        daemon.restart();
        let builds = ended(&daemon);
        assert_eq!(builds.len(), 1, "{builds:?}");
        assert_eq!(builds[0]["name"], "<b>hello</b>-1.0");
        assert_eq!(builds[0]["counts"]["gets"], 2);
        assert_eq!(builds[0]["counts"]["hits"], 1);
        assert_eq!(builds[0]["tier"], "shared");
    }
    let table = run(&daemon, &["stats", "--since", "1h"]);
    assert!(table.contains("<b>hello</b>-1.0"), "{table}");
    let page = run(&daemon, &["report"]);
    assert!(page.starts_with("<!doctype html>") && page.contains("&lt;b&gt;hello"));
    assert!(!page.contains("<b>hello") && !page.contains("http://"));
    daemon.end();
    // From the directory itself.
    let dir_of = dir.path().join("cache");
    let output = Command::new(binary())
        .args(["stats", "--builds", "--cache-dir"])
        .arg(dir_of)
        .output()
        .unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("hello"));
}

#[test]
fn a_hit_saves_what_compiling_took_in_whatever_build_and_after_a_restart() {
    let dir = TempDir::new();
    let mut daemon = Daemon::start_in(dir.path());
    build(&daemon, "hello-1.0");
    daemon.restart();
    // The same name finds its output prefetched, perhaps; another one asks.
    for name in ["hello-1.0", "world-1.0"] {
        let top = TempDir::new();
        let mut client = client(&daemon, &top, name);
        client.get(1, 7);
        // The put that follows no miss is not timed.
        client.put(2, 8, b"another output");
        client.get(3, 8);
        assert_eq!(client.close(), "");
    }
    let builds = ended(&daemon);
    let saved: Vec<_> = builds
        .iter()
        .map(|build| build["saved_ms"].as_u64().unwrap())
        .collect();
    assert!(saved[0] > 0, "its own");
    assert_eq!(saved, [saved[0]; 3]);
    let stats: serde_json::Value =
        serde_json::from_str(&run(&daemon, &["stats", "--json"])).unwrap();
    assert_eq!(stats["since_start"]["saved_ms"], 2 * saved[0]);
    assert_eq!(stats["last_day"]["saved_ms"], 3 * saved[0]);
    let metric = format!(
        "gocacheprog_saved_compile_seconds_total {}",
        2.0 * saved[0] as f64 / 1e3
    );
    let metrics = run(&daemon, &["stats", "--prometheus"]);
    assert!(
        metrics.lines().any(|line| line == metric),
        "no {metric} in {metrics}"
    );
}

#[test]
fn metrics_are_in_prometheus_text_format() {
    let daemon = Daemon::start();
    build(&daemon, "hello");
    let text = run(&daemon, &["stats", "--prometheus"]);
    for line in [
        "# TYPE gocacheprog_gets_total counter",
        "gocacheprog_gets_total 2",
        "gocacheprog_hits_total 1",
        "gocacheprog_store_outputs 1",
        "gocacheprog_get_duration_seconds_count 2",
        "gocacheprog_output_size_bytes_sum 9",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
    // Each sample belongs to a metric that was described before.
    let mut described = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => described.push(rest.split(' ').next().unwrap()),
            None if line.starts_with('#') => {}
            None => assert!(line.starts_with(described.last().unwrap()), "{line}"),
        }
    }
}
