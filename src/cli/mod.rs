//! The command line: what a person or Nix wrote becomes one [`Command`].

mod manual;

use crate::cache::store::Limits;
use crate::client;
use crate::config::{CACHE_DIR, CONNECT_LIMIT, GIVE_UP_AFTER, LISTEN, READ_LIMIT, RUNTIME_DIR};
use crate::daemon;
use crate::error::{Error, Result};
use crate::host::admin::{self, Target, Task};
use crate::host::doctor;
use crate::host::install::{self, Mode};
use crate::nix::hook;
use crate::protocol::control::Gc;
use crate::proxy;
use crate::remote;
use crate::size;
use crate::stamp;
use lexopt::prelude::*;
use manual::Subcommand;
use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the daemon.
    Daemon(daemon::Options),
    /// Serve `go`.
    Client(client::Options),
    /// Say what the cache did for this build.
    Summary(client::Options),
    /// Make the times of a source tree say what its files hold, or undo that.
    Stamp(stamp::Options),
    /// Print the mounts for a build.
    Hook(hook::Options),
    /// Look after the cache.
    Admin(admin::Target, admin::Task),
    /// Be a module proxy.
    Proxy(proxy::Options),
    /// Install on this host.
    Install(install::Options),
    /// Take an installation away.
    Uninstall(install::Removal),
    /// Say what is right and wrong.
    Doctor(doctor::Options),
    /// Print a text.
    Print(Cow<'static, str>),
}

/// The version, as `--version` prints it.
const VERSION: &str = concat!("nix-gocacheprog ", env!("CARGO_PKG_VERSION"), "\n");

const HELP: &str = "\
Go's build cache and module cache inside sandboxed Nix builds.

Usage: nix-gocacheprog SUBCOMMAND [OPTION...]

  daemon   own the cache and serve builds
  client   serve `go` as its GOCACHEPROG, with the daemon behind it
  hook     print the sandbox mounts for a build, as Nix's pre-build-hook
  proxy    be a Go module proxy that keeps what it fetches in the cache

  stats    say how large the cache is, and who uses it
  gc       evict what is not used
  verify   look for damage in the cache

  install    install on this host, which is not NixOS, and set up Nix
  uninstall  take that away again
  doctor     say what is right and what is wrong, and what mends it

  man          print all of this as a man page
  completions  print what completes this command line in bash, zsh or fish

`nix-gocacheprog SUBCOMMAND --help` says more. A program named `client` or `hook` is that
subcommand.
";

const DAEMON_HELP: &str = "\
Own the cache and serve builds on two sockets, until told to stop.

Usage: nix-gocacheprog daemon [OPTION...]

  --cache-dir DIR    where the cache is (/var/cache/nix-gocacheprog)
  --runtime-dir DIR  where the sockets are (/run/nix-gocacheprog): build/sock, which builds
                     use, and control/sock, which root and the hook use
  --max-size SIZE    what the cache may take on disk (20G); the least recently used goes first
  --max-age AGE      what was not used for so long goes (60d)
  --min-free SIZE    what is left free on the file system (5% of it, at most 10G)
  --idle-exit AGE    when systemd has started it: end after so long without a build (10m)

  --remote URL       a cache for several machines behind this one: bazel-remote, or any HTTP server
                     that keeps what is PUT
  --remote-mode MODE
                     read, write or read-write (the default)
  --remote-credentials FILE
                     a file with user:password, or with a token; otherwise netrc is looked at
  --remote-ca FILE   trust these certificates, instead of the system's
  --remote-cert FILE, --remote-key FILE
                     show this certificate

Sockets that systemd passes, named `build` and `control`, are used instead of its own.

The environment variables NIX_GOCACHEPROG_CACHE_DIR and NIX_GOCACHEPROG_RUNTIME_DIR change
the defaults, and NIX_GOCACHEPROG_LOG=debug logs each request.
";

const CLIENT_HELP: &str = "\
Serve `go` on stdin and stdout as its GOCACHEPROG. Without a daemon it serves the build from
a private cache.

Usage: GOCACHEPROG=\"nix-gocacheprog client\" go build ./...

  --runtime-dir DIR    where the daemon's sockets are (/gocache/run in a sandbox, else
                       /run/nix-gocacheprog, or NIX_GOCACHEPROG_RUNTIME_DIR)
  --cache-dir DIR      where the private cache is: by default in the build's own directory or,
                       outside of a Nix build, in ~/.cache/nix-gocacheprog, where it is kept
                       within the daemon's default limits
  --give-up-after AGE  go on without a daemon that has stopped moving for so long (60s)
  --summary            serve nobody: say in one line what the cache did for this build
  --stamp DIR          serve nobody: give each file below DIR an mtime made of its content, so that
                       `go` can tell it from another one by it. The setup hook does this while
                       `go` runs. Fails and changes nothing where a link leads out of DIR
  --restore            serve nobody: put the times back of all that was not written to since
  --times FILE         for these two: the file that remembers the times

With NIX_GOCACHEPROG=readonly in the environment the build reads the shared cache, and what it
puts goes to a private one.
";

const HOOK_HELP: &str = "\
Register a build with the daemon and print the sandbox mounts for it. Nix calls this when
nix.conf says `pre-build-hook = PATH`, where PATH is this program under the name `hook`.

Usage: nix-gocacheprog hook DRV [CHROOT]

  --runtime-dir DIR  where the daemon's sockets are (/run/nix-gocacheprog, or
                     NIX_GOCACHEPROG_RUNTIME_DIR)
  --chain PROGRAM    another pre-build-hook: run first, with the same arguments, and both
                     answers are given. Nix gives no options: write a script with
                     exec nix-gocacheprog hook --chain PROGRAM \"$@\"

It always succeeds, within a second. When something is off it prints nothing, and the build
goes on without the shared cache. A PROGRAM that fails is passed on as it is.
";

const STATS_HELP: &str = "\
Say how large the cache is, how well it serves, and who uses it most.

Usage: nix-gocacheprog stats [OPTION...]

  --json             for programs: sizes in bytes, times in seconds
  --cache-dir DIR    where the cache is (/var/cache/nix-gocacheprog)
  --runtime-dir DIR  where the daemon's sockets are (/run/nix-gocacheprog)

The daemon is asked to do it. Where none runs it is done on the cache directory itself.
";

const GC_HELP: &str = "\
Evict the least recently used: what the limits of the daemon do not allow, down to 90% of its
size limit, and what nothing needs. What live builds use stays.

Usage: nix-gocacheprog gc [OPTION...]

  --max-size SIZE    down to this size, as in 20G or 1.5GiB
  --max-age AGE      what was not used for so long, as in 60d or 36h
  --all              everything
  --dry-run          only say what would go
  --cache-dir DIR    where the cache is (/var/cache/nix-gocacheprog)
  --runtime-dir DIR  where the daemon's sockets are (/run/nix-gocacheprog)

The daemon is asked to do it. Where none runs it is done on the cache directory itself.
";

const VERIFY_HELP: &str = "\
Read all outputs and compare them with their names, and look for actions whose output is
missing. It lists what is damaged, and fails then.

Usage: nix-gocacheprog verify [OPTION...]

  --repair           remove what is damaged: the next build puts it again
  --cache-dir DIR    where the cache is (/var/cache/nix-gocacheprog)
  --runtime-dir DIR  where the daemon's sockets are (/run/nix-gocacheprog)

The daemon is asked to do it. Where none runs it is done on the cache directory itself.
";

const PROXY_HELP: &str = "\
Be a Go module proxy, in front of the upstreams that GOPROXY lists. What never changes is
kept in the daemon's cache or, without a daemon, in one of this user's own. Prints its URL
once it accepts connections.

Usage: nix-gocacheprog proxy [OPTION...]

  --listen ADDR        where to listen (127.0.0.1:0, that is, a free port)
  --build PID          serve one build: end when this process does, cache nothing without a
                       daemon, and leave what fails to `go`, which must have the same list
                       behind this proxy, as in GOPROXY=\"URL|$GOPROXY\"
  --runtime-dir DIR    where the daemon's sockets are (/gocache/run in a sandbox, else
                       /run/nix-gocacheprog, or NIX_GOCACHEPROG_RUNTIME_DIR)
  --cache-dir DIR      where modules are kept without a daemon (~/.cache/nix-gocacheprog/modules)
  --max-size SIZE      what they may take there (20G); the least recently used goes first
  --max-age AGE        what was not used for so long goes from there (60d)
  --connect-limit AGE  how long a connection to an upstream may take to be made (10s)
  --read-limit AGE     how long an upstream may be silent (60s)

GOPROXY, GOAUTH=netrc, NETRC, HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE and
NIX_SSL_CERT_FILE mean what they mean to `go`. At its end it logs how many requests it has sent.
";

const INSTALL_HELP: &str = "\
Install on this host: the program, systemd's units, a user for the daemon, and a line in
nix.conf. It can be run again at any time, and changes only what is missing. A pre-build-hook that
is there already is kept and run first. At its end it runs `doctor`.

Usage: sudo nix-gocacheprog install [OPTION...]

  --mode hook    give each build its own mounts, by Nix's pre-build-hook (the default)
  --mode static  give every build the same mounts: for Lix, which ignores the hook
  --user         for a Nix of your own, without root
  --dry-run      only show the changes

  --remote URL, --remote-mode MODE, --remote-credentials FILE, --remote-ca FILE
                 give the daemon a remote, as `daemon --help` says, and with it the network; the
                 files may be such that only root can read them
";

const UNINSTALL_HELP: &str = "\
Take away what `install` has made, and ask whether the cache goes too.

Usage: sudo nix-gocacheprog uninstall [OPTION...]

  --remove-cache  remove the cache, without a question
  --keep-cache    keep the cache and its user, without a question
  --user          what `install --user` has made
  --dry-run       only show the changes
";

const DOCTOR_HELP: &str = "\
Say what is right and what is wrong with the program, its sockets, the daemon, Nix's
configuration and the cache, and what mends it. Fails when something is wrong.

Usage: nix-gocacheprog doctor [OPTION...]

  --json             for programs
  --cache-dir DIR    where the cache is (/var/cache/nix-gocacheprog)
  --runtime-dir DIR  where the daemon's sockets are (/run/nix-gocacheprog)
";

const MAN_HELP: &str = "\
Print the man page.

Usage: nix-gocacheprog man >nix-gocacheprog.1
";

const COMPLETIONS_HELP: &str = "\
Print what completes this command line in a shell, to be sourced by it.

Usage: nix-gocacheprog completions SHELL

  bash  to be kept as ~/.local/share/bash-completion/completions/nix-gocacheprog
  zsh   to be kept as _nix-gocacheprog in a folder of $fpath
  fish  to be kept as ~/.config/fish/completions/nix-gocacheprog.fish
";

/// All subcommands, each with its help.
const SUBCOMMANDS: [Subcommand; 12] = [
    ("daemon", DAEMON_HELP),
    ("client", CLIENT_HELP),
    ("hook", HOOK_HELP),
    ("proxy", PROXY_HELP),
    ("stats", STATS_HELP),
    ("gc", GC_HELP),
    ("verify", VERIFY_HELP),
    ("install", INSTALL_HELP),
    ("uninstall", UNINSTALL_HELP),
    ("doctor", DOCTOR_HELP),
    ("man", MAN_HELP),
    ("completions", COMPLETIONS_HELP),
];

/// Reads the command line.
///
/// # Errors
/// When it is not one of ours, with a hint.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let mut args = lexopt::Parser::from_iter(args);
    let called = args.bin_name().unwrap_or_default();
    let base = called.rsplit('/').next().unwrap_or_default();
    let named = ["client", "hook"].into_iter().find(|name| *name == base);
    let subcommand = match named {
        Some(name) => name.to_string(),
        None => match args.next().map_err(bad)? {
            Some(Value(name)) => name.to_string_lossy().into_owned(),
            Some(Long("help") | Short('h')) => return Ok(Command::Print(HELP.into())),
            Some(Long("version") | Short('V')) => return Ok(Command::Print(VERSION.into())),
            Some(other) => return Err(bad(other.unexpected())),
            None => return Err(Error::input("a subcommand is missing")),
        },
    };
    match subcommand.as_str() {
        "daemon" => parse_daemon(&mut args),
        "client" => parse_client(&mut args),
        "hook" => parse_hook(&mut args),
        "stats" => parse_stats(&mut args),
        "gc" => parse_gc(&mut args),
        "verify" => parse_verify(&mut args),
        "proxy" => parse_proxy(&mut args),
        "install" => parse_install(&mut args),
        "uninstall" => parse_uninstall(&mut args),
        "doctor" => parse_doctor(&mut args),
        "man" => parse_man(&mut args),
        "completions" => parse_completions(&mut args),
        "help" => Ok(Command::Print(HELP.into())),
        other => Err(Error::input(format!("there is no subcommand {other:?}"))),
    }
}

fn parse_daemon(args: &mut lexopt::Parser) -> Result<Command> {
    let mut options = daemon::Options {
        cache_dir: default_cache_dir(),
        runtime_dir: default_runtime_dir(),
        limits: Limits::default(),
        idle_exit: Duration::from_secs(600),
        remote: None,
    };
    let mut remote = remote::Options::default();
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("cache-dir") => options.cache_dir = directory(args)?,
            Long("runtime-dir") => options.runtime_dir = directory(args)?,
            Long("max-size") => options.limits.max_size = size::parse_size(&text(args)?)?,
            Long("max-age") => options.limits.max_age = size::parse_age(&text(args)?)?,
            Long("min-free") => options.limits.min_free = Some(size::parse_size(&text(args)?)?),
            Long("idle-exit") => options.idle_exit = size::parse_age(&text(args)?)?,
            Long("remote") => remote.url = text(args)?,
            Long("remote-mode") => remote.mode = remote::Mode::parse(&text(args)?)?,
            Long("remote-credentials") => remote.credentials = Some(credential(args)?),
            Long("remote-ca") => remote.ca = Some(credential(args)?),
            Long("remote-cert") => remote.cert = Some(credential(args)?),
            Long("remote-key") => remote.key = Some(credential(args)?),
            other => return general(other, DAEMON_HELP),
        }
    }
    if !remote.url.is_empty() {
        options.remote = Some(remote);
    } else if remote != remote::Options::default() {
        return Err(useless());
    }
    Ok(Command::Daemon(options))
}

fn parse_client(args: &mut lexopt::Parser) -> Result<Command> {
    let mut options = client::Options {
        runtime_dir: std::env::var_os("NIX_GOCACHEPROG_RUNTIME_DIR").map(PathBuf::from),
        give_up_after: GIVE_UP_AFTER,
        readonly: std::env::var_os("NIX_GOCACHEPROG").is_some_and(|mode| mode == "readonly"),
        cache_dir: None,
    };
    let mut summary = false;
    let mut task = None;
    let mut table = None;
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("runtime-dir") => options.runtime_dir = Some(directory(args)?),
            Long("give-up-after") => {
                options.give_up_after = limit(args)?;
            }
            Long("cache-dir") => options.cache_dir = Some(directory(args)?),
            Long("summary") => summary = true,
            Long("stamp") => task = Some(stamp::Task::Set(directory(args)?)),
            Long("restore") => task = Some(stamp::Task::Restore),
            Long("times") => table = Some(directory(args)?),
            other => return general(other, CLIENT_HELP),
        }
    }
    Ok(match (task, table) {
        (Some(task), Some(table)) => Command::Stamp(stamp::Options { table, task }),
        (None, None) if summary => Command::Summary(options),
        (None, None) => Command::Client(options),
        _ => return Err(Error::input("--stamp DIR and --restore take --times FILE")),
    })
}

fn parse_hook(args: &mut lexopt::Parser) -> Result<Command> {
    let mut runtime_dir = default_runtime_dir();
    let mut chain = None;
    let mut paths = Vec::new();
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("runtime-dir") => runtime_dir = directory(args)?,
            Long("chain") => chain = Some(PathBuf::from(args.value().map_err(bad)?)),
            Value(path) if paths.len() < 2 => paths.push(PathBuf::from(path)),
            other => return general(other, HOOK_HELP),
        }
    }
    let mut paths = paths.into_iter();
    let drv = paths.next().ok_or_else(|| {
        Error::input("hook takes a derivation and a chroot, as Nix gives them to a pre-build-hook")
    })?;
    Ok(Command::Hook(hook::Options {
        drv,
        chroot: paths.next(),
        runtime_dir,
        chain,
    }))
}

fn parse_stats(args: &mut lexopt::Parser) -> Result<Command> {
    let mut place = default_place();
    let mut json = false;
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("json") => json = true,
            Long("cache-dir") => place.name(directory(args)?),
            Long("runtime-dir") => place.runtime_dir = directory(args)?,
            other => return general(other, STATS_HELP),
        }
    }
    Ok(Command::Admin(place, Task::Stats { json }))
}

fn parse_gc(args: &mut lexopt::Parser) -> Result<Command> {
    let mut place = default_place();
    let (mut max_size, mut max_age, mut all, mut dry_run) = (None, None, false, false);
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("max-size") => max_size = Some(size::parse_size(&text(args)?)?),
            Long("max-age") => max_age = Some(size::parse_age(&text(args)?)?),
            Long("all") => all = true,
            Long("dry-run") => dry_run = true,
            Long("cache-dir") => place.name(directory(args)?),
            Long("runtime-dir") => place.runtime_dir = directory(args)?,
            other => return general(other, GC_HELP),
        }
    }
    let what = match (all, max_size, max_age) {
        (true, None, None) => Gc::All,
        (false, ..) => Gc::Beyond { max_size, max_age },
        _ => {
            return Err(Error::input(
                "--all leaves nothing to --max-size or --max-age",
            ));
        }
    };
    Ok(Command::Admin(place, Task::Gc { what, dry_run }))
}

fn parse_verify(args: &mut lexopt::Parser) -> Result<Command> {
    let mut place = default_place();
    let mut repair = false;
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("repair") => repair = true,
            Long("cache-dir") => place.name(directory(args)?),
            Long("runtime-dir") => place.runtime_dir = directory(args)?,
            other => return general(other, VERIFY_HELP),
        }
    }
    Ok(Command::Admin(place, Task::Verify { repair }))
}

fn default_place() -> Target {
    let (cache_dir, runtime_dir) = own_or_default_dirs();
    Target {
        cache_dir,
        is_named: false,
        runtime_dir,
    }
}

fn parse_proxy(args: &mut lexopt::Parser) -> Result<Command> {
    let mut options = proxy::Options {
        listen: LISTEN.to_string(),
        build: None,
        runtime_dir: std::env::var_os("NIX_GOCACHEPROG_RUNTIME_DIR").map(PathBuf::from),
        limits: proxy::Limits {
            connect: CONNECT_LIMIT,
            read: READ_LIMIT,
        },
        cache_dir: None,
        keep: Limits::default(),
    };
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("listen") => options.listen = text(args)?,
            Long("build") => {
                let pid = text(args)?;
                let number = pid.parse().map_err(|_| {
                    Error::input(format!(
                        "--build takes the number of a process, not {pid:?}"
                    ))
                });
                options.build = Some(number?);
            }
            Long("runtime-dir") => options.runtime_dir = Some(directory(args)?),
            Long("cache-dir") => options.cache_dir = Some(directory(args)?),
            Long("max-size") => options.keep.max_size = size::parse_size(&text(args)?)?,
            Long("max-age") => options.keep.max_age = size::parse_age(&text(args)?)?,
            Long("connect-limit") => options.limits.connect = limit(args)?,
            Long("read-limit") => options.limits.read = limit(args)?,
            other => return general(other, PROXY_HELP),
        }
    }
    Ok(Command::Proxy(options))
}

fn parse_install(args: &mut lexopt::Parser) -> Result<Command> {
    let mut options = install::Options::default();
    let mut remote = install::Remote::default();
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("mode") => {
                options.mode = match text(args)?.as_str() {
                    "hook" => Mode::Hook,
                    "static" => Mode::Static,
                    other => {
                        return Err(Error::input(format!(
                            "--mode is hook or static, not {other:?}"
                        )));
                    }
                }
            }
            Long("user") => options.user = true,
            Long("dry-run") => options.dry_run = true,
            Long("remote") => remote.url = text(args)?,
            Long("remote-mode") => remote.mode = remote::Mode::parse(&text(args)?)?,
            Long("remote-credentials") => remote.credentials = Some(file(args)?),
            Long("remote-ca") => remote.ca = Some(file(args)?),
            other => return general(other, INSTALL_HELP),
        }
    }
    if !remote.url.is_empty() {
        options.remote = Some(remote);
    } else if remote != install::Remote::default() {
        return Err(useless());
    }
    Ok(Command::Install(options))
}

fn parse_uninstall(args: &mut lexopt::Parser) -> Result<Command> {
    let mut removal = install::Removal::default();
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("remove-cache") => removal.cache = Some(true),
            Long("keep-cache") => removal.cache = Some(false),
            Long("user") => removal.user = true,
            Long("dry-run") => removal.dry_run = true,
            other => return general(other, UNINSTALL_HELP),
        }
    }
    Ok(Command::Uninstall(removal))
}

fn parse_doctor(args: &mut lexopt::Parser) -> Result<Command> {
    let (cache_dir, runtime_dir) = own_or_default_dirs();
    let mut options = doctor::Options {
        json: false,
        runtime_dir,
        cache_dir,
    };
    while let Some(arg) = args.next().map_err(bad)? {
        match arg {
            Long("json") => options.json = true,
            Long("cache-dir") => options.cache_dir = directory(args)?,
            Long("runtime-dir") => options.runtime_dir = directory(args)?,
            other => return general(other, DOCTOR_HELP),
        }
    }
    Ok(Command::Doctor(options))
}

fn parse_man(args: &mut lexopt::Parser) -> Result<Command> {
    match args.next().map_err(bad)? {
        Some(other) => general(other, MAN_HELP),
        None => {
            let page = manual::page(VERSION, HELP, &SUBCOMMANDS);
            Ok(Command::Print(page.into()))
        }
    }
}

fn parse_completions(args: &mut lexopt::Parser) -> Result<Command> {
    let shell = match args.next().map_err(bad)? {
        Some(Value(shell)) => shell.to_string_lossy().into_owned(),
        Some(other) => return general(other, COMPLETIONS_HELP),
        None => String::new(),
    };
    if let Some(further) = args.next().map_err(bad)? {
        return general(further, COMPLETIONS_HELP);
    }
    let completions = manual::completions(&shell, HELP, &SUBCOMMANDS);
    let completions = completions.ok_or_else(|| {
        Error::input(format!(
            "completions are for bash, zsh or fish, not {shell:?}"
        ))
    })?;
    Ok(Command::Print(completions.into()))
}

/// A time limit, which nothing could keep if it were nothing.
fn limit(args: &mut lexopt::Parser) -> Result<Duration> {
    Ok(size::parse_age(&text(args)?)?.max(Duration::from_secs(1)))
}

/// What every subcommand understands.
fn general(arg: lexopt::Arg<'_>, help: &'static str) -> Result<Command> {
    match arg {
        Long("help") | Short('h') => Ok(Command::Print(help.into())),
        Long("version") | Short('V') => Ok(Command::Print(VERSION.into())),
        other => Err(bad(other.unexpected())),
    }
}

fn default_dir(ours: &str, systemds: &str, otherwise: &str) -> PathBuf {
    [ours, systemds]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from(otherwise), PathBuf::from)
}

fn default_cache_dir() -> PathBuf {
    default_dir("NIX_GOCACHEPROG_CACHE_DIR", "CACHE_DIRECTORY", CACHE_DIR)
}

/// The cache and the sockets that a person asks about: those of an installation of the user's own,
/// where there is one.
fn own_or_default_dirs() -> (PathBuf, PathBuf) {
    let (cache, runtime) = (default_cache_dir(), default_runtime_dir());
    match install::own_dirs() {
        Some(own) if cache == Path::new(CACHE_DIR) && runtime == Path::new(RUNTIME_DIR) => own,
        _ => (cache, runtime),
    }
}

fn default_runtime_dir() -> PathBuf {
    default_dir(
        "NIX_GOCACHEPROG_RUNTIME_DIR",
        "RUNTIME_DIRECTORY",
        RUNTIME_DIR,
    )
}

fn directory(args: &mut lexopt::Parser) -> Result<PathBuf> {
    let dir = PathBuf::from(args.value().map_err(bad)?);
    if dir.as_os_str().is_empty() {
        return Err(Error::input("a directory's name is empty"));
    }
    std::path::absolute(&dir).map_err(|e| Error::io("find", Path::new(&dir), e))
}

/// A file that somebody gives us to read: systemd puts those that it is told to load into a directory of its own.
fn credential(args: &mut lexopt::Parser) -> Result<PathBuf> {
    let path = file(args)?;
    let loaded = std::env::var_os("CREDENTIALS_DIRECTORY").map(|dir| Path::new(&dir).join(&path));
    Ok(loaded.filter(|path| path.exists()).unwrap_or(path))
}

fn file(args: &mut lexopt::Parser) -> Result<PathBuf> {
    args.value().map(PathBuf::from).map_err(bad)
}

fn useless() -> Error {
    Error::input("what is said of the remote is of no use without --remote URL")
}

fn text(args: &mut lexopt::Parser) -> Result<String> {
    let value = args.value().map_err(bad)?;
    value
        .into_string()
        .map_err(|value| Error::input(format!("{value:?} is not text")))
}

fn bad(e: lexopt::Error) -> Error {
    Error::input(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Command> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn the_name_selects_the_subcommand() {
        for args in [
            &["/nix/store/x/bin/hook", "/nix/store/x.drv", "/c"][..],
            &["nix-gocacheprog", "hook", "/nix/store/x.drv", "/c"],
        ] {
            assert!(
                matches!(parsed(args), Ok(Command::Hook(hook))
                    if hook.drv == Path::new("/nix/store/x.drv") && hook.chroot == Some("/c".into())),
                "{args:?}"
            );
        }
        assert!(matches!(
            parsed(&["/gocache/client"]),
            Ok(Command::Client(_))
        ));
        assert_eq!(
            parsed(&["/gocache/client", "--version"]).unwrap(),
            Command::Print(VERSION.into())
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (args, named) in [
            (&["x"][..], "subcommand is missing"),
            (&["x", "frobnicate"], "frobnicate"),
            (&["x", "daemon", "--frob"], "--frob"),
            (&["x", "daemon", "--idle-exit", "soon"], "soon"),
            (&["x", "daemon", "--max-size", "much"], "20G"),
            (&["x", "daemon", "--max-age", "60"], "60d"),
            (&["x", "daemon", "--min-free", "5%"], "20G"),
            (&["x", "daemon", "--cache-dir"], "--cache-dir"),
            (&["x", "daemon", "--remote-ca", "x"], "--remote URL"),
            (&["x", "daemon", "--remote-mode", "rw"], "read-write"),
            (&["x", "gc", "--max-size", "x"], "20G"),
            (&["x", "gc", "--all", "--max-age", "1d"], "--all"),
            (&["x", "stats", "now"], "now"),
            (&["x", "client", "--stamp", "d"], "--times FILE"),
            (&["x", "client", "--times", "f"], "--restore"),
            (&["x", "hook"], "derivation"),
            (&["x", "proxy", "--build", "me"], "me"),
            (&["x", "proxy", "--read-limit", "never"], "never"),
            (&["x", "hook", "a", "b", "c"], "\"c\""),
            (&["x", "man", "now"], "now"),
            (&["x", "completions"], "bash"),
            (&["x", "completions", "csh"], "csh"),
            (&["x", "completions", "zsh", "fish"], "fish"),
        ] {
            let error = parsed(args).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn what_a_help_names_is_understood_and_nothing_else_is() {
        let source = include_str!("mod.rs");
        let source = &source[..source.find("mod tests").unwrap()];
        let mut named = std::collections::BTreeSet::from(["help", "version"]);
        for (name, help) in SUBCOMMANDS {
            assert!(HELP.contains(&format!("\n  {name} ")), "{name}");
            let words = help.split([' ', '\n', ',', '`', ';', ')']);
            for option in words.filter_map(|word| word.strip_prefix("--")) {
                named.insert(option);
                let words = ["1d", "20G", "read", "hook", "127.0.0.1:0", "7"];
                let mut forms = words.map(|value| format!("--{option}={value}")).to_vec();
                forms.push(format!("--{option}"));
                let is_known = |form: &String| parsed(&["x", name, form, "--help"]).is_ok();
                assert!(forms.iter().any(is_known), "{name} {option}");
            }
        }
        let understood = source.split("Long(\"").skip(1);
        for option in understood.filter_map(|rest| rest.split('"').next()) {
            assert!(named.contains(option), "no help names --{option}");
        }
    }
}
