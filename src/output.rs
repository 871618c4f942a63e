//! What a person or a script reads on stdout.

use crate::error::{Error, Result};
use std::io::{ErrorKind, IsTerminal, Write};

/// Prints a text.
///
/// # Errors
/// When it could not be written whole, as on a full disk. A reader that has seen enough is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write to", "stdout", e)),
        _ => Ok(()),
    }
}

/// Whether stdout shows escape sequences: a terminal that is not dumb, for a user who has not set NO_COLOR.
pub fn has_colour() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !is_dumb && !is_unwanted
}
