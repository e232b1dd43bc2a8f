//! The lines of a backup.info file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use repmgr_remote::shorten;

use crate::literal::{self, Value};

/// Barman writes about fifty.
const MAX_LINES: usize = 10_000;

/// What is wrong with a backup.info file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// A line is not of the form `key=value`.
    #[error("line {line} is not \"key=value\": \"{text}\"")]
    NotALine {
        /// Counted from 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// More lines than Barman writes.
    #[error("it has more than {MAX_LINES} lines")]
    TooLong,
    /// A line that must be there is not.
    #[error("it has no \"{key}\"")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value is not what the key demands.
    #[error("line {line}: {key} is not {expected}: \"{value}\"")]
    Value {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// The beginning of the value.
        value: String,
        /// What it should be.
        expected: String,
    },
}

/// One of the tablespaces of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupTablespace {
    /// Its object identifier, and the name of its directory in the backup.
    pub oid: u32,
    /// Its name. Barman may have spoilt characters in it, so compare by `oid`.
    pub name: String,
    /// Where it was on the primary.
    pub location: PathBuf,
}

/// The keys of a backup.info file. Those it does not know do not matter.
#[derive(Debug)]
pub(crate) struct Info<'t>(HashMap<&'t [u8], (usize, &'t [u8])>);

impl<'t> Info<'t> {
    pub(crate) fn parse(text: &'t [u8]) -> Result<Self, InfoError> {
        let mut keys = HashMap::new();
        for (index, line) in text.split(|b| *b == b'\n').enumerate() {
            if index >= MAX_LINES {
                return Err(InfoError::TooLong);
            }
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let Some(equals) = line.iter().position(|b| *b == b'=') else {
                return Err(InfoError::NotALine {
                    line: index + 1,
                    text: shown(line),
                });
            };
            let (key, value) = (&line[..equals], &line[equals + 1..]);
            keys.insert(key.trim_ascii(), (index + 1, value.trim_ascii()));
        }
        Ok(Self(keys))
    }

    fn raw(&self, key: &str) -> Option<(usize, &'t [u8])> {
        let found = self.0.get(key.as_bytes()).copied();
        found.filter(|(_, value)| *value != b"None" && !value.is_empty())
    }

    pub(crate) fn error(&self, key: &'static str, expected: impl Into<String>) -> InfoError {
        let (line, value) = self.0.get(key.as_bytes()).copied().unwrap_or_default();
        InfoError::Value {
            line,
            key,
            value: shown(value),
            expected: expected.into(),
        }
    }

    pub(crate) fn text(&self, key: &'static str) -> Result<Option<&'t str>, InfoError> {
        self.raw(key)
            .map(|(_, value)| std::str::from_utf8(value).map_err(|_| self.error(key, "UTF-8 text")))
            .transpose()
    }

    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        self.raw(key)
            .map(|(_, value)| PathBuf::from(OsStr::from_bytes(value)))
    }

    pub(crate) fn value<T>(&self, key: &'static str, expected: &str) -> Result<Option<T>, InfoError>
    where
        T: FromStr,
    {
        self.text(key)?
            .map(|text| text.parse().map_err(|_| self.error(key, expected)))
            .transpose()
    }

    pub(crate) fn required<T>(&self, key: &'static str, expected: &str) -> Result<T, InfoError>
    where
        T: FromStr,
    {
        self.value(key, expected)?.ok_or(InfoError::Missing { key })
    }

    pub(crate) fn tablespaces(&self) -> Result<Vec<BackupTablespace>, InfoError> {
        const KEY: &str = "tablespaces";
        let Some(text) = self.text(KEY)? else {
            return Ok(Vec::new());
        };
        let value =
            literal::parse(text).map_err(|e| self.error(KEY, format!("a list of tablespaces ({e})")))?;
        let found = rows(value).ok_or_else(|| self.error(KEY, "a list of (name, oid, location)"))?;
        let mut oids: Vec<u32> = found.iter().map(|t| t.oid).collect();
        oids.sort_unstable();
        if oids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.error(KEY, "a list of different tablespaces"));
        }
        Ok(found)
    }
}

fn rows(value: Value) -> Option<Vec<BackupTablespace>> {
    let rows = match value {
        Value::List(rows) => rows,
        Value::None => Vec::new(),
        Value::Int(_) | Value::Text(_) => return None,
    };
    rows.into_iter().map(row).collect()
}

fn row(value: Value) -> Option<BackupTablespace> {
    let Value::List(columns) = value else { return None };
    let [Value::Text(name), Value::Int(oid), Value::Text(location)] = <[Value; 3]>::try_from(columns).ok()?
    else {
        return None;
    };
    let location = PathBuf::from(std::ffi::OsString::from_vec(location));
    let oid = u32::try_from(oid).ok().filter(|oid| *oid > 0)?;
    location.is_absolute().then(|| BackupTablespace {
        oid,
        name: String::from_utf8_lossy(&name).into_owned(),
        location,
    })
}

/// The beginning of bytes from the far side, for a message.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 120;
    shorten(&String::from_utf8_lossy(bytes), LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_split_at_the_first_equals_and_the_rest_does_not_matter() {
        let info = Info::parse(
            b"# note\n\n a = b=c \nerror=None\nnew_key_of_barman_4={'x': 1}\nbackup_label='x\\ny'\npgdata=/p\xff q\n",
        )
        .unwrap();
        assert_eq!(info.text("a").unwrap(), Some("b=c"));
        assert_eq!(info.text("error").unwrap(), None);
        assert_eq!(info.path("pgdata").unwrap().as_os_str().as_bytes(), b"/p\xff q");
        assert_eq!(
            info.text("pgdata").unwrap_err().to_string(),
            "line 7: pgdata is not UTF-8 text: \"/p\u{fffd} q\""
        );
        assert_eq!(
            info.required::<u32>("version", "a number").unwrap_err(),
            InfoError::Missing { key: "version" }
        );
    }

    #[test]
    fn malformed_lines_are_named() {
        let error = Info::parse(b"a=1\n<html>\x1b[2J\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2 is not \"key=value\": \"<html>\\u{1b}[2J\""
        );
        let info = Info::parse(b"a=1\ntimeline=one\n").unwrap();
        let error = info.required::<u32>("timeline", "a number").unwrap_err();
        assert_eq!(error.to_string(), "line 2: timeline is not a number: \"one\"");
    }

    #[test]
    fn tablespaces_must_make_sense() {
        let read = |list: &str| {
            let text = format!("tablespaces={list}\n");
            Info::parse(text.as_bytes()).unwrap().tablespaces()
        };
        let found = read(r#"[('it\'s "ü"', 16396, '/srv/it_s "ü"'), ('a=b', 7, '/x=y')]"#).unwrap();
        assert_eq!(
            (found[0].name.as_str(), found[0].location.to_str()),
            ("it's \"ü\"", Some("/srv/it_s \"ü\""))
        );
        assert_eq!(found[1].location.to_str(), Some("/x=y"));
        assert_eq!(read("None").unwrap(), []);
        for bad in [
            "17",
            "'x'",
            "[1]",
            "[('a', 1)]",
            "[('a', 0, '/x')]",
            "[('a', -1, '/x')]",
            "[('a', 4294967296, '/x')]",
            "[('a', 1, 'relative')]",
            "[('a', 1, '/x'), ('b', 1, '/y')]",
            "[('a', 1, '/x')",
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(
                error.starts_with("line 1: tablespaces is not a list of"),
                "{bad}: {error}"
            );
        }
    }
}
