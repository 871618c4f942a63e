//! What the cache has done for one run of a CI system, as text and as Markdown.

use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::report::{BuildRecord, RemoteReport};
use crate::size::{count, show_count, show_duration, show_size};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// The most builds that are named: a step's summary may be a megabyte, and nobody reads that.
const NAMED_MAX: usize = 50;

/// What there is to say.
#[derive(Debug, Default)]
pub struct Summary {
    /// The builds of this run.
    pub builds: Vec<BuildRecord>,
    /// How things are with the remote, if there is one.
    pub remote: Option<RemoteReport>,
    /// Why not all is uploaded.
    pub failure: Option<String>,
}

impl Summary {
    fn counts(&self) -> Counts {
        let mut all = Counts::default();
        self.builds.iter().for_each(|build| all += build.counts);
        all
    }

    /// Builds that have asked for something.
    fn used(&self) -> Vec<&BuildRecord> {
        let builds = self.builds.iter();
        builds
            .filter(|build| build.counts != Counts::default())
            .collect()
    }

    /// For a log.
    pub fn text(&self) -> String {
        let mut out = format!("{}: ", count(self.used().len() as u64, "build"));
        out.push_str(&self.counts().summary().unwrap_or_else(|| {
            "nothing was asked of the cache; `nix-gocacheprog help` and docs/troubleshooting.md may say why".into()
        }));
        out.push('\n');
        if let Some(remote) = &self.remote {
            let _ = writeln!(
                out,
                "remote {}: {} fetched ({} on the wire), {} sent ({} on the wire)",
                remote.url,
                show_size(remote.received),
                show_size(remote.wire_received),
                show_size(remote.sent),
                show_size(remote.wire_sent)
            );
        }
        out
    }

    /// For the summary of a step.
    pub fn markdown(&self) -> String {
        let all = self.counts();
        let mut rows = vec![
            ("builds", show_count(self.used().len() as u64)),
            ("hits", format!("{} ({})", show_count(all.hits), all.rate())),
            ("misses", show_count(all.misses())),
            ("from the cache", show_size(all.bytes_read)),
            ("added to the cache", show_size(all.bytes_written)),
            ("compiling saved", show_duration(all.saved_ms)),
        ];
        if let Some(remote) = &self.remote {
            rows.push(("fetched from the remote", show_size(remote.received)));
            rows.push(("sent to the remote", show_size(remote.sent)));
        }
        let mut out = "### Go build cache\n\n| | |\n| --- | ---: |\n".to_string();
        for (name, value) in rows {
            let _ = writeln!(out, "| {name} | {value} |");
        }
        if let Some(failure) = &self.failure {
            let _ = writeln!(out, "\n**Not everything is uploaded:** {}", plain(failure));
        }
        let used = self.used();
        if !used.is_empty() {
            out.push_str(
                "\n| build | hits | misses | compiling saved |\n| --- | ---: | ---: | ---: |\n",
            );
        }
        for build in used.iter().take(NAMED_MAX) {
            let name = match build.name.as_str() {
                "" => "(shell)".into(),
                name => plain(name),
            };
            let _ = writeln!(
                out,
                "| {name} | {} | {} | {} |",
                show_count(build.counts.hits),
                show_count(build.counts.misses()),
                show_duration(build.saved_ms)
            );
        }
        if let Some(more) = used.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            let _ = writeln!(out, "\nand {}", count(more as u64, "more build"));
        }
        out
    }

    /// Adds it to a file, where other steps may have written something.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append_to(&self, path: &Path) -> Result<()> {
        let open = OpenOptions::new().append(true).create(true).open(path);
        let mut file = open.map_err(|e| Error::io("open", path, e))?;
        file.write_all(self.markdown().as_bytes())
            .map_err(|e| Error::io("write", path, e))
    }
}

/// A text of somebody else's, which means nothing to Markdown.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '&' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(name: &str, hits: u64, gets: u64) -> BuildRecord {
        BuildRecord {
            name: name.into(),
            counts: Counts {
                gets,
                hits,
                saved_ms: hits * 1000,
                bytes_read: hits << 20,
                ..Counts::default()
            },
            saved_ms: hits * 1000,
            ..BuildRecord::default()
        }
    }

    #[test]
    fn a_summary_says_what_came_from_the_cache_and_names_no_build_that_asked_nothing() {
        let summary = Summary {
            builds: vec![
                build("hello-1", 90, 100),
                build("idle", 0, 0),
                build("", 5, 5),
            ],
            ..Summary::default()
        };
        let text = summary.text();
        assert!(text.starts_with("2 builds: 95 hits, 10 misses (90.4%), 95 MiB from cache"));
        let markdown = summary.markdown();
        for line in [
            "| builds | 2 |",
            "| hits | 95 (90.4%) |",
            "| misses | 10 |",
            "| from the cache | 95 MiB |",
            "| hello-1 | 90 | 10 | 1 min 30 s |",
            "| (shell) | 5 | 0 | 5 s |",
        ] {
            assert!(
                markdown.lines().any(|found| found == line),
                "{line}: {markdown}"
            );
        }
        assert!(!markdown.contains("idle"));
    }

    #[test]
    fn what_a_build_or_a_server_is_called_changes_nothing_else_on_the_page() {
        let summary = Summary {
            builds: vec![build("x | <img src=y>\n# z", 1, 1)],
            failure: Some("3 uploads left: `no` <b>".into()),
            ..Summary::default()
        };
        let markdown = summary.markdown();
        assert!(
            markdown.contains("\n| x \\| \\<img src=y\\> \\# z | 1 | 0 | 1 s |\n"),
            "{markdown}"
        );
        assert!(markdown.contains("left: \\`no\\` \\<b\\>\n"), "{markdown}");
    }

    #[test]
    fn a_summary_is_added_to_what_is_there_and_is_short() {
        let dir = crate::test_dir::TestDir::new();
        let file = dir.path().join("summary");
        std::fs::write(&file, "first\n").unwrap();
        let builds = (0..80).map(|nth| build(&format!("b-{nth}"), 1, 1));
        let summary = Summary {
            builds: builds.collect(),
            ..Summary::default()
        };
        summary.append_to(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("first\n### Go build cache\n"));
        assert!(text.contains("| b-49 |") && !text.contains("| b-50 |"));
        assert!(text.ends_with("\nand 30 more builds\n"), "{text}");
    }
}
