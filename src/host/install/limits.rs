//! The drop-in for systemd with the daemon's limits and its cache directory.

use super::layout::{Layout, SERVICE_UNIT};
use crate::error::Result;
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
}

impl Limits {
    /// Where it goes.
    pub fn path(layout: &Layout) -> PathBuf {
        layout.units.join(format!("{SERVICE_UNIT}.d/limits.conf"))
    }

    /// Takes what these say.
    pub fn override_with(&mut self, later: &Self) {
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
        if let Some(dir) = cache_dir.filter(|_| !layout.user) {
            let dir = dir.display();
            let _ = write!(
                out,
                "[Unit]\nRequiresMountsFor={dir}\n[Service]\nReadWritePaths={dir}\n\
                 Environment=NIX_GOCACHEPROG_CACHE_DIR={dir}\n"
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
