//! The daemon's remote, as a command line and as the drop-in for systemd, which also gives it the network.

use super::layout::{Layout, SERVICE_UNIT};
use crate::config::MISSING_CREDENTIAL;
use crate::error::{Error, Result};
use crate::remote::Options;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where the drop-in goes.
pub fn path(layout: &Layout) -> PathBuf {
    layout.units.join(format!("{SERVICE_UNIT}.d/remote.conf"))
}

/// The files that it names, each with the name under which the daemon finds it in its directory of credentials.
pub fn files(remote: &Options) -> impl Iterator<Item = (&'static str, &Path)> {
    [
        ("credentials", &remote.credentials),
        ("ca", &remote.ca),
        ("cert", &remote.cert),
        ("key", &remote.key),
        ("secret-key-file", &remote.secret_key),
    ]
    .into_iter()
    .filter_map(|(name, path)| Some((name, path.as_deref()?)))
}

/// The daemon's arguments.
pub fn arguments(remote: &Options) -> Vec<String> {
    let mut arguments = vec!["--remote".into(), remote.url.clone()];
    arguments.extend(["--remote-mode".into(), remote.mode.name().into()]);
    if !remote.trusted_keys.is_empty() {
        arguments.push("--remote-trusted-public-keys".into());
        arguments.push(remote.trusted_keys.clone());
    }
    if remote.insecure_http {
        arguments.push("--remote-insecure-http".into());
    }
    for (name, _) in files(remote) {
        arguments.extend([format!("--remote-{name}"), name.into()]);
    }
    arguments
}

/// The drop-in's text.
///
/// # Errors
/// When the URL is none, or has a password in it, or a path is not one that systemd takes.
pub fn text(remote: &Options, layout: &Layout) -> Result<String> {
    remote.place()?;
    let mut start = format!("{} daemon", word(&layout.program.to_string_lossy()));
    if layout.user {
        let _ = write!(
            start,
            " --cache-dir {}",
            word(&layout.cache_dir.to_string_lossy())
        );
    }
    for argument in arguments(remote) {
        let _ = write!(start, " {}", word(&argument));
    }
    let mut load = String::new();
    for (name, path) in files(remote) {
        let shown = path.to_string_lossy();
        if !path.is_absolute() || shown.contains(char::is_whitespace) {
            return Err(Error::input(format!(
                "--remote-{name} takes the whole path of a file, without spaces, not {shown:?}"
            )));
        }
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

/// A word of a command as systemd reads it.
fn word(text: &str) -> String {
    if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return text.into();
    }
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
        let remote = Options {
            url: "https://cache.test/go%20cache".into(),
            credentials: Some("/etc/secret".into()),
            ..Options::default()
        };
        let text = text(&remote, &layout).unwrap();
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
            let remote = Options {
                url: bad.into(),
                ..Options::default()
            };
            let error = super::text(&remote, &layout).unwrap_err().chain();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
