//! The parts of `src/http/` that read text.

#[path = "../src/http/netrc.rs"]
pub mod netrc;
#[path = "../src/http/url.rs"]
pub mod url;
