//! What Nix makes of overlay.nix, module.nix, default.nix and hook.sh, and systemd of the units.
//!
//! The expressions in test/nix/eval each give a set of sentences and whether they are true.

use crate::support::{TempDir, binary};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The Debian suites whose Nix is asked: 2.8, 2.26, and one of this year.
const SUITES: [&str; 3] = ["default", "trixie", "sid"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a command inside test/nix/enter; what it said on stdout.
fn in_nix(suite: &str, command: &Path, args: &[&str]) -> String {
    let output = Command::new(repository("test/nix/enter"))
        .arg(command)
        .args(args)
        .env("NIX_SUITE", suite)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{suite}: {}\n{said}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// All sentences of an expression are true, whichever Nix is asked.
fn all_true(file: &str, attribute: &[&str]) {
    let path = repository("test/nix/eval").join(file);
    for suite in SUITES {
        let mut args = vec![
            "--eval",
            "--read-write-mode",
            "--strict",
            "--json",
            path.to_str().unwrap(),
        ];
        args.extend_from_slice(attribute);
        let json = in_nix(suite, Path::new("nix-instantiate"), &args);
        let sentences: BTreeMap<String, bool> = serde_json::from_str(&json).unwrap();
        assert!(!sentences.is_empty());
        let wrong: Vec<_> = sentences.iter().filter(|(_, holds)| !**holds).collect();
        assert!(wrong.is_empty(), "not so in Nix of {suite}: {wrong:#?}");
    }
}

#[test]
fn the_overlay_fits_builders_of_every_shape() {
    all_true("overlay.nix", &[]);
}

#[test]
fn the_module_says_what_its_options_ask_for() {
    all_true("module.nix", &[]);
}

#[test]
fn the_package_is_built_from_what_its_build_reads() {
    all_true("package.nix", &["-A", "true"]);
}

#[test]
fn the_package_installs_units_that_systemd_accepts() {
    let install = repository("test/nix/eval/install");
    let said = in_nix("default", &install, &[binary().to_str().unwrap()]);
    assert_eq!(said, "", "systemd or the package's layout");
}

#[test]
fn the_setup_hook_works_in_every_builder() {
    // A store of its own, or all would be built already the second time.
    let root = TempDir::new();
    let output = Command::new(repository("test/nix/enter"))
        .arg(repository("test/nix/builders"))
        .arg(binary())
        .env("NIX_ROOT", root.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(
        log.contains("GOCACHEPROG=/gocache/client")
            && log.contains("GOCACHEPROG=/its/own")
            && log.contains("no working client at /nowhere"),
        "{log}"
    );
}

#[test]
fn the_hook_tells_odd_derivations_apart_too() {
    for suite in SUITES {
        let root = TempDir::new();
        let output = Command::new(repository("test/nix/enter"))
            .arg(repository("test/nix/odd"))
            .arg(binary())
            .env("NIX_SUITE", suite)
            .env("NIX_ROOT", root.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.ends_with("all built\n"),
            "{suite}: {said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
