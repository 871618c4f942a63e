//! The module proxy: on the real binary, with upstreams that do whatever upstreams do.
//!
//! What a client gets must be what it would get from the upstream, and what is kept must be right.

use crate::go::Go;
use crate::support::{Daemon, TempDir, binary, signal, suspend, text};
use crate::upstream::{
    Asked, Reply, Then, Upstream, ask, ask_on, file, get, module, not_found, raw, reply,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const INFO: &str = "/example.test/m/@v/v1.0.0.info";
const MOD: &str = "/example.test/m/@v/v1.0.0.mod";
const ZIP: &str = "/example.test/m/@v/v1.0.0.zip";
const LIST: &str = "/example.test/m/@v/list";

/// A running proxy, which ends with its test.
struct Proxy {
    child: Child,
    url: String,
    home: TempDir,
}

impl Proxy {
    /// A proxy in front of this list, with this daemon behind it.
    fn start(daemon: &Daemon, list: &str) -> Self {
        Self::start_with(list, |command| {
            command.arg("--runtime-dir").arg(daemon.runtime_dir());
        })
    }

    fn start_with(list: &str, set_up: impl FnOnce(&mut Command)) -> Self {
        let home = TempDir::new();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("proxy")
            // So that a stall does not take a minute, and a slow machine is none.
            .args(["--read-limit", "4s", "--connect-limit", "10s"])
            .env_clear()
            .env("GOPROXY", list)
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env("NIX_GOCACHEPROG_LOG", "debug")
            .stdout(Stdio::piped())
            .stderr(log);
        set_up(&mut command);
        let mut child = command.spawn().expect("the proxy starts");
        let mut url = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut url).unwrap();
        let proxy = Self {
            child,
            url: url.trim_end().to_string(),
            home,
        };
        assert!(
            proxy.url.starts_with("http://127.0.0.1:"),
            "{}",
            proxy.log()
        );
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "more than the URL on stdout");
        proxy
    }

    fn get(&self, path: &str) -> Reply {
        get(&self.url, path)
    }

    /// `127.0.0.1:port`.
    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// Ends the proxy and gives what its last line says of one count.
    fn end(&mut self, count: &str) -> u64 {
        signal(self.child.id(), "TERM");
        assert!(self.child.wait().unwrap().success());
        counted(&self.log(), count)
    }
}

fn counted(log: &str, count: &str) -> u64 {
    let line = log.lines().last().unwrap_or_default();
    let count = line
        .split(' ')
        .find_map(|word| word.strip_prefix(count)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {count} in {log}"));
    count.parse().unwrap()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

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
    assert_eq!(daemon.actions(), 3);
    assert_eq!(second.end("upstream_immutable"), 0);
}

#[test]
fn what_is_not_there_is_told_in_the_words_of_the_upstream() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(|asked, to| {
        let plain = "Content-Type: text/plain; charset=UTF-8\r\n";
        match asked.path {
            INFO => reply(to, "410 Gone", plain, b"gone: retracted by its author\n"),
            MOD => reply(to, "403 Forbidden", plain, b"not for you\n"),
            ZIP => reply(
                to,
                "451 Unavailable",
                "Content-Type: text/html\r\n",
                b"<p>law</p>",
            ),
            _ => not_found(to),
        }
    });
    let proxy = Proxy::start(&daemon, &upstream.url);
    for (path, status, text) in [
        (INFO, 410, "gone: retracted by its author\n"),
        (MOD, 403, "not for you\n"),
        (ZIP, 451, "<p>law</p>"),
        (LIST, 404, "not found: no such module here\n"),
    ] {
        let got = proxy.get(path);
        assert_eq!((got.status, got.text().as_str()), (status, text), "{path}");
        assert_eq!(upstream.count(path), 1, "{path}");
    }
    assert_eq!(daemon.actions(), 0);
}

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
    let head = format!(
        "GET {LIST} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        1_u64 << 50
    );
    stream.write_all(head.as_bytes()).unwrap();
    daemon.wait_until("the proxy has seen it", || {
        proxy.log().contains("is not answered")
    });
    drop(stream);
    assert_eq!(upstream.heads().len(), 0);
    assert_eq!(proxy.get(LIST).status, 200);
}

/// An upstream that misbehaves at first, for the first `times` requests of each path, and what the
/// client gets from it then.
struct Mischief {
    name: &'static str,
    times: usize,
    /// What is asked for.
    path: &'static str,
    answer: fn(&Asked, &[u8], &mut dyn Write) -> Then,
    /// The status that a client gets.
    status: u16,
    /// Whether it gets the very file.
    right: bool,
}

#[test]
fn nothing_wrong_is_ever_kept() {
    const ALWAYS: usize = usize::MAX;
    let cut = |_: &Asked<'_>, body: &[u8], to: &mut dyn Write| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        raw(to, &[head.as_bytes(), &body[..body.len() / 2]].concat())
    };
    let resumable = |asked: &Asked<'_>, body: &[u8], to: &mut dyn Write| {
        let half = body.len() / 2;
        let tag = "ETag: \"one\"\r\n";
        if asked.head.contains(&format!("range: bytes={half}-\r\n")) {
            assert!(
                asked.head.contains("if-range: \"one\"\r\n"),
                "{}",
                asked.head
            );
            let range = format!(
                "{tag}Content-Range: bytes {half}-{}/{}\r\n",
                body.len() - 1,
                body.len()
            );
            return reply(to, "206 Partial Content", &range, &body[half..]);
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\n{tag}Content-Length: {}\r\n\r\n",
            body.len()
        );
        raw(to, &[head.as_bytes(), &body[..half]].concat())
    };
    let wrong_part = |asked: &Asked<'_>, body: &[u8], to: &mut dyn Write| {
        if asked.head.contains("range: bytes=") {
            let range = format!("Content-Range: bytes 0-9/{}\r\n", body.len());
            return reply(to, "206 Partial Content", &range, &body[..10]);
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        raw(to, &[head.as_bytes(), &body[..body.len() / 2]].concat())
    };
    let short = |_: &Asked<'_>, body: &[u8], to: &mut dyn Write| {
        let half = body.len() / 2;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {half}\r\n\r\n");
        raw(to, &[head.as_bytes(), body].concat())
    };
    let mischiefs = [
        Mischief {
            name: "cut off once",
            times: 1,
            path: ZIP,
            answer: cut,
            status: 200,
            right: true,
        },
        Mischief {
            name: "cut off always",
            times: ALWAYS,
            path: ZIP,
            answer: cut,
            status: 502,
            right: false,
        },
        Mischief {
            name: "cut off in a .mod",
            times: 1,
            path: MOD,
            answer: cut,
            status: 200,
            right: true,
        },
        Mischief {
            name: "goes on where it broke",
            times: ALWAYS,
            path: ZIP,
            answer: resumable,
            status: 200,
            right: true,
        },
        Mischief {
            name: "goes on elsewhere",
            times: 2,
            path: ZIP,
            answer: wrong_part,
            status: 200,
            right: true,
        },
        Mischief {
            name: "announces too little",
            times: ALWAYS,
            path: ZIP,
            answer: short,
            status: 200,
            right: false,
        },
        Mischief {
            name: "chunks",
            times: ALWAYS,
            path: ZIP,
            status: 200,
            right: true,
            answer: |_, body, to| raw(to, &chunked(body, "0\r\n\r\n")),
        },
        Mischief {
            name: "chunks without an end",
            times: ALWAYS,
            path: ZIP,
            status: 502,
            right: false,
            answer: |_, body, to| raw(to, &chunked(body, "")),
        },
        Mischief {
            name: "no length at all, cut off",
            times: ALWAYS,
            path: MOD,
            status: 200,
            right: false,
            answer: |_, body, to| raw(to, &[b"HTTP/1.0 200 OK\r\n\r\n", &body[..25]].concat()),
        },
        Mischief {
            name: "a login page for a zip",
            times: ALWAYS,
            path: ZIP,
            status: 200,
            right: false,
            answer: |_, _, to| {
                reply(
                    to,
                    "200 OK",
                    "Content-Type: text/html\r\n",
                    b"<html>Log in!</html>",
                )
            },
        },
        Mischief {
            name: "a login page for a .mod",
            times: ALWAYS,
            path: MOD,
            status: 200,
            right: false,
            answer: |_, _, to| reply(to, "200 OK", "", b"<html>\nmodule of our portal\n</html>"),
        },
        Mischief {
            name: "a login page for an .info",
            times: ALWAYS,
            path: INFO,
            status: 200,
            right: false,
            answer: |_, _, to| reply(to, "200 OK", "", b"<html></html>"),
        },
        Mischief {
            name: "another version's .info",
            times: ALWAYS,
            path: INFO,
            status: 200,
            right: false,
            answer: |_, _, to| reply(to, "200 OK", "", br#"{"Version":"v1.1.0"}"#),
        },
        Mischief {
            name: "another version's zip",
            times: ALWAYS,
            path: ZIP,
            status: 200,
            right: false,
            answer: |_, _, to| {
                reply(
                    to,
                    "200 OK",
                    "",
                    &crate::upstream::zip("example.test/m", "v1.1.0"),
                )
            },
        },
        Mischief {
            name: "nothing",
            times: ALWAYS,
            path: ZIP,
            status: 200,
            right: false,
            answer: |_, _, to| reply(to, "200 OK", "", b""),
        },
        Mischief {
            name: "a failure, once",
            times: 1,
            path: INFO,
            status: 200,
            right: true,
            answer: |_, _, to| reply(to, "500 Oops", "", b"oops"),
        },
        Mischief {
            name: "a failure, always",
            times: ALWAYS,
            path: INFO,
            status: 503,
            right: false,
            answer: |_, _, to| reply(to, "503 Oops", "", b"oops"),
        },
        Mischief {
            name: "come back in a second",
            times: 1,
            path: INFO,
            status: 200,
            right: true,
            answer: |_, _, to| reply(to, "429 Too Many", "Retry-After: 1\r\n", b"slow down"),
        },
        Mischief {
            name: "come back in a day",
            times: 1,
            path: INFO,
            status: 429,
            right: false,
            answer: |_, _, to| reply(to, "429 Too Many", "Retry-After: 86400\r\n", b"slow down"),
        },
        Mischief {
            name: "come back in a second, by its own clock",
            times: 1,
            path: INFO,
            status: 200,
            right: true,
            answer: |_, _, to| {
                let date = "Date: Sun, 06 Nov 1994 23:59:59 GMT\r\n";
                let after = "Retry-After: Mon, 07 Nov 1994 00:00:00 GMT\r\n";
                reply(to, "503 Busy", &format!("{date}{after}"), b"slow down")
            },
        },
        Mischief {
            name: "come back at no time",
            times: 1,
            path: INFO,
            status: 200,
            right: true,
            answer: |_, _, to| reply(to, "503 Busy", "Retry-After: Sun, 99 Nov\r\n", b"slow down"),
        },
        Mischief {
            name: "a partial answer that nobody asked for",
            times: ALWAYS,
            path: ZIP,
            status: 502,
            right: false,
            answer: |_, body, to| reply(to, "206 Partial Content", "", &body[..99]),
        },
        Mischief {
            name: "no HTTP",
            times: ALWAYS,
            path: ZIP,
            status: 502,
            right: false,
            answer: |_, _, to| raw(to, b"220 smtp ready\r\n"),
        },
        Mischief {
            name: "a closed connection",
            times: 2,
            path: ZIP,
            status: 200,
            right: true,
            answer: |_, _, to| raw(to, b""),
        },
        Mischief {
            name: "a megabyte of headers",
            times: ALWAYS,
            path: ZIP,
            status: 502,
            right: false,
            answer: |_, body, to| {
                let padding = format!("X-Padding: {}\r\n", "x".repeat(1000)).repeat(1000);
                reply(to, "200 OK", &padding, body)
            },
        },
        Mischief {
            name: "a stall in the middle",
            times: 1,
            path: ZIP,
            status: 200,
            right: true,
            answer: |_, body, to| {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = to.write_all(&[head.as_bytes(), &body[..body.len() / 2]].concat());
                let _ = to.flush();
                std::thread::sleep(Duration::from_secs(8));
                Then::Close
            },
        },
        Mischief {
            name: "a stall of minutes",
            times: ALWAYS,
            path: ZIP,
            status: 502,
            right: false,
            answer: |_, _, _| {
                std::thread::sleep(Duration::from_secs(200));
                Then::Close
            },
        },
        Mischief {
            name: "a redirect in a circle",
            times: ALWAYS,
            path: ZIP,
            status: 502,
            right: false,
            answer: |asked, _, to| {
                reply(
                    to,
                    "302 Found",
                    &format!("Location: {}\r\n", asked.path),
                    b"",
                )
            },
        },
        Mischief {
            name: "a redirect to nowhere",
            times: ALWAYS,
            path: ZIP,
            status: 502,
            right: false,
            answer: |_, _, to| reply(to, "302 Found", "Location: gopher://x\r\n", b""),
        },
        Mischief {
            name: "a redirect to the right place",
            times: 1,
            path: ZIP,
            status: 200,
            right: true,
            answer: |asked, _, to| {
                reply(
                    to,
                    "301 Moved",
                    &format!("Location: {}?again\r\n", asked.path),
                    b"",
                )
            },
        },
        Mischief {
            name: "compressed",
            times: ALWAYS,
            path: MOD,
            status: 200,
            right: true,
            answer: |_, _, to| reply(to, "200 OK", "Content-Encoding: gzip\r\n", GZIPPED_MOD),
        },
        Mischief {
            name: "compressed and cut off",
            times: ALWAYS,
            path: MOD,
            status: 502,
            right: false,
            answer: |_, _, to| {
                reply(
                    to,
                    "200 OK",
                    "Content-Encoding: gzip\r\n",
                    &GZIPPED_MOD[..30],
                )
            },
        },
    ];
    let mischiefs = std::sync::Mutex::new(mischiefs.iter());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(mischief) = mischiefs.lock().unwrap().next() else {
                        break;
                    };
                    play(mischief);
                }
            });
        }
    });
}

#[test]
fn an_upstream_that_wants_to_be_left_alone_for_long_is_asked_once() {
    let daemon = Daemon::start();
    for wait in [
        "3600",
        "Mon, 07 Nov 1994 00:59:59 GMT\r\nDate: Sun, 06 Nov 1994 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let upstream = Upstream::start(move |_, to| {
            let after = format!("Retry-After: {wait}\r\n");
            reply(to, "429 Too Many", &after, b"slow down")
        });
        let proxy = Proxy::start(&daemon, &upstream.url);
        assert_eq!(proxy.get(INFO).status, 429, "{wait}");
        assert_eq!(upstream.heads().len(), 1, "{wait}");
    }
}

fn chunked(body: &[u8], end: &str) -> Vec<u8> {
    let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(1000) {
        out.extend(format!("{:x}\r\n", piece.len()).bytes());
        out.extend(piece);
        out.extend(b"\r\n");
    }
    out.extend(end.bytes());
    out
}

/// The `.mod` file of the tests' module, as gzip(1) compresses it.
const GZIPPED_MOD: &[u8] = include_bytes!("data/example.mod.gz");

fn play(mischief: &Mischief) {
    let Mischief {
        name,
        times,
        path,
        answer,
        status,
        right,
    } = *mischief;
    let daemon = Daemon::start();
    let upstream = Upstream::start(move |asked, to| {
        let path = asked.path.trim_end_matches("?again");
        let body = file(path).unwrap_or_default();
        if asked.before < times && path == asked.path {
            answer(asked, &body, to)
        } else {
            module(&Asked { path, ..*asked }, to)
        }
    });
    let proxy = Proxy::start(&daemon, &upstream.url);
    let started = Instant::now();
    let got = proxy.get(path);
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{name}: took {:?}",
        started.elapsed()
    );
    assert_eq!(got.status, status, "{name}: {}", got.text());
    let whole = file(path).unwrap();
    assert_eq!(got.status == 200 && got.body == whole, right, "{name}");
    assert_eq!(daemon.actions(), usize::from(right), "{name}");
    drop(proxy);

    // With a good upstream behind the same URL, the next build gets the right file.
    let upstream_address = upstream.url.clone();
    let proxy = Proxy::start(&daemon, &upstream_address);
    let again = proxy.get(path);
    if right {
        assert_eq!(again.body, whole, "{name}, again");
    } else if times < usize::MAX {
        assert_eq!(
            (again.status, again.body == whole),
            (200, true),
            "{name}, again"
        );
    } else {
        assert_eq!(again.status, status, "{name}, again");
    }
}

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

fn go_command(go: &Go, dir: &TempDir, goproxy: &str) -> Command {
    let mut command = Command::new(go.goroot.join("bin/go"));
    command
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir.path())
        .env("GOPATH", dir.path())
        .env("GOCACHE", dir.path().join("gocache"))
        .env("GOENV", "off")
        .env("GOSUMDB", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", goproxy);
    command
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
fn a_list_that_is_none_is_said_clearly() {
    for (list, named) in [
        (",", "no entries"),
        ("https://me:s3cret@ex ample", "place 1"),
        ("http://127.0.0.1:1,ftp://me:s3cret@x", "place 2"),
        ("file://me:s3cret@host/x", "place 1"),
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

const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test/data/tls/ca.pem");

/// An upstream over TLS that shows its module to `me` with the password `s3cret` only.
fn private_upstream() -> Upstream {
    Upstream::start_tls(|asked, to| {
        // me:s3cret
        if asked.head.contains("authorization: Basic bWU6czNjcmV0\r\n") {
            module(asked, to)
        } else {
            reply(to, "401 Unauthorized", "", b"who are you?\n")
        }
    })
}

#[test]
fn credentials_open_an_upstream_and_are_part_of_the_key() {
    let daemon = Daemon::start();
    let upstream = private_upstream();
    let address = upstream.address();
    let start = |list: &str, netrc: &str| {
        Proxy::start_with(list, |command| {
            let file = daemon
                .cache_dir()
                .with_file_name(format!("netrc-{}", netrc.len()));
            std::fs::write(&file, netrc).unwrap();
            command.arg("--runtime-dir").arg(daemon.runtime_dir());
            command.env("SSL_CERT_FILE", AUTHORITY).env("NETRC", file);
        })
    };
    let in_url = format!("https://me:s3cret@{address}");
    let plain = format!("https://{address}");
    let netrc = format!("machine {address}\n login me\n password s3cret\n");

    let proxy = start(&in_url, "");
    assert_eq!(proxy.get(ZIP).status, 200);
    let other = start(&plain, &netrc);
    assert_eq!(other.get(ZIP).status, 200);
    let stranger = start(&plain, "");
    let refused = stranger.get(ZIP);
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (401, "who are you?\n")
    );
    let liar = start(&format!("https://me:wrong@{address}"), "");
    assert_eq!(liar.get(ZIP).status, 401);
    // In the cache under the key that the credentials are part of, and for nobody else.
    let asked = upstream.heads().len();
    assert_eq!(start(&in_url, "").get(ZIP).status, 200);
    assert_eq!(start(&plain, &netrc).get(ZIP).status, 200);
    assert_eq!(upstream.heads().len(), asked);
    for proxy in [&proxy, &other, &stranger, &liar] {
        for secret in ["s3cret", "czNjcmV0", "wrong"] {
            assert!(!proxy.log().contains(secret), "{}", proxy.log());
        }
    }
}

#[test]
fn credentials_are_not_sent_over_plain_http_or_to_where_a_redirect_leads() {
    let daemon = Daemon::start();
    let elsewhere = Upstream::start_tls(module);
    let insecure = Upstream::start(module);
    let (to, plain) = (elsewhere.url.clone(), insecure.url.clone());
    let upstream = Upstream::start_tls(move |asked, out| match asked.path {
        ZIP => reply(out, "302 Found", &format!("Location: {to}{ZIP}\r\n"), b""),
        MOD => reply(
            out,
            "302 Found",
            &format!("Location: {plain}{MOD}\r\n"),
            b"",
        ),
        INFO if asked.before == 0 => reply(out, "307 Again", &format!("Location: {INFO}\r\n"), b""),
        _ => module(asked, out),
    });
    let list = format!("https://me:s3cret@{}", upstream.address());
    let proxy = Proxy::start_with(&list, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.env("NIX_SSL_CERT_FILE", AUTHORITY);
    });
    assert_eq!(proxy.get(ZIP).body, file(ZIP).unwrap());
    assert_eq!(proxy.get(INFO).status, 200);
    // From https to http: refused, as `go` refuses it.
    assert_eq!(proxy.get(MOD).status, 502);
    assert_eq!(insecure.heads().len(), 0);
    for head in upstream.heads() {
        assert!(head.contains("authorization: "), "{head}");
    }
    assert_eq!(elsewhere.count(ZIP), 1);
    for head in elsewhere.heads() {
        assert!(!head.contains("authorization: "), "{head}");
    }

    let list = format!("http://me:s3cret@{}", insecure.address());
    let got = Proxy::start(&daemon, &list).get(ZIP);
    assert_eq!(got.status, 502);
    assert!(!got.text().contains("s3cret"), "{}", got.text());
    assert_eq!(insecure.heads().len(), 0);
}

#[test]
fn an_authority_that_nobody_knows_is_not_believed() {
    let daemon = Daemon::start();
    let upstream = Upstream::start_tls(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    let got = proxy.get(ZIP);
    assert_eq!(got.status, 502, "{}", got.text());
    assert!(got.text().contains("certificate"), "{}", got.text());
    assert_eq!((upstream.heads().len(), daemon.actions()), (0, 0));
}

#[test]
fn an_http_proxy_is_gone_through_unless_no_proxy_says_otherwise() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    // An HTTP proxy, and what is at the other end of its tunnels.
    let forward = Upstream::start(|asked, to| {
        if !asked.head.starts_with("CONNECT ") {
            return module(asked, to);
        }
        let _ = to.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        Then::Keep
    });
    let list = "http://module.example";
    let proxy = Proxy::start_with(list, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.env(
            "HTTP_PROXY",
            format!("http://me:s3cret@{}", forward.address()),
        );
    });
    assert_eq!(proxy.get(INFO).body, file(INFO).unwrap());
    let heads = forward.heads();
    assert!(
        heads[0].starts_with("CONNECT module.example:80 "),
        "{heads:?}"
    );
    assert!(
        heads[0]
            .to_ascii_lowercase()
            .contains("proxy-authorization: basic "),
        "{heads:?}"
    );
    assert!(!proxy.log().contains("s3cret"), "{}", proxy.log());

    let seen = forward.heads().len();
    let proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.env("HTTP_PROXY", format!("http://{}", forward.address()));
        command.env("NO_PROXY", "127.0.0.0/8");
    });
    assert_eq!(proxy.get(INFO).status, 200);
    assert_eq!(forward.heads().len(), seen);
}

#[test]
fn a_file_that_is_asked_for_many_times_at_once_is_fetched_once() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(|asked, to| {
        std::thread::sleep(Duration::from_millis(500));
        module(asked, to)
    });
    let proxy = Proxy::start(&daemon, &upstream.url);
    let start = Barrier::new(20);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                start.wait();
                assert_eq!(proxy.get(ZIP).body, file(ZIP).unwrap());
            });
        }
    });
    assert_eq!(upstream.count(ZIP), 1);
}

#[test]
fn slow_ones_hold_up_nobody() {
    let daemon = Daemon::start();
    // All that are slow wait until the fast ones have been answered.
    let open = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
    let gate = Arc::clone(&open);
    let upstream = Upstream::start(move |asked, to| {
        if asked.path.contains("/slow") {
            let (lock, changed) = &*gate;
            let open = lock.lock().unwrap();
            drop(changed.wait_while(open, |open| !*open).unwrap());
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
            let started = Instant::now();
            assert_eq!(
                proxy.get(&format!("/example.test/fast{n}/@v/list")).status,
                200
            );
            assert!(started.elapsed() < Duration::from_secs(20));
        }
        *open.0.lock().unwrap() = true;
        open.1.notify_all();
    });
}

#[test]
fn a_machine_that_sleeps_in_between_costs_no_second_request() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(|asked, to| {
        std::thread::sleep(Duration::from_millis(500));
        module(asked, to)
    });
    let proxy = Proxy::start(&daemon, &upstream.url);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| proxy.get(ZIP));
        while !asked.is_finished() {
            suspend(proxy.child.id());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(asked.join().unwrap().body, file(ZIP).unwrap());
    });
    assert_eq!(upstream.count(ZIP), 1);
}

#[test]
fn connections_that_are_kept_open_and_idle_hold_up_nobody() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    let address = proxy.url.strip_prefix("http://").unwrap();
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
        let address = proxy.url.strip_prefix("http://").unwrap();
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
                b"not found: this is no path of the GOPROXY protocol\n",
            ),
        ] {
            let got = ask_on(&mut stream, method, path, headers);
            assert!(got.body == expected, "{method} {path}, {asked}");
            assert!(!got.headers.contains("chunked"), "{}", got.headers);
        }
    }
    assert_eq!(upstream.count(MOD), 1);
    assert_eq!(daemon.actions(), 1);
}

#[test]
fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let daemon = Daemon::start();
    let large = format!("module example.test/m\n{}", "// filler\n".repeat(999_999));
    let body = large.clone().into_bytes();
    let upstream = Upstream::start(move |_, to| reply(to, "200 OK", "", &body));
    let proxy = Proxy::start(&daemon, &upstream.url);
    let address = proxy.url.strip_prefix("http://").unwrap();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET {MOD} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
    }
    assert!(proxy.get(MOD).body == large.as_bytes());
    assert_eq!(upstream.count(MOD), 1);
}

#[test]
fn connections_to_the_upstream_are_kept() {
    let daemon = Daemon::start();
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if line == "\r\n" {
                        reply(reader.get_mut(), "200 OK", "", b"v1.0.0\n");
                    }
                    line.clear();
                }
            });
        }
    });
    let proxy = Proxy::start(&daemon, &url);
    for _ in 0..20 {
        assert_eq!(proxy.get(LIST).status, 200);
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 1);
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
            ("tile/8/0/002", 200),
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
    assert_eq!(daemon.actions(), 1);
}

#[test]
fn without_a_daemon_a_build_goes_uncached_and_a_team_has_a_cache_of_its_own() {
    let upstream = Upstream::start(module);
    let nowhere = TempDir::new();
    let start = |in_build: bool| {
        Proxy::start_with(&upstream.url, |command| {
            command.arg("--runtime-dir").arg(nowhere.path());
            command.env("XDG_CACHE_HOME", nowhere.path().join("cache"));
            if in_build {
                command.args(["--build", &std::process::id().to_string()]);
            }
        })
    };
    let build = start(true);
    for asked in 1..=2 {
        assert_eq!(build.get(ZIP).body, file(ZIP).unwrap());
        assert_eq!(upstream.count(ZIP), asked);
    }
    assert_eq!(build.log().matches("modules are not cached").count(), 1);
    let mut team = start(false);
    for _ in 0..2 {
        assert_eq!(team.get(ZIP).body, file(ZIP).unwrap());
        assert_eq!(upstream.count(ZIP), 3);
    }
    assert_eq!(team.log().matches("a cache of our own").count(), 1);
    // The same directory for two of them is one too many.
    let second = start(false);
    for asked in 4..=5 {
        assert_eq!(second.get(ZIP).body, file(ZIP).unwrap());
        assert_eq!(upstream.count(ZIP), asked);
    }
    assert_eq!(second.log().matches("modules are not kept").count(), 1);
    assert!(second.log().contains("--cache-dir"), "{}", second.log());
    assert_eq!(team.end("upstream"), 1);
    let mut later = start(false);
    assert_eq!(later.get(ZIP).body, file(ZIP).unwrap());
    assert_eq!(later.end("upstream"), 0);
    // No session is left, so the output has one name.
    let links = nowhere.path().join("cache/nix-gocacheprog/modules/links");
    assert_eq!(std::fs::read_dir(links).unwrap().count(), 0);
}

#[test]
fn a_cache_of_its_own_stays_within_its_limits_while_it_is_used() {
    let version = |n: usize| format!("/example.test/m/@v/v1.{n}.0.zip");
    let zip = |path: &str| {
        let (_, name) = path.rsplit_once('/').unwrap();
        crate::upstream::zip("example.test/m", name.strip_suffix(".zip").unwrap())
    };
    let upstream = Upstream::start(move |asked, to| reply(to, "200 OK", "", &zip(asked.path)));
    let dir = TempDir::new();
    let cache = dir.path().join("cache");
    let mut proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(dir.path());
        command.arg("--cache-dir").arg(&cache);
        command.args(["--max-size", "2M"]);
    });
    for n in 0..50 {
        assert_eq!(proxy.get(&version(n)).body, zip(&version(n)));
    }
    // What a sweep that is running has not seen is for the next one.
    let until = Instant::now() + Duration::from_secs(60);
    while size_of(&cache.join("outputs")) > 2 << 20 {
        assert!(Instant::now() < until, "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(proxy.end("upstream"), 50);
    // One that evicts nothing, to see what is left.
    let mut proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(dir.path());
        command.arg("--cache-dir").arg(&cache);
    });
    for n in 0..50 {
        assert_eq!(proxy.get(&version(n)).body, zip(&version(n)));
    }
    let left = proxy.end("cached");
    assert!((1..=10).contains(&left), "{left} of 200 KB each in 2 MB");
}

/// The size of all files below a directory, in bytes.
fn size_of(directory: &Path) -> u64 {
    let mut size = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        size += match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => size_of(&path),
            Ok(metadata) => metadata.len(),
            // Evicted just now.
            Err(_) => 0,
        };
    }
    size
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

#[test]
fn told_to_stop_a_proxy_answers_what_is_running_first() {
    let (begun, wait) = std::sync::mpsc::channel();
    let begun = std::sync::Mutex::new(begun);
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::start(move |asked, to| {
        begun.lock().unwrap().send(()).unwrap();
        told.lock().unwrap().recv().unwrap();
        module(asked, to)
    });
    let dir = TempDir::new();
    let mut proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(dir.path());
        command.arg("--cache-dir").arg(dir.path().join("cache"));
    });
    let url = proxy.url.clone();
    let running = std::thread::spawn(move || get(&url, ZIP));
    wait.recv().unwrap();
    signal(proxy.child.id(), "TERM");
    go_on.send(()).unwrap();
    assert_eq!(running.join().unwrap().body, file(ZIP).unwrap());
    assert!(proxy.child.wait().unwrap().success());
    assert_eq!(counted(&proxy.log(), "kept"), 1);
}

#[test]
fn a_proxy_of_a_build_ends_with_it() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let mut build = Command::new("sleep").arg("600").spawn().unwrap();
    let mut proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.args(["--build", &build.id().to_string()]);
    });
    assert_eq!(proxy.get(ZIP).status, 200);
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(proxy.child.wait().unwrap().success());
    assert_eq!(counted(&proxy.log(), "upstream_immutable"), 1);
}

/// Runs the setup hook as stdenv does in a fixed-output derivation, then these commands.
fn hooked(daemon: &Daemon, go: &Go, list: &str, commands: &str) -> (Output, TempDir) {
    let dir = TempDir::new();
    std::fs::create_dir(dir.path().join("build")).unwrap();
    std::os::unix::fs::symlink(binary(), dir.path().join("client")).unwrap();
    let script = format!(
        "set -eu -o pipefail
        postConfigureHooks=() preBuildHooks=() exitHooks=() failureHooks=()
        source {}/hook.sh
        for hook in \"${{postConfigureHooks[@]}}\" \"${{preBuildHooks[@]}}\"; do $hook; done
        {commands}",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut command = go_command(go, &dir, list);
    let path = format!("{}/bin:/usr/bin:/bin", go.goroot.display());
    command
        .env("PATH", path)
        .env("outputHash", "sha256-x")
        .env("NIX_BUILD_TOP", dir.path().join("build"))
        .env("NIX_GOCACHEPROG_CLIENT", dir.path().join("client"))
        .env("NIX_GOCACHEPROG_RUNTIME_DIR", daemon.runtime_dir());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script])
        .current_dir(dir.path())
        .env_clear();
    for (name, value) in command.get_envs() {
        bash.env(name, value.unwrap());
    }
    (bash.output().unwrap(), dir)
}

#[test]
fn the_setup_hook_puts_the_proxy_before_the_list_of_a_fixed_output_derivation() {
    let go = Go::pinned("1.27");
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    let download =
        "go mod download example.test/m@v1.0.0; chmod -R u+w pkg; wait; echo \"$GOPROXY\"";
    for _ in 0..2 {
        let (output, dir) = hooked(&daemon, &go, &upstream.url, download);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let goproxy = text(&output.stdout);
        assert!(goproxy.starts_with("http://127.0.0.1:"), "{goproxy}");
        assert!(
            goproxy.ends_with(&format!("|{}\n", upstream.url)),
            "{goproxy}"
        );
        // It has ended with its build, which its output did not wait for.
        let log = dir.path().join("build/.nix-gocacheprog-proxy.log");
        daemon.wait_until("the proxy has ended", || {
            std::fs::read_to_string(&log)
                .unwrap()
                .contains("proxy ended")
        });
    }
    // The second download came from the cache.
    assert_eq!(upstream.count(ZIP), 1);
    assert_eq!(upstream.count(INFO), 1);
    assert_eq!(upstream.count(MOD), 1);
}

#[test]
fn the_setup_hook_starts_no_proxy_where_nothing_would_come_from_one() {
    let go = Go::pinned("1.27");
    let daemon = Daemon::start();
    for list in ["off", "direct", "file:///nowhere", "off,http://127.0.0.1:1"] {
        let (output, _) = hooked(&daemon, &go, list, "echo \"$GOPROXY\"");
        assert_eq!(text(&output.stdout), format!("{list}\n"));
    }
    // One that cannot start costs a line.
    let (output, _) = hooked(&daemon, &go, "ftp://x", "echo \"$GOPROXY\"");
    assert_eq!(text(&output.stdout), "ftp://x\n");
    assert!(
        text(&output.stderr).contains("did not start"),
        "{}",
        text(&output.stderr)
    );
}
