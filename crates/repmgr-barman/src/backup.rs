use std::path::PathBuf;

use repmgr_types::{BackupId, Lsn, PgVersion, SystemId, Timeline, WalSegmentName, WalSegmentSize};

use crate::form::{Contents, Form, Unreadable, UnreadableReason as Reason};
use crate::info::{BackupTablespace, Info, InfoError};
use crate::kind::{BackupMode, BackupStatus, Keep};
use crate::when::BackupTime;

/// A complete backup: what its backup.info says, and where its files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The Barman server it belongs to.
    pub server: String,
    /// Its literal id, whatever word it was looked up by.
    pub id: BackupId,
    /// [`BackupStatus::Done`] or [`BackupStatus::WaitingForWals`]; with the latter, ask
    /// [`Barman::has_wal`](crate::Barman::has_wal) whether [`end_wal`](Self::end_wal) has arrived.
    pub status: BackupStatus,
    /// How it was made.
    pub mode: BackupMode,
    /// PostgreSQL's version when it was made.
    pub version: PgVersion,
    /// Barman 2.10 and later.
    pub system_id: Option<SystemId>,
    /// The timeline it was made on.
    pub timeline: Timeline,
    /// The first WAL segment it needs.
    pub begin_wal: WalSegmentName,
    /// The last WAL segment it needs.
    pub end_wal: WalSegmentName,
    /// Where replay begins.
    pub begin_lsn: Lsn,
    /// Where it is consistent. With pg_basebackup it may lie past the true end.
    pub end_lsn: Lsn,
    /// The size of the cluster's WAL segments.
    pub segment_size: WalSegmentSize,
    /// The data directory on the primary.
    pub pgdata: PathBuf,
    /// The tablespaces, without the two that live in the data directory.
    pub tablespaces: Vec<BackupTablespace>,
    /// postgresql.conf on the primary.
    pub config_file: Option<PathBuf>,
    /// pg_hba.conf on the primary.
    pub hba_file: Option<PathBuf>,
    /// pg_ident.conf on the primary.
    pub ident_file: Option<PathBuf>,
    /// When taking it began.
    pub begin_time: BackupTime,
    /// When it was finished.
    pub end_time: BackupTime,
    /// Bytes on the Barman host, when Barman says so.
    pub size: Option<u64>,
    /// Bytes of backup.info.
    pub(crate) notes: u64,
    /// Whether the cluster had data page checksums when it was made (Barman 3.11 and later).
    pub data_checksums: Option<bool>,
    /// Exempt from retention.
    pub keep: Option<Keep>,
    /// `gzip`, `lz4`, `zstd` or `none` when it is made of tar files.
    pub compression: Option<String>,
    /// `gpg` when it is encrypted.
    pub encryption: Option<String>,
    /// The backup this one is an increment of.
    pub parent: Option<BackupId>,
    /// Where everything of it lies on the Barman host: `/var/lib/barman/main/base/20261126T004606`.
    pub directory: String,
    /// Where backup.info lies when that is not beside `base`.
    pub(crate) meta: Option<String>,
    pub(crate) contents: Contents,
}

/// What was found about a backup on the far side.
#[derive(Debug, Default)]
pub(crate) struct Found<'t> {
    pub(crate) info: &'t [u8],
    pub(crate) keep: Option<Keep>,
    pub(crate) contents: Contents,
}

impl Backup {
    /// The data directory of it, or the place of its tar files.
    pub fn data_directory(&self) -> String {
        format!("{}/data", self.directory)
    }

    /// The files of the tablespace `oid`. Empty when the backup is made of tar files.
    pub fn tablespace_directory(&self, oid: u32) -> String {
        format!("{}/{oid}", self.directory)
    }

    /// How its files can be read without Barman.
    ///
    /// # Errors
    /// When they cannot, or are only what changed since another backup.
    pub fn form(&self) -> Result<Form, Unreadable> {
        match &self.parent {
            // Whatever else there is against it goes first.
            Some(parent) => self.own_form().and_then(|_| {
                Err(self.unreadable(Reason::Incremental {
                    parent: parent.clone(),
                }))
            }),
            None => self.own_form(),
        }
    }

    /// As [`form`](Self::form), also for an increment, whose files are of use only together with those of
    /// its [`chain`](crate::Barman::chain).
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn own_form(&self) -> Result<Form, Unreadable> {
        self.contents.form(self).map_err(|reason| self.unreadable(reason))
    }

    fn unreadable(&self, reason: Reason) -> Unreadable {
        Unreadable {
            server: self.server.clone(),
            id: self.id.clone(),
            reason,
        }
    }

    /// Reads backup.info of a complete backup.
    pub(crate) fn read(
        server: &str,
        id: BackupId,
        directory: String,
        meta: Option<String>,
        info: &Info<'_>,
        found: Found<'_>,
    ) -> Result<Self, InfoError> {
        const SEGMENT: &str = "a WAL segment name";
        const POSITION: &str = "a WAL position";
        let timeline: u32 = info.required("timeline", "a number")?;
        let version: u32 = info.required("version", "a number")?;
        let segment_size = info.value::<u64>("xlog_segment_size", "a number")?;
        let backup = Self {
            server: server.to_owned(),
            id,
            directory,
            meta,
            status: status(info)?,
            mode: mode(info)?,
            version: PgVersion::from_num(version)
                .ok_or_else(|| info.error("version", "a version of PostgreSQL"))?,
            system_id: info.value("systemid", "a system identifier")?,
            timeline: Timeline::new(timeline).ok_or_else(|| info.error("timeline", "a timeline"))?,
            begin_wal: info.required("begin_wal", SEGMENT)?,
            end_wal: info.required("end_wal", SEGMENT)?,
            begin_lsn: info.required("begin_xlog", POSITION)?,
            end_lsn: info.required("end_xlog", POSITION)?,
            segment_size: match segment_size {
                None => WalSegmentSize::DEFAULT,
                Some(bytes) => WalSegmentSize::from_bytes(bytes)
                    .ok_or_else(|| info.error("xlog_segment_size", "a size PostgreSQL allows"))?,
            },
            pgdata: info.path("pgdata").ok_or(InfoError::Missing { key: "pgdata" })?,
            tablespaces: info.tablespaces()?,
            config_file: info.path("config_file"),
            hba_file: info.path("hba_file"),
            ident_file: info.path("ident_file"),
            begin_time: info.required("begin_time", "a time")?,
            end_time: info.required("end_time", "a time")?,
            size: info.value("size", "a number of bytes")?,
            notes: found.info.len() as u64,
            data_checksums: info.text("data_checksums")?.map(|text| text == "on"),
            keep: found.keep,
            compression: info.text("compression")?.map(str::to_owned),
            encryption: info.text("encryption")?.map(str::to_owned),
            parent: info.value("parent_backup_id", "a backup id")?,
            contents: found.contents,
        };
        if backup.begin_wal.timeline() != backup.timeline {
            return Err(info.error("begin_wal", "a segment of the backup's timeline"));
        }
        if backup.begin_wal.number(backup.segment_size) > backup.end_wal.number(backup.segment_size) {
            return Err(info.error("end_wal", "at or after begin_wal"));
        }
        if backup.begin_lsn > backup.end_lsn {
            return Err(info.error("end_xlog", "at or after begin_xlog"));
        }
        Ok(backup)
    }

    /// Bytes that the files of the backup have at least, if Barman counted them when it was taken: it counted its
    /// own notes as well, which may have grown since.
    pub fn least_bytes(&self) -> Option<u64> {
        Some(self.size?.saturating_sub(self.notes))
    }

    /// The first thing that makes `other` another backup than this one. Status, retention and size may
    /// change while a backup stays what it is.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        let same = [
            ("mode", self.mode == other.mode),
            ("version", self.version == other.version),
            ("systemid", self.system_id == other.system_id),
            ("timeline", self.timeline == other.timeline),
            ("begin_wal", self.begin_wal == other.begin_wal),
            ("end_wal", self.end_wal == other.end_wal),
            ("begin_xlog", self.begin_lsn == other.begin_lsn),
            ("end_xlog", self.end_lsn == other.end_lsn),
            ("begin_time", self.begin_time == other.begin_time),
            ("tablespaces", self.tablespaces == other.tablespaces),
            ("compression", self.compression == other.compression),
            ("encryption", self.encryption == other.encryption),
            ("parent_backup_id", self.parent == other.parent),
            (
                "list of directories and tar files",
                self.contents == other.contents,
            ),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }
}

/// The key `mode`. Backups older than the key were all made by one method.
pub(crate) fn mode(info: &Info<'_>) -> Result<BackupMode, InfoError> {
    let mode = info.text("mode")?;
    Ok(mode.map_or(BackupMode::RsyncExclusive, BackupMode::from))
}

/// The key `status`.
pub(crate) fn status(info: &Info<'_>) -> Result<BackupStatus, InfoError> {
    info.required("status", "a status of a backup")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const INFO: &str = "\
        backup_label='START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\\nLABEL: x=y\\n'\n\
        begin_offset=40\nbegin_time=2026-11-26 00:46:06.677538+00:00\nbegin_wal=000000010000000000000003\n\
        begin_xlog=0/3000028\nchildren_backup_ids=None\ncluster_size=30598084\ncompression=None\n\
        config_file=/etc/postgresql/17/main/postgresql.conf\nencryption=None\nend_offset=0\n\
        end_time=2026-11-26 00:46:08.024012+00:00\nend_wal=000000010000000000000003\nend_xlog=0/4000000\n\
        error=None\nhba_file=/etc/postgresql/17/main/pg_hba.conf\nident_file=None\nincluded_files=None\n\
        mode=postgres\nparent_backup_id=None\npgdata=/srv/data\nserver_name=main\nsize=30463052\nstatus=DONE\n\
        summarize_wal=off\nsystemid=7712275047029036607\ntablespaces=[('it\\'s \"ü\"', 16396, '/srv/ts')]\n\
        timeline=1\nversion=170011\nxlog_segment_size=16777216\n";

    pub(crate) fn read(text: &str, contents: Contents) -> Result<Backup, InfoError> {
        let found = Found {
            info: text.as_bytes(),
            keep: None,
            contents,
        };
        let id = "20261126T004606".parse().unwrap();
        let info = Info::parse(text.as_bytes())?;
        Backup::read(
            "main",
            id,
            "/b/main/base/20261126T004606".into(),
            None,
            &info,
            found,
        )
    }

    #[test]
    fn everything_a_clone_needs_is_read() {
        let backup = read(INFO, Contents::default()).unwrap();
        assert_eq!(backup.version.to_string(), "17.11");
        assert_eq!(backup.system_id, Some(SystemId(7_712_275_047_029_036_607)));
        assert_eq!(
            (backup.begin_lsn, backup.end_lsn),
            (Lsn(0x300_0028), Lsn(0x400_0000))
        );
        assert_eq!(backup.end_wal.to_string(), "000000010000000000000003");
        assert_eq!(backup.tablespaces[0].name, "it's \"ü\"");
        assert_eq!((backup.ident_file.clone(), backup.parent.clone()), (None, None));
        assert_eq!(backup.mode, BackupMode::Postgres);
        assert_eq!(backup.tablespace_directory(7), "/b/main/base/20261126T004606/7");
    }

    #[test]
    fn a_backup_of_barman_1_6_needs_no_newer_keys() {
        let old: Vec<&str> = INFO
            .lines()
            .filter(|l| {
                let new = [
                    "mode", "xlog_seg", "systemid", "compr", "encr", "parent", "size", "cluster",
                ];
                !new.iter().any(|key| l.starts_with(key))
            })
            .collect();
        let backup = read(&old.join("\n"), Contents::default()).unwrap();
        assert_eq!(backup.mode, BackupMode::RsyncExclusive);
        assert_eq!(backup.segment_size, WalSegmentSize::DEFAULT);
        assert_eq!((backup.system_id, backup.size), (None, None));
    }

    #[test]
    fn values_that_contradict_each_other_are_errors() {
        for (from, to, says) in [
            (
                "timeline=1",
                "timeline=2",
                "begin_wal is not a segment of the backup's timeline",
            ),
            ("timeline=1", "timeline=0", "timeline is not a timeline"),
            (
                "end_xlog=0/4000000",
                "end_xlog=0/1",
                "end_xlog is not at or after begin_xlog",
            ),
            (
                "end_wal=000000010000000000000003",
                "end_wal=000000010000000000000002",
                "end_wal is not",
            ),
            (
                "version=170011",
                "version=17",
                "version is not a version of PostgreSQL",
            ),
            (
                "xlog_segment_size=16777216",
                "xlog_segment_size=5",
                "is not a size PostgreSQL allows",
            ),
            (
                "status=DONE",
                "status=GREAT",
                "status is not a status of a backup",
            ),
            (
                "parent_backup_id=None",
                "parent_backup_id=../x",
                "parent_backup_id is not a backup id",
            ),
            ("pgdata=/srv/data\n", "", "it has no \"pgdata\""),
        ] {
            let error = read(&INFO.replace(from, to), Contents::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
    }

    #[test]
    fn another_backup_under_the_same_id_is_noticed() {
        let first = read(INFO, Contents::default()).unwrap();
        let later = read(
            &INFO.replace("status=DONE", "status=WAITING_FOR_WALS"),
            Contents::default(),
        )
        .unwrap();
        assert_eq!(first.difference(&later), None);
        let other = read(&INFO.replace("06.677538", "07.677538"), Contents::default()).unwrap();
        assert_eq!(first.difference(&other), Some("begin_time"));
    }
}
