//! What the bytes of a WAL file must say about themselves.

use repmgr_pgfile::is_plain_wal;
use repmgr_types::{SystemId, Timeline, WalSegmentName, WalSegmentSize};

use crate::WalFileName;
use crate::history::TimelineHistory;

/// Why bytes are not the file asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Neither WAL nor a compression this program knows.
    #[error("it does not begin like a WAL segment (first bytes {first})")]
    NotWal {
        /// In hexadecimal.
        first: String,
    },
    /// Another number of bytes than the segment size in its header.
    #[error("it has {found} bytes, not the {expected} of a segment of this cluster")]
    Size {
        /// What came; one more than `expected` when it does not end there.
        found: u64,
        /// The segment size in the header.
        expected: u64,
    },
    /// No first page at all.
    #[error("it has only {found} bytes")]
    Short {
        /// What came.
        found: u64,
    },
    /// The header holds a size PostgreSQL does not know.
    #[error("its header says that a segment has {bytes} bytes")]
    SegmentSize {
        /// As it stands there.
        bytes: u32,
    },
    /// WAL of another cluster.
    #[error("it belongs to the cluster with system identifier {found}, not to {expected}")]
    SystemId {
        /// In the header.
        found: SystemId,
        /// Of the cluster that recovers.
        expected: SystemId,
    },
    /// Another segment of the cluster: stored under a wrong name, or recycled and not yet written.
    #[error("its first page is that of position {found:X}, not {expected:X}")]
    Position {
        /// In the header.
        found: u64,
        /// What the name demands.
        expected: u64,
    },
    /// A timeline that cannot be.
    #[error("its first page is of timeline {found}, its name of timeline {expected}")]
    Timeline {
        /// In the header.
        found: u32,
        /// What the name demands.
        expected: Timeline,
    },
    /// A timeline history PostgreSQL could not read.
    #[error("it is no timeline history: {reason}")]
    History {
        /// What is wrong.
        reason: String,
    },
    /// Not the record of a base backup that its name promises.
    #[error("it is no backup history file for this segment")]
    Backup,
    /// The stored compression is damaged.
    #[error("it cannot be decompressed ({compression}): {reason}")]
    Compression {
        /// "gzip"
        compression: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

impl ContentError {
    /// Whether a compression or encryption of the user's own explains it: such bytes may begin like a
    /// compression that we know, or look like text.
    pub(crate) fn may_be_a_filter(&self) -> bool {
        matches!(
            self,
            Self::Compression { .. } | Self::NotWal { .. } | Self::History { .. } | Self::Backup
        )
    }
}

/// What the first page of a segment tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster it belongs to.
    pub system_id: SystemId,
    /// How long every segment of the cluster is.
    pub segment_size: WalSegmentSize,
    /// The timeline of the first page.
    pub timeline: Timeline,
}

/// Bytes of a segment that [`check_segment_header`] looks at.
pub(crate) const HEADER_LEN: usize = SYSTEM_ID_AT + 16;
/// `XLogPageHeaderData` ends at 20 and is padded to the alignment of the machine.
const SYSTEM_ID_AT: usize = 20_usize.next_multiple_of(align_of::<u64>());
const LONG_HEADER: u16 = 0x0002;

/// Checks the first page header of a segment against its name: magic, long header, position,
/// timeline, segment size, and the cluster if it is known.
///
/// Numbers are in this machine's byte order, as PostgreSQL writes them: WAL of another
/// architecture cannot be replayed here. The timeline of the page may be lower than that of the
/// name, because the first segment of a timeline begins as a copy of its parent's
/// (PostgreSQL 10 to 18, `XLogFileCopy`); [`needs_history`] tells when.
///
/// # Errors
/// If `first` is not the beginning of the segment `name`.
pub(crate) fn check_segment_header(
    name: WalSegmentName,
    first: &[u8],
    system_id: Option<SystemId>,
) -> Result<SegmentHeader, ContentError> {
    let Some(header) = first.get(..HEADER_LEN) else {
        return Err(ContentError::Short {
            found: first.len() as u64,
        });
    };
    let u16_at = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let u32_at = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| header[at + i]));
    let u64_at = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| header[at + i]));
    if !is_plain_wal(header) || u16_at(2) & LONG_HEADER == 0 {
        let first = header[..8].iter().map(|b| format!("{b:02x}")).collect();
        return Err(ContentError::NotWal { first });
    }
    let found = SystemId(u64_at(SYSTEM_ID_AT));
    if let Some(expected) = system_id.filter(|expected| *expected != found) {
        return Err(ContentError::SystemId { found, expected });
    }
    let bytes = u32_at(SYSTEM_ID_AT + 8);
    let segment_size =
        WalSegmentSize::from_bytes(u64::from(bytes)).ok_or(ContentError::SegmentSize { bytes })?;
    let (position, expected) = (u64_at(8), name.start(segment_size).0);
    if position != expected {
        return Err(ContentError::Position {
            found: position,
            expected,
        });
    }
    let timeline = u32_at(4);
    match Timeline::new(timeline).filter(|t| *t <= name.timeline()) {
        Some(timeline) => Ok(SegmentHeader {
            system_id: found,
            segment_size,
            timeline,
        }),
        None => Err(ContentError::Timeline {
            found: timeline,
            expected: name.timeline(),
        }),
    }
}

/// Checks that a segment whose first page is of an older timeline may be: only where the history
/// of its own timeline says that it branched off inside this segment.
///
/// # Errors
/// [`ContentError::Timeline`] otherwise.
pub(crate) fn check_branch(
    name: WalSegmentName,
    header: SegmentHeader,
    history: &TimelineHistory,
) -> Result<(), ContentError> {
    let start = name.start(header.segment_size);
    // The last of all segments ends where positions do.
    let end = start.0.saturating_add(header.segment_size.bytes());
    let mut since = history
        .entries()
        .iter()
        .skip_while(|e| e.timeline != header.timeline);
    // Every branch from the page's timeline on must lie in this segment, the last is that to the name's.
    let inside = |at: u64| (start.0..=end).contains(&at);
    let first = since.next().is_some_and(|e| inside(e.end.0));
    if history.timeline() == name.timeline() && first && since.all(|e| inside(e.end.0)) {
        Ok(())
    } else {
        Err(ContentError::Timeline {
            found: header.timeline.id(),
            expected: name.timeline(),
        })
    }
}

/// Whether the history of the segment's timeline has to confirm it, see [`check_branch`].
pub(crate) fn needs_history(name: WalSegmentName, header: SegmentHeader) -> bool {
    header.timeline != name.timeline()
}

/// Checks a whole history or backup file.
pub(crate) fn check_text(name: WalFileName, bytes: &[u8]) -> Result<(), ContentError> {
    match name {
        WalFileName::History(timeline) => Ok(TimelineHistory::parse(timeline, bytes).map(drop)?),
        WalFileName::Backup { segment, .. } => {
            // "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)"
            let first = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
            let end = format!("(file {segment})");
            let good = first.starts_with(b"START WAL LOCATION: ") && first.ends_with(end.as_bytes());
            if good { Ok(()) } else { Err(ContentError::Backup) }
        }
        WalFileName::Segment(_) | WalFileName::Partial(_) => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const ID: SystemId = SystemId(7_412_345_678_901_234_567);

    /// The first bytes of a segment, as PostgreSQL 15 writes them.
    pub(crate) fn page(name: WalSegmentName, size: u32, timeline: u32, id: SystemId) -> Vec<u8> {
        let mut page = Vec::new();
        page.extend(0xD110_u16.to_ne_bytes());
        page.extend(0x0002_u16.to_ne_bytes());
        page.extend(timeline.to_ne_bytes());
        let size_type = WalSegmentSize::from_bytes(u64::from(size)).unwrap_or(WalSegmentSize::DEFAULT);
        page.extend(name.start(size_type).0.to_ne_bytes());
        page.resize(SYSTEM_ID_AT, 0);
        page.extend(id.0.to_ne_bytes());
        page.extend(size.to_ne_bytes());
        page.extend(8192_u32.to_ne_bytes());
        page
    }

    fn name(text: &str) -> WalSegmentName {
        text.parse().unwrap()
    }

    #[test]
    fn a_header_that_fits_its_name_is_accepted() {
        let n = name("00000002000000010000003F");
        let found = check_segment_header(n, &page(n, 1 << 20, 2, ID), Some(ID)).unwrap();
        assert_eq!((found.system_id, found.segment_size.bytes()), (ID, 1 << 20));
        assert!(!needs_history(n, found));
        check_segment_header(n, &page(n, 1 << 24, 2, ID), None).unwrap();
    }

    #[test]
    fn every_way_to_be_another_file_has_its_own_error() {
        let n = name("00000002000000010000003F");
        let good = page(n, 1 << 24, 2, ID);
        let check = |bytes: &[u8]| check_segment_header(n, bytes, Some(ID)).unwrap_err();
        assert!(matches!(
            check(&good[..HEADER_LEN - 1]),
            ContentError::Short { .. }
        ));
        assert!(matches!(check(&[0; 64]), ContentError::NotWal { .. }));
        let mut short_header = good.clone();
        short_header[2..4].fill(0);
        assert!(matches!(check(&short_header), ContentError::NotWal { .. }));
        assert!(matches!(
            check(&page(n, 3 << 20, 2, ID)),
            ContentError::SegmentSize { .. }
        ));
        let other = page(n, 1 << 24, 2, SystemId(1));
        assert!(matches!(check(&other), ContentError::SystemId { .. }));
        let next = n.next(WalSegmentSize::DEFAULT);
        assert!(matches!(
            check(&page(next, 1 << 24, 2, ID)),
            ContentError::Position { .. }
        ));
        for timeline in [0, 3] {
            assert!(matches!(
                check(&page(n, 1 << 24, timeline, ID)),
                ContentError::Timeline { .. }
            ));
        }
    }

    #[test]
    fn an_older_timeline_is_only_right_where_it_branched_off() {
        let n = name("000000030000000000000005");
        let header = |timeline| check_segment_header(n, &page(n, 1 << 24, timeline, ID), None).unwrap();
        let history =
            |text: &str| TimelineHistory::parse(Timeline::new(3).unwrap(), text.as_bytes()).unwrap();
        let two = header(2);
        assert!(needs_history(n, two));
        check_branch(n, two, &history("1\t0/3000000\tx\n2\t0/5001000\tx\n")).unwrap();
        check_branch(n, header(1), &history("1\t0/5000100\tx\n2\t0/5001000\tx\n")).unwrap();
        for (timeline, text) in [
            (2, "1\t0/3000000\tx\n2\t0/4001000\tx\n"),
            (2, "1\t0/3000000\tx\n2\t0/6000001\tx\n"),
            (1, "1\t0/3000000\tx\n2\t0/5001000\tx\n"),
            (1, "2\t0/5001000\tx\n"),
        ] {
            assert!(
                check_branch(n, header(timeline), &history(text)).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_backup_history_file_names_its_segment() {
        let n: WalFileName = "000000010000000000000003.00000028.backup".parse().unwrap();
        let text = b"START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\nSTOP WAL LOCATION: ...\n";
        check_text(n, text).unwrap();
        assert_eq!(check_text(n, b"").unwrap_err(), ContentError::Backup);
        let other = b"START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\n";
        assert_eq!(check_text(n, other).unwrap_err(), ContentError::Backup);
    }

    proptest! {
        #[test]
        fn a_single_wrong_byte_in_what_the_name_demands_is_noticed(at in 0_usize..HEADER_LEN - 4, bit in 0_u8..8) {
            let n = name("00000002000000010000003F");
            let mut bytes = page(n, 1 << 24, 2, ID);
            bytes[at] ^= 1 << bit;
            // The low byte of the magic, other flags, the length of a continued record, padding; and a
            // lower timeline, which the history has to confirm.
            let free = at == usize::from(cfg!(target_endian = "big")) || (2..4).contains(&at) || (16..SYSTEM_ID_AT).contains(&at)
                || (SYSTEM_ID_AT + 12..).contains(&at);
            let high_magic = usize::from(cfg!(target_endian = "little"));
            match check_segment_header(n, &bytes, Some(ID)) {
                Err(_) => {}
                Ok(header) => prop_assert!(
                    free || needs_history(n, header) || at == high_magic && bit == 0,
                    "byte {at}, bit {bit}"
                ),
            }
        }
    }
}
