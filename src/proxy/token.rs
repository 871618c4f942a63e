//! The token that a client must know: the first part of every path that it asks for.
//!
//! A proxy fetches with the credentials of whoever started it, and any process that shares its
//! network can connect. What does not begin with the token is refused before anything else is done.

use crate::error::{Error, Result};
use crate::fs;
use crate::id::BuildId;
use crate::sha256::Sha256;
use std::path::Path;

/// The shortest token that is accepted from a file, in characters.
const LENGTH_MIN: usize = 16;

/// A token's hash: comparing hashes takes the same time for every wrong guess.
pub struct Token([u8; 32]);

impl Token {
    /// A new token of 128 random bits, and its text.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<(Self, String)> {
        let text = BuildId::new()?.to_string();
        Ok((Self::of(&text), text))
    }

    /// Reads a token from a file.
    ///
    /// # Errors
    /// When the file cannot be read, or its text is too short or cannot stand in a URL.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let text = text.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if text.len() < LENGTH_MIN || !text.chars().all(plain) {
            return Err(Error::input(format!(
                "{} must hold one token of at least {LENGTH_MIN} letters, digits or -._~ \
                 (for example from `openssl rand -hex 16`)",
                path.display()
            )));
        }
        Ok(Self::of(text))
    }

    /// The rest of a path that begins with this token; `None` when it begins with anything else.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let path = path.strip_prefix('/')?;
        let (token, _) = path.split_once('/')?;
        (Self::of(token).0 == self.0).then(|| &path[token.len()..])
    }

    fn of(text: &str) -> Self {
        Self(Sha256::digest(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_that_begins_with_the_token_has_a_rest() {
        let (token, text) = Token::random().unwrap();
        assert_eq!(text.len(), 32);
        let good = format!("/{text}/example.org/m/@v/list");
        assert_eq!(token.strip(&good), Some("/example.org/m/@v/list"));
        assert_eq!(token.strip(&format!("/{text}/")), Some("/"));
        for bad in [
            String::new(),
            "/".to_string(),
            "/example.org/m/@v/list".to_string(),
            format!("/{text}"),
            format!("//{text}/x"),
            format!("/{text}0/x"),
            format!("/{}/x", &text[1..]),
            format!("{text}/x"),
        ] {
            assert_eq!(token.strip(&bad), None, "{bad}");
        }
    }
}
