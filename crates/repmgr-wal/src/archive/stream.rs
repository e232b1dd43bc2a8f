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

/// One line of a script, with what belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A text of `size` bytes follows, and a line end.
    Text { size: u64, what: String },
    /// A file of `size` bytes, found in `place`, will be among the contents.
    Next { size: u64, place: String },
    /// The list ends here, and why; the contents follow, compressed with a program or not ("-").
    End { why: End, compressor: String },
}

/// Why a list ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything is in it.
    Done,
    /// The next one asked for is not there.
    Missing,
    /// The same, but there is no WAL at all.
    Empty,
    /// We may not see or read it.
    Denied,
}

/// Reads records one after another.
pub(crate) struct Records<R> {
    input: BufReader<R>,
}

impl<R: Read> Records<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(CHUNK, input),
        }
    }

    pub(crate) fn next(&mut self) -> io::Result<Record> {
        let mut line = Vec::new();
        self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        let text = std::str::from_utf8(&line).ok().and_then(|l| l.strip_suffix('\n'));
        let mut words = text.unwrap_or_default().splitn(3, ' ');
        let (Some(word), Some(size), Some(rest)) = (
            words.next(),
            words.next().and_then(|w| w.parse().ok()),
            words.next(),
        ) else {
            return Err(confused("a record does not begin as one"));
        };
        let rest = rest.to_owned();
        let why = match word {
            "file" => return Ok(Record::Text { size, what: rest }),
            "next" => return Ok(Record::Next { size, place: rest }),
            "done" => End::Done,
            "missing" => End::Missing,
            "empty" => End::Empty,
            "denied" => End::Denied,
            _ => return Err(confused("an unknown kind of record")),
        };
        Ok(Record::End {
            why,
            compressor: rest,
        })
    }

    /// The text of a record just read, if it is not too long.
    pub(crate) fn text(&mut self, size: u64, limit: u64) -> io::Result<Vec<u8>> {
        if size > limit {
            return Err(confused("a text is too long"));
        }
        let mut bytes = Vec::new();
        self.input.by_ref().take(size + 1).read_to_end(&mut bytes)?;
        match bytes.pop() {
            Some(b'\n') if bytes.len() as u64 == size => Ok(bytes),
            _ => Err(confused("a text has another length than announced")),
        }
    }

    /// The contents behind the list.
    pub(crate) fn into_contents<'r>(self, compressor: &str) -> io::Result<Contents<'r>>
    where
        R: 'r,
    {
        let input: Box<dyn Read + 'r> = if compressor == "-" {
            Box::new(self.input)
        } else {
            match decode::open(self.input, |_| false)? {
                Opened::Known(decoder) => decoder.reader,
                Opened::Unknown => return Err(confused("it is not compressed as announced")),
            }
        };
        Ok(Contents { input, left: 0 })
    }
}

/// The contents of listed files, one behind the other.
pub(crate) struct Contents<'r> {
    input: Box<dyn Read + 'r>,
    /// Bytes of the current file nobody has read yet.
    left: u64,
}

impl<'r> Contents<'r> {
    /// The next file; what nobody has read of the one before is skipped.
    pub(crate) fn next(&mut self, size: u64) -> io::Result<Body<'_, 'r>> {
        self.skip()?;
        self.left = size;
        Ok(Body(self))
    }

    fn skip(&mut self) -> io::Result<()> {
        io::copy(&mut Body(self), &mut io::sink()).map(drop)
    }

    /// There must be nothing behind the last file.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.skip()?;
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(confused("there is more than was announced")),
        }
    }
}

/// Reads one file of the contents; a stream that ends inside it is an error.
pub(crate) struct Body<'a, 'r>(&'a mut Contents<'r>);

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

    const STREAM: &[u8] = b"file 3 home\na\nb\nnext 5 wals\nnext 0 incoming\nmissing 0 -\n\xfd\nbc\0";

    /// Everything in a stream, as text.
    fn all(stream: &[u8]) -> io::Result<Vec<String>> {
        let mut records = Records::new(stream);
        let (mut seen, mut sizes) = (Vec::new(), Vec::new());
        let compressor = loop {
            match records.next()? {
                Record::Text { size, what } => seen.push(format!("{what} {:?}", records.text(size, 10)?)),
                Record::Next { size, place } => {
                    sizes.push(size);
                    seen.push(format!("{place} {size}"));
                }
                Record::End { why, compressor } => {
                    seen.push(format!("{why:?}"));
                    break compressor;
                }
            }
        };
        let mut contents = records.into_contents(&compressor)?;
        for size in sizes {
            let mut bytes = Vec::new();
            contents.next(size)?.read_to_end(&mut bytes)?;
            seen.push(format!("{bytes:?}"));
        }
        contents.end()?;
        Ok(seen)
    }

    #[test]
    fn a_list_and_its_contents_read_plain_and_compressed() {
        let expected = [
            "home [97, 10, 98]",
            "wals 5",
            "incoming 0",
            "Missing",
            "[253, 10, 98, 99, 0]",
            "[]",
        ];
        assert_eq!(all(STREAM).unwrap(), expected);
        let (list, contents) = STREAM.split_at(STREAM.len() - 5);
        let list = String::from_utf8_lossy(list).replace("missing 0 -", "missing 0 zstd");
        let stream = [list.as_bytes(), &zstd::encode_all(contents, 1).unwrap()].concat();
        assert_eq!(all(&stream).unwrap(), expected);
    }

    #[test]
    fn what_nobody_read_of_a_file_is_skipped() {
        let records = Records::new(&b"abcdef"[..]);
        let mut contents = records.into_contents("-").unwrap();
        contents.next(3).unwrap().read_exact(&mut [0]).unwrap();
        let mut rest = String::new();
        contents.next(3).unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "def");
        contents.end().unwrap();
    }

    #[test]
    fn a_stream_that_breaks_off_anywhere_is_an_error() {
        for cut in 0..STREAM.len() {
            assert!(all(&STREAM[..cut]).is_err(), "cut at {cut}");
        }
        for wrong in [
            "next x wals\ndone 0 -\n",
            "next -1 wals\ndone 0 -\n",
            "hello\n",
            "other 1 x\n",
            "file 1 home\nabc\ndone 0 -\n",
            "file 99 home\nabc\ndone 0 -\n",
            "next 1 wals\ndone 0 -\nab",
            "next 1 wals\ndone 0 zstd\na",
        ] {
            assert!(all(wrong.as_bytes()).is_err(), "{wrong:?}");
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
