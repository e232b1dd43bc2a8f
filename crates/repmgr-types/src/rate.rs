use std::fmt;
use std::str::FromStr;

use crate::ParseError;

const EXPECTED: &str = "a rate from 32 to 1048576 kilobytes a second, such as 32M";

/// The most that may be transferred in a second, in the spelling and within the bounds of `pg_basebackup --max-rate`
/// (PostgreSQL 18): kilobytes (of 1024 bytes), or with `k` or `M` behind the number.
///
/// ```
/// use repmgr_types::Rate;
///
/// let rate: Rate = "1.5M".parse().unwrap();
/// assert_eq!(rate.kilobytes(), 1536);
/// assert_eq!(rate.to_string(), "1536k");
/// assert!("10".parse::<Rate>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u32);

impl Rate {
    const LEAST: u32 = 32;
    const MOST: u32 = 1 << 20;

    /// In a second.
    pub fn kilobytes(self) -> u32 {
        self.0
    }

    /// In a second.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) * 1024
    }
}

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new(text, EXPECTED);
        let text = text.trim();
        let (number, unit) = match text.strip_suffix('M') {
            Some(number) => (number, 1024.0),
            None => (text.strip_suffix('k').unwrap_or(text), 1.0),
        };
        let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number: f64 = number.parse().ok().filter(|_| is_plain).ok_or_else(wrong)?;
        let kilobytes = (number * unit).round();
        if kilobytes < f64::from(Self::LEAST) || kilobytes > f64::from(Self::MOST) {
            return Err(wrong());
        }
        Ok(Self(kilobytes as u32))
    }
}

/// As `pg_basebackup` takes it.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}k", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_pg_basebackup_spells_it() {
        let kilobytes = |text: &str| text.parse::<Rate>().map(Rate::kilobytes).ok();
        for (text, expected) in [
            ("32", Some(32)),
            ("32k", Some(32)),
            ("0.5M", Some(512)),
            ("1024M", Some(1 << 20)),
            ("31", None),
            ("1025M", None),
            ("1MM", None),
            ("1m", None),
            ("", None),
            ("M", None),
            ("inf", None),
            ("NaN", None),
            ("-100", None),
            ("1e3", None),
            ("32 kB", None),
        ] {
            assert_eq!(kilobytes(text), expected, "{text}");
        }
    }
}
