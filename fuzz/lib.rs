//! The modules of the program that read what others wrote, compiled in for the fuzz targets.
//! The program is a binary crate, so they are taken by their paths.

#[path = "../src/config.rs"]
pub mod config;
#[path = "../src/counts.rs"]
pub mod counts;
#[path = "../src/derivation.rs"]
pub mod derivation;
#[path = "../src/error.rs"]
pub mod error;
#[path = "../src/fs.rs"]
pub mod fs;
#[path = "../src/gocacheprog.rs"]
pub mod gocacheprog;
pub mod http;
#[path = "../src/id.rs"]
pub mod id;
#[path = "../src/lists.rs"]
pub mod lists;
#[path = "../src/log.rs"]
pub mod log;
pub mod proxy;
#[path = "../src/ready.rs"]
pub mod ready;
#[path = "../src/remote/result.rs"]
pub mod result;
#[path = "../src/size.rs"]
pub mod size;
pub mod store;
#[path = "../src/sys.rs"]
pub mod sys;
#[path = "../src/wire.rs"]
pub mod wire;
