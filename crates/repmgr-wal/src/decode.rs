//! Decompression of stored WAL, recognised by its first bytes as Barman itself does.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use crate::check::is_plain_wal;

/// How a file is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// As PostgreSQL wrote it.
    None,
    /// `compression = gzip` or `pigz`.
    Gzip,
    /// `compression = bzip2`.
    Bzip2,
    /// `compression = xz` (Barman 3.12 and later).
    Xz,
    /// `compression = zstd` (Barman 3.12 and later).
    Zstd,
    /// `compression = lz4` (Barman 3.12 and later).
    Lz4,
}

const MAGIC: [(&[u8], Compression); 5] = [
    (b"\x1f\x8b\x08", Compression::Gzip),
    (b"BZh", Compression::Bzip2),
    (b"\xfd7zXZ\x00", Compression::Xz),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    (b"\x04\x22\x4d\x18", Compression::Lz4),
];

impl Compression {
    /// Recognises a file by its first bytes; `None` for what only Barman can read: custom
    /// compression, snappy, encryption. `is_plain` knows what it looks like uncompressed.
    fn of(first: &[u8], is_plain: impl Fn(&[u8]) -> bool) -> Option<Self> {
        match MAGIC.iter().find(|(magic, _)| first.starts_with(magic)) {
            Some((_, known)) => Some(*known),
            None => is_plain(first).then_some(Self::None),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// The decoder for it.
    fn reader<'r>(self, input: impl BufRead + 'r) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A stored file, decompressed while it is read.
pub(crate) struct Decoder<'r> {
    pub(crate) compression: Compression,
    pub(crate) reader: Box<dyn Read + 'r>,
}

/// What the first bytes of a stored file are.
pub(crate) enum Opened<'r> {
    /// This program can read it.
    Known(Decoder<'r>),
    /// Only Barman can.
    Unknown,
}

/// Plain history and backup files are text.
pub(crate) fn is_text(first: &[u8]) -> bool {
    first
        .iter()
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}

/// Plain segments have a page header. A file of zeros, which nobody has written yet, and a very short
/// one are left to the check of that header.
pub(crate) fn is_segment(first: &[u8]) -> bool {
    first.len() < 2 || is_plain_wal(first) || first.iter().all(|b| *b == 0)
}

/// Looks at the first bytes of `input` and chooses the decoder.
pub(crate) fn open<'r>(input: impl Read + 'r, is_plain: impl Fn(&[u8]) -> bool) -> io::Result<Opened<'r>> {
    let mut input = BufReader::with_capacity(256 * 1024, input);
    // A pipe may give few bytes at a time.
    let mut first = Vec::with_capacity(16);
    input.by_ref().take(16).read_to_end(&mut first)?;
    let Some(compression) = Compression::of(&first, is_plain) else {
        return Ok(Opened::Unknown);
    };
    let reader = compression.reader(io::Cursor::new(first).chain(input))?;
    Ok(Opened::Known(Decoder { compression, reader }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn compressed(with: Compression, data: &[u8]) -> Vec<u8> {
        match with {
            Compression::None => data.to_vec(),
            Compression::Gzip => {
                let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                w.write_all(data).unwrap();
                w.finish().unwrap()
            }
            Compression::Bzip2 => {
                let mut w = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                w.write_all(data).unwrap();
                w.finish().unwrap()
            }
            Compression::Xz => {
                let mut w = liblzma::write::XzEncoder::new(Vec::new(), 1);
                w.write_all(data).unwrap();
                w.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(data, 1).unwrap(),
            Compression::Lz4 => {
                let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
                w.write_all(data).unwrap();
                w.finish().unwrap()
            }
        }
    }

    const ALL: [Compression; 6] = [
        Compression::None,
        Compression::Gzip,
        Compression::Bzip2,
        Compression::Xz,
        Compression::Zstd,
        Compression::Lz4,
    ];

    fn wal() -> Vec<u8> {
        let mut data = 0xD110_u16.to_ne_bytes().to_vec();
        data.extend((0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()));
        data
    }

    #[test]
    fn every_compression_is_recognised_and_read() {
        for with in ALL {
            let stored = compressed(with, &wal());
            // One byte at a time, as a slow connection may give it.
            let Opened::Known(mut decoder) = open(stored.as_slice(), is_segment).unwrap() else {
                panic!("{with}")
            };
            let mut out = Vec::new();
            decoder.reader.read_to_end(&mut out).unwrap();
            assert!(out == wal() && decoder.compression == with, "{with}");
        }
    }

    #[test]
    fn a_cut_stream_is_an_error_in_every_compression() {
        for with in ALL.into_iter().skip(1) {
            let stored = compressed(with, &wal());
            for cut in [stored.len() - 1, stored.len() / 2, 20] {
                let Opened::Known(mut decoder) = open(&stored[..cut], is_segment).unwrap() else {
                    panic!("{with}")
                };
                let mut out = Vec::new();
                let result = decoder.reader.read_to_end(&mut out);
                // lz4 does not miss the end of its end mark, where all bytes have come.
                let whole = with == Compression::Lz4 && cut == stored.len() - 1 && out == wal();
                assert!(
                    result.is_err() || whole || out.len() < wal().len(),
                    "{with} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn what_only_barman_can_read_is_not_guessed_at() {
        let snappy = b"\xff\x06\x00\x00sNaPpY data";
        let gpg = b"\x85\x02\x0c\x03 encrypted packets";
        for bytes in [&snappy[..], gpg, b"custom!!"] {
            assert_eq!(Compression::of(bytes, is_segment), None, "{bytes:?}");
        }
        assert_eq!(Compression::of(gpg, is_text), None);
        assert_eq!(
            Compression::of(b"1\t0/3000000\tx\n", is_text),
            Some(Compression::None)
        );
    }
}
