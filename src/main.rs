//! nix-gocacheprog: Go's build cache and module cache inside sandboxed Nix builds.
//!
//! `main` maps the command line to a function, prints the error chain, and has the only
//! exit code. ARCHITECTURE.md says what the parts are.

use cli::Command;
use nix_gocacheprog::host::{admin, doctor, install};
use nix_gocacheprog::nix::hook;
use nix_gocacheprog::{cli, client, daemon, log, proxy, stamp};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut names = std::env::args_os().take(2);
    let is_hook = names
        .next()
        .is_some_and(|name| std::path::Path::new(&name).ends_with("hook"))
        || names.next().is_some_and(|name| name == "hook");
    let done = match cli::parse(std::env::args_os()) {
        Ok(Command::Daemon(options)) => daemon::run(&options),
        Ok(Command::Client(options)) => client::run(&options),
        Ok(Command::Hook(options)) => return ExitCode::from(hook::run(options)),
        Ok(Command::Summary(options)) => {
            client::summary::run(options);
            Ok(())
        }
        Ok(Command::Stamp(options)) => stamp::run(&options),
        Ok(Command::Admin(place, task)) => admin::run(&place, task),
        Ok(Command::Proxy(options)) => proxy::run(&options),
        Ok(Command::Install(options)) => install::install(&options),
        Ok(Command::Uninstall(removal)) => install::uninstall(&removal),
        Ok(Command::Doctor(options)) => doctor::run(&options),
        Ok(Command::Print(text)) => {
            // A reader that has had enough is no error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(())
        }
        Err(e) => {
            log::error(format!("{e}: `nix-gocacheprog --help` lists what there is"));
            // Nix would end every build for it.
            return ExitCode::from(if is_hook { 0 } else { 2 });
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error(e.chain());
            ExitCode::FAILURE
        }
    }
}
