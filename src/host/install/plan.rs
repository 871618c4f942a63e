//! What an installation changes, as data: it can be shown, made, and undone.
//!
//! Every file is written aside and renamed into place, so that an interruption leaves the
//! old one or the new one.

use crate::error::Result;
use crate::fs;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub content: Content,
}

/// What a file is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A text with a mode; a file that is there keeps its own mode and owner.
    Text(String, u32),
    /// A copy of a program.
    Program(PathBuf),
    /// A symbolic link to a path.
    Link(PathBuf),
    /// No file.
    Absent,
}

impl File {
    /// Whether it is so already.
    pub fn is_made(&self) -> bool {
        let path = &self.path;
        let metadata = path.symlink_metadata();
        match &self.content {
            Content::Text(text, _) => {
                std::fs::read_to_string(path).is_ok_and(|found| found == *text)
            }
            Content::Program(from) => {
                let is_runnable = metadata.is_ok_and(|m| m.is_file() && m.mode() & 0o777 == 0o755);
                is_runnable && is_same_file(path, from)
            }
            Content::Link(target) => std::fs::read_link(path).is_ok_and(|found| found == *target),
            Content::Absent => metadata.is_err(),
        }
    }

    /// Makes it so.
    ///
    /// # Errors
    /// When the disk or a missing right prevents it.
    pub fn make(&self) -> Result<()> {
        let path = &self.path;
        let aside = aside(path);
        fs::remove_file(&aside)?;
        match &self.content {
            Content::Absent => return fs::remove_file(path),
            Content::Link(target) => fs::symlink(target, &aside)?,
            Content::Program(from) => {
                fs::copy(from, &aside)?;
                fs::set_mode(&aside, 0o755)?;
            }
            Content::Text(text, mode) => {
                fs::write_all(&fs::create_new(&aside, *mode)?, &aside, text.as_bytes())?;
                let mode = match fs::metadata(path) {
                    Ok(old) => {
                        fs::chown(&aside, old.uid(), old.gid())?;
                        old.permissions().mode() & 0o7777
                    }
                    Err(_) => *mode,
                };
                fs::set_mode(&aside, mode)?;
            }
        }
        fs::rename(&aside, path)
    }

    /// The change as a person reads it.
    pub fn diff(&self) -> String {
        let path = self.path.display();
        let was = self.path.symlink_metadata().is_ok();
        let from = if was {
            self.path.as_path()
        } else {
            Path::new("/dev/null")
        };
        let mut out = String::new();
        match &self.content {
            Content::Text(text, mode) => {
                let old = std::fs::read_to_string(&self.path).unwrap_or_default();
                let _ = writeln!(out, "--- {}\n+++ {path}", from.display());
                if !was {
                    let _ = writeln!(out, "new file, mode {mode:o}");
                }
                diff_lines(&mut out, &old, text);
            }
            Content::Program(program) => {
                let _ = writeln!(out, "--- {}\n+++ {path}", from.display());
                let _ = writeln!(out, "+ a copy of {}, mode 755", program.display());
            }
            Content::Link(target) => {
                let _ = writeln!(out, "--- {}\n+++ {path}", from.display());
                let _ = writeln!(out, "+ a link to {}", target.display());
            }
            Content::Absent => {
                let _ = writeln!(out, "--- {path}\n+++ /dev/null");
            }
        }
        out
    }
}

/// Where a file is written before it is renamed.
pub fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.nix-gocacheprog-new"))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|m| (m.dev(), m.ino(), m.len()));
    match (id(one), id(other)) {
        (Ok(one_id), Ok(other_id)) => {
            one_id == other_id
                || one_id.2 == other_id.2
                    && matches!((std::fs::read(one), std::fs::read(other)), (Ok(a), Ok(b)) if a == b)
        }
        _ => false,
    }
}

/// The lines that differ, without those that both have at their beginning and their end.
fn diff_lines(out: &mut String, old: &str, new: &str) {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[same..], &new[same..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    let (gone, come) = (
        &old_rest[..old_rest.len() - tail],
        &new_rest[..new_rest.len() - tail],
    );
    let _ = writeln!(out, "@@ line {} @@", same + 1);
    for (mark, lines) in [('-', gone), ('+', come)] {
        for line in lines {
            let _ = writeln!(out, "{mark}{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn file(path: PathBuf, content: Content) -> File {
        File { path, content }
    }

    #[test]
    fn a_file_that_is_made_is_made() {
        let dir = TestDir::new();
        let program = dir.path().join("program");
        std::fs::write(&program, "x").unwrap();
        let files = [
            file(dir.path().join("text"), Content::Text("a\n".into(), 0o640)),
            file(dir.path().join("copy"), Content::Program(program)),
            file(dir.path().join("link"), Content::Link("copy".into())),
        ];
        for file in &files {
            assert!(!file.is_made());
            file.make().unwrap();
            assert!(file.is_made(), "{file:?}");
            file.make().unwrap();
            let gone = File {
                path: file.path.clone(),
                content: Content::Absent,
            };
            assert!(!gone.is_made());
        }
        let mode = files[0].path.metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_file_of_somebody_elses_keeps_its_mode() {
        let dir = TestDir::new();
        let path = dir.path().join("nix.conf");
        std::fs::write(&path, "a\n").unwrap();
        fs::set_mode(&path, 0o600).unwrap();
        file(path.clone(), Content::Text("b\n".into(), 0o644))
            .make()
            .unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_difference_shows_what_goes_and_what_comes() {
        let mut out = String::new();
        diff_lines(&mut out, "a\nb\nc\n", "a\nx\ny\nc\n");
        assert_eq!(out, "@@ line 2 @@\n-b\n+x\n+y\n");
    }
}
