//! The directories on this host that a base backup is written to.

use repmgr_datadir::{Tree, TreeError};
use repmgr_transfer::EntryKind;

use crate::source::backup::{Files, as_path};

/// Where the files go, in the order of the listings.
pub(crate) struct Trees<'a> {
    pub(crate) data: &'a Tree,
    pub(crate) tablespaces: &'a [Tree],
    pub(crate) wal: Option<&'a Tree>,
}

impl Trees<'_> {
    /// That of a listing or archive: the data directory's is the first.
    pub(crate) fn get(&self, source: usize) -> &Tree {
        match source {
            0 => self.data,
            n => &self.tablespaces[n - 1],
        }
    }

    /// Whether this directory of a listing is the one with the WAL, which goes to another place.
    pub(crate) fn is_elsewhere(&self, source: usize, path: &[u8]) -> bool {
        source == 0 && self.wal.is_some() && [&b"pg_wal"[..], b"pg_xlog"].contains(&path)
    }
}

/// Creates the directories of the backup, empty ones too.
pub(crate) fn create_directories(files: &Files, trees: &Trees<'_>) -> Result<(), TreeError> {
    for (n, listing) in files.listings.iter().enumerate() {
        for entry in listing.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            if !trees.is_elsewhere(n, entry.path) {
                trees.get(n).create_dir(as_path(entry.path))?;
            }
        }
    }
    Ok(())
}
