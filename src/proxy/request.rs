//! The head of a request: whether it may be parsed and answered at all.
//!
//! A module proxy is only read from. Whatever is not a plain GET or HEAD without a body is refused here, and so is
//! every byte that a lenient parser could understand in another way.

use super::response::Response;

/// The longest head of a request, in bytes. `go` sends some 200.
pub const HEAD_MAX: usize = 16 << 10;

/// A head that may be parsed.
#[derive(Debug)]
pub struct Head {
    /// What is asked for.
    pub path: String,
    /// Whether the client may ask again on the same connection.
    pub keep_alive: bool,
    /// The head without what concerns the connection only.
    pub bytes: Vec<u8>,
}

/// Checks a head, which ends in an empty line.
///
/// # Errors
/// The response for a request that is not answered. Its connection must be closed: a body may follow.
pub fn check(head: &[u8]) -> Result<Head, Response> {
    let bad = |why: &str| Response::text(400, &format!("bad request: {why}\n"));
    let text = std::str::from_utf8(head).map_err(|_| bad("the head is not text"))?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    if !text
        .bytes()
        .all(|c| c.is_ascii_graphic() || b" \t\r\n".contains(&c))
    {
        return Err(bad("the head has control characters"));
    }
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("malformed request line"));
    };
    if !path.starts_with('/') || line.contains(['\r', '\n', '\t']) {
        return Err(bad("malformed request line"));
    }
    let mut keep_alive = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => {
            return Err(Response::text(
                505,
                "only HTTP/1.0 and HTTP/1.1 are supported\n",
            ));
        }
    };
    if !matches!(method, "GET" | "HEAD") {
        return Err(Response::text(405, "a module proxy is only read from\n"));
    }
    let mut bytes = format!("{line}\r\n");
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err(bad("malformed header"));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(plain) || value.contains(['\r', '\n']) {
            return Err(bad("malformed header"));
        }
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "connection" => {
                keep_alive &= !value
                    .split(',')
                    .any(|word| word.trim().eq_ignore_ascii_case("close"));
            }
            "content-length" if value == "0" => {}
            "content-length" | "transfer-encoding" => return Err(bad("a request with a body")),
            "expect" | "upgrade" | "te" | "trailer" | "keep-alive" => {}
            _ => {
                bytes.push_str(line);
                bytes.push_str("\r\n");
            }
        }
    }
    bytes.push_str("\r\n");
    Ok(Head {
        path: path.to_string(),
        keep_alive,
        bytes: bytes.into_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_sends_is_let_through_without_what_concerns_the_connection() {
        let head = check(
            b"GET /a.b/c/@v/list HTTP/1.1\r\nHost: x:1\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\
              Connection: keep-alive\r\n\r\n",
        )
        .unwrap();
        assert_eq!(head.path, "/a.b/c/@v/list");
        assert!(head.keep_alive);
        assert_eq!(
            String::from_utf8(head.bytes).unwrap(),
            "GET /a.b/c/@v/list HTTP/1.1\r\nHost: x:1\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"
        );
        for closing in [
            &b"GET / HTTP/1.0\r\n\r\n"[..],
            b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\ncONNECTION: foo , CLOSE\r\n\r\n",
        ] {
            assert!(!check(closing).unwrap().keep_alive);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (head, status) in [
            (&b"\r\n\r\n"[..], 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET / HTTP/1.1 x\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\n\r\n", 400),
            (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
            (b"GET /\0 HTTP/1.1\r\n\r\n", 400),
            (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\nX: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nX\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nX : y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n X: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nX: y\nZ: y\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (b"POST / HTTP/1.1\r\n\r\n", 405),
            (b"CONNECT / HTTP/1.1\r\n\r\n", 405),
            (b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", 400),
            (
                b"GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n",
                400,
            ),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ] {
            let text = String::from_utf8_lossy(head);
            assert_eq!(check(head).unwrap_err().status, status, "{text:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let seed = b"GET /\xc3\xa9 HTTP/1.1\r\nA: b\r\nConnection: close\r\n\r\n";
        for start in 0..=seed.len() {
            for end in start..=seed.len() {
                let _ = check(&seed[start..end]);
            }
        }
    }
}
