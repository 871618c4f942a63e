//! What a person runs on a host: install, uninstall, doctor, and the commands that look after the cache.

pub mod admin;
pub mod ci;
pub mod doctor;
pub mod export;
pub mod flush;
pub mod install;
pub mod page;
pub mod top;
pub mod why;
