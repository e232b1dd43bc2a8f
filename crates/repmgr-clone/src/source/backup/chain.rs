//! What an incremental backup is combined from.

use std::collections::BTreeMap;

use repmgr_barman::{Backup, Barman};
use repmgr_upstream::CombineBackup;

use super::stored::MANIFEST;
use super::{Stored, expected, total};
use crate::request::BarmanSource;
use crate::source::server;
use crate::{BackupError, BackupEvent, CloneError, CloneRequest, Context};

/// The backups below an incremental one, and the means to make a whole one of all.
pub(crate) struct Chain {
    /// The full backup first.
    pub(crate) below: Vec<Below>,
    pub(crate) program: CombineBackup,
    /// Whether the program can link files instead of copying them.
    pub(crate) can_link: bool,
}

/// A backup of the chain whose files can all be read. Their list is made again when they are copied, so that
/// a long chain of large backups does not fill the memory.
pub(crate) struct Below {
    pub(crate) backup: Backup,
    /// Files to fetch, and their bytes as they lie there.
    stored: (u64, u64),
    /// Files and bytes here.
    pub(crate) load: (u64, u64),
    /// Bytes on disk here, by tablespace; `None` is the data directory.
    space: BTreeMap<Option<u32>, u64>,
}

impl Chain {
    /// Nothing for a full backup. For an increment it looks at all it builds upon, and at the program.
    pub(super) fn find(
        barman: &mut Barman,
        backup: &Backup,
        source: &BarmanSource,
        request: &CloneRequest,
        context: &Context<'_>,
    ) -> Result<Option<Self>, CloneError> {
        if backup.parent.is_none() {
            return Ok(None);
        }
        // What only Barman can read, Barman can combine as well.
        backup.own_form()?;
        let program = CombineBackup {
            program: server::program(request, "pg_combinebackup"),
        };
        let can_link = program
            .check(backup.version, context.cancel)
            .map_err(|source| BackupError::combine(backup, source))?;
        let mut all = barman.chain(backup)?;
        context.tell(BackupEvent::ChainFound {
            backups: all.iter().map(|backup| backup.id.to_string()).collect(),
        });
        all.pop();
        let look = |backup| {
            context.cancel.check()?;
            Below::look(barman, backup, source, context)
        };
        Ok(Some(Self {
            below: all.into_iter().map(look).collect::<Result<_, CloneError>>()?,
            program,
            can_link,
        }))
    }

    pub(super) fn total_files(&self) -> u64 {
        total(self.below.iter().map(|below| below.stored.0))
    }

    pub(super) fn total_size(&self) -> u64 {
        total(self.below.iter().map(|below| below.stored.1))
    }

    /// Bytes on disk here: what all backups take together, beside the data directory, and what the result
    /// takes, in it and in each tablespace of `wanted`. The latter is about what the full backup has.
    pub(crate) fn space_needed(&self, wanted: &Stored) -> (u64, Vec<u64>) {
        let own = wanted.space_needed();
        let below = self.below.iter().flat_map(|below| below.space.values());
        let parts = total(own.iter().chain(below).copied());
        let tablespaces = wanted
            .backup
            .tablespaces
            .iter()
            .map(|tablespace| Some(tablespace.oid));
        let full = |place| {
            self.below
                .first()
                .and_then(|full| full.space.get(&place))
                .copied()
        };
        let result = [None].into_iter().chain(tablespaces).zip(own);
        (
            parts,
            result
                .map(|(place, own)| full(place).unwrap_or(0).max(own))
                .collect(),
        )
    }
}

impl Below {
    fn look(
        barman: &mut Barman,
        backup: Backup,
        source: &BarmanSource,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let stored = Stored::list(barman, backup, context)?;
        let parameters = stored.parameters(barman, &source.transfer, context)?;
        let Some(manifest) = &parameters.manifest else {
            return Err(stored.incomplete(MANIFEST));
        };
        let mut space = BTreeMap::new();
        for (path, size) in expected(manifest) {
            // Whole blocks, and one more for a directory entry and an inode.
            let taken: &mut u64 = space.entry(tablespace_of(&path)).or_insert(0);
            *taken = taken.saturating_add(size).saturating_add(4096);
        }
        Ok(Self {
            stored: (stored.total_files(), stored.total_size()),
            load: stored.load(&parameters),
            space,
            backup: stored.backup,
        })
    }
}

/// In which tablespace a file of a manifest is.
fn tablespace_of(path: &[u8]) -> Option<u32> {
    let rest = path.strip_prefix(b"pg_tblspc/")?;
    let oid = rest.split(|b| *b == b'/').next()?;
    std::str::from_utf8(oid).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_manifest_are_told_apart_by_tablespace() {
        assert_eq!(tablespace_of(b"pg_tblspc/16400/PG_17_202406281/5/1"), Some(16400));
        for path in [&b"base/5/1"[..], b"pg_tblspc", b"pg_tblspc/x/1", b"PG_VERSION"] {
            assert_eq!(tablespace_of(path), None);
        }
    }
}
