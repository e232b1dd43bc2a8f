//! The same work on several threads.

use std::panic::resume_unwind;
use std::thread;

/// Does `work` on so many threads, this one among them, and gives all results, its own first. Where there are no
/// more threads, fewer do.
pub(crate) fn on_threads<T: Send>(count: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, &work).ok();
        let others: Vec<_> = (1..count).filter_map(start).collect();
        let mut results = vec![work()];
        for other in others {
            results.push(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results
    })
}
