//! One batch of files that are here in an older state: only blocks that differ travel.
//!
//! We tell the digests of our blocks, the far side sends those of its blocks that have others. Each file
//! is read once on either side, and no round trip is spent on it. A digest is the first half of SHA-256:
//! two blocks that differ have the same one by accident in one of 10^38 cases.

use std::io::{self, BufRead, ErrorKind, Read};
use std::time::{Duration, SystemTime};

use openssl::sha::sha256;
use repmgr_remote::{Connection, ShellCommand};

use crate::counters::{Count, Counted};
use crate::error::{TransferError, said, was_killed};
use crate::path::shown;
use crate::sink::OldFiles;
use crate::task::{Fetched, Kept, Stream, Task};
use crate::wire::{StreamError, choose_codec, decoded, lz4};

/// As in the program, with the next three. The page of nearly every PostgreSQL.
const BLOCK: usize = 8192;
const DIGEST: usize = 16;
const END: u16 = 0;
const ERROR: u16 = 0xFFFF;

/// What the far side runs; `-I -S` keep it from whatever else Python has there.
const PROGRAM: &str = include_str!("revise.py");

/// "$2" are the codecs to choose from, "$3" is the program. What was compressed ends as it has to even
/// if the program failed: then files are missing in it.
const SCRIPT: &str = concat!(
    r#"cd -- "$1" || exit 1
command -v python3 >/dev/null 2>&1 || { echo 'missing python3'; exit 0; }
"#,
    choose_codec!("$2"),
    r#"export ZSTD_CLEVEL=1 GZIP=-1
program=$codec
[ "$codec" = lz4 ] && program='"#,
    lz4!(),
    r#"'
echo "$codec"
[ "$codec" = none ] && exec python3 -I -S -c "$3"
python3 -I -S -c "$3" | $program -c"#
);

/// The one program that is wanted there and can be done without.
pub(crate) const PYTHON: &str = "python3";

const BUFFER: usize = 32 * BLOCK;
/// Bytes a second. A far disk that is slower than this counts as stuck.
const SLOWEST_COMPARISON: u64 = 500_000;

impl Task<'_> {
    /// Brings the files of the batch up to date and has them confirmed; `at` is the place of the file
    /// under way.
    pub(crate) fn revise(
        &self,
        old: &dyn OldFiles,
        connection: &mut dyn Connection,
        codecs: &str,
        at: &mut usize,
    ) -> Result<Fetched, TransferError> {
        let counters = self.fetcher.counters;
        let mut count = Count::new(counters);
        let (input, blocks) = self.describe(old, at)?;
        *at = 0;
        let command = ShellCommand::script(SCRIPT)
            .arg(self.listing.directory())
            .arg(codecs)
            .arg(PROGRAM)
            .env("LC_ALL", "C");
        let mut options = self.options(input);
        // What does not differ says nothing, and what is said waits in buffers until the end.
        let files = self.batch.files.iter();
        let sizes = files.map(|index| self.listing.get(*index as usize).size);
        let bytes = sizes.fold(0, u64::saturating_add);
        options.idle_timeout += Duration::from_secs(bytes / SLOWEST_COMPARISON);
        let process = connection.start(&command, options).map_err(|e| self.remote(e))?;
        let mut wire = Counted::new(process, counters);
        let mut kept = Kept::default();
        let stream = self.read_differences(old, &blocks, &mut wire, &mut count, &mut kept, at)?;
        let exit = wire.into_inner().finish().map_err(|e| self.remote(e))?;
        let codec = match stream {
            Stream::Whole(codec) if exit.success() => codec,
            Stream::Short(reason) if exit.success() && exit.stderr.is_empty() => {
                return Err(self.malformed(reason));
            }
            // Nothing came of it: it is too old, or cannot start.
            Stream::Short(_) if *at == 0 => {
                log::warn!("{}", self.failed(said(&exit, "python3: ")));
                return Err(self.no_program(PYTHON.to_owned()));
            }
            _ if was_killed(&exit) => return Err(self.ended_early(said(&exit, "python3: "))),
            _ => return Err(self.failed(said(&exit, "python3: "))),
        };
        self.confirm()?;
        let (files, bytes) = count.keep();
        Ok(Fetched {
            codec: Some(codec),
            files,
            bytes,
            kept,
        })
    }

    /// For the far side, and the number of blocks that it is told of each file.
    fn describe(&self, old: &dyn OldFiles, at: &mut usize) -> Result<(Vec<u8>, Vec<u32>), TransferError> {
        let (mut input, mut counts) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; BUFFER];
        for (place, index) in self.batch.files.iter().enumerate() {
            *at = place;
            let index = *index as usize;
            let entry = self.listing.get(index);
            let stored = |e| self.not_stored(index, e);
            let mut digests = Vec::new();
            if let Some(file) = old.open(self.batch.source, index).map_err(stored)? {
                // No further: what is beyond its new end is of no use.
                let mut file = file.take(entry.size);
                loop {
                    self.fetcher.cancel.check()?;
                    let length = match fill(&mut file, &mut buffer) {
                        Ok(length) => length,
                        // A bad disk is why instances are rebuilt: from here on all of it comes.
                        Err(e) => {
                            log::warn!("the old \"{}\" cannot be read: {e}", shown(entry.path));
                            break;
                        }
                    };
                    for block in buffer[..length].chunks(BLOCK) {
                        digests.extend_from_slice(&sha256(block)[..DIGEST]);
                    }
                    if length < buffer.len() {
                        break;
                    }
                }
            }
            let unusual = |_| self.malformed("a path or a file is too long".to_owned());
            let count = u32::try_from(digests.len() / DIGEST).map_err(unusual)?;
            let path_length = u16::try_from(entry.path.len()).map_err(unusual)?;
            input.extend_from_slice(&path_length.to_be_bytes());
            input.extend_from_slice(&entry.size.to_be_bytes());
            input.extend_from_slice(&count.to_be_bytes());
            input.extend_from_slice(entry.path);
            input.append(&mut digests);
            counts.push(count);
        }
        Ok((input, counts))
    }

    fn read_differences(
        &self,
        old: &dyn OldFiles,
        blocks: &[u32],
        wire: &mut Counted<'_, '_>,
        count: &mut Count<'_>,
        kept: &mut Kept,
        at: &mut usize,
    ) -> Result<Stream, TransferError> {
        let (codec, mut input) = match decoded(wire) {
            Ok(decoded) => decoded,
            Err(e) => return self.broken(e),
        };
        while *at < self.batch.files.len() {
            if let Err(e) = self.revise_file(old, blocks[*at], &mut input, count, kept, *at)? {
                return self.broken(e);
            }
            *at += 1;
        }
        match input.fill_buf() {
            Ok([]) => Ok(Stream::Whole(codec)),
            Ok(_) => Err(self.malformed("more than was asked for is in it".to_owned())),
            Err(e) => self.broken(e.into()),
        }
    }

    /// Takes one file. The inner error is that of the stream.
    fn revise_file(
        &self,
        old: &dyn OldFiles,
        known: u32,
        input: &mut dyn BufRead,
        count: &mut Count<'_>,
        kept: &mut Kept,
        place: usize,
    ) -> Result<Result<(), StreamError>, TransferError> {
        let index = self.batch.files[place] as usize;
        let entry = self.listing.get(index);
        let stored = |e| self.not_stored(index, e);
        let impossible = || {
            self.malformed(format!(
                "it has blocks of \"{}\" that cannot be",
                shown(entry.path)
            ))
        };
        let mut sink = old.revise(self.batch.source, index).map_err(stored)?;
        let (mut written, mut kept_here) = (0, 0);
        loop {
            self.fetcher.cancel.check()?;
            let mut head = [0; 6];
            if let Err(e) = input.read_exact(&mut head) {
                return Ok(Err(e.into()));
            }
            let [a, b, c, d, e, f] = head;
            let (same, run) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
            if run == ERROR {
                return self.refused(index, input);
            }
            if run == END {
                break;
            }
            let keep = u64::from(same) * BLOCK as u64;
            let begin: u64 = written + kept_here + keep;
            let is_known = keep == 0 || begin <= u64::from(known) * BLOCK as u64;
            if !is_known || begin >= entry.size {
                return Err(impossible());
            }
            sink.keep(keep).map_err(stored)?;
            kept_here += keep;
            count.add_bytes(keep as usize);
            let mut left = (u64::from(run) * BLOCK as u64).min(entry.size - begin);
            while left > 0 {
                let bytes = match input.fill_buf() {
                    Ok([]) => return Ok(Err(StreamError::Short)),
                    Ok(bytes) => bytes,
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => return Ok(Err(e.into())),
                };
                let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                sink.write(&bytes[..length]).map_err(stored)?;
                input.consume(length);
                count.add_bytes(length);
                written += length as u64;
                left -= length as u64;
            }
        }
        if let Err(e) = self.check_end(index, input)? {
            return Ok(Err(e));
        }
        let rest = entry.size - written - kept_here;
        if rest > 0 {
            if entry.size.div_ceil(BLOCK as u64) > u64::from(known) {
                return Err(impossible());
            }
            sink.keep(rest).map_err(stored)?;
            kept_here += rest;
            count.add_bytes(rest as usize);
        }
        sink.finish().map_err(stored)?;
        count.add_file();
        kept.bytes += kept_here;
        kept.files += u64::from(written == 0);
        Ok(Ok(()))
    }

    /// The file could not be read there.
    fn refused(
        &self,
        index: usize,
        input: &mut dyn BufRead,
    ) -> Result<Result<(), StreamError>, TransferError> {
        let mut length = [0; 2];
        let mut message = Vec::new();
        let mut read = || -> io::Result<()> {
            input.read_exact(&mut length)?;
            input
                .take(u16::from_be_bytes(length).into())
                .read_to_end(&mut message)?;
            Ok(())
        };
        if let Err(e) = read() {
            return Ok(Err(e.into()));
        }
        Err(TransferError::Unreadable {
            file: self.far_file(index),
            message: shown(&message),
        })
    }

    /// What the file was after it was read.
    fn check_end(
        &self,
        index: usize,
        input: &mut dyn BufRead,
    ) -> Result<Result<(), StreamError>, TransferError> {
        let (mut size, mut time) = ([0; 8], [0; 8]);
        if let Err(e) = input
            .read_exact(&mut size)
            .and_then(|()| input.read_exact(&mut time))
        {
            return Ok(Err(e.into()));
        }
        let modified = time_of(i64::from_be_bytes(time));
        let same_time = modified == self.listing.get(index).modified;
        self.check_as_listed(index, true, u64::from_be_bytes(size), same_time)?;
        Ok(Ok(()))
    }
}

/// Nanoseconds since 1970.
fn time_of(nanoseconds: i64) -> SystemTime {
    let away = Duration::from_nanos(nanoseconds.unsigned_abs());
    match nanoseconds {
        0.. => SystemTime::UNIX_EPOCH + away,
        _ => SystemTime::UNIX_EPOCH - away,
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
