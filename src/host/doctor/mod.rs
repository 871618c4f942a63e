//! Says what is right and what is wrong with an installation, and how to fix it: one root cause, one line.
//!
//! Each check is a function that looks and never changes anything; asking the daemon may make
//! systemd start it, which a build would do too.

mod elf;
mod mounts;

use crate::cache::store::Limits;
use crate::client::connection;
use crate::config::{self, RUNTIME_DIR, SANDBOX_CLIENT};
use crate::error::{Error, Result};
use crate::nix::settings::{self as nix, Nix};
use crate::output::{self, Paint};
use crate::protocol::control::{self, Ask, Reply};
use crate::report::Report;
use crate::size::show_size;
use crate::sys;
use mounts::Mount;
use serde::Serialize;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// For programs.
    pub json: bool,
    /// Where the daemon's sockets are.
    pub runtime_dir: PathBuf,
    /// Where its cache is, unless the daemon says otherwise.
    pub cache_dir: PathBuf,
    /// The cache directory was named on the command line.
    pub is_named: bool,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Right,
    /// It works, and a person should know something about it.
    Note,
    Wrong,
}

/// What a check has found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    text: String,
    /// The command that mends it, or what else does.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn right(check: &'static str, text: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Right,
            text: text.into(),
            mend: None,
        }
    }

    fn note(check: &'static str, text: impl Into<String>) -> Self {
        Self {
            state: State::Note,
            ..Self::right(check, text)
        }
    }

    fn wrong(check: &'static str, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            state: State::Wrong,
            mend: Some(mend.into()),
            ..Self::right(check, text)
        }
    }
}

/// How long a daemon is waited for that may have to be started first.
const PATIENCE: Duration = Duration::from_secs(5);

/// A remote that does not answer is waited for as long as a get would.
const REMOTE_PATIENCE: Duration = Duration::from_secs(30);

/// Looks at everything and prints what it finds.
///
/// # Errors
/// When something is wrong.
pub fn run(options: &Options) -> Result<()> {
    let findings = examine(options);
    let wrong = findings.iter().filter(|f| f.state == State::Wrong).count();
    let text = if options.json {
        let json =
            serde_json::to_string_pretty(&findings).map_err(|e| Error::input(e.to_string()))?;
        json + "\n"
    } else {
        table(&findings, output::has_colour())
    };
    output::print(&text)?;
    match wrong {
        0 => Ok(()),
        1 => Err(Error::input("one thing is wrong")),
        _ => Err(Error::input(format!("{wrong} things are wrong"))),
    }
}

/// What is wrong, each on a line, with what mends it.
pub fn faults(options: &Options) -> Vec<String> {
    let wrong = examine(options)
        .into_iter()
        .filter(|f| f.state == State::Wrong);
    wrong
        .map(|found| match found.mend {
            Some(mend) => format!("{}: {} (fix: {mend})", found.check, found.text),
            None => format!("{}: {}", found.check, found.text),
        })
        .collect()
}

/// Everything, each fault once: what follows from another one is not looked at.
fn examine(options: &Options) -> Vec<Finding> {
    let nix = Nix::ask();
    if !is_installed(options, nix.as_ref().ok()) {
        return vec![Finding::wrong(
            "installation",
            format!(
                "nothing is installed: no socket in {}, and Nix does not use the hook",
                options.runtime_dir.display()
            ),
            if is_nixos() {
                "add nix-gocacheprog's module.nix to this system's imports".into()
            } else {
                install("")
            },
        )];
    }
    let builder = own_builder(&options.runtime_dir);
    let mut findings = vec![binary(builder)];
    let serving = failed_units(&options.runtime_dir)
        .map(|failed| vec![failed])
        .unwrap_or_else(|| sockets(&options.runtime_dir));
    let is_served = serving.iter().all(|f| f.state != State::Wrong);
    findings.extend(serving);
    let mut answers = false;
    if is_served {
        let daemon = daemon(&options.runtime_dir);
        answers = daemon.state != State::Wrong;
        findings.push(daemon);
    }
    // One that hangs would be waited for with each question.
    if answers {
        findings.extend(remote(&options.runtime_dir));
    }
    match &nix {
        Ok(nix) => findings.extend(configuration(nix)),
        Err(e) => findings.push(Finding::wrong(
            "nix",
            format!("Nix does not say how it is configured: {}", e.chain()),
            "install Nix, or put it into PATH",
        )),
    }
    if is_served {
        let named = options.cache_dir.as_path();
        let report = answers
            .then(|| daemon_report(&options.runtime_dir))
            .flatten()
            .filter(|report| !options.is_named || report.cache == named);
        let (dir, min_free) = match &report {
            Some(report) => (report.cache.as_path(), Some(report.min_free)),
            None => (named, None),
        };
        findings.extend(cache(dir, builder, min_free));
    }
    findings.extend(selinux());
    findings
}

/// The command that installs, with these options; on NixOS the system's own.
fn install(options: &str) -> String {
    if is_nixos() {
        return "sudo nixos-rebuild switch".into();
    }
    // A download is not in PATH.
    let program = match std::env::current_exe() {
        Ok(program) if program != Path::new(PROGRAM) => program.display().to_string(),
        _ => "nix-gocacheprog".into(),
    };
    format!("sudo {program} install {options}")
        .trim_end()
        .into()
}

fn is_nixos() -> bool {
    Path::new("/etc/NIXOS").exists()
}

/// What begins the daemon anew.
fn restart() -> &'static str {
    if Path::new("/run/systemd/system").exists() {
        "sudo systemctl restart nix-gocacheprog.service"
    } else {
        "end the daemon and start it again, as `nix-gocacheprog help daemon` says"
    }
}

/// Where `install` puts the program.
const PROGRAM: &str = "/usr/local/bin/nix-gocacheprog";

/// Whether there is anything here to be examined.
fn is_installed(options: &Options, nix: Option<&Nix>) -> bool {
    let has_socket =
        [config::build_socket, config::control_socket].iter().any(
            |socket| match crate::fs::metadata(&socket(&options.runtime_dir)) {
                Ok(_) => true,
                Err(e) => e.kind() == Some(std::io::ErrorKind::PermissionDenied),
            },
        );
    has_socket
        || INSTALLED.iter().any(|path| Path::new(path).exists())
        || nix.is_some_and(|nix| {
            matches!(
                nix::look_at_hook(nix.get("pre-build-hook")),
                nix::Hook::Ours(_)
            ) || is_mounted(nix)
        })
}

/// What `install` or NixOS's module has made, if anything has.
const INSTALLED: [&str; 2] = [
    "/etc/systemd/system/nix-gocacheprog.service",
    "/usr/local/lib/nix-gocacheprog/installed.json",
];

/// What the daemon says about itself; only root can ask.
fn daemon_report(runtime_dir: &Path) -> Option<Report> {
    let socket = config::control_socket(runtime_dir);
    match control::ask(&socket, &Ask::Stats.into(), PATIENCE, &mut |_| {}) {
        Ok(Reply::Stats(report)) => Some(*report),
        _ => None,
    }
}

/// Units that systemd has given up on: nothing else works before they are started again.
fn failed_units(runtime_dir: &Path) -> Option<Finding> {
    if !Path::new("/run/systemd/system").exists() || runtime_dir != Path::new(RUNTIME_DIR) {
        return None;
    }
    let has_failed = |unit: &&str| {
        let mut command = std::process::Command::new("systemctl");
        command.args(["is-failed", "--quiet", unit]);
        command.status().is_ok_and(|status| status.success())
    };
    let failed: Vec<_> = UNITS.into_iter().filter(has_failed).collect();
    let units = failed.join(" ");
    (!failed.is_empty()).then(|| {
        Finding::wrong(
            "units",
            format!(
                "systemd has given up on {units}; `sudo journalctl -u 'nix-gocacheprog*'` says why"
            ),
            format!(
                "sudo systemctl reset-failed {units}; sudo systemctl restart {} {}",
                UNITS[1], UNITS[2]
            ),
        )
    })
}

/// The service and its sockets.
const UNITS: [&str; 3] = [
    "nix-gocacheprog.service",
    "nix-gocacheprog-build.socket",
    "nix-gocacheprog-control.socket",
];

fn table(findings: &[Finding], colours: bool) -> String {
    let mut out = String::new();
    for finding in findings {
        let (mark, style) = match finding.state {
            State::Right => ("✓", Paint::Green),
            State::Note => ("•", Paint::Yellow),
            State::Wrong => ("✗", Paint::Red),
        };
        out.push_str(&style.of(mark, colours));
        let _ = writeln!(out, " {:<15} {}", finding.check, finding.text);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(out, "{:18}fix: {mend}", "");
        }
    }
    out
}

/// A sandbox has no libraries for the client to load. What is installed is looked at, not a download.
fn binary(builder: Option<u32>) -> Finding {
    const CHECK: &str = "program";
    let installed = Path::new(PROGRAM);
    let looked = if installed.exists() {
        Ok(installed.to_path_buf())
    } else {
        std::env::current_exe().map_err(|e| Error::io("find", "this program", e))
    };
    let looked = looked.and_then(|path| {
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let mode = crate::fs::metadata(&path)?.permissions().mode();
        Ok((path, elf::is_static(&bytes), mode))
    });
    let (path, is_static, mode) = match looked {
        Ok(looked) => looked,
        Err(e) => return Finding::wrong(CHECK, e.chain(), install("")),
    };
    let shown = path.display();
    if !is_static {
        return Finding::wrong(
            CHECK,
            format!("{shown} needs libraries that no sandbox has: download the static release"),
            "sudo ./nix-gocacheprog install",
        );
    }
    if mode & 0o555 != 0o555 {
        return Finding::wrong(
            CHECK,
            format!("{shown} cannot be run by everybody"),
            format!("sudo chmod 755 {shown}"),
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("{shown}, release {version}, is static");
    let mut above = path.ancestors().skip(1);
    match above.find(|dir| is_closed(dir, builder)) {
        Some(dir) => Finding::note(
            CHECK,
            format!("{text}, but {} is closed to other users", dir.display()),
        ),
        None => Finding::right(CHECK, text),
    }
}

/// The user that builds run as, where there are no build users: whose Nix this is.
fn own_builder(runtime_dir: &Path) -> Option<u32> {
    let user = sys::effective_uid();
    (user != 0 && runtime_dir != Path::new(RUNTIME_DIR)).then_some(user)
}

/// Whether builds, which run as this user or else as anybody, cannot pass through a directory.
fn is_closed(dir: &Path, builder: Option<u32>) -> bool {
    crate::fs::metadata(dir).is_ok_and(|found| {
        let needed = if builder == Some(found.uid()) {
            0o100
        } else {
            0o001
        };
        found.permissions().mode() & needed == 0
    })
}

fn sockets(runtime_dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "sockets";
    let start = if Path::new("/run/systemd/system").exists()
        && runtime_dir == Path::new(RUNTIME_DIR)
    {
        "sudo systemctl enable --now nix-gocacheprog-build.socket nix-gocacheprog-control.socket"
    } else {
        "start the daemon, as `nix-gocacheprog help daemon` says"
    };
    let mut findings = Vec::new();
    for (path, mode, who) in [
        (config::build_socket(runtime_dir), 0o666, "builds"),
        (
            config::control_socket(runtime_dir),
            0o600,
            "root and the hook",
        ),
    ] {
        let shown = path.display();
        findings.push(match crate::fs::metadata(&path) {
            Ok(found) if found.permissions().mode() & 0o777 == mode => {
                Finding::right(CHECK, format!("{shown} is there for {who}"))
            }
            Ok(found) => Finding::wrong(
                CHECK,
                format!(
                    "{shown}, for {who}, has mode {:o} instead of {mode:o}",
                    found.permissions().mode() & 0o777
                ),
                format!("sudo chmod {mode:o} {shown}"),
            ),
            Err(e) if e.kind() == Some(std::io::ErrorKind::PermissionDenied) && mode == 0o600 => {
                Finding::note(
                    CHECK,
                    format!("{shown} is out of sight, as it should be: only root can check it"),
                )
            }
            Err(e) => Finding::wrong(CHECK, format!("no socket for {who}: {}", e.chain()), start),
        });
    }
    // Where both are missing, that is one fault.
    findings.dedup_by(|second, first| first.mend.is_some() && first.mend == second.mend);
    findings
}

fn daemon(runtime_dir: &Path) -> Finding {
    const CHECK: &str = "daemon";
    let release = env!("CARGO_PKG_VERSION");
    match connection::look_in(Some(runtime_dir), PATIENCE) {
        Ok(welcome) if welcome.release == release => Finding::right(
            CHECK,
            format!("it answers, and is of this release ({release})"),
        ),
        Ok(welcome) => Finding::note(
            CHECK,
            format!(
                "running, release {:?} (this is {release}); the protocols are compatible",
                welcome.release
            ),
        ),
        Err(e) => Finding::wrong(
            CHECK,
            format!(
                "{}; `sudo journalctl -u nix-gocacheprog` may say why",
                e.chain()
            ),
            restart(),
        ),
    }
}

/// What the daemon says of its remote. Only root can ask; and most daemons have none.
fn remote(runtime_dir: &Path) -> Option<Finding> {
    const CHECK: &str = "remote";
    let socket = config::control_socket(runtime_dir);
    let asked = control::ask(
        &socket,
        &Ask::CheckRemote.into(),
        REMOTE_PATIENCE,
        &mut |_| {},
    );
    let Ok(Reply::Remote { url, error, time }) = asked else {
        return None;
    };
    let url = url?;
    Some(match error {
        None => Finding::right(
            CHECK,
            format!("{url} answers, in {:.1} ms", time as f64 / 1000.0),
        ),
        Some(error) => Finding::wrong(
            CHECK,
            format!(
                "{url} failed, and builds go on without it: {error}. If it is not to be used any more:"
            ),
            install("--no-remote"),
        ),
    })
}

/// Whether every build gets the mounts of static mode.
fn is_mounted(nix: &Nix) -> bool {
    ["sandbox-paths", "extra-sandbox-paths"]
        .iter()
        .any(|name| nix.get(name).contains(&format!("{SANDBOX_CLIENT}=")))
}

/// What Nix makes of its configuration.
fn configuration(nix: &Nix) -> Vec<Finding> {
    let mut findings = vec![Finding::right("nix", nix.version.clone())];
    let hook = nix.get("pre-build-hook");
    let is_static = is_mounted(nix);
    findings.push(match nix::look_at_hook(hook) {
        _ if is_static && nix.is_lix() => Finding::right(
            "nix.conf",
            "every build gets the mounts of static mode, which is what Lix needs",
        ),
        _ if is_static => Finding::right("nix.conf", "every build gets the mounts of static mode"),
        _ if nix.is_lix() => Finding::wrong(
            "nix.conf",
            "Lix runs the pre-build-hook and ignores what it says",
            install("--mode static"),
        ),
        nix::Hook::None => Finding::wrong(
            "nix.conf",
            "pre-build-hook is not set, so builds are not given the cache",
            install(""),
        ),
        nix::Hook::Missing => Finding::wrong(
            "nix.conf",
            format!("pre-build-hook is {hook}, which cannot be run: every sandboxed build fails"),
            install(""),
        ),
        nix::Hook::Other => Finding::wrong(
            "nix.conf",
            format!("pre-build-hook is {hook}, which is not ours: `install` chains it"),
            install(""),
        ),
        nix::Hook::Ours(None) => Finding::right("nix.conf", format!("pre-build-hook is {hook}")),
        nix::Hook::Ours(Some(chained)) if !nix::is_runnable(&chained) => Finding::wrong(
            "nix.conf",
            format!("pre-build-hook is {hook}, which cannot run the hook that it chains, {chained}: it is missing"),
            install(""),
        ),
        nix::Hook::Ours(Some(chained)) => Finding::right(
            "nix.conf",
            format!("pre-build-hook is {hook}, which runs {chained} first"),
        ),
    });
    findings.push(match nix.get("sandbox") {
        "true" => Finding::right("sandbox", "builds are sandboxed"),
        value => Finding::note(
            "sandbox",
            format!(
                "sandbox = {value}: a build without a sandbox uses this host's client at a path that hook.sh knows"
            ),
        ),
    });
    if let Some(user_hook) = nix.user_hook() {
        findings.push(Finding::wrong(
            "trusted",
            format!(
                "{} sets pre-build-hook, which Nix's daemon ignores, with a warning at each command",
                user_hook.display()
            ),
            format!(
                "sed -i '/^ *pre-build-hook/d' {}",
                user_hook.display()
            ),
        ));
    } else {
        findings.push(Finding::right(
            "trusted",
            "no user's nix.conf sets pre-build-hook",
        ));
    }
    findings
}

fn cache(cache_dir: &Path, builder: Option<u32>, min_free: Option<u64>) -> Vec<Finding> {
    const CHECK: &str = "cache";
    let builds = cache_dir.join("builds");
    let mut findings = Vec::new();
    let closed = cache_dir
        .ancestors()
        .map(Path::to_path_buf)
        .chain([builds.clone()])
        .find(|dir| is_closed(dir, builder));
    if let Err(e) = crate::fs::metadata(&builds) {
        findings.push(Finding::wrong(
            CHECK,
            format!("no folder for builds: {}", e.chain()),
            restart(),
        ));
        return findings;
    }
    findings.push(match closed {
        Some(dir) => Finding::wrong(
            CHECK,
            format!("{} cannot be passed through by builds", dir.display()),
            format!("sudo chmod a+x {}", dir.display()),
        ),
        None => Finding::right(
            CHECK,
            format!(
                "{} can be reached by builds, and not listed",
                builds.display()
            ),
        ),
    });
    findings.push(free_space(cache_dir, min_free));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    findings.push(match Mount::of(&mounts, cache_dir) {
        Some(mount) if mount.writes_access_times() => Finding::wrong(
            "access times",
            "each hit writes an access time to the cache's disk",
            format!("sudo mount -o remount,noatime {}", mount.point),
        ),
        _ => Finding::right("access times", "a hit writes none, or seldom"),
    });
    findings
}

/// Whether there is room. The daemon evicts by itself, so what is missing has to come from elsewhere.
fn free_space(cache_dir: &Path, min_free: Option<u64>) -> Finding {
    const CHECK: &str = "free space";
    let space = match sys::space(cache_dir) {
        Ok(space) => space,
        Err(e) => return Finding::wrong(CHECK, e.chain(), "look at the disk"),
    };
    let usual = Limits::default().floor(space);
    let reserve = min_free.unwrap_or(usual);
    if space.free >= reserve {
        return Finding::right(CHECK, format!("{} are free", show_size(space.free)));
    }
    Finding::wrong(
        CHECK,
        format!(
            "only {} free, which is below the reserve of {}: nothing new is cached",
            show_size(space.free),
            show_size(reserve)
        ),
        if space.free > usual && !is_nixos() {
            install(&format!("--min-free {}M", usual >> 20))
        } else {
            format!("remove something from the disk of {}", cache_dir.display())
        },
    )
}

fn selinux() -> Option<Finding> {
    const CHECK: &str = "selinux";
    let enforces = std::fs::read_to_string("/sys/fs/selinux/enforce").ok()?;
    if enforces.trim() != "1" {
        return Some(Finding::right(CHECK, "it does not enforce"));
    }
    Some(Finding::note(
        CHECK,
        "it enforces: if builds cannot reach the daemon, `sudo ausearch -m avc -c nix-gocacheprog` says so, and \
         `sudo restorecon -R /usr/local/bin/nix-gocacheprog /usr/local/lib/nix-gocacheprog /var/cache/nix-gocacheprog \
         /run/nix-gocacheprog` sets the labels",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_marked_and_comes_with_what_mends_it() {
        let findings = [
            Finding::right("a", "fine"),
            Finding::wrong("b", "broken", "hammer"),
        ];
        let text = table(&findings, false);
        assert!(text.contains("✓ a"), "{text}");
        assert!(
            text.contains("✗ b") && text.contains("fix: hammer"),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
    }

    fn nix(version: &str, settings: &str) -> Nix {
        Nix::new(version, settings, None)
    }

    fn about_nix_conf(nix: &Nix) -> (State, String) {
        let mut findings = configuration(nix).into_iter();
        let finding = findings.find(|f| f.check == "nix.conf").unwrap();
        (finding.state, finding.mend.unwrap_or(finding.text))
    }

    #[test]
    fn each_configuration_gets_its_own_advice() {
        let plain = "nix (Nix) 2.28.1";
        let lix = "nix (Lix, like Nix) 2.93.0";
        let mounts = "sandbox-paths = /bin/sh=/x /gocache/client=/usr/local/bin/nix-gocacheprog\n";
        for (version, settings, state, said) in [
            (
                plain,
                "pre-build-hook = \nsandbox = true\n",
                State::Wrong,
                " install",
            ),
            (
                plain,
                "pre-build-hook = /no/such/hook\n",
                State::Wrong,
                "install",
            ),
            (
                plain,
                "pre-build-hook = /bin/sh\n",
                State::Wrong,
                " install",
            ),
            (plain, mounts, State::Right, "static mode"),
            (
                lix,
                "pre-build-hook = /bin/sh\n",
                State::Wrong,
                "--mode static",
            ),
            (lix, mounts, State::Right, "Lix"),
        ] {
            let (found, text) = about_nix_conf(&nix(version, settings));
            assert_eq!(found, state, "{settings}");
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn a_home_that_is_closed_to_others_is_open_to_its_owners_builds() {
        let dir = crate::test_dir::TestDir::new();
        let owner = std::fs::metadata(dir.path()).unwrap().uid();
        for (mode, closed_to_owner, closed_to_others) in [
            (0o755, false, false),
            (0o750, false, true),
            (0o600, true, true),
        ] {
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(
                is_closed(dir.path(), Some(owner)),
                closed_to_owner,
                "{mode:o}"
            );
            for builder in [None, Some(owner + 1)] {
                assert_eq!(is_closed(dir.path(), builder), closed_to_others, "{mode:o}");
            }
        }
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    }
}
