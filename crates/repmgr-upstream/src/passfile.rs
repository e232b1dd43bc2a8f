//! The password file (`~/.pgpass`), read as libpq 15 does.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Lines of the form `host:port:database:user:password`.
pub(crate) enum Passfile {
    /// To be searched.
    Text(Vec<u8>),
    /// There is none.
    Absent,
    /// There is one, but it must not or cannot be used.
    Ignored(String),
}

impl Passfile {
    /// Like libpq, a file that others can read, or that is no plain file, is not used.
    pub(crate) fn read(path: &Path) -> Self {
        let ignored = |why: String| Passfile::Ignored(format!("\"{}\" {why}", path.display()));
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Passfile::Absent;
            }
            Err(e) => return ignored(format!("cannot be read: {e}")),
        };
        if !meta.is_file() {
            return ignored("is not a plain file".to_owned());
        }
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return ignored(format!(
                "has mode {mode:04o}; it must not be accessible to others (0600)"
            ));
        }
        match fs::read(path) {
            Ok(text) => Passfile::Text(text),
            Err(e) => ignored(format!("cannot be read: {e}")),
        }
    }

    /// The password of the first line that matches.
    pub(crate) fn password(&self, host: &str, port: u16, dbname: &str, user: &str) -> Option<Vec<u8>> {
        let Passfile::Text(text) = self else {
            return None;
        };
        let port = port.to_string();
        let wanted = [host, &port, dbname, user];
        text.split(|&b| b == b'\n').find_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.first() == Some(&b'#') {
                return None;
            }
            let rest = wanted
                .iter()
                .try_fold(line, |rest, want| match_field(rest, want.as_bytes()))?;
            let password = unescape_field(rest);
            (!password.is_empty()).then_some(password)
        })
    }
}

/// If the first field of `line` is `*` or, unescaped, equals `want`: what follows its colon.
fn match_field<'a>(line: &'a [u8], want: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut want = want.iter();
    let mut at = 0;
    loop {
        match *line.get(at)? {
            b':' => return want.next().is_none().then(|| &line[at + 1..]),
            b'\\' => at += 1,
            _ => {}
        }
        if line.get(at)? != want.next()? {
            return None;
        }
        at += 1;
    }
}

/// Up to the next bare colon, `\x` read as `x`.
fn unescape_field(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.iter().copied();
    while let Some(b) = bytes.next() {
        match b {
            b':' => break,
            b'\\' => out.push(bytes.next().unwrap_or(b'\\')),
            _ => out.push(b),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(text: &str, host: &str, port: u16, dbname: &str, user: &str) -> Option<String> {
        Passfile::Text(text.as_bytes().to_vec())
            .password(host, port, dbname, user)
            .map(|p| String::from_utf8(p).unwrap())
    }

    #[test]
    fn the_first_matching_line_wins() {
        let file = "# h:1:d:u:comment\nother:*:*:*:no\nh:1:d:u:first\n*:*:*:*:any\n";
        assert_eq!(lookup(file, "h", 1, "d", "u").as_deref(), Some("first"));
        assert_eq!(lookup(file, "h", 2, "d", "u").as_deref(), Some("any"));
        assert_eq!(lookup("h:1:d:u:p", "h", 1, "d", "u2"), None);
        assert_eq!(lookup("h:1:d:uu:p", "h", 1, "d", "u"), None);
        assert_eq!(lookup("h:1:d", "h", 1, "d", "u"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped_in_fields_and_password() {
        assert_eq!(
            lookup(r"\:\:1:1:d:u:a\:b\\c", "::1", 1, "d", "u").as_deref(),
            Some(r"a:b\c")
        );
        assert_eq!(
            lookup("h:1:d:u:se*cret:junk\r\n", "h", 1, "d", "u").as_deref(),
            Some("se*cret")
        );
        assert_eq!(lookup("h:1:d:u:", "h", 1, "d", "u"), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let Passfile::Ignored(why) = Passfile::read(&path) else {
            panic!("used")
        };
        assert!(why.contains("0640") && !why.contains("secret"), "{why}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            Passfile::read(&path).password("h", 1, "d", "u").as_deref(),
            Some(&b"secret"[..])
        );
        assert!(matches!(
            Passfile::read(&dir.path().join("none")),
            Passfile::Absent
        ));
        assert!(matches!(Passfile::read(dir.path()), Passfile::Ignored(_)));
    }
}
