//! A backup whose files lie there as they were.

use std::collections::{HashMap, HashSet};

use repmgr_barman::{Backup, Barman};
use repmgr_datadir::{
    ControlError, CopyRule, PG_CONTROL, PG_CONTROL_SIZE, Permissions, copy_rule, tablespace_copy_rule,
};
use repmgr_transfer::{Entry, EntryKind, Listing, list_all};
use repmgr_verify::{Fork, Manifest, RelationFile};

use super::manifest_path;
use super::stored::MANIFEST;
use crate::{CloneError, Context};

/// Without these no server starts, or worse, starts without knowing that it is a backup.
const INDISPENSABLE: [&str; 2] = ["PG_VERSION", "backup_label"];

/// The files of a backup that belong into a standby.
#[derive(Debug)]
pub(crate) struct Files {
    /// The data directory, then each tablespace in the order of the backup.
    pub(crate) listings: Vec<Listing>,
    /// The tablespaces.
    oids: Vec<u32>,
    /// Entries that are no files or directories.
    pub(super) special: Vec<String>,
    pub(super) has_manifest: bool,
}

impl Files {
    /// Lists all files, and proves that each can be read.
    pub(super) fn list(
        barman: &mut Barman,
        backup: &Backup,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let mut special = Vec::new();
        let mut control_size = None;
        let mut has_manifest = false;
        let tablespaces = backup.tablespaces.iter();
        let directories: Vec<String> = [backup.data_directory()]
            .into_iter()
            .chain(tablespaces.map(|tablespace| backup.tablespace_directory(tablespace.oid)))
            .collect();
        let listings = list_all(
            barman.connection(),
            &directories,
            &mut |number, entry| {
                if number > 0 {
                    return keep(entry, tablespace_copy_rule, &mut special);
                }
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
        let mut files = Self {
            listings,
            oids: backup
                .tablespaces
                .iter()
                .map(|tablespace| tablespace.oid)
                .collect(),
            special,
            has_manifest,
        };
        files.check_whole(backup, control_size)?;
        files.leave_out_unlogged()?;
        files.check_readable(backup)?;
        Ok(files)
    }

    pub(crate) fn total_size(&self) -> u64 {
        self.listings.iter().map(Listing::total_size).sum()
    }

    pub(crate) fn total_files(&self) -> u64 {
        self.listings.iter().map(files_in).sum()
    }

    /// Bytes on disk of the data directory and of each tablespace.
    pub(crate) fn space_needed(&self) -> Vec<u64> {
        // Whole blocks, and one more for a directory entry and an inode.
        let needed = |listing: &Listing| listing.total_size() + listing.len() as u64 * 4096;
        self.listings.iter().map(needed).collect()
    }

    /// Whether the cluster lets its group read: its directories say so.
    pub(super) fn permissions(&self) -> Permissions {
        let base = self.listings[0].iter().find(|entry| entry.path == b"base");
        base.map_or_else(Permissions::default, |base| Permissions::of_directory(base.mode))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.listings[0].iter().any(|entry| entry.path == name.as_bytes())
    }

    fn check_whole(&self, backup: &Backup, control_size: Option<u64>) -> Result<(), CloneError> {
        let incomplete = |path: &str| CloneError::Incomplete {
            backup: backup.id.clone(),
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
                backup: backup.id.clone(),
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

    fn check_readable(&self, backup: &Backup) -> Result<(), CloneError> {
        let mut unreadable = self.listings.iter().flat_map(|listing| {
            let unreadable = listing.iter().filter(|entry| !entry.readable);
            unreadable.map(|entry| format!("{}/{}", listing.directory(), String::from_utf8_lossy(entry.path)))
        });
        match unreadable.next() {
            None => Ok(()),
            Some(path) => Err(CloneError::NotReadable {
                backup: backup.id.clone(),
                count: 1 + unreadable.count(),
                path,
            }),
        }
    }

    /// Every file of the manifest must be there, with the right size, which costs nothing to see.
    pub(super) fn check_manifest(&self, backup: &Backup, manifest: &Manifest) -> Result<(), CloneError> {
        let mut left: HashMap<Vec<u8>, u64> = expected(manifest).collect();
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
                    backup: backup.id.clone(),
                    count: damages.len(),
                    damages,
                })
            }
        }
    }

    /// How the manifest names a file.
    pub(crate) fn manifest_path(&self, source: usize, path: &[u8]) -> Vec<u8> {
        manifest_path(source.checked_sub(1).map(|n| self.oids[n]), path)
    }
}

/// The files of a manifest that get copied. (Manifests of PostgreSQL's leave out unlogged tables, as
/// we do; Barman's own do not.)
pub(crate) fn expected(manifest: &Manifest) -> impl Iterator<Item = (Vec<u8>, u64)> {
    let relation = |path| RelationFile::parse(path).map(|file| (file.relation.to_vec(), file.fork));
    let unlogged: HashSet<Vec<u8>> = manifest
        .iter()
        .filter_map(|entry| relation(entry.path))
        .filter(|(_, fork)| *fork == Fork::Init)
        .map(|(relation, _)| relation)
        .collect();
    let files = manifest.iter().filter(|entry| is_copied(entry.path));
    files
        .filter(move |entry| {
            relation(entry.path)
                .is_none_or(|(relation, fork)| fork == Fork::Init || !unlogged.contains(&relation))
        })
        .map(|entry| (entry.path.to_vec(), entry.size))
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
fn files_in(listing: &Listing) -> u64 {
    let files = listing.iter().filter(|entry| entry.kind == EntryKind::File);
    files.count() as u64
}
