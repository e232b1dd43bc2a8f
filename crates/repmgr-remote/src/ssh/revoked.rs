//! `RevokedHostKeys`: keys that no host may have any more, whatever it is called.
//!
//! A text file holds a public key per line; anything that begins as a KRL does is left to
//! `ssh-keygen -Q`, which knows the binary lists only. As in OpenSSH a list that cannot be read to
//! its end clears no key.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use repmgr_types::CancelToken;
use rustix::fs::OFlags;

use super::config::run_tool;
use super::keyfile::first_string;
use crate::error::ConnectErrorKind as Kind;
use crate::text::shorten;

/// OpenSSH loads no larger list either.
const MAX_FILE: u64 = 128 << 20;
/// The longest key there is takes a tenth of it.
const MAX_LINE: u64 = 64 << 10;
const KRL_MAGIC: &[u8] = b"SSHKRL\n\0";

/// Why a list cannot tell.
enum Trouble {
    List(io::Error),
    Other(Kind),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::List(error)
    }
}

/// Where this file revokes the key, if it does: "/etc/ssh/revoked:3".
pub(super) fn revoked_at(
    file: &Path,
    key: &[u8],
    keygen_program: &str,
    cancel: &CancelToken,
) -> Result<Option<String>, Kind> {
    let found = look_up(file, key, keygen_program, cancel);
    found.map_err(|trouble| match trouble {
        Trouble::Other(kind) => kind,
        Trouble::List(source) => Kind::RevokedKeysUnreadable {
            file: file.to_owned(),
            source,
        },
    })
}

fn look_up(
    file: &Path,
    key: &[u8],
    keygen_program: &str,
    cancel: &CancelToken,
) -> Result<Option<String>, Trouble> {
    let mut list = BufReader::new(open(file)?.take(MAX_FILE + 1));
    if list.fill_buf()?.starts_with(KRL_MAGIC) {
        let revoked = krl_holds(file, key, keygen_program, cancel)?;
        return Ok(revoked.then(|| file.display().to_string()));
    }
    let line = line_of(list, key)?;
    Ok(line.map(|line| format!("{}:{line}", file.display())))
}

/// Never waits, and takes nothing that could look empty while somebody is yet to write it.
fn open(file: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    let status = opened.metadata()?;
    let kind = status.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(invalid("it is not a file".to_owned()));
    }
    if status.len() > MAX_FILE {
        return Err(too_long());
    }
    Ok(opened)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn too_long() -> io::Error {
    invalid(format!("it is longer than {MAX_FILE} bytes"))
}

/// The line of a text list that holds the key. All lines in front of it must be understood.
fn line_of(mut list: impl BufRead, key: &[u8]) -> io::Result<Option<usize>> {
    let (mut number, mut read) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut list).take(MAX_LINE).read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            return Ok(None);
        }
        number += 1;
        read += length;
        if read > MAX_FILE {
            return Err(too_long());
        }
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            if length == MAX_LINE {
                return Err(invalid(format!("line {number} is too long")));
            }
            continue;
        }
        let listed = key_of_line(line).filter(|_| length < MAX_LINE);
        let listed = listed.ok_or_else(|| invalid(format!("line {number} is not a public key")))?;
        if listed == key {
            return Ok(Some(number));
        }
    }
}

/// The key of a line "type base64 comment".
fn key_of_line(line: &[u8]) -> Option<Vec<u8>> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let (key_type, text) = (words.next()?, words.next()?);
    let blob = STANDARD.decode(text).ok()?;
    let (inner_type, _) = first_string(&blob)?;
    (inner_type == key_type && is_in_its_one_form(&blob) != Some(false)).then_some(blob)
}

/// Whether the key is written as it must be, so that it equals only itself; `None` for types that
/// are not compared here. A number with zeros in front or a compressed point is the same key in
/// other bytes, and would pass by every list.
pub(super) fn is_in_its_one_form(blob: &[u8]) -> Option<bool> {
    let mut fields = Vec::new();
    let mut rest = blob;
    while let Some((field, after)) = first_string(rest) {
        fields.push(field);
        rest = after;
    }
    let whole = rest.is_empty();
    let (key_type, fields) = fields.split_first()?;
    let right = match (*key_type, fields) {
        (b"ssh-ed25519", [key]) => key.len() == 32,
        (b"ssh-rsa", [exponent, modulus]) => is_plain_number(exponent) && is_plain_number(modulus),
        (b"ssh-dss", numbers @ [_, _, _, _]) => numbers.iter().all(|n| is_plain_number(n)),
        (name, [curve, point]) if name.strip_prefix(b"ecdsa-sha2-") == Some(*curve) => {
            point.first() == Some(&4)
        }
        (b"ssh-ed25519" | b"ssh-rsa" | b"ssh-dss", _) => false,
        (name, _) if name.starts_with(b"ecdsa-sha2-") => false,
        _ => return None,
    };
    Some(right && whole)
}

/// A positive number without needless zeros.
fn is_plain_number(bytes: &[u8]) -> bool {
    match bytes {
        [0, next, ..] => *next >= 0x80,
        [first, ..] => (1..0x80).contains(first),
        [] => false,
    }
}

fn krl_holds(file: &Path, key: &[u8], keygen_program: &str, cancel: &CancelToken) -> Result<bool, Trouble> {
    let name = first_string(key).map_or(&b""[..], |(name, _)| name);
    let line = format!("{} {}", String::from_utf8_lossy(name), STANDARD.encode(key));
    // The key comes by a pipe: no file to leave behind.
    let mut command = Command::new("sh");
    command.args(["-c", r#"printf '%s\n' "$3" | "$1" -Q -f "$2" /dev/stdin"#, "sh"]);
    command.arg(keygen_program).arg(file).arg(line);
    let exit = run_tool(command, cancel).map_err(Trouble::Other)?.exit;
    match exit.code {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(invalid(shorten(&exit.stderr_text(), 200)).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmOHhlXnrLJ8WwuK2rBYcUSJy6vZkjqWNLmoNXhnmW2";

    fn key(line: &str) -> Vec<u8> {
        key_of_line(line.as_bytes()).unwrap()
    }

    fn blob(fields: &[&[u8]]) -> Vec<u8> {
        let length = |f: &[u8]| u32::try_from(f.len()).unwrap().to_be_bytes();
        fields.iter().flat_map(|f| [&length(f)[..], f].concat()).collect()
    }

    fn as_line(blob: &[u8]) -> String {
        let name = String::from_utf8_lossy(first_string(blob).unwrap().0).into_owned();
        format!("{name} {}", STANDARD.encode(blob))
    }

    #[test]
    fn a_text_list_tells_the_line() {
        let other = as_line(&blob(&[b"ssh-ed25519", &[7; 32]]));
        let foreign = as_line(&blob(&[b"sk-ssh-ed25519@openssh.com", b"x", b"y"]));
        let text = format!(
            "# {ED25519}\n\n \t\r\n{other}\n{foreign} c\n\t{ED25519}\ta comment \u{fffd}\r\nnot read\n"
        );
        assert_eq!(line_of(text.as_bytes(), &key(ED25519)).unwrap(), Some(6));
        assert_eq!(line_of(ED25519.as_bytes(), &key(ED25519)).unwrap(), Some(1));
        assert_eq!(line_of(&b""[..], &key(ED25519)).unwrap(), None);
        assert_eq!(line_of(other.as_bytes(), &key(ED25519)).unwrap(), None);
    }

    #[test]
    fn a_line_that_is_no_key_clears_no_key() {
        let long = "x".repeat(70_000);
        let mismatch = ED25519.replace("ssh-ed25519 ", "ssh-rsa ");
        let zeros = as_line(&blob(&[b"ssh-rsa", &[1, 0, 1], &[0, 0, 0x81]]));
        let long_line = format!("{ED25519} {long}");
        for bad in [
            "nonsense",
            "ssh-ed25519",
            "ssh-ed25519 !!!",
            &mismatch,
            &zeros,
            &format!("host {ED25519}"),
            &format!("#{long}"),
            &" ".repeat(70_000),
            &long_line,
        ] {
            let text = format!("# c\n{bad}\n{ED25519}\n");
            let error = line_of(text.as_bytes(), &key(ED25519)).unwrap_err();
            assert!(error.to_string().contains("line 2"), "{error}");
        }
    }

    #[test]
    fn a_key_has_one_form() {
        let p256 = |point: &[u8]| blob(&[b"ecdsa-sha2-nistp256", b"nistp256", point]);
        let rsa = |n: &[u8]| blob(&[b"ssh-rsa", &[1, 0, 1], n]);
        for good in [key(ED25519), rsa(&[0, 0x81]), rsa(&[0x71]), p256(&[4, 1, 2])] {
            assert_eq!(is_in_its_one_form(&good), Some(true), "{good:?}");
            let mut longer = good.clone();
            longer.push(0);
            assert_eq!(is_in_its_one_form(&longer), Some(false), "{longer:?}");
            let another_field = [good, blob(&[b"x"])].concat();
            assert_eq!(is_in_its_one_form(&another_field), Some(false));
        }
        for bad in [
            rsa(&[0x81]),
            rsa(&[0, 0x71]),
            rsa(&[0, 0, 0x81]),
            rsa(&[]),
            p256(&[2, 1]),
            p256(&[]),
            blob(&[b"ecdsa-sha2-nistp256", b"nistp384", &[4, 1]]),
            blob(&[b"ssh-ed25519", &[1; 33]]),
        ] {
            assert_eq!(is_in_its_one_form(&bad), Some(false), "{bad:?}");
        }
        assert_eq!(is_in_its_one_form(&blob(&[b"unheard-of", b"x"])), None);
        assert_eq!(is_in_its_one_form(b""), None);
    }

    #[test]
    fn what_cannot_be_read_to_its_end_refuses_all_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        mkfifoat(CWD, path("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        fs::create_dir(path("dir")).unwrap();
        let huge = File::create(path("huge")).unwrap();
        huge.set_len(MAX_FILE + 1).unwrap();
        fs::write(path("broken.krl"), b"SSHKRL\n\0\0\0").unwrap();
        let at = |file: &Path| revoked_at(file, &key(ED25519), "ssh-keygen", &CancelToken::new());
        for name in ["missing", "pipe", "dir", "huge", "broken.krl"] {
            match at(&path(name)) {
                Err(Kind::RevokedKeysUnreadable { file, .. }) => assert_eq!(file, path(name)),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(at(Path::new("/dev/null")).unwrap(), None);
        fs::write(path("list"), ED25519).unwrap();
        let found = at(&path("list")).unwrap().unwrap();
        assert_eq!(found, format!("{}:1", path("list").display()));
    }
}
