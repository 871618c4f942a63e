//! What stands on the remote: under which key, and in which words.
//!
//! An output is `cas/<its SHA-256>`. An entry is `ac/<key>`, an ActionResult of the Remote Execution
//! API as JSON, because bazel-remote, with its checks on, takes nothing else there and keeps
//! the outputs that one names. A server that understands nothing gives back the bytes that it was given; bazel-remote
//! writes them anew, with other spaces and numbers as text. So it is what it says that counts, not how.

use crate::entry::{Entry, SIZE_MAX};
use crate::id::{ActionId, OutputId, hex, unhex};
use serde::{Deserialize, Serialize};

/// The version of what stands under a key. Another version has other keys, so that no release ever reads what it does not
/// understand.
const ACTION: &[u8] = b"nix-gocacheprog remote 1: an action\0";

/// Where an action's entry is.
pub fn action_key(action: &ActionId) -> String {
    hex(&ActionId::of(ACTION, &action.0).0)
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

/// An entry as the remote has it.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "output".into(),
            digest: Digest {
                hash: hex(&entry.output.0),
                size_bytes: Number::Text(entry.size.to_string()),
            },
            node_properties: NodeProperties {
                properties: vec![Property {
                    name: TIME.into(),
                    value: entry.time.to_string(),
                }],
            },
        }],
    };
    // It always has a JSON form.
    serde_json::to_vec(&result).unwrap_or_default()
}

/// Reads what `encode` wrote, or what a server has made of it; anything else is `None`.
pub fn decode(text: &[u8]) -> Option<Entry> {
    let result: ActionResult = serde_json::from_slice(text).ok()?;
    let [file] = &result.output_files[..] else {
        return None;
    };
    let time = file
        .node_properties
        .properties
        .iter()
        .find(|property| property.name == TIME)?;
    Some(Entry {
        output: OutputId(unhex(file.digest.hash.as_bytes())?),
        size: file.digest.size_bytes.get().filter(|s| *s <= SIZE_MAX)?,
        // As exact as the store keeps it.
        time: time.value.parse::<i64>().ok().filter(|t| *t >= 0)? / 1000 * 1000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry {
        output: OutputId([0xab; 32]),
        size: 5,
        time: 1_709_210_096_000_007_000,
    };

    #[test]
    fn an_entry_reads_back_and_is_what_the_api_says() {
        let hash = "ab".repeat(32);
        let text = encode(&ENTRY);
        assert_eq!(
            String::from_utf8(text.clone()).unwrap(),
            format!(
                "{{\"outputFiles\":[{{\"path\":\"output\",\"digest\":{{\"hash\":\"{hash}\",\"sizeBytes\":\"5\"}},\
                 \"nodeProperties\":{{\"properties\":[{{\"name\":\"nix-gocacheprog-time\",\
                 \"value\":\"1709210096000007000\"}}]}}}}]}}"
            )
        );
        assert_eq!(decode(&text), Some(ENTRY));
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
        assert_eq!(decode(text.as_bytes()), Some(ENTRY));
        let number = text.replace("\"sizeBytes\":\"5\"", "\"sizeBytes\":5");
        assert_eq!(decode(number.as_bytes()), Some(ENTRY));
        let empty = text.replace(", \"sizeBytes\":\"5\"", "");
        assert_eq!(decode(empty.as_bytes()), Some(Entry { size: 0, ..ENTRY }));
    }

    #[test]
    fn anything_else_is_no_entry() {
        let good = String::from_utf8(encode(&ENTRY)).unwrap();
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
