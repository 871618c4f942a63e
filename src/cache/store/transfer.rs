//! What the store gives to other machines, and takes from them. It does not know how that gets here.

use super::Store;
use crate::entry::Entry;
use crate::error::Result;
use crate::fs;
use crate::id::ActionId;
use crate::sys::Status;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::time::UNIX_EPOCH;

impl Store {
    /// Stores an action's output as another machine has put it, at the time at which that did.
    ///
    /// # Errors
    /// As for a put: nothing is stored when the body is not what the entry says.
    pub fn adopt(&self, action: &ActionId, entry: &Entry, body: &mut impl Read) -> Result<()> {
        // Clocks differ, and nothing was put in the future.
        let now = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = entry.time.min(now.as_micros() as i64 * 1000);
        self.put_at(Some(time), action, &entry.output, entry.size, body)
            .map(|_| ())
    }

    /// Opens an entry's output for reading; `None` when it is not there, or not whole.
    ///
    /// # Errors
    /// When the system fails to open it.
    pub fn open_output(&self, entry: &Entry) -> Result<Option<File>> {
        let path = self.output_path(&entry.output);
        if !self.is_trusted(&entry.output, &path)? {
            return Ok(None);
        }
        match fs::open(&path) {
            Ok(file) => {
                let sound = |m: &Metadata| self.damage(&Status::from(m), entry.size).is_none();
                Ok(file.metadata().is_ok_and(|m| sound(&m)).then_some(file))
            }
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OutputId;
    use crate::test_dir::TestDir;
    use sha2::{Digest, Sha256};

    #[test]
    fn what_another_machine_has_put_keeps_its_time_and_can_be_passed_on() {
        let dir = TestDir::new();
        let store = Store::open(dir.path()).unwrap();
        let action = ActionId([1; 32]);
        let body = b"an output";
        let entry = Entry {
            output: OutputId(Sha256::digest(body).into()),
            size: body.len() as u64,
            time: 1_700_000_000_000_001_000,
        };
        assert!(
            store
                .adopt(&action, &entry, &mut &b"another!!"[..])
                .is_err()
        );
        assert!(store.adopt(&action, &entry, &mut &body[..5]).is_err());
        assert_eq!(store.get(&action).unwrap(), None);
        assert!(store.open_output(&entry).unwrap().is_none());
        store.adopt(&action, &entry, &mut &body[..]).unwrap();
        assert_eq!(store.get(&action).unwrap(), Some(entry));
        let mut found = Vec::new();
        let file = store.open_output(&entry).unwrap();
        file.unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, body);
        let longer = Entry { size: 10, ..entry };
        assert!(store.open_output(&longer).unwrap().is_none());
        let future = Entry {
            time: i64::MAX / 1000 * 1000,
            ..entry
        };
        store.adopt(&action, &future, &mut &body[..]).unwrap();
        assert!(store.get(&action).unwrap().unwrap().put_at() <= store.now());
    }
}
