//! A client of the tests' own, which can also say what no client would say.

use crate::support::Daemon;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

/// A session with the daemon, in the bytes of `src/protocol/wire.rs`.
#[derive(Debug)]
pub struct Peer {
    pub stream: BufReader<UnixStream>,
    pub build: String,
    pub directory: std::path::PathBuf,
    /// All that the daemon has said.
    pub welcome: serde_json::Value,
}

impl Peer {
    /// Says hello as a build that registers itself.
    pub fn connect(daemon: &Daemon) -> Self {
        Self::hello(daemon, r#"{"version":1,"name":"test"}"#)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Says this hello; what the daemon refuses is the error.
    pub fn hello(daemon: &Daemon, hello: &str) -> Result<Self, String> {
        Self::hello_on(raw(daemon), hello)
    }

    /// Says this hello as this user, which takes root.
    pub fn hello_as(daemon: &Daemon, user: u32, hello: &str) -> Result<Self, String> {
        Self::hello_on(raw_as(daemon, user), hello)
    }

    /// Says this hello on a connection.
    pub fn hello_on(mut stream: UnixStream, hello: &str) -> Result<Self, String> {
        // A daemon that refuses the connection may have closed it already. Its reason can be read all the same.
        let written = stream.write_all(format!("{hello}\n").as_bytes());
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).map_err(|e| e.to_string())?;
        if line.is_empty() {
            written.map_err(|e| e.to_string())?;
        }
        let welcome: serde_json::Value = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        if let Some(error) = welcome["error"].as_str() {
            return Err(error.to_string());
        }
        Ok(Self {
            stream,
            build: welcome["build"].as_str().unwrap().to_string(),
            directory: welcome["directory"].as_str().unwrap().into(),
            welcome,
        })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Sends a get and gives its answer's tag.
    pub fn get(&mut self, action: u8) -> char {
        self.send(&get_frame(action));
        self.answer()
    }

    /// Sends a get of the first of these actions that has an entry and gives its answer's tag.
    pub fn get_first(&mut self, actions: &[u8]) -> char {
        let mut frame = vec![b'G'];
        frame.extend(7u64.to_le_bytes());
        frame.push(actions.len() as u8);
        for action in actions {
            frame.extend([*action; 32]);
        }
        self.send(&frame);
        self.answer()
    }

    /// Sends a put and gives its answer's tag.
    pub fn put(&mut self, action: u8, body: &[u8]) -> char {
        self.send(&put_frame(action, &Sha256::digest(body), body.len() as u64));
        self.send(body);
        self.answer()
    }

    /// Reads one answer and gives its tag; `-` when the daemon has ended the session.
    pub fn answer(&mut self) -> char {
        let mut tag = [0; 9];
        if self.stream.read_exact(&mut tag).is_err() {
            return '-';
        }
        let rest = match tag[0] {
            b'h' => 48,
            b'r' => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_le_bytes(length))
            }
            _ => 0,
        };
        self.stream.read_exact(&mut vec![0; rest]).unwrap();
        char::from(tag[0])
    }

    /// The names in the build directory.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.directory).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// A connection of this user, on which nothing has been said. It takes root.
#[allow(unsafe_code)]
pub fn raw_as(daemon: &Daemon, user: u32) -> UnixStream {
    let socket = daemon.runtime_dir().join("build/sock");
    let connect = move || {
        // SAFETY: the calls take numbers. They are the system's own and change this thread alone, which ends soon.
        let done = unsafe {
            libc::syscall(libc::SYS_setresgid, user, user, user) == 0
                && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
        };
        assert!(done, "root can act as user {user}");
        UnixStream::connect(socket).unwrap()
    };
    std::thread::spawn(connect).join().unwrap()
}

/// A connection on which nothing has been said.
pub fn raw(daemon: &Daemon) -> UnixStream {
    UnixStream::connect(daemon.runtime_dir().join("build/sock")).unwrap()
}

pub fn get_frame(action: u8) -> Vec<u8> {
    let mut frame = vec![b'g'];
    frame.extend(7u64.to_le_bytes());
    frame.extend([action; 32]);
    frame
}

pub fn put_frame(action: u8, output: &[u8], size: u64) -> Vec<u8> {
    let mut frame = vec![b'p'];
    frame.extend(8u64.to_le_bytes());
    frame.extend([action; 32]);
    frame.extend(output);
    frame.extend(size.to_le_bytes());
    frame
}

/// A body that no other one equals.
pub fn body_of(text: &str) -> (Vec<u8>, String) {
    let body = text.as_bytes().to_vec();
    let name = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    (body, name)
}
