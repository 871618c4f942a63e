//! How the installed Nix is configured, as it says itself.

use crate::environment;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where Nix is when it is not in PATH, as for root under sudo.
const USUAL: [&str; 3] = [
    "/nix/var/nix/profiles/default/bin/nix",
    "/run/current-system/sw/bin/nix",
    "/usr/bin/nix",
];

/// A Nix and its settings.
#[derive(Debug)]
pub struct Nix {
    /// As `nix --version` says it.
    pub version: String,
    settings: HashMap<String, String>,
    /// This user's nix.conf, when Nix builds through its daemon for this user.
    user_conf: Option<PathBuf>,
}

impl Nix {
    /// Asks Nix.
    ///
    /// # Errors
    /// When there is none, or it does not answer.
    pub fn ask() -> Result<Self> {
        let (program, version) = std::iter::once("nix")
            .chain(USUAL)
            .find_map(|program| Some((program, output(program, &["--version"]).ok()?)))
            .ok_or_else(|| Error::input("there is no `nix` in PATH, nor where it usually is"))?;
        let feature = ["--extra-experimental-features", "nix-command"];
        // The older command is the only one of old Nix, and of new Nix the only that warns.
        let show = |env: &[(&str, &str)]| {
            output_with(program, &[&feature[..], &["config", "show"]].concat(), env)
                .or_else(|_| output_with(program, &[&feature[..], &["show-config"]].concat(), env))
        };
        Self::shown(&version, user_conf(), show)
    }

    /// One that shows its settings in an environment with these variables.
    fn shown(
        version: &str,
        user_conf: Option<PathBuf>,
        show: impl Fn(&[(&str, &str)]) -> Result<String>,
    ) -> Result<Self> {
        const HOOK: &str = "pre-build-hook";
        let mut nix = Self::new(version, &show(&[])?, user_conf);
        if nix.user_hook().is_some() {
            // The daemon runs its own, whatever the user's nix.conf says.
            let daemons = show(&[("NIX_USER_CONF_FILES", "")])?;
            let daemons = Self::new(version, &daemons, None);
            nix.settings.insert(HOOK.into(), daemons.get(HOOK).into());
        }
        Ok(nix)
    }

    /// Has Nix read a file as configuration, before it is one.
    ///
    /// # Errors
    /// When Nix refuses it, with what Nix said. Without a Nix that can be run nothing is refused.
    pub fn check(conf: &Path) -> Result<()> {
        let Some(program) = std::iter::once("nix")
            .chain(USUAL)
            .find(|program| output(program, &["--version"]).is_ok())
        else {
            return Ok(());
        };
        let ask = |conf: Option<&Path>| {
            let mut last = Ok(());
            for show in [&["show-config"][..], &["config", "show"]] {
                let mut command = Command::new(program);
                command
                    .args(["--extra-experimental-features", "nix-command"])
                    .args(show)
                    .env("NIX_USER_CONF_FILES", conf.unwrap_or(Path::new("")))
                    .stdin(Stdio::null());
                let output = command.output().map_err(|e| Error::io("run", program, e))?;
                if output.status.success() {
                    return Ok(());
                }
                last = Err(Error::input(
                    String::from_utf8_lossy(&output.stderr).trim().to_string(),
                ));
            }
            last
        };
        match ask(Some(conf)) {
            // A Nix that refuses what it has already says nothing about this file.
            Err(e) if ask(None).is_ok() => Err(e),
            _ => Ok(()),
        }
    }

    /// One that says this.
    pub fn new(version: &str, settings: &str, user_conf: Option<PathBuf>) -> Self {
        let settings = settings.lines().filter_map(|line| line.split_once('='));
        Self {
            version: version.trim().into(),
            settings: settings
                .map(|(name, value)| (name.trim().into(), value.trim().into()))
                .collect(),
            user_conf,
        }
    }

    /// A setting's value; empty when it has none.
    pub fn get(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// Whether it is the fork that has no use for the hook's output.
    pub fn is_lix(&self) -> bool {
        self.version.contains("Lix")
    }

    /// The nix.conf of this user, if it sets a hook in vain.
    pub fn user_hook(&self) -> Option<&Path> {
        let path = self.user_conf.as_deref()?;
        let text = std::fs::read_to_string(path).ok()?;
        let sets = text
            .lines()
            .any(|line| line.trim_start().starts_with("pre-build-hook"));
        sets.then_some(path)
    }
}

/// What `pre-build-hook` names.
#[derive(Debug, PartialEq, Eq)]
pub enum Hook {
    /// Nothing.
    None,
    /// Nothing that can be run.
    Missing,
    /// Ours, with the one that it runs first.
    Ours(Option<String>),
    /// Another one.
    Other,
}

/// Whether this is a file that can be run, as Nix wants its hook.
pub fn is_runnable(program: &str) -> bool {
    std::fs::metadata(program).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Looks at what the setting names.
pub fn look_at_hook(hook: &str) -> Hook {
    if hook.is_empty() {
        return Hook::None;
    }
    if !is_runnable(hook) {
        return Hook::Missing;
    }
    let real = crate::fs::canonicalize(Path::new(hook)).unwrap_or_default();
    if real.to_string_lossy().ends_with("nix-gocacheprog") {
        return Hook::Ours(None);
    }
    // A script of a few lines that runs it.
    match std::fs::read_to_string(&real) {
        Ok(script) if script.contains("nix-gocacheprog") => {
            let chained = script
                .split_once("--chain ")
                .map(|(_, rest)| rest.trim_start());
            let word = chained.and_then(|rest| rest.split_whitespace().next());
            Hook::Ours(word.map(|word| word.trim_matches('\'').to_string()))
        }
        _ => Hook::Other,
    }
}

/// This user's nix.conf, where Nix's daemon would ignore a hook in it.
fn user_conf() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let state = std::fs::metadata("/nix/var/nix").ok()?;
    if state.uid() == crate::sys::effective_uid() {
        return None;
    }
    Some(environment::config_home()?.join("nix/nix.conf"))
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    output_with(program, args, &[])
}

fn output_with(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::io("run", program, e))?;
    if !output.status.success() {
        return Err(Error::input(format!(
            "`{program} {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn a_hook_in_a_users_nix_conf_is_not_taken_for_the_one_that_runs() {
        let dir = TestDir::new();
        let conf = dir.path().join("nix.conf");
        let shown = |text: &str| {
            std::fs::write(&conf, text).unwrap();
            let nix = Nix::shown("nix (Nix) 2.8.0", Some(conf.clone()), |env| {
                let hook = match env {
                    [("NIX_USER_CONF_FILES", "")] => "/ours",
                    _ if text.is_empty() => "/ours",
                    _ => "/theirs",
                };
                Ok(format!("cores = 4\npre-build-hook = {hook}\n"))
            });
            let nix = nix.unwrap();
            assert_eq!(nix.get("cores"), "4");
            (
                nix.get("pre-build-hook").to_string(),
                nix.user_hook().is_some(),
            )
        };
        assert_eq!(shown(""), ("/ours".into(), false));
        let theirs = "  pre-build-hook = /theirs\n";
        assert_eq!(shown(theirs), ("/ours".into(), true));
    }
}
