//! Upstreams of the tests' own: module proxies that answer as each test wants them to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server on 127.0.0.1. It ends with the test program.
pub struct Upstream {
    /// Where it is, without a slash at the end.
    pub url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

/// One request.
pub struct Asked<'a> {
    pub path: &'a str,
    /// The request line and the headers.
    pub head: &'a str,
    /// How often this path was asked for before.
    pub before: usize,
}

/// Whether the connection goes on.
pub enum Then {
    Keep,
    Close,
    /// Say nothing more until the client closes the connection.
    WaitForClose,
}

impl Upstream {
    /// A server that answers each request with whatever `answer` writes.
    pub fn start(answer: impl Fn(&Asked, &mut dyn Write) -> Then + Send + Sync + 'static) -> Self {
        Self::serve("http", answer, |stream| Some(Box::new(stream)))
    }

    /// The same over TLS, as `localhost`, by an authority that is nobody's but `test/data/tls/ca.pem`.
    pub fn start_tls(
        answer: impl Fn(&Asked, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let tls = concat!(env!("CARGO_MANIFEST_DIR"), "/test/data/tls");
        let certificate = CertificateDer::from_pem_file(format!("{tls}/server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{tls}/server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        Self::serve("https", answer, move |stream| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(rustls::StreamOwned::new(connection, stream)))
        })
    }

    fn serve(
        scheme: &str,
        answer: impl Fn(&Asked, &mut dyn Write) -> Then + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        let (answer, wrap) = (Arc::new(answer), Arc::new(wrap));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, wrap) = (Arc::clone(&answer), Arc::clone(&wrap));
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || {
                    let Some(mut stream) = wrap(stream) else {
                        return;
                    };
                    while let Some(head) = read_head(&mut *stream) {
                        let path = head.split(' ').nth(1).unwrap_or_default().to_string();
                        let before = {
                            let mut seen = seen.lock().unwrap();
                            let before = seen.iter().filter(|head| asks_for(head, &path)).count();
                            seen.push(head.clone());
                            before
                        };
                        let asked = Asked {
                            path: &path,
                            head: &head,
                            before,
                        };
                        let then = answer(&asked, &mut *stream);
                        if stream.flush().is_err() || matches!(then, Then::Close) {
                            return;
                        }
                        if matches!(then, Then::WaitForClose) {
                            let _ = std::io::copy(&mut *stream, &mut std::io::sink());
                            return;
                        }
                    }
                });
            }
        });
        Self {
            url: format!("{scheme}://127.0.0.1:{port}"),
            heads,
        }
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// How many requests there were for this path.
    pub fn count(&self, path: &str) -> usize {
        self.heads()
            .iter()
            .filter(|head| asks_for(head, path))
            .count()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

fn asks_for(head: &str, path: &str) -> bool {
    head.split(' ').nth(1) == Some(path)
}

fn read_head(stream: &mut dyn Stream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // Unlike `read`, this goes on when a signal comes in between.
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Writes an answer with a length.
pub fn reply(to: &mut dyn Write, status: &str, headers: &str, body: &[u8]) -> Then {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
    // A client that has left is that client's affair.
    let _ = to.write_all(&[head.as_bytes(), body].concat());
    Then::Keep
}

/// Writes bytes as they are, and closes the connection.
pub fn raw(to: &mut dyn Write, bytes: &[u8]) -> Then {
    let _ = to.write_all(bytes);
    Then::Close
}

pub fn not_found(to: &mut dyn Write) -> Then {
    let text = b"not found: no such module here\n";
    reply(to, "404 Not Found", "Content-Type: text/plain\r\n", text)
}

/// Answers with the files of `example.test/m`, versions v1.0.0 and v1.1.0.
pub fn module(asked: &Asked, to: &mut dyn Write) -> Then {
    match file(asked.path) {
        Some(body) => reply(to, "200 OK", "", &body),
        None => not_found(to),
    }
}

/// What a good upstream has under this path.
pub fn file(path: &str) -> Option<Vec<u8>> {
    let rest = path.strip_prefix("/example.test/m/@")?;
    if rest == "v/list" {
        return Some(b"v1.0.0\nv1.1.0\n".to_vec());
    }
    let info = |version| format!(r#"{{"Version":"{version}","Time":"2024-05-06T07:08:09Z"}}"#);
    if rest == "latest" || rest == "v/main.info" {
        return Some(info("v1.1.0").into_bytes());
    }
    let (version, kind) = rest.strip_prefix("v/")?.rsplit_once('.')?;
    if !["v1.0.0", "v1.1.0"].contains(&version) {
        return None;
    }
    match kind {
        "info" => Some(info(version).into_bytes()),
        "mod" => Some(b"module example.test/m\n\ngo 1.21\n".to_vec()),
        "zip" => Some(zip("example.test/m", version)),
        _ => None,
    }
}

/// A module's zip, with a file that does not compress, so that it is worth cutting in two.
pub fn zip(module: &str, version: &str) -> Vec<u8> {
    let mut noise = String::from("package m\n\nconst Noise = \"");
    let mut state = 1u32;
    for _ in 0..200_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push(char::from(b'a' + (state >> 24) as u8 % 26));
    }
    noise.push_str("\"\n");
    zip_with(module, version, &noise)
}

/// A module's zip with this source.
pub fn zip_with(module: &str, version: &str, source: &str) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let files = [
        ("go.mod", format!("module {module}\n\ngo 1.21\n")),
        ("m.go", source.to_string()),
    ];
    for (name, text) in &files {
        let name = format!("{module}@{version}/{name}");
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc32(text.as_bytes()).to_le_bytes());
        common.extend((text.len() as u32).to_le_bytes());
        common.extend((text.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(text.as_bytes());
    }
    let offset = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([files.len() as u8, 0, files.len() as u8, 0]);
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ ((crc & 1) * 0xedb8_8320);
        }
    }
    !crc
}

/// What a client of ours gets.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// In lower case.
    pub headers: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks a proxy for a path.
pub fn get(url: &str, path: &str) -> Reply {
    ask(url, "GET", path)
}

pub fn ask(url: &str, method: &str, path: &str) -> Reply {
    // A build's proxy has a token as the first part of its path.
    let rest = url.strip_prefix("http://").unwrap();
    let (address, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut stream = TcpStream::connect(address).unwrap();
    let path = format!("{prefix}{path}");
    ask_on(&mut stream, method, &path, "Connection: close\r\n")
}

/// The same on a connection that may go on.
pub fn ask_on(stream: &mut TcpStream, method: &str, path: &str, headers: &str) -> Reply {
    // Longer than anything takes: a test fails instead of hanging.
    stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(stream).expect("an answer");
    let headers = head.to_ascii_lowercase();
    let length = headers
        .split("content-length: ")
        .nth(1)
        .unwrap_or_else(|| panic!("no length in {head}"));
    let length: u64 = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = Vec::new();
    if method != "HEAD" {
        stream.take(length).read_to_end(&mut body).unwrap();
        assert_eq!(body.len() as u64, length, "a body that is cut off");
    }
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        headers,
        body,
    }
}
