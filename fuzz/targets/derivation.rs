//! A `.drv`, as the hook reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog_fuzz::derivation::{input_names, name};

fuzz_target!(|text: &[u8]| {
    for found in input_names(text).unwrap_or_default() {
        assert!(!found.contains('/'));
    }
    name(text);
});
