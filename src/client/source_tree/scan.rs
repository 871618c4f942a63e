//! A look at a source tree: lists its files, reads what C and Go's assembler can read of them, and follows what those name.

use super::assembler::{self, Assembler, Assemblers};
use super::memory::{Memory, Moment};
use super::roots::{Roots, normal};
use super::settings::Settings;
use super::text::{ImportsC, Named, imports_c, is_source_of_c, kind};
use super::walk::{Class, Except, FILES_MAX, Found, Walk};
use super::{Answer, Inputs, SAID_MAX, TEXT_MAX, add_name};
use crate::client::parts::{self, Part};
use crate::client::pkg_config;
use crate::client::processor;
use crate::client::programs;
use crate::client::unknown;
use crate::error::{Error, Result};
use crate::sha256::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How much of a Go file is read to find its imports, in bytes, before all of it is.
const GO_HEAD: usize = 4096;

/// How many files are looked for outside of a build of Nix, where each `go` command looks for them again …
const FILES_OF_SHELL_MAX: usize = 200_000;

/// … and without a go.mod, where the folder may be somebody's home.
pub(super) const FILES_WITHOUT_MODULE_MAX: usize = 5_000;

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

/// The folders of an installed library.
const OF_PREFIX: [&str; 4] = ["include", "lib", "lib64", "share"];

/// In the place of the hash of what cannot be read.
const UNREADABLE: [u8; 32] = [0; 32];

/// In the place of the hash of a program that was built in the tree.
const PROGRAM: [u8; 32] = [1; 32];

/// How much may be looked at.
pub(super) struct Budget {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

impl Budget {
    /// Its source is unpacked for it alone, and looked at once.
    pub(super) fn of_build() -> Self {
        Self {
            files: FILES_MAX,
            bytes: u64::MAX,
        }
    }

    pub(super) fn of_shell(has_module: bool) -> Self {
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

/// A look at the tree of one `go` command.
#[derive(Debug)]
pub(super) struct Scan {
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
    pub(super) cgo: bool,
    /// What texts and flags name.
    named: Named,
    /// What flags name, in any form.
    told: String,
    /// The build's own directory.
    top: Option<PathBuf>,
    /// A user's own, which is more than a source tree.
    home: Option<PathBuf>,
    /// Programs of the C toolchain that this build has made or unpacked. They may read anything of it.
    own_programs: BTreeSet<PathBuf>,
    /// Flags name files and folders of this build, for whatever is compiled.
    is_led: bool,
    /// Why nobody can tell what C reads.
    beyond: Option<Error>,
    /// The same, if a .pc file counts.
    beyond_pc: Option<Error>,
    /// A Go file asks pkg-config for flags.
    asks_pkg_config: bool,
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
    pub(super) fn new<F: Fn(&str) -> Option<OsString>>(
        settings: &Settings<F>,
        budget: Budget,
        roots: Roots,
        led_to: BTreeSet<PathBuf>,
        memory: Option<Memory>,
    ) -> Self {
        let paths = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| Some(real(&settings.path(name)?)))
                .collect()
        };
        let top = settings
            .path("NIX_BUILD_TOP")
            .filter(|top| top.parent().is_some());
        let own_programs = top.as_ref().map_or_else(BTreeSet::new, |top| {
            programs::of_build(top, |name| settings.get(name))
        });
        let mut except = Except {
            folders: paths(&["GOCACHE"]),
            temporary: paths(&["GOTMPDIR", "TMPDIR", "NIX_BUILD_TOP"]),
            around: of_go(settings, own_programs.is_empty()),
        };
        except.folders.extend(
            settings
                .path("XDG_CACHE_HOME")
                .or_else(|| Some(settings.path("HOME")?.join(".cache")))
                .map(|caches| real(&caches.join("go-build"))),
        );
        let mut named = Named::default();
        let mut beyond = None;
        // Some may be of `go env -w`, which no variable has.
        for flags in FLAGS.iter().filter_map(|flags| settings.get(flags)) {
            named.flags(flags.as_bytes());
            if programs::unquoted(flags.as_bytes()).any(programs::leads_upward) {
                beyond = Some(Error::input("flags of C lead out of the package's folder"));
            }
        }
        named.upward.retain(|path| {
            top.as_ref()
                .is_some_and(|top| programs::is_of_build(path, top))
        });
        named.upward.extend(led_to);
        let is_led = !named.upward.is_empty();
        let has_pc_file = |folder: &PathBuf| {
            let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.any(|entry| entry.file_name().as_bytes().ends_with(b".pc"))
        };
        let asks_pkg_config = named.upward.iter().any(has_pc_file);
        let files = named.upward.iter().filter(|path| path.is_file());
        let kinds = files.filter_map(|path| Some(kind(path.file_name()?.as_bytes())));
        named.kinds.extend(kinds.collect::<Vec<_>>());
        let is_told = |flag: &&str| settings.flag(flag).is_some();
        Self {
            places: places(&roots),
            by_link: roots.by_link,
            roots: roots.folders,
            walk: Walk::new(except, budget.files),
            memory,
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
            home: settings.path("HOME"),
            top,
            own_programs,
            is_led,
            beyond,
            beyond_pc: None,
            // The modules of others may.
            asks_pkg_config,
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
        hash.update(format!(
            "{:?} {} {:?} ",
            self.places, self.by_link, self.home
        ));
        hash.update(format!("{:?} ", self.own_programs));
        hash.update(format!("{} {} {}", self.cgo, self.is_plain, self.told));
        hash.finalize()
    }

    /// What an earlier command has found in the same tree.
    pub(super) fn remembered(&self) -> Option<Answer> {
        self.memory.as_ref()?.get(&self.question())
    }

    /// Lists the files, and looks at what the assembler files among them include.
    pub(super) fn assemblers(
        &mut self,
        since: impl Fn(&Memory) -> Result<Moment>,
    ) -> Result<Answer> {
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

    pub(super) fn inputs(mut self, assemblers: &Assemblers) -> Result<Inputs> {
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
            hash.finalize()
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
        let has_c = self.find_c() | self.add_all_for_own_programs()? | (self.cgo && self.is_led);
        if !has_c && let Some(found) = self.without_c(assemblers) {
            return Ok((found, DependsOn::WhatMatters));
        }
        self.read_inputs()?;
        let beyond_pc = self.beyond_pc.take().filter(|_| self.asks_pkg_config);
        if let Some(beyond) = self.beyond.take().or(beyond_pc) {
            return Err(beyond);
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

    /// Lets all of the build count where nobody can tell what a compiler or its script reads of it; says whether that is so.
    fn add_all_for_own_programs(&mut self) -> Result<bool> {
        let top = self.top.clone().filter(|_| self.cgo);
        let Some(top) = top.filter(|_| !self.own_programs.is_empty()) else {
            return Ok(false);
        };
        self.named.any = true;
        self.walk.add(&top)?;
        for program in self.own_programs.clone() {
            let folder = program.parent().unwrap_or(&top);
            match programs::is_scratch(folder) && folder.ancestors().nth(2).is_none() {
                true => self.is_beyond(format!("{} may read anything", program.display())),
                false => self.walk.add(folder)?,
            }
        }
        self.walk.add_linked()?;
        Ok(true)
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
                Ok(text) => {
                    self.asks_pkg_config |= memchr::memmem::find(&text, b"pkg-config").is_some();
                    self.note_named(&path, &text);
                }
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
        let (size, mut text, mut file) = match read() {
            Ok(read) => read,
            Err(e) => return unread(path, &e),
        };
        if !is_named && may_be_program(path) && text.starts_with(b"\x7fELF") {
            return PROGRAM;
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        let is_text = !text.contains(&0)
            && (is_named || text.starts_with(b"#!") || is_source_of_c(&kind(name)));
        let Some(left) = self.bytes_left.checked_sub(size) else {
            self.named.any |= is_text;
            let found = file.metadata();
            return found.map_or_else(|e| unread(path, &e), |found| times(&found));
        };
        self.bytes_left = left;
        if size > TEXT_MAX {
            self.named.any |= is_text;
            if is_text && is_source_of_c(&kind(name)) {
                self.is_beyond(format!("{} is too large to look through", path.display()));
            }
            let mut hash = Sha256::new_with_prefix(&text);
            return match std::io::copy(&mut file, &mut hash) {
                Ok(_) => hash.finalize(),
                Err(e) => unread(path, &e),
            };
        }
        if let Err(e) = file.read_to_end(&mut text) {
            return unread(path, &e);
        }
        if is_text {
            self.note_named(path, &text);
        }
        Sha256::digest(&text)
    }

    /// Notes what a text names; what it names upward, from the folder of its file. Of what it names by an absolute path only
    /// what this build has made changes and keeps its path.
    fn note_named(&mut self, path: &Path, text: &[u8]) {
        // The times of files, which are no part of anything here.
        if memchr::memmem::find(text, b"__TIMESTAMP__").is_some() {
            self.is_beyond("C compiles the time of a file in: __TIMESTAMP__");
        }
        self.asks_for_processor |= processor::is_asked_for(text);
        let mut named = Named::default();
        named.scan(text);
        let mut folders = vec![path.parent().unwrap_or(Path::new("/")).to_path_buf()];
        if path.extension().is_some_and(|extension| extension == "pc") {
            // pkg-config may take the place of a link or where it leads.
            let real = path.canonicalize().ok();
            folders.extend(real.and_then(|real| Some(real.parent()?.to_path_buf())));
            folders.dedup();
            for folder in &folders {
                self.note_pc_file(path, folder, text, &mut named);
            }
        }
        self.named.any |= named.any;
        self.named.kinds.append(&mut named.kinds);
        let top = self.top.as_ref();
        if let Some(top) = top {
            named.paths_below(text, top.as_os_str().as_bytes());
        }
        let is_own = |path: &Path| top.is_some_and(|top| programs::is_of_build(path, top));
        for upward in named.upward {
            if upward.is_absolute() && !is_own(&upward) {
                continue;
            }
            for folder in &folders {
                let path = normal(&folder.join(&upward));
                if !self.walk.has(&path) {
                    self.named.upward.insert(path);
                }
            }
        }
    }

    /// Notes where a .pc file leads: by what it says, or by its own place, as pkg-config may be told to take it.
    fn note_pc_file(&mut self, path: &Path, folder: &Path, text: &[u8], named: &mut Named) {
        let Some(values) = pkg_config::values(text, ".") else {
            let why = format!("{} says more than can be told here", path.display());
            self.beyond_pc.get_or_insert_with(|| Error::input(why));
            return;
        };
        let top = self.top.as_deref().map(real);
        let mut prefixes = BTreeSet::new();
        if OF_PREFIX
            .iter()
            .any(|name| folder.ends_with(Path::new(name).join("pkgconfig")))
        {
            prefixes.extend(folder.ancestors().nth(2).map(Path::to_path_buf));
        }
        for value in values {
            // The prefix itself, which no compiler is told of.
            let path = normal(&folder.join(&value));
            if Some(&path) == top.as_ref() {
                prefixes.insert(path);
            } else {
                named.flags(value.as_bytes());
                if let Some(top) = &self.top {
                    named.paths_below(value.as_bytes(), top.as_os_str().as_bytes());
                }
            }
        }
        for prefix in prefixes {
            // Where the source is, too, and all that Nix and `go` have there.
            if Some(&prefix) == top.as_ref() {
                named.upward.extend(OF_PREFIX.map(|name| prefix.join(name)));
            } else if prefix.parent().is_some() {
                named.upward.insert(prefix);
            }
        }
    }

    /// Notes why nobody can tell what C reads; the first reason is as good as others.
    fn is_beyond(&mut self, why: impl Into<String>) {
        self.beyond.get_or_insert_with(|| Error::input(why));
    }

    /// Adds folders beside the tree, or around it, that a text has named.
    fn add_upward(&mut self) -> Result<()> {
        while let Some(path) = self.named.upward.pop_first() {
            self.looked_for.insert(path.clone());
            let folder = match path.metadata() {
                Ok(found) if found.is_dir() => path.as_path(),
                Ok(_) => path.parent().unwrap_or(&path),
                Err(_) => continue,
            };
            if self.holds_more_than_source(folder) {
                self.is_beyond(format!(
                    "C may read anything in {}, which {} leads to",
                    folder.display(),
                    path.display()
                ));
            } else if !folder.starts_with("/nix/store") {
                self.walk.add(folder)?;
            }
        }
        self.walk.add_linked()
    }

    /// Whether this is a user's home, the whole machine, or anything between, or around the build's own directory.
    fn holds_more_than_source(&self, folder: &Path) -> bool {
        let folder = real(folder);
        let top = self.top.as_deref().map(real);
        let is_around_top = top
            .as_ref()
            .is_some_and(|top| *top != folder && top.starts_with(&folder));
        let is_of_build = |home: &&PathBuf| top.as_ref().is_some_and(|top| home.starts_with(top));
        let home = self.home.as_deref().map(real);
        let home = home.as_ref().filter(|home| !is_of_build(home));
        is_around_top
            || folder.parent().is_none()
            || home.is_some_and(|home| home.starts_with(&folder))
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
                .map(|(name, hash)| (name, parts::digits(&hash.finalize())))
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
        for root in self.walk.roots() {
            let from = self.roots.first().map_or(Path::new("/"), PathBuf::as_path);
            hash.update(relative(from, root).as_os_str().as_bytes());
            hash.update([0]);
        }
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
        hash.finalize()
    }
}

/// Folders of what `go` downloads, counts and installs. What is installed may be started by a compiler that the build has made
/// itself.
fn of_go<F: Fn(&str) -> Option<OsString>>(
    settings: &Settings<F>,
    has_installed: bool,
) -> Vec<PathBuf> {
    let home = settings.path("HOME");
    let config = settings.path("XDG_CONFIG_HOME");
    let config = config.or_else(|| Some(home.as_ref()?.join(".config")));
    let gopaths = settings.get("GOPATH");
    let gopaths: Vec<_> = match gopaths {
        Some(gopaths) => std::env::split_paths(&gopaths).collect(),
        None => home.iter().map(|home| home.join("go")).collect(),
    };
    let of_pkg = |gopath: &PathBuf| ["pkg/mod", "pkg/sumdb"].map(|name| gopath.join(name));
    let mut folders: Vec<_> = gopaths.iter().flat_map(of_pkg).collect();
    folders.extend(settings.path("GOMODCACHE"));
    folders.extend(config.map(|config| config.join("go")));
    if has_installed {
        folders.extend(gopaths.iter().map(|gopath| gopath.join("bin")));
        folders.extend(settings.path("GOBIN"));
    }
    folders.retain(|folder| folder.is_absolute());
    folders
}

/// What stands for a file's bytes that could not be read.
fn unread(path: &Path, failure: &std::io::Error) -> [u8; 32] {
    match unknown::is_nothing(path, failure) {
        true => UNREADABLE,
        false => unknown::nonce(),
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
pub(super) fn nothing() -> Inputs {
    Inputs {
        digest: Sha256::digest("nix-gocacheprog: no inputs of C in a source tree\0"),
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

/// Stands for the bytes of what has none: where a link leads.
fn target(path: &Path) -> [u8; 32] {
    let target = std::fs::read_link(path).unwrap_or_default();
    Sha256::new_with_prefix("link\0")
        .chain_update(target.as_os_str().as_bytes())
        .finalize()
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
    hash.finalize()
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
