//! GOPROXY lists mean what they mean to `go`.

use super::*;

/// What `go mod download -json` says of the tests' module, with these proxies.
fn go_download(go: &Go, goproxy: &str) -> Output {
    let dir = TempDir::new();
    let output = go_command(go, &dir, goproxy)
        .args(["mod", "download", "-json", "example.test/m@v1.0.0"])
        .output()
        .unwrap();
    let _ = go_command(go, &dir, "off")
        .args(["clean", "-modcache"])
        .output();
    output
}

#[test]
fn with_us_before_it_any_list_means_what_it_means_to_go() {
    let go = Go::pinned("1.27");
    let daemon = Daemon::start();
    let upstreams: Vec<_> = [200, 404, 410, 403]
        .into_iter()
        .map(|status| {
            Upstream::start(move |asked, to| match status {
                200 => module(asked, to),
                404 => not_found(to),
                _ => reply(to, &format!("{status} No"), "", b"no"),
            })
        })
        .collect();
    let mut lists = Vec::new();
    for first in &upstreams {
        for last in ["", ",off", "|off"] {
            lists.push(format!("{}{last}", first.url));
        }
        for second in &upstreams {
            for between in [",", "|"] {
                lists.push(format!("{}{between}{}", first.url, second.url));
            }
        }
    }
    let directory = TempDir::new();
    write_module(directory.path());
    let nowhere = directory.path().join("nowhere");
    for (path, last) in [
        (directory.path(), "off"),
        (&nowhere, upstreams[0].url.as_str()),
    ] {
        lists.push(format!("file://{},{last}", path.display()));
        lists.push(format!(" file://{} |{last}", path.display()));
    }
    let lists = std::sync::Mutex::new(lists.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(list) = lists.lock().unwrap().next() else {
                        break;
                    };
                    let proxy = Proxy::start_with(&list, |command| {
                        // What fails is left to `go`, as in a build.
                        command.arg("--runtime-dir").arg(daemon.runtime_dir());
                        command.args(["--build", &std::process::id().to_string()]);
                    });
                    let alone = go_download(&go, &list);
                    let with_us = go_download(&go, &format!("{}|{list}", proxy.url));
                    let dead = go_download(&go, &format!("http://127.0.0.1:1|{list}"));
                    assert_eq!(with_us.status, alone.status, "{list}");
                    assert_eq!(without_dirs(&with_us), without_dirs(&alone), "{list}");
                    // Then `go` may tell of us instead of a "not found", but it does the same.
                    assert_eq!(dead.status, alone.status, "{list}");
                    if alone.status.success() {
                        assert_eq!(without_dirs(&dead), without_dirs(&alone), "{list}");
                    }
                }
            });
        }
    });
}

/// What a `go` command said, whatever folder it said it of.
fn without_dirs(output: &Output) -> String {
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    let mut out = String::new();
    for line in said.lines() {
        let line = match line.find("/nix-gocacheprog-test-") {
            Some(at) => {
                let rest = &line[at + 1..];
                let end = rest.find('/').map_or(rest.len(), |end| end);
                format!("{}{}", &line[..at], &rest[end..])
            }
            None => line.to_string(),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// Lays the tests' module out as a directory that is a module proxy.
fn write_module(directory: &Path) {
    let versions = directory.join("example.test/m/@v");
    std::fs::create_dir_all(&versions).unwrap();
    for path in [INFO, MOD, ZIP, LIST] {
        let name = path.rsplit('/').next().unwrap();
        std::fs::write(versions.join(name), file(path).unwrap()).unwrap();
    }
}

#[test]
fn outside_of_a_build_the_list_alone_decides() {
    let daemon = Daemon::start();
    let status = |status: u16| {
        Upstream::start(move |asked, to| match status {
            200 => module(asked, to),
            status => reply(to, &format!("{status} No"), "", b"no"),
        })
    };
    let (good, missing, gone, forbidden) = (status(200), status(404), status(410), status(403));
    let [good, missing, gone, forbidden] = [&good, &missing, &gone, &forbidden].map(|u| &u.url);
    for (list, expected) in [
        (good.clone(), 200),
        (format!("{missing},{good}"), 200),
        (format!("{gone},{good}"), 200),
        (format!("{forbidden},{good}"), 403),
        (format!("{forbidden}|{good}"), 200),
        (format!("http://127.0.0.1:1,{good}"), 502),
        (format!("http://127.0.0.1:1|{good}"), 200),
        (format!("{missing},{gone}"), 410),
        (format!("{forbidden}|{missing}"), 403),
        (format!("{missing},off,{good}"), 404),
        (format!("{missing},direct,{good}"), 404),
        (format!("{forbidden}|direct"), 404),
        (format!("{forbidden}|off"), 403),
        (format!("{forbidden},direct"), 403),
        ("off".to_string(), 404),
        ("direct".to_string(), 404),
    ] {
        let proxy = Proxy::start(&daemon, &list);
        assert_eq!(proxy.get(INFO).status, expected, "{list}");
    }
    let off = Proxy::start(&daemon, "off").get(INFO).text();
    assert_eq!(off, "module lookup disabled by GOPROXY=off\n");
}

#[test]
fn a_malformed_list_is_refused_with_the_place_of_the_error() {
    for (list, named) in [
        (",", "no entries"),
        ("https://me:s3cret@ex ample", "position 1"),
        ("http://127.0.0.1:1,ftp://me:s3cret@x", "position 2"),
        ("file://me:s3cret@host/x", "position 1"),
    ] {
        let mut command = Command::new(binary());
        command.arg("proxy").env("GOPROXY", list);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        assert_eq!(text(&output.stdout), "");
        let said = text(&output.stderr);
        assert!(said.contains(named) && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn a_proxy_that_is_its_own_upstream_does_not_start() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut command = Command::new(binary());
    command.args(["proxy", "--listen", &format!("127.0.0.1:{port}")]);
    command.env("GOPROXY", format!("http://localhost:{port},direct"));
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("itself"),
        "{}",
        text(&output.stderr)
    );
}
