//! A strict reader of tar streams. It takes what GNU tar (format gnu) and PostgreSQL write, and
//! nothing that could mean two things.

use std::io::{self, BufRead, ErrorKind, Read};

use tar::{EntryType, Header};

use crate::path::{MAX_PATH, shown};
use crate::wire::StreamError;

const BLOCK: usize = 512;
/// Zeros after the end mark: GNU tar fills its last record, 64 KiB as we call it.
const MAX_TRAILER: u64 = 1 << 20;

fn malformed<T>(reason: impl Into<String>) -> Result<T, StreamError> {
    Err(StreamError::Malformed(reason.into()))
}

/// What kind of thing a member is; everything else is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Directory,
    Symlink,
}

/// What stands before a member's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// As it stands there, not checked.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: MemberKind,
    /// Zero for what is no file.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    /// Seconds since 1970. Nothing for a time before that.
    pub(crate) modified: Option<u64>,
}

/// Reads one archive from a stream that holds nothing else.
pub(crate) struct Archive<R> {
    input: R,
    /// Bytes of the current member that nobody has read, and zeros up to the next block after it.
    left: u64,
    padding: usize,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
        }
    }

    /// The next member, past what is unread of this one. Nothing once the archive has ended as it
    /// must: two blocks of zeros, then only zeros up to the end of the stream.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, StreamError> {
        self.skip_rest()?;
        let mut long_name = None;
        loop {
            let header = self.block()?;
            if header.as_bytes() == &[0; BLOCK] {
                if long_name.is_some() {
                    return malformed("it ends after a long name");
                }
                return self.end().map(|()| None);
            }
            check_sum(&header)?;
            if header.entry_type() == EntryType::GNULongName && long_name.is_none() {
                long_name = Some(self.long_name(&header)?);
                continue;
            }
            let member = member(&header, long_name)?;
            self.start(member.size);
            return Ok(Some(member));
        }
    }

    /// The next bytes of the current member: empty at its end only. Take them with `consume`.
    pub(crate) fn fill(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        Ok(&bytes[..bytes.len().min(most)])
    }

    /// `n` bytes of what `fill` gave are done with.
    pub(crate) fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.left -= n as u64;
    }

    fn start(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        loop {
            match self.fill()?.len() {
                0 => break,
                n => self.consume(n),
            }
        }
        let padding = std::mem::take(&mut self.padding);
        self.input.read_exact(&mut [0; BLOCK][..padding])
    }

    fn block(&mut self) -> io::Result<Header> {
        let mut header = Header::new_old();
        self.input.read_exact(header.as_mut_bytes())?;
        Ok(header)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, StreamError> {
        let size = header.entry_size().unwrap_or(0);
        if !(2..=MAX_PATH as u64 + 16).contains(&size) {
            return malformed(format!("a name of {size} bytes"));
        }
        self.start(size);
        let mut name = Vec::new();
        (&mut self.input).take(size).read_to_end(&mut name)?;
        self.left -= name.len() as u64;
        self.skip_rest()?;
        match name.pop() {
            Some(0) if !name.contains(&0) => Ok(name),
            _ => malformed("a long name with a NUL in the wrong place"),
        }
    }

    fn end(&mut self) -> Result<(), StreamError> {
        if self.block()?.as_bytes() != &[0; BLOCK] {
            return malformed("only one block of zeros at its end");
        }
        let mut trailer = 0;
        loop {
            let bytes = self.input.fill_buf()?;
            let n = bytes.len();
            trailer += n as u64;
            if n == 0 {
                return Ok(());
            }
            if trailer > MAX_TRAILER || bytes.iter().any(|b| *b != 0) {
                return malformed("something follows its end");
            }
            self.input.consume(n);
        }
    }
}

fn check_sum(header: &Header) -> Result<(), StreamError> {
    // The field itself counts as eight blanks.
    const FIELD: std::ops::Range<usize> = 148..156;
    let bytes = header.as_bytes();
    let sum = |part: &[u8]| part.iter().map(|b| u32::from(*b)).sum::<u32>();
    let expected = sum(bytes) - sum(&bytes[FIELD]) + 8 * u32::from(b' ');
    match header.cksum() {
        Ok(found) if found == expected => Ok(()),
        _ => malformed("a header with a wrong checksum"),
    }
}

fn member(header: &Header, long_name: Option<Vec<u8>>) -> Result<Member, StreamError> {
    let path = long_name.unwrap_or_else(|| header.path_bytes().into_owned());
    let kind = match header.entry_type() {
        EntryType::Regular => MemberKind::File,
        EntryType::Directory => MemberKind::Directory,
        EntryType::Symlink => MemberKind::Symlink,
        other => {
            let type_flag = char::from(other.as_byte()).escape_default();
            return malformed(format!("\"{}\" has the type '{type_flag}'", shown(&path)));
        }
    };
    let (Ok(size), Ok(mode)) = (header.entry_size(), header.mode()) else {
        return malformed(format!("the numbers of \"{}\" are none", shown(&path)));
    };
    if kind != MemberKind::File && size != 0 {
        return malformed(format!("\"{}\" is no file and has {size} bytes", shown(&path)));
    }
    Ok(Member {
        path,
        kind,
        size,
        mode: mode & 0o7777,
        // Times before 1970 are negative numbers in base 256.
        modified: header.mtime().ok().filter(|_| header.as_bytes()[136] & 0x80 == 0),
    })
}

#[cfg(test)]
pub(crate) mod tests;
