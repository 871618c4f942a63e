//! The module proxy: on the real binary, with upstreams that do whatever upstreams do.
//!
//! What a client gets must be what it would get from the upstream, and what is kept must be right.

mod attacks;
mod cache;
mod credentials;
mod lifetime;
mod lists;
mod mischief;
mod server;
mod stale;
mod standalone;

use crate::go::Go;
use crate::support::{Daemon, TempDir, binary, signal, suspend, text};
use crate::upstream::{
    Asked, Reply, Then, Upstream, ask, ask_on, file, get, module, not_found, raw, reply,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const INFO: &str = "/example.test/m/@v/v1.0.0.info";

const MOD: &str = "/example.test/m/@v/v1.0.0.mod";

const ZIP: &str = "/example.test/m/@v/v1.0.0.zip";

const LIST: &str = "/example.test/m/@v/list";

/// A running proxy, which ends with its test.
struct Proxy {
    child: Child,
    url: String,
    home: TempDir,
}

impl Proxy {
    /// A proxy in front of this list, with this daemon behind it.
    fn start(daemon: &Daemon, list: &str) -> Self {
        Self::start_with(list, |command| {
            command.arg("--runtime-dir").arg(daemon.runtime_dir());
        })
    }

    fn start_with(list: &str, set_up: impl FnOnce(&mut Command)) -> Self {
        let home = TempDir::new();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("proxy")
            // So that a stall does not take a minute, and a slow machine is none.
            .args(["--read-limit", "4s", "--connect-limit", "10s"])
            .env_clear()
            .env("GOPROXY", list)
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env("NIX_GOCACHEPROG_LOG", "debug")
            .stdout(Stdio::piped())
            .stderr(log);
        set_up(&mut command);
        let mut child = command.spawn().expect("the proxy starts");
        let mut url = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut url).unwrap();
        let proxy = Self {
            child,
            url: url.trim_end().to_string(),
            home,
        };
        assert!(
            proxy.url.starts_with("http://127.0.0.1:"),
            "{}",
            proxy.log()
        );
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "more than the URL on stdout");
        proxy
    }

    fn get(&self, path: &str) -> Reply {
        get(&self.url, path)
    }

    /// `127.0.0.1:port`.
    fn address(&self) -> &str {
        self.url.split('/').nth(2).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// Ends the proxy and gives what its last line says of one count.
    fn end(&mut self, count: &str) -> u64 {
        signal(self.child.id(), "TERM");
        assert!(self.child.wait().unwrap().success());
        counted(&self.log(), count)
    }
}

fn counted(log: &str, count: &str) -> u64 {
    let line = log.lines().last().unwrap_or_default();
    let count = line
        .split(' ')
        .find_map(|word| word.strip_prefix(count)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {count} in {log}"));
    count.parse().unwrap()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn go_command(go: &Go, dir: &TempDir, goproxy: &str) -> Command {
    let mut command = Command::new(go.goroot.join("bin/go"));
    command
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir.path())
        .env("GOPATH", dir.path())
        .env("GOCACHE", dir.path().join("gocache"))
        .env("GOENV", "off")
        .env("GOSUMDB", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", goproxy);
    command
}

/// Holds up an upstream until a test lets it go on.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn wait(&self) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

/// Waits for what another process does; fails instead of hanging.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(300);
    while !done() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
