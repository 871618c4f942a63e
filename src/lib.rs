//! nix-gocacheprog: Go's build cache and module cache inside sandboxed Nix builds.
//!
//! One folder for each subsystem, and leaves that all of them may use. ARCHITECTURE.md says what the parts are, and
//! `imports` in the tests which may use which.

pub mod archive;
pub mod cache;
pub mod cli;
pub mod client;
pub mod config;
pub mod counts;
pub mod daemon;
pub mod entry;
pub mod environment;
pub mod error;
pub mod fs;
pub mod histogram;
pub mod host;
pub mod http;
pub mod id;
pub mod log;
pub mod metrics;
pub mod mode;
pub mod nix;
pub mod output;
pub mod protocol;
pub mod proxy;
pub mod remote;
pub mod report;
pub mod sha256;
pub mod size;
pub mod stamp;
pub mod sync;
pub mod sys;
#[cfg(test)]
mod test_dir;
