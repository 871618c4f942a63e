//! The cache of this build, or of this user, alone: what it answers to `go`.

use crate::cache::builds::output_name;
use crate::cache::session::Session;
use crate::client::pending::Put;
use crate::client::{gocacheprog, private};
use crate::error::{Error, Result};
use crate::id::ActionId;
use std::path::PathBuf;

/// A private cache, which is opened once it is needed.
pub enum PrivateCache {
    /// Nothing needed it yet; in this directory, if one is named.
    Unused(Option<PathBuf>),
    Open(Session<'static>, PathBuf),
    Unavailable(Error),
}

impl PrivateCache {
    /// Answers a get that the daemon has missed: an output of this build, if it has put any here.
    pub fn get_if_used(&mut self, out: &mut Vec<u8>, id: i64, keys: &[ActionId]) {
        match self {
            Self::Open(..) => self.get(out, id, keys),
            _ => gocacheprog::push_miss(out, id),
        }
    }

    /// Answers a get: an output of this build under the first of these keys that has one, or a miss.
    pub fn get(&mut self, out: &mut Vec<u8>, id: i64, keys: &[ActionId]) {
        if let Self::Open(session, directory) = self.open()
            && let Ok(Some((_, entry))) = session.get_first(keys)
        {
            let path = output_name(directory, &entry.output);
            return gocacheprog::push_dated_hit(out, id, &entry, &path);
        }
        gocacheprog::push_miss(out, id);
    }

    /// Answers a put: its output must be in a file, wherever there is room for one.
    pub fn put(&mut self, out: &mut Vec<u8>, id: i64, put: &Put) {
        match self.store(put) {
            Ok(path) => gocacheprog::push_stored(out, id, &path),
            Err(e) => gocacheprog::push_error(out, id, &e),
        }
    }

    fn store(&mut self, put: &Put) -> std::result::Result<PathBuf, String> {
        let stored = |session: &mut Session<'_>| -> Result<_> {
            let mut body = put.body.reader()?;
            session.put(&put.key, &put.output, put.body.size(), &mut body)
        };
        match self.open() {
            Self::Open(session, directory) => match stored(session) {
                Ok(entry) => Ok(output_name(directory, &entry.output)),
                Err(e) => Err(e.chain()),
            },
            Self::Unavailable(e) => Err(e.chain()),
            Self::Unused(_) => Err("the private cache is not open".into()),
        }
    }

    /// Opens it, creating what is missing.
    pub fn open(&mut self) -> &mut Self {
        if let Self::Unused(cache_dir) = self {
            *self = match private::open(cache_dir.as_deref()) {
                Ok((session, directory)) => Self::Open(session, directory),
                Err(e) => Self::Unavailable(e),
            };
        }
        self
    }
}
