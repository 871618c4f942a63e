//! The stamps of a tree: what there is, and the mtime that each should have.

use super::table::Row;
use crate::error::{Error, Result};
use crate::fs;
use crate::sha256::Sha256;
use crate::sync::lock;
use crate::sys::Mtime;
use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The earliest stamp, 1980-01-01: some archive formats have nothing before it.
const EARLIEST: i64 = 315_532_800;

/// Stamps are spread over so many seconds, 34 years, so that the latest is in 2014: `go` trusts no file younger than two
/// seconds, and what a build writes has to be younger than what it was given.
const SPREAD: u64 = 1 << 30;

/// How much of a file is read at once.
const BUFFER: usize = 128 << 10;

/// More threads do not read a tree faster.
const MAX_THREADS: usize = 16;

/// What C turns into the time of the file that it compiles.
const TIME_OF_FILE: &[u8] = b"__TIMESTAMP__";

/// What C compiles and includes, by extension.
const OF_C: [&str; 20] = [
    "c", "cc", "cpp", "cxx", "def", "f", "F", "f90", "for", "h", "hh", "hpp", "hxx", "i", "inc",
    "inl", "m", "mm", "S", "sx",
];

/// One thing of the tree, and its stamp once that is known.
struct Node {
    path: PathBuf,
    found: Metadata,
    stamp: Option<Mtime>,
    /// Of a directory: where its entries are.
    entries: Vec<usize>,
}

/// What each file, link and directory of the tree should have as its mtime. Of what `known` tells, and of which nothing
/// but the mtime was changed since, no content is read.
pub fn stamps(root: &Path, known: Vec<Row>) -> Result<Vec<Row>> {
    let mut nodes = list(root)?;
    let known: HashMap<_, _> = known
        .into_iter()
        .map(|row| (row.path.clone(), row))
        .collect();
    for node in &mut nodes {
        let unchanged = known
            .get(&node.path)
            .filter(|row| row.is_unchanged(&node.found));
        if let Some(row) = unchanged.filter(|_| !node.found.is_dir()) {
            node.stamp = Some(row.stamp);
        }
    }
    stamp_contents(root, &mut nodes)?;
    // Entries come after their directory.
    for nth in (0..nodes.len()).rev() {
        if nodes[nth].found.is_dir() {
            nodes[nth].stamp = Some(of_directory(&nodes, nth));
        }
    }
    let rows = nodes.into_iter().filter_map(|node| {
        let mut row = Row::new(node.path, &node.found, node.stamp?);
        // A stamp that was never taken away is nobody's own time.
        let stamped = known
            .get(&row.path)
            .filter(|known| known.is_stamped(&node.found));
        row.before = stamped.map_or(row.before, |known| known.before);
        Some(row)
    });
    Ok(rows.collect())
}

/// All that is in the tree, each directory before its entries.
fn list(root: &Path) -> Result<Vec<Node>> {
    let mut nodes = vec![Node::new(root.to_path_buf())?];
    let mut nth = 0;
    while nth < nodes.len() {
        if nodes[nth].found.is_dir() {
            let mut paths = Vec::new();
            for entry in fs::read_dir(&nodes[nth].path)? {
                paths.push(entry?.path());
            }
            paths.sort_unstable();
            for path in paths {
                let at = nodes.len();
                nodes[nth].entries.push(at);
                nodes.push(Node::new(path)?);
            }
        }
        nth += 1;
    }
    Ok(nodes)
}

impl Node {
    fn new(path: PathBuf) -> Result<Self> {
        Ok(Node {
            found: fs::symlink_metadata(&path)?,
            path,
            stamp: None,
            entries: Vec::new(),
        })
    }
}

/// Reads the files and links that have no stamp yet, on all cores.
fn stamp_contents(root: &Path, nodes: &mut [Node]) -> Result<()> {
    let left: Vec<_> = nodes
        .iter_mut()
        .filter(|node| node.stamp.is_none())
        .collect();
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    let threads = threads.min(left.len() / 64 + 1);
    let next = AtomicUsize::new(0);
    let left: Vec<_> = left.into_iter().map(Mutex::new).collect();
    let work = || {
        let mut buffer = vec![0; BUFFER];
        while let Some(node) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut node = lock(node);
            node.stamp = of_content(root, &node, &mut buffer)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done: Result<()> = work();
        for other in others {
            let others = other
                .join()
                .unwrap_or_else(|_| Err(Error::input("a thread panicked")));
            done = done.and(others);
        }
        done
    })
}

/// The stamp of a file or a link. A pipe or a socket has none, and keeps its time.
fn of_content(root: &Path, node: &Node, buffer: &mut [u8]) -> Result<Option<Mtime>> {
    if node.found.is_symlink() {
        let target = fs::read_link(&node.path)?;
        // What it leads to would be told from other content by its size alone: in the store all times are the same.
        if let Ok(to) = fs::canonicalize(&node.path)
            && !to.starts_with(root)
        {
            return Err(Error::input(format!(
                "the symbolic link {} leads out of the tree",
                node.path.display()
            )));
        }
        let mut hash = Sha256::new_with_prefix("link\0");
        hash.update(target.as_os_str().as_bytes());
        return Ok(Some(stamp(hash)));
    }
    if !node.found.is_file() {
        return Ok(None);
    }
    let mut file = fs::open(&node.path)?;
    let mut hash = Sha256::new_with_prefix("file\0");
    let extension = node
        .path
        .extension()
        .and_then(|extension| extension.to_str());
    let is_of_c = extension.is_some_and(|extension| OF_C.contains(&extension));
    // The end of the last piece, in which the word may begin.
    let mut before = Vec::new();
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(Some(stamp(hash))),
            Ok(length) => {
                hash.update(&buffer[..length]);
                if is_of_c {
                    before.extend_from_slice(&buffer[..length]);
                    if memchr::memmem::find(&before, TIME_OF_FILE).is_some() {
                        return Err(Error::input(format!(
                            "{} compiles its own time in",
                            node.path.display()
                        )));
                    }
                    let kept = before.len().saturating_sub(TIME_OF_FILE.len() - 1);
                    before.drain(..kept);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", &node.path, e)),
        }
    }
}

/// The stamp of a directory is made of what a listing shows: the names in it, with what each of them is and where links
/// lead. As on any host, its time is another one after a change of those, and the same when a file is written anew: `go`
/// puts the times of the module's folders into the keys of tests that do no more than go there (`chdir` in
/// `computeTestInputsID`, cmd/go/internal/test/test.go), and the times of all entries into those of tests that list one.
fn of_directory(nodes: &[Node], nth: usize) -> Mtime {
    let mut hash = Sha256::new_with_prefix("directory\0");
    for entry in nodes[nth].entries.iter().map(|at| &nodes[*at]) {
        let name = entry.path.file_name().unwrap_or_default().as_bytes();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        let what = &entry.found;
        hash.update([what.is_dir(), what.is_file(), what.is_symlink()].map(u8::from));
        let link = entry.stamp.filter(|_| what.is_symlink());
        let link = link.unwrap_or_default();
        hash.update(link.seconds.to_le_bytes());
        hash.update(link.nanoseconds.to_le_bytes());
    }
    stamp(hash)
}

/// A hash as a time: 60 bits of it.
fn stamp(hash: Sha256) -> Mtime {
    let hash = hash.finalize();
    let number = |from: usize| u64::from_le_bytes(std::array::from_fn(|nth| hash[from + nth]));
    Mtime {
        seconds: EARLIEST + (number(0) % SPREAD) as i64,
        nanoseconds: (number(8) % 1_000_000_000) as u32,
    }
}
