//! What a put's body is, by its own bytes: whether a C toolchain can have had a part in it.
//!
//! `go` says nothing of an action but its hash, so a body has to tell by itself who wrote it. Whatever is not known
//! for certain is [`Kind::Other`] or [`Kind::Archive`], which C may have touched.
//!
//! How `go` makes a package's archive (`build` in cmd/go/internal/work/exec.go, of Go 1.21 to 1.27): the compiler
//! writes it with two members, `__.PKGDEF` and `_go_.o` (cmd/compile/internal/gc/obj.go). When the package has
//! assembler files, cgo or `.syso` files, `go` appends their objects (`packInternal` in work/gc.go), one for each
//! file. For each file that imports "C" there is an object of the C compiler, and one more for `_cgo_export.c`, even
//! if no function of C is called and only constants or types are used. So an archive with two members holds nothing
//! of C: what the compiler reads, `go` has hashed.

use crate::id::ActionId;
use crate::sha256::Sha256;
use memchr::memmem;

/// What an archive begins with.
const ARCHIVE: &[u8] = b"!<arch>\n";

/// What an index of a module or package begins with, up to its version (cmd/go/internal/modindex/write.go).
const MODULE_INDEX: &[u8] = b"go index v";

/// What the log of a test begins with (`testlogMagic` in cmd/go/internal/test/test.go).
const TEST_LOG: &[u8] = b"# test log\n";

/// What the last line of a test's output begins with, when `go` keeps it (`tryCacheWithID` in
/// cmd/go/internal/test/test.go).
const PASSED: &[u8] = b"ok  \t";

/// The bytes of a member's header (cmd/internal/archive/archive.go).
const HEADER: usize = 60;

/// Time, user, group and mode of a member: Go's tools write no others.
const ATTRIBUTES: &[u8] = b"0           0     0     644     ";

/// What every object of Go's begins with, a definition of a package too (`HeaderString` in
/// cmd/internal/objabi/util.go).
const OBJECT: &[u8] = b"go object ";

/// What ends an object's text, and how the format's name begins that follows (cmd/internal/goobj/objfile.go).
const OBJECT_DATA: &[u8] = b"!\n\0go1";

/// What cgo has the compiler pass on to the linker stands at the beginning of `_go_.o`. One of these is there for each
/// package that uses cgo; the runtime has only exports.
const CGO_MARKS: [&[u8]; 3] = [
    b"\"cgo_ldflag\"",
    b"\"cgo_import_static\"",
    b"\"cgo_dynamic_linker\"",
];

/// How much of a member is looked at, in bytes: the text of an object has some hundreds.
const HEAD: usize = 4096;

/// How much is kept of a line that may be a test's last one, in bytes. An import path is shorter.
const LINE: usize = 4096;

/// What was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Go archive with nothing in it but what the Go compiler writes.
    PureArchive,
    /// A pure archive with objects of Go's assembler, which may have included files that `go` has not hashed.
    AssemblerArchive,
    /// An archive of any other content: C may have been compiled into it.
    Archive,
    /// The index of a module or a package.
    ModuleIndex,
    /// What a test has read, as the test binary noted it.
    TestLog,
    /// What a test that passed has written.
    TestResult,
    /// Anything else.
    Other,
}

/// Tells the kind of a body that comes in pieces. It needs a fixed amount of memory.
#[derive(Debug)]
pub struct Classifier {
    /// The beginning of the body, until it is known what it is.
    start: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The beginning is that of more than one kind.
    Undecided,
    Archive(Archive),
    ModuleIndex,
    TestLog,
    Lines(LastLine),
}

impl Default for Classifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Classifier {
    /// One that has seen nothing yet.
    pub fn new() -> Self {
        Self {
            start: Vec::new(),
            state: State::Undecided,
        }
    }

    /// Takes the next piece, of any length.
    pub fn push(&mut self, mut piece: &[u8]) {
        while matches!(self.state, State::Undecided) {
            let Some((first, rest)) = piece.split_first() else {
                return;
            };
            self.start.push(*first);
            piece = rest;
            self.decide();
        }
        match &mut self.state {
            State::Archive(archive) => archive.push(piece),
            State::Lines(line) => line.push(piece),
            State::Undecided | State::ModuleIndex | State::TestLog => {}
        }
    }

    /// Whether what has come so far is the beginning of an archive, or may become one.
    pub fn is_archive_so_far(&self) -> bool {
        match self.state {
            State::Undecided => ARCHIVE.starts_with(&self.start),
            State::Archive(_) => true,
            _ => false,
        }
    }

    /// Says what the body was, now that all of it has come.
    pub fn finish(self) -> Kind {
        match self.state {
            State::Undecided => Kind::Other,
            State::Archive(archive) => archive.finish(),
            State::ModuleIndex => Kind::ModuleIndex,
            State::TestLog => Kind::TestLog,
            State::Lines(line) if line.is_of_passed_test() => Kind::TestResult,
            State::Lines(_) => Kind::Other,
        }
    }

    fn decide(&mut self) {
        let start = self.start.as_slice();
        if start == ARCHIVE {
            self.state = State::Archive(Archive::default());
        } else if start == MODULE_INDEX {
            self.state = State::ModuleIndex;
        } else if start == TEST_LOG {
            self.state = State::TestLog;
        } else if ![ARCHIVE, MODULE_INDEX, TEST_LOG]
            .iter()
            .any(|magic| magic.starts_with(start))
        {
            let mut line = LastLine::default();
            line.push(start);
            self.state = State::Lines(line);
        }
    }
}

/// The members of an archive, as they pass.
#[derive(Debug, Default)]
struct Archive {
    at: Place,
    /// Members so far, this one included.
    members: usize,
    /// The header of the next member, as far as it has come; then the beginning of the member.
    bytes: Vec<u8>,
    /// Something was found that neither Go's compiler nor its assembler writes.
    is_foreign: bool,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Header,
    /// In a member, with so many bytes to come and then perhaps a byte of padding.
    Member {
        left: u64,
        padded: bool,
    },
    Padding,
}

impl Archive {
    fn push(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && !self.is_foreign {
            match self.at {
                Place::Header => {
                    let taken = (HEADER - self.bytes.len()).min(piece.len());
                    self.bytes.extend_from_slice(&piece[..taken]);
                    piece = &piece[taken..];
                    if self.bytes.len() == HEADER {
                        self.begin_member();
                    }
                }
                Place::Member { left, padded } => {
                    let taken = usize::try_from(left).map_or(piece.len(), |n| n.min(piece.len()));
                    let kept = taken.min(HEAD - self.bytes.len());
                    self.bytes.extend_from_slice(&piece[..kept]);
                    piece = &piece[taken..];
                    let left = left - taken as u64;
                    self.at = Place::Member { left, padded };
                    if left == 0 {
                        self.end_member(padded);
                    }
                }
                Place::Padding => {
                    // The compiler and `packInternal` write a zero.
                    self.is_foreign |= piece[0] != 0;
                    piece = &piece[1..];
                    self.at = Place::Header;
                }
            }
        }
    }

    /// Reads a header. An empty member is none of Go's: cmd/go's `preferlinkext` and `dynimportfail` are.
    fn begin_member(&mut self) {
        self.members += 1;
        let name = self.bytes[..16].trim_ascii_end();
        let is_known = match self.members {
            1 => name == b"__.PKGDEF",
            2 => name == b"_go_.o",
            // An assembler's object is named after its file, whose name cannot begin like this: `go` ignores those
            // (`matchFile` in go/build). The C compiler's are `_x001.o` and so on.
            _ => !name.is_empty() && !name.starts_with(b"_") && !name.contains(&b'/'),
        };
        let size = self.bytes[48..58].trim_ascii_end();
        let size = Some(size)
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok())
            .unwrap_or(0);
        let is_written_by_go =
            self.bytes[16..48] == *ATTRIBUTES && self.bytes[58..] == *b"`\n" && size > 0;
        self.is_foreign |= !is_known || !is_written_by_go;
        self.bytes.clear();
        self.at = Place::Member {
            left: size,
            padded: size % 2 == 1,
        };
    }

    fn end_member(&mut self, padded: bool) {
        let head = self.bytes.as_slice();
        let is_go = match self.members {
            1 => true,
            2 => !CGO_MARKS
                .iter()
                .any(|mark| memmem::find(head, mark).is_some()),
            _ => head
                .split_inclusive(|byte| *byte == b'\n')
                .next()
                .is_some_and(|line| head[line.len()..].starts_with(OBJECT_DATA)),
        };
        self.is_foreign |= !is_go || !head.starts_with(OBJECT);
        self.bytes.clear();
        self.at = if padded {
            Place::Padding
        } else {
            Place::Header
        };
    }

    fn finish(self) -> Kind {
        let is_whole = matches!(self.at, Place::Header) && self.bytes.is_empty();
        match self.members {
            _ if self.is_foreign || !is_whole => Kind::Archive,
            0 | 1 => Kind::Archive,
            2 => Kind::PureArchive,
            _ => Kind::AssemblerArchive,
        }
    }
}

/// The last line of a text, which may still go on.
#[derive(Debug, Default)]
struct LastLine {
    line: Vec<u8>,
    is_ended: bool,
}

impl LastLine {
    fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.is_ended {
                self.line.clear();
            }
            let kept = part.len().min(LINE.saturating_sub(self.line.len()));
            self.line.extend_from_slice(&part[..kept]);
            self.is_ended = part.ends_with(b"\n");
        }
    }

    /// As `go` decides whether it can print a result that it has kept.
    fn is_of_passed_test(&self) -> bool {
        let package = self.line.strip_prefix(PASSED);
        self.is_ended && package.is_some_and(|package| package.contains(&b'\t'))
    }
}

/// The action of something that `go` keeps beside another action's output: for a package's archive "stdout" is what
/// its compiler has written (`Subkey` in cmd/go/internal/cache/hash.go). `go` takes no archive without it
/// (`useCache` in cmd/go/internal/work/buildid.go).
pub fn subkey(action: &ActionId, what: &str) -> ActionId {
    let hash = Sha256::new_with_prefix("subkey:")
        .chain_update(action.0)
        .chain_update(what);
    ActionId(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Vec<u8> {
        format!("go object linux amd64 go1.27.3 GOAMD64=v1 X:dwarf5\n{text}!\n\0go120ld data")
            .into()
    }

    fn compiled() -> Vec<u8> {
        object("build id \"a/b\"\n\n\n")
    }

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let head = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            "644",
            content.len()
        );
        let padding = &[0][..content.len() % 2];
        [head.as_bytes(), content, padding].concat()
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = ARCHIVE.to_vec();
        for (name, content) in members {
            bytes.extend(member(name, content));
        }
        bytes
    }

    /// A pure archive, with members behind it.
    fn with(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = archive(&[("__.PKGDEF", &compiled()), ("_go_.o", &compiled())]);
        bytes.extend(&archive(members)[ARCHIVE.len()..]);
        bytes
    }

    fn kind(bytes: &[u8]) -> Kind {
        let of_pieces = |length| {
            let mut classifier = Classifier::new();
            for piece in bytes.chunks(length) {
                classifier.push(piece);
            }
            classifier.finish()
        };
        let kind = of_pieces(usize::MAX);
        for length in [1, 2, 59, 64] {
            assert_eq!(of_pieces(length), kind, "in pieces of {length}");
        }
        kind
    }

    #[test]
    fn only_what_gos_compiler_and_assembler_write_is_theirs() {
        assert_eq!(kind(&with(&[])), Kind::PureArchive);
        let assembled = object("");
        assert_eq!(
            kind(&with(&[
                ("a_amd64.o", &assembled),
                ("a_file_with_a_lo", &assembled)
            ])),
            Kind::AssemblerArchive
        );
        let elf = b"\x7fELF\x02\x01\x01\0";
        let long_text = object(&"x".repeat(HEAD));
        let foreign: [(&str, &[u8]); 12] = [
            ("a.o", elf),
            ("_x001.o", elf),
            ("_x001.o", &assembled),
            ("_cgo_.o", &assembled),
            ("a.syso", b"\x64\x86"),
            ("a.o", b"\xcf\xfa\xed\xfe"),
            ("preferlinkext", b""),
            ("dynimportfail", b""),
            ("/", &assembled),
            ("a.o/", &assembled),
            ("a.o", &compiled()),
            ("a.o", &long_text),
        ];
        for (name, content) in foreign {
            assert_eq!(kind(&with(&[(name, content)])), Kind::Archive, "{name}");
            assert_eq!(
                kind(&with(&[(name, content), ("b.o", &assembled)])),
                Kind::Archive,
                "{name}, then another"
            );
        }
    }

    #[test]
    fn an_archive_without_the_compilers_two_members_is_not_pure() {
        let go = compiled();
        for members in [
            &[][..],
            &[("__.PKGDEF", &go[..])],
            &[("_go_.o", &go)],
            &[("_go_.o", &go), ("__.PKGDEF", &go)],
            &[("__.PKGDEF", &go), ("a.o", &go)],
            &[("__.PKGDEF", &go), ("_go_.o", b"\x7fELF")],
            &[("__.PKGDEF", b"v1;\n"), ("_go_.o", &go)],
        ] {
            assert_eq!(kind(&archive(members)), Kind::Archive, "{members:?}");
        }
    }

    #[test]
    fn what_cgo_passes_to_the_linker_is_a_mark_of_c() {
        let passed = |pragmas: &str| {
            let go = object(&format!(
                "build id \"a/b\"\n\n\n$$\n\n$$\n\n\n$$  // cgo\n{pragmas}\n$$\n\n"
            ));
            kind(&archive(&[("__.PKGDEF", &compiled()), ("_go_.o", &go)]))
        };
        assert_eq!(
            passed(r#"[["cgo_export_static","main"]]"#),
            Kind::PureArchive
        );
        assert_eq!(passed(r#"[["cgo_ldflag","-O2"]]"#), Kind::Archive);
        assert_eq!(
            passed(r#"[["cgo_import_static","x_cgo_init"]]"#),
            Kind::Archive
        );
    }

    #[test]
    fn a_damaged_archive_is_not_pure() {
        let whole = with(&[("a.o", &object(""))]);
        let two = with(&[]).len();
        for length in ARCHIVE.len()..whole.len() {
            let expected = if length == two {
                Kind::PureArchive
            } else {
                Kind::Archive
            };
            assert_eq!(kind(&whole[..length]), expected, "{length} bytes");
        }
        let mut longer = whole.clone();
        longer.push(b'\n');
        assert_eq!(kind(&longer), Kind::Archive);
        // The first member's name, its time, its mode, its size, the end of its header.
        for at in [8, 24, 48, 56, 66] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(kind(&damaged), Kind::Archive, "byte {at}");
        }
    }

    #[test]
    fn other_bodies_are_known_by_their_first_or_last_line() {
        for (body, expected) in [
            ("go index v2\n\0\0", Kind::ModuleIndex),
            ("go index", Kind::Other),
            ("# test log\n", Kind::TestLog),
            ("# test log\ngetenv HOME\n", Kind::TestLog),
            ("# test log", Kind::Other),
            ("PASS\nok  \texample.com/a\t0.005s\n", Kind::TestResult),
            ("ok  \texample.com/a\t0.005s\n", Kind::TestResult),
            ("ok  \texample.com/a\t0.005s", Kind::Other),
            ("ok  \texample.com/a\t0.005s\n\n", Kind::Other),
            ("ok  \texample.com/a\n", Kind::Other),
            ("ok \texample.com/a\t0.005s\n", Kind::Other),
            ("", Kind::Other),
            ("!<arch>", Kind::Other),
            ("./a.go\n", Kind::Other),
        ] {
            assert_eq!(kind(body.as_bytes()), expected, "{body:?}");
        }
        let long = format!("{}ok  \texample.com/a\t0.005s\n", "x".repeat(3 * LINE));
        assert_eq!(kind(long.as_bytes()), Kind::Other);
        assert_eq!(
            kind(format!("{long}ok  \ta\t1s\n").as_bytes()),
            Kind::TestResult
        );
    }

    #[test]
    fn an_archive_is_told_by_its_first_bytes() {
        let mut classifier = Classifier::new();
        assert!(classifier.is_archive_so_far());
        classifier.push(b"!<ar");
        assert!(classifier.is_archive_so_far());
        classifier.push(b"ch>\n\x7f");
        assert!(classifier.is_archive_so_far());
        let mut classifier = Classifier::new();
        classifier.push(b"!<arx");
        assert!(!classifier.is_archive_so_far());
    }

    #[test]
    fn a_subkey_is_gos() {
        // GODEBUG=gocachehash=1 go build: HASH subkey 0707... "stdout" = ...
        let action = ActionId([7; 32]);
        let by_hand = Sha256::digest([&b"subkey:"[..], &[7; 32], b"stdout"].concat());
        assert_eq!(subkey(&action, "stdout"), ActionId(by_hand));
        assert_ne!(subkey(&action, "stdout"), subkey(&action, "srcfiles"));
    }
}
