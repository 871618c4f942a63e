//! The URLs of upstreams: parsed once, with the credentials apart from all that is shown.
//!
//! `Display` and `Debug` never show a password, a user or a query, which may be a secret too.

use crate::error::{Error, Result};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::net::IpAddr;

/// An `http` or `https` URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    https: bool,
    credentials: Option<Credentials>,
    /// In lower case; with brackets if it is an IPv6 address.
    host: String,
    port: Option<u16>,
    /// With `%` escapes; empty, or with a slash in front.
    path: String,
    /// With the question mark, if there is one.
    query: String,
}

/// A user and a password, as HTTP's basic authentication has them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password; empty where there is none.
    pub password: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is malformed or of another scheme. The text shows nothing of the URL, which may hold
    /// a password.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| Error::input("a URL without a scheme"))?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(Error::input("a URL that is neither http nor https")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        let credentials = match userinfo {
            Some(text) => Some(
                Credentials::parse(text)
                    .ok_or_else(|| Error::input("a URL with a malformed user or password"))?,
            ),
            None => None,
        };
        let (host, port) =
            split_port(host).ok_or_else(|| Error::input("a URL with a malformed host"))?;
        let shown = |text: &str| text.bytes().all(|c| c.is_ascii_graphic());
        if !shown(path) || !shown(query) {
            return Err(Error::input("a URL with invalid characters"));
        }
        Ok(Self {
            https,
            credentials,
            host,
            port,
            path: path.to_string(),
            query: query.to_string(),
        })
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The user and password that the URL itself has.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Whether it has a query, which may be a token.
    pub fn has_query(&self) -> bool {
        !self.query.is_empty()
    }

    /// The host, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that a connection is made to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// The host's IP address, if it is given as one.
    pub fn address(&self) -> Option<IpAddr> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().ok()
    }

    /// Whether the server is on this machine, so that nothing crosses a network.
    pub fn is_loopback(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        name == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    /// Whether both are answered by the same server, so that it may have the other's credentials.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.https == other.https && self.host == other.host && self.port() == other.port()
    }

    /// A URL below this one. `path` has `%` escapes and no slash in front.
    pub fn join(&self, path: &str) -> Self {
        let mut url = self.clone();
        url.path = format!("{}/{path}", self.path.trim_end_matches('/'));
        url
    }

    /// Where a redirect from here leads.
    ///
    /// # Errors
    /// When that is not an http or https URL.
    pub fn redirected(&self, location: &str) -> Result<Self> {
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Self::parse(location);
        }
        let scheme = if self.https { "https" } else { "http" };
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}"));
        }
        let place = match location.strip_prefix('/') {
            Some(absolute) => format!("/{absolute}"),
            None => {
                let directory = self.path.rsplit_once('/').map_or("", |(dir, _)| dir);
                format!("{directory}/{location}")
            }
        };
        let mut url = Self::parse(&format!("{scheme}://{}{place}", self.authority()))?;
        url.credentials.clone_from(&self.credentials);
        Ok(url)
    }

    /// The URL as a request has it, without credentials.
    pub fn request(&self) -> String {
        format!("{}{}{}", self.origin(), self.path, self.query)
    }

    /// The whole URL, of which a key can be made. It must not be shown to anybody.
    pub fn secret(&self) -> String {
        match &self.credentials {
            Some(Credentials { user, password }) => {
                // Quoted, so that no other user and password look the same.
                format!("{user:?} {password:?} {}", self.request())
            }
            None => self.request(),
        }
    }

    /// The host, the port and the path, as netrc's `machine` is compared with.
    pub fn machine(&self) -> String {
        format!("{}{}", self.authority(), self.path)
    }

    fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    fn origin(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

impl Credentials {
    fn parse(userinfo: &str) -> Option<Self> {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        Some(Self {
            user: unescape_percent(user)?,
            password: unescape_percent(password)?,
        })
    }

    /// The value of an `Authorization` header.
    pub fn authorization(&self) -> String {
        use base64::Engine;
        let both = format!("{}:{}", self.user, self.password);
        let both = base64::engine::general_purpose::STANDARD.encode(both);
        format!("Basic {both}")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Takes `host`, `host:port`, `[::1]` or `[::1]:port` apart.
pub fn split_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return None,
            };
            (format!("[{address}]"), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            if host.is_empty() || !host.chars().all(plain) {
                return None;
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => Some(port.parse().ok()?),
        None => None,
    };
    Some((host, port))
}

/// Reads `%41` as `A`; `None` when an escape is malformed, or the result is not UTF-8.
pub fn unescape_percent(text: &str) -> Option<String> {
    // The crate passes a malformed escape through; `go` refuses it.
    let well_formed = text.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    well_formed.then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn credentials_are_never_shown() {
        let url = url("https://me:p%40ss@Example.org:8443/a?token=t0ken");
        let credentials = url.credentials().unwrap();
        assert_eq!(
            (credentials.user.as_str(), credentials.password.as_str()),
            ("me", "p@ss")
        );
        assert_eq!(credentials.authorization(), "Basic bWU6cEBzcw==");
        for shown in [url.to_string(), format!("{url:?} {credentials:?}")] {
            for secret in ["me:", "p@ss", "p%40ss", "t0ken", "bWU6"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        assert_eq!(url.request(), "https://example.org:8443/a?token=t0ken");
        assert!(url.secret().contains("p@ss"));
    }

    #[test]
    fn a_redirect_is_read_as_a_browser_does() {
        let from = url("https://example.org/a/b/c");
        for (location, to) in [
            ("https://other.example/x", "https://other.example/x"),
            ("//other.example/x", "https://other.example/x"),
            ("/x?y=http://z", "https://example.org/x?y=http://z"),
            ("d", "https://example.org/a/b/d"),
            ("http://example.org/a", "http://example.org/a"),
        ] {
            let url = from.redirected(location).unwrap();
            assert_eq!(url.request(), to, "{location}");
        }
        assert!(from.redirected("ftp://example.org/").is_err());
    }

    #[test]
    fn loopback_is_told_from_other_hosts() {
        for (host, is_loopback) in [
            ("localhost", true),
            ("localhost.", true),
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("[::1]", true),
            ("localhost.example.org", false),
            ("10.0.0.1", false),
            ("[::2]", false),
        ] {
            let url = url(&format!("http://{host}:8080/x"));
            assert_eq!(url.is_loopback(), is_loopback, "{host}");
        }
    }

    #[test]
    fn escapes_are_read_strictly() {
        for (text, read) in [
            ("a%41%2f", Some("aA/")),
            ("%c3%A9", Some("é")),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(unescape_percent(text).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_showing_it() {
        for bad in [
            "",
            "://",
            "https://",
            "https://:1",
            "https://a:b:c/",
            "https://a:99999/",
            "https://[::1/",
            "https://[zz]/",
            "https://a b/",
            "https://a/\r\nX: y",
            "https://s3cret%zz@a/",
            "ftp://a/",
            "https://é/",
        ] {
            let error = Url::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
