//! A runtime of our own for the client library, also where the caller is inside another one.

use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime};

/// Runs only while somebody waits for it.
pub(crate) struct EventLoop {
    /// Always there until dropped.
    runtime: Option<Runtime>,
}

impl EventLoop {
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Blocks until `future` is done. An error means that it was not begun.
    pub(crate) fn wait<F>(&self, future: F) -> io::Result<F::Output>
    where
        F: Future<Output: Send> + Send,
    {
        let Some(runtime) = &self.runtime else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if !inside_a_runtime() {
            return Ok(runtime.block_on(future));
        }
        thread::scope(|scope| {
            let thread = spawned(thread::Builder::new().spawn_scoped(scope, || runtime.block_on(future)))?;
            Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// Lets `future` end what is under way, then drops everything. Does not block inside a runtime:
    /// other tasks must not wait for a farewell.
    pub(crate) fn finish(self, future: impl Future<Output: Send> + Send + 'static) {
        let finish = move || drop(self.wait(future));
        if !inside_a_runtime() {
            return finish();
        }
        if let Err(error) = spawned(thread::Builder::new().spawn(finish)) {
            log::debug!("connection to the upstream node cut: {error}");
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Does not wait: a name look-up may hang, and inside a runtime waiting would panic.
            runtime.shutdown_background();
        }
    }
}

/// tokio panics if one of its threads waits for another runtime, and also if its thread-local data
/// is gone, as in destructors when a thread ends.
fn inside_a_runtime() -> bool {
    Handle::try_current()
        .err()
        .is_none_or(|error| !error.is_missing_context())
}

fn spawned<T>(thread: io::Result<T>) -> io::Result<T> {
    thread.map_err(|e| io::Error::new(e.kind(), format!("could not start a thread: {e}")))
}
