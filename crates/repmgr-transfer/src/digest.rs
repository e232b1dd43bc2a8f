//! Checksums of files on the far side, made there.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use repmgr_remote::{Connection, Input, RemoteError, ShellCommand, StartOptions};
use repmgr_types::CancelToken;

use crate::error::{TransferError, said};
use crate::listing::Listing;
use crate::path::shown;

/// The bytes of a SHA-256 checksum.
pub const DIGEST_LEN: usize = 32;

/// `-z`: names are not escaped and end with NUL.
const SCRIPT: &str = r#"cd -- "$1" || exit 1
exec xargs -0 -r sha256sum -z --"#;

/// A checksum, two blanks or a blank and an asterisk, and a name.
const LONGEST_LINE: u64 = 64 + 2 + 4096 + 16;

/// SHA-256 checksums of regular files of a listing, by their numbers in it and in that order.
///
/// Needs coreutils 8.25 or later there. One connection computes on one core of the far side;
/// share a long list among several.
///
/// # Errors
/// See [`TransferError`]; a file that is gone or cannot be read is one.
pub fn digests(
    connection: &mut dyn Connection,
    listing: &Listing,
    indexes: &[usize],
    idle_timeout: Duration,
    cancel: &CancelToken,
) -> Result<Vec<[u8; DIGEST_LEN]>, TransferError> {
    let directory = listing.directory();
    let host = connection.host().to_owned();
    let broken = |source: RemoteError| TransferError::broken(directory, source);
    let malformed = |reason: String| TransferError::Malformed {
        host: host.clone(),
        directory: directory.to_owned(),
        reason,
    };
    let mut names = Vec::new();
    for index in indexes {
        names.extend_from_slice(b"./");
        names.extend_from_slice(listing.get(*index).path);
        names.push(0);
    }
    let command = ShellCommand::script(SCRIPT).arg(directory).env("LC_ALL", "C");
    let options = StartOptions {
        input: Input::Bytes(names),
        idle_timeout,
        cancel: cancel.clone(),
        ..Default::default()
    };
    let mut process = connection.start(&command, options).map_err(broken)?;
    let mut found = Vec::with_capacity(indexes.len());
    {
        let mut input = BufReader::new(&mut process);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = std::io::Read::take(&mut input, LONGEST_LINE);
            limited
                .read_until(0, &mut line)
                .map_err(|error| broken(RemoteError::from_io(error)))?;
            if line.is_empty() {
                break;
            }
            let Some(index) = indexes.get(found.len()) else {
                return Err(malformed("more checksums than files".to_owned()));
            };
            let path = listing.get(*index).path;
            let digest = read_line(&line, path)
                .ok_or_else(|| malformed(format!("no checksum of \"{}\"", shown(path))))?;
            found.push(digest);
        }
    }
    let exit = process.finish().map_err(broken)?;
    if !exit.success() {
        return Err(TransferError::Failed {
            host,
            directory: directory.to_owned(),
            message: said(&exit, "sha256sum: "),
        });
    }
    match found.len() == indexes.len() {
        true => Ok(found),
        false => Err(malformed("fewer checksums than files".to_owned())),
    }
}

fn read_line(line: &[u8], path: &[u8]) -> Option<[u8; DIGEST_LEN]> {
    let line = line.strip_suffix(b"\0")?;
    let (hex, name) = line.split_at_checked(2 * DIGEST_LEN)?;
    let name = name.strip_prefix(b"  ./").or(name.strip_prefix(b" *./"))?;
    if name != path {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .filter(|_| !byte.is_ascii_uppercase())
    };
    let mut digest = [0; DIGEST_LEN];
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        // Two hexadecimal digits always fit.
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list;
    use repmgr_remote::{Host, LocalHost};

    /// Of "15\n".
    const HEX: &str = "238903180cc104ec2c5d8b3f20c5bc61b389ec0a967df8cc208cdc7cd454174f";

    #[test]
    fn only_the_line_of_the_very_file_counts() {
        let read = |text: &str, path: &[u8]| read_line(text.as_bytes(), path);
        assert!(read(&format!("{HEX}  ./a b\0"), b"a b").is_some());
        for (text, path) in [
            (format!("{HEX}  ./a\0"), &b"b"[..]),
            (format!("{HEX}  ./a"), b"a"),
            (format!("{}  ./a\0", HEX.to_uppercase()), b"a"),
            (format!("{}  ./a\0", &HEX[1..]), b"a"),
            (format!("\\{HEX}  ./a\0"), b"a"),
            (String::new(), b""),
        ] {
            assert_eq!(read(&text, path), None, "{text:?}");
        }
    }

    #[test]
    fn files_with_odd_names_have_their_checksums_and_a_lost_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["PG_VERSION", "-n", "a\nb", "\\x"] {
            std::fs::write(dir.path().join(name), "15\n").unwrap();
        }
        let cancel = CancelToken::new();
        let mut connection = LocalHost::default().connect().unwrap();
        let listing = list(
            &mut *connection,
            dir.path().to_str().unwrap(),
            &mut |_| true,
            &cancel,
        )
        .unwrap();
        let all: Vec<usize> = (0..listing.len()).collect();
        let limit = Duration::from_secs(30);
        let found = digests(&mut *connection, &listing, &all, limit, &cancel).unwrap();
        assert_eq!(found.len(), 4);
        let hex: String = found[0].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(found.iter().all(|digest| *digest == found[0]), "{hex}");
        assert_eq!(hex, HEX);
        assert!(
            digests(&mut *connection, &listing, &[], limit, &cancel)
                .unwrap()
                .is_empty()
        );
        std::fs::remove_file(dir.path().join("PG_VERSION")).unwrap();
        let error = digests(&mut *connection, &listing, &all, limit, &cancel).unwrap_err();
        assert!(error.to_string().contains("PG_VERSION"), "{error}");
    }
}
