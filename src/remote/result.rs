//! What stands on the remote: under which key, and in which words.
//!
//! An output is `cas/<its SHA-256>`. An entry is `ac/<key>`, an ActionResult of the Remote Execution
//! API as JSON, because bazel-remote, with its checks on, takes nothing else there and keeps
//! the outputs that one names. A server that understands nothing gives back the bytes that it was given; bazel-remote
//! writes them anew, with other spaces and numbers as text. So it is what it says that counts, not how.

use crate::entry::{Entry, SIZE_MAX};
use crate::id::{ActionId, OutputId, hex, unhex};
use serde::{Deserialize, Serialize};

/// The most signatures of one entry that are looked at.
const SIGNATURES_MAX: usize = 8;

/// The version of what stands under a key. Another version has other keys, so that no release ever reads what it does not
/// understand.
const ACTION: &[u8] = b"nix-gocacheprog remote 1: an action\0";

/// Where an action's entry is.
pub fn action_key(action: &ActionId) -> String {
    hex(&ActionId::of(ACTION, &action.0).0)
}

/// A list of actions. That of the first version held entries, under its local name.
const LIST: &[u8] = b"nix-gocacheprog remote 2: a list\0";

/// Where the list is that has this name locally.
pub fn list_key(name: &str) -> String {
    hex(&ActionId::of(LIST, name.as_bytes()).0)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActionResult {
    #[serde(default)]
    output_files: Vec<OutputFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutputFile {
    path: String,
    digest: Digest,
    #[serde(default)]
    node_properties: NodeProperties,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Digest {
    hash: String,
    /// Left out where it is 0.
    #[serde(default)]
    size_bytes: Number,
}

#[derive(Default, Serialize, Deserialize)]
struct NodeProperties {
    #[serde(default)]
    properties: Vec<Property>,
}

#[derive(Serialize, Deserialize)]
struct Property {
    name: String,
    #[serde(default)]
    value: String,
}

/// JSON has no integers of 64 bits, so Protobuf writes them as text, and reads both.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Number(u64),
}

impl Default for Number {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Number {
    fn get(&self) -> Option<u64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(*number),
        }
    }
}

/// The property that has the time of the put, in nanoseconds since 1970.
const TIME: &str = "nix-gocacheprog-time";

/// One that is there when the output is packed under a name that says so.
const ENCODING: &str = "nix-gocacheprog-encoding";

/// One for each signature of the entry.
const SIGNATURE: &str = "nix-gocacheprog-signature";

const ZSTD: &str = "zstd";

/// An entry as it stands on the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The entry itself.
    pub entry: Entry,
    /// The output is under the name of a packed one.
    pub is_packed: bool,
    /// Whatever is said to be a signature.
    pub signatures: Vec<String>,
}

/// An entry as the remote has it.
pub fn encode(record: &Record) -> Vec<u8> {
    let property = |name: &str, value: &str| Property {
        name: name.into(),
        value: value.into(),
    };
    let Record {
        entry,
        is_packed,
        signatures,
    } = record;
    // In the order of their names, as the API wants it.
    let properties = is_packed
        .then(|| property(ENCODING, ZSTD))
        .into_iter()
        .chain(signatures.iter().map(|text| property(SIGNATURE, text)))
        .chain([property(TIME, &entry.time.to_string())])
        .collect();
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "output".into(),
            digest: Digest {
                hash: hex(&entry.output.0),
                size_bytes: Number::Text(entry.size.to_string()),
            },
            node_properties: NodeProperties { properties },
        }],
    };
    // It always has a JSON form.
    serde_json::to_vec(&result).unwrap_or_default()
}

/// Reads what `encode` wrote, or what a server has made of it; anything else is `None`.
pub fn decode(text: &[u8]) -> Option<Record> {
    let result: ActionResult = serde_json::from_slice(text).ok()?;
    let [file] = &result.output_files[..] else {
        return None;
    };
    let all = |name: &'static str| {
        let properties = file.node_properties.properties.iter();
        properties
            .filter(move |property| property.name == name)
            .map(|property| &property.value)
    };
    Some(Record {
        entry: Entry {
            output: OutputId(unhex(file.digest.hash.as_bytes())?),
            size: file.digest.size_bytes.get().filter(|s| *s <= SIZE_MAX)?,
            // As exact as the store keeps it.
            time: all(TIME).next()?.parse::<i64>().ok().filter(|t| *t >= 0)? / 1000 * 1000,
        },
        is_packed: all(ENCODING).any(|value| value == ZSTD),
        signatures: all(SIGNATURE).take(SIGNATURES_MAX).cloned().collect(),
    })
}

/// Whether a text is JSON, or was when it was whole.
pub fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text)
        .err()
        .is_none_or(|e| e.is_eof())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry {
        output: OutputId([0xab; 32]),
        size: 5,
        time: 1_709_210_096_000_007_000,
    };

    fn record() -> Record {
        Record {
            entry: ENTRY,
            is_packed: false,
            signatures: Vec::new(),
        }
    }

    #[test]
    fn an_entry_reads_back_and_is_what_the_api_says() {
        let hash = "ab".repeat(32);
        let text = encode(&record());
        assert_eq!(
            String::from_utf8(text.clone()).unwrap(),
            format!(
                "{{\"outputFiles\":[{{\"path\":\"output\",\"digest\":{{\"hash\":\"{hash}\",\"sizeBytes\":\"5\"}},\
                 \"nodeProperties\":{{\"properties\":[{{\"name\":\"nix-gocacheprog-time\",\
                 \"value\":\"1709210096000007000\"}}]}}}}]}}"
            )
        );
        assert_eq!(decode(&text), Some(record()));
    }

    #[test]
    fn what_a_server_has_made_of_an_entry_is_read_too() {
        let hash = "ab".repeat(32);
        // As bazel-remote gives it back: with its own metadata and odd spaces.
        let text = format!(
            "{{\"outputFiles\":[{{\"path\":\"output\",  \"digest\":{{\"hash\":\"{hash}\", \"sizeBytes\":\"5\"}}, \
             \"nodeProperties\":{{\"properties\":[{{\"name\":\"nix-gocacheprog-time\", \
             \"value\":\"1709210096000007000\"}}]}}}}],  \"executionMetadata\":{{\"worker\":\"127.0.0.1:1\"}}}}"
        );
        assert_eq!(decode(text.as_bytes()), Some(record()));
        let number = text.replace("\"sizeBytes\":\"5\"", "\"sizeBytes\":5");
        assert_eq!(decode(number.as_bytes()), Some(record()));
        let empty = text.replace(", \"sizeBytes\":\"5\"", "");
        assert_eq!(
            decode(empty.as_bytes()),
            Some(Record {
                entry: Entry { size: 0, ..ENTRY },
                ..record()
            })
        );
    }

    #[test]
    fn an_encoding_and_signatures_read_back() {
        let full = Record {
            is_packed: true,
            signatures: vec!["a:b".into(), "c:d".into()],
            ..record()
        };
        assert_eq!(decode(&encode(&full)), Some(full));
        let flood = Record {
            signatures: vec!["a:b".into(); 100],
            ..record()
        };
        assert_eq!(
            decode(&encode(&flood)).unwrap().signatures.len(),
            SIGNATURES_MAX
        );
    }

    #[test]
    fn anything_else_is_no_entry() {
        let good = String::from_utf8(encode(&record())).unwrap();
        for bad in [
            String::new(),
            "{}".into(),
            "<html>".into(),
            good.replace("\"5\"", "\"-5\""),
            good.replace("\"5\"", "\"9999999999999999\""),
            good.replace("abab", "ABAB"),
            good.replace("abab", "../.."),
            good.replace(TIME, "time"),
            good.replace("\"17092", "\"-17092"),
            good[..good.len() - 1].into(),
        ] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_page_is_told_from_an_entry_that_is_cut_off() {
        let good = encode(&record());
        for cut in [&good[..], &good[..good.len() / 2], b"{}", b""] {
            assert!(is_json(cut));
        }
        for page in [&b"<html>"[..], b"Sign in here", &[0; 250]] {
            assert!(!is_json(page));
        }
    }

    #[test]
    fn a_key_is_the_same_in_every_release_and_not_what_go_uses() {
        let action = ActionId([1; 32]);
        let key = action_key(&action);
        assert_eq!(key.len(), 64);
        assert_ne!(key, hex(&action.0));
        // Another release must find what this one has put.
        assert_eq!(
            key,
            "76140a3e2c546f6936faa1bba1935c8a98702dc553ddaf0d64350064f3f72370"
        );
    }
}
