//! Tests of the real binary.
#![allow(clippy::unwrap_used, reason = "a test ends here when it must")]

mod attacks;
mod audit;
mod client;
mod daemon;
mod documents;
mod evaluation;
mod export;
mod go;
mod hook;
mod imports;
mod load;
mod manual;
mod nix;
mod peer;
mod proxy;
mod purity;
mod remote;
mod see;
mod setup_hook;
mod shell;
mod store;
mod support;
mod tiers;
mod upstream;
mod versions;
mod why;
