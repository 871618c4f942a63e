//! What is kept, for whom, and how often it is fetched.

use super::*;

#[test]
fn what_never_changes_is_fetched_once_for_all_proxies_of_a_daemon() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let first = Proxy::start(&daemon, &upstream.url);
    let mut second = Proxy::start(&daemon, &upstream.url);
    for proxy in [&first, &second] {
        for (path, content_type) in [
            (INFO, "application/json"),
            (MOD, "text/plain; charset=utf-8"),
            (ZIP, "application/zip"),
            (LIST, "text/plain; charset=utf-8"),
            ("/example.test/m/@latest", "application/json"),
            ("/example.test/m/@v/main.info", "application/json"),
        ] {
            let got = proxy.get(path);
            assert_eq!(
                (got.status, &got.body),
                (200, &file(path).unwrap()),
                "{path}"
            );
            let header = format!("content-type: {content_type}\r\n");
            assert!(got.headers.contains(&header), "{path}: {}", got.headers);
            let head = ask(&proxy.url, "HEAD", path);
            assert_eq!(head.status, 200);
            let length = format!("content-length: {}\r\n", got.body.len());
            assert!(head.headers.contains(&length), "{path}: {}", head.headers);
        }
    }
    for path in [INFO, MOD, ZIP] {
        assert_eq!(upstream.count(path), 1, "{path}");
    }
    for path in [
        LIST,
        "/example.test/m/@latest",
        "/example.test/m/@v/main.info",
    ] {
        assert_eq!(upstream.count(path), 4, "{path}");
    }
    // And the last of what may change, for when the upstream is down.
    assert_eq!(daemon.actions(), 3 + 3);
    // All under keys by which the daemon knows that they are modules'.
    for shard in std::fs::read_dir(daemon.cache_dir().join("actions")).unwrap() {
        for action in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            let name = action.unwrap().file_name().into_string().unwrap();
            assert!(name.ends_with("2d6d6f64756c6500"), "{name}");
        }
    }
    assert_eq!(second.end("upstream_immutable"), 0);
}

#[test]
fn a_file_that_is_asked_for_many_times_at_once_is_fetched_once() {
    let daemon = Daemon::start();
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let upstream = Upstream::start(move |asked, to| {
        held.wait();
        module(asked, to)
    });
    let proxy = Proxy::start(&daemon, &upstream.url);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(proxy.get(ZIP).body, file(ZIP).unwrap()));
        }
        daemon.wait_until("all have asked", || {
            proxy.log().matches("v1.0.0.zip: asked for").count() == 20
        });
        gate.open();
    });
    assert_eq!(upstream.count(ZIP), 1);
}

#[test]
fn a_checksum_database_is_asked_through_the_upstream_that_supports_it() {
    let daemon = Daemon::start();
    let without = Upstream::start(module);
    let with = Upstream::start(|asked, to| match asked.path {
        "/sumdb/sum.test/supported" => reply(to, "200 OK", "", b""),
        "/sumdb/sum.test/tile/8/0/001" => reply(to, "200 OK", "", &[7; 8192]),
        "/sumdb/sum.test/tile/8/0/002" => reply(to, "200 OK", "", &[7; 99]),
        "/sumdb/sum.test/tile/8/0/003.p/5" => reply(to, "200 OK", "", &[7; 160]),
        "/sumdb/sum.test/latest" => reply(to, "200 OK", "", b"tree\n"),
        "/sumdb/sum.test/lookup/example.test/m@v1.0.0" => reply(to, "200 OK", "", b"sums\n"),
        _ => not_found(to),
    });
    let list = format!("{},{}", without.url, with.url);
    for round in 1..=2 {
        let proxy = Proxy::start(&daemon, &list);
        for (path, status) in [
            ("tile/8/0/001", 200),
            ("supported", 200),
            ("tile/8/0/002", 404),
            ("tile/8/0/003.p/5", 200),
            ("latest", 200),
            ("lookup/example.test/m@v1.0.0", 200),
            ("lookup/example.test/m@v9.0.0", 404),
        ] {
            let got = proxy.get(&format!("/sumdb/sum.test/{path}"));
            assert_eq!(got.status, status, "{path}");
        }
        assert_eq!(proxy.get("/sumdb/other.test/latest").status, 404);
        // A full tile never changes; all else does.
        assert_eq!(with.count("/sumdb/sum.test/tile/8/0/001"), 1);
        assert_eq!(with.count("/sumdb/sum.test/tile/8/0/002"), round);
        assert_eq!(with.count("/sumdb/sum.test/tile/8/0/003.p/5"), round);
    }
    assert_eq!(without.count("/sumdb/sum.test/tile/8/0/002"), 0);
    // The tile, and the last of what may change, for when the upstream is down.
    assert_eq!(daemon.actions(), 1 + 4);
}

#[test]
fn a_daemon_that_ends_and_comes_back_is_used_again() {
    let mut daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    assert_eq!(proxy.get(ZIP).status, 200);
    daemon.restart();
    assert_eq!(proxy.get(ZIP).body, file(ZIP).unwrap());
    assert_eq!(upstream.count(ZIP), 1);
}
