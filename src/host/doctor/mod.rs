//! Says what is right and what is wrong with an installation, and what mends it.
//!
//! Each check is a function that looks and never changes anything; asking the daemon may make
//! systemd start it, which a build would do too.

mod nix;

use crate::cache::store::Limits;
use crate::client::connection;
use crate::config::{self, RUNTIME_DIR, SANDBOX_CLIENT};
use crate::error::{Error, Result};
use crate::output;
use crate::protocol::control::{self, Ask, Reply};
use crate::sys;
use nix::Nix;
use serde::Serialize;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// For programs.
    pub json: bool,
    /// Where the daemon's sockets are.
    pub runtime_dir: PathBuf,
    /// Where its cache is.
    pub cache_dir: PathBuf,
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

/// WaitBudget with a daemon that may have to be started first.
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

fn examine(options: &Options) -> Vec<Finding> {
    let mut findings = vec![binary()];
    findings.extend(sockets(&options.runtime_dir));
    findings.push(daemon(&options.runtime_dir));
    findings.extend(remote(&options.runtime_dir));
    match Nix::ask() {
        Ok(nix) => findings.extend(configuration(&nix)),
        Err(e) => findings.push(Finding::wrong(
            "nix",
            format!("Nix does not say how it is configured: {}", e.chain()),
            "install Nix, or put it into PATH",
        )),
    }
    findings.extend(cache(&options.cache_dir));
    findings.extend(selinux());
    findings
}

fn table(findings: &[Finding], colours: bool) -> String {
    let mut out = String::new();
    for finding in findings {
        let (mark, colour) = match finding.state {
            State::Right => ("✓", 32),
            State::Note => ("•", 33),
            State::Wrong => ("✗", 31),
        };
        if colours {
            let _ = write!(out, "\x1b[{colour}m{mark}\x1b[0m");
        } else {
            out.push_str(mark);
        }
        let _ = writeln!(out, " {:<15} {}", finding.check, finding.text);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(out, "{:18}mend it: {mend}", "");
        }
    }
    out
}

/// A sandbox has no libraries for the client to load.
fn binary() -> Finding {
    const CHECK: &str = "program";
    let looked = std::env::current_exe()
        .map_err(|e| Error::io("find", "this program", e))
        .and_then(|path| {
            let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
            let mode = crate::fs::metadata(&path)?.permissions().mode();
            Ok((path, is_static(&bytes), mode))
        });
    let (path, is_static, mode) = match looked {
        Ok(looked) => looked,
        Err(e) => return Finding::wrong(CHECK, e.chain(), "install it again"),
    };
    let shown = path.display();
    if !is_static {
        return Finding::wrong(
            CHECK,
            format!("{shown} needs libraries that no sandbox has"),
            "install the static release, which test/release builds",
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
    Finding::right(
        CHECK,
        format!("{shown}, release {version}, is static and anyone can run it"),
    )
}

/// Whether an ELF file names no program loader: has no PT_INTERP header.
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, length: usize| {
        let bytes = elf.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0usize, |n, byte| n << 8 | usize::from(*byte)),
        )
    };
    let look = || {
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        // 64 bits and little-endian, as all that we are built for.
        (elf.get(..6)? == b"\x7fELF\x02\x01").then_some(())?;
        let types: Option<Vec<_>> = (0..count).map(|i| number(start + i * size, 4)).collect();
        Some(!types?.contains(&3))
    };
    look().unwrap_or(false)
}

fn sockets(runtime_dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "sockets";
    let start = if Path::new("/run/systemd/system").exists()
        && runtime_dir == Path::new(RUNTIME_DIR)
    {
        "sudo systemctl enable --now nix-gocacheprog-build.socket nix-gocacheprog-control.socket"
    } else {
        "start the daemon: `nix-gocacheprog install --dry-run` says how"
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
                "it answers, and is of release {:?}; this is {release}. They understand each other",
                welcome.release
            ),
        ),
        Err(e) => Finding::wrong(
            CHECK,
            e.chain(),
            "sudo systemctl restart nix-gocacheprog.service; journalctl -u nix-gocacheprog says why",
        ),
    }
}

/// What the daemon says of its remote. Only root can ask; and most daemons have none.
fn remote(runtime_dir: &Path) -> Option<Finding> {
    const CHECK: &str = "remote";
    let socket = config::control_socket(runtime_dir);
    let asked = control::ask(&socket, &Ask::CheckRemote, REMOTE_PATIENCE, &mut |_| {});
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
            format!("{url} is of no use, and builds go on without it: {error}"),
            "look at the URL, the credentials and the server: `nix-gocacheprog daemon --help` lists the flags",
        ),
    })
}

/// What Nix makes of its configuration.
fn configuration(nix: &Nix) -> Vec<Finding> {
    let mut findings = vec![Finding::right("nix", nix.version.clone())];
    let hook = nix.get("pre-build-hook");
    let mounts = format!(
        "{} {}",
        nix.get("sandbox-paths"),
        nix.get("extra-sandbox-paths")
    );
    let is_static = mounts.contains(&format!("{SANDBOX_CLIENT}="));
    findings.push(match nix::look_at_hook(hook) {
        _ if is_static && nix.is_lix() => Finding::right(
            "nix.conf",
            "every build gets the mounts of static mode, which is what Lix needs",
        ),
        _ if is_static => Finding::right("nix.conf", "every build gets the mounts of static mode"),
        _ if nix.is_lix() => Finding::wrong(
            "nix.conf",
            "Lix runs the pre-build-hook and ignores what it says",
            "sudo nix-gocacheprog install --mode static",
        ),
        nix::Hook::None => Finding::wrong(
            "nix.conf",
            "pre-build-hook is not set, so builds are not given the cache",
            "sudo nix-gocacheprog install",
        ),
        nix::Hook::Missing => Finding::wrong(
            "nix.conf",
            format!("pre-build-hook is {hook}, which cannot be run: every sandboxed build fails"),
            "sudo nix-gocacheprog install",
        ),
        nix::Hook::Other => Finding::wrong(
            "nix.conf",
            format!("pre-build-hook is {hook}, which is not ours"),
            "sudo nix-gocacheprog install, which chains it",
        ),
        nix::Hook::Ours(None) => Finding::right("nix.conf", format!("pre-build-hook is {hook}")),
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
                "{} sets pre-build-hook, which Nix's daemon takes from nobody but a trusted user",
                user_hook.display()
            ),
            format!(
                "remove it from {}, or add yourself to trusted-users",
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

fn cache(cache_dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "cache";
    let builds = cache_dir.join("builds");
    let mut findings = Vec::new();
    let closed = cache_dir
        .ancestors()
        .map(Path::to_path_buf)
        .chain([builds.clone()])
        .find(|dir| crate::fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 == 0));
    if let Err(e) = crate::fs::metadata(&builds) {
        findings.push(Finding::wrong(
            CHECK,
            format!("no folder for builds: {}", e.chain()),
            "start the daemon once: `sudo nix-gocacheprog stats` does",
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
    findings.push(match sys::space(cache_dir) {
        Ok(space) if space.free < Limits::default().floor(space) => Finding::wrong(
            "free space",
            format!(
                "only {} are free, and so much is always left to others",
                shown_size(space.free)
            ),
            "sudo nix-gocacheprog gc --max-size 1G, or make room",
        ),
        Ok(space) => Finding::right("free space", format!("{} are free", shown_size(space.free))),
        Err(e) => Finding::wrong("free space", e.chain(), "look at the disk"),
    });
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    findings.push(match options_of_mount(&mounts, cache_dir) {
        Some(options) if is_strict(options) => Finding::wrong(
            "access times",
            "each hit writes an access time to the cache's disk",
            format!(
                "mount it with relatime or noatime, as in: sudo mount -o remount,noatime {}",
                "MOUNTPOINT"
            ),
        ),
        _ => Finding::right("access times", "a hit writes none, or seldom"),
    });
    findings
}

/// The options of the file system that a path is on, as /proc/self/mounts says.
fn options_of_mount<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let on = fields.nth(1)?;
        let options = fields.nth(1)?;
        path.starts_with(on).then_some((on.len(), options))
    });
    // Of two on the same path the later hides the earlier.
    found
        .max_by_key(|(length, _)| *length)
        .map(|(_, options)| options)
}

fn is_strict(options: &str) -> bool {
    !options
        .split(',')
        .any(|option| ["relatime", "noatime", "ro"].contains(&option))
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

fn shown_size(bytes: u64) -> String {
    crate::size::show_size(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        let mut elf = vec![0; 0x40 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x36] = 56;
        elf[0x38] = 2;
        elf[0x40] = 1;
        elf[0x40 + 56] = 2;
        assert!(is_static(&elf));
        elf[0x40 + 56] = 3;
        assert!(!is_static(&elf));
        assert!(!is_static(&elf[..0x50]));
        assert!(!is_static(b"#!/bin/sh\n"));
    }

    #[test]
    fn the_mount_that_a_path_is_on_is_the_innermost() {
        let mounts =
            "/dev/a / ext4 rw,relatime 0 0\n/dev/b /var ext4 rw 0 0\n/dev/c /va xfs ro 0 0\n";
        let options = options_of_mount(mounts, Path::new("/var/cache/x")).unwrap();
        assert!(is_strict(options), "{options}");
        assert!(!is_strict(
            options_of_mount(mounts, Path::new("/home")).unwrap()
        ));
    }

    #[test]
    fn what_is_wrong_is_marked_and_comes_with_what_mends_it() {
        let findings = [
            Finding::right("a", "fine"),
            Finding::wrong("b", "broken", "hammer"),
        ];
        let text = table(&findings, false);
        assert!(text.contains("✓ a"), "{text}");
        assert!(
            text.contains("✗ b") && text.contains("mend it: hammer"),
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
                "sudo nix-gocacheprog install",
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
                "chains it",
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
}
