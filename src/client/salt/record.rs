//! Things by which actions are told apart, hashed one after the other, and what a person is told of them.

use crate::client::parts::{self, Part};
use crate::client::unknown;
use crate::sha256::Sha256;
use std::path::Path;

/// Named values, in the order in which they are added. No two lists of them have the same bytes.
#[derive(Clone, Debug)]
pub struct Record {
    hash: Sha256,
    /// What is said of them.
    parts: Vec<Part>,
    /// What is to be said in one word.
    word: Option<Word>,
}

#[derive(Clone, Debug, Default)]
struct Word {
    first: Option<String>,
    /// Of all values but the first.
    rest: Option<Sha256>,
}

impl Record {
    /// An empty one; the label keeps this use of the hash from others.
    pub fn new(label: &str) -> Self {
        let mut record = Self {
            hash: Sha256::new(),
            parts: Vec::new(),
            word: None,
        };
        record.add("", label);
        record
    }

    /// Adds a value.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        update(&mut self.hash, name, value);
        match &mut self.word {
            Some(word) if word.first.is_some() => {
                update(word.rest.get_or_insert_default(), name, value);
            }
            Some(word) => word.first = Some(parts::short(value)),
            None => {}
        }
    }

    /// Adds a number.
    pub fn add_number(&mut self, name: &str, value: u64) {
        self.add(name, value.to_le_bytes());
    }

    /// Adds what makes keys that nobody else ever has.
    pub fn add_nonce(&mut self) {
        self.add("unknown", unknown::nonce());
    }

    /// Adds that a file or a folder could not be looked at.
    pub fn add_failure(&mut self, name: &str, path: &Path, failure: &std::io::Error) {
        match unknown::is_nothing(path, failure) {
            true => self.add(name, "missing"),
            false => self.add_nonce(),
        }
    }

    /// Adds what `add` adds, and gives it in a word: its first value, and whatever else there is as a hash.
    pub fn word(&mut self, add: impl FnOnce(&mut Self)) -> String {
        self.word = Some(Word::default());
        add(self);
        let Word { first, rest } = self.word.take().unwrap_or_default();
        let rest = rest.map(|rest| parts::digits(&rest.finalize()));
        first.unwrap_or_default() + &rest.unwrap_or_default()
    }

    /// Says something of what was added.
    pub fn say(&mut self, name: &str, value: String) {
        self.parts.push((name.into(), value));
    }

    /// What is said of all of it.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What all of it comes to.
    pub fn finish(self) -> [u8; 32] {
        self.hash.finalize()
    }
}

fn update(hash: &mut Sha256, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), value] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_the_first_value_and_tells_the_others_apart() {
        let of = |values: &[&str]| {
            let mut record = Record::new("test");
            let word = record.word(|record| values.iter().for_each(|value| record.add("x", value)));
            (word, record.finish())
        };
        assert_eq!(of(&[]).0, "");
        assert_eq!(of(&["/usr/bin/cc"]).0, "/usr/bin/cc");
        let (one, two) = (of(&["/usr/bin/cc", "1"]), of(&["/usr/bin/cc", "2"]));
        assert!(one.0.starts_with("/usr/bin/cc#") && one.0 != two.0);
        let mut plain = Record::new("test");
        plain.add("x", "/usr/bin/cc");
        plain.add("x", "1");
        assert_eq!(plain.finish(), one.1, "it says what is hashed anyway");
    }
}
