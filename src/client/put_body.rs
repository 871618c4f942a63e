//! The body of a put, on its way in: it is decoded, kept and looked at, and is complete before anybody else gets it, for what
//! it is decides under which key it goes.

use crate::archive;
use crate::client::gocacheprog::Body;
use crate::client::purity::{Classifier, Kind, subkey};
use crate::client::salt::Evidence;
use crate::client::spooled::Spooled;
use crate::error::Result;
use crate::id::ActionId;
use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

/// What `go` puts beside the archive of a package, under an action of its own.
#[derive(Clone, Copy, Debug)]
enum Companion {
    /// What the compiler has written.
    Stdout,
    /// The names of its source files.
    SourceFiles,
}

const COMPANIONS: [(&str, Companion); 2] = [
    ("stdout", Companion::Stdout),
    ("srcfiles", Companion::SourceFiles),
];

/// What the profile begins with that a test run with -cover writes (`mode: set`).
const COVERAGE: &[u8] = b"mode: ";

/// The actions that go with those which `go` has looked up, and may put next.
#[derive(Debug, Default)]
pub struct Companions {
    /// What `go` has asked for since its last put. Where all is found nothing is put, and nothing more is made of it.
    asked: Vec<ActionId>,
    expected: HashMap<ActionId, Companion>,
}

impl Companions {
    /// `go` asks for this action, and what it then puts beside it is known by it.
    pub fn asked(&mut self, action: &ActionId) {
        self.asked.push(*action);
    }

    fn expect(&mut self) {
        for action in self.asked.drain(..) {
            let subkeys = COMPANIONS.map(|(name, what)| (subkey(&action, name), what));
            self.expected.extend(subkeys);
        }
    }

    /// Reads and classifies the body of a put of this action.
    ///
    /// # Errors
    /// When the input fails, or the body is not what was announced. The rest of it is read past.
    pub fn receive<R: BufRead>(
        &mut self,
        action: &ActionId,
        body: &mut Body<'_, R>,
    ) -> Result<(Arc<Spooled>, Evidence)> {
        let mut classifier = Classifier::new();
        let mut kept = Spooled::default();
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let more = body.next_piece(&mut piece)?;
            classifier.push(&piece);
            kept.push(&piece);
            if !more {
                break;
            }
        }
        let mut kind = classifier.finish();
        if kind == Kind::Other
            && kept
                .in_memory()
                .is_some_and(|body| body.starts_with(COVERAGE))
        {
            kind = Kind::TestResult;
        }
        self.expect();
        let is_companion = self
            .expected
            .get(action)
            .is_some_and(|what| is_of_go(*what, &kept));
        // Vet puts its facts first and then what it has to say. A compiler's output comes before the archive.
        self.expected.remove(&subkey(action, "stdout"));
        let kept = Arc::new(kept);
        let package = match kind {
            Kind::AssemblerArchive => kept
                .reader()
                .ok()
                .and_then(|mut body| archive::package(&mut body)),
            _ => None,
        };
        let evidence = Evidence {
            kind,
            package: package.map(|package| package.path),
            is_companion,
        };
        Ok((kept, evidence))
    }
}

/// Whether C has no part in it: a compiler with nothing to say has said nothing of C, and names of source files that were not
/// generated are all in the action.
fn is_of_go(what: Companion, body: &Spooled) -> bool {
    match what {
        Companion::Stdout => body.size() == 0,
        Companion::SourceFiles => body.in_memory().is_some_and(|body| {
            body.split_inclusive(|byte| *byte == b'\n')
                .all(|line| line.starts_with(b"./"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    const ACTION: ActionId = ActionId([7; 32]);

    fn receive(companions: &mut Companions, action: &ActionId, body: &str) -> Evidence {
        let text = format!("\"{}\"", STANDARD.encode(body));
        let mut from = text.as_bytes();
        let mut body = Body::new(&mut from, body.len() as u64);
        companions.receive(action, &mut body).unwrap().1
    }

    #[test]
    fn what_belongs_to_an_archive_is_known_once_that_was_asked_for() {
        let mut companions = Companions::default();
        let [stdout, files] = ["stdout", "srcfiles"].map(|name| subkey(&ACTION, name));
        assert!(!receive(&mut companions, &stdout, "").is_companion);
        companions.asked(&ACTION);
        assert!(receive(&mut companions, &stdout, "").is_companion);
        assert!(!receive(&mut companions, &stdout, "a warning").is_companion);
        assert!(receive(&mut companions, &files, "./a.go\n./b.go\n").is_companion);
        assert!(!receive(&mut companions, &files, "./a.go\n_cgo_gotypes.go\n").is_companion);
        assert!(!receive(&mut companions, &ACTION, "").is_companion);
        // As vet does it.
        assert!(!receive(&mut companions, &stdout, "").is_companion);
    }

    #[test]
    fn a_profile_of_coverage_is_a_result_of_a_test() {
        let evidence = receive(
            &mut Companions::default(),
            &ACTION,
            "mode: set\na.go:1.1,2.2 1 1\n",
        );
        assert_eq!(evidence.kind, Kind::TestResult);
    }
}
