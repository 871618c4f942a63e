//! How long a proxy runs: until SIGTERM or SIGINT, or until the build that it serves has ended.

use crate::error::{Error, Result};
use crate::sys;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// How often the kernel is asked about a process that cannot be waited for.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The process that a proxy ends with.
pub struct BuildProcess {
    pid: u32,
    /// Readable once it has ended; none on a kernel without pidfds.
    descriptor: Option<OwnedFd>,
}

impl BuildProcess {
    /// `None` when it has ended already.
    ///
    /// # Errors
    /// When `pid` is not the ID of a process.
    pub fn find(pid: u32) -> Result<Option<Self>> {
        match sys::process(pid) {
            Ok(descriptor) => Ok(Some(Self {
                pid,
                descriptor: Some(descriptor),
            })),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                Err(Error::io("find the build's process", pid.to_string(), e))
            }
            Err(_) => Ok(Some(Self {
                pid,
                descriptor: None,
            })),
        }
    }

    fn has_ended(&self) -> bool {
        let path = format!("/proc/{}", self.pid);
        self.descriptor.is_none()
            && std::fs::metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound)
    }
}

/// Returns when the proxy should stop.
///
/// # Errors
/// When the kernel does not allow to wait.
pub fn wait_for_end(termination: &sys::Termination, build: Option<&BuildProcess>) -> Result<()> {
    let signals = termination.as_raw_fd();
    let process = build.and_then(|build| build.descriptor.as_ref().map(AsRawFd::as_raw_fd));
    loop {
        let [stop, gone] = sys::wait_readable([signals, process.unwrap_or(signals)], POLL_EVERY)
            .map_err(|e| Error::io("wait for", "the end of the build", e))?;
        if stop || gone || build.is_some_and(BuildProcess::has_ended) {
            return Ok(());
        }
    }
}
