//! The C toolchain: the programs that compile and link, by where they really are, and the files and folders that flags
//! name, since outside of the Nix store these can change and keep their path.

use super::flags;
use super::identity::{Identities, add_state};
use super::record::Record;
use super::variables::Variables;
use crate::client::parts;
use crate::client::programs::{self, NAMED, USUAL, leads_upward};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Lists of folders, divided by colons.
const FOLDERS: [&str; 7] = [
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "LIBRARY_PATH",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
];

/// Where an ordinary host has its headers and libraries. What is installed or upgraded there changes a folder.
const OF_HOST: [&str; 10] = [
    "/usr/include",
    "/usr/include/x86_64-linux-gnu",
    "/usr/include/aarch64-linux-gnu",
    "/usr/local/include",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/lib",
    "/usr/share/pkgconfig",
];

/// Flags that let a compiler start programs, load plugins or read more flags, by what they begin with.
const OF_MORE: [&[u8]; 16] = [
    b"-B",
    b"@",
    b"-Wa,@",
    b"-Wl,@",
    b"-Wp,@",
    b"-fplugin",
    b"-fuse-ld",
    b"-load",
    b"-specs",
    b"-wrapper",
    b"--config",
    b"--gcc-toolchain",
    b"--ld-path",
    b"--prefix",
    b"--specs",
    b"-gcc-toolchain",
];

/// Variables by which the same is done, with paths divided by colons.
const OF_PROGRAMS: [&str; 4] = ["COMPILER_PATH", "GCC_EXEC_PREFIX", "BASH_ENV", "LD_PRELOAD"];

/// Adds the programs and what flags name; `false` if it cannot be told what that leads to. What is in the build's own
/// directory leads further: that is followed by `source_tree`.
pub fn add(record: &mut Record, variables: &Variables, identities: &Identities) -> bool {
    let path = variables.get("PATH").unwrap_or_default();
    let mut is_of_host = false;
    let programs = NAMED.iter().filter_map(|name| variables.get(name));
    let programs = programs.flat_map(|value| programs::unquoted(value.as_bytes()));
    let usual = USUAL.iter().map(|name| name.as_bytes());
    let named = named_by_flags(variables);
    let mut tools = BTreeSet::new();
    for word in programs.chain(usual).collect::<BTreeSet<_>>() {
        let name = String::from_utf8_lossy(word);
        if let Some(program) = programs::find(OsStr::from_bytes(word), path) {
            is_of_host |= !program.starts_with("/nix/store");
            tools.insert(record.word(|record| identities.add_file(record, &name, &program)));
        }
    }
    // Whatever else is started is found there.
    for folder in std::env::split_paths(path).filter(|folder| is_of_build(folder, variables)) {
        record.word(|record| identities.add_folder(record, "PATH", &folder, false));
    }
    // Many of one package are one.
    record.say("C tools", Vec::from_iter(tools).join(" "));
    for name in ["NIX_CC", "NIX_BINTOOLS"] {
        if let Some(wrapper) = variables.get(name) {
            let folder = Path::new(wrapper);
            let word = record.word(|record| identities.add_folder(record, name, folder, true));
            record.say(name, word);
        }
    }
    for path in &named {
        let name = path.to_string_lossy();
        if !identities.is_fixed(path) && path.exists() {
            let word = record.word(|record| identities.add_file(record, &name, path));
            let hash = word.rfind('#').map_or("", |at| &word[at..]);
            record.say(&name, hash.into());
        }
    }
    if is_of_host {
        let word = record.word(|record| {
            for folder in OF_HOST {
                if let Ok(found) = std::fs::metadata(folder) {
                    record.add("of the host", folder);
                    add_state(record, &found);
                }
            }
        });
        record.say(
            "headers and libraries of the host",
            parts::hash(word.as_bytes()),
        );
    }
    !variables
        .iter()
        .any(|(name, value)| leads_anywhere(name.as_bytes(), value.as_bytes(), identities))
}

/// What flags and lists of folders name of this build, as far as it is there.
pub fn led_to(variables: &Variables) -> BTreeSet<PathBuf> {
    let Some(top) = variables.get("NIX_BUILD_TOP").map(Path::new) else {
        return BTreeSet::new();
    };
    let mut found = named_by_flags(variables);
    found.retain(|path| programs::is_of_build(path, top) && path.exists());
    found
}

fn named_by_flags(variables: &Variables) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for (name, value) in variables.iter() {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let is_list =
            FOLDERS.iter().any(|list| list.as_bytes() == name) || name.starts_with(b"PKG_CONFIG_");
        if is_list {
            let folders = value.split(|byte| *byte == b':').map(OsStr::from_bytes);
            found.extend(folders.map(PathBuf::from).filter(|path| path.has_root()));
        } else if has_flags(name) {
            // A path alone behind a program's name is looked at as a program is.
            let words = programs::unquoted(value);
            let words = words.filter(|word| !is_program(name) || !word.starts_with(b"/"));
            found.extend(words.filter_map(flags::path_in));
        }
    }
    found
}

/// Whether a variable has flags for a C compiler or linker, alone or behind the program's name.
fn has_flags(name: &[u8]) -> bool {
    flags::Use::of(name).is_some()
        || name.starts_with(b"NIX_CXXSTDLIB_")
        || (name.starts_with(b"CGO_") && name.ends_with(b"FLAGS"))
        || is_program(name)
}

fn is_program(name: &[u8]) -> bool {
    NAMED.iter().any(|program| program.as_bytes() == name)
}

/// Whether a folder of PATH is this build's own, and neither a module's nor where `go` installs what it builds.
fn is_of_build(folder: &Path, variables: &Variables) -> bool {
    let top = variables.get("NIX_BUILD_TOP").map(Path::new);
    let gopath = variables.get("GOPATH").unwrap_or_default();
    let bins = std::env::split_paths(gopath).map(|gopath| gopath.join("bin"));
    let mut bins = bins.chain(variables.get("GOBIN").map(PathBuf::from));
    top.is_some_and(|top| programs::is_of_build(folder, top))
        && !bins.any(|bin| bin == folder)
        && !folder.join("go.mod").exists()
}

/// Whether a variable leads a compiler out of the folder that it runs in, which is another one for each package, or to more
/// programs and flags of this build, of which nobody knows what they read.
fn leads_anywhere(name: &[u8], value: &[u8], identities: &Identities) -> bool {
    let is_own = |path: &Path| identities.is_own(path) || programs::is_scratch(path);
    if has_flags(name) {
        let words: Vec<_> = programs::unquoted(value).collect();
        return words.iter().enumerate().any(|(nth, word)| {
            let next = words.get(nth + 1).copied().unwrap_or_default();
            leads_upward(word)
                || leads_to_more(word, next).is_some_and(|path| !path.has_root() || is_own(&path))
        });
    }
    let is_one = |lists: &[&str]| lists.iter().any(|list| list.as_bytes() == name);
    let mut paths = value.split(|byte| *byte == b':' || byte.is_ascii_whitespace());
    is_one(&OF_PROGRAMS)
        && paths
            .clone()
            .any(|path| is_own(Path::new(OsStr::from_bytes(path))))
        || (is_one(&FOLDERS) || name.starts_with(b"PKG_CONFIG_")) && paths.any(leads_upward)
}

/// The path in one of the flags that lead to more, or in the word after it.
fn leads_to_more(word: &[u8], next: &[u8]) -> Option<PathBuf> {
    let option = OF_MORE.iter().find(|option| word.starts_with(option))?;
    let rest = &word[option.len()..];
    let path = match rest.strip_prefix(b"=").unwrap_or(rest) {
        b"" => next,
        // A linker by its name, a way to link, and what stands there for a loader.
        rest if option.ends_with(b"-ld") && !rest.contains(&b'/') => return None,
        b"static" | b"dynamic" | b"group" | b"direct" => return None,
        rest if rest.starts_with(b"symbolic") => return None,
        _ if programs::is_for_loader(word) => return None,
        rest => rest,
    };
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::fs::write;
    use std::os::unix::fs::PermissionsExt;

    fn of(dir: &Path, vars: &[(&str, &str)]) -> [u8; 32] {
        let variables = Variables::new(vars.iter().map(|(k, v)| (k.into(), v.into())));
        let mut record = Record::new("test");
        add(
            &mut record,
            &variables,
            &Identities::new(vec![dir.to_path_buf()]),
        );
        record.finish()
    }

    #[test]
    fn a_header_that_a_flag_finds_counts_by_its_bytes() {
        let dir = TestDir::new();
        let top = dir.path().canonicalize().unwrap();
        let include = top.join("include");
        std::fs::create_dir(&include).unwrap();
        let shown = include.to_str().unwrap();
        for (name, value) in [
            ("CPATH", shown.to_string()),
            ("PKG_CONFIG_PATH", format!("/nix/store/a:{shown}")),
            ("NIX_CFLAGS_COMPILE", format!("-isystem {shown}")),
            ("NIX_CFLAGS_COMPILE_FOR_BUILD", format!("-I{shown}")),
            ("CGO_CFLAGS", format!("-O2 -I{shown}")),
            ("CC", format!("gcc -I{shown} -O2")),
            (
                "PKG_CONFIG",
                format!("pkg-config --define-variable=prefix={shown}"),
            ),
        ] {
            write(include.join("v.h"), "#define V 1").unwrap();
            let first = of(&top, &[(name, &value)]);
            assert_eq!(of(&top, &[(name, &value)]), first, "{name}");
            write(include.join("v.h"), "#define V 2").unwrap();
            assert_ne!(of(&top, &[(name, &value)]), first, "{name}");
        }
    }

    #[test]
    fn what_lies_in_a_builds_own_folders_of_path_counts() {
        let dir = TestDir::new();
        let top = dir.path().canonicalize().unwrap();
        let [bin, gopath] = ["bin", "go"].map(|name| top.join(name).to_str().unwrap().to_owned());
        let path = format!("/nix/store/a/bin:{bin}:{gopath}/bin");
        let shown = top.to_str().unwrap();
        let counts = |name: &str| {
            let vars = [
                ("PATH", path.as_str()),
                ("NIX_BUILD_TOP", shown),
                ("GOPATH", &gopath),
            ];
            std::fs::create_dir_all(top.join(name).parent().unwrap()).unwrap();
            write(top.join(name), "1").unwrap();
            let first = of(&top, &vars);
            write(top.join(name), "2").unwrap();
            of(&top, &vars) != first
        };
        assert!(counts("bin/x86_64-unknown-linux-gnu-as"));
        assert!(!counts("go/bin/tool") && !counts("other/as"));
        write(top.join("bin/go.mod"), "").unwrap();
        assert!(!counts("bin/README.md"));
    }

    #[test]
    fn what_could_lead_anywhere_shares_nothing() {
        let shares = |name: &str, value: &str| {
            let variables = Variables::new([(name.into(), value.into())].into_iter());
            let identities = Identities::new(vec!["/build".into()]);
            add(&mut Record::new("test"), &variables, &identities)
        };
        assert!(shares(
            "CGO_CFLAGS",
            "-O2 -I/nix/store/a/../b -Iinclude -L/build/b"
        ));
        assert!(shares("OTHER", "-I../b") && shares("CPATH", "/build/include:include"));
        assert!(shares(
            "NIX_CFLAGS_COMPILE",
            "-B/nix/store/a/lib -B/opt/lib"
        ));
        for (name, value) in [
            ("CGO_LDFLAGS", "-Wl,-Bstatic -Bsymbolic /build/lib/libx.a"),
            (
                "CGO_LDFLAGS",
                "-fuse-ld=lld -L/build/lib -rpath @loader_path/../lib",
            ),
            (
                "CGO_LDFLAGS",
                "-Wl,-rpath,$ORIGIN/../lib -Wl,-rpath=${ORIGIN}/..",
            ),
            (
                "NIX_CFLAGS_COMPILE",
                "-B/nix/store/a/lib -fmacro-prefix-map=/build/a=.",
            ),
        ] {
            assert!(shares(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("CGO_CFLAGS", "-O2 -I../b"),
            ("CGO_CFLAGS", "-I./../b"),
            ("CGO_CFLAGS", "-Isub/../../b"),
            ("CGO_LDFLAGS", "-Wl,@flags"),
            ("CGO_LDFLAGS", "-B./wrap"),
            ("LD_PRELOAD", "/nix/store/a.so /build/b.so"),
            ("NIX_CFLAGS_COMPILE", "-isystem ../b/include"),
            ("CC", "gcc -L.."),
            ("CPATH", "/nix/store/a:../include"),
            ("PKG_CONFIG_PATH", "../lib/pkgconfig"),
            ("CGO_LDFLAGS", "-B/build/wrap"),
            ("CGO_LDFLAGS", "-B /build/wrap"),
            ("CGO_LDFLAGS", "-O2 @/build/flags"),
            ("CGO_CFLAGS", "@flags/all"),
            ("CGO_CFLAGS", "'-specs=x'"),
            ("CC", "gcc -specs=/build/specs"),
            ("COMPILER_PATH", "/nix/store/a:/build/b"),
            ("BASH_ENV", "/build/env"),
        ] {
            assert!(!shares(name, value), "{name}={value}");
        }
    }

    #[test]
    fn what_cc_names_and_what_path_finds_counts_by_what_it_does() {
        let dir = TestDir::new();
        let top = dir.path().canonicalize().unwrap();
        let program = |text: &str| {
            write(top.join("gcc"), text).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(top.join("gcc"), mode).unwrap();
            let by_path = of(&top, &[("PATH", top.to_str().unwrap())]);
            let by_name = of(&top, &[("CC", top.join("gcc").to_str().unwrap())]);
            [by_path, by_name]
        };
        let first = program("#!/bin/sh\ncc -DV=1");
        assert_eq!(program("#!/bin/sh\ncc -DV=1"), first);
        let second = program("#!/bin/sh\ncc -DV=2");
        assert_ne!(second[0], first[0]);
        assert_ne!(second[1], first[1]);
    }
}
