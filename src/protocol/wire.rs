//! What a client and the daemon say to each other on the build socket.
//!
//! `go` speaks JSON with base64 bodies (`gocacheprog.rs`). The client reads that, at
//! the build's own expense, and passes it on in frames of fixed size, so that the
//! daemon parses nothing of a build's but the hello.
//!
//! First each side says one line of JSON. The client: [`Hello`], with the build ID that
//! the hook bound into the sandbox, or none to register itself. The daemon: [`Welcome`],
//! with an error or with the build's ID and directory. Fields may be added; a reader
//! ignores those it does not know. A change that an older peer cannot ignore raises
//! [`VERSION`].
//!
//! Then requests, and answers in any order. Numbers are little-endian:
//!
//! ```text
//! get     'g'  request u64  action [32]
//! first   'G'  request u64  count u8 (1 to 4), that many actions [32]
//! put     'p'  request u64  action [32]  output [32]  size u64, then the body
//! found   'f'  request u64  action [32]  size u64
//! parts   'e'  request u64 (0)  length u16, then that much JSON: a list of pairs of texts
//! hit     'h'  request u64  output [32]  size u64  time i64 (ns since 1970)
//! miss    'm'  request u64
//! stored  's'  request u64
//! refused 'r'  request u64  length u16, then that much UTF-8 text
//! ```
//!
//! `first` asks for the first of several actions that there is an entry for; it is answered as a `get`. Only a daemon
//! whose welcome says `first` understands it.
//!
//! With `found` the client says what it has found by itself (`prefetched.rs`), for the counts. It is answered with `stored`
//! once it is counted, unless its request is 0.
//!
//! With `parts` the client says more of what its hello calls its environment, once it has found that out. It is not
//! answered, and only a daemon whose welcome says `parts` understands it.
//!
//! A client ends the session by closing its side. There is no message that carries a
//! file descriptor, and none is ever received.

use crate::counts::Counts;
use crate::entry::{Entry, SIZE_MAX};
use crate::error::{Error, Result};
use crate::id::{ActionId, ID_LEN, OutputId};
use crate::report::BuildRecord;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, ErrorKind, Read, Write};
use std::ops::Deref;

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// The longest hello or welcome, in bytes.
const LINE_MAX: u64 = 16 << 10;

/// The longest welcome with records, in bytes.
pub const RECORDS_MAX: u64 = 2 << 20;

/// The longest text of a refusal, in bytes.
const TEXT_MAX: usize = 1 << 10;

/// The length of a get, in bytes.
pub const GET_LEN: usize = 1 + 8 + ID_LEN;

/// How many actions a `first` can name.
pub const FIRST_MAX: usize = 4;

/// The length of the longest `first`, in bytes.
pub const FIRST_LEN: usize = 1 + 8 + 1 + FIRST_MAX * ID_LEN;

/// The keys under which an output is looked up, in order of preference. A `first` can name all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    keys: [ActionId; FIRST_MAX],
    count: usize,
}

impl Keys {
    /// Adds the next one; there are never more than [`FIRST_MAX`].
    pub fn push(&mut self, key: ActionId) {
        self.keys[self.count] = key;
        self.count += 1;
    }
}

impl Default for Keys {
    /// None yet.
    fn default() -> Self {
        Self {
            keys: [ActionId([0; ID_LEN]); FIRST_MAX],
            count: 0,
        }
    }
}

impl Deref for Keys {
    type Target = [ActionId];

    fn deref(&self) -> &[ActionId] {
        &self.keys[..self.count]
    }
}

/// The length of the longest answer that is not a refusal, in bytes.
pub const ANSWER_LEN: usize = 1 + 8 + ID_LEN + 8 + 8;

/// What a client says first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol's version as this client speaks it.
    pub version: u32,
    /// The build's ID; none to register a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// A directory on the host that exists as long as the build does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
    /// The derivation's name, for the log and for statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What this session gets and puts may be on a remote too, which other machines use. An older client does not say
    /// so, and what it puts stays here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Only the build's counts are wanted, and no session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub summary: bool,
    /// Only the records of this user's builds are wanted, and no session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub records: bool,
    /// What the build has asked for, if it is not the usual: `readonly` or `audit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What separates this session's actions from those of others, in words: names and short values, for a person who asks
    /// why a build missed. It is what the client knows at once; more comes with `parts`. An older daemon ignores it, and one that does not hear it says that it does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<(String, String)>,
}

/// What the daemon answers to a hello.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol's version as this daemon speaks it.
    pub version: u32,
    /// The daemon's release, for a person.
    #[serde(default)]
    pub release: String,
    /// Why there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The build's ID.
    #[serde(default)]
    pub build: String,
    /// The build directory's path on the host.
    #[serde(default)]
    pub directory: String,
    /// The client may find outputs in the directory without asking: see `prefetched.rs`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// The daemon understands `first`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// The daemon understands `parts`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parts: bool,
    /// The session's mode, if it is not the one that the hello asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What has happened in the build, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The records of the user's builds, when they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<Vec<BuildRecord>>,
}

impl Welcome {
    /// One that says who we are, and nothing else yet.
    pub fn of_this_release() -> Self {
        Self {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").into(),
            ..Self::default()
        }
    }
}

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// The output of an action.
    Get {
        /// The client's number for this request.
        request: u64,
        /// The key.
        action: ActionId,
    },
    /// The output of the first of these actions that has one.
    First {
        /// The client's number for this request.
        request: u64,
        /// The keys, at least one.
        actions: Keys,
    },
    /// What the client has found ready.
    Found {
        /// The client's number for this request; 0 when no answer is wanted.
        request: u64,
        /// The key.
        action: ActionId,
        /// The output's length in bytes.
        size: u64,
    },
    /// More of what separates this session's actions from those of others, which is not answered.
    Parts(Vec<(String, String)>),
    /// An action's output; its body follows.
    Put {
        /// The client's number for this request.
        request: u64,
        /// The key.
        action: ActionId,
        /// The body's SHA-256.
        output: OutputId,
        /// The body's length in bytes.
        size: u64,
    },
}

/// What the daemon answers, with the number of the request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The output is in the build directory.
    Hit(Entry),
    /// Nothing is known of that action.
    Miss,
    /// The body is in the store and in the build directory.
    Stored,
    /// The request failed; the session goes on.
    Refused(String),
}

/// Reads the next request; `None` when the client has closed its side between two.
///
/// # Errors
/// When the connection fails, ends within a frame, or says something unknown.
pub fn read_request(from: &mut impl BufRead) -> Result<Option<Request>> {
    let Some(tag) = read_tag(from)? else {
        return Ok(None);
    };
    let request = u64::from_le_bytes(take(from)?);
    match tag {
        b'g' => Ok(Some(Request::Get {
            request,
            action: ActionId(take(from)?),
        })),
        b'G' => {
            let [count] = take::<1>(from)?;
            if count == 0 || usize::from(count) > FIRST_MAX {
                return Err(Error::peer(format!(
                    "a get of {count} actions: it takes 1 to {FIRST_MAX}"
                )));
            }
            let mut actions = Keys::default();
            for _ in 0..count {
                actions.push(ActionId(take(from)?));
            }
            Ok(Some(Request::First { request, actions }))
        }
        b'f' => {
            let (action, size) = (ActionId(take(from)?), u64::from_le_bytes(take(from)?));
            Ok(Some(Request::Found {
                request,
                action,
                size: checked(size)?,
            }))
        }
        b'e' => {
            let mut text = vec![0; usize::from(u16::from_le_bytes(take(from)?))];
            from.read_exact(&mut text).map_err(cut)?;
            // Nothing depends on it.
            let parts = serde_json::from_slice(&text).unwrap_or_default();
            Ok(Some(Request::Parts(parts)))
        }
        b'p' => {
            let (action, output) = (ActionId(take(from)?), OutputId(take(from)?));
            let size = u64::from_le_bytes(take(from)?);
            Ok(Some(Request::Put {
                request,
                action,
                output,
                size: checked(size)?,
            }))
        }
        other => Err(Error::peer(format!("unknown request {other:#04x}"))),
    }
}

fn checked(size: u64) -> Result<u64> {
    if size > SIZE_MAX {
        return Err(Error::peer(format!(
            "an output of {size} bytes: the limit is {SIZE_MAX}"
        )));
    }
    Ok(size)
}

/// Adds a request's frame to `out`; a put's body is to follow.
pub fn push_request(out: &mut Vec<u8>, what: &Request) {
    match what {
        Request::Get { request, action } => {
            out.push(b'g');
            out.extend_from_slice(&request.to_le_bytes());
            out.extend_from_slice(&action.0);
        }
        Request::First { request, actions } => {
            out.push(b'G');
            out.extend_from_slice(&request.to_le_bytes());
            // FIRST_MAX is far below u8::MAX.
            out.push(actions.len() as u8);
            for action in &**actions {
                out.extend_from_slice(&action.0);
            }
        }
        Request::Found {
            request,
            action,
            size,
        } => {
            out.push(b'f');
            out.extend_from_slice(&request.to_le_bytes());
            out.extend_from_slice(&action.0);
            out.extend_from_slice(&size.to_le_bytes());
        }
        Request::Parts(parts) => {
            let text = serde_json::to_vec(parts).unwrap_or_default();
            let Ok(length) = u16::try_from(text.len()) else {
                return;
            };
            out.push(b'e');
            out.extend_from_slice(&0u64.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&text);
        }
        Request::Put {
            request,
            action,
            output,
            size,
        } => {
            out.push(b'p');
            out.extend_from_slice(&request.to_le_bytes());
            out.extend_from_slice(&action.0);
            out.extend_from_slice(&output.0);
            out.extend_from_slice(&size.to_le_bytes());
        }
    }
}

/// Reads the next answer; `None` when the daemon has closed its side between two.
///
/// # Errors
/// When the connection fails, ends within a frame, or says something unknown.
pub fn read_answer(from: &mut impl BufRead) -> Result<Option<(u64, Answer)>> {
    let Some(tag) = read_tag(from)? else {
        return Ok(None);
    };
    let request = u64::from_le_bytes(take(from)?);
    let answer = match tag {
        b'h' => Answer::Hit(Entry {
            output: OutputId(take::<ID_LEN>(from)?),
            size: u64::from_le_bytes(take(from)?),
            time: i64::from_le_bytes(take(from)?),
        }),
        b'm' => Answer::Miss,
        b's' => Answer::Stored,
        b'r' => {
            let length = usize::from(u16::from_le_bytes(take(from)?));
            if length > TEXT_MAX {
                return Err(Error::peer(format!(
                    "a refusal of {length} bytes: the limit is {TEXT_MAX}"
                )));
            }
            let mut text = vec![0; length];
            from.read_exact(&mut text).map_err(cut)?;
            Answer::Refused(String::from_utf8_lossy(&text).into_owned())
        }
        other => return Err(Error::peer(format!("unknown answer {other:#04x}"))),
    };
    Ok(Some((request, answer)))
}

/// Adds an answer's frame to `out`.
pub fn push_answer(out: &mut Vec<u8>, request: u64, answer: &Answer) {
    let tag = match answer {
        Answer::Hit(_) => b'h',
        Answer::Miss => b'm',
        Answer::Stored => b's',
        Answer::Refused(_) => b'r',
    };
    out.push(tag);
    out.extend_from_slice(&request.to_le_bytes());
    match answer {
        Answer::Miss | Answer::Stored => {}
        Answer::Hit(entry) => {
            out.extend_from_slice(&entry.output.0);
            out.extend_from_slice(&entry.size.to_le_bytes());
            out.extend_from_slice(&entry.time.to_le_bytes());
        }
        Answer::Refused(text) => {
            let text = &text.as_bytes()[..text.len().min(TEXT_MAX)];
            // TEXT_MAX is far below u16::MAX.
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            out.extend_from_slice(text);
        }
    }
}

/// Reads one line of JSON; `None` when the peer closed its side before it said anything.
///
/// # Errors
/// When the connection fails, or the line is too long, cut off or not what was expected.
pub fn read_line<T: for<'a> Deserialize<'a>>(from: &mut impl BufRead) -> Result<Option<T>> {
    read_line_within(from, LINE_MAX)
}

/// The same, with a limit in bytes for a peer that is trusted to say more.
///
/// # Errors
/// As above.
pub fn read_line_within<T: for<'a> Deserialize<'a>>(
    from: &mut impl BufRead,
    limit: u64,
) -> Result<Option<T>> {
    let mut line = Vec::new();
    from.take(limit)
        .read_until(b'\n', &mut line)
        .map_err(unheard)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(Error::peer(format!(
            "a truncated line, or one longer than {limit} bytes"
        )));
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|e| Error::peer(format!("malformed line: {e}")))
}

/// Writes one line of JSON.
///
/// # Errors
/// When the connection fails.
pub fn write_line(to: &mut impl Write, what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what).map_err(|e| Error::input(e.to_string()))?;
    line.push(b'\n');
    to.write_all(&line).map_err(|e| failed("send to", e))
}

fn read_tag(from: &mut impl BufRead) -> Result<Option<u8>> {
    loop {
        match from.fill_buf() {
            Ok([]) => return Ok(None),
            Ok([tag, ..]) => {
                let tag = *tag;
                from.consume(1);
                return Ok(Some(tag));
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unheard(e)),
        }
    }
}

fn take<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

fn cut(e: std::io::Error) -> Error {
    if e.kind() == std::io::ErrorKind::UnexpectedEof {
        Error::peer("the connection ended within a frame")
    } else {
        unheard(e)
    }
}

fn unheard(e: std::io::Error) -> Error {
    failed("hear from", e)
}

/// Whose connection it is, the caller knows: see [`Error::on`].
fn failed(op: &'static str, e: std::io::Error) -> Error {
    // What a socket's time limit comes to.
    let e = match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => std::io::Error::new(
            ErrorKind::TimedOut,
            "timed out: the other side has said nothing for too long",
        ),
        _ => e,
    };
    Error::io(op, "the other side", e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            output: OutputId([3; 32]),
            size: 1 << 40,
            time: -5,
        }
    }

    #[test]
    fn requests_read_back_as_they_were_written() {
        let mut keys = Keys::default();
        keys.push(ActionId([1; 32]));
        keys.push(ActionId([2; 32]));
        let requests = [
            Request::Get {
                request: 1,
                action: ActionId([1; 32]),
            },
            Request::First {
                request: 2,
                actions: keys,
            },
            Request::Found {
                request: 0,
                action: ActionId([4; 32]),
                size: 5,
            },
            Request::Parts(vec![("go".into(), "1.27".into())]),
            Request::Put {
                request: u64::MAX,
                action: ActionId([2; 32]),
                output: OutputId([3; 32]),
                size: SIZE_MAX,
            },
        ];
        let mut bytes = Vec::new();
        for request in &requests {
            push_request(&mut bytes, request);
        }
        let mut from = &bytes[..];
        for request in requests {
            assert_eq!(read_request(&mut from).unwrap(), Some(request));
        }
        assert_eq!(read_request(&mut from).unwrap(), None);
    }

    #[test]
    fn answers_read_back_as_they_were_written() {
        let answers = [
            Answer::Hit(entry()),
            Answer::Miss,
            Answer::Stored,
            Answer::Refused("no space".into()),
        ];
        let mut bytes = Vec::new();
        for answer in &answers {
            push_answer(&mut bytes, 7, answer);
        }
        let mut from = &bytes[..];
        for answer in answers {
            assert_eq!(read_answer(&mut from).unwrap(), Some((7, answer)));
        }
        assert_eq!(read_answer(&mut from).unwrap(), None);
    }

    #[test]
    fn a_get_has_the_documented_bytes() {
        let mut bytes = Vec::new();
        push_request(
            &mut bytes,
            &Request::Get {
                request: 258,
                action: ActionId([0xab; 32]),
            },
        );
        let mut expected = vec![b'g', 2, 1, 0, 0, 0, 0, 0, 0];
        expected.extend([0xab; 32]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_frame_that_is_cut_off_is_an_error_at_every_length() {
        let mut bytes = Vec::new();
        push_answer(&mut bytes, 7, &Answer::Hit(entry()));
        for length in 1..bytes.len() {
            assert!(read_answer(&mut &bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn an_unknown_frame_and_what_is_too_large_are_errors() {
        assert!(read_request(&mut &b"{\"ID\":1,\"Command\":\"get\"}\n"[..]).is_err());
        let mut bytes = Vec::new();
        let found = Request::Found {
            request: 0,
            action: ActionId([4; 32]),
            size: SIZE_MAX + 1,
        };
        push_request(&mut bytes, &found);
        assert!(read_request(&mut &bytes[..]).is_err());
        for count in [0, FIRST_MAX as u8 + 1] {
            let mut bytes = vec![b'G', 0, 0, 0, 0, 0, 0, 0, 0, count];
            bytes.resize(400, 1);
            assert!(read_request(&mut &bytes[..]).is_err(), "{count} actions");
        }
        let mut bytes = vec![b'r', 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        bytes.resize(70_000, b'x');
        assert!(read_answer(&mut &bytes[..]).is_err());
    }

    #[test]
    fn parts_that_are_malformed_or_too_long_are_no_end_of_a_session() {
        let mut bytes = b"e\0\0\0\0\0\0\0\0\x03\0{]}".to_vec();
        let get = Request::Get {
            request: 1,
            action: ActionId([1; 32]),
        };
        let long = vec![("x".into(), "y".repeat(70_000))];
        push_request(&mut bytes, &Request::Parts(long));
        push_request(&mut bytes, &get);
        let mut from = &bytes[..];
        assert_eq!(
            read_request(&mut from).unwrap(),
            Some(Request::Parts(Vec::new()))
        );
        assert_eq!(read_request(&mut from).unwrap(), Some(get));
        assert!(read_request(&mut &b"e\0\0\0\0\0\0\0\0\x03\0{"[..]).is_err());
    }

    #[test]
    fn a_line_without_an_end_is_refused_in_bounded_memory() {
        let mut endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert!(read_line::<Hello>(&mut endless).is_err());
    }
}
