use repmgr_types::{Hint, SystemId, WalSegmentSize};

use crate::PageLayout;

/// Where the control file is, relative to the data directory. PostgreSQL does not start without it.
pub const PG_CONTROL: &str = "global/pg_control";

/// The size of the control file in bytes, in all versions since 8.0 (`PG_CONTROL_FILE_SIZE`). What is
/// behind the CRC is zeros.
pub const PG_CONTROL_SIZE: usize = 8192;

/// The beginning of `global/pg_control`, which has the same shape in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PgControlHead {
    /// Which cluster this is.
    pub system_id: SystemId,
    /// The layout of the file: 1300 for PostgreSQL 13 to 16, 1800 for 18.
    pub pg_control_version: u32,
    /// The catalogue's layout, as in the `PG_15_202209061` of tablespaces.
    pub catalog_version: u32,
    /// The server was shut down in an orderly way, as a primary or a standby: what it wrote is on
    /// disk, and its files' times say when.
    pub shut_down: bool,
}

const AT_VERSION: usize = 8;
const AT_CATALOG_VERSION: usize = 12;
const AT_STATE: usize = 16;

/// All numbers are in the byte order of the machine, which a standby shares with its primary. Only for
/// positions that are in `bytes`.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|n| bytes[at + n]))
}

impl PgControlHead {
    /// How many bytes [`parse`](Self::parse) needs.
    pub const SIZE: usize = 20;

    /// Reads the first [`SIZE`](Self::SIZE) bytes, in the byte order of this machine. Nothing proves them.
    ///
    /// # Errors
    /// When they are too few, begin with zeros, or hold a version no PostgreSQL wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let Some(head) = bytes.first_chunk::<{ Self::SIZE }>() else {
            return Err(ControlError::Size(bytes.len()));
        };
        let system_id = u64::from_ne_bytes(std::array::from_fn(|n| head[n]));
        if system_id == 0 {
            return Err(ControlError::Zero);
        }
        // 8.0 wrote 74, 9.6 960, 10 1002, 18 1800; the other byte order gives numbers above 2^16.
        let pg_control_version = word(head, AT_VERSION);
        if !(72..10_000).contains(&pg_control_version) {
            return Err(ControlError::Impossible(pg_control_version));
        }
        Ok(Self {
            system_id: SystemId(system_id),
            pg_control_version,
            catalog_version: word(head, AT_CATALOG_VERSION),
            // DB_SHUTDOWNED and DB_SHUTDOWNED_IN_RECOVERY, in all versions since 9.0.
            shut_down: matches!(word(head, AT_STATE), 1 | 2),
        })
    }

    /// As [`PgControlHead::parse`], for the whole file of any version.
    ///
    /// # Errors
    /// Also when the file is not [`PG_CONTROL_SIZE`] bytes long.
    pub fn parse_whole(bytes: &[u8]) -> Result<Self, ControlError> {
        if bytes.len() == PG_CONTROL_SIZE {
            Self::parse(bytes)
        } else {
            Err(ControlError::Size(bytes.len()))
        }
    }
}

/// What `global/pg_control` says of a cluster, proven by its CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    /// What is at the same place in every version.
    pub head: PgControlHead,
    /// Settings of the server when the file was written.
    pub settings: RecordedSettings,
    /// Whether pages have checksums (`initdb -k`, `pg_checksums`; the default from 18 on).
    pub checksums: bool,
    /// The sizes of pages and segments of relations.
    pub layout: PageLayout,
    /// The size of a page in the WAL (`XLOG_BLCKSZ`).
    pub wal_page_size: u32,
    /// The size of a WAL segment.
    pub wal_segment_size: WalSegmentSize,
}

/// The settings that the control file records because a hot standby must not have less of any of them.
/// Such a standby keeps its primary's values here, not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedSettings {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`; not recorded, and of no consequence, before PostgreSQL 12.
    pub max_wal_senders: Option<u32>,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

/// Where things are in the control file of a family of versions, in bytes, on 64-bit machines.
#[derive(Clone, Copy)]
struct Fields {
    /// The recorded settings, one behind the other.
    settings: usize,
    /// `max_wal_senders` is among them.
    has_wal_senders: bool,
    /// The size of a page, and behind it that of a segment.
    page_size: usize,
    /// The size of a WAL page, and behind it that of a WAL segment.
    wal_page_size: usize,
    checksums: usize,
    /// The CRC-32C of all before it.
    crc: usize,
}

/// From `catalog/pg_control.h` of each version, and proven on real files. A control version that is not
/// here gives an error, never a guess.
fn fields(pg_control_version: u32) -> Option<Fields> {
    // What one version lost before these fields, another gained.
    let of_13 = Fields {
        settings: 180,
        has_wal_senders: true,
        page_size: 216,
        wal_page_size: 224,
        checksums: 252,
        crc: 288,
    };
    Some(match pg_control_version {
        // 10.
        1002 => Fields {
            has_wal_senders: false,
            ..of_13
        },
        // 11.
        1100 => Fields {
            settings: 172,
            has_wal_senders: false,
            page_size: 208,
            wal_page_size: 216,
            checksums: 244,
            crc: 280,
        },
        // 12; 13 to 16; 17.
        1201 | 1300 | 1700 => of_13,
        // 18.
        1800 => Fields { crc: 292, ..of_13 },
        // 19, as of its first release candidate.
        1905 => Fields {
            settings: 188,
            has_wal_senders: true,
            page_size: 224,
            wal_page_size: 236,
            checksums: 268,
            crc: 308,
        },
        _ => return None,
    })
}

impl ControlFile {
    /// From the content of `global/pg_control`, of PostgreSQL 10 to 19, written on a machine like this one.
    ///
    /// The file itself says which version wrote it.
    ///
    /// # Errors
    /// If it is not whole, of an unknown version, damaged, or of sizes PostgreSQL cannot have.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let head = PgControlHead::parse_whole(bytes)?;
        let version = head.pg_control_version;
        let fields = fields(version).ok_or(ControlError::Version(version))?;
        let word = |at| word(bytes, at);
        let (stored, calculated) = (word(fields.crc), crc32c::crc32c(&bytes[..fields.crc]));
        if stored != calculated {
            return Err(ControlError::Crc { stored, calculated });
        }
        let (page_size, segment_pages) = (word(fields.page_size), word(fields.page_size + 4));
        let wal_segment_size = word(fields.wal_page_size + 4);
        Ok(Self {
            head,
            settings: RecordedSettings::read(&fields, word),
            checksums: match word(fields.checksums) {
                0 => false,
                1 => true,
                other => return Err(ControlError::ChecksumVersion(other)),
            },
            layout: PageLayout::new(page_size, segment_pages).ok_or(ControlError::Layout {
                page_size,
                segment_pages,
            })?,
            wal_page_size: word(fields.wal_page_size),
            wal_segment_size: WalSegmentSize::from_bytes(wal_segment_size.into())
                .ok_or(ControlError::WalSegmentSize(wal_segment_size))?,
        })
    }
}

impl RecordedSettings {
    fn read(fields: &Fields, word: impl Fn(usize) -> u32) -> Self {
        let setting = |number: usize| word(fields.settings + 4 * number);
        let behind = if fields.has_wal_senders { 3 } else { 2 };
        Self {
            max_connections: setting(0),
            max_worker_processes: setting(1),
            max_wal_senders: fields.has_wal_senders.then(|| setting(2)),
            max_prepared_transactions: setting(behind),
            max_locks_per_transaction: setting(behind + 1),
        }
    }
}

/// Bytes that are no control file, or not one that can be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Too short, or not as long as a whole control file has to be.
    #[error("the control file has {0} bytes instead of {PG_CONTROL_SIZE}")]
    Size(usize),
    /// A file system or copy that lost the content.
    #[error("the control file begins with zeros")]
    Zero,
    /// From a machine with another byte order, or not a control file.
    #[error("the control file has the impossible version {0}")]
    Impossible(u32),
    /// Of a version of PostgreSQL that is not known here.
    #[error("the layout of control file version {0} is not known")]
    Version(u32),
    /// Damaged, or caught while PostgreSQL wrote it.
    #[error("the control file is damaged: its CRC is {calculated:08X} instead of {stored:08X}")]
    Crc {
        /// As the file has it.
        stored: u32,
        /// Of its content.
        calculated: u32,
    },
    /// Impossible sizes.
    #[error("the control file speaks of pages of {page_size} bytes and segments of {segment_pages} pages")]
    Layout {
        /// Bytes a page.
        page_size: u32,
        /// Pages a segment.
        segment_pages: u32,
    },
    /// An impossible size of WAL segments.
    #[error("the control file speaks of WAL segments of {0} bytes")]
    WalSegmentSize(u32),
    /// A way of making page checksums that is not known here.
    #[error("the control file speaks of page checksums of version {0}")]
    ChecksumVersion(u32),
}

impl ControlError {
    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        Some(Hint::new(match self {
            Self::Version(_) | Self::ChecksumVersion(_) => "control files of PostgreSQL 10 to 19 can be read",
            Self::Impossible(_) => "a data directory can be used only on the kind of machine it is from",
            Self::Size(_) | Self::Zero | Self::Crc { .. } | Self::Layout { .. } | Self::WalSegmentSize(_) => {
                "PostgreSQL will not start with this control file; take another backup"
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// The real ones are in tests/control_files.rs.
    const VERSIONS: [u32; 7] = [1002, 1100, 1201, 1300, 1700, 1800, 1905];

    fn example(pg_control_version: u32) -> ControlFile {
        ControlFile {
            head: PgControlHead {
                system_id: SystemId(7_412_345_678_901_234_567),
                pg_control_version,
                catalog_version: 202_209_061,
                shut_down: true,
            },
            settings: RecordedSettings {
                max_connections: 100,
                max_worker_processes: 8,
                max_wal_senders: (pg_control_version >= 1201).then_some(10),
                max_prepared_transactions: 3,
                max_locks_per_transaction: 64,
            },
            checksums: true,
            layout: PageLayout::DEFAULT,
            wal_page_size: 8192,
            wal_segment_size: WalSegmentSize::DEFAULT,
        }
    }

    fn put(bytes: &mut [u8], at: usize, word: u32) {
        bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }

    /// With the CRC that belongs to it.
    fn written(file: &ControlFile) -> Vec<u8> {
        let fields = fields(file.head.pg_control_version).unwrap();
        let mut bytes = vec![0; PG_CONTROL_SIZE];
        bytes[..8].copy_from_slice(&file.head.system_id.0.to_ne_bytes());
        put(&mut bytes, AT_VERSION, file.head.pg_control_version);
        put(&mut bytes, AT_CATALOG_VERSION, file.head.catalog_version);
        put(&mut bytes, AT_STATE, if file.head.shut_down { 2 } else { 6 });
        let settings = file.settings;
        let recorded = [
            Some(settings.max_connections),
            Some(settings.max_worker_processes),
            settings.max_wal_senders,
            Some(settings.max_prepared_transactions),
            Some(settings.max_locks_per_transaction),
        ];
        for (number, setting) in recorded.into_iter().flatten().enumerate() {
            put(&mut bytes, fields.settings + 4 * number, setting);
        }
        let page_size = u32::try_from(file.layout.page_size()).unwrap();
        put(&mut bytes, fields.page_size, page_size);
        put(&mut bytes, fields.page_size + 4, file.layout.segment_pages());
        put(&mut bytes, fields.wal_page_size, file.wal_page_size);
        let wal_segment_size = u32::try_from(file.wal_segment_size.bytes()).unwrap();
        put(&mut bytes, fields.wal_page_size + 4, wal_segment_size);
        put(&mut bytes, fields.checksums, file.checksums.into());
        sign(&mut bytes);
        bytes
    }

    fn sign(bytes: &mut [u8]) {
        let at = fields(word(bytes, AT_VERSION)).unwrap().crc;
        let crc = crc32c::crc32c(&bytes[..at]);
        put(bytes, at, crc);
    }

    #[test]
    fn a_control_file_of_every_known_version_is_read() {
        for version in VERSIONS {
            let file = example(version);
            assert_eq!(ControlFile::parse(&written(&file)), Ok(file));
        }
    }

    #[test]
    fn the_head_is_enough_for_cluster_and_state() {
        let file = example(1300);
        let bytes = written(&file);
        assert_eq!(PgControlHead::parse(&bytes[..PgControlHead::SIZE]), Ok(file.head));
        assert_eq!(PgControlHead::parse_whole(&bytes), Ok(file.head));
        assert_eq!(PgControlHead::parse(&bytes[..19]), Err(ControlError::Size(19)));
        for (state, shut_down) in [(0, false), (1, true), (2, true), (3, false), (6, false)] {
            let mut bytes = bytes.clone();
            put(&mut bytes, AT_STATE, state);
            assert_eq!(PgControlHead::parse(&bytes).unwrap().shut_down, shut_down);
        }
        // Of a later version too.
        let mut later = bytes;
        put(&mut later, AT_VERSION, 2500);
        assert_eq!(PgControlHead::parse(&later).unwrap().pg_control_version, 2500);
        assert_eq!(ControlFile::parse(&later), Err(ControlError::Version(2500)));
    }

    #[test]
    fn what_is_no_control_file_is_refused_in_any_case() {
        let good = written(&example(1300));
        let swapped = 1300_u32.swap_bytes();
        let mut other_order = good.clone();
        put(&mut other_order, AT_VERSION, swapped);
        for (bytes, error) in [
            (&good[..8191], ControlError::Size(8191)),
            (&[0; PG_CONTROL_SIZE], ControlError::Zero),
            (&other_order, ControlError::Impossible(swapped)),
        ] {
            assert_eq!(PgControlHead::parse_whole(bytes), Err(error));
            assert_eq!(ControlFile::parse(bytes), Err(error));
        }
    }

    #[test]
    fn sizes_that_postgresql_cannot_have_are_refused() {
        let with = |at: usize, word: u32| {
            let mut bytes = written(&example(1300));
            put(&mut bytes, at, word);
            sign(&mut bytes);
            ControlFile::parse(&bytes).unwrap_err()
        };
        assert_eq!(with(252, 2), ControlError::ChecksumVersion(2));
        assert!(matches!(
            with(216, 8191),
            ControlError::Layout { page_size: 8191, .. }
        ));
        assert!(matches!(
            with(220, 0),
            ControlError::Layout { segment_pages: 0, .. }
        ));
        assert_eq!(with(228, 3 << 20), ControlError::WalSegmentSize(3 << 20));
    }

    fn any_file() -> impl Strategy<Value = ControlFile> {
        let numbers = any::<[u32; 6]>();
        let sizes = (10_u32..=15, 1..=u32::MAX, 20_u32..=30);
        (
            select(&VERSIONS[..]),
            1..=u64::MAX,
            numbers,
            sizes,
            any::<[bool; 2]>(),
        )
            .prop_map(
                |(version, id, numbers, (page, segment_pages, wal), [shut_down, checksums])| {
                    let mut file = example(version);
                    let settings = &mut file.settings;
                    file.head.system_id = SystemId(id);
                    file.head.shut_down = shut_down;
                    file.head.catalog_version = numbers[0];
                    settings.max_connections = numbers[1];
                    settings.max_worker_processes = numbers[2];
                    settings.max_wal_senders = settings.max_wal_senders.map(|_| numbers[3]);
                    settings.max_prepared_transactions = numbers[4];
                    settings.max_locks_per_transaction = numbers[5];
                    file.checksums = checksums;
                    file.layout = PageLayout::new(1 << page, segment_pages).unwrap();
                    file.wal_segment_size = WalSegmentSize::from_bytes(1 << wal).unwrap();
                    file
                },
            )
    }

    proptest! {
        #[test]
        fn a_control_file_is_read_as_it_was_written(file in any_file()) {
            prop_assert_eq!(ControlFile::parse(&written(&file)), Ok(file));
        }

        #[test]
        fn a_flipped_bit_is_found(file in any_file(), at in 0..280_usize, bit in 0..8_u8) {
            let mut bytes = written(&file);
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(ControlFile::parse(&bytes).is_err());
        }

        #[test]
        fn whatever_it_holds_nothing_panics(
            version in select(&VERSIONS[..]),
            noise: Vec<u8>,
            at in 12..300_usize,
            size in 0..=PG_CONTROL_SIZE,
        ) {
            let mut bytes = written(&example(version));
            let noise = &noise[..noise.len().min(300 - at)];
            bytes[at..at + noise.len()].copy_from_slice(noise);
            sign(&mut bytes);
            let _ = ControlFile::parse(&bytes);
            let _ = ControlFile::parse(&bytes[..size]);
            let _ = PgControlHead::parse(noise);
        }
    }
}
