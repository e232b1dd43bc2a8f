use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::ParseError;

/// A position in the write-ahead log, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let half = |t: &str| {
            (!t.is_empty() && t.len() <= 8 && t.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u64::from_str_radix(t, 16).ok())
                .flatten()
        };
        text.split_once('/')
            .and_then(|(hi, lo)| Some(Self(half(hi)? << 32 | half(lo)?)))
            .ok_or_else(|| ParseError::new(text, "a log sequence number (like 0/3000060)"))
    }
}

/// The id of a timeline; promotion starts a new one. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(NonZeroU32);

impl Timeline {
    /// `None` for zero.
    pub fn new(id: u32) -> Option<Self> {
        NonZeroU32::new(id).map(Self)
    }

    /// The plain number.
    pub fn id(self) -> u32 {
        self.0.get()
    }

    /// The name of the file that tells this timeline's ancestry: `00000002.history`.
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.0)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The size of a cluster's WAL segments in bytes: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WalSegmentSize(u32);

impl WalSegmentSize {
    /// What `initdb` chooses unless told otherwise: 16 MiB.
    pub const DEFAULT: WalSegmentSize = WalSegmentSize(16 * 1024 * 1024);

    /// `None` for a size PostgreSQL does not allow.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        let bytes = u32::try_from(bytes).ok()?;
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    fn segments_per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

/// The file name of one WAL segment: timeline, log and segment as 24 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSegmentName {
    timeline: Timeline,
    log: u32,
    segment: u32,
}

impl WalSegmentName {
    /// The segment of `timeline` that holds the byte at `lsn`.
    pub fn containing(timeline: Timeline, lsn: Lsn, size: WalSegmentSize) -> Self {
        Self::from_number(timeline, lsn.0 / size.bytes(), size)
    }

    /// The segment number `number`, counted from the start of the log.
    fn from_number(timeline: Timeline, number: u64, size: WalSegmentSize) -> Self {
        let per_log = size.segments_per_log();
        // Both fit: an LSN has 64 bits, of which `log` takes the upper and `segment` part of the lower.
        Self {
            timeline,
            log: (number / per_log) as u32,
            segment: (number % per_log) as u32,
        }
    }

    /// Counted from the start of the log; equal positions on two timelines have equal numbers.
    pub fn number(self, size: WalSegmentSize) -> u64 {
        u64::from(self.log) * size.segments_per_log() + u64::from(self.segment)
    }

    /// The next segment of the same timeline.
    pub fn next(self, size: WalSegmentSize) -> Self {
        Self::from_number(self.timeline, self.number(size) + 1, size)
    }

    /// The segment before this one on the same timeline; `None` before the first.
    pub fn previous(self, size: WalSegmentSize) -> Option<Self> {
        let number = self.number(size).checked_sub(1)?;
        Some(Self::from_number(self.timeline, number, size))
    }

    /// The timeline the segment was written on.
    pub fn timeline(self) -> Timeline {
        self.timeline
    }

    /// The position of the segment's first byte.
    pub fn start(self, size: WalSegmentSize) -> Lsn {
        Lsn(self.number(size) * size.bytes())
    }
}

impl fmt::Display for WalSegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:08X}{:08X}{:08X}",
            self.timeline.id(),
            self.log,
            self.segment
        )
    }
}

impl FromStr for WalSegmentName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fail = || ParseError::new(text, "a WAL segment name (24 hexadecimal digits)");
        // PostgreSQL writes upper case only; another spelling is another file.
        if text.len() != 24
            || !text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        {
            return Err(fail());
        }
        let part = |range| u32::from_str_radix(&text[range], 16).map_err(|_| fail());
        Ok(Self {
            timeline: Timeline::new(part(0..8)?).ok_or_else(fail)?,
            log: part(8..16)?,
            segment: part(16..24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    #[test]
    fn lsn_reads_and_prints() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!((lsn.0, lsn.to_string()), (0x16_B374_D848, "16/B374D848".into()));
        for bad in ["", "/", "1/", "0/123456789", "0x1/2", "1/2/3", "+1/2"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn segment_names_follow_positions() {
        let tl = Timeline::new(3).unwrap();
        let name = WalSegmentName::containing(tl, "1/FF000028".parse().unwrap(), SIZE);
        assert_eq!(name.to_string(), "0000000300000001000000FF");
        assert_eq!(name.next(SIZE).to_string(), "000000030000000200000000");
        assert_eq!(name.next(SIZE).previous(SIZE), Some(name));
        assert_eq!(WalSegmentName::containing(tl, Lsn(1), SIZE).previous(SIZE), None);
        assert_eq!(name.start(SIZE).to_string(), "1/FF000000");
        assert_eq!(
            "0000000300000001000000FF".parse::<WalSegmentName>().unwrap(),
            name
        );
        let small = WalSegmentSize::from_bytes(1 << 20).unwrap();
        assert_eq!(
            WalSegmentName::containing(tl, Lsn(0xFFFF_FFFF), small).to_string(),
            "000000030000000000000FFF"
        );
    }

    #[test]
    fn other_names_are_refused() {
        for bad in [
            "",
            "00000002.history",
            "00000001000000000000000G",
            "0000000100000000000000ff",
            "000000000000000000000001",
        ] {
            assert!(bad.parse::<WalSegmentName>().is_err(), "{bad:?}");
        }
        assert_eq!(Timeline::new(26).unwrap().history_file_name(), "0000001A.history");
        assert_eq!(WalSegmentSize::from_bytes(3 << 20), None);
    }
}
