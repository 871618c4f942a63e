//! nix.conf as text: the block that is ours, and what the rest says.
//!
//! Nothing here touches a line that is not in our block.

use crate::error::Result;
use crate::fs;
use std::path::{Path, PathBuf};

/// Begins every block of ours.
const BEGIN: &str = "# BEGIN nix-gocacheprog (`nix-gocacheprog uninstall` removes this)";

/// The same after a last line that had no end, so that it gets that back.
const BEGIN_JOINED: &str = "# BEGIN nix-gocacheprog (`nix-gocacheprog uninstall` removes this, and the end of the line above)";

const END: &str = "# END nix-gocacheprog";

/// The text with a block of these lines at its end, where a setting overrides earlier ones.
pub fn with_block(text: &str, lines: &str) -> String {
    let mut text = without_block(text);
    let begin = if text.is_empty() || text.ends_with('\n') {
        BEGIN
    } else {
        text.push('\n');
        BEGIN_JOINED
    };
    text.push_str(&format!("{begin}\n{lines}\n{END}\n"));
    text
}

/// The text without any block of ours: what it was before. Every line of somebody else's stays a line, whatever was
/// added since and wherever.
pub fn without_block(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    // The end of the line above the block was this program's, and goes if nothing has come after it.
    let mut is_joined = false;
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        if !is_begin(line) {
            is_joined = false;
            left.push_str(line);
            continue;
        }
        is_joined = line.trim_end() == BEGIN_JOINED && left.ends_with('\n');
        let has_end = lines
            .clone()
            .take_while(|line| !is_begin(line))
            .any(|line| line.trim_end() == END);
        // Somebody has cut the block short: only what can be nothing but ours goes.
        while let Some(inner) = lines.next_if(|line| has_end || is_ours(line)) {
            if inner.trim_end() == END {
                break;
            }
        }
    }
    if is_joined {
        left.pop();
    }
    left
}

fn is_begin(line: &str) -> bool {
    [BEGIN, BEGIN_JOINED].contains(&line.trim_end())
}

/// Whether a line can be nothing but a part of a block.
fn is_ours(line: &str) -> bool {
    line.trim_end() == END || line.contains("gocache") && !line.starts_with(['#', '!'])
}

/// Whether a file is written by a program that would write over what is added to it: its head says so.
pub fn is_generated(text: &str) -> bool {
    let head = text.lines().take(10).take_while(|line| {
        let line = line.trim_start();
        line.is_empty() || line.starts_with('#')
    });
    head.map(str::to_ascii_lowercase).any(|line| {
        [
            "generated",
            "will be replaced",
            "will be overwritten",
            "do not edit",
            "do not modify",
            "managed by",
        ]
        .iter()
        .any(|words| line.contains(words))
    })
}

/// What is said in a file outside of our block, and in those that it includes.
#[derive(Debug, Default)]
pub struct Settings {
    values: Vec<(String, String)>,
    /// The files that it includes and that are there, or could be.
    pub includes: Vec<PathBuf>,
}

impl Settings {
    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let mut settings = Self::default();
        settings.add(path, 0)?;
        Ok(settings)
    }

    /// The value of a setting: the last one counts.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.values.iter().rev().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Adds what a file says that Nix reads later.
    pub fn override_with(&mut self, later: Self) {
        self.values.extend(later.values);
        self.includes = later.includes;
    }

    fn add(&mut self, path: &Path, depth: usize) -> Result<()> {
        // An include that includes itself is Nix's to complain about.
        if depth > 10 || !path.exists() {
            return Ok(());
        }
        for line in without_block(&fs::read_to_string(path)?).lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some((name, value)) = line.split_once('=') {
                self.values.push((name.trim().into(), value.trim().into()));
            } else if let Some(("include" | "!include", included)) =
                line.split_once(char::is_whitespace)
            {
                let dir = path.parent().unwrap_or(path);
                let included = dir.join(included.trim());
                self.includes.push(included.clone());
                self.add(&included, depth + 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    const LINE: &str = "pre-build-hook = /lib/nix-gocacheprog/hook";

    #[test]
    fn a_block_comes_and_goes_and_leaves_every_byte_as_it_was() {
        for text in ["", "\n", "a = b\n", "a = b", "a = b\n\n", "# x\r\n", "é"] {
            let with = with_block(text, LINE);
            assert!(with.ends_with(&format!("\n{LINE}\n{END}\n")), "{with:?}");
            assert_eq!(with_block(&with, LINE), with);
            assert_eq!(without_block(&with), text);
        }
    }

    #[test]
    fn a_line_that_was_added_after_the_block_stays_a_line() {
        for text in ["substitute = false", "substitute = false\n"] {
            let with = with_block(text, LINE) + "max-jobs = 2\n";
            let left = "substitute = false\nmax-jobs = 2\n";
            assert_eq!(without_block(&with), left);
            let again = with_block(&with, LINE);
            assert_eq!(without_block(&again), left);
            // The block's own last line has lost its end, and something was appended to it.
            let glued = with_block(text, LINE).trim_end().to_string() + "max-jobs = 2\n";
            assert!(without_block(&glued).starts_with("substitute = false"));
            assert!(without_block(&glued).contains("max-jobs = 2\n"));
        }
    }

    #[test]
    fn what_stands_between_two_blocks_stays() {
        let cut = format!("a = b\n{BEGIN}\n{LINE}\ncores = 4\n");
        let text = with_block("", LINE);
        assert_eq!(without_block(&(cut + &text)), "a = b\ncores = 4\n");
    }

    #[test]
    fn a_generated_file_says_so_at_its_head() {
        for head in [
            "# This file will be replaced by Determinate Nix\na = b\n",
            "\n# Generated by the installer.\n",
            "# WARNING: this file is generated from the nix.* options in your configuration, do not edit\n",
        ] {
            assert!(is_generated(head), "{head}");
        }
        for head in ["a = b\n# generated\n", "# mine\n", ""] {
            assert!(!is_generated(head), "{head}");
        }
    }

    #[test]
    fn a_block_moves_to_the_end_behind_what_was_added_since() {
        let with = with_block("a = b\n", LINE) + "pre-build-hook = /other\n";
        let again = with_block(&with, LINE);
        assert_eq!(without_block(&again), "a = b\npre-build-hook = /other\n");
        assert!(again.ends_with(&format!("{END}\n")));
        assert_eq!(again.matches(BEGIN).count(), 1);
    }

    #[test]
    fn a_block_without_its_end_takes_no_line_of_somebody_elses() {
        let cut = format!("a = b\n{BEGIN}\n{LINE}\ncores = 4\n");
        assert_eq!(without_block(&cut), "a = b\ncores = 4\n");
    }

    #[test]
    fn the_last_setting_counts_and_ours_does_not() {
        let dir = TestDir::new();
        let main = dir.path().join("nix.conf");
        std::fs::write(
            dir.path().join("extra.conf"),
            "pre-build-hook = /second # why\n",
        )
        .unwrap();
        let text = "pre-build-hook = /first\n!include extra.conf\n!include missing.conf\n";
        std::fs::write(&main, with_block(text, LINE)).unwrap();
        let settings = Settings::read(&main).unwrap();
        assert_eq!(settings.get("pre-build-hook"), Some("/second"));
        assert_eq!(settings.get("sandbox"), None);
        assert_eq!(
            settings.includes,
            [
                dir.path().join("extra.conf"),
                dir.path().join("missing.conf")
            ]
        );
        assert!(
            Settings::read(Path::new("/nowhere"))
                .unwrap()
                .get("x")
                .is_none()
        );
    }
}
