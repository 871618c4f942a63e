//! Where the remote is, and as whom it is asked: the flags, and what the files that they name say.
//!
//! No credential is ever shown: not in an error, not in a log, not in `ps`, which is why a URL with a password in it is
//! refused.

use crate::error::{Error, Result};
use crate::fs;
use crate::http::netrc::Netrc;
use crate::http::roots;
use crate::http::url::{Credentials, Url};
use std::path::{Path, PathBuf};
use ureq::tls::{ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};

/// What may be done with the remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Gets only.
    Read,
    /// Puts only.
    Write,
    /// Both.
    #[default]
    ReadWrite,
}

impl Mode {
    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadWrite => "read-write",
        }
    }

    /// Reads what `name` gives.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self> {
        [Self::Read, Self::Write, Self::ReadWrite]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| {
                Error::input(format!(
                    "--remote-mode is read, write or read-write, not {text:?}"
                ))
            })
    }

    /// Whether gets may ask the remote.
    pub fn reads(self) -> bool {
        self != Self::Write
    }

    /// Whether puts go there.
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

/// What the command line says of the remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where it is.
    pub url: String,
    /// What may be done with it.
    pub mode: Mode,
    /// A file with `user:password`, or with a token.
    pub credentials: Option<PathBuf>,
    /// A file with the certificates that are trusted, in place of the system's.
    pub ca: Option<PathBuf>,
    /// A file with our own certificate.
    pub cert: Option<PathBuf>,
    /// A file with its key.
    pub key: Option<PathBuf>,
}

/// How requests are made: where to, and with what to show.
pub struct Access {
    /// Without credentials.
    pub url: Url,
    /// The value of the `Authorization` header.
    pub authorization: Option<String>,
    /// Whom to trust, and our own certificate.
    pub tls: TlsConfig,
}

impl Access {
    /// Reads all that the flags name.
    ///
    /// # Errors
    /// When the URL is none or has a password, a file cannot be read, or credentials would go over an open line.
    pub fn new(options: &Options) -> Result<Self> {
        let url = Url::parse(&options.url)
            .map_err(|e| Error::input(format!("--remote has {}", e.chain())))?;
        if url.credentials().is_some() {
            return Err(Error::input(
                "--remote has a user or a password in it, which `ps` shows to everybody: put it into a file, and name \
                 that with --remote-credentials",
            ));
        }
        let authorization = match &options.credentials {
            Some(path) => Some(authorization(path)?),
            None => Netrc::of_user().find(&url).map(|c| c.authorization()),
        };
        if authorization.is_some() && !url.is_https() && !is_own_machine(&url) {
            return Err(Error::input(
                "--remote-credentials would go over an open line, for anybody to read: use an https URL",
            ));
        }
        let roots = match &options.ca {
            Some(path) => roots::of_file(path)?,
            None if url.is_https() => roots::load(),
            None => RootCerts::WebPki,
        };
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .client_cert(client_cert(options)?)
            .build();
        Ok(Self {
            url,
            authorization,
            tls,
        })
    }
}

fn is_own_machine(url: &Url) -> bool {
    let host = url.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The header for what stands in a file.
fn authorization(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)?;
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Error::input(format!(
            "{} is to have one line: user:password, or a token",
            path.display()
        )));
    }
    Ok(match text.split_once(':') {
        Some((user, password)) => Credentials {
            user: user.into(),
            password: password.into(),
        }
        .authorization(),
        None => format!("Bearer {text}"),
    })
}

fn client_cert(options: &Options) -> Result<Option<ClientCert>> {
    let (cert, key) = match (&options.cert, &options.key) {
        (None, None) => return Ok(None),
        // One file may have both.
        (Some(cert), key) => (cert, key.as_ref().unwrap_or(cert)),
        (None, Some(_)) => {
            return Err(Error::input(
                "--remote-key is of no use without --remote-cert",
            ));
        }
    };
    let mut certs = Vec::new();
    for item in parse_pem(fs::read_to_string(cert)?.as_bytes()) {
        if let Ok(PemItem::Certificate(found)) = item {
            certs.push(found);
        }
    }
    let mut private = None;
    for item in parse_pem(fs::read_to_string(key)?.as_bytes()) {
        if let Ok(PemItem::PrivateKey(found)) = item {
            private = Some(found);
        }
    }
    match private {
        Some(private) if !certs.is_empty() => Ok(Some(ClientCert::new_with_certs(&certs, private))),
        _ => Err(Error::input(format!(
            "a certificate in {} and a key in {}, in PEM, are needed",
            cert.display(),
            key.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn access(url: &str, credentials: Option<&str>) -> Result<Access> {
        let dir = TestDir::new();
        let path = dir.path().join("credentials");
        std::fs::write(&path, credentials.unwrap_or_default()).unwrap();
        Access::new(&Options {
            url: url.into(),
            credentials: credentials.map(|_| path.clone()),
            ..Options::default()
        })
    }

    #[test]
    fn a_file_has_a_user_with_a_password_or_a_token() {
        let basic = access("https://cache.test", Some("me:secret\n")).unwrap();
        assert_eq!(basic.authorization.as_deref(), Some("Basic bWU6c2VjcmV0"));
        let bearer = access("https://cache.test", Some("a.b-c\n")).unwrap();
        assert_eq!(bearer.authorization.as_deref(), Some("Bearer a.b-c"));
        for bad in ["", "\n", "a:b\nc:d\n"] {
            assert!(access("https://cache.test", Some(bad)).is_err());
        }
    }

    #[test]
    fn no_password_goes_where_others_can_read_it_nor_into_an_error() {
        for (url, credentials) in [
            ("https://me:secret@cache.test", None),
            ("http://cache.test", Some("me:secret")),
            ("ftp://me:secret@cache.test", None),
        ] {
            let error = access(url, credentials).err().unwrap().chain();
            assert!(!error.contains("secret"), "{error}");
        }
        // Within the machine nobody listens.
        assert!(access("http://127.0.0.1:8080", Some("me:secret")).is_ok());
        assert!(access("http://[::1]/x", Some("me:secret")).is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let options = Options {
            url: "https://cache.test".into(),
            ca: Some("/nowhere/ca.pem".into()),
            ..Options::default()
        };
        let error = Access::new(&options).err().unwrap().chain();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
        let options = Options {
            url: "https://cache.test".into(),
            key: Some("/nowhere/key.pem".into()),
            ..Options::default()
        };
        assert!(Access::new(&options).is_err());
        assert_eq!(Mode::parse("read-write").unwrap(), Mode::ReadWrite);
        assert!(Mode::parse("rw").is_err());
    }
}
