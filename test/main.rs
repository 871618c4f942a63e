//! Tests of the real binary.
#![allow(clippy::unwrap_used, reason = "a test ends here when it must")]

mod client;
mod daemon;
mod go;
mod hook;
mod load;
mod peer;
mod support;
