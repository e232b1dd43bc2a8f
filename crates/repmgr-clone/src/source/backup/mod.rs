//! The backup on the Barman host: which one, what is in it, whether it can be read and what it needs.

mod archives;
mod chain;
mod plain;
mod stored;

use std::path::{Path, PathBuf};

use repmgr_barman::{Backup, Barman, BarmanError, Keep};
use repmgr_datadir::{Permissions, Target};
use repmgr_remote::Host;

pub(crate) use archives::{Archive, Archives};
pub(crate) use chain::Chain;
pub(crate) use plain::{Files, expected};
pub(crate) use stored::{Content, Pages, ServerParameters, Stored};

use crate::error::with_causes;
use crate::nodes::node::CopiedCluster;
use crate::place::Origin;
use crate::place::identity::CloneIdentity;
use crate::place::{self, Places};
use crate::request::BarmanSource;
use crate::source::external::Fetched;
use crate::{BackupEvent, CloneError, CloneRequest, Context, ErrorKind, Hint, Remark, RemarkCode};

/// Barman's word for the newest usable backup.
const LATEST: &str = "latest";

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
        target: &Target,
        ahead: impl FnOnce() -> usize,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let server = &source.address.server;
        context.tell(BackupEvent::VerifyingBackup {
            server: server.clone(),
        });
        let mut barman = Barman::connect(&*source.host, source.address.clone())?;
        // Barman needs longer to start than they need to log in.
        source.host.connect_ahead(ahead());
        let (wanted, chain) = match &source.backup {
            Some(chosen) => Self::read(&mut barman, chosen, source, request, context)?,
            None => Self::begun_or_latest(&mut barman, source, request, target, context)?,
        };
        let source = Self {
            barman,
            wanted,
            chain,
        };
        source.warn(context);
        Ok(source)
    }

    /// The backup of the unfinished clone, whatever came into the catalogue since, or the latest.
    fn begun_or_latest(
        barman: &mut Barman,
        source: &BarmanSource,
        request: &CloneRequest,
        target: &Target,
        context: &Context<'_>,
    ) -> Result<(Stored, Option<Chain>), CloneError> {
        let unfinished = CloneIdentity::of_unfinished(target);
        let begun = unfinished
            .as_ref()
            .and_then(|clone| clone.backup_of(&source.address.server));
        if let Some(begun) = begun {
            match Self::read(barman, begun.as_str(), source, request, context) {
                Err(error) if !error.is_transient() && error.kind() == ErrorKind::Barman => {
                    let text =
                        format!("backup {begun}, of which a clone was begun here, cannot be used any more");
                    let hint = Hint::from("what was copied of it will be erased, and the latest backup used");
                    let remark = Remark::warning(RemarkCode::CloneGivenUp, text);
                    context.tell(remark.detail(with_causes(&error)).hint(hint));
                }
                found => return found,
            }
        }
        Self::read(barman, LATEST, source, request, context)
    }

    fn read(
        barman: &mut Barman,
        chosen: &str,
        source: &BarmanSource,
        request: &CloneRequest,
        context: &Context<'_>,
    ) -> Result<(Stored, Option<Chain>), CloneError> {
        let backup = barman.find_backup(chosen)?;
        let chain = Chain::find(barman, &backup, source, request, context)?;
        let wanted = Stored::list(barman, backup, context)?;
        if let Content::Files(files) = &wanted.content
            && let Err(error) = files.check_bytes(&wanted.backup)
        {
            if !source.transfer.accept_damage {
                return Err(error);
            }
            let remark = Remark::warning(RemarkCode::DamageAccepted, error.to_string());
            context.tell(remark.detail(error.detail()));
        }
        Ok((wanted, chain))
    }

    /// That it fits here, or may fit.
    pub(crate) fn check_space(
        &self,
        target: &Target,
        places: &Places,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let check = |bytes: &[u64], backups| place::check_space(target, places, bytes, backups);
        let Some(chain) = &self.chain else {
            return check(&self.wanted.space_needed(), 1);
        };
        let backups = chain.below.len() + 1;
        let (parts, mut bytes) = chain.space_needed(&self.wanted);
        bytes[0] = bytes[0].saturating_add(parts);
        if !(chain.can_link && places.share_a_filesystem(target)?) {
            return check(&bytes, backups);
        }
        // What did not change since the full backup takes no room a second time; how much that is only
        // turns out in the end.
        check(&[parts], backups)?;
        if let Err(error) = check(&bytes, backups) {
            let text = "there may not be enough space to combine the backups";
            let remark = Remark::warning(RemarkCode::SpaceUncertain, text);
            context.tell(remark.detail(error.to_string()).hint(error.hint()));
        }
        Ok(())
    }

    /// A configuration file of the data directory; empty if it is not there or cannot be read now.
    pub(crate) fn conf_file(&mut self, path: &Path, context: &Context<'_>) -> Vec<u8> {
        match path.to_str() {
            Some(name) => self.wanted.conf_file(&mut self.barman, name, context),
            None => Vec::new(),
        }
    }

    /// The file of this name in the data directory, or what PostgreSQL reads of a directory of this name, in its
    /// order.
    pub(crate) fn conf_files(&self, path: &Path) -> Vec<PathBuf> {
        match &self.wanted.content {
            Content::Files(files) => files.conf_files(path),
            Content::Archives(_) => Vec::new(),
        }
    }

    /// Whether it brings `postgresql.conf`; `None` if that is not known before it is unpacked.
    pub(crate) fn has_conf(&self) -> Option<bool> {
        match &self.wanted.content {
            Content::Files(files) => Some(files.has(CONFIGURATION[0])),
            Content::Archives(_) => None,
        }
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
        let below = self.chain.as_ref().map_or(0, Chain::total_size);
        below.saturating_add(self.wanted.total_size())
    }

    pub(crate) fn total_files(&self) -> u64 {
        let below = self.chain.as_ref().map_or(0, Chain::total_files);
        below.saturating_add(self.wanted.total_files())
    }

    /// Whether the cluster lets its group read.
    pub(crate) fn permissions(&self) -> Permissions {
        match &self.wanted.content {
            Content::Files(files) if self.wanted.backup.version.allows_group_access() => files.permissions(),
            _ => Permissions::default(),
        }
    }

    /// What the backup is of.
    pub(crate) fn cluster(&self, parameters: &ServerParameters) -> CopiedCluster {
        CopiedCluster {
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
            context.tell(
                Remark::warning(
                    RemarkCode::SpecialFiles,
                    format!("the backup has \"{first}\", which is no file or directory and is not copied"),
                )
                .detail((special.len() > 1).then(|| special.join("\n"))),
            );
        }
        if let Content::Files(Files {
            foreign_manifest: true,
            ..
        }) = &self.wanted.content
        {
            context.tell(
                Remark::notice(
                    RemarkCode::ForeignManifest,
                    "backup_manifest in the backup is that of another base backup, and is not used",
                )
                .detail(
                    "it came with the server's data directory, which was once made from a base backup"
                        .to_owned(),
                ),
            );
        }
        if self.wanted.backup.keep == Some(Keep::Standalone) {
            context.tell(
                Remark::warning(
                    RemarkCode::KeptStandalone,
                    format!("backup {} is kept standalone", self.wanted.backup.id),
                )
                .detail("Barman keeps no more WAL for it than makes it consistent".to_owned())
                .hint(Hint::from(
                    "the standby can only go on if its upstream node still has the later WAL",
                )),
            );
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
        context.tell(
            Remark::warning(
                RemarkCode::ConfigurationMissing,
                format!("the backup does not contain {}", missing.join(", ")),
            )
            .detail(
                (!places.is_empty())
                    .then(|| format!("the server it was taken from has them in {}", places.join(", "))),
            )
            .hint(Hint::from(
                "copy them to the same place on this host, or into the data directory, before you start the \
                 standby",
            )),
        );
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
/// Numbers that the other host told, together: absurd ones are as much as there can be, and never few.
pub(super) fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    #[test]
    fn absurd_numbers_add_up_to_no_small_one() {
        assert_eq!(super::total([u64::MAX, 2, u64::MAX].into_iter()), u64::MAX);
    }
}
