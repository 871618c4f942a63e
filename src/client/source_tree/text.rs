//! What texts say of other files: C's and the assembler's directives, and a Go file's import of "C".
//!
//! Nothing here parses C. Whatever could be a directive is taken for one, and where a file's name is computed, every
//! file may be meant.

use crate::client::programs::OPTIONS;
use memchr::memmem;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Files that C or assembler text names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Extensions without the dot, and names without an extension, in lower case.
    pub kinds: BTreeSet<String>,
    /// Some name is computed: any file may be meant.
    pub any: bool,
    /// Paths upward, relative to the file that names them, and absolute ones.
    pub upward: BTreeSet<PathBuf>,
}

/// Words of directives that read a file: C and C++ (`#include`, `#include_next`, `#embed`, `__has_include`, `import`),
/// Objective-C (`#import`), the assemblers' (`.include`, `.incbin`), SWIG (`%include`, `%import`) and Fortran.
const STEMS: [&[u8]; 4] = [b"include", b"import", b"embed", b"incbin"];

impl Named {
    /// Takes note of all that a text names.
    pub fn scan(&mut self, text: &[u8]) {
        let text = &*without_splices(text);
        let is_trigraph = |three: &[u8]| three == b"??=" || three == b"??/";
        self.any |= text.windows(3).any(is_trigraph);
        let mut at = 0;
        while at < text.len() {
            let stem = match text[at] | 0x20 {
                b'i' | b'e' => STEMS.iter().find(|stem| begins_with(&text[at..], stem)),
                _ => None,
            };
            match stem {
                Some(stem) => {
                    let end = at + stem.len();
                    self.directive(&text[..at], &text[end..]);
                    at = end;
                }
                None => at += 1,
            }
        }
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(start) = memmem::find(line, b"#cgo") {
                self.flags(&line[start + 4..]);
            }
        }
    }

    /// Takes note of the files that flags of a compiler or linker name, wherever they stand in them.
    pub fn flags(&mut self, flags: &[u8]) {
        for word in flags.split(|byte| byte.is_ascii_whitespace() || b"=,:;'\"".contains(byte)) {
            self.name(word);
            let below = memmem::find(word, b"${SRCDIR}/").map(|at| &word[at + 10..]);
            let option = OPTIONS.iter().find_map(|option| word.strip_prefix(*option));
            self.path(below.or(option).unwrap_or(word));
        }
    }

    /// Takes note of paths below the build's own directory, wherever they stand.
    pub fn paths_below(&mut self, text: &[u8], top: &[u8]) {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-@".contains(byte);
        for at in memmem::find_iter(text, top) {
            let length = text[at..].iter().position(|byte| !is_part(byte));
            let path = &text[at..length.map_or(text.len(), |length| at + length)];
            if path.get(top.len()) == Some(&b'/') && path.len() > top.len() + 1 {
                self.upward.insert(PathBuf::from(OsStr::from_bytes(path)));
            }
        }
    }

    fn directive(&mut self, before: &[u8], after: &[u8]) {
        let line = before
            .rsplit(|byte| *byte == b'\n')
            .next()
            .unwrap_or(before);
        let is_has = line.ends_with(b"__has_");
        let is_directive = is_has || is_directive_before(line);
        let mut after = after;
        if begins_with(after, b"_next") {
            after = &after[5..];
        }
        let mut after = after.trim_ascii_start();
        if let Some(rest) = after.strip_prefix(b"(") {
            after = rest.trim_ascii_start();
        }
        // Within a string, quotes are escaped. One that is not ends the string, and what comes then is a macro.
        let is_escaped = after.starts_with(b"\\");
        let after = after.strip_prefix(b"\\").unwrap_or(after);
        let Some((open, rest)) = after.split_first() else {
            return;
        };
        let quotes = line.iter().filter(|byte| **byte == b'"').count();
        if *open == b'"' && !is_escaped && line.ends_with(b".") && quotes % 2 == 1 {
            self.any = true;
            return;
        }
        let close = match open {
            b'"' | b'\'' => *open,
            b'<' => b'>',
            _ => {
                self.any |= is_directive;
                return;
            }
        };
        let end = rest
            .iter()
            .position(|byte| *byte == close || *byte == b'\n');
        let name = &rest[..end.unwrap_or(rest.len())];
        // The string may end before the name does.
        let is_closed = !is_escaped || name.ends_with(b"\\");
        let name = name.strip_suffix(b"\\").unwrap_or(name);
        // A backslash stands before the parameter of a macro; a name that ends in a dot goes on in another string.
        let is_plain = |byte: &u8| {
            byte.is_ascii_alphanumeric() || b"_./+-@~$ ".contains(byte) || *byte >= 0x80
        };
        let is_whole = is_closed
            && !name.ends_with(b"/")
            && !name.is_empty()
            && !name.ends_with(b".")
            && name.trim_ascii() == name
            && name.iter().all(is_plain);
        if is_whole {
            self.name(name);
            self.path(name);
        } else {
            self.any |= is_directive;
        }
    }

    fn name(&mut self, path: &[u8]) {
        if let Some(name) = path
            .rsplit(|byte| *byte == b'/')
            .next()
            .filter(|name| !name.is_empty())
        {
            self.kinds.insert(kind(name));
        }
    }

    fn path(&mut self, path: &[u8]) {
        if memmem::find(path, b"..").is_some() || path.starts_with(b"/") {
            self.upward.insert(PathBuf::from(OsStr::from_bytes(path)));
        }
    }
}

/// The kinds of files that a C compiler, Go's assembler, SWIG or pkg-config reads without another text naming them, or that
/// are written to be included; sorted.
const SOURCES_OF_C: [&str; 35] = [
    "asm", "c", "cc", "cpp", "cu", "cuh", "cxx", "def", "f", "f90", "for", "h", "hh", "hpp", "hxx",
    "i", "ii", "inc", "inl", "ipp", "ixx", "m", "mm", "pc", "s", "swg", "swig", "swigcxx", "sx",
    "tbl", "tcc", "tpp", "txx", "x", "xm",
];

/// Whether files of this kind are texts for a C compiler or its like.
pub fn is_source_of_c(kind: &str) -> bool {
    SOURCES_OF_C.binary_search(&kind).is_ok()
}

/// What a file is known by: its extension, or its name if it has none; in lower case.
pub fn kind(name: &[u8]) -> String {
    let extension = name.iter().rposition(|byte| *byte == b'.');
    let kind = extension.map_or(name, |at| &name[at + 1..]);
    String::from_utf8_lossy(kind).to_ascii_lowercase()
}

/// Whether a directive's word may follow at the end of this line.
fn is_directive_before(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    match line.last() {
        Some(b'#' | b'%' | b'@') => true,
        Some(b':') => line.ends_with(b"%:"),
        // A comment between the two.
        Some(b'/') => line.ends_with(b"*/") && line.iter().any(|byte| b"#%".contains(byte)),
        Some(b'.') => match line[..line.len() - 1] {
            // In a string of C's, after a line's end.
            [.., b'\\', b'n' | b't'] => true,
            [.., byte] => !byte.is_ascii_alphanumeric() && !b"_)]}".contains(&byte),
            [] => true,
        },
        _ => false,
    }
}

fn begins_with(text: &[u8], word: &[u8]) -> bool {
    text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word)
}

/// Without the ends of lines that a backslash takes away.
fn without_splices(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    let mut from = 0;
    for (at, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b'\\') {
        let blanks = text[at + 1..]
            .iter()
            .take_while(|byte| b" \t\r".contains(byte))
            .count();
        let end = at + 1 + blanks;
        if text.get(end) == Some(&b'\n') && at >= from {
            out.extend_from_slice(&text[from..at]);
            from = end + 1;
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[from..]);
    Cow::Owned(out)
}

/// Whether a Go file imports "C".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportsC {
    Yes,
    No,
    /// More of the file is needed.
    Unknown,
}

/// Looks at the beginning of a Go file, or all of it if it `is_whole`. Imports come before everything else in a file
/// (<https://go.dev/ref/spec#Source_file_organization>). What is no Go counts as importing it.
pub fn imports_c(text: &[u8], is_whole: bool) -> ImportsC {
    let mut tokens = Tokens(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
    let found = tokens.import_c();
    match found {
        // Cut off anywhere, a word may be half of one.
        None if !is_whole => ImportsC::Unknown,
        Some(false) if !is_whole && tokens.0.len() < "import".len() => ImportsC::Unknown,
        None | Some(true) => ImportsC::Yes,
        Some(false) => ImportsC::No,
    }
}

struct Tokens<'a>(&'a [u8]);

impl<'a> Tokens<'a> {
    /// `None` if the text ends before that is certain, or is no Go.
    fn import_c(&mut self) -> Option<bool> {
        if self.word()? != b"package" {
            return None;
        }
        self.word()?;
        loop {
            self.skip()?;
            if self.0.is_empty() {
                return Some(false);
            }
            if !self.0.starts_with(b"import") {
                return Some(false);
            }
            self.word()?;
            self.skip()?;
            let is_group = self.0.first() == Some(&b'(');
            if is_group {
                self.0 = &self.0[1..];
            }
            loop {
                self.skip()?;
                if is_group && self.0.first()? == &b')' {
                    self.0 = &self.0[1..];
                    break;
                }
                if self.path()? == b"C" {
                    return Some(true);
                }
                if !is_group {
                    break;
                }
            }
        }
    }

    /// Passes blanks, semicolons and comments.
    fn skip(&mut self) -> Option<()> {
        loop {
            let blanks = self
                .0
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace() || **byte == b';');
            self.0 = &self.0[blanks.count()..];
            let end = if self.0.starts_with(b"//") {
                self.0
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .unwrap_or(self.0.len())
            } else if self.0.starts_with(b"/*") {
                memmem::find(&self.0[2..], b"*/")? + 4
            } else {
                return Some(());
            };
            self.0 = &self.0[end..];
        }
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        self.skip()?;
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80;
        let (word, rest) = self.0.split_at(self.0.iter().take_while(is_part).count());
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// The path of an import, after its name if it has one. One with escapes is not read.
    fn path(&mut self) -> Option<&'a [u8]> {
        if let Some(rest) = self.0.strip_prefix(b".") {
            self.0 = rest;
        } else if !b"\"`".contains(self.0.first()?) {
            self.word()?;
        }
        self.skip()?;
        let (quote, rest) = self.0.split_first()?;
        if !b"\"`".contains(quote) {
            return None;
        }
        let end = rest.iter().position(|byte| byte == quote)?;
        let path = &rest[..end];
        self.0 = &rest[end + 1..];
        (!path.contains(&b'\\')).then_some(path)
    }
}

/// The assembler's directives (`hash` in cmd/asm/internal/lex/input.go).
const DIRECTIVES: [&[u8]; 8] = [
    b"define", b"else", b"endif", b"ifdef", b"ifndef", b"include", b"line", b"undef",
];

/// The files that a text for Go's assembler includes; `None` if it cannot be told. The assembler reads them after
/// `#include` alone, at the beginning of a line, with the name as it stands there (`hash` and `include` in
/// cmd/asm/internal/lex/input.go). A `#` anywhere else could get there by a macro.
pub fn assembler_includes(text: &[u8]) -> Option<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut in_comment = false;
    let mut in_macro = false;
    for line in text.split(|byte| *byte == b'\n') {
        let code = without_comments(line, &mut in_comment)?;
        let code = code.trim_ascii();
        let was_in_macro = in_macro;
        in_macro &= code.ends_with(b"\\");
        let directive = match code.iter().position(|byte| *byte == b'#') {
            None => None,
            Some(0) if !was_in_macro && !code[1..].contains(&b'#') => Some(directive(&code[1..])?),
            Some(_) => return None,
        };
        match directive {
            Some((b"include", name)) => {
                let name = name.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
                let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-+/".contains(byte);
                if name.is_empty() || !name.iter().all(is_plain) {
                    return None;
                }
                found.insert(String::from_utf8_lossy(name).into_owned());
            }
            Some((b"define", _)) => in_macro = code.ends_with(b"\\"),
            _ => {}
        }
        // A macro may go on where its comment ends.
        if in_comment && (in_macro || was_in_macro || matches!(directive, Some((b"define", _)))) {
            return None;
        }
    }
    Some(found)
}

/// The directive after a `#`, and what follows it; `None` if it is none.
fn directive(code: &[u8]) -> Option<(&'static [u8], &[u8])> {
    let code = code.trim_ascii_start();
    let length = code
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80)
        .count();
    let (word, rest) = code.split_at(length);
    let known = DIRECTIVES.iter().find(|known| **known == word)?;
    Some((known, rest.trim_ascii_start()))
}

/// A line of an assembler's text with a blank for each comment, as text/scanner reads it; `None` if a string does not end in
/// it. A comment may have begun before, and may go on.
fn without_comments(line: &[u8], in_comment: &mut bool) -> Option<Vec<u8>> {
    let mut code = Vec::with_capacity(line.len());
    let mut rest = line;
    loop {
        if *in_comment {
            let Some(end) = memmem::find(rest, b"*/") else {
                return Some(code);
            };
            *in_comment = false;
            code.push(b' ');
            rest = &rest[end + 2..];
        }
        let Some(at) = rest.iter().position(|byte| b"\"'`/".contains(byte)) else {
            code.extend_from_slice(rest);
            return Some(code);
        };
        let (before, here) = rest.split_at(at);
        code.extend_from_slice(before);
        if here.starts_with(b"//") {
            return Some(code);
        }
        if here.starts_with(b"/*") {
            *in_comment = true;
            rest = &here[2..];
            continue;
        }
        let length = match here[0] {
            b'/' => 1,
            quote => string_length(here, quote)?,
        };
        code.extend_from_slice(&here[..length]);
        rest = &here[length..];
    }
}

/// How long a string is that begins with this quote, both quotes included.
fn string_length(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'\\' if quote != b'`' => at += 2,
            byte if *byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// Whether a file may have a build constraint, which leaves it out of what `go` hashes (`shouldBuild` in
/// go/build/build.go).
pub fn may_be_constrained(text: &[u8]) -> bool {
    memmem::find(text, b"go:build").is_some() || memmem::find(text, b"+build").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn named(text: &str) -> Named {
        let mut named = Named::default();
        named.scan(text.as_bytes());
        named
    }

    #[test]
    fn whatever_reads_a_file_names_it() {
        for text in [
            "#include \"dir/x.json\"",
            "  #  include <x.json>",
            "#inc\\\nlude \\  \n\"x.json\"",
            "#include_next <x.JSON>",
            "#if __has_include(\"x.json\")",
            "#if __has_embed(<x.json>)",
            "static char x[] = {\n#embed \"x.json\" limit(3)\n};",
            "%:include \"x.json\"",
            "__asm__(\".incbin \\\"x.json\\\"\\n\");",
            ".INCBIN \"x.json\"",
            "\t.include \"x.json\"",
            "%include \"x.json\"",
            "%import(module=\"m\") \"x.json\"\n#import \"x.json\"",
            "      INCLUDE 'x.json'",
            "// #cgo CFLAGS: -include ${SRCDIR}/x.json",
            "#cgo linux LDFLAGS: -Wl,--version-script=x.json",
            "#cgo LDFLAGS: @x.json",
        ] {
            let named = named(text);
            assert!(named.kinds.contains("json"), "{text}: {named:?}");
        }
        assert!(named("#include \"LICENSE\"").kinds.contains("license"));
    }

    #[test]
    fn a_computed_name_may_be_any_files() {
        for text in [
            "#include HEADER",
            "#define X include\n#include X(1)",
            "# /* c */ include MACRO",
            "#if __has_include(X)",
            "asm(\".incbin \\\"\" FILE \"\\\"\");",
            "asm(\"\\n.incbin %0\" : : \"i\"(x));",
            ".incbin FILE",
            "#embed FILE",
            ".macro x file\n.incbin \"\\file\"\n.endm\nx logo.json\n",
            "asm(\".incbin \\\"logo.\" KIND \"\\\"\");",
            "asm(\".incbin \\\"logo\" KIND \"\\\"\");",
            "#define X(s, f) asm(#s \": .incbin \\\"assets/\" f \"\\\"\\n\")\nX(a, \"logo.png\")",
            "asm(\".incbin \"FILE\"\\n\");",
            "??=include MACRO",
        ] {
            assert!(named(text).any, "{text}");
        }
        for text in [
            "#include <stdio.h>\n#include \"a.h\"\n",
            "import \"C\"\nimport (\n\t\"embed\"\n)\nvar x embed.FS\n",
            "// This does not include anything; it is embedded, and important.",
            "x.Include(y)\np.import = 1",
        ] {
            assert!(!named(text).any, "{text}");
        }
    }

    #[test]
    fn paths_upward_are_kept() {
        let named =
            named("#cgo CFLAGS: -I${SRCDIR}/../include -I../x -DX=..\n#include \"../../y/z.h\"\n");
        let paths: Vec<_> = named
            .upward
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        assert_eq!(paths, ["..", "../../y/z.h", "../include", "../x"]);
    }

    #[test]
    fn absolute_paths_are_kept() {
        let named = named("#cgo LDFLAGS: -L/build/lib /build/x.a\n#include \"/build/z.h\"\n");
        for path in ["/build/lib", "/build/x.a", "/build/z.h"] {
            assert!(named.upward.contains(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn an_import_of_c_is_found_wherever_it_can_stand() {
        for text in [
            "package a\nimport \"C\"\n",
            "// c\n/* package b */\npackage a; import `C`",
            "\u{feff}package a\n\nimport (\n\t\"fmt\"\n\t_ \"C\"\n)\n",
            "package a\nimport \"fmt\"\n// #include <a.h>\nimport \"C\"\n",
            "package ä\nimport x \"fmt\"; import . \"os\"; import(\"C\")\n",
            "package a\nimport \"\\x43\"\n",
            "no Go at all",
            "",
        ] {
            assert_eq!(imports_c(text.as_bytes(), true), ImportsC::Yes, "{text}");
        }
        for text in [
            "package a\n",
            "package a\nimport \"fmt\"\nconst x = `import \"C\"`\n",
            "package a\n// import \"C\"\n/* import \"C\" */\nfunc f() {}\n",
            "package a\nimport ()\nimport (\n\t\"c\"\n\tC \"x\"\n)\nvar x = 1\n",
        ] {
            assert_eq!(imports_c(text.as_bytes(), true), ImportsC::No, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_never_said_to_have_no_c() {
        let text = "// Copyright\n\npackage a\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\n/*\n#include <a.h>\n*/\nimport \"C\"\n\nfunc f() {}\n";
        for length in 0..text.len() {
            let found = imports_c(&text.as_bytes()[..length], false);
            assert_ne!(found, ImportsC::No, "{length}");
        }
        assert_eq!(imports_c(text.as_bytes(), false), ImportsC::Yes);
    }

    #[test]
    fn the_assemblers_includes_are_read_or_given_up() {
        let names = |text: &str| {
            assembler_includes(text.as_bytes()).map(|names| names.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(
            names(
                "// Copyright #1\n#include \"textflag.h\"\n# include \"a_b.h\"\n#include \"../d/c.h\"\n#define X(a) \\\n\tMOVQ a, AX // #2\n#ifdef X\nMOVW $1, R0\n"
            ),
            Some(["../d/c.h", "a_b.h", "textflag.h"].map(String::from).into())
        );
        for (text, name) in [
            ("/* // */ # /* c */ include \"a.h\" // b", "a.h"),
            ("/*\n// */ #include \"a.h\"", "a.h"),
            (
                "#define X(a) \\\n\tMOVQ a, b /* c*d */ \\ // e\n\tRET\n#include \"a.h\"\r\n",
                "a.h",
            ),
            ("DATA x(SB)/8, $\"//\\\"/*\"\n#include \"a.h\"", "a.h"),
        ] {
            assert_eq!(names(text), Some(vec![name.to_owned()]), "{text}");
        }
        for text in [
            "#include NAME",
            "#include \"a\\x2eh\"",
            "#define X #include\nX \"a.h\"",
            "#define X \\\n #\nX include \"a.h\"",
            "#\\\ninclude \"a.h\"",
            "#define D(x) x include \"a.h\"\nD(#)\n",
            "#define D(a) /*\n*/ # a\nD(include \"a.h\")\n",
            "#define D(a) x \\\n/*\n*/ # a\nD(include \"a.h\")\n",
            "#define D(a) \\\n # include \"a.h\"\n",
            "/* // */ x # include \"a.h\"",
            "/*\n// */ x #include \"a.h\"",
            "\"a\n#include \"b.h\"",
            "DATA x(SB)/8, \"//\" #include \"a.h\"",
            "#pragma x",
            "#includes \"a.h\"",
            "MOVD #1, R0",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
    }
}
