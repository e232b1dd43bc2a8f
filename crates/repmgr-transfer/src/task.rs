//! One batch from one host, whichever way it comes.

use std::time::Duration;

use repmgr_codec::Codec;
use repmgr_remote::{Input, RemoteError, StartOptions};
use repmgr_types::CancelToken;

use crate::batch::Batch;
use crate::counters::Counters;
use crate::error::{FarFile, TransferError};
use crate::listing::Listing;
use crate::sink::{Sink, SinkError};
use crate::wire::StreamError;

pub(crate) const WRITTEN_MEANWHILE: &str = "it was written while it was read";

/// What all batches of a transfer have in common.
pub(crate) struct Fetcher<'a> {
    pub(crate) sources: &'a [Listing],
    pub(crate) sink: &'a dyn Sink,
    pub(crate) counters: &'a Counters,
    pub(crate) idle_timeout: Duration,
    pub(crate) cancel: CancelToken,
}

/// What a batch was.
pub(crate) struct Fetched {
    /// None where there was no stream.
    pub(crate) codec: Option<Codec>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// What of it was here already.
    pub(crate) kept: Kept,
}

/// What did not travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// A batch that did not arrive.
pub(crate) struct Failure {
    pub(crate) error: TransferError,
    /// The file that was under way: its place in the batch.
    pub(crate) at: usize,
}

/// How a stream ended.
pub(crate) enum Stream {
    /// All files of the batch came.
    Whole(Codec),
    /// Too early, or not all files came. The exit may say why.
    Short(String),
    /// In the middle of an archive that was good so far.
    Cut,
}

impl Fetcher<'_> {
    /// Works on a batch from this host, and tells where in it the work failed.
    pub(crate) fn work(
        &self,
        host: String,
        batch: &Batch,
        work: impl FnOnce(&Task<'_>, &mut usize) -> Result<Fetched, TransferError>,
    ) -> Result<Fetched, Failure> {
        let task = Task {
            fetcher: self,
            host,
            listing: &self.sources[batch.source],
            batch,
        };
        let mut at = 0;
        work(&task, &mut at).map_err(|error| Failure { error, at })
    }
}

/// One batch from one host.
pub(crate) struct Task<'a> {
    pub(crate) fetcher: &'a Fetcher<'a>,
    pub(crate) host: String,
    pub(crate) listing: &'a Listing,
    pub(crate) batch: &'a Batch,
}

impl Task<'_> {
    pub(crate) fn confirm(&self) -> Result<(), TransferError> {
        let indexes: Vec<_> = self.batch.files.iter().map(|i| *i as usize).collect();
        let confirmed = self.fetcher.sink.confirm(self.batch.source, &indexes);
        confirmed.map_err(|e| self.not_stored(indexes[0], e))
    }

    pub(crate) fn options(&self, input: Vec<u8>) -> StartOptions {
        StartOptions {
            input: Input::Bytes(input),
            idle_timeout: self.fetcher.idle_timeout,
            total_timeout: None,
            bulk: true,
            cancel: self.fetcher.cancel.clone(),
        }
    }

    pub(crate) fn check_as_listed(
        &self,
        index: usize,
        is_file: bool,
        size: u64,
        same_time: bool,
    ) -> Result<(), TransferError> {
        let then = self.listing.get(index).size;
        if !is_file {
            return Err(self.changed(index, "it is no regular file any more"));
        }
        if size != then {
            let message = format!("it has {size} bytes now and had {then} in the listing");
            return Err(self.changed(index, message));
        }
        if !same_time {
            return Err(self.changed(index, "it was written after the listing was made"));
        }
        Ok(())
    }

    /// What to make of a stream that cannot be read on.
    pub(crate) fn broken(&self, error: StreamError) -> Result<Stream, TransferError> {
        match error {
            StreamError::Short => Ok(Stream::Short("it ends too early".to_owned())),
            StreamError::Remote(error) => Err(self.remote(error)),
            StreamError::Malformed(reason) => Err(self.malformed(reason)),
            StreamError::NoProgram(program) => Err(self.no_program(program)),
        }
    }

    pub(crate) fn far_file(&self, index: usize) -> FarFile {
        FarFile {
            host: self.host.clone(),
            directory: self.listing.directory().to_owned(),
            path: self.listing.get(index).path.to_vec(),
        }
    }

    pub(crate) fn changed(&self, index: usize, message: impl Into<String>) -> TransferError {
        TransferError::Changed {
            file: self.far_file(index),
            message: message.into(),
        }
    }

    pub(crate) fn remote(&self, error: RemoteError) -> TransferError {
        TransferError::broken(self.listing.directory(), error)
    }

    pub(crate) fn malformed(&self, reason: String) -> TransferError {
        TransferError::Malformed {
            host: self.host.clone(),
            directory: self.listing.directory().to_owned(),
            reason,
        }
    }

    pub(crate) fn no_program(&self, program: String) -> TransferError {
        TransferError::NoProgram {
            host: self.host.clone(),
            program,
        }
    }

    pub(crate) fn ended_early(&self, message: String) -> TransferError {
        TransferError::EndedEarly {
            host: self.host.clone(),
            directory: self.listing.directory().to_owned(),
            attempts: 1,
            message,
        }
    }

    pub(crate) fn failed(&self, message: String) -> TransferError {
        TransferError::Failed {
            host: self.host.clone(),
            directory: self.listing.directory().to_owned(),
            message,
        }
    }

    pub(crate) fn not_stored(&self, index: usize, source: SinkError) -> TransferError {
        TransferError::Sink {
            file: self.far_file(index),
            source,
        }
    }
}
