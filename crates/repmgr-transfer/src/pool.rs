//! The workers of a transfer and what they share.

use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use repmgr_remote::{ConnectError, ConnectErrorKind, Connection, Host};
use repmgr_types::{CancelToken, Cancelled};

use crate::batch::{Batch, Plan};
use crate::choice::Choice;
use crate::compression::{Compression, ON_THE_WIRE};
use crate::counters::{Counters, Transferred};
use crate::error::TransferError;
use crate::listing::Listing;
use crate::options::Options;
use crate::revise::PYTHON;
use crate::sink::Sink;
use crate::task::{Failure, Fetched, Fetcher};

/// The longest time between two looks at the cancellation token.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(crate) struct Pool<'a> {
    host: &'a dyn Host,
    options: &'a Options,
    fetcher: Fetcher<'a>,
    /// Cancelled by the caller's token, or by the first worker that fails.
    stop: CancelToken,
    state: Mutex<State<'a>>,
    changed: Condvar,
}

struct State<'a> {
    plan: Plan<'a>,
    /// Parts of batches that failed; the last one goes next.
    returned: Vec<Batch>,
    in_flight: usize,
    /// Those that have not left for want of a connection.
    workers: usize,
    /// Batches; whether it grows tells progress.
    confirmed: u64,
    payload: [u64; ON_THE_WIRE.len()],
    choice: Choice,
    transferred: Transferred,
    failure: Option<TransferError>,
}

impl State<'_> {
    fn has_work(&self) -> bool {
        !self.plan.is_empty() || !self.returned.is_empty()
    }

    fn is_done(&self) -> bool {
        !self.has_work() && self.in_flight == 0
    }
}

/// What one worker has for itself.
#[derive(Default)]
struct Worker {
    connection: Option<Box<dyn Connection>>,
    failures: Failures,
    brought: bool,
}

/// Failures in a row, as long as nobody makes progress.
#[derive(Default)]
struct Failures {
    count: u32,
    confirmed: u64,
}

impl Failures {
    fn add(&mut self, confirmed: u64) -> u32 {
        if confirmed != self.confirmed {
            *self = Self { count: 0, confirmed };
        }
        self.count += 1;
        self.count
    }
}

impl<'a> Pool<'a> {
    pub(crate) fn new(
        host: &'a dyn Host,
        sources: &'a [Listing],
        plan: Plan<'a>,
        options: &'a Options,
        sink: &'a dyn Sink,
        counters: &'a Counters,
    ) -> Self {
        let stop = options.cancel.child();
        Self {
            host,
            options,
            fetcher: Fetcher {
                sources,
                sink,
                counters,
                idle_timeout: options.idle_timeout,
                cancel: stop.clone(),
            },
            stop,
            state: Mutex::new(State {
                workers: plan.workers(),
                plan,
                returned: Vec::new(),
                in_flight: 0,
                confirmed: 0,
                payload: [0; ON_THE_WIRE.len()],
                choice: Choice::default(),
                transferred: Transferred::default(),
                failure: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Works until everything is there or the first error; one worker is this thread.
    pub(crate) fn run(self) -> Result<Transferred, TransferError> {
        thread::scope(|scope| {
            for number in 1..self.lock().plan.workers() {
                let builder = thread::Builder::new().name(format!("transfer-{number}"));
                if let Err(e) = builder.spawn_scoped(scope, || self.work()) {
                    log::debug!("a worker less: {e}");
                    self.lock().workers -= 1;
                }
            }
            self.work();
        });
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = state.failure {
            return Err(failure);
        }
        let most = ON_THE_WIRE
            .into_iter()
            .zip(state.payload)
            .max_by_key(|(_, bytes)| *bytes);
        Ok(Transferred {
            codec: most
                .filter(|_| state.transferred.jobs > 0)
                .map(|(codec, _)| codec),
            ..state.transferred
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        // A worker that panics stops the others, see `Claim`, and its panic goes on afterwards.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut worker = Worker::default();
        while self.wait_for_work() {
            if self.turn(&mut worker).is_break() {
                break;
            }
        }
    }

    /// Until there is a batch to take. False when there will be none any more.
    fn wait_for_work(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_done() || state.failure.is_some() {
                return false;
            }
            if self.stop.is_cancelled() {
                state.failure = Some(Cancelled.into());
                return false;
            }
            if state.has_work() {
                return true;
            }
            state = self.wait(state, LOOK_EVERY);
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<'a>>, at_most: Duration) -> MutexGuard<'s, State<'a>> {
        let waited = self.changed.wait_timeout(state, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits before attempt number `failures + 1`, unless all ends meanwhile.
    fn pause(&self, failures: u32) {
        let factor = 1u32 << (failures - 1).min(16);
        let pause = self.options.retry_pause.saturating_mul(factor).min(LONGEST_PAUSE);
        let started = Instant::now();
        let mut state = self.lock();
        while let Some(left) = pause.checked_sub(started.elapsed()) {
            if state.is_done() || state.failure.is_some() || self.stop.is_cancelled() {
                break;
            }
            state = self.wait(state, left.min(LOOK_EVERY));
        }
    }

    fn fail(&self, error: TransferError) {
        self.lock().failure.get_or_insert(error);
        self.stop.cancel();
        self.changed.notify_all();
    }

    /// One batch, or one attempt at it.
    fn turn(&self, worker: &mut Worker) -> ControlFlow<()> {
        if worker.connection.is_none() && !self.host.is_local() {
            match self.host.connect() {
                Ok(connection) => worker.connection = Some(connection),
                Err(e) => return self.not_connected(worker, e),
            }
        }
        let Some(mut claim) = self.claim() else {
            return ControlFlow::Continue(());
        };
        let started = Instant::now();
        let fetched = self.fetch(worker, &claim.batch);
        match fetched {
            Ok(fetched) => {
                self.arrived(worker, &claim.batch, &fetched, started.elapsed());
                claim.settled = true;
            }
            Err(Failure {
                error: TransferError::NoProgram { program, .. },
                ..
            }) if program == PYTHON => {
                // It has a command that was not heard to its end.
                worker.connection = None;
                let mut state = self.lock();
                state.transferred.without_python = true;
                state.returned.push(claim.take());
                drop(state);
                claim.settled = true;
            }
            Err(Failure { error, at }) if error.is_transient() => {
                worker.connection = None;
                let mut state = self.lock();
                let failures = worker.failures.add(state.confirmed);
                let parts = claim.take().split(at);
                let attempts = parts.iter().map(|b| b.attempts).chain([failures]).max();
                let attempts = attempts.unwrap_or(failures);
                if attempts > self.options.retries {
                    drop(state);
                    self.fail(error.with_attempts(attempts));
                } else {
                    log::debug!("attempt {attempts}: {error}");
                    state.transferred.retries += 1;
                    state.returned.extend(parts.into_iter().rev());
                    drop(state);
                    claim.settled = true;
                    drop(claim);
                    self.pause(failures);
                }
            }
            Err(Failure { error, .. }) => self.fail(error),
        }
        ControlFlow::Continue(())
    }

    /// Has the batch copied, brought up to date or streamed.
    fn fetch(&self, worker: &mut Worker, batch: &Batch) -> Result<Fetched, Failure> {
        let Some(connection) = &mut worker.connection else {
            let host = self.host.name().to_owned();
            return self.fetcher.work(host, batch, |task, at| task.copy(at));
        };
        let codecs = match self.options.compression {
            Compression::Auto => self.lock().choice.next(),
            chosen => chosen.choices(),
        };
        let connection = connection.as_mut();
        let host = connection.host().to_owned();
        match self.fetcher.sink.old_files().filter(|_| batch.old) {
            Some(old) => self
                .fetcher
                .work(host, batch, |task, at| task.revise(old, connection, codecs, at)),
            None => self
                .fetcher
                .work(host, batch, |task, at| task.stream(connection, codecs, at)),
        }
    }

    fn not_connected(&self, worker: &mut Worker, error: ConnectError) -> ControlFlow<()> {
        if matches!(error.kind, ConnectErrorKind::Cancelled(_)) {
            self.fail(Cancelled.into());
            return ControlFlow::Break(());
        }
        let mut state = self.lock();
        let failures = worker.failures.add(state.confirmed);
        if error.is_transient() && failures <= self.options.retries {
            log::debug!("attempt {failures}: {error}");
            state.transferred.retries += 1;
            drop(state);
            self.pause(failures);
            return ControlFlow::Continue(());
        }
        state.workers -= 1;
        let last = state.workers == 0;
        drop(state);
        if last {
            self.fail(TransferError::Connect {
                attempts: failures,
                source: Box::new(error),
            });
        } else {
            log::debug!("a worker less: {error}");
        }
        ControlFlow::Break(())
    }

    fn claim(&self) -> Option<Claim<'_, 'a>> {
        let round_trip = self.host.round_trip().unwrap_or_default();
        let mut state = self.lock();
        let mut batch = match state.returned.pop() {
            Some(batch) => batch,
            None => state.plan.next(round_trip)?,
        };
        batch.old &= !state.transferred.without_python;
        state.in_flight += 1;
        Some(Claim {
            pool: self,
            batch,
            settled: false,
        })
    }

    fn arrived(&self, worker: &mut Worker, batch: &Batch, fetched: &Fetched, took: Duration) {
        let mut state = self.lock();
        state.confirmed += 1;
        state.transferred.files += fetched.files;
        state.transferred.bytes += fetched.bytes;
        state.transferred.kept_files += fetched.kept.files;
        state.transferred.kept_bytes += fetched.kept.bytes;
        let Some(codec) = fetched.codec else { return };
        if !batch.old {
            state.choice.learn(codec, fetched.bytes, took);
        }
        if let Some(place) = ON_THE_WIRE.iter().position(|c| *c == codec) {
            state.payload[place] += fetched.bytes;
        }
        if !std::mem::replace(&mut worker.brought, true) {
            state.transferred.jobs += 1;
        }
    }
}

/// A batch in the hands of a worker. Whoever waits for it must not wait for ever, so a claim that
/// is dropped unsettled (an error, a panic) stops everybody.
struct Claim<'p, 'a> {
    pool: &'p Pool<'a>,
    batch: Batch,
    settled: bool,
}

impl Claim<'_, '_> {
    fn take(&mut self) -> Batch {
        std::mem::replace(
            &mut self.batch,
            Batch {
                source: 0,
                files: Vec::new(),
                attempts: 0,
                old: false,
            },
        )
    }
}

impl Drop for Claim<'_, '_> {
    fn drop(&mut self) {
        self.pool.lock().in_flight -= 1;
        if !self.settled {
            self.pool.stop.cancel();
        }
        self.pool.changed.notify_all();
    }
}
