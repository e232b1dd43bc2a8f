//! Compressed streams from a side that is not trusted.
//!
//! A [`Codec`] is recognised by the first bytes of a stream ([`Codec::of`]) or named by whoever sent
//! it. What its [decoder](Codec::decoder) gives is whole: the decoder fails where a stream is cut, at
//! whatever point, and where something follows its end. It takes no more memory than its caller allows,
//! whatever the stream claims.
//!
//! ```
//! use std::io::Read;
//! use repmgr_codec::{Codec, Window};
//!
//! let mut text = String::new();
//! Codec::None.decoder(&b"as it is"[..], Window::WIRE)?.read_to_string(&mut text)?;
//! assert_eq!(text, "as it is");
//! # Ok::<(), std::io::Error>(())
//! ```

mod lz4;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::lz4::Lz4Frames;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 8878.
    Zstd,
    /// The frame format of the lz4 program.
    Lz4,
    /// RFC 1952.
    Gzip,
    /// As the bzip2 program writes it.
    Bzip2,
    /// The .xz format.
    Xz,
    /// Not at all.
    None,
}

/// How many bytes back a stream may refer, which is the memory that its decoder needs: two to this power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window(u32);

impl Window {
    /// For what a program compresses at its fastest level while it sends: `zstd -1` needs 19.
    pub const WIRE: Self = Self(23);
    /// For what was compressed to be kept: all levels of `zstd` and `xz` without `--long`, 128 MiB.
    pub const STORED: Self = Self(27);
}

/// One for each stage of a stream; larger ones fall out of the CPU's cache.
const BUFFER: usize = 256 * 1024;
/// What xz needs besides its window.
const XZ_BESIDES: u64 = 1 << 20;

impl Codec {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Zstd,
        Self::Lz4,
        Self::Gzip,
        Self::Bzip2,
        Self::Xz,
        Self::None,
    ];

    /// "zstd", "lz4", "gzip", "bzip2", "xz", "none"; the others are the programs' names as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::None => "none",
        }
    }

    /// The codec of a stream that begins so; `None` where it begins like no compressed stream.
    pub fn of(first: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.magic().is_some_and(|magic| first.starts_with(magic)))
    }

    /// How all its streams begin.
    fn magic(self) -> Option<&'static [u8]> {
        Some(match self {
            Self::Zstd => b"\x28\xb5\x2f\xfd",
            Self::Lz4 => b"\x04\x22\x4d\x18",
            Self::Gzip => b"\x1f\x8b\x08",
            Self::Bzip2 => b"BZh",
            Self::Xz => b"\xfd7zXZ\x00",
            Self::None => return None,
        })
    }

    /// What is inside `input`. At its end all of `input` was used and every frame was whole.
    ///
    /// # Errors
    /// If there is no memory for a decoder. Reading fails where a stream is cut
    /// ([`UnexpectedEof`](io::ErrorKind::UnexpectedEof), and for bzip2 and xz others), damaged, or
    /// refers further back than `window`.
    pub fn decoder<'r>(self, input: impl Read + 'r, window: Window) -> io::Result<Box<dyn BufRead + 'r>> {
        let input = BufReader::with_capacity(BUFFER, input);
        Ok(match self {
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(input)?;
                decoder.window_log_max(window.0)?;
                buffered(decoder)
            }
            Self::Lz4 => buffered(Lz4Frames::new(input)),
            Self::Gzip => buffered(MultiGzDecoder::new(input)),
            // It never needs more than 4 MB.
            Self::Bzip2 => buffered(MultiBzDecoder::new(input)),
            Self::Xz => {
                let limit = (1 << window.0) + XZ_BESIDES;
                let stream = Stream::new_stream_decoder(limit, CONCATENATED).map_err(io::Error::other)?;
                buffered(XzDecoder::new_stream(input, stream))
            }
            Self::None => Box::new(input),
        })
    }
}

fn buffered<'r>(decoder: impl Read + 'r) -> Box<dyn BufRead + 'r> {
    Box::new(BufReader::with_capacity(BUFFER, decoder))
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Write};

    fn compress(codec: Codec, data: &[u8]) -> Vec<u8> {
        fn filled<W: Write>(mut encoder: W, data: &[u8], finish: impl FnOnce(W) -> Vec<u8>) -> Vec<u8> {
            encoder.write_all(data).unwrap();
            finish(encoder)
        }
        let out = Vec::new();
        match codec {
            Codec::Zstd => zstd::encode_all(data, 1).unwrap(),
            Codec::Lz4 => filled(lz4_flex::frame::FrameEncoder::new(out), data, |e| {
                e.finish().unwrap()
            }),
            Codec::Gzip => {
                let level = flate2::Compression::fast();
                filled(flate2::write::GzEncoder::new(out, level), data, |e| {
                    e.finish().unwrap()
                })
            }
            Codec::Bzip2 => {
                let level = bzip2::Compression::fast();
                filled(bzip2::write::BzEncoder::new(out, level), data, |e| {
                    e.finish().unwrap()
                })
            }
            Codec::Xz => filled(liblzma::write::XzEncoder::new(out, 1), data, |e| {
                e.finish().unwrap()
            }),
            Codec::None => data.to_vec(),
        }
    }

    fn decode(codec: Codec, data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        codec.decoder(data, Window::WIRE)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn sample() -> Vec<u8> {
        (0..300_000u32)
            .flat_map(|i| (i / 3).wrapping_mul(i).to_le_bytes())
            .collect()
    }

    fn compressing() -> impl Iterator<Item = Codec> {
        Codec::ALL.into_iter().filter(|codec| *codec != Codec::None)
    }

    #[test]
    fn every_codec_is_recognised_and_gives_back_what_went_in_also_in_several_frames() {
        let data = sample();
        for codec in Codec::ALL {
            let once = compress(codec, &data);
            assert_eq!(Codec::of(&once).unwrap_or(Codec::None), codec);
            assert!(decode(codec, &once).unwrap() == data, "{codec}");
            let twice = [once.clone(), once].concat();
            assert!(decode(codec, &twice).unwrap() == data.repeat(2), "{codec}");
        }
    }

    #[test]
    fn what_begins_like_no_compressed_stream_is_not_guessed_at() {
        let snappy = b"\xff\x06\x00\x00sNaPpY data";
        let gpg = b"\x85\x02\x0c\x03 encrypted packets";
        for bytes in [&snappy[..], gpg, b"custom!!", b""] {
            assert_eq!(Codec::of(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_stream_cut_anywhere_is_an_error() {
        let data = &sample()[..600];
        for codec in compressing() {
            // Several frames and, for lz4, several blocks in one.
            let whole = [compress(codec, data), compress(codec, data)].concat();
            let between = whole.len() / 2;
            for cut in (1..whole.len()).filter(|c| *c != between) {
                let error = decode(codec, &whole[..cut]).expect_err(&format!("{codec} {cut}"));
                if matches!(codec, Codec::Zstd | Codec::Lz4 | Codec::Gzip) {
                    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{codec} {cut}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_cut_between_two_blocks_of_lz4_is_an_error() {
        let small_blocks = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(small_blocks, Vec::new());
        encoder.write_all(&sample()).unwrap();
        let whole = encoder.finish().unwrap();
        // Magic, flags, block size byte and checksum; then a block with its length before it.
        let length = u32::from_le_bytes(whole[7..11].try_into().unwrap()) & 0x7fff_ffff;
        let cut = 11 + length as usize;
        assert!(cut < whole.len() - 4, "only one block");
        assert!(decode(Codec::Lz4, &whole[..cut]).is_err());
        assert!(decode(Codec::Lz4, b"").is_err());
    }

    #[test]
    fn garbage_after_the_end_is_an_error() {
        for codec in compressing() {
            let longer = [compress(codec, b"data"), b"garbage!".to_vec()].concat();
            assert!(decode(codec, &longer).is_err(), "{codec}");
        }
    }

    #[test]
    fn memory_that_a_stream_claims_is_limited() {
        let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
        zstd.window_log(27).unwrap();
        zstd.write_all(&sample()).unwrap();
        assert!(decode(Codec::Zstd, &zstd.finish().unwrap()).is_err());
        let mut options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
        options.dict_size(64 << 20);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let stream = Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
        let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        xz.write_all(&sample()).unwrap();
        let wide = xz.finish().unwrap();
        assert!(decode(Codec::Xz, &wide).is_err());
        let mut out = Vec::new();
        let mut stored = Codec::Xz.decoder(&wide[..], Window::STORED).unwrap();
        stored.read_to_end(&mut out).unwrap();
        assert!(out == sample());
    }
}
