//! The host: what it has already, and the commands that change it.

use super::layout::{self, Host, Layout, USER};
use super::plan::File;
use super::record::Record;
use crate::cache::store::Store;
use crate::error::{Error, Result};
use crate::fs;
use crate::log;
use crate::nix::conf::Settings;
use crate::nix::settings::Nix;
use crate::output;
use crate::size::show_age;
use crate::sys;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long another installation is waited for, or what one has left behind.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether builds are still running.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long removing the user is tried.
const USER_PATIENCE: Duration = Duration::from_secs(10);

impl Host {
    /// Whether this can work here at all.
    pub fn check(&self, dry_run: bool) -> Result<()> {
        if Path::new("/etc/NIXOS").exists() && !self.layout.user {
            return Err(Error::input(
                "this is NixOS, which is configured otherwise: import module.nix, as docs/nixos.md says",
            ));
        }
        if !self.layout.user {
            if sys::effective_uid() != 0 && !dry_run {
                return Err(Error::input(
                    "this needs root: run it with sudo, or with --user for a Nix of your own",
                ));
            }
            return Ok(());
        }
        let owner = std::fs::metadata("/nix/var/nix").map(|m| m.uid());
        if owner.is_ok_and(|owner| owner != sys::effective_uid()) {
            return Err(Error::input(
                "this Nix builds through its daemon, which takes no hook from a user: install without --user, as root",
            ));
        }
        Ok(())
    }

    /// What Nix is configured with, less what is ours.
    pub fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::read(&self.at(Path::new("/etc/nix/nix.conf")))?;
        if self.layout.user {
            settings.override_with(Settings::read(&self.at(&self.layout.nix_conf))?);
        }
        Ok(settings)
    }

    /// The file of Nix's configuration that can be changed: nix.conf, or one that it includes.
    pub fn writable_conf(&self, settings: &Settings) -> Option<PathBuf> {
        let main = self.at(&self.layout.nix_conf);
        let text = std::fs::read_to_string(&main).unwrap_or_default();
        let is_generated = crate::nix::conf::is_generated(&text);
        if is_writable(&main) && !is_generated {
            return Some(main);
        }
        let mut includes = settings.includes.iter().rev();
        includes.find(|path| is_writable(path)).cloned()
    }

    pub fn needs_user(&self) -> bool {
        self.is_live && !self.layout.user && layout::user_ids().is_none()
    }

    /// Whether a user can be added: images of containers may have nothing that does it.
    pub fn can_add_user(&self) -> bool {
        is_command("useradd") || is_command("adduser")
    }

    /// The host, locked: nobody else changes it meanwhile, and no command is still running that an installation has
    /// begun which was killed.
    pub fn locked(&self) -> Result<Self> {
        let mut host = self.clone();
        if !self.is_live {
            return Ok(host);
        }
        // /usr, or the user's home: it is always there, and nothing of the lock stays.
        let above = self.layout.lib.ancestors().nth(3);
        let dir = self.at(above.unwrap_or(Path::new("/")));
        let lock = fs::open(&dir)?;
        let start = Instant::now();
        while !sys::try_lock(&lock).map_err(|e| Error::io("lock", &dir, e))? {
            if start.elapsed() >= LOCK_PATIENCE {
                return Err(Error::input(
                    "another installation is still at work here, or a command that one has started: run this again when it \
                     has ended",
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        host.lock = Some(Arc::new(lock));
        Ok(host)
    }

    pub fn add_user(&self) -> Result<()> {
        let home = self.layout.cache_dir.to_string_lossy().into_owned();
        let useradd = [
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            &home,
        ];
        let mut useradd = useradd.map(String::from).to_vec();
        useradd.extend(["--shell", "/usr/sbin/nologin", USER].map(String::from));
        let adduser = [
            "adduser",
            "-S",
            "-D",
            "-H",
            "-h",
            &home,
            "-s",
            "/sbin/nologin",
            USER,
        ];
        let adduser = adduser.map(String::from).to_vec();
        if is_command("useradd") {
            self.run(&useradd)
        } else {
            // Alpine's: a group of its own comes first.
            self.run(&["addgroup", "-S", USER].map(String::from))?;
            self.run(&[&adduser[..], &["-G".into(), USER.into()]].concat())
        }
    }

    pub fn remove_user(&self) -> Result<()> {
        if !self.is_live {
            return Ok(());
        }
        let start = Instant::now();
        let mut was_there = false;
        for (list, [usual, other]) in [
            ("/etc/passwd", ["userdel", "deluser"]),
            // It goes with the user, unless adding the user had not come so far.
            ("/etc/group", ["groupdel", "delgroup"]),
        ] {
            let command = if is_command(usual) { usual } else { other };
            while layout::ids_in(list).is_some() {
                was_there = true;
                let done = self.run(&[command, USER].map(String::from));
                // Somebody else may be changing these files, or the user's last process may just be ending.
                if start.elapsed() >= USER_PATIENCE {
                    done?;
                    return Err(Error::input(format!("{command} leaves {USER} in {list}")));
                }
                if done.is_err() {
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
        if was_there {
            self.say(&format!("removed the user {USER}\n"));
        }
        Ok(())
    }

    /// The cache, for its user and with what static mounts need: builds can reach their own
    /// directories in it, and list nothing.
    pub fn make_cache(&self) -> Result<()> {
        let cache = self.at(&self.layout.cache_dir);
        if let Some(parent) = cache.parent() {
            fs::create_dir_all(parent)?;
        }
        let owner = self.cache_owner();
        fs::ensure_dir(&cache, 0o711)?;
        if let Some((uid, gid)) = owner {
            fs::chown(&cache, uid, gid)?;
        }
        // The cache is its user's, who could put a link here.
        fs::ensure_dir_nofollow(&cache.join("builds"), 0o711, owner)
    }

    /// Whose the cache is to be.
    pub fn cache_owner(&self) -> Option<(u32, u32)> {
        layout::user_ids().filter(|_| self.is_live && !self.layout.user)
    }

    /// Waits for what nix-daemon had started before it was restarted: it goes on with the old
    /// configuration, and a build that it starts without finding the hook would fail.
    pub fn wait_for_workers(&self) -> Result<()> {
        if !self.is_live {
            return Ok(());
        }
        let what = "waiting for running Nix builds to end, which still call the hook";
        let begin = |workers: &str| match self.patience {
            // Whoever reads a job's log must see what it waited for.
            Some(limit) => log::warn(format!("{what}, up to {} ({workers})", show_age(limit))),
            None => self.say(&format!("{what} (this can be interrupted and run again)\n")),
        };
        wait_for(old_workers, self.patience, begin)
    }

    /// Tells a person what has been done. Work that is half done is worse than a line that nobody reads.
    pub fn say(&self, text: &str) {
        if self.is_live && !self.is_quiet {
            let _ = output::print(text);
        }
    }

    /// Changes a file of Nix's configuration, if Nix accepts it.
    pub fn change_conf(&self, file: &File) -> Result<()> {
        file.make_checked(|fresh| {
            if !self.is_live {
                return Ok(());
            }
            Nix::check(fresh).map_err(|e| {
                Error::input(format!(
                    "Nix refuses the new {}, which is as it was: {e}",
                    file.path.display()
                ))
            })
        })
    }

    /// Sets where the record says that the cache is.
    pub fn find_cache(&mut self, record: &Record) {
        if let Some(dir) = &record.cache_dir {
            self.layout.cache_dir.clone_from(dir);
        }
    }

    /// Whether this is where the cache is when nobody says otherwise.
    pub fn is_usual_cache(&self, dir: &Path) -> bool {
        let usual = if self.layout.user {
            Layout::of_user().ok()
        } else {
            Some(Layout::of_system())
        };
        usual.is_some_and(|usual| usual.cache_dir == dir)
    }

    /// Where a cache of ours is, or was before it was moved. One that has become something else is not ours any more.
    pub fn caches(&self, record: &Record) -> Vec<PathBuf> {
        let former = record.former_caches.iter();
        let former = former.filter(|dir| Store::is_fit(&self.at(dir)));
        former
            .chain([&self.layout.cache_dir])
            .filter(|dir| self.at(dir).exists())
            .cloned()
            .collect()
    }

    /// Where the cache goes, if that is not the usual place: where it was asked for, where it has been, or where a link
    /// in the usual place leads.
    pub fn place_cache(&self, named: Option<&Path>, record: &Record) -> Result<Option<PathBuf>> {
        let usual = &self.layout.cache_dir;
        let dir = match (named, &record.cache_dir) {
            (Some(named), _) if named == usual && record.cache_dir.is_none() => return Ok(None),
            (Some(named), _) => named.to_path_buf(),
            (None, Some(dir)) => return Ok(Some(dir.clone())),
            (None, None) if self.at(usual).is_symlink() => {
                let real = fs::canonicalize(&self.at(usual))?;
                self.logical(&real)
            }
            (None, None) => return Ok(None),
        };
        let shown = dir.to_string_lossy();
        if !dir.is_absolute()
            || shown.contains(|c: char| c.is_whitespace() || "\"'\\%$".contains(c))
        {
            return Err(Error::input(format!(
                "--cache-dir takes an absolute path without spaces, quotes, % and $, not {shown:?}"
            )));
        }
        if !Store::is_fit(&self.at(&dir)) {
            return Err(Error::input(format!(
                "{shown} is not empty and not a cache: name another directory"
            )));
        }
        Ok(Some(dir))
    }

    pub fn run_all(&self, commands: &[Vec<String>]) -> Result<()> {
        commands.iter().try_for_each(|command| self.run(command))
    }

    pub fn run(&self, command: &[String]) -> Result<()> {
        if !self.is_live {
            return Ok(());
        }
        let (name, args) = command
            .split_first()
            .ok_or_else(|| Error::input("an empty command"))?;
        let program =
            command_path(name).ok_or_else(|| Error::input(format!("{name} is not installed")))?;
        // As its stdin the lock lasts as long as the command does.
        let stdin = match &self.lock {
            Some(lock) => lock
                .try_clone()
                .map_err(|e| Error::io("open", &self.layout.lib, e))?
                .into(),
            None => Stdio::null(),
        };
        let output = Command::new(&program)
            .args(args)
            .stdin(stdin)
            // Ctrl-C, or a job that is cancelled, must not leave the user half added.
            .process_group(0)
            .output()
            .map_err(|e| Error::io("run", &program, e))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::input(format!(
            "`{}` failed: {}; run this again when that is fixed",
            command.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}

/// A file that is a link belongs to whoever made the link.
fn is_writable(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(metadata) => {
            metadata.is_file() && std::fs::OpenOptions::new().append(true).open(path).is_ok()
        }
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Waits until there are no workers any more; `begin` says that it does.
fn wait_for(
    workers: impl Fn() -> Vec<String>,
    limit: Option<Duration>,
    begin: impl FnOnce(&str),
) -> Result<()> {
    let start = Instant::now();
    let mut begin = Some(begin);
    loop {
        let running = workers();
        if running.is_empty() {
            return Ok(());
        }
        let running = format!("nix-daemon with PID {}", running.join(", "));
        if let Some(limit) = limit.filter(|limit| start.elapsed() >= *limit) {
            return Err(Error::input(format!(
                "Nix builds are still running after {}, and would fail without the hook: end them ({running}), or wait, and \
                 then run `nix-gocacheprog ci finish` again",
                show_age(limit)
            )));
        }
        if let Some(begin) = begin.take() {
            begin(&running);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The processes that a nix-daemon has left behind that is not there any more.
fn old_workers() -> Vec<String> {
    let Some(systemctl) = command_path("systemctl") else {
        return Vec::new();
    };
    let main = Command::new(systemctl)
        .args([
            "show",
            "--property=MainPID",
            "--value",
            "nix-daemon.service",
        ])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string())
        .unwrap_or_default();
    let is_old = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let is = |wanted: &str| status.lines().any(|line| line == wanted);
        Some(pid != main && is("Name:\tnix-daemon") && is("PPid:\t1"))
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|pid| is_old(pid) == Some(true))
        .collect()
}

/// Whether a nix-daemon runs, which goes on with the configuration that it has read.
pub fn runs_nix_daemon() -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|command| {
            let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
            program == b"nix-daemon" || program.ends_with(b"/nix-daemon")
        })
}

fn is_command(name: &str) -> bool {
    command_path(name).is_some()
}

/// Where root's commands are. PATH does not say it: it may be that of whoever called sudo.
fn command_path(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn builds_that_do_not_end_are_waited_for_up_to_the_limit_and_named() {
        let said = Cell::new(0);
        let begin = |_: &str| said.set(said.get() + 1);
        let workers = || vec!["17".to_string(), "42".into()];
        let error = wait_for(workers, Some(LOOK_EVERY), begin).unwrap_err();
        let text = error.chain();
        assert!(
            text.contains("PID 17, 42") && text.contains("ci finish"),
            "{text}"
        );
        assert_eq!(said.get(), 1);
        // Those that end in time are no error.
        let left = Cell::new(2);
        let workers = || {
            left.set(left.get() - 1);
            vec!["17".to_string(); left.get()]
        };
        wait_for(workers, Some(Duration::from_secs(60)), begin).unwrap();
        assert_eq!(said.get(), 2);
        wait_for(Vec::new, None, begin).unwrap();
        assert_eq!(said.get(), 2);
    }
}
