//! What an installation changes, as data: it can be shown, made, and undone.
//!
//! Every file is written aside and renamed into place, so that an interruption leaves the
//! old one or the new one.

use crate::error::{Error, Result};
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

    /// Makes it so. After a power cut the file is there as it was, or as it is to be.
    ///
    /// # Errors
    /// When the disk or a missing right prevents it.
    pub fn make(&self) -> Result<()> {
        self.make_checked(|_| Ok(()))
    }

    /// Makes it so, if `check` accepts the new file before it takes the old one's place.
    ///
    /// # Errors
    /// When the disk, a missing right or the check prevents it. The old file is still there then.
    pub fn make_checked(&self, check: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let path = &self.path;
        let fresh = temporary_name(path);
        fs::remove_file(&fresh)?;
        if self.content == Content::Absent {
            return fs::remove_file(path);
        }
        let made = self
            .write(&fresh)
            .and_then(|()| check(&fresh))
            .and_then(|()| fs::rename(&fresh, path));
        if made.is_err() {
            // The first error says more than a second one.
            let _ = fs::remove_file(&fresh);
        } else if let Some(dir) = path.parent() {
            // A disk that cannot say that it has done it has done it nonetheless.
            let _ = fs::open(dir).map(|dir| dir.sync_all());
        }
        made
    }

    fn write(&self, fresh: &Path) -> Result<()> {
        match &self.content {
            Content::Absent => return Ok(()),
            Content::Link(target) => return fs::symlink(target, fresh),
            Content::Program(from) => {
                fs::copy(from, fresh)?;
                fs::set_mode(fresh, 0o755)?;
            }
            Content::Text(text, mode) => {
                fs::write_all(&fs::create_new(fresh, *mode)?, fresh, text.as_bytes())?;
                let mode = match fs::symlink_metadata(&self.path) {
                    Ok(old) if old.is_file() => {
                        fs::chown(fresh, old.uid(), old.gid())?;
                        old.permissions().mode() & 0o7777
                    }
                    _ => *mode,
                };
                fs::set_mode(fresh, mode)?;
            }
        }
        fs::open(fresh)?
            .sync_all()
            .map_err(|e| Error::io("sync", fresh, e))
    }

    /// The change as a person reads it, and as `patch` applies it.
    pub fn diff(&self) -> String {
        let path = self.path.display();
        let old = std::fs::read_to_string(&self.path).ok();
        let is_link = self.path.is_symlink();
        match &self.content {
            Content::Text(text, mode) => {
                let note = match old {
                    None => format!("new file {path}, mode {mode:o}\n"),
                    Some(_) => String::new(),
                };
                let from = old.as_ref().map(|_| self.path.as_path());
                let old = old.as_deref().unwrap_or_default();
                note + &unified(from, Some(&self.path), old, text)
            }
            Content::Program(program) => {
                format!("copy {} to {path}, mode 755\n", program.display())
            }
            Content::Link(target) => format!("link {path} to {}\n", target.display()),
            Content::Absent => match old.filter(|_| !is_link) {
                Some(old) => unified(Some(&self.path), None, &old, ""),
                None => format!("remove {path}\n"),
            },
        }
    }
}

/// Where a file is written before it is renamed.
pub fn temporary_name(path: &Path) -> PathBuf {
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

/// Lines around a change that say where it is.
const CONTEXT: usize = 3;

/// A change of one file as a unified diff.
fn unified(from: Option<&Path>, to: Option<&Path>, old: &str, new: &str) -> String {
    let name = |path: Option<&Path>| path.unwrap_or(Path::new("/dev/null")).display().to_string();
    let (old, new): (Vec<_>, Vec<_>) = (
        old.split_inclusive('\n').collect(),
        new.split_inclusive('\n').collect(),
    );
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    if head == old.len() && head == new.len() {
        return String::new();
    }
    let start = head.saturating_sub(CONTEXT);
    let after = tail.min(CONTEXT);
    let (gone, come) = (old.len() - tail, new.len() - tail);
    // A range of no lines is said to begin at the line before it.
    let range = |end: usize| {
        let count = end + after - start;
        format!("{},{count}", start + usize::from(count > 0))
    };
    let mut out = format!(
        "--- {}\n+++ {}\n@@ -{} +{} @@\n",
        name(from),
        name(to),
        range(gone),
        range(come)
    );
    for (mark, lines) in [
        (' ', &old[start..head]),
        ('-', &old[head..gone]),
        ('+', &new[head..come]),
        (' ', &old[gone..gone + after]),
    ] {
        for line in lines {
            let _ = write!(out, "{mark}{line}");
            if !line.ends_with('\n') {
                out.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    out
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
        let path = Path::new("/f");
        for (old, new, diff) in [
            (
                "a\nb\nc\n",
                "a\nx\ny\nc\n",
                "@@ -1,3 +1,4 @@\n a\n-b\n+x\n+y\n c\n",
            ),
            ("", "a\n", "@@ -0,0 +1,1 @@\n+a\n"),
            ("a\n", "", "@@ -1,1 +0,0 @@\n-a\n"),
            (
                "1\n2\n3\n4\n5",
                "1\n2\n3\n4\n5\n6\n",
                "@@ -2,4 +2,5 @@\n 2\n 3\n 4\n-5\n\\ No newline at end of file\n+5\n+6\n",
            ),
        ] {
            let shown = unified(Some(path), Some(path), old, new);
            assert_eq!(shown, format!("--- /f\n+++ /f\n{diff}"));
        }
        assert_eq!(unified(Some(path), Some(path), "a\n", "a\n"), "");
    }
}
