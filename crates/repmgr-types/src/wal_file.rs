use std::fmt;
use std::str::FromStr;

use crate::{ParseError, Timeline, WalSegmentName};

/// The name of a file that PostgreSQL's archiver stores and `restore_command` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// A whole segment: `000000010000000000000003`.
    Segment(WalSegmentName),
    /// The unfinished last segment of a timeline: `000000010000000000000003.partial`.
    Partial(WalSegmentName),
    /// The ancestry of a timeline: `00000002.history`.
    History(Timeline),
    /// The record of a base backup: `000000010000000000000003.00000028.backup`.
    Backup {
        /// The segment in which the backup began.
        segment: WalSegmentName,
        /// Where in it, in bytes.
        offset: u32,
    },
}

impl WalFileName {
    /// The segment named, also by a `.partial` or `.backup`.
    pub fn segment(self) -> Option<WalSegmentName> {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::Backup { segment, .. } => Some(segment),
            Self::History(_) => None,
        }
    }

    /// Where Barman keeps it, relative to `wals_directory`: the first 16 digits are a directory's
    /// name, except for history files (observed with Barman 1.6 to 3.19).
    pub fn archive_path(self) -> String {
        let name = self.to_string();
        match self {
            Self::History(_) => name,
            _ => format!("{}/{name}", &name[..16]),
        }
    }
}

impl From<WalSegmentName> for WalFileName {
    fn from(segment: WalSegmentName) -> Self {
        Self::Segment(segment)
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::History(timeline) => f.write_str(&timeline.history_file_name()),
            Self::Backup { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFileName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parsed = if let Some(digits) = text.strip_suffix(".history") {
            hex8(digits).and_then(Timeline::new).map(Self::History)
        } else if let Some(rest) = text.strip_suffix(".backup") {
            rest.split_once('.').and_then(|(segment, offset)| {
                Some(Self::Backup {
                    segment: segment.parse().ok()?,
                    offset: hex8(offset)?,
                })
            })
        } else if let Some(segment) = text.strip_suffix(".partial") {
            segment.parse().ok().map(Self::Partial)
        } else {
            text.parse().ok().map(Self::Segment)
        };
        parsed.ok_or_else(|| ParseError {
            text: text.to_owned(),
            expected: "the name of a WAL file (a segment, or .partial, .history, .backup)",
        })
    }
}

/// Eight digits as PostgreSQL writes them, in upper case.
fn hex8(text: &str) -> Option<u32> {
    let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    (text.len() == 8 && text.bytes().all(upper))
        .then(|| u32::from_str_radix(text, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_all_kinds_read_and_print() {
        for (text, path) in [
            (
                "0000000A000000010000003F",
                "0000000A00000001/0000000A000000010000003F",
            ),
            (
                "0000000A000000010000003F.partial",
                "0000000A00000001/0000000A000000010000003F.partial",
            ),
            ("0000000A.history", "0000000A.history"),
            (
                "0000000A000000010000003F.00000028.backup",
                "0000000A00000001/0000000A000000010000003F.00000028.backup",
            ),
        ] {
            let name: WalFileName = text.parse().unwrap();
            assert_eq!(
                (name.to_string().as_str(), name.archive_path().as_str()),
                (text, path)
            );
        }
    }

    #[test]
    fn other_names_are_refused() {
        for bad in [
            "",
            "RECOVERYXLOG",
            "00000000.history",
            "0000000a.history",
            "1.history",
            "00000000000000010000003F",
            "0000000A000000010000003F.gz",
            "0000000A000000010000003F.backup",
            "0000000A000000010000003F.28.backup",
            "../0000000A000000010000003F",
            "0000000A000000010000003F.partial.partial",
        ] {
            assert!(bad.parse::<WalFileName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_prints_as_it_was_and_stays_in_its_directory(text in "[0-9A-F./a-z]{0,45}") {
            if let Ok(name) = text.parse::<WalFileName>() {
                prop_assert_eq!(name.to_string(), text);
                prop_assert!(!name.archive_path().contains(".."));
            }
        }
    }
}
