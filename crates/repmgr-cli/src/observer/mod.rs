//! Observers of a clone: lines for the log, a progress bar, and JSON lines.

mod bar;
mod json;
mod lines;
mod rate;

pub(crate) use bar::Bar;
pub(crate) use json::Json;
pub(crate) use lines::{Lines, ProgressLines};

use repmgr_clone::{Event, Observer, Progress};

/// Several observers as one.
pub(crate) struct All<'a>(pub(crate) Vec<&'a dyn Observer>);

impl Observer for All<'_> {
    fn event(&self, event: Event) {
        for observer in &self.0 {
            observer.event(event.clone());
        }
    }

    fn progress(&self, progress: &Progress) {
        for observer in &self.0 {
            observer.progress(progress);
        }
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use std::time::Duration;

    use repmgr_clone::Progress;

    pub(crate) fn progress(seconds: u64, megabytes: u64) -> Progress {
        Progress {
            files_done: megabytes,
            files_total: 1000,
            bytes_done: megabytes << 20,
            bytes_total: 1000 << 20,
            bytes_reused: 0,
            wire_bytes: megabytes << 18,
            elapsed: Duration::from_secs(seconds),
        }
    }
}
