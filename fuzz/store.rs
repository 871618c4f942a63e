//! Of the store only what an action says.

#[path = "../src/store/entry.rs"]
mod entry;

pub use entry::{ENTRY_LEN, Entry, SIZE_MAX};
