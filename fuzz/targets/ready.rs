//! What a client finds ready in its build directory: all that was written there, and nothing else breaks it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::cache::prefetched::{Records, Secret};
use nix_gocacheprog::entry::{Entry, SIZE_MAX};
use nix_gocacheprog::id::{ActionId, OutputId};
use std::collections::BTreeMap;

fuzz_target!(|input: (Vec<([u8; 32], [u8; 32], u64, u32)>, Vec<u8>)| {
    let (said, bytes) = input;
    let entry = |output, size, seconds| Entry {
        output: OutputId(output),
        size: size & SIZE_MAX,
        time: i64::from(seconds) * 1_000_000_000,
    };
    let said: BTreeMap<_, _> = said
        .into_iter()
        .map(|(action, output, size, seconds)| (action, entry(output, size, seconds)))
        .collect();
    let ready: Vec<_> = said
        .iter()
        .map(|(action, entry)| (Secret::of(&ActionId(*action)), *entry))
        .collect();
    let mut file = Records::encode(&ready);
    let records = Records::decode(&file);
    for (action, entry) in &said {
        assert_eq!(records.entry(&Secret::of(&ActionId(*action))), Some(*entry));
    }
    // Damaged or cut off, it may say anything or nothing.
    for (at, byte) in bytes.iter().enumerate() {
        if let Some(place) = file.get_mut(at * 7) {
            *place ^= byte;
        }
    }
    file.truncate(file.len().saturating_sub(bytes.len()));
    for damaged in [&file, &bytes] {
        let records = Records::decode(damaged);
        for action in said.keys() {
            records.entry(&Secret::of(&ActionId(*action)));
        }
    }
});
