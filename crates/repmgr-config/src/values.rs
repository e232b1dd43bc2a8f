//! How the text of one value becomes a typed one, by the rules of repmgr 5.5.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use repmgr_types::{Conninfo, ParseError, Rate, canonical_path};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A value that its parameter cannot take. The value itself is not quoted: it may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(crate) String);

/// A type of setting.
pub(crate) trait Value: Sized {
    fn read(text: &str) -> Result<Self, ValueError>;
    /// For `--dump-config`; unset is empty.
    fn show(&self) -> String;
    /// What is odd about a text that can be read.
    fn remark(_text: &str) -> Option<String> {
        None
    }
}

/// Separates the values of a parameter that may be given several times; no value can hold it.
pub(crate) const SEPARATOR: char = '\0';

pub(crate) fn any<'de, T: Value, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A number from 1 on.
pub(crate) fn positive<'de, T: Value + From<u32>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    let number = integer(&String::deserialize(d)?, 1).map_err(D::Error::custom)?;
    Ok(T::from(number.unsigned_abs()))
}

/// A name PostgreSQL can hold: at most 63 bytes.
pub(crate) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.len() {
        0..=63 => Option::read(&text).map_err(D::Error::custom),
        len => Err(D::Error::custom(format!(
            "value has {len} bytes, at most 63 are allowed"
        ))),
    }
}

/// A path that does not depend on where a program is started.
pub(crate) fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = Option::<PathBuf>::read(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
    match path {
        Some(path) if path.is_relative() => Err(D::Error::custom("value must be an absolute path")),
        path => Ok(path),
    }
}

/// Reads as C's strtol does: leading digits count, the rest does not, nothing is 0.
fn leading_number(text: &str) -> (i64, &str) {
    let text = text.trim_start();
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(unsigned.len());
    // More digits than an i64 holds are out of every range.
    let number = match &unsigned[..end] {
        "" => 0,
        digits => digits.parse().unwrap_or(i64::MAX),
    };
    (
        if text.starts_with('-') { -number } else { number },
        &unsigned[end..],
    )
}

fn integer(text: &str, min: i32) -> Result<i32, ValueError> {
    let (number, rest) = leading_number(text);
    // As in repmgr: digits may be followed by anything, and only nothing at all stands for 0 without them.
    let digits = text.trim_start().trim_start_matches(['-', '+']);
    let is_number = rest.is_empty() || digits.len() > rest.len();
    let number = i32::try_from(number)
        .ok()
        .filter(|number| is_number && *number >= min);
    number.ok_or_else(|| ValueError(format!("value must be a number from {min} to {}", i32::MAX)))
}

fn integer_remark(text: &str) -> Option<String> {
    let (number, rest) = leading_number(text);
    (!rest.is_empty()).then(|| format!("not a whole number, read as {number}"))
}

impl Value for u32 {
    fn read(text: &str) -> Result<Self, ValueError> {
        integer(text, 0).map(i32::unsigned_abs)
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn remark(text: &str) -> Option<String> {
        integer_remark(text)
    }
}

/// For timeouts and counts where -1 means none.
impl Value for i32 {
    fn read(text: &str) -> Result<Self, ValueError> {
        integer(text, -1)
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn remark(text: &str) -> Option<String> {
        integer_remark(text)
    }
}

impl Value for Option<u32> {
    fn read(text: &str) -> Result<Self, ValueError> {
        u32::read(text).map(Some)
    }

    fn show(&self) -> String {
        self.map_or_else(String::new, |number| number.to_string())
    }

    fn remark(text: &str) -> Option<String> {
        integer_remark(text)
    }
}

impl Value for bool {
    fn read(text: &str) -> Result<Self, ValueError> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "on" | "yes" => Ok(true),
            "0" | "false" | "off" | "no" => Ok(false),
            _ => Err(ValueError(
                "value must be one of true, false, on, off, yes, no, 1, 0".to_owned(),
            )),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn read(text: &str) -> Result<Self, ValueError> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for Option<String> {
    fn read(text: &str) -> Result<Self, ValueError> {
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn show(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

impl Value for Option<PathBuf> {
    fn read(text: &str) -> Result<Self, ValueError> {
        Ok((!text.is_empty()).then(|| canonical_path(Path::new(text))))
    }

    fn show(&self) -> String {
        self.as_ref()
            .map_or_else(String::new, |path| path.display().to_string())
    }
}

impl Value for Option<Conninfo> {
    fn read(text: &str) -> Result<Self, ValueError> {
        let conninfo = Conninfo::parse(text).map_err(|error| ValueError(error.to_string()))?;
        Ok((!conninfo.is_empty()).then_some(conninfo))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, Conninfo::to_string)
    }
}

/// A comma-separated list, of all its occurrences.
impl Value for Vec<String> {
    fn read(text: &str) -> Result<Self, ValueError> {
        let bare = |word: &str| word.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        Ok(text
            .split([',', SEPARATOR])
            .map(bare)
            .filter(|word| !word.is_empty())
            .collect())
    }

    fn show(&self) -> String {
        self.join(",")
    }
}

/// A value of `tablespace_mapping`: the tablespace at `old` on the source goes to `new` here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceMapping {
    /// Location on the source, absolute.
    pub old: PathBuf,
    /// Location here, absolute.
    pub new: PathBuf,
}

impl FromStr for TablespaceMapping {
    type Err = ValueError;

    /// Reads `OLD=NEW`; `\=` stands for an equals sign in a path.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = |message: &str| Err(ValueError(message.to_owned()));
        let mut sides = vec![String::new()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if chars.next_if_eq(&'=').is_some() => {
                    sides.last_mut().into_iter().for_each(|s| s.push('='))
                }
                '=' => sides.push(String::new()),
                c => sides.last_mut().into_iter().for_each(|s| s.push(c)),
            }
        }
        let [old, new] = sides.as_slice() else {
            return refuse("value must be OLDDIR=NEWDIR; write \\= for an equals sign in a path");
        };
        if !(old.starts_with('/') && new.starts_with('/')) {
            return refuse("both paths must be absolute");
        }
        Ok(Self {
            old: canonical_path(Path::new(old)),
            new: canonical_path(Path::new(new)),
        })
    }
}

impl fmt::Display for TablespaceMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |path: &Path| path.display().to_string().replace('=', "\\=");
        write!(f, "{}={}", escaped(&self.old), escaped(&self.new))
    }
}

impl Value for Vec<TablespaceMapping> {
    fn read(text: &str) -> Result<Self, ValueError> {
        text.split(SEPARATOR).map(str::parse).collect()
    }

    fn show(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// A value of `recovery_min_apply_delay`, in the user's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyDelay {
    text: String,
    milliseconds: u32,
}

impl ApplyDelay {
    /// As it was written, fit for PostgreSQL's configuration.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How long it is.
    pub fn duration(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.milliseconds.into())
    }
}

impl FromStr for ApplyDelay {
    type Err = ValueError;

    /// Reads a number and `ms`, `s`, `min`, `h`, `d` or nothing, which means milliseconds.
    /// Unlike repmgr, and like PostgreSQL, it takes a blank before the unit.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = |message: &str| ValueError(message.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let factor = match unit.trim() {
            "" | "ms" => 1,
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => {
                return Err(refuse(
                    "value must be a number from 0 on with a unit of ms, s, min, h or d",
                ));
            }
        };
        if digits.is_empty() {
            return Err(refuse("value must begin with a number from 0 on"));
        }
        let milliseconds = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        milliseconds
            .and_then(|ms| i32::try_from(ms).ok())
            .map(|ms| Self {
                text: text.to_owned(),
                milliseconds: ms.unsigned_abs(),
            })
            .ok_or_else(|| refuse("value is longer than PostgreSQL allows (2147483647 ms, nearly 25 days)"))
    }
}

impl Value for Option<ApplyDelay> {
    fn read(text: &str) -> Result<Self, ValueError> {
        (!text.is_empty()).then(|| text.parse()).transpose()
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, |delay| delay.text.clone())
    }
}

impl Value for Option<Rate> {
    fn read(text: &str) -> Result<Self, ValueError> {
        let parsed = (!text.is_empty()).then(|| text.parse()).transpose();
        parsed.map_err(|error: ParseError| ValueError(format!("value must be {}", error.expected)))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, Rate::to_string)
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[$variant_doc])* $variant,)* }

        impl $type {
            /// As it is written in the configuration file.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl FromStr for $type {
            type Err = ValueError;

            /// Reads one of the words, in upper or lower case.
            fn from_str(text: &str) -> Result<Self, ValueError> {
                $(if text.eq_ignore_ascii_case($text) { return Ok(Self::$variant); })*
                Err(ValueError(format!("value must be one of {}", [$($text),*].join(", "))))
            }
        }

        impl Value for $type {
            fn read(text: &str) -> Result<Self, ValueError> {
                text.parse()
            }

            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}

choice!(
    /// What `repmgrd` does when the primary is gone.
    Failover {
        /// Nothing but report it.
        Manual = "manual",
        /// Promote a standby.
        Automatic = "automatic",
    }
);

choice!(
    /// How `repmgrd` sees that a node is up.
    ConnectionCheckType {
        /// With libpq's ping.
        Ping = "ping",
        /// With a new connection.
        Connection = "connection",
        /// With a query on the open connection.
        Query = "query",
    }
);

choice!(
    /// What connects to hosts behind SSH.
    SshClient {
        /// libssh2, and `ssh` for what it cannot do.
        Auto = "auto",
        /// libssh2.
        Libssh2 = "libssh2",
        /// The program `ssh`.
        Ssh = "ssh",
    }
);

choice!(
    /// How nodes replicate.
    ReplicationType {
        /// Streaming replication, the only one since repmgr 5.
        Physical = "physical",
    }
);

choice!(
    /// The least important messages that are shown.
    LogLevel {
        /// Everything.
        Debug = "DEBUG",
        /// Steps.
        Info = "INFO",
        /// Results.
        Notice = "NOTICE",
        /// What may become a problem.
        Warning = "WARNING",
        /// What failed.
        Error = "ERROR",
        /// More urgent than an error.
        Alert = "ALERT",
        /// A critical condition.
        Crit = "CRIT",
        /// Nothing works.
        Emerg = "EMERG",
    }
);
