//! The two listening sockets: from systemd, or bound here.

use crate::config;
use crate::error::{Error, Result};
use crate::fs;
use crate::sys;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// The two listening sockets.
#[derive(Debug)]
pub struct Sockets {
    /// What builds connect to.
    pub build: UnixListener,
    /// What the hook and the administrator connect to.
    pub control: UnixListener,
    /// systemd holds them while we are away.
    pub activated: bool,
    /// Where they are, for the log.
    pub place: String,
}

impl Sockets {
    /// Takes the sockets from systemd if it passes them, and binds them otherwise.
    ///
    /// # Errors
    /// When systemd passes others, or a socket cannot be bound.
    pub fn new(runtime_dir: &Path) -> Result<Self> {
        let mut passed = sys::listen_fds()?;
        let sockets = if passed.is_empty() {
            fs::create_dir_all(runtime_dir)?;
            Self {
                // First, so that whoever sees the other one finds this one too.
                control: bind(&config::control_socket(runtime_dir), 0o700, 0o600)?,
                build: bind(&config::build_socket(runtime_dir), 0o755, 0o666)?,
                activated: false,
                place: runtime_dir.display().to_string(),
            }
        } else {
            let names: Vec<_> = passed.iter().map(|(name, _)| name.clone()).collect();
            let mut take = |wanted: &str| {
                let at = passed.iter().position(|(name, _)| name == wanted);
                at.map(|at| passed.swap_remove(at).1).ok_or_else(|| {
                    Error::input(format!(
                        "systemd passed sockets named {names:?}, without one named {wanted:?}: set \
                         FileDescriptorName= in the socket units"
                    ))
                })
            };
            Self {
                build: take("build")?,
                control: take("control")?,
                activated: true,
                place: "the sockets from systemd".into(),
            }
        };
        for listener in [&sockets.build, &sockets.control] {
            listener
                .set_nonblocking(true)
                .map_err(|e| Error::io("set up", "a listening socket", e))?;
        }
        Ok(sockets)
    }
}

fn bind(path: &Path, dir_mode: u32, mode: u32) -> Result<UnixListener> {
    let dir = path.parent().unwrap_or(path);
    fs::ensure_dir(dir, dir_mode)?;
    if UnixStream::connect(path).is_ok() {
        return Err(Error::input(format!(
            "another daemon listens on {}: stop that one, or give this one a --runtime-dir of its own",
            path.display()
        )));
    }
    // Left by a daemon that was killed.
    fs::remove_file(path)?;
    let listener = UnixListener::bind(path).map_err(|e| Error::io("listen on", path, e))?;
    fs::set_mode(path, mode)?;
    Ok(listener)
}
