//! A server in front of a real one, which passes requests on and makes one thing go wrong with them.

use crate::support::{ZSTD_MAGIC, zstd_bomb};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every answer is an error of the server.
    Errors,
    /// Every second answer is one.
    EverySecond,
    /// Nothing is ever answered.
    Stall,
    /// Outputs stop in the middle, and the connection stays.
    StallInBody,
    /// Outputs stop in the middle, and so does the connection.
    CutInBody,
    /// Outputs come a byte at a time.
    Drip,
    /// Outputs have a wrong byte.
    WrongBody,
    /// Outputs are shorter than they should be, and say so.
    Shorter,
    /// Outputs are longer than they should be, and say so.
    Longer,
    /// Outputs do not say how long they are, and end early.
    NoLength,
    /// Outputs are those that were asked for before.
    Swapped,
    /// Packed outputs lack their end, and the length says so.
    CutPacked,
    /// Outputs are a few bytes that unpack to gigabytes.
    Bomb,
    /// What is packed is said to be plain, and what is plain to be packed.
    WrongEncoding,
    /// Everything is refused for now.
    TooMany,
    /// Everything is refused for want of credentials.
    Unauthorized,
    /// Entries are cut in the middle, and the length says so.
    CutEntries,
    /// Entries name an output that is not there.
    WrongHash,
    /// Entries are those of other actions.
    SwappedEntries,
    /// Entries are a page for people.
    Page,
    /// Entries name an output of another size.
    WrongSize,
    /// Answers are not HTTP.
    NoHttp,
    /// Everything is said to be elsewhere.
    Redirect,
    /// Outputs are gone, and the entries that name them are not.
    NoOutputs,
    /// After some requests all connections are cut, and no other is made.
    CutLink,
    /// After some outputs the real server is killed, in the middle of one.
    Kill,
    /// Nothing can be put: the server is full.
    Full,
    /// A put is not answered.
    StallPuts,
    /// After some outputs were put, the real server is killed in the middle of one.
    KillInPut,
    /// After some requests the credentials have expired.
    Expired,
    /// After some requests they have been revoked.
    Revoked,
}

/// After so many outputs the link is cut, or the server killed.
const SOME: u64 = 10;

/// After so many requests credentials expire: more than there are entries to ask for, so that something has been put or fetched.
const GOOD_FOR: u64 = 250;

pub struct Front {
    pub address: String,
    state: Arc<State>,
}

struct State {
    fault: Fault,
    target: String,
    victim: u32,
    /// How often it has gone wrong.
    happened: AtomicU64,
    requests: AtomicU64,
    outputs: AtomicU64,
    cut: AtomicBool,
    /// The last entry and the last output that were asked for.
    before: Mutex<[Option<Vec<u8>>; 2]>,
}

impl Front {
    /// One in front of the server at `target`, whose process is `victim`.
    pub fn start(fault: Fault, target: &str, victim: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            fault,
            target: target.into(),
            victim,
            happened: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            outputs: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            before: Mutex::default(),
        });
        let front = Self {
            address,
            state: Arc::clone(&state),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if state.cut.load(Ordering::SeqCst) {
                    state.happened.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                // Whoever writes a head and then a body would wait for the other side in between.
                let _ = stream.set_nodelay(true);
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    // However it ends, the connection does.
                    let _ = state.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        front
    }

    /// How often it has gone wrong.
    pub fn happened(&self) -> u64 {
        self.state.happened.load(Ordering::SeqCst)
    }
}

struct Message {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Message {
    /// Reads a request or an answer; `None` at the end.
    fn read(
        from: &mut impl BufRead,
        has_body: impl Fn(&str) -> bool,
    ) -> std::io::Result<Option<Self>> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end().to_string();
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        let is_chunked = head
            .iter()
            .any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
        let mut body = Vec::new();
        if has_body(&head[0]) && is_chunked {
            read_chunks(from, &mut body)?;
        } else if has_body(&head[0]) {
            body.resize(length.unwrap_or(0), 0);
            from.read_exact(&mut body)?;
        }
        Ok(Some(Self { head, body }))
    }

    /// With a length, and without any other header that matters.
    fn write(
        &self,
        to: &mut impl Write,
        length: Option<usize>,
        bytes: &[u8],
    ) -> std::io::Result<()> {
        let kept = self.head.iter().filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !["content-length", "connection", "transfer-encoding"]
                .iter()
                .any(|other| name.eq_ignore_ascii_case(other))
        });
        let mut head: String = kept.map(|line| format!("{line}\r\n")).collect();
        if let Some(length) = length {
            head += &format!("Content-Length: {length}\r\n");
        }
        to.write_all(format!("{head}\r\n").as_bytes())?;
        to.write_all(bytes)
    }
}

/// Reads a body that comes in chunks, to its end.
fn read_chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16)
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..])?;
        let mut end = String::new();
        from.read_line(&mut end)?;
        if size == 0 {
            return Ok(());
        }
    }
}

impl State {
    fn serve(&self, client: &TcpStream) -> std::io::Result<()> {
        let mut from = BufReader::new(client);
        let mut to = client;
        let mut server: Option<BufReader<TcpStream>> = None;
        while let Some(request) = Message::read(&mut from, |_| true)? {
            let nth = self.requests.fetch_add(1, Ordering::SeqCst);
            let is_put = request.head[0].starts_with("PUT");
            let is_head = request.head[0].starts_with("HEAD");
            // An object store has them below a bucket.
            let is_get = request.head[0].starts_with("GET ");
            let of_output = request.head[0].contains("/cas/");
            let is_output = is_get && of_output;
            let is_entry = is_get && request.head[0].contains("/ac/");
            if self.cut.load(Ordering::SeqCst) {
                return Ok(());
            }
            match self.fault {
                Fault::Errors => return self.refuse(&mut to, "500 Internal Server Error"),
                Fault::EverySecond if nth % 2 == 1 => {
                    return self.refuse(&mut to, "503 Service Unavailable");
                }
                Fault::TooMany => return self.refuse(&mut to, "429 Too Many Requests"),
                Fault::Unauthorized => return self.refuse(&mut to, "401 Unauthorized"),
                Fault::Expired if nth >= GOOD_FOR => {
                    return self.refuse_as_s3(&mut to, "400 Bad Request", "ExpiredToken");
                }
                Fault::Revoked if nth >= GOOD_FOR => {
                    return self.refuse_as_s3(&mut to, "403 Forbidden", "InvalidAccessKeyId");
                }
                Fault::Full if is_put => return self.refuse(&mut to, "507 Insufficient Storage"),
                Fault::NoOutputs if is_output => {
                    self.happened.fetch_add(1, Ordering::SeqCst);
                    to.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
                    continue;
                }
                Fault::Redirect => {
                    self.happened.fetch_add(1, Ordering::SeqCst);
                    to.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")?;
                    continue;
                }
                Fault::NoHttp => {
                    self.happened.fetch_add(1, Ordering::SeqCst);
                    return to.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
                }
                Fault::Stall => return self.be_silent(&mut from),
                Fault::StallPuts if is_put => return self.be_silent(&mut from),
                Fault::KillInPut
                    if is_put
                        && of_output
                        && self.outputs.fetch_add(1, Ordering::SeqCst) >= SOME =>
                {
                    return self.kill_in_put(&request);
                }
                _ => {}
            }
            let answer = self.ask(&mut server, &request, is_head)?;
            if is_entry && answer.head[0].contains(" 200 ") && self.spoil_entry(&mut to, &answer)? {
                continue;
            }
            let whole = answer.body.len();
            if !is_output || whole == 0 || !answer.head[0].contains(" 200 ") {
                let length = if is_head { None } else { Some(whole) };
                answer.write(&mut to, length, &answer.body)?;
                continue;
            }
            if self.spoil_output(&mut to, &mut from, &answer)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn ask(
        &self,
        server: &mut Option<BufReader<TcpStream>>,
        request: &Message,
        is_head: bool,
    ) -> std::io::Result<Message> {
        let server = match server {
            Some(server) => server,
            None => {
                let stream = TcpStream::connect(&self.target)?;
                stream.set_nodelay(true)?;
                server.insert(BufReader::new(stream))
            }
        };
        request.write(server.get_mut(), Some(request.body.len()), &request.body)?;
        Message::read(server, |_| !is_head)?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    fn refuse(&self, to: &mut impl Write, status: &str) -> std::io::Result<()> {
        self.happened.fetch_add(1, Ordering::SeqCst);
        to.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())
    }

    /// An object store says in XML what is wrong.
    fn refuse_as_s3(&self, to: &mut impl Write, status: &str, code: &str) -> std::io::Result<()> {
        self.happened.fetch_add(1, Ordering::SeqCst);
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        let length = body.len();
        to.write_all(
            format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
        )
    }

    /// The server has half of what is put when it is killed.
    fn kill_in_put(&self, request: &Message) -> std::io::Result<()> {
        self.cut.store(true, Ordering::SeqCst);
        let whole = request.body.len();
        let mut server = TcpStream::connect(&self.target)?;
        request.write(&mut server, Some(whole), &request.body[..whole / 2])?;
        self.kill();
        self.happened.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn kill(&self) {
        let _ = Command::new("kill")
            .args(["-KILL", &self.victim.to_string()])
            .status();
    }

    /// Until the other side has had enough.
    fn be_silent(&self, from: &mut impl Read) -> std::io::Result<()> {
        self.happened.fetch_add(1, Ordering::SeqCst);
        std::io::copy(from, &mut std::io::sink()).map(|_| ())
    }

    /// Says whether an entry was answered here.
    fn spoil_entry(&self, to: &mut impl Write, answer: &Message) -> std::io::Result<bool> {
        let text = String::from_utf8_lossy(&answer.body);
        let spoilt = match self.fault {
            Fault::Page => b"<html>Welcome to our Wi-Fi</html>".to_vec(),
            Fault::WrongSize => text
                .replace("\"sizeBytes\"", "\"sizeBytes\":\"99999999\",\"x\"")
                .into_bytes(),
            Fault::WrongHash => with_other_hashes(&text).into_bytes(),
            Fault::CutEntries => answer.body[..answer.body.len() / 2].to_vec(),
            Fault::SwappedEntries => match self.before(0, &answer.body) {
                Some(other) => other,
                None => return Ok(false),
            },
            _ => return Ok(false),
        };
        self.happened.fetch_add(1, Ordering::SeqCst);
        answer.write(to, Some(spoilt.len()), &spoilt)?;
        Ok(true)
    }

    /// What was there before this, of entries (0) or outputs (1).
    fn before(&self, which: usize, now: &[u8]) -> Option<Vec<u8>> {
        let before = self.before.lock().unwrap()[which].replace(now.to_vec());
        before.filter(|before| before != now)
    }

    /// Answers with an output; says whether the connection is to end.
    fn spoil_output(
        &self,
        to: &mut impl Write,
        from: &mut impl Read,
        answer: &Message,
    ) -> std::io::Result<bool> {
        let nth = self.outputs.fetch_add(1, Ordering::SeqCst);
        let (body, whole) = (&answer.body, answer.body.len());
        let half = &body[..whole / 2];
        match self.fault {
            Fault::StallInBody => {
                answer.write(to, Some(whole), half)?;
                self.be_silent(from)?;
                return Ok(true);
            }
            Fault::CutInBody => answer.write(to, Some(whole), half)?,
            Fault::Drip => {
                self.happened.fetch_add(1, Ordering::SeqCst);
                answer.write(to, Some(whole), b"")?;
                for byte in body {
                    to.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_millis(200));
                }
                return Ok(false);
            }
            Fault::WrongBody => {
                let mut body = body.clone();
                body[whole / 2] ^= 1;
                self.happened.fetch_add(1, Ordering::SeqCst);
                answer.write(to, Some(whole), &body)?;
                return Ok(false);
            }
            Fault::Shorter => {
                self.happened.fetch_add(1, Ordering::SeqCst);
                answer.write(to, Some(half.len()), half)?;
                return Ok(false);
            }
            Fault::Longer => {
                self.happened.fetch_add(1, Ordering::SeqCst);
                let body = [&body[..], b"more"].concat();
                answer.write(to, Some(body.len()), &body)?;
                return Ok(false);
            }
            Fault::Swapped => {
                let other = self.before(1, body);
                if other.is_some() {
                    self.happened.fetch_add(1, Ordering::SeqCst);
                }
                let bytes = other.as_ref().unwrap_or(body);
                answer.write(to, Some(bytes.len()), bytes)?;
                return Ok(false);
            }
            Fault::CutPacked => {
                // What bazel-remote packs begins with a frame that is to be skipped.
                let is_packed = body.starts_with(&ZSTD_MAGIC)
                    || answer
                        .head
                        .iter()
                        .any(|line| line.eq_ignore_ascii_case("content-encoding: zstd"));
                self.happened
                    .fetch_add(u64::from(is_packed), Ordering::SeqCst);
                let kept = whole - if is_packed { 3 } else { 0 };
                answer.write(to, Some(kept), &body[..kept])?;
                return Ok(false);
            }
            Fault::Bomb => {
                self.happened.fetch_add(1, Ordering::SeqCst);
                let bomb = zstd_bomb();
                answer.write(to, Some(bomb.len()), &bomb)?;
                return Ok(false);
            }
            Fault::WrongEncoding => {
                self.happened.fetch_add(1, Ordering::SeqCst);
                let mut head = answer.head.clone();
                head.retain(|line| !line.to_lowercase().starts_with("content-encoding:"));
                if head.len() == answer.head.len() {
                    head.push("Content-Encoding: zstd".into());
                }
                let spoilt = Message {
                    head,
                    body: Vec::new(),
                };
                spoilt.write(to, Some(whole), body)?;
                return Ok(false);
            }
            Fault::NoLength => answer.write(to, None, half)?,
            Fault::CutLink if nth >= SOME => {
                answer.write(to, Some(whole), half)?;
                self.cut.store(true, Ordering::SeqCst);
            }
            Fault::Kill if nth >= SOME => {
                answer.write(to, Some(whole), half)?;
                self.cut.store(true, Ordering::SeqCst);
                self.kill();
            }
            _ => {
                answer.write(to, Some(whole), body)?;
                return Ok(false);
            }
        }
        self.happened.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }
}

/// The same text, and in each hash in it the first digit is another one.
fn with_other_hashes(text: &str) -> String {
    let mut other = String::new();
    for word in text.split_inclusive('"') {
        let digits = word.trim_end_matches('"');
        let is_hash = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash {
            other.push(if word.starts_with('0') { '1' } else { '0' });
        }
        other.push_str(&word[usize::from(is_hash)..]);
    }
    other
}
