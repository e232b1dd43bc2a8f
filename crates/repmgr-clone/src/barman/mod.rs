//! The backup on the Barman host: which one, what is in it, whether it can be read and what it needs.

mod archives;
mod chain;
mod plain;
mod stored;

use std::path::Path;

use repmgr_barman::{Backup, Barman, BarmanError, Keep};
use repmgr_datadir::Permissions;
use repmgr_remote::Host;

pub(crate) use archives::{Archive, Archives};
pub(crate) use chain::Chain;
pub(crate) use plain::{Files, expected};
pub(crate) use stored::{Content, ServerParameters, Stored};

use crate::external::Fetched;
use crate::node::Cluster;
use crate::place::Origin;
use crate::request::BarmanSource;
use crate::{CloneError, CloneRequest, Context, Event};

/// What PostgreSQL reads at its start and Debian keeps elsewhere.
const CONFIGURATION: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// A backup that can be copied, and a session with the Barman that has it.
pub(crate) struct BackupSource {
    pub(crate) barman: Barman,
    /// The backup that is wanted.
    pub(crate) wanted: Stored,
    /// What it is combined from, when it is an increment.
    pub(crate) chain: Option<Chain>,
}

impl BackupSource {
    /// Finds the backup, and proves that every file of it can be listed and read; of an increment also that
    /// it can be combined here. Begins to log in so many times more, for the next connections.
    pub(crate) fn open(
        source: &BarmanSource,
        request: &CloneRequest,
        ahead: impl FnOnce() -> usize,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        context.observer.event(Event::VerifyingBackup {
            server: source.address.server.clone(),
        });
        let mut barman = Barman::connect(&*source.host, source.address.clone())?;
        // Barman needs longer to start than they need to log in.
        source.host.connect_ahead(ahead());
        let backup = barman.find_backup(&source.backup)?;
        let chain = Chain::find(&mut barman, &backup, request, context)?;
        let wanted = Stored::list(&mut barman, backup, context)?;
        if let Content::Files(files) = &wanted.content
            && let Err(error) = files.check_bytes(&wanted.backup)
        {
            if !source.transfer.accept_damage {
                return Err(error);
            }
            context.observer.event(Event::Warning {
                text: error.to_string(),
                detail: error.detail(),
                hint: None,
            });
        }
        let source = Self {
            barman,
            wanted,
            chain,
        };
        source.warn(context);
        Ok(source)
    }

    /// The backups that are read: mostly one.
    pub(crate) fn backups(&self) -> impl Iterator<Item = &Backup> {
        let below = self.chain.iter().flat_map(|chain| &chain.below);
        below.map(|below| &below.backup).chain([&self.wanted.backup])
    }

    /// That all that is read still is what it was.
    pub(crate) fn recheck(&mut self) -> Result<(), BarmanError> {
        let backups: Vec<Backup> = self.backups().cloned().collect();
        backups.iter().try_for_each(|backup| self.barman.recheck(backup))
    }

    /// The same after a copy, however long it was.
    pub(crate) fn recheck_after_copy(&mut self, host: &dyn Host) -> Result<(), CloneError> {
        let backups: Vec<Backup> = self.backups().cloned().collect();
        with_session(&mut self.barman, host, |barman| {
            Ok(backups.iter().try_for_each(|backup| barman.recheck(backup))?)
        })
    }

    /// Bytes to copy; of archives, as they lie there.
    pub(crate) fn total_size(&self) -> u64 {
        self.chain.as_ref().map_or(0, Chain::total_size) + self.wanted.total_size()
    }

    pub(crate) fn total_files(&self) -> u64 {
        self.chain.as_ref().map_or(0, Chain::total_files) + self.wanted.total_files()
    }

    /// Whether the cluster lets its group read.
    pub(crate) fn permissions(&self) -> Permissions {
        match &self.wanted.content {
            Content::Files(files) if self.wanted.backup.version.allows_group_access() => files.permissions(),
            _ => Permissions::default(),
        }
    }

    /// What the backup is of.
    pub(crate) fn cluster(&self, parameters: &ServerParameters) -> Cluster {
        Cluster {
            what: format!("backup {}", self.wanted.backup.id),
            version: self.wanted.backup.version,
            system_id: parameters.system_id,
        }
    }

    pub(crate) fn origins(&self) -> Vec<Origin> {
        let tablespaces = self.wanted.backup.tablespaces.iter();
        tablespaces
            .map(|tablespace| Origin {
                oid: tablespace.oid,
                name: tablespace.name.clone(),
                location: tablespace.location.clone(),
            })
            .collect()
    }

    fn warn(&self, context: &Context<'_>) {
        let special = match &self.wanted.content {
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
        if self.wanted.backup.keep == Some(Keep::Standalone) {
            context.observer.event(Event::Warning {
                text: format!("backup {} is kept standalone", self.wanted.backup.id),
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
        let is_there = |name: &str| match (&self.wanted.content, &parameters.manifest) {
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
            "pg_hba.conf" => self.wanted.backup.hba_file.as_deref(),
            "pg_ident.conf" => self.wanted.backup.ident_file.as_deref(),
            _ => self.wanted.backup.config_file.as_deref(),
        };
        let places: Vec<String> = missing
            .iter()
            .filter_map(|name| source(name))
            .filter(|path| !path.starts_with(&self.wanted.backup.pgdata))
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

/// Asks something after a copy. Nobody looked after the session meanwhile, so that the far side may have given it
/// up (`ClientAliveInterval`), or a firewall: then once more, over a new one.
pub(crate) fn with_session<T>(
    session: &mut Barman,
    host: &dyn Host,
    mut ask: impl FnMut(&mut Barman) -> Result<T, CloneError>,
) -> Result<T, CloneError> {
    match ask(session) {
        Err(error) if error.is_transient() => {
            log::debug!("{error}; connecting anew");
            session.reconnect(host)?;
            ask(session)
        }
        answered => answered,
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
