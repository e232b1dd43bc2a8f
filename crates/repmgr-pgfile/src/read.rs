use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Reads a small file, at most its first `max` bytes. Symbolic links are followed.
///
/// # Errors
/// When it cannot be opened or read, or is no regular file.
pub fn read_beginning(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file for reading. Symbolic links are followed.
///
/// It never waits: opening a FIFO would until somebody writes to it, and reading a device could for ever.
///
/// # Errors
/// When it cannot be opened, or is no regular file.
pub fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn no_more_is_read_than_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "1234567").unwrap();
        assert_eq!(read_beginning(&path, 4).unwrap(), b"1234");
        assert_eq!(read_beginning(&path, 8).unwrap(), b"1234567");
        let missing = read_beginning(&dir.path().join("none"), 4).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_file_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for (path, kind) in [
            (fifo.as_path(), io::ErrorKind::InvalidInput),
            (Path::new("/dev/zero"), io::ErrorKind::InvalidInput),
            (dir.path(), io::ErrorKind::IsADirectory),
        ] {
            assert_eq!(read_beginning(path, 4).unwrap_err().kind(), kind, "{path:?}");
        }
    }
}
