//! Where an installation puts things, and the texts that it puts there.

use super::plan::Content;
use crate::config::{CACHE_DIR, RUNTIME_DIR};
use crate::environment;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The daemon's user and group.
pub const USER: &str = "nix-gocacheprog";

/// The service.
pub const SERVICE_UNIT: &str = "nix-gocacheprog.service";

/// Its sockets.
pub const SOCKET_UNITS: [&str; 2] = [
    "nix-gocacheprog-build.socket",
    "nix-gocacheprog-control.socket",
];

const SERVICE: &str = include_str!("../../../systemd/nix-gocacheprog.service");
const BUILD_SOCKET: &str = include_str!("../../../systemd/nix-gocacheprog-build.socket");
const CONTROL_SOCKET: &str = include_str!("../../../systemd/nix-gocacheprog-control.socket");
const TMPFILES: &str = include_str!("../../../systemd/tmpfiles.conf");

/// A user's own daemon needs none of what keeps the system's apart from its users.
const USER_SERVICE: &str = "\
[Unit]
Description=Go build cache for Nix builds
Requires=nix-gocacheprog-build.socket nix-gocacheprog-control.socket
After=nix-gocacheprog-build.socket nix-gocacheprog-control.socket
StartLimitIntervalSec=0

[Service]
ExecStart=PROGRAM daemon --cache-dir CACHE
Sockets=nix-gocacheprog-build.socket nix-gocacheprog-control.socket
Restart=on-failure
RestartSec=5s
";

const OPENRC: &str = "\
#!/sbin/openrc-run
command=PROGRAM
command_args=\"daemon\"
command_user=\"nix-gocacheprog:nix-gocacheprog\"
command_background=true
pidfile=/run/nix-gocacheprog.pid
start_pre() {
    checkpath --directory --owner nix-gocacheprog:nix-gocacheprog --mode 0755 RUNTIME
}
";

const RUNIT: &str = "\
#!/bin/sh
install -d -o nix-gocacheprog -g nix-gocacheprog -m 755 RUNTIME
exec chpst -u nix-gocacheprog:nix-gocacheprog PROGRAM daemon 2>&1
";

/// How builds get at the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nix's pre-build-hook registers each build.
    #[default]
    Hook,
    /// The same mounts for every build, which registers itself.
    Static,
}

/// The host that is changed.
#[derive(Clone, Debug)]
pub struct Host {
    /// All paths are below this.
    pub root: PathBuf,
    /// Whether this is the machine that we run on, and not a folder of the tests.
    pub is_live: bool,
    /// Whether it is left to the caller to say what was done.
    pub is_quiet: bool,
    /// How long running builds are waited for; `None` where somebody can interrupt it.
    pub patience: Option<Duration>,
    /// Held while the host is changed, by the commands that are run for it, too.
    pub lock: Option<Arc<File>>,
    /// Where things go.
    pub layout: Layout,
}

/// Where things go, as the host itself sees it.
#[derive(Clone, Debug)]
pub struct Layout {
    /// For one user's own Nix.
    pub user: bool,
    /// The program.
    pub program: PathBuf,
    /// What else is ours.
    pub lib: PathBuf,
    /// What Nix calls.
    pub hook: PathBuf,
    /// systemd's folder for units.
    pub units: PathBuf,
    /// Nix's configuration.
    pub nix_conf: PathBuf,
    /// The daemon's cache.
    pub cache_dir: PathBuf,
    /// The daemon's sockets.
    pub runtime_dir: PathBuf,
}

impl Host {
    /// The machine that we run on.
    ///
    /// # Errors
    /// When a user's folders are unknown.
    pub fn live(user: bool) -> Result<Self> {
        Ok(Self {
            root: PathBuf::from("/"),
            is_live: true,
            is_quiet: false,
            patience: None,
            lock: None,
            layout: if user {
                Layout::of_user()?
            } else {
                Layout::of_system()
            },
        })
    }

    /// A path of the host as it is reached from here.
    pub fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The inverse of [`Host::at`].
    pub fn logical(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(&self.root).unwrap_or(path))
    }

    /// Whether systemd runs here.
    pub fn has_systemd(&self) -> bool {
        match (self.layout.user, environment::directory("XDG_RUNTIME_DIR")) {
            (true, Some(dir)) => self.at(&dir).join("systemd").exists(),
            (true, None) => false,
            (false, _) => self.at(Path::new("/run/systemd/system")).exists(),
        }
    }

    /// Has nix-daemon read its configuration again, if it runs. systemd starts a service five times within ten seconds and
    /// then no more, and an installation that is repeated or taken back must not leave a host without Nix: the count begins
    /// anew. It is asked for by a pattern, as there may be no such unit.
    pub fn restart_nix(&self) -> [Vec<String>; 2] {
        [
            ["reset-failed", "nix-daemon.*"],
            ["try-restart", "nix-daemon.service"],
        ]
        .map(|args| self.systemctl(&args))
    }

    /// The command `systemctl` with these arguments.
    pub fn systemctl(&self, args: &[&str]) -> Vec<String> {
        let user = if self.layout.user {
            &["--user"][..]
        } else {
            &[]
        };
        [&["systemctl"], user, args]
            .concat()
            .into_iter()
            .map(String::from)
            .collect()
    }
}

impl Layout {
    /// One for all users, beside Nix's own daemon.
    pub fn of_system() -> Self {
        let lib = PathBuf::from("/usr/local/lib/nix-gocacheprog");
        Self {
            user: false,
            program: "/usr/local/bin/nix-gocacheprog".into(),
            hook: lib.join("hook"),
            lib,
            units: "/etc/systemd/system".into(),
            nix_conf: "/etc/nix/nix.conf".into(),
            cache_dir: CACHE_DIR.into(),
            runtime_dir: RUNTIME_DIR.into(),
        }
    }

    /// One for a user whose Nix has no daemon.
    ///
    /// # Errors
    /// When the user's folders are unknown.
    pub fn of_user() -> Result<Self> {
        let no_home = || Error::input("HOME is not set to a directory");
        let home = environment::directory("HOME").ok_or_else(no_home)?;
        let config = environment::config_home().ok_or_else(no_home)?;
        let cache = environment::cache_home().ok_or_else(no_home)?;
        let cache = cache.join("nix-gocacheprog");
        let lib = home.join(".local/lib/nix-gocacheprog");
        Ok(Self {
            user: true,
            program: home.join(".local/bin/nix-gocacheprog"),
            hook: lib.join("hook"),
            lib,
            units: config.join("systemd/user"),
            nix_conf: config.join("nix/nix.conf"),
            runtime_dir: environment::directory("XDG_RUNTIME_DIR")
                .map_or_else(|| cache.join("run"), |run| run.join("nix-gocacheprog")),
            cache_dir: cache.join("daemon"),
        })
    }

    /// What Nix calls: the program under another name, or a script where more has to be said.
    pub fn hook_content(&self, other: Option<&str>) -> Content {
        if other.is_none() && !self.user {
            return Content::Link(self.program.clone());
        }
        let mut command = format!("exec {} hook", quoted(&self.program.to_string_lossy()));
        if self.user {
            let dir = self.runtime_dir.to_string_lossy();
            command.push_str(&format!(" --runtime-dir {}", quoted(&dir)));
        }
        if let Some(other) = other {
            command.push_str(&format!(" --chain {}", quoted(other)));
        }
        Content::Text(format!("#!/bin/sh\n{command} \"$@\"\n"), 0o755)
    }

    /// What systemd needs, with where it goes.
    pub fn units(&self) -> Vec<(PathBuf, String)> {
        let [build, control] = SOCKET_UNITS.map(|name| self.units.join(name));
        let service = self.units.join(SERVICE_UNIT);
        if self.user {
            // %t is the user's runtime directory.
            let to_user = |text: &str| text.replace(RUNTIME_DIR, "%t/nix-gocacheprog");
            return vec![
                (service, self.filled(USER_SERVICE)),
                (build, to_user(BUILD_SOCKET)),
                (control, to_user(CONTROL_SOCKET)),
            ];
        }
        vec![
            (service, SERVICE.into()),
            (build, BUILD_SOCKET.into()),
            (control, CONTROL_SOCKET.into()),
            (
                "/etc/tmpfiles.d/nix-gocacheprog.conf".into(),
                TMPFILES.replace(CACHE_DIR, &self.cache_dir.to_string_lossy()),
            ),
        ]
    }

    /// How to run the daemon by other means.
    pub fn without_systemd(&self) -> String {
        let dirs = format!(
            "{} daemon --cache-dir {} --runtime-dir {}",
            self.program.display(),
            self.cache_dir.display(),
            self.runtime_dir.display()
        );
        if self.user {
            return format!(
                "\nsystemd does not run for this user. Start the daemon when you log in:\n\n    {dirs} &\n"
            );
        }
        let indented = |text: &str| {
            let text = self.filled(text);
            text.lines()
                .map(|line| format!("    {line}\n"))
                .collect::<String>()
        };
        format!(
            "\nsystemd does not run here. Let your init run the daemon, as the user {USER}:\n\n    {dirs}\n\n\
             OpenRC, /etc/init.d/nix-gocacheprog (then `rc-update add nix-gocacheprog` and `rc-service \
             nix-gocacheprog start`):\n\n{}\n\
             runit, /etc/sv/nix-gocacheprog/run (then link that folder into the folder of services):\n\n{}\n\
             The hook runs as root and reaches the daemon by {}/control/sock.\n",
            indented(OPENRC),
            indented(RUNIT),
            self.runtime_dir.display()
        )
    }

    /// What a person does next.
    pub fn next_steps(&self, has_systemd: bool) -> String {
        let log = match (has_systemd, self.user) {
            (false, _) => "its stderr",
            (true, true) => "journalctl --user -u nix-gocacheprog",
            (true, false) => "journalctl -u nix-gocacheprog",
        };
        format!(
            "\nNext:\n\
             \x20 builds       add overlay.nix to the overlays of your project: it gives each buildGoModule the cache\n\
             \x20 dev shell    export GOCACHEPROG=\"{} client\"\n\
             \x20 completions  nix-gocacheprog help completions\n\
             \x20 log          {log}\n\
             \x20 figures      {}nix-gocacheprog stats\n",
            self.program.display(),
            if self.user { "" } else { "sudo " }
        )
    }

    fn filled(&self, text: &str) -> String {
        text.replace("PROGRAM", &self.program.to_string_lossy())
            .replace("RUNTIME", &self.runtime_dir.to_string_lossy())
            .replace("CACHE", &self.cache_dir.to_string_lossy())
    }
}

/// The IDs of the daemon's user and of its group, if there is one.
pub fn user_ids() -> Option<(u32, u32)> {
    let ids = ids_in("/etc/passwd")?;
    Some((ids.first().copied()?, ids.get(1).copied()?))
}

/// The numbers that one of the system's lists has for that name, if it is there.
pub fn ids_in(list: &str) -> Option<Vec<u32>> {
    // Somebody's name in it may be in another encoding.
    let list = std::fs::read(list).ok()?;
    let list = String::from_utf8_lossy(&list);
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != USER {
            return None;
        }
        Some(
            fields
                .skip(1)
                .map_while(|field| field.parse().ok())
                .collect(),
        )
    })
}

/// A word of a shell script.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_agree_with_where_things_go() {
        let layout = Layout::of_system();
        let start = format!("ExecStart={} daemon\n", layout.program.display());
        assert!(SERVICE.contains(&start));
        assert!(SERVICE.contains(&format!("User={USER}\n")));
        for (unit, name) in [(BUILD_SOCKET, "build"), (CONTROL_SOCKET, "control")] {
            let listen = format!("ListenStream={RUNTIME_DIR}/{name}/sock\n");
            assert!(unit.contains(&listen), "{listen}");
        }
        assert!(TMPFILES.contains(&format!("d {CACHE_DIR}/builds ")));
    }

    #[test]
    fn a_hook_of_somebody_elses_is_named_in_a_script_whatever_its_path() {
        let layout = Layout::of_system();
        assert_eq!(
            layout.hook_content(None),
            Content::Link(layout.program.clone())
        );
        let Content::Text(script, mode) = layout.hook_content(Some("/opt/it's a hook")) else {
            panic!("no script")
        };
        assert_eq!(
            script,
            "#!/bin/sh\nexec '/usr/local/bin/nix-gocacheprog' hook --chain '/opt/it'\\''s a hook' \"$@\"\n"
        );
        assert_eq!(mode, 0o755);
    }

    #[test]
    fn an_example_for_another_init_names_the_program_and_the_sockets() {
        let text = Layout::of_system().without_systemd();
        for wanted in [
            "command=/usr/local/bin/nix-gocacheprog",
            "chpst",
            "/run/nix-gocacheprog",
        ] {
            assert!(text.contains(wanted), "{text}");
        }
        assert!(!text.contains("PROGRAM") && !text.contains("RUNTIME"));
    }
}
