//! The server, in HTTP: GET, HEAD and PUT of names below its URL. It knows nothing of actions and outputs.
//!
//! Connections are kept and every wait has a limit. Redirects of reads are followed, without credentials when they lead
//! elsewhere, and never from https to http.

use super::access::Access;
use crate::config::{
    REMOTE_CONNECT_LIMIT, REMOTE_FETCHERS, REMOTE_READ_LIMIT, REMOTE_UPLOADERS, REMOTE_WRITE_LIMIT,
};
use crate::error::Result;
use crate::http::forward::Forward;
use crate::http::names::Names;
use crate::http::url::Url;
use crate::http::{describe, is_broken};
use crate::log;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

/// What a server says besides the status is read up to here, so that the connection can be used again.
const REST_MAX: u64 = 64 << 10;

/// For so long a connection is kept that nobody uses: shorter than servers do, which close it after a minute or so.
const KEPT_FOR: Duration = Duration::from_secs(20);

/// Redirects that are followed for one request.
const REDIRECTS_MAX: usize = 5;

/// The content encoding of packed outputs.
const ZSTD: &str = "zstd";

/// The size that packed bytes have when they are unpacked, which bazel-remote wants to know.
const UNPACKED_SIZE: &str = "X-Digest-SizeBytes";

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words, without any secret.
    pub why: String,
    /// It is about this one request, and says nothing of the server.
    pub is_of_request: bool,
    /// The status, if there was one.
    pub status: Option<u16>,
}

/// How a request ended.
pub type Outcome<T> = std::result::Result<T, Failure>;

/// What a GET found.
pub struct Found {
    /// The bytes, as they come.
    pub body: Box<dyn Read>,
    /// How many there will be, if the server says so.
    pub length: Option<u64>,
    /// They are packed with zstd.
    pub is_packed: bool,
}

/// What is PUT.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// The media type.
    pub kind: &'static str,
    /// The length in bytes.
    pub size: u64,
    /// The bytes are packed in the sense of HTTP, and this is their length once unpacked.
    pub unpacked: Option<u64>,
    /// Leave what is there already, where the server knows how to.
    pub keep: bool,
}

/// The server.
pub struct Server {
    access: Access,
    names: Names,
    /// For whom somebody waits.
    reading: Agent,
    /// The same on servers to which redirects lead, without the client's certificate.
    elsewhere: Agent,
    /// For what goes on behind everybody's back, on a machine that may be busy.
    writing: Agent,
    /// Whether the store knows of puts that leave alone what is there, as far as is known.
    takes_conditions: AtomicBool,
}

impl Failure {
    /// One that says something of the server.
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_of_request: false,
            status: None,
        }
    }

    fn of(e: &ureq::Error) -> Self {
        Self::new(describe(e))
    }

    /// A refused question. All questions are alike, so no refusal is of one of them alone: to be without the right
    /// client certificate is a 400 to nginx.
    fn status(status: u16) -> Self {
        let hint = match status {
            300..=399 => ": a redirect that is not followed",
            400 => {
                ": a client certificate may be missing (--remote-cert, --remote-key), or this is not a cache server"
            }
            401 => {
                ": missing, wrong or expired credentials (--remote-credentials FILE, which is read again when it changes; \
                 if systemd loads it, the daemon must be restarted)"
            }
            403 => ": these credentials (--remote-credentials) do not permit it",
            413 => ": the body is too large for it",
            507 => ": it is full",
            _ => "",
        };
        Self {
            status: Some(status),
            ..Self::new(format!("status {status}{hint}"))
        }
    }

    /// A refused PUT, of which the body may be the cause.
    fn status_of_sent(status: u16) -> Self {
        Self {
            is_of_request: matches!(status, 400 | 411 | 413 | 414 | 422),
            ..Self::status(status)
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.access.url)
    }
}

impl Server {
    /// The server of this access. Nothing is sent yet.
    ///
    /// # Errors
    /// When the environment names an HTTP proxy that cannot be used.
    pub fn new(access: Access) -> Result<Self> {
        let proxy = Forward::from_env().for_url(&access.url)?;
        let names = Names::default();
        let agent = |tls: &TlsConfig, connect, silence, connections| {
            Agent::with_parts(
                Agent::config_builder()
                    .proxy(proxy.clone())
                    .tls_config(tls.clone())
                    .http_status_as_error(false)
                    .max_redirects(0)
                    .max_redirects_will_error(false)
                    .user_agent(concat!("nix-gocacheprog/", env!("CARGO_PKG_VERSION")))
                    .accept_encoding("identity")
                    .timeout_resolve(Some(connect))
                    .timeout_connect(Some(connect))
                    .timeout_recv_response(Some(silence))
                    .timeout_per_read(Some(silence))
                    .timeout_per_write(Some(silence))
                    .max_idle_connections(connections)
                    .max_idle_connections_per_host(connections)
                    .max_idle_age(KEPT_FOR)
                    .build(),
                DefaultConnector::default(),
                names.clone(),
            )
        };
        let reader = |tls| {
            agent(
                tls,
                REMOTE_CONNECT_LIMIT,
                REMOTE_READ_LIMIT,
                REMOTE_FETCHERS,
            )
        };
        Ok(Self {
            reading: reader(&access.tls),
            elsewhere: reader(&access.anonymous_tls),
            writing: agent(
                &access.tls,
                REMOTE_WRITE_LIMIT,
                REMOTE_WRITE_LIMIT,
                REMOTE_UPLOADERS,
            ),
            access,
            names,
            takes_conditions: AtomicBool::new(true),
        })
    }

    /// Where it is, for a person.
    pub fn url(&self) -> &Url {
        &self.access.url
    }

    /// The bytes under a name: not checked, and maybe cut off. `None` when there are none. `packed` says whether the
    /// server may pack them.
    pub fn get(&self, name: &str, accept: &str, packed: bool) -> Outcome<Option<Found>> {
        self.get_with(&self.reading, name, accept, packed)
    }

    /// The same for an upload, for which nobody waits.
    pub fn get_patiently(&self, name: &str, accept: &str) -> Outcome<Option<Found>> {
        self.get_with(&self.writing, name, accept, false)
    }

    fn get_with(
        &self,
        agent: &Agent,
        name: &str,
        accept: &str,
        packed: bool,
    ) -> Outcome<Option<Found>> {
        let response = self.ask(agent, name, |agent, url, headers| {
            let mut request = agent.get(url).header(header::ACCEPT, accept).header(
                header::ACCEPT_ENCODING,
                if packed { ZSTD } else { "identity" },
            );
            if let Some(all) = request.headers_mut() {
                all.extend(headers);
            }
            request.call()
        })?;
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        let is_packed = packed && encoding.is_some_and(|value| value == ZSTD);
        match response.status().as_u16() {
            200 if !is_packed && encoding.is_some_and(|value| value != "identity") => Err(
                Failure::new("a response in an encoding that was not asked for"),
            ),
            200 => Ok(Some(Found {
                length: length_of(&response),
                is_packed,
                body: Box::new(response.into_body().into_reader()),
            })),
            status => {
                let done = finish(response);
                match status {
                    404 | 410 => done.map(|()| None),
                    _ => Err(Failure::status(status)),
                }
            }
        }
    }

    /// Whether there is something under a name.
    pub fn head(&self, name: &str) -> Outcome<bool> {
        let response = self.call(
            name,
            |headers| {
                let mut request = self.writing.head(self.at(name));
                if let Some(all) = request.headers_mut() {
                    all.extend(headers);
                }
                request.call()
            },
            "HEAD",
        )?;
        match response.status().as_u16() {
            200 | 204 => Ok(true),
            404 | 410 => Ok(false),
            status => Err(Failure::status(status)),
        }
    }

    /// Puts bytes under a name. `body` gives them from their beginning, more than once if need be.
    pub fn put<R: Read>(
        &self,
        name: &str,
        content: Content,
        body: impl Fn() -> std::io::Result<R>,
    ) -> Outcome<()> {
        let is_conditional =
            content.keep && self.access.is_s3() && self.takes_conditions.load(Ordering::Relaxed);
        let response = self.call(
            name,
            |headers| {
                let mut request = self
                    .writing
                    .put(self.at(name))
                    .header(header::CONTENT_TYPE, content.kind)
                    .header(header::CONTENT_LENGTH, content.size.to_string());
                if let Some(size) = content.unpacked {
                    request = request
                        .header(header::CONTENT_ENCODING, ZSTD)
                        .header(UNPACKED_SIZE, size.to_string());
                }
                if is_conditional {
                    request = request.header(header::IF_NONE_MATCH, "*");
                }
                if let Some(all) = request.headers_mut() {
                    all.extend(headers);
                }
                request.send(ureq::SendBody::from_reader(&mut body()?))
            },
            "PUT",
        )?;
        let status = response.status().as_u16();
        let done = finish(response);
        match status {
            200..=299 => done,
            // Somebody else was faster.
            409 | 412 if content.keep => done,
            // Some stores implement no condition.
            501 if is_conditional => {
                self.takes_conditions.store(false, Ordering::Relaxed);
                self.put(name, content, body)
            }
            // S3 says with a 400 that credentials have expired, which says nothing of what was sent.
            _ if self.refuses_credentials(status) => Err(Failure::status(status)),
            _ => Err(Failure::status_of_sent(status)),
        }
    }

    /// Whether a response with this status is about the credentials. S3 has no status of its own for that: an unknown key
    /// is a 403, an expired one a 400.
    pub fn refuses_credentials(&self, status: u16) -> bool {
        status == 401 || self.access.is_s3() && matches!(status, 400 | 403)
    }

    /// Whether the server keeps every name, as an object store does.
    pub fn keeps_any_name(&self) -> bool {
        self.access.is_s3()
    }

    /// A request for which redirects are followed.
    fn ask(
        &self,
        agent: &Agent,
        name: &str,
        request: impl Fn(&Agent, String, HeaderMap) -> std::result::Result<Response<Body>, ureq::Error>,
    ) -> Outcome<Response<Body>> {
        let mut url = self.access.url.join(name);
        let mut response = self.call(
            name,
            |headers| request(agent, url.request(), headers),
            "GET",
        )?;
        for _ in 0..REDIRECTS_MAX {
            let status = response.status().as_u16();
            let location = response.headers().get(header::LOCATION);
            let Some(location) = location.and_then(|l| l.to_str().ok()) else {
                break;
            };
            // To be signed for, S3 must be asked at its own address.
            if !matches!(status, 301 | 302 | 303 | 307 | 308) || self.access.is_s3() {
                break;
            }
            let next = url
                .redirected(location)
                .map_err(|e| Failure::new(format!("a redirect to {}", e.chain())))?;
            if url.is_https() && !next.is_https() {
                return Err(Failure::new(
                    "a redirect from https to http, which is not followed",
                ));
            }
            let is_home = next.same_origin(&self.access.url);
            finish(response)?;
            url = next;
            response = if is_home {
                self.call(
                    name,
                    |headers| request(agent, url.request(), headers),
                    "GET",
                )?
            } else {
                request(&self.elsewhere, url.request(), HeaderMap::new())
                    .map_err(|e| Failure::of(&e))?
            };
        }
        Ok(response)
    }

    /// A request that can be made twice: once more when it went into a connection that the server has just closed.
    fn call(
        &self,
        name: &str,
        request: impl Fn(HeaderMap) -> std::result::Result<Response<Body>, ureq::Error>,
        method: &str,
    ) -> Outcome<Response<Body>> {
        let start = Instant::now();
        let headers = self.access.headers(method, &self.access.url.join(name))?;
        let mut result = request(headers.clone());
        if let Err(ureq::Error::Io(e)) = &result
            && is_broken(e.kind())
        {
            result = request(headers);
        }
        if result.is_err() {
            // It may have moved.
            self.names.forget();
        }
        tell(name, &result, start);
        result.map_err(|e| Failure::of(&e))
    }

    fn at(&self, name: &str) -> String {
        self.access.url.join(name).request()
    }
}

/// What the header says; ureq's own figure is missing for a body without bytes.
fn length_of(response: &Response<Body>) -> Option<u64> {
    let length = response.headers().get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Reads what a server says besides the status, so that the connection can be used again.
fn finish(response: Response<Body>) -> Outcome<()> {
    let mut rest = response.into_body().into_reader().take(REST_MAX);
    std::io::copy(&mut rest, &mut std::io::sink())
        .map(|_| ())
        .map_err(|e| Failure::new(format!("a response that is cut off: {e}")))
}

fn tell(name: &str, result: &std::result::Result<Response<Body>, ureq::Error>, start: Instant) {
    log::debug(|| {
        let outcome = match result {
            Ok(response) => response.status().to_string(),
            Err(e) => describe(e),
        };
        format!(
            "remote: {name}: {outcome} ({} ms)",
            start.elapsed().as_millis()
        )
    });
}
