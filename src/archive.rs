//! What a Go archive says of itself: the path of its package, and which packages that imports.
//!
//! An archive (`cmd/internal/archive`) is one of `ar`, whose member `_go_.o` is an object of Go's (`cmd/internal/goobj`):
//! some lines of text, a head with offsets, a table of strings, and the packages that it imports. Go 1.20 to 1.27 write
//! it alike. It comes from a build, so nothing here believes a length.

use memchr::memmem;
use std::io::{Read, Seek, SeekFrom};

/// What every archive begins with.
const AR: &[u8; 8] = b"!<arch>\n";

/// The length of the head of a member.
const MEMBER_LEN: usize = 60;

/// The most members before the object: the export data, and what a C compiler made.
const MEMBERS_MAX: usize = 64;

/// As much of an object is read at first, in bytes: its text and head.
const HEAD_MAX: u64 = 4 << 10;

/// As much of an object is read at most, in bytes: strings and imports of the largest packages.
const OBJECT_MAX: usize = 8 << 20;

/// What the object begins with, after its text.
const MAGIC: &[u8; 8] = b"\0go120ld";

/// Where the object's head has its offsets, after the magic (8), the fingerprint (8) and the flags (4).
const OFFSETS: usize = 20;

/// The blocks that the offsets begin: imports, and the symbols that belong to no package.
const IMPORTS: usize = 0;
const SYMBOLS: usize = 6;
const SYMBOLS_END: usize = SYMBOLS + 1;

/// The length of a symbol, which begins with where its name is.
const SYMBOL_LEN: usize = 21;

/// The symbol for the debugger whose name ends with the package's path (`cmd/internal/obj`, `dwarf.CUInfoPrefix`).
const OWN_PATH: &str = "go:cuinfo.packagename.";

/// An imported package: where its path is in the table (length, offset: 4 each), and a fingerprint (8).
const IMPORT_LEN: usize = 16;

/// The most imports of a package.
const IMPORTS_MAX: usize = 4096;

/// The longest path of a package.
const PATH_MAX: usize = 300;

/// What an archive is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its path, as in an import.
    pub path: String,
    /// The packages that it imports itself.
    pub imports: Vec<String>,
}

/// The package of an archive; `None` when this is not one, or not as we know them.
pub fn package(file: &mut (impl Read + Seek)) -> Option<Package> {
    let mut head = [0; 8];
    file.read_exact(&mut head).ok()?;
    if head != *AR {
        return None;
    }
    let mut at = head.len() as u64;
    for _ in 0..MEMBERS_MAX {
        let mut member = [0; MEMBER_LEN];
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut member).ok()?;
        at += MEMBER_LEN as u64;
        let size: u64 = std::str::from_utf8(&member[48..58])
            .ok()?
            .trim()
            .parse()
            .ok()?;
        if member.starts_with(b"_go_.o") {
            return object(&mut file.by_ref().take(size));
        }
        // Each begins at an even place.
        at = at.checked_add(size)?.checked_next_multiple_of(2)?;
    }
    None
}

fn object(from: &mut impl Read) -> Option<Package> {
    const END_OF_TEXT: &[u8] = b"\n!\n";
    let mut bytes = Vec::new();
    from.take(HEAD_MAX).read_to_end(&mut bytes).ok()?;
    let text = memmem::find(&bytes, END_OF_TEXT)? + END_OF_TEXT.len();
    let head = bytes.get(text..)?;
    if !head.starts_with(MAGIC) {
        return None;
    }
    // What follows is most of it.
    let end = number(head, OFFSETS + 4 * SYMBOLS_END)?;
    let more = end.min(OBJECT_MAX).saturating_sub(head.len());
    from.take(more as u64).read_to_end(&mut bytes).ok()?;
    in_object(bytes.get(text..)?)
}

fn in_object(object: &[u8]) -> Option<Package> {
    let block = |from: usize| {
        let offset = |nth: usize| number(object, OFFSETS + 4 * nth);
        object.get(offset(from)?..offset(from + 1)?)
    };
    let string = |reference: &[u8]| {
        let (length, at) = (number(reference, 0)?, number(reference, 4)?);
        std::str::from_utf8(object.get(at..at.checked_add(length)?)?).ok()
    };
    let imports = block(IMPORTS)?.chunks_exact(IMPORT_LEN).take(IMPORTS_MAX);
    let mut symbols = block(SYMBOLS)?.chunks_exact(SYMBOL_LEN).filter_map(string);
    let path = symbols.find_map(|name| name.strip_prefix(OWN_PATH))?;
    Some(Package {
        path: checked(path)?,
        imports: imports.filter_map(string).filter_map(checked).collect(),
    })
}

fn checked(path: &str) -> Option<String> {
    let is_path = !path.is_empty() && path.len() <= PATH_MAX && !path.contains(char::is_control);
    is_path.then(|| path.into())
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// An archive of a package that imports two others.
    fn archive() -> Vec<u8> {
        let names = [
            "fmt",
            "example.com/m/b",
            "go:cuinfo.producer.example.com/m/a",
            "go:cuinfo.packagename.example.com/m/a",
            "go:",
        ];
        let start = OFFSETS + 4 * 20;
        let mut at = start;
        let references = names.map(|name| {
            let reference = [(name.len() as u32).to_le_bytes(), (at as u32).to_le_bytes()].concat();
            at += name.len();
            reference
        });
        let record = |nth: usize, length: usize| {
            let mut record = references[nth].clone();
            record.resize(length, 9);
            record
        };
        let imports = [record(0, IMPORT_LEN), record(1, IMPORT_LEN)].concat();
        let symbols = [2, 3, 4].map(|nth| record(nth, SYMBOL_LEN)).concat();
        let mut object = MAGIC.to_vec();
        object.extend([0; 12]);
        let end = at + imports.len();
        for offset in [at, end, end, end, end, end, end, end + symbols.len()] {
            object.extend((offset as u32).to_le_bytes());
        }
        object.resize(start, 0);
        object.extend_from_slice(names.concat().as_bytes());
        object.extend(imports);
        object.extend(symbols);
        object.extend([7; 100]);
        let mut bytes = AR.to_vec();
        let text = b"go object linux amd64 go1.27 X:none\nbuild id \"x\"\n\n!\n";
        object.splice(..0, text.iter().copied());
        for (name, body) in [("__.PKGDEF", &b"odd"[..]), ("_go_.o", &object)] {
            let head = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                644,
                body.len()
            );
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Package> {
        package(&mut Cursor::new(bytes))
    }

    #[test]
    fn an_archive_names_its_package_and_what_that_imports() {
        let package = read(&archive()).unwrap();
        assert_eq!(package.path, "example.com/m/a");
        assert_eq!(package.imports, ["fmt", "example.com/m/b"]);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = archive();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            for value in [0, 0xff, b'9'] {
                bytes[at] = value;
                read(&bytes);
            }
            read(&whole[..at]);
        }
        assert_eq!(read(b""), None);
        assert_eq!(read(&whole[1..]), None);
    }
}
