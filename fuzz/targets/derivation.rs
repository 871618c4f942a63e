//! A `.drv`, or its JSON, as the hook reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog_fuzz::derivation::{has_input, input_names, name};

fuzz_target!(|text: &[u8]| {
    for found in input_names(text).unwrap_or_default() {
        assert!(!found.contains('/'));
    }
    // As JSON too; that the text is neither is no matter here.
    let _ = has_input(text, |name| name.contains('/'));
    name(text);
});
