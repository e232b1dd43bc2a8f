//! Work on this host that mostly takes no time, and sometimes minutes: then it is told that it goes on.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use repmgr_datadir::Erasing;

use crate::{Context, PlaceEvent};

/// What takes less is not spoken of.
const EVERY: Duration = Duration::from_secs(1);

/// Does `work`, which erases in `path`, and tells how much is gone.
pub(crate) fn erasing<T>(path: &Path, context: &Context<'_>, work: impl FnOnce(Erasing<'_>) -> T) -> T {
    erasing_every(EVERY, path, context, work)
}

fn erasing_every<T>(
    every: Duration,
    path: &Path,
    context: &Context<'_>,
    work: impl FnOnce(Erasing<'_>) -> T,
) -> T {
    let removed = AtomicU64::new(0);
    let event = |elapsed| PlaceEvent::StillErasing {
        path: path.to_owned(),
        removed: removed.load(Ordering::Relaxed),
        elapsed,
    };
    let erasing = Erasing::new(context.cancel).counted(&removed);
    told(every, event, context, || work(erasing))
}

/// Does `work`, which brings a clone to disk.
pub(crate) fn flushing<T>(context: &Context<'_>, work: impl FnOnce() -> T) -> T {
    told(
        EVERY,
        |elapsed| PlaceEvent::StillFlushing { elapsed },
        context,
        work,
    )
}

fn told<T>(
    every: Duration,
    event: impl Fn(Duration) -> PlaceEvent + Send,
    context: &Context<'_>,
    work: impl FnOnce() -> T,
) -> T {
    let begun = Instant::now();
    thread::scope(|scope| {
        // Dropped at the end of the work, a panic included: the scope waits for who tells.
        let (end, over) = channel::<()>();
        let tell = move || {
            while over.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                context.tell(event(begun.elapsed()));
            }
        };
        let builder = thread::Builder::new().name("lasting".to_owned());
        if let Err(error) = builder.spawn_scoped(scope, tell) {
            log::warn!("nobody tells that it goes on: {error}");
        }
        let done = work();
        drop(end);
        done
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use repmgr_types::CancelToken;

    use super::*;
    use crate::testing::Heard;
    use crate::{Environment, Event};

    /// What is heard of `work`.
    fn heard(work: impl FnOnce(&Context<'_>, &Heard)) -> Vec<Event> {
        let heard = Heard::default();
        let context = Context {
            observer: &heard,
            cancel: &CancelToken::new(),
            environment: &Environment::empty(),
        };
        work(&context, &heard);
        heard.0.into_inner().unwrap()
    }

    #[test]
    fn what_is_soon_done_is_not_spoken_of() {
        let events = heard(|context, _| {
            erasing(Path::new("/data"), context, |_| ());
            flushing(context, || ());
        });
        assert_eq!(events, []);
    }

    #[test]
    fn what_lasts_is_told_until_it_ends() {
        let event = |elapsed| PlaceEvent::StillFlushing { elapsed };
        let mut during = 0;
        let events = heard(|context, heard| {
            let count = || heard.0.lock().unwrap().len();
            during = told(Duration::from_millis(1), event, context, || {
                while count() < 3 {
                    thread::yield_now();
                }
                count()
            });
        });
        assert!(during >= 3 && events.len() >= during);
        let times: Vec<_> = events.iter().map(Event::lasts).collect();
        assert!(
            times.is_sorted() && times[0] >= Some(Duration::from_millis(1)),
            "{times:?}"
        );
    }

    #[test]
    fn erasing_tells_how_much_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..3 {
            std::fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        let tree = repmgr_datadir::Tree::open(dir.path().parent().unwrap(), Default::default()).unwrap();
        let all = |event: &Event| matches!(event, Event::Place(PlaceEvent::StillErasing { removed: 4, path, .. }) if path == dir.path());
        let events = heard(|context, heard| {
            erasing_every(Duration::from_millis(1), dir.path(), context, |erasing| {
                tree.remove_all(dir.path().file_name().unwrap(), erasing).unwrap();
                // As if the next file took long.
                while !heard.0.lock().unwrap().last().is_some_and(all) {
                    thread::yield_now();
                }
            });
        });
        assert!(events.last().is_some_and(all), "{events:?}");
    }

    #[test]
    fn a_panic_of_the_work_is_passed_on_and_not_waited_for() {
        heard(|context, _| {
            let work = AssertUnwindSafe(|| flushing::<()>(context, || panic!("of the work")));
            assert!(catch_unwind(work).is_err());
        });
    }
}
