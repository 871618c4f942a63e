//! The drop-in for systemd with the daemon's limits, its cache directory and its file of metrics.

use super::layout::{Layout, SERVICE_UNIT};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What the daemon keeps its cache within, as it was written on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `--max-size`.
    pub max_size: Option<String>,
    /// `--max-age`.
    pub max_age: Option<String>,
    /// `--min-free`.
    pub min_free: Option<String>,
    /// `--metrics-file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_file: Option<PathBuf>,
}

impl Limits {
    /// Where it goes.
    pub fn path(layout: &Layout) -> PathBuf {
        layout.units.join(format!("{SERVICE_UNIT}.d/limits.conf"))
    }

    /// Takes what these say.
    pub fn override_with(&mut self, later: &Self) {
        if later.metrics_file.is_some() {
            self.metrics_file.clone_from(&later.metrics_file);
        }
        for (mine, later) in [
            (&mut self.max_size, &later.max_size),
            (&mut self.max_age, &later.max_age),
            (&mut self.min_free, &later.min_free),
        ] {
            if later.is_some() {
                mine.clone_from(later);
            }
        }
    }

    /// Its text, if there is anything to say.
    pub fn text(&self, layout: &Layout, cache_dir: Option<&Path>) -> Result<Option<String>> {
        let mut out = String::new();
        // A user's own service names its cache in its command.
        // Without the reset systemd would make the usual one as well.
        if let Some(dir) = cache_dir.filter(|_| !layout.user) {
            let dir = dir.display();
            let _ = write!(
                out,
                "[Unit]\nRequiresMountsFor={dir}\n[Service]\nCacheDirectory=\nReadWritePaths={dir}\n\
                 Environment=NIX_GOCACHEPROG_CACHE_DIR={dir}\n"
            );
        }
        if let Some(file) = &self.metrics_file {
            let folder = file.parent().filter(|_| file.is_absolute());
            let is_plain = |c: char| !c.is_whitespace() && !"\"%\\".contains(c);
            let Some(folder) = folder.filter(|_| file.to_string_lossy().chars().all(is_plain))
            else {
                return Err(Error::input(format!(
                    "--metrics-file takes the whole path of a file, without spaces, not {:?}",
                    file.display()
                )));
            };
            if !out.contains("[Service]") {
                out.push_str("[Service]\n");
            }
            // A folder that is not there yet must not keep the daemon from starting.
            let _ = writeln!(
                out,
                "ReadWritePaths=-{}\nEnvironment=NIX_GOCACHEPROG_METRICS_FILE={}",
                folder.display(),
                file.display()
            );
        }
        for (name, value) in [
            ("MAX_SIZE", &self.max_size),
            ("MAX_AGE", &self.max_age),
            ("MIN_FREE", &self.min_free),
        ] {
            let Some(value) = value else { continue };
            if !out.contains("[Service]") {
                out.push_str("[Service]\n");
            }
            let _ = writeln!(out, "Environment=\"NIX_GOCACHEPROG_{name}={value}\"");
        }
        Ok((!out.is_empty()).then(|| {
            format!(
                "# `nix-gocacheprog install` has written this, and `uninstall` removes it.\n{out}"
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_elsewhere_is_the_only_one_that_systemd_makes_way_for() {
        let dir = Path::new("/mnt/disk/cache");
        let text = Limits::default().text(&Layout::of_system(), Some(dir));
        let text = text.unwrap().unwrap();
        let wanted = "[Service]\nCacheDirectory=\nReadWritePaths=/mnt/disk/cache\n";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn the_daemon_may_write_where_its_metrics_go() {
        let limits = |file: &str| Limits {
            metrics_file: Some(file.into()),
            ..Limits::default()
        };
        let text = |file| limits(file).text(&Layout::of_system(), None);
        let written = text("/var/lib/metrics/go.prom").unwrap().unwrap();
        assert!(written.ends_with(
            "[Service]\nReadWritePaths=-/var/lib/metrics\n\
             Environment=NIX_GOCACHEPROG_METRICS_FILE=/var/lib/metrics/go.prom\n"
        ));
        for wrong in ["go.prom", "/with space/go.prom", "/with%h/go.prom", "/a\nb"] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
        let mut limits = limits("/a/b.prom");
        limits.override_with(&Limits::default());
        assert!(limits.metrics_file.is_some(), "it stays as it was");
    }
}
