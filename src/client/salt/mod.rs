//! What separates actions: what an output depends on without `go` knowing it.
//!
//! `go` hashes a package's sources and flags, but takes two things on trust, which it may on an ordinary
//! host and may not under Nix, where many versions of everything live side by side:
//!
//! - C: headers, libraries, the compiler, its wrapper, and all that these read ("the build cache does not detect changes to C
//!   libraries imported with cgo", `go help cache`).
//! - Its own release: the tools of a released Go are identified by their version alone
//!   (`toolID` in the `buildid.go` of `cmd/go`), and two Nix packages of one version can hold
//!   different patches.
//!
//! So the cache has two keys for each action. The *pure* one holds the action and which Go it is; the *full* one holds
//! everything that C can depend on as well. What is proven to have nothing of C in it is put under the pure key, and all
//! builds with the same Go share it: the action of a package holds the content of all that it imports, so a package without
//! C needs nothing more, even if it imports one with C. Everything else is put under the full key. A get asks for the pure
//! key first. Results of tests have a third key, which holds even more.
//!
//! A Go that cannot be told shares nothing.

mod flags;
mod go_command;
mod identity;
mod record;
mod toolchain;
mod variables;

use crate::client::parts::{self, Part};
use crate::client::programs;
use crate::client::purity::Kind;
use crate::client::source_tree::{Assembler, SourceTree};
use crate::client::unknown;
use crate::error::Result;
use crate::id::ActionId;
use crate::log;
use crate::protocol::wire::Keys;
use crate::sha256::Sha256;
use go_command::GoCommand;
use identity::Identities;
use record::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use variables::Variables;

/// What separates the actions of some commands from those of all others, hashed already: a block of its own, so that a key
/// costs only the block with its action.
#[derive(Clone, Debug)]
struct Prefix(Sha256);

impl Prefix {
    fn new(digest: [u8; 32]) -> Self {
        // A block of SHA-256 is 64 bytes.
        Self(Sha256::new_with_prefix(digest).chain_update([0; 32]))
    }

    fn key(&self, action: &ActionId) -> ActionId {
        ActionId(self.0.clone().chain_update(action.0).finalize())
    }
}

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To whoever asks for this key.
    Shared(ActionId),
    /// To this build alone.
    Private(ActionId),
}

/// What flags name of this build that a C compiler can read.
pub fn led_to_by_flags() -> BTreeSet<PathBuf> {
    toolchain::led_to(&Variables::of_this_process())
}

/// What is known of a put.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What the body says by itself.
    pub kind: Kind,
    /// The path of the package whose archive it is, where that makes a difference.
    pub package: Option<String>,
    /// It belongs to a package's archive, and says nothing that C could have changed.
    pub is_companion: bool,
}

/// The keys of all actions of one `go` command.
#[derive(Debug)]
pub struct Salt {
    /// None where nothing is known to be pure.
    pure: Option<Prefix>,
    rest: Arc<Rest>,
    has_cgo: bool,
    is_test: bool,
    /// Whether an index goes by names and times that say what is in the files.
    shares_indexes: bool,
    /// Results of tests are not even found again by this build.
    always_tests: bool,
}

/// What takes longer to find out, and which many commands do without.
#[derive(Debug)]
struct Rest {
    /// The source; `None` where nobody knows where it is.
    tree: OnceLock<Option<Result<SourceTree>>>,
    found: OnceLock<Found>,
    variables: Variables,
    command: Option<GoCommand>,
    /// Where it runs.
    folder: Option<PathBuf>,
    go: Record,
    /// What this build makes.
    outputs: BTreeMap<String, PathBuf>,
    identities: Identities,
    in_build: bool,
    shares_tests: bool,
}

/// The same, once it is found out.
#[derive(Debug)]
struct Found {
    full: Prefix,
    test: Option<Prefix>,
    told: Told,
    /// What a person is told of all that counts.
    parts: Vec<Part>,
}

impl Salt {
    /// The salt of the `go` command that this process serves, in a build of Nix or elsewhere.
    pub fn of_this_command(in_build: bool) -> Self {
        let variables = Variables::of_this_process();
        let command = GoCommand::of_parent(&variables);
        // `go` has gone to the folder that its -C names before it starts anything.
        let folder = std::env::current_dir().ok();
        let salt = Self::new(variables, command, folder, in_build);
        // Meanwhile this process connects, and `go` reads its packages. Without C most commands need no more than the tree.
        let (rest, has_cgo) = (Arc::clone(&salt.rest), salt.has_cgo);
        let find = move || {
            rest.tree();
            if has_cgo {
                rest.found();
            }
        };
        drop(thread::Builder::new().spawn(find));
        salt
    }

    fn new(
        variables: Variables,
        command: Option<GoCommand>,
        folder: Option<PathBuf>,
        in_build: bool,
    ) -> Self {
        let is = |name: &str, value: &str| variables.get(name).is_some_and(|found| found == value);
        let says_content = !in_build || is("NIX_GOCACHEPROG_STAMPED", "1");
        let always_tests = is("NIX_GOCACHEPROG_TESTS", "run");
        let is_vendored =
            |command: &GoCommand| command.values("mod").contains(&OsStr::new("vendor"));
        let is_test = command.as_ref().is_some_and(GoCommand::is_test);
        let outputs = variables.outputs();
        let identities = Identities::new(own_directories(&variables, &outputs));
        let go = which_go(command.as_ref(), &variables, &identities);
        // Whoever stands between `go` and the compiler may do anything, with files of his own.
        let is_pure = command
            .as_ref()
            .is_some_and(|command| command.values("toolexec").is_empty());
        let mut pure = go.clone();
        pure.add("key", "pure");
        Self {
            pure: is_pure.then(|| Prefix::new(pure.finish())),
            has_cgo: variables.has_cgo(),
            is_test,
            // The index of a module in the module cache goes by its path alone.
            shares_indexes: !in_build
                || (says_content && command.as_ref().is_some_and(is_vendored)),
            always_tests,
            rest: Arc::new(Rest {
                tree: OnceLock::new(),
                found: OnceLock::new(),
                shares_tests: is_test && says_content && !always_tests,
                variables,
                command,
                folder,
                go,
                outputs,
                identities,
                in_build,
            }),
        }
    }

    /// The executable of the `go` command; `None` when nobody knows which Go it is, and nothing may be shared.
    pub fn go(&self) -> Option<&Path> {
        self.rest.command.as_ref().map(GoCommand::exe)
    }

    /// The command line of the `go` command; empty when nobody knows it.
    pub fn words(&self) -> &[OsString] {
        self.rest.command.as_ref().map_or(&[], GoCommand::words)
    }

    /// What is said of the Go that this is, which is known at once.
    pub fn go_parts(&self) -> Vec<Part> {
        parts::bounded(self.rest.go.parts())
    }

    /// What is said of all that counts; `None` as long as nobody has needed to find that out.
    pub fn parts(&self) -> Option<&[Part]> {
        self.rest.found.get().map(|found| &*found.parts)
    }

    /// For a daemon that looks up one key at a time.
    pub fn only_full(&mut self) {
        self.pure = None;
    }

    /// The key under which an action's output is found if it is pure.
    pub fn pure(&self, action: &ActionId) -> Option<ActionId> {
        self.pure_prefix().map(|pure| pure.key(action))
    }

    fn pure_prefix(&self) -> Option<&Prefix> {
        self.pure
            .as_ref()
            .filter(|_| !self.rest.assembler().hides_headers())
    }

    /// All keys under which an action may be found, the pure one first, if it has one.
    pub fn keys_after(&self, pure: Option<ActionId>, action: &ActionId) -> Keys {
        let found = self.rest.found();
        let mut keys = Keys::default();
        let others = [Some(&found.full), found.test.as_ref()];
        let others = others
            .into_iter()
            .flatten()
            .map(|prefix| prefix.key(action));
        for key in pure.into_iter().chain(others) {
            keys.push(key);
        }
        keys
    }

    /// Where the output of an action goes.
    pub fn place(&self, action: &ActionId, evidence: &Evidence) -> Place {
        let found = self.rest.found();
        let full = found.full.key(action);
        let shared = |is_pure: bool| match self.pure(action) {
            Some(pure) if is_pure => Place::Shared(pure),
            _ => Place::Shared(full),
        };
        match evidence.kind {
            Kind::PureArchive => shared(!found.told.compiler),
            Kind::AssemblerArchive => {
                shared(!found.told.assembler && self.rest.is_closed(evidence.package.as_deref()))
            }
            Kind::Archive => shared(false),
            Kind::ModuleIndex if self.shares_indexes => shared(true),
            Kind::ModuleIndex => Place::Private(full),
            Kind::TestLog | Kind::TestResult => match &found.test {
                Some(test) => Place::Shared(test.key(action)),
                // Under a key that nobody asks for.
                None if self.always_tests => Place::Private(Prefix::new(full.0).key(action)),
                None => Place::Private(full),
            },
            Kind::Other => {
                let is_closed = !found.told.assembler && self.rest.assembler().is_closed();
                let is_without_c = !self.has_cgo && is_closed && !self.is_test;
                shared(evidence.is_companion || is_without_c)
            }
        }
    }
}

impl Rest {
    fn tree(&self) -> Option<&Result<SourceTree>> {
        let find = || {
            let words = self.command.as_ref()?.words();
            let variable = |name: &str| self.variables.get(name).map(OsStr::to_os_string);
            let led_to = toolchain::led_to(&self.variables);
            let folder = self.folder.as_deref()?;
            Some(SourceTree::scan(folder, words, led_to, variable))
        };
        self.tree.get_or_init(find).as_ref()
    }

    /// What the assembler reads of the source.
    fn assembler(&self) -> Assembler {
        match self.tree() {
            Some(Ok(tree)) => tree.assembler(),
            _ => Assembler::Open,
        }
    }

    /// Whether Go's assembler reads nothing for this package that `go` does not hash.
    fn is_closed(&self, package: Option<&str>) -> bool {
        let is_standard = || {
            let package = package.zip(self.command.as_ref());
            package.is_some_and(|(package, command)| {
                command.has_standard(package, &self.variables, self.folder.as_deref())
            })
        };
        match self.tree() {
            Some(Ok(tree)) => {
                tree.is_closed(package, false) || tree.is_closed(package, is_standard())
            }
            _ => false,
        }
    }

    fn found(&self) -> &Found {
        self.found.get_or_init(|| self.find())
    }

    /// Whether `go` may run a C toolchain for anything but to link, of which it keeps nothing.
    fn runs_c(&self) -> bool {
        let is_gos_own = |command: &GoCommand| command.values("compiler").is_empty();
        self.variables.has_cgo() || !self.command.as_ref().is_some_and(is_gos_own)
    }

    fn find(&self) -> Found {
        let (variables, outputs, identities) = (&self.variables, &self.outputs, &self.identities);
        let mut record = self.go.clone();
        record.add("key", "full");
        variables.add_counting(&mut record, outputs, self.in_build);
        if self.runs_c() {
            add_toolchain(&mut record, variables, identities);
        }
        // What `go env -w` has set, of which `go` passes on a part only.
        if let Some(file) = variables.get("GOENV").filter(|file| *file != "off") {
            match std::fs::read(file) {
                Ok(settings) => {
                    record.add("GOENV", &settings);
                    if !settings.is_empty() {
                        record.say("go env -w", parts::hash(&settings));
                    }
                }
                Err(e) if unknown::is_nothing(Path::new(file), &e) => record.add("GOENV", ""),
                Err(_) => record.add_nonce(),
            }
        }
        let mut told = Told {
            assembler: true,
            compiler: true,
        };
        if let Some(command) = &self.command {
            record.say(
                "flags",
                parts::variable(b"GOFLAGS", command.said_flags().as_bytes()).1,
            );
            add_tree(&mut record, self.tree());
            add_modules(&mut record, self.tree());
            told = add_flags(&mut record, command, variables, identities);
        }
        let mut of_tests = record.clone();
        if self.shares_tests {
            of_tests.add("key", "test");
            if !self.runs_c() {
                // A test may look for a compiler all the same.
                add_toolchain(&mut of_tests, variables, identities);
            }
            variables.add_of_tests(&mut of_tests, outputs, self.in_build);
        }
        Found {
            parts: parts::bounded(of_tests.parts()),
            full: Prefix::new(record.finish()),
            test: self.shares_tests.then(|| Prefix::new(of_tests.finish())),
            told,
        }
    }
}

fn add_toolchain(record: &mut Record, variables: &Variables, identities: &Identities) {
    if !toolchain::add(record, variables, identities) {
        let nonce = record.word(Record::add_nonce);
        record.say(
            "what the C toolchain reads, which cannot be told,",
            parts::hash(nonce.as_bytes()),
        );
    }
}

/// Adds what C and Go's assembler can read of the source.
fn add_tree(record: &mut Record, tree: Option<&Result<SourceTree>>) {
    match tree.map(|tree| tree.as_ref().and_then(SourceTree::inputs)) {
        Some(Ok(inputs)) => {
            record.add("tree", inputs.digest);
            for (name, hash) in &inputs.said {
                record.say(name, hash.clone());
            }
        }
        failed => {
            log::debug(|| format!("nothing of C is shared: {failed:?}"));
            let nonce = record.word(Record::add_nonce);
            record.say(
                "the source, which cannot be looked through,",
                parts::hash(nonce.as_bytes()),
            );
        }
    }
}

/// Adds which modules there are that C and Go's assembler can read more of than `go` hashes.
fn add_modules(record: &mut Record, tree: Option<&Result<SourceTree>>) {
    // A tree that cannot be looked through shares nothing anyway.
    let Some(Ok(tree)) = tree else { return };
    match tree.modules() {
        Ok(Some(modules)) => {
            record.add("modules", modules);
            record.say("modules with C or assembler", parts::digits(&modules));
        }
        Ok(None) => {}
        Err(_) => record.add_nonce(),
    }
}

fn own_directories(variables: &Variables, outputs: &BTreeMap<String, PathBuf>) -> Vec<PathBuf> {
    let mut own: Vec<_> = outputs.values().cloned().collect();
    let top = variables.get("NIX_BUILD_TOP").map(PathBuf::from);
    own.extend(top.filter(|top| top.parent().is_some()));
    own
}

fn which_go(command: Option<&GoCommand>, variables: &Variables, identities: &Identities) -> Record {
    let mut record = Record::new("nix-gocacheprog: actions of one Go");
    match command {
        Some(command) => command.add_go(&mut record, identities, variables),
        // Nothing that this client puts is ever found again.
        None => record.add_nonce(),
    }
    record
}

/// Flags of the compiler's that name a file to be read (cmd/compile/internal/base/flag.go).
const FILES_OF_COMPILER: [&[u8]; 5] = [
    b"-coveragecfg",
    b"-embedcfg",
    b"-importcfg",
    b"-pgoprofile",
    b"-symabis",
];

/// Whether a word of flags for Go's tools may name a file with more flags in it (`expandArgs` in cmd/internal/objabi/flag.go).
/// A pattern of packages may stand before it.
fn names_flags(word: &[u8]) -> bool {
    word.starts_with(b"@") || memchr::memmem::find(word, b"=@").is_some()
}

/// What flags have Go's own tools read, beside what `go` hashes.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Other files may be included.
    assembler: bool,
    /// Other files are read.
    compiler: bool,
}

/// Adds what flags of the command say to C and to tools; tells what they have Go's own tools read.
fn add_flags(
    record: &mut Record,
    command: &GoCommand,
    variables: &Variables,
    identities: &Identities,
) -> Told {
    // `go` asks pkg-config after it has looked the action up, and which lines ask depends on the tags (golang/go#73033).
    for tags in command.values("tags") {
        record.add("tags", tags.as_bytes());
    }
    let path = variables.get("PATH").unwrap_or_default();
    for word in words_of(&command.values("toolexec")) {
        record.add("toolexec", word);
        if let Some(program) = programs::find(OsStr::from_bytes(word), path) {
            let said = record.word(|record| identities.add_file(record, "toolexec", &program));
            record.say("-toolexec", said);
            // Nobody knows what it reads.
            let real = program.canonicalize().unwrap_or(program);
            if identities.is_own(&real) || programs::is_scratch(&real) {
                record.add_nonce();
            }
        }
    }
    for overlay in command.values("overlay") {
        let said = record.word(|record| add_overlay(record, Path::new(overlay), identities));
        record.say("files of -overlay", parts::hash(said.as_bytes()));
    }
    let asmflags = command.values("asmflags");
    let mut words = words_of(&asmflags).into_iter();
    while let Some(word) = words.next() {
        let named = named_by(&[b"-I"], word, &mut words);
        // Of which package's folder it would be one is not known.
        if named.is_some_and(|folder| !folder.is_absolute()) || names_flags(word) {
            record.add_nonce();
        }
        let folder = named.map(Path::to_path_buf);
        if let Some(folder) = folder.or_else(|| flags::path_in(word)) {
            let said =
                record.word(|record| identities.add_folder(record, "asmflags", &folder, true));
            record.say("folders of -asmflags", said);
        }
    }
    Told {
        assembler: !asmflags.is_empty(),
        compiler: add_files_of_compiler(record, command, identities),
    }
}

/// Adds the files that -gcflags have the compiler read; tells whether there are any. `go` hashes the flags' text.
fn add_files_of_compiler(
    record: &mut Record,
    command: &GoCommand,
    identities: &Identities,
) -> bool {
    let mut is_told = false;
    let gcflags = command.values("gcflags");
    let mut words = words_of(&gcflags).into_iter();
    while let Some(word) = words.next() {
        if names_flags(word) {
            is_told = true;
            record.add_nonce();
        }
        let Some(path) = named_by(&FILES_OF_COMPILER, word, &mut words) else {
            continue;
        };
        is_told = true;
        match path.is_absolute() {
            true => identities.add_file(record, "gcflags", path),
            false => record.add_nonce(),
        }
    }
    is_told
}

/// The path that one of these flags gives, in this word or in the next one. A pattern of packages may stand before the flag.
fn named_by<'a>(
    flags: &[&[u8]],
    word: &'a [u8],
    rest: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<&'a Path> {
    let value = flags.iter().find_map(|flag| {
        let at = memchr::memmem::find(word, flag)?;
        Some(&word[at + flag.len()..])
    })?;
    let value = match value.strip_prefix(b"=").unwrap_or(value) {
        b"" => rest.next().unwrap_or_default(),
        value => value,
    };
    Some(Path::new(OsStr::from_bytes(value)))
}

fn words_of<'a>(values: &[&'a OsStr]) -> Vec<&'a [u8]> {
    values
        .iter()
        .flat_map(|value| programs::words(value.as_bytes()))
        .collect()
}

/// Adds an overlay: what the files hold that take the place of others, for `go` hashes only those of Go.
fn add_overlay(record: &mut Record, overlay: &Path, identities: &Identities) {
    #[derive(serde::Deserialize)]
    struct Overlay {
        #[serde(rename = "Replace")]
        replace: BTreeMap<PathBuf, PathBuf>,
    }
    let text = std::fs::read(overlay).unwrap_or_default();
    record.add("overlay", &text);
    if let Ok(overlay) = serde_json::from_slice::<Overlay>(&text) {
        for path in overlay
            .replace
            .values()
            .filter(|path| !path.as_os_str().is_empty())
        {
            identities.add_file(record, "overlay", path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::sync::LazyLock;

    const ACTION: ActionId = ActionId([7; 32]);

    /// Where the commands run.
    static EMPTY: LazyLock<TestDir> = LazyLock::new(TestDir::new);

    fn salt(line: &str, in_build: bool, vars: &[(&str, &str)]) -> Salt {
        let variables = Variables::new(vars.iter().map(|(k, v)| (k.into(), v.into())));
        let words = line.split(' ').map(Into::into).collect();
        let command = GoCommand::new("/nix/store/a-go/bin/go".into(), words, &variables);
        Salt::new(
            variables,
            Some(command),
            Some(EMPTY.path().to_path_buf()),
            in_build,
        )
    }

    impl Salt {
        fn keys(&self, action: &ActionId) -> Keys {
            self.keys_after(self.pure(action), action)
        }
    }

    fn place(salt: &Salt, kind: Kind) -> Place {
        let evidence = Evidence {
            kind,
            package: None,
            is_companion: false,
        };
        salt.place(&ACTION, &evidence)
    }

    fn pure(salt: &Salt) -> Place {
        Place::Shared(salt.pure(&ACTION).unwrap())
    }

    fn full(salt: &Salt) -> ActionId {
        salt.keys(&ACTION)[1]
    }

    #[test]
    fn the_pure_key_holds_the_go_and_the_full_key_everything() {
        let with = |flags| salt("go build", true, &[("NIX_CFLAGS_COMPILE", flags)]);
        let (one, two) = (with("-I/nix/store/1"), with("-I/nix/store/2"));
        assert_eq!(one.pure(&ACTION), two.pure(&ACTION));
        assert_ne!(full(&one), full(&two));
        assert_ne!(one.pure(&ACTION), Some(full(&one)));
        assert_ne!(one.pure(&ACTION), one.pure(&ActionId([8; 32])));
        let other = Salt::new(
            Variables::default(),
            Some(GoCommand::new(
                "/nix/store/b-go/bin/go".into(),
                Vec::new(),
                &Variables::default(),
            )),
            None,
            true,
        );
        assert_ne!(other.pure(&ACTION), one.pure(&ACTION));
    }

    #[test]
    fn only_what_is_proven_pure_goes_under_the_pure_key() {
        let salt = salt("go build", true, &[]);
        let full = Place::Shared(full(&salt));
        assert_eq!(place(&salt, Kind::PureArchive), pure(&salt));
        assert_eq!(place(&salt, Kind::Archive), full);
        assert_eq!(place(&salt, Kind::Other), full);
        let companion = Evidence {
            kind: Kind::Other,
            package: None,
            is_companion: true,
        };
        assert_eq!(salt.place(&ACTION, &companion), pure(&salt));
    }

    #[test]
    fn a_tool_in_between_leaves_nothing_pure() {
        for (line, goflags) in [("go build -toolexec /x", ""), ("go build", "-toolexec=/x")] {
            let salt = salt(line, true, &[("GOFLAGS", goflags)]);
            assert_eq!(salt.pure(&ACTION), None);
            let keys = salt.keys(&ACTION);
            assert_eq!(keys.len(), 1);
            assert_eq!(place(&salt, Kind::PureArchive), Place::Shared(keys[0]));
        }
    }

    #[test]
    fn a_go_that_cannot_be_told_shares_nothing() {
        let unknown = || Salt::new(Variables::default(), None, None, true);
        assert!(unknown().go().is_none());
        assert_eq!(unknown().pure(&ACTION), None);
        assert_ne!(unknown().keys(&ACTION)[0], unknown().keys(&ACTION)[0]);
    }

    #[test]
    fn an_index_is_shared_where_times_say_content() {
        let stamped = ("NIX_GOCACHEPROG_STAMPED", "1");
        let vendored = ("GOFLAGS", "-mod=vendor");
        for (in_build, vars, is_shared) in [
            (true, &[][..], false),
            (true, &[vendored], false),
            (true, &[stamped], false),
            (true, &[stamped, vendored], true),
            (false, &[], true),
        ] {
            let salt = salt("go build", in_build, vars);
            let place = place(&salt, Kind::ModuleIndex);
            if is_shared {
                assert_eq!(place, pure(&salt));
            } else {
                assert_eq!(place, Place::Private(full(&salt)), "{vars:?}");
            }
        }
    }

    #[test]
    fn a_result_of_a_test_is_shared_where_times_say_content_and_nobody_wants_it_run() {
        let stamped = ("NIX_GOCACHEPROG_STAMPED", "1");
        let run = ("NIX_GOCACHEPROG_TESTS", "run");
        for (line, in_build, vars, is_shared) in [
            ("go test", true, &[stamped][..], true),
            ("go test", false, &[], true),
            ("go test", true, &[], false),
            ("go build", true, &[stamped], false),
            ("go test", true, &[stamped, run], false),
            ("go test", false, &[run], false),
        ] {
            let salt = salt(line, in_build, vars);
            let keys = salt.keys(&ACTION);
            for kind in [Kind::TestLog, Kind::TestResult] {
                match place(&salt, kind) {
                    Place::Shared(key) => assert!(is_shared && keys[2] == key),
                    Place::Private(key) => {
                        assert!(!is_shared);
                        assert_eq!(keys.contains(&key), !vars.contains(&run));
                    }
                }
            }
        }
    }

    #[test]
    fn a_result_of_a_test_knows_its_derivation() {
        let of = |src| {
            let vars = [("NIX_GOCACHEPROG_STAMPED", "1"), ("checkInputs", src)];
            let keys = salt("go test", true, &vars).keys(&ACTION);
            (keys[1], keys[2])
        };
        let (one, two) = (of("/nix/store/1"), of("/nix/store/2"));
        assert_eq!(one.0, two.0);
        assert_ne!(one.1, two.1);
    }

    #[test]
    fn tags_and_the_go_commands_own_settings_count_for_c() {
        let full_of = |line: &str, vars: &[_]| full(&salt(line, true, vars));
        let plain = full_of("go build", &[]);
        assert_eq!(
            plain,
            full_of("go build -o x ./cmd", &[("GOFLAGS", "-trimpath")])
        );
        assert_ne!(plain, full_of("go build -tags alt", &[]));
        assert_ne!(plain, full_of("go build", &[("GOFLAGS", "-tags=alt")]));
        let dir = TestDir::new();
        let file = dir.path().join("env");
        std::fs::write(&file, "PKG_CONFIG=/x").unwrap();
        assert_ne!(
            plain,
            full_of("go build", &[("GOENV", file.to_str().unwrap())])
        );
    }

    #[test]
    fn without_c_the_toolchain_counts_for_tests_alone() {
        let dir = TestDir::new();
        let gcc = dir.path().join("gcc");
        let of = |line: &str, cgo: &str, text: &str| {
            std::fs::write(&gcc, text).unwrap();
            crate::fs::set_mode(&gcc, 0o755).unwrap();
            let vars = [
                ("PATH", dir.path().to_str().unwrap()),
                ("CGO_ENABLED", cgo),
                ("NIX_GOCACHEPROG_STAMPED", "1"),
            ];
            salt(line, true, &vars).keys(&ACTION).to_vec()
        };
        let differs = |line: &str, cgo: &str| {
            let (one, two) = (of(line, cgo, "#!/bin/sh\n"), of(line, cgo, "#!/bin/sh\n1"));
            Vec::from_iter(one.iter().zip(&two).map(|(one, two)| one != two))
        };
        assert_eq!(differs("go build", "1"), [false, true]);
        assert_eq!(differs("go build", "0"), [false, false]);
        assert_eq!(differs("go build -compiler=gccgo", "0"), [false, true]);
        assert_eq!(differs("go test", "0"), [false, false, true]);
    }

    #[test]
    fn files_of_an_overlay_count_by_content() {
        let dir = TestDir::new();
        let top = dir.path().canonicalize().unwrap();
        let (overlay, header) = (top.join("overlay.json"), top.join("v.h"));
        let text = format!("{{\"Replace\":{{\"/src/v.h\":{header:?},\"/src/gone.h\":\"\"}}}}");
        std::fs::write(&overlay, text).unwrap();
        let of = |text: &str| {
            std::fs::write(&header, text).unwrap();
            let line = format!("go build -overlay={}", overlay.display());
            full(&salt(
                &line,
                true,
                &[("NIX_BUILD_TOP", top.to_str().unwrap())],
            ))
        };
        assert_eq!(of("#define V 1"), of("#define V 1"));
        assert_ne!(of("#define V 1"), of("#define V 2"));
    }
}
