use std::fs::{File, FileTimes};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::fs::{Advice, copy_file_range};

use super::TreeError;

/// So many bytes of one file go to the disk while more arrive.
const STRETCH: u64 = 8 << 20;

/// So much of a file that is kept is in memory at once.
const CHUNK: u64 = 256 << 10;

/// What to do when a file is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Fail with [`TreeError::Exists`].
    Refuse,
    /// Remove it and start a new one.
    Replace,
}

/// How a file is to be created.
#[derive(Debug, Clone, Copy)]
pub struct FileSpec {
    /// The bytes it must have in the end; `None` when that is not known.
    pub size: Option<u64>,
    /// The mode at its source; cut down to what the tree's permissions allow.
    pub mode: u32,
    /// The modification time to set when the file is complete.
    pub modified: Option<SystemTime>,
    /// What to do with one that is there.
    pub existing: Existing,
}

impl Default for FileSpec {
    fn default() -> Self {
        Self {
            size: None,
            mode: 0o640,
            modified: None,
            existing: Existing::Refuse,
        }
    }
}

/// A file that is being written. Until [`TreeFile::finish`] its modification time is the present, so
/// that a file with the announced size *and* time is one that was received whole.
#[derive(Debug)]
#[must_use = "a file counts only when finish() was called"]
pub struct TreeFile {
    file: File,
    path: PathBuf,
    spec: FileSpec,
    written: u64,
    /// Up to here the kernel was asked to write to disk.
    on_its_way: u64,
    /// Up to here the kernel copied.
    copied: u64,
    /// There was something before.
    revised: bool,
    /// For what is kept, once something is.
    buffer: Vec<u8>,
}

impl TreeFile {
    pub(super) fn revised(file: File, path: PathBuf, spec: FileSpec) -> Result<Self, TreeError> {
        let this = Self {
            revised: true,
            ..Self::new(file, path, spec)
        };
        // Also when nothing will be written.
        let touched = this.file.set_modified(SystemTime::now());
        touched.map_err(|source| this.failed("set the time of", source))?;
        Ok(this)
    }

    pub(super) fn new(file: File, path: PathBuf, spec: FileSpec) -> Self {
        Self {
            file,
            path,
            spec,
            written: 0,
            on_its_way: 0,
            copied: 0,
            revised: false,
            buffer: Vec::new(),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`TreeError::LongFile`] before more than the announced size is written.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        self.written += bytes.len() as u64;
        self.check_length()?;
        self.file
            .write_all(bytes)
            .map_err(|source| self.failed("write", source))?;
        self.write_ahead();
        Ok(())
    }

    /// Appends the next bytes of `from` without bringing them through this process, as many as `buffer`
    /// holds at most; what arrived is then read into it. File systems that can share space between files
    /// do (XFS, btrfs). `None` where the kernel cannot, or there are no more: [`write_all`](Self::write_all)
    /// goes on from the place in `from` where it is then. Not to be mixed otherwise.
    ///
    /// # Errors
    /// [`TreeError::LongFile`] as for `write_all`; if what was copied cannot be read.
    pub fn copy_from(&mut self, from: &File, buffer: &mut [u8]) -> Result<Option<usize>, TreeError> {
        if self.copied <= self.written {
            // A stretch: many small shares would be a burden for the file system.
            match copy_file_range(from, None, &self.file, None, STRETCH as usize) {
                Ok(length @ 1..) => self.copied = self.written + length as u64,
                _ => return Ok(None),
            }
        }
        let length = buffer.len().min((self.copied - self.written) as usize);
        self.file
            .read_exact_at(&mut buffer[..length], self.written)
            .map_err(|source| self.failed("read back", source))?;
        self.written += length as u64;
        self.check_length()?;
        self.write_ahead();
        Ok(Some(length))
    }

    /// Leaves the next `length` bytes as they are, and shows them.
    ///
    /// # Errors
    /// [`TreeError::LongFile`] as for `write_all`; if the file has not as many.
    pub fn keep(&mut self, length: u64, show: &mut dyn FnMut(&[u8])) -> Result<(), TreeError> {
        self.written += length;
        self.check_length()?;
        let most = CHUNK.min(length) as usize;
        if self.buffer.len() < most {
            self.buffer.resize(most, 0);
        }
        let mut left = length;
        while left > 0 {
            let next = &mut self.buffer[..CHUNK.min(left) as usize];
            let read = self.file.read_exact(next).map(|()| show(next));
            read.map_err(|source| self.failed("read", source))?;
            left -= CHUNK.min(left);
        }
        Ok(())
    }

    /// As [`keep`](Self::keep), and shows nothing.
    ///
    /// # Errors
    /// As `keep`.
    pub fn skip(&mut self, length: u64) -> Result<(), TreeError> {
        self.written += length;
        self.check_length()?;
        let skip = || {
            let has = self.file.metadata()?.len();
            match has < self.written {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => (&self.file).seek(SeekFrom::Start(self.written)),
            }
        };
        skip().map_err(|source| self.failed("read", source)).map(drop)
    }

    fn check_length(&self) -> Result<(), TreeError> {
        match self.spec.size.filter(|size| self.written > *size) {
            Some(expected) => Err(TreeError::LongFile {
                path: self.path.clone(),
                expected,
            }),
            None => Ok(()),
        }
    }

    fn write_ahead(&mut self) {
        // The advice would have the kernel forget what was kept.
        if !self.revised && self.written - self.on_its_way >= STRETCH {
            self.send_to_disk();
        }
    }

    /// Has the kernel begin to write what is in memory, so that the flush in the end has little left to
    /// wait for. By itself it would begin after 30 s, or with a tenth of the memory.
    ///
    /// The advice makes Linux start writing and not wait; what is being written stays cached. A failure to
    /// write is told by the flush, a failure to begin changes nothing.
    fn send_to_disk(&mut self) {
        let length = NonZero::new(self.written - self.on_its_way);
        let advised = rustix::fs::fadvise(&self.file, self.on_its_way, length, Advice::DontNeed);
        if let Err(error) = advised {
            log::debug!("{:?} is not written ahead: {error}", self.path);
        }
        self.on_its_way = self.written;
    }

    /// Completes the file: checks its size and sets its modification time. It is not flushed; see
    /// [`super::Tree::sync`].
    ///
    /// # Errors
    /// [`TreeError::ShortFile`] when bytes are missing.
    pub fn finish(mut self) -> Result<(), TreeError> {
        if !self.revised && self.written - self.on_its_way >= STRETCH / 8 {
            self.send_to_disk();
        }
        if let Some(expected) = self.spec.size.filter(|size| self.written != *size) {
            return Err(TreeError::ShortFile {
                path: self.path,
                expected,
                got: self.written,
            });
        }
        if self.revised {
            self.file
                .set_len(self.written)
                .map_err(|source| self.failed("cut off the end of", source))?;
        }
        if let Some(time) = self.spec.modified {
            let times = FileTimes::new().set_modified(time);
            self.file
                .set_times(times)
                .map_err(|source| self.failed("set the time of", source))?;
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), TreeError> {
        self.file
            .sync_all()
            .map_err(|source| self.failed("flush", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> TreeError {
        TreeError::Io {
            action,
            path: self.path.clone(),
            source,
        }
    }
}
