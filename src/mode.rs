//! What a build may do with the shared cache.

use serde::{Deserialize, Serialize};

/// What a build may do with the shared cache, the least restrictive first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Get and put.
    #[default]
    On,
    /// Every get is a miss, and each put is compared with what the cache holds.
    Audit,
    /// Get only.
    Readonly,
    /// Nothing.
    Off,
}

impl Mode {
    /// Reads a mode as a person wrote it. Anything unknown means off: a safety switch fails safe.
    pub fn parse(text: &str) -> Self {
        match text {
            "" | "on" => Self::On,
            "audit" => Self::Audit,
            "readonly" => Self::Readonly,
            _ => Self::Off,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Audit => "audit",
            Self::Readonly => "readonly",
            Self::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_means_off() {
        for mode in [Mode::On, Mode::Audit, Mode::Readonly, Mode::Off] {
            assert_eq!(Mode::parse(mode.name()), mode);
        }
        assert_eq!(Mode::parse(""), Mode::On);
        for text in ["read-only", "READONLY", "yes", "1", " on"] {
            assert_eq!(Mode::parse(text), Mode::Off, "{text}");
        }
    }
}
