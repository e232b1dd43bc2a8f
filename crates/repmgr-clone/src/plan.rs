//! What a clone will do, as a value that can be shown.

use std::fmt;
use std::path::PathBuf;

use crate::Method;
use crate::event::ByteSize;

/// What a clone will do. Its `Display` is for people, several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How the base backup comes here.
    pub method: Method,
    /// What is copied, in words.
    pub source: String,
    /// The Barman backup's id.
    pub backup: Option<String>,
    /// Files to copy at most; not known beforehand with `pg_basebackup`.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// The data directory, symbolic links resolved.
    pub data_directory: PathBuf,
    /// What is in it now.
    pub existing: Existing,
    /// Tablespaces: name, oid, directory here.
    pub tablespaces: Vec<(String, u32, PathBuf)>,
    /// A WAL directory outside the data directory.
    pub wal_directory: Option<PathBuf>,
    /// The node the standby will follow, where it is known by a record.
    pub upstream_node_id: Option<i32>,
    /// What will be configured.
    pub settings: Vec<(&'static str, String)>,
}

/// What is in the data directory before the clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is not there.
    Absent,
    /// Nothing.
    Empty,
    /// An interrupted clone of the same backup, which will be continued.
    Interrupted,
    /// An interrupted clone of something else, which will be erased.
    OtherClone,
    /// A stopped PostgreSQL instance, which will be erased.
    Instance,
    /// A stopped PostgreSQL instance, whose files will be reused where they are those of the backup.
    Reused,
    /// Other files, which will be erased.
    Files,
}

impl Existing {
    /// Whether something will be erased.
    pub fn is_erased(self) -> bool {
        matches!(self, Self::OtherClone | Self::Instance | Self::Files)
    }
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "will be created",
            Self::Empty => "is empty",
            Self::Interrupted => "holds an interrupted clone of the same backup, which will be continued",
            Self::OtherClone => "holds another interrupted clone, which will be erased",
            Self::Instance => "holds a stopped PostgreSQL instance, WHICH WILL BE ERASED",
            Self::Reused => {
                "holds a stopped PostgreSQL instance, WHICH WILL BE REPLACED, reusing files that are the same"
            }
            Self::Files => "holds other files, WHICH WILL BE ERASED",
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let (Some(files), Some(bytes)) = (self.files, self.bytes) {
            write!(f, ", {files} files, {}", ByteSize(bytes))?;
        }
        write!(
            f,
            "\ndata directory \"{}\" {}",
            self.data_directory.display(),
            self.existing
        )?;
        for (name, oid, path) in &self.tablespaces {
            write!(
                f,
                "\ntablespace \"{name}\" ({oid}) goes to \"{}\"",
                path.display()
            )?;
        }
        if let Some(path) = &self.wal_directory {
            write!(f, "\nWAL directory goes to \"{}\"", path.display())?;
        }
        if let Some(id) = self.upstream_node_id {
            write!(f, "\nupstream node {id}")?;
        }
        for (name, value) in &self.settings {
            write!(f, "\n{name} = '{value}'")?;
        }
        Ok(())
    }
}
