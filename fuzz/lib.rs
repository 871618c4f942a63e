//! The modules of the program that read what others wrote, compiled in for the fuzz targets.
//! The program is a binary crate, so they are taken by their paths.

#[path = "../src/builds.rs"]
pub mod builds;
#[path = "../src/config.rs"]
pub mod config;
#[path = "../src/control.rs"]
pub mod control;
#[path = "../src/derivation.rs"]
pub mod derivation;
#[path = "../src/error.rs"]
pub mod error;
#[path = "../src/fs.rs"]
pub mod fs;
#[path = "../src/gocacheprog.rs"]
pub mod gocacheprog;
#[path = "../src/id.rs"]
pub mod id;
#[path = "../src/log.rs"]
pub mod log;
#[path = "../src/store.rs"]
pub mod store;
#[path = "../src/sys.rs"]
pub mod sys;
#[path = "../src/wire.rs"]
pub mod wire;
