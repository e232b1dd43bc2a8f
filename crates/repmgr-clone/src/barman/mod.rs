//! The backup on the Barman host: which one, what is in it, whether it can be read and what it needs.

mod archives;
mod plain;

use std::path::Path;

use repmgr_barman::{Backup, Barman, Form, Keep};
use repmgr_datadir::{PG_CONTROL, PG_CONTROL_SIZE, Permissions, PgControlHead};
use repmgr_transfer::read_file;
use repmgr_types::SystemId;
use repmgr_verify::{ClusterPages, ControlFileError, Manifest, PageLayout, PageRules};

pub(crate) use archives::{Archive, Archives};
pub(crate) use plain::{Files, expected};

use crate::external::Fetched;
use crate::node::Cluster;
use crate::place::Origin;
use crate::request::BarmanSource;
use crate::{CloneError, Context, Event};

const MANIFEST: &str = "backup_manifest";
/// A manifest has about 150 bytes per file; this is enough for two million.
const MANIFEST_MAX: usize = 320 << 20;
/// What PostgreSQL reads at its start and Debian keeps elsewhere.
const CONFIGURATION: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// A backup that can be copied, and a session with the Barman that has it.
pub(crate) struct BackupSource {
    pub(crate) barman: Barman,
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

impl BackupSource {
    /// Finds the backup, and proves that every file of it can be listed and read.
    pub(crate) fn open(source: &BarmanSource, context: &Context<'_>) -> Result<Self, CloneError> {
        context.observer.event(Event::VerifyingBackup {
            server: source.address.server.clone(),
        });
        let mut barman = Barman::connect(&*source.host, source.address.clone())?;
        let backup = barman.find_backup(&source.backup)?;
        let content = match backup.form()? {
            Form::Plain => Content::Files(Files::list(&mut barman, &backup, context)?),
            Form::Tar { codec } => Content::Archives(Archives::list(&mut barman, &backup, codec, context)?),
        };
        let source = Self {
            barman,
            backup,
            content,
        };
        source.warn(context);
        Ok(source)
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

    /// Whether the cluster lets its group read.
    pub(crate) fn permissions(&self) -> Permissions {
        match &self.content {
            Content::Files(files) if self.backup.version.allows_group_access() => files.permissions(),
            _ => Permissions::default(),
        }
    }

    /// What the backup is of.
    pub(crate) fn cluster(&self, parameters: &ServerParameters) -> Cluster {
        Cluster {
            what: format!("backup {}", self.backup.id),
            version: self.backup.version,
            system_id: parameters.system_id,
        }
    }

    pub(crate) fn origins(&self) -> Vec<Origin> {
        let tablespaces = self.backup.tablespaces.iter();
        tablespaces
            .map(|tablespace| Origin {
                oid: tablespace.oid,
                name: tablespace.name.clone(),
                location: tablespace.location.clone(),
            })
            .collect()
    }

    /// Reads the control file and the manifest, and holds both against what was listed.
    pub(crate) fn parameters(&mut self, context: &Context<'_>) -> Result<ServerParameters, CloneError> {
        let manifest = self.read_manifest(context)?;
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
        let bytes = self.read_control(context)?;
        let control = self.check_control(&bytes)?;
        Ok(ServerParameters {
            system_id: control.system_id,
            catalog_version: Some(control.catalog_version),
            manifest,
            pages: self.pages(&bytes)?,
        })
    }

    /// The control file as it is in the backup.
    pub(crate) fn read_control(&mut self, context: &Context<'_>) -> Result<Vec<u8>, CloneError> {
        let dir = self.backup.data_directory();
        let connection = self.barman.connection();
        Ok(read_file(
            connection,
            &dir,
            PG_CONTROL,
            PG_CONTROL_SIZE,
            context.cancel,
        )?)
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

    fn read_manifest(&mut self, context: &Context<'_>) -> Result<Option<Manifest>, CloneError> {
        let has_manifest = match &self.content {
            Content::Files(files) => files.has_manifest,
            Content::Archives(archives) => archives.has_manifest,
        };
        if !has_manifest {
            return Ok(None);
        }
        let dir = self.backup.data_directory();
        let bytes = read_file(
            self.barman.connection(),
            &dir,
            MANIFEST,
            MANIFEST_MAX,
            context.cancel,
        )?;
        let manifest = Manifest::parse(&bytes).map_err(|source| CloneError::Manifest {
            backup: self.backup.id.clone(),
            source,
        })?;
        if let Content::Files(files) = &self.content {
            files.check_manifest(&manifest)?;
        }
        Ok(Some(manifest))
    }

    fn warn(&self, context: &Context<'_>) {
        let special = match &self.content {
            Content::Files(files) => files.special.as_slice(),
            Content::Archives(_) => &[],
        };
        if let Some(first) = special.first() {
            context.observer.event(Event::Warning {
                text: format!("the backup has \"{first}\", which is no file or directory and is not copied"),
                detail: (special.len() > 1).then(|| special.join("\n")),
                hint: None,
            });
        }
        if self.backup.keep == Some(Keep::Standalone) {
            context.observer.event(Event::Warning {
                text: format!("backup {} is kept standalone", self.backup.id),
                detail: Some("Barman keeps no more WAL for it than makes it consistent".to_owned()),
                hint: Some(
                    "the standby can only go on if its upstream node still has the later WAL".to_owned(),
                ),
            });
        }
    }

    /// Barman's postgres method does not save configuration files outside the data directory, and
    /// its rsync method not those that they include.
    pub(crate) fn warn_of_missing_configuration(
        &self,
        parameters: &ServerParameters,
        external: Option<&Fetched>,
        context: &Context<'_>,
    ) {
        let is_there = |name: &str| match (&self.content, &parameters.manifest) {
            (Content::Files(files), _) => files.has(name),
            (Content::Archives(_), Some(manifest)) => manifest.get(name.as_bytes()).is_some(),
            // Not known before it is unpacked.
            (Content::Archives(_), None) => true,
        };
        let missing: Vec<&str> = CONFIGURATION
            .into_iter()
            .filter(|name| !is_there(name) && !external.is_some_and(|files| files.brings(name)))
            .collect();
        if missing.is_empty() {
            return;
        }
        let source = |name: &str| match name {
            "pg_hba.conf" => self.backup.hba_file.as_deref(),
            "pg_ident.conf" => self.backup.ident_file.as_deref(),
            _ => self.backup.config_file.as_deref(),
        };
        let places: Vec<String> = missing
            .iter()
            .filter_map(|name| source(name))
            .filter(|path| !path.starts_with(&self.backup.pgdata))
            .map(|path| format!("\"{}\"", path.display()))
            .collect();
        context.observer.event(Event::Warning {
            text: format!("the backup does not contain {}", missing.join(", ")),
            detail: (!places.is_empty())
                .then(|| format!("the server it was taken from has them in {}", places.join(", "))),
            hint: Some(
                "copy them to the same place on this host, or into the data directory, before you start the \
                 standby"
                    .to_owned(),
            ),
        });
    }
}

/// How a manifest names a file of the data directory, or of a tablespace.
pub(crate) fn manifest_path(tablespace: Option<u32>, path: &[u8]) -> Vec<u8> {
    let mut full = tablespace.map_or_else(Vec::new, |oid| format!("pg_tblspc/{oid}/").into_bytes());
    full.extend_from_slice(path);
    full
}

/// A path of a listing, for the file system here.
pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}
