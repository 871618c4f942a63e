//! The programs of a C toolchain, by the names that `go`, a compiler and pkg-config start them by.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Variables that name a program, with arguments perhaps.
pub const NAMED: [&str; 14] = [
    "CC",
    "CXX",
    "FC",
    "AR",
    "AS",
    "LD",
    "NM",
    "RANLIB",
    "STRIP",
    "OBJCOPY",
    "GCCGO",
    "PKG_CONFIG",
    "SWIG",
    "CC_FOR_TARGET",
];

/// What `go` and a compiler start without being told where it is.
pub const USUAL: [&str; 20] = [
    "gcc",
    "g++",
    "clang",
    "clang++",
    "cc",
    "c++",
    "gfortran",
    "ld",
    "ld.bfd",
    "ld.gold",
    "ld.lld",
    "ld.mold",
    "mold",
    "as",
    "ar",
    "objcopy",
    "pkg-config",
    "pkgconf",
    "swig",
    "gccgo",
];

/// Options that a path can stand right behind.
pub const OPTIONS: [&[u8]; 10] = [
    b"-I",
    b"-L",
    b"-B",
    b"@",
    b"-idirafter",
    b"-imacros",
    b"-include",
    b"-iquote",
    b"-isysroot",
    b"-isystem",
];

/// Where a build can write beside its own directory. In Nix's sandbox these have the same paths in every build, too.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// What is divided by blanks.
pub fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// The same without quotes around the words.
pub fn unquoted(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_quote = |byte: &u8| b"\"'".contains(byte);
    words(value).map(move |word| {
        let begin = word.iter().take_while(|byte| is_quote(byte)).count();
        let end = word[begin..].iter().rev().take_while(|byte| is_quote(byte));
        &word[begin..word.len() - end.count()]
    })
}

/// What stands in paths for a place that only a loader knows, when the program runs.
const OF_LOADER: [&[u8]; 5] = [
    b"$ORIGIN",
    b"${ORIGIN}",
    b"@loader_path",
    b"@executable_path",
    b"@rpath",
];

/// Whether a word has a path that no compiler looks at.
pub fn is_for_loader(word: &[u8]) -> bool {
    let mut names = OF_LOADER.iter();
    names.any(|name| memchr::memmem::find(word, name).is_some())
}

/// Whether a flag, or a folder of a list, leads upward from the folder that the compiler runs in, which is another one for each
/// package.
pub fn leads_upward(word: &[u8]) -> bool {
    let at = word.iter().position(|byte| *byte == b'/');
    let (before, rest) = word.split_at(at.unwrap_or(word.len()));
    let is_absolute = before.is_empty()
        || before.ends_with(b",")
        || before.ends_with(b"=")
        || OPTIONS.contains(&before);
    let has_up = || rest.split(|byte| *byte == b'/').any(|part| part == b"..");
    (before.ends_with(b"..") || !is_absolute && has_up()) && !is_for_loader(word)
}

/// Whether a path is where a build of Nix keeps what it makes; `top` is the build's own directory.
pub fn is_of_build(path: &Path, top: &Path) -> bool {
    path.starts_with(top) || is_scratch(path)
}

/// Whether any build can write there.
pub fn is_scratch(path: &Path) -> bool {
    SCRATCH.iter().any(|folder| path.starts_with(folder))
}

/// A program by its name, as a shell finds it.
pub fn find(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let is_program = |path: &PathBuf| {
        let found = path.metadata();
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(is_program)
}

/// The programs that a build has made or unpacked, by their real paths; `top` is its own directory. What
/// hides one in another folder of PATH is not looked for.
pub fn of_build(top: &Path, get: impl Fn(&str) -> Option<OsString>) -> BTreeSet<PathBuf> {
    let real_top = top.canonicalize().unwrap_or_else(|_| top.to_path_buf());
    let path = get("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path)
        .filter(|folder| is_of_build(folder, top) || is_of_build(folder, &real_top))
        .collect();
    let named: Vec<OsString> = NAMED.iter().filter_map(|name| get(name)).collect();
    let words = named.iter().flat_map(|value| unquoted(value.as_bytes()));
    let mut found = BTreeSet::new();
    for word in words.chain(USUAL.iter().map(|name| name.as_bytes())) {
        let name = OsStr::from_bytes(word);
        let programs = match word.contains(&b'/') {
            true => vec![PathBuf::from(name)],
            false => folders.iter().map(|folder| folder.join(name)).collect(),
        };
        for program in programs {
            // A link to a program of the store's is that one.
            if let Ok(real) = program.canonicalize()
                && is_of_build(&real, &real_top)
                && real.is_file()
            {
                found.insert(real);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_program_is_of_the_build_wherever_a_link_to_it_is() {
        let dir = TestDir::new();
        let top = dir.path().canonicalize().unwrap();
        assert!(is_of_build(Path::new("/tmp/cc"), &top) && !is_of_build(Path::new("/tmpl"), &top));
        for folder in ["sdk", "bin"] {
            std::fs::create_dir(top.join(folder)).unwrap();
        }
        std::fs::copy("/bin/sh", top.join("sdk/clang")).unwrap();
        symlink("../sdk/clang", top.join("bin/cc")).unwrap();
        symlink("/bin/sh", top.join("bin/ld")).unwrap();
        let bin = top.join("bin");
        let of = |name: &str, value: OsString| {
            let get = |asked: &str| (asked == name).then(|| value.clone());
            Vec::from_iter(of_build(&top, get))
        };
        assert_eq!(of("PATH", bin.clone().into()), [top.join("sdk/clang")]);
        let upward = bin.join("../sdk/clang");
        let quoted = format!("ccache '{}' -O2", upward.display());
        assert_eq!(of("CC", quoted.into()), [top.join("sdk/clang")]);
        assert!(of("CC", bin.join("ld").into()).is_empty());
        assert!(of("PATH", "/bin".into()).is_empty());
    }
}
