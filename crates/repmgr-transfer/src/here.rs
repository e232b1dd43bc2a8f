//! One batch from a directory of this host: no stream, the kernel copies.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::error::TransferError;
use crate::fetch::{Fetched, Task};
use crate::progress::Count;
use crate::sink::FileSink;

/// Small enough for the CPU's cache, large enough for the disk.
const CHUNK: usize = 256 * 1024;

impl Task<'_> {
    /// Copies the batch and has it confirmed; `at` is the place of the file under way.
    pub(crate) fn copy(&self, at: &mut usize) -> Result<Fetched, TransferError> {
        let mut count = Count::new(self.fetcher.progress);
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
        let begun = from.metadata().map_err(|e| self.unreadable(index, &e))?;
        let changed = |message: String| TransferError::Changed {
            file: self.far_file(index),
            message,
        };
        if !begun.is_file() {
            return Err(changed("it is no regular file any more".to_owned()));
        }
        if begun.len() != listed.size {
            let (now, then) = (begun.len(), listed.size);
            return Err(changed(format!(
                "it has {now} bytes now and had {then} in the listing"
            )));
        }
        if begun.modified().ok() != Some(listed.modified) {
            return Err(changed("it was written after the listing was made".to_owned()));
        }
        let created = self.fetcher.sink.create(self.batch.source, index);
        let mut sink = created.map_err(|e| self.not_stored(index, e))?;
        self.copy_content(index, &from, &mut *sink, count, buffer)?;
        let ended = from.metadata().map_err(|e| self.unreadable(index, &e))?;
        if state(&ended) != state(&begun) {
            return Err(TransferError::Changed {
                file: self.far_file(index),
                message: "it was written while it was read".to_owned(),
            });
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
            let buffer = &mut buffer[..most];
            if by_kernel {
                match sink.copy(from, buffer).map_err(|e| self.not_stored(index, e))? {
                    Some(length) => {
                        count.add_bytes(length);
                        left = left.saturating_sub(length as u64);
                        continue;
                    }
                    None => by_kernel = false,
                }
            }
            match from.read(buffer) {
                // It became shorter, which its state will tell.
                Ok(0) => break,
                Ok(length) => {
                    let written = sink.write(&buffer[..length]);
                    written.map_err(|e| self.not_stored(index, e))?;
                    count.add_bytes(length);
                    left -= length as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.unreadable(index, &e)),
            }
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

/// What a write changes; a new hard link does not.
fn state(file: &Metadata) -> (u64, i64, i64) {
    (file.size(), file.mtime(), file.mtime_nsec())
}
