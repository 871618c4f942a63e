//! Of the proxy only what it reads.

#[path = "../src/proxy/list.rs"]
pub mod list;
#[path = "../src/proxy/netrc.rs"]
pub mod netrc;
#[path = "../src/proxy/path.rs"]
pub mod path;
#[path = "../src/proxy/url.rs"]
pub mod url;
