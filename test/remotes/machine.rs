//! A machine of the tests: a daemon with a cache of its own, and real `go` that builds with it.

use crate::support::{TempDir, binary, signal, text};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes on the slowest machine.
const LIMIT: Duration = Duration::from_secs(600);

/// What is built.
#[derive(Clone)]
pub struct Program {
    pub dir: PathBuf,
    pub package: &'static str,
    /// The derivation's name.
    pub name: &'static str,
}

/// A machine.
pub struct Machine {
    dir: TempDir,
    /// Which release it has.
    program: PathBuf,
    daemon: Child,
    /// What every command of the machine is behind: `ip netns exec …`.
    behind: Vec<String>,
}

/// What came of a build.
pub struct Built {
    pub wall: f64,
    pub hash: [u8; 32],
}

impl Machine {
    pub fn start(behind: &[&str], args: &[&str]) -> Self {
        Self::start_in(TempDir::new(), behind, args)
    }

    pub fn start_in(dir: TempDir, behind: &[&str], args: &[&str]) -> Self {
        let args = if args.contains(&"--remote-mode") {
            [args, &["--remote-insecure-http"]].concat()
        } else {
            [
                args,
                &["--remote-insecure-http", "--remote-mode", "read-write"],
            ]
            .concat()
        };
        Self::start_program(binary(), dir, behind, &args)
    }

    /// One with another release of the program, and just these arguments.
    pub fn start_program(program: PathBuf, dir: TempDir, behind: &[&str], args: &[&str]) -> Self {
        let behind: Vec<_> = behind.iter().map(ToString::to_string).collect();
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(dir.path().join("log"))
            .unwrap();
        let daemon = command(&behind, &program)
            .arg("daemon")
            .arg("--cache-dir")
            .arg(dir.path().join("cache"))
            .arg("--runtime-dir")
            .arg(dir.path().join("run"))
            .args(args)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let machine = Self {
            dir,
            program,
            daemon,
            behind,
        };
        let socket = machine.socket();
        machine.wait_until("the daemon listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        machine
    }

    /// Where builds find the daemon.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/build/sock")
    }

    /// Ends the daemon, and starts another one in its place.
    pub fn restart(mut self, args: &[&str]) -> Self {
        self.end();
        let behind: Vec<_> = self.behind.iter().map(String::as_str).collect();
        // What is left of this one removes nothing.
        let dir = std::mem::replace(&mut self.dir, TempDir::new());
        Self::start_in(dir, &behind, args)
    }

    fn end(&mut self) {
        signal(self.daemon.id(), "TERM");
        assert!(self.daemon.wait().unwrap().success());
    }

    pub fn build(&self, program: &Program) -> Built {
        let prog = format!(
            "{} client --runtime-dir {}",
            self.program.display(),
            self.dir.path().join("run").display()
        );
        build(program, &self.behind, self.dir.path(), Some(&prog))
    }

    pub fn stats(&self) -> serde_json::Value {
        let told = self.admin(&["stats", "--json"]);
        serde_json::from_str(&told).unwrap()
    }

    pub fn remote(&self, what: &str) -> u64 {
        self.stats()["remote"][what].as_u64().unwrap()
    }

    /// Waits until everything is uploaded.
    pub fn wait_for_uploads(&self) {
        self.wait_until("all is uploaded", || self.remote("queue") == 0);
    }

    /// Runs an administrator's command, which must succeed.
    pub fn admin(&self, args: &[&str]) -> String {
        let output = Command::new(&self.program)
            .args(args)
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"))
            .arg("--runtime-dir")
            .arg(self.dir.path().join("run"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout).into()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.daemon.try_wait().unwrap().is_none()
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(
                start.elapsed() < LIMIT,
                "waited in vain until {what}: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Builds with Go's own cache, which is empty.
pub fn build_without(program: &Program) -> Built {
    let dir = TempDir::new();
    build(program, &[], dir.path(), None)
}

fn build(program: &Program, behind: &[String], dir: &Path, prog: Option<&str>) -> Built {
    let goroot = PathBuf::from(std::env::var_os("GOROOT").unwrap());
    let out = dir.join("program");
    let _ = std::fs::remove_file(&out);
    let mut go = command(behind, &goroot.join("bin/go"));
    // The program may lie in the repository of this project, whose state is not its own.
    go.args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&out)
        .arg(program.package)
        .current_dir(&program.dir)
        .env("GOCACHE", dir.join("gocache"))
        .env("HOME", dir)
        .env("GOENV", "off")
        .env("GOFLAGS", "")
        // As the setup hook has it where times say nothing.
        .env("GODEBUG", "goindex=0")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .env("NIX_BUILD_TOP", dir)
        .env("name", program.name)
        .env_remove("GOCACHEPROG");
    if let Some(prog) = prog {
        go.env("GOCACHEPROG", prog);
    }
    let start = Instant::now();
    let output = go.output().unwrap();
    let wall = start.elapsed().as_secs_f64();
    assert!(
        output.status.success(),
        "go build: {}",
        // A wrong output may be quoted in it.
        String::from_utf8_lossy(&output.stderr)
    );
    Built {
        wall,
        hash: Sha256::digest(std::fs::read(&out).unwrap()).into(),
    }
}

fn command(behind: &[String], program: &Path) -> Command {
    match behind.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    }
}
