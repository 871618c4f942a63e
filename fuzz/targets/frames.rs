//! The frames between a client and the daemon, both ways. What is read must be what was said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::protocol::wire::{
    Answer, Request, push_answer, push_request, read_answer, read_request,
};
use std::io::Read;

fuzz_target!(|input: (bool, &[u8])| {
    let (requests, bytes) = input;
    let mut rest = bytes;
    loop {
        let before = rest;
        let mut said = Vec::new();
        if requests {
            let Ok(Some(request)) = read_request(&mut rest) else {
                break;
            };
            push_request(&mut said, &request);
            // The text of `parts` is JSON, which can be written in several ways.
            if !matches!(request, Request::Parts(_)) {
                assert!(before.starts_with(&said));
            }
            if let Request::Put { size, .. } = request {
                std::io::copy(
                    &mut Read::by_ref(&mut rest).take(size),
                    &mut std::io::sink(),
                )
                .unwrap();
            }
        } else {
            let Ok(Some((number, answer))) = read_answer(&mut rest) else {
                break;
            };
            push_answer(&mut said, number, &answer);
            // A text that is not UTF-8 is mended, and may grow.
            if !matches!(&answer, Answer::Refused(text) if text.contains('\u{fffd}')) {
                assert_eq!(said, before[..before.len() - rest.len()]);
            }
        }
        assert!(rest.len() < before.len());
    }
});
