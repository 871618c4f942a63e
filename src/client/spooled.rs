//! The body of a put, kept until the put is answered: in memory when it is small, in a
//! file without a name when it is not.

use crate::config::KEPT_IN_MEMORY;
use crate::error::{Error, Result};
use crate::fs;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A body.
#[derive(Debug, Default)]
pub struct Spooled {
    size: u64,
    memory: Vec<u8>,
    /// Holds what came before `memory`.
    file: Option<Result<File>>,
}

impl Spooled {
    /// Adds the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        if self.memory.len() + piece.len() > KEPT_IN_MEMORY {
            self.spill();
        }
        self.memory.extend_from_slice(piece);
    }

    /// The body's length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All of it, if it is small.
    pub fn in_memory(&self) -> Option<&[u8]> {
        self.file.is_none().then_some(&self.memory)
    }

    /// Its bytes, from the first one. Two readers do not disturb each other.
    ///
    /// # Errors
    /// When the file could not be had or written.
    pub fn reader(self: &Arc<Self>) -> Result<Reader> {
        if let Some(Err(e)) = &self.file {
            return Err(Error::input(e.chain()));
        }
        Ok(Reader {
            body: Arc::clone(self),
            at: 0,
        })
    }

    /// Moves what is in memory to the file. A failure counts only if the body is needed.
    fn spill(&mut self) {
        let file = self.file.take().unwrap_or_else(fs::nameless_file);
        self.file = Some(file.and_then(|mut file| {
            file.write_all(&self.memory).map_err(failed)?;
            Ok(file)
        }));
        self.memory.clear();
    }
}

/// Reads a body.
#[derive(Debug)]
pub struct Reader {
    body: Arc<Spooled>,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let in_file = self.body.size - self.body.memory.len() as u64;
        let read = match &self.body.file {
            Some(Ok(file)) if self.at < in_file => {
                let left = usize::try_from(in_file - self.at).unwrap_or(usize::MAX);
                let wanted = buffer.len().min(left);
                file.read_at(&mut buffer[..wanted], self.at)?
            }
            // What is in memory fits into it.
            _ => (&self.body.memory[(self.at - in_file) as usize..]).read(buffer)?,
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.body.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let outside = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        self.at = at.filter(|at| *at <= self.body.size).ok_or_else(outside)?;
        Ok(self.at)
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::io("keep a body in", std::env::temp_dir(), e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_any_size_reads_back_more_than_once() {
        for size in [
            0,
            1,
            KEPT_IN_MEMORY,
            KEPT_IN_MEMORY + 1,
            3 * KEPT_IN_MEMORY + 7,
        ] {
            let body: Vec<u8> = (0..size).map(|i| (i / 251) as u8).collect();
            let mut kept = Spooled::default();
            for piece in body.chunks(50_000) {
                kept.push(piece);
                assert!(kept.memory.len() <= KEPT_IN_MEMORY);
            }
            assert_eq!(kept.size(), size as u64);
            let kept = Arc::new(kept);
            let (mut first, mut second) = (kept.reader().unwrap(), kept.reader().unwrap());
            let mut found = vec![0; size / 2];
            first.read_exact(&mut found).unwrap();
            second.read_exact(&mut found).unwrap();
            first.read_to_end(&mut found).unwrap();
            assert!(found == body);
        }
    }
}
