use repmgr_types::SystemId;

/// Where the control file is, relative to the data directory. PostgreSQL does not start without it.
pub const PG_CONTROL: &str = "global/pg_control";

/// The size of the control file in bytes, in all versions since 8.0 (`PG_CONTROL_FILE_SIZE`).
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
    /// disk, and its files' times say when. `false` when only the first 16 bytes were given.
    pub shut_down: bool,
}

/// Bytes that are not a control file of this machine's kind.
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
    Version(u32),
}

impl PgControlHead {
    /// Reads the first 16 bytes, in the byte order of this machine.
    ///
    /// # Errors
    /// When they are too few, all zero, or hold a version no PostgreSQL wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let Some(head) = bytes.first_chunk::<16>() else {
            return Err(ControlError::Size(bytes.len()));
        };
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let [a, b, c, d, e, f, g, h, ..] = *head;
        let system_id = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        if system_id == 0 {
            return Err(ControlError::Zero);
        }
        // 8.0 wrote 74, 9.6 960, 10 1002, 18 1800; the other byte order gives numbers above 2^16.
        match word(8) {
            version @ 72..10_000 => Ok(Self {
                system_id: SystemId(system_id),
                pg_control_version: version,
                catalog_version: word(12),
                // DB_SHUTDOWNED and DB_SHUTDOWNED_IN_RECOVERY, in all versions since 9.0.
                shut_down: bytes
                    .get(16..20)
                    .and_then(|state| state.try_into().ok())
                    .is_some_and(|state| matches!(u32::from_ne_bytes(state), 1 | 2)),
            }),
            version => Err(ControlError::Version(version)),
        }
    }

    /// As [`PgControlHead::parse`], for the whole file.
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

/// A plausible control file, for this crate's tests.
#[cfg(test)]
pub(crate) fn sample_control() -> Vec<u8> {
    let mut bytes = vec![0; PG_CONTROL_SIZE];
    bytes[..8].copy_from_slice(&7_412_345_678_901_234_567_u64.to_ne_bytes());
    bytes[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
    bytes[12..16].copy_from_slice(&202_209_061_u32.to_ne_bytes());
    bytes[16..20].copy_from_slice(&1_u32.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_names_cluster_and_catalogue() {
        let head = PgControlHead::parse_whole(&sample_control()).unwrap();
        assert_eq!(head.system_id, SystemId(7_412_345_678_901_234_567));
        assert_eq!(
            (head.pg_control_version, head.catalog_version),
            (1300, 202_209_061)
        );
    }

    #[test]
    fn what_is_not_a_control_file_is_refused() {
        let good = sample_control();
        assert_eq!(PgControlHead::parse(&good[..15]), Err(ControlError::Size(15)));
        assert_eq!(
            PgControlHead::parse_whole(&good[..8191]),
            Err(ControlError::Size(8191))
        );
        assert_eq!(PgControlHead::parse(&[0; 8192]), Err(ControlError::Zero));
        let mut swapped = good;
        swapped[8..12].reverse();
        assert!(matches!(
            PgControlHead::parse(&swapped),
            Err(ControlError::Version(_))
        ));
    }
}
