//! Times that say content: while `go` runs, the mtime of each file of a source tree is a function of its bytes.
//!
//! `go` knows the files that a test has read, and the files of a package, by name, size and mtime. In a Nix build all
//! mtimes are the same, or new in each build. With stamps, equal content has equal times in every build, and other
//! content has other ones, so test results and module indexes are right, and can be shared.
//!
//! Nothing but mtimes is ever changed, and [`restore`] puts each back that nobody has changed since.

mod table;
mod tree;

use crate::error::{Error, Result};
use crate::{fs, log};
use std::path::{Path, PathBuf};
use table::Row;

/// What to do with a tree's times.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Give each file below this directory its stamp.
    Set(PathBuf),
    /// Put the times back.
    Restore,
}

/// A task, and the file that remembers the times as they were.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the table is. Nobody but this build may be able to write it.
    pub table: PathBuf,
    /// What to do.
    pub task: Task,
}

/// Does it. When it fails, all times are as they were.
pub fn run(options: &Options) -> Result<()> {
    let changed = match &options.task {
        Task::Set(root) => set(root, &options.table)?,
        Task::Restore => restore(&options.table)?,
    };
    log::debug(|| format!("{changed} times changed"));
    Ok(())
}

/// Stamps all of a tree. Fails, and leaves the times alone, where they could not say what a file holds: a symbolic link
/// leads out of the tree, a file cannot be read, or the file system cuts times short; and where C compiles them in.
fn set(root: &Path, table: &Path) -> Result<usize> {
    let root = fs::canonicalize(root)?;
    let known = table::read(table).unwrap_or_default();
    let rows = tree::stamps(&root, known)?;
    // First, so that nothing is lost if this process ends in the middle.
    table::write(table, &rows)?;
    let done = rows.iter().try_for_each(|row| {
        let found = fs::symlink_metadata(&row.path)?;
        // Another name of a file that has its stamp already needs nothing.
        if !row.is_as_before(&found) && !row.is_stamped(&found) {
            return Err(Error::input(format!(
                "{} changed while it was read",
                row.path.display()
            )));
        }
        fs::set_mtime(&row.path, row.stamp)
    });
    let done = done.and_then(|()| rows.first().map_or(Ok(()), is_kept));
    if done.is_err() {
        // The first error says more than a second one.
        let _ = restore(table);
    }
    done.map(|()| rows.len())
}

/// Whether the file system keeps a stamp whole: some have seconds only.
fn is_kept(row: &Row) -> Result<()> {
    if row.is_stamped(&fs::symlink_metadata(&row.path)?) {
        Ok(())
    } else {
        Err(Error::input(format!(
            "the file system truncates the mtime of {}",
            row.path.display()
        )))
    }
}

/// Puts the times back of all that has its stamp still, and notes in the table what lets the next [`set`] believe that
/// nothing has changed since.
fn restore(path: &Path) -> Result<usize> {
    let mut rows = table::read(path)?;
    let mut changed = 0;
    for row in &mut rows {
        // What is gone, or was written since, keeps its own time.
        let Ok(found) = fs::symlink_metadata(&row.path) else {
            continue;
        };
        if !row.is_stamped(&found) {
            continue;
        }
        fs::set_mtime(&row.path, row.before)?;
        row.note(&fs::symlink_metadata(&row.path)?);
        changed += 1;
    }
    table::write(path, &rows)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Mtime;
    use crate::test_dir::TestDir;
    use std::collections::BTreeMap;
    use std::fs as std_fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    struct Tree(TestDir);

    impl Tree {
        /// A tree whose times are all 1, as in the store.
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Tree(TestDir::new());
            for (name, text) in files {
                let path = tree.path(name);
                std_fs::create_dir_all(path.parent().unwrap()).unwrap();
                std_fs::write(path, text).unwrap();
            }
            tree.age();
            tree
        }

        fn root(&self) -> PathBuf {
            self.0.path().join("source")
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root().join(name)
        }

        fn table(&self) -> PathBuf {
            self.0.path().join("times")
        }

        fn age(&self) {
            for path in self.times().keys() {
                fs::set_mtime(
                    path,
                    Mtime {
                        seconds: 1,
                        nanoseconds: 0,
                    },
                )
                .unwrap();
            }
        }

        fn set(&self) -> Result<usize> {
            set(&self.root(), &self.table())
        }

        /// The mtime of each entry, the root included.
        fn times(&self) -> BTreeMap<PathBuf, (i64, i64)> {
            let mut found = BTreeMap::new();
            let mut left = vec![self.root()];
            while let Some(path) = left.pop() {
                let about = std_fs::symlink_metadata(&path).unwrap();
                if about.is_dir() {
                    left.extend(
                        std_fs::read_dir(&path)
                            .unwrap()
                            .map(|entry| entry.unwrap().path()),
                    );
                }
                found.insert(path, (about.mtime(), about.mtime_nsec()));
            }
            found
        }

        fn time(&self, name: &str) -> (i64, i64) {
            self.times()[&self.path(name)]
        }
    }

    #[test]
    fn a_time_is_a_function_of_the_bytes_alone() {
        let one = Tree::new(&[("a", "same"), ("b/c", "same"), ("d", "emas")]);
        let two = Tree::new(&[("x/y", "same")]);
        one.set().unwrap();
        two.set().unwrap();
        assert_eq!(one.time("a"), one.time("b/c"));
        assert_eq!(one.time("a"), two.time("x/y"));
        assert_ne!(one.time("a"), one.time("d"));
        let (seconds, nanoseconds) = one.time("a");
        assert!(
            (315_532_800..1_500_000_000).contains(&seconds),
            "long ago: {seconds}"
        );
        assert_ne!(nanoseconds, 0);
    }

    #[test]
    fn a_directory_changes_with_what_it_lists_and_not_with_what_that_holds() {
        let of = |files| {
            let tree = Tree::new(files);
            tree.set().unwrap();
            (tree.time(""), tree.time("d"))
        };
        let before = of(&[("d/e/f", "1"), ("d/g", "1")]);
        assert_eq!(before, of(&[("d/e/f", "1"), ("d/g", "1")]));
        assert_eq!(before, of(&[("d/e/f", "2"), ("d/g", "1")]), "deeper");
        assert_eq!(
            before,
            of(&[("d/e/f", "1"), ("d/g", "2")]),
            "a file's content"
        );
        assert_ne!(
            before.1,
            of(&[("d/e/f", "1"), ("d/h", "1")]).1,
            "a file's name"
        );
        assert_ne!(
            before.1,
            of(&[("d/h/f", "1"), ("d/g", "1")]).1,
            "a folder's name"
        );
        assert_ne!(
            before.1,
            of(&[("d/e/f", "1"), ("d/g/f", "1")]).1,
            "a folder in a file's place"
        );
        let of_link = |target| {
            let tree = Tree::new(&[("a", "1"), ("b", "1")]);
            symlink(target, tree.path("link")).unwrap();
            tree.set().unwrap();
            tree.time("")
        };
        assert_eq!(of_link("a"), of_link("a"));
        assert_ne!(of_link("a"), of_link("b"), "where a link leads");
    }

    #[test]
    fn all_times_come_back_but_those_of_what_was_written_since() {
        let tree = Tree::new(&[("a", "1"), ("d/b", "2"), ("d/c", "3"), ("gone", "4")]);
        symlink("d/b", tree.path("link")).unwrap();
        tree.age();
        let before = tree.times();
        tree.set().unwrap();
        assert!(tree.times().values().all(|time| *time != (1, 0)));
        restore(&tree.table()).unwrap();
        assert_eq!(tree.times(), before);

        tree.set().unwrap();
        std_fs::write(tree.path("a"), "5").unwrap();
        std_fs::write(tree.path("d/new"), "6").unwrap();
        std_fs::remove_file(tree.path("gone")).unwrap();
        let written = [tree.time("a"), tree.time("d"), tree.time("d/new")];
        restore(&tree.table()).unwrap();
        assert_eq!(
            [tree.time("a"), tree.time("d"), tree.time("d/new")],
            written
        );
        for name in ["d/b", "d/c", "link"] {
            assert_eq!(tree.time(name), (1, 0), "{name}");
        }
    }

    #[test]
    fn a_tree_that_is_stamped_twice_gets_its_first_times_back() {
        let tree = Tree::new(&[("a", "1"), ("d/b", "2")]);
        std_fs::hard_link(tree.path("a"), tree.path("d/c")).unwrap();
        tree.age();
        let before = tree.times();
        tree.set().unwrap();
        let stamped = tree.times();
        tree.set().unwrap();
        assert_eq!(tree.times(), stamped);
        restore(&tree.table()).unwrap();
        assert_eq!(tree.times(), before);
    }

    #[test]
    fn what_was_stamped_before_is_read_again_only_if_it_has_changed() {
        let tree = Tree::new(&[("a", "1"), ("b", "2")]);
        tree.set().unwrap();
        let first = tree.times();
        restore(&tree.table()).unwrap();
        // Content that nobody looked at: the table is believed, since only a time can tell, and it says the same.
        let mut rows = table::read(&tree.table()).unwrap();
        let wrong = Mtime {
            seconds: 1_000_000_000,
            nanoseconds: 7,
        };
        rows.iter_mut()
            .find(|row| row.path.ends_with("a"))
            .unwrap()
            .stamp = wrong;
        table::write(&tree.table(), &rows).unwrap();
        tree.set().unwrap();
        assert_eq!(tree.time("a"), (1_000_000_000, 7));
        restore(&tree.table()).unwrap();
        // A change that keeps size and mtime.
        std_fs::write(tree.path("a"), "3").unwrap();
        fs::set_mtime(
            &tree.path("a"),
            Mtime {
                seconds: 1,
                nanoseconds: 0,
            },
        )
        .unwrap();
        tree.set().unwrap();
        assert_ne!(tree.time("a"), (1_000_000_000, 7));
        assert_ne!(tree.time("a"), first[&tree.path("a")]);
        assert_eq!(tree.time("b"), first[&tree.path("b")]);
    }

    #[test]
    fn a_tree_whose_times_cannot_say_its_content_is_left_alone() {
        let outside = Tree::new(&[("x", "1")]);
        for target in [outside.path("x"), outside.root(), PathBuf::from("../times")] {
            let tree = Tree::new(&[("a", "1"), ("d/e", "1")]);
            std_fs::write(tree.table(), "").unwrap();
            symlink(&target, tree.path("link")).unwrap();
            tree.age();
            let before = tree.times();
            let error = tree.set().unwrap_err().to_string();
            assert!(error.contains("link"), "{error}");
            assert_eq!(tree.times(), before);
            assert_eq!(outside.time("x"), (1, 0));
        }
        assert!(set(&outside.path("missing"), &outside.table()).is_err());
        assert!(restore(&outside.path("missing")).is_err());
    }

    #[test]
    fn a_tree_whose_times_c_compiles_in_is_left_alone() {
        let text = format!(
            "{}char *time = __TIMESTAMP__;",
            " ".repeat((128 << 10) - 16)
        );
        for (name, is_stamped) in [
            ("a.c", false),
            ("deep/a.inc", false),
            ("a.txt", true),
            ("a.go", true),
        ] {
            let tree = Tree::new(&[("b", "1"), (name, &text)]);
            tree.age();
            let before = tree.times();
            assert_eq!(tree.set().is_ok(), is_stamped, "{name}");
            assert_eq!(tree.times() != before, is_stamped, "{name}");
        }
    }

    #[test]
    fn links_within_the_tree_and_to_nowhere_have_times_of_their_own() {
        let tree = Tree::new(&[("d/a", "1"), ("b", "2")]);
        symlink("../b", tree.path("d/in")).unwrap();
        symlink("nowhere", tree.path("dangling")).unwrap();
        symlink(tree.path("d"), tree.path("absolute")).unwrap();
        tree.age();
        tree.set().unwrap();
        let times = ["d/in", "dangling", "absolute", "b"].map(|name| tree.time(name));
        for (nth, time) in times.iter().enumerate() {
            assert!(!times[..nth].contains(time) && *time != (1, 0), "{times:?}");
        }
    }

    #[test]
    fn a_large_tree_is_stamped_by_all_threads_alike() {
        let names: Vec<_> = (0..700)
            .map(|n| (format!("d{}/f{n}", n % 7), n.to_string()))
            .collect();
        let files: Vec<_> = names
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let (one, two) = (Tree::new(&files), Tree::new(&files));
        assert_eq!(one.set().unwrap(), 708);
        two.set().unwrap();
        let times = |tree: &Tree| tree.times().into_values().collect::<Vec<_>>();
        assert_eq!(times(&one), times(&two));
    }
}
