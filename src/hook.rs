//! Nix's pre-build-hook: called with a derivation and the chroot of its build, prints the
//! mounts for that build. The only file, with `derivation.rs`, that knows Nix's syntax.
//!
//! Nix waits for it on the scheduler's thread, and ends the whole invocation when it fails or
//! prints a bad line. So it prints a complete set of mounts or nothing, never fails, and
//! never takes longer than a second.

use crate::config::{
    self, HOOK_LIMIT, SANDBOX_CLIENT, SANDBOX_DIR, SANDBOX_RUNTIME_DIR, SETUP_HOOK_NAME,
};
use crate::control::{self, Ask, Reply};
use crate::derivation;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::BuildId;
use crate::log;
use crate::sys;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

/// No derivation is as large, in bytes; the largest in nixpkgs have some hundred KiB.
const DRV_MAX: u64 = 16 << 20;

/// Prints the mounts for a build, or nothing. Whatever goes wrong is said on stderr.
pub fn run(drv: PathBuf, chroot: Option<PathBuf>, runtime_dir: PathBuf) {
    let (send, receive) = mpsc::channel();
    // A thread, because a file system or a daemon that hangs would hang us with it. It ends
    // with the process.
    let started = thread::Builder::new()
        .spawn(move || send.send(mounts(&drv, chroot.as_deref(), &runtime_dir)));
    if let Err(e) = started {
        return log::warn(format!(
            "this build goes on without the shared cache: cannot start a thread: {e}"
        ));
    }
    match receive.recv_timeout(HOOK_LIMIT) {
        Ok(Ok(mounts)) => {
            if let Err(e) = sys::stdout().write_all(&mounts) {
                log::warn(format!("cannot tell Nix the mounts: {e}"));
            }
        }
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
}

/// What to print: empty for a build that does not use the setup hook.
fn mounts(drv: &Path, chroot: Option<&Path>, runtime_dir: &Path) -> Result<Vec<u8>> {
    if !wants_cache(drv, chroot) {
        return Ok(Vec::new());
    }
    let client = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let sockets = fs::canonicalize(&runtime_dir.join("build"))?;
    let socket = config::control_socket(runtime_dir);
    let name = derivation::name(drv.as_os_str().as_bytes()).unwrap_or("unknown");
    let ask = Ask::Register {
        name: name.strip_suffix(".drv").unwrap_or(name).to_string(),
        chroot: chroot.map(lifeline),
    };
    let Reply::Registered { build, directory } =
        control::ask(&socket, &ask, HOOK_LIMIT, &mut |_| {})?
    else {
        return Err(Error::peer(
            "the daemon's answer does not fit the question: is it of another version?",
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
    if real.file_name() == path.file_name() && real.is_dir() {
        Ok(real)
    } else {
        Err(Error::input(format!(
            "{} is a link, or no directory",
            path.display()
        )))
    }
}

/// Whether the derivation has the setup hook among its inputs. Where that cannot be known
/// the answer is yes: the mounts do no harm to a build that does not use them.
fn wants_cache(drv: &Path, chroot: Option<&Path>) -> bool {
    let text = match read_derivation(drv, chroot) {
        Ok(text) => text,
        Err(e) => {
            log::debug(|| {
                format!(
                    "whether the build wants the cache is unknown: {}",
                    e.chain()
                )
            });
            return true;
        }
    };
    match derivation::input_names(&text) {
        Ok(names) => names
            .iter()
            .any(|name| name.strip_suffix(".drv").unwrap_or(name) == SETUP_HOOK_NAME),
        Err(e) => {
            log::debug(|| format!("cannot read {}: {}", drv.display(), e.chain()));
            true
        }
    }
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
