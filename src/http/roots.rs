//! Whom to trust for TLS: a site's own bundle of certificates, the system's, or the one that is
//! built in.
//!
//! A check is never left out: with no bundle at all the built-in one is used.

use crate::error::{Error, Result};
use crate::log;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::tls::{PemItem, RootCerts, parse_pem};

/// Where systems keep their bundle, as Go's crypto/x509 lists them (root_linux.go).
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What stdenv sets where a build is to have no certificates.
const NONE: &str = "/no-cert-file.crt";

/// The roots: those of `SSL_CERT_FILE`, else of `NIX_SSL_CERT_FILE`, else of the system, else the
/// built-in ones.
pub fn load() -> RootCerts {
    let named = ["SSL_CERT_FILE", "NIX_SSL_CERT_FILE"]
        .into_iter()
        .filter_map(std::env::var_os);
    choose(named, &BUNDLES.map(Path::new))
}

/// Those of this file, and no others.
///
/// # Errors
/// When it cannot be read, or has none.
pub fn of_file(path: &Path) -> Result<RootCerts> {
    read(path).map_err(|why| {
        Error::input(format!(
            "cannot load certificates from {}: {why}",
            path.display()
        ))
    })
}

fn choose(named: impl Iterator<Item = OsString>, bundles: &[&Path]) -> RootCerts {
    for path in named.filter(|path| !path.is_empty() && path != NONE) {
        let path = PathBuf::from(path);
        match read(&path) {
            Ok(roots) => return roots,
            Err(why) => log::warn(format!(
                "ignoring the certificates in {}: {why}",
                path.display()
            )),
        }
    }
    bundles
        .iter()
        .find_map(|path| read(path).ok())
        .unwrap_or(RootCerts::WebPki)
}

fn read(path: &Path) -> std::result::Result<RootCerts, String> {
    let pem = std::fs::read(path).map_err(|e| e.to_string())?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err("it has none".to_string());
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    /// The parser looks at the armour only.
    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    fn count(roots: &RootCerts) -> Option<usize> {
        match roots {
            RootCerts::Specific(certificates) => Some(certificates.len()),
            _ => None,
        }
    }

    #[test]
    fn the_first_bundle_that_has_certificates_is_used() {
        let dir = TestDir::new();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let one = file("one", PEM);
        let two = file("two", &format!("comment\n{PEM}{PEM}"));
        let empty = file("empty", "nothing\n");
        let roots = |named: &[&Path], bundles: &[&Path]| {
            let named = named.iter().map(|path| path.as_os_str().to_os_string());
            count(&choose(named, bundles))
        };
        let missing = dir.path().join("missing");
        assert_eq!(roots(&[&one, &two], &[]), Some(1));
        assert_eq!(roots(&[&missing, &two], &[]), Some(2));
        assert_eq!(roots(&[&empty], &[&one]), Some(1));
        assert_eq!(roots(&[Path::new(NONE)], &[&missing, &two]), Some(2));
        assert_eq!(roots(&[], &[&missing, &empty]), None);
    }
}
