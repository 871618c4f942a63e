//! Compares what a build puts with what the cache holds for the same action. The two differ when a cached build is not what a
//! cold one would have been, or when a tool does not give the same twice: somebody has to look.

use crate::archive;
use crate::cache::session::Session;
use crate::cache::store::Store;
use crate::entry::Entry;
use crate::error::Result;
use crate::id::ActionId;
use crate::size::show_age;
use std::io::{Read, Seek, SeekFrom};
use std::time::SystemTime;

/// As much of an end as shows a test's verdict, in bytes.
const TAIL: u64 = 4 << 10;

/// What the cache held when a put came.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The entry.
    pub entry: Entry,
    /// The put replaces it: it is of the same tier.
    pub is_own: bool,
    /// It is of no use to compare with, for it holds times.
    holds_times: bool,
}

impl Held {
    /// What the cache holds for an action; `None` too when that cannot be read, for no put fails for it.
    pub fn before(session: &Session<'_>, store: &Store, action: &ActionId) -> Option<Self> {
        let (entry, is_own) = session.held(action).ok().flatten()?;
        Some(Self {
            entry,
            is_own,
            holds_times: holds_times(store, &entry).unwrap_or(true),
        })
    }

    /// Whether an entry that was put says something else.
    pub fn differs(&self, put: &Entry) -> bool {
        self.entry.output != put.output
    }

    /// Whether it can be compared at all.
    pub fn is_comparable(&self) -> bool {
        !self.holds_times
    }

    /// A line for the log.
    pub fn describe(
        &self,
        store: &Store,
        action: &ActionId,
        put: &Entry,
        builds: [&str; 2],
    ) -> String {
        let package = package(store, put).ok().flatten();
        let age = SystemTime::now()
            .duration_since(self.entry.put_at())
            .unwrap_or_default();
        format!(
            "action {action}{}: build {} put output {} ({} bytes) {} ago, build {} puts {} ({} bytes)",
            package.map_or(String::new(), |path| format!(" (package {path})")),
            builds[0],
            self.entry.output,
            self.entry.size,
            show_age(age),
            builds[1],
            put.output,
            put.size
        )
    }
}

/// Whether an output is the log or the result of a test, which hold times. One that is not there is not compared either.
fn holds_times(store: &Store, entry: &Entry) -> Result<bool> {
    let Some(mut file) = store.open_output(entry)? else {
        return Ok(true);
    };
    let mut head = [0; 11];
    let is_log = file.read_exact(&mut head).is_ok() && head == *b"# test log\n";
    let is_archive = head.starts_with(b"!<arch>\n");
    if is_log || is_archive || entry.size == 0 {
        return Ok(is_log);
    }
    let mut tail = Vec::new();
    let from = entry.size.saturating_sub(TAIL);
    let read = file
        .seek(SeekFrom::Start(from))
        .and_then(|_| file.take(TAIL).read_to_end(&mut tail));
    Ok(read.is_ok() && is_test_result(&tail))
}

/// Whether a text ends as what a test that has passed says (`cmd/go/internal/test`): `ok`, the package and a time.
fn is_test_result(tail: &[u8]) -> bool {
    let text = tail.trim_ascii_end();
    let line = text.rsplit(|c| *c == b'\n').next().unwrap_or_default();
    line.starts_with(b"ok  \t") || line == b"PASS"
}

/// The package that an output is an archive of.
fn package(store: &Store, entry: &Entry) -> Result<Option<String>> {
    let file = store.open_output(entry)?;
    let package = file.and_then(|mut file| archive::package(&mut file));
    Ok(package.map(|package| package.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_tests_are_told_from_other_texts() {
        for (text, is_result) in [
            ("ok  \texample.com/x\t0.003s\n", true),
            (
                "=== RUN   TestX\n--- PASS: TestX (0.00s)\nPASS\nok  \tx\t0.1s\n",
                true,
            ),
            ("PASS\n", true),
            ("", false),
            ("ok  \tx\t0.1s\nmore\n", false),
        ] {
            assert_eq!(is_test_result(text.as_bytes()), is_result, "{text:?}");
        }
    }
}
