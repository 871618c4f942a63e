//! Zips, as far as a module proxy must read them: their directory, and the hash that `go` knows a module by.

use super::body::Body;
use crate::error::{Error, Result};
use crate::id::hex;
use crate::sha256::Sha256;
use base64::Engine;
use flate2::read::DeflateDecoder;
use std::io::{BufReader, Read};

/// The largest directory of a zip that is looked at, in bytes: some 100,000 files.
const DIRECTORY_MAX: u64 = 32 << 20;

/// The end record of a zip, without its comment, in bytes (APPNOTE.TXT 4.3.16).
pub(super) const END_LEN: usize = 22;

/// The longest comment of a zip, in bytes.
const COMMENT_MAX: usize = u16::MAX as usize;

/// An entry of a zip's directory, without its names, in bytes (APPNOTE.TXT 4.3.12).
const ENTRY_LEN: usize = 46;

/// The length of a local file header, without its names, in bytes (APPNOTE.TXT 4.3.7).
const LOCAL_LEN: usize = 30;

/// What all files of a module may have, in bytes; `go` takes no larger ones (golang.org/x/mod/zip, `MaxZipFile`).
const UNPACKED_MAX: u64 = 500 << 20;

/// The directory of a zip.
pub struct Directory {
    count: u64,
    bytes: Vec<u8>,
}

/// One file of a zip.
pub struct Entry<'a> {
    /// Its path.
    pub name: &'a [u8],
    method: u64,
    packed: u64,
    offset: u64,
}

impl Directory {
    /// Finds the directory of a whole zip.
    ///
    /// # Errors
    /// When it is cut off, damaged or not a zip.
    pub fn find(body: &Body) -> Result<Self> {
        let tail_at = body.len().saturating_sub((END_LEN + COMMENT_MAX) as u64);
        let tail = body.slice(tail_at, END_LEN + COMMENT_MAX)?;
        // The last end record whose comment ends where the file ends.
        let end_at = (0..tail.len().saturating_sub(END_LEN - 1))
            .rev()
            .find(|at| {
                let end = &tail[*at..];
                end.starts_with(b"PK\x05\x06")
                    && number(end, 20, 2) == Some((end.len() - END_LEN) as u64)
            });
        let Some(end_at) = end_at else {
            return Err(Error::peer("a truncated zip, or not a zip"));
        };
        let end = &tail[end_at..];
        let fields = (number(end, 10, 2), number(end, 12, 4), number(end, 16, 4));
        let (Some(mut count), Some(mut length), Some(mut offset)) = fields else {
            return Err(Error::peer("a truncated zip"));
        };
        let mut ends_at = tail_at + end_at as u64;
        if count == 0xffff || length == 0xffff_ffff || offset == 0xffff_ffff {
            // The real numbers are in another record, which a locator in front of this one points to
            // (APPNOTE.TXT 4.3.14 and 4.3.15).
            let locator = body.slice(ends_at.saturating_sub(20), 20)?;
            let record_at = number(&locator, 8, 8).unwrap_or(u64::MAX);
            let record = body.slice(record_at, 56)?;
            let fields = (
                number(&record, 32, 8),
                number(&record, 40, 8),
                number(&record, 48, 8),
            );
            let (true, true, (Some(n), Some(l), Some(o))) = (
                locator.starts_with(b"PK\x06\x07"),
                record.starts_with(b"PK\x06\x06"),
                fields,
            ) else {
                return Err(Error::peer("a zip with a damaged end"));
            };
            (count, length, offset) = (n, l, o);
            ends_at = record_at;
        }
        if offset.checked_add(length) != Some(ends_at) || length > DIRECTORY_MAX {
            return Err(Error::peer("a zip with a misplaced directory"));
        }
        let directory = Self {
            count,
            bytes: body.slice(offset, length as usize)?,
        };
        if directory.count == 0 {
            return Err(Error::peer("an empty zip"));
        }
        Ok(directory)
    }

    /// Its entries, until the first that is damaged; a wrong number of them is damage too.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<'_>>> {
        let mut rest = &self.bytes[..];
        let mut left = self.count;
        std::iter::from_fn(move || {
            if rest.is_empty() && left == 0 {
                return None;
            }
            let entry = (left > 0).then(|| take_entry(&mut rest)).flatten();
            left = left.saturating_sub(1);
            if entry.is_none() {
                (rest, left) = (&[], 0);
            }
            Some(entry.ok_or_else(|| Error::peer("a zip with a damaged directory")))
        })
    }
}

fn take_entry<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let bytes = *rest;
    if !bytes.starts_with(b"PK\x01\x02") {
        return None;
    }
    let length = |at| number(bytes, at, 2).map(|length| length as usize);
    let (name, extra, comment) = (length(28)?, length(30)?, length(32)?);
    let name_end = ENTRY_LEN + name;
    let entry = Entry {
        name: bytes.get(ENTRY_LEN..name_end)?,
        method: number(bytes, 10, 2)?,
        packed: number(bytes, 20, 4)?,
        offset: number(bytes, 42, 4)?,
    };
    *rest = bytes.get(name_end + extra + comment..)?;
    Some(entry)
}

/// The hash of a module's zip as go.sum has it (golang.org/x/mod/sumdb/dirhash, `Hash1`).
///
/// # Errors
/// When the zip is damaged, larger than `go` takes, or packed in a way that `go` does not use.
pub fn hash(body: &Body) -> Result<String> {
    let directory = Directory::find(body)?;
    let mut sums = Vec::new();
    let mut left = UNPACKED_MAX;
    for entry in directory.entries() {
        let entry = entry?;
        let mut hash = Sha256::new();
        let mut file = open(body, &entry)?.take(left + 1);
        let unpacked = std::io::copy(&mut file, &mut hash)
            .map_err(|e| Error::io("unpack", String::from_utf8_lossy(entry.name).as_ref(), e))?;
        left = left
            .checked_sub(unpacked)
            .ok_or_else(|| Error::peer("a zip that is too large unpacked"))?;
        sums.push((entry.name.to_vec(), hash.finalize()));
    }
    sums.sort();
    let mut hash = Sha256::new();
    for (name, sum) in sums {
        hash.update(hex(&sum));
        hash.update("  ");
        hash.update(name);
        hash.update("\n");
    }
    Ok(shown(hash))
}

/// The hash of a go.mod as go.sum has it.
///
/// # Errors
/// When it cannot be read.
pub fn hash_go_mod(body: &Body) -> Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut body.reader(), &mut hash)
        .map_err(|e| Error::io("read", "a fetched file", e))?;
    let line = format!("{}  go.mod\n", hex(&hash.finalize()));
    Ok(shown(Sha256::new_with_prefix(line)))
}

fn shown(hash: Sha256) -> String {
    let sum = base64::engine::general_purpose::STANDARD.encode(hash.finalize());
    format!("h1:{sum}")
}

fn open(body: &Body, entry: &Entry) -> Result<Box<dyn Read>> {
    let local = body.slice(entry.offset, LOCAL_LEN)?;
    let lengths = number(&local, 26, 2).zip(number(&local, 28, 2));
    let (true, Some((name, extra))) = (local.starts_with(b"PK\x03\x04"), lengths) else {
        return Err(Error::peer("a zip with a damaged file"));
    };
    let at = entry.offset + LOCAL_LEN as u64 + name + extra;
    let packed = BufReader::with_capacity(32 << 10, body.reader_at(at)).take(entry.packed);
    match entry.method {
        0 => Ok(Box::new(packed)),
        8 => Ok(Box::new(DeflateDecoder::new(packed))),
        _ => Err(Error::peer("a zip with an unknown compression")),
    }
}

/// A little-endian number of `length` bytes.
pub(super) fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}
