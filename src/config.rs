//! Every default and limit, in one place, with its reason. The paths and names are
//! those of `const.nix`; a test holds the two together.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The setup hook's derivation name, by which the hook knows a build that wants us.
pub const SETUP_HOOK_NAME: &str = "nix-gocacheprog-hook";

/// Where everything of ours is inside a sandbox.
pub const SANDBOX_DIR: &str = "/gocache";

/// The client inside a sandbox.
pub const SANDBOX_CLIENT: &str = "/gocache/client";

/// The runtime directory as a sandbox sees it: only its `build` directory is there.
pub const SANDBOX_RUNTIME_DIR: &str = "/gocache/run";

/// The cache directory, unless a flag or the environment says otherwise.
pub const CACHE_DIR: &str = "/var/cache/nix-gocacheprog";

/// The runtime directory, unless a flag or the environment says otherwise.
pub const RUNTIME_DIR: &str = "/run/nix-gocacheprog";

/// Go's own cache records use as seldom; an LRU needs no finer clock.
pub const USE_RECORDED_EVERY: Duration = Duration::from_secs(60 * 60);

/// A hook that is late stalls every build of that Nix; this leaves room below the
/// second that is promised.
pub const HOOK_LIMIT: Duration = Duration::from_millis(800);

/// How long the daemon waits for a hello, and a client for its answer. A peer that is
/// alive answers in milliseconds; a machine under load may take seconds.
pub const HELLO_LIMIT: Duration = Duration::from_secs(20);

/// How long a client waits for a daemon that has stopped moving altogether. The
/// daemon reads and answers as it goes, so that a slow disk does not reach this.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);

/// How often a client looks whether the daemon has stopped moving.
pub const STALL_CHECK: Duration = Duration::from_secs(5);

/// How long the daemon waits at its end for requests that are running.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often the daemon looks for builds that have ended.
pub const REAP_EVERY: Duration = Duration::from_secs(15);

/// A build directory whose build cannot be seen to end is kept this long after its
/// last session: paths in it may have been handed on to linters and editors.
pub const UNSEEN_BUILD_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A build directory is not kept longer than this, even when the build's chroot is still there: a
/// killed Nix leaves that behind.
pub const BUILD_LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A put's body is kept in memory by the client until it is answered, up to this many
/// bytes; a larger one goes to a file.
pub const KEPT_IN_MEMORY: usize = 1 << 20;

/// The longest line of a request that `go` may send, in bytes; it sends some 200.
pub const REQUEST_LINE_MAX: usize = 64 << 10;

/// Room for reading from a socket or a pipe, in bytes. A pipe holds as much.
pub const READ_BUFFER: usize = 64 << 10;

/// The socket on which builds talk to the daemon.
pub fn build_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("build/sock")
}

/// The socket on which the hook and the administrator talk to the daemon.
pub fn control_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control/sock")
}
