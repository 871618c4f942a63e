//! The bytes of an answer: all of them are here before any is handed on.
//!
//! Small ones are in memory and large ones in a file, so memory does not grow with them. What
//! comes from an upstream goes into a [`Spool`] first, and is hashed on its way.

use crate::error::{Error, Result};
use crate::fs;
use crate::id::OutputId;
use crate::sha256::Sha256;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What is kept in memory at most of one body, in bytes. Most zips are smaller; a larger one goes to a
/// file and is read from there twice.
const IN_MEMORY: usize = 1 << 20;

/// Bytes that no longer change; a copy of it shares them.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Memory(Arc<[u8]>),
    /// In a file of so many bytes.
    File(Arc<File>, u64),
}

impl Body {
    /// A body with this text.
    pub fn text(text: &str) -> Self {
        Self::Memory(text.as_bytes().into())
    }

    /// A body with what is in a file.
    pub fn file(file: File) -> Result<Self> {
        let metadata = file
            .metadata()
            .map_err(|e| Error::io("look at", "a file that was opened", e))?;
        Ok(Self::File(Arc::new(file), metadata.len()))
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// Reads from its beginning to its end.
    pub fn reader(&self) -> Reader {
        self.reader_at(0)
    }

    /// Reads from `at` to its end.
    pub fn reader_at(&self, at: u64) -> Reader {
        Reader {
            body: self.clone(),
            at,
        }
    }

    /// A copy without its first bytes.
    pub fn without_first(&self, length: u64) -> Result<Self> {
        let mut spool = Spool::default();
        let mut reader = self.reader_at(length);
        let mut piece = vec![0; 32 << 10];
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok(spool.finish().0),
                Ok(n) => spool.push(&piece[..n])?,
                Err(e) => return Err(Error::io("read", "a cached file", e)),
            }
        }
    }

    /// The bytes from `at` on, `length` of them, or fewer at the end.
    pub fn slice(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let rest = self.len().saturating_sub(at);
        let mut bytes = vec![0; rest.min(length as u64) as usize];
        self.reader_at(at)
            .read_exact(&mut bytes)
            .map_err(|e| Error::io("read", "an answer that was kept", e))?;
        Ok(bytes)
    }
}

/// Reads a body.
pub struct Reader {
    body: Body,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.body.len() {
            return Ok(0);
        }
        let n = match &self.body {
            Body::Memory(bytes) => {
                let at = usize::try_from(self.at).unwrap_or(usize::MAX);
                bytes.get(at..).unwrap_or_default().read(buffer)?
            }
            Body::File(file, _) => file.read_at(buffer, self.at)?,
        };
        self.at += n as u64;
        Ok(n)
    }
}

/// A body on its way in.
#[derive(Default)]
pub struct Spool {
    length: u64,
    hash: Sha256,
    memory: Vec<u8>,
    file: Option<File>,
}

impl Spool {
    /// How much has come in, in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let failed = |e| Error::io("keep an answer in", std::env::temp_dir(), e);
        self.length += bytes.len() as u64;
        self.hash.update(bytes);
        if self.file.is_none() && self.memory.len() + bytes.len() > IN_MEMORY {
            let mut file = fs::nameless_file()?;
            file.write_all(&std::mem::take(&mut self.memory))
                .map_err(failed)?;
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(failed),
            None => {
                self.memory.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// The whole body, and its hash.
    pub fn finish(self) -> (Body, OutputId) {
        let body = match self.file {
            Some(file) => Body::File(Arc::new(file), self.length),
            None => Body::Memory(self.memory.into()),
        };
        (body, OutputId(self.hash.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_any_size_reads_back_more_than_once() {
        for size in [0, 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY] {
            let bytes: Vec<u8> = (0..size).map(|i| (i / 251) as u8).collect();
            let mut spool = Spool::default();
            for piece in bytes.chunks(10_000) {
                spool.push(piece).unwrap();
                assert!(spool.memory.len() <= IN_MEMORY);
            }
            let (body, output) = spool.finish();
            assert_eq!(body.len(), size as u64);
            assert_eq!(output.0, Sha256::digest(&bytes));
            for _ in 0..2 {
                let mut found = Vec::new();
                body.reader().read_to_end(&mut found).unwrap();
                assert!(found == bytes);
            }
            let middle = body.slice(size as u64 / 2, 10).unwrap();
            assert_eq!(middle, &bytes[size / 2..bytes.len().min(size / 2 + 10)]);
            assert_eq!(body.slice(u64::MAX, 10).unwrap(), b"");
        }
    }
}
