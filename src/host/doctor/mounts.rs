//! What /proc/self/mounts says about the file system that a path is on.

use std::path::Path;

/// A file system as it is mounted.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// Where.
    pub point: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// The one that a path is on.
    pub fn of(mounts: &'a str, path: &Path) -> Option<Self> {
        let found = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ');
            let point = fields.nth(1)?;
            let options = fields.nth(1)?;
            path.starts_with(point).then_some(Self { point, options })
        });
        // Of two on the same path the later hides the earlier.
        found.max_by_key(|mount| mount.point.len())
    }

    /// Whether each read of a file writes its access time.
    pub fn writes_access_times(&self) -> bool {
        !self
            .options
            .split(',')
            .any(|option| ["relatime", "noatime", "ro"].contains(&option))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_a_path_is_on_is_the_innermost() {
        let mounts =
            "/dev/a / ext4 rw,relatime 0 0\n/dev/b /var ext4 rw 0 0\n/dev/c /va xfs ro 0 0\n";
        let mount = Mount::of(mounts, Path::new("/var/cache/x")).unwrap();
        assert!(mount.writes_access_times(), "{mount:?}");
        assert_eq!(mount.point, "/var");
        let mount = Mount::of(mounts, Path::new("/home")).unwrap();
        assert!(!mount.writes_access_times());
    }
}
