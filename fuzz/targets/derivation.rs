//! A derivation as the hook reads it, in either form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::nix::derivation::{has_input, input_names, name};

fuzz_target!(|text: &[u8]| {
    for found in input_names(text).unwrap_or_default() {
        assert!(!found.contains('/'));
    }
    let _ = has_input(text, |name| name == "nix-gocacheprog-hook");
    name(text);
});
