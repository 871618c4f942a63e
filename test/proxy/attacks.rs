//! What a stranger on the same network, or a hostile file in the cache, can do to a proxy: nothing.

use super::*;

/// A proxy in the place of a build's, which is this test.
fn of_build(daemon: &Daemon, list: &str) -> Proxy {
    Proxy::start_with(list, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.args(["--build", &std::process::id().to_string()]);
    })
}

/// A `.mod` file that no socket's buffers hold, and an upstream that has it.
fn large_upstream() -> (String, Upstream) {
    let large = format!("module example.test/m\n{}", "// filler\n".repeat(1_200_000));
    let body = large.clone().into_bytes();
    let upstream = Upstream::start(move |asked, to| match asked.path {
        MOD => reply(to, "200 OK", "", &body),
        _ => module(asked, to),
    });
    (large, upstream)
}

fn send(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

#[test]
fn the_proxy_of_a_build_answers_nobody_who_does_not_know_its_token() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let proxy = of_build(&daemon, &upstream.url);
    let token = proxy.url.rsplit('/').next().unwrap();
    assert_eq!(token.len(), 32, "{}", proxy.url);
    let open = format!("http://{}", proxy.address());
    for prefix in [
        "",
        "/",
        "/00000000000000000000000000000000",
        &format!("/{}", &token[1..]),
        &format!("/{}", token.to_uppercase()),
        &format!("//{token}"),
    ] {
        let got = get(&open, &format!("{prefix}{ZIP}"));
        assert_eq!((got.status, got.text().as_str()), (404, "not found\n"));
    }
    assert_eq!(upstream.heads().len(), 0);
    assert_eq!(daemon.actions(), 0);
    assert_eq!(proxy.get(ZIP).body, file(ZIP).unwrap());
    assert!(!proxy.log().contains(token), "{}", proxy.log());
}

#[test]
fn with_a_token_file_a_teams_proxy_answers_nobody_who_does_not_know_the_token() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let dir = TempDir::new();
    let secret = dir.path().join("token");
    let start = |token: &str| {
        std::fs::write(&secret, token).unwrap();
        let mut command = Command::new(binary());
        command.arg("proxy").arg("--token-file").arg(&secret);
        command.env("GOPROXY", &upstream.url).output().unwrap()
    };
    for bad in [
        "",
        "short\n",
        "two words that are long enough",
        "a/path/that/is/long/enough",
    ] {
        let output = start(bad);
        assert!(!output.status.success(), "{bad}");
        assert!(
            text(&output.stderr).contains("must hold one token"),
            "{bad}"
        );
    }
    std::fs::write(&secret, "a-secret-of-the-team\n").unwrap();
    let proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.arg("--token-file").arg(&secret);
    });
    assert!(!proxy.url.contains("secret"), "{}", proxy.url);
    assert_eq!(proxy.get(LIST).status, 404);
    assert_eq!(
        proxy.get(&format!("/a-secret-of-the-tea{LIST}")).status,
        404
    );
    assert_eq!(upstream.heads().len(), 0);
    assert_eq!(
        proxy.get(&format!("/a-secret-of-the-team{LIST}")).status,
        200
    );
    assert!(!proxy.log().contains("secret"), "{}", proxy.log());
}

#[test]
fn a_request_without_an_end_ends_its_own_connection_alone() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    let mut kept = TcpStream::connect(proxy.address()).unwrap();
    assert_eq!(ask_on(&mut kept, "GET", LIST, "").status, 200);
    let line = format!("GET /{}", "a".repeat(100_000));
    let headers = format!(
        "GET {LIST} HTTP/1.1\r\n{}",
        "X-Filler: x\r\n".repeat(10_000)
    );
    for request in [line, headers] {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert_eq!(ask_on(&mut kept, "GET", LIST, "").status, 200);
}

#[test]
fn answers_that_nobody_reads_hold_up_nobody() {
    let daemon = Daemon::start();
    let (large, upstream) = large_upstream();
    let proxy = Proxy::start(&daemon, &upstream.url);
    assert!(proxy.get(MOD).body == large.as_bytes());
    // More than are worked on at one time, each of them stuck in the middle of its answer.
    let unread: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(proxy.address()).unwrap();
            send(&mut stream, MOD);
            stream.read_exact(&mut [0; 15]).unwrap();
            stream
        })
        .collect();
    // And one that asks a thousand times before it reads.
    let mut pipeline = TcpStream::connect(proxy.address()).unwrap();
    for _ in 0..1000 {
        send(&mut pipeline, LIST);
    }
    for _ in 0..10 {
        assert_eq!(proxy.get(LIST).status, 200);
    }
    drop((unread, pipeline));
    assert!(proxy.get(MOD).body == large.as_bytes());
}

/// Sets how many descriptors a process may have open.
fn limit_descriptors(proxy: &Proxy, limit: &str) {
    let status = Command::new("prlimit")
        .arg(format!("--pid={}", proxy.child.id()))
        .arg(format!("--nofile={limit}"))
        .status()
        .expect("prlimit (Debian's util-linux)");
    assert!(status.success());
}

#[test]
fn a_proxy_without_descriptors_gives_up_connections_that_wait_and_goes_on() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    assert_eq!(proxy.get(ZIP).status, 200);
    limit_descriptors(&proxy, "24:");
    let silent: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(proxy.address()).unwrap())
        .collect();
    wait_until("descriptors have run out", || {
        proxy.log().contains("cannot accept a connection")
    });
    limit_descriptors(&proxy, "1024:");
    assert_eq!(proxy.get(ZIP).body, file(ZIP).unwrap());
    drop(silent);
    assert_eq!(proxy.get(LIST).status, 200);
}

#[test]
fn more_connections_than_the_limit_end_those_that_wait_longest() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    // The limit is 1024, less where there are few descriptors.
    let silent: Vec<_> = (0..1100)
        .map(|_| TcpStream::connect(proxy.address()).unwrap())
        .collect();
    assert_eq!(proxy.get(LIST).status, 200);
    let mut first = &silent[0];
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    let mut last = silent.into_iter().next_back().unwrap();
    assert_eq!(ask_on(&mut last, "GET", LIST, "").status, 200);
}

#[test]
fn a_cached_file_that_cannot_be_read_ends_one_connection_and_not_the_proxy() {
    let (large, upstream) = large_upstream();
    let dir = TempDir::new();
    let cache = dir.path().join("cache");
    let proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(dir.path());
        command.arg("--cache-dir").arg(&cache);
    });
    assert!(proxy.get(MOD).body == large.as_bytes());
    let mut cut = TcpStream::connect(proxy.address()).unwrap();
    let mut other = TcpStream::connect(proxy.address()).unwrap();
    send(&mut cut, MOD);
    cut.read_exact(&mut [0; 15]).unwrap();
    for shard in std::fs::read_dir(cache.join("outputs")).unwrap() {
        for output in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            let output = output.unwrap().path();
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&output, permissions).unwrap();
            let output = std::fs::File::options().write(true).open(output).unwrap();
            output.set_len(10).unwrap();
        }
    }
    let mut rest = Vec::new();
    // Reset or ended: never a whole answer.
    let _ = cut.read_to_end(&mut rest);
    assert!(rest.len() < large.len());
    assert_eq!(ask_on(&mut other, "GET", LIST, "").status, 200);
    assert_eq!(proxy.get(INFO).status, 200);
}

#[test]
fn a_cached_zip_that_is_not_the_one_of_go_sum_is_fetched_again() {
    let go = Go::pinned("1.27");
    let daemon = Daemon::start();
    let evil = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_evil = Arc::clone(&evil);
    let upstream = Upstream::start(move |asked, to| match asked.path {
        ZIP if is_evil.load(std::sync::atomic::Ordering::Relaxed) => {
            let other =
                crate::upstream::zip_with("example.test/m", "v1.0.0", "package m // evil\n");
            reply(to, "200 OK", "", &other)
        }
        _ => module(asked, to),
    });
    // What `go` itself writes into go.sum.
    let dir = TempDir::new();
    std::fs::write(
        dir.path().join("go.mod"),
        "module test\n\ngo 1.21\n\nrequire example.test/m v1.0.0\n",
    )
    .unwrap();
    let go = |goproxy: &str, args: &[&str]| {
        let home = TempDir::new();
        let mut command = go_command(&go, &home, goproxy);
        command
            .current_dir(dir.path())
            .env("GOFLAGS", "-modcacherw");
        command.args(args).output().unwrap()
    };
    let tidied = go(&upstream.url, &["mod", "download", "all"]);
    assert!(tidied.status.success(), "{}", text(&tidied.stderr));
    let go_sum = std::fs::read_to_string(dir.path().join("go.sum")).unwrap();
    assert!(go_sum.contains("example.test/m v1.0.0 h1:"), "{go_sum}");

    // Another file gets into the cache, by way of a proxy that knows of no go.sum.
    evil.store(true, std::sync::atomic::Ordering::Relaxed);
    let poisoned = Proxy::start(&daemon, &upstream.url).get(ZIP).body;
    assert_ne!(poisoned, file(ZIP).unwrap());
    evil.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(Proxy::start(&daemon, &upstream.url).get(ZIP).body, poisoned);

    let start = || {
        Proxy::start_with(&upstream.url, |command| {
            command.arg("--runtime-dir").arg(daemon.runtime_dir());
            command.args(["--build", &std::process::id().to_string()]);
            command.current_dir(dir.path());
        })
    };
    let proxy = start();
    let downloaded = go(&proxy.url, &["mod", "download", "all"]);
    assert!(downloaded.status.success(), "{}", text(&downloaded.stderr));
    assert!(
        proxy.log().contains("removed from the cache"),
        "{}",
        proxy.log()
    );
    // From now on the right one is in the cache.
    let fetched = upstream.count(ZIP);
    assert_eq!(start().get(ZIP).body, file(ZIP).unwrap());
    assert_eq!(upstream.count(ZIP), fetched);

    // What an upstream gives that go.sum does not have is neither kept nor handed on.
    std::fs::write(
        dir.path().join("go.sum"),
        "example.test/m v1.1.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    )
    .unwrap();
    let actions = daemon.actions();
    let got = start().get("/example.test/m/@v/v1.1.0.zip");
    assert_eq!(got.status, 404, "{}", got.text());
    assert_eq!(daemon.actions(), actions);
}
