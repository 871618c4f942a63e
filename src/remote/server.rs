//! The server: bazel-remote's HTTP API, which is PUT, GET and HEAD of two kinds of names. It knows nothing of the cache.
//!
//! Connections are kept, every wait has a limit, and no redirect is followed, so that credentials go nowhere else.

use super::access::Access;
use super::result::{decode, encode};
use crate::config::{
    READ_BUFFER, REMOTE_CONNECT_LIMIT, REMOTE_FETCHERS, REMOTE_READ_LIMIT, REMOTE_UPLOADERS,
    REMOTE_WRITE_LIMIT,
};
use crate::entry::Entry;
use crate::error::Result;
use crate::http::forward::Forward;
use crate::http::names::Names;
use crate::http::url::Url;
use crate::http::{describe, is_broken};
use crate::id::{OutputId, hex};
use crate::log;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::time::{Duration, Instant};
use ureq::http::{Response, header};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

/// An entry is some 250 bytes, and bazel-remote adds a little.
const ENTRY_MAX: u64 = 64 << 10;

/// For so long a connection is kept that nobody uses: shorter than servers do, which close it after a minute or so.
const KEPT_FOR: Duration = Duration::from_secs(20);

const JSON: &str = "application/json";

const OCTETS: &str = "application/octet-stream";

/// An output of at most so many bytes is sent without asking first whether it is there.
const SENT_UNASKED: u64 = 32 << 10;

/// Why something cannot be had, or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words, without any secret.
    pub why: String,
    /// It is about this one request, and says nothing of the server.
    pub is_of_request: bool,
}

/// How a request ended.
pub type Outcome<T> = std::result::Result<T, Failure>;

/// The server.
pub struct Server {
    url: Url,
    authorization: Option<String>,
    names: Names,
    /// For whom somebody waits.
    reading: Agent,
    /// For what goes on behind everybody's back, on a machine that may be busy.
    writing: Agent,
}

impl Failure {
    /// One that says something of the server.
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_of_request: false,
        }
    }

    fn of(e: &ureq::Error) -> Self {
        Self::new(describe(e))
    }

    /// One to a question. All our questions are alike, so no refusal is of one of them alone: to be without the right
    /// client certificate is a 400 to nginx.
    fn status(status: u16) -> Self {
        let says = match status {
            400 => {
                ", which means that it wants a client certificate (--remote-cert, --remote-key), another one, or no TLS, or \
                 that it is no such store"
            }
            401 | 403 => ", which means that it wants other credentials (--remote-credentials)",
            413 => ", which means that it takes no body as large",
            507 => ", which means that it is full",
            _ => "",
        };
        Self::new(format!("it answers with status {status}{says}"))
    }

    /// One to something that was sent, which may be what is wrong.
    fn status_of_sent(status: u16) -> Self {
        Self {
            is_of_request: matches!(status, 400 | 411 | 413 | 414 | 422),
            ..Self::status(status)
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.url)
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
        let agent = |connect, silence, connections| {
            Agent::with_parts(
                Agent::config_builder()
                    .proxy(proxy.clone())
                    .tls_config(access.tls.clone())
                    .http_status_as_error(false)
                    .max_redirects(0)
                    .max_redirects_will_error(false)
                    .user_agent(concat!("nix-gocacheprog/", env!("CARGO_PKG_VERSION")))
                    // Lengths and hashes are those of the bytes themselves.
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
        Ok(Self {
            reading: agent(REMOTE_CONNECT_LIMIT, REMOTE_READ_LIMIT, REMOTE_FETCHERS),
            writing: agent(REMOTE_WRITE_LIMIT, REMOTE_WRITE_LIMIT, REMOTE_UPLOADERS),
            url: access.url,
            authorization: access.authorization,
            names,
        })
    }

    /// Where it is, for a person.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The entry under a key.
    pub fn entry(&self, key: &str) -> Outcome<Option<Entry>> {
        let Some(response) = self.get(&format!("ac/{key}"), JSON)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        response
            .into_body()
            .into_reader()
            .take(ENTRY_MAX)
            .read_to_end(&mut text)
            .map_err(|e| Failure::new(format!("an entry that is cut off: {e}")))?;
        match decode(&text) {
            Some(entry) => Ok(Some(entry)),
            None => Err(Failure::new("an entry that is none of ours")),
        }
    }

    /// An output's bytes, as they come: not checked, and maybe cut off. `None` when it is not there.
    pub fn output(&self, output: &OutputId, size: u64) -> Outcome<Option<impl Read + use<>>> {
        let Some(response) = self.get(&format!("cas/{}", hex(&output.0)), "*/*")? else {
            return Ok(None);
        };
        match response.body().content_length() {
            Some(length) if length != size => Err(Failure::new(format!(
                "output {output} with {length} bytes instead of {size}"
            ))),
            _ => Ok(Some(response.into_body().into_reader())),
        }
    }

    /// Whether an entry is there.
    pub fn has_entry(&self, key: &str) -> Outcome<bool> {
        self.has(&format!("ac/{key}"))
    }

    /// Sends an output, unless it is there already; says how many bytes were sent. `anew` sends it anyway.
    pub fn put_output(&self, entry: &Entry, file: &File, anew: bool) -> Outcome<Option<u64>> {
        let name = format!("cas/{}", hex(&entry.output.0));
        if !anew && entry.size > SENT_UNASKED && self.has(&name)? {
            return Ok(None);
        }
        self.put(&name, OCTETS, entry.size, || {
            let mut file = file;
            file.rewind()?;
            Ok(BufReader::with_capacity(READ_BUFFER, file).take(entry.size))
        })?;
        Ok(Some(entry.size))
    }

    /// Sends bytes as an output.
    pub fn put_bytes(&self, output: &OutputId, bytes: &[u8]) -> Outcome<()> {
        let name = format!("cas/{}", hex(&output.0));
        self.put(&name, OCTETS, bytes.len() as u64, || Ok(bytes))
    }

    /// Sends an entry, whose output must be there.
    pub fn put_entry(&self, key: &str, entry: &Entry) -> Outcome<()> {
        let text = encode(entry);
        let name = format!("ac/{key}");
        self.put(&name, JSON, text.len() as u64, || Ok(&text[..]))
    }

    fn get(&self, name: &str, accept: &str) -> Outcome<Option<Response<Body>>> {
        let response = self.call(name, || {
            let request = self
                .reading
                .get(self.at(name))
                .header(header::ACCEPT, accept);
            self.with_credentials(request).call()
        })?;
        match response.status().as_u16() {
            200 if response.headers().contains_key(header::CONTENT_ENCODING) => Err(Failure::new(
                "an answer in an encoding that was not asked for",
            )),
            200 => Ok(Some(response)),
            status => {
                let done = finish(response);
                match status {
                    404 | 410 => done.map(|()| None),
                    _ => Err(Failure::status(status)),
                }
            }
        }
    }

    fn has(&self, name: &str) -> Outcome<bool> {
        let response = self.call(name, || {
            let request = self.writing.head(self.at(name));
            self.with_credentials(request).call()
        })?;
        match response.status().as_u16() {
            200 | 204 => Ok(true),
            404 | 410 => Ok(false),
            status => Err(Failure::status(status)),
        }
    }

    /// `body` gives the bytes from their beginning, more than once if need be.
    fn put<R: Read>(
        &self,
        name: &str,
        kind: &str,
        size: u64,
        body: impl Fn() -> std::io::Result<R>,
    ) -> Outcome<()> {
        let response = self.call(name, || {
            let request = self
                .writing
                .put(self.at(name))
                .header(header::CONTENT_TYPE, kind)
                .header(header::CONTENT_LENGTH, size.to_string());
            self.with_credentials(request)
                .send(ureq::SendBody::from_reader(&mut body()?))
        })?;
        let status = response.status().as_u16();
        let done = finish(response);
        match status {
            200..=299 => done,
            _ => Err(Failure::status_of_sent(status)),
        }
    }

    /// A request that can be made twice: once more when it went into a connection that the server has just closed.
    fn call(
        &self,
        name: &str,
        request: impl Fn() -> std::result::Result<Response<Body>, ureq::Error>,
    ) -> Outcome<Response<Body>> {
        let start = Instant::now();
        let mut result = request();
        if let Err(ureq::Error::Io(e)) = &result
            && is_broken(e.kind())
        {
            result = request();
        }
        if result.is_err() {
            // It may have moved.
            self.names.forget();
        }
        tell(name, &result, start);
        result.map_err(|e| Failure::of(&e))
    }

    fn at(&self, name: &str) -> String {
        self.url.join(name).request()
    }

    fn with_credentials<T>(&self, request: ureq::RequestBuilder<T>) -> ureq::RequestBuilder<T> {
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        }
    }
}

/// Reads what a server says besides the status, so that the connection can be used again.
fn finish(response: Response<Body>) -> Outcome<()> {
    let mut rest = response.into_body().into_reader().take(ENTRY_MAX);
    std::io::copy(&mut rest, &mut std::io::sink())
        .map(|_| ())
        .map_err(|e| Failure::new(format!("an answer that is cut off: {e}")))
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
