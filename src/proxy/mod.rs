//! The module proxy: `go` asks it for modules, and it asks the cache and the upstreams of the
//! user's own GOPROXY list.
//!
//! tiny_http in front, ureq behind, the cache in between. It may be slow or missing, for `go` has
//! the user's own list behind it; it must never give a file that an upstream would not have
//! given. It holds nothing of the build's open, and ends with the build.

mod answers;
mod body;
mod cache;
mod check;
mod go_sum;
mod lifetime;
mod link;
pub mod list;
pub mod path;
mod request;
mod response;
mod server;
mod single_flight;
mod standalone;
mod token;
mod upstream;
mod zip;

use crate::cache::store;
use crate::error::{Error, Result};
use crate::log;
use crate::sys;
use answers::{Answers, Serves};
use cache::{Cache, Place};
use go_sum::ExpectedHashes;
use lifetime::BuildProcess;
use list::{Entry, Source};
use path::ModulePath;
use response::Response;
use server::Server;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use token::Token;
pub use upstream::Limits;
use upstream::Upstreams;

/// How a proxy is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The address and the port to listen on.
    pub listen: String,
    /// The process of the build that is served, if it is one build.
    pub build: Option<u32>,
    /// A file with the token that clients must know.
    pub token_file: Option<PathBuf>,
    /// Ask no upstream: answer with what is in the cache.
    pub offline: bool,
    /// Where the daemon's sockets are, if not where a sandbox or the host has them.
    pub runtime_dir: Option<PathBuf>,
    /// Time limits towards upstreams.
    pub limits: Limits,
    /// Where modules are kept when there is no daemon, if not in a directory of this user's.
    pub cache_dir: Option<PathBuf>,
    /// The limits of that directory.
    pub keep: store::Limits,
}

/// Serves until SIGTERM or SIGINT, or until the build has ended.
///
/// # Errors
/// When GOPROXY or the token is malformed, or the address cannot be listened on.
pub fn run(options: &Options) -> Result<()> {
    let (serves, netrc_directories) = serves(options);
    if options.build.is_some() {
        // Nix waits for the build's end until all its descriptors are closed.
        sys::close_inherited();
        std::env::set_current_dir("/").map_err(|e| Error::io("change to", "/", e))?;
    }
    // Before the first thread, so that no other one gets the signals.
    let termination = sys::Termination::new()?;
    let build = match options.build {
        Some(pid) => match BuildProcess::find(pid)? {
            Some(build) => Some(build),
            None => return Ok(()),
        },
        None => None,
    };
    let entries = list::parse(&goproxy()?)?;
    let (token, secret_path) = token(options)?;
    let descriptors = sys::raise_descriptor_limit();
    let listener = TcpListener::bind(&options.listen)
        .map_err(|e| Error::io("listen on", &options.listen, e))?;
    let address = listener
        .local_addr()
        .and_then(|address| {
            set_up(&listener)?;
            Ok(address)
        })
        .map_err(|e| Error::io("listen on", &options.listen, e))?;
    refuse_itself(&entries, address)?;
    let place = match build {
        Some(_) => Place::Build,
        None => Place::Standalone(options.cache_dir.clone(), options.keep),
    };
    let answers = Arc::new(Answers::new(
        entries,
        Upstreams::from_env(options.limits, &netrc_directories),
        Cache::new(options.runtime_dir.clone(), place),
        serves,
    ));
    let answering = Arc::clone(&answers);
    let server = Server::start(
        listener,
        descriptors,
        token,
        move |path| match ModulePath::parse(path) {
            Some(path) => answering.answer(&path),
            None => Response::text(404, "not found: not a path of the GOPROXY protocol\n"),
        },
    )?;
    log::info(format!("proxy on http://{address}"));
    // Closed at once: the reader of the URL waits for the end of the file.
    sys::stdout()
        .write_all(format!("http://{address}{secret_path}\n").as_bytes())
        .map_err(|e| Error::io("print the URL to", "stdout", e))?;
    let ended = lifetime::wait_for_end(&termination, build.as_ref());
    let is_idle = build.is_none() && server.wait_until_idle();
    answers.end(is_idle);
    log::info(format!("proxy ended: {}", answers.summary()));
    ended
}

/// Whom to serve, and where a netrc may appear besides the usual place: a phase of a build sets HOME, after the proxy has
/// begun, to where it may write.
fn serves(options: &Options) -> (Serves, Vec<PathBuf>) {
    if options.build.is_none() {
        let offline = options.offline;
        return (Serves::Team { offline }, Vec::new());
    }
    let [top, temporary] =
        ["NIX_BUILD_TOP", "TMPDIR"].map(|name| std::env::var_os(name).map(PathBuf::from));
    let hashes = match std::env::current_dir() {
        Ok(directory) => ExpectedHashes::of_build(&directory, top.as_deref()),
        Err(_) => ExpectedHashes::default(),
    };
    let has_home = std::env::var_os("HOME").is_some_and(|home| Path::new(&home).is_dir());
    let others = top.into_iter().chain(temporary);
    let netrc_directories = others.filter(|_| !has_home).collect();
    (Serves::Build(hashes), netrc_directories)
}

/// The token that clients must know, and what to print of it: a build's is random and part of the URL,
/// a team's stands in a file that its clients know too.
fn token(options: &Options) -> Result<(Option<Token>, String)> {
    match (&options.token_file, options.build) {
        (Some(file), _) => Ok((Some(Token::from_file(file)?), String::new())),
        (None, Some(_)) => {
            let (token, text) = Token::random()?;
            Ok((Some(token), format!("/{text}")))
        }
        (None, None) => Ok((None, String::new())),
    }
}

/// The user's own list: `GOPROXY`, or the default of `go` when that is unset.
fn goproxy() -> Result<String> {
    if let Some(list) = std::env::var_os("GOPROXY").filter(|list| !list.is_empty()) {
        return list
            .into_string()
            .map_err(|_| Error::input("GOPROXY is not UTF-8"));
    }
    let output = Command::new("go").args(["env", "GOPROXY"]).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
        }
        _ => Err(Error::input(
            "GOPROXY is unset, and `go` could not be asked for its default: set GOPROXY to the upstreams",
        )),
    }
}

/// Sets the options that connections inherit from their listener: they send at once what is written, and end
/// when their client has vanished.
fn set_up(listener: &TcpListener) -> std::io::Result<()> {
    sys::keep_alive(listener)?;
    let socket = TcpStream::from(OwnedFd::from(listener.try_clone()?));
    socket.set_nodelay(true)
}

/// A proxy that is its own upstream would ask itself without end.
fn refuse_itself(entries: &[Entry], address: SocketAddr) -> Result<()> {
    let names_us = |entry: &Entry| match &entry.source {
        Source::Upstream(url) => {
            let is_here = url.is_loopback() || url.address() == Some(address.ip());
            is_here && url.port() == address.port()
        }
        _ => false,
    };
    if entries.iter().any(names_us) {
        return Err(Error::input(format!(
            "GOPROXY lists this proxy itself (http://{address}): set it to the upstreams, for this command"
        )));
    }
    Ok(())
}
