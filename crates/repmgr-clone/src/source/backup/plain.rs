//! A backup whose files lie there as they were.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use repmgr_barman::{Backup, Barman};
use repmgr_datadir::{
    ControlError, CopyRule, PG_CONTROL, PG_CONTROL_SIZE, Permissions, copy_rule, tablespace_copy_rule,
};
use repmgr_transfer::{Entry, EntryKind, Listing, list_all};
use repmgr_verify::{Fork, Manifest, RelationFile};

use super::stored::MANIFEST;
use super::{as_path, manifest_path};
use crate::copy::judge::{not_in_backup, shown};
use crate::{BackupError, CloneError, Context, CopyError, Remark, RemarkCode};

/// Without these no server starts, or worse, starts without knowing that it is a backup.
const INDISPENSABLE: [&str; 2] = ["PG_VERSION", LABEL];
const LABEL: &str = "backup_label";

/// More entries that are no files or directories are counted, not listed.
const MAX_SPECIAL: usize = 20;

/// As PostgreSQL's `include_dir` chooses.
fn is_included(name: &Path) -> bool {
    let name = name.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(".conf") && !name.starts_with('.'))
}

/// The files of a backup that belong into a standby.
#[derive(Debug)]
pub(crate) struct Files {
    /// The data directory, then each tablespace in the order of the backup.
    pub(crate) listings: Vec<Listing>,
    /// The tablespaces.
    oids: Vec<u32>,
    /// The first entries that are no files or directories, for people, and how many more there are.
    pub(super) special: Vec<String>,
    pub(super) has_manifest: bool,
    /// The manifest is older than the label that the backup began with.
    pub(super) manifest_is_older: bool,
    /// There is a manifest of something else.
    pub(super) foreign_manifest: bool,
    /// Bytes of all files that lie there, those included that are not copied.
    stored: u64,
}

impl Files {
    /// Lists all files, and proves that each can be read.
    pub(super) fn list(
        barman: &mut Barman,
        backup: &Backup,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let mut special = Special::default();
        let mut control_size = None;
        let (mut manifest, mut label) = (None, None);
        let mut stored = 0u64;
        let tablespaces = backup.tablespaces.iter();
        let directories: Vec<String> = [backup.data_directory()]
            .into_iter()
            .chain(tablespaces.map(|tablespace| backup.tablespace_directory(tablespace.oid)))
            .collect();
        let listings = list_all(
            barman.connection(),
            &directories,
            &mut |number, entry| {
                if entry.kind == EntryKind::File {
                    stored = stored.saturating_add(entry.size);
                }
                if number > 0 {
                    return keep(entry, tablespace_copy_rule, &mut special);
                }
                if entry.path == PG_CONTROL.as_bytes() && entry.kind == EntryKind::File {
                    control_size = Some(entry.size);
                }
                if entry.path == MANIFEST.as_bytes() {
                    manifest = Some(entry.modified);
                    return false;
                }
                if entry.path == LABEL.as_bytes() {
                    label = Some(entry.modified);
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
            special: special.lines(),
            has_manifest: manifest.is_some(),
            manifest_is_older: manifest < label,
            foreign_manifest: false,
            stored,
        };
        files.check_whole(backup, control_size)?;
        files.leave_out_unlogged()?;
        files.check_readable(backup)?;
        Ok(files)
    }

    pub(crate) fn total_size(&self) -> u64 {
        super::total(self.listings.iter().map(Listing::total_size))
    }

    pub(crate) fn total_files(&self) -> u64 {
        super::total(self.listings.iter().map(files_in))
    }

    /// Bytes on disk of the data directory and of each tablespace.
    pub(crate) fn space_needed(&self) -> Vec<u64> {
        // Whole blocks, and one more for a directory entry and an inode.
        let needed = |listing: &Listing| listing.total_size().saturating_add(listing.len() as u64 * 4096);
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

    /// The file of this name, or the files of a directory of this name that PostgreSQL includes, in its order.
    pub(super) fn conf_files(&self, path: &Path) -> Vec<PathBuf> {
        let files = self.listings[0]
            .iter()
            .filter(|entry| entry.kind == EntryKind::File);
        let names = files.map(|entry| as_path(entry.path));
        let mut found: Vec<PathBuf> = names
            .filter(|name| *name == path || (name.parent() == Some(path) && is_included(name)))
            .map(Path::to_owned)
            .collect();
        found.sort();
        found
    }

    fn check_whole(&self, backup: &Backup, control_size: Option<u64>) -> Result<(), CloneError> {
        let incomplete = |path: &str| {
            CloneError::from(BackupError::Incomplete {
                backup: backup.id.clone(),
                path: path.to_owned(),
            })
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
            Some(size) => Err(BackupError::Control {
                backup: backup.id.clone(),
                source: ControlError::Size(usize::try_from(size).unwrap_or(usize::MAX)),
            }
            .into()),
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

    /// Without a manifest nothing tells which files there were, but Barman counted their bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub(super) fn check_bytes(&self, backup: &Backup) -> Result<(), CloneError> {
        let counted = backup.least_bytes().filter(|_| !self.has_manifest);
        match counted.and_then(|counted| counted.checked_sub(self.stored)) {
            Some(missing @ 1..) => Err(BackupError::Shrunken {
                backup: backup.id.clone(),
                missing,
            }
            .into()),
            _ => Ok(()),
        }
    }

    fn check_readable(&self, backup: &Backup) -> Result<(), CloneError> {
        let mut unreadable = self.unreadable();
        match unreadable.next() {
            None => Ok(()),
            Some(path) => Err(BackupError::NotReadable {
                backup: backup.id.clone(),
                count: 1 + unreadable.count(),
                path,
            }
            .into()),
        }
    }

    fn unreadable(&self) -> impl Iterator<Item = String> {
        self.listings.iter().flat_map(|listing| {
            let unreadable = listing.iter().filter(|entry| !entry.readable);
            let directory = shown(listing.directory().as_bytes());
            unreadable.map(move |entry| format!("{directory}/{}", shown(entry.path)))
        })
    }

    /// Every file of the manifest must be there, with the right size, which costs nothing to see.
    pub(super) fn check_manifest(
        &self,
        backup: &Backup,
        manifest: &Manifest,
        accept: bool,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let damages = self.damages(expected(manifest).collect());
        if damages.is_empty() {
            return Ok(());
        }
        let error = CloneError::from(CopyError::Damaged {
            backup: backup.id.clone(),
            count: damages.len(),
            damages,
        });
        if !accept {
            return Err(error);
        }
        let remark = Remark::warning(RemarkCode::DamageAccepted, error.to_string());
        context.tell(remark.detail(error.detail()));
        Ok(())
    }

    /// What is not as it should be, with `left` the sizes by the manifest.
    fn damages(&self, mut left: HashMap<Vec<u8>, u64>) -> Vec<String> {
        let mut damages = Vec::new();
        for (source, listing) in self.listings.iter().enumerate() {
            for entry in listing.iter().filter(|entry| entry.kind == EntryKind::File) {
                let path = self.manifest_path(source, entry.path);
                if let Some(size) = left.remove(&path)
                    && size != entry.size
                {
                    damages.push(format!(
                        "\"{}\" has {} bytes in the backup, {size} in its manifest",
                        shown(&path),
                        entry.size
                    ));
                }
            }
        }
        damages.extend(left.keys().map(|path| not_in_backup(path)));
        damages.sort();
        damages
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

/// Entries that are no files or directories.
#[derive(Default)]
struct Special {
    first: Vec<String>,
    more: usize,
}

impl Special {
    fn add(&mut self, path: &[u8]) {
        match self.first.len() < MAX_SPECIAL {
            true => self.first.push(shown(path)),
            false => self.more += 1,
        }
    }

    fn lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.first.push(format!("and {} more", self.more));
        }
        self.first
    }
}

fn keep(entry: &Entry<'_>, rule: fn(&[u8], bool) -> CopyRule, special: &mut Special) -> bool {
    let is_dir = entry.kind == EntryKind::Directory;
    let wanted = match rule(entry.path, is_dir) {
        CopyRule::Copy | CopyRule::DirOnly => true,
        CopyRule::Skip | CopyRule::Last => false,
    };
    if wanted && !is_dir && entry.kind != EntryKind::File {
        special.add(entry.path);
        return false;
    }
    wanted
}

/// How many of the entries are files.
fn files_in(listing: &Listing) -> u64 {
    let files = listing.iter().filter(|entry| entry.kind == EntryKind::File);
    files.count() as u64
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const HOSTILE: &[u8] = b"x\x1b]0;owned\x07\n";
    const ESCAPED: &str = "x\\u{1b}]0;owned\\u{7}\\n";

    fn entry(path: &[u8], kind: EntryKind, size: u64) -> Entry<'_> {
        Entry {
            path,
            kind,
            size,
            mode: 0o600,
            modified: SystemTime::UNIX_EPOCH,
            readable: false,
        }
    }

    /// A file of this size in the data directory, another one in a tablespace.
    fn files(path: &[u8], size: u64) -> Files {
        let listings = ["/\x1bd", "/t"].map(|directory| {
            let mut listing = Listing::new(directory);
            listing.push(&entry(path, EntryKind::File, size)).unwrap();
            listing
        });
        Files {
            listings: listings.into(),
            oids: vec![16_400],
            special: Vec::new(),
            has_manifest: false,
            manifest_is_older: false,
            foreign_manifest: false,
            stored: 0,
        }
    }

    #[test]
    fn of_many_special_entries_the_first_are_told() {
        let mut special = Special::default();
        for _ in 0..MAX_SPECIAL {
            assert!(!keep(
                &entry(HOSTILE, EntryKind::Symlink, 0),
                copy_rule,
                &mut special
            ));
        }
        assert!(keep(
            &entry(b"PG_VERSION", EntryKind::File, 0),
            copy_rule,
            &mut special
        ));
        let mut told = vec![ESCAPED.to_owned(); MAX_SPECIAL];
        assert_eq!((&special.first, special.more), (&told, 0));
        for _ in 0..7 {
            keep(&entry(b"base/p", EntryKind::Other, 0), copy_rule, &mut special);
        }
        told.push("and 7 more".to_owned());
        assert_eq!(special.lines(), told);
    }

    #[test]
    fn absurd_sizes_do_not_wrap_around() {
        let files = files(b"PG_VERSION", u64::MAX);
        assert_eq!(files.total_size(), u64::MAX);
        assert_eq!(files.space_needed(), [u64::MAX; 2]);
    }

    #[test]
    fn names_are_told_on_one_line() {
        let files = files(HOSTILE, 1);
        let unreadable: Vec<_> = files.unreadable().collect();
        assert_eq!(
            unreadable,
            [format!("/\\u{{1b}}d/{ESCAPED}"), format!("/t/{ESCAPED}")]
        );
        let gone = "é\n".as_bytes().to_vec();
        let damages = files.damages([(HOSTILE.to_vec(), 2), (gone, 1)].into());
        assert_eq!(
            damages,
            [
                format!("\"{ESCAPED}\" has 1 bytes in the backup, 2 in its manifest"),
                "\"é\\n\" is in the manifest but not in the backup".to_owned()
            ]
        );
    }
}
