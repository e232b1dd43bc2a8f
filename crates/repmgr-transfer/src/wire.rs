//! What all streams from the far side have in common.

use std::io::{self, BufRead, ErrorKind, Read};

use repmgr_codec::{Codec, Window};
use repmgr_remote::RemoteError;

use crate::compression::ON_THE_WIRE;
use crate::path::shown;

/// Part of a shell script: chooses `$codec` from a list of names, or tells what is missing. The
/// script tells the codec in its first line.
macro_rules! choose_codec {
    ($list:literal) => {
        concat!(
            "for codec in ",
            $list,
            r#"; do
  [ "$codec" = none ] || command -v "$codec" >/dev/null 2>&1 && break
  codec=
done
[ "$codec" ] || { echo "missing "#,
            $list,
            r#""; exit 0; }
"#
        )
    };
}
pub(crate) use choose_codec;

/// lz4 as a part of a shell script: it needs half of the time with small blocks, which stay in the
/// CPU's cache, and without a checksum of its own, for SSH has one.
macro_rules! lz4 {
    () => {
        "lz4 -q -1 -B4 --no-frame-crc"
    };
}
pub(crate) use lz4;

/// Why a stream cannot be read on.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// It ended too early. How the command ended may say why.
    Short,
    /// The connection broke, or the work was cancelled.
    Remote(RemoteError),
    /// It says something it must not.
    Malformed(String),
    /// The far side lacks a program.
    NoProgram(String),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|e| e.is::<RemoteError>()) {
            Self::Remote(RemoteError::from_io(error))
        } else if error.kind() == ErrorKind::UnexpectedEof {
            Self::Short
        } else {
            // A decoder does not like it.
            Self::Malformed(error.to_string())
        }
    }
}

/// What the script of [`choose_codec`] tells in its first line.
pub(crate) fn chosen_codec(input: &mut impl Read) -> Result<Codec, StreamError> {
    const LONGEST: usize = 64;
    let mut line = Vec::new();
    let mut byte = [0];
    // Byte by byte: what follows belongs to somebody else.
    while line.len() < LONGEST {
        input.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        line.push(byte[0]);
    }
    if let Some(program) = line.strip_prefix(b"missing ") {
        return Err(StreamError::NoProgram(shown(program)));
    }
    let codec = ON_THE_WIRE.into_iter().find(|c| c.name().as_bytes() == line);
    codec.ok_or_else(|| StreamError::Malformed(format!("it begins with \"{}\"", shown(&line))))
}

/// What comes after that line, as it was before the far side compressed it.
pub(crate) fn decoded<'r>(mut input: impl Read + 'r) -> Result<(Codec, Box<dyn BufRead + 'r>), StreamError> {
    let codec = chosen_codec(&mut input)?;
    let decoder = codec.decoder(input, Window::WIRE);
    Ok((codec, decoder.map_err(|e| StreamError::Malformed(e.to_string()))?))
}
