use repmgr_remote::Host;

use crate::batch::Plan;
use crate::counters::{Counters, Transferred};
use crate::error::{FarFile, TransferError};
use crate::listing::Listing;
use crate::options::Options;
use crate::pool::Pool;
use crate::sink::Sink;

/// Fetches the `wanted` regular files of all sources into `sink`, over parallel sessions of its own.
///
/// `wanted` gets the number of a source and of an entry in it. When this returns without an error,
/// every file arrived whole, is as it was in its listing, and was confirmed to the sink.
///
/// Of files that the sink has in an older state ([`Sink::old_files`]) only the blocks that differ come.
///
/// Passing failures are retried: files that were confirmed stay, the others of a batch come again.
/// Any other error ends all sessions within about 0.3 s, unless one is just being opened.
///
/// From a host that is this one ([`Host::is_local`]) nothing is streamed: as many threads copy, by
/// [`FileSink::copy`](crate::FileSink::copy) where the sink has it.
///
/// # Errors
/// The first one, see [`TransferError`]. Files confirmed before it are good.
pub fn transfer(
    host: &dyn Host,
    sources: &[Listing],
    wanted: &dyn Fn(usize, usize) -> bool,
    options: &Options,
    sink: &dyn Sink,
    counters: &Counters,
) -> Result<Transferred, TransferError> {
    options.cancel.check()?;
    let old_files = sink.old_files().filter(|_| !host.is_local());
    let is_old = |source, index| old_files.is_some_and(|old| old.has(source, index));
    let plan = Plan::new(sources, wanted, &is_old, options.jobs.get()).map_err(|(source, index)| {
        let file = FarFile {
            host: host.name().to_owned(),
            directory: sources[source].directory().to_owned(),
            path: sources[source].get(index).path.to_vec(),
        };
        let message = "permission denied".to_owned();
        TransferError::Unreadable { file, message }
    })?;
    if plan.is_empty() {
        return Ok(Transferred::default());
    }
    let wire_before = counters.wire_bytes();
    let pool = Pool::new(host, sources, plan, options, sink, counters);
    let mut transferred = pool.run()?;
    transferred.wire_bytes = counters.wire_bytes() - wire_before;
    Ok(transferred)
}

#[cfg(test)]
mod tests;
