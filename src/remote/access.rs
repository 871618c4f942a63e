//! Where the remote is, and as whom it is asked: the flags, and what the files that they name say.
//!
//! No credential is ever shown: not in an error, not in a log, not in `ps`, which is why a URL with a password in it is
//! refused.

use super::s3::{self, Signer};
use super::server::{Failure, Outcome};
use crate::config::MISSING_CREDENTIAL;
use crate::error::{Error, Result};
use crate::fs;
use crate::http::netrc::Netrc;
use crate::http::roots;
use crate::http::url::{Credentials, Url};
use crate::log;
use crate::sync::lock;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;
use ureq::http::{HeaderMap, HeaderValue, header};
use ureq::tls::{ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};

/// What may be done with the remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Gets only.
    #[default]
    Read,
    /// Puts only.
    Write,
    /// Both.
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
    /// A file with `user:password`, or with a token; for an object store, one as `aws configure` writes it.
    pub credentials: Option<PathBuf>,
    /// A file with the certificates that are trusted, in place of the system's.
    pub ca: Option<PathBuf>,
    /// A file with our own certificate.
    pub cert: Option<PathBuf>,
    /// A file with its key.
    pub key: Option<PathBuf>,
    /// A file with the key that signs what is put, as Nix writes it.
    pub secret_key: Option<PathBuf>,
    /// The keys whose signatures count, as in nix.conf; without any, all entries count.
    pub trusted_keys: String,
    /// Plain http may go to other machines.
    pub insecure_http: bool,
}

impl Options {
    /// A file that is named and is not there, or that systemd had nothing to load into.
    pub fn missing_file(&self) -> Option<&Path> {
        let files = [
            &self.credentials,
            &self.ca,
            &self.cert,
            &self.key,
            &self.secret_key,
        ];
        let mut files = files.into_iter().flatten().map(PathBuf::as_path);
        files.find(|file| match std::fs::read(file) {
            Ok(content) => content.trim_ascii() == MISSING_CREDENTIAL.as_bytes(),
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        })
    }

    /// Whether the credentials are a copy that systemd made when it started this process. That copy never changes.
    pub fn has_copied_credentials(&self) -> bool {
        let copies = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty());
        copies
            .zip(self.credentials.as_ref())
            .is_some_and(|(copies, file)| file.starts_with(copies))
    }

    /// Where it is, and the region of an object store.
    ///
    /// # Errors
    /// When the URL is malformed, holds a secret, or is plain http where that is not permitted.
    pub fn place(&self) -> Result<(Url, Option<String>)> {
        let (url, region) = if s3::is_s3(&self.url) {
            let (url, region) = s3::parse(&self.url)?;
            (url, Some(region))
        } else {
            let url = Url::parse(&self.url);
            let url = url.map_err(|e| Error::input(format!("--remote has {}", e.chain())))?;
            (url, None)
        };
        check_shown(&url)?;
        if !url.is_https() && !url.is_loopback() && !self.insecure_http {
            return Err(Error::input(
                "--remote is plain http: anyone on the way can change what builds get. Use an https URL, or accept that \
                 with --remote-insecure-http (--remote-credentials need https in any case)",
            ));
        }
        Ok((url, region))
    }
}

/// How requests are made: where to, and with what to show.
pub struct Access {
    /// Without credentials.
    pub url: Url,
    /// Whom to trust, and our own certificate.
    pub tls: TlsConfig,
    /// Whom to trust.
    pub anonymous_tls: TlsConfig,
    authority: Authority,
}

/// In whose name requests are made.
enum Authority {
    Nobody,
    /// Always with this header.
    Fixed(String),
    /// With what stands in a file, which may change.
    File(CredentialsFile),
    /// With a signature of each request.
    S3(Box<Signer>),
}

/// A file with credentials, read again when it has changed.
struct CredentialsFile {
    path: PathBuf,
    known: Mutex<(Stamp, String)>,
}

/// What changes with a file.
type Stamp = Option<(u64, u64, SystemTime)>;

impl CredentialsFile {
    fn open(path: &Path) -> Result<Self> {
        let stamp = stamp(path);
        Ok(Self {
            path: path.into(),
            known: Mutex::new((stamp, authorization(path)?)),
        })
    }

    /// The header; what it was before while the file cannot be read.
    fn header(&self) -> String {
        let mut known = lock(&self.known);
        let now = stamp(&self.path);
        if now.is_some() && now != known.0 {
            known.0 = now;
            match authorization(&self.path) {
                Ok(header) => known.1 = header,
                Err(e) => log::warn(format!(
                    "remote credentials: keeping the previous ones: {}",
                    e.chain()
                )),
            }
        }
        known.1.clone()
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

impl Access {
    /// Reads all that the flags name.
    ///
    /// # Errors
    /// When the URL is malformed or holds a secret, a file cannot be read, or anything would go over an open line that was
    /// not permitted.
    pub fn new(options: &Options) -> Result<Self> {
        let (url, region) = options.place()?;
        let roots = match &options.ca {
            Some(path) => roots::of_file(path)?,
            None if url.is_https() || region.is_some() => roots::load(),
            None => RootCerts::WebPki,
        };
        let tls = |cert| {
            let roots = roots.clone();
            TlsConfig::builder().root_certs(roots).client_cert(cert)
        };
        let anonymous_tls = tls(None).build();
        let authority = match (region, &options.credentials) {
            (Some(region), file) => Authority::S3(Box::new(Signer::new(
                region,
                file.as_deref(),
                anonymous_tls.clone(),
            )?)),
            (None, Some(path)) => Authority::File(CredentialsFile::open(path)?),
            (None, None) => match Netrc::of_user().find(&url) {
                Some(found) => Authority::Fixed(found.authorization()),
                None => Authority::Nobody,
            },
        };
        // A signature gives no secret away.
        if !matches!(authority, Authority::Nobody | Authority::S3(_))
            && !url.is_https()
            && !url.is_loopback()
        {
            return Err(Error::input(
                "--remote-credentials would be sent unencrypted: use an https URL",
            ));
        }
        Ok(Self {
            url,
            tls: tls(client_cert(options)?).build(),
            anonymous_tls,
            authority,
        })
    }

    /// The headers that say in whose name a request is made.
    ///
    /// # Errors
    /// When there are no credentials to be had.
    pub fn headers(&self, method: &str, url: &Url) -> Outcome<HeaderMap> {
        let value = match &self.authority {
            Authority::Nobody => return Ok(HeaderMap::new()),
            Authority::Fixed(value) => value.clone(),
            Authority::File(file) => file.header(),
            Authority::S3(signer) => return signer.headers(method, url),
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| Failure::new("credentials that no header can hold"))?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
    }

    /// Whether it is an object store that speaks S3.
    pub fn is_s3(&self) -> bool {
        matches!(self.authority, Authority::S3(_))
    }
}

/// A URL is shown by `ps` and in logs.
fn check_shown(url: &Url) -> Result<()> {
    let secret = if url.credentials().is_some() {
        "a user or a password"
    } else if url.has_query() {
        "a query, which may be a token,"
    } else {
        return Ok(());
    };
    Err(Error::input(format!(
        "--remote has {secret} in it, which `ps` shows to everybody: put it into a file, and name that with \
         --remote-credentials"
    )))
}

/// The header for what stands in a file.
fn authorization(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)?;
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Error::input(format!(
            "{} must hold one line: user:password, or a token",
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
            return Err(Error::input("--remote-key requires --remote-cert"));
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
            "{} must hold a certificate and {} its private key, both as PEM",
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

    /// The header that a request has.
    fn shown(access: &Access) -> String {
        let headers = access.headers("GET", &access.url).unwrap();
        headers[header::AUTHORIZATION].to_str().unwrap().into()
    }

    #[test]
    fn credentials_that_change_on_disk_are_read_again() {
        let dir = TestDir::new();
        let path = dir.path().join("credentials");
        std::fs::write(&path, "first").unwrap();
        let access = Access::new(&Options {
            url: "https://cache.test".into(),
            credentials: Some(path.clone()),
            ..Options::default()
        })
        .unwrap();
        assert_eq!(shown(&access), "Bearer first");
        std::fs::write(&path, "the second one").unwrap();
        assert_eq!(shown(&access), "Bearer the second one");
        // While it is being replaced, or emptied, the last good ones are shown.
        std::fs::write(&path, "").unwrap();
        assert_eq!(shown(&access), "Bearer the second one");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(shown(&access), "Bearer the second one");
    }

    #[test]
    fn plain_http_stays_within_the_machine_unless_permitted() {
        let options = |url: &str, insecure_http| Options {
            url: url.into(),
            insecure_http,
            ..Options::default()
        };
        let error = Access::new(&options("http://cache.test", false))
            .err()
            .unwrap();
        assert!(error.chain().contains("--remote-insecure-http"));
        assert!(Access::new(&options("http://cache.test", true)).is_ok());
        assert!(Access::new(&options("http://localhost:1", false)).is_ok());
        assert!(Access::new(&options("http://127.0.0.1:1", false)).is_ok());
    }

    #[test]
    fn a_file_has_a_user_with_a_password_or_a_token() {
        let basic = access("https://cache.test", Some("me:secret\n")).unwrap();
        assert_eq!(shown(&basic), "Basic bWU6c2VjcmV0");
        let bearer = access("https://cache.test", Some("a.b-c\n")).unwrap();
        assert_eq!(shown(&bearer), "Bearer a.b-c");
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
            ("https://cache.test/?sig=secret", None),
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
