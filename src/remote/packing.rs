//! zstd around outputs, both ways, as streams. Whatever comes out is hashed by the store, so nothing here is believed.

use crate::config::READ_BUFFER;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use zstd::stream::read;

/// Level 3 makes outputs of Go 3 % smaller still, in half as much time again.
const LEVEL: i32 = 1;

/// The largest window that is unpacked, as a power of two: 8 MiB, which every encoder stays within unless told otherwise.
/// It is what one stream may take in memory.
const WINDOW_LOG_MAX: u32 = 23;

/// Smaller outputs are sent as they are.
const PACKED_FROM: u64 = 512;

/// The part of an output that tells whether it is worth packing.
const SAMPLE: u64 = 256 << 10;

/// What is packed is kept in memory up to here; anything larger is packed again while it is sent.
const KEPT: u64 = 4 << 20;

/// Nothing of Go's packs better than this, once it is large …
const RATIO_MAX: u64 = 1000;

/// … and this is large, in bytes.
const RATIO_FROM: u64 = 64 << 20;

/// An output that is worth packing.
#[derive(Debug)]
pub struct Packed {
    size: u64,
    bytes: Option<Vec<u8>>,
}

impl Packed {
    /// Packs an output of this size; `None` when it is small, or barely becomes smaller.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(file: &File, size: u64) -> io::Result<Option<Self>> {
        if size < PACKED_FROM {
            return Ok(None);
        }
        let sample = size.min(SAMPLE);
        if size > SAMPLE && !is_worth_it(pack(file, sample)?.0, sample) {
            return Ok(None);
        }
        let (packed, bytes) = pack(file, size)?;
        Ok(is_worth_it(packed, size).then_some(Self {
            size: packed,
            bytes,
        }))
    }

    /// The packed size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The packed bytes, from their beginning.
    ///
    /// # Errors
    /// When the file, which must be the same one, cannot be read.
    pub fn reader<'a>(&'a self, file: &'a File, size: u64) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match &self.bytes {
            Some(bytes) => Box::new(&bytes[..]),
            None => {
                let body = BufReader::with_capacity(READ_BUFFER, rewound(file)?).take(size);
                let mut encoder = read::Encoder::with_buffer(BufReader::new(body), LEVEL)?;
                encoder.set_pledged_src_size(Some(size))?;
                Box::new(encoder.take(self.size))
            }
        })
    }
}

fn is_worth_it(packed: u64, plain: u64) -> bool {
    packed < plain - plain / 10
}

fn rewound(mut file: &File) -> io::Result<&File> {
    file.rewind()?;
    Ok(file)
}

/// Packs the first bytes of a file; gives how many it makes of them, and the bytes unless they are many.
fn pack(file: &File, size: u64) -> io::Result<(u64, Option<Vec<u8>>)> {
    let body = BufReader::with_capacity(READ_BUFFER, rewound(file)?).take(size);
    // As `reader` does it, so that both make the same.
    let mut encoder = read::Encoder::with_buffer(BufReader::new(body), LEVEL)?;
    encoder.set_pledged_src_size(Some(size))?;
    let mut kept = Vec::new();
    let mut total = (&mut encoder).take(KEPT).read_to_end(&mut kept)? as u64;
    if total == KEPT {
        drop(kept);
        total += io::copy(&mut encoder, &mut io::sink())?;
        return Ok((total, None));
    }
    Ok((total, Some(kept)))
}

/// What a packed stream unpacks to.
pub struct Unpacked<R: Read> {
    decoder: read::Decoder<'static, BufReader<Counted<R>>>,
    given: u64,
}

impl<R: Read> Unpacked<R> {
    /// Unpacks a stream.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(packed: R) -> io::Result<Self> {
        let packed = BufReader::with_capacity(READ_BUFFER, Counted(packed, 0));
        let mut decoder = read::Decoder::with_buffer(packed)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        Ok(Self { decoder, given: 0 })
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(buffer)?;
        self.given += n as u64;
        let taken = self.decoder.get_ref().get_ref().1;
        if self.given > RATIO_FROM && self.given / RATIO_MAX > taken {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("{taken} bytes that unpack to more than {}", self.given),
            ));
        }
        Ok(n)
    }
}

struct Counted<R>(R, u64);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1 += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::io::Write;
    use zstd::stream::write;

    fn file(dir: &TestDir, bytes: &[u8]) -> File {
        let path = dir.path().join("output");
        std::fs::write(&path, bytes).unwrap();
        File::open(path).unwrap()
    }

    /// Bytes that nothing can make smaller.
    fn noise(n: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(n).collect()
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same_whether_it_was_kept_or_not() {
        let dir = TestDir::new();
        let small = b"a line of a program\n".repeat(100);
        let many = noise(6 << 20).into_iter().flat_map(|byte| [byte, 0, 0]);
        for bytes in [small, many.collect()] {
            let file = file(&dir, &bytes);
            let size = bytes.len() as u64;
            let packed = Packed::new(&file, size).unwrap().unwrap();
            // More than once, as a request is repeated.
            for _ in 0..2 {
                let mut sent = Vec::new();
                let mut reader = packed.reader(&file, size).unwrap();
                reader.read_to_end(&mut sent).unwrap();
                assert_eq!(sent.len() as u64, packed.size());
                let mut back = Vec::new();
                Unpacked::new(&sent[..])
                    .unwrap()
                    .read_to_end(&mut back)
                    .unwrap();
                assert!(back == bytes);
                let cut = &sent[..sent.len() - 1];
                assert!(Unpacked::new(cut).unwrap().read_to_end(&mut back).is_err());
            }
        }
    }

    #[test]
    fn small_and_incompressible_outputs_stay_as_they_are() {
        let dir = TestDir::new();
        for bytes in [vec![0; 100], noise(1000), noise(1 << 20)] {
            let size = bytes.len() as u64;
            assert!(Packed::new(&file(&dir, &bytes), size).unwrap().is_none());
        }
    }

    #[test]
    fn a_bomb_and_a_huge_window_are_given_up() {
        let mut bomb = write::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..512 {
            bomb.write_all(&[0; 1 << 20]).unwrap();
        }
        let bomb = bomb.finish().unwrap();
        let mut unpacked = Unpacked::new(&bomb[..]).unwrap();
        let error = io::copy(&mut unpacked, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        // A frame whose head asks for a window of 2 GiB.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        let mut unpacked = Unpacked::new(&frame[..]).unwrap();
        assert!(io::copy(&mut unpacked, &mut io::sink()).is_err());
        // Something else altogether.
        let mut unpacked = Unpacked::new(&b"plain bytes"[..]).unwrap();
        assert!(io::copy(&mut unpacked, &mut io::sink()).is_err());
    }
}
