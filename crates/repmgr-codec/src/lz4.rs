use std::io::{self, BufRead, ErrorKind, Read};

use lz4_flex::frame::FrameDecoder;

/// All lz4 frames of a stream, each proven whole.
///
/// `FrameDecoder` (0.14) takes the end of input between two blocks for the end of the frame, and
/// stops after each frame.
pub(crate) struct Lz4Frames<R: BufRead> {
    decoder: FrameDecoder<Watched<R>>,
}

impl<R: BufRead> Lz4Frames<R> {
    pub(crate) fn new(input: R) -> Self {
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
