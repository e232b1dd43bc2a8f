//! The backup on the Barman host: which one, what is in it, whether it can be read and what it needs.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use repmgr_barman::{Backup, Barman, Form, Keep};
use repmgr_datadir::{
    ControlError, CopyRule, PG_CONTROL, PG_CONTROL_SIZE, Permissions, PgControlHead, copy_rule,
    tablespace_copy_rule,
};
use repmgr_transfer::{Entry, EntryKind, Listing, list};
use repmgr_verify::{ClusterPages, ControlFileError, Fork, Manifest, PageRules, RelationFile};

use crate::external::Fetched;
use crate::node::Cluster;
use crate::place::Origin;
use crate::remote_file::read_file;
use crate::request::BarmanSource;
use crate::{CloneError, Context, Event};

const MANIFEST: &str = "backup_manifest";
/// A manifest has about 150 bytes per file; this is enough for two million.
const MANIFEST_MAX: usize = 320 << 20;
/// Without these no server starts, or worse, starts without knowing that it is a backup.
const INDISPENSABLE: [&str; 2] = ["PG_VERSION", "backup_label"];
/// What PostgreSQL reads at its start and Debian keeps elsewhere.
const CONFIGURATION: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// A backup that can be copied, and a session with the Barman that has it.
pub(crate) struct BackupSource {
    pub(crate) barman: Barman,
    pub(crate) files: BackupFiles,
}

/// A backup and the files in it that belong into a standby.
#[derive(Debug)]
pub(crate) struct BackupFiles {
    pub(crate) backup: Backup,
    /// The data directory, then each tablespace in the order of the backup.
    pub(crate) listings: Vec<Listing>,
    /// Entries that are no files or directories.
    special: Vec<String>,
    has_manifest: bool,
}

/// What the backup says of the server it was taken from.
#[derive(Debug)]
pub(crate) struct ServerParameters {
    pub(crate) control: PgControlHead,
    pub(crate) manifest: Option<Manifest>,
    /// What its data pages look like; `None` when that is not known for this version.
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
}

impl BackupSource {
    /// Finds the backup, and proves that every file of it can be listed and read.
    pub(crate) fn open(source: &BarmanSource, context: &Context<'_>) -> Result<Self, CloneError> {
        let server = source.address.server.clone();
        context.observer.event(Event::VerifyingBackup {
            server: server.clone(),
        });
        let mut barman = Barman::connect(&*source.host, source.address.clone())?;
        let backup = barman.find_backup(&source.backup)?;
        let Form::Plain = backup.form()? else {
            return Err(CloneError::Archived { backup: backup.id });
        };
        let mut special = Vec::new();
        let mut control_size = None;
        let mut has_manifest = false;
        let data = list(
            barman.connection(),
            &backup.data_directory(),
            &mut |entry| {
                if entry.path == PG_CONTROL.as_bytes() && entry.kind == EntryKind::File {
                    control_size = Some(entry.size);
                }
                if entry.path == MANIFEST.as_bytes() {
                    has_manifest = true;
                    return false;
                }
                keep(entry, copy_rule, &mut special)
            },
            context.cancel,
        )?;
        let mut listings = vec![data];
        for tablespace in &backup.tablespaces {
            let dir = backup.tablespace_directory(tablespace.oid);
            listings.push(list(
                barman.connection(),
                &dir,
                &mut |entry| keep(entry, tablespace_copy_rule, &mut special),
                context.cancel,
            )?);
        }
        let mut files = BackupFiles {
            backup,
            listings,
            special,
            has_manifest,
        };
        files.check_whole(control_size)?;
        files.leave_out_unlogged()?;
        files.check_readable()?;
        files.warn(context);
        Ok(Self { barman, files })
    }

    /// Reads the control file and the manifest, and holds both against what was listed.
    pub(crate) fn parameters(&mut self) -> Result<ServerParameters, CloneError> {
        let bytes = self.read_control()?;
        let backup = &self.files.backup;
        let control = PgControlHead::parse_whole(&bytes).map_err(|source| CloneError::Control {
            backup: backup.id.clone(),
            source,
        })?;
        if let Some(expected) = backup.system_id
            && expected != control.system_id
        {
            return Err(CloneError::OtherCluster {
                what: format!("backup {}", backup.id),
                role: "control file in it",
                its_id: expected,
                node_id: control.system_id,
            });
        }
        let pages = match ClusterPages::from_pg_control(&bytes) {
            Ok(pages) => Some(pages),
            // A later PostgreSQL; what it has for checksums is not known.
            Err(error @ (ControlFileError::Version(_) | ControlFileError::ChecksumVersion(_))) => {
                log::debug!("page checksums are not verified: {error}");
                None
            }
            Err(source) => {
                return Err(CloneError::ControlFile {
                    backup: backup.id.clone(),
                    source,
                });
            }
        };
        Ok(ServerParameters {
            control,
            manifest: self.read_manifest()?,
            pages,
        })
    }

    /// The control file as it is in the backup.
    pub(crate) fn read_control(&mut self) -> Result<Vec<u8>, CloneError> {
        let dir = self.files.backup.data_directory();
        Ok(read_file(
            self.barman.connection(),
            &dir,
            PG_CONTROL,
            PG_CONTROL_SIZE,
        )?)
    }

    fn read_manifest(&mut self) -> Result<Option<Manifest>, CloneError> {
        if !self.files.has_manifest {
            return Ok(None);
        }
        let dir = self.files.backup.data_directory();
        let bytes = read_file(self.barman.connection(), &dir, MANIFEST, MANIFEST_MAX)?;
        let manifest = Manifest::parse(&bytes).map_err(|source| CloneError::Manifest {
            backup: self.files.backup.id.clone(),
            source,
        })?;
        self.files.check_manifest(&manifest)?;
        Ok(Some(manifest))
    }
}

impl BackupFiles {
    pub(crate) fn total_size(&self) -> u64 {
        self.listings.iter().map(Listing::total_size).sum()
    }

    pub(crate) fn total_files(&self) -> u64 {
        self.listings.iter().map(files_in).sum()
    }

    /// What the backup is of.
    pub(crate) fn cluster(&self, parameters: &ServerParameters) -> Cluster {
        Cluster {
            what: format!("backup {}", self.backup.id),
            version: self.backup.version,
            system_id: parameters.control.system_id,
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

    /// Bytes on disk of the data directory and of each tablespace.
    pub(crate) fn space_needed(&self) -> Vec<u64> {
        // Whole blocks, and one more for a directory entry and an inode.
        let needed = |listing: &Listing| listing.total_size() + listing.len() as u64 * 4096;
        self.listings.iter().map(needed).collect()
    }

    /// Whether the cluster lets its group read: its directories say so.
    pub(crate) fn permissions(&self) -> Permissions {
        let base = self.listings[0].iter().find(|entry| entry.path == b"base");
        match base {
            Some(base) if self.backup.version.allows_group_access() => Permissions::of_directory(base.mode),
            _ => Permissions::default(),
        }
    }

    fn check_whole(&self, control_size: Option<u64>) -> Result<(), CloneError> {
        let incomplete = |path: &str| CloneError::Incomplete {
            backup: self.backup.id.clone(),
            path: path.to_owned(),
        };
        for path in INDISPENSABLE {
            self.listings[0]
                .iter()
                .find(|entry| {
                    entry.path == path.as_bytes() && entry.kind == EntryKind::File && entry.size > 0
                })
                .ok_or_else(|| incomplete(path))?;
        }
        match control_size {
            Some(size) if size == PG_CONTROL_SIZE as u64 => Ok(()),
            Some(size) => Err(CloneError::Control {
                backup: self.backup.id.clone(),
                source: ControlError::Size(usize::try_from(size).unwrap_or(usize::MAX)),
            }),
            None => Err(incomplete(PG_CONTROL)),
        }
    }

    /// PostgreSQL empties unlogged tables when it starts and needs only their initial fork for that;
    /// `pg_basebackup` leaves the rest out, rsync does not.
    fn leave_out_unlogged(&mut self) -> Result<(), CloneError> {
        let mut unlogged = HashSet::new();
        for (source, listing) in self.listings.iter().enumerate() {
            for entry in listing.iter().filter(|entry| entry.path.ends_with(b"_init")) {
                let path = self.manifest_path(source, entry.path);
                if let Some(file) = RelationFile::parse(&path).filter(|file| file.fork == Fork::Init) {
                    unlogged.insert(file.relation.to_vec());
                }
            }
        }
        if unlogged.is_empty() {
            return Ok(());
        }
        let mut kept = Vec::with_capacity(self.listings.len());
        for (source, listing) in self.listings.iter().enumerate() {
            let mut rest = Listing::new(listing.directory());
            for entry in listing.iter() {
                let path = self.manifest_path(source, entry.path);
                let emptied = RelationFile::parse(&path)
                    .is_some_and(|file| file.fork != Fork::Init && unlogged.contains(file.relation));
                if !emptied {
                    rest.push(&entry)?;
                }
            }
            kept.push(rest);
        }
        self.listings = kept;
        Ok(())
    }

    fn check_readable(&self) -> Result<(), CloneError> {
        let mut unreadable = self.listings.iter().flat_map(|listing| {
            let unreadable = listing.iter().filter(|entry| !entry.readable);
            unreadable.map(|entry| format!("{}/{}", listing.directory(), String::from_utf8_lossy(entry.path)))
        });
        match unreadable.next() {
            None => Ok(()),
            Some(path) => Err(CloneError::NotReadable {
                backup: self.backup.id.clone(),
                count: 1 + unreadable.count(),
                path,
            }),
        }
    }

    fn warn(&self, context: &Context<'_>) {
        if let Some(first) = self.special.first() {
            context.observer.event(Event::Warning {
                text: format!("the backup has \"{first}\", which is no file or directory and is not copied"),
                detail: (self.special.len() > 1).then(|| self.special.join("\n")),
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
    pub(crate) fn warn_of_missing_configuration(&self, external: Option<&Fetched>, context: &Context<'_>) {
        let is_there = |name: &str| self.listings[0].iter().any(|entry| entry.path == name.as_bytes());
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

    /// Every file of the manifest must be there, with the right size, which costs nothing to see.
    /// (Unlogged tables are in no manifest of PostgreSQL's, and those of Barman's are let pass.)
    fn check_manifest(&self, manifest: &Manifest) -> Result<(), CloneError> {
        let mut left: HashMap<Vec<u8>, u64> = manifest
            .iter()
            .filter(|entry| is_copied(entry.path))
            .map(|entry| (entry.path.to_vec(), entry.size))
            .collect();
        let mut damages = Vec::new();
        for (source, listing) in self.listings.iter().enumerate() {
            for entry in listing.iter().filter(|entry| entry.kind == EntryKind::File) {
                let path = self.manifest_path(source, entry.path);
                if let Some(size) = left.remove(&path)
                    && size != entry.size
                {
                    damages.push(format!(
                        "\"{}\" has {} bytes in the backup, {size} in its manifest",
                        String::from_utf8_lossy(&path),
                        entry.size
                    ));
                }
            }
        }
        damages.extend(left.keys().map(|path| {
            format!(
                "\"{}\" is in the manifest but not in the backup",
                String::from_utf8_lossy(path)
            )
        }));
        match damages.is_empty() {
            true => Ok(()),
            false => {
                damages.sort();
                Err(CloneError::Damaged {
                    count: damages.len(),
                    damages,
                })
            }
        }
    }

    /// How the manifest names a file: tablespaces are below `pg_tblspc`.
    pub(crate) fn manifest_path(&self, source: usize, path: &[u8]) -> Vec<u8> {
        match source.checked_sub(1).and_then(|n| self.backup.tablespaces.get(n)) {
            None => path.to_vec(),
            Some(tablespace) => {
                let mut full = format!("pg_tblspc/{}/", tablespace.oid).into_bytes();
                full.extend_from_slice(path);
                full
            }
        }
    }
}

/// Whether a file named in a manifest is one that gets copied.
fn is_copied(path: &[u8]) -> bool {
    match path.strip_prefix(b"pg_tblspc/") {
        Some(rest) => match rest.iter().position(|b| *b == b'/') {
            Some(slash) => tablespace_copy_rule(&rest[slash + 1..], false) == CopyRule::Copy,
            None => false,
        },
        None => copy_rule(path, false) == CopyRule::Copy,
    }
}

fn keep(entry: &Entry<'_>, rule: fn(&[u8], bool) -> CopyRule, special: &mut Vec<String>) -> bool {
    let is_dir = entry.kind == EntryKind::Directory;
    let wanted = match rule(entry.path, is_dir) {
        CopyRule::Copy | CopyRule::DirOnly => true,
        CopyRule::Skip | CopyRule::Last => false,
    };
    if wanted && !is_dir && entry.kind != EntryKind::File {
        special.push(String::from_utf8_lossy(entry.path).into_owned());
        return false;
    }
    wanted
}

/// How many of the entries are files.
pub(crate) fn files_in(listing: &Listing) -> u64 {
    listing
        .iter()
        .filter(|entry| entry.kind == EntryKind::File)
        .count() as u64
}

/// A path of a listing, for the file system here.
pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}
