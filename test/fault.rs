//! A stand-in for the daemon's build socket, for `test/faults`: it starts the real daemon,
//! passes each frame on between clients and it, counts them, and makes one thing go wrong.
//!
//! ```text
//! fault FAULT FRAME SOCKET RUNTIME COMMAND...
//! ```
//!
//! COMMAND is the daemon, whose sockets are below RUNTIME; clients come to SOCKET. The fault
//! happens at the FRAMEth request of all clients together. Says `ready` once clients can come. When
//! its stdin ends it ends the daemon and says what it saw.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than a daemon takes to start on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing goes wrong.
    None,
    /// The daemon is killed between two frames, and stays away.
    Kill,
    /// The daemon is restarted between two frames.
    Restart,
    /// The daemon is killed when it has half of a put's body.
    KillInBody,
    /// The daemon is killed when it has stored a put, and its answer never comes.
    KillAfterStored,
    /// There is a socket, on which nobody listens.
    Refuse,
    /// Connections are accepted, and nothing is ever said.
    Silent,
    /// In the place of an answer, or of the welcome, comes garbage.
    Garbage,
    /// An answer names a request that was never made.
    UnknownId,
    /// Puts are answered with an error.
    RefusePuts,
    /// Nothing is done here: the disk is too small.
    DiskFull,
    /// The build directory is moved away, or removed before its first use.
    Gone,
    /// The daemon stops moving.
    Hang,
}

impl Fault {
    fn parse(name: &str) -> Self {
        match name {
            "none" => Self::None,
            "kill" => Self::Kill,
            "restart" => Self::Restart,
            "kill-in-body" => Self::KillInBody,
            "kill-after-stored" => Self::KillAfterStored,
            "refuse" => Self::Refuse,
            "silent" => Self::Silent,
            "garbage" => Self::Garbage,
            "unknown-id" => Self::UnknownId,
            "refuse-puts" => Self::RefusePuts,
            "disk-full" => Self::DiskFull,
            "gone" => Self::Gone,
            "hang" => Self::Hang,
            other => panic!("no fault is called {other}"),
        }
    }
}

struct Daemon {
    command: Vec<String>,
    runtime: PathBuf,
    child: Child,
}

impl Daemon {
    fn start(command: Vec<String>, runtime: PathBuf) -> Self {
        let child = Self::spawn(&command);
        let daemon = Self {
            command,
            runtime,
            child,
        };
        daemon.wait_until_ready();
        daemon
    }

    fn spawn(command: &[String]) -> Child {
        Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait_until_ready(&self) {
        let start = Instant::now();
        // The control socket is made last.
        while UnixStream::connect(self.runtime.join("control/sock")).is_err() {
            assert!(start.elapsed() < LIMIT, "the daemon does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(done.unwrap().success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success());
        self.child = Self::spawn(&self.command);
        self.wait_until_ready();
    }
}

struct Stand {
    fault: Fault,
    at: u64,
    socket: PathBuf,
    runtime: PathBuf,
    daemon: Mutex<Daemon>,
    /// Both ends of all sessions, to cut them off.
    connections: Mutex<Vec<UnixStream>>,
    /// Nobody is to be accepted any more.
    down: AtomicBool,
    sessions: AtomicU64,
    frames: AtomicU64,
    /// How many times something went wrong.
    fired: AtomicU64,
    /// Requests that the daemon answered after something went wrong.
    answered_after: AtomicU64,
}

impl Stand {
    fn fire(&self) {
        self.fired.fetch_add(1, Ordering::SeqCst);
    }

    /// `true` for the first caller only.
    fn fire_once(&self) -> bool {
        self.fired
            .compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn accept(self: &Arc<Self>, listener: UnixListener) {
        for stream in listener.incoming() {
            if self.down.load(Ordering::SeqCst) {
                break;
            }
            let (stand, stream) = (Arc::clone(self), stream.unwrap());
            std::thread::spawn(move || stand.session(stream));
        }
        drop(listener);
        self.cut_off();
    }

    /// The daemon is killed: nobody listens on its socket any more, and its connections break.
    fn kill(&self) {
        self.daemon.lock().unwrap().kill();
        self.down.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which does the rest.
        let _ = UnixStream::connect(&self.socket);
    }

    fn cut_off(&self) {
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn session(&self, client: UnixStream) {
        let serial = self.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        if self.fault == Fault::Silent {
            self.fire();
            self.connections.lock().unwrap().push(client);
            return;
        }
        // Those who come during a restart wait, as they do on systemd's socket.
        let start = Instant::now();
        let daemon = loop {
            match UnixStream::connect(self.runtime.join("build/sock")) {
                Ok(daemon) => break daemon,
                Err(_) if start.elapsed() < LIMIT && !self.down.load(Ordering::SeqCst) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return,
            }
        };
        for stream in [&client, &daemon] {
            let stream = stream.try_clone().unwrap();
            self.connections.lock().unwrap().push(stream);
        }
        let session = Session {
            stand: self,
            serial,
            to_client: Mutex::new(client.try_clone().unwrap()),
            to_daemon: daemon.try_clone().unwrap(),
            directory: Mutex::new(PathBuf::new()),
            victim: Mutex::new(None),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Either side has gone: so has the other one.
                let _ = session.pass_answers(BufReader::new(&daemon));
                let _ = client.shutdown(Shutdown::Both);
            });
            let _ = session.pass_requests(BufReader::new(&client));
            if self.fault != Fault::Garbage {
                let _ = daemon.shutdown(Shutdown::Write);
            }
        });
    }
}

/// Reads a request without the body that may follow, as `src/protocol/wire.rs` describes it.
fn read_head(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    const ID: usize = 32;
    let mut frame = vec![0; 1 + 8];
    from.read_exact(&mut frame)?;
    let rest = match frame[0] {
        b'g' => ID,
        b'G' => {
            let mut count = [0];
            from.read_exact(&mut count)?;
            frame.push(count[0]);
            usize::from(count[0]) * ID
        }
        b'p' => ID + ID + 8,
        b'f' => ID + 8,
        b'e' => {
            let mut length = [0; 2];
            from.read_exact(&mut length)?;
            frame.extend(length);
            usize::from(u16::from_le_bytes(length))
        }
        other => panic!("no request begins with {other:#x}"),
    };
    let head = frame.len();
    frame.resize(head + rest, 0);
    from.read_exact(&mut frame[head..])?;
    Ok(frame)
}

struct Session<'a> {
    stand: &'a Stand,
    serial: u64,
    to_client: Mutex<UnixStream>,
    to_daemon: UnixStream,
    directory: Mutex<PathBuf>,
    /// The put whose answer is not to come.
    victim: Mutex<Option<[u8; 8]>>,
}

impl Session<'_> {
    fn pass_requests(&self, mut from: BufReader<&UnixStream>) -> std::io::Result<()> {
        let stand = self.stand;
        let mut to = &self.to_daemon;
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        to.write_all(&line)?;
        loop {
            let frame = read_head(&mut from)?;
            let is_put = frame[0] == b'p';
            let request: [u8; 8] = frame[1..9].try_into().unwrap();
            let size = if is_put {
                u64::from_le_bytes(frame[73..].try_into().unwrap())
            } else {
                0
            };
            let mut body = (&mut from).take(size);

            let due = stand.frames.fetch_add(1, Ordering::SeqCst) + 1 >= stand.at;
            match stand.fault {
                Fault::Kill if due && stand.fire_once() => stand.kill(),
                Fault::Restart if due && stand.fire_once() => {
                    stand.daemon.lock().unwrap().restart();
                }
                Fault::Hang if due && stand.fire_once() => {
                    stand.daemon.lock().unwrap().signal("STOP");
                }
                Fault::Gone if due && stand.at > 0 && stand.fire_once() => {
                    let directory = self.directory.lock().unwrap();
                    std::fs::rename(&*directory, directory.with_extension("gone"))?;
                }
                Fault::KillInBody if due && size > 1 && stand.fire_once() => {
                    to.write_all(&frame)?;
                    std::io::copy(&mut body.by_ref().take(size / 2), &mut to)?;
                    stand.kill();
                }
                Fault::KillAfterStored if due && is_put && stand.fire_once() => {
                    *self.victim.lock().unwrap() = Some(request);
                }
                Fault::RefusePuts if due && is_put => {
                    stand.fire();
                    std::io::copy(&mut body, &mut std::io::sink())?;
                    let mut answer = vec![b'r'];
                    answer.extend(request);
                    answer.extend([5, 0]);
                    answer.extend(b"no\nno");
                    self.to_client.lock().unwrap().write_all(&answer)?;
                    continue;
                }
                _ => {}
            }
            to.write_all(&frame)?;
            std::io::copy(&mut body, &mut to)?;
        }
    }

    fn pass_answers(&self, mut from: BufReader<&UnixStream>) -> std::io::Result<()> {
        let stand = self.stand;
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        if let Ok(welcome) = serde_json::from_slice::<serde_json::Value>(&line)
            && let Some(directory) = welcome["directory"].as_str()
        {
            *self.directory.lock().unwrap() = directory.into();
            if stand.fault == Fault::Gone && stand.at == 0 && stand.fire_once() {
                std::fs::remove_dir(directory)?;
            }
        }
        // Every other session gets no further than its hello.
        if stand.fault == Fault::Garbage && self.serial.is_multiple_of(2) {
            return self.say_garbage();
        }
        self.to_client.lock().unwrap().write_all(&line)?;
        loop {
            let mut frame = vec![0; 9];
            from.read_exact(&mut frame)?;
            let rest = match frame[0] {
                b'h' => 48,
                b'r' => 2,
                _ => 0,
            };
            frame.resize(9 + rest, 0);
            from.read_exact(&mut frame[9..])?;
            if frame[0] == b'r' {
                let length = usize::from(u16::from_le_bytes(frame[9..].try_into().unwrap()));
                frame.resize(11 + length, 0);
                from.read_exact(&mut frame[11..])?;
            }

            let due = stand.frames.load(Ordering::SeqCst) >= stand.at;
            let victim = self.victim.lock().unwrap().take_if(|id| *id == frame[1..9]);
            match stand.fault {
                Fault::KillAfterStored if victim.is_some() => {
                    assert_eq!(frame[0], b's', "the put was stored");
                    stand.kill();
                    return Ok(());
                }
                Fault::Garbage if due => return self.say_garbage(),
                Fault::UnknownId if due => {
                    stand.fire();
                    frame[8] ^= 0x40;
                }
                Fault::DiskFull if frame[0] == b'r' => stand.fire(),
                _ if stand.fired.load(Ordering::SeqCst) > 0 => {
                    stand.answered_after.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
            self.to_client.lock().unwrap().write_all(&frame)?;
        }
    }

    /// Says what is neither a line nor a frame, and stays there.
    fn say_garbage(&self) -> std::io::Result<()> {
        self.stand.fire();
        let garbage: Vec<u8> = (0..100_000u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8 | 0x80)
            .collect();
        self.to_client.lock().unwrap().write_all(&garbage)?;
        std::io::copy(&mut &self.to_daemon, &mut std::io::sink())?;
        Ok(())
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().expect("FAULT FRAME SOCKET RUNTIME COMMAND...");
    let fault = Fault::parse(&next());
    let at = next().parse().unwrap();
    let (socket, runtime) = (PathBuf::from(next()), PathBuf::from(next()));
    let daemon = Daemon::start(args.collect(), runtime.clone());
    let listener = bind(&socket);
    let stand = Arc::new(Stand {
        fault,
        at,
        socket,
        runtime,
        daemon: Mutex::new(daemon),
        connections: Mutex::default(),
        down: AtomicBool::new(false),
        sessions: AtomicU64::new(0),
        frames: AtomicU64::new(0),
        fired: AtomicU64::new(0),
        answered_after: AtomicU64::new(0),
    });
    if fault == Fault::Refuse {
        drop(listener);
    } else {
        let stand = Arc::clone(&stand);
        std::thread::spawn(move || stand.accept(listener));
    }
    println!("ready");
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let mut daemon = stand.daemon.lock().unwrap();
    if matches!(daemon.child.try_wait(), Ok(None)) {
        // Not asked politely: nothing here depends on its end.
        daemon.kill();
    }
    println!(
        "sessions={} frames={} fired={} answered_after={}",
        stand.sessions.load(Ordering::SeqCst),
        stand.frames.load(Ordering::SeqCst),
        stand.fired.load(Ordering::SeqCst),
        stand.answered_after.load(Ordering::SeqCst)
    );
}

fn bind(socket: &Path) -> UnixListener {
    let listener = UnixListener::bind(socket).unwrap();
    // Builds have users of their own.
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o666)).unwrap();
    listener
}
