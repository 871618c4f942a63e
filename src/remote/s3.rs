//! Object stores that speak S3: where `s3://BUCKET/PREFIX?endpoint=URL&region=NAME` is in HTTP, and how requests to it are
//! signed (AWS Signature Version 4, in headers, over everything but the body, which is hashed by its name anyway).
//!
//! No secret is ever shown. Credentials that expire are fetched anew before they do.

use super::server::{Failure, Outcome};
use crate::error::{Error, Result};
use crate::fs;
use crate::http::describe;
use crate::http::url::{Url, unescape_percent};
use crate::id::hex;
use crate::log;
use crate::sha256::Sha256;
use crate::sync::lock;
use ring::hmac;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

const SCHEME: &str = "s3://";

/// Credentials are fetched anew when they are good for less than this.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// How long a service that gives credentials may take.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(5);

/// The longest answer of such a service.
const ANSWER_MAX: u64 = 64 << 10;

/// For so long nobody is asked again who has just not given any.
const RETRY_AFTER: Duration = Duration::from_secs(15);

/// Where cloud machines find their own credentials.
const METADATA: &str = "http://169.254.169.254";

/// What signs requests to one bucket.
pub struct Signer {
    region: String,
    source: Source,
    known: Mutex<Known>,
    agent: Agent,
}

#[derive(Default)]
struct Known {
    credentials: Option<Credentials>,
    failed: Option<(SystemTime, Failure)>,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    id: String,
    secret: String,
    token: Option<String>,
    expires: Option<SystemTime>,
}

/// Where credentials come from.
enum Source {
    /// The environment.
    Fixed(Credentials),
    /// A file as `aws configure` writes it, read again after a while.
    File(PathBuf, String),
    /// A token in a file, which a service exchanges.
    WebIdentity {
        token: PathBuf,
        role: String,
        endpoint: String,
    },
    /// The machine's own.
    Metadata(String),
}

/// Whether the text names a bucket.
pub fn is_s3(url: &str) -> bool {
    url.starts_with(SCHEME)
}

/// Reads such a URL: where it is, and in which region.
///
/// # Errors
/// When it is malformed, or holds anything else, which may be a secret.
pub fn parse(text: &str) -> Result<(Url, String)> {
    let rest = text.strip_prefix(SCHEME).unwrap_or_default();
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    if bucket.is_empty() || !bucket.chars().all(is_name) {
        return Err(Error::input(
            "--remote s3://BUCKET/PREFIX has a malformed bucket",
        ));
    }
    let (mut endpoint, mut region, mut style) = (None, "us-east-1".to_string(), None);
    for parameter in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = unescape_percent(value).unwrap_or_default();
        match (name, value.as_str()) {
            ("endpoint", _) => endpoint = Some(value),
            ("region", name) if !name.is_empty() && name.chars().all(is_name) => region = value,
            ("style", "path" | "virtual") => style = Some(value == "path"),
            // The value may be a secret.
            _ => {
                return Err(Error::input(
                    "--remote s3://... takes endpoint=URL, region=NAME and style=path or style=virtual, and nothing else",
                ));
            }
        }
    }
    let by_path = style.unwrap_or(endpoint.is_some());
    let endpoint = match endpoint {
        Some(endpoint) if endpoint.contains("://") => endpoint,
        Some(host) => format!("https://{host}"),
        None => format!("https://s3.{region}.amazonaws.com"),
    };
    let (scheme, host) = endpoint
        .trim_end_matches('/')
        .split_once("://")
        .unwrap_or_default();
    let prefix = prefix.trim_matches('/');
    let url = if by_path {
        format!("{scheme}://{host}/{bucket}/{prefix}")
    } else {
        format!("{scheme}://{bucket}.{host}/{prefix}")
    };
    let url = Url::parse(&url).map_err(|e| Error::input(format!("--remote has {}", e.chain())))?;
    Ok((url, region))
}

impl Signer {
    /// With the credentials in a file, or those that the environment leads to. Nothing is fetched yet.
    ///
    /// # Errors
    /// When a file cannot be read, or has none.
    pub fn new(region: String, file: Option<&Path>, tls: TlsConfig) -> Result<Self> {
        let source = Source::find(file, &region, |name| {
            std::env::var(name).ok().filter(|value| !value.is_empty())
        });
        if let Source::File(path, profile) = &source {
            from_file(path, profile)?;
        }
        let agent = Agent::config_builder()
            .proxy(None)
            .tls_config(tls)
            .timeout_global(Some(CREDENTIALS_LIMIT))
            .timeout_connect(Some(Duration::from_secs(1)))
            .http_status_as_error(true)
            .max_redirects(0)
            .build()
            .into();
        Ok(Self {
            region,
            source,
            known: Mutex::default(),
            agent,
        })
    }

    /// The headers of a request.
    ///
    /// # Errors
    /// When there are no credentials to be had.
    pub fn headers(&self, method: &str, url: &Url) -> Outcome<HeaderMap> {
        let now = SystemTime::now();
        self.sign(method, url, &self.credentials(now)?, now)
    }

    fn sign(
        &self,
        method: &str,
        url: &Url,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Outcome<HeaderMap> {
        let request = url.request();
        let (_, rest) = request.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let time = basic_time(now);
        let mut signed = vec![
            ("host", host),
            ("x-amz-content-sha256", PAYLOAD),
            ("x-amz-date", &time),
        ];
        if let Some(token) = &credentials.token {
            signed.push(("x-amz-security-token", token));
        }
        let value = authorization(method, path, &signed, &self.region, credentials, &time);
        let mut headers = HeaderMap::new();
        signed[0] = ("authorization", &value);
        for (name, value) in signed {
            let name = HeaderName::from_static(name);
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| Failure::new("credentials that no header can hold"))?;
            value.set_sensitive(name == header::AUTHORIZATION);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    fn credentials(&self, now: SystemTime) -> Outcome<Credentials> {
        if let Source::Fixed(fixed) = &self.source {
            return Ok(fixed.clone());
        }
        let mut known = lock(&self.known);
        let good_until = |expires: SystemTime| expires.checked_sub(RENEW_BEFORE);
        if let Some(found) = &known.credentials
            && found
                .expires
                .and_then(good_until)
                .is_some_and(|until| now < until)
        {
            return Ok(found.clone());
        }
        if let Some((at, failure)) = &known.failed
            && now < *at + RETRY_AFTER
        {
            return known.credentials.clone().ok_or_else(|| failure.clone());
        }
        match self.fetch(now) {
            Ok(found) => {
                known.credentials = Some(found.clone());
                known.failed = None;
                Ok(found)
            }
            Err(why) => {
                let failure = Failure::new(format!("S3 credentials: {why}"));
                log::warn(failure.why.clone());
                known.failed = Some((now, failure.clone()));
                // They may be good for some minutes still.
                known.credentials.clone().ok_or(failure)
            }
        }
    }

    fn fetch(&self, now: SystemTime) -> std::result::Result<Credentials, String> {
        match &self.source {
            Source::Fixed(fixed) => Ok(fixed.clone()),
            Source::File(path, profile) => {
                let mut found = from_file(path, profile).map_err(|e| e.chain())?;
                // Whatever changes the file is seen soon.
                found.expires = Some(now + RENEW_BEFORE + RETRY_AFTER);
                Ok(found)
            }
            Source::WebIdentity {
                token,
                role,
                endpoint,
            } => {
                let token = fs::read_to_string(token).map_err(|e| e.chain())?;
                let form = [
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("Version", "2011-06-15"),
                    ("RoleSessionName", "nix-gocacheprog"),
                    ("RoleArn", role),
                    ("WebIdentityToken", token.trim()),
                ];
                let answer = text(self.agent.post(endpoint).send_form(form))?;
                from_xml(&answer).ok_or_else(|| "a malformed answer of the token service".into())
            }
            Source::Metadata(endpoint) => self.ask_metadata(endpoint),
        }
    }

    fn ask_metadata(&self, endpoint: &str) -> std::result::Result<Credentials, String> {
        const ROLES: &str = "latest/meta-data/iam/security-credentials/";
        const TOKEN: &str = "X-aws-ec2-metadata-token";
        let put = self
            .agent
            .put(format!("{endpoint}/latest/api/token"))
            .header("X-aws-ec2-metadata-token-ttl-seconds", "300");
        let token = text(put.send_empty()).map_err(|why| {
            format!(
                "none in AWS_ACCESS_KEY_ID, in a credentials file or from a web identity, and the machine has none: {why}"
            )
        })?;
        let get = |path: &str| {
            let url = format!("{endpoint}/{path}");
            text(self.agent.get(url).header(TOKEN, token.trim()).call())
        };
        let roles = get(ROLES)?;
        let role = roles.lines().next().unwrap_or_default();
        from_json(&get(&format!("{ROLES}{role}"))?)
            .ok_or_else(|| "a malformed answer of the metadata service".into())
    }
}

fn text(
    answer: std::result::Result<ureq::http::Response<Body>, ureq::Error>,
) -> std::result::Result<String, String> {
    let mut answer = answer.map_err(|e| describe(&e))?;
    answer
        .body_mut()
        .with_config()
        .limit(ANSWER_MAX)
        .read_to_string()
        .map_err(|e| describe(&e))
}

impl Source {
    /// As AWS's own tools look for them, a file that is named first.
    fn find(file: Option<&Path>, region: &str, env: impl Fn(&str) -> Option<String>) -> Self {
        let profile = env("AWS_PROFILE").unwrap_or_else(|| "default".into());
        if let Some(path) = file {
            return Self::File(path.into(), profile);
        }
        if let (Some(id), Some(secret)) = (env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")) {
            return Self::Fixed(Credentials {
                id,
                secret,
                token: env("AWS_SESSION_TOKEN"),
                expires: None,
            });
        }
        if let (Some(token), Some(role)) = (env("AWS_WEB_IDENTITY_TOKEN_FILE"), env("AWS_ROLE_ARN"))
        {
            return Self::WebIdentity {
                token: token.into(),
                role,
                endpoint: env("AWS_ENDPOINT_URL_STS")
                    .unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com/")),
            };
        }
        let shared = match (env("AWS_SHARED_CREDENTIALS_FILE"), env("HOME")) {
            (Some(path), _) => Some(PathBuf::from(path)),
            (None, Some(home)) => Some(Path::new(&home).join(".aws/credentials")),
            (None, None) => None,
        };
        match shared.filter(|path| path.is_file()) {
            Some(path) => Self::File(path, profile),
            None => Self::Metadata(
                env("AWS_EC2_METADATA_SERVICE_ENDPOINT")
                    .map_or_else(|| METADATA.into(), |url| url.trim_end_matches('/').into()),
            ),
        }
    }
}

fn from_file(path: &Path, profile: &str) -> Result<Credentials> {
    from_ini(&fs::read_to_string(path)?, profile).ok_or_else(|| {
        Error::input(format!(
            "{} must have aws_access_key_id and aws_secret_access_key in [{profile}]",
            path.display()
        ))
    })
}

fn from_ini(text: &str, profile: &str) -> Option<Credentials> {
    let (mut id, mut secret, mut token) = (None, None, None);
    let mut is_ours = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            is_ours = name.trim_end_matches(']').trim() == profile;
        } else if let Some((name, value)) = line.split_once('=')
            && is_ours
        {
            let value = Some(value.trim().to_string());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(Credentials {
        id: id?,
        secret: secret?,
        token,
        expires: None,
    })
}

fn from_xml(text: &str) -> Option<Credentials> {
    let value = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some(value.trim().to_string())
    };
    Some(Credentials {
        id: value("AccessKeyId")?,
        secret: value("SecretAccessKey")?,
        token: Some(value("SessionToken")?),
        expires: Some(parse_time(&value("Expiration")?)?),
    })
}

fn from_json(text: &str) -> Option<Credentials> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        access_key_id: String,
        secret_access_key: String,
        token: String,
        expiration: String,
    }
    let answer: Answer = serde_json::from_str(text).ok()?;
    Some(Credentials {
        id: answer.access_key_id,
        secret: answer.secret_access_key,
        token: Some(answer.token),
        expires: Some(parse_time(&answer.expiration)?),
    })
}

/// What is said of the body: it is not part of what is signed.
const PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// The value of the `Authorization` header. The headers are in the order of their names, in lower case.
fn authorization(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    region: &str,
    credentials: &Credentials,
    time: &str,
) -> String {
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let payload = headers
        .iter()
        .find(|(name, _)| *name == "x-amz-content-sha256")
        .map_or(PAYLOAD, |(_, value)| value);
    let canonical = format!("{method}\n{path}\n\n{lines}\n{names}\n{payload}");
    let date = &time[..8];
    let scope = format!("{date}/{region}/s3/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        hex(&Sha256::digest(canonical))
    );
    let mut key = format!("AWS4{}", credentials.secret).into_bytes();
    for part in [date, region, "s3", "aws4_request", &text] {
        let hmac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes());
        key = hmac.as_ref().to_vec();
    }
    let signature = hex(&key);
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
        credentials.id
    )
}

/// `20130524T000000Z`.
fn basic_time(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Days since 1 March of the year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Reads `2013-05-24T00:00:00Z`, with or without a fraction.
fn parse_time(text: &str) -> Option<SystemTime> {
    let digits = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day.checked_sub(1)?;
    let seconds = (days - 719_468) * 86400 + hour * 3600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// AWS's own example, from its documentation of signatures in headers.
    #[test]
    fn a_request_is_signed_as_aws_says() {
        let credentials = Credentials {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            token: None,
            expires: None,
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", empty),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let value = authorization(
            "GET",
            "/test.txt",
            &headers,
            "us-east-1",
            &credentials,
            "20130524T000000Z",
        );
        assert_eq!(
            value,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn times_are_written_and_read_as_aws_does() {
        for (text, basic) in [
            ("1970-01-01T00:00:00Z", "19700101T000000Z"),
            ("2013-05-24T01:02:03Z", "20130524T010203Z"),
            ("2024-02-29T23:59:59.123Z", "20240229T235959Z"),
            ("2026-12-31T00:00:00Z", "20261231T000000Z"),
            ("2100-03-01T00:00:00Z", "21000301T000000Z"),
        ] {
            assert_eq!(basic_time(parse_time(text).unwrap()), basic);
        }
        for bad in [
            "",
            "2013",
            "2013-13-01T00:00:00Z",
            "2013-05-00T00:00:00Z",
            "x",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bucket_is_in_the_path_or_in_the_host() {
        for (text, url, region) in [
            (
                "s3://b",
                "https://b.s3.us-east-1.amazonaws.com/",
                "us-east-1",
            ),
            (
                "s3://b/go/cache?region=eu-west-1",
                "https://b.s3.eu-west-1.amazonaws.com/go/cache",
                "eu-west-1",
            ),
            (
                "s3://b/go?endpoint=http://127.0.0.1:9000&region=x",
                "http://127.0.0.1:9000/b/go",
                "x",
            ),
            (
                "s3://b?endpoint=s3.example.com&style=virtual",
                "https://b.s3.example.com/",
                "us-east-1",
            ),
        ] {
            let (found, in_region) = parse(text).unwrap();
            assert_eq!(
                (found.request().as_str(), in_region.as_str()),
                (url, region)
            );
        }
        for bad in [
            "s3://",
            "s3://B",
            "s3://b?token=secret",
            "s3://me:secret@b",
            "s3://b?endpoint=ftp://secret",
        ] {
            let error = parse(bad).unwrap_err().chain();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn credentials_are_looked_for_as_aws_does() {
        let source = |file: Option<&str>, set: &[(&str, &str)]| {
            let set: HashMap<_, _> = set.iter().copied().collect();
            let env = |name: &str| set.get(name).map(ToString::to_string);
            match Source::find(file.map(Path::new), "r", env) {
                Source::Fixed(c) => format!("fixed {}", c.id),
                Source::File(path, profile) => format!("file {} {profile}", path.display()),
                Source::WebIdentity { endpoint, .. } => format!("web {endpoint}"),
                Source::Metadata(endpoint) => format!("metadata {endpoint}"),
            }
        };
        let keys = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "a")];
        assert_eq!(source(Some("/f"), &keys), "file /f default");
        assert_eq!(source(None, &[&keys[..], &web].concat()), "fixed k");
        assert_eq!(source(None, &web), "web https://sts.r.amazonaws.com/");
        assert_eq!(source(None, &[]), format!("metadata {METADATA}"));
        let ini = "[other]\naws_access_key_id=x\n[default]\naws_access_key_id = i\naws_secret_access_key=s=/+\n";
        let found = from_ini(ini, "default").unwrap();
        assert_eq!((found.id.as_str(), found.secret.as_str()), ("i", "s=/+"));
        assert!(from_ini(ini, "other").is_none());
        let json = r#"{"AccessKeyId":"i","SecretAccessKey":"s","Token":"t","Expiration":"2030-01-01T00:00:00Z"}"#;
        let xml = "<a><AccessKeyId>i</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
                   <SessionToken>t</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></a>";
        assert!(from_json(json) == from_xml(xml) && from_json(json).is_some());
    }
}
