//! What documents and comments name is there: source files, tests, links.

use crate::imports::sources;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut found: Vec<_> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ]
    .map(|name| root().join(name))
    .into();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in ["src", "test", "fuzz/targets"] {
        sources(&root().join(dir), &mut files);
    }
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// What stands between backquotes in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn files_that_comments_and_documents_name_are_there() {
    let sources = rust_files();
    let mut wrong = Vec::new();
    for path in sources.iter().cloned().chain(documents()) {
        let is_code = path.extension().is_some_and(|extension| extension == "rs");
        let text = read(&path);
        let lines = text
            .lines()
            .filter(|line| !is_code || line.trim_start().starts_with("//"));
        let names = lines
            .flat_map(quoted)
            .filter(|word| word.ends_with(".rs") && !word.contains(['*', ' ']));
        for name in names {
            if !sources.iter().any(|file| file.ends_with(name)) {
                wrong.push(format!("{} names {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tests_that_documents_name_are_there() {
    let code: String = rust_files().iter().map(|path| read(path)).collect();
    let mut wrong = Vec::new();
    let mut found = 0;
    for path in documents() {
        let text = read(&path);
        for name in text.lines().flat_map(quoted) {
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            // A test's name is a sentence.
            let is_test = name.matches('_').count() > 3 && name.chars().all(is_word);
            let is_script = name.starts_with("test/") && !name.contains(['*', '<']);
            let is_there = if is_test {
                code.contains(&format!("fn {name}("))
            } else if is_script {
                root().join(name.split(' ').next().unwrap()).exists()
            } else {
                continue;
            };
            found += 1;
            if !is_there {
                wrong.push(format!("{} names {name}", path.display()));
            }
        }
    }
    assert!(found > 30, "the documents name tests differently now");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in documents() {
        for part in read(&path).split("](").skip(1) {
            let link = part.split([')', '#']).next().unwrap();
            if !link.is_empty() && !link.contains("://") && !path.with_file_name(link).exists() {
                wrong.push(format!("{} links to {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
