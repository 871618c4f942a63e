//! The daemon with a remote behind it, on real servers: what can go wrong, for `test/remote`, and how much faster a first
//! build is, for `test/bench remote`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program"
)]

mod bench;
#[path = "../cpu.rs"]
mod cpu;
mod faults;
mod fleet;
mod front;
mod machine;
#[path = "../peer.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod peer;
mod relay;
mod servers;
#[path = "../support.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod support;

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((part, _)) if part == "bench" => bench::run(),
        Some((part, _)) if part == "fleet" => fleet::run(),
        Some((part, rest)) if part == "relay" => bench::relay(rest),
        Some((part, rest)) if part == "faults" => {
            let (short, words): (Vec<_>, Vec<_>) =
                rest.iter().cloned().partition(|word| word == "short");
            faults::run(!short.is_empty(), &words);
        }
        _ => panic!("test/remote and test/bench remote start this"),
    }
}
