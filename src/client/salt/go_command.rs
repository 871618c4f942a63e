//! The `go` command that has started this client: which Go it is, and with which flags it runs.

use super::identity::{Identities, add_state};
use super::record::Record;
use super::variables::Variables;
use crate::client::go_flags::Flags;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// The tools that `go` knows by their version alone, if they are of a release (`toolID` in cmd/go/internal/work/buildid.go).
const TOOLS: [&str; 8] = [
    "asm",
    "buildid",
    "cgo",
    "compile",
    "cover",
    "link",
    "preprofile",
    "vet",
];

/// Flags of `go` that change what is compiled, besides those below.
const FLAGS: [&str; 7] = [
    "a",
    "asan",
    "cover",
    "linkshared",
    "msan",
    "race",
    "trimpath",
];

/// The same, with a value each. Those that only a linker hears are not among them.
const FLAGS_WITH_VALUE: [&str; 13] = [
    "asmflags",
    "buildmode",
    "compiler",
    "covermode",
    "coverpkg",
    "gccgoflags",
    "gcflags",
    "installsuffix",
    "mod",
    "modfile",
    "overlay",
    "pgo",
    "tags",
];

/// A `go` command.
#[derive(Debug)]
pub struct GoCommand {
    /// Its executable: `go` itself, or what runs it.
    exe: PathBuf,
    /// Its command line.
    words: Vec<OsString>,
    /// All of its flags.
    flags: Flags,
}

impl GoCommand {
    /// The command that this process was started by; `None` when it cannot be looked at.
    pub fn of_parent(variables: &Variables) -> Option<Self> {
        let proc = format!("/proc/{}", std::os::unix::process::parent_id());
        let exe = std::fs::read_link(format!("{proc}/exe")).ok()?;
        let line = std::fs::read(format!("{proc}/cmdline")).ok()?;
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        let words = line.split(|byte| *byte == 0);
        let words = words.map(|word| OsString::from_vec(word.to_vec()));
        Some(Self::new(exe, words.collect(), variables))
    }

    pub(super) fn new(exe: PathBuf, words: Vec<OsString>, variables: &Variables) -> Self {
        let flags = Flags::new(variables.get("GOFLAGS").unwrap_or_default(), &words);
        Self { exe, words, flags }
    }

    /// Its executable.
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// Its command line.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }

    /// Whether it runs tests.
    pub fn is_test(&self) -> bool {
        self.words.iter().skip(1).any(|word| word == "test")
    }

    /// The values of a flag, wherever it is given.
    pub fn values(&self, flag: &str) -> Vec<&OsStr> {
        self.flags.values(flag)
    }

    /// The flags that say what `go` compiles and how, of which it hashes what they come to.
    pub fn said_flags(&self) -> String {
        let mut said = BTreeSet::new();
        for (name, value) in self.flags.given(&FLAGS_WITH_VALUE) {
            let name = name.to_string_lossy();
            let value = value.unwrap_or_default().to_string_lossy();
            if FLAGS_WITH_VALUE.contains(&&*name) && !value.is_empty() {
                let value = value.replace(char::is_whitespace, ",");
                said.insert(format!("-{name}={value}"));
            } else if FLAGS.contains(&&*name) && value.is_empty() {
                said.insert(format!("-{name}"));
            } else if FLAGS.contains(&&*name) {
                said.insert(format!("-{name}={value}"));
            }
        }
        Vec::from_iter(said).join(" ")
    }

    /// Whether a package is of this Go's standard library, as `go` finds it there before anywhere else (`IsStandardPackage`
    /// in internal/goroot), unless the command builds that library itself in this folder.
    pub fn has_standard(
        &self,
        package: &str,
        variables: &Variables,
        folder: Option<&Path>,
    ) -> bool {
        let Some(root) = self
            .goroot(variables)
            .and_then(|root| root.canonicalize().ok())
        else {
            return false;
        };
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let is_go = |path: PathBuf| path.extension().is_some_and(|extension| extension == "go");
        let has_go = |folder: PathBuf| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).any(is_go)
        };
        let is_elsewhere = folder
            .and_then(|folder| folder.canonicalize().ok())
            .is_some_and(|folder| !folder.starts_with(&root));
        is_elsewhere
            && Path::new(package).components().all(is_plain)
            && has_go(root.join("src").join(package))
    }

    fn goroot<'a>(&'a self, variables: &'a Variables) -> Option<&'a Path> {
        told_goroot(variables).or_else(|| self.exe.parent().and_then(Path::parent))
    }

    /// Adds which Go this is: its executable and its GOROOT, and if the executable is not `go`, what it runs.
    pub fn add_go(&self, record: &mut Record, identities: &Identities, variables: &Variables) {
        let go = record.word(|record| self.add_all_of_go(record, identities, variables));
        record.say("go", go);
    }

    fn add_all_of_go(&self, record: &mut Record, identities: &Identities, variables: &Variables) {
        add_program(record, identities, "go", &self.exe);
        if let Some(root) = self.goroot(variables) {
            add_goroot(record, identities, root);
        }
        let is_go = self.exe.file_name().is_some_and(|name| name == "go");
        if !is_go {
            // An emulator, a loader: what it runs is among its arguments, and what follows `go` is for that.
            for word in self.words.iter().take(6) {
                let path = Path::new(word);
                if path.has_root() && path.is_file() {
                    add_program(record, identities, "runs", path);
                    if path.file_name() == Some(OsStr::new("go")) {
                        break;
                    }
                } else if told_goroot(variables).is_none() {
                    record.add("word", word.as_bytes());
                }
            }
        }
    }
}

/// `go` sets it for what it starts.
fn told_goroot(variables: &Variables) -> Option<&Path> {
    let root = variables.get("GOROOT").filter(|root| !root.is_empty());
    root.map(Path::new)
}

fn add_goroot(record: &mut Record, identities: &Identities, root: &Path) {
    let root = &root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    record.add("GOROOT", root.as_os_str().as_bytes());
    if identities.is_fixed(root) {
        return;
    }
    for file in ["VERSION", "go.env", "bin/go"] {
        add_program(record, identities, file, &root.join(file));
    }
    let Ok(platforms) = std::fs::read_dir(root.join("pkg/tool")) else {
        return;
    };
    let mut platforms: Vec<_> = platforms.flatten().map(|entry| entry.path()).collect();
    platforms.sort_unstable();
    for platform in platforms {
        for tool in TOOLS {
            add_program(record, identities, tool, &platform.join(tool));
        }
    }
}

/// Adds a program of Go's: a path, and outside of the store what changes when it does.
fn add_program(record: &mut Record, identities: &Identities, name: &str, path: &Path) {
    let real = path.canonicalize();
    let real = real.as_deref().unwrap_or(path);
    record.add(name, real.as_os_str().as_bytes());
    if !identities.is_fixed(real) {
        match real.metadata() {
            Ok(found) => add_state(record, &found),
            Err(e) => record.add_failure(name, real, &e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn command(exe: &str, line: &str, vars: &[(&str, &str)]) -> (GoCommand, Variables) {
        let variables = Variables::new(vars.iter().map(|(k, v)| (k.into(), v.into())));
        let words = line.split(' ').map(OsString::from).collect();
        (GoCommand::new(exe.into(), words, &variables), variables)
    }

    #[test]
    fn a_package_of_the_standard_library_is_one_that_go_finds_there() {
        let dir = TestDir::new();
        let root = dir.path().join("go");
        for file in [
            "src/runtime/asm.s",
            "src/runtime/proc.go",
            "src/go/ast/ast.go",
        ] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let exe = root.join("bin/go");
        let (command, variables) = command(exe.to_str().unwrap(), "go build", &[]);
        let has = |package, folder| command.has_standard(package, &variables, folder);
        let elsewhere = Some(dir.path());
        assert!(has("runtime", elsewhere) && has("go/ast", elsewhere));
        for package in ["go", "main", "", "../src/runtime", "/runtime", "runtime/x"] {
            assert!(!has(package, elsewhere), "{package}");
        }
        assert!(!has("runtime", None) && !has("runtime", Some(&root.join("src"))));
    }

    fn go(exe: &str, line: &str, vars: &[(&str, &str)]) -> [u8; 32] {
        let (command, variables) = command(exe, line, vars);
        let mut record = Record::new("test");
        command.add_go(&mut record, &Identities::default(), &variables);
        record.finish()
    }

    #[test]
    fn flags_are_found_wherever_and_however_they_are_given() {
        let (found, _) = command(
            "/go",
            "go build -tags a,b --tags=c -tagsy=no -o x .",
            &[("GOFLAGS", "-trimpath '-tags=d e' -toolexec=/bin/x")],
        );
        let words: Vec<_> = ["d e", "a,b", "c"].map(OsStr::new).into();
        assert_eq!(found.values("tags"), words);
        assert_eq!(found.values("toolexec"), [OsStr::new("/bin/x")]);
        assert!(found.values("overlay").is_empty());
        assert!(!found.is_test());
        assert!(command("/go", "go -C x test ./...", &[]).0.is_test());
    }

    #[test]
    fn flags_that_change_what_is_compiled_are_said() {
        let said = |line: &str| {
            command("/go", line, &[("GOFLAGS", "-trimpath -tags=b")])
                .0
                .said_flags()
        };
        assert_eq!(said("go build -o x ."), "-tags=b -trimpath");
        assert_eq!(
            said("go test -v -race -tags a,b --gcflags all=-N -ldflags -X=a=b -run race ./race"),
            "-gcflags=all=-N -race -tags=a,b -tags=b -trimpath"
        );
    }

    #[test]
    fn another_package_of_the_same_go_is_another_go() {
        let store = |package: &str| go(&format!("/nix/store/{package}/bin/go"), "go build", &[]);
        assert_ne!(store("a-go-1.27.3"), store("b-go-1.27.3"));
        assert_eq!(store("a-go-1.27.3"), store("a-go-1.27.3"));
        let in_root = |root: &str| go("/nix/store/a/bin/go", "go build", &[("GOROOT", root)]);
        assert_ne!(in_root("/nix/store/a"), in_root("/nix/store/b"));
    }

    #[test]
    fn a_tool_that_was_replaced_makes_another_go() {
        let dir = TestDir::new();
        let tools = dir.path().join("pkg/tool/linux_amd64");
        std::fs::create_dir_all(&tools).unwrap();
        let of = || {
            go(
                "/usr/bin/go",
                "go build",
                &[("GOROOT", dir.path().to_str().unwrap())],
            )
        };
        let before = of();
        assert_eq!(of(), before);
        std::fs::write(tools.join("compile"), "patched").unwrap();
        assert_ne!(of(), before);
    }

    #[test]
    fn what_an_emulator_runs_counts() {
        let dir = TestDir::new();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        std::fs::write(&one, "").unwrap();
        std::fs::write(&two, "").unwrap();
        let run =
            |path: &Path, vars: &[_]| go("/bin/qemu", &format!("qemu {}", path.display()), vars);
        assert_ne!(run(&one, &[]), run(&two, &[]));
        let with = [("GOROOT", "/nix/store/a")];
        assert_ne!(run(&one, &with), run(&two, &with));
        assert_ne!(run(&one, &[]), run(&one, &with));
        // Without a GOROOT there is only the command line.
        assert_ne!(
            go("/bin/qemu", "qemu ./go", &[]),
            go("/bin/qemu", "qemu ../go", &[])
        );
        // Its own flags are counted elsewhere, if they matter.
        let emulated = dir.path().join("go");
        std::fs::write(&emulated, "").unwrap();
        let build = |flags: &str| {
            let line = format!("qemu {} build {flags}", emulated.display());
            go("/bin/qemu", &line, &with)
        };
        assert_eq!(build("."), build(&format!("-v -exec {} .", one.display())));
    }
}
