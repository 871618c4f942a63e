//! The command line: what a person or Nix wrote becomes one [`Command`]. `table` says what there is; nothing else lists
//! a subcommand or an option.

mod arguments;
mod commands;
mod completions;
mod help;
mod manual;
mod table;

use crate::client;
use crate::daemon;
use crate::error::{Error, Result};
use crate::host::{admin, ci, doctor, export, flush, install};
use crate::nix::hook;
use crate::proxy;
use crate::stamp;
use arguments::{Arguments, Asked, misuse};
use lexopt::prelude::*;
use std::borrow::Cow;
use std::ffi::OsString;
use table::Subcommand;

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
    /// Show the running builds.
    Top(admin::Target),
    /// Say why builds missed.
    Why(admin::Target, Option<String>, std::time::Duration),
    /// Write a page about what the cache did.
    Report(
        admin::Target,
        std::time::Duration,
        Option<std::path::PathBuf>,
    ),
    /// Be a module proxy.
    Proxy(proxy::Options),
    /// Install on this host.
    Install(install::Options),
    /// Take an installation away.
    Uninstall(install::Removal),
    /// Set this machine up for one run of a CI system.
    CiStart(install::Options),
    /// Undo that.
    CiFinish(ci::Finish),
    /// Write what builds use to a file.
    Export(export::Export),
    /// Take what such a file holds.
    Import(export::Import),
    /// Wait until everything is uploaded.
    Flush(flush::Options),
    /// Say what is right and wrong.
    Doctor(doctor::Options),
    /// Print a text.
    Print(Cow<'static, str>),
}

/// A command line that is wrong.
#[derive(Debug)]
pub struct Misuse {
    /// What is wrong, and where to read what is right.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

/// The version, as `--version` prints it.
const VERSION: &str = concat!("nix-gocacheprog ", env!("CARGO_PKG_VERSION"), "\n");

/// Subcommands that the program's own name can select.
const NAMES: [&str; 2] = ["client", "hook"];

/// Reads the command line.
///
/// # Errors
/// When it is wrong. Nothing was done then.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> std::result::Result<Command, Misuse> {
    let mut args = lexopt::Parser::from_iter(args);
    let called = args.bin_name().unwrap_or_default();
    let base = called.rsplit('/').next().unwrap_or_default();
    let found = match NAMES.into_iter().find(|name| *name == base) {
        Some(name) => named(name),
        None => match args.next() {
            Ok(Some(Value(name))) => match whole_name(&name.to_string_lossy(), &mut args) {
                Ok(Asked::For(name)) => named(&name),
                Ok(_) => return Ok(Command::Print(help::main().into())),
                Err(e) => Err(e),
            },
            Ok(Some(Long("help") | Short('h'))) => return Ok(Command::Print(help::main().into())),
            Ok(Some(Long("version") | Short('V'))) => return Ok(Command::Print(VERSION.into())),
            Ok(Some(other)) => Err(misuse(other.unexpected())),
            Ok(None) => Err(Error::input("a subcommand is missing")),
            Err(e) => Err(misuse(e)),
        },
    };
    let subcommand = found.map_err(|e| Misuse {
        text: format!("{e}; `nix-gocacheprog --help` lists the subcommands"),
        code: 2,
    })?;
    understood(subcommand, &mut args).map_err(|e| Misuse {
        text: format!(
            "{name}: {error}; see `nix-gocacheprog help {name}`",
            name = subcommand.name,
            error = e.chain()
        ),
        code: subcommand.misuse,
    })
}

/// The name of a subcommand, which may be of two words.
fn whole_name(first: &str, args: &mut lexopt::Parser) -> Result<Asked<String>> {
    let seconds: Vec<_> = table::second_words(first).collect();
    if seconds.is_empty() {
        return Ok(Asked::For(first.into()));
    }
    match args.next().map_err(misuse)? {
        Some(Value(second)) => Ok(Asked::For(format!("{first} {}", second.to_string_lossy()))),
        Some(Long("help") | Short('h')) => Ok(Asked::Help),
        _ => Err(Error::input(format!(
            "{first} is followed by {}",
            seconds.join(" or ")
        ))),
    }
}

fn named(name: &str) -> Result<&'static Subcommand> {
    table::subcommand(name).ok_or_else(|| Error::input(format!("there is no subcommand {name:?}")))
}

fn understood(subcommand: &'static Subcommand, args: &mut lexopt::Parser) -> Result<Command> {
    match Arguments::parse(subcommand, args)? {
        Asked::For(arguments) => (subcommand.handler)(&arguments),
        Asked::Help => Ok(Command::Print(help::of(subcommand).into())),
        Asked::Version => Ok(Command::Print(VERSION.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::table::{GENERAL, SUBCOMMANDS, Takes};
    use super::*;
    use crate::cache::store::Limits;
    use crate::config;
    use std::path::Path;

    fn parsed(args: &[&str]) -> std::result::Result<Command, Misuse> {
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
    fn an_error_names_what_is_wrong_and_a_help_that_lists_what_is_right() {
        for (args, named) in [
            (&["x"][..], "subcommand is missing"),
            (&["x", "frobnicate"], "frobnicate"),
            (&["x", "help", "frobnicate"], "frobnicate"),
            (&["x", "daemon", "--frob"], "--frob"),
            (&["x", "daemon", "-x"], "-x"),
            (
                &["x", "daemon", "--idle-exit", "soon"],
                "--idle-exit: \"soon\"",
            ),
            (&["x", "daemon", "--max-size", "much"], "20G"),
            (&["x", "daemon", "--max-size", "20"], "--max-size: \"20\""),
            (&["x", "daemon", "--max-age", "60"], "60d"),
            (&["x", "daemon", "--min-free", "5%"], "20G"),
            (&["x", "daemon", "--cache-dir"], "--cache-dir requires"),
            (&["x", "daemon", "--cache-dir", ""], "--cache-dir"),
            (&["x", "daemon", "--remote-ca", "x"], "--remote URL"),
            (&["x", "daemon", "--remote", ""], "--remote is empty"),
            (
                &[
                    "x",
                    "daemon",
                    "--remote=u",
                    "--remote-trusted-public-keys= ",
                ],
                "--remote-trusted-public-keys is empty",
            ),
            (
                &["x", "import", "--trusted-public-keys", " ", "f"],
                "--trusted-public-keys is empty",
            ),
            (
                &["x", "daemon", "--remote=u", "--remote-mode", "rw"],
                "read-write",
            ),
            (&["x", "gc", "--max-size", "x"], "20G"),
            (&["x", "gc", "--all", "--max-age", "1d"], "--all"),
            (&["x", "gc", "--all=yes"], "--all takes no value"),
            (
                &["x", "uninstall", "--keep-cache", "--remove-cache"],
                "--keep-cache",
            ),
            (&["x", "install", "--mode", "both"], "hook or static"),
            (&["x", "stats", "now"], "now"),
            (&["x", "client", "--stamp", "d"], "--times FILE"),
            (&["x", "client", "--times", "f"], "--restore"),
            (&["x", "hook"], "DRV is missing: the derivation"),
            (&["x", "proxy", "--build", "me"], "--build: \"me\""),
            (&["x", "proxy", "--read-limit", "never"], "never"),
            (&["x", "hook", "a", "b", "c"], "\"c\""),
            (&["x", "man", "now"], "now"),
            (&["x", "completions"], "bash"),
            (&["x", "completions", "csh"], "csh"),
            (&["x", "completions", "zsh", "fish"], "fish"),
            (&["x", "ci"], "start or finish"),
            (&["x", "ci", "stop"], "ci stop"),
            (&["x", "ci", "start", "--timeout", "1m"], "--timeout"),
            (&["x", "ci", "finish", "--timeout", "soon"], "soon"),
        ] {
            let error = parsed(args).unwrap_err();
            assert!(error.text.contains(named), "{args:?}: {}", error.text);
            let (_, help) = error.text.rsplit_once("`nix-gocacheprog ").unwrap();
            let help: Vec<_> = help.split('`').next().unwrap().split(' ').collect();
            let help = [&["x"], &help[..]].concat();
            assert!(matches!(parsed(&help), Ok(Command::Print(_))), "{help:?}");
            let is_hook = args.get(1) == Some(&"hook");
            assert_eq!(error.code, if is_hook { 0 } else { 2 }, "{args:?}");
        }
    }

    #[test]
    fn every_entry_of_the_table_is_understood_and_its_names_exist() {
        for subcommand in SUBCOMMANDS.iter().copied().flatten() {
            let flags: Vec<_> = subcommand.flags().chain(GENERAL.iter()).collect();
            let mut required: Vec<_> = subcommand
                .arguments
                .iter()
                .filter(|argument| argument.required)
                .map(|argument| *argument.takes.words().first().unwrap_or(&"/x"))
                .collect();
            let name: Vec<_> = subcommand.name.split(' ').collect();
            required.splice(0..0, [&["x"], &name[..]].concat());
            assert!(parsed(&required).is_ok(), "{}", subcommand.name);
            for flag in &flags {
                let same = flags.iter().filter(|other| other.name == flag.name);
                assert_eq!(same.count(), 1, "{} --{}", subcommand.name, flag.name);
                for other in flag.conflicts.iter().chain(flag.requires) {
                    assert!(flags.iter().any(|flag| flag.name == *other), "--{other}");
                }
                let value = match flag.takes {
                    Takes::Nothing => "",
                    Takes::Size => "=20G",
                    Takes::Age => "=1d",
                    Takes::OneOf(words) => &format!("={}", words[0]),
                    _ => "=7",
                };
                let mut args = required.clone();
                let form = format!("--{}{value}", flag.name);
                args.push(&form);
                let other = flag.requires.first().map(|other| format!("--{other}=7"));
                args.extend(other.as_deref());
                assert!(parsed(&args).is_ok(), "{args:?}: {:?}", parsed(&args));
            }
        }
    }

    #[test]
    fn a_default_is_what_the_help_says() {
        let Ok(Command::Daemon(daemon)) = parsed(&["x", "daemon"]) else {
            panic!("it needs no option")
        };
        assert_eq!(daemon.limits, Limits::default());
        let Ok(Command::Client(client)) = parsed(&["x", "client"]) else {
            panic!("it needs no option")
        };
        assert_eq!(client.give_up_after, config::GIVE_UP_AFTER);
        let Ok(Command::Proxy(proxy)) = parsed(&["x", "proxy"]) else {
            panic!("it needs no option")
        };
        assert_eq!(proxy.limits.connect, config::CONNECT_LIMIT);
        assert_eq!(proxy.limits.read, config::READ_LIMIT);
        assert_eq!(proxy.keep, Limits::default());
    }
}
