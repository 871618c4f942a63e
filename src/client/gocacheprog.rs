//! What `go` says to its GOCACHEPROG on stdin, and what it wants to hear on stdout.
//!
//! The protocol is that of `cmd/go/internal/cacheprog` (Go 1.24 and later) and of
//! `cmd/go/internal/cache/prog.go` (1.21 to 1.23, under `GOEXPERIMENT=cacheprog`). A
//! request is a line of JSON. A put with a `BodySize` above zero is followed by a blank
//! line and a line with the body as a base64 JSON string. Answers are lines of JSON in any
//! order; the first, with ID 0, says which commands are known.
//!
//! The older `go` says `ObjectID` and reads `TimeNanos`, the newer says `OutputID` and reads
//! `Time`: either is read, and where times are sent, both are.
//!
//! Bodies are decoded as they come, in bounded memory. This module never touches a socket
//! or a store.

use crate::config::REQUEST_LINE_MAX;
use crate::entry::{Entry, SIZE_MAX};
use crate::error::{Error, Result};
use crate::id::{ActionId, ID_LEN, OutputId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;
use serde::Deserialize;
use std::borrow::Cow;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::sync::LazyLock;

/// What is said before the first request.
pub const GREETING: &[u8] = b"{\"ID\":0,\"KnownCommands\":[\"get\",\"put\",\"close\"]}\n";

/// What the list of files begins with that a test has read (`testlogMagic` in
/// `cmd/go/internal/test/test.go`).
pub const TEST_LOG: &[u8] = b"# test log\n";

/// What `go` asks.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `go`'s number for this request.
    pub id: i64,
    /// What is asked, or what is wrong with it.
    pub command: Command,
    /// The length of the body that follows, in bytes; 0 when none does.
    pub body_size: u64,
}

/// The commands of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The output of an action.
    Get(ActionId),
    /// An action's output, whose body follows.
    Put(ActionId, OutputId),
    /// Nothing more will be asked.
    Close,
    /// Something that cannot be done, and why.
    Bad(String),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "ID")]
    id: i64,
    #[serde(rename = "Command", default, borrow)]
    command: Cow<'a, str>,
    #[serde(rename = "ActionID", default, borrow)]
    action: Option<Cow<'a, str>>,
    #[serde(rename = "OutputID", default, borrow)]
    output: Option<Cow<'a, str>>,
    #[serde(rename = "ObjectID", default, borrow)]
    object: Option<Cow<'a, str>>,
    #[serde(rename = "BodySize", default)]
    body_size: i64,
}

/// Reads the next request, into `line`; `None` at the end of the input.
///
/// # Errors
/// When the input fails, or is not a request at all: there is no telling where the next
/// one would start.
pub fn read_request(from: &mut impl BufRead, line: &mut Vec<u8>) -> Result<Option<Request>> {
    line.clear();
    while line.trim_ascii().is_empty() {
        line.clear();
        let read = from
            .take(REQUEST_LINE_MAX as u64)
            .read_until(b'\n', line)
            .map_err(failed)?;
        if read == 0 {
            return Ok(None);
        }
    }
    if line.last() != Some(&b'\n') {
        return Err(Error::peer(format!(
            "a request that is cut off, or a line longer than {REQUEST_LINE_MAX} bytes"
        )));
    }
    let line: Line<'_> = serde_json::from_slice(line)
        .map_err(|e| Error::peer(format!("a request that is not what `go` sends: {e}")))?;
    let body_size = u64::try_from(line.body_size)
        .ok()
        .filter(|size| *size <= SIZE_MAX)
        .ok_or_else(|| Error::peer(format!("a request with a body of {} bytes", line.body_size)))?;
    let command = line
        .command()
        .unwrap_or_else(|e| Command::Bad(e.to_string()));
    Ok(Some(Request {
        id: line.id,
        command,
        body_size,
    }))
}

/// Whether there is a whole request among the bytes that have come in: to read it is to wait for nothing.
pub fn has_request(buffer: &[u8]) -> bool {
    memchr(b'\n', buffer.trim_ascii_start()).is_some()
}

impl Line<'_> {
    fn command(&self) -> Result<Command> {
        let mut buffer = [0; DECODED_MAX];
        match &*self.command {
            "get" => Ok(Command::Get(self.action(&mut buffer)?)),
            "put" => {
                let output = self.output.as_deref().or(self.object.as_deref());
                let output = OutputId::from_bytes(decode("OutputID", output, &mut buffer)?)?;
                Ok(Command::Put(self.action(&mut buffer)?, output))
            }
            "close" => Ok(Command::Close),
            other => Err(Error::input(format!("unknown command {other:?}"))),
        }
    }

    fn action(&self, buffer: &mut [u8; DECODED_MAX]) -> Result<ActionId> {
        ActionId::from_bytes(decode("ActionID", self.action.as_deref(), buffer)?)
    }
}

/// More than any ID has, in bytes.
const DECODED_MAX: usize = 96;

fn decode<'a>(
    name: &str,
    text: Option<&str>,
    buffer: &'a mut [u8; DECODED_MAX],
) -> Result<&'a [u8]> {
    let text = text.ok_or_else(|| Error::input(format!("{name} is missing")))?;
    let length = STANDARD
        .decode_slice(text, buffer)
        .map_err(|e| Error::input(format!("{name} is too long, or not base64: {e}")))?;
    Ok(&buffer[..length])
}

/// Decodes bodies as `STANDARD` does, several times as fast where the crate knows the processor.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static BODIES: LazyLock<base64::engine::Simd> =
    LazyLock::new(|| base64::engine::Simd::standard(base64::engine::general_purpose::PAD));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static BODIES: LazyLock<base64::engine::GeneralPurpose> = LazyLock::new(|| STANDARD);

/// The body of a put, decoded piece by piece.
#[derive(Debug)]
pub struct Body<'a, R> {
    from: &'a mut R,
    /// The length that was announced, in bytes.
    size: u64,
    /// Bytes decoded so far.
    decoded: u64,
    /// Characters that do not make up a group of four yet.
    rest: Vec<u8>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Before,
    Within,
    After,
}

impl<'a, R: BufRead> Body<'a, R> {
    /// The body of `size` bytes that comes next; with a size of 0 there is none.
    pub fn new(from: &'a mut R, size: u64) -> Self {
        Self {
            from,
            size,
            decoded: 0,
            rest: Vec::new(),
            state: if size == 0 {
                State::After
            } else {
                State::Before
            },
        }
    }

    /// Adds the next piece to `out`, at most some 48 KiB; `false` when the body is complete.
    ///
    /// # Errors
    /// When the input fails or ends, is not base64, or has another length than announced.
    pub fn next_piece(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        if self.state == State::After {
            return Ok(false);
        }
        if self.state == State::Before {
            self.open()?;
        }
        let buffer = fill(self.from)?;
        let quote = memchr(b'"', buffer);
        let text = &buffer[..quote.unwrap_or(buffer.len())];
        let before = out.len();
        let (head, tail) = if self.rest.is_empty() {
            (&[][..], text)
        } else {
            text.split_at(text.len().min(4 - self.rest.len()))
        };
        self.rest.extend_from_slice(head);
        let (groups, rest) = tail.split_at(tail.len() / 4 * 4);
        let bad = |e| Error::peer(format!("a body that is not base64: {e}"));
        if self.rest.len() == 4 {
            STANDARD.decode_vec(&self.rest, out).map_err(bad)?;
            self.rest.clear();
        }
        BODIES.decode_vec(groups, out).map_err(bad)?;
        self.rest.extend_from_slice(rest);
        let used = text.len() + usize::from(quote.is_some());
        self.from.consume(used);
        self.decoded += (out.len() - before) as u64;
        if quote.is_some() {
            self.state = State::After;
        }
        let over = quote.is_some() && (self.decoded != self.size || !self.rest.is_empty());
        if over || self.decoded > self.size {
            return Err(Error::peer(format!(
                "a body of another length than the {} bytes announced",
                self.size
            )));
        }
        Ok(quote.is_none())
    }

    /// Reads past what is left of the body, whatever it is.
    ///
    /// # Errors
    /// When the input fails or ends.
    pub fn skip(&mut self) -> Result<()> {
        if self.state == State::Before {
            self.open()?;
        }
        while self.state == State::Within {
            let buffer = fill(self.from)?;
            let quote = memchr(b'"', buffer);
            let used = quote.map_or(buffer.len(), |at| at + 1);
            self.from.consume(used);
            if quote.is_some() {
                self.state = State::After;
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        loop {
            let first = fill(self.from)?[0];
            match first {
                b'\n' | b'\r' | b' ' => self.from.consume(1),
                b'"' => {
                    self.from.consume(1);
                    self.state = State::Within;
                    return Ok(());
                }
                _ => return Err(Error::peer("a put without the body it announced")),
            }
        }
    }
}

fn fill(from: &mut impl BufRead) -> Result<&[u8]> {
    // Written so because the borrow of a buffer that is returned spans the whole loop.
    while let Err(e) = from.fill_buf() {
        if e.kind() != std::io::ErrorKind::Interrupted {
            return Err(failed(e));
        }
    }
    match from.fill_buf() {
        Ok([]) => Err(Error::peer("the input ended within a body")),
        Ok(buffer) => Ok(buffer),
        Err(e) => Err(failed(e)),
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::io("read from", "`go`", e)
}

/// Answers a get with an output. `go` takes it to be of now: it compares a time with that of the last `go clean -testcache`
/// before it believes the result of a test (`cmd/go/internal/test/test.go`), and with nothing else.
pub fn push_hit(out: &mut Vec<u8>, id: i64, entry: &Entry, path: &Path) {
    push_output(out, id, entry);
    push_path(out, path);
}

/// Answers a get with an output and when it was put.
pub fn push_dated_hit(out: &mut Vec<u8>, id: i64, entry: &Entry, path: &Path) {
    push_output(out, id, entry);
    out.extend_from_slice(b"\"Time\":\"");
    push_rfc3339(out, entry.time);
    push(out, format_args!("\",\"TimeNanos\":{},", entry.time));
    push_path(out, path);
}

fn push_output(out: &mut Vec<u8>, id: i64, entry: &Entry) {
    let size = entry.size;
    push(
        out,
        format_args!("{{\"ID\":{id},\"Size\":{size},\"OutputID\":\""),
    );
    let mut output = [0; OUTPUT_CHARS];
    // It is exactly as long.
    let _ = STANDARD.encode_slice(entry.output.0, &mut output);
    out.extend_from_slice(&output);
    out.extend_from_slice(b"\",");
}

/// An output ID in base64.
const OUTPUT_CHARS: usize = ID_LEN.div_ceil(3) * 4;

fn push_path(out: &mut Vec<u8>, path: &Path) {
    out.extend_from_slice(b"\"DiskPath\":");
    match path.to_str() {
        Some(path) => push_string(out, path),
        None => push_string(out, &path.to_string_lossy()),
    }
    out.extend_from_slice(b"}\n");
}

/// Answers a get with nothing.
pub fn push_miss(out: &mut Vec<u8>, id: i64) {
    push(out, format_args!("{{\"ID\":{id},\"Miss\":true}}\n"));
}

/// Answers a put.
pub fn push_stored(out: &mut Vec<u8>, id: i64, path: &Path) {
    push(out, format_args!("{{\"ID\":{id},"));
    push_path(out, path);
}

/// Answers a request that failed.
pub fn push_error(out: &mut Vec<u8>, id: i64, why: &str) {
    push(out, format_args!("{{\"ID\":{id},\"Err\":"));
    push_string(out, why);
    out.extend_from_slice(b"}\n");
}

/// Answers a close.
pub fn push_closed(out: &mut Vec<u8>, id: i64) {
    push(out, format_args!("{{\"ID\":{id}}}\n"));
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // A string always has a JSON form, and writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Nanoseconds since 1970 as RFC 3339, in UTC.
fn push_rfc3339(out: &mut Vec<u8>, nanos: i64) {
    let seconds = nanos.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date in the Gregorian calendar, counted in 400-year eras from 0000-03-01.
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + 400 * era + i64::from(month <= 2);
    push(
        out,
        format_args!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            nanos.rem_euclid(1_000_000_000)
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    const A: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn read(text: &str) -> Result<Option<Request>> {
        read_request(&mut text.as_bytes(), &mut Vec::new())
    }

    fn bad(text: &str) -> String {
        match read(text).unwrap().unwrap().command {
            Command::Bad(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_there_when_its_line_is() {
        for (text, whole) in [
            ("", false),
            ("\n", false),
            (" \r\n\n", false),
            ("\n{\"ID\":1", false),
            ("\n{\"ID\":1}\n", true),
            ("{}\n\n", true),
        ] {
            assert_eq!(has_request(text.as_bytes()), whole, "{text:?}");
        }
    }

    #[test]
    fn requests_of_old_and_new_go_are_read() {
        let get = format!("{{\"ID\":1,\"Command\":\"get\",\"ActionID\":\"{A}\"}}\n");
        assert_eq!(
            read(&get).unwrap().unwrap(),
            Request {
                id: 1,
                command: Command::Get(ActionId([1; 32])),
                body_size: 0
            }
        );
        for name in ["ObjectID", "OutputID"] {
            let put = format!(
                "\n{{\"ID\":2,\"Command\":\"put\",\"ActionID\":\"{A}\",\"{name}\":\"{A}\",\"BodySize\":5}}\n"
            );
            assert_eq!(
                read(&put).unwrap().unwrap(),
                Request {
                    id: 2,
                    command: Command::Put(ActionId([1; 32]), OutputId([1; 32])),
                    body_size: 5
                }
            );
        }
        let close = read("{\"ID\":3,\"Command\":\"close\"}\n").unwrap().unwrap();
        assert_eq!(close.command, Command::Close);
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("\n\n").unwrap(), None);
    }

    #[test]
    fn a_bad_id_spoils_its_own_request_only() {
        assert!(bad("{\"ID\":1,\"Command\":\"get\"}\n").contains("missing"));
        assert!(bad("{\"ID\":1,\"Command\":\"get\",\"ActionID\":\"\"}\n").contains("0"));
        assert!(bad("{\"ID\":1,\"Command\":\"get\",\"ActionID\":\"../..\"}\n").contains("base64"));
        let long = "A".repeat(88);
        assert!(
            bad(&format!(
                "{{\"ID\":1,\"Command\":\"get\",\"ActionID\":\"{long}\"}}\n"
            ))
            .contains("66")
        );
        assert!(
            bad(&format!(
                "{{\"ID\":1,\"Command\":\"put\",\"ActionID\":\"{A}\",\"OutputID\":\"AAAA\"}}\n"
            ))
            .contains("SHA-256")
        );
        let longer = "A".repeat(4000);
        assert!(
            bad(&format!(
                "{{\"ID\":1,\"Command\":\"get\",\"ActionID\":\"{longer}\"}}\n"
            ))
            .contains("too long")
        );
        assert!(bad("{\"ID\":1,\"Command\":\"shutdown\"}\n").contains("unknown command"));
    }

    #[test]
    fn what_is_no_request_ends_the_conversation() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "{\"ID\":1,\"Command\":\"get\"",
            "[]\n",
            "{\"ID\":1,\"Command\":\"put\",\"BodySize\":-1}\n",
            "{\"ID\":1,\"Command\":\"put\",\"BodySize\":9223372036854775807}\n",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let mut endless = BufReader::new(std::io::repeat(b'x'));
        assert!(read_request(&mut endless, &mut Vec::new()).is_err());
    }

    /// Decodes a body that arrives in pieces of `step` bytes; gives it and the text after it.
    fn body(text: &[u8], size: u64, step: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut from = BufReader::with_capacity(step, text);
        let mut out = Vec::new();
        let mut body = Body::new(&mut from, size);
        while body.next_piece(&mut out)? {}
        let mut after = Vec::new();
        from.read_to_end(&mut after).unwrap();
        Ok((out, after))
    }

    #[test]
    fn a_body_is_decoded_however_it_is_cut() {
        for length in 0..40usize {
            let bytes: Vec<u8> = (0..length as u8).collect();
            let text = if length == 0 {
                "next".to_string()
            } else {
                format!("\n\"{}\"next", STANDARD.encode(&bytes))
            };
            for step in 1..30 {
                let (out, after) = body(text.as_bytes(), length as u64, step).unwrap();
                assert_eq!((out, &after[..]), (bytes.clone(), &b"next"[..]));
            }
        }
    }

    #[test]
    fn a_body_of_another_length_or_that_is_not_base64_is_refused() {
        for (text, size) in [
            (&b"\"AAAA\""[..], 2),
            (b"\"AAAA\"", 4),
            (b"\"AAA\"", 2),
            (b"\"AA*A\"", 3),
            (b"\"AAAA", 3),
            (b"AAAA", 3),
            (b"\"\"", 3),
        ] {
            for step in 1..8 {
                assert!(body(text, size, step).is_err(), "{text:?} {step}");
            }
        }
    }

    #[test]
    fn a_body_that_was_refused_can_be_skipped() {
        let mut from = &b"\n\"AA*AAAAA\"\n{\"ID\":3,\"Command\":\"close\"}\n"[..];
        let mut body = Body::new(&mut from, 6);
        assert!(body.next_piece(&mut Vec::new()).is_err());
        body.skip().unwrap();
        let next = read_request(&mut from, &mut Vec::new()).unwrap();
        assert_eq!(next.unwrap().id, 3);
    }

    #[test]
    fn answers_are_what_go_reads() {
        let entry = Entry {
            output: OutputId([1; 32]),
            size: 5,
            time: 1_709_210_096_000_000_007,
        };
        let mut out = Vec::new();
        push_hit(&mut out, 6, &entry, Path::new("/gocache/1b"));
        push_dated_hit(&mut out, 7, &entry, Path::new("/gocache/0a\"/1b"));
        push_miss(&mut out, 8);
        push_stored(&mut out, 9, Path::new("/x"));
        push_error(&mut out, 10, "no\nspace");
        push_closed(&mut out, 11);
        let expected = format!(
            "{{\"ID\":6,\"Size\":5,\"OutputID\":\"{A}\",\"DiskPath\":\"/gocache/1b\"}}\n\
             {{\"ID\":7,\"Size\":5,\"OutputID\":\"{A}\",\"Time\":\"2024-02-29T12:34:56.000000007Z\",\
             \"TimeNanos\":1709210096000000007,\"DiskPath\":\"/gocache/0a\\\"/1b\"}}\n\
             {{\"ID\":8,\"Miss\":true}}\n{{\"ID\":9,\"DiskPath\":\"/x\"}}\n\
             {{\"ID\":10,\"Err\":\"no\\nspace\"}}\n{{\"ID\":11}}\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn dates_are_right_at_the_edges_of_the_calendar() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_399_000_000_000, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (1_767_225_599_000_000_000, "2025-12-31T23:59:59.000000000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
        ] {
            let mut out = Vec::new();
            push_rfc3339(&mut out, nanos);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
