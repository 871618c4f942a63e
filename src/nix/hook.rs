//! Nix's pre-build-hook: called with a derivation and the chroot of its build, prints the
//! mounts for that build. The only file, with `derivation.rs`, that knows Nix's syntax.
//!
//! Nix waits for it on the scheduler's thread, and ends the whole invocation when it fails or
//! prints a bad line. So it prints a complete set of mounts or nothing, never fails, and
//! never takes longer than a second. Only what an earlier hook does, which it runs first when
//! told to, is passed on as it is.

use crate::config::{
    self, HOOK_LIMIT, SANDBOX_CLIENT, SANDBOX_DIR, SANDBOX_RUNTIME_DIR, SETUP_HOOK_NAME,
};
use crate::error::{Error, Result};
use crate::fs;
use crate::id::BuildId;
use crate::log;
use crate::mode::Mode;
use crate::nix::derivation;
use crate::protocol::control::{self, Ask, Reply};
use crate::sys;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// No derivation is as large, in bytes; the largest in nixpkgs have some hundred KiB.
const DRV_MAX: u64 = 16 << 20;

/// What the hook is called with.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The derivation.
    pub drv: PathBuf,
    /// The chroot of its build.
    pub chroot: Option<PathBuf>,
    /// Where the daemon's sockets are.
    pub runtime_dir: PathBuf,
    /// Another hook, to run first.
    pub chain: Option<PathBuf>,
}

/// Prints the mounts for a build, or nothing. Whatever goes wrong is said on stderr. The exit
/// code is 0, or that of the other hook.
pub fn run(options: Options) -> u8 {
    let mut answer = match &options.chain {
        None => Vec::new(),
        Some(program) => match run_other(program, &options) {
            Ok((0, answer)) => answer,
            Ok((code, _)) => return code,
            // Nothing but this hook names it any more, and Nix would end every build for it.
            Err(e) => {
                log::warn(format!("{}: continuing without it", e.chain()));
                Vec::new()
            }
        },
    };
    let (send, receive) = mpsc::channel();
    // A thread, because a file system or a daemon that hangs would hang us with it. It ends
    // with the process.
    // One that cannot be had says nothing either.
    let _ = thread::Builder::new().spawn(move || {
        send.send(mounts(
            &options.drv,
            options.chroot.as_deref(),
            &options.runtime_dir,
        ))
    });
    match receive.recv_timeout(HOOK_LIMIT) {
        Ok(Ok(mounts)) => append(&mut answer, &mounts),
        Ok(Err(e)) => log::warn(format!(
            "this build goes on without the shared cache: {}",
            e.chain()
        )),
        Err(_) => log::warn(format!(
            "this build goes on without the shared cache: no answer within {}ms from the disk or the daemon \
             (see `nix-gocacheprog doctor`)",
            HOOK_LIMIT.as_millis()
        )),
    }
    if let Err(e) = sys::stdout().write_all(&answer) {
        log::warn(format!("printing the mounts for Nix failed: {e}"));
    }
    0
}

/// Runs another pre-build-hook as Nix would run it; its exit code and its answer.
fn run_other(program: &Path, options: &Options) -> Result<(u8, Vec<u8>)> {
    let output = Command::new(program)
        .arg(&options.drv)
        .args(&options.chroot)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| Error::io("run the pre-build-hook", program, e))?;
    let code = match output.status.code() {
        Some(code) => u8::try_from(code).unwrap_or(1),
        // As a shell has it; Nix only asks whether it is 0.
        None => {
            128 + output
                .status
                .signal()
                .map_or(0, |signal| signal as u8 & 127)
        }
    };
    Ok((code, output.stdout))
}

/// Adds our answer to another hook's, as Nix reads that: a last line without its end
/// counts for nothing, and only a blank line ends the mounts.
fn append(answer: &mut Vec<u8>, ours: &[u8]) {
    if ours.is_empty() {
        return;
    }
    let whole = answer
        .iter()
        .rposition(|c| *c == b'\n')
        .map_or(0, |at| at + 1);
    answer.truncate(whole);
    let among_mounts = answer
        .split_inclusive(|c| *c == b'\n')
        .fold(false, |among_mounts, line| !among_mounts || line != b"\n");
    if among_mounts && !answer.is_empty() {
        answer.push(b'\n');
    }
    answer.extend_from_slice(ours);
}

/// What to print: empty for a build that does not use the setup hook.
fn mounts(drv: &Path, chroot: Option<&Path>, runtime_dir: &Path) -> Result<Vec<u8>> {
    let text = derivation_text(drv, chroot);
    if !wants_cache(drv, text.as_deref()) {
        return Ok(Vec::new());
    }
    let mode = mode(text.as_deref().unwrap_or_default());
    if mode == Mode::Off {
        return Ok(Vec::new());
    }
    let client = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let sockets = fs::canonicalize(&runtime_dir.join("build"))?;
    let socket = config::control_socket(runtime_dir);
    let name = derivation::name(drv.as_os_str().as_bytes()).unwrap_or("unknown");
    let ask = Ask::Register {
        name: name.strip_suffix(".drv").unwrap_or(name).to_string(),
        chroot: chroot.map(lifeline),
        mode,
        fixed: text
            .as_deref()
            .and_then(|text| derivation::has_fixed_output(text).ok()),
    };
    let Reply::Registered { build, directory } =
        control::ask(&socket, &ask.into(), HOOK_LIMIT, &mut |_| {})?
    else {
        return Err(Error::peer(
            "unexpected answer: is the daemon of another version?",
        ));
    };
    // Nix mounts as root what the daemon, which is not, names here.
    let is_build = BuildId::parse(&build).is_some();
    if !is_build || !directory.ends_with(Path::new("builds").join(&build)) {
        return Err(Error::peer("the daemon has named no build directory"));
    }
    let mut out = b"extra-sandbox-paths\n".to_vec();
    for (target, source) in [
        (SANDBOX_CLIENT.to_string(), fs::canonicalize(&client)?),
        (format!("{SANDBOX_RUNTIME_DIR}/build"), sockets),
        (
            format!("{SANDBOX_DIR}/{build}"),
            build_directory(&directory)?,
        ),
    ] {
        let source = source.into_os_string().into_vec();
        if source.iter().any(|c| *c == b'=' || c.is_ascii_whitespace()) {
            return Err(Error::input(format!(
                "Nix cannot mount a path with a space or an equals sign: {}",
                String::from_utf8_lossy(&source)
            )));
        }
        out.extend_from_slice(target.as_bytes());
        out.push(b'=');
        out.extend_from_slice(&source);
        out.push(b'\n');
    }
    out.push(b'\n');
    Ok(out)
}

/// The build directory's real path. The daemon makes it and owns what is above it, so a symbolic link
/// in its place could only be there to have something else mounted.
fn build_directory(path: &Path) -> Result<PathBuf> {
    let real = fs::canonicalize(path)?;
    if real.file_name() != path.file_name() || !real.is_dir() {
        return Err(Error::input(format!(
            "{} is a symbolic link or not a directory",
            path.display()
        )));
    }
    let above = real.parent().unwrap_or(&real);
    let (made, above) = (fs::metadata(&real)?, fs::metadata(above)?);
    // The daemon makes both, with mode 0711. Whatever cannot be entered by others is not its own to show to a build.
    let is_open = |metadata: &Metadata| metadata.mode() & 0o003 == 0o001;
    if made.uid() != above.uid() || !is_open(&made) || !is_open(&above) {
        return Err(Error::input(format!(
            "{} is not a directory of the daemon: owner {}, mode {:o}, but owner {}, mode {:o} of the directory above it",
            path.display(),
            made.uid(),
            made.mode() & 0o7777,
            above.uid(),
            above.mode() & 0o7777
        )));
    }
    Ok(real)
}

/// What is to be built: Determinate Nix says so itself, also where no file does.
fn derivation_text(drv: &Path, chroot: Option<&Path>) -> Option<Vec<u8>> {
    if let Some(json) = std::env::var_os("NIX_DERIVATION_V4") {
        let json = json.into_vec();
        match derivation::has_input(&json, |_| false) {
            Ok(_) => return Some(json),
            Err(e) => log::debug(|| format!("cannot read NIX_DERIVATION_V4: {}", e.chain())),
        }
    }
    read_derivation(drv, chroot)
        .inspect_err(|e| log::debug(|| e.chain()))
        .ok()
}

/// Whether the derivation has the setup hook among its inputs. Where that cannot be known
/// the answer is yes: the mounts do no harm to a build that does not use them.
fn wants_cache(drv: &Path, text: Option<&[u8]>) -> bool {
    let Some(text) = text else { return true };
    derivation::has_input(text, is_setup_hook).unwrap_or_else(|e| {
        log::debug(|| {
            format!(
                "whether {} wants the cache is unknown: {}",
                drv.display(),
                e.chain()
            )
        });
        true
    })
}

/// What the derivation says that its build may do with the cache. One that cannot be read says nothing.
fn mode(text: &[u8]) -> Mode {
    match derivation::variable(text, "NIX_GOCACHEPROG") {
        Ok(Some(said)) => {
            let mode = Mode::parse(&said);
            if mode == Mode::Off && said != "off" {
                log::warn(format!(
                    "NIX_GOCACHEPROG={said:?} is unknown, which means off: this build goes on without the shared cache"
                ));
            }
            mode
        }
        Ok(None) | Err(_) => Mode::On,
    }
}

/// Whether an input of this name is the setup hook. nixpkgs appends the platform to names of
/// what is built for another one, and the output when it is not the first.
fn is_setup_hook(name: &str) -> bool {
    name.strip_suffix(".drv")
        .unwrap_or(name)
        .strip_prefix(SETUP_HOOK_NAME)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Reads the derivation, which a store that is not at `/nix/store` has beside the chroot.
fn read_derivation(drv: &Path, chroot: Option<&Path>) -> Result<Vec<u8>> {
    let real = if drv.exists() {
        drv.to_path_buf()
    } else {
        chroot
            .map(lifeline)
            .and_then(|path| {
                let path = path.into_os_string().into_vec();
                let drv = path.strip_suffix(b".chroot")?;
                Some(PathBuf::from(OsString::from_vec(drv.to_vec())))
            })
            .unwrap_or_else(|| drv.to_path_buf())
    };
    let mut text = Vec::new();
    // Before reading: there is no time to read for nothing.
    let is_small = fs::metadata(&real)?.len() <= DRV_MAX;
    if is_small {
        fs::open(&real)?
            .take(DRV_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|e| Error::io("read", &real, e))?;
    }
    if !is_small || text.len() as u64 > DRV_MAX {
        return Err(Error::input(format!(
            "{} is larger than {DRV_MAX} bytes",
            real.display()
        )));
    }
    Ok(text)
}

/// The part of the chroot's path that anyone can look at, and that is gone with the build:
/// from Nix 2.24 on the chroot is `root` in a directory that only root can enter.
fn lifeline(chroot: &Path) -> PathBuf {
    if chroot.ends_with("root") {
        chroot.parent().unwrap_or(chroot).to_path_buf()
    } else {
        chroot.to_path_buf()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_hooks_answer_does_not_swallow_ours() {
        let ours = "extra-sandbox-paths\n/o=/p\n\n";
        let block = "extra-sandbox-paths\n/a\n";
        for (theirs, joined) in [
            (String::new(), ours.to_string()),
            (format!("{block}\n"), format!("{block}\n{ours}")),
            // The end of the input ends their mounts, as long as they come last.
            (block.to_string(), format!("{block}\n{ours}")),
            // Nix reads no line without its end.
            (format!("{block}/lost=/line"), format!("{block}\n{ours}")),
            ("extra-sandbox-paths".to_string(), ours.to_string()),
            (
                format!("{block}\n{block}"),
                format!("{block}\n{block}\n{ours}"),
            ),
            // What Nix does not accept is theirs to answer for.
            ("\n".to_string(), format!("\n\n{ours}")),
        ] {
            let mut answer = theirs.clone().into_bytes();
            append(&mut answer, ours.as_bytes());
            assert_eq!(String::from_utf8(answer).unwrap(), joined, "{theirs:?}");
            let mut answer = theirs.clone().into_bytes();
            append(&mut answer, b"");
            assert_eq!(answer, theirs.as_bytes());
        }
    }

    #[test]
    fn the_setup_hook_is_known_by_its_name() {
        for (name, known) in [
            ("nix-gocacheprog-hook", true),
            ("nix-gocacheprog-hook.drv", true),
            ("nix-gocacheprog-hook-aarch64-unknown-linux-gnu.drv", true),
            ("nix-gocacheprog", false),
            ("nix-gocacheprog-hooks.drv", false),
            ("other-nix-gocacheprog-hook", false),
        ] {
            assert_eq!(is_setup_hook(name), known, "{name}");
        }
    }
}
