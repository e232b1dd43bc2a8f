use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use repmgr_remote::Process;

/// How far a transfer is; made by the caller, who reads it from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    wire_bytes: AtomicU64,
}

impl Progress {
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

/// What one attempt added; it is taken back unless it was kept.
pub(crate) struct Count<'p> {
    progress: &'p Progress,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl<'p> Count<'p> {
    pub(crate) fn new(progress: &'p Progress) -> Self {
        Self {
            progress,
            files: 0,
            bytes: 0,
        }
    }

    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_file(&mut self) {
        self.files += 1;
        self.progress.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Files and bytes stay counted.
    pub(crate) fn keep(mut self) -> (u64, u64) {
        (std::mem::take(&mut self.files), std::mem::take(&mut self.bytes))
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.progress.files.fetch_sub(self.files, Ordering::Relaxed);
        self.progress.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A process whose bytes are counted as they come.
pub(crate) struct Counted<'c, 'p> {
    process: Box<dyn Process + 'c>,
    progress: &'p Progress,
    counted: u64,
}

impl<'c, 'p> Counted<'c, 'p> {
    pub(crate) fn new(process: Box<dyn Process + 'c>, progress: &'p Progress) -> Self {
        Self {
            process,
            progress,
            counted: 0,
        }
    }

    pub(crate) fn into_inner(self) -> Box<dyn Process + 'c> {
        self.process
    }
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.process.read(buffer);
        let received = self.process.received();
        let new = received - self.counted;
        self.counted = received;
        self.progress.wire_bytes.fetch_add(new, Ordering::Relaxed);
        result
    }
}
