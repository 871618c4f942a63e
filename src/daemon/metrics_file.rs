//! `--metrics-file`: the daemon's figures in a file for node_exporter's textfile collector, which reads it whenever it is
//! asked. It is replaced as a whole. Figures that take a walk over the store are as old as the last walk.

use crate::daemon::service::Service;
use crate::error::Result;
use crate::fs;
use crate::log;
use crate::metrics;
use crate::report::Contents;
use crate::sync::lock;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often the store is walked over for what is not known without.
const WALK_EVERY: Duration = Duration::from_secs(60 * 60);

/// The file, and what stood there last.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    walked: Option<(Instant, Contents)>,
    /// The last one could not be written, which is logged once.
    is_failing: bool,
}

impl MetricsFile {
    /// Nothing is written yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
        }
    }

    /// Writes what there is to say now, unless another thread does.
    pub fn write(&self, service: &Service) {
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        match self.try_write(&mut state, service) {
            Ok(()) => state.is_failing = false,
            Err(e) if !std::mem::replace(&mut state.is_failing, true) => {
                log::warn(format!("metrics not written: {}", e.chain()));
            }
            Err(_) => {}
        }
    }

    /// Writes what there is to say at the end, without a walk.
    pub fn write_last(&self, service: &Service) {
        if let Some((walked, _)) = &mut lock(&self.state).walked {
            *walked = Instant::now();
        }
        self.write(service);
    }

    fn try_write(&self, state: &mut State, service: &Service) -> Result<()> {
        let contents = match state.walked {
            Some((walked, contents)) if walked.elapsed() < WALK_EVERY => contents,
            _ => {
                let contents = service.walk()?;
                state.walked = Some((Instant::now(), contents));
                contents
            }
        };
        let size = service.store.accounted();
        let report = service.report_with(Contents {
            bytes: size.bytes,
            outputs: size.outputs,
            ..contents
        })?;
        replace(&self.path, metrics::text(&report).as_bytes())
    }
}

/// Replaces the file, for everybody to read. It is not worth a wait for the disk.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // The collector reads what is named *.prom.
    let fresh = path.with_extension("new");
    fs::remove_file(&fresh)?;
    let file = fs::create_new(&fresh, 0o644)?;
    fs::write_all(&file, &fresh, bytes)?;
    fs::rename(&fresh, path)
}
