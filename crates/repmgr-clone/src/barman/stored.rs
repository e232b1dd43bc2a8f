//! One backup as it lies on the Barman host.

use repmgr_barman::{Backup, Barman, Form};
use repmgr_datadir::{PG_CONTROL, PG_CONTROL_SIZE, PgControlHead};
use repmgr_transfer::read_file;
use repmgr_types::SystemId;
use repmgr_verify::{ClusterPages, ControlFileError, Manifest, PageLayout, PageRules};

use super::{Archives, Files, expected};
use crate::{CloneError, Context};

pub(super) const MANIFEST: &str = "backup_manifest";
/// A manifest has about 150 bytes per file; this is enough for two million.
const MANIFEST_MAX: usize = 320 << 20;

/// A backup all whose files can be read. Those of an increment are of use only together with others.
pub(crate) struct Stored {
    pub(crate) backup: Backup,
    pub(crate) content: Content,
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
    pub(crate) manifest: Option<Manifest>,
    /// What its data pages look like; `None` when that is not known.
    pub(crate) pages: Option<ClusterPages>,
}

impl ServerParameters {
    /// How pages are to be judged; `None` when they have no checksums.
    pub(crate) fn page_rules(&self, backup: &Backup) -> Option<PageRules> {
        self.pages.filter(|pages| pages.checksums).map(|pages| PageRules {
            layout: pages.layout,
            backup_start: backup.begin_lsn,
            backup_end: Some(backup.end_lsn),
        })
    }

    /// Takes over what the source node says, where the backup did not.
    pub(crate) fn learn_of_checksums(&mut self, setting: Option<&str>) {
        if let (None, Some(setting)) = (self.pages, setting) {
            self.pages = Some(ClusterPages {
                checksums: setting == "on",
                layout: PageLayout::DEFAULT,
            });
        }
    }

    /// How the files are verified, in words.
    pub(crate) fn verified_by(&self) -> String {
        let mut ways = vec!["sizes"];
        if self.manifest.is_some() {
            ways.push("backup_manifest checksums");
        }
        if self.pages.is_some_and(|pages| pages.checksums) {
            ways.push("data page checksums");
        }
        ways.join(", ")
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
        Ok(Self { backup, content })
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
            (Content::Archives(_), Some(manifest)) => {
                expected(manifest).fold((0, 0), |(files, bytes), (_, size)| (files + 1, bytes + size))
            }
            (Content::Archives(_), None) => (0, 0),
        }
    }

    /// Reads the control file and the manifest, and holds both against what was listed.
    pub(crate) fn parameters(
        &self,
        barman: &mut Barman,
        context: &Context<'_>,
    ) -> Result<ServerParameters, CloneError> {
        let manifest = self.read_manifest(barman, context)?;
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
                pages: None,
            });
        }
        let bytes = self.read_control(barman, context)?;
        let control = self.check_control(&bytes)?;
        Ok(ServerParameters {
            system_id: control.system_id,
            catalog_version: Some(control.catalog_version),
            manifest,
            pages: self.pages(&bytes)?,
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
        let control = PgControlHead::parse_whole(bytes).map_err(|source| CloneError::Control {
            backup: self.backup.id.clone(),
            source,
        })?;
        match self.backup.system_id {
            Some(expected) if expected != control.system_id => Err(CloneError::OtherCluster {
                what: format!("backup {}", self.backup.id),
                role: "control file in it",
                its_id: expected,
                node_id: control.system_id,
            }),
            _ => Ok(control),
        }
    }

    /// What the pages of the cluster look like; that also proves the control file by its own checksum.
    pub(crate) fn pages(&self, control: &[u8]) -> Result<Option<ClusterPages>, CloneError> {
        match ClusterPages::from_pg_control(control) {
            Ok(pages) => Ok(Some(pages)),
            // A later PostgreSQL; what it has for checksums is not known.
            Err(error @ (ControlFileError::Version(_) | ControlFileError::ChecksumVersion(_))) => {
                log::debug!("page checksums are not verified: {error}");
                Ok(None)
            }
            Err(source) => Err(CloneError::ControlFile {
                backup: self.backup.id.clone(),
                source,
            }),
        }
    }

    pub(crate) fn incomplete(&self, path: &str) -> CloneError {
        CloneError::Incomplete {
            backup: self.backup.id.clone(),
            path: path.to_owned(),
        }
    }

    fn read_manifest(
        &self,
        barman: &mut Barman,
        context: &Context<'_>,
    ) -> Result<Option<Manifest>, CloneError> {
        let has_manifest = match &self.content {
            Content::Files(files) => files.has_manifest,
            Content::Archives(archives) => archives.has_manifest,
        };
        if !has_manifest {
            return Ok(None);
        }
        let bytes = self.manifest_file(barman, context)?;
        let manifest = self.parse_manifest(&bytes)?;
        if let Content::Files(files) = &self.content {
            files.check_manifest(&self.backup, &manifest)?;
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

    pub(crate) fn parse_manifest(&self, bytes: &[u8]) -> Result<Manifest, CloneError> {
        Manifest::parse(bytes).map_err(|source| CloneError::Manifest {
            backup: self.backup.id.clone(),
            source,
        })
    }
}
