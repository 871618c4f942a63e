//! Of the store only what an action says.

#[path = "../src/store/entry.rs"]
mod entry;

pub use entry::{Entry, SIZE_MAX};
