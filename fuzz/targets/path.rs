//! The path of a request to the module proxy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::proxy::path::ModulePath;

fuzz_target!(|text: &str| {
    let Some(path) = ModulePath::parse(text) else {
        return;
    };
    // It is joined to a directory and to a URL, and can leave neither.
    let name = path.file_name();
    assert!(
        !name.starts_with('/') && !name.contains(['\0', '\n', '\\']),
        "{name:?}"
    );
    assert!(
        name.split('/').all(|part| !matches!(part, "" | "." | "..")),
        "{name:?}"
    );
    let url = path.url_path();
    assert!(
        url.bytes()
            .all(|c| c.is_ascii_graphic() && !b"?#".contains(&c)),
        "{url:?}"
    );
    assert_eq!(ModulePath::parse(&format!("/{url}")), Some(path));
});
