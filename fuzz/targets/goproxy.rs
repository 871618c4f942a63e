//! The GOPROXY list, the URLs in it and where they redirect to, and a netrc.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::http::netrc::Netrc;
use nix_gocacheprog::http::url::Url;
use nix_gocacheprog::proxy::list::{self, Source};

/// What is sent to a server is one line of plain text.
fn check(url: &Url) {
    assert!(
        url.request().bytes().all(|c| c.is_ascii_graphic()),
        "{url:?}"
    );
    let authorization = url.credentials().map(|found| found.authorization());
    assert!(authorization.is_none_or(|text| !text.contains(['\r', '\n'])));
}

fuzz_target!(|input: (&str, &str, &str)| {
    let (list, location, netrc) = input;
    let netrc = Netrc::parse(netrc);
    for entry in list::parse(list).unwrap_or_default() {
        match entry.source {
            Source::Upstream(url) => {
                check(&url);
                netrc.find(&url);
                // No password is ever shown.
                let again = Url::parse(&url.request()).unwrap();
                assert!(again.credentials().is_none() && again.same_origin(&url));
                if let Ok(other) = url.redirected(location) {
                    check(&other);
                }
            }
            Source::Directory(path) => assert!(path.is_absolute()),
            Source::Direct | Source::Off => {}
        }
    }
});
