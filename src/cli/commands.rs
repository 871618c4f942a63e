//! The handlers of the table: what was given becomes a [`Command`].

use super::arguments::{Arguments, Source};
use super::{Command, VERSION, completions as shells, help as texts, manual, table};
use crate::cache::store::Limits;
use crate::client;
use crate::config::control_socket;
use crate::daemon;
use crate::error::{Error, Result};
use crate::host::admin::{Form, Target, Task};
use crate::host::ci;
use crate::host::doctor;
use crate::host::export;
use crate::host::flush;
use crate::host::install::{self, Mode};
use crate::nix::hook;
use crate::protocol::control::Gc;
use crate::proxy;
use crate::remote;
use crate::stamp;
use std::path::PathBuf;

pub fn daemon(args: &Arguments) -> Result<Command> {
    Ok(Command::Daemon(daemon::Options {
        cache_dir: args.dir("cache-dir")?.unwrap_or_default(),
        runtime_dir: args.dir("runtime-dir")?.unwrap_or_default(),
        limits: limits(args, args.size("min-free")?)?,
        idle_exit: args.age("idle-exit")?.unwrap_or_default(),
        remote: remote(args, Arguments::credential)?,
        metrics_file: args.file("metrics-file")?,
        policy: policy(args)?.into(),
    }))
}

fn policy(args: &Arguments) -> Result<daemon::policy::Options> {
    Ok(daemon::policy::Options {
        build_users_group: args.text("build-users-group")?.unwrap_or_default(),
        trusted_users: texts(args, "trusted-user")?,
        readonly_names: texts(args, "readonly-name")?,
        off_names: texts(args, "off-name")?,
        audit_one_in: args.number("audit-one-in")?.unwrap_or(0),
        no_shared_inodes: args.is_given("no-shared-inodes"),
        ..daemon::policy::Options::default()
    })
}

/// All values of an option that repeats.
fn texts(args: &Arguments, name: &str) -> Result<Vec<String>> {
    let texts = args.all(name).map(|value| value.to_str().map(String::from));
    texts
        .collect::<Option<_>>()
        .ok_or_else(|| Error::input(format!("--{name} takes text")))
}

pub fn client(args: &Arguments) -> Result<Command> {
    let said = std::env::var_os("NIX_GOCACHEPROG").unwrap_or_default();
    let said = said.to_string_lossy();
    let mode = crate::mode::Mode::parse(&said);
    let options = client::Options {
        runtime_dir: args.dir("runtime-dir")?,
        give_up_after: args.limit("give-up-after")?.unwrap_or_default(),
        mode,
        cache_dir: args.dir("cache-dir")?,
    };
    let task = match args.dir("stamp")? {
        Some(dir) => Some(stamp::Task::Set(dir)),
        None => args.is_given("restore").then_some(stamp::Task::Restore),
    };
    Ok(match (task, args.dir("times")?) {
        (Some(task), Some(table)) => Command::Stamp(stamp::Options { table, task }),
        _ if args.is_given("summary") => Command::Summary(options),
        _ => {
            if mode == crate::mode::Mode::Off && said != "off" {
                crate::log::warn(format!(
                    "NIX_GOCACHEPROG={said} is not one of on, readonly, audit and off, so this build runs without the \
                     shared cache"
                ));
            }
            Command::Client(options)
        }
    })
}

pub fn hook(args: &Arguments) -> Result<Command> {
    let mut paths = args.words().iter().map(PathBuf::from);
    Ok(Command::Hook(hook::Options {
        drv: paths.next().unwrap_or_default(),
        chroot: paths.next(),
        runtime_dir: args.dir("runtime-dir")?.unwrap_or_default(),
        chain: args.file("chain")?,
    }))
}

pub fn proxy(args: &Arguments) -> Result<Command> {
    Ok(Command::Proxy(proxy::Options {
        listen: args.text("listen")?.unwrap_or_default(),
        build: args.number("build")?,
        token_file: args.credential("token-file")?,
        offline: args.is_given("offline"),
        runtime_dir: args.dir("runtime-dir")?,
        limits: proxy::Limits {
            connect: args.limit("connect-limit")?.unwrap_or_default(),
            read: args.limit("read-limit")?.unwrap_or_default(),
        },
        cache_dir: args.dir("cache-dir")?,
        keep: limits(args, None)?,
    }))
}

pub fn stats(args: &Arguments) -> Result<Command> {
    let json = args.is_given("json");
    let task = if args.is_given("builds") || args.is_given("since") {
        let since = args.age("since")?.unwrap_or_default();
        Task::Builds {
            since,
            json,
            live: false,
        }
    } else if args.is_given("prometheus") {
        Task::Stats(Form::Prometheus)
    } else if json {
        Task::Stats(Form::Json)
    } else {
        Task::Stats(Form::Table)
    };
    Ok(Command::Admin(target(args)?, task))
}

pub fn top(args: &Arguments) -> Result<Command> {
    Ok(Command::Top(target(args)?))
}

pub fn report(args: &Arguments) -> Result<Command> {
    let since = args.age("since")?.unwrap_or_default();
    Ok(Command::Report(target(args)?, since, args.file("output")?))
}

pub fn why(args: &Arguments) -> Result<Command> {
    let since = args.age("since")?.unwrap_or_default();
    let what = args.words().first();
    let what = what.map(|what| what.to_string_lossy().into_owned());
    Ok(Command::Why(target(args)?, what, since))
}

pub fn gc(args: &Arguments) -> Result<Command> {
    let what = if args.is_given("all") {
        Gc::All
    } else {
        Gc::Beyond {
            max_size: args.size("max-size")?,
            max_age: args.age("max-age")?,
        }
    };
    let dry_run = args.is_given("dry-run");
    Ok(Command::Admin(target(args)?, Task::Gc { what, dry_run }))
}

pub fn verify(args: &Arguments) -> Result<Command> {
    let repair = args.is_given("repair");
    Ok(Command::Admin(target(args)?, Task::Verify { repair }))
}

pub fn export(args: &Arguments) -> Result<Command> {
    Ok(Command::Export(export::Export {
        place: target(args)?,
        names: texts(args, "builds")?,
        file: first_word(args),
        secret_key: args.file("secret-key-file")?,
    }))
}

pub fn import(args: &Arguments) -> Result<Command> {
    Ok(Command::Import(export::Import {
        runtime_dir: target(args)?.runtime_dir,
        file: first_word(args),
        trusted_keys: args.text("trusted-public-keys")?.unwrap_or_default(),
    }))
}

fn first_word(args: &Arguments) -> PathBuf {
    args.words().first().map(PathBuf::from).unwrap_or_default()
}

pub fn flush(args: &Arguments) -> Result<Command> {
    Ok(Command::Flush(flush::Options {
        socket: control_socket(&target(args)?.runtime_dir),
        timeout: args.limit("timeout")?.unwrap_or_default(),
    }))
}

pub fn install(args: &Arguments) -> Result<Command> {
    Ok(Command::Install(install::Options {
        mode: install_mode(args)?,
        user: args.is_given("user"),
        dry_run: args.is_given("dry-run"),
        remote: remote(args, Arguments::file)?,
        no_remote: args.is_given("no-remote"),
        limits: install::Limits {
            max_size: args.size("max-size")?.and(args.text("max-size")?),
            max_age: args.age("max-age")?.and(args.text("max-age")?),
            min_free: args.size("min-free")?.and(args.text("min-free")?),
            metrics_file: args.file("metrics-file")?,
        },
        cache_dir: args.dir("cache-dir")?,
        ci: false,
    }))
}

fn install_mode(args: &Arguments) -> Result<Option<Mode>> {
    Ok(args.word("mode")?.map(|mode| match mode {
        "static" => Mode::Static,
        _ => Mode::Hook,
    }))
}

pub fn ci_start(args: &Arguments) -> Result<Command> {
    Ok(Command::CiStart(install::Options {
        mode: install_mode(args)?,
        remote: remote(args, Arguments::dir)?,
        limits: install::Limits {
            max_size: args.size("max-size")?.and(args.text("max-size")?),
            ..install::Limits::default()
        },
        cache_dir: args.dir("cache-dir")?,
        ..install::Options::default()
    }))
}

pub fn ci_finish(args: &Arguments) -> Result<Command> {
    Ok(Command::CiFinish(ci::Finish {
        timeout: args.limit("timeout")?.unwrap_or_default(),
        summary: args.file("summary")?,
    }))
}

pub fn uninstall(args: &Arguments) -> Result<Command> {
    let cache = match (args.is_given("remove-cache"), args.is_given("keep-cache")) {
        (false, false) => None,
        (remove, _) => Some(remove),
    };
    Ok(Command::Uninstall(install::Removal {
        user: args.is_given("user"),
        dry_run: args.is_given("dry-run"),
        cache,
    }))
}

pub fn doctor(args: &Arguments) -> Result<Command> {
    let Target {
        cache_dir,
        runtime_dir,
        is_named,
    } = target(args)?;
    Ok(Command::Doctor(doctor::Options {
        json: args.is_given("json"),
        runtime_dir,
        cache_dir,
        is_named,
    }))
}

pub fn help(args: &Arguments) -> Result<Command> {
    let words: Vec<_> = args
        .words()
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    let name = words.join(" ");
    if name.is_empty() {
        return Ok(Command::Print(texts::main().into()));
    }
    let subcommand = table::subcommand(&name)
        .ok_or_else(|| Error::input(format!("there is no subcommand {name:?}")))?;
    Ok(Command::Print(texts::of(subcommand).into()))
}

pub fn man(_: &Arguments) -> Result<Command> {
    Ok(Command::Print(manual::page(VERSION).into()))
}

pub fn completions(args: &Arguments) -> Result<Command> {
    let shell = args.words().first().map(|shell| shell.to_string_lossy());
    let text = match shell.as_deref() {
        Some("zsh") => shells::zsh(),
        Some("fish") => shells::fish(),
        _ => shells::bash(),
    };
    Ok(Command::Print(text.into()))
}

/// The cache and the sockets that a person asks about. Where nothing says which, those that `install` has recorded: of an
/// installation of the user's own before the system's.
fn target(args: &Arguments) -> Result<Target> {
    let target = Target {
        cache_dir: args.dir("cache-dir")?.unwrap_or_default(),
        is_named: args.is_given("cache-dir"),
        runtime_dir: args.dir("runtime-dir")?.unwrap_or_default(),
    };
    let is_default = |name: &str| args.source(name) == Source::Default;
    match install::dirs() {
        Some((cache_dir, runtime_dir)) if is_default("cache-dir") && is_default("runtime-dir") => {
            Ok(Target {
                cache_dir,
                runtime_dir,
                ..target
            })
        }
        _ => Ok(target),
    }
}

fn limits(args: &Arguments, min_free: Option<u64>) -> Result<Limits> {
    let usual = Limits::default();
    Ok(Limits {
        max_size: args.size("max-size")?.unwrap_or(usual.max_size),
        max_age: args.age("max-age")?.unwrap_or(usual.max_age),
        min_free: min_free.or(usual.min_free),
    })
}

/// What the options say of the remote; `file` reads those that name a file.
fn remote(
    args: &Arguments,
    file: fn(&Arguments, &str) -> Result<Option<PathBuf>>,
) -> Result<Option<remote::Options>> {
    let Some(url) = args.text("remote")? else {
        return Ok(None);
    };
    Ok(Some(remote::Options {
        url,
        mode: mode(args)?,
        credentials: file(args, "remote-credentials")?,
        ca: file(args, "remote-ca")?,
        cert: file(args, "remote-cert")?,
        key: file(args, "remote-key")?,
        secret_key: file(args, "remote-secret-key-file")?,
        trusted_keys: args.text("remote-trusted-public-keys")?.unwrap_or_default(),
        insecure_http: args.is_given("remote-insecure-http"),
    }))
}

fn mode(args: &Arguments) -> Result<remote::Mode> {
    args.word("remote-mode")?
        .map_or_else(|| Ok(remote::Mode::default()), remote::Mode::parse)
}
