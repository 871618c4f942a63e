//! The cache of one machine: actions and outputs on disk, what each build can see of them, and what keeps them within
//! limits. It knows nothing of protocols, HTTP, the remote or the daemon.

pub mod builds;
pub mod compile_times;
pub mod history;
pub mod journal;
pub mod maintenance;
pub mod prefetch;
pub mod prefetched;
pub mod putters;
pub mod session;
pub mod stats;
pub mod store;
pub mod tier;
