//! Fetching from upstreams, over connections that are kept and within time limits.
//!
//! A transfer that breaks is tried again, a bounded number of times, and resumed where
//! the upstream can do that. Credentials go to the server they are meant for and nowhere else:
//! not to where it redirects to, not over plain HTTP, not into a log or an error.

use super::body::{Body, Spool};
use super::response::Response;
use crate::error::Result;
use crate::http::forward::Forward;
use crate::http::names::Names;
use crate::http::netrc::NetrcFile;
use crate::http::roots;
use crate::http::url::{Credentials, Url};
use crate::http::{describe, is_broken};
use crate::id::OutputId;
use crate::log;
use crate::sync::lock;
use flate2::bufread::MultiGzDecoder;
use std::collections::HashMap;
use std::io::{BufReader, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use ureq::http::{self, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Timeout};

/// How often one file is requested.
const TRIES: u32 = 4;

/// The wait before the second try; each further one is four times as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A request that may only be repeated after longer than this is left to `go`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// For so long an upstream that could not be reached is not tried again: with hundreds of
/// files to fetch a build would wait for each of them.
const UNREACHABLE_FOR: Duration = Duration::from_secs(5);

/// For so long an upstream that failed to answer, or could not be reached, is asked only once for each file: `go` alone
/// would not ask again either.
const FAILING_FOR: Duration = Duration::from_secs(60);

/// How often a file is asked for at most, when the answer was of a kind that seldom gets better.
const TRIES_OF_A_FAILURE: u32 = 2;

/// Redirects that are followed, as many as `go` follows.
const REDIRECTS_MAX: usize = 10;

/// What is read of a refusal's text, in bytes; `go` shows less (cmd/go/internal/web,
/// `maxErrorDetailBytes`).
const REFUSAL_MAX: u64 = 16 << 10;

/// Connections to one upstream that are kept open. `go` has dozens of requests running.
const KEPT_CONNECTIONS: usize = 32;

/// For so long a connection is kept that nobody uses.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a connection to be made, the encryption included.
    pub connect: Duration,
    /// For the next bytes to come.
    pub read: Duration,
}

/// Fetches from upstreams.
pub struct Upstreams {
    limits: Limits,
    roots: RootCerts,
    netrc: NetrcFile,
    forward: Forward,
    names: Names,
    /// One for each HTTP proxy, and one for none. Each keeps its own connections.
    agents: Mutex<HashMap<Option<ureq::Proxy>, Agent>>,
    /// Which could not be reached, when, and why.
    unreachable: Mutex<HashMap<String, (Instant, String)>>,
    /// Which failed to answer or to be reached however often they were asked, and when.
    failing: Mutex<HashMap<String, Instant>>,
    requests: AtomicU64,
}

/// A file that an upstream gave.
pub struct Fetched {
    /// The whole body, unless `complete` says that this is unknown.
    pub body: Body,
    /// Its hash.
    pub output: OutputId,
    /// Whether the upstream said where the body ends, and it came to that end.
    pub complete: bool,
}

/// The outcome of one try that is not the end.
struct Again {
    refusal: Response,
    /// At least so long, as the upstream wants it.
    wait: Duration,
    /// How often the file may be asked for.
    tries: u32,
}

enum Failure {
    Final(Response),
    Again(Again),
    /// No connection could be made.
    Unreachable {
        why: String,
        /// It took the whole time that a connection may take.
        late: bool,
    },
}

/// A transfer that may take more than one try.
#[derive(Default)]
struct Transfer {
    spool: Spool,
    /// How to ask for the rest of it; nothing when it must begin anew.
    resume: Option<Resume>,
}

struct Resume {
    /// The whole length in bytes.
    total: u64,
    /// An `ETag` or a date that changes with the file.
    validator: Option<String>,
}

impl Upstreams {
    /// Reads from the environment whom to trust, which HTTP proxies to go through, and the
    /// user's netrc.
    ///
    /// A netrc that is not there yet may also appear in one of these directories.
    pub fn from_env(limits: Limits, netrc_directories: &[PathBuf]) -> Self {
        Self {
            limits,
            roots: roots::load(),
            netrc: NetrcFile::of_user(netrc_directories),
            forward: Forward::from_env(),
            names: Names::default(),
            agents: Mutex::default(),
            unreachable: Mutex::default(),
            failing: Mutex::default(),
            requests: AtomicU64::new(0),
        }
    }

    /// How many requests were sent.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Everything that decides which files an upstream shows: its URL with the user's credentials for
    /// it. It must not be shown to anybody.
    pub fn secret(&self, url: &Url) -> String {
        match self.netrc.current().find(url) {
            Some(Credentials { user, password }) => {
                format!("{user:?} {password:?} {}", url.secret())
            }
            None => url.secret(),
        }
    }

    /// Whether an upstream is shown anything that only some know.
    pub fn has_secret(&self, url: &Url) -> bool {
        self.netrc.current().find(url).is_some() || url.credentials().is_some() || url.has_query()
    }

    /// Fetches a file. Where it takes more than one try the calling thread waits.
    pub fn fetch(&self, url: &Url) -> std::result::Result<Fetched, Response> {
        if url.credentials().is_some() && !url.is_https() {
            // So does `go`.
            return Err(Response::bad_gateway(
                "a password is not sent to an insecure URL",
            ));
        }
        let server = format!("{}:{}", url.host(), url.port());
        if let Some((since, why)) = lock(&self.unreachable).get(&server)
            && since.elapsed() < UNREACHABLE_FOR
        {
            return Err(Response::bad_gateway(why));
        }
        let is_failing = lock(&self.failing)
            .get(&server)
            .is_some_and(|since| since.elapsed() < FAILING_FOR);
        let mut transfer = Transfer::default();
        let mut wait = FIRST_WAIT;
        let mut tries = 1;
        loop {
            let again = match self.attempt(url, &mut transfer) {
                Ok(fetched) => {
                    lock(&self.failing).remove(&server);
                    return Ok(fetched);
                }
                Err(Failure::Final(refusal)) => {
                    if refusal.status < 500 {
                        lock(&self.failing).remove(&server);
                    }
                    return Err(refusal);
                }
                Err(Failure::Unreachable { why, late }) => {
                    self.names.forget();
                    let why = format!("cannot reach {server}: {why}");
                    if late || is_failing || tries >= TRIES {
                        let refusal = Response::bad_gateway(&why);
                        lock(&self.failing).insert(server.clone(), Instant::now());
                        lock(&self.unreachable).insert(server, (Instant::now(), why));
                        return Err(refusal);
                    }
                    Again {
                        refusal: Response::bad_gateway(&why),
                        wait: Duration::ZERO,
                        tries: TRIES,
                    }
                }
                Err(Failure::Again(again)) => again,
            };
            if is_failing || tries >= again.tries || again.wait > RETRY_AFTER_MAX {
                lock(&self.failing).insert(server, Instant::now());
                return Err(again.refusal);
            }
            log::debug(|| format!("try {tries} failed, {url}: {}", again.refusal.first_line()));
            thread::sleep(wait.max(again.wait));
            wait *= 4;
            tries += 1;
        }
    }

    /// One try.
    fn attempt(&self, url: &Url, transfer: &mut Transfer) -> std::result::Result<Fetched, Failure> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.request(url, &at, transfer)?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return self.receive(response, transfer);
            }
            let to = response
                .headers()
                .get(header::LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| at.redirected(location).ok())
                .filter(|to| to.is_https() || !url.is_https());
            at = to.ok_or_else(|| Failure::bad_gateway("a redirect to where it must not lead"))?;
        }
        Err(Failure::bad_gateway(&format!(
            "more than {REDIRECTS_MAX} redirects"
        )))
    }

    fn request(
        &self,
        asked: &Url,
        at: &Url,
        transfer: &Transfer,
    ) -> std::result::Result<http::Response<ureq::Body>, Failure> {
        let agent = self
            .agent(at)
            .map_err(|e| Failure::bad_gateway(&e.chain()))?;
        let mut request = agent.get(at.request());
        let netrc = self.netrc.current();
        let credentials = if at.same_origin(asked) {
            netrc.find(asked).or(asked.credentials())
        } else {
            at.credentials().filter(|_| at.is_https())
        };
        if let Some(credentials) = credentials {
            request = request.header(header::AUTHORIZATION, credentials.authorization());
        }
        if let Some(resume) = &transfer.resume {
            request = request.header(header::RANGE, format!("bytes={}-", transfer.spool.len()));
            if let Some(validator) = &resume.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let result = request.call();
        log::debug(|| {
            let outcome = match &result {
                Ok(response) => response.status().to_string(),
                Err(e) => describe(e),
            };
            format!(
                "upstream: {at}: {outcome} ({} ms)",
                start.elapsed().as_millis()
            )
        });
        result.map_err(|e| match &e {
            // A server that has closed a kept connection just now, most likely.
            ureq::Error::Io(io) if is_broken(io.kind()) => Failure::again(&describe(&e)),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => Failure::Unreachable {
                why: describe(&e),
                late: true,
            },
            ureq::Error::Io(io) if io.kind() == ErrorKind::InvalidData => {
                Failure::bad_gateway(&format!("{at}: {}", describe(&e)))
            }
            ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                Failure::Unreachable {
                    why: describe(&e),
                    late: false,
                }
            }
            _ => Failure::bad_gateway(&format!("{at}: {}", describe(&e))),
        })
    }

    fn receive(
        &self,
        mut response: http::Response<ureq::Body>,
        transfer: &mut Transfer,
    ) -> std::result::Result<Fetched, Failure> {
        let status = response.status().as_u16();
        match status {
            206 if transfer.continues(&response) => {}
            200 => *transfer = Transfer::begin(&response),
            206 | 416 => {
                *transfer = Transfer::default();
                return Err(Failure::again(
                    "the upstream gave another part than the one asked for",
                ));
            }
            _ => return Err(refused(response)),
        }
        let chunked = has(&response, header::TRANSFER_ENCODING.as_str(), "chunked");
        let complete = chunked || response.body().content_length().is_some();
        let announced = content_length(&response);
        let from = transfer.spool.len();
        let mut reader = response.body_mut().as_reader();
        let mut buffer = vec![0; 32 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    let pushed = transfer.spool.push(&buffer[..n]);
                    pushed.map_err(|e| Failure::bad_gateway(&e.chain()))?;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(transfer.broken(&e.to_string())),
            }
        }
        let received = transfer.spool.len() - from;
        if announced.is_some_and(|announced| announced != received) {
            return Err(transfer.broken("the answer has another length than it announced"));
        }
        let (body, output) = std::mem::take(transfer).spool.finish();
        let fetched = Fetched {
            body,
            output,
            complete,
        };
        if has(&response, header::CONTENT_ENCODING.as_str(), "gzip") {
            return fetched.decompressed();
        }
        Ok(fetched)
    }

    fn agent(&self, url: &Url) -> Result<Agent> {
        let proxy = self.forward.for_url(url)?;
        let mut agents = lock(&self.agents);
        if let Some(agent) = agents.get(&proxy) {
            return Ok(agent.clone());
        }
        let agent = Agent::with_parts(
            Agent::config_builder()
                .proxy(proxy.clone())
                .tls_config(TlsConfig::builder().root_certs(self.roots.clone()).build())
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("nix-gocacheprog/", env!("CARGO_PKG_VERSION")))
                // Modules are compressed already, and lengths and ranges are those of the file.
                .accept_encoding("identity")
                .timeout_resolve(Some(self.limits.connect))
                .timeout_connect(Some(self.limits.connect))
                .timeout_per_read(Some(self.limits.read))
                .timeout_per_write(Some(self.limits.read))
                .max_idle_connections(2 * KEPT_CONNECTIONS)
                .max_idle_connections_per_host(KEPT_CONNECTIONS)
                .max_idle_age(KEPT_FOR)
                .build(),
            DefaultConnector::default(),
            self.names.clone(),
        );
        agents.insert(proxy, agent.clone());
        Ok(agent)
    }
}

impl Fetched {
    /// What an upstream compressed that was not asked to.
    fn decompressed(self) -> std::result::Result<Self, Failure> {
        let mut spool = Spool::default();
        let mut reader = MultiGzDecoder::new(BufReader::new(self.body.reader()));
        let mut buffer = vec![0; 32 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    let pushed = spool.push(&buffer[..n]);
                    pushed.map_err(|e| Failure::bad_gateway(&e.chain()))?;
                }
                Err(e) => {
                    return Err(Failure::Again(Again {
                        refusal: Response::bad_gateway(&format!("cannot decompress: {e}")),
                        wait: Duration::ZERO,
                        tries: TRIES_OF_A_FAILURE,
                    }));
                }
            }
        }
        let (body, output) = spool.finish();
        Ok(Self {
            body,
            output,
            complete: self.complete,
        })
    }
}

impl Transfer {
    fn begin(response: &http::Response<ureq::Body>) -> Self {
        let validator = [header::ETAG, header::LAST_MODIFIED]
            .iter()
            .filter_map(|name| response.headers().get(name)?.to_str().ok())
            .find(|value| !value.starts_with("W/"))
            .map(str::to_string);
        let able = validator.is_some() || has(response, header::ACCEPT_RANGES.as_str(), "bytes");
        Self {
            spool: Spool::default(),
            resume: content_length(response)
                .filter(|_| able)
                .map(|total| Resume { total, validator }),
        }
    }

    /// Whether this is the rest of what is here.
    fn continues(&self, response: &http::Response<ureq::Body>) -> bool {
        let Some(resume) = &self.resume else {
            return false;
        };
        let rest = format!(
            "bytes {}-{}/{}",
            self.spool.len(),
            resume.total.saturating_sub(1),
            resume.total
        );
        let range = response.headers().get(header::CONTENT_RANGE);
        range.is_some_and(|range| range.as_bytes() == rest.as_bytes())
    }

    /// Keeps what is here if it can be gone on with.
    fn broken(&mut self, why: &str) -> Failure {
        let going_on = self
            .resume
            .as_ref()
            .is_some_and(|resume| (1..resume.total).contains(&self.spool.len()));
        if !going_on {
            *self = Self::default();
        }
        Failure::again(&format!("the transfer broke: {why}"))
    }
}

impl Failure {
    fn bad_gateway(why: &str) -> Self {
        Self::Final(Response::bad_gateway(why))
    }

    fn again(why: &str) -> Self {
        Self::Again(Again {
            refusal: Response::bad_gateway(why),
            wait: Duration::ZERO,
            tries: TRIES,
        })
    }
}

/// What an upstream said that is not the file.
fn refused(mut response: http::Response<ureq::Body>) -> Failure {
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/octet-stream")
        .to_string();
    let said = |name| response.headers().get(name)?.to_str().ok();
    let wait = said(header::RETRY_AFTER)
        .and_then(|value| retry_after(value, said(header::DATE)))
        .unwrap_or_default();
    let mut text = Vec::new();
    // A text that cannot be read is no reason to say less.
    let _ = response
        .body_mut()
        .as_reader()
        .take(REFUSAL_MAX)
        .read_to_end(&mut text);
    let refusal = Response {
        status,
        ..Response::file(&content_type, Body::Memory(text.into()))
    };
    if matches!(status, 429 | 500 | 502 | 503 | 504) {
        let tries = if status == 500 {
            TRIES_OF_A_FAILURE
        } else {
            TRIES
        };
        Failure::Again(Again {
            refusal,
            wait,
            tries,
        })
    } else {
        Failure::Final(refusal)
    }
}

/// How long an upstream asks to wait: in seconds, or until a date, which is read by the upstream's own clock where it
/// tells the time.
fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let parsed = |date: &str| httpdate::parse_http_date(date.trim()).ok();
    let now = date.and_then(parsed).unwrap_or_else(SystemTime::now);
    Some(parsed(value)?.duration_since(now).unwrap_or_default())
}

fn content_length(response: &http::Response<ureq::Body>) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.trim().parse().ok()
}

fn has(response: &http::Response<ureq::Body>, name: &str, token: &str) -> bool {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().contains(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_says_in_seconds_or_by_its_own_clock_how_long_it_wants_to_be_left_alone() {
        let noon = Some("Sun, 06 Nov 1994 12:00:00 GMT");
        for (value, date, wait) in [
            (" 7 ", noon, Some(7)),
            ("0", None, Some(0)),
            ("Sun, 06 Nov 1994 12:00:09 GMT", noon, Some(9)),
            ("Mon, 07 Nov 1994 12:00:00 GMT", noon, Some(86400)),
            // Over by now: by its clock, or by this machine's.
            ("Sun, 06 Nov 1994 11:59:59 GMT", noon, Some(0)),
            ("Sun, 06 Nov 1994 12:00:09 GMT", None, Some(0)),
            ("Sun, 06 Nov 1994 12:00:09 GMT", Some("noon"), Some(0)),
            ("soon", noon, None),
            ("-1", noon, None),
            ("Sun, 99 Nov 1994 12:00:09 GMT", noon, None),
            ("", noon, None),
        ] {
            let wait = wait.map(Duration::from_secs);
            assert_eq!(retry_after(value, date), wait, "{value:?} at {date:?}");
        }
        let far = retry_after("Fri, 31 Dec 9999 23:59:59 GMT", None);
        assert!(far.is_some_and(|far| far > RETRY_AFTER_MAX));
    }

    #[test]
    fn an_upstream_that_cannot_be_reached_is_tried_again_for_one_file_and_not_for_each() {
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let limits = Limits {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(10),
        };
        let upstreams = Upstreams::from_env(limits, &[]);
        let url = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
        for requests in [u64::from(TRIES), u64::from(TRIES) + 1] {
            assert!(upstreams.fetch(&url).is_err());
            assert!(upstreams.fetch(&url).is_err());
            assert_eq!(upstreams.requests(), requests);
            // As it is some seconds later.
            lock(&upstreams.unreachable).clear();
        }
    }
}
