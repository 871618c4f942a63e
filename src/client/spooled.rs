//! The body of a put, kept until the put is answered: in memory when it is small, in a
//! file without a name when it is not.

use crate::config::KEPT_IN_MEMORY;
use crate::error::{Error, Result};
use crate::fs;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

/// A body.
#[derive(Default)]
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

    /// The body's length in bytes, and its bytes.
    ///
    /// # Errors
    /// When the file could not be had or written.
    pub fn into_reader(self) -> Result<(u64, Box<dyn Read>)> {
        let memory = std::io::Cursor::new(self.memory);
        let Some(file) = self.file else {
            return Ok((self.size, Box::new(memory)));
        };
        let mut file = file?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok((self.size, Box::new(file.chain(memory))))
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

fn failed(e: std::io::Error) -> Error {
    Error::io("keep a body in", std::env::temp_dir(), e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_any_size_reads_back() {
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
            let (length, mut reader) = kept.into_reader().unwrap();
            let mut found = Vec::new();
            reader.read_to_end(&mut found).unwrap();
            assert_eq!(length, size as u64);
            assert!(found == body);
        }
    }
}
