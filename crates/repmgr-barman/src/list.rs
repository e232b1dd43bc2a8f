use std::fmt;

use repmgr_remote::{ShellCommand, one_line};
use repmgr_types::{BackupId, Lsn, PgVersion, Timeline, WalSegmentName};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::backup;
use crate::describe::{self, Description};
use crate::error::BarmanError;
use crate::info::{Info, InfoError};
use crate::kind::{BackupKind, BackupMode, BackupStatus, Keep};
use crate::session::Barman;
use crate::when::BackupTime;

/// A backup in Barman's catalogue, in whatever state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedBackup {
    /// Its literal id.
    pub id: BackupId,
    /// Exempt from retention.
    pub keep: Option<Keep>,
    /// Barman is deleting it, or began to and crashed.
    pub being_deleted: bool,
    /// What its backup.info says, or why that cannot be read.
    #[serde(serialize_with = "result")]
    pub summary: Result<BackupSummary, InfoError>,
}

/// What backup.info says of a backup that need not be complete: then most is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    /// How far it got.
    #[serde(serialize_with = "text")]
    pub status: BackupStatus,
    /// What went wrong when it was taken.
    pub error: Option<String>,
    /// The name it was given (Barman 3.3 and later).
    pub name: Option<String>,
    /// What it consists of.
    pub kind: BackupKind,
    /// How it was made.
    #[serde(serialize_with = "text")]
    pub mode: BackupMode,
    /// PostgreSQL's version when it was made.
    #[serde(serialize_with = "optional_text")]
    pub version: Option<PgVersion>,
    /// The timeline it was made on.
    #[serde(serialize_with = "optional_number")]
    pub timeline: Option<Timeline>,
    /// When taking it began.
    #[serde(serialize_with = "optional_text")]
    pub begin_time: Option<BackupTime>,
    /// When it was finished.
    #[serde(serialize_with = "optional_text")]
    pub end_time: Option<BackupTime>,
    /// Where replay begins.
    #[serde(serialize_with = "optional_text")]
    pub begin_lsn: Option<Lsn>,
    /// Where it is consistent.
    #[serde(serialize_with = "optional_text")]
    pub end_lsn: Option<Lsn>,
    /// The first WAL segment it needs.
    #[serde(serialize_with = "optional_text")]
    pub begin_wal: Option<WalSegmentName>,
    /// The last WAL segment it needs.
    #[serde(serialize_with = "optional_text")]
    pub end_wal: Option<WalSegmentName>,
    /// Bytes on the Barman host, without WAL.
    pub size: Option<u64>,
    /// `gzip`, `lz4`, `zstd` or `none` when it is made of tar files.
    pub compression: Option<String>,
    /// `gpg` when it is encrypted.
    pub encryption: Option<String>,
    /// The backup this one is an increment of.
    pub parent: Option<BackupId>,
}

/// As Barman writes it.
fn text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn optional_text<S: Serializer>(value: &Option<impl fmt::Display>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn optional_number<S: Serializer>(timeline: &Option<Timeline>, serializer: S) -> Result<S::Ok, S::Error> {
    timeline.map(Timeline::id).serialize(serializer)
}

/// The summary, or `{"error": ...}`.
fn result<S: Serializer>(
    summary: &Result<BackupSummary, InfoError>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match summary {
        Ok(summary) => summary.serialize(serializer),
        Err(error) => {
            let mut object = serializer.serialize_struct("Error", 1)?;
            object.serialize_field("error", &error.to_string())?;
            object.end()
        }
    }
}

impl BackupSummary {
    fn read(info: &Info<'_>) -> Result<Self, InfoError> {
        let mode = backup::mode(info)?;
        let parent: Option<BackupId> = info.value("parent_backup_id", "a backup id")?;
        let kind = match (&mode, &parent) {
            (BackupMode::Snapshot(_), _) => BackupKind::Snapshot,
            (_, Some(_)) => BackupKind::Incremental,
            (_, None) => BackupKind::Full,
        };
        let line = |key| Ok(info.text(key)?.map(one_line));
        Ok(Self {
            status: backup::status(info)?,
            error: line("error")?,
            name: line("backup_name")?,
            kind,
            mode,
            version: info.value("version", "a number")?.and_then(PgVersion::from_num),
            timeline: info.value("timeline", "a number")?.and_then(Timeline::new),
            begin_time: info.value("begin_time", "a time")?,
            end_time: info.value("end_time", "a time")?,
            begin_lsn: info.value("begin_xlog", "a WAL position")?,
            end_lsn: info.value("end_xlog", "a WAL position")?,
            begin_wal: info.value("begin_wal", "a WAL segment name")?,
            end_wal: info.value("end_wal", "a WAL segment name")?,
            size: info.value("size", "a number of bytes")?,
            compression: line("compression")?,
            encryption: line("encryption")?,
            parent,
        })
    }
}

impl Barman {
    /// Every backup of the Barman server, in whatever state, the newest first.
    ///
    /// Asks Barman once where they are, with a list of files that is cut after the first, and reads all their
    /// backup.info files in one command. Where no backup is complete Barman looks at the primary as well, which takes
    /// longer when that does not answer.
    ///
    /// # Errors
    /// As for any call. A backup whose backup.info makes no sense is in the list, with the reason.
    pub fn backups(&mut self) -> Result<Vec<ListedBackup>, BarmanError> {
        let (base, meta) = match self.locate("latest") {
            Ok(((base, _), meta, _)) => (base, meta),
            Err(BarmanError::NoBackup { .. }) => (
                self.directory_setting("basebackups_directory")?,
                Some(self.meta_directory()?),
            ),
            Err(error) => return Err(error),
        };
        let list =
            ShellCommand::script(describe::SCRIPT).args([meta.as_deref().unwrap_or_default(), "all", &base]);
        let named = ShellCommand::new("ls").arg(&base);
        let output = self.run_script(&list, &named)?;
        if !output.exit.success() {
            let message = output.exit.stderr_text();
            if output.exit.code == Some(describe::CANNOT_READ) {
                return Err(BarmanError::CatalogueDenied {
                    host: self.host().to_owned(),
                    server: self.address.server.clone(),
                    directory: base,
                    message,
                });
            }
            return Err(self.failed(&named, output.exit.code, &output.exit.status(), &message));
        }
        let all = Description::parse_all(&output.stdout).map_err(|what| self.unexpected(&named, what))?;
        let mut listed: Vec<_> = all.into_iter().filter_map(listed).collect();
        listed.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(listed)
    }
}

fn listed(description: Description) -> Option<ListedBackup> {
    let found = description.found();
    Some(ListedBackup {
        id: description.id.clone()?,
        keep: description.keep,
        being_deleted: description.being_deleted,
        summary: Info::parse(found.info).and_then(|info| BackupSummary::read(&info)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::tests::INFO;

    fn read(text: &str) -> Result<BackupSummary, InfoError> {
        BackupSummary::read(&Info::parse(text.as_bytes())?)
    }

    #[test]
    fn a_complete_backup_is_told_in_full() {
        let summary = read(&format!("{INFO}backup_name=my own\n")).unwrap();
        assert_eq!(
            (summary.kind, summary.status),
            (BackupKind::Full, BackupStatus::Done)
        );
        assert_eq!(summary.name.as_deref(), Some("my own"));
        assert_eq!(summary.begin_lsn, Some(Lsn(0x300_0028)));
        assert!(summary.end_time.unwrap().moment().is_some());
        assert_eq!(summary.size, Some(30_463_052));
    }

    #[test]
    fn a_failed_backup_says_what_it_can() {
        let summary = read("status=FAILED\nerror=no \x1bspace\nmode=postgres\nbegin_wal=None\n").unwrap();
        assert_eq!(summary.error.as_deref(), Some("no \\u{1b}space"));
        assert_eq!((summary.begin_wal, summary.end_time), (None, None));
        assert!(read("mode=postgres\n").is_err());
        assert!(read("status=FINE\n").is_err());
    }

    #[test]
    fn programs_get_fields_and_of_a_damaged_one_the_reason() {
        let listed = |text: &str| ListedBackup {
            id: "20261126T004606".parse().unwrap(),
            keep: Some(Keep::Full),
            being_deleted: false,
            summary: read(text),
        };
        let value = serde_json::to_value(listed(INFO)).unwrap();
        assert_eq!(
            (&value["id"], &value["keep"]),
            (&"20261126T004606".into(), &"full".into())
        );
        let summary = &value["summary"];
        assert_eq!(
            (&summary["status"], &summary["kind"]),
            (&"DONE".into(), &"full".into())
        );
        assert_eq!(
            (&summary["begin_lsn"], &summary["timeline"]),
            (&"0/3000028".into(), &1.into())
        );
        let value = serde_json::to_value(listed("status=FINE\n")).unwrap();
        assert!(
            value["summary"]["error"].as_str().unwrap().contains("status"),
            "{value}"
        );
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |more: &str| read(&format!("status=DONE\n{more}\n")).unwrap().kind;
        assert_eq!(kind("mode=snapshot-aws"), BackupKind::Snapshot);
        assert_eq!(
            kind("mode=postgres\nparent_backup_id=20261126T004606"),
            BackupKind::Incremental
        );
        assert_eq!(kind("mode=passive"), BackupKind::Full);
    }
}
