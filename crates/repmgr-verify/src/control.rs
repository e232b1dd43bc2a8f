use crate::page::PageLayout;

/// What `global/pg_control` says of a cluster's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterPages {
    /// Whether pages have checksums (`initdb -k`, `pg_checksums`; the default from 18 on).
    pub checksums: bool,
    /// The sizes of pages and segments.
    pub layout: PageLayout,
}

/// Where things are in the control file of a family of versions, in bytes, on 64-bit machines.
struct Fields {
    page_size: usize,
    checksums: usize,
    /// The CRC-32C of all before it.
    crc: usize,
}

/// From `catalog/pg_control.h` of each version, and proven on real files. A control version that is not
/// here gives an error, never a guess.
fn fields(pg_control_version: u32) -> Option<Fields> {
    let (page_size, checksums, crc) = match pg_control_version {
        // 10; 12; 13 to 16; 17: what one lost before these fields, another gained.
        1002 | 1201 | 1300 | 1700 => (216, 252, 288),
        // 11.
        1100 => (208, 244, 280),
        // 18.
        1800 => (216, 252, 292),
        _ => return None,
    };
    Some(Fields {
        page_size,
        checksums,
        crc,
    })
}

const AT_VERSION: usize = 8;
/// In every version of PostgreSQL; what is behind the CRC is zeros.
const FILE_SIZE: usize = 8192;

impl ClusterPages {
    /// From the content of `global/pg_control`, of PostgreSQL 10 to 18, written on a machine like this one.
    ///
    /// The file itself says which version wrote it.
    ///
    /// # Errors
    /// If it is not whole, of an unknown version, or damaged.
    pub fn from_pg_control(bytes: &[u8]) -> Result<Self, ControlFileError> {
        if bytes.len() != FILE_SIZE {
            return Err(ControlFileError::Size(bytes.len()));
        }
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|n| bytes[at + n]));
        let fields = fields(word(AT_VERSION)).ok_or(ControlFileError::Version(word(AT_VERSION)))?;
        let (stored, calculated) = (word(fields.crc), crc32c::crc32c(&bytes[..fields.crc]));
        if stored != calculated {
            return Err(ControlFileError::Crc { stored, calculated });
        }
        let (page_size, segment_pages) = (word(fields.page_size), word(fields.page_size + 4));
        Ok(Self {
            layout: PageLayout::new(page_size, segment_pages).ok_or(ControlFileError::Layout {
                page_size,
                segment_pages,
            })?,
            checksums: match word(fields.checksums) {
                0 => false,
                1 => true,
                other => return Err(ControlFileError::ChecksumVersion(other)),
            },
        })
    }
}

/// A control file that does not tell how pages are to be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Not a whole control file.
    #[error("the control file has {0} bytes instead of {FILE_SIZE}")]
    Size(usize),
    /// Of a version of PostgreSQL that is not known here, of a machine with another byte order, or garbage.
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
    /// A way of making page checksums that is not known here.
    #[error("the control file speaks of page checksums of version {0}")]
    ChecksumVersion(u32),
}

impl ControlFileError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Version(_) | Self::ChecksumVersion(_) => {
                Some("page checksums can be verified for PostgreSQL 10 to 18".to_owned())
            }
            Self::Size(_) | Self::Crc { .. } | Self::Layout { .. } => {
                Some("PostgreSQL will not start with this control file; take another backup".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The real ones are in tests/control_files.rs.
    fn sample(version: u32, checksums: u32, page_size: u32) -> Vec<u8> {
        let fields = fields(version).unwrap();
        let mut bytes = vec![0; FILE_SIZE];
        let mut put = |at: usize, word: u32| bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        put(AT_VERSION, version);
        put(fields.checksums, checksums);
        put(fields.page_size, page_size);
        put(fields.page_size + 4, 131_072);
        let crc = crc32c::crc32c(&bytes[..fields.crc]);
        bytes[fields.crc..fields.crc + 4].copy_from_slice(&crc.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_it_says_of_pages_is_read() {
        let read = |bytes: &[u8]| ClusterPages::from_pg_control(bytes);
        for version in [1002, 1100, 1201, 1300, 1700, 1800] {
            let pages = read(&sample(version, 1, 8192)).unwrap();
            assert!(pages.checksums && pages.layout == PageLayout::DEFAULT);
            assert!(!read(&sample(version, 0, 8192)).unwrap().checksums);
        }
        let large = read(&sample(1300, 1, 32_768)).unwrap();
        assert_eq!(large.layout.page_size(), 32_768);
    }

    #[test]
    fn what_it_cannot_say_is_an_error() {
        let read = |bytes: &[u8]| ClusterPages::from_pg_control(bytes).unwrap_err();
        let good = sample(1300, 1, 8192);
        assert_eq!(read(&good[..8191]), ControlFileError::Size(8191));
        assert_eq!(read(&[0; FILE_SIZE]), ControlFileError::Version(0));
        for (version, expected) in [(1900, 1900), (1300_u32.swap_bytes(), 1300_u32.swap_bytes())] {
            let mut other = good.clone();
            other[AT_VERSION..AT_VERSION + 4].copy_from_slice(&u32::to_ne_bytes(version));
            assert_eq!(read(&other), ControlFileError::Version(expected));
        }
        for at in [0, 16, 252, 288, 291] {
            let mut damaged = good.clone();
            damaged[at] ^= 4;
            assert!(matches!(read(&damaged), ControlFileError::Crc { .. }), "{at}");
        }
        assert_eq!(read(&sample(1300, 2, 8192)), ControlFileError::ChecksumVersion(2));
        assert!(matches!(
            read(&sample(1300, 1, 8191)),
            ControlFileError::Layout { .. }
        ));
    }
}
