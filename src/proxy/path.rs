//! The paths of the GOPROXY protocol (https://go.dev/ref/mod#goproxy-protocol), and of the checksum
//! databases behind it: parsed once, where a request comes in.
//!
//! Whatever bytes a request has, the result is a [`ModulePath`] or nothing; no part of one can ever
//! climb out of a directory or end a line of a request.

use crate::http::url::unescape_percent;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;

/// What Go's url.PathEscape escapes, less the slash.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModulePath {
    /// `<module>/@v/list`: the versions that there are.
    List(Module),
    /// `<module>/@latest`.
    Latest(Module),
    /// `<module>/@v/<version>.<kind>`; the version may be a branch or a commit.
    File(Module, Version, Kind),
    /// `sumdb/<name>/...`.
    Sumdb(SumdbName, Sumdb),
}

/// A module's path, without escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module(String);

/// A version, or something that names one, without escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

/// The three files of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// JSON: the version and its time.
    Info,
    /// The `go.mod`.
    Mod,
    /// The module itself.
    Zip,
}

/// A checksum database's name: `host[/path]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SumdbName(String);

/// What is asked of a checksum database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sumdb {
    /// Whether the proxy passes requests on to it.
    Supported,
    /// The signed tree.
    Latest,
    /// The sums of a version.
    Lookup(Module, Version),
    /// A piece of the tree.
    Tile(Tile),
}

/// A tile's coordinates (golang.org/x/mod/sumdb/tlog, `Tile.Path`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// What stands behind `tile/`.
    text: String,
    /// How many hashes of 32 bytes it holds; `None` for tiles of records, which have any length.
    hashes: Option<u32>,
    /// It holds all that it can hold, so it never changes.
    full: bool,
}

impl ModulePath {
    /// Reads the path of a request: what stands behind the host, with `%` escapes.
    pub fn parse(path: &str) -> Option<Self> {
        let path = unescape_percent(path.strip_prefix('/')?)?;
        if let Some(rest) = path.strip_prefix("sumdb/") {
            return parse_sumdb(rest);
        }
        if let Some(module) = path.strip_suffix("/@latest") {
            return Some(Self::Latest(Module::parse(module)?));
        }
        let (module, file) = path.split_once("/@v/")?;
        let module = Module::parse(module)?;
        if file == "list" {
            return Some(Self::List(module));
        }
        let (version, extension) = file.rsplit_once('.')?;
        let kind = match extension {
            "info" => Kind::Info,
            "mod" => Kind::Mod,
            "zip" => Kind::Zip,
            _ => return None,
        };
        Some(Self::File(module, Version::parse(version)?, kind))
    }

    /// Whether the answer is the same for ever, so that it may be kept.
    pub fn is_immutable(&self) -> bool {
        match self {
            Self::File(_, version, _) => version.is_canonical(),
            Self::Sumdb(_, Sumdb::Tile(tile)) => tile.full && tile.hashes.is_some(),
            Self::List(_) | Self::Latest(_) | Self::Sumdb(..) => false,
        }
    }

    /// What an answer is, for its `Content-Type`.
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Latest(_) | Self::File(_, _, Kind::Info) => "application/json",
            Self::File(_, _, Kind::Zip) => "application/zip",
            Self::Sumdb(_, Sumdb::Tile(_)) => "application/octet-stream",
            Self::List(_) | Self::File(_, _, Kind::Mod) | Self::Sumdb(..) => {
                "text/plain; charset=UTF-8"
            }
        }
    }

    /// The path as it is below a directory: with `!` escapes, without `%` escapes.
    pub fn file_name(&self) -> String {
        self.to_string()
    }

    /// The path as `go` writes it into a URL: what is not plain has `%` escapes.
    pub fn url_path(&self) -> String {
        utf8_percent_encode(&self.to_string(), ESCAPED).to_string()
    }
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(module) => write!(f, "{}/@v/list", module.escaped()),
            Self::Latest(module) => write!(f, "{}/@latest", module.escaped()),
            Self::File(module, version, kind) => {
                let extension = match kind {
                    Kind::Info => "info",
                    Kind::Mod => "mod",
                    Kind::Zip => "zip",
                };
                write!(
                    f,
                    "{}/@v/{}.{extension}",
                    module.escaped(),
                    version.escaped()
                )
            }
            Self::Sumdb(name, what) => {
                write!(f, "sumdb/{}/", name.0)?;
                match what {
                    Sumdb::Supported => f.write_str("supported"),
                    Sumdb::Latest => f.write_str("latest"),
                    Sumdb::Lookup(module, version) => {
                        write!(f, "lookup/{}@{}", module.escaped(), version.escaped())
                    }
                    Sumdb::Tile(tile) => write!(f, "tile/{}", tile.text),
                }
            }
        }
    }
}

impl Module {
    fn parse(escaped: &str) -> Option<Self> {
        let path = unescape_case(escaped)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+".contains(c);
        let good = path
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain));
        good.then_some(Self(path))
    }

    /// The path, without escapes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn escaped(&self) -> String {
        escape_case(&self.0)
    }
}

impl Version {
    fn parse(escaped: &str) -> Option<Self> {
        let version = unescape_case(escaped)?;
        // What Go's module.EscapeVersion lets through, as far as it is ASCII.
        let plain = |c: char| c.is_ascii_alphanumeric() || " #$%&()+,-.=@[]^_{}~".contains(c);
        let good = !version.is_empty() && !version.starts_with('.') && version.chars().all(plain);
        good.then_some(Self(version))
    }

    /// The version, without escapes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn escaped(&self) -> String {
        escape_case(&self.0)
    }

    /// Whether it is a version in the one form that Go's module.CanonicalVersion gives, and not
    /// the name of a branch or a commit, or short for one.
    pub fn is_canonical(&self) -> bool {
        let version = self.0.strip_suffix("+incompatible").unwrap_or(&self.0);
        let Some(version) = version.strip_prefix('v') else {
            return false;
        };
        let (numbers, prerelease) = match version.split_once('-') {
            Some((numbers, prerelease)) => (numbers, Some(prerelease)),
            None => (version, None),
        };
        let number = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|c| c.is_ascii_digit())
                && (text == "0" || !text.starts_with('0'))
        };
        let identifier = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
                && (number(text) || !text.bytes().all(|c| c.is_ascii_digit()))
        };
        numbers.split('.').count() == 3
            && numbers.split('.').all(number)
            && prerelease.is_none_or(|text| text.split('.').all(identifier))
    }
}

impl Tile {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let height: u32 = decimal(parts.next()?)?;
        let level = parts.next()?;
        if !(1..=30).contains(&height) {
            return None;
        }
        let records = level == "data";
        if !records && decimal(level)? > 63 {
            return None;
        }
        let parts: Vec<_> = parts.collect();
        let (width, number) = match parts.as_slice() {
            [number @ .., last, width] if last.ends_with(".p") => {
                let width = decimal(width)?;
                if !(1..1 << height).contains(&width) {
                    return None;
                }
                (width, [number, &[last.strip_suffix(".p")?]].concat())
            }
            number => (1 << height, number.to_vec()),
        };
        // The number in groups of three digits; all but the last begin with an x.
        let (last, others) = number.split_last()?;
        let digits = |group: &str| group.len() == 3 && group.bytes().all(|c| c.is_ascii_digit());
        let others = others
            .iter()
            .all(|group| group.strip_prefix('x').is_some_and(digits));
        (others && digits(last) && number.len() <= 7).then(|| Self {
            text: text.to_string(),
            hashes: (!records).then_some(width),
            full: width == 1 << height,
        })
    }

    /// The length of the tile in bytes, if it is one of hashes.
    pub fn length(&self) -> Option<u64> {
        Some(u64::from(self.hashes?) * 32)
    }
}

fn parse_sumdb(rest: &str) -> Option<ModulePath> {
    let name = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:".contains(c);
        let good = text
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain));
        good.then(|| SumdbName(text.to_string()))
    };
    let (database, what) = if let Some((database, sums)) = rest.split_once("/lookup/") {
        let (module, version) = sums.split_once('@')?;
        let lookup = Sumdb::Lookup(Module::parse(module)?, Version::parse(version)?);
        (database, lookup)
    } else if let Some((database, tile)) = rest.split_once("/tile/") {
        (database, Sumdb::Tile(Tile::parse(tile)?))
    } else if let Some(database) = rest.strip_suffix("/supported") {
        (database, Sumdb::Supported)
    } else {
        (rest.strip_suffix("/latest")?, Sumdb::Latest)
    };
    Some(ModulePath::Sumdb(name(database)?, what))
}

/// A number of one to nine digits, without leading zeros.
fn decimal(text: &str) -> Option<u32> {
    let good = (1..=9).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    good.then(|| text.parse().ok()).flatten()
}

/// `!a` stands for `A`, so that upper case survives file systems that ignore it.
fn unescape_case(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '!' => {
                let c = chars.next().filter(char::is_ascii_lowercase)?;
                out.push(c.to_ascii_uppercase());
            }
            'A'..='Z' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

fn escape_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            out.push('!');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_asks_for_reads_back_as_go_wrote_it() {
        for path in [
            "golang.org/x/net/@v/list",
            "golang.org/x/net/@latest",
            "golang.org/x/net/@v/v0.30.0.info",
            "github.com/%21burnt%21sushi/toml/@v/v1.4.0.mod",
            "github.com/docker/cli/@v/v27.3.1+incompatible.zip",
            "golang.org/x/net/@v/v0.0.0-20241001000000-abcdef012345.zip",
            "golang.org/toolchain/@v/v0.0.1-go1.27.3.linux-amd64.zip",
            "example.org/m/@v/master.info",
            "example.org/m/@v/%21main.info",
            "sumdb/sum.example.org/supported",
            "sumdb/sum.example.org/some/path/latest",
            "sumdb/sum.example.org/lookup/github.com/%21a/b@v1.0.0",
            "sumdb/sum.example.org/tile/8/0/x001/234",
            "sumdb/sum.example.org/tile/8/1/000.p/174",
            "sumdb/sum.example.org/tile/8/data/x123/456.p/1",
        ] {
            let parsed = ModulePath::parse(&format!("/{path}")).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(parsed.url_path(), path);
        }
        let plain = ModulePath::parse("/github.com/!burnt!sushi/toml/@v/v1.4.0.mod");
        assert_eq!(
            plain.as_ref().map(ModulePath::file_name).as_deref(),
            Some("github.com/!burnt!sushi/toml/@v/v1.4.0.mod")
        );
        assert_eq!(
            plain,
            ModulePath::parse("/github.com/%21burnt%21sushi/toml/@v/v1.4.0.mod")
        );
    }

    #[test]
    fn anything_else_is_nothing() {
        for path in [
            "",
            "/",
            "//",
            "golang.org/x/net/@latest",
            "/@latest",
            "/@v/list",
            "/../../etc/passwd",
            "/a/../b/@v/list",
            "/a/%2e%2e/b/@v/list",
            "/a/b/@v/../../x.zip",
            "/a/b/@v/..%2f..%2fx.zip",
            "/a/b/@v/.zip",
            "/a/b/@v/v1.0.0.tar",
            "/a/b/@v/v1.0.0",
            "/a//b/@v/list",
            "/a/B/@v/list",
            "/a/!B/@v/list",
            "/a/b!/@v/list",
            "/a/b/@v/v1.0.0.zip?x",
            "/a/b/@v/v1.0.0%0d%0a.zip",
            "/a/b/@v/v1.0.0%.zip",
            "/a/b/@v/v1.0.0%f.zip",
            "/a/b/@v/v1.0.0%ff.zip",
            "/a/é/@v/list",
            "/sumdb//supported",
            "/sumdb/x/../supported",
            "/sumdb/x/tile/8/0",
            "/sumdb/x/tile/8/0/1",
            "/sumdb/x/tile/0/0/001",
            "/sumdb/x/tile/8/64/001",
            "/sumdb/x/tile/8/0/001.p/256",
            "/sumdb/x/tile/8/0/001.p/0",
            "/sumdb/x/tile/8/0/001.p",
            "/sumdb/x/tile/8/0/001/234",
            "/sumdb/x/tile/8/0/../../001",
            "/sumdb/x/lookup/a/b",
            "/sumdb/x/else",
        ] {
            assert_eq!(ModulePath::parse(path), None, "{path}");
        }
    }

    #[test]
    fn only_canonical_versions_and_full_tiles_are_immutable() {
        let immutable = |path: &str| {
            ModulePath::parse(path)
                .unwrap_or_else(|| panic!("{path}"))
                .is_immutable()
        };
        for version in [
            "v0.0.0",
            "v1.2.3",
            "v1.2.3-rc.1",
            "v1.2.3-0.20200101000000-abcdef012345",
            "v2.0.0+incompatible",
            "v1.0.0-0a",
            "v0.0.1-go1.27.3.linux-amd64",
        ] {
            assert!(immutable(&format!("/a.b/c/@v/{version}.zip")), "{version}");
        }
        for version in [
            "v1",
            "v1.2",
            "master",
            "abcdef012345",
            "v01.2.3",
            "v1.2.3.4",
            "v1.2.3-",
            "v1.2.3-01",
            "v1.2.3-a..b",
            "v1.2.3+meta",
            "v1.2.3+incompatible+incompatible",
            "1.2.3",
            "latest",
        ] {
            assert!(
                !immutable(&format!("/a.b/c/@v/{version}.info")),
                "{version}"
            );
        }
        assert!(!immutable("/a.b/c/@v/list"));
        assert!(!immutable("/a.b/c/@latest"));
        assert!(immutable("/sumdb/x/tile/8/0/x001/234"));
        assert!(!immutable("/sumdb/x/tile/8/0/001.p/7"));
        assert!(!immutable("/sumdb/x/tile/8/data/001"));
        assert!(!immutable("/sumdb/x/lookup/a.b/c@v1.0.0"));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let seed = "/sumdb/é!%41/@v/.p/tile/8/0/x001/v1.0.0-+incompatible.zip@latest";
        for start in 0..=seed.len() {
            for end in start..=seed.len() {
                let bytes = &seed.as_bytes()[start..end];
                let text = String::from_utf8_lossy(bytes);
                let _ = ModulePath::parse(&text);
                let _ = ModulePath::parse(&format!("/a.b/c/@v/{text}"));
                let _ = ModulePath::parse(&format!("/sumdb/x/tile/{text}"));
            }
        }
    }
}
