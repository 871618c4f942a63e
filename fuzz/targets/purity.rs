//! A put's body in any pieces: its kind is that of the whole, and no byte after the last member stays unseen.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix_gocacheprog::client::purity::{Classifier, Kind};

fuzz_target!(|input: (&[u8], u8)| {
    let (body, length) = input;
    let of = |body: &[u8], length: usize| {
        let mut classifier = Classifier::new();
        for piece in body.chunks(length) {
            classifier.push(piece);
        }
        classifier.finish()
    };
    let kind = of(body, usize::MAX);
    assert_eq!(of(body, usize::from(length) + 1), kind);
    if matches!(kind, Kind::PureArchive | Kind::AssemblerArchive) {
        assert_eq!(of(&[body, b"x"].concat(), usize::MAX), Kind::Archive);
        assert_eq!(of(&body[..body.len() - 1], usize::MAX), Kind::Archive);
    }
});
