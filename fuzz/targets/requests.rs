//! What `go` says to the client: requests and their bodies, in pieces of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::client::gocacheprog::{Body, read_request};
use std::io::BufReader;

fuzz_target!(|input: (u8, &[u8])| {
    let (step, text) = input;
    let mut from = BufReader::with_capacity(usize::from(step).max(1), text);
    let mut line = Vec::new();
    while let Ok(Some(request)) = read_request(&mut from, &mut line) {
        let mut body = Body::new(&mut from, request.body_size);
        let mut length = 0;
        let mut piece = Vec::new();
        let whole = loop {
            piece.clear();
            match body.next_piece(&mut piece) {
                Ok(more) => {
                    length += piece.len() as u64;
                    if !more {
                        break true;
                    }
                }
                Err(_) => break false,
            }
        };
        if whole {
            assert_eq!(length, request.body_size);
        } else if body.skip().is_err() {
            break;
        }
    }
});
