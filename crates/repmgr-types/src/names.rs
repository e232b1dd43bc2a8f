use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ParseError;

/// The id of one Barman backup, `YYYYMMDDTHHMMSS` in the Barman host's local time.
///
/// Only a literal id is a `BackupId`; shortcuts (`latest`) and backup names are resolved to
/// one first, because Barman reads an empty or misspelt word as a shortcut to a *failed*
/// backup (observed with 2.19 to 3.19).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BackupId(String);

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

impl TryFrom<String> for BackupId {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl BackupId {
    /// The id as Barman writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackupId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let shape = text.len() == 15
            && text
                .bytes()
                .enumerate()
                .all(|(i, b)| if i == 8 { b == b'T' } else { b.is_ascii_digit() });
        if shape {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::new(text, "a Barman backup id (YYYYMMDDTHHMMSS)"))
        }
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_ids_are_ids() {
        assert_eq!(
            "20261124T015834".parse::<BackupId>().unwrap().as_str(),
            "20261124T015834"
        );
        for bad in [
            "",
            "latest",
            "20261124T01583",
            "20261124t015834",
            "2026 124T015834",
            "../../../../etc",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad:?}");
        }
    }
}
