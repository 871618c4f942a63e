//! The build's end of a session with the daemon: the client's and the proxy's.
//!
//! It finds the daemon and says hello. What is asked and answered then is the caller's own;
//! nothing here ever waits for an answer but the welcome.

use crate::cache::builds::output_name;
use crate::cache::prefetched::Prefetched;
use crate::client::hung;
use crate::client::parts::Part;
use crate::client::private;
use crate::config::{
    self, READ_BUFFER, RUNTIME_DIR, SANDBOX_DIR, SANDBOX_RUNTIME_DIR, SHELL_BUILD_LIMIT,
    WELCOME_LIMIT,
};
use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{BuildId, OutputId};
use crate::mode::Mode;
use crate::protocol::wire::{self, Hello, Welcome};
use crate::report::BuildRecord;
use crate::sys;
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A session that the daemon has agreed to.
#[derive(Debug)]
pub struct Daemon {
    stream: UnixStream,
    build: BuildId,
    /// The build directory as this process sees it.
    directory: PathBuf,
    /// Something may be ready in it.
    is_ready: bool,
    knows_first: bool,
    knows_parts: bool,
    is_readonly: bool,
}

/// What a session says of itself that uses what other machines share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared<'a> {
    /// What it does with that.
    pub mode: Mode,
    /// What separates its actions from those of others, as far as that is known at once.
    pub environment: &'a [Part],
}

impl Daemon {
    /// Says hello: for the build that the hook registered, if there is one, or for a new one, and what separates it from others.
    /// A daemon in `runtime_dir` is asked, or the one that a sandbox or the host has; it is
    /// given up on when it has not moved for `give_up_after`.
    ///
    /// # Errors
    /// When there is no daemon, it does not answer, or the build directory is out of reach.
    pub fn connect(
        runtime_dir: Option<&Path>,
        give_up_after: Duration,
        shared: Shared<'_>,
    ) -> Result<Self> {
        let Some(top) = private::build_top() else {
            return Self::connect_from_shell(runtime_dir, give_up_after, shared);
        };
        let top = top.to_str().map(String::from);
        Self::connect_as(runtime_dir, give_up_after, None, top, Some(shared))
    }

    /// Says hello outside of a build. The commands of one user go on with one build directory, or each
    /// would leave another one behind, full of links.
    fn connect_from_shell(
        runtime_dir: Option<&Path>,
        give_up_after: Duration,
        shared: Shared<'_>,
    ) -> Result<Self> {
        let connect =
            |build| Self::connect_as(runtime_dir, give_up_after, build, None, Some(shared));
        let note = private::user_dir().map(|dir| dir.join("build"));
        let known = note.as_deref().and_then(known_build);
        if let Some(build) = known
            && let Ok(daemon) = connect(Some(build))
        {
            return Ok(daemon);
        }
        let daemon = connect(None)?;
        if let Some(note) = note {
            // Without it the next command has a directory of its own, no more.
            let _ = private::directory(None)
                .and_then(|_| fs::replace(&note, daemon.build.to_string().as_bytes(), 0o600));
        }
        Ok(daemon)
    }

    /// The same for a build that was registered before, or for a new one that lasts as long
    /// as the path `top` is there. Without `shared` nothing of it leaves this machine.
    ///
    /// # Errors
    /// As above, and when the daemon knows of no such build.
    pub fn connect_as(
        runtime_dir: Option<&Path>,
        give_up_after: Duration,
        build: Option<BuildId>,
        top: Option<String>,
        shared: Option<Shared<'_>>,
    ) -> Result<Self> {
        let hello = Hello {
            version: wire::VERSION,
            build: build.map(|id| id.to_string()),
            top,
            name: std::env::var("name").ok(),
            shared: shared.is_some(),
            mode: shared
                .filter(|shared| shared.mode != Mode::On)
                .map(|shared| shared.mode.name().into()),
            environment: shared
                .map(|shared| shared.environment.to_vec())
                .unwrap_or_default(),
            ..Hello::default()
        };
        hung::check()?;
        let (stream, welcome, in_sandbox) =
            greet(runtime_dir, give_up_after, hello).inspect_err(hung::remember)?;
        let id = BuildId::parse(&welcome.build)
            .ok_or_else(|| Error::peer("the daemon sent no build ID"))?;
        let directory = directory(in_sandbox, id, &welcome);
        // Nothing in it may be listed, but it must be there.
        fs::metadata(&directory)?;
        // The answering thread looks up this often whether the daemon still moves.
        limit(&stream, give_up_after / 4, give_up_after)?;
        Ok(Self {
            stream,
            build: id,
            directory,
            is_ready: welcome.ready,
            knows_first: welcome.first,
            knows_parts: welcome.parts,
            is_readonly: welcome.mode.as_deref().map(Mode::parse) == Some(Mode::Readonly),
        })
    }

    /// The build that this is a session of.
    pub fn build(&self) -> BuildId {
        self.build
    }

    /// Whether it looks up several keys in one request.
    pub fn knows_first(&self) -> bool {
        self.knows_first
    }

    /// Whether it can be told more of what separates this build from others.
    pub fn knows_parts(&self) -> bool {
        self.knows_parts
    }

    /// Whether the daemon's administrator lets this build put nothing.
    pub fn is_readonly(&self) -> bool {
        self.is_readonly
    }

    /// What is ready in the build directory, if anything is.
    pub fn ready(&self) -> Option<Prefetched> {
        self.is_ready.then(|| Prefetched::new(&self.directory))
    }

    /// Sends one or more frames, or a part of one.
    ///
    /// # Errors
    /// When the daemon has gone, or takes nothing for long.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        (&self.stream)
            .write_all(bytes)
            .map_err(|e| Error::io("send to", "the daemon", e))
    }

    /// Where the daemon's answers come from.
    pub fn reader(&self) -> BufReader<&UnixStream> {
        BufReader::with_capacity(READ_BUFFER, &self.stream)
    }

    /// An output in the build directory.
    ///
    /// # Errors
    /// When it is not there, or not of this size in bytes.
    pub fn file(&self, output: &OutputId, size: Option<u64>) -> Result<PathBuf> {
        let path = output_name(&self.directory, output);
        let found = fs::metadata(&path)?.len();
        if size.is_some_and(|size| size != found) {
            return Err(Error::peer(format!(
                "{} has {found} bytes, which is not the size that the daemon announced",
                path.display()
            )));
        }
        Ok(path)
    }

    /// Ends the session; whoever reads from it or writes to it returns.
    pub fn hang_up(&self) {
        // The daemon may have done so before.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// What has happened in this build, if the daemon can say so.
///
/// # Errors
/// When there is no daemon, or it does not answer.
pub fn counts(runtime_dir: Option<&Path>, give_up_after: Duration) -> Result<Option<Counts>> {
    look_in(runtime_dir, give_up_after).map(|welcome| welcome.counts)
}

/// What the daemon has recorded of this user's own builds, oldest first.
///
/// # Errors
/// When there is no daemon, or it does not answer, does not tell, or is older.
pub fn records(runtime_dir: &Path) -> Result<Vec<BuildRecord>> {
    let hello = Hello {
        version: wire::VERSION,
        records: true,
        // An older daemon hears only this, and opens no session either.
        summary: true,
        ..Hello::default()
    };
    let (_, welcome, _) = greet(Some(runtime_dir), WELCOME_LIMIT, hello)?;
    welcome.records.ok_or_else(|| {
        Error::peer(format!(
            "the daemon (release {:?}) keeps no records for users",
            welcome.release
        ))
    })
}

/// How the daemon answers, without a session.
///
/// # Errors
/// When there is no daemon, or it does not answer, or speaks another version.
pub fn look_in(runtime_dir: Option<&Path>, give_up_after: Duration) -> Result<Welcome> {
    let hello = Hello {
        version: wire::VERSION,
        // A build that registered itself is found by it.
        top: std::env::var("NIX_BUILD_TOP").ok(),
        summary: true,
        ..Hello::default()
    };
    greet(runtime_dir, give_up_after, hello).map(|(_, welcome, _)| welcome)
}

/// Says hello, for the build that the hook registered unless another is named, and hears the
/// answer; says too whether this is a sandbox that the hook has set up.
fn greet(
    runtime_dir: Option<&Path>,
    give_up_after: Duration,
    mut hello: Hello,
) -> Result<(UnixStream, Welcome, bool)> {
    let sandbox = Path::new(SANDBOX_RUNTIME_DIR);
    let in_sandbox = runtime_dir.is_none() && sandbox.is_dir();
    let runtime_dir = match runtime_dir {
        Some(dir) => dir.to_path_buf(),
        None if in_sandbox => sandbox.to_path_buf(),
        None => host_runtime_dir(),
    };
    let socket = config::build_socket(&runtime_dir);
    let welcome_limit = WELCOME_LIMIT.min(give_up_after);
    let mut stream = sys::connect(&socket, welcome_limit)
        .map_err(|e| Error::io("reach the daemon at", &socket, e))?;
    limit(&stream, welcome_limit, welcome_limit)?;
    if hello.build.is_none() && in_sandbox {
        hello.build = registered_build().map(|id| id.to_string());
    }
    wire::write_line(&mut stream, &hello).map_err(|e| e.on("the daemon"))?;
    let mut reader = BufReader::with_capacity(1 << 10, &stream);
    let welcome: Welcome = wire::read_line_within(&mut reader, wire::RECORDS_MAX)
        .map_err(|e| e.on("the daemon"))?
        .ok_or_else(|| Error::peer("the daemon closed the connection at once"))?;
    if let Some(error) = welcome.error {
        return Err(Error::peer(format!("the daemon says: {error}")));
    }
    if welcome.version != wire::VERSION {
        return Err(Error::peer(format!(
            "the daemon (release {:?}) speaks version {} of the protocol, this client version {}: install the \
             same release on both sides",
            welcome.release,
            welcome.version,
            wire::VERSION
        )));
    }
    Ok((stream, welcome, in_sandbox))
}

/// Where the host's daemon listens: this user's own daemon, if there is one.
fn host_runtime_dir() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|dir| Path::new(&dir).join("nix-gocacheprog"))
        .filter(|dir| config::build_socket(dir).exists());
    own.unwrap_or_else(|| PathBuf::from(RUNTIME_DIR))
}

/// The build of this user's earlier commands, if it is not too old.
fn known_build(note: &Path) -> Option<BuildId> {
    let age = fs::metadata(note).ok()?.modified().ok()?.elapsed().ok()?;
    if age > SHELL_BUILD_LIMIT {
        return None;
    }
    BuildId::parse(fs::read_to_string(note).ok()?.trim())
}

/// The build whose directory the hook bound into this sandbox.
fn registered_build() -> Option<BuildId> {
    std::fs::read_dir(SANDBOX_DIR)
        .ok()?
        .filter_map(|entry| BuildId::parse(entry.ok()?.file_name().to_str()?))
        .next()
}

/// The build directory as this process sees it: bound in by the hook, below a directory
/// bound in for all builds, or where the host has it.
fn directory(in_sandbox: bool, id: BuildId, welcome: &Welcome) -> PathBuf {
    let sandbox = Path::new(SANDBOX_DIR);
    let candidates = [
        sandbox.join(id.to_string()),
        sandbox.join("builds").join(id.to_string()),
    ];
    candidates
        .into_iter()
        .find(|path| in_sandbox && path.is_dir())
        .unwrap_or_else(|| PathBuf::from(&welcome.directory))
}

fn limit(stream: &UnixStream, read: Duration, write: Duration) -> Result<()> {
    stream
        .set_read_timeout(Some(read))
        .and_then(|()| stream.set_write_timeout(Some(write)))
        .map_err(|e| Error::io("set the time limits of", "the connection", e))
}
