use std::error::Error;
use std::fs::File;
use std::io::Read;

/// What a [`Sink`] could not do. It ends the transfer; there is no second attempt.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// Where files go. All workers share one; a file is known by its source and its number in the
/// [`Listing`](crate::Listing) of that source.
///
/// For each file [`create`](Self::create), then its bytes in order, then
/// [`FileSink::finish`]. Only [`confirm`](Self::confirm) says that these bytes are what is on
/// the far side's disk.
pub trait Sink: Sync {
    /// A file begins. It may begin again, from its first byte, as long as it was not confirmed;
    /// never twice at the same time.
    ///
    /// # Errors
    /// End the transfer.
    fn create(&self, source: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError>;

    /// These files of one source, all of them finished, are proven: the far side read every one
    /// to its end without an error, and they did not change meanwhile.
    ///
    /// What a record of finished files must wait for: where the far side's disk fails, GNU tar
    /// goes on with zeros and tells at the very end. A file that is finished and not confirmed
    /// must be fetched again.
    ///
    /// # Errors
    /// End the transfer.
    fn confirm(&self, source: usize, indexes: &[usize]) -> Result<(), SinkError>;

    /// Files that are here in an older state. They are revised instead of created, if the far side can tell
    /// the blocks that differ; otherwise, and from this host, they are created as all others.
    fn old_files(&self) -> Option<&dyn OldFiles> {
        None
    }
}

/// Files that are here in an older state: what is right in them need not travel.
pub trait OldFiles: Sync {
    /// Whether this file is one of them.
    fn has(&self, source: usize, index: usize) -> bool;

    /// Opens it to be read, for what it is compared by; `None` when it is gone.
    ///
    /// # Errors
    /// End the transfer.
    fn open(&self, source: usize, index: usize) -> Result<Option<Box<dyn Read + '_>>, SinkError>;

    /// It is brought up to date, from its first byte to its last. May begin again, as
    /// [`Sink::create`]: what an attempt that failed wrote is the older state then.
    ///
    /// # Errors
    /// End the transfer.
    fn revise(&self, source: usize, index: usize) -> Result<Box<dyn Revision + '_>, SinkError>;
}

/// A file that is brought up to date. What lies beyond the last byte kept or written is cut off.
pub trait Revision: FileSink {
    /// The next `length` bytes are right as they are; there are as many.
    ///
    /// # Errors
    /// End the transfer.
    fn keep(&mut self, length: u64) -> Result<(), SinkError>;
}

/// One file on its way. Dropping it without [`finish`](Self::finish) means that it did not arrive.
pub trait FileSink {
    /// The next bytes, 256 KiB at most.
    ///
    /// # Errors
    /// End the transfer.
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError>;

    /// Has the kernel copy the next bytes of `from` here, as many as `buffer` holds at most, and leaves
    /// them in the buffer as well; how many. `None` where that is not possible or there are no more: then
    /// the bytes come through [`write`](Self::write).
    ///
    /// Only called for files of this host, and worth it where a copy needs no space, or the disk is
    /// another machine's.
    ///
    /// # Errors
    /// End the transfer.
    fn copy(&mut self, from: &File, buffer: &mut [u8]) -> Result<Option<usize>, SinkError> {
        let _ = (from, buffer);
        Ok(None)
    }

    /// All bytes were written, exactly as many as were announced.
    ///
    /// # Errors
    /// End the transfer.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;
}
