//! The verdict on files while they arrive: by the backup's manifest and by the checksums of their pages.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use repmgr_barman::Backup;
use repmgr_remote::one_line;
use repmgr_types::BackupId;
use repmgr_verify::{FileCheck, Fork, Manifest, PageCheck, PageRules, RelationFile};

use crate::barman::ServerParameters;
use crate::{CloneError, Context, Event};

/// More damaged files are counted, not listed.
const MAX_LISTED: usize = 50;
const MAX_BLOCKS: usize = 3;

/// Judges the files of one backup. Shared by all who receive them.
pub(crate) struct Judge<'a> {
    manifest: Option<&'a Manifest>,
    rules: Option<PageRules>,
    backup: &'a BackupId,
    /// Damaged files count as good, with a warning.
    accept: bool,
    damages: Mutex<BTreeMap<Vec<u8>, String>>,
}

/// One file under judgement.
pub(crate) struct Case {
    /// As the manifest names it.
    path: Vec<u8>,
    recorded: Option<FileCheck>,
    pages: Option<PageCheck>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(parameters: &'a ServerParameters, backup: &'a Backup, accept: bool) -> Self {
        Self {
            manifest: parameters.manifest.as_ref(),
            rules: parameters.page_rules(backup),
            backup: &backup.id,
            accept,
            damages: Mutex::default(),
        }
    }

    /// A file begins; `path` as the manifest would name it.
    pub(crate) fn begin(&self, path: Vec<u8>) -> Case {
        let recorded = self.manifest.and_then(|manifest| manifest.get(&path));
        Case {
            recorded: recorded.map(|entry| entry.check()),
            pages: self.page_check(&path),
            path,
        }
    }

    /// Free space and visibility maps are left alone: PostgreSQL puts bad pages of them right by itself,
    /// and changes of the former are not in the WAL, so that a torn page is nothing special.
    fn page_check(&self, path: &[u8]) -> Option<PageCheck> {
        let fork = RelationFile::parse(path)?.fork;
        let rules = self.rules.filter(|_| matches!(fork, Fork::Main | Fork::Init))?;
        PageCheck::for_file(path, &rules)
    }

    /// A file is here in full.
    pub(crate) fn end(&self, case: Case) {
        let mut faults = Vec::new();
        if let Some(Err(fault)) = case.recorded.map(FileCheck::finish) {
            faults.push(format!("by backup_manifest {fault}"));
        }
        if let Some(report) = case
            .pages
            .map(PageCheck::finish)
            .filter(|report| report.bad_pages > 0)
        {
            let told: Vec<String> = report
                .bad
                .iter()
                .take(MAX_BLOCKS)
                .map(|page| format!("block {}: {}", page.block, page.fault))
                .collect();
            let more = report.bad_pages - told.len() as u64;
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            faults.push(format!("damaged pages: {}{more}", told.join(", ")));
        }
        let mut damages = self.damages();
        match faults.is_empty() {
            // It may have come before, over a connection that was lost.
            true => drop(damages.remove(&case.path)),
            false => {
                let line = format!("\"{}\": {}", shown(&case.path), faults.join("; "));
                damages.insert(case.path, line);
            }
        }
    }

    /// A file that the backup should have is not in it.
    pub(crate) fn missing(&self, path: Vec<u8>) {
        let line = not_in_backup(&path);
        self.damages().insert(path, line);
    }

    /// Whether a file must not count as good.
    pub(crate) fn rejects(&self, path: &[u8]) -> bool {
        !self.accept && self.damages().contains_key(path)
    }

    fn damages(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, String>> {
        self.damages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdict on the whole backup.
    pub(crate) fn conclude(self, context: &Context<'_>) -> Result<(), CloneError> {
        let accept = self.accept;
        let all = self.damages.into_inner().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return Ok(());
        }
        let count = all.len();
        let mut damages: Vec<String> = all.into_values().take(MAX_LISTED).collect();
        if count > damages.len() {
            damages.push(format!("and {} more", count - damages.len()));
        }
        if !accept {
            return Err(CloneError::Damaged {
                backup: self.backup.clone(),
                count,
                damages,
            });
        }
        context.observer.event(Event::Warning {
            text: "files of the backup failed verification and are accepted as they are".to_owned(),
            detail: Some(damages.join("\n")),
            hint: Some("check the standby with pg_amcheck, and take a new backup".to_owned()),
        });
        Ok(())
    }
}

/// Says that a file of the manifest is not there.
pub(crate) fn not_in_backup(path: &[u8]) -> String {
    format!("\"{}\" is in the manifest but not in the backup", shown(path))
}

/// A path from the far side for people: printable, one line.
pub(crate) fn shown(path: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(path))
}

impl Case {
    /// Whether its bytes make a difference.
    pub(crate) fn looks_at_bytes(&self) -> bool {
        self.recorded.is_some() || self.pages.is_some()
    }

    /// The next bytes of it.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(recorded) = &mut self.recorded {
            recorded.update(bytes);
        }
        if let Some(pages) = &mut self.pages {
            pages.update(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_told_on_one_line_each() {
        let id: BackupId = "20261126T010513".parse().unwrap();
        let judge = Judge {
            manifest: None,
            rules: None,
            backup: &id,
            accept: false,
            damages: Mutex::default(),
        };
        let path = "base/é\x1b]0;owned\x07\n".as_bytes();
        judge.end(Case {
            path: path.to_vec(),
            recorded: Some(FileCheck::new(1, None)),
            pages: None,
        });
        judge.missing(b"z\r\xff".to_vec());
        assert!(judge.rejects(path));
        let lines: Vec<String> = judge.damages().values().cloned().collect();
        let expected = "\"base/é\\u{1b}]0;owned\\u{7}\\n\": by backup_manifest ";
        assert!(lines[0].starts_with(expected), "{lines:?}");
        assert_eq!(
            lines[1],
            "\"z\\r\u{fffd}\" is in the manifest but not in the backup"
        );
    }
}
