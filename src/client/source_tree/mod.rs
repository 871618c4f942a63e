//! The C and assembler inputs of a source tree: what a C compiler, pkg-config, SWIG or Go's assembler can read there,
//! and `go` does not hash.
//!
//! `go` hashes the files of a package's own folder that have an extension it knows (`buildActionID` in
//! cmd/go/internal/work/exec.go); an include can lead anywhere. So all files of the tree count here, names and bytes,
//! except kinds that are never included, as long as no C or assembler text names one of their kind.
//!
//! A tree in which nothing is compiled by C, and whose assembler files include only what `go` hashes, has no such
//! inputs, so all such trees are the same. `go` hands files to a C compiler only for packages with a Go file that
//! imports "C" or with a SWIG file (`Package.load` in cmd/go/internal/load/pkg.go refuses other C files), whatever
//! else is in the tree.

mod assembler;
mod memory;
mod modules;
mod roots;
mod settings;
mod text;
mod walk;

pub use assembler::Assembler;
use assembler::Assemblers;

use crate::client::parts::{self, Part};
use crate::client::processor;
use crate::error::{Error, Result};
use crate::sync::lock;
use memory::{Memory, Moment};
use modules::Modules;
use roots::{Roots, normal};
use serde::{Deserialize, Serialize};
use settings::Settings;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use text::{ImportsC, Named, imports_c, is_source_of_c, kind};
use walk::{Class, Except, FILES_MAX, Found, Walk};

/// How much of a Go file is read to find its imports, in bytes, before all of it is.
const GO_HEAD: usize = 4096;

/// A larger file is not looked at as a text, and may name any other, in bytes.
const TEXT_MAX: u64 = 8 << 20;

/// How many files are looked for outside of a build of Nix, where each `go` command looks for them again …
const FILES_OF_SHELL_MAX: usize = 200_000;

/// … and without a go.mod, where the folder may be somebody's home.
const FILES_WITHOUT_MODULE_MAX: usize = 5_000;

/// How many bytes are read outside of a build of Nix. What is above counts by its times.
const BYTES_OF_SHELL_MAX: u64 = 128 << 20;

/// How much of a file says whether it is a text, in bytes: there is no zero in it.
const TEXT_HEAD: u64 = 8192;

/// Variables with flags for C, which may name files.
const FLAGS: [&str; 5] = [
    "CGO_CFLAGS",
    "CGO_CPPFLAGS",
    "CGO_CXXFLAGS",
    "CGO_FFLAGS",
    "CGO_LDFLAGS",
];

/// How many inputs, or folders of them, are said.
const SAID_MAX: usize = 40;

/// In the place of the hash of what cannot be read.
const UNREADABLE: [u8; 32] = [0; 32];

/// In the place of the hash of a program that was built in the tree.
const PROGRAM: [u8; 32] = [1; 32];

/// What C and assembler can read in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// A hash over the names and bytes of all inputs. It is the same for all trees without any.
    pub digest: [u8; 32],
    /// There is a package that a C compiler or SWIG has a part in, in any build of this tree. The assembler's files
    /// alone are no such part.
    pub has_c: bool,
    /// The inputs, by name, with a hash each. Of many, the folders, with a slash at their end.
    pub said: Vec<Part>,
}

/// What was found in a tree, to be remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    assemblers: Assemblers,
    /// Once they were asked for.
    inputs: Option<Inputs>,
}

/// A source tree, as far as C and assembler can read it.
#[derive(Debug)]
pub struct SourceTree {
    assemblers: Assemblers,
    /// What is not in the tree.
    modules: Modules,
    /// Flags replace sources or programs.
    is_replaced: bool,
    inputs: OnceLock<Result<Inputs>>,
    /// Until the inputs are found.
    scan: Mutex<Option<Scan>>,
}

impl SourceTree {
    /// Looks at the tree of the `go` command that runs in `cwd` with these arguments, before it compiles anything.
    /// `env` has its variables. Where the tree is not remembered, this lists the files and reads those of Go's assembler.
    ///
    /// # Errors
    /// When there are more files than can be counted. Nothing that C or an assembler had a part in may be shared then.
    pub fn scan(
        cwd: &Path,
        args: &[OsString],
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        Self::scan_since(Memory::now, cwd, args, env)
    }

    /// Looks at the tree ahead of the `go` commands of a phase, which will remember it. All in it may have changed a moment
    /// ago.
    pub fn remember(cwd: &Path, env: impl Fn(&str) -> Option<OsString>) {
        // What cannot be looked at is for the commands to report.
        if let Ok(tree) = Self::scan_since(Memory::later, cwd, &[], env) {
            let compiles_c = lock(&tree.scan).as_ref().is_some_and(|scan| scan.cgo);
            if compiles_c {
                let _ = tree.inputs();
            }
        }
    }

    fn scan_since(
        since: impl Fn(&Memory) -> Result<Moment>,
        cwd: &Path,
        args: &[OsString],
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let settings = Settings::new(args, env);
        let roots = Roots::find(cwd, &settings);
        if roots.is_odd {
            return Err(Error::input(
                "go.mod or go.work has a path with escapes between quotes",
            ));
        }
        let memory = memory(&settings);
        let budget = match &memory {
            Some(_) => Budget::of_build(),
            None => Budget::of_shell(roots.has_module),
        };
        let modules = Modules::find(&roots, &settings);
        let mut scan = Scan::new(&settings, budget, roots);
        scan.memory = memory;
        let found = match scan.remembered() {
            Some(found) => found,
            None => scan.assemblers(since)?,
        };
        let inputs = OnceLock::new();
        if let Some(known) = found.inputs {
            let _ = inputs.set(Ok(known));
        }
        Ok(Self {
            assemblers: found.assemblers,
            modules,
            // The one replaces sources, the other one any program.
            is_replaced: settings.flag("overlay").is_some() || settings.flag("toolexec").is_some(),
            inputs,
            scan: Mutex::new(Some(scan)),
        })
    }

    /// What C and assembler can read, which is looked for when it is first asked for.
    ///
    /// # Errors
    /// When there is more than can be counted, or what cannot be known. Nothing that C or an assembler had a part in may be
    /// shared then.
    pub fn inputs(&self) -> std::result::Result<&Inputs, &Error> {
        let find = || {
            // Taken once, by whoever comes first.
            let scan = lock(&self.scan).take();
            let scan = scan.ok_or_else(|| Error::input("the source was looked at already"))?;
            scan.inputs(&self.assemblers)
        };
        self.inputs.get_or_init(find).as_ref()
    }

    /// A hash over the modules of the module cache that C or the assembler can read more of than `go` hashes, if there are any.
    ///
    /// # Errors
    /// When nobody knows which modules there are. Nothing that C or an assembler had a part in may be shared then.
    pub fn modules(&self) -> Result<Option<[u8; 32]>> {
        match self.modules.is_unknown {
            true => Err(Error::input("there is no go.sum yet")),
            false => Ok(self.modules.digest),
        }
    }

    /// What Go's assembler reads in all packages that may be compiled.
    pub fn assembler(&self) -> Assembler {
        let worst = self.assemblers.worst;
        match self.is_replaced || self.modules.may_be_open {
            true => worst.max(Assembler::Open),
            false => worst,
        }
    }

    /// Whether Go's assembler reads nothing that `go` does not hash in one package, by its path if that is known, which may be
    /// of Go's standard library.
    pub fn is_closed(&self, package: Option<&str>, is_standard: bool) -> bool {
        if self.is_replaced || self.assemblers.worst.hides_headers() {
            return false;
        }
        let may_be_open = || match package {
            Some(package) => self.assemblers.may_be_open(package, is_standard),
            None => !self.assemblers.worst.is_closed(),
        };
        (is_standard || !self.modules.may_be_open) && !may_be_open()
    }
}

/// That of a build of Nix. A shell has no end, and no directory of its own.
fn memory<F: Fn(&str) -> Option<OsString>>(settings: &Settings<F>) -> Option<Memory> {
    match settings.get("IN_NIX_SHELL") {
        Some(_) => None,
        None => Memory::of(
            &settings
                .path("NIX_BUILD_TOP")
                .filter(|top| top.is_absolute())?,
        ),
    }
}

/// How much may be looked at.
struct Budget {
    files: usize,
    bytes: u64,
}

impl Budget {
    /// Its source is unpacked for it alone, and looked at once.
    fn of_build() -> Self {
        Self {
            files: FILES_MAX,
            bytes: u64::MAX,
        }
    }

    fn of_shell(has_module: bool) -> Self {
        Self {
            files: if has_module {
                FILES_OF_SHELL_MAX
            } else {
                FILES_WITHOUT_MODULE_MAX
            },
            bytes: BYTES_OF_SHELL_MAX,
        }
    }
}

#[derive(Debug)]
struct Scan {
    /// The folders that the tree is below.
    roots: Vec<PathBuf>,
    /// Where the main module and the others are in it: two of one name may be there.
    places: Vec<PathBuf>,
    /// The command goes by a link's path.
    by_link: bool,
    walk: Walk,
    memory: Option<Memory>,
    /// When the look at the tree began, if it has and there is a memory.
    since: Option<Moment>,
    /// What assembler files include was followed, and these paths were looked at for it.
    followed: Option<BTreeSet<PathBuf>>,
    /// Go's assembler reads what its files include, and nothing else.
    is_plain: bool,
    /// C is compiled at all.
    cgo: bool,
    /// What texts and flags name.
    named: Named,
    /// What flags name, in any form.
    told: String,
    /// The build's own directory.
    top: Option<PathBuf>,
    /// C compiles the time of a file in.
    has_times: bool,
    /// What C compiles depends on the processor.
    asks_for_processor: bool,
    /// The bytes of what counts, by number of file.
    bytes: BTreeMap<usize, [u8; 32]>,
    /// The files that were looked through for what they name.
    looked_through: BTreeSet<usize>,
    /// How many bytes may still be read.
    bytes_left: u64,
    /// What was found depends on files that matter only because one of their kind is named.
    is_wide: bool,
    /// Paths outside of the tree that were looked for.
    looked_for: BTreeSet<PathBuf>,
}

impl Scan {
    fn new<F: Fn(&str) -> Option<OsString>>(
        settings: &Settings<F>,
        budget: Budget,
        roots: Roots,
    ) -> Self {
        let paths = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| Some(real(&settings.path(name)?)))
                .collect()
        };
        let mut except = Except {
            folders: paths(&["GOCACHE"]),
            temporary: paths(&["GOTMPDIR", "TMPDIR", "NIX_BUILD_TOP"]),
        };
        except.folders.extend(
            settings
                .path("XDG_CACHE_HOME")
                .or_else(|| Some(settings.path("HOME")?.join(".cache")))
                .map(|caches| real(&caches.join("go-build"))),
        );
        let mut named = Named::default();
        for flags in FLAGS {
            if let Some(flags) = settings.get(flags) {
                named.flags(flags.as_bytes());
            }
        }
        named.upward.clear();
        let is_told = |flag: &&str| settings.flag(flag).is_some();
        Self {
            places: places(&roots),
            by_link: roots.by_link,
            roots: roots.folders,
            walk: Walk::new(except, budget.files),
            memory: None,
            since: None,
            followed: None,
            is_plain: !["asmflags", "overlay", "toolexec", "compiler"]
                .iter()
                .any(is_told),
            cgo: settings
                .get("CGO_ENABLED")
                .is_none_or(|enabled| enabled != "0"),
            told: format!("{named:?}"),
            named,
            top: settings
                .path("NIX_BUILD_TOP")
                .filter(|top| top.parent().is_some()),
            has_times: false,
            asks_for_processor: false,
            bytes: BTreeMap::new(),
            looked_through: BTreeSet::new(),
            bytes_left: budget.bytes,
            is_wide: false,
            looked_for: BTreeSet::new(),
        }
    }

    /// A hash over all that decides what is looked at and how.
    fn question(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix("nix-gocacheprog: a question to a source tree\0");
        let (except, top) = (self.walk.except(), &self.top);
        hash.update(format!("{:?} {except:?} {top:?} ", self.roots));
        hash.update(format!("{:?} {} ", self.places, self.by_link));
        hash.update(format!("{} {} {}", self.cgo, self.is_plain, self.told));
        hash.finalize().into()
    }

    /// What an earlier command has found in the same tree.
    fn remembered(&self) -> Option<Answer> {
        self.memory.as_ref()?.get(&self.question())
    }

    /// Lists the files, and looks at what the assembler files among them include.
    fn assemblers(&mut self, since: impl Fn(&Memory) -> Result<Moment>) -> Result<Answer> {
        self.since = self.memory.as_ref().and_then(|memory| since(memory).ok());
        for root in &self.roots {
            self.walk.add(root)?;
        }
        self.walk.add_linked()?;
        let (assemblers, followed) = Assemblers::of_tree(&self.walk, self.by_link);
        self.followed = Some(followed);
        let found = Answer {
            assemblers,
            inputs: None,
        };
        // With C there is more to remember soon.
        if !self.cgo {
            self.remember(&found, DependsOn::Assembler);
        }
        Ok(found)
    }

    fn inputs(mut self, assemblers: &Assemblers) -> Result<Inputs> {
        if assemblers.is_beyond_reach {
            return Err(Error::input(
                "an assembler file includes one that is not there, in a tree with links",
            ));
        }
        if !self.cgo
            && let Some(found) = self.without_c(assemblers)
        {
            return Ok(found);
        }
        let assemblers = match self.followed {
            Some(_) => assemblers.clone(),
            // They were remembered without the rest.
            None => self.assemblers(Memory::now)?.assemblers,
        };
        let (inputs, depends) = self.look(&assemblers)?;
        let found = Answer {
            assemblers,
            inputs: Some(inputs.clone()),
        };
        self.remember(&found, depends);
        Ok(inputs)
    }

    /// The inputs where a C compiler has no part in anything, if assembler files tell what they include.
    fn without_c(&self, assemblers: &Assemblers) -> Option<Inputs> {
        if assemblers.worst == Assembler::None {
            return Some(nothing());
        }
        let included = assemblers.included.as_ref().filter(|_| self.is_plain)?;
        let digest = included.digest.map(|digest| {
            let mut hash = Sha256::new_with_prefix("nix-gocacheprog: what assembler reads\0");
            hash.update(digest);
            self.add_places(&mut hash);
            hash.finalize().into()
        });
        Some(Inputs {
            digest: digest.unwrap_or(nothing().digest),
            has_c: false,
            said: included.said.clone(),
        })
    }

    /// Remembers what was found, for the next command of this build.
    fn remember(&self, found: &Answer, depends: DependsOn) {
        let (Some(memory), Some(since)) = (&self.memory, self.since) else {
            return;
        };
        let counts = |file: &&Found| match depends {
            // Links give folders other names.
            DependsOn::Assembler => {
                file.is_name_only || assembler::may_read(file.name.1.as_bytes())
            }
            DependsOn::WhatMatters => self.matters(file),
            DependsOn::AllFiles => true,
        };
        let files = self.walk.files.iter().filter(counts);
        let folders = self.roots.iter().chain(&self.walk.folders);
        let folders = folders.chain(self.walk.version_control());
        let others = self.followed.iter().flatten().chain(&self.looked_for);
        let mut depends: BTreeSet<_> = folders.chain(others).cloned().collect();
        depends.extend(files.map(|file| self.walk.path(file)));
        // Next time it is looked for again.
        let _ = memory.put(&self.question(), since, &depends, found);
    }

    /// Whether a file can have a part in the answer, but for those that only a name makes inputs.
    fn matters(&self, file: &Found) -> bool {
        match file.class {
            // A link to a folder can have any name.
            _ if file.is_name_only => true,
            Class::Go => self.cgo,
            Class::NeverRead => false,
            Class::Assembler | Class::Swig | Class::Input => true,
        }
    }

    /// Reads what counts, and says on what that depends.
    fn look(&mut self, assemblers: &Assemblers) -> Result<(Inputs, DependsOn)> {
        let has_c = self.find_c();
        if !has_c && let Some(found) = self.without_c(assemblers) {
            return Ok((found, DependsOn::WhatMatters));
        }
        self.read_inputs()?;
        if self.has_times {
            return Err(Error::input(
                "C compiles the time of a file in: __TIMESTAMP__",
            ));
        }
        let inputs = Inputs {
            digest: self.digest(),
            has_c,
            said: self.said(),
        };
        let depends = match self.is_wide {
            true => DependsOn::AllFiles,
            false => DependsOn::WhatMatters,
        };
        Ok((inputs, depends))
    }

    /// Whether C is compiled. What the Go files name for which it is, is noted.
    fn find_c(&mut self) -> bool {
        if !self.cgo {
            return false;
        }
        let has_swig = self.walk.files.iter().any(|file| file.class == Class::Swig);
        let mut has_c = has_swig || self.walk.leads_to_store();
        for nth in 0..self.walk.files.len() {
            let file = &self.walk.files[nth];
            if file.class != Class::Go {
                continue;
            }
            let path = self.walk.path(file);
            if file.is_name_only || !go_file_imports_c(&path) {
                continue;
            }
            has_c = true;
            match std::fs::read(&path) {
                Ok(text) => self.note_named(&path, &text),
                Err(_) => self.named.any = true,
            }
        }
        has_c
    }

    /// Reads all inputs. Each can name others, of kinds that are no inputs otherwise, or of folders that are not in
    /// the tree.
    fn read_inputs(&mut self) -> Result<()> {
        self.add_upward()?;
        loop {
            let is_unread = |nth: &usize| match self.bytes.get(nth) {
                None => self.counts(&self.walk.files[*nth]),
                // It may have been named since.
                Some(_) => {
                    !self.looked_through.contains(nth) && self.is_named(&self.walk.files[*nth])
                }
            };
            let unread: Vec<_> = (0..self.walk.files.len()).filter(is_unread).collect();
            if unread.is_empty() {
                return Ok(());
            }
            for nth in unread {
                let file = &self.walk.files[nth];
                self.is_wide |= !self.matters(file);
                let path = self.walk.path(file);
                let is_named = self.is_named(file);
                let bytes = if file.is_name_only {
                    target(&path)
                } else {
                    self.read(&path, is_named)
                };
                if is_named {
                    self.looked_through.insert(nth);
                }
                self.bytes.insert(nth, bytes);
            }
            self.add_upward()?;
        }
    }

    fn counts(&self, file: &Found) -> bool {
        match file.class {
            Class::Assembler | Class::Swig | Class::Input => true,
            Class::Go | Class::NeverRead => self.is_named(file),
        }
    }

    /// Whether a text may name it.
    fn is_named(&self, file: &Found) -> bool {
        let name = Path::new(&file.name.1).file_name().unwrap_or_default();
        self.named.any || self.named.kinds.contains(&kind(name.as_bytes()))
    }

    /// The hash of a file's bytes. A program that was built in the tree is no input, unless it is named. What a text names
    /// counts if a compiler can come to it: by its kind, because it is a script, or because another one names it.
    fn read(&mut self, path: &Path, is_named: bool) -> [u8; 32] {
        let read = || -> std::io::Result<_> {
            let mut file = File::open(path)?;
            let mut head = Vec::new();
            (&mut file).take(TEXT_HEAD).read_to_end(&mut head)?;
            Ok((file.metadata()?.len(), head, file))
        };
        let Ok((size, mut text, mut file)) = read() else {
            return UNREADABLE;
        };
        if !is_named && may_be_program(path) && text.starts_with(b"\x7fELF") {
            return PROGRAM;
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        let is_text = !text.contains(&0)
            && (is_named || text.starts_with(b"#!") || is_source_of_c(&kind(name)));
        let Some(left) = self.bytes_left.checked_sub(size) else {
            self.named.any |= is_text;
            return file.metadata().map_or(UNREADABLE, |found| times(&found));
        };
        self.bytes_left = left;
        if size > TEXT_MAX {
            self.named.any |= is_text;
            let mut hash = Sha256::new_with_prefix(&text);
            return match std::io::copy(&mut file, &mut hash) {
                Ok(_) => hash.finalize().into(),
                Err(_) => UNREADABLE,
            };
        }
        if file.read_to_end(&mut text).is_err() {
            return UNREADABLE;
        }
        if is_text {
            self.note_named(path, &text);
        }
        Sha256::digest(&text).into()
    }

    /// Notes what a text names; what it names upward, from the folder of its file. Of what it names by an absolute path only
    /// what this build has made changes and keeps its path.
    fn note_named(&mut self, path: &Path, text: &[u8]) {
        // The times of files, which are no part of anything here.
        self.has_times |= memchr::memmem::find(text, b"__TIMESTAMP__").is_some();
        self.asks_for_processor |= processor::is_asked_for(text);
        let mut named = Named::default();
        named.scan(text);
        let folder = path.parent().unwrap_or(Path::new("/"));
        self.named.any |= named.any;
        self.named.kinds.append(&mut named.kinds);
        let is_own = |path: &Path| self.top.as_ref().is_some_and(|top| path.starts_with(top));
        for upward in named.upward {
            if upward.is_absolute() && !is_own(&upward) {
                continue;
            }
            let path = normal(&folder.join(upward));
            if !self.walk.has(&path) {
                self.named.upward.insert(path);
            }
        }
    }

    /// Adds folders beside the tree that a text has named. Of a folder that the tree is in, the files alone.
    fn add_upward(&mut self) -> Result<()> {
        while let Some(path) = self.named.upward.pop_first() {
            self.looked_for.insert(path.clone());
            let folder = match path.metadata() {
                Ok(found) if found.is_dir() => path.as_path(),
                Ok(_) => path.parent().unwrap_or(&path),
                Err(_) => continue,
            };
            if self.walk.is_around(folder) {
                self.walk.add_flat(folder)?;
            } else if !folder.starts_with("/nix/store") {
                self.walk.add(folder)?;
            }
        }
        self.walk.add_linked()
    }

    /// All inputs, or the folders that they are in, as deep as there is room for.
    fn said(&self) -> Vec<Part> {
        let deepest_first = [usize::MAX, 5, 4, 3, 2, 1, 0];
        let mut found = deepest_first.iter();
        found
            .find_map(|folders| self.said_in(*folders))
            .unwrap_or_default()
    }

    fn said_in(&self, folders: usize) -> Option<Vec<Part>> {
        let mut groups: BTreeMap<String, Sha256> = BTreeMap::new();
        for (nth, bytes) in &self.bytes {
            let file = &self.walk.files[*nth];
            let name = said_name(Path::new(&file.name.1), folders);
            let hash = groups.entry(name).or_default();
            add_name(hash, file.name.0, &file.name.1);
            hash.update(bytes);
            if groups.len() > SAID_MAX {
                return None;
            }
        }
        let groups = groups.into_iter();
        Some(
            groups
                .map(|(name, hash)| (name, parts::digits(&hash.finalize().into())))
                .collect(),
        )
    }

    fn add_places(&self, hash: &mut Sha256) {
        for place in &self.places {
            hash.update(place.as_os_str().as_bytes());
            hash.update([0]);
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix("nix-gocacheprog: inputs of C in a source tree\0");
        self.add_places(&mut hash);
        for (nth, bytes) in &self.bytes {
            let (root, name) = &self.walk.files[*nth].name;
            add_name(&mut hash, *root, name);
            hash.update(bytes);
        }
        // What is there is not looked at, and does not change.
        for (link, real) in self.walk.links_to_store() {
            for path in [self.walk.below_root(link).1, real] {
                hash.update(path.as_os_str().as_bytes());
                hash.update([0]);
            }
        }
        if self.asks_for_processor {
            hash.update(processor::hash());
        }
        hash.finalize().into()
    }
}

/// The real path of something that may be yet to be made.
fn real(path: &Path) -> PathBuf {
    let mut there = path.ancestors();
    let found = there.find_map(|folder| {
        let rest = path.strip_prefix(folder).ok()?;
        // By components, or nothing more would be a slash.
        let found = folder.canonicalize().ok()?;
        Some(found.components().chain(rest.components()).collect())
    });
    found.unwrap_or_else(|| path.to_path_buf())
}

/// Where the main module and all folders of source are, as seen from the first one.
fn places(roots: &Roots) -> Vec<PathBuf> {
    let Some(first) = roots.folders.first() else {
        return Vec::new();
    };
    let all = std::iter::once(&roots.main).chain(&roots.folders);
    all.map(|folder| relative(first, folder)).collect()
}

/// The way from one folder to another one, by the names alone.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let mut up = PathBuf::new();
    for base in from.ancestors() {
        if let Ok(rest) = to.strip_prefix(base) {
            return up.join(rest);
        }
        up.push("..");
    }
    to.to_path_buf()
}

/// The inputs of all trees without any.
fn nothing() -> Inputs {
    Inputs {
        digest: Sha256::digest("nix-gocacheprog: no inputs of C in a source tree\0").into(),
        has_c: false,
        said: Vec::new(),
    }
}

/// On which files of the tree an answer depends; on the names of all of them it does anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DependsOn {
    /// Those that Go's assembler can read.
    Assembler,
    /// Those that matter whatever they hold.
    WhatMatters,
    /// All.
    AllFiles,
}

/// A file, or the folder that stands for it and its like when so many folders are kept of a path.
fn said_name(name: &Path, folders: usize) -> String {
    if folders == usize::MAX {
        return name.to_string_lossy().into_owned();
    }
    let folder = name.parent().unwrap_or(Path::new(""));
    let kept: PathBuf = folder.components().take(folders).collect();
    format!(
        "{}/",
        if kept == Path::new("") {
            Path::new(".")
        } else {
            &kept
        }
        .display()
    )
}

fn add_name(hash: &mut Sha256, root: usize, name: &OsStr) {
    let name = name.as_bytes();
    hash.update((root as u64).to_le_bytes());
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
}

/// Stands for the bytes of what has none: where a link leads.
fn target(path: &Path) -> [u8; 32] {
    let target = std::fs::read_link(path).unwrap_or_default();
    Sha256::new_with_prefix("link\0")
        .chain_update(target.as_os_str().as_bytes())
        .finalize()
        .into()
}

/// Stands for the bytes of a file that is not read: they do not change without these.
fn times(found: &Metadata) -> [u8; 32] {
    let numbers = [
        found.dev() as i64,
        found.ino() as i64,
        found.size() as i64,
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ];
    let mut hash = Sha256::new_with_prefix("times\0");
    for number in numbers {
        hash.update(number.to_le_bytes());
    }
    hash.finalize().into()
}

/// Whether a name is like those of programs and tests that `go build` and `go test -c` write.
fn may_be_program(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    !name.contains(&b'.') || name.ends_with(b".test")
}

/// Whether a Go file imports "C"; one that cannot be read may.
fn go_file_imports_c(path: &Path) -> bool {
    let Ok(mut file) = File::open(path) else {
        return true;
    };
    let mut text = Vec::with_capacity(GO_HEAD);
    if (&mut file)
        .take(GO_HEAD as u64)
        .read_to_end(&mut text)
        .is_err()
    {
        return true;
    }
    let found = imports_c(&text, text.len() < GO_HEAD);
    if found != ImportsC::Unknown {
        return found == ImportsC::Yes;
    }
    file.read_to_end(&mut text).is_err() || imports_c(&text, true) == ImportsC::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::os::unix::fs::symlink;

    impl SourceTree {
        fn digest(&self) -> [u8; 32] {
            self.inputs().unwrap().digest
        }

        fn has_c(&self) -> bool {
            self.inputs().unwrap().has_c
        }
    }

    const CGO: &str = "package a\n\n// #include \"v.h\"\nimport \"C\"\n";

    /// A module in a directory of its own.
    struct Tree {
        dir: TestDir,
        vars: Vec<(&'static str, String)>,
    }

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Tree {
                dir: TestDir::new(),
                vars: Vec::new(),
            };
            tree.write("source/go.mod", "module example.com/a\n\ngo 1.24\n");
            // Modules of others come from here.
            tree.write("source/vendor/modules.txt", "");
            for (name, text) in files {
                tree.write(&format!("source/{name}"), text);
            }
            tree
        }

        fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
            self.vars.push((name, value.into()));
            self
        }

        /// As in a build of Nix, which has a memory.
        fn in_build(self) -> Self {
            let top = self.dir.path().to_str().unwrap().to_owned();
            self.with("NIX_BUILD_TOP", top)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn scan(&self) -> SourceTree {
            self.scan_with(&["go", "build"])
        }

        fn scan_with(&self, args: &[&str]) -> SourceTree {
            let args: Vec<_> = args.iter().map(OsString::from).collect();
            SourceTree::scan(&self.path("source"), &args, |name| self.var(name)).unwrap()
        }

        fn var(&self, name: &str) -> Option<OsString> {
            let found = self.vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        }

        /// Whether writing this makes other inputs of it.
        fn counts(&self, name: &str, text: &str) -> bool {
            let before = self.scan().digest();
            self.write(name, text);
            self.scan().digest() != before
        }
    }

    /// The digest of a tree without inputs.
    fn none() -> [u8; 32] {
        nothing().digest
    }

    #[test]
    fn a_tree_without_c_has_no_inputs() {
        let tree = Tree::new(&[
            ("a.go", "package a\n"),
            ("v.h", "x"),
            ("b/x.c", "x"),
            ("README.md", ""),
        ]);
        let found = tree.scan();
        assert_eq!(
            (found.digest(), found.has_c(), found.assembler().is_closed()),
            (none(), false, true)
        );
        assert!(!tree.counts("v.h", "y") && !tree.counts("new.inc", ""));
        assert!(tree.counts("source/c/c.go", CGO));
        assert!(tree.scan().has_c());
    }

    #[test]
    fn whatever_c_can_read_counts() {
        let tree = Tree::new(&[("p/a.go", CGO), ("p/v.h", "1")]);
        for name in [
            "p/v.h",
            "include/v.h",
            "p/v.inc",
            "p/v.inl",
            "p/v.def",
            "lib/libx.a",
            "lib/x.o",
            "lib/libx.so.1",
            "x.pc",
            "p/x.i",
            ".dot/v.h",
            "_x/v.h",
            "testdata/v.h",
            "vendor/x/v.h",
            "vector",
            "x.unheard-of",
            "p/a.c",
            "p/a.s",
        ] {
            let name = format!("source/{name}");
            assert!(tree.counts(&name, "2"), "{name}");
            assert!(tree.counts(&name, "3"), "{name}");
            assert!(!tree.counts(&name, "3"), "{name}");
        }
        for name in [
            "README.md",
            "x.json",
            ".git/HEAD",
            ".git/v.h",
            "logo.png",
            "LICENSE",
            "p/other.go",
        ] {
            assert!(
                !tree.counts(&format!("source/{name}"), "package a\n"),
                "{name}"
            );
        }
        // Which file it was counts too.
        std::fs::rename(tree.path("source/x.pc"), tree.path("source/y.pc")).unwrap();
        let before = tree.scan().digest();
        std::fs::rename(tree.path("source/y.pc"), tree.path("source/z.pc")).unwrap();
        assert_ne!(tree.scan().digest(), before);
    }

    #[test]
    fn without_cgo_no_go_file_has_c() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "1")]).with("CGO_ENABLED", "0");
        let found = tree.scan();
        assert_eq!((found.digest(), found.has_c()), (none(), false));
    }

    #[test]
    fn a_kind_that_a_text_names_counts() {
        for (name, text) in [
            ("p/v.h", "#include \"table.json\"\n"),
            (
                "p/a.go",
                "package a\n\n// #include \"table.json\"\nimport \"C\"\n",
            ),
            (
                "p/a.go",
                "package a\n\n// #cgo CFLAGS: -include ${SRCDIR}/../table.json\nimport \"C\"\n",
            ),
            ("p/x.c", "__asm__(\".incbin \\\"table.json\\\"\");\n"),
            ("p/x.c", "#include TABLE\n"),
        ] {
            let tree = Tree::new(&[("p/a.go", CGO), (name, text)]);
            assert!(tree.counts("source/table.json", "1"), "{text}");
            assert!(tree.counts("source/table.json", "2"), "{text}");
        }
        let tree = Tree::new(&[("a.go", CGO)]).with("CGO_CFLAGS", "-include table.json");
        assert!(tree.counts("source/table.json", "1"));
        // What is named by what is named.
        let tree = Tree::new(&[
            ("a.go", CGO),
            ("x.c", "#include \"one.md\""),
            ("one.md", "#include \"two.txt\""),
        ]);
        assert!(tree.counts("source/two.txt", "1"));
    }

    #[test]
    fn a_program_that_was_built_in_the_tree_does_not_count_until_it_is_named() {
        let tree = Tree::new(&[("a.go", CGO)]);
        tree.write("source/bin/a", "\x7fELF 1");
        assert!(!tree.counts("source/bin/a", "\x7fELF 2"));
        assert!(tree.counts("source/bin/a.so", "\x7fELF 1"));
        tree.write("source/z.c", "asm(\".incbin \\\"bin/a\\\"\");");
        assert!(tree.counts("source/bin/a", "\x7fELF 3"));
    }

    #[test]
    fn files_behind_links_count() {
        let tree = Tree::new(&[("a.go", CGO)]);
        tree.write("outside/v.h", "1");
        tree.write("folder/sub/w.h", "1");
        symlink("../outside/v.h", tree.path("source/v.h")).unwrap();
        symlink("../folder", tree.path("source/link")).unwrap();
        symlink("missing", tree.path("source/dangling.h")).unwrap();
        symlink("..", tree.path("source/link/loop")).unwrap();
        assert!(tree.counts("outside/v.h", "2"));
        assert!(tree.counts("folder/sub/w.h", "2"));
        let before = tree.scan().digest();
        std::fs::remove_file(tree.path("source/dangling.h")).unwrap();
        symlink("elsewhere", tree.path("source/dangling.h")).unwrap();
        assert_ne!(tree.scan().digest(), before);
    }

    #[test]
    fn what_is_replaced_beside_or_named_upward_counts() {
        let tree = Tree::new(&[("go.mod", "module a\nreplace b => ../b\n"), ("a.go", CGO)]);
        assert!(tree.counts("b/v.h", "1"));
        assert!(!tree.counts("beside/v.h", "1"));
        // All that was unpacked belongs to a build.
        let tree = Tree::new(&[("sub/go.mod", "module b\n")]).in_build();
        assert!(!tree.counts("beside/v.h", "1"));
        let tree = Tree::new(&[(
            "p/a.go",
            "package a\n// #cgo CFLAGS: -I${SRCDIR}/../../beside\nimport \"C\"\n",
        )]);
        tree.write("beside/other.h", "");
        assert!(tree.counts("beside/deep/v.h", "1"));
        assert!(!tree.counts("further/v.h", "1"));
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "#include \"../w.h\"\n")]);
        tree.write("w.h", "1");
        assert!(tree.counts("w.h", "2") && !tree.counts("further/v.h", "1"));
    }

    #[test]
    fn what_is_named_by_an_absolute_path_counts_if_the_build_has_made_it() {
        let tree = Tree::new(&[("go.mod", "module a\n")]).in_build();
        let top = tree.path("").display().to_string();
        let text = format!(
            "package a\n// #include \"{top}/made/v.h\"\n// #cgo LDFLAGS: -L{top}/lib\nimport \"C\"\n"
        );
        tree.write("source/a.go", &text);
        tree.write("made/v.h", "1");
        tree.write("lib/deep/x.a", "1");
        assert!(tree.counts("made/v.h", "2"));
        assert!(tree.counts("lib/deep/x.a", "2"));
        assert!(!tree.counts("further/v.h", "1"));
        let elsewhere = Tree::new(&[("go.mod", "module a\n"), ("a.go", &text)]).in_build();
        let before = elsewhere.scan().digest();
        tree.write("made/v.h", "3");
        assert_eq!(elsewhere.scan().digest(), before);
    }

    #[test]
    fn nothing_is_said_of_a_tree_whose_times_c_compiles_in() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "char *time = __TIMESTAMP__;")]);
        let error = tree.scan().inputs().unwrap_err().to_string();
        assert!(error.contains("__TIMESTAMP__"), "{error}");
    }

    #[test]
    fn special_files_are_known_by_name() {
        let tree = Tree::new(&[("a.go", CGO)]);
        let before = tree.scan().digest();
        let path = tree.path("source/x.h");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_ne!(tree.scan().digest(), before);
    }

    const CLOSED: &str = "#include \"textflag.h\"\n#include \"v.h\"\n";

    #[test]
    fn assembler_files_that_include_only_what_go_hashes_have_no_inputs() {
        let files = [
            ("p/a.s", CLOSED),
            ("p/v.h", "#define V 1\n"),
            ("p/a.go", "package a\n"),
        ];
        for cgo in ["0", "1"] {
            let tree = Tree::new(&files).with("CGO_ENABLED", cgo);
            let found = tree.scan();
            assert_eq!(
                (found.digest(), found.has_c(), found.assembler().is_closed()),
                (none(), false, true)
            );
            // Of its folder `go` hashes that.
            assert!(!tree.counts("source/p/v.h", "#define V 2\n"));
            tree.write("source/p/v.h", "#include \"../w.h\"\n");
            let found = tree.scan();
            assert!(
                !found.assembler().is_closed()
                    && !found.has_c()
                    && !found.assembler().hides_headers()
            );
            assert!(tree.counts("source/w.h", "#define V 2\n"));
            assert!(tree.counts("source/w.h", "#define V 3\n"));
        }
        let tree = Tree::new(&files);
        tree.write("source/p/textflag.h", "//go:build ignore\n");
        assert!(tree.scan().assembler().hides_headers());
    }

    #[test]
    fn assembler_files_of_other_modules_are_looked_at_or_distrusted() {
        let tree = Tree::new(&[
            ("a.go", "package a\n"),
            (
                "go.sum",
                "example.com/B v1.0.0 h1:x=\nexample.com/c v1.0.0/go.mod h1:x=\n",
            ),
        ]);
        let modules = tree.path("mod").to_str().unwrap().to_owned();
        let tree = tree.with("GOMODCACHE", modules);
        assert!(tree.scan().assembler().is_closed(), "vendored");
        std::fs::remove_file(tree.path("source/vendor/modules.txt")).unwrap();
        assert!(!tree.scan().assembler().is_closed(), "to be fetched");
        tree.write("mod/example.com/!b@v1.0.0/a.s", CLOSED);
        tree.write("mod/example.com/!b@v1.0.0/v.h", "");
        assert!(tree.scan().assembler().is_closed(), "closed");
        assert!(
            !tree
                .scan_with(&["go", "install", "example.com/d@latest"])
                .assembler()
                .is_closed()
        );
        assert!(
            !tree
                .scan_with(&["go", "build", "-overlay=x.json"])
                .assembler()
                .is_closed()
        );
        assert!(
            !tree
                .scan_with(&["go", "build", "-toolexec", "x"])
                .assembler()
                .is_closed()
        );
        tree.write(
            "mod/example.com/!b@v1.0.0/deep/b.s",
            "#include \"../v.h\"\n",
        );
        assert!(!tree.scan().assembler().is_closed(), "open");
        assert_eq!(tree.scan().digest(), none());
    }

    #[test]
    fn two_modules_of_one_name_in_a_tree_are_two() {
        let files = [
            ("one/go.mod", "module b\n"),
            ("two/go.mod", "module b\n"),
            ("p/a.s", "#include \"../v.inc\"\n"),
            ("v.inc", "1"),
            ("a.go", CGO),
        ];
        for cgo in ["0", "1"] {
            let tree = Tree::new(&files).with("CGO_ENABLED", cgo).in_build();
            let digest = |folder: &str| {
                let found = SourceTree::scan(&tree.path(folder), &[], |name| tree.var(name));
                let found = found.unwrap();
                found.inputs().unwrap().digest
            };
            assert_ne!(digest("source/one"), digest("source/two"), "{cgo}");
            assert_eq!(digest("source/one"), digest("source/one"), "{cgo}");
        }
    }

    #[test]
    fn packages_in_folders_that_are_left_out_elsewhere_count() {
        for folder in ["CVS", ".jj/q", "result-p", "go-build1"] {
            let tree = Tree::new(&[("a.go", "package a\n")]).in_build();
            tree.write(&format!("source/{folder}/a.go"), CGO);
            tree.write(&format!("source/{folder}/v.h"), "1");
            assert!(
                tree.counts(&format!("source/{folder}/v.h"), "2"),
                "{folder}"
            );
        }
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let files = [
            ("x/y.s", "#include \"/dev/zero\"\n"),
            ("a.go", "package a\n"),
        ];
        let tree = Tree::new(&files).with("CGO_ENABLED", "0");
        let fifo = tree.path("source/x/x.s");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        assert!(!tree.scan().assembler().is_closed());
    }

    #[test]
    fn an_include_that_only_a_links_path_leads_to_is_beyond_reach() {
        let tree = Tree::new(&[("p/a.s", "#include \"../../w.inc\"\n")]);
        let tree = tree.with("CGO_ENABLED", "0");
        assert!(tree.scan().inputs().is_ok());
        symlink("p", tree.path("source/linked")).unwrap();
        assert!(tree.scan().inputs().is_err());
    }

    #[test]
    fn modules_that_c_can_read_count_by_what_they_really_are() {
        let files = [
            ("a.go", "package a\n"),
            (
                "go.sum",
                "example.com/b v1.0.0 h1:x=\nexample.com/b v1.0.0/go.mod h1:x=\n",
            ),
        ];
        let tree = Tree::new(&files);
        std::fs::remove_file(tree.path("source/vendor/modules.txt")).unwrap();
        let modules = tree.path("mod").to_str().unwrap().to_owned();
        let tree = tree.with("GOMODCACHE", modules);
        let of = |tree: &Tree| tree.scan().modules().unwrap();
        assert!(of(&tree).is_some(), "to be fetched");
        for name in ["b.go", "README.md"] {
            tree.write(&format!("mod/example.com/b@v1.0.0/{name}"), "package b\n");
        }
        assert_eq!(of(&tree), None, "Go alone");
        tree.write("source/go.mod", "module a\nreplace c => ../c\n");
        assert_eq!(of(&tree), None, "in the tree");
        let mut seen = vec![None];
        for text in [
            "replace (\n c v1 => d v1 // one\n)\n",
            "replace c v1 => d v2\n",
        ] {
            tree.write("source/go.mod", &format!("module a\n{text}"));
            assert!(!seen.contains(&of(&tree)), "{text}");
            seen.push(of(&tree));
        }
        tree.write("mod/example.com/b@v1.0.0/include/b.h", "");
        assert!(!seen.contains(&of(&tree)), "a header");
        seen.push(of(&tree));
        tree.write("source/go.sum", "example.com/b v1.0.0 h1:y=\n");
        assert!(!seen.contains(&of(&tree)), "another one of that version");
        tree.write("source/vendor/modules.txt", "");
        tree.write(
            "source/go.mod",
            "module a\n\ngo 1.24\nreplace c v1 => d v2\n",
        );
        assert_eq!(of(&tree), None, "vendored");
        // A go.sum that is yet to be written.
        std::fs::remove_file(tree.path("source/go.sum")).unwrap();
        std::fs::remove_file(tree.path("source/vendor/modules.txt")).unwrap();
        tree.write("source/go.mod", "module a\n\ngo 1.24\n");
        assert_eq!(of(&tree), None, "no other module");
        tree.write("source/go.mod", "module a\n\ngo 1.24\nrequire b v1.0.0\n");
        assert!(tree.scan().modules().is_err() && !tree.scan().assembler().is_closed());
    }

    #[test]
    fn only_a_text_that_a_compiler_can_come_to_names_files() {
        let tree = Tree::new(&[
            ("a.go", CGO),
            ("Makefile.common", "# include Makefile.common\n"),
        ]);
        assert!(!tree.counts("source/README.md", "1") && !tree.counts("source/README.md", "2"));
        // It counts by its bytes all the same.
        assert!(tree.counts("source/Makefile.common", "# include x\n"));
        tree.write("source/v.h", "#include \"v.common\"\n");
        assert!(
            tree.counts("source/README.md", "3"),
            "of a kind that is named"
        );
        for (name, text) in [("cc", "#!/bin/sh\n# include x\n"), ("b.s", "#include X\n")] {
            let tree = Tree::new(&[("a.go", CGO), ("README.md", "1")]);
            assert!(tree.counts(&format!("source/{name}"), text));
            assert!(tree.counts("source/README.md", "2"), "{name}");
        }
    }

    /// Puts something else in the place of what is remembered, to see by it whether that is used.
    fn forge(tree: &Tree) {
        let memory = tree.path(".nix-gocacheprog-source");
        for entry in std::fs::read_dir(memory).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let digest = b"\"digest\":[";
            let at = memchr::memmem::rfind(&bytes, digest).expect("inputs are remembered");
            let at = at + digest.len();
            let end = at + bytes[at..].iter().position(|byte| *byte == b']').unwrap();
            let forged = [9; 32].map(|byte: u8| byte.to_string()).join(",");
            bytes.splice(at..end, forged.into_bytes());
            let end = bytes.len() - 32;
            let hash = Sha256::digest(&bytes[..end]);
            bytes[end..].copy_from_slice(&hash);
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// As a command does whose tree was there for some time before.
    fn scan_later(tree: &Tree) -> SourceTree {
        SourceTree::remember(&tree.path("source"), |name| tree.var(name));
        tree.scan()
    }

    #[test]
    fn a_tree_is_remembered_with_all_that_its_inputs_depend_on() {
        let computed = "#include X\n";
        for (text, name, is_forgotten) in [
            ("1", "source/v.h", true),
            ("1", "source/a.go", true),
            ("1", "source/new.h", true),
            ("1", "source/deep/new.md", true),
            ("1", "source/README.md", false),
            (computed, "source/README.md", true),
            ("#include \"../w.h\"\n", "w.h", true),
            ("#include \"../later.h\"\n", "later.h", true),
        ] {
            let files = [
                ("a.go", CGO),
                ("v.h", text),
                ("README.md", ""),
                ("deep/b.h", ""),
            ];
            let tree = Tree::new(&files).in_build();
            tree.write("w.h", "1");
            let first = tree.scan().digest();
            assert_eq!(scan_later(&tree).digest(), first);
            forge(&tree);
            assert_eq!(tree.scan().digest(), [9; 32]);
            tree.write(name, if name == "source/a.go" { CGO } else { text });
            assert_eq!(
                tree.scan().digest() != [9; 32],
                is_forgotten,
                "{text} {name}"
            );
        }
    }

    #[test]
    fn what_was_looked_at_before_go_made_its_cache_is_remembered() {
        let tree = Tree::new(&[("a.go", CGO)]).in_build();
        let cache = tree.path("go-cache").to_str().unwrap().to_owned();
        let tree = tree.with("GOCACHE", cache);
        scan_later(&tree);
        forge(&tree);
        assert_eq!(tree.scan().digest(), [9; 32]);
        std::fs::create_dir(tree.path("go-cache")).unwrap();
        assert_eq!(tree.scan().digest(), [9; 32]);
    }

    #[test]
    fn what_changes_while_it_is_looked_at_is_not_remembered() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "1")]).in_build();
        assert_eq!(scan_later(&tree).digest(), tree.scan().digest());
        forge(&tree);
        // Another answer takes the place of the forged one only if it is a good one.
        tree.write("source/v.h", "1");
        let first = tree.scan().digest();
        assert_ne!(first, [9; 32]);
        assert_eq!(scan_later(&tree).digest(), first);
        forge(&tree);
        assert_eq!(tree.scan().digest(), [9; 32]);
    }

    #[test]
    fn without_c_it_is_remembered_what_assembler_files_include() {
        let files = [
            ("p/a.s", "#include \"../w.h\"\n#include \"v.h\"\n"),
            ("p/v.h", ""),
            ("w.h", "#include \"x.inc\"\n"),
            ("p/x.inc", "1"),
            ("other.h", ""),
            ("other.inc", ""),
        ];
        for (name, counts) in [
            ("w.h", true),
            ("p/x.inc", true),
            ("p/v.h", false),
            ("other.h", false),
            ("other.inc", false),
            ("new.inc", false),
            ("x.inc", false),
        ] {
            let tree = Tree::new(&files).with("CGO_ENABLED", "0").in_build();
            let first = scan_later(&tree);
            assert!(!first.assembler().is_closed());
            let said = &first.inputs().unwrap().said;
            let said: Vec<_> = said.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(said, ["w.h", "p/x.inc"]);
            let name = format!("source/{name}");
            let include = if name.ends_with("w.h") {
                "#include \"x.inc\"\n//"
            } else {
                "//"
            };
            assert_eq!(tree.counts(&name, include), counts, "{name}");
            assert!(!tree.counts(&name, include), "{name}");
        }
        // What flags add can include anything.
        let tree = Tree::new(&files).with("CGO_ENABLED", "0");
        let digest = |tree: &Tree| tree.scan_with(&["go", "build", "-asmflags=-I/x"]).digest();
        let before = digest(&tree);
        tree.write("source/other.inc", "2");
        assert_ne!(digest(&tree), before);
        // By a name that stands for `#`, too.
        let tree = Tree::new(&[("a.s", "INC include \"v.inc\"\n"), ("v.inc", "1")]);
        let tree = tree.with("CGO_ENABLED", "0");
        assert_eq!(tree.scan().digest(), none());
        let before = digest(&tree);
        tree.write("source/v.inc", "2");
        assert_ne!(digest(&tree), before);
    }

    #[test]
    fn assembler_of_one_package_says_nothing_of_others() {
        let open = "#include \"../v.h\"\n";
        let tree = Tree::new(&[
            ("v.h", ""),
            ("asm/x25519/a.s", open),
            ("vendor/example.com/b/c/a.s", "RET\n"),
        ]);
        let found = tree.scan();
        let is_closed = |package| found.is_closed(Some(package), false);
        assert!(!found.assembler().is_closed());
        assert!(is_closed("example.com/b/c") && is_closed("runtime"));
        for package in [
            "example.com/a/asm/x25519",
            "x25519",
            "main",
            "command-line-arguments",
            "a%2eb",
        ] {
            assert!(!is_closed(package), "{package}");
        }
        assert!(!found.is_closed(None, false) && found.is_closed(Some("runtime"), true));
        // Of a main module that is named like it.
        assert!(!found.is_closed(Some("x25519"), true));
        for (name, text, package, is_closed) in [
            ("a.s", open, "example.com/a", false),
            ("a.s", open, "example.com/b", false),
            ("deep/go.mod", "module x\n", "example.com/b", true),
            ("deep/a.s", open, "example.com/b", false),
            ("textflag.h", "//go:build ignore\n", "example.com/b", true),
        ] {
            let tree = Tree::new(&[(name, text)]);
            if name == "deep/a.s" {
                tree.write("source/deep/go.mod", "module x\n");
            }
            assert_eq!(
                tree.scan().is_closed(Some(package), false),
                is_closed,
                "{name} {package}"
            );
        }
        for (name, target, package, is_closed) in [
            ("linked", "source/asm/x25519", "example.com/a/linked", false),
            ("linked", "source/asm/x25519", "example.com/a/other", true),
            ("linked", "source/asm", "example.com/a/linked", true),
        ] {
            let tree = Tree::new(&[("v.h", ""), ("asm/x25519/a.s", open)]);
            symlink(tree.path(target), tree.path("source").join(name)).unwrap();
            assert_eq!(
                tree.scan().is_closed(Some(package), false),
                is_closed,
                "{target} {package}"
            );
        }
        for flag in ["-overlay=x.json", "-toolexec=x"] {
            let tree = Tree::new(&[("a.go", "package a\n")]);
            assert!(
                !tree
                    .scan_with(&["go", "build", flag])
                    .is_closed(Some("runtime"), true),
                "{flag}"
            );
        }
    }

    /// Makes a file's times old, as in the store: all but the one that nobody can set.
    fn age(path: &Path) {
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1))
            .unwrap();
    }

    #[test]
    fn equal_size_and_time_with_other_bytes_is_noticed() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "#define V 1")]).in_build();
        age(&tree.path("source/v.h"));
        let before = tree.scan().digest();
        tree.write("source/v.h", "#define V 2");
        age(&tree.path("source/v.h"));
        assert_ne!(tree.scan().digest(), before);
    }

    #[test]
    fn what_go_itself_writes_does_not_count() {
        let tree = Tree::new(&[("a.go", CGO)]);
        let [cache, tmp] =
            ["source/cache", "source/tmp"].map(|name| tree.path(name).to_str().unwrap().to_owned());
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::create_dir_all(&tmp).unwrap();
        let tree = tree.with("GOCACHE", cache).with("TMPDIR", tmp);
        assert!(!tree.counts("source/cache/00/x-d", "1"));
        assert!(!tree.counts("source/tmp/go-build1/b001/_cgo_export.h", "1"));
        assert!(tree.counts("source/tmp/other.h", "1"));
    }

    #[test]
    fn above_its_budget_a_file_counts_by_its_times() {
        let tree = Tree::new(&[("a.go", CGO), ("v.h", "#define V 1")]);
        let digest = |bytes| {
            let settings = Settings::new(&[], |_| None);
            let budget = Budget {
                bytes,
                ..Budget::of_shell(true)
            };
            let roots = Roots::find(&tree.path("source"), &settings);
            let mut scan = Scan::new(&settings, budget, roots);
            let found = scan.assemblers(Memory::now).unwrap();
            scan.look(&found.assemblers).unwrap().0.digest
        };
        let (read, looked_at) = (digest(1 << 20), digest(0));
        assert_ne!(read, looked_at);
        assert_eq!(looked_at, digest(0));
        std::fs::remove_file(tree.path("source/v.h")).unwrap();
        tree.write("source/v.h", "#define V 1");
        assert_eq!(read, digest(1 << 20));
        assert_ne!(looked_at, digest(0));
    }

    #[test]
    fn where_there_is_no_module_few_files_are_looked_for() {
        let dir = crate::test_dir::TestDir::new();
        std::fs::write(dir.path().join("a.go"), "package main").unwrap();
        let scan = || SourceTree::scan(dir.path(), &[], |_| None);
        assert!(scan().is_ok());
        for n in 0..=FILES_WITHOUT_MODULE_MAX {
            std::fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        assert!(scan().is_err());
        std::fs::write(dir.path().join("go.mod"), "module a").unwrap();
        assert!(scan().is_ok());
    }
}
