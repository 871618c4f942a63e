//! Installs on a host that is not NixOS, and takes all of it away again.
//!
//! What is to be is computed first, as data, and compared with what is: so a second run changes
//! nothing, an interrupted one is completed by the next, and a dry run tells the truth. A
//! record of what was not there before says what `uninstall` removes. It never overwrites
//! a line or a file that it has not written, and never removes the cache unasked.

mod hand_over;
mod host;
mod layout;
mod limits;
mod plan;
mod process;
mod record;
mod remote;
mod uninstall;

use crate::config::{SANDBOX_CLIENT, SANDBOX_DIR, SANDBOX_RUNTIME_DIR};
use crate::error::{Error, Result};
use crate::fs;
use crate::host::doctor;
use crate::nix::settings::{self, Nix};
use crate::output;
pub use layout::Mode;
use layout::{Host, Layout, SOCKET_UNITS, USER};
pub use limits::Limits;
use plan::{Content, File};
pub use record::Ci;
use record::{Record, kept_name};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
pub use uninstall::{Removal, uninstall};

/// What to install.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How builds get at the cache. When nothing is said it stays as it is, and in the beginning it is what Nix can do.
    pub mode: Option<Mode>,
    /// For the user's own Nix, without root.
    pub user: bool,
    /// Only show the changes.
    pub dry_run: bool,
    /// The remote that the daemon is to have; one that it has already stays when none is named.
    pub remote: Option<crate::remote::Options>,
    /// Take away the remote that the daemon has.
    pub no_remote: bool,
    /// What the daemon keeps its cache within; what is not named stays as it is.
    pub limits: Limits,
    /// Where the daemon's cache is to be; it stays where it is when nothing is named.
    pub cache_dir: Option<PathBuf>,
    /// For one run of a CI system, which `undo` ends.
    pub ci: bool,
}

/// Where the cache and the sockets are of what `install` has made: for this user, or else for the host.
pub fn dirs() -> Option<(PathBuf, PathBuf)> {
    [true, false].into_iter().find_map(|user| {
        let mut host = Host::live(user).ok()?;
        let record = Record::read(&host).ok()??;
        host.find_cache(&record);
        Some((host.layout.cache_dir, host.layout.runtime_dir))
    })
}

/// Installs, and then says how things are.
///
/// # Errors
/// When a change cannot be made, or something is still wrong afterwards.
pub fn install(options: &Options) -> Result<()> {
    let mut host = Host::live(options.user)?;
    host.check(options.dry_run)?;
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let program = fs::canonicalize(&program)?;
    if !options.dry_run && Record::read(&host)?.is_none() {
        Record::remove_traces(&host)?;
    }
    let mut steps = Installation::plan(&mut host, options, &program)?;
    if options.dry_run {
        return output::print(&steps.show(&host));
    }
    if steps.is_done() {
        host.say("nothing to change\n");
    } else {
        steps.make(&host)?;
    }
    host.say(&steps.notes);
    host.say("\n");
    let checked = doctor::run(&doctor::Options {
        json: false,
        runtime_dir: host.layout.runtime_dir.clone(),
        cache_dir: host.layout.cache_dir.clone(),
        is_named: true,
    });
    host.say(&host.layout.next_steps(host.has_systemd()));
    checked
}

/// What `ci start` has set up.
#[derive(Clone, Debug)]
pub struct Setup {
    host: Host,
    record: Record,
}

impl Setup {
    /// What is here now, if anything is.
    ///
    /// # Errors
    /// When the record cannot be read, or `install` has set this host up.
    pub fn find() -> Result<Option<Self>> {
        let mut host = Host::live(false)?;
        host.is_quiet = true;
        let Some(record) = Record::read(&host)? else {
            Record::remove_traces(&host)?;
            return Ok(None);
        };
        if record.ci.is_none() {
            return Err(installed_otherwise());
        }
        host.find_cache(&record);
        Ok(Some(Self { host, record }))
    }

    /// Sets this host up as `install` does; one that is set up in part is completed. Without systemd the daemon is a
    /// process in the background.
    ///
    /// # Errors
    /// When a change cannot be made. [`Setup::undo`] undoes those that were made.
    pub fn make(options: &Options) -> Result<Self> {
        let mut host = Host::live(false)?;
        host.is_quiet = true;
        host.check(false)?;
        if let Some(remote) = &options.remote {
            remote.place()?;
            for (_, file) in remote::files(remote) {
                fs::open(file)?;
            }
        }
        let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
        let program = fs::canonicalize(&program)?;
        let mut steps = Installation::plan(&mut host, options, &program)?;
        if steps.nix_conf.is_none() && !steps.has_block {
            return Err(Error::input(steps.notes.trim().to_string()));
        }
        steps.make(&host)?;
        Ok(Self {
            host,
            record: steps.record,
        })
    }

    /// Undoes all of it. Builds that still need it are waited for, up to this limit.
    ///
    /// # Errors
    /// When a change cannot be undone: it can be tried again.
    pub fn undo(mut self, limit: Duration) -> Result<()> {
        self.host.patience = Some(limit);
        // With what a `start` that was killed has begun at an end, the record is complete.
        let lock = self.host.locked()?;
        let Some(record) = Record::read(&self.host)? else {
            return Ok(());
        };
        drop(lock);
        let keeps_cache = record.ci.as_ref().is_some_and(|ci| ci.keeps_cache);
        uninstall::remove(&self.host, record, !keeps_cache)
    }

    /// What is remembered of `ci start`.
    pub fn ci(&self) -> Ci {
        self.record.ci.clone().unwrap_or_default()
    }

    /// Whether it was completed.
    pub fn is_complete(&self) -> bool {
        self.record.finished
    }

    /// The cache.
    pub fn cache_dir(&self) -> &Path {
        &self.host.layout.cache_dir
    }

    /// Where the daemon's sockets are.
    pub fn runtime_dir(&self) -> &Path {
        &self.host.layout.runtime_dir
    }

    /// Where the daemon's log is: a file, or the command that shows it.
    pub fn log(&self) -> String {
        if self.host.has_systemd() {
            "journalctl -u nix-gocacheprog".into()
        } else {
            process::log_path(&self.host).display().to_string()
        }
    }

    /// Whether Nix has to be told by somebody else that its configuration has changed.
    pub fn must_restart_nix(&self) -> bool {
        !self.host.has_systemd() && host::runs_nix_daemon()
    }
}

fn installed_otherwise() -> Error {
    Error::input(
        "nix-gocacheprog is installed here for good, by `install`: its daemon serves every build, and `nix-gocacheprog \
         flush` waits for its uploads",
    )
}

/// An installation: what is to be, less what is.
struct Installation {
    record: Record,
    /// What the record says of the cache and its limits is not written yet.
    is_unrecorded: bool,
    mode: Mode,
    /// Directories that are missing, outermost first.
    directories: Vec<PathBuf>,
    /// Whether the daemon's user is missing.
    user: bool,
    /// Files other than Nix's own.
    files: Vec<File>,
    /// Nix's configuration.
    nix_conf: Option<File>,
    /// Nix is configured already.
    has_block: bool,
    /// What is left to a person.
    notes: String,
    /// For a CI system: the remote of a daemon that systemd does not start.
    remote: Option<crate::remote::Options>,
}

impl Installation {
    fn plan(host: &mut Host, options: &Options, program: &Path) -> Result<Self> {
        let record = Record::read(host)?;
        let is_lix = || host.is_live && Nix::ask().is_ok_and(|nix| nix.is_lix());
        let mode = match (options.mode, &record) {
            (Some(mode), _) => mode,
            (None, Some(record)) => record.mode,
            // It ignores what a hook says.
            (None, None) if is_lix() => Mode::Static,
            (None, None) => Mode::Hook,
        };
        match &record {
            Some(record) if options.ci && record.ci.is_none() => return Err(installed_otherwise()),
            Some(record) if !options.ci && record.ci.is_some() => {
                return Err(Error::input(
                    "`ci start` has set this up: run `nix-gocacheprog ci finish` first",
                ));
            }
            _ => {}
        }
        let is_first = record.is_none();
        let recorded = record.unwrap_or_default();
        let mut record = recorded.clone();
        record.limits.override_with(&options.limits);
        let mut notes = String::new();
        if let Some(dir) = host.place_cache(options.cache_dir.as_deref(), &record)? {
            let usual = &host.layout.cache_dir;
            let from = record.cache_dir.as_ref().unwrap_or(usual).clone();
            if !is_first && from != dir && host.at(&from).exists() {
                notes.push_str(&format!(
                    "\nThe cache begins anew in {}. What is in {} is not used any more; \
                     `nix-gocacheprog uninstall --remove-cache` removes that too.\n",
                    dir.display(),
                    from.display()
                ));
                record.move_cache(from, dir.clone());
            }
            record.cache_dir = Some(dir.clone());
            host.layout.cache_dir = dir;
        }
        let host = &*host;
        if options.ci {
            let uploads = options
                .remote
                .as_ref()
                .is_some_and(|remote| remote.mode.writes());
            record.ci.get_or_insert_with(|| ci(host, options)).uploads = uploads;
        }
        let layout = &host.layout;

        let settings = host.settings()?;
        let installed = layout.hook.to_string_lossy().into_owned();
        let other = settings
            .get("pre-build-hook")
            .filter(|hook| !hook.is_empty() && *hook != installed);
        let is_gone = |hook: &&str| host.is_live && !settings::is_runnable(hook);
        if let Some(gone) = other.filter(is_gone) {
            notes.push_str(&format!(
                "\nThe pre-build-hook that nix.conf names, {gone}, cannot be run: it is not chained.\n"
            ));
        }
        let other = other.filter(|hook| !is_gone(hook));
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
        let limits = record.limits.text(layout, record.cache_dir.as_deref())?;
        let drop_ins = [
            (
                remote::path(layout),
                match &options.remote {
                    Some(options) => Some(Content::Text(remote::text(options, layout)?, 0o644)),
                    None => options.no_remote.then_some(Content::Absent),
                },
            ),
            (
                Limits::path(layout),
                Some(limits.map_or(Content::Absent, |text| Content::Text(text, 0o644))),
            ),
        ];
        for (path, content) in drop_ins {
            let Some(content) = content else { continue };
            if host.has_systemd() {
                let path = host.at(&path);
                files.push(File { path, content });
            } else if content != Content::Absent {
                notes.push_str(
                    "\nGive it the remote, the cache directory and the limits too: `nix-gocacheprog help daemon` \
                     lists the flags.\n",
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
        let come = files.iter().filter(|file| file.content != Content::Absent);
        let come = come.chain(&nix_conf).filter_map(|file| file.path.parent());
        for dir in come.chain([host.at(&layout.cache_dir).as_path()]) {
            let chain = dir.ancestors();
            let missing: Vec<_> = chain.take_while(|dir| !dir.exists()).collect();
            for dir in missing.into_iter().rev() {
                if !directories.iter().any(|known| known == dir) {
                    directories.push(dir.to_path_buf());
                }
            }
        }
        files.retain(|file| !file.is_made());
        Ok(Self {
            user: host.needs_user() && (!options.ci || host.can_add_user()),
            mode,
            is_unrecorded: record != recorded,
            record,
            directories,
            files,
            has_block: nix_conf.as_ref().is_some_and(File::is_made),
            nix_conf: nix_conf.filter(|file| !file.is_made()),
            notes,
            remote: options.remote.clone(),
        })
    }

    fn is_done(&self) -> bool {
        self.record.finished
            && !self.is_unrecorded
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
            if self.replaces(host, file) {
                let kept = kept_name(&file.path);
                out.push_str(&format!(
                    "keep {} as {}\n",
                    file.path.display(),
                    kept.display()
                ));
            }
            out.push_str(&file.diff());
        }
        let before = self.commands(host, true);
        show_commands(&mut out, before.iter().chain(&self.commands(host, false)));
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
            host.restart_nix().into()
        } else {
            Vec::new()
        }
    }

    /// Whether this takes the place of a file of somebody else's.
    fn replaces(&self, host: &Host, file: &File) -> bool {
        let path = host.logical(&file.path);
        file.path.symlink_metadata().is_ok()
            && file.content != Content::Absent
            && !self.record.files.contains(&path)
            && !self.record.replaced.contains(&path)
            && !self.record.confs.contains(&path)
            && self.nix_conf.as_ref() != Some(file)
    }

    fn make(&mut self, host: &Host) -> Result<()> {
        let host = &host.locked()?;
        let layout = &host.layout;
        let before = self.commands(host, true);
        let after = self.commands(host, false);
        self.record.finished = false;
        self.record.mode = self.mode;
        for file in self.files.iter().chain(&self.nix_conf) {
            let is_new = file.path.symlink_metadata().is_err();
            if is_new && file.content != Content::Absent {
                self.record.add_file(host.logical(&file.path));
            }
        }
        for file in &self.files {
            if self.replaces(host, file) {
                self.record.add_replaced(host.logical(&file.path));
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
        // One that was killed may have added the user after this was planned.
        if self.user && host.needs_user() {
            host.add_user()?;
            host.say(&format!("added the user {USER}\n"));
        }
        let is_ci = self.record.ci.is_some() && host.is_live;
        let cache = host.at(&layout.cache_dir);
        if is_ci && cache.exists() {
            // Whoever has restored it is not the daemon.
            hand_over::hand_over(&cache, None, host.cache_owner().unwrap_or_default())?;
        }
        host.make_cache()?;
        for file in &self.files {
            let kept = kept_name(&file.path);
            if self.record.replaced.contains(&host.logical(&file.path))
                && kept.symlink_metadata().is_err()
            {
                fs::hard_link(&file.path, &kept)?;
            }
            file.make()?;
            let verb = match file.content {
                Content::Absent => "removed",
                _ => "wrote",
            };
            host.say(&format!("{verb} {}\n", file.path.display()));
        }
        host.run_all(&before)?;
        if is_ci && !host.has_systemd() {
            process::start(host, self.remote.as_ref(), &self.record.limits)?;
        }
        // Last, when all that a build needs is there.
        if let Some(file) = &self.nix_conf {
            host.change_conf(file)?;
            host.say(&format!("added to {}\n", file.path.display()));
        }
        host.run_all(&after)?;
        if !host.has_systemd() && !layout.user {
            host.say("restart nix-daemon, so that it reads its configuration\n");
        }
        self.record.finished = true;
        self.record.write(host)
    }
}

/// What is to be remembered for `ci finish`, before anything is changed.
fn ci(host: &Host, options: &Options) -> Ci {
    let cache = host.at(&host.layout.cache_dir);
    let mut above = cache.ancestors();
    // A cache that is made is given to whoever has the directory around it.
    let owner = above.find_map(|dir| dir.metadata().ok());
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    Ci {
        started: started.map_or(0, |time| time.as_secs()),
        keeps_cache: options.cache_dir.is_some() || cache.exists(),
        cache_owner: owner.map_or((0, 0), |found| (found.uid(), found.gid())),
        uploads: false,
    }
}

/// Says which commands are run.
fn show_commands<'a>(out: &mut String, commands: impl Iterator<Item = &'a Vec<String>>) {
    let commands: String = commands
        .map(|command| format!("    {}\n", command.join(" ")))
        .collect();
    if !commands.is_empty() {
        out.push_str("\nthen run\n");
        out.push_str(&commands);
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
                is_quiet: true,
                patience: None,
                lock: None,
                layout: Layout::of_system(),
            };
            Self { dir, host, program }
        }

        fn plan(&self, mode: Mode) -> Installation {
            self.plan_with(&Options {
                mode: Some(mode),
                ..Options::default()
            })
        }

        fn plan_with(&self, options: &Options) -> Installation {
            Installation::plan(&mut self.host.clone(), options, &self.program).unwrap()
        }

        fn install(&self, mode: Mode) {
            self.plan(mode).make(&self.host).unwrap();
            assert!(self.plan(mode).is_done());
        }

        fn uninstall(&self) {
            let record = Record::read(&self.host).unwrap().unwrap();
            uninstall::remove(&self.host, record, true).unwrap();
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
            "copy /",
            "systemctl try-restart nix-daemon.service",
        ] {
            assert!(shown.contains(wanted), "{shown}");
        }
        assert!(shown.contains("\n cores = 4\n"), "{shown}");
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
            let obstacle = plan::temporary_name(&rest[0].path);
            std::fs::create_dir_all(&obstacle).unwrap();
            plan.make(&folder.host).unwrap_err();
            std::fs::remove_dir(&obstacle).unwrap();
            assert!(!folder.plan(Mode::Hook).is_done(), "{made}");
            folder.install(Mode::Hook);
            folder.uninstall();
            assert_eq!(folder.files(), before, "{made}");
        }
    }

    /// Small numbers that look like chance and are the same each time.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (self.0 >> 33) as usize % n
        }
    }

    /// Puts something in the way of one of the files that are to be made or removed, and takes it away again.
    fn interrupted(chance: &mut Chance, paths: &[PathBuf], act: impl FnOnce() -> Result<()>) {
        let obstacle = match paths {
            [] => return,
            paths => plan::temporary_name(&paths[chance.below(paths.len())]),
        };
        if !obstacle.parent().is_some_and(Path::is_dir) {
            return;
        }
        std::fs::create_dir(&obstacle).unwrap();
        let _ = act();
        std::fs::remove_dir(&obstacle).unwrap();
    }

    #[test]
    fn whatever_a_host_was_it_is_that_again_in_the_end() {
        for seed in 0..60 {
            let chance = &mut Chance(seed);
            let confs = [
                "",
                "a = b",
                "a = b\n",
                "# c\r\na = b\r\n",
                "pre-build-hook = /opt/theirs\ncores = 4",
                "# Generated by somebody\n!include nix.custom.conf\n",
                "\n\n",
            ];
            let folder = Folder::new(confs[chance.below(confs.len())]);
            let root = &folder.host.root;
            for foreign in [
                "usr/local/bin/nix-gocacheprog",
                "etc/systemd/system/nix-gocacheprog.service",
                "usr/local/lib/nix-gocacheprog/hook",
                "etc/nix/nix.custom.conf",
            ] {
                let path = root.join(foreign);
                if chance.below(3) == 0 {
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    if chance.below(2) == 0 && !foreign.ends_with(".conf") {
                        std::os::unix::fs::symlink("/elsewhere", &path).unwrap();
                    } else {
                        std::fs::write(&path, "theirs = 1").unwrap();
                        fs::set_mode(&path, 0o640).unwrap();
                    }
                }
            }
            let mut before = folder.files();
            for _ in 0..1 + chance.below(3) {
                let version = format!("version {}", chance.below(3));
                std::fs::write(&folder.program, version).unwrap();
                let options = Options {
                    mode: [None, Some(Mode::Hook), Some(Mode::Static)][chance.below(3)],
                    limits: Limits {
                        max_size: [None, Some("5G".into())][chance.below(2)].clone(),
                        ..Limits::default()
                    },
                    no_remote: chance.below(2) == 0,
                    ..Options::default()
                };
                let mut plan = folder.plan_with(&options);
                if chance.below(2) == 0 {
                    let files = plan.files.iter().chain(&plan.nix_conf);
                    let paths: Vec<_> = files.map(|file| file.path.clone()).collect();
                    interrupted(chance, &paths, || plan.make(&folder.host));
                } else {
                    plan.make(&folder.host).unwrap();
                    assert!(folder.plan_with(&options).is_done(), "{seed}");
                }
            }
            // Somebody adds a line, as `echo` does.
            if chance.below(2) == 0 {
                let conf = root.join("etc/nix/nix.conf");
                let mut text = std::fs::read_to_string(&conf).unwrap();
                text.push_str("max-jobs = 2\n");
                std::fs::write(&conf, text).unwrap();
                let (_, was) = before.get_mut(&conf).unwrap();
                let has_block = folder.conf("nix.conf").contains("BEGIN nix-gocacheprog");
                if has_block && !was.is_empty() && !was.ends_with('\n') {
                    was.push('\n');
                }
                was.push_str("max-jobs = 2\n");
            }
            let Some(record) = Record::read(&folder.host).unwrap() else {
                assert_eq!(folder.files(), before, "{seed}");
                continue;
            };
            if chance.below(2) == 0 {
                let paths: Vec<_> = record
                    .files
                    .iter()
                    .map(|path| folder.host.at(path))
                    .collect();
                interrupted(chance, &paths, || {
                    uninstall::remove(&folder.host, record.clone(), true)
                });
            }
            if let Some(record) = Record::read(&folder.host).unwrap() {
                uninstall::remove(&folder.host, record, true).unwrap();
            }
            assert_eq!(folder.files(), before, "{seed}");
        }
    }

    #[test]
    fn what_is_kept_is_removed_by_a_later_uninstall() {
        let folder = Folder::new("a = b\n");
        let before = folder.files();
        folder.install(Mode::Hook);
        let record = Record::read(&folder.host).unwrap().unwrap();
        uninstall::remove(&folder.host, record, false).unwrap();
        assert!(folder.host.at(&folder.host.layout.cache_dir).is_dir());
        assert!(!folder.host.at(&folder.host.layout.hook).exists());
        folder.uninstall();
        assert_eq!(folder.files(), before);
    }

    #[test]
    fn what_ci_start_makes_is_undone_without_a_trace_and_is_not_for_install() {
        for (cache_dir, made) in [(None, false), (Some("/job/cache"), true)] {
            for has_systemd in [true, false] {
                let folder = Folder::new("a = b");
                if !has_systemd {
                    std::fs::remove_dir_all(folder.host.root.join("run/systemd")).unwrap();
                }
                let cache = folder.host.root.join("job/cache");
                std::fs::create_dir_all(cache.join("outputs")).unwrap();
                let mut before = folder.files();
                let options = Options {
                    cache_dir: cache_dir.map(PathBuf::from),
                    ci: true,
                    ..Options::default()
                };
                let mut host = folder.host.clone();
                let mut plan = Installation::plan(&mut host, &options, &folder.program).unwrap();
                plan.make(&host).unwrap();
                assert_eq!(plan.record.ci.as_ref().map(|ci| ci.keeps_cache), Some(made));
                assert!(folder.conf("nix.conf").contains("pre-build-hook"));
                let install = Installation::plan(
                    &mut folder.host.clone(),
                    &Options::default(),
                    &folder.program,
                );
                assert!(install.is_err_and(|e| e.to_string().contains("ci finish")));
                let record = Record::read(&folder.host).unwrap().unwrap();
                uninstall::remove(&folder.host, record, !made).unwrap();
                // What is kept can be read by its owner and passed through by builds.
                if made {
                    let mode = cache.metadata().unwrap().mode();
                    before.get_mut(&cache).unwrap().0 = mode;
                    assert_eq!(mode & 0o777, 0o711);
                }
                assert_eq!(folder.files(), before);
            }
        }
        let folder = Folder::new("");
        folder.install(Mode::Hook);
        let ci = Options {
            ci: true,
            ..Options::default()
        };
        let plan = Installation::plan(&mut folder.host.clone(), &ci, &folder.program);
        assert!(plan.is_err_and(|e| e.to_string().contains("installed here for good")));
    }

    #[test]
    fn a_cache_that_was_moved_goes_from_wherever_it_was() {
        let folder = Folder::new("a = b\n");
        let root = &folder.host.root;
        let before = folder.files();
        folder.install(Mode::Hook);
        let fill = |dir: &str| {
            for name in ["format", "outputs"] {
                std::fs::write(root.join(dir).join(name), "of a cache").unwrap();
            }
        };
        let usual = "var/cache/nix-gocacheprog";
        fill(usual);
        for dir in [
            "/disk/one",
            "/disk/two",
            "/var/cache/nix-gocacheprog",
            "/disk/two",
        ] {
            let options = Options {
                cache_dir: Some(dir.into()),
                ..Options::default()
            };
            let mut plan = folder.plan_with(&options);
            assert!(plan.notes.contains(dir), "{}", plan.notes);
            plan.make(&folder.host).unwrap();
            let again = folder.plan_with(&options);
            assert!(again.is_done() && again.notes.is_empty(), "{}", again.notes);
            fill(dir.trim_start_matches('/'));
        }
        let record = Record::read(&folder.host).unwrap().unwrap();
        let mut host = folder.host.clone();
        host.find_cache(&record);
        let shown = uninstall::show(&host, &record, Some(true)).unwrap();
        let all = "remove the cache /disk/one and /var/cache/nix-gocacheprog and /disk/two";
        assert!(shown.contains(all), "{shown}");
        // What has become something else is left alone.
        std::fs::remove_file(root.join("disk/one/format")).unwrap();
        std::fs::write(root.join("disk/one/letter"), "").unwrap();
        folder.uninstall();
        let letter = root.join("disk/one/letter");
        assert!(letter.exists() && !root.join("disk/two").exists());
        std::fs::remove_dir_all(root.join("disk")).unwrap();
        assert_eq!(folder.files(), before);
    }

    #[test]
    fn what_was_killed_before_its_record_or_after_it_leaves_no_directory() {
        let folder = Folder::new("");
        let before = folder.files();
        let lib = folder.host.at(&folder.host.layout.lib);
        let above = lib.parent().unwrap();
        // Killed while the record was written: it is aside, with the directories above it.
        std::fs::create_dir_all(plan::temporary_name(above).join("nix-gocacheprog")).unwrap();
        Record::remove_traces(&folder.host).unwrap();
        assert_eq!(folder.files(), before);
        // Killed when the record was gone.
        std::fs::create_dir(above).unwrap();
        let before = folder.files();
        std::fs::create_dir(&lib).unwrap();
        Record::remove_traces(&folder.host).unwrap();
        assert_eq!(folder.files(), before);
        // With something of somebody else's in it, it stays.
        std::fs::create_dir(&lib).unwrap();
        std::fs::write(lib.join("theirs"), "").unwrap();
        let before = folder.files();
        Record::remove_traces(&folder.host).unwrap();
        assert_eq!(folder.files(), before);
    }

    /// Undoes all that is there, as `uninstall` does.
    fn undo(folder: &Folder) {
        match Record::read(&folder.host).unwrap() {
            Some(_) => folder.uninstall(),
            None => Record::remove_traces(&folder.host).unwrap(),
        }
    }

    #[test]
    fn killed_at_any_step_it_is_undone_without_a_trace() {
        use crate::fs::faults::{self, Fault};
        for uninstalls in [false, true] {
            let folder = Folder::new("a = b");
            std::fs::write(
                folder.host.root.join("usr/local/bin/nix-gocacheprog"),
                "theirs",
            )
            .unwrap();
            let before = folder.files();
            for step in 0.. {
                let plan = folder.plan(Mode::Hook);
                if uninstalls {
                    { plan }.make(&folder.host).unwrap();
                    let record = Record::read(&folder.host).unwrap().unwrap();
                    faults::inject(step, Fault::Kill);
                    let _ = uninstall::remove(&folder.host, record, true);
                } else {
                    faults::inject(step, Fault::Kill);
                    let _ = { plan }.make(&folder.host);
                }
                let is_whole = faults::clear();
                undo(&folder);
                assert_eq!(folder.files(), before, "{uninstalls} {step}");
                if is_whole {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_cache_behind_a_link_is_emptied_and_the_link_stays() {
        let folder = Folder::new("");
        let root = &folder.host.root;
        let disk = root.join("disk");
        std::fs::create_dir(&disk).unwrap();
        fs::set_mode(&disk, 0o711).unwrap();
        std::os::unix::fs::symlink(&disk, root.join("var/cache/nix-gocacheprog")).unwrap();
        let before = folder.files();
        folder.install(Mode::Hook);
        let limits = folder.host.at(&Limits::path(&folder.host.layout));
        let text = std::fs::read_to_string(limits).unwrap();
        assert!(text.contains("ReadWritePaths=/disk\n"), "{text}");
        assert!(disk.join("builds").is_dir());
        folder.uninstall();
        assert_eq!(folder.files(), before);
    }

    #[test]
    fn a_directory_with_something_else_in_it_does_not_become_a_cache() {
        let folder = Folder::new("");
        std::fs::create_dir(folder.host.root.join("home")).unwrap();
        std::fs::write(folder.host.root.join("home/letter"), "").unwrap();
        let before = folder.files();
        let options = Options {
            cache_dir: Some("/home".into()),
            ..Options::default()
        };
        let Err(error) = Installation::plan(&mut folder.host.clone(), &options, &folder.program)
        else {
            panic!("it was taken")
        };
        assert!(
            error.to_string().contains("not empty and not a cache"),
            "{error}"
        );
        assert_eq!(folder.files(), before);
    }

    #[test]
    fn a_dry_run_of_uninstall_shows_what_goes_and_changes_nothing() {
        let folder = Folder::new("a = b");
        folder.install(Mode::Hook);
        let before = folder.files();
        let record = Record::read(&folder.host).unwrap().unwrap();
        let shown = uninstall::show(&folder.host, &record, Some(true)).unwrap();
        for wanted in [
            "-pre-build-hook = ",
            "nix-gocacheprog.service",
            "systemctl disable",
            "systemctl try-restart nix-daemon.service",
            "remove the cache /var/cache/nix-gocacheprog",
            "remove the directory",
        ] {
            assert!(shown.contains(wanted), "{wanted}: {shown}");
        }
        assert_eq!(folder.files(), before);
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
        let named = crate::remote::Options {
            url: "https://cache.test".into(),
            ..Default::default()
        };
        let options = Options {
            remote: Some(named),
            ..Options::default()
        };
        let plan = || folder.plan_with(&options);
        plan().make(&folder.host).unwrap();
        assert!(plan().is_done());
        let drop_in = folder.host.at(&remote::path(&folder.host.layout));
        assert!(drop_in.exists());
        // One that is not named again stays.
        folder.install(Mode::Static);
        assert!(drop_in.exists());
        let without = Options {
            no_remote: true,
            ..Options::default()
        };
        folder.plan_with(&without).make(&folder.host).unwrap();
        assert!(!drop_in.exists());
        assert!(folder.plan_with(&without).is_done());
        plan().make(&folder.host).unwrap();
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
