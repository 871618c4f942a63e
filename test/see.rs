//! What the tool shows of its work: builds that have ended, metrics, the page.

use crate::client::Client;
use crate::store::Mount;
use crate::support::{Daemon, TempDir, binary};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

pub fn run(daemon: &Daemon, args: &[&str]) -> String {
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

/// The builds that have ended, which is all of them: somebody has to look at their lifelines first.
pub fn ended(daemon: &Daemon) -> Vec<serde_json::Value> {
    daemon.wait_until("all builds have ended", || daemon.stats()["builds"] == 0);
    let json = run(daemon, &["stats", "--builds", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(listed["schema"], 1);
    listed["builds"].as_array().unwrap().clone()
}

/// Waits until the daemon has ended the last build's session, and knows when.
pub fn wait_for_end(daemon: &Daemon) {
    daemon.session_end();
    daemon.wait_until("nothing is looked at any more", || {
        daemon.stats()["sessions"] == 0
    });
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
    wait_for_end(daemon);
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
        wait_for_end(&daemon);
    }
    let builds = ended(&daemon);
    let saved: Vec<_> = builds
        .iter()
        .map(|build| build["saved_ms"].as_u64().unwrap())
        .collect();
    assert!(saved[0] > 0, "its own");
    assert_eq!(saved, [saved[0]; 3]);
    let stats = daemon.stats();
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
        "gocacheprog_puts_total 1",
        "gocacheprog_output_size_bytes_sum 9",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
    check_metrics(&text);
}

/// What Prometheus itself says of metrics.
fn promtool(args: &[&str], stdin: &str) {
    let fetched = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/test/fetch-promtool"))
        .output()
        .unwrap();
    assert!(fetched.status.success(), "{fetched:?}");
    let program = String::from_utf8(fetched.stdout).unwrap();
    let mut promtool = Command::new(program.trim_end())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = promtool.stdin.take().unwrap();
    to.write_all(stdin.as_bytes()).unwrap();
    drop(to);
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // What it only warns of is on stderr.
    assert!(output.stderr.is_empty(), "{output:?}");
}

fn check_metrics(text: &str) {
    promtool(&["check", "metrics"], text);
}

#[test]
fn the_file_of_metrics_is_whole_at_all_times_and_says_the_same() {
    let dir = TempDir::new();
    let folder = TempDir::new();
    let path = folder.path().join("gocacheprog.prom");
    let metrics_file = path.to_str().unwrap();
    let args = [
        "--metrics-file",
        metrics_file,
        "--remote",
        "http://127.0.0.1:9/",
    ];
    let mut daemon = Daemon::start_with(dir.path(), &args);
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    daemon.wait_until("the file is there", || !read().is_empty());
    let at_start = read();
    check_metrics(&at_start);
    build(&daemon, "hello");
    daemon.terminate();
    daemon.wait();
    let at_end = read();
    check_metrics(&at_end);
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| Some(line.split(['{', ' ']).next()?.into()))
            .collect()
    };
    assert!(at_start.contains("gocacheprog_gets_total 0\n"));
    assert!(at_end.contains("gocacheprog_gets_total 2\n"), "{at_end}");
    assert!(at_end.contains("gocacheprog_remote_queue "), "{at_end}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // What is made of them names nothing that is not there.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/prometheus");
    let alerts = root.join("alerts.yml");
    promtool(&["check", "rules", alerts.to_str().unwrap()], "");
    let names = names(&at_end);
    for file in ["alerts.yml", "dashboard.json"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let used = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: Vec<_> = used
            .filter(|word| word.starts_with("gocacheprog_"))
            .collect();
        assert!(used.len() > 3);
        for name in used {
            assert!(names.iter().any(|there| there == name), "{file}: {name}");
        }
    }
    let dashboard = std::fs::read(root.join("dashboard.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&dashboard).unwrap();
}

#[test]
fn a_file_of_metrics_that_cannot_be_written_costs_no_build() {
    let dir = TempDir::new();
    let args = ["--metrics-file", "/proc/no/such/folder/x.prom"];
    let daemon = Daemon::start_with(dir.path(), &args);
    // It gets what it asks for, and waits for nothing.
    build(&daemon, "hello");
}

#[test]
fn a_full_or_read_only_disk_loses_records_and_no_build() {
    let dir = TempDir::new();
    let mut daemon = Daemon::start_in(dir.path());
    let journal = daemon.cache_dir().join("journal");
    let _disk = Mount::tmpfs(&journal, "64k");
    std::fs::create_dir_all(daemon.cache_dir().join("compile-times/is a folder")).unwrap();
    let recorded = |daemon: &Daemon, name: &str| {
        build(daemon, name);
        ended(daemon).iter().any(|build| build["name"] == name)
    };
    assert!(recorded(&daemon, "before"));
    let filler = journal.join("filler");
    let _ = std::fs::write(&filler, vec![7; 1 << 20]);
    // The last page of the file has room for some.
    let lost = (0..60).find(|n| !recorded(&daemon, &format!("while it is full {n}")));
    assert!(lost.is_some());
    std::fs::remove_file(&filler).unwrap();
    let read_only = Mount::read_only(&journal);
    assert!(!recorded(&daemon, "while it is read-only"));
    drop(read_only);
    assert!(recorded(&daemon, "after"));
    assert!(recorded(&daemon, "before"), "the same name again");
    daemon.restart();
    let builds = ended(&daemon);
    let last: Vec<_> = builds[builds.len() - 2..]
        .iter()
        .map(|build| &build["name"])
        .collect();
    assert_eq!(last, ["after", "before"]);
}
