use std::fmt;
use std::str::FromStr;

/// How far a backup got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupStatus {
    /// Complete, with the WAL it needs.
    Done,
    /// Complete but for WAL that is not in the archive yet (Barman 2.5 and later).
    WaitingForWals,
    /// Just begun.
    Empty,
    /// Being taken, or its taking crashed.
    Started,
    /// Not complete, and it never will be.
    Failed,
    /// Being copied from another Barman.
    Syncing,
}

impl BackupStatus {
    /// Whether all files are there.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Done | Self::WaitingForWals)
    }
}

impl FromStr for BackupStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "DONE" => Self::Done,
            "WAITING_FOR_WALS" => Self::WaitingForWals,
            "EMPTY" => Self::Empty,
            "STARTED" => Self::Started,
            "FAILED" => Self::Failed,
            "SYNCING" => Self::Syncing,
            _ => return Err(()),
        })
    }
}

impl fmt::Display for BackupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "DONE",
            Self::WaitingForWals => "WAITING_FOR_WALS",
            Self::Empty => "EMPTY",
            Self::Started => "STARTED",
            Self::Failed => "FAILED",
            Self::Syncing => "SYNCING",
        })
    }
}

/// How a backup was made, the key `mode` of backup.info.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupMode {
    /// rsync between pg_start_backup and pg_stop_backup. Brings the primary's tablespace_map along.
    RsyncExclusive,
    /// rsync in the non-exclusive way.
    RsyncConcurrent,
    /// pg_basebackup.
    Postgres,
    /// Snapshots of cloud disks.
    Snapshot(String),
    /// Straight into an object store.
    LocalToCloud,
    /// Another word: `passive` on a node that copies from another Barman, or something newer than this crate.
    Other(String),
}

impl From<&str> for BackupMode {
    fn from(text: &str) -> Self {
        match text {
            "rsync-exclusive" => Self::RsyncExclusive,
            "rsync-concurrent" => Self::RsyncConcurrent,
            "postgres" => Self::Postgres,
            "local-to-cloud" => Self::LocalToCloud,
            text if text.starts_with("snapshot") => Self::Snapshot(text.to_owned()),
            text => Self::Other(text.to_owned()),
        }
    }
}

impl fmt::Display for BackupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RsyncExclusive => "rsync-exclusive",
            Self::RsyncConcurrent => "rsync-concurrent",
            Self::Postgres => "postgres",
            Self::LocalToCloud => "local-to-cloud",
            Self::Snapshot(text) | Self::Other(text) => text,
        })
    }
}

/// What a backup consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// All files.
    Full,
    /// What changed since another backup (Barman 3.11 and later).
    Incremental,
    /// Snapshots of disks.
    Snapshot,
}

/// That a backup is exempt from retention (`barman keep`, Barman 2.14 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// With all WAL since.
    Full,
    /// Only with the WAL from its begin to its end: from the archive alone a standby cannot roll forward
    /// past the end.
    Standalone,
}
