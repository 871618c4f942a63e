//! The line at the end of a build's log: what the cache did for it. The setup hook asks
//! for it when the build ends, which it must neither fail nor delay.

use super::Options;
use crate::client::connection;
use crate::config::SUMMARY_LIMIT;
use crate::log;
use std::sync::mpsc;
use std::thread;

/// Says it, on stderr. When nothing was asked of the cache, or the daemon does not answer at
/// once, it says nothing.
pub fn run(options: Options) {
    let (send, receive) = mpsc::channel();
    // A thread, because a daemon that hangs would hang us with it. It ends with the process.
    thread::spawn(move || {
        send.send(connection::counts(
            options.runtime_dir.as_deref(),
            options.give_up_after,
        ))
    });
    match receive.recv_timeout(SUMMARY_LIMIT) {
        Ok(Ok(counts)) => {
            for line in counts
                .into_iter()
                .flat_map(|counts| [counts.summary(), counts.audit_summary()])
                .flatten()
            {
                log::info(line);
            }
        }
        Ok(Err(e)) => log::debug(|| e.chain()),
        Err(_) => log::debug(|| "no summary in time".into()),
    }
}
