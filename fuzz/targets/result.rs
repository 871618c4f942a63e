//! An entry as a remote gives it, which is whatever it likes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::remote::result::{decode, encode};

fuzz_target!(|text: &[u8]| {
    if let Some(entry) = decode(text) {
        assert_eq!(decode(&encode(&entry)), Some(entry));
    }
});
