use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;

/// How bytes are compressed on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// zstd or lz4, whichever of those that the far side has turns out to be faster, and nothing for
    /// files that do not shrink: each batch is tried by a part of its largest one.
    #[default]
    Auto,
    /// zstd at its fastest ordinary level; an error if the far side does not have it.
    Zstd,
    /// lz4; an error if the far side does not have it.
    Lz4,
    /// gzip, slow and everywhere.
    Gzip,
    /// Nothing. The choice for a host that is reached without a network.
    None,
}

impl Compression {
    /// What the far side may choose from, best first.
    pub(crate) fn codecs(self) -> &'static str {
        match self {
            Self::Auto => "zstd lz4 none",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 8878.
    Zstd,
    /// The frame format of the lz4 program.
    Lz4,
    /// RFC 1952.
    Gzip,
    /// Not at all.
    None,
}

impl Codec {
    pub(crate) const ALL: [Self; 4] = [Self::Zstd, Self::Lz4, Self::Gzip, Self::None];

    /// "zstd", "lz4", "gzip", "none"; the first three are the programs' names as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }

    /// What is inside `input`. At its end all of `input` was used and every frame was whole.
    ///
    /// A zstd stream may claim memory up to `1 << window_log`.
    pub(crate) fn decoder<'r>(
        self,
        input: impl Read + 'r,
        window_log: u32,
    ) -> io::Result<Box<dyn BufRead + 'r>> {
        let input = BufReader::with_capacity(BUFFER, input);
        Ok(match self {
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(input)?;
                decoder.window_log_max(window_log)?;
                Box::new(BufReader::with_capacity(BUFFER, decoder))
            }
            Self::Lz4 => Box::new(BufReader::with_capacity(BUFFER, Lz4Frames::new(input))),
            Self::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(input))),
            Self::None => Box::new(input),
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One for each stage of a worker; larger ones fall out of the CPU's cache.
const BUFFER: usize = 256 * 1024;

/// All lz4 frames of a stream, each proven whole.
///
/// `FrameDecoder` (0.14) takes the end of input between two blocks for the end of the frame, and
/// stops after each frame.
struct Lz4Frames<R: BufRead> {
    decoder: FrameDecoder<Watched<R>>,
}

impl<R: BufRead> Lz4Frames<R> {
    fn new(input: R) -> Self {
        let watched = Watched { input, ended: false };
        Self {
            decoder: FrameDecoder::new(watched),
        }
    }
}

impl<R: BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.decoder.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let watched = self.decoder.get_mut();
            if watched.ended {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the lz4 frame is cut"));
            }
            if watched.input.fill_buf()?.is_empty() {
                return Ok(0);
            }
        }
    }
}

/// Remembers whether the decoder wanted more than there was.
struct Watched<R> {
    input: R,
    ended: bool,
}

impl<R: BufRead> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.ended |= n == 0 && !buffer.is_empty();
        Ok(n)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    pub(crate) fn compress(codec: Codec, data: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Zstd => zstd::encode_all(data, 1).unwrap(),
            Codec::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Codec::None => data.to_vec(),
        }
    }

    fn decode(codec: Codec, data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        codec.decoder(data, 23)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn sample() -> Vec<u8> {
        (0..300_000u32)
            .flat_map(|i| (i / 3).wrapping_mul(i).to_le_bytes())
            .collect()
    }

    #[test]
    fn every_codec_gives_back_what_went_in_also_in_several_frames() {
        let data = sample();
        for codec in Codec::ALL {
            let once = compress(codec, &data);
            assert_eq!(decode(codec, &once).unwrap(), data, "{codec}");
            let twice = [once.clone(), once].concat();
            assert_eq!(decode(codec, &twice).unwrap(), data.repeat(2), "{codec}");
        }
    }

    #[test]
    fn a_stream_cut_anywhere_is_an_error() {
        let data = &sample()[..3000];
        for codec in [Codec::Zstd, Codec::Lz4, Codec::Gzip] {
            // Several frames and, for lz4, several blocks in one.
            let whole = [compress(codec, data), compress(codec, data)].concat();
            let between = whole.len() / 2;
            for cut in (1..whole.len()).filter(|c| *c != between) {
                let error = decode(codec, &whole[..cut]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{codec} {cut}: {error}");
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
        for codec in [Codec::Zstd, Codec::Lz4, Codec::Gzip] {
            let longer = [compress(codec, b"data"), b"garbage!".to_vec()].concat();
            assert!(decode(codec, &longer).is_err(), "{codec}");
        }
    }

    #[test]
    fn memory_that_a_stream_claims_is_limited() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&sample()).unwrap();
        let wide = encoder.finish().unwrap();
        assert!(decode(Codec::Zstd, &wide).is_err());
    }
}
