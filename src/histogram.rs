//! A histogram that threads add to without a lock: latencies and sizes, for metrics.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many buckets a histogram has: the last one holds whatever is larger than the bounds.
const BUCKETS: usize = 13;

/// Each bucket's upper bound is four times the one before it.
const FACTOR: u64 = 4;

/// A histogram of numbers, with buckets that grow by a factor of four.
#[derive(Debug)]
pub struct Histogram {
    first: u64,
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Upper bounds, inclusive, and how many numbers lie in each bucket and above the bound before it.
    pub buckets: Vec<(u64, u64)>,
    /// How many numbers lie above the last bound.
    pub above: u64,
    /// The sum of all numbers.
    pub sum: u64,
}

impl Histogram {
    /// An empty one whose first bucket reaches up to `first`.
    pub const fn new(first: u64) -> Self {
        Self {
            first,
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }

    /// Adds a number.
    pub fn add(&self, number: u64) {
        let mut bound = self.first;
        let mut at = 0;
        while at + 1 < BUCKETS && number > bound {
            bound = bound.saturating_mul(FACTOR);
            at += 1;
        }
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(number, Ordering::Relaxed);
    }

    /// The numbers so far.
    pub fn snapshot(&self) -> Snapshot {
        let counts = self.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        let mut bound = self.first;
        let mut buckets: Vec<_> = counts
            .map(|count| {
                let bucket = (bound, count);
                bound = bound.saturating_mul(FACTOR);
                bucket
            })
            .collect();
        let above = buckets.pop().map_or(0, |(_, count)| count);
        Snapshot {
            buckets,
            above,
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl Snapshot {
    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.above + self.buckets.iter().map(|(_, count)| count).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lies_in_the_first_bucket_whose_bound_is_not_below_it() {
        let histogram = Histogram::new(10);
        for number in [0, 10, 11, 40, 41, u64::MAX / 2] {
            histogram.add(number);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets[..3], [(10, 2), (40, 2), (160, 1)]);
        assert_eq!(snapshot.above, 1);
        assert_eq!(snapshot.count(), 6);
        assert_eq!(snapshot.buckets.len(), BUCKETS - 1);
    }
}
