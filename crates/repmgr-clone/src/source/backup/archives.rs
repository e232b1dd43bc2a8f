//! A backup that is made of tar files.

use repmgr_barman::{Backup, Barman, TarCodec};
use repmgr_transfer::{Codec, EntryKind, Options, list};

use super::stored::MANIFEST;
use crate::{BackupError, CloneError, Context};

/// The archives of a backup.
#[derive(Debug)]
pub(crate) struct Archives {
    /// How they are compressed.
    pub(crate) codec: Codec,
    /// That of the data directory, then of each tablespace in the order of the backup.
    pub(crate) all: Vec<Archive>,
    pub(super) has_manifest: bool,
}

/// One archive.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Its name in the backup's data directory.
    pub(crate) name: String,
    /// Bytes, as it lies there.
    pub(crate) size: u64,
    /// The tablespace; `None` for the data directory.
    pub(crate) tablespace: Option<u32>,
}

impl Archives {
    /// Finds the archives, and proves that each can be read.
    pub(super) fn list(
        barman: &mut Barman,
        backup: &Backup,
        codec: TarCodec,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let directory = backup.data_directory();
        let listing = list(barman.connection(), &directory, &mut |_| true, context.cancel)?;
        let find = |name: &str| {
            listing
                .iter()
                .find(|entry| entry.path == name.as_bytes() && entry.kind == EntryKind::File)
        };
        let tablespaces = backup.tablespaces.iter().map(|tablespace| Some(tablespace.oid));
        let mut all = Vec::new();
        for tablespace in std::iter::once(None).chain(tablespaces) {
            let stem = tablespace.map_or_else(|| "base".to_owned(), |oid: u32| oid.to_string());
            let name = stem + codec.suffix();
            let Some(entry) = find(&name) else {
                return Err(BackupError::Incomplete {
                    backup: backup.id.clone(),
                    path: name,
                }
                .into());
            };
            if !entry.readable {
                return Err(BackupError::NotReadable {
                    backup: backup.id.clone(),
                    count: 1,
                    path: format!("{directory}/{name}"),
                }
                .into());
            }
            all.push(Archive {
                size: entry.size,
                name,
                tablespace,
            });
        }
        Ok(Self {
            codec: match codec {
                TarCodec::None => Codec::None,
                TarCodec::Gzip => Codec::Gzip,
                TarCodec::Lz4 => Codec::Lz4,
                TarCodec::Zstd => Codec::Zstd,
            },
            all,
            has_manifest: find(MANIFEST).is_some_and(|entry| entry.readable),
        })
    }

    /// How many sessions fetch them: each brings one at a time.
    pub(crate) fn sessions(&self, options: &Options) -> usize {
        options.jobs.get().min(self.all.len())
    }

    pub(super) fn total_size(&self) -> u64 {
        super::total(self.all.iter().map(|archive| archive.size))
    }
}
