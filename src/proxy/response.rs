//! What a client gets for a request: the file, or why there is none.

use super::body::Body;
use crate::error::Error;
use std::time::Duration;

/// An answer, whole before any byte of it is sent.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The body's `Content-Type`.
    pub content_type: String,
    /// The file, or a text that says why there is none.
    pub body: Body,
    /// The upstream gave something that is not the file. It counts as a failure, although the status is 404.
    pub malformed: bool,
    /// How long ago an upstream gave this, if none answers now.
    pub stale: Option<Duration>,
}

impl Response {
    /// A file.
    pub fn file(content_type: &str, body: Body) -> Self {
        Self {
            status: 200,
            content_type: content_type.to_string(),
            body,
            malformed: false,
            stale: None,
        }
    }

    /// A status with a text.
    pub fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            ..Self::file("text/plain; charset=UTF-8", Body::text(text))
        }
    }

    /// The upstream did not answer, or not with anything that can be used.
    pub fn bad_gateway(why: &str) -> Self {
        Self::text(502, &format!("nix-gocacheprog: {why}\n"))
    }

    /// The upstream gave something that is not the file. A client that gets a 404 goes on to the rest of its own list,
    /// where it would otherwise read a login page as a module.
    pub fn not_the_file(why: &str) -> Self {
        Self {
            malformed: true,
            ..Self::text(404, &format!("nix-gocacheprog: {why}\n"))
        }
    }

    /// Whether it says that there is no such file, and not that something failed.
    pub fn is_not_found(&self) -> bool {
        matches!(self.status, 404 | 410) && !self.malformed
    }

    /// The status and the first line of the body, for a log.
    pub fn first_line(&self) -> String {
        let text = self.body.slice(0, 200).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        format!("{} {line}", self.status)
    }
}

impl From<Error> for Response {
    fn from(e: Error) -> Self {
        Self::bad_gateway(&e.chain())
    }
}
