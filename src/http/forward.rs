//! The HTTP proxy through which an upstream is reached: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`,
//! read as `go` reads them (golang.org/x/net/http/httpproxy).
//!
//! A value that cannot be understood means that nothing is fetched, never that the proxy is
//! bypassed.

use super::url::{Url, split_port};
use crate::error::{Error, Result};
use std::net::IpAddr;

/// The HTTP proxies of the environment.
#[derive(Default)]
pub struct Forward {
    http: String,
    https: String,
    except: Vec<String>,
}

impl Forward {
    /// Reads the environment.
    pub fn from_env() -> Self {
        let var = |upper: &str| {
            [upper.to_string(), upper.to_ascii_lowercase()]
                .iter()
                .filter_map(|name| std::env::var(name).ok())
                .find(|value| !value.is_empty())
                .unwrap_or_default()
        };
        Self::new(&var("HTTP_PROXY"), &var("HTTPS_PROXY"), &var("NO_PROXY"))
    }

    fn new(http: &str, https: &str, except: &str) -> Self {
        Self {
            http: http.to_string(),
            https: https.to_string(),
            except: except
                .split(',')
                .map(|entry| entry.trim().to_ascii_lowercase())
                .filter(|entry| !entry.is_empty())
                .collect(),
        }
    }

    /// The HTTP proxy for a URL, if it is to go through one.
    ///
    /// # Errors
    /// When the environment names one that cannot be used.
    pub fn for_url(&self, url: &Url) -> Result<Option<ureq::Proxy>> {
        let (name, proxy) = if url.is_https() {
            ("HTTPS_PROXY", &self.https)
        } else {
            ("HTTP_PROXY", &self.http)
        };
        if proxy.is_empty() || !self.applies(url) {
            return Ok(None);
        }
        let proxy = if proxy.contains("://") {
            proxy.clone()
        } else {
            format!("http://{proxy}")
        };
        if !proxy.starts_with("http://") && !proxy.starts_with("https://") {
            return Err(Error::input(format!(
                "{name} is not an http or https URL, and nothing else is supported here"
            )));
        }
        // The error would show the URL, and with it a password.
        ureq::Proxy::new(&proxy)
            .map(Some)
            .map_err(|_| Error::input(format!("{name} is not a URL")))
    }

    fn applies(&self, url: &Url) -> bool {
        if url.is_loopback() {
            return false;
        }
        let host = url.host().trim_end_matches('.');
        let address = url.address();
        !self.except.iter().any(|entry| match address {
            Some(address) => names_address(entry, address, url.port()),
            None => names_host(entry, host, url.port()),
        })
    }
}

fn names_address(entry: &str, address: IpAddr, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let (Ok(network), Ok(bits)) = (network.parse(), bits.parse()) else {
            return false;
        };
        return in_network(address, network, bits);
    }
    if let Ok(entry) = entry.parse::<IpAddr>() {
        return entry == address;
    }
    let Some((host, wanted)) = split_port(entry) else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse() == Ok(address) && wanted.is_none_or(|wanted| wanted == port)
}

fn in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let differ = a.to_bits() ^ n.to_bits();
            differ.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let differ = a.to_bits() ^ n.to_bits();
            differ.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn names_host(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, digits)) => match digits.parse::<u16>() {
            Ok(wanted) => (name, Some(wanted)),
            Err(_) => return false,
        },
        None => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    match name.strip_prefix('.') {
        // Only what is below it.
        Some(domain) => host
            .strip_suffix(domain)
            .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
        None => {
            host == name
                || host
                    .strip_suffix(name)
                    .is_some_and(|below| below.ends_with('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_those_that_go_makes() {
        let except = "one.example, .two.example,*.three.example,four.example:8443,10.0.0.0/8,\
                      192.168.1.1,[fd00::1]:443,fe80::/10,nonsense/x";
        let forward = Forward::new("", "proxy.example:3128", except);
        for (host, through) in [
            ("one.example", false),
            ("sub.one.example", false),
            ("notone.example", true),
            ("two.example", true),
            ("sub.two.example", false),
            ("three.example", true),
            ("a.three.example", false),
            ("four.example", true),
            ("four.example:8443", false),
            ("10.1.2.3", false),
            ("11.1.2.3", true),
            ("192.168.1.1", false),
            ("192.168.1.2", true),
            ("[fd00::1]", false),
            ("[fd00::2]", true),
            ("[fe80::5]", false),
            ("localhost", false),
            ("127.0.0.1:8080", false),
            ("[::1]", false),
            ("other.example", true),
        ] {
            let url = Url::parse(&format!("https://{host}/")).unwrap();
            let found = forward.for_url(&url).unwrap();
            assert_eq!(found.is_some(), through, "{host}");
            let plain = Url::parse(&format!("http://{host}/")).unwrap();
            assert!(forward.for_url(&plain).unwrap().is_none(), "{host}");
        }
        let url = Url::parse("https://any.example/").unwrap();
        let all = Forward::new("", "http://p", "*");
        assert!(all.for_url(&url).unwrap().is_none());
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_without_its_password() {
        let url = Url::parse("https://any.example/").unwrap();
        for bad in [
            "socks5://me:s3cret@p",
            "http://me:s3cret@",
            "http://me:s3cret@a b",
        ] {
            let error = Forward::new("", bad, "").for_url(&url).unwrap_err();
            assert!(!error.chain().contains("s3cret"), "{error}");
        }
    }
}
