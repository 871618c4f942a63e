//! What the tests share: temporary folders, and a daemon that ends with its test.

use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything takes on the slowest machine; a test fails instead of hanging.
const LIMIT: Duration = Duration::from_secs(300);

/// One of the users that Nix allocates for its builds.
pub const BUILDER: u32 = 872_415_331;

/// The user of a daemon that is not root's.
pub const OWNER: u32 = 30_098;

/// The binary under test: the packaged one where there is one.
pub fn binary() -> PathBuf {
    std::env::var_os("NIX_GOCACHEPROG_BIN")
        .or(option_env!("CARGO_BIN_EXE_nix-gocacheprog").map(Into::into))
        .map(PathBuf::from)
        .expect("a binary in NIX_GOCACHEPROG_BIN")
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Bytes that no other number gives.
pub fn fresh_bytes(n: u64, length: usize) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("nix-gocacheprog-test-{}-{nth}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, Default)]
pub struct Session {
    pub gets: u64,
    pub hits: u64,
    pub misses: u64,
    pub puts: u64,
    pub errors: u64,
}

impl Session {
    fn parse(line: &str) -> Option<Self> {
        let (_, line) = line
            .split_once("session ended: ")
            .or_else(|| line.split_once("session broken off: "))?;
        let field = |name: &str| {
            line.split([' ', ':'])
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_else(|| panic!("no {name} in {line}"))
                .parse()
                .unwrap()
        };
        Some(Session {
            gets: field("gets"),
            hits: field("hits"),
            misses: field("misses"),
            puts: field("puts"),
            errors: field("errors"),
        })
    }
}

impl AddAssign for Session {
    fn add_assign(&mut self, other: Self) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.misses += other.misses;
        self.puts += other.puts;
        self.errors += other.errors;
    }
}

/// Sends a signal, by its name, to a process that the test has started.
pub fn signal(pid: u32, name: &str) {
    let done = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status();
    assert!(done.unwrap().success(), "{name} to {pid}");
}

/// A daemon that is started as systemd does it, with these two sockets; its output goes nowhere.
pub fn activated(control: UnixListener, build: UnixListener) -> Command {
    let mut command = Command::new("sh");
    // The shell moves the two sockets to where systemd puts them.
    command.args([
        "-c",
        r#"exec 3<&0 4<&1 </dev/null >/dev/null
           LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=control:build exec "$@""#,
        "sh",
    ]);
    command
        .arg(binary())
        .arg("daemon")
        .stdin(Stdio::from(OwnedFd::from(control)))
        .stdout(Stdio::from(OwnedFd::from(build)));
    command
}

/// Stops a process, and returns when none of its threads runs any more.
pub fn stop(pid: u32) {
    let is_stopped = || {
        let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.all(|thread| {
            // One that has ended meanwhile does nothing more.
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat"));
            stat.map_or(true, |stat| {
                let (_, after_name) = stat.rsplit_once(')').unwrap();
                after_name.trim_start().starts_with('T')
            })
        })
    };
    signal(pid, "STOP");
    while !is_stopped() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops a process and lets it go on, as it happens to all of them when a machine sleeps: what
/// waits on a socket that has a time limit ends with EINTR then (signal(7)).
pub fn suspend(pid: u32) {
    stop(pid);
    signal(pid, "CONT");
}

pub struct Daemon {
    /// Where its cache and its sockets are.
    dir: PathBuf,
    /// Removes them with the daemon, unless they are the test's own.
    _own: Option<TempDir>,
    user: Option<u32>,
    child: Child,
    ended: Mutex<Receiver<Session>>,
    /// What else is in its log.
    said: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    pub fn start() -> Self {
        Self::start_owning(TempDir::new(), Command::new(binary()), None)
    }

    /// Starts a daemon as a user of its own, so that builds of `BUILDER` get links. It takes root.
    pub fn start_for_builder() -> Self {
        Self::start_for_builder_with(&[])
    }

    /// The same with more arguments.
    pub fn start_for_builder_with(args: &[&str]) -> Self {
        Self::start_for_builder_from(&binary(), args)
    }

    /// The same with another binary than the one under test.
    pub fn start_for_builder_from(binary: &Path, args: &[&str]) -> Self {
        let dir = TempDir::new();
        chown(dir.path(), Some(OWNER), Some(OWNER)).expect("root");
        let mut daemon = Self::spawn(dir.path(), Command::new(binary), Some(OWNER), args);
        daemon._own = Some(dir);
        daemon
    }

    /// Starts a daemon as this user, which takes root.
    pub fn start_as(user: u32) -> Self {
        let dir = TempDir::new();
        chown(dir.path(), Some(user), Some(user)).expect("root");
        Self::start_owning(dir, Command::new(binary()), Some(user))
    }

    fn start_owning(dir: TempDir, command: Command, user: Option<u32>) -> Self {
        let mut daemon = Self::spawn(dir.path(), command, user, &[]);
        daemon._own = Some(dir);
        daemon
    }

    /// Starts a daemon by way of a shell script, which ends in `exec "$@"` and sees the folder
    /// of the cache as $dir.
    pub fn start_by(script: &str) -> Self {
        let dir = TempDir::new();
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        command.arg(binary());
        command.env("dir", dir.path().join("cache"));
        Self::start_owning(dir, command, None)
    }

    /// Starts a daemon with the cache and the sockets of this folder.
    pub fn start_in(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// The same, with more arguments.
    pub fn start_with(dir: &Path, args: &[&str]) -> Self {
        Self::spawn(dir, Command::new(binary()), None, args)
    }

    fn spawn(dir: &Path, mut command: Command, user: Option<u32>, args: &[&str]) -> Self {
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut child = command
            .arg("daemon")
            .arg("--cache-dir")
            .arg(dir.join("cache"))
            .arg("--runtime-dir")
            .arg(dir.join("run"))
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let (send, ended) = channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some(session) = Session::parse(&line) {
                    let _ = send.send(session);
                } else {
                    eprintln!("{line}");
                    saying.lock().unwrap().push(line);
                }
            }
        });
        let daemon = Daemon {
            dir: dir.into(),
            _own: None,
            user,
            child,
            ended: Mutex::new(ended),
            said,
        };
        // The one that is made last.
        let socket = daemon.runtime_dir().join("build/sock");
        daemon.wait_until("the socket is there", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        daemon
    }

    pub fn runtime_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The next session that has ended, as the daemon's log tells it.
    pub fn session_end(&self) -> Session {
        self.ended
            .lock()
            .unwrap()
            .recv_timeout(LIMIT)
            .expect("a session ends")
    }

    /// The lines of the daemon's log so far in which this stands; those of a session are there when it has ended.
    pub fn said(&self, what: &str) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.iter()
            .filter(|line| line.contains(what))
            .cloned()
            .collect()
    }

    /// Ends the daemon, for all sessions that it had and that nobody has asked for yet.
    pub fn sessions(mut self) -> Vec<Session> {
        self.terminate();
        assert!(self.wait().success());
        self.ended.lock().unwrap().iter().collect()
    }

    pub fn cache_dir(&self) -> PathBuf {
        self.dir.join("cache")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What `stats --json` says of it.
    pub fn stats(&self) -> serde_json::Value {
        let mut stats = Command::new(binary());
        stats.args(["stats", "--json", "--runtime-dir"]);
        let asked = stats.arg(self.runtime_dir()).output().unwrap();
        serde_json::from_slice(&asked.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", text(&asked.stderr)))
    }

    /// The most memory that the daemon has had resident so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory that the daemon has resident, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = value.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap() << 10
    }

    /// Asks the daemon to end.
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Waits for the daemon's own end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Ends the daemon at once, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has not ended.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends the daemon, as systemd would.
    pub fn end(mut self) {
        self.terminate();
        assert!(self.wait().success());
    }

    /// Ends the daemon and starts another one in its place.
    pub fn restart(&mut self) {
        self.terminate();
        assert!(self.wait().success());
        let own = self._own.take();
        *self = Self::spawn(&self.dir, Command::new(binary()), self.user, &[]);
        self._own = own;
    }

    /// How many actions are in the cache.
    pub fn actions(&self) -> usize {
        self.files("actions")
    }

    /// How many bodies are on their way in, or have been left there.
    pub fn unfinished(&self) -> usize {
        self.files("tmp")
    }

    /// How many files there are in the shards of a part of the cache.
    fn files(&self, part: &str) -> usize {
        let list = |dir: &Path| {
            let entries = std::fs::read_dir(dir).into_iter().flatten();
            entries
                .map(|entry| entry.unwrap().path())
                .collect::<Vec<_>>()
        };
        let shards = list(&self.cache_dir().join(part));
        // What lies beside the shards counts too.
        let count = |path: &PathBuf| if path.is_dir() { list(path).len() } else { 1 };
        shards.iter().map(count).sum()
    }

    pub fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How everything begins that zstd has packed (RFC 8878, 3.1.1).
pub const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// 128 KiB of one byte in each block of four bytes: 32 KB that unpack to a gigabyte.
pub fn zstd_bomb() -> Vec<u8> {
    let mut bomb = ZSTD_MAGIC.to_vec();
    bomb.extend([0x00, 0x58]);
    for _ in 0..8192 {
        bomb.extend([0x02, 0x00, 0x10, b'x']);
    }
    bomb
}

/// A Go package's archive: what Go's compiler writes, with these members behind it.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    archive_of(&[], members)
}

/// The same, with this much more in the compiler's own object.
pub fn archive_of(data: &[u8], members: &[(&str, &[u8])]) -> Vec<u8> {
    let compiled =
        b"go object linux amd64 go1.27.3 GOAMD64=v1 X:dwarf5\nbuild id \"a/b\"\n\n\n!\n\0go120ld";
    let object = [&compiled[..], data].concat();
    let own: [(&str, &[u8]); 2] = [("__.PKGDEF", compiled), ("_go_.o", &object)];
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in own.iter().chain(members) {
        let size = content.len();
        let head = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644);
        bytes.extend(head.as_bytes());
        bytes.extend(*content);
        bytes.extend(&[0][..size % 2]);
    }
    bytes
}
