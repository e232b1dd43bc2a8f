//! What the scripts send: files with their sizes in front, possibly compressed as a whole.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use repmgr_remote::{Exit, Process, RemoteError};

use crate::decode::{self, Opened};

const CHUNK: usize = 256 * 1024;
/// Chunks under way between the network and whoever checks and writes: 8 MiB.
const AHEAD: usize = 32;
/// "file", a size, and a short word.
const MAX_LINE: u64 = 128;

/// One thing sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A file of `size` bytes, found in `place`.
    File { size: u64, place: String },
    /// The next one asked for is not there.
    Missing,
    /// We may not see or read it.
    Denied,
    /// Everything has been sent.
    Done,
}

/// Reads records one after another.
pub(crate) struct Records<'r> {
    input: BufReader<Box<dyn Read + 'r>>,
    /// Bytes of the current file nobody has read yet.
    left: u64,
    in_file: bool,
}

impl<'r> Records<'r> {
    pub(crate) fn new(input: impl Read + 'r) -> io::Result<Self> {
        match decode::open(input, is_record)? {
            Opened::Known(decoder) => Ok(Self {
                input: BufReader::with_capacity(CHUNK, decoder.reader),
                left: 0,
                in_file: false,
            }),
            Opened::Unknown => Err(confused("it does not begin with a record")),
        }
    }

    /// Skips what is left of the current file.
    pub(crate) fn end_file(&mut self) -> io::Result<()> {
        if !self.in_file {
            return Ok(());
        }
        io::copy(&mut self.body(), &mut io::sink())?;
        self.in_file = false;
        let mut end = [0];
        self.input.read_exact(&mut end)?;
        if end == *b"\n" {
            Ok(())
        } else {
            Err(confused("a file is longer than announced"))
        }
    }

    /// What follows the current file, for another reader.
    pub(crate) fn into_rest(self) -> impl Read + 'r {
        self.input
    }

    /// The next record; the rest of the file before it is skipped.
    pub(crate) fn next(&mut self) -> io::Result<Record> {
        self.end_file()?;
        let mut line = Vec::new();
        self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        let text = std::str::from_utf8(&line).ok().and_then(|l| l.strip_suffix('\n'));
        let mut words = text.unwrap_or_default().splitn(3, ' ');
        match (
            words.next(),
            words.next().and_then(|w| w.parse().ok()),
            words.next(),
        ) {
            (Some("file"), Some(size), Some(place)) => {
                (self.left, self.in_file) = (size, true);
                Ok(Record::File {
                    size,
                    place: place.to_owned(),
                })
            }
            (Some("missing"), Some(_), _) => Ok(Record::Missing),
            (Some("denied"), Some(_), _) => Ok(Record::Denied),
            (Some("done"), Some(_), _) => Ok(Record::Done),
            _ => Err(confused("a record does not begin as one")),
        }
    }

    /// The rest of the current file.
    pub(crate) fn body(&mut self) -> Body<'_, 'r> {
        Body(self)
    }

    /// The whole current file, if it is not too long.
    pub(crate) fn text(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        if self.left > limit {
            return Err(confused("a file is too long"));
        }
        let mut bytes = Vec::new();
        self.body().read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn is_record(first: &[u8]) -> bool {
    ["file ", "missing ", "denied ", "done "]
        .iter()
        .any(|word| first.starts_with(word.as_bytes()))
}

/// Reads one file of the stream; a stream that ends inside it is an error.
pub(crate) struct Body<'a, 'r>(&'a mut Records<'r>);

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.0.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.0.input.read(&mut buffer[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.0.left -= n as u64;
                Ok(n)
            }
        }
    }
}

fn confused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Lets `work` read the output of `process` while another thread takes it from the network.
///
/// The second value tells how the process ended: `None` when `work` did not read to the end, and
/// the process, with its connection, was abandoned.
pub(crate) fn pumped<T>(
    process: Box<dyn Process + '_>,
    work: impl FnOnce(&mut Chunks) -> T,
) -> (T, Result<Option<Exit>, RemoteError>) {
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(AHEAD);
        let pump = scope.spawn(move || pump(process, &sender));
        let mut chunks = Chunks {
            receiver,
            current: Vec::new(),
            at: 0,
        };
        let result = work(&mut chunks);
        drop(chunks);
        let end = pump
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, end)
    })
}

fn pump(
    mut process: Box<dyn Process + '_>,
    sender: &SyncSender<io::Result<Vec<u8>>>,
) -> Result<Option<Exit>, RemoteError> {
    loop {
        let mut chunk = vec![0; CHUNK];
        match process.read(&mut chunk) {
            Ok(0) => {
                // The reader hears of the end only when all was well: until then it may not believe it.
                let exit = process.finish();
                if exit.is_err() {
                    let _ = sender.send(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                return exit.map(Some);
            }
            Ok(n) => {
                chunk.truncate(n);
                if sender.send(Ok(chunk)).is_err() {
                    return Ok(None);
                }
            }
            Err(error) => {
                let _ = sender.send(Err(error.kind().into()));
                return Err(RemoteError::from_io(error));
            }
        }
    }
}

/// The reading end of [`pumped`].
pub(crate) struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repmgr_remote::{Connection, LocalHost, ShellCommand, StartOptions};

    const STREAM: &[u8] = b"file 5 wals\n\xfd\nbc\0\nfile 0 incoming\n\nmissing 0 -\n";

    fn file(size: u64, place: &str) -> Record {
        Record::File {
            size,
            place: place.into(),
        }
    }

    #[test]
    fn records_read_plain_and_compressed() {
        let zstd = zstd::encode_all(STREAM, 1).unwrap();
        for stream in [STREAM, &zstd] {
            let mut records = Records::new(stream).unwrap();
            assert_eq!(records.next().unwrap(), file(5, "wals"));
            assert_eq!(records.text(10).unwrap(), b"\xfd\nbc\0");
            assert_eq!(records.next().unwrap(), file(0, "incoming"));
            assert_eq!(records.next().unwrap(), Record::Missing);
            assert!(records.next().is_err());
        }
    }

    #[test]
    fn a_file_nobody_read_is_skipped() {
        let mut records = Records::new(STREAM).unwrap();
        records.next().unwrap();
        records.body().read_exact(&mut [0]).unwrap();
        assert_eq!(records.next().unwrap(), file(0, "incoming"));
    }

    #[test]
    fn a_stream_that_breaks_off_anywhere_is_an_error() {
        for cut in 0..STREAM.len() {
            let all = || -> io::Result<()> {
                let mut records = Records::new(&STREAM[..cut])?;
                while records.next()? != Record::Missing {}
                Ok(())
            };
            assert!(all().is_err(), "cut at {cut}");
        }
        for wrong in ["file x wals\n", "file -1 wals\n", "hello\n", "file 1 wals\nabc\n"] {
            let all = || -> io::Result<()> {
                let mut records = Records::new(wrong.as_bytes())?;
                records.next()?;
                records.next().map(drop)
            };
            assert!(all().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn output_passes_whole_and_its_exit_is_known() {
        let mut host = LocalHost::default();
        let command = ShellCommand::script("head -c 3000000 /dev/zero; exit 3");
        let process = host.start(&command, StartOptions::default()).unwrap();
        let (length, exit) = pumped(process, |chunks| io::copy(chunks, &mut io::sink()).unwrap());
        assert_eq!((length, exit.unwrap().unwrap().code), (3_000_000, Some(3)));
    }

    #[test]
    fn a_reader_that_leaves_early_abandons_the_process() {
        let mut host = LocalHost::default();
        let command = ShellCommand::script("cat /dev/zero");
        let process = host.start(&command, StartOptions::default()).unwrap();
        let (_, exit) = pumped(process, |chunks| chunks.read(&mut [0; 10]).unwrap());
        assert!(exit.unwrap().is_none());
    }
}
