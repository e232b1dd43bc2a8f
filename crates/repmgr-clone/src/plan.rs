//! What a clone will do, as data. Text and JSON are views of it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::Method;
use crate::event::ByteSize;

/// What a clone will do. Its `Display` is for people, several lines; it serialises for programs, paths that
/// are not UTF-8 with replacement characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// How the base backup comes here.
    pub method: Method,
    /// What is copied.
    pub source: PlannedSource,
    /// Files to copy at most; not known beforehand with `pg_basebackup`.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// The most that is transferred in a second, in bytes.
    pub max_rate: Option<u64>,
    /// The data directory, symbolic links resolved.
    #[serde(serialize_with = "as_text")]
    pub data_directory: PathBuf,
    /// What is in it now, and what becomes of that.
    pub present: Present,
    /// Where the tablespaces go.
    pub tablespaces: Vec<PlannedTablespace>,
    /// A WAL directory outside the data directory.
    #[serde(serialize_with = "as_optional_text")]
    pub wal_directory: Option<PathBuf>,
    /// The node the standby will follow, where it is known by a record.
    pub upstream_node_id: Option<i32>,
    /// What will be configured.
    pub settings: Vec<PlannedSetting>,
    /// What will be raised to what the primary has, as far as it is known before the backup is here.
    pub raised: Vec<PlannedLimit>,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlannedSource {
    /// A backup in Barman's catalogue.
    #[non_exhaustive]
    Barman {
        /// The Barman host.
        host: String,
        /// The server's name in Barman.
        server: String,
        /// The backup's id.
        backup: String,
        /// PostgreSQL's version.
        version: String,
        /// The timeline it was taken on.
        timeline: u32,
        /// When it was finished, as Barman says it.
        end_time: String,
        /// What an incremental backup is combined from: ids, the full backup first, itself last. Empty for a full
        /// backup.
        chain: Vec<String>,
    },
    /// The source node itself.
    #[non_exhaustive]
    Server {
        /// Where it is.
        endpoint: String,
        /// PostgreSQL's version.
        version: String,
    },
}

/// A tablespace, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedTablespace {
    /// Its name.
    pub name: String,
    /// Its OID.
    pub oid: u32,
    /// Its directory here.
    #[serde(serialize_with = "as_text")]
    pub directory: PathBuf,
}

/// A setting of the standby, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedSetting {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// A setting that a standby must not have lower than its primary, and that its configuration has lower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedLimit {
    /// Its name.
    pub name: &'static str,
    /// What the standby's configuration says.
    pub from: u32,
    /// What it will say.
    pub to: u32,
}

/// What is in the data directory before the clone, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Present {
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
}

impl Present {
    /// Whether something will be erased.
    pub fn is_erased(self) -> bool {
        matches!(self, Self::OtherClone | Self::Instance)
    }
}

impl fmt::Display for Present {
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
        })
    }
}

impl PlannedSource {
    /// The id of the backup, if it is one of Barman's.
    pub fn backup(&self) -> Option<&str> {
        match self {
            Self::Barman { backup, .. } => Some(backup),
            Self::Server { .. } => None,
        }
    }
}

impl fmt::Display for PlannedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Barman {
                host,
                server,
                backup,
                version,
                timeline,
                end_time,
                chain,
            } => {
                write!(
                    f,
                    "backup {backup} of server \"{server}\" on {host} (PostgreSQL {version}, timeline {timeline}, \
                     finished {end_time})"
                )?;
                match chain.len() {
                    0 => Ok(()),
                    count => write!(f, ", combined from {count} backups"),
                }
            }
            Self::Server { endpoint, version } => write!(f, "{endpoint} (PostgreSQL {version})"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        if let (Some(files), Some(bytes)) = (self.files, self.bytes) {
            write!(f, ", {files} files, {}", ByteSize(bytes))?;
        }
        if let Some(rate) = self.max_rate {
            write!(f, ", at most {}/s", ByteSize(rate))?;
        }
        let directory = self.data_directory.display();
        write!(f, "\ndata directory \"{directory}\" {}", self.present)?;
        for PlannedTablespace { name, oid, directory } in &self.tablespaces {
            let directory = directory.display();
            write!(f, "\ntablespace \"{name}\" ({oid}) goes to \"{directory}\"")?;
        }
        if let Some(path) = &self.wal_directory {
            write!(f, "\nWAL directory goes to \"{}\"", path.display())?;
        }
        if let Some(id) = self.upstream_node_id {
            write!(f, "\nupstream node {id}")?;
        }
        for PlannedSetting { name, value } in &self.settings {
            write!(f, "\n{name} = '{value}'")?;
        }
        for PlannedLimit { name, from, to } in &self.raised {
            write!(
                f,
                "\n{name} will be raised from {from} to {to}, as the primary has it"
            )?;
        }
        Ok(())
    }
}

/// serde refuses paths that are not UTF-8, and with them the whole plan.
pub(crate) fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

fn as_optional_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref()
        .map(|path| path.to_string_lossy())
        .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn plan() -> Plan {
        Plan {
            method: Method::Barman,
            source: PlannedSource::Barman {
                host: "barmansrv".into(),
                server: "main".into(),
                backup: "20261126T010513".into(),
                version: "15.18".into(),
                timeline: 1,
                end_time: "2026-11-26 01:05:20+00:00".into(),
                chain: vec!["20261125T010513".into(), "20261126T010513".into()],
            },
            files: Some(1281),
            bytes: Some(52 << 20),
            max_rate: None,
            data_directory: "/data".into(),
            present: Present::Instance,
            tablespaces: vec![PlannedTablespace {
                name: "fast".into(),
                oid: 16400,
                directory: "/srv/fast".into(),
            }],
            wal_directory: Some("/wal".into()),
            upstream_node_id: Some(1),
            settings: vec![PlannedSetting {
                name: "primary_slot_name",
                value: "repmgr_slot_2".into(),
            }],
            raised: vec![PlannedLimit {
                name: "max_connections",
                from: 100,
                to: 300,
            }],
        }
    }

    #[test]
    fn the_text_is_a_view_of_the_data() {
        assert_eq!(
            plan().to_string(),
            "backup 20261126T010513 of server \"main\" on barmansrv (PostgreSQL 15.18, timeline 1, finished \
             2026-11-26 01:05:20+00:00), combined from 2 backups, 1281 files, 52 MB\n\
             data directory \"/data\" holds a stopped PostgreSQL instance, WHICH WILL BE ERASED\n\
             tablespace \"fast\" (16400) goes to \"/srv/fast\"\nWAL directory goes to \"/wal\"\nupstream node 1\n\
             primary_slot_name = 'repmgr_slot_2'\nmax_connections will be raised from 100 to 300, as the primary has it"
        );
    }

    #[test]
    fn programs_get_fields() {
        let value = serde_json::to_value(plan()).unwrap();
        assert_eq!(value["source"]["backup"], "20261126T010513");
        assert_eq!(value["present"], "instance");
        assert_eq!(value["tablespaces"][0]["directory"], "/srv/fast");
        assert_eq!(value["settings"][0]["value"], "repmgr_slot_2");
    }

    #[test]
    fn a_path_that_is_not_utf8_does_not_lose_the_plan() {
        let odd = std::ffi::OsString::from_vec(b"/d\xff".to_vec());
        let plan = Plan {
            data_directory: PathBuf::from(&odd),
            wal_directory: Some(odd.into()),
            ..plan()
        };
        let value = serde_json::to_value(plan).unwrap();
        assert_eq!(value["data_directory"], "/d\u{fffd}");
        assert_eq!(value["wal_directory"], "/d\u{fffd}");
    }
}
