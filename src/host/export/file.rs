//! The file that `export` writes and `import` reads: one zstd stream, a head, and then records.
//!
//! ```text
//! l  name, actions, signature           what builds of a name use; their outputs follow, each once in the file
//! a  action, entry, signature, bytes    an output
//! e                                     the end: a file without it is cut off
//! ```
//!
//! Signatures are those that the remote has: over the action, the output, its size and its time. So a record of another
//! file that was signed by the same key can take the place of one, as it could on a server, and nothing else can.

use crate::cache::history::ACTIONS_MAX;
use crate::config::READ_BUFFER;
use crate::entry::{ENTRY_LEN, Entry, SIZE_MAX};
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, ID_LEN, OutputId};
use crate::remote::packing::Unpacked;
use crate::remote::result::{action_key, list_key};
use crate::remote::signing::Keys;
use crate::sha256::Sha256;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const HEAD: &[u8] = b"nix-gocacheprog export 1\n";

/// Higher than for the remote, where a line waits for it; above this, outputs of Go become little smaller.
const LEVEL: i32 = 3;

/// The longest name of a derivation, in bytes.
const NAME_MAX: usize = 255;

/// The longest signature, in bytes.
const SIGNATURE_MAX: usize = 1024;

/// Writes such a file.
pub struct Writer {
    out: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    path: PathBuf,
    keys: Keys,
}

/// What comes next in such a file.
pub enum Record {
    /// What builds of a name use.
    List(String, Vec<ActionId>),
    /// An output, whose bytes are to be read next.
    Output(ActionId, Entry),
    /// The end.
    End,
}

/// Reads such a file.
pub struct Reader {
    from: Unpacked<File>,
    path: PathBuf,
    keys: Keys,
}

impl Writer {
    /// Begins a file, in the place of one that is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, keys: Keys) -> Result<Self> {
        fs::remove_file(path)?;
        let file = fs::create_new(path, 0o644)?;
        let out = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL);
        let mut writer = Self {
            out: out.map_err(|e| Error::io("write", path, e))?,
            path: path.into(),
            keys,
        };
        writer.write(HEAD)?;
        Ok(writer)
    }

    /// Adds what builds of a name use.
    ///
    /// # Errors
    /// When the name is too long, or the file cannot be written.
    pub fn list(&mut self, name: &str, actions: &[ActionId]) -> Result<()> {
        if name.len() > NAME_MAX {
            return Err(Error::input(format!("{name:?} is too long for a name")));
        }
        let actions = &actions[..actions.len().min(ACTIONS_MAX)];
        self.write(b"l")?;
        self.text(name)?;
        self.write(&(actions.len() as u32).to_le_bytes())?;
        for action in actions {
            self.write(&action.0)?;
        }
        let (key, entry) = of_list(name, actions);
        self.signature(&key, &entry)
    }

    /// Adds an output.
    ///
    /// # Errors
    /// When its bytes are not those that the entry names, or the file cannot be written.
    pub fn output(&mut self, action: &ActionId, entry: &Entry, from: File) -> Result<()> {
        self.write(b"a")?;
        self.write(&action.0)?;
        self.write(&entry.to_bytes())?;
        self.signature(&action_key(action), entry)?;
        let mut hashed = Hashed(from.take(entry.size), Sha256::new());
        let copied = io::copy(&mut hashed, &mut self.out);
        let copied = copied.map_err(|e| Error::io("write", &self.path, e))?;
        if copied != entry.size || hashed.1.finalize()[..] != entry.output.0 {
            return Err(Error::input(
                "an output in the cache is damaged: run `nix-gocacheprog verify --repair`",
            ));
        }
        Ok(())
    }

    /// Ends the file; gives its size.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<u64> {
        self.write(b"e")?;
        let failed = |e| Error::io("write", &self.path, e);
        let file = self.out.finish().map_err(failed)?;
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(file.metadata().map_err(failed)?.len())
    }

    fn signature(&mut self, key: &str, entry: &Entry) -> Result<()> {
        let signature = self.keys.sign(key, entry).unwrap_or_default();
        self.text(&signature)
    }

    fn text(&mut self, text: &str) -> Result<()> {
        self.write(&(text.len() as u16).to_le_bytes())?;
        self.write(text.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.out.write_all(bytes);
        written.map_err(|e| Error::io("write", &self.path, e))
    }
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, or is anything else.
    pub fn open(path: &Path, keys: Keys) -> Result<Self> {
        let from = Unpacked::new(fs::open(path)?).map_err(|e| Error::io("read", path, e))?;
        let mut reader = Self {
            from,
            path: path.into(),
            keys,
        };
        let mut head = [0; HEAD.len()];
        if reader.from.read_exact(&mut head).is_err() || head != HEAD {
            return Err(Error::input(format!(
                "{} was not written by `nix-gocacheprog export`, or by a release of another format",
                path.display()
            )));
        }
        Ok(reader)
    }

    /// What comes next. An output's bytes must have been read before.
    ///
    /// # Errors
    /// When the file is cut off or malformed, or a signature is missing that is wanted.
    pub fn next(&mut self) -> Result<Record> {
        match self.take::<1>()? {
            [b'l'] => {
                let name = self.text(NAME_MAX)?;
                let count = u32::from_le_bytes(self.take()?) as usize;
                if count > ACTIONS_MAX {
                    return Err(self.malformed());
                }
                let actions = (0..count).map(|_| self.take::<ID_LEN>().map(ActionId));
                let actions: Vec<_> = actions.collect::<Result<_>>()?;
                let (key, entry) = of_list(&name, &actions);
                self.check(&key, &entry)?;
                Ok(Record::List(name, actions))
            }
            [b'a'] => {
                let action = ActionId(self.take()?);
                let entry = Entry::from_bytes(&self.take::<ENTRY_LEN>()?);
                let Some(entry) = entry.filter(|entry| entry.size <= SIZE_MAX) else {
                    return Err(self.malformed());
                };
                self.check(&action_key(&action), &entry)?;
                Ok(Record::Output(action, entry))
            }
            [b'e'] => match self.from.read(&mut [0]) {
                Ok(0) => Ok(Record::End),
                _ => Err(self.malformed()),
            },
            _ => Err(self.malformed()),
        }
    }

    /// Gives the bytes of an output of this size, piece by piece.
    ///
    /// # Errors
    /// When the file is cut off, or `to` fails.
    pub fn bytes(&mut self, size: u64, mut to: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; READ_BUFFER];
        let mut left = size;
        while left > 0 {
            let most = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.from.read(&mut buffer[..most]);
            match read.map_err(|e| Error::io("read", &self.path, e))? {
                0 => return Err(self.malformed()),
                n => {
                    to(&buffer[..n])?;
                    left -= n as u64;
                }
            }
        }
        Ok(())
    }

    fn check(&mut self, key: &str, entry: &Entry) -> Result<()> {
        let signature = self.text(SIGNATURE_MAX)?;
        let mut signatures = Some(signature.as_str()).into_iter();
        if self.keys.verifies() && !self.keys.are_trusted(key, entry, &mut signatures) {
            return Err(Error::input(format!(
                "{} holds something that no trusted key has signed",
                self.path.display()
            )));
        }
        Ok(())
    }

    fn text(&mut self, most: usize) -> Result<String> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        if length > most {
            return Err(self.malformed());
        }
        let mut bytes = vec![0; length];
        self.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.malformed())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        let read = self.from.read_exact(bytes);
        read.map_err(|e| Error::io("read", &self.path, e))
    }

    fn malformed(&self) -> Error {
        Error::input(format!("{} is damaged or cut off", self.path.display()))
    }
}

/// What is signed of a list: as if its bytes were an output, under the key that it has on a remote.
fn of_list(name: &str, actions: &[ActionId]) -> (String, Entry) {
    let mut hash = Sha256::new();
    actions.iter().for_each(|action| hash.update(action.0));
    let entry = Entry {
        output: OutputId(hash.finalize()),
        size: (actions.len() * ID_LEN) as u64,
        time: 0,
    };
    (list_key(name), entry)
}

struct Hashed<R>(R, Sha256);

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.update(&buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    const SECRET: &str = "test/data/keys/test-1.secret";

    const PUBLIC: &str = include_str!("../../../test/data/keys/test-1.public");

    const OTHER: &str = include_str!("../../../test/data/keys/test-2.public");

    fn keys(secret: bool, trusted: &str) -> Keys {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SECRET);
        Keys::new(secret.then_some(path.as_path()), trusted).unwrap()
    }

    fn entry(body: &[u8]) -> Entry {
        Entry {
            output: OutputId(Sha256::digest(body)),
            size: body.len() as u64,
            time: 1_700_000_000_000_001_000,
        }
    }

    fn write(dir: &TestDir, is_signed: bool) -> PathBuf {
        let (path, body) = (dir.path().join("export"), dir.path().join("body"));
        std::fs::write(&body, b"an output").unwrap();
        let mut writer = Writer::create(&path, keys(is_signed, "")).unwrap();
        writer.list("hello-1", &[ActionId([1; 32])]).unwrap();
        let file = File::open(&body).unwrap();
        let entry = entry(b"an output");
        writer.output(&ActionId([1; 32]), &entry, file).unwrap();
        let size = writer.finish().unwrap();
        assert_eq!(size, path.metadata().unwrap().len());
        path
    }

    fn read(path: &Path, keys: Keys) -> Result<Vec<u8>> {
        let mut reader = Reader::open(path, keys)?;
        let mut found = Vec::new();
        loop {
            match reader.next()? {
                Record::List(name, actions) => {
                    assert_eq!(
                        (name.as_str(), &actions[..]),
                        ("hello-1", &[ActionId([1; 32])][..])
                    );
                }
                Record::Output(action, entry) => {
                    assert_eq!(action, ActionId([1; 32]));
                    reader.bytes(entry.size, |bytes| {
                        found.extend_from_slice(bytes);
                        Ok(())
                    })?;
                }
                Record::End => return Ok(found),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_and_counts_only_if_a_trusted_key_has_signed_it() {
        let dir = TestDir::new();
        let unsigned = write(&dir, false);
        assert_eq!(read(&unsigned, keys(false, "")).unwrap(), b"an output");
        let error = read(&unsigned, keys(false, PUBLIC)).unwrap_err();
        assert!(error.to_string().contains("no trusted key has signed"));
        let signed = write(&dir, true);
        for trusted in ["", PUBLIC, &format!("{OTHER} {PUBLIC}")] {
            assert_eq!(read(&signed, keys(false, trusted)).unwrap(), b"an output");
        }
        read(&signed, keys(false, OTHER)).unwrap_err();
    }

    #[test]
    fn nothing_that_is_cut_off_changed_or_moved_is_taken() {
        let dir = TestDir::new();
        let path = write(&dir, true);
        let packed = std::fs::read(&path).unwrap();
        for length in 0..packed.len() {
            std::fs::write(&path, &packed[..length]).unwrap();
            assert!(read(&path, keys(false, PUBLIC)).is_err(), "{length}");
        }
        let plain = zstd::decode_all(&packed[..]).unwrap();
        let body = plain.len() - 1 - b"an output".len();
        for at in 0..plain.len() {
            let mut changed = plain.clone();
            changed[at] ^= 1;
            std::fs::write(&path, zstd::encode_all(&changed[..], 1).unwrap()).unwrap();
            match read(&path, keys(false, PUBLIC)) {
                Err(_) => {}
                // The store hashes those, and the entry's hash is signed. Of a time only the microseconds count.
                Ok(found) => assert!(at >= body && found != b"an output", "{at}"),
            }
        }
        let more = [&plain[..], b"x"].concat();
        std::fs::write(&path, zstd::encode_all(&more[..], 1).unwrap()).unwrap();
        assert!(read(&path, keys(false, PUBLIC)).is_err());
    }

    #[test]
    fn an_output_that_is_not_what_its_entry_says_is_not_exported() {
        let dir = TestDir::new();
        let (path, body) = (dir.path().join("export"), dir.path().join("body"));
        std::fs::write(&body, b"another!!").unwrap();
        let mut writer = Writer::create(&path, Keys::default()).unwrap();
        let file = File::open(&body).unwrap();
        let done = writer.output(&ActionId([1; 32]), &entry(b"an output"), file);
        assert!(done.is_err_and(|e| e.to_string().contains("damaged")));
    }

    #[test]
    fn a_file_that_unpacks_to_far_more_is_given_up() {
        let dir = TestDir::new();
        let path = dir.path().join("bomb");
        let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        out.write_all(HEAD).unwrap();
        out.write_all(b"a").unwrap();
        out.write_all(&[1; ID_LEN]).unwrap();
        let size = 1 << 30;
        out.write_all(&Entry { size, ..entry(b"") }.to_bytes())
            .unwrap();
        out.write_all(&[0, 0]).unwrap();
        for _ in 0..512 {
            out.write_all(&[0; 1 << 20]).unwrap();
        }
        std::fs::write(&path, out.finish().unwrap()).unwrap();
        let mut reader = Reader::open(&path, Keys::default()).unwrap();
        assert!(matches!(reader.next(), Ok(Record::Output(..))));
        let mut given = 0;
        let done = reader.bytes(size, |bytes| {
            given += bytes.len();
            Ok(())
        });
        assert!(done.is_err() && given < 256 << 20, "{given}");
    }
}
