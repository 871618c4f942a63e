//! What `go tool -n` names.
//!
//! It links the tool of a module into its own temporary directory, prints the path, and removes the directory. Its own
//! cache keeps executables, and then it prints the path of that one; with a GOCACHEPROG it keeps none (`buildAndRunTool`
//! in cmd/go/internal/tool/tool.go, `updateBuildID` in cmd/go/internal/work/buildid.go), so whoever runs what it has
//! printed finds nothing there.
//!
//! `go` asks the client to close the cache after it has printed and before it removes. The client keeps the
//! tool then, and when `go` has ended it puts a link to it where it was. Whoever reads from a pipe what `go` prints
//! waits for the end of that, which does not come before: the client has the pipe open as well.

use super::private;
use super::source_tree::settings::Settings;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{BuildId, OutputId};
use crate::log;
use crate::sha256::Sha256;
use crate::sys;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// `go` removes its temporary directory within this time, or is not waited for.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// How long a user's tools are kept that `go` has not named again; as long as `go` keeps them itself (`trimLimit` in
/// cmd/go/internal/cache/cache.go).
const KEPT_FOR: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// Flags of `go tool` whose value may be the next word.
const FLAGS_WITH_VALUE: [&str; 3] = ["C", "modfile", "overlay"];

/// The tool that a `go` command has named, until that command has ended.
#[derive(Debug)]
pub struct KeptTool {
    go: OwnedFd,
    /// Closed by whoever drops this: not before the links are there.
    _printed: Option<File>,
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    /// The temporary directory of `go`.
    work: PathBuf,
    /// What it has printed, or another command has made at the same time and under the same name.
    path: PathBuf,
    kept: PathBuf,
}

/// Keeps what a `go` command with these words has linked, if it is one that names it.
///
/// # Errors
/// When the tool cannot be kept, or the command cannot be watched.
pub fn keep(words: &[OsString]) -> Result<Option<KeptTool>> {
    let names = named(words);
    if names.is_empty() {
        return Ok(None);
    }
    let settings = Settings::new(words, |name| std::env::var_os(name));
    let temporary = settings.path("GOTMPDIR").unwrap_or_else(std::env::temp_dir);
    let temporary = std::path::absolute(&temporary)
        .map_err(|e| Error::io("find the directory", &temporary, e))?;
    let mut links = Vec::new();
    for (work, path) in linked(&temporary, &names) {
        let tools = private::beside("tools")?;
        let kept = keep_one(&tools, &path)?;
        links.push(Link { work, path, kept });
    }
    if links.is_empty() {
        return Ok(None);
    }
    let go = std::os::unix::process::parent_id();
    let watched = sys::process(go).map_err(|e| Error::io("watch", "`go`", e))?;
    Ok(Some(KeptTool {
        go: watched,
        _printed: pipe_of(go),
        links,
    }))
}

impl KeptTool {
    /// Waits until the command has ended, and puts links where the tools were that it has removed.
    ///
    /// # Errors
    /// When it does not end, or a link cannot be made.
    pub fn put_back(self) -> Result<()> {
        let [has_ended] = sys::wait_readable([self.go.as_raw_fd()], ENDS_WITHIN)
            .map_err(|e| Error::io("wait for", "`go`", e))?;
        if !has_ended {
            return Err(Error::peer("`go` has not ended"));
        }
        for link in &self.links {
            // Whoever is still removing the directory must not find something new in it, and `-work` keeps it.
            if fs::metadata_if_there(&link.work)?.is_some() {
                continue;
            }
            if let Some(parent) = link.path.parent() {
                fs::create_dir_all(parent)?;
            }
            match fs::symlink(&link.kept, &link.path) {
                // The client of another command has been faster.
                Err(e) if e.kind() == Some(ErrorKind::AlreadyExists) => {}
                done => done?,
            }
        }
        Ok(())
    }
}

/// The names that the executable may have if this is `go tool -n` (`DefaultExecName` in cmd/go/internal/load/pkg.go takes
/// one of the parts of an import path).
fn named(words: &[OsString]) -> BTreeSet<&OsStr> {
    let mut names = BTreeSet::new();
    let mut rest = words.iter().skip_while(|word| *word != "tool").skip(1);
    let mut is_asked = false;
    while let Some(word) = rest.next() {
        let bytes = word.as_bytes();
        let Some(flag) = bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-")) else {
            if is_asked {
                let parts = bytes.split(|byte| b"/@".contains(byte));
                names.extend(parts.map(OsStr::from_bytes));
            }
            break;
        };
        match flag {
            b"n" | b"n=true" | b"n=1" => is_asked = true,
            _ if FLAGS_WITH_VALUE.iter().any(|with| with.as_bytes() == flag) => drop(rest.next()),
            _ => {}
        }
    }
    names
}

/// What `go` commands have linked under one of the names, each with that command's temporary directory. It is the command's
/// first package (`LinkAction` in cmd/go/internal/work/action.go).
fn linked(temporary: &Path, names: &BTreeSet<&OsStr>) -> Vec<(PathBuf, PathBuf)> {
    let entries = std::fs::read_dir(temporary).into_iter().flatten().flatten();
    let works = entries
        .filter(|entry| entry.file_name().as_bytes().starts_with(b"go-build"))
        .map(|entry| entry.path());
    works
        .flat_map(|work| {
            let paths = names.iter().map(|name| work.join("b001/exe").join(name));
            let paths: Vec<_> = paths.filter(|path| path.is_file()).collect();
            paths.into_iter().map(move |path| (work.clone(), path))
        })
        .collect()
}

/// Another name for a tool, or a copy, by what it holds.
fn keep_one(tools: &Path, path: &Path) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    std::io::copy(&mut fs::open(path)?, &mut hash).map_err(|e| Error::io("read", path, e))?;
    let folder = tools.join(OutputId(hash.finalize()).to_string());
    let kept = folder.join(path.file_name().unwrap_or_default());
    fs::create_dir_all(&folder)?;
    if fs::metadata_if_there(&kept)?.is_none() {
        let new = folder.join(format!(".{}", BuildId::new()?));
        fs::hard_link(path, &new).or_else(|_| fs::copy(path, &new))?;
        fs::rename(&new, &kept)?;
    }
    let now = SystemTime::now();
    fs::set_times(&folder, now)?;
    // Another client may be at it, too, and this one's tool is kept whatever comes of it.
    if let Err(e) = remove_unused(tools, now) {
        log::debug(|| format!("tools are not removed: {}", e.chain()));
    }
    Ok(kept)
}

fn remove_unused(tools: &Path, now: SystemTime) -> Result<()> {
    for entry in fs::read_dir(tools)? {
        let folder = entry?.path();
        let used = sys::modified(&fs::metadata(&folder)?);
        if now.duration_since(used).is_ok_and(|age| age > KEPT_FOR) {
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(())
}

/// The pipe that a process prints to, if it is one: a file has no end to wait for, and a terminal no reader.
fn pipe_of(process: u32) -> Option<File> {
    let path = format!("/proc/{process}/fd/1");
    let target = std::fs::read_link(&path).ok()?;
    if !target.as_os_str().as_bytes().starts_with(b"pipe:") {
        return None;
    }
    OpenOptions::new().write(true).open(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::process::Command;

    fn names(line: &str) -> Vec<String> {
        let words: Vec<_> = line.split(' ').map(OsString::from).collect();
        let names = named(&words).into_iter();
        names
            .map(|name| name.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_tool_is_kept_if_go_only_names_it() {
        assert_eq!(names("go tool -n words"), ["words"]);
        assert_eq!(names("go tool --n words -v"), ["words"]);
        assert_eq!(
            names("go tool -C dir -modfile=tools.mod -n example.org/a/b/v2@v2.0.1"),
            ["a", "b", "example.org", "v2", "v2.0.1"]
        );
        assert_eq!(names("qemu /usr/bin/go tool -n words"), ["words"]);
        for line in [
            "go tool words",
            "go tool words -n",
            "go tool -modfile -n words",
            "go tool -n",
            "go tool",
            "go build -n ./words",
            "go run -n ./words",
        ] {
            assert!(names(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn only_a_directory_that_has_gone_gets_a_link() {
        let dir = TestDir::new();
        let (tools, tmp) = (dir.path().join("tools"), dir.path().join("tmp"));
        for work in ["go-build1", "go-build2", "other"] {
            std::fs::create_dir_all(tmp.join(work).join("b001/exe")).unwrap();
            for name in ["words", "letters"] {
                std::fs::write(tmp.join(work).join("b001/exe").join(name), "a tool").unwrap();
            }
        }
        let found = linked(&tmp, &BTreeSet::from([OsStr::new("words")]));
        assert_eq!(found.len(), 2, "{found:?}");
        let links: Vec<_> = found
            .into_iter()
            .map(|(work, path)| Link {
                kept: keep_one(&tools, &path).unwrap(),
                work,
                path,
            })
            .collect();
        assert_eq!(links[0].kept, links[1].kept);
        std::fs::remove_dir_all(tmp.join("go-build1")).unwrap();
        std::fs::remove_file(tmp.join("go-build2/b001/exe/words")).unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        let tool = KeptTool {
            go: sys::process(ended.id()).unwrap(),
            _printed: None,
            links,
        };
        tool.put_back().unwrap();
        ended.wait().unwrap();
        let back = tmp.join("go-build1/b001/exe/words");
        assert_eq!(std::fs::read(back).unwrap(), b"a tool");
        assert!(!tmp.join("go-build2/b001/exe/words").exists());
    }

    #[test]
    fn tools_that_are_not_named_any_more_go() {
        let dir = TestDir::new();
        let tools = dir.path().join("tools");
        let path = dir.path().join("words");
        std::fs::write(&path, "old").unwrap();
        let old = keep_one(&tools, &path).unwrap();
        let long_ago = SystemTime::now() - KEPT_FOR - Duration::from_secs(60);
        fs::set_times(old.parent().unwrap(), long_ago).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "new").unwrap();
        let new = keep_one(&tools, &path).unwrap();
        assert!(new.exists() && !old.exists());
    }
}
