//! A list of what builds have used, as it is on the disk or on a remote.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::cache::history::{ACTIONS_MAX, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let list = decode(bytes);
    assert!(list.len() <= ACTIONS_MAX);
    assert_eq!(decode(&encode(&list)), list);
});
