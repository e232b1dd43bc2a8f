//! One batch from a directory of this host: no stream, the kernel copies.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::counters::Count;
use crate::error::TransferError;
use crate::sink::FileSink;
use crate::task::{Fetched, Kept, Task, WRITTEN_MEANWHILE};

/// Small enough for the CPU's cache, large enough for the disk.
const CHUNK: usize = 256 * 1024;

impl Task<'_> {
    /// Copies the batch and has it confirmed; `at` is the place of the file under way.
    pub(crate) fn copy(&self, at: &mut usize) -> Result<Fetched, TransferError> {
        let mut count = Count::new(self.fetcher.counters);
        let mut buffer = vec![0; CHUNK];
        for (place, index) in self.batch.files.iter().enumerate() {
            *at = place;
            self.copy_file(*index as usize, &mut count, &mut buffer)?;
        }
        self.confirm()?;
        let (files, bytes) = count.keep();
        Ok(Fetched {
            codec: None,
            files,
            bytes,
            kept: Kept::default(),
        })
    }

    fn copy_file(&self, index: usize, count: &mut Count<'_>, buffer: &mut [u8]) -> Result<(), TransferError> {
        let listed = self.listing.get(index);
        let path = Path::new(self.listing.directory()).join(OsStr::from_bytes(listed.path));
        // A pipe that took its place must not hold us up, nor a link lead us elsewhere.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let from = File::options()
            .read(true)
            .custom_flags(flags.cast_signed())
            .open(&path)
            .map_err(|e| self.unreadable(index, &e))?;
        let now = || from.metadata().map_err(|e| self.unreadable(index, &e));
        let same_time = |file: &Metadata| file.modified().ok() == Some(listed.modified);
        let begun = now()?;
        self.check_as_listed(index, begun.is_file(), begun.len(), same_time(&begun))?;
        let created = self.fetcher.sink.create(self.batch.source, index);
        let mut sink = created.map_err(|e| self.not_stored(index, e))?;
        self.copy_content(index, &from, &mut *sink, count, buffer)?;
        let ended = now()?;
        if ended.len() != listed.size || !same_time(&ended) {
            return Err(self.changed(index, WRITTEN_MEANWHILE));
        }
        sink.finish().map_err(|e| self.not_stored(index, e))?;
        count.add_file();
        Ok(())
    }

    fn copy_content(
        &self,
        index: usize,
        mut from: &File,
        sink: &mut dyn FileSink,
        count: &mut Count<'_>,
        buffer: &mut [u8],
    ) -> Result<(), TransferError> {
        let mut by_kernel = true;
        // No further: a file that grows as fast as it is read would have no end.
        let mut left = self.listing.get(index).size;
        while left > 0 {
            self.fetcher.cancel.check()?;
            let most = usize::try_from(left).unwrap_or(CHUNK).min(buffer.len());
            let most = self.fetcher.counters.portion(most);
            let buffer = &mut buffer[..most];
            let copied = match by_kernel {
                true => sink.copy(from, buffer).map_err(|e| self.not_stored(index, e))?,
                false => None,
            };
            by_kernel = copied.is_some();
            let length = match copied {
                Some(length) => length,
                None => {
                    let length = match from.read(buffer) {
                        // It became shorter, which its size will tell.
                        Ok(0) => break,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                        read => read.map_err(|e| self.unreadable(index, &e))?,
                    };
                    let written = sink.write(&buffer[..length]);
                    written.map_err(|e| self.not_stored(index, e))?;
                    length
                }
            };
            count.add_bytes(length);
            self.fetcher.counters.pass(length as u64);
            left = left.saturating_sub(length as u64);
        }
        Ok(())
    }

    fn unreadable(&self, index: usize, error: &io::Error) -> TransferError {
        TransferError::Unreadable {
            file: self.far_file(index),
            message: error.to_string(),
        }
    }
}
