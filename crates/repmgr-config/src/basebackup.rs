use std::path::{Path, PathBuf};

use crate::ValueError;
use crate::values::Value;

/// Short options of `pg_basebackup` 9.4 to 18 that take a value.
const SHORT_WITH_VALUE: &str = "cdDFhilprsStTUXZ";

/// A value of `pg_basebackup_options`: the words to pass on, and those a clone must know itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PgBasebackupOptions {
    text: String,
    slot: Option<String>,
    wal_method: Option<String>,
    waldir: Option<PathBuf>,
    no_slot: bool,
}

impl PgBasebackupOptions {
    /// The words, split at blanks only, as repmgr does: quotes mean nothing.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.text.split_whitespace()
    }

    /// `-S`, `--slot`.
    pub fn slot(&self) -> Option<&str> {
        self.slot.as_deref()
    }

    /// `-X`, `--wal-method` (`--xlog-method` before 10).
    pub fn wal_method(&self) -> Option<&str> {
        self.wal_method.as_deref()
    }

    /// `--waldir` (`--xlogdir` before 10). Absolute.
    pub fn waldir(&self) -> Option<&Path> {
        self.waldir.as_deref()
    }

    /// `--no-slot`.
    pub fn no_slot(&self) -> bool {
        self.no_slot
    }

    fn set(&mut self, option: &str, value: &str) {
        match option {
            "S" | "slot" => self.slot = Some(value.to_owned()),
            "X" | "wal-method" | "xlog-method" => self.wal_method = Some(value.to_owned()),
            "waldir" | "xlogdir" => self.waldir = Some(PathBuf::from(value)),
            _ => {}
        }
    }
}

impl Value for PgBasebackupOptions {
    fn read(text: &str) -> Result<Self, ValueError> {
        let refuse = |message: String| Err(ValueError(message));
        let mut options = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let (option, value) = match word.strip_prefix("--") {
                Some("no-slot") => {
                    options.no_slot = true;
                    continue;
                }
                Some(long) => match long.split_once('=') {
                    Some((option, value)) => (option, Some(value)),
                    None => (long, None),
                },
                None => match short_with_value(word) {
                    Some(found) => found,
                    None => continue,
                },
            };
            let takes_value = matches!(
                option,
                "slot" | "wal-method" | "xlog-method" | "waldir" | "xlogdir"
            ) || option.len() == 1;
            let Some(value) = value.or_else(|| takes_value.then(|| words.next()).flatten()) else {
                if takes_value {
                    return refuse(format!("option \"{word}\" needs a value"));
                }
                continue;
            };
            options.set(option, value);
        }
        if options.no_slot && options.slot.is_some() {
            return refuse("\"--no-slot\" cannot be used together with \"--slot\"".to_owned());
        }
        if options
            .waldir
            .as_ref()
            .is_some_and(|waldir| !waldir.is_absolute())
        {
            return refuse("the directory given with \"--waldir\" must be absolute".to_owned());
        }
        Ok(options)
    }

    fn show(&self) -> String {
        self.text.clone()
    }
}

/// The first option of `-vXstream` that takes a value, and the value if it is in the same word.
fn short_with_value(word: &str) -> Option<(&str, Option<&str>)> {
    let flags = word.strip_prefix('-')?;
    let at = flags.find(|c| SHORT_WITH_VALUE.contains(c))?;
    let value = &flags[at + 1..];
    Some((&flags[at..=at], (!value.is_empty()).then_some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> PgBasebackupOptions {
        PgBasebackupOptions::read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_spelling_of_an_option_is_understood() {
        for text in [
            "-S s1",
            "-Ss1",
            "-vPS s1",
            "-PSs1",
            "--slot s1",
            "--slot=s1",
            "-l S -S s0 --slot=s1",
        ] {
            assert_eq!(read(text).slot(), Some("s1"), "{text}");
        }
        for text in [
            "-X stream",
            "-Xstream",
            "--wal-method=stream",
            "--xlog-method stream",
        ] {
            assert_eq!(read(text).wal_method(), Some("stream"), "{text}");
        }
        for text in [
            "--waldir=/w",
            "--waldir /w",
            "--xlogdir=/w",
            "-c fast --xlogdir /w -P",
        ] {
            assert_eq!(read(text).waldir(), Some(Path::new("/w")), "{text}");
        }
        assert!(read("-P --no-slot").no_slot());
    }

    #[test]
    fn the_values_of_other_options_are_not_taken_for_options() {
        let options = read("-l -Sx --label=--waldir=x -T /a=/b --max-rate=10M");
        assert_eq!((options.slot(), options.waldir()), (None, None));
        assert_eq!(options.words().count(), 6);
        assert_eq!(
            options.show(),
            "-l -Sx --label=--waldir=x -T /a=/b --max-rate=10M"
        );
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for text in [
            "--waldir=wal",
            "--waldir",
            "-P -S",
            "--no-slot -S s1",
            "--slot=a --no-slot",
        ] {
            assert!(PgBasebackupOptions::read(text).is_err(), "{text}");
        }
    }
}
