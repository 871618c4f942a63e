//! Which part of the program may use which: the invariants of ARCHITECTURE.md, held over every `use` line of `src`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a subsystem must never import, and what is allowed all the same.
struct Rule {
    of: &'static str,
    never: &'static [&'static str],
}

const RULES: [Rule; 10] = [
    Rule {
        of: "cache",
        never: &[
            "cli", "client", "daemon", "host", "http", "nix", "protocol", "proxy", "remote",
            "stamp",
        ],
    },
    Rule {
        of: "client",
        never: &[
            "cli", "daemon", "host", "http", "nix", "proxy", "remote", "stamp",
        ],
    },
    Rule {
        of: "daemon",
        never: &["cli", "client", "host", "http", "nix", "proxy", "stamp"],
    },
    Rule {
        of: "host",
        never: &["cli"],
    },
    Rule {
        of: "http",
        never: &[
            "cache", "cli", "client", "daemon", "host", "nix", "protocol", "proxy", "remote",
            "stamp",
        ],
    },
    Rule {
        of: "nix",
        never: &[
            "cache", "cli", "client", "daemon", "host", "http", "proxy", "remote", "stamp",
        ],
    },
    Rule {
        of: "protocol",
        never: &[
            "cache", "cli", "client", "daemon", "host", "http", "nix", "proxy", "remote", "stamp",
        ],
    },
    Rule {
        of: "proxy",
        never: &["cli", "daemon", "host", "nix", "remote", "stamp"],
    },
    Rule {
        of: "remote",
        never: &[
            "cli", "client", "daemon", "host", "nix", "protocol", "proxy", "stamp",
        ],
    },
    Rule {
        of: "stamp",
        never: &FOLDERS,
    },
];

/// The folders, which no leaf may import.
const FOLDERS: [&str; 11] = [
    "cache", "cli", "client", "daemon", "host", "http", "nix", "protocol", "proxy", "remote",
    "stamp",
];

pub fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level modules that a file names, in `use` lines and elsewhere.
fn imports(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .filter_map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
        })
        .collect()
}

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 60, "this is not the source tree");
    let mut wrong = Vec::new();
    for path in files {
        let relative = path.strip_prefix(&root).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let first = relative.components().next().unwrap().as_os_str();
        let of = Path::new(first).file_stem().unwrap().to_str().unwrap();
        if ["main", "lib"].contains(&of) {
            continue;
        }
        let never = RULES.iter().find(|rule| rule.of == of).map_or_else(
            || if of == "cli" { &[][..] } else { &FOLDERS[..] },
            |rule| rule.never,
        );
        for import in imports(&text) {
            if never.contains(&import) {
                wrong.push(format!("src/{} uses {import}", relative.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that ARCHITECTURE.md forbids:\n{}",
        wrong.join("\n")
    );
}
