//! netrc: the users and passwords of hosts, read as `go` reads them
//! (cmd/go/internal/auth, `parseNetrc` and `loadCredential`).
//!
//! Anything at all in the file is read somehow; nothing in it is ever shown.

use super::url::{Credentials, Url};
use crate::log;
use crate::sync::lock;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// What a netrc file has, in its order.
#[derive(Default)]
pub struct Netrc(Vec<(String, Credentials)>);

/// The user's netrc file, read again whenever it has changed: it may be written after this process began.
pub struct NetrcFile {
    /// The first of these that is there.
    paths: Vec<PathBuf>,
    read: Mutex<(Option<Stamp>, Arc<Netrc>)>,
}

/// Changes with a file: which one, when it was last written, its inode and length.
type Stamp = (PathBuf, SystemTime, u64, u64);

impl NetrcFile {
    /// The file that [`Netrc::of_user`] reads or, where there is none, the `.netrc` in one of these directories.
    pub fn of_user(directories: &[PathBuf]) -> Self {
        let user = path_of_user();
        let others = directories.iter().map(|directory| directory.join(".netrc"));
        Self {
            // Without the first `go` is not to look at any.
            paths: user.map_or_else(Vec::new, |path| {
                std::iter::once(path).chain(others).collect()
            }),
            read: Mutex::default(),
        }
    }

    /// What stands in it now.
    pub fn current(&self) -> Arc<Netrc> {
        let stamp = self.paths.iter().find_map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((
                path.clone(),
                metadata.modified().ok()?,
                metadata.ino(),
                metadata.len(),
            ))
        });
        let mut read = lock(&self.read);
        if read.0 != stamp {
            let netrc = stamp
                .as_ref()
                .map_or_else(Netrc::default, |(path, ..)| Netrc::read(path));
            *read = (stamp, Arc::new(netrc));
        }
        Arc::clone(&read.1)
    }
}

/// Where the user's file is, unless `GOAUTH` says that `go` would not look at it.
fn path_of_user() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(goauth) = var("GOAUTH").and_then(|value| value.into_string().ok()) {
        let mut commands = goauth.split(';');
        if !commands.any(|command| command.split_whitespace().next() == Some("netrc")) {
            return None;
        }
    }
    match (var("NETRC"), var("HOME")) {
        (Some(path), _) => Some(PathBuf::from(path)),
        (None, Some(home)) => Some(PathBuf::from(home).join(".netrc")),
        (None, None) => None,
    }
}

impl Netrc {
    /// Reads the user's file: that of `NETRC`, or `~/.netrc`. Empty when there is none, or when
    /// `GOAUTH` says that `go` would not look at it.
    pub fn of_user() -> Self {
        path_of_user().map_or_else(Self::default, |path| Self::read(&path))
    }

    fn read(path: &Path) -> Self {
        match std::fs::read(path) {
            Ok(text) => Self::parse(&String::from_utf8_lossy(&text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Self::default(),
            Err(e) => {
                log::warn(format!("cannot read {}: {e}", path.display()));
                Self::default()
            }
        }
    }

    /// Reads a file's text.
    pub fn parse(text: &str) -> Self {
        let mut found = Vec::new();
        let (mut machine, mut user, mut password) = ("", "", "");
        let mut in_macro = false;
        for line in text.split('\n') {
            if in_macro {
                in_macro = !line.is_empty();
                continue;
            }
            let mut words = line.split_whitespace();
            let mut odd = None;
            while let Some(word) = words.next() {
                let Some(value) = words.next() else {
                    odd = Some(word);
                    break;
                };
                match word {
                    "machine" => (machine, user, password) = (value, "", ""),
                    "login" => user = value,
                    "password" => password = value,
                    "macdef" => in_macro = true,
                    _ => {}
                }
                if !machine.is_empty() && !user.is_empty() && !password.is_empty() {
                    let credentials = Credentials {
                        user: user.to_string(),
                        password: password.to_string(),
                    };
                    found.push((machine.to_string(), credentials));
                    (machine, user, password) = ("", "", "");
                }
            }
            if odd == Some("default") {
                break;
            }
        }
        Self(found)
    }

    /// The credentials for a URL: those of the longest machine that it begins with, and of the
    /// first of several equal ones. None for a connection that is not encrypted.
    pub fn find(&self, url: &Url) -> Option<&Credentials> {
        if !url.is_https() {
            return None;
        }
        let whole = url.machine();
        let mut prefix = whole.trim_end_matches('/');
        loop {
            let same = |machine: &str| machine.trim_end_matches('/') == prefix;
            if let Some((_, credentials)) = self.0.iter().find(|(machine, _)| same(machine)) {
                return Some(credentials);
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
machine one.example login me password first
machine one.example login me password second
machine two.example
  login you
  password deep

macdef init
machine macro.example login no password no

machine three.example/go login t password p account ignored
machine half.example login nobody
machine port.example:8443 login u password p
default login anybody password x
machine default
machine after.example login late password late
";

    fn found(url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        let netrc = Netrc::parse(TEXT);
        let found = netrc.find(&url)?;
        Some(format!("{}:{}", found.user, found.password))
    }

    #[test]
    fn hosts_are_found_as_go_finds_them() {
        for (url, expected) in [
            ("https://one.example/a/b", Some("me:first")),
            ("https://two.example", Some("you:deep")),
            ("https://three.example/go/x", Some("t:p")),
            ("https://three.example/gone", None),
            ("https://macro.example", None),
            ("https://half.example", None),
            ("https://port.example:8443/x", Some("u:p")),
            ("https://port.example/x", None),
            ("https://unknown.example", None),
            ("http://one.example", None),
        ] {
            assert_eq!(found(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for start in 0..TEXT.len() {
            let netrc = Netrc::parse(&TEXT[start..]);
            let _ = netrc.find(&Url::parse("https://one.example/").unwrap());
        }
        Netrc::parse("machine\0é default\nmacdef");
    }
}
