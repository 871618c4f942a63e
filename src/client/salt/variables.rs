//! The variables of this process, as they were when it began, and which of them a C toolchain can tell apart.
//!
//! Every variable counts, for the compiler's wrapper, pkg-config and what they start can read any. The lists below are of
//! those that are known to say nothing to them, and that differ between builds which should share.

use super::flags;
use super::record::Record;
use crate::client::parts;
use crate::client::processor;
use crate::client::unknown;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Of the build's place and of its machine: other ones for each build, the same program.
const PLACE: &[&str] = &[
    "NIX_BUILD_TOP",
    "TMPDIR",
    "TMP",
    "TEMP",
    "TEMPDIR",
    "PWD",
    "OLDPWD",
    "HOME",
    "SHLVL",
    "_",
    "NIX_BUILD_CORES",
    "NIX_LOG_FD",
    "NIX_ATTRS_JSON_FILE",
    "NIX_ATTRS_SH_FILE",
    "enableParallelBuilding",
    "enableParallelChecking",
    "enableParallelInstalling",
    "GOMAXPROCS",
    "MAKEFLAGS",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "TERM",
    "COLUMNS",
    "LINES",
    // For programs that open connections, which no compiler does.
    "NIX_SSL_CERT_FILE",
    "SSL_CERT_FILE",
    "SYSTEM_CERTIFICATE_PATH",
    // Programs are found by PATH, of which there is more in `toolchain.rs`; these are for programs and their data at
    // run time.
    "HOST_PATH",
    "XDG_DATA_DIRS",
];

/// Go's own. `go` hashes what it hands on to the compiler; `go_command.rs` looks at the flags.
const GO: &[&str] = &[
    "GOFLAGS",
    "GOCACHE",
    "GOCACHEPROG",
    "GOMODCACHE",
    "GOPATH",
    "GOBIN",
    "GOPROXY",
    "GONOPROXY",
    "GOPRIVATE",
    "GOSUMDB",
    "GONOSUMDB",
    "GOINSECURE",
    "GOVCS",
    "GOAUTH",
    "GOTMPDIR",
    "GOTELEMETRY",
    "GOTELEMETRYDIR",
    "GO111MODULE",
    "GOROOT",
    "GOTOOLDIR",
    "GOTOOLCHAIN",
    "GOVERSION",
    "GOENV",
    "GOEXE",
    "GOWORK",
    "GOMOD",
    "GOTRACEBACK",
    "GOCOVERDIR",
    "GO_NO_VENDOR_CHECKS",
    "GODEBUG",
    "GOROOT_FINAL",
    "GOHOSTARCH",
    "GOHOSTOS",
];

/// Attributes that nixpkgs' stdenv and its builders of Go programs pass to the build's shell, which runs by them.
const ATTRIBUTES: &[&str] = &[
    "name",
    "pname",
    "version",
    "src",
    "srcs",
    "sourceRoot",
    "setSourceRoot",
    "patches",
    "patchFlags",
    "prePatch",
    "postPatch",
    "builder",
    "stdenv",
    "shell",
    "userHook",
    "outputs",
    "phases",
    "system",
    "buildInputs",
    "nativeBuildInputs",
    "propagatedBuildInputs",
    "propagatedNativeBuildInputs",
    "depsBuildBuild",
    "depsBuildBuildPropagated",
    "depsBuildTarget",
    "depsBuildTargetPropagated",
    "depsHostHost",
    "depsHostHostPropagated",
    "depsTargetTarget",
    "depsTargetTargetPropagated",
    "checkInputs",
    "nativeCheckInputs",
    "installCheckInputs",
    "nativeInstallCheckInputs",
    "defaultBuildInputs",
    "defaultNativeBuildInputs",
    "strictDeps",
    "propagateDoc",
    "meta",
    "passthru",
    "pos",
    "args",
    "allowSubstitutes",
    "preferLocalBuild",
    "passAsFile",
    "exportReferencesGraph",
    "allowedReferences",
    "allowedRequisites",
    "disallowedReferences",
    "disallowedRequisites",
    "outputChecks",
    "outputHash",
    "outputHashAlgo",
    "outputHashMode",
    "impureEnvVars",
    "requiredSystemFeatures",
    "unsafeDiscardReferences",
    "__structuredAttrs",
    "__ignoreNulls",
    "__contentAddressed",
    "__impure",
    "__noChroot",
    "__impureHostDeps",
    "__propagatedImpureHostDeps",
    "__sandboxProfile",
    "__propagatedSandboxProfile",
    "__darwinAllowLocalNetworking",
    "configureFlags",
    "configureFlagsArray",
    "configureScript",
    "configurePlatforms",
    "makeFlags",
    "makeFlagsArray",
    "buildFlags",
    "buildFlagsArray",
    "installFlags",
    "installFlagsArray",
    "installTargets",
    "checkFlags",
    "checkFlagsArray",
    "checkTarget",
    "installCheckFlags",
    "installCheckTarget",
    "distFlags",
    "distTarget",
    "tarballs",
    "cmakeFlags",
    "mesonFlags",
    "doCheck",
    "doInstallCheck",
    "doDist",
    "prefix",
    "prefixKey",
    "outputBin",
    "outputDev",
    "outputDevdoc",
    "outputDevman",
    "outputDoc",
    "outputInclude",
    "outputInfo",
    "outputLib",
    "outputMan",
    "setOutputFlags",
    "shareDocName",
    "stripAllList",
    "stripDebugList",
    "stripAllFlags",
    "stripDebugFlags",
    "stripExclude",
    "forceShare",
    "noDumpEnvVars",
    "moveToDev",
    "showBuildStats",
    "separateDebugInfo",
    "dontUnpack",
    "dontPatch",
    "dontConfigure",
    "dontBuild",
    "dontInstall",
    "dontFixup",
    "dontStrip",
    "dontStripHost",
    "dontStripTarget",
    "dontPatchELF",
    "dontPatchShebangs",
    "dontPatchShebangsInConfigure",
    "dontPruneLibtoolFiles",
    "dontDisableStatic",
    "dontAddStaticConfigureFlags",
    "dontAddDisableDepTrack",
    "dontAddPrefix",
    "dontFixLibtool",
    "dontMoveSbin",
    "dontMoveLib64",
    "dontMoveSystemdUserUnits",
    "dontGzipMan",
    "dontCheckForBrokenSymlinks",
    "dontMakeSourcesWritable",
    "dontWrapGApps",
    "dontWrapQtApps",
    "noAuditTmpdir",
    "prePhases",
    "preConfigurePhases",
    "preBuildPhases",
    "preInstallPhases",
    "preFixupPhases",
    "preDistPhases",
    "postPhases",
    "unpackPhase",
    "patchPhase",
    "configurePhase",
    "buildPhase",
    "checkPhase",
    "installPhase",
    "fixupPhase",
    "installCheckPhase",
    "distPhase",
    "preUnpack",
    "postUnpack",
    "preConfigure",
    "postConfigure",
    "preBuild",
    "postBuild",
    "preCheck",
    "postCheck",
    "preInstall",
    "postInstall",
    "preFixup",
    "postFixup",
    "preInstallCheck",
    "postInstallCheck",
    "preDist",
    "postDist",
    "unpackCmd",
    "buildCommand",
    "buildCommandPath",
    "shellHook",
    "setupHook",
    "setupHooks",
    "propagatedUserEnvPkgs",
    "desktopItems",
    "hooks",
    "preBuildHooks",
    "postHook",
    "preHook",
    "installManPages",
    "versionCheckProgram",
    "versionCheckProgramArg",
    // buildGoModule.
    "ldflags",
    "gcflags",
    "flags",
    "tags",
    "subPackages",
    "excludedPackages",
    "goModules",
    "goSum",
    "modRoot",
    "modPostBuild",
    "modBuildPhase",
    "modInstallPhase",
    "modConfigurePhase",
    "vendorHash",
    "vendorSha256",
    "proxyVendor",
    "deleteVendor",
    "overrideModAttrs",
    "allowGoReference",
    "buildTestBinaries",
    "goPackagePath",
    "goDeps",
    "extraSrcs",
    "extraSrcPaths",
    "testFlags",
    "checkGoFlags",
    "updateScript",
    "nixGocacheprogDone",
];

/// Attributes that change with every source, and that say nothing to a test which `go` would not notice: what is unpacked
/// of them, `go` looks at itself.
const OF_NO_TEST: &[&str] = &[
    "name",
    "pname",
    "version",
    "src",
    "srcs",
    "goModules",
    "goSum",
    "vendorHash",
    "vendorSha256",
    "ldflags",
    "meta",
    "pos",
    "updateScript",
    "nixGocacheprogDone",
];

/// Of those that hold the build's place or Go's own settings: what a derivation can set, and what Go's runtime or a program that
/// a test starts can read, of which `go` knows nothing.
const READ_BY_TESTS: &[&str] = &[
    "TMPDIR",
    "TMP",
    "TEMP",
    "TEMPDIR",
    "HOME",
    "GOMAXPROCS",
    "MAKEFLAGS",
    "TERM",
    "COLUMNS",
    "LINES",
    "NIX_SSL_CERT_FILE",
    "SSL_CERT_FILE",
    "SYSTEM_CERTIFICATE_PATH",
    "HOST_PATH",
    "XDG_DATA_DIRS",
    "GODEBUG",
    "GOTRACEBACK",
];

/// What stands for the build's own directory.
const BUILD: &[u8] = b"@build@";

/// The same, with how names by mktemp(1) begin.
const RANDOM: &[u8] = b"@build@/tmp.";

/// How a path in the Nix store begins.
const STORE: &[u8] = b"/nix/store/";

/// Of a person's session: other ones in each window, and none of them means anything to a compiler.
const SESSION: &[&str] = &[
    "USER",
    "LOGNAME",
    "SHELL",
    "MAIL",
    "HOSTNAME",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "WINDOWID",
    "COLORTERM",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TERM_SESSION_ID",
    "VTE_VERSION",
    "TMUX",
    "TMUX_PANE",
    "STY",
    "WINDOW",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SSH_ASKPASS",
    "GPG_AGENT_INFO",
    "GPG_TTY",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_ID",
    "XDG_SESSION_TYPE",
    "XDG_SESSION_CLASS",
    "XDG_SESSION_PATH",
    "XDG_SESSION_DESKTOP",
    "XDG_CURRENT_DESKTOP",
    "XDG_SEAT",
    "XDG_SEAT_PATH",
    "XDG_VTNR",
    "XDG_ACTIVATION_TOKEN",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "DESKTOP_SESSION",
    "DESKTOP_STARTUP_ID",
    "SESSION_MANAGER",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS",
    "LESSOPEN",
    "LESSCLOSE",
    "LS_COLORS",
    "PS1",
    "PS2",
    "PROMPT_COMMAND",
    "HISTFILE",
    "HISTSIZE",
    "HISTCONTROL",
    "BASH_ENV",
    "SUDO_USER",
    "SUDO_UID",
    "SUDO_GID",
    "SUDO_COMMAND",
    "IN_NIX_SHELL",
    "DIRENV_DIR",
    "DIRENV_FILE",
    "DIRENV_DIFF",
    "DIRENV_WATCHES",
    "DIRENV_IN_ENVRC",
    "DIRENV_LOG_FORMAT",
    "NIX_PROFILES",
    "NIX_PATH",
    "VIM",
    "VIMRUNTIME",
    "MYVIMRC",
    "NVIM",
    "VSCODE_PID",
    "VSCODE_CWD",
    "VSCODE_IPC_HOOK",
    "VSCODE_IPC_HOOK_CLI",
    "VSCODE_GIT_IPC_HANDLE",
    "VSCODE_GIT_ASKPASS_MAIN",
    "VSCODE_GIT_ASKPASS_NODE",
    "GIT_ASKPASS",
    "CI_JOB_ID",
    "CI_JOB_TOKEN",
    "CI_PIPELINE_ID",
    "GITHUB_RUN_ID",
    "GITHUB_RUN_NUMBER",
    "GITHUB_RUN_ATTEMPT",
    "GITHUB_SHA",
    "GITHUB_REF",
    "GITHUB_REF_NAME",
    "GITHUB_ENV",
    "GITHUB_OUTPUT",
    "GITHUB_PATH",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
    "GITHUB_EVENT_PATH",
    "GITHUB_ACTION",
    "GITHUB_JOB",
    "GITHUB_WORKFLOW_SHA",
    "RUNNER_NAME",
    "RUNNER_TRACKING_ID",
];

/// The variables of this process.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    /// As they are now.
    pub fn of_this_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// These.
    pub fn new(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.collect())
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Whether C may be compiled. `go` sets CGO_ENABLED for what it starts, however it has decided.
    pub fn has_cgo(&self) -> bool {
        self.get("CGO_ENABLED").is_none_or(|enabled| enabled != "0")
    }

    /// The outputs of this derivation, by the names that it gives them.
    pub fn outputs(&self) -> BTreeMap<String, PathBuf> {
        if let Some(file) = self.attributes_file() {
            return outputs_in(&file);
        }
        let names = self.get("outputs").unwrap_or(OsStr::new("out"));
        let names = names.to_string_lossy();
        let output = |name: &str| {
            let path = PathBuf::from(self.get(name)?);
            path.has_root().then(|| (name.to_string(), path))
        };
        names.split_whitespace().filter_map(output).collect()
    }

    /// Adds all that counts; the paths that flags name come after it.
    pub fn add_counting(
        &self,
        record: &mut Record,
        own: &BTreeMap<String, PathBuf>,
        in_build: bool,
    ) {
        let outputs: Vec<_> = own.values().map(PathBuf::as_path).collect();
        let ignored: BTreeSet<&[u8]> = ignored(in_build).map(str::as_bytes).collect();
        let mut asks_for_processor = false;
        for (name, value) in self.iter() {
            let (bytes, value) = (name.as_bytes(), value.as_bytes());
            let is_own_output = std::str::from_utf8(bytes).is_ok_and(|name| {
                own.get(name)
                    .is_some_and(|path| path.as_os_str().as_bytes() == value)
            });
            let is_ours = bytes.starts_with(b"NIX_GOCACHEPROG");
            if is_own_output || is_ours || ignored.contains(bytes) {
                continue;
            }
            let words = match flags::Use::of(bytes) {
                _ if bytes == b"PATH" && is_of_store_only(value) => continue,
                Some(used) => flags::counting(value, used, &outputs),
                None => value.to_vec(),
            };
            asks_for_processor |= processor::is_asked_for(&words);
            if !words.is_empty() || flags::Use::of(bytes).is_none() {
                record.add("variable", bytes);
                record.add("value", &words);
                let (name, value) = parts::variable(bytes, &words);
                record.say(&name, value);
            }
        }
        if asks_for_processor {
            let hash = processor::hash();
            record.add("processor", hash);
            record.say("the processor", parts::hash(&hash));
        }
    }

    /// Adds what is left out otherwise, and which a test may depend on: store paths, and the texts of phases, which can put
    /// files where `go` does not look for changes. What holds the source is not among them, for `go` has looked at all
    /// that is unpacked, and the setup hook at what lies beside the module.
    pub fn add_of_tests(
        &self,
        record: &mut Record,
        own: &BTreeMap<String, PathBuf>,
        in_build: bool,
    ) {
        for name in ATTRIBUTES.iter().copied().filter(|name| is_of_tests(name)) {
            let value = self.without_outputs(name, own);
            record.add("attribute", name);
            record.add("value", &value);
            if !value.is_empty() {
                let (name, value) = parts::variable(name.as_bytes(), &value);
                record.say(&name, value);
            }
        }
        if let Some(file) = self.attributes_file() {
            self.add_structured(record, own, &file, in_build);
        }
        let top = self.get("NIX_BUILD_TOP").unwrap_or_default().as_bytes();
        for name in PLACE.iter().chain(GO) {
            let value = self.without_outputs(name, own);
            // In a shell it is the user's own terminal and home.
            let is_read = in_build && READ_BY_TESTS.contains(name) && self.get(name).is_some();
            let names_store = value.windows(STORE.len()).any(|part| part == STORE);
            if is_read || names_store && PLACE.contains(name) {
                let value = match top.len() > 1 {
                    true => without_random(replaced(value, top, BUILD)),
                    false => value,
                };
                record.add("place", name);
                record.add("value", &value);
                if is_read && !value.is_empty() {
                    let (name, value) = parts::variable(name.as_bytes(), &value);
                    record.say(&name, value);
                }
            }
        }
        let beside = self.get("NIX_GOCACHEPROG_BESIDE").unwrap_or_default();
        record.add("beside", beside.as_bytes());
        if !beside.is_empty() {
            record.say("files beside the source", parts::hash(beside.as_bytes()));
        }
    }

    /// The file with the structured attributes, if there are any. Old releases of Nix name it by its path outside of the sandbox.
    fn attributes_file(&self) -> Option<PathBuf> {
        let named = PathBuf::from(self.get("NIX_ATTRS_JSON_FILE")?);
        let top = self.get("NIX_BUILD_TOP").unwrap_or_default();
        let in_top = Path::new(top).join(".attrs.json");
        Some(
            match named.exists() || !(in_top.has_root() && in_top.exists()) {
                true => named,
                false => in_top,
            },
        )
    }

    /// Adds structured attributes, which are in a file and not in the environment.
    fn add_structured(
        &self,
        record: &mut Record,
        own: &BTreeMap<String, PathBuf>,
        file: &Path,
        in_build: bool,
    ) {
        let text = match std::fs::read(file) {
            // A shell may outlive the file.
            Err(e) if !in_build && unknown::is_nothing(file, &e) => return,
            read => read.unwrap_or_default(),
        };
        let Ok(mut attributes) = serde_json::from_slice::<BTreeMap<String, Value>>(&text) else {
            let nonce = record.word(Record::add_nonce);
            record.say(
                "structured attributes, which cannot be read,",
                parts::hash(nonce.as_bytes()),
            );
            return;
        };
        attributes.remove("outputs");
        if let Some(Value::Object(env)) = attributes.get("env") {
            // stdenv exports these, and what a phase has made of them since counts as any variable does.
            let mut env = env.clone();
            env.retain(|name, value| self.get(name) != value.as_str().map(OsStr::new));
            attributes.remove("env");
            let env = env.into_iter().filter(|(name, _)| is_of_tests(name));
            attributes.extend(env.map(|(name, value)| (format!("env.{name}"), value)));
        }
        for (name, value) in attributes.iter().filter(|(name, _)| is_of_tests(name)) {
            let value = without(value.to_string().into_bytes(), own);
            record.add("structured attribute", name);
            record.add("value", &value);
            let (name, value) = parts::variable(name.as_bytes(), &value);
            record.say(&name, value);
        }
    }

    /// The value of a variable, with a mark in the place of this derivation's outputs.
    fn without_outputs(&self, name: &str, own: &BTreeMap<String, PathBuf>) -> Vec<u8> {
        without(self.get(name).unwrap_or_default().as_bytes().to_vec(), own)
    }
}

/// Whether a test may depend on this attribute: not on what describes the source, and not on what later phases do.
fn is_of_tests(name: &str) -> bool {
    let is_later = ["nstall", "ixup", "Dist"]
        .iter()
        .any(|part| name.contains(part));
    !(OF_NO_TEST.contains(&name) || is_later && ATTRIBUTES.contains(&name))
}

/// A value with a mark in the place of this derivation's outputs: they have other paths in each build.
fn without(value: Vec<u8>, own: &BTreeMap<String, PathBuf>) -> Vec<u8> {
    let paths = own.values().map(|path| path.as_os_str().as_bytes());
    let paths = paths.filter(|path| !path.is_empty());
    paths.fold(value, |value, path| replaced(value, path, b"@output@"))
}

fn replaced(mut value: Vec<u8>, part: &[u8], mark: &[u8]) -> Vec<u8> {
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&value[from..], part) {
        value.splice(from + at..from + at + part.len(), mark.iter().copied());
        from += at + mark.len();
    }
    value
}

/// Leaves out what mktemp(1) has made up, as in `HOME=$(mktemp -d)`. What is in such a directory counts by itself.
fn without_random(mut value: Vec<u8>) -> Vec<u8> {
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&value[from..], RANDOM) {
        from += at + RANDOM.len();
        let rest = value[from..].iter();
        let length = rest.take_while(|byte| byte.is_ascii_alphanumeric()).count();
        value.drain(from..from + length);
    }
    value
}

fn ignored(in_build: bool) -> impl Iterator<Item = &'static str> {
    let session = if in_build { &[][..] } else { SESSION };
    [PLACE, GO, ATTRIBUTES, session]
        .into_iter()
        .flatten()
        .copied()
}

fn is_of_store_only(path: &[u8]) -> bool {
    path.split(|byte| *byte == b':')
        .all(|folder| folder.starts_with(b"/nix/store/"))
}

/// The outputs of a derivation with structured attributes.
fn outputs_in(attributes: &Path) -> BTreeMap<String, PathBuf> {
    #[derive(serde::Deserialize)]
    struct Attributes {
        outputs: BTreeMap<String, PathBuf>,
    }
    let text = std::fs::read(attributes).unwrap_or_default();
    let found: Option<Attributes> = serde_json::from_slice(&text).ok();
    found.map(|found| found.outputs).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(vars: &[(&str, &str)]) -> [u8; 32] {
        let variables = Variables::new(vars.iter().map(|(k, v)| (k.into(), v.into())));
        let mut record = Record::new("test");
        variables.add_counting(&mut record, &variables.outputs(), true);
        record.finish()
    }

    /// Whether builds that differ by the value of one variable are kept apart.
    fn counts(name: &str, one: &str, two: &str) -> bool {
        counts_beside(name, one, two, &[])
    }

    fn counts_beside(name: &str, one: &str, two: &str, rest: &[(&str, &str)]) -> bool {
        let with = |value| [&[(name, value)], rest].concat();
        counted(&with(one)) != counted(&with(two))
    }

    #[test]
    fn what_a_compiler_can_read_keeps_builds_apart() {
        for name in [
            "NIX_HARDENING_ENABLE",
            "NIX_CC",
            "NIX_BINTOOLS",
            "NIX_CFLAGS_COMPILE",
            "NIX_CFLAGS_COMPILE_BEFORE",
            "NIX_LDFLAGS",
            "NIX_LDFLAGS_AFTER",
            "NIX_LDFLAGS_HARDEN",
            "NIX_CFLAGS_LINK",
            "NIX_CXXSTDLIB_COMPILE",
            "NIX_DYNAMIC_LINKER",
            "NIX_DYNAMIC_LINKER_x86_64_unknown_linux_gnu",
            "NIX_CFLAGS_COMPILE_FOR_BUILD",
            "NIX_LDFLAGS_x86_64_unknown_linux_gnu",
            "NIX_ENFORCE_NO_NATIVE",
            "NIX_ENFORCE_PURITY",
            "NIX_DONT_SET_RPATH",
            "CPATH",
            "C_INCLUDE_PATH",
            "CPLUS_INCLUDE_PATH",
            "OBJC_INCLUDE_PATH",
            "LIBRARY_PATH",
            "LD_LIBRARY_PATH",
            "PKG_CONFIG_PATH",
            "PKG_CONFIG_PATH_x86_64_unknown_linux_gnu",
            "SOURCE_DATE_EPOCH",
            "GCC_EXEC_PREFIX",
            "COMPILER_PATH",
            "CC",
            "CXX",
            "LANG",
            "LC_ALL",
            "CGO_CFLAGS",
            "SOMETHING_UNKNOWN",
        ] {
            assert!(counts(name, "/nix/store/a/x", "/nix/store/b/x"), "{name}");
            assert!(counts(name, "", "1"), "{name} is empty");
        }
    }

    #[test]
    fn what_names_the_build_itself_does_not_count() {
        for name in [
            "name",
            "src",
            "NIX_BUILD_TOP",
            "TMPDIR",
            "NIX_BUILD_CORES",
            "ldflags",
            "GOFLAGS",
            "buildInputs",
        ] {
            assert!(!counts(name, "/nix/store/a/x", "/nix/store/b/x"), "{name}");
        }
        assert!(!counts("NIX_GOCACHEPROG_STAMPED", "", "1"));
        assert!(!counts("out", "/nix/store/a", "/nix/store/b"));
        let build = |out: &str| {
            let ldflags = format!("-rpath {out}/lib -L/nix/store/zlib/lib -L{out}/lib");
            let link = format!("-Wl,-rpath,{out}/lib");
            let compile = format!(
                " -frandom-seed={} -isystem /nix/store/zlib/include",
                &out[11..]
            );
            counted(&[
                ("outputs", "out"),
                ("out", out),
                ("NIX_LDFLAGS", &ldflags),
                ("NIX_CFLAGS_LINK", &link),
                ("NIX_CFLAGS_COMPILE", &compile),
            ])
        };
        assert_eq!(
            build("/nix/store/aaaa-program"),
            build("/nix/store/bbbb-program")
        );
    }

    #[test]
    fn an_own_output_counts_wherever_else_it_stands() {
        let build = |name: &str, value: &str| {
            let with = |out: &str| counted(&[("out", out), (name, &value.replace('@', out))]);
            with("/nix/store/aaaa-program") != with("/nix/store/bbbb-program")
        };
        for (name, value) in [
            ("NIX_CFLAGS_COMPILE", "-DDATADIR=\"@/share\""),
            ("NIX_CFLAGS_COMPILE", "-isystem @/include"),
            ("NIX_CFLAGS_COMPILE", "-I@/include"),
            ("NIX_CFLAGS_COMPILE", "-include @/x.h"),
            ("NIX_CFLAGS_COMPILE", "-rpath @/lib"),
            ("NIX_LDFLAGS", "-T @/script"),
            ("CGO_CFLAGS", "-L@/lib"),
            ("SOMETHING_UNKNOWN", "@/share"),
        ] {
            assert!(build(name, value), "{name}={value}");
        }
    }

    #[test]
    fn an_attribute_that_has_the_name_of_an_output_is_a_dependency() {
        for name in ["lib", "dev", "bin"] {
            assert!(
                counts_beside(name, "/nix/store/a", "/nix/store/b", &[("outputs", "out")]),
                "{name}"
            );
            let both = format!("out {name}");
            assert!(
                !counts_beside(name, "/nix/store/a", "/nix/store/b", &[("outputs", &both)]),
                "{name}"
            );
        }
    }

    #[test]
    fn outputs_of_structured_attributes_come_from_their_file() {
        let dir = crate::test_dir::TestDir::new();
        let file = dir.path().join(".attrs.json");
        std::fs::write(
            &file,
            r#"{"outputs":{"out":"/nix/store/a","data":"/nix/store/b"},"x":1}"#,
        )
        .unwrap();
        let of = |vars: &[(&str, &str)]| {
            Variables::new(vars.iter().map(|(k, v)| (k.into(), v.into()))).outputs()
        };
        let found = of(&[
            ("NIX_ATTRS_JSON_FILE", file.to_str().unwrap()),
            ("lib", "/nix/store/c"),
        ]);
        assert_eq!(found["data"], Path::new("/nix/store/b"));
        assert_eq!(found.len(), 2);
        assert!(of(&[("NIX_ATTRS_JSON_FILE", "/nonexistent")]).is_empty());
        let old_nix = of(&[
            ("NIX_ATTRS_JSON_FILE", "/nonexistent"),
            ("NIX_BUILD_TOP", dir.path().to_str().unwrap()),
        ]);
        assert_eq!(old_nix, found, "it is named by a path of the host");
    }

    /// What counts for tests.
    fn counted_for_tests(vars: &[(&str, &str)], in_build: bool) -> [u8; 32] {
        let variables = Variables::new(vars.iter().map(|(k, v)| (k.into(), v.into())));
        let mut record = Record::new("test");
        variables.add_of_tests(&mut record, &variables.outputs(), in_build);
        record.finish()
    }

    #[test]
    fn structured_attributes_count_for_tests_as_others_do() {
        let dir = crate::test_dir::TestDir::new();
        let file = dir.path().join(".attrs.json");
        let of = |attributes: &str, out: &str, vars: &[(&str, &str)]| {
            let text = format!(
                r#"{{"env":{{"FLOWER":"rose"}},"outputs":{{"out":"{out}"}},"preCheck":"echo {out}",{attributes}}}"#
            );
            std::fs::write(&file, text).unwrap();
            let shown = file.to_str().unwrap();
            let vars = [&[("NIX_ATTRS_JSON_FILE", shown), ("FLOWER", "rose")], vars].concat();
            counted_for_tests(&vars, true)
        };
        let plain = |attributes: &str| of(attributes, "/nix/store/a-out", &[]);
        let first = plain(r#""version":"1""#);
        for same in [
            r#""version":"2""#,
            r#""src":"/nix/store/b-source","name":"x-2""#,
            r#""goModules":"/nix/store/b","vendorHash":"x","ldflags":["-X v=2"]"#,
            r#""meta":{},"installPhase":"y","postFixup":"y""#,
        ] {
            assert_eq!(plain(same), first, "{same}");
        }
        assert_eq!(
            of(r#""version":"1""#, "/nix/store/b-out", &[]),
            first,
            "its outputs have other paths in each build"
        );
        let mut seen = vec![first];
        for other in [
            r#""checkPhase":"x""#,
            r#""postPatch":"x""#,
            r#""nativeBuildInputs":["/nix/store/b"]"#,
            r#""nativeBuildInputs":["/nix/store/b","c"]"#,
            r#""nativeBuildInputs":["/nix/store/b c"]"#,
            r#""stdenv":"/nix/store/b""#,
            r#""requiredSystemFeatures":["kvm"]"#,
            r#""__noChroot":true"#,
            r#""somethingInstalled":{"unknown":1}"#,
        ] {
            seen.push(plain(other));
            assert_eq!(plain(other), *seen.last().unwrap(), "{other}");
            assert!(
                !seen[..seen.len() - 1].contains(seen.last().unwrap()),
                "{other}"
            );
        }
        // A member of `env` counts by itself where the environment has something else.
        let of_env = |flower: &str| of(&format!(r#""env":{{"SEED":"{flower}"}}"#), "", &[]);
        assert_ne!(of_env("1"), of_env("2"));
    }

    #[test]
    fn structured_attributes_that_cannot_be_read_share_no_test() {
        let dir = crate::test_dir::TestDir::new();
        let file = dir.path().join(".attrs.json");
        let vars = [("NIX_ATTRS_JSON_FILE", file.to_str().unwrap())];
        let is_shared =
            |in_build| counted_for_tests(&vars, in_build) == counted_for_tests(&vars, in_build);
        assert!(!is_shared(true) && is_shared(false), "it is missing");
        std::fs::write(&file, "{\"preCheck\":").unwrap();
        assert!(!is_shared(true) && !is_shared(false), "it is cut off");
        std::fs::write(&file, "{}").unwrap();
        assert!(is_shared(true));
    }

    #[test]
    fn what_a_program_of_a_test_can_read_counts_for_tests_without_the_builds_own_place() {
        let of = |name: &str, value: &str, top: &str, in_build| {
            counted_for_tests(&[(name, value), ("NIX_BUILD_TOP", top)], in_build)
        };
        for name in READ_BY_TESTS {
            let differs =
                |in_build| of(name, "1", "/build", in_build) != of(name, "2", "/build", in_build);
            assert!(differs(true) && !differs(false), "{name}");
            let home = of(name, "/build/home", "/build", true);
            assert_eq!(home, of(name, "/tmp/b/home", "/tmp/b", true), "{name}");
            assert_ne!(home, of(name, "/build/house", "/build", true), "{name}");
            let random = |path: &str| of(name, path, "/build", true);
            assert_eq!(
                random("/build/tmp.aB3"),
                random("/build/tmp.Xyz9"),
                "{name}"
            );
            assert_ne!(
                random("/build/tmp.aB3/a"),
                random("/build/tmp.aB3/b"),
                "{name}"
            );
            assert_ne!(random("/build/tmp.aB3"), home, "{name}");
        }
        let unset = counted_for_tests(&[("NIX_BUILD_TOP", "/build")], true);
        for name in ["NIX_BUILD_CORES", "NIX_LOG_FD", "PWD", "_", "GOCACHE"] {
            assert_eq!(of(name, "1", "/build", true), unset, "{name}");
        }
    }

    #[test]
    fn a_path_of_the_store_only_says_nothing_by_itself() {
        assert!(!counts(
            "PATH",
            "/nix/store/a/bin",
            "/nix/store/a/bin:/nix/store/b/bin"
        ));
        assert!(counts(
            "PATH",
            "/nix/store/a/bin",
            "/build/tools:/nix/store/a/bin"
        ));
    }
}
