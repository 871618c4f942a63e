//! Installs on a host that is not NixOS, and takes all of it away again.
//!
//! What is to be is computed first, as data, and compared with what is: so a second run changes
//! nothing, an interrupted one is completed by the next, and a dry run tells the truth. A
//! record of what was not there before says what `uninstall` removes. It never overwrites
//! a line or a file that it has not written, and never removes the cache unasked.

mod layout;
mod plan;
mod record;
mod remote;

use crate::config::{SANDBOX_CLIENT, SANDBOX_DIR, SANDBOX_RUNTIME_DIR};
use crate::error::{Error, Result};
use crate::fs;
use crate::host::doctor;
use crate::nix::conf::Settings;
use crate::sys;
use layout::{Host, Layout, SOCKET_UNITS, USER};
use plan::{Content, File};
use record::Record;
pub use remote::Remote;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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

/// What to install.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How builds get at the cache.
    pub mode: Mode,
    /// For the user's own Nix, without root.
    pub user: bool,
    /// Only show the changes.
    pub dry_run: bool,
    /// The remote that the daemon is to have; one that it has already stays when none is named.
    pub remote: Option<Remote>,
}

/// What to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// What was installed for the user's own Nix.
    pub user: bool,
    /// Only show the changes.
    pub dry_run: bool,
    /// Whether the cache goes too; unsaid, it is asked.
    pub cache: Option<bool>,
}

/// Where the cache and the sockets are of what `install --user` has made for this user, if it has.
pub fn own_dirs() -> Option<(PathBuf, PathBuf)> {
    let layout = Layout::of_user().ok()?;
    let is_there = layout.hook.exists();
    is_there.then_some((layout.cache_dir, layout.runtime_dir))
}

/// Installs, and then says how things are.
///
/// # Errors
/// When a change cannot be made, or something is still wrong afterwards.
pub fn install(options: &Options) -> Result<()> {
    let host = Host::live(options.user)?;
    host.check(options.dry_run)?;
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let program = fs::canonicalize(&program)?;
    let mut steps = Installation::plan(&host, options.mode, options.remote.as_ref(), &program)?;
    if options.dry_run {
        return say(&steps.show(&host));
    }
    if steps.is_done() {
        say("nothing to change\n")?;
    } else {
        steps.make(&host)?;
    }
    say(&steps.notes)?;
    say("\n")?;
    doctor::run(&doctor::Options {
        json: false,
        runtime_dir: host.layout.runtime_dir.clone(),
        cache_dir: host.layout.cache_dir.clone(),
    })
}

/// An installation: what is to be, less what is.
struct Installation {
    record: Record,
    mode: Mode,
    /// Directories that are missing, outermost first.
    directories: Vec<PathBuf>,
    /// Whether the daemon's user is missing.
    user: bool,
    /// Files other than Nix's own.
    files: Vec<File>,
    /// Nix's configuration.
    nix_conf: Option<File>,
    /// What is left to a person.
    notes: String,
}

impl Installation {
    fn plan(host: &Host, mode: Mode, remote: Option<&Remote>, program: &Path) -> Result<Self> {
        let layout = &host.layout;
        let record = Record::read(host)?.unwrap_or_default();
        let mut notes = String::new();

        let settings = host.settings()?;
        let installed = layout.hook.to_string_lossy().into_owned();
        let other = settings
            .get("pre-build-hook")
            .filter(|hook| !hook.is_empty() && *hook != installed);
        let mut files = vec![
            File {
                path: host.at(&layout.program),
                content: Content::Program(program.to_path_buf()),
            },
            File {
                path: host.at(&layout.hook),
                content: layout.hook_content(other),
            },
        ];
        if host.has_systemd() {
            files.extend(layout.units().into_iter().map(|(path, text)| File {
                path: host.at(&path),
                content: Content::Text(text, 0o644),
            }));
        } else {
            notes.push_str(&layout.without_systemd());
        }
        if let Some(remote) = remote {
            let text = remote.text(layout)?;
            if host.has_systemd() {
                files.push(File {
                    path: host.at(&Remote::path(layout)),
                    content: Content::Text(text, 0o644),
                });
            } else {
                notes.push_str(
                    "\nAnd give it the remote: `nix-gocacheprog daemon --help` lists the flags.\n",
                );
            }
        }

        let lines = match mode {
            Mode::Hook => format!("pre-build-hook = {installed}"),
            Mode::Static => static_mounts(layout),
        };
        let nix_conf = match host.writable_conf(&settings) {
            Some(path) => {
                let text = match fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(e) if e.kind() == Some(std::io::ErrorKind::NotFound) => String::new(),
                    Err(e) => return Err(e),
                };
                Some(File {
                    path,
                    content: Content::Text(crate::nix::conf::with_block(&text, &lines), 0o644),
                })
            }
            None => {
                notes.push_str(&format!(
                    "\n{} is managed by something else, and includes no file that can be changed. Where it is \
                     managed, add this line, and restart nix-daemon:\n\n    {lines}\n",
                    layout.nix_conf.display()
                ));
                None
            }
        };

        let mut directories = Vec::new();
        for file in files.iter().chain(&nix_conf) {
            let parents = file.path.ancestors().skip(1);
            let missing: Vec<_> = parents.take_while(|dir| !dir.exists()).collect();
            for dir in missing.into_iter().rev() {
                if !directories.iter().any(|known| known == dir) {
                    directories.push(dir.to_path_buf());
                }
            }
        }
        files.retain(|file| !file.is_made());
        Ok(Self {
            user: host.needs_user(),
            mode,
            record,
            directories,
            files,
            nix_conf: nix_conf.filter(|file| !file.is_made()),
            notes,
        })
    }

    fn is_done(&self) -> bool {
        self.record.finished
            && self.record.mode == self.mode
            && !self.user
            && self.files.is_empty()
            && self.nix_conf.is_none()
    }

    fn show(&self, host: &Host) -> String {
        if self.is_done() {
            return "nothing to change\n".into();
        }
        let mut out = String::new();
        for dir in &self.directories {
            out.push_str(&format!("new directory {}\n", dir.display()));
        }
        if self.user {
            out.push_str(&format!("new user {USER}\n"));
        }
        for file in self.files.iter().chain(&self.nix_conf) {
            out.push('\n');
            out.push_str(&file.diff());
        }
        out.push_str("\nthen run\n");
        for command in self
            .commands(host, true)
            .into_iter()
            .chain(self.commands(host, false))
        {
            out.push_str(&format!("    {}\n", command.join(" ")));
        }
        out.push_str(&self.notes);
        out
    }

    /// What makes the changes known: to systemd before Nix is told, to Nix after.
    fn commands(&self, host: &Host, before: bool) -> Vec<Vec<String>> {
        if !host.has_systemd() {
            return Vec::new();
        }
        let all = !self.record.finished;
        if before && (all || !self.files.is_empty()) {
            let mut restart = vec!["restart"];
            restart.extend(SOCKET_UNITS);
            let mut enable = vec!["enable", "--quiet"];
            enable.extend(SOCKET_UNITS);
            // A service that runs would not let its sockets be restarted.
            let stop = ["stop", layout::SERVICE_UNIT];
            [&["daemon-reload"][..], &enable, &stop, &restart]
                .map(|args| host.systemctl(args))
                .into()
        } else if !before && !host.layout.user && (all || self.nix_conf.is_some()) {
            vec![host.systemctl(&["try-restart", "nix-daemon.service"])]
        } else {
            Vec::new()
        }
    }

    fn make(&mut self, host: &Host) -> Result<()> {
        let layout = &host.layout;
        let before = self.commands(host, true);
        let after = self.commands(host, false);
        self.record.finished = false;
        self.record.mode = self.mode;
        for file in self.files.iter().chain(&self.nix_conf) {
            if file.path.symlink_metadata().is_err() {
                self.record.add_file(host.logical(&file.path));
            }
        }
        if let Some(file) = &self.nix_conf {
            self.record.add_conf(host.logical(&file.path));
        }
        for dir in &self.directories {
            self.record.add_directory(host.logical(dir));
        }
        self.record.user |= self.user;
        self.record.write(host)?;

        for dir in &self.directories {
            fs::ensure_dir(dir, 0o755)?;
        }
        if self.user {
            host.add_user()?;
            host.say(&format!("added the user {USER}\n"))?;
        }
        host.make_cache()?;
        for file in &self.files {
            file.make()?;
            host.say(&format!("wrote {}\n", file.path.display()))?;
        }
        host.run_all(&before)?;
        // Last, when all that a build needs is there.
        if let Some(file) = &self.nix_conf {
            file.make()?;
            host.say(&format!("added to {}\n", file.path.display()))?;
        }
        host.run_all(&after)?;
        if !host.has_systemd() && !layout.user {
            host.say("restart nix-daemon, so that it reads its configuration\n")?;
        }
        self.record.finished = true;
        self.record.write(host)
    }
}

/// The mounts of every build, for a Nix that has no use for a hook. A source that is missing must
/// not fail a build, so each is optional.
fn static_mounts(layout: &Layout) -> String {
    format!(
        "extra-sandbox-paths = {SANDBOX_CLIENT}={}? {SANDBOX_RUNTIME_DIR}/build={}? {SANDBOX_DIR}/builds={}?",
        layout.program.display(),
        layout.runtime_dir.join("build").display(),
        layout.cache_dir.join("builds").display(),
    )
}

/// Takes away what `install` has made.
///
/// # Errors
/// When a change cannot be made.
pub fn uninstall(removal: &Removal) -> Result<()> {
    let host = Host::live(removal.user)?;
    host.check(removal.dry_run)?;
    let Some(record) = Record::read(&host)? else {
        return say(&format!(
            "nothing to remove: there is no {}\n",
            Record::path(&host).display()
        ));
    };
    let remove_cache = match removal.cache {
        Some(remove) => remove,
        None => !removal.dry_run && ask_about(&host.layout.cache_dir)?,
    };
    remove(&host, &record, remove_cache, removal.dry_run)
}

fn remove(host: &Host, record: &Record, remove_cache: bool, dry_run: bool) -> Result<()> {
    let layout = &host.layout;
    let mut confs = Vec::new();
    for conf in &record.confs {
        let path = host.at(conf);
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let left = crate::nix::conf::without_block(&text);
        let content = if left.is_empty() && record.files.contains(conf) {
            Content::Absent
        } else {
            Content::Text(left, 0o644)
        };
        confs.push(File { path, content });
    }
    confs.retain(|file| !file.is_made());
    let files: Vec<_> = record
        .files
        .iter()
        .filter(|path| !record.confs.contains(path))
        .map(|path| File {
            path: host.at(path),
            content: Content::Absent,
        })
        .collect();
    if dry_run {
        let mut out = String::new();
        for file in confs.iter().chain(&files).filter(|file| !file.is_made()) {
            out.push_str(&file.diff());
        }
        return host.say(&out);
    }
    let made = |file: &File| {
        host.say(&format!("removed from {}\n", file.path.display()))?;
        file.make()
    };
    // Nix first, so that no build is sent to what is gone.
    for file in &confs {
        made(file)?;
    }
    if host.has_systemd() {
        if !layout.user {
            host.run(&host.systemctl(&["try-restart", "nix-daemon.service"]))?;
            host.wait_for_workers()?;
        }
        for args in [&["disable", "--quiet", "--now"][..], &["stop"]] {
            let mut args = args.to_vec();
            args.extend(SOCKET_UNITS);
            args.push(layout::SERVICE_UNIT);
            // Units that an interrupted installation never wrote are no loss.
            let _ = host.run(&host.systemctl(&args));
        }
    }
    for file in &files {
        fs::remove_file(&plan::aside(&file.path))?;
        if !file.is_made() {
            file.make()?;
            host.say(&format!("removed {}\n", file.path.display()))?;
        }
    }
    if host.has_systemd() {
        host.run(&host.systemctl(&["daemon-reload"]))?;
    }
    fs::remove_dir_all(&host.at(&layout.runtime_dir))?;
    let cache = host.at(&layout.cache_dir);
    if remove_cache {
        fs::remove_dir_all(&cache)?;
        host.say(&format!("removed {}\n", cache.display()))?;
        if layout.user {
            // A private cache may be there, too.
            let _ = cache.parent().map(std::fs::remove_dir);
        }
        if record.user {
            host.remove_user()?;
        }
    } else if cache.exists() {
        host.say(&format!(
            "kept {}{}; `nix-gocacheprog uninstall --remove-cache` before, or `rm -r` now, removes it\n",
            cache.display(),
            if record.user { " and its user" } else { "" }
        ))?;
    }
    Record::remove(host)?;
    for dir in record.directories.iter().rev() {
        // Somebody else may have put something there.
        let _ = std::fs::remove_dir(host.at(dir));
    }
    Ok(())
}

fn ask_about(cache: &Path) -> Result<bool> {
    if !cache.exists() || !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    say(&format!("Remove the cache {} too? [y/N] ", cache.display()))?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|e| Error::io("read", "the answer", e))?;
    Ok(answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes"))
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::io("write to", "stdout", e))
}

impl Host {
    /// Whether this can work here at all.
    fn check(&self, dry_run: bool) -> Result<()> {
        if Path::new("/etc/NIXOS").exists() && !self.layout.user {
            return Err(Error::input(
                "this is NixOS, which is configured otherwise: import module.nix (README.md says how)",
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
    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::read(&self.at(Path::new("/etc/nix/nix.conf")))?;
        if self.layout.user {
            settings.override_with(Settings::read(&self.at(&self.layout.nix_conf))?);
        }
        Ok(settings)
    }

    /// The file of Nix's configuration that can be changed: nix.conf, or one that it includes.
    fn writable_conf(&self, settings: &Settings) -> Option<PathBuf> {
        let main = self.at(&self.layout.nix_conf);
        if is_writable(&main) {
            return Some(main);
        }
        settings
            .includes
            .iter()
            .rev()
            .find(|path| is_writable(path))
            .cloned()
    }

    fn needs_user(&self) -> bool {
        self.is_live && !self.layout.user && layout::user_ids().is_none()
    }

    fn add_user(&self) -> Result<()> {
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

    fn remove_user(&self) -> Result<()> {
        if !self.is_live || layout::user_ids().is_none() {
            return Ok(());
        }
        let command = if is_command("userdel") {
            "userdel"
        } else {
            "deluser"
        };
        self.run(&[command, USER].map(String::from))?;
        self.say(&format!("removed the user {USER}\n"))
    }

    /// The cache, for its user and with what static mounts need: builds can reach their own
    /// directories in it, and list nothing.
    fn make_cache(&self) -> Result<()> {
        let cache = self.at(&self.layout.cache_dir);
        if let Some(parent) = cache.parent() {
            fs::create_dir_all(parent)?;
        }
        for dir in [cache.clone(), cache.join("builds")] {
            fs::ensure_dir(&dir, 0o711)?;
            if let Some((uid, gid)) =
                layout::user_ids().filter(|_| self.is_live && !self.layout.user)
            {
                fs::chown(&dir, uid, gid)?;
            }
        }
        Ok(())
    }

    /// Waits for what nix-daemon had started before it was restarted: it goes on with the old
    /// configuration, and a build that it starts without finding the hook would fail.
    fn wait_for_workers(&self) -> Result<()> {
        let mut said = false;
        while self.is_live && old_workers() > 0 {
            if !std::mem::replace(&mut said, true) {
                self.say(
                    "waiting for running Nix builds to end, which still call the hook (this can be interrupted \
                     and run again)\n",
                )?;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Tells a person what has been done.
    fn say(&self, text: &str) -> Result<()> {
        if self.is_live { say(text) } else { Ok(()) }
    }

    fn run_all(&self, commands: &[Vec<String>]) -> Result<()> {
        commands.iter().try_for_each(|command| self.run(command))
    }

    fn run(&self, command: &[String]) -> Result<()> {
        if !self.is_live {
            return Ok(());
        }
        let (program, args) = command
            .split_first()
            .ok_or_else(|| Error::input("an empty command"))?;
        let output = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Error::io("run", program, e))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::input(format!(
            "`{}` failed: {}; run this again when that is mended",
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

/// How many processes a nix-daemon has left behind that is not there any more.
fn old_workers() -> usize {
    let main = Command::new("systemctl")
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
        .filter(|entry| entry.file_name().to_str().and_then(is_old) == Some(true))
        .count()
}

fn is_command(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::collections::BTreeMap;

    /// A host in a folder, where no command is run.
    struct Folder {
        dir: TestDir,
        host: Host,
        program: PathBuf,
    }

    impl Folder {
        fn new(nix_conf: &str) -> Self {
            let dir = TestDir::new();
            let root = dir.path().join("root");
            for made in [
                "etc/nix",
                "etc/systemd/system",
                "usr/local/bin",
                "run/systemd/system",
                "var/cache",
            ] {
                std::fs::create_dir_all(root.join(made)).unwrap();
            }
            std::fs::write(root.join("etc/nix/nix.conf"), nix_conf).unwrap();
            let program = dir.path().join("program");
            std::fs::write(&program, "the program").unwrap();
            fs::set_mode(&program, 0o755).unwrap();
            let host = Host {
                root,
                is_live: false,
                layout: Layout::of_system(),
            };
            Self { dir, host, program }
        }

        fn plan(&self, mode: Mode) -> Installation {
            Installation::plan(&self.host, mode, None, &self.program).unwrap()
        }

        fn install(&self, mode: Mode) {
            self.plan(mode).make(&self.host).unwrap();
            assert!(self.plan(mode).is_done());
        }

        fn uninstall(&self) {
            let record = Record::read(&self.host).unwrap().unwrap();
            remove(&self.host, &record, true, false).unwrap();
        }

        fn conf(&self, name: &str) -> String {
            std::fs::read_to_string(self.host.root.join("etc/nix").join(name)).unwrap()
        }

        /// Every file with its mode and its content, every link with its target.
        fn files(&self) -> BTreeMap<PathBuf, (u32, String)> {
            let mut found = BTreeMap::new();
            let mut left = vec![self.host.root.clone()];
            while let Some(path) = left.pop() {
                let metadata = path.symlink_metadata().unwrap();
                let content = if metadata.is_symlink() {
                    std::fs::read_link(&path).unwrap().display().to_string()
                } else if metadata.is_dir() {
                    left.extend(
                        std::fs::read_dir(&path)
                            .unwrap()
                            .map(|entry| entry.unwrap().path()),
                    );
                    String::new()
                } else {
                    std::fs::read_to_string(&path).unwrap()
                };
                found.insert(path, (metadata.mode(), content));
            }
            found
        }
    }

    #[test]
    fn what_is_installed_is_complete_and_uninstalled_without_a_trace() {
        for (mode, line) in [
            (
                Mode::Hook,
                "pre-build-hook = /usr/local/lib/nix-gocacheprog/hook\n",
            ),
            (
                Mode::Static,
                "extra-sandbox-paths = /gocache/client=/usr/local/bin/nix-gocacheprog? \
                 /gocache/run/build=/run/nix-gocacheprog/build? /gocache/builds=/var/cache/nix-gocacheprog/builds?\n",
            ),
        ] {
            let folder = Folder::new("cores = 4");
            let before = folder.files();
            folder.install(mode);
            assert!(
                folder.conf("nix.conf").contains(line),
                "{}",
                folder.conf("nix.conf")
            );
            let hook = folder.host.at(&folder.host.layout.hook);
            assert_eq!(
                std::fs::read_link(hook).unwrap(),
                folder.host.layout.program
            );
            for (unit, _) in folder.host.layout.units() {
                assert!(folder.host.at(&unit).is_file(), "{}", unit.display());
            }
            folder.uninstall();
            assert_eq!(folder.files(), before);
        }
    }

    #[test]
    fn a_dry_run_shows_each_change_and_makes_none() {
        let folder = Folder::new("cores = 4\n");
        let before = folder.files();
        let shown = folder.plan(Mode::Hook).show(&folder.host);
        for wanted in [
            "+pre-build-hook = /usr/local/lib/nix-gocacheprog/hook\n",
            "+ExecStart=/usr/local/bin/nix-gocacheprog daemon\n",
            "a copy of",
            "systemctl try-restart nix-daemon.service",
        ] {
            assert!(shown.contains(wanted), "{shown}");
        }
        assert!(!shown.contains("cores = 4"), "{shown}");
        assert_eq!(folder.files(), before);
    }

    #[test]
    fn an_installation_cut_off_anywhere_is_completed_by_the_next_and_removed_without_a_trace() {
        let whole = {
            let folder = Folder::new("a = b\n");
            let plan = folder.plan(Mode::Hook);
            plan.files.len() + 1
        };
        for made in 0..whole {
            let folder = Folder::new("a = b\n");
            let before = folder.files();
            let mut plan = folder.plan(Mode::Hook);
            // The rest cannot be written: a directory is in the way.
            let rest: Vec<_> = plan.files.iter().chain(&plan.nix_conf).skip(made).collect();
            let obstacle = plan::aside(&rest[0].path);
            std::fs::create_dir_all(&obstacle).unwrap();
            plan.make(&folder.host).unwrap_err();
            std::fs::remove_dir(&obstacle).unwrap();
            assert!(!folder.plan(Mode::Hook).is_done(), "{made}");
            folder.install(Mode::Hook);
            folder.uninstall();
            assert_eq!(folder.files(), before, "{made}");
        }
    }

    #[test]
    fn a_hook_of_somebody_elses_is_chained_and_restored() {
        let folder = Folder::new("pre-build-hook = /opt/theirs\n");
        let before = folder.files();
        folder.install(Mode::Hook);
        let hook = std::fs::read_to_string(folder.host.at(&folder.host.layout.hook)).unwrap();
        assert!(hook.contains("hook --chain '/opt/theirs' \"$@\""), "{hook}");
        folder.uninstall();
        assert_eq!(folder.files(), before);
    }

    #[test]
    fn another_mode_replaces_the_first() {
        let folder = Folder::new("");
        folder.install(Mode::Hook);
        assert!(!folder.plan(Mode::Static).is_done());
        folder.install(Mode::Static);
        assert!(!folder.conf("nix.conf").contains("pre-build-hook"));
        folder.install(Mode::Hook);
        assert!(!folder.conf("nix.conf").contains("extra-sandbox-paths"));
    }

    #[test]
    fn a_managed_nix_conf_is_left_alone_and_a_file_that_it_includes_is_used() {
        let folder = Folder::new("");
        let conf = folder.host.root.join("etc/nix/nix.conf");
        let managed = folder.dir.path().join("managed.conf");
        std::fs::write(&managed, "!include nix.custom.conf\n").unwrap();
        std::fs::remove_file(&conf).unwrap();
        std::os::unix::fs::symlink(&managed, &conf).unwrap();
        let before = folder.files();
        folder.install(Mode::Hook);
        assert!(folder.conf("nix.custom.conf").contains("pre-build-hook"));
        assert_eq!(
            std::fs::read_to_string(&managed).unwrap(),
            "!include nix.custom.conf\n"
        );
        folder.uninstall();
        assert_eq!(folder.files(), before);

        std::fs::write(&managed, "cores = 4\n").unwrap();
        let plan = folder.plan(Mode::Hook);
        assert!(plan.nix_conf.is_none());
        assert!(
            plan.notes.contains("    pre-build-hook = /usr/local/lib/"),
            "{}",
            plan.notes
        );
    }

    #[test]
    fn a_remote_is_added_stays_and_goes_with_the_rest() {
        let folder = Folder::new("");
        let before = folder.files();
        folder.install(Mode::Hook);
        let remote = Remote {
            url: "https://cache.test".into(),
            ..Remote::default()
        };
        let plan = || {
            Installation::plan(&folder.host, Mode::Hook, Some(&remote), &folder.program).unwrap()
        };
        plan().make(&folder.host).unwrap();
        assert!(plan().is_done());
        let drop_in = folder.host.at(&Remote::path(&folder.host.layout));
        assert!(drop_in.exists());
        // One that is not named again stays.
        folder.install(Mode::Static);
        assert!(drop_in.exists());
        folder.uninstall();
        assert_eq!(folder.files(), before);
    }

    #[test]
    fn without_systemd_no_unit_is_written_and_other_inits_are_explained() {
        let folder = Folder::new("");
        std::fs::remove_dir_all(folder.host.root.join("run/systemd")).unwrap();
        let plan = folder.plan(Mode::Hook);
        assert!(
            plan.files
                .iter()
                .all(|file| !file.path.starts_with(folder.host.root.join("etc/systemd")))
        );
        assert!(plan.notes.contains("OpenRC") && plan.notes.contains("runit"));
        assert!(plan.commands(&folder.host, true).is_empty());
    }
}
