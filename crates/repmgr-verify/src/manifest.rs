use std::fmt;

use openssl::sha::sha256;
use repmgr_types::text::one_line;
use repmgr_types::{Lsn, SystemId, Timeline};

use crate::digest::{Checksum, ChecksumAlgorithm, FileCheck};

mod json;

/// The list of a backup's files with their sizes and checksums: `backup_manifest`, which `pg_basebackup`
/// writes from PostgreSQL 13 on, and Barman 3.7 and later for rsync backups when asked to.
///
/// Kept compact: about 50 bytes a file with CRC-32C checksums, and no allocation for each.
#[derive(Clone)]
pub struct Manifest {
    system_identifier: Option<SystemId>,
    wal_ranges: Vec<WalRange>,
    /// In the order of their paths.
    files: Vec<File>,
    /// Paths, each with its checksum behind it.
    text: Vec<u8>,
}

#[derive(Clone, Copy)]
struct File {
    size: u64,
    /// In `text`, whose length a `u32` holds.
    start: u32,
    path_len: u32,
    algorithm: Option<ChecksumAlgorithm>,
}

/// A piece of WAL that recovery of the backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// On this timeline,
    pub timeline: Timeline,
    /// from here
    pub start: Lsn,
    /// to here.
    pub end: Lsn,
}

/// What a manifest says of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestEntry<'a> {
    /// Relative to the data directory, without `.` or `..`; in a tablespace `pg_tblspc/OID/PG_...`.
    pub path: &'a [u8],
    /// In bytes.
    pub size: u64,
    /// None in a manifest made with `--manifest-checksums=NONE`.
    pub checksum: Option<Checksum>,
}

impl ManifestEntry<'_> {
    /// The file against this entry, to be fed with its bytes.
    pub fn check(&self) -> FileCheck {
        FileCheck::new(self.size, self.checksum)
    }
}

impl Manifest {
    /// Reads a manifest of version 1 (PostgreSQL 13 to 16, Barman) or 2 (17 and later), and verifies the
    /// SHA-256 checksum of itself that is its last line.
    ///
    /// # Errors
    /// If it is cut, damaged, of another version, or lists what no base backup has: absolute paths, paths
    /// with `..`, one path twice. Whatever cannot be understood is an error, as for `pg_verifybackup`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        verify_own_checksum(bytes)?;
        let mut manifest = json::read(bytes)?;
        manifest.sort()?;
        Ok(manifest)
    }

    /// The file at this path relative to the data directory.
    pub fn get(&self, path: &[u8]) -> Option<ManifestEntry<'_>> {
        let found = self
            .files
            .binary_search_by(|file| self.path_of(file).cmp(path))
            .ok()?;
        Some(self.entry(&self.files[found]))
    }

    /// All files, in the order of their paths.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ManifestEntry<'_>> {
        self.files.iter().map(|file| self.entry(file))
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it lists no file at all.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Which cluster the backup is of, from PostgreSQL 17 on.
    pub fn system_identifier(&self) -> Option<SystemId> {
        self.system_identifier
    }

    /// The WAL that recovery needs, in the order of the manifest, newest timeline first. Barman's own
    /// manifests tell of none.
    pub fn wal_ranges(&self) -> &[WalRange] {
        &self.wal_ranges
    }

    fn entry(&self, file: &File) -> ManifestEntry<'_> {
        let checksum = file.algorithm.and_then(|algorithm| {
            let start = (file.start + file.path_len) as usize;
            Checksum::new(algorithm, &self.text[start..start + algorithm.size()])
        });
        ManifestEntry {
            path: self.path_of(file),
            size: file.size,
            checksum,
        }
    }

    fn path_of(&self, file: &File) -> &[u8] {
        path_in(&self.text, file)
    }

    fn sort(&mut self) -> Result<(), ManifestError> {
        let text = &self.text;
        self.files
            .sort_unstable_by(|a, b| path_in(text, a).cmp(path_in(text, b)));
        let twice = self
            .files
            .windows(2)
            .find(|pair| path_in(text, &pair[0]) == path_in(text, &pair[1]));
        if let Some([file, _]) = twice {
            return Err(ManifestError::entry(path_in(text, file), "is listed twice"));
        }
        self.files.shrink_to_fit();
        self.text.shrink_to_fit();
        Ok(())
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("files", &self.len())
            .field("system_identifier", &self.system_identifier)
            .field("wal_ranges", &self.wal_ranges)
            .finish_non_exhaustive()
    }
}

fn path_in<'a>(text: &'a [u8], file: &File) -> &'a [u8] {
    &text[file.start as usize..(file.start + file.path_len) as usize]
}

/// The last line holds the checksum of all lines before it.
fn verify_own_checksum(bytes: &[u8]) -> Result<(), ManifestError> {
    let body = bytes.strip_suffix(b"\n").ok_or(ManifestError::Cut)?;
    let line = body
        .iter()
        .rposition(|byte| *byte == b'\n')
        .ok_or(ManifestError::Cut)?
        + 1;
    let stated = body[line..]
        .strip_prefix(b"\"Manifest-Checksum\": \"")
        .and_then(|rest| rest.strip_suffix(b"\"}"))
        .and_then(|digits| Checksum::from_hex(ChecksumAlgorithm::Sha256, str::from_utf8(digits).ok()?))
        .ok_or(ManifestError::Cut)?;
    let found = sha256(&bytes[..line]);
    if stated.as_bytes() == found {
        Ok(())
    } else {
        Err(ManifestError::Damaged)
    }
}

/// A backup manifest that is not to be relied on.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The last line is missing, or it is something else.
    #[error("the backup manifest does not end with its checksum")]
    Cut,
    /// Not the bytes that were written.
    #[error("the backup manifest is damaged: its content does not have the checksum it ends with")]
    Damaged,
    /// Of a version that is not known here.
    #[error("the backup manifest is of version {0}")]
    Version(u64),
    /// Something else than a manifest holds, though its checksum is right.
    #[error("the backup manifest is not understood")]
    Json(#[source] serde_json::Error),
    /// A file that cannot be in a backup.
    #[error("the backup manifest lists \"{path}\", which {problem}")]
    Entry {
        /// The path as listed; bytes that are not UTF-8 are replaced, what is not to be shown escaped.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More than 4 GB.
    #[error("the backup manifest has {0} bytes")]
    TooLarge(usize),
}

impl ManifestError {
    fn entry(path: &[u8], problem: &'static str) -> Self {
        Self::Entry {
            path: one_line(&String::from_utf8_lossy(path)),
            problem,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Version(_) => "manifests of version 1 (PostgreSQL 13 to 16) and 2 (17 and 18) can be read",
            Self::Cut | Self::Damaged | Self::Json(_) | Self::Entry { .. } | Self::TooLarge(_) => {
                "the backup may be damaged elsewhere too; take another one"
            }
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests;
