//! A proxy without a daemon.

use super::*;

#[test]
fn without_a_daemon_a_build_goes_uncached_and_a_team_has_a_cache_of_its_own() {
    let upstream = Upstream::start(module);
    let nowhere = TempDir::new();
    let start = |in_build: bool| {
        Proxy::start_with(&upstream.url, |command| {
            command.arg("--runtime-dir").arg(nowhere.path());
            command.env("XDG_CACHE_HOME", nowhere.path().join("cache"));
            if in_build {
                command.args(["--build", &std::process::id().to_string()]);
            }
        })
    };
    let build = start(true);
    for asked in 1..=2 {
        assert_eq!(build.get(ZIP).body, file(ZIP).unwrap());
        assert_eq!(upstream.count(ZIP), asked);
    }
    assert_eq!(build.log().matches("modules are not cached").count(), 1);
    let mut team = start(false);
    for _ in 0..2 {
        assert_eq!(team.get(ZIP).body, file(ZIP).unwrap());
        assert_eq!(upstream.count(ZIP), 3);
    }
    assert_eq!(team.log().matches("a standalone cache").count(), 1);
    // The same directory for two of them is one too many.
    let second = start(false);
    for asked in 4..=5 {
        assert_eq!(second.get(ZIP).body, file(ZIP).unwrap());
        assert_eq!(upstream.count(ZIP), asked);
    }
    assert_eq!(
        second.log().matches("modules will not be cached").count(),
        1
    );
    assert!(second.log().contains("--cache-dir"), "{}", second.log());
    assert_eq!(team.end("upstream"), 1);
    let mut later = start(false);
    assert_eq!(later.get(ZIP).body, file(ZIP).unwrap());
    assert_eq!(later.end("upstream"), 0);
    // No session is left, so the output has one name.
    let links = nowhere.path().join("cache/nix-gocacheprog/modules/links");
    assert_eq!(std::fs::read_dir(links).unwrap().count(), 0);
}

#[test]
fn a_cache_of_its_own_stays_within_its_limits_while_it_is_used() {
    let version = |n: usize| format!("/example.test/m/@v/v1.{n}.0.zip");
    let zip = |path: &str| {
        let (_, name) = path.rsplit_once('/').unwrap();
        crate::upstream::zip("example.test/m", name.strip_suffix(".zip").unwrap())
    };
    let upstream = Upstream::start(move |asked, to| reply(to, "200 OK", "", &zip(asked.path)));
    let dir = TempDir::new();
    let cache = dir.path().join("cache");
    let mut proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(dir.path());
        command.arg("--cache-dir").arg(&cache);
        command.args(["--max-size", "2M"]);
    });
    for n in 0..50 {
        assert_eq!(proxy.get(&version(n)).body, zip(&version(n)));
    }
    // What a sweep that is running has not seen is for the next one.
    wait_until("the sweep is over", || {
        size_of(&cache.join("outputs")) <= 2 << 20
    });
    assert_eq!(proxy.end("upstream"), 50);
    // One that evicts nothing, to see what is left.
    let mut proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(dir.path());
        command.arg("--cache-dir").arg(&cache);
    });
    for n in 0..50 {
        assert_eq!(proxy.get(&version(n)).body, zip(&version(n)));
    }
    let left = proxy.end("cached");
    assert!((1..=10).contains(&left), "{left} of 200 KB each in 2 MB");
}

/// The size of all files below a directory, in bytes.
fn size_of(directory: &Path) -> u64 {
    let mut size = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        size += match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => size_of(&path),
            Ok(metadata) => metadata.len(),
            // Evicted just now.
            Err(_) => 0,
        };
    }
    size
}
