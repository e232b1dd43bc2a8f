//! Decompression of stored WAL, recognised by its first bytes as Barman itself does.

use std::io::{self, Read};

use repmgr_codec::{Codec, Window};
use repmgr_pgfile::is_plain_wal;

/// A stored file, decompressed while it is read.
pub(crate) struct Decoder<'r> {
    pub(crate) codec: Codec,
    pub(crate) reader: Box<dyn Read + 'r>,
}

/// What the first bytes of a stored file are.
pub(crate) enum Opened<'r> {
    /// This program can read it.
    Known(Decoder<'r>),
    /// Only Barman can: custom compression, snappy, encryption.
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

/// Looks at the first bytes of `input` and chooses the decoder; `is_plain` knows what the file looks like
/// where it is not compressed.
pub(crate) fn open<'r>(
    mut input: impl Read + 'r,
    is_plain: impl Fn(&[u8]) -> bool,
) -> io::Result<Opened<'r>> {
    // A pipe may give few bytes at a time.
    let mut first = Vec::with_capacity(16);
    input.by_ref().take(16).read_to_end(&mut first)?;
    let codec = match Codec::of(&first) {
        Some(codec) => codec,
        None if is_plain(&first) => Codec::None,
        None => return Ok(Opened::Unknown),
    };
    let reader = codec.decoder(io::Cursor::new(first).chain(input), Window::STORED)?;
    Ok(Opened::Known(Decoder { codec, reader }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec_of(bytes: &[u8], is_plain: impl Fn(&[u8]) -> bool) -> Option<Codec> {
        match open(bytes, is_plain).unwrap() {
            Opened::Known(decoder) => Some(decoder.codec),
            Opened::Unknown => None,
        }
    }

    #[test]
    fn what_is_neither_compressed_nor_plain_is_left_to_barman() {
        let snappy = b"\xff\x06\x00\x00sNaPpY data";
        let gpg = b"\x85\x02\x0c\x03 encrypted packets";
        for bytes in [&snappy[..], gpg, b"custom!!"] {
            assert_eq!(codec_of(bytes, is_segment), None, "{bytes:?}");
        }
        assert_eq!(codec_of(gpg, is_text), None);
        assert_eq!(codec_of(b"1\t0/3000000\tx\n", is_text), Some(Codec::None));
        let wal = [&0xD110_u16.to_ne_bytes()[..], b"the rest of a page"].concat();
        assert_eq!(codec_of(&wal, is_segment), Some(Codec::None));
        let zstd = zstd::encode_all(&wal[..], 1).unwrap();
        assert_eq!(codec_of(&zstd, is_segment), Some(Codec::Zstd));
    }
}
