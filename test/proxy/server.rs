//! Requests and connections: what a client may do, and what it cannot do to others.

use super::*;

#[test]
fn what_is_no_request_to_a_module_proxy_is_refused() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/example.test/m/@v/..%2f..%2fx.zip", 404),
        ("GET", "/example.test/m/@v/list?go-get=1", 404),
        ("POST", LIST, 405),
        ("DELETE", ZIP, 405),
    ] {
        assert_eq!(
            ask(&proxy.url, method, path).status,
            status,
            "{method} {path}"
        );
    }
    // Bodies, which `go` never sends: whole ones, and one that is announced to be larger than any memory.
    for length in [10, 2000, 64 << 10] {
        let body = "x".repeat(length);
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        let head =
            format!("POST {LIST} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(text(&answer), "HTTP/1.1 405");
    }
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    let length = format!("Content-Length: {}\r\n", 1_u64 << 50);
    assert_eq!(ask_on(&mut stream, "GET", LIST, &length).status, 400);
    assert_eq!(upstream.heads().len(), 0);
    assert_eq!(proxy.get(LIST).status, 200);
}

#[test]
fn slow_ones_hold_up_nobody() {
    let daemon = Daemon::start();
    // All that are slow wait until the fast ones have been answered.
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let upstream = Upstream::start(move |asked, to| {
        if asked.path.contains("/slow") {
            held.wait();
        }
        reply(to, "200 OK", "", b"v1.0.0\n")
    });
    let proxy = Proxy::start_with(&upstream.url, |command| {
        command
            .args(["--read-limit", "60s", "--runtime-dir"])
            .arg(daemon.runtime_dir());
    });
    std::thread::scope(|scope| {
        for n in 0..100 {
            let url = &proxy.url;
            scope.spawn(move || {
                assert_eq!(
                    get(url, &format!("/example.test/slow{n}/@v/list")).status,
                    200
                );
            });
        }
        daemon.wait_until("all the slow ones are with the upstream", || {
            upstream.heads().len() == 100
        });
        for n in 0..50 {
            assert_eq!(
                proxy.get(&format!("/example.test/fast{n}/@v/list")).status,
                200
            );
        }
        gate.open();
    });
}

#[test]
fn connections_that_are_kept_open_and_idle_hold_up_nobody() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    let address = proxy.address();
    // All at once, as `go` opens them; each is answered while the others stay open.
    let mut streams: Vec<_> = (0..64)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for stream in &mut streams {
        let request = format!("GET {INFO} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
    }
    for stream in &mut streams {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut begin = [0; 15];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(text(&begin), "HTTP/1.1 200 OK");
    }
    assert_eq!(upstream.count(INFO), 1);
}

#[test]
fn a_large_answer_is_whole_on_a_connection_that_goes_on() {
    let daemon = Daemon::start();
    // More than stays in memory, and no whole number of anything.
    let large = format!("module example.test/m\n{}", "// filler\n".repeat(333_333));
    let body = large.clone().into_bytes();
    let upstream = Upstream::start(move |asked, to| match asked.path {
        MOD => reply(to, "200 OK", "", &body),
        _ => module(asked, to),
    });
    for asked in ["of the upstream", "of the cache"] {
        let proxy = Proxy::start(&daemon, &upstream.url);
        let address = proxy.address();
        let mut stream = TcpStream::connect(address).unwrap();
        for (method, path, headers, expected) in [
            ("GET", MOD, "", large.as_bytes()),
            ("HEAD", MOD, "", b""),
            // Each has a length, whatever else is asked for.
            ("GET", MOD, "TE: chunked\r\n", large.as_bytes()),
            ("GET", LIST, "", b"v1.0.0\nv1.1.0\n"),
            (
                "GET",
                "/nothing",
                "",
                b"not found: not a path of the GOPROXY protocol\n",
            ),
        ] {
            let got = ask_on(&mut stream, method, path, headers);
            assert!(got.body == expected, "{method} {path}, {asked}");
            assert!(!got.headers.contains("chunked"), "{}", got.headers);
        }
    }
    assert_eq!(upstream.count(MOD), 1);
    // And the list, for when the upstream is down.
    assert_eq!(daemon.actions(), 1 + 1);
}

#[test]
fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let daemon = Daemon::start();
    let large = format!("module example.test/m\n{}", "// filler\n".repeat(999_999));
    let body = large.clone().into_bytes();
    let upstream = Upstream::start(move |_, to| reply(to, "200 OK", "", &body));
    let proxy = Proxy::start(&daemon, &upstream.url);
    let address = proxy.address();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET {MOD} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
    }
    assert!(proxy.get(MOD).body == large.as_bytes());
    assert_eq!(upstream.count(MOD), 1);
}
