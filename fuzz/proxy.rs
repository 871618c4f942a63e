//! Of the proxy only what it reads.

#[path = "../src/proxy/list.rs"]
pub mod list;
#[path = "../src/proxy/path.rs"]
pub mod path;
