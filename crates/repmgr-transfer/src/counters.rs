use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use repmgr_codec::Codec;
use repmgr_remote::Process;
use repmgr_types::Rate;

use crate::pace::Pace;

/// Counts how far a transfer is, and holds it back where it must not be faster; made by the caller, who reads it from
/// another thread.
#[derive(Debug, Default)]
pub struct Counters {
    pace: Option<Pace>,
    files: AtomicU64,
    bytes: AtomicU64,
    wire_bytes: AtomicU64,
}

impl Counters {
    /// For a transfer of at most so many bytes in a second, over the network or, on this host, from its disk; of all
    /// sessions together.
    pub fn with_max_rate(rate: Option<Rate>) -> Self {
        Self {
            pace: rate.map(Pace::new),
            ..Self::default()
        }
    }

    /// How much to read at once.
    pub(crate) fn portion(&self, length: usize) -> usize {
        self.pace.as_ref().map_or(length, |pace| pace.portion(length))
    }

    /// After so many bytes have come from elsewhere.
    pub(crate) fn pass(&self, bytes: u64) {
        if let Some(pace) = &self.pace {
            pace.pass(bytes);
        }
    }

    /// Files that arrived. It takes back files that have to be fetched again.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes of files given to the sink. It takes back those that have to be fetched again.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that came from the far side, compressed, with everything around them. Only grows.
    pub fn wire_bytes(&self) -> u64 {
        self.wire_bytes.load(Ordering::Relaxed)
    }
}

/// What a transfer brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transferred {
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

/// What one attempt added; it is taken back unless it was kept.
pub(crate) struct Count<'p> {
    counters: &'p Counters,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl<'p> Count<'p> {
    pub(crate) fn new(counters: &'p Counters) -> Self {
        Self {
            counters,
            files: 0,
            bytes: 0,
        }
    }

    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_file(&mut self) {
        self.files += 1;
        self.counters.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Files and bytes stay counted.
    pub(crate) fn keep(mut self) -> (u64, u64) {
        (std::mem::take(&mut self.files), std::mem::take(&mut self.bytes))
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.counters.files.fetch_sub(self.files, Ordering::Relaxed);
        self.counters.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A process whose bytes are counted as they come.
pub(crate) struct Counted<'c, 'p> {
    process: Box<dyn Process + 'c>,
    counters: &'p Counters,
    counted: u64,
}

impl<'c, 'p> Counted<'c, 'p> {
    pub(crate) fn new(process: Box<dyn Process + 'c>, counters: &'p Counters) -> Self {
        Self {
            process,
            counters,
            counted: 0,
        }
    }

    pub(crate) fn into_inner(self) -> Box<dyn Process + 'c> {
        self.process
    }
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let portion = self.counters.portion(buffer.len());
        let result = self.process.read(&mut buffer[..portion]);
        let received = self.process.received();
        let new = received - self.counted;
        self.counted = received;
        self.counters.wire_bytes.fetch_add(new, Ordering::Relaxed);
        self.counters.pass(new);
        result
    }
}
