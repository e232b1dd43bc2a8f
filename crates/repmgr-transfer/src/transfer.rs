use std::num::NonZero;
use std::time::Duration;

use repmgr_remote::Host;
use repmgr_types::CancelToken;

use crate::batch::Plan;
use crate::codec::{Codec, Compression};
use crate::error::{FarFile, TransferError};
use crate::listing::Listing;
use crate::pool::Pool;
use crate::progress::Progress;
use crate::sink::Sink;

/// How to transfer.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sessions at most. Fewer are opened when there is little to fetch.
    pub jobs: NonZero<usize>,
    /// How bytes travel.
    pub compression: Compression,
    /// How often to try again after a passing failure without any progress in between.
    pub retries: u32,
    /// The pause before trying again; it doubles with each failure up to 30 s.
    pub retry_pause: Duration,
    /// The longest silence of the far side's tar. Disks are slow at times.
    pub idle_timeout: Duration,
    /// Ends the transfer early.
    pub cancel: CancelToken,
}

impl Default for Options {
    /// A session for each core here up to 4, automatic compression, 5 retries after 1 s and more,
    /// 2 minutes of silence.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self {
            jobs: cores.min(const { NonZero::new(4).unwrap() }),
            compression: Compression::Auto,
            retries: 5,
            retry_pause: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(120),
            cancel: CancelToken::new(),
        }
    }
}

/// What a transfer was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that arrived.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of these files, those that were here already, as the far side confirmed block by block.
    pub kept_files: u64,
    /// Of these bytes, those in blocks that were here already.
    pub kept_bytes: u64,
    /// Files that are here in an older state were fetched whole, since the far side has no Python 3.
    pub without_python: bool,
    /// Bytes that came from the far side, failed attempts included.
    pub wire_bytes: u64,
    /// Failures that were overcome.
    pub retries: u32,
    /// How most of the bytes were compressed; nothing when there were no files, or they were here.
    pub codec: Option<Codec>,
    /// Sessions that brought something; none for files of this host.
    pub jobs: usize,
}

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
    progress: &Progress,
) -> Result<Summary, TransferError> {
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
        return Ok(Summary::default());
    }
    let wire_before = progress.wire_bytes();
    let pool = Pool::new(host, sources, plan, options, sink, progress);
    let mut summary = pool.run()?;
    summary.wire_bytes = progress.wire_bytes() - wire_before;
    Ok(summary)
}

#[cfg(test)]
mod tests;
