//! Which clone an unfinished one is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use repmgr_datadir::{Marker, OutsideDir, Target, TargetState};
use repmgr_types::{BackupId, PgVersion, SystemId};
use serde::{Deserialize, Serialize};

use super::Places;
use crate::copy::reuse::Rule;

/// What identifies a clone that may be continued: what is copied, and where it goes. How the Barman host is
/// called or reached is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CloneIdentity {
    pub(crate) source: IdentitySource,
    /// In digits: numbers of this size are not safe in JSON.
    pub(crate) system_id: String,
    major: String,
    tablespaces: BTreeMap<u32, PathBuf>,
    wal_directory: Option<PathBuf>,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub(crate) enum IdentitySource {
    /// A backup, which can be continued.
    Barman {
        server: String,
        backup: BackupId,
        /// By which files of the replaced instance counted.
        delta: Option<Rule>,
    },
    /// What `pg_basebackup` began can only be begun anew.
    PgBasebackup,
}

impl CloneIdentity {
    pub(crate) fn new(
        source: IdentitySource,
        system_id: SystemId,
        version: PgVersion,
        places: &Places,
    ) -> Self {
        let tablespaces = places.tablespaces.iter();
        Self {
            source,
            system_id: system_id.to_string(),
            major: version.major_name(),
            tablespaces: tablespaces
                .map(|place| (place.origin.oid, place.dir.path().to_owned()))
                .collect(),
            wal_directory: places.wal.as_ref().map(OutsideDir::path).map(Path::to_owned),
        }
    }

    /// As the marker keeps it.
    pub(crate) fn value(&self) -> serde_json::Value {
        // Names and paths only: paths that are not UTF-8 make a clone that cannot be continued.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Of the unfinished clone in `target`, if it can be known and its files can be trusted.
    pub(crate) fn of_unfinished(target: &Target) -> Option<Self> {
        match target.state() {
            TargetState::Unfinished { marker: Some(marker) } => Self::of_marker(marker),
            _ => None,
        }
    }

    fn of_marker(marker: &Marker) -> Option<Self> {
        serde_json::from_value(marker.identity.clone()).ok()
    }

    /// The backup it is of, if it is one of this server of Barman's.
    pub(crate) fn backup_of(&self, barman_server: &str) -> Option<&BackupId> {
        match &self.source {
            IdentitySource::Barman { server, backup, .. } if server == barman_server => Some(backup),
            _ => None,
        }
    }

    /// The rule by which it reuses files of the instance that it replaces.
    pub(crate) fn delta(&self) -> Option<Rule> {
        match &self.source {
            IdentitySource::Barman { delta, .. } => *delta,
            IdentitySource::PgBasebackup => None,
        }
    }

    /// Its major version, if its tablespace `oid` is at `location`.
    pub(super) fn major_of_tablespace(&self, oid: u32, location: &Path) -> Option<&str> {
        let is_there = self.tablespaces.get(&oid).is_some_and(|place| place == location);
        is_there.then_some(self.major.as_str())
    }

    /// Whether its WAL directory is at `location`.
    pub(super) fn has_wal_at(&self, location: &Path) -> bool {
        self.wal_directory.as_deref() == Some(location)
    }
}

/// Whether what stands in the target is this very clone, and its files can be trusted.
pub(crate) fn can_resume(target: &Target, identity: &CloneIdentity) -> bool {
    match target.state() {
        TargetState::Unfinished { marker: Some(marker) } => {
            marker.is_resumable()
                && matches!(identity.source, IdentitySource::Barman { .. })
                && CloneIdentity::of_marker(marker).as_ref() == Some(identity)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(backup: &str) -> CloneIdentity {
        let source = IdentitySource::Barman {
            server: "main".to_owned(),
            backup: backup.parse().unwrap(),
            delta: Some(Rule::Manifest),
        };
        CloneIdentity {
            tablespaces: [(16400, PathBuf::from("/fast"))].into(),
            wal_directory: Some("/wal".into()),
            ..CloneIdentity::new(
                source,
                SystemId(7),
                PgVersion::from_num(150_018).unwrap(),
                &Places::default(),
            )
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let identity = identity("20261126T010513");
        let read: CloneIdentity = serde_json::from_value(identity.value()).unwrap();
        assert_eq!(read, identity);
        assert_ne!(read, self::identity("20261127T010513"));
    }

    #[test]
    fn it_knows_its_own_places_and_no_others() {
        let identity = identity("20261126T010513");
        assert_eq!(
            identity.major_of_tablespace(16400, Path::new("/fast")),
            Some("15")
        );
        assert_eq!(identity.major_of_tablespace(16400, Path::new("/other")), None);
        assert_eq!(identity.major_of_tablespace(1, Path::new("/fast")), None);
        assert!(identity.has_wal_at(Path::new("/wal")) && !identity.has_wal_at(Path::new("/w")));
    }

    #[test]
    fn its_backup_counts_for_its_own_server_only() {
        let identity = identity("20261126T010513");
        assert!(identity.backup_of("main").is_some());
        assert!(identity.backup_of("other").is_none());
    }
}
