//! The drop-in for systemd that gives the daemon a remote and, because that needs it, the network.

use super::layout::{Layout, SERVICE_UNIT};
use crate::config::MISSING_CREDENTIAL;
use crate::error::{Error, Result};
use crate::remote::{self, Mode};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What the drop-in says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// Where the remote is.
    pub url: String,
    /// What may be done with it.
    pub mode: Mode,
    /// The file with the credentials, which only systemd has to be able to read.
    pub credentials: Option<PathBuf>,
    /// The file with the certificates that are trusted.
    pub ca: Option<PathBuf>,
    /// The file with the certificate that is shown.
    pub cert: Option<PathBuf>,
    /// The file with its private key.
    pub key: Option<PathBuf>,
    /// The file with the key that signs what is uploaded.
    pub secret_key: Option<PathBuf>,
    /// The keys whose signatures count.
    pub trusted_keys: String,
    /// Plain http may go to other machines.
    pub insecure_http: bool,
}

impl Remote {
    /// Where it goes.
    pub fn path(layout: &Layout) -> PathBuf {
        layout.units.join(format!("{SERVICE_UNIT}.d/remote.conf"))
    }

    /// Its text.
    ///
    /// # Errors
    /// When the URL is none, or has a password in it, or a path is not one that systemd takes.
    pub fn text(&self, layout: &Layout) -> Result<String> {
        remote::Options {
            url: self.url.clone(),
            insecure_http: self.insecure_http,
            ..remote::Options::default()
        }
        .place()?;
        let mut start = format!("{} daemon", word(&layout.program.to_string_lossy()));
        if layout.user {
            let _ = write!(
                start,
                " --cache-dir {}",
                word(&layout.cache_dir.to_string_lossy())
            );
        }
        let _ = write!(
            start,
            " --remote {} --remote-mode {}",
            word(&self.url),
            self.mode.name()
        );
        if !self.trusted_keys.is_empty() {
            let keys = word(&self.trusted_keys);
            let _ = write!(start, " --remote-trusted-public-keys {keys}");
        }
        if self.insecure_http {
            start += " --remote-insecure-http";
        }
        let mut load = String::new();
        for (name, path) in [
            ("credentials", &self.credentials),
            ("ca", &self.ca),
            ("cert", &self.cert),
            ("key", &self.key),
            ("secret-key-file", &self.secret_key),
        ] {
            let Some(path) = path else { continue };
            let shown = path.to_string_lossy();
            if !path.is_absolute() || shown.contains(char::is_whitespace) {
                return Err(Error::input(format!(
                    "--remote-{name} takes the whole path of a file, without spaces, not {shown:?}"
                )));
            }
            let _ = write!(start, " --remote-{name} {name}");
            let _ = writeln!(load, "LoadCredential={name}:{}", shown.replace('%', "%%"));
            // Without this a file that is missing at boot would keep the daemon from starting.
            let _ = writeln!(load, "SetCredential={name}:{MISSING_CREDENTIAL}");
        }
        let network = if layout.user {
            ""
        } else {
            "# Without a remote the daemon has no network.\n\
             PrivateNetwork=no\nIPAddressDeny=\nRestrictAddressFamilies=AF_INET AF_INET6\n"
        };
        Ok(format!(
            "# `nix-gocacheprog install --remote` has written this. Without this file there is no remote.\n\
             [Service]\nExecStart=\nExecStart={start}\n{load}{network}"
        ))
    }
}

/// A word of a command as systemd reads it.
fn word(text: &str) -> String {
    let text = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_comes_with_the_remote_and_no_secret_is_shown() {
        let layout = Layout::of_system();
        let remote = Remote {
            url: "https://cache.test/go%20cache".into(),
            credentials: Some("/etc/secret".into()),
            ..Remote::default()
        };
        let text = remote.text(&layout).unwrap();
        for line in [
            "ExecStart=\"/usr/local/bin/nix-gocacheprog\" daemon --remote \"https://cache.test/go%%20cache\" \
             --remote-mode read --remote-credentials credentials",
            "LoadCredential=credentials:/etc/secret",
            "PrivateNetwork=no",
            "RestrictAddressFamilies=AF_INET AF_INET6",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        for bad in [
            "https://me:secret@cache.test",
            "https://cache.test/?secret",
            "cache.test",
        ] {
            let remote = Remote {
                url: bad.into(),
                ..Remote::default()
            };
            let error = remote.text(&layout).unwrap_err().chain();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
