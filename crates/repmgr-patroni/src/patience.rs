//! Trying again within one call: Patroni removes what a failed one has copied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use repmgr_clone::{CancelToken, CloneError, Context, Environment, Event, Observer, Progress, prepare};

use crate::request::Asked;
use crate::tell::Teller;

const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A signal is heard this soon.
const STEP: Duration = Duration::from_millis(200);

/// How a clone ended that did not succeed.
pub(crate) enum Ended {
    Failed(Box<CloneError>),
    /// The whole took too long.
    TooLong(Duration),
}

/// The log, and when the copy last got further.
struct Watch<'a> {
    teller: &'a Teller,
    state: Mutex<State>,
}

struct State {
    bytes: u64,
    at: Instant,
}

impl Watch<'_> {
    fn stands_for(&self) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.at.elapsed()
    }
}

impl Observer for Watch<'_> {
    fn event(&self, event: Event) {
        self.teller.event(event);
    }

    fn progress(&self, progress: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fetched = progress.bytes_done.saturating_sub(progress.bytes_reused);
        // A new attempt counts from nothing.
        if fetched != state.bytes {
            *state = State {
                bytes: fetched,
                at: Instant::now(),
            };
        }
        drop(state);
        self.teller.progress(progress);
    }
}

/// Clones, and continues as long as the trouble may pass and time is left.
pub(crate) fn run(asked: &Asked, cancel: &CancelToken, teller: &Teller) -> Result<(), Ended> {
    let too_long = asked.time_limit.map(|limit| (limit, cancel_after(limit, cancel)));
    let watch = Watch {
        teller,
        state: Mutex::new(State {
            bytes: 0,
            at: Instant::now(),
        }),
    };
    let environment = Environment::from_process();
    let context = Context {
        observer: &watch,
        cancel,
        environment: &environment,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let before = Instant::now();
        let done = prepare(&asked.request, &context).and_then(|prepared| prepared.execute(&context));
        let Err(error) = done else { return Ok(()) };
        if let Some((limit, expired)) = &too_long
            && expired.load(Ordering::SeqCst)
        {
            return Err(Ended::TooLong(*limit));
        }
        let stands = watch.stands_for();
        if !error.is_transient() || cancel.is_cancelled() || stands + pause > asked.retry_for {
            return Err(Ended::Failed(Box::new(error)));
        }
        if stands < before.elapsed() {
            pause = FIRST_PAUSE;
        }
        teller.again(&error, pause);
        wait(pause, cancel);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn wait(pause: Duration, cancel: &CancelToken) {
    let end = Instant::now() + pause;
    while Instant::now() < end && !cancel.is_cancelled() {
        thread::sleep(STEP);
    }
}

/// Cancels after this time. What is returned tells whether it did.
fn cancel_after(limit: Duration, cancel: &CancelToken) -> Arc<AtomicBool> {
    let expired = Arc::new(AtomicBool::new(false));
    let (tells, cancel) = (Arc::clone(&expired), cancel.clone());
    thread::spawn(move || {
        thread::sleep(limit);
        tells.store(true, Ordering::SeqCst);
        cancel.cancel();
    });
    expired
}
