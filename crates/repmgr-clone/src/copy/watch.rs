//! While a copy runs: telling how far it is, and looking after the hold on what is copied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use repmgr_transfer::Counters;

use crate::source::hold::Holds;
use crate::{Context, Progress};

/// How often observers hear of the progress.
const TICK: Duration = Duration::from_millis(100);
/// How often the hold on the backup is looked after.
const HOLD_EVERY: Duration = Duration::from_secs(5);

/// Does `work`, which counts in `progress`, on top of what `base` says is done.
pub(crate) fn watched<T: Send>(
    progress: &Counters,
    base: Progress,
    holds: &mut Holds,
    context: &Context<'_>,
    work: impl FnOnce() -> T,
) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("watch".to_owned());
        let watcher = builder.spawn_scoped(scope, || watch(progress, base, holds, &done, context));
        let _end = match &watcher {
            Ok(watcher) => Some(End {
                done: &done,
                watcher: watcher.thread(),
            }),
            Err(error) => {
                log::warn!("nobody watches over the copy: {error}");
                None
            }
        };
        work()
    })
}

/// The end of the work, a panic included: the scope waits for the watcher.
struct End<'a> {
    done: &'a AtomicBool,
    watcher: &'a Thread,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.watcher.unpark();
    }
}

fn watch(progress: &Counters, base: Progress, holds: &mut Holds, done: &AtomicBool, context: &Context<'_>) {
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
            holds.look_after(context);
        }
        thread::park_timeout(TICK);
    }
}

#[cfg(test)]
mod tests {
    use repmgr_types::CancelToken;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{Environment, Observer};

    struct Nobody;

    impl Observer for Nobody {
        fn event(&self, _: crate::Event) {}
    }

    #[test]
    fn a_panic_of_the_work_is_passed_on_and_not_waited_for() {
        let context = Context {
            observer: &Nobody,
            cancel: &CancelToken::new(),
            environment: &Environment::empty(),
        };
        let mut holds = Holds::default();
        let progress = Counters::default();
        let work = AssertUnwindSafe(|| {
            watched::<()>(&progress, Progress::to_do(0, 0), &mut holds, &context, || {
                panic!("of the work")
            })
        });
        let panic = catch_unwind(work).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"of the work"));
    }
}
