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

/// What a credential says that systemd could not load: the daemon goes on without its remote then.
pub const MISSING_CREDENTIAL: &str = "nix-gocacheprog-missing-credential";

/// Go's own cache records use as seldom; an LRU needs no finer clock.
pub const USE_RECORDED_EVERY: Duration = Duration::from_secs(60 * 60);

/// An action's own use matters only when its output is kept for other actions.
pub const ACTION_USE_RECORDED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The cache is kept below this size, in bytes, unless a flag says otherwise.
pub const MAX_SIZE: u64 = 20 << 30;

/// What was not used for so long goes, unless a flag says otherwise.
pub const MAX_AGE: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// Unless a flag says otherwise, one part in so many of the file system is left free …
pub const MIN_FREE_PART: u64 = 20;

/// … but no more than this, in bytes.
pub const MIN_FREE_MAX: u64 = 10 << 30;

/// Whatever a flag says, one part in so many of the file system is left free …
pub const MIN_FREE_LEAST_PART: u64 = 50;

/// … but no more than this, in bytes.
pub const MIN_FREE_LEAST_MAX: u64 = 32 << 20;

/// The same part of its files can still be made, but no more than so many.
pub const MIN_FREE_FILES_MAX: u64 = 50_000;

/// When the limit is passed, eviction goes on down to this percentage of it, so that it is
/// seldom needed.
pub const EVICT_TO_PERCENT: u64 = 90;

/// How often the background looks whether anything is to be done. A put that passes the
/// size limit does not wait for it.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(15);

/// The directories of builds in a cache of an older format are kept for so long: no build runs longer that
/// was begun before the daemon was upgraded.
pub const ASIDE_KEPT: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// How often what is too old is looked for: a walk over the whole store.
pub const AGE_CHECK_EVERY: Duration = Duration::from_secs(12 * 60 * 60);

/// How often a user's own cache is brought within its limits: a walk over all of it, for which
/// somebody's `go` command may have to wait.
pub const PRIVATE_UPKEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a dev shell goes on with one build directory, before a new one lets go of what is
/// not used any more.
pub const SHELL_BUILD_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// When live builds keep the store above its limit, it is tried again after so long.
pub const EVICT_AGAIN_AFTER: Duration = Duration::from_secs(2 * 60);

/// How often what was written is brought to disk: after a crash of the machine, what came
/// later has to be checked.
pub const SYNC_EVERY: Duration = Duration::from_secs(3 * 60);

/// It waits for a moment without a session, but no longer than this.
pub const SYNC_AT_LEAST_EVERY: Duration = Duration::from_secs(30 * 60);

/// When space is wanted, build directories of dev shells go that were not used for so long: those of the first age before
/// anything is evicted, the next ones as long as that is not enough. An editor that is open goes on using its own.
pub const IDLE_AGES: [Duration; 3] = [
    Duration::from_secs(24 * 60 * 60),
    Duration::from_secs(60 * 60),
    Duration::ZERO,
];

/// A clock may have been set between a write and a sync point, by so much.
pub const SYNC_SLACK: Duration = Duration::from_secs(10 * 60);

/// A hook that is late stalls every build of that Nix; this leaves room below the
/// second that is promised.
pub const HOOK_LIMIT: Duration = Duration::from_millis(800);

/// A build waits no longer than this for the line in its log.
pub const SUMMARY_LIMIT: Duration = Duration::from_millis(300);

/// Uses that all sessions note at one time for the next builds of their names; more than that are
/// not noted. Each takes some 90 bytes.
pub const NOTED_MAX: usize = 1 << 19;

/// The same for the sessions of users who have a tier of their own.
pub const NOTED_OF_USERS_MAX: usize = 1 << 16;

/// Builds for which something is to be made ready; more than that ask for everything.
pub const READY_WAITING_MAX: usize = 256;

/// How long the daemon waits for a hello. A client that is alive says it in milliseconds;
/// a machine under load may take seconds.
pub const HELLO_LIMIT: Duration = Duration::from_secs(20);

/// How long a client waits for a daemon that has stopped moving altogether. The
/// daemon reads and answers as it goes, so that a slow disk does not reach this.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// A daemon that has not even said welcome by then is not waited for: a build that has
/// only just begun loses little by going on alone.
pub const WELCOME_LIMIT: Duration = Duration::from_secs(20);

/// For so long a build's commands do not ask a daemon that has not moved for one of them.
pub const HUNG_REMEMBERED: Duration = Duration::from_secs(60);

/// Connections at one time, in all. Each takes a thread and two descriptors; 64 builds with
/// 64 `go` commands each at one time do not reach it.
pub const CONNECTIONS_MAX: usize = 4096;

/// Of these one in so many is kept for Nix's builds.
pub const CONNECTIONS_RESERVED_PART: usize = 4;

/// One user has one in so many of these at one time: builds have users of their own in a sandbox, so that one of them cannot
/// keep the others out.
pub const CONNECTIONS_PER_USER_PART: usize = 2;

/// Descriptors for what is not a connection: a file that each thread has open for a moment, and the remote's.
pub const DESCRIPTORS_BESIDE: u64 = 512;

/// Descriptors of one connection: the socket, a duplicate by which it is cut off, and the build's directory.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 3;

/// Sessions of one build at one time.
pub const SESSIONS_PER_BUILD_MAX: usize = 256;

/// The largest body of a put, in bytes. `go` has been seen to put hundreds of megabytes.
pub const BODY_MAX: u64 = 16 << 30;

/// What one build may put in all, in bytes: more than the largest program's whole cache, and not
/// enough to fill any disk by itself.
pub const PUTS_PER_BUILD_MAX: u64 = 64 << 30;

/// What an action counts for where outputs are counted, in bytes: it takes an inode and a name.
pub const ACTION_SIZE: u64 = 4 << 10;

/// The builds of a user who is not one of Nix's may put in so long what one build may put.
pub const PUTS_PER_USER_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// One build may put as much as this part of the cache's size limit in all …
pub const PUTS_PER_BUILD_PART: u64 = 2;

/// … but always so much, in bytes.
pub const PUTS_PER_BUILD_MIN: u64 = 2 << 30;

/// Build directories that are kept for builds which registered themselves, for each user. Those
/// without a session go first, the oldest before the others, so that a build which registers itself
/// again and again can neither fill the disk with directories nor take those of others.
pub const OWN_BUILDS_MAX: usize = 1024;

/// The stack of a connection's thread, in bytes; a session uses some 20 KiB.
pub const STACK: usize = 256 << 10;

/// How long the daemon waits at its end for requests that are running.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often the daemon looks for builds that have ended.
pub const REAP_EVERY: Duration = Duration::from_secs(15);

/// A build directory whose build cannot be seen to end is kept this long after its
/// last session: paths in it may have been handed on to linters and editors.
/// It goes earlier where space is wanted.
pub const UNSEEN_BUILD_LIMIT: Duration = Duration::from_secs(5 * 24 * 60 * 60);

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

/// Where the proxy listens: out of reach for other hosts, on a port that is free, because all
/// fixed-output builds of a host share its network.
pub const LISTEN: &str = "127.0.0.1:0";

/// How long the proxy waits for a connection to an upstream.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long the proxy waits for an upstream's next bytes, and for its first ones: a module proxy
/// that has to fetch a repository first takes its time.
pub const READ_LIMIT: Duration = Duration::from_secs(60);

/// Requests that the proxy works on at one time. `go` sends a few dozen.
pub const REQUESTS_MAX: usize = 256;

/// Connections to the proxy that are open at one time, each with a thread of its own, if there are descriptors for
/// so many.
pub const PROXY_CONNECTIONS_MAX: usize = 1024;

/// Requests to the remote that run at one time for gets and for what is read ahead, each in a thread and on a connection
/// of its own: with 100 ms from here to there and back, 3,000 entries and their outputs come in five seconds.
pub const REMOTE_FETCHERS: usize = 128;

/// Of these so many may read ahead, so that a get that `go` waits for finds one free.
pub const REMOTE_AHEAD: usize = 112;

/// Uploads that run at one time.
pub const REMOTE_UPLOADERS: usize = 12;

/// How long a connection to the remote may take to be made. A cache that is further away is of no use.
pub const REMOTE_CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long the remote may be silent when it is asked for something.
pub const REMOTE_READ_LIMIT: Duration = Duration::from_secs(3);

/// How long the remote may be silent when it is sent something, which it may pass on to others first. Nobody waits for
/// it, and our own threads may be waiting for the processor.
pub const REMOTE_WRITE_LIMIT: Duration = Duration::from_secs(30);

/// How long one get waits for the remote, whatever that does: far less than GIVE_UP_AFTER, when the client would
/// take the daemon for dead.
pub const REMOTE_GET_LIMIT: Duration = Duration::from_secs(10);

/// Gets of one session that may wait for the remote at one time. `go` has a few dozen.
pub const REMOTE_GETS_PER_SESSION: usize = 1024;

/// Reading ahead for one build takes at most this part of the cache's size limit.
pub const REMOTE_AHEAD_PART: u64 = 4;

/// And at most so many bytes where lists are not signed, so that whoever can write there cannot fill disks and lines: twice
/// what the largest programs use.
pub const REMOTE_AHEAD_UNVERIFIED: u64 = 2 << 30;

/// The socket on which builds talk to the daemon.
pub fn build_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("build/sock")
}

/// The socket on which the hook and the administrator talk to the daemon.
pub fn control_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control/sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nix_and_rust_agree_on_names_and_paths() {
        let text = include_str!("../const.nix");
        let found: Vec<_> = text
            .lines()
            .filter_map(|line| line.trim().split_once(" = "))
            .collect();
        let said: Vec<_> = [
            ("setupHookName", SETUP_HOOK_NAME),
            ("sandboxDir", SANDBOX_DIR),
            ("sandboxClient", SANDBOX_CLIENT),
            ("sandboxRuntimeDir", SANDBOX_RUNTIME_DIR),
            ("cacheDir", CACHE_DIR),
            ("runtimeDir", RUNTIME_DIR),
            ("missingCredential", MISSING_CREDENTIAL),
        ]
        .map(|(name, value)| (name, format!("\"{value}\";")))
        .into();
        let said: Vec<_> = said
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(found, said);
    }
}
