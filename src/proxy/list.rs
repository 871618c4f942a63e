//! The GOPROXY list: which upstreams are asked, and after which failures the next one is.
//!
//! Read as `go` reads it (cmd/go/internal/modfetch/proxy.go, `proxyList` and `newProxyRepo`); a
//! list that `go` refuses is refused here too. No error ever shows a password.

use crate::error::{Error, Result};
use crate::http::url::{Url, unescape_percent};
use std::path::PathBuf;

/// One place of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who is asked.
    pub source: Source,
    /// Whether the next one is asked after any failure (`|`), and not only when there is no
    /// such file (`,`).
    pub on_any_error: bool,
}

/// Who is asked for a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Another module proxy.
    Upstream(Url),
    /// A directory that is laid out like a module proxy.
    Directory(PathBuf),
    /// The repository itself. That is `go`'s own work, and the end of the list.
    Direct,
    /// Nobody, and the end of the list.
    Off,
}

/// Reads a list.
///
/// # Errors
/// When it has no entries, or one that is neither a URL nor a word that `go` knows.
pub fn parse(list: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let (text, separator, after) = match rest.find([',', '|']) {
            Some(at) => (&rest[..at], &rest[at..=at], &rest[at + 1..]),
            None => (rest, "", ""),
        };
        rest = after;
        let source = match text.trim() {
            "" => continue,
            "off" => Source::Off,
            "direct" => Source::Direct,
            text => parse_source(text).map_err(|e| {
                Error::input(format!(
                    "GOPROXY has {e} at position {}: each entry must be an http, https or file URL, direct or off",
                    entries.len() + 1
                ))
            })?,
        };
        let last = matches!(source, Source::Off | Source::Direct);
        entries.push(Entry {
            source,
            on_any_error: separator == "|",
        });
        if last {
            break;
        }
    }
    if entries.is_empty() {
        return Err(Error::input(
            "GOPROXY is not empty, but has no entries: set it to a URL, or unset it",
        ));
    }
    Ok(entries)
}

fn parse_source(text: &str) -> Result<Source> {
    let complete = text.contains(":/") || text.starts_with('/');
    if !complete && text.contains(['.', ':', '/']) {
        return Url::parse(&format!("https://{text}")).map(Source::Upstream);
    }
    let Some((scheme, path)) = text.split_once(':') else {
        return Err(Error::input("an entry without a scheme"));
    };
    if !scheme.eq_ignore_ascii_case("file") {
        return Url::parse(text).map(Source::Upstream);
    }
    // No host, no query: `go` refuses them.
    let path = match path.strip_prefix("//") {
        Some(path) => path,
        None => path,
    };
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err(Error::input("a file URL with more than a path"));
    }
    unescape_percent(path)
        .map(|path| Source::Directory(PathBuf::from(path)))
        .ok_or_else(|| Error::input("a file URL with malformed escapes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(list: &str) -> String {
        let entries = match parse(list) {
            Ok(entries) => entries,
            Err(e) => return format!("error: {e}"),
        };
        let mut out = String::new();
        for entry in entries {
            match entry.source {
                Source::Upstream(url) => out.push_str(&url.to_string()),
                Source::Directory(path) => out.push_str(&path.to_string_lossy()),
                Source::Direct => out.push_str("direct"),
                Source::Off => out.push_str("off"),
            }
            out.push(if entry.on_any_error { '|' } else { ',' });
        }
        out
    }

    #[test]
    fn lists_are_read_as_go_reads_them() {
        for (list, expected) in [
            ("https://a.example", "https://a.example,"),
            ("https://a.example,direct", "https://a.example,direct,"),
            (
                "https://a.example|http://b.example/x/|off",
                "https://a.example|http://b.example/x/|off,",
            ),
            (
                " a.example/go , localhost:3000 ,, |direct,https://never.example",
                "https://a.example/go,https://localhost:3000,direct,",
            ),
            ("off,https://never.example", "off,"),
            ("direct", "direct,"),
            ("file:///srv/go%20proxy,off", "/srv/go proxy,off,"),
            ("file:/srv/go", "/srv/go,"),
        ] {
            assert_eq!(shown(list), expected, "{list}");
        }
    }

    #[test]
    fn a_list_that_go_refuses_is_refused_and_no_password_is_shown() {
        for list in [
            "",
            ",",
            " | ",
            "noproxy",
            "/srv/go",
            "ftp://a.example",
            "file://host/srv",
            "file:///srv?x",
            "https://me:s3cret@a.example:port",
            "me:s3cret@a b",
        ] {
            let shown = shown(list);
            assert!(shown.starts_with("error: GOPROXY "), "{list}: {shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let seed = "https://é:p@[::1]:8/x?y,|direct,file:///%zz,off| \0";
        for start in 0..=seed.len() {
            for end in start..=seed.len() {
                let _ = parse(&String::from_utf8_lossy(&seed.as_bytes()[start..end]));
            }
        }
    }
}
