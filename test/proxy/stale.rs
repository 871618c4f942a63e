//! What a team gets when its upstream is down.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

const LATEST: &str = "/example.test/m/@latest";
const BRANCH: &str = "/example.test/m/@v/main.info";
const LOOKUP: &str = "/sumdb/sum.test/lookup/example.test/m@v1.0.0";

/// An upstream with a checksum database, which answers 503 while it is down.
fn upstream(is_down: &Arc<AtomicBool>) -> Upstream {
    let is_down = Arc::clone(is_down);
    Upstream::start(move |asked, to| match asked.path {
        // The end of the world, but without a wait.
        _ if is_down.load(Ordering::Relaxed) => {
            reply(to, "503 Down", "Retry-After: 86400\r\n", b"down\n")
        }
        "/sumdb/sum.test/supported" => reply(to, "200 OK", "", b""),
        LOOKUP => reply(to, "200 OK", "", b"1\nexample.test/m v1.0.0 h1:x\n"),
        _ => module(asked, to),
    })
}

fn start(list: &str, dir: &TempDir, more: &[&str]) -> Proxy {
    Proxy::start_with(list, |command| {
        command.arg("--runtime-dir").arg(dir.path());
        command.arg("--cache-dir").arg(dir.path().join("cache"));
        command.args(more);
    })
}

#[test]
fn a_team_whose_upstream_is_down_gets_what_it_said_last_and_a_mark_on_it() {
    let dir = TempDir::new();
    let is_down = Arc::new(AtomicBool::new(false));
    let upstream = upstream(&is_down);
    let mut proxy = start(&upstream.url, &dir, &[]);
    let supported = "/sumdb/sum.test/supported";
    let paths = [LIST, LATEST, BRANCH, supported, LOOKUP];
    let before = paths.map(|path| proxy.get(path));
    for (path, got) in paths.iter().zip(&before) {
        assert_eq!(got.status, 200, "{path}");
        assert!(!got.headers.contains("warning: "), "{}", got.headers);
    }
    assert_eq!(proxy.get(ZIP).status, 200);
    let check = |proxy: &Proxy| {
        for (path, was) in paths.iter().zip(&before) {
            let got = proxy.get(path);
            assert_eq!((got.status, &got.body), (200, &was.body), "{path}");
            let marked = got.headers.contains("warning: 110 ") && got.headers.contains("\r\nage: ");
            assert!(marked, "{path}: {}", got.headers);
        }
        let got = proxy.get(ZIP);
        assert_eq!(got.body, file(ZIP).unwrap());
        assert!(!got.headers.contains("warning: "), "{}", got.headers);
        assert_eq!(proxy.get("/example.test/other/@v/list").status, 503);
    };
    is_down.store(true, Ordering::Relaxed);
    check(&proxy);
    assert_eq!(proxy.end("stale"), 5);
    // The next one remembers it too, and one that is offline asks nobody.
    drop(proxy);
    let proxy = start(&upstream.url, &dir, &[]);
    check(&proxy);
    drop(proxy);
    let asked = upstream.heads().len();
    let proxy = start(&upstream.url, &dir, &["--offline"]);
    check(&proxy);
    assert_eq!(upstream.heads().len(), asked);
    drop(proxy);

    // Up again, it is believed again.
    is_down.store(false, Ordering::Relaxed);
    let proxy = start(&upstream.url, &dir, &[]);
    assert!(!proxy.get(LIST).headers.contains("warning: "));
}

#[test]
fn a_version_that_is_gone_or_forbidden_is_not_answered_from_memory() {
    let dir = TempDir::new();
    let upstream = Upstream::start(|asked, to| match asked.before {
        0 => module(asked, to),
        1 => not_found(to),
        _ => reply(to, "403 Forbidden", "", b"not for you\n"),
    });
    let proxy = start(&upstream.url, &dir, &[]);
    for status in [200, 404, 403] {
        assert_eq!(proxy.get(LIST).status, status);
    }
}

#[test]
fn go_gets_the_latest_version_that_an_offline_proxy_has() {
    let go = Go::pinned("1.27");
    let dir = TempDir::new();
    let is_down = Arc::new(AtomicBool::new(false));
    let upstream = upstream(&is_down);
    let get_latest = |proxy: &Proxy| {
        let home = TempDir::new();
        std::fs::write(home.path().join("go.mod"), "module test\n\ngo 1.21\n").unwrap();
        let output = go_command(&go, &home, &proxy.url)
            .env("GOFLAGS", "-modcacherw")
            .args(["get", "example.test/m@latest"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        std::fs::read_to_string(home.path().join("go.mod")).unwrap()
    };
    let online = get_latest(&start(&upstream.url, &dir, &[]));
    assert!(online.contains("example.test/m v1.1.0"), "{online}");
    is_down.store(true, Ordering::Relaxed);
    let asked = upstream.heads().len();
    assert_eq!(
        get_latest(&start(&upstream.url, &dir, &["--offline"])),
        online
    );
    assert_eq!(upstream.heads().len(), asked);
}
