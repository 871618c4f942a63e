//! Everything that knows Nix's syntax: its hook protocol, derivations, and nix.conf.

pub mod conf;
pub mod derivation;
pub mod hook;
pub mod settings;
