//! An action as it stands on disk, damaged or not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::entry::Entry;

fuzz_target!(|text: &[u8]| {
    if let Some(entry) = Entry::decode(text) {
        assert_eq!(entry.encode().as_bytes(), text);
    }
});
