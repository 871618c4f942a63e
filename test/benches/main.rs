//! Benchmarks on the real binary; `test/bench` sets up what they need and starts them.
//!
//! Everything is measured in pairs, A B A B …, in one run, because machines drift. What counts is the
//! median of the ratios.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends here when it must, and prints its table"
)]

mod build;
#[path = "../cpu.rs"]
mod cpu;
mod figures;
mod gobuild;
#[path = "../peer.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod peer;
mod requests;
mod store;
#[path = "../support.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod support;

use figures::Report;
use std::path::PathBuf;

/// What the command line says.
struct Options {
    pairs: usize,
    peers: Vec<(String, String)>,
    /// An earlier version of ours.
    earlier: Option<PathBuf>,
    /// Builds with C.
    cgo: bool,
}

impl Options {
    /// The versions of ours that are measured, by name: the one under test first.
    fn versions(&self) -> Vec<(&'static str, PathBuf)> {
        let earlier = self.earlier.iter().map(|path| ("earlier", path.clone()));
        std::iter::once(("ours", support::binary()))
            .chain(earlier)
            .collect()
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let part = args.next().unwrap_or_default();
    let mut options = Options {
        // Cached builds are so short that anything else on the machine shows.
        pairs: if part == "warm" { 40 } else { 10 },
        peers: Vec::new(),
        earlier: None,
        cgo: false,
    };
    let mut json = false;
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .unwrap_or_else(|| usage(&format!("{arg} needs a value")))
        };
        match arg.as_str() {
            "--json" => json = true,
            "--cgo" => options.cgo = true,
            "--pairs" => {
                let text = value();
                options.pairs = text
                    .parse()
                    .unwrap_or_else(|_| usage("--pairs takes a number"));
            }
            "--earlier" => {
                options.earlier = Some(
                    PathBuf::from(value())
                        .canonicalize()
                        .unwrap_or_else(|error| {
                            usage(&format!("--earlier takes a binary: {error}"))
                        }),
                );
            }
            "--peer" => {
                let text = value();
                let (name, command) = text
                    .split_once('=')
                    .unwrap_or_else(|| usage("--peer takes NAME=COMMAND"));
                options.peers.push((name.into(), command.into()));
            }
            other => usage(&format!("there is no option {other}")),
        }
    }
    if part == "store" {
        return store::run(json);
    }
    let report: Report = match part.as_str() {
        "warm" => gobuild::warm(&options),
        "cold" => gobuild::cold(&options),
        "memory" => gobuild::memory(),
        "get" => requests::get(&options),
        "put" => requests::put(&options),
        "start" => requests::start(&options),
        other => usage(&format!("there is no part {other:?}")),
    };
    report.print(json);
}

fn usage(what: &str) -> ! {
    eprintln!("bench: {what}; test/bench says what there is");
    std::process::exit(2)
}
