//! The lines of JSON: the hello and the welcome. What is read and written again reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::id::BuildId;
use nix_gocacheprog::protocol::wire::{Hello, Welcome, read_line, write_line};
use serde::{Deserialize, Serialize};

fn line<T: Serialize + for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    let found: T = read_line(&mut &*bytes).ok()??;
    let mut written = Vec::new();
    write_line(&mut written, &found).unwrap();
    if let Ok(again) = read_line::<T>(&mut &written[..]) {
        let mut twice = Vec::new();
        write_line(&mut twice, &again.unwrap()).unwrap();
        assert_eq!(written, twice);
    }
    Some(found)
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(hello) = line::<Hello>(bytes)
        && let Some(id) = hello.build.as_deref().and_then(BuildId::parse)
    {
        // What becomes the name of a directory.
        let name = id.to_string();
        assert!(name.len() == 32 && name.bytes().all(|c| c.is_ascii_hexdigit()));
        assert_eq!(Some(name), hello.build);
    }
    line::<Welcome>(bytes);
});
