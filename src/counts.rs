//! What happened in a session, a build or an hour, in numbers.

use crate::size;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::ops::{AddAssign, Sub};

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Gets.
    pub gets: u64,
    /// Gets that were answered with an output.
    pub hits: u64,
    /// Puts that were stored.
    pub puts: u64,
    /// The size of the outputs of all hits, in bytes.
    pub bytes_read: u64,
    /// The size of the outputs of all puts, in bytes.
    pub bytes_written: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Puts that an audit compared with what the cache held.
    #[serde(skip_serializing_if = "is_zero")]
    pub compared: u64,
    /// Those of them that differed.
    #[serde(skip_serializing_if = "is_zero")]
    pub different: u64,
    /// Puts that replaced another output of the same action.
    #[serde(skip_serializing_if = "is_zero")]
    pub replaced: u64,
    /// How long it took to compile what the hits gave, as measured when it was put, in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub saved_ms: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Counts {
    /// Gets that were not answered with an output.
    pub fn misses(&self) -> u64 {
        self.gets - self.hits
    }

    /// The share of hits among all gets: `99.9%`, and never 100% with a miss among them.
    pub fn rate(&self) -> String {
        if self.gets == 0 {
            return "-".into();
        }
        let permille = self.hits * 1000 / self.gets;
        if permille == 1000 {
            "100%".into()
        } else {
            format!("{}.{}%", permille / 10, permille % 10)
        }
    }

    /// The line in an audited build's log; `None` when nothing was compared.
    pub fn audit_summary(&self) -> Option<String> {
        (self.compared > 0).then(|| {
            format!(
                "audit: {} compared, {} equal, {} different",
                size::count(self.compared, "action"),
                size::show_count(self.compared.saturating_sub(self.different)),
                size::show_count(self.different)
            )
        })
    }

    /// The line in a build's log; `None` when nothing was asked.
    pub fn summary(&self) -> Option<String> {
        (*self != Self::default()).then(|| {
            let mut line = format!(
                "{}, {} ({}), {} from cache",
                size::count(self.hits, "hit"),
                size::count(self.misses(), "miss"),
                self.rate(),
                size::show_size(self.bytes_read),
            );
            if self.bytes_written > 0 {
                let _ = write!(line, ", {} added", size::show_size(self.bytes_written));
            }
            if self.saved_ms > 0 {
                let saved = size::show_duration(self.saved_ms);
                let _ = write!(line, ", {saved} of compiling saved");
            }
            line
        })
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.gets = self.gets.saturating_add(more.gets);
        self.hits = self.hits.saturating_add(more.hits);
        self.puts = self.puts.saturating_add(more.puts);
        self.bytes_read = self.bytes_read.saturating_add(more.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(more.bytes_written);
        self.errors = self.errors.saturating_add(more.errors);
        self.compared = self.compared.saturating_add(more.compared);
        self.different = self.different.saturating_add(more.different);
        self.replaced = self.replaced.saturating_add(more.replaced);
        self.saved_ms = self.saved_ms.saturating_add(more.saved_ms);
    }
}

impl Sub for Counts {
    type Output = Self;

    /// What has happened since then, when the counts were these.
    fn sub(self, then: Self) -> Self {
        Self {
            gets: self.gets - then.gets,
            hits: self.hits - then.hits,
            puts: self.puts - then.puts,
            bytes_read: self.bytes_read - then.bytes_read,
            bytes_written: self.bytes_written - then.bytes_written,
            errors: self.errors - then.errors,
            compared: self.compared - then.compared,
            different: self.different - then.different,
            replaced: self.replaced - then.replaced,
            saved_ms: self.saved_ms - then.saved_ms,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gets,
            hits,
            puts,
            bytes_read,
            bytes_written,
            errors,
            compared,
            different,
            replaced,
            saved_ms,
        } = self;
        let misses = self.misses();
        write!(
            f,
            "gets={gets} hits={hits} misses={misses} puts={puts} bytes_read={bytes_read} \
             bytes_written={bytes_written} errors={errors}"
        )?;
        if *compared > 0 {
            write!(f, " compared={compared} different={different}")?;
        }
        if *replaced > 0 {
            write!(f, " replaced={replaced}")?;
        }
        if *saved_ms > 0 {
            write!(f, " saved_ms={saved_ms}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_summed_up_in_one_line() {
        let counts = Counts {
            gets: 3027,
            hits: 3025,
            puts: 2,
            bytes_read: 487 << 20,
            bytes_written: 6 * (1 << 20) / 5,
            ..Counts::default()
        };
        assert_eq!(
            counts.summary().unwrap(),
            "3,025 hits, 2 misses (99.9%), 487 MiB from cache, 1.2 MiB added"
        );
        let saved = Counts {
            puts: 0,
            bytes_written: 0,
            saved_ms: 112_400,
            ..counts
        };
        assert_eq!(
            saved.summary().unwrap(),
            "3,025 hits, 2 misses (99.9%), 487 MiB from cache, 1 min 52 s of compiling saved"
        );
        assert_eq!(Counts::default().summary(), None);
        let one = Counts {
            gets: 2,
            hits: 1,
            ..Counts::default()
        };
        assert_eq!(
            one.summary().unwrap(),
            "1 hit, 1 miss (50.0%), 0 B from cache"
        );
    }

    #[test]
    fn an_audit_is_summed_up_in_one_line() {
        let counts = Counts {
            compared: 3025,
            different: 1,
            ..Counts::default()
        };
        assert_eq!(
            counts.audit_summary().unwrap(),
            "audit: 3,025 actions compared, 3,024 equal, 1 different"
        );
        assert_eq!(Counts::default().audit_summary(), None);
    }

    #[test]
    fn a_rate_is_never_rounded_up_to_all() {
        let counts = |gets, hits| Counts {
            gets,
            hits,
            ..Counts::default()
        };
        assert_eq!(counts(1_000_000, 999_999).rate(), "99.9%");
        assert_eq!(counts(7, 7).rate(), "100%");
        assert_eq!(counts(0, 0).rate(), "-");
    }
}
