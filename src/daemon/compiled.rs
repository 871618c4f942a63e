//! What a session has compiled, and why: told from the archives that it has put, once it has ended.

use crate::archive::{self, Package};
use crate::cache::builds::BuildDir;
use crate::cache::store::Store;
use crate::daemon::uses::Put;
use crate::id::ActionId;
use crate::report::{BuildRecord, COMPILED_MAX, Cause, Compiled};
use std::collections::HashSet;

/// The most outputs that are looked into for one session.
const LOOKED_INTO_MAX: usize = 4096;

/// Adds the packages that a session has put to what is recorded of its build. `used_before` are the actions that earlier
/// builds of its name have used.
pub fn note(build: &BuildDir, store: &Store, puts: &[Put], used_before: &HashSet<ActionId>) {
    // To open so many files takes a while, during which nobody waits for the record.
    let packages = packages(store, puts, used_before);
    let evicted = puts.iter().filter(|put| is_evicted(put, used_before));
    let evicted = evicted.count() as u64;
    build.note(|record| {
        record.evicted += evicted;
        add(record, packages);
    });
}

/// `go` also puts again what is there still, as what a compiler says of a package: that is no sign of eviction.
fn is_evicted(put: &Put, used_before: &HashSet<ActionId>) -> bool {
    put.is_new && used_before.contains(&put.action)
}

/// The packages in outputs, in this order, and whether each was evicted.
fn packages(store: &Store, puts: &[Put], used_before: &HashSet<ActionId>) -> Vec<(Package, bool)> {
    let looked_into = puts.iter().take(LOOKED_INTO_MAX);
    let package = |put: &Put| {
        let mut file = store.open_output(&put.entry).ok().flatten()?;
        Some((archive::package(&mut file)?, is_evicted(put, used_before)))
    };
    looked_into.filter_map(package).collect()
}

/// Adds packages, each once, that are compiled after those that the record has.
fn add(record: &mut BuildRecord, packages: Vec<(Package, bool)>) {
    let before = record.compiled.iter().map(|of| of.package.clone());
    let mut compiled: HashSet<String> = before.collect();
    for (package, is_evicted) in packages {
        let Package { path, imports } = package;
        if !compiled.insert(path.clone()) {
            continue;
        }
        record.packages += 1;
        if record.compiled.len() >= COMPILED_MAX {
            continue;
        }
        let cause = if is_evicted {
            Cause::Evicted
        } else if imports.iter().any(|import| compiled.contains(import)) {
            Cause::Depends
        } else {
            Cause::Changed
        };
        record.compiled.push(Compiled {
            package: path,
            cause,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(path: &str, imports: &[&str]) -> (Package, bool) {
        let imports = imports.iter().copied().map(String::from).collect();
        (
            Package {
                path: path.into(),
                imports,
            },
            false,
        )
    }

    #[test]
    fn what_imports_something_compiled_depends_on_it_and_the_rest_has_changed() {
        let mut record = BuildRecord::default();
        add(
            &mut record,
            vec![package("m/b", &["fmt"]), package("m/a", &["fmt", "m/b"])],
        );
        // Another command of the same build, with the package compiled for a test.
        add(
            &mut record,
            vec![
                package("m/b", &["fmt"]),
                package("main", &["m/a"]),
                (package("m/x", &[]).0, true),
            ],
        );
        let compiled = record.compiled.iter();
        let compiled: Vec<_> = compiled.map(|of| (of.package.as_str(), of.cause)).collect();
        assert_eq!(
            compiled,
            [
                ("m/b", Cause::Changed),
                ("m/a", Cause::Depends),
                ("main", Cause::Depends),
                ("m/x", Cause::Evicted)
            ]
        );
        assert_eq!(record.packages, 4);
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let mut record = BuildRecord::default();
        let packages = (0..3000).map(|n| package(&format!("m/{n}"), &[]));
        add(&mut record, packages.collect());
        assert_eq!(
            (record.compiled.len(), record.packages),
            (COMPILED_MAX, 3000)
        );
    }
}
