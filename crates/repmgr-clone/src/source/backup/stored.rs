//! One backup as it lies on the Barman host.

use std::sync::Arc;

use repmgr_barman::{Backup, BackupMode, Barman, Form};
use repmgr_datadir::{PG_CONTROL, PG_CONTROL_SIZE, PgControlHead};
use repmgr_pgfile::{ControlFile, RecordedSettings};
use repmgr_transfer::read_file;
use repmgr_types::SystemId;
use repmgr_verify::{ClusterPages, ControlFileError, Manifest, PageLayout, PageRules};

use super::{Archives, Files, expected};
use crate::error::with_causes;
use crate::request::TransferOptions;
use crate::{BackupError, CloneError, Context, NodeError, PageChecks};

pub(super) const MANIFEST: &str = "backup_manifest";
/// A manifest has about 150 bytes per file; this is enough for two million.
const MANIFEST_MAX: usize = 320 << 20;
/// No configuration file is larger.
const CONF_MAX: usize = 16 << 20;

/// A backup all whose files can be read. Those of an increment are of use only together with others.
pub(crate) struct Stored {
    pub(crate) backup: Backup,
    pub(crate) content: Content,
    /// Read early, where it had to be seen whose it is.
    manifest: Option<Arc<Manifest>>,
}

/// How the files of the backup lie there.
pub(crate) enum Content {
    Files(Files),
    Archives(Archives),
}

/// What the backup says of the server it was taken from.
#[derive(Debug)]
pub(crate) struct ServerParameters {
    pub(crate) system_id: SystemId,
    /// As in the `PG_15_202209061` of tablespaces; not known of archives, which hold the directory.
    pub(crate) catalog_version: Option<u32>,
    pub(crate) manifest: Option<Arc<Manifest>>,
    pub(crate) pages: Pages,
    /// The settings that the primary ran with; not known of archives, whose control file comes last.
    pub(crate) settings: Option<RecordedSettings>,
}

/// What is known of the cluster's data pages before they are here.
#[derive(Debug, Clone)]
pub(crate) enum Pages {
    /// By its control file.
    Known(ClusterPages),
    /// Barman or a server says whether they have checksums; the control file comes last.
    Said(bool),
    /// Nobody says. They are judged, and the control file will tell whether that counts.
    Untold,
    /// They are not judged, and why.
    Unjudged(String),
}

impl Pages {
    /// By the control file, as far as it is understood, and by what Barman wrote down of the backup.
    fn of(
        control: Option<Result<ClusterPages, ControlFileError>>,
        backup: &Backup,
        wanted: &TransferOptions,
    ) -> Self {
        match (control, backup.data_checksums) {
            (Some(Ok(pages)), _) if !pages.checksums => Self::Known(pages),
            (_, Some(false)) => Self::Said(false),
            _ if wanted.skip_page_checks => Self::Unjudged("as demanded".to_owned()),
            (Some(Ok(pages)), _) => Self::Known(pages),
            (Some(Err(error)), _) => Self::Unjudged(error.to_string()),
            (None, Some(true)) => Self::Said(true),
            (None, None) => Self::Untold,
        }
    }

    /// Takes over what is known from elsewhere, where nobody said it.
    pub(crate) fn learn(&mut self, checksums: Option<bool>) {
        if let (Self::Untold, Some(checksums)) = (&self, checksums) {
            *self = Self::Said(checksums);
        }
    }

    /// Whether pages have checksums.
    pub(crate) fn checksums(&self) -> Option<bool> {
        match self {
            Self::Known(pages) => Some(pages.checksums),
            Self::Said(checksums) => Some(*checksums),
            Self::Untold | Self::Unjudged(_) => None,
        }
    }

    /// By which layout they are judged, if they are.
    pub(crate) fn layout(&self) -> Option<PageLayout> {
        match self {
            Self::Known(pages) => pages.checksums.then_some(pages.layout),
            Self::Said(checksums) => checksums.then_some(PageLayout::DEFAULT),
            Self::Untold => Some(PageLayout::DEFAULT),
            Self::Unjudged(_) => None,
        }
    }
}

impl ServerParameters {
    /// How pages are to be judged; `None` when they are not.
    pub(crate) fn page_rules(&self, backup: &Backup) -> Option<PageRules> {
        self.pages.layout().map(|layout| PageRules {
            layout,
            backup_start: backup.begin_lsn,
            backup_end: Some(backup.end_lsn),
        })
    }

    /// How the files are verified, in words.
    pub(crate) fn verified_by(&self, pages: &PageChecks) -> String {
        let mut ways = vec!["sizes"];
        if self.manifest.is_some() {
            ways.push("backup_manifest checksums");
        }
        if *pages == PageChecks::Verified {
            ways.push("data page checksums");
        }
        let ways = ways.join(", ");
        match pages {
            PageChecks::Verified => ways,
            PageChecks::NoChecksums => ways + " (data pages have no checksums)",
            PageChecks::NotVerified { reason } => format!("{ways}; data pages were not verified: {reason}"),
        }
    }
}

impl Stored {
    /// Proves that every file of the backup can be listed and read.
    pub(crate) fn list(
        barman: &mut Barman,
        backup: Backup,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let content = match backup.own_form()? {
            Form::Plain => Content::Files(Files::list(barman, &backup, context)?),
            Form::Tar { codec } => Content::Archives(Archives::list(barman, &backup, codec, context)?),
        };
        let mut stored = Self {
            backup,
            content,
            manifest: None,
        };
        stored.look_whose_manifest(barman, context)?;
        Ok(stored)
    }

    /// pg_basebackup writes a manifest for what it makes, and a server made of that keeps it: whoever copies its
    /// data directory later has one that is of another backup. Such a one says nothing.
    fn look_whose_manifest(&mut self, barman: &mut Barman, context: &Context<'_>) -> Result<(), CloneError> {
        let Content::Files(files) = &self.content else {
            return Ok(());
        };
        if !files.has_manifest || self.backup.mode == BackupMode::Postgres {
            return Ok(());
        }
        // Barman makes its own when all files are there; a copied one is older than the backup.
        let is_older = files.manifest_is_older;
        let bytes = self.manifest_file(barman, context)?;
        let manifest = match self.parse_manifest(&bytes) {
            Err(_) if is_older => None,
            parsed => Some(parsed?).filter(|manifest| {
                let ranges = manifest.wal_ranges().iter();
                let begin = ranges.map(|range| range.start).min();
                begin.map_or(!is_older, |begin| begin == self.backup.begin_lsn)
            }),
        };
        if let (Content::Files(files), None) = (&mut self.content, &manifest) {
            files.has_manifest = false;
            files.foreign_manifest = true;
        }
        self.manifest = manifest.map(Arc::new);
        Ok(())
    }

    /// Whether pages may be in the backup that were copied while the server wrote them: what reads them in the
    /// server does so again until they are whole, rsync does not.
    pub(crate) fn may_have_torn_pages(&self, parameters: &ServerParameters) -> bool {
        let by_basebackup = |manifest: &Arc<Manifest>| !manifest.wal_ranges().is_empty();
        match (&self.content, &self.backup.mode) {
            (Content::Archives(_), _) | (_, BackupMode::Postgres) => false,
            (_, BackupMode::RsyncExclusive | BackupMode::RsyncConcurrent) => true,
            // Another's word for whatever it was.
            _ => !parameters.manifest.as_ref().is_some_and(by_basebackup),
        }
    }

    /// Bytes to copy; of archives, as they lie there.
    pub(crate) fn total_size(&self) -> u64 {
        match &self.content {
            Content::Files(files) => files.total_size(),
            Content::Archives(archives) => archives.total_size(),
        }
    }

    pub(crate) fn total_files(&self) -> u64 {
        match &self.content {
            Content::Files(files) => files.total_files(),
            Content::Archives(archives) => archives.all.len() as u64,
        }
    }

    /// Bytes on disk of the data directory and of each tablespace, as far as they are known.
    pub(crate) fn space_needed(&self) -> Vec<u64> {
        match &self.content {
            Content::Files(files) => files.space_needed(),
            // The least they can be.
            Content::Archives(archives) => archives.all.iter().map(|archive| archive.size).collect(),
        }
    }

    /// Files and bytes that a copy writes here; nothing where that is not known beforehand.
    pub(crate) fn load(&self, parameters: &ServerParameters) -> (u64, u64) {
        match (&self.content, &parameters.manifest) {
            (Content::Files(files), _) => (files.total_files(), files.total_size()),
            (Content::Archives(_), Some(manifest)) => expected(manifest)
                .fold((0, 0), |(files, bytes): (u64, u64), (_, size)| {
                    (files.saturating_add(1), bytes.saturating_add(size))
                }),
            (Content::Archives(_), None) => (0, 0),
        }
    }

    /// Reads the control file and the manifest, and holds both against what was listed.
    pub(crate) fn parameters(
        &self,
        barman: &mut Barman,
        wanted: &TransferOptions,
        context: &Context<'_>,
    ) -> Result<ServerParameters, CloneError> {
        let manifest = self.read_manifest(barman, wanted, context)?;
        if let Content::Archives(_) = self.content {
            // Their control file comes last. Barman has recorded the identifier since before it made archives.
            let system_id = self
                .backup
                .system_id
                .ok_or_else(|| self.incomplete("systemid in backup.info"))?;
            return Ok(ServerParameters {
                system_id,
                catalog_version: None,
                manifest,
                pages: Pages::of(None, &self.backup, wanted),
                settings: None,
            });
        }
        let bytes = self.read_control(barman, context)?;
        let control = self.check_control(&bytes)?;
        Ok(ServerParameters {
            system_id: control.system_id,
            catalog_version: Some(control.catalog_version),
            manifest,
            pages: Pages::of(Some(self.pages(&bytes)?), &self.backup, wanted),
            settings: ControlFile::parse(&bytes).ok().map(|control| control.settings),
        })
    }

    /// The control file as it is in the backup.
    pub(crate) fn read_control(
        &self,
        barman: &mut Barman,
        context: &Context<'_>,
    ) -> Result<Vec<u8>, CloneError> {
        self.read(barman, PG_CONTROL, PG_CONTROL_SIZE, context)
    }

    /// That a control file is whole and of this cluster.
    pub(crate) fn check_control(&self, bytes: &[u8]) -> Result<PgControlHead, CloneError> {
        let control = PgControlHead::parse_whole(bytes).map_err(|source| BackupError::Control {
            backup: self.backup.id.clone(),
            source,
        })?;
        match self.backup.system_id {
            Some(expected) if expected != control.system_id => Err(NodeError::OtherCluster {
                what: format!("backup {}", self.backup.id),
                role: "control file in it",
                its_id: expected,
                node_id: control.system_id,
            }
            .into()),
            _ => Ok(control),
        }
    }

    /// What the pages of the cluster look like; that also proves the control file by its own checksum. The inner error
    /// is that of a later PostgreSQL: what it has for checksums is not known.
    pub(crate) fn pages(&self, control: &[u8]) -> Result<Result<ClusterPages, ControlFileError>, CloneError> {
        match ClusterPages::from_pg_control(control) {
            Ok(pages) => Ok(Ok(pages)),
            Err(error @ (ControlFileError::Version(_) | ControlFileError::ChecksumVersion(_))) => {
                Ok(Err(error))
            }
            Err(source) => Err(BackupError::ControlFile {
                backup: self.backup.id.clone(),
                source,
            }
            .into()),
        }
    }

    pub(crate) fn incomplete(&self, path: &str) -> CloneError {
        BackupError::Incomplete {
            backup: self.backup.id.clone(),
            path: path.to_owned(),
        }
        .into()
    }

    fn read_manifest(
        &self,
        barman: &mut Barman,
        wanted: &TransferOptions,
        context: &Context<'_>,
    ) -> Result<Option<Arc<Manifest>>, CloneError> {
        let has_manifest = match &self.content {
            Content::Files(files) => files.has_manifest,
            Content::Archives(archives) => archives.has_manifest,
        };
        if !has_manifest {
            return Ok(None);
        }
        let manifest = match &self.manifest {
            Some(manifest) => Arc::clone(manifest),
            None => Arc::new(self.parse_manifest(&self.manifest_file(barman, context)?)?),
        };
        if let Content::Files(files) = &self.content {
            files.check_manifest(&self.backup, &manifest, wanted.accept_damage, context)?;
        }
        Ok(Some(manifest))
    }

    /// The manifest as it is in the backup.
    pub(crate) fn manifest_file(
        &self,
        barman: &mut Barman,
        context: &Context<'_>,
    ) -> Result<Vec<u8>, CloneError> {
        self.read(barman, MANIFEST, MANIFEST_MAX, context)
    }

    /// A file of the backup's data directory with at most `limit` bytes.
    fn read(
        &self,
        barman: &mut Barman,
        name: &str,
        limit: usize,
        context: &Context<'_>,
    ) -> Result<Vec<u8>, CloneError> {
        let dir = self.backup.data_directory();
        Ok(read_file(barman.connection(), &dir, name, limit, context.cancel)?)
    }

    /// A configuration file of the data directory; empty if it is not there, or cannot be read before it is here.
    pub(crate) fn conf_file(&self, barman: &mut Barman, name: &str, context: &Context<'_>) -> Vec<u8> {
        match &self.content {
            Content::Files(files) if files.has(name) => {}
            _ => return Vec::new(),
        }
        self.read(barman, name, CONF_MAX, context)
            .unwrap_or_else(|error| {
                log::debug!("{name} of the backup cannot be read: {}", with_causes(&error));
                Vec::new()
            })
    }

    pub(crate) fn parse_manifest(&self, bytes: &[u8]) -> Result<Manifest, CloneError> {
        let parsed = Manifest::parse(bytes).map_err(|source| BackupError::Manifest {
            backup: self.backup.id.clone(),
            source,
        });
        Ok(parsed?)
    }
}
