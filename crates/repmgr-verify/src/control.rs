use repmgr_pgfile::{ControlError, ControlFile, PageLayout};

/// What `global/pg_control` says of a cluster's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterPages {
    /// Whether pages have checksums (`initdb -k`, `pg_checksums`; the default from 18 on).
    pub checksums: bool,
    /// The sizes of pages and segments.
    pub layout: PageLayout,
}

impl ClusterPages {
    /// From the content of `global/pg_control`, of PostgreSQL 10 to 19, written on a machine like this one.
    ///
    /// # Errors
    /// As [`ControlFile::parse`].
    pub fn from_pg_control(bytes: &[u8]) -> Result<Self, ControlError> {
        ControlFile::parse(bytes).map(|file| Self::from(&file))
    }
}

impl From<&ControlFile> for ClusterPages {
    fn from(file: &ControlFile) -> Self {
        Self {
            checksums: file.checksums,
            layout: file.layout,
        }
    }
}
