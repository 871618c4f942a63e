//! Upstreams that do whatever upstreams do: nothing wrong is kept or handed on.

use super::*;

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

/// An upstream that misbehaves at first, for the first `times` requests of each path, and what the
/// client gets from it then.
struct Mischief {
    name: &'static str,
    times: usize,
    /// What is asked for.
    path: &'static str,
    answer: Answer,
    /// The status that a client gets.
    status: u16,
    /// Whether it gets the very file.
    right: bool,
}

const ALWAYS: usize = usize::MAX;

type Answer = fn(&Asked, &[u8], &mut dyn Write) -> Then;

/// An upstream that never gives the right file, and what its client gets.
fn wrong(name: &'static str, path: &'static str, status: u16, answer: Answer) -> Mischief {
    Mischief {
        name,
        times: ALWAYS,
        path,
        answer,
        status,
        right: false,
    }
}

/// An upstream that misbehaves so many times, and whose client gets the right file all the same.
fn right(name: &'static str, times: usize, path: &'static str, answer: Answer) -> Mischief {
    Mischief {
        times,
        right: true,
        ..wrong(name, path, 200, answer)
    }
}

#[test]
fn nothing_wrong_is_ever_kept_or_handed_on() {
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
        right("cut off once", 1, ZIP, cut),
        wrong("cut off always", ZIP, 502, cut),
        right("cut off in a .mod", 1, MOD, cut),
        right("goes on where it broke", ALWAYS, ZIP, resumable),
        right("goes on elsewhere", 2, ZIP, wrong_part),
        wrong("announces too little", ZIP, 404, short),
        right("chunks", ALWAYS, ZIP, |_, body, to| {
            raw(to, &chunked(body, "0\r\n\r\n"))
        }),
        wrong("chunks without an end", ZIP, 502, |_, body, to| {
            raw(to, &chunked(body, ""))
        }),
        wrong("no length at all, cut off", MOD, 200, |_, body, to| {
            raw(to, &[b"HTTP/1.0 200 OK\r\n\r\n", &body[..25]].concat())
        }),
        wrong("a login page for a zip", ZIP, 404, |_, _, to| {
            reply(
                to,
                "200 OK",
                "Content-Type: text/html\r\n",
                b"<html>Log in!</html>",
            )
        }),
        wrong("a login page for a .mod", MOD, 404, |_, _, to| {
            reply(to, "200 OK", "", b"<html>\nmodule of our portal\n</html>")
        }),
        wrong("a login page for an .info", INFO, 404, |_, _, to| {
            reply(to, "200 OK", "", b"<html></html>")
        }),
        wrong("another version's .info", INFO, 404, |_, _, to| {
            reply(to, "200 OK", "", br#"{"Version":"v1.1.0"}"#)
        }),
        wrong("another version's zip", ZIP, 404, |_, _, to| {
            reply(
                to,
                "200 OK",
                "",
                &crate::upstream::zip("example.test/m", "v1.1.0"),
            )
        }),
        wrong("nothing", ZIP, 404, |_, _, to| reply(to, "200 OK", "", b"")),
        right("a failure, once", 1, INFO, |_, _, to| {
            reply(to, "500 Oops", "", b"oops")
        }),
        wrong("a failure, always", INFO, 503, |_, _, to| {
            reply(to, "503 Oops", "", b"oops")
        }),
        right("come back in a second", 1, INFO, |_, _, to| {
            reply(to, "429 Too Many", "Retry-After: 1\r\n", b"slow down")
        }),
        Mischief {
            times: 1,
            ..wrong("come back in a day", INFO, 429, |_, _, to| {
                reply(to, "429 Too Many", "Retry-After: 86400\r\n", b"slow down")
            })
        },
        right(
            "come back in a second, by its own clock",
            1,
            INFO,
            |_, _, to| {
                let date = "Date: Sun, 06 Nov 1994 23:59:59 GMT\r\n";
                let after = "Retry-After: Mon, 07 Nov 1994 00:00:00 GMT\r\n";
                reply(to, "503 Busy", &format!("{date}{after}"), b"slow down")
            },
        ),
        right("come back at no time", 1, INFO, |_, _, to| {
            reply(to, "503 Busy", "Retry-After: Sun, 99 Nov\r\n", b"slow down")
        }),
        wrong(
            "a partial answer that nobody asked for",
            ZIP,
            502,
            |_, body, to| reply(to, "206 Partial Content", "", &body[..99]),
        ),
        wrong("no HTTP", ZIP, 502, |_, _, to| {
            raw(to, b"220 smtp ready\r\n")
        }),
        right("a closed connection", 2, ZIP, |_, _, to| raw(to, b"")),
        wrong("a megabyte of headers", ZIP, 502, |_, body, to| {
            let padding = format!("X-Padding: {}\r\n", "x".repeat(1000)).repeat(1000);
            reply(to, "200 OK", &padding, body)
        }),
        right("a stall in the middle", 1, ZIP, |_, body, to| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = to.write_all(&[head.as_bytes(), &body[..body.len() / 2]].concat());
            let _ = to.flush();
            Then::WaitForClose
        }),
        wrong("a stall of minutes", ZIP, 502, |_, _, _| Then::WaitForClose),
        wrong("a redirect in a circle", ZIP, 502, |asked, _, to| {
            reply(
                to,
                "302 Found",
                &format!("Location: {}\r\n", asked.path),
                b"",
            )
        }),
        wrong("a redirect to nowhere", ZIP, 502, |_, _, to| {
            reply(to, "302 Found", "Location: gopher://x\r\n", b"")
        }),
        right("a redirect to the right place", 1, ZIP, |asked, _, to| {
            reply(
                to,
                "301 Moved",
                &format!("Location: {}?again\r\n", asked.path),
                b"",
            )
        }),
        right("compressed", ALWAYS, MOD, |_, _, to| {
            reply(to, "200 OK", "Content-Encoding: gzip\r\n", GZIPPED_MOD)
        }),
        wrong("compressed and cut off", MOD, 502, |_, _, to| {
            reply(
                to,
                "200 OK",
                "Content-Encoding: gzip\r\n",
                &GZIPPED_MOD[..30],
            )
        }),
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
const GZIPPED_MOD: &[u8] = include_bytes!("../data/example.mod.gz");

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
    let got = proxy.get(path);
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
    } else if times < ALWAYS {
        assert_eq!(
            (again.status, again.body == whole),
            (200, true),
            "{name}, again"
        );
    } else {
        assert_eq!(again.status, status, "{name}, again");
    }
}

#[test]
fn a_machine_that_sleeps_in_between_costs_no_second_request() {
    let daemon = Daemon::start();
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let upstream = Upstream::start(move |asked, to| {
        held.wait();
        module(asked, to)
    });
    let proxy = Proxy::start(&daemon, &upstream.url);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| proxy.get(ZIP));
        daemon.wait_until("the upstream is asked", || upstream.count(ZIP) == 1);
        for _ in 0..20 {
            suspend(proxy.child.id());
        }
        gate.open();
        assert_eq!(asked.join().unwrap().body, file(ZIP).unwrap());
    });
    assert_eq!(upstream.count(ZIP), 1);
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
fn an_upstream_that_fails_is_asked_again_for_one_file_and_not_for_each() {
    let daemon = Daemon::start();
    for headers in ["500 Oops\r\nX: ", "200 OK\r\nContent-Encoding: gzip"] {
        let upstream = Upstream::start(move |_, to| {
            let answer = format!("HTTP/1.1 {headers}\r\nContent-Length: 4\r\n\r\noops");
            let _ = to.write_all(answer.as_bytes());
            Then::Keep
        });
        let good = Upstream::start(module);
        let proxy = Proxy::start(&daemon, &format!("{}|{}", upstream.url, good.url));
        let versions = [INFO, MOD, ZIP, LIST, "/example.test/m/@latest"];
        for path in versions {
            assert_eq!(proxy.get(path).body, file(path).unwrap());
        }
        assert_eq!(upstream.heads().len(), versions.len() + 1);
    }
}
