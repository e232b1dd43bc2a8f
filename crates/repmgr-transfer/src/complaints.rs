//! What GNU tar says on standard error, in the C locale and with `--quoting-style=escape`.

use repmgr_remote::Exit;

use crate::path::shown;

/// One message about one file, or none that we know. Texts are printable, paths are as they are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// Something touched the file while it was read, possibly only its link count.
    Touched(Vec<u8>),
    /// It is shorter than it was, or gone.
    Changed(Vec<u8>, String),
    /// It could not be read.
    Unreadable(Vec<u8>, String),
    /// Anything else.
    Other(String),
}

/// All complaints. What a login shell printed besides is left out, unless nothing else is there.
pub(crate) fn complaints(exit: &Exit) -> Vec<Complaint> {
    let by_tar = exit.stderr.split(|b| *b == b'\n').filter_map(complaint);
    let mut all: Vec<_> = by_tar.collect();
    if all.is_empty() && !exit.success() {
        all.push(Complaint::Other(crate::error::said(exit, "tar: ")));
    }
    all
}

fn complaint(line: &[u8]) -> Option<Complaint> {
    let other = |text: &[u8]| Some(Complaint::Other(shown(text)));
    if line.starts_with(b"[") && line.ends_with(b" bytes left out]") {
        return other(line);
    }
    let text = line.strip_prefix(b"tar: ")?;
    if text.starts_with(b"Exiting with failure status due to previous errors") {
        return None;
    }
    let Some((path, message)) = text.strip_prefix(b"./").and_then(file_and_message) else {
        return other(line);
    };
    let has = |part: &str| message.contains(part);
    Some(if has("file changed as we read it") {
        Complaint::Touched(path)
    } else if has("File shrank") || has("File removed") || has("No such file or directory") {
        Complaint::Changed(path, message)
    } else {
        Complaint::Unreadable(path, message)
    })
}

/// Splits at the first colon that is not escaped, and takes the escapes out of what is before.
fn file_and_message(text: &[u8]) -> Option<(Vec<u8>, String)> {
    let mut path = Vec::new();
    let mut rest = text.iter().copied();
    loop {
        match rest.next()? {
            b':' => break,
            b'\\' => path.push(match rest.next()? {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'v' => 11,
                first @ b'0'..=b'3' => {
                    let mut digit = || {
                        rest.next()
                            .filter(|d| (b'0'..=b'7').contains(d))
                            .map(|d| d - b'0')
                    };
                    (first - b'0') << 6 | digit()? << 3 | digit()?
                }
                other => other,
            }),
            other => path.push(other),
        }
    }
    let message: Vec<u8> = rest.collect();
    Some((path, shown(message.trim_ascii())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stderr: &str) -> Vec<Complaint> {
        complaints(&Exit {
            code: Some(2),
            signal: None,
            stderr: stderr.into(),
        })
    }

    #[test]
    fn messages_of_gnu_tar_name_their_files() {
        let stderr = "Welcome!\n\
            tar: ./base/1: Cannot open: Permission denied\n\
            tar: ./a\\nb\\\\c\\:d\\377: Cannot stat: No such file or directory\n\
            tar: ./x: file changed as we read it\n\
            tar: ./y: File shrank by 512 bytes; padding with zeros\n\
            tar: ./z: Read error at byte 4096, while reading 8192 bytes: Input/output error\n\
            tar: Child returned status 1\n\
            tar: Exiting with failure status due to previous errors\n";
        use Complaint as C;
        let expected = [
            C::Unreadable(b"base/1".into(), "Cannot open: Permission denied".into()),
            C::Changed(
                b"a\nb\\c:d\xff".into(),
                "Cannot stat: No such file or directory".into(),
            ),
            C::Touched(b"x".into()),
            C::Changed(b"y".into(), "File shrank by 512 bytes; padding with zeros".into()),
            C::Unreadable(
                b"z".into(),
                "Read error at byte 4096, while reading 8192 bytes: Input/output error".into(),
            ),
            C::Other("tar: Child returned status 1".into()),
        ];
        assert_eq!(told(stderr), expected);
    }

    #[test]
    fn without_a_message_of_tar_the_last_line_or_the_status_must_do() {
        assert_eq!(
            told("motd\nsh: 1: cd: can't cd to /d\n"),
            [Complaint::Other("sh: 1: cd: can't cd to /d".into())]
        );
        assert_eq!(told(""), [Complaint::Other("exit code 2".into())]);
        assert_eq!(told("tar: ./x"), [Complaint::Other("tar: ./x".into())]);
    }

    #[test]
    fn messages_cannot_drive_the_terminal() {
        let seen = told("tar: ./é: Cannot open: \x1b]0;é\x07\r\ntar: \x1b[2J");
        let expected = [
            Complaint::Unreadable("é".into(), "Cannot open: \\u{1b}]0;é\\u{7}".into()),
            Complaint::Other("tar: \\u{1b}[2J".into()),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn messages_that_were_left_out_do_not_pass_unseen() {
        let seen = told(
            "tar: ./x: file changed as we read it\n[70 bytes left out]\ntar: ./y: file changed as we read it\n",
        );
        assert!(matches!(&seen[1], Complaint::Other(text) if text.contains("left out")));
    }
}
