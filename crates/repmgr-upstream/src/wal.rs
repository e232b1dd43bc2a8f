//! What WAL a server still has for a standby that will come.

use std::collections::BTreeMap;

use repmgr_types::{Lsn, Timeline, WalFileName, WalSegmentName, WalSegmentSize};

use crate::upstream::get;
use crate::{QueryError, Upstream};

/// More file names are not taken from a server: with segments of 16 MiB, 16 TiB of WAL.
const MAX_FILES: i64 = 1 << 20;

/// Where a server is in its WAL, and what it still has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamWal {
    /// The timeline the server writes, or as a standby replays.
    pub timeline: Timeline,
    /// Where a primary inserts, or up to where a standby has received or replayed WAL.
    pub position: Lsn,
    /// The size of its segments.
    pub segment_size: WalSegmentSize,
    /// What is in its `pg_wal`; `None` if the role may not look there.
    pub files: Option<WalFiles>,
}

/// The whole segments in a server's `pg_wal` that hold WAL. Files that were renamed to be written in future are
/// left out, although their names look the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFiles {
    /// By timeline: runs of segment numbers without a hole, first and last, ascending.
    runs: BTreeMap<Timeline, Vec<(u64, u64)>>,
    size: WalSegmentSize,
}

impl UpstreamWal {
    /// The segment that is written or received now.
    pub fn current_segment(&self) -> WalSegmentName {
        WalSegmentName::containing(self.timeline, self.position, self.segment_size)
    }

    /// The oldest segment from which on the server has everything up to now, on its present timeline;
    /// `None` if the role may not look, or the server has not even the present segment.
    pub fn oldest(&self) -> Option<WalSegmentName> {
        self.files.as_ref()?.oldest_before(self.current_segment())
    }
}

impl WalFiles {
    /// From names of files, of which those beyond the segment `current` have not been written yet.
    pub fn new(
        names: impl IntoIterator<Item = WalSegmentName>,
        current: WalSegmentName,
        size: WalSegmentSize,
    ) -> Self {
        let mut names: Vec<_> = names
            .into_iter()
            .filter(|name| name.number(size) <= current.number(size))
            .collect();
        names.sort_unstable();
        let mut runs: BTreeMap<Timeline, Vec<(u64, u64)>> = BTreeMap::new();
        for name in names {
            let number = name.number(size);
            let runs = runs.entry(name.timeline()).or_default();
            match runs.last_mut() {
                Some((_, last)) if number - *last <= 1 => *last = number,
                _ => runs.push((number, number)),
            }
        }
        Self { runs, size }
    }

    /// Whether it is there.
    pub fn has(&self, segment: WalSegmentName) -> bool {
        self.run_with(segment).is_some()
    }

    /// The oldest segment of the same timeline from which on everything up to `segment` is there;
    /// `None` if that is not there itself.
    pub fn oldest_before(&self, segment: WalSegmentName) -> Option<WalSegmentName> {
        let (first, _) = self.run_with(segment)?;
        Some(self.name(segment.timeline(), first))
    }

    /// For each timeline the oldest segment there is, whatever is missing after it.
    pub fn oldest_by_timeline(&self) -> impl Iterator<Item = (Timeline, WalSegmentName)> {
        self.runs
            .iter()
            .filter_map(|(timeline, runs)| Some((*timeline, self.name(*timeline, runs.first()?.0))))
    }

    fn run_with(&self, segment: WalSegmentName) -> Option<(u64, u64)> {
        let number = segment.number(self.size);
        let runs = self.runs.get(&segment.timeline())?;
        runs.iter()
            .copied()
            .find(|(first, last)| (*first..=*last).contains(&number))
    }

    fn name(&self, timeline: Timeline, number: u64) -> WalSegmentName {
        WalSegmentName::containing(timeline, Lsn(number * self.size.bytes()), self.size)
    }
}

impl Upstream {
    /// Where the server is in its WAL, and what it still has of it. What is there now can be gone a moment
    /// later, unless a slot keeps it.
    pub fn wal(&self) -> Result<UpstreamWal, QueryError> {
        let segment_size = self.wal_segment_size()?;
        let timeline = self.timeline()?;
        let position = self.insert_position()?;
        // After the position: what is written in between is taken for not written, which harms nobody.
        let names = self.wal_file_names(segment_size)?;
        let current = WalSegmentName::containing(timeline, position, segment_size);
        Ok(UpstreamWal {
            timeline,
            position,
            segment_size,
            files: names.map(|names| WalFiles::new(names, current, segment_size)),
        })
    }

    /// The last segment that the server's archiver says it archived; `None` if it archives nothing, if that was
    /// another sort of file, or longer ago than a day: the archive need not hold it any more. A backup's history
    /// file is archived after the segment that it is named by.
    pub fn last_archived_segment(&self) -> Result<Option<WalSegmentName>, QueryError> {
        const WHAT: &str = "ask for the last archived WAL segment";
        let sql = "SELECT last_archived_wal FROM pg_catalog.pg_stat_archiver \
                   WHERE pg_catalog.current_setting('archive_mode') <> 'off' \
                   AND last_archived_time > pg_catalog.now() - interval '1 day'";
        let names = self.ask(WHAT, sql, &[], |row| get::<Option<String>>(row, 0))?;
        Ok(names
            .into_iter()
            .flatten()
            .find_map(|name| archived_segment(name.parse().ok()?)))
    }

    /// The size of the server's WAL segments.
    pub fn wal_segment_size(&self) -> Result<WalSegmentSize, QueryError> {
        const WHAT: &str = "read the size of WAL segments";
        let sql = "SELECT bytes_per_wal_segment::bigint FROM pg_catalog.pg_control_init()";
        let bytes: i64 = self.ask_scalar(WHAT, sql, &[])?;
        let size = u64::try_from(bytes).ok().and_then(WalSegmentSize::from_bytes);
        size.ok_or_else(|| self.unusable(WHAT, format!("got {bytes}")))
    }

    fn insert_position(&self) -> Result<Lsn, QueryError> {
        const WHAT: &str = "read the current WAL position";
        let sql = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() \
                   THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) \
                   ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text";
        let text: Option<String> = self.ask_scalar(WHAT, sql, &[])?;
        let text = text.ok_or_else(|| self.unusable(WHAT, "it has none yet".to_owned()))?;
        text.parse().map_err(|e| self.unusable(WHAT, format!("{e}")))
    }

    fn wal_file_names(&self, size: WalSegmentSize) -> Result<Option<Vec<WalSegmentName>>, QueryError> {
        const WHAT: &str = "list the WAL segments";
        // The numbers are ours.
        let sql = format!(
            "SELECT name FROM pg_catalog.pg_ls_waldir() WHERE size = {} AND name ~ '^[0-9A-F]{{24}}$' LIMIT {}",
            size.bytes(),
            MAX_FILES + 1
        );
        let names = match self.ask(WHAT, &sql, &[], |row| get::<String>(row, 0)) {
            Ok(names) => names,
            Err(e) if e.failure.is_permission_denied() => return Ok(None),
            Err(e) => return Err(e),
        };
        if i64::try_from(names.len()).is_ok_and(|count| count > MAX_FILES) {
            return Err(self.unusable(WHAT, format!("there are more than {MAX_FILES}")));
        }
        // A name of timeline 0 is no segment's.
        Ok(Some(names.iter().filter_map(|name| name.parse().ok()).collect()))
    }
}

/// The segment that is archived, as a whole, when the archiver's last file is `name`.
fn archived_segment(name: WalFileName) -> Option<WalSegmentName> {
    match name {
        WalFileName::Segment(_) | WalFileName::Backup { .. } => name.segment(),
        WalFileName::Partial(_) | WalFileName::History(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    fn name(text: &str) -> WalSegmentName {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_archived_is_told_by_the_last_file() {
        let archived = |text: &str| archived_segment(text.parse().ok()?);
        let three = Some(name("000000010000000000000003"));
        assert_eq!(archived("000000010000000000000003"), three);
        assert_eq!(archived("000000010000000000000003.00000028.backup"), three);
        for other in [
            "000000010000000000000003.partial",
            "00000002.history",
            "",
            "x.backup",
        ] {
            assert_eq!(archived(other), None, "{other}");
        }
    }

    fn wal(names: &[&str], current: &str) -> UpstreamWal {
        let current = name(current);
        UpstreamWal {
            timeline: current.timeline(),
            position: current.start(SIZE),
            segment_size: SIZE,
            files: Some(WalFiles::new(names.iter().map(|text| name(text)), current, SIZE)),
        }
    }

    #[test]
    fn names_of_the_future_are_no_wal() {
        let wal = wal(
            &[
                "000000010000000000000009",
                "000000010000000000000005",
                "000000010000000000000006",
                "000000010000000000000007",
                "000000010000000000000008",
            ],
            "000000010000000000000006",
        );
        assert_eq!(wal.oldest(), Some(name("000000010000000000000005")));
        let files = wal.files.unwrap();
        assert!(files.has(name("000000010000000000000006")));
        assert!(!files.has(name("000000010000000000000007")));
        assert!(!files.has(name("000000020000000000000006")));
    }

    #[test]
    fn a_hole_ends_what_can_be_streamed() {
        let wal = wal(
            &[
                "0000000200000000000000FC",
                "0000000200000000000000FD",
                "0000000200000000000000FF",
                "000000020000000100000000",
                "000000010000000000000003",
            ],
            "000000020000000100000000",
        );
        assert_eq!(wal.oldest(), Some(name("0000000200000000000000FF")));
        let files = wal.files.unwrap();
        let oldest: Vec<_> = files
            .oldest_by_timeline()
            .map(|(_, name)| name.to_string())
            .collect();
        assert_eq!(oldest, ["000000010000000000000003", "0000000200000000000000FC"]);
        assert_eq!(
            files.oldest_before(name("0000000200000000000000FD")),
            Some(name("0000000200000000000000FC"))
        );
        assert_eq!(files.oldest_before(name("0000000200000000000000FE")), None);
    }

    #[test]
    fn without_permission_nothing_is_known() {
        let unseen = UpstreamWal {
            files: None,
            ..wal(&[], "000000010000000000000006")
        };
        assert_eq!(unseen.oldest(), None);
        assert_eq!(wal(&[], "000000010000000000000006").oldest(), None);
    }
}
