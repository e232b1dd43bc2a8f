use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use time::format_description::FormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const WITH_ZONE: &[FormatItem<'_>] = format_description!(
    "[year]-[month]-[day] [hour]:[minute]:[second][optional [.[subsecond]]][offset_hour sign:mandatory]:[offset_minute]"
);
const WITHOUT: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second][optional [.[subsecond]]]");

/// A time as Barman notes it with a backup: "2026-11-26 00:46:06.980999+00:00". Old ones lack the zone, and count in
/// that of the Barman host.
///
/// [`Display`](fmt::Display) gives Barman's own text, also where it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupTime {
    text: String,
    moment: Option<OffsetDateTime>,
}

impl BackupTime {
    /// The moment, if Barman noted the zone and the text can be read.
    pub fn moment(&self) -> Option<OffsetDateTime> {
        self.moment
    }

    /// What the clock showed on the Barman host or in the zone noted, if the text can be read.
    pub fn clock(&self) -> Option<PrimitiveDateTime> {
        match self.moment {
            Some(moment) => Some(PrimitiveDateTime::new(moment.date(), moment.time())),
            None => PrimitiveDateTime::parse(&self.text, WITHOUT).ok(),
        }
    }
}

impl FromStr for BackupTime {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self {
            text: repmgr_remote::one_line(text),
            moment: OffsetDateTime::parse(text, WITH_ZONE).ok(),
        })
    }
}

impl fmt::Display for BackupTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn read(text: &str) -> BackupTime {
        let Ok(time) = text.parse();
        time
    }

    #[test]
    fn times_are_read_with_and_without_fraction_and_zone() {
        for (text, moment) in [
            (
                "2026-11-24 01:58:34.274923+00:00",
                datetime!(2026-11-24 01:58:34.274923 UTC),
            ),
            ("2026-11-24 01:58:34-03:30", datetime!(2026-11-24 01:58:34 -03:30)),
        ] {
            assert_eq!(read(text).moment(), Some(moment), "{text}");
            assert_eq!(read(text).to_string(), text);
        }
        let old = read("2014-12-22 09:25:22.561207");
        assert_eq!(
            (old.moment(), old.clock()),
            (None, Some(datetime!(2014-12-22 09:25:22.561207)))
        );
    }

    #[test]
    fn another_text_is_kept_for_the_eye() {
        let odd = read("Tue Nov 24\x1b[2J");
        assert_eq!((odd.moment(), odd.clock()), (None, None));
        assert_eq!(odd.to_string(), "Tue Nov 24\\u{1b}[2J");
    }
}
