//! One stored file becomes a checked file of this host.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use repmgr_types::SystemId;

use crate::check::{self, HEADER_LEN, SegmentHeader};
use crate::decode::{self, Opened};
use crate::deliver::{FileError, NewFile, Shelf};
use crate::{ContentError, WalFileName};

/// History and backup files have some hundred bytes; a thousand timelines have 100 kB.
pub(crate) const MAX_TEXT: u64 = 1 << 20;

/// A whole and checked file that has no name yet.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) file: NewFile,
    /// For segments.
    pub(crate) header: Option<SegmentHeader>,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// Only Barman can read it.
    Unknown,
    /// It is not the file asked for.
    Content(ContentError),
    /// It could not be read to its end.
    Source(io::Error),
    /// It could not be written here.
    File(FileError),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

impl From<ContentError> for ReceiveError {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

impl From<FileError> for ReceiveError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// Keeps the error of the source apart from what decoders make of it.
struct Source<R> {
    inner: R,
    error: Rc<RefCell<Option<io::Error>>>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                *self.error.borrow_mut() = Some(error);
            }
            kind.into()
        })
    }
}

/// Reads `stored` to its end, decompresses and checks it, and writes it to a temporary file in `dir`.
pub(crate) fn receive(
    name: WalFileName,
    stored: impl Read,
    system_id: Option<SystemId>,
    dir: &Shelf,
) -> Result<Received, ReceiveError> {
    let error = Rc::new(RefCell::new(None));
    let source = Source {
        inner: stored,
        error: Rc::clone(&error),
    };
    let result = read(name, source, system_id, dir);
    match error.take() {
        Some(error) => Err(ReceiveError::Source(error)),
        None => result,
    }
}

fn read(
    name: WalFileName,
    source: impl Read,
    system_id: Option<SystemId>,
    dir: &Shelf,
) -> Result<Received, ReceiveError> {
    let text = matches!(name, WalFileName::History(_) | WalFileName::Backup { .. });
    let is_plain = if text { decode::is_text } else { decode::is_segment };
    let mut decoder = match decode::open(source, is_plain).map_err(ReceiveError::Source)? {
        Opened::Known(decoder) => decoder,
        Opened::Unknown => return Err(ReceiveError::Unknown),
    };
    let compression = decoder.codec.name();
    let damaged = |error: io::Error| ContentError::Compression {
        compression,
        reason: error.to_string(),
    };
    let reader = &mut decoder.reader;
    let segment = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => segment,
        WalFileName::History(_) | WalFileName::Backup { .. } => {
            let mut bytes = Vec::new();
            reader.take(MAX_TEXT).read_to_end(&mut bytes).map_err(damaged)?;
            check::check_text(name, &bytes)?;
            let mut file = NewFile::create(dir, &name.to_string())?;
            file.write(&bytes)?;
            return Ok(Received { file, header: None });
        }
    };
    let mut first = Vec::with_capacity(HEADER_LEN);
    reader
        .take(HEADER_LEN as u64)
        .read_to_end(&mut first)
        .map_err(damaged)?;
    let header = check::check_segment_header(segment, &first, system_id)?;
    let expected = header.segment_size.bytes();
    let mut file = NewFile::create(dir, &name.to_string())?;
    file.write(&first)?;
    let mut found = first.len() as u64;
    let mut buffer = vec![0; 256 * 1024];
    // One byte more than a segment has, to see that there is none, and that its checksum is right.
    while found <= expected {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(damaged(e).into()),
        };
        found += n as u64;
        if found <= expected {
            file.write(&buffer[..n])?;
        }
    }
    if found != expected {
        return Err(ContentError::Size { found, expected }.into());
    }
    Ok(Received {
        file,
        header: Some(header),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{ID, page};
    use crate::deliver::DirectoryFlush;

    const SIZE: usize = 1 << 20;

    fn name() -> WalFileName {
        "000000010000000000000003".parse().unwrap()
    }

    fn segment() -> Vec<u8> {
        let mut bytes = page(name().segment().unwrap(), SIZE as u32, 1, ID);
        bytes.resize(SIZE, 7);
        bytes
    }

    fn content(bytes: &[u8]) -> ContentError {
        let dir = tempfile::tempdir().unwrap();
        let error = match receive(name(), bytes, Some(ID), &dir.path().into()) {
            Err(ReceiveError::Content(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        error
    }

    #[test]
    fn a_whole_segment_arrives_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let compressed = zstd::encode_all(segment().as_slice(), 1).unwrap();
        for stored in [segment(), compressed] {
            let received = receive(name(), stored.as_slice(), Some(ID), &dir.path().into()).unwrap();
            let to = dir.path().join("RECOVERYXLOG");
            received.file.publish(&to, DirectoryFlush::No).unwrap();
            assert!(std::fs::read(to).unwrap() == segment());
        }
    }

    #[test]
    fn a_segment_of_another_length_is_refused() {
        let size = SIZE as u64;
        let bytes = segment();
        for cut in [100, SIZE - 1] {
            let found = cut as u64;
            assert_eq!(
                content(&bytes[..cut]),
                ContentError::Size {
                    found,
                    expected: size
                }
            );
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(matches!(content(&longer), ContentError::Size { found, .. } if found > size));
        let short = zstd::encode_all(&bytes[..SIZE / 2], 1).unwrap();
        assert!(matches!(content(&short), ContentError::Size { .. }));
        assert!(matches!(content(b""), ContentError::Short { .. }));
    }

    #[test]
    fn damage_in_the_compressed_bytes_is_refused() {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&segment()).unwrap();
        let mut stored = gzip.finish().unwrap();
        let crc = stored.len() - 6;
        stored[crc] ^= 1;
        assert!(
            matches!(content(&stored), ContentError::Compression { .. }),
            "{:?}",
            content(&stored)
        );
    }

    #[test]
    fn a_source_that_breaks_is_not_blamed_on_the_content() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let bytes = segment();
                let n = buffer.len().min(1000).min(5000 - self.0);
                if n == 0 {
                    return Err(io::Error::other("cable"));
                }
                buffer[..n].copy_from_slice(&bytes[self.0..self.0 + n]);
                self.0 += n;
                Ok(n)
            }
        }
        let dir = tempfile::tempdir().unwrap();
        match receive(name(), Broken(0), Some(ID), &dir.path().into()) {
            Err(ReceiveError::Source(error)) => assert_eq!(error.to_string(), "cable"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_only_barman_can_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let result = receive(
            name(),
            &b"\xff\x06\x00\x00sNaPpY..........."[..],
            None,
            &dir.path().into(),
        );
        assert!(matches!(result, Err(ReceiveError::Unknown)));
    }
}
