//! While a copy runs: telling how far it is, and looking after the hold on what is copied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use repmgr_barman::Hold;
use repmgr_transfer::Progress as TransferProgress;

use crate::{Context, Event, Progress};

/// How often observers hear of the progress.
const TICK: Duration = Duration::from_millis(100);
/// How often the hold on the backup is looked after.
const HOLD_EVERY: Duration = Duration::from_secs(5);

/// Does `work`, which counts in `progress`, on top of what `base` says is done.
pub(crate) fn watched<T: Send>(
    progress: &TransferProgress,
    base: Progress,
    holds: &mut Vec<Hold>,
    context: &Context<'_>,
    work: impl FnOnce() -> T,
) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(progress, base, holds, &done, context));
        let result = work();
        done.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        result
    })
}

fn watch(
    progress: &TransferProgress,
    base: Progress,
    holds: &mut Vec<Hold>,
    done: &AtomicBool,
    context: &Context<'_>,
) {
    let started = Instant::now();
    let mut looked_at = started;
    loop {
        let finished = done.load(Ordering::Relaxed);
        context.observer.progress(&Progress {
            files_done: base.files_done + progress.files(),
            bytes_done: base.bytes_done + progress.bytes(),
            wire_bytes: base.wire_bytes + progress.wire_bytes(),
            elapsed: base.elapsed + started.elapsed(),
            ..base
        });
        if finished {
            return;
        }
        if looked_at.elapsed() >= HOLD_EVERY {
            looked_at = Instant::now();
            if let Some(error) = holds.iter_mut().find_map(|hold| hold.check().err()) {
                // The backup is looked at again when the copy is done; until then nothing is wrong.
                context.observer.event(Event::Warning {
                    text: "the backup is no longer held against Barman's retention".to_owned(),
                    detail: Some(error.to_string()),
                    hint: None,
                });
                holds.clear();
            }
        }
        thread::park_timeout(TICK);
    }
}
