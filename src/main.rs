//! nix-gocacheprog: Go's build cache and module cache inside sandboxed Nix builds.
//!
//! `main` maps the command line to a function, prints the error chain, and has the only
//! exit code. ARCHITECTURE.md says what the parts are.

use nix_gocacheprog::cli::{self, Command};
use nix_gocacheprog::host::{admin, ci, doctor, export, flush, install, page, top, why};
use nix_gocacheprog::nix::hook;
use nix_gocacheprog::{client, config, daemon, log, output, proxy, stamp};
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match cli::parse(std::env::args_os()) {
        Ok(Command::Daemon(options)) => daemon::run(&options),
        Ok(Command::Client(options)) => client::run(&options),
        Ok(Command::Hook(options)) => return ExitCode::from(hook::run(options)),
        Ok(Command::Summary(options)) => {
            client::summary::run(options);
            Ok(())
        }
        Ok(Command::Stamp(options)) => stamp::run(&options).inspect(|()| {
            if matches!(options.task, stamp::Task::Set(_)) {
                client::remember_source();
            }
        }),
        Ok(Command::Top(place)) => top::run(&config::control_socket(&place.runtime_dir), None),
        Ok(Command::Why(place, what, since)) => why::run(&place, what.as_deref(), since),
        Ok(Command::Report(place, since, file)) => page::run(&place, since, file.as_deref()),
        Ok(Command::Admin(place, task)) => admin::run(&place, task),
        Ok(Command::Proxy(options)) => proxy::run(&options),
        Ok(Command::Install(options)) => install::install(&options),
        Ok(Command::Uninstall(removal)) => install::uninstall(&removal),
        Ok(Command::CiStart(options)) => ci::start(&options),
        Ok(Command::CiFinish(options)) => ci::finish(&options),
        Ok(Command::Export(options)) => export::export(&options),
        Ok(Command::Import(options)) => export::import(&options),
        Ok(Command::Flush(options)) => flush::run(&options),
        Ok(Command::Doctor(options)) => doctor::run(&options),
        Ok(Command::Print(text)) => output::print(&text),
        Err(misuse) => {
            log::error(misuse.text);
            return ExitCode::from(misuse.code);
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
