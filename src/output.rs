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

/// What a text is to look like on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// A heading.
    Bold,
    /// What is right.
    Green,
    /// What is worth a look.
    Yellow,
    /// What is wrong.
    Red,
}

impl Paint {
    /// The text in this style, if there are `colours`, and as it is otherwise.
    pub fn of(self, text: &str, colours: bool) -> String {
        let code = match self {
            Self::Bold => 1,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
        };
        if colours && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_a_text_is_as_it_is() {
        assert_eq!(Paint::Bold.of("hits", false), "hits");
        assert_eq!(Paint::Yellow.of("hits", true), "\x1b[33mhits\x1b[0m");
        assert_eq!(Paint::Red.of("", true), "");
    }
}
