//! A session with whatever keeps modules: the daemon, or a store of the proxy's own.

use super::body::Body;
use crate::client::connection::Daemon;
use crate::config::GIVE_UP_AFTER;
use crate::error::{Error, Result};
use crate::fs;
use crate::id::{ActionId, OutputId};
use crate::protocol::wire::{self, Answer, Request};
use std::io::{BufRead, ErrorKind, Read};
use std::time::Instant;

/// A session, used by one request at a time. After an error it is of no further use.
pub trait Link: Send {
    /// The output of an action.
    ///
    /// # Errors
    /// When the session has ended, or the output cannot be opened.
    fn get(&mut self, action: &ActionId) -> Result<Option<Body>>;

    /// Stores an action's output.
    ///
    /// # Errors
    /// When the session has ended, or it could not be stored.
    fn put(&mut self, action: &ActionId, output: &OutputId, body: &Body) -> Result<()>;
}

impl Link for Daemon {
    fn get(&mut self, action: &ActionId) -> Result<Option<Body>> {
        let mut frame = Vec::new();
        let request = Request::Get {
            request: 1,
            action: *action,
        };
        wire::push_request(&mut frame, &request);
        self.send(&frame)?;
        let path = match read_answer(self)? {
            Answer::Hit(entry) => self.file(&entry.output, Some(entry.size))?,
            Answer::Miss => return Ok(None),
            Answer::Refused(why) => return Err(refused(&why)),
            Answer::Stored => return Err(Error::peer("the daemon answered a different question")),
        };
        Body::file(fs::open(&path)?).map(Some)
    }

    fn put(&mut self, action: &ActionId, output: &OutputId, body: &Body) -> Result<()> {
        let mut frame = Vec::new();
        let request = Request::Put {
            request: 1,
            action: *action,
            output: *output,
            size: body.len(),
        };
        wire::push_request(&mut frame, &request);
        self.send(&frame)?;
        let mut reader = body.reader();
        let mut piece = vec![0; 64 << 10];
        loop {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => self.send(&piece[..n])?,
                Err(e) => return Err(Error::io("read", "a fetched file", e)),
            }
        }
        match read_answer(self)? {
            Answer::Stored => Ok(()),
            Answer::Refused(why) => Err(refused(&why)),
            _ => Err(Error::peer("the daemon answered a different question")),
        }
    }
}

/// Waits for the answer to the only request of this session.
fn read_answer(daemon: &Daemon) -> Result<Answer> {
    let mut reader = daemon.reader();
    let until = Instant::now() + GIVE_UP_AFTER;
    while let Err(e) = reader.fill_buf() {
        match e.kind() {
            ErrorKind::WouldBlock if Instant::now() < until => {}
            ErrorKind::Interrupted => {}
            _ => return Err(Error::io("hear from", "the daemon", e)),
        }
    }
    match wire::read_answer(&mut reader).map_err(|e| e.on("the daemon"))? {
        Some((_, answer)) => Ok(answer),
        None => Err(Error::peer("the daemon has closed the connection")),
    }
}

fn refused(why: &str) -> Error {
    Error::peer(format!("the daemon refused a request: {why}"))
}
