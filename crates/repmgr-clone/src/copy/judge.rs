//! The verdict on files while they arrive: by the backup's manifest and by the checksums of their pages.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use repmgr_barman::Barman;
use repmgr_remote::one_line;
use repmgr_types::SystemId;
use repmgr_verify::{ClusterPages, ControlFileError, FileCheck, Fork, Manifest, PageCheck, PageReport};
use repmgr_verify::{PageRules, RelationFile};

use crate::copy::torn::Torn;
use crate::request::BarmanSource;
use crate::source::backup::{Pages, ServerParameters, Stored};
use crate::{CloneError, Context, CopyError, Hint, PageChecks, Remark, RemarkCode};

/// More damaged files are counted, not listed.
const MAX_LISTED: usize = 50;
const MAX_BLOCKS: usize = 3;
/// More than a disk spoils or a copy tears; of files beyond it no page is remembered.
const MAX_PAGES: usize = 100_000;

/// Judges the files of one backup. Shared by all who receive them.
pub(crate) struct Judge<'a> {
    manifest: Option<&'a Manifest>,
    rules: Option<PageRules>,
    stored: &'a Stored,
    parameters: &'a ServerParameters,
    /// Damaged files count as good, with a warning.
    accept: bool,
    found: Mutex<Found>,
}

/// What is not as it should be, by file.
#[derive(Default)]
struct Found {
    files: BTreeMap<Vec<u8>, String>,
    pages: BTreeMap<Vec<u8>, PageReport>,
    /// Bad pages that are remembered one by one.
    remembered: usize,
}

/// One file under judgement.
pub(crate) struct Case {
    /// As the manifest names it.
    path: Vec<u8>,
    recorded: Option<FileCheck>,
    pages: Option<PageCheck>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(parameters: &'a ServerParameters, stored: &'a Stored, accept: bool) -> Self {
        Self {
            manifest: parameters.manifest.as_deref(),
            rules: parameters.page_rules(&stored.backup),
            stored,
            parameters,
            accept,
            found: Mutex::default(),
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
        self.found().take(case);
    }

    /// A file that the backup should have is not in it.
    pub(crate) fn missing(&self, path: Vec<u8>) {
        let line = not_in_backup(&path);
        self.found().files.insert(path, line);
    }

    /// Whether a file must not count as good.
    pub(crate) fn rejects(&self, path: &[u8]) -> bool {
        let found = self.found();
        !self.accept && (found.files.contains_key(path) || found.pages.contains_key(path))
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdict on the whole backup, now that its control file is here; how far its pages were verified.
    pub(crate) fn conclude(
        self,
        control: Result<ClusterPages, ControlFileError>,
        system_id: SystemId,
        barman: &BarmanSource,
        session: &mut Barman,
        context: &Context<'_>,
    ) -> Result<PageChecks, CloneError> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Found {
            mut files, mut pages, ..
        } = found;
        let checks = verdict(&self.parameters.pages, control);
        if checks != PageChecks::Verified {
            pages.clear();
        }
        let mut note = "";
        if !pages.is_empty() && self.stored.may_have_torn_pages(self.parameters) {
            let backup = &self.stored.backup;
            note = Torn { backup, system_id }.sort_out(&mut pages, barman, session, context)?;
        }
        for (path, report) in pages {
            let line = damaged_pages(&report);
            files
                .entry(path)
                .and_modify(|fault| *fault = format!("{fault}; {line}{note}"))
                .or_insert_with_key(|path| format!("\"{}\": {line}{note}", shown(path)));
        }
        if files.is_empty() {
            return Ok(checks);
        }
        let count = files.len();
        let mut damages: Vec<String> = files.into_values().take(MAX_LISTED).collect();
        if count > damages.len() {
            damages.push(format!("and {} more", count - damages.len()));
        }
        if !self.accept {
            return Err(CopyError::Damaged {
                backup: self.stored.backup.id.clone(),
                count,
                damages,
            }
            .into());
        }
        context.tell(
            Remark::warning(
                RemarkCode::DamageAccepted,
                "files of the backup failed verification and are accepted as they are",
            )
            .detail(damages.join("\n"))
            .hint(Hint::from(
                "check the standby with pg_amcheck, and take a new backup",
            )),
        );
        Ok(checks)
    }
}

impl Found {
    fn take(&mut self, case: Case) {
        // It may have come before, over a connection that was lost.
        self.files.remove(&case.path);
        self.pages.remove(&case.path);
        let mut report = case.pages.map(PageCheck::finish).unwrap_or_default();
        if let Some(Err(fault)) = case.recorded.map(FileCheck::finish) {
            let line = format!("\"{}\": by backup_manifest {fault}", shown(&case.path));
            self.files.insert(case.path.clone(), line);
        }
        if report.bad_pages > 0 {
            if self.remembered + report.bad.len() > MAX_PAGES {
                report.bad.truncate(MAX_BLOCKS);
            }
            self.remembered += report.bad.len();
            self.pages.insert(case.path, report);
        }
    }
}

/// Whether the pages were judged and that counts, by what the control file says in the end.
fn verdict(judged_as: &Pages, control: Result<ClusterPages, ControlFileError>) -> PageChecks {
    let not_verified = |reason: String| PageChecks::NotVerified { reason };
    match (judged_as, control) {
        (_, Ok(pages)) if !pages.checksums => PageChecks::NoChecksums,
        (Pages::Unjudged(reason), _) => not_verified(reason.clone()),
        (Pages::Said(false), Err(_)) => PageChecks::NoChecksums,
        (Pages::Said(true), Err(_)) => PageChecks::Verified,
        (_, Err(error)) => not_verified(error.to_string()),
        (judged_as, Ok(pages)) if judged_as.layout() == Some(pages.layout) => PageChecks::Verified,
        (Pages::Said(false), Ok(_)) => {
            not_verified("that the cluster has checksums turned out too late".to_owned())
        }
        (_, Ok(pages)) => not_verified(format!(
            "that they have {} bytes turned out too late",
            pages.layout.page_size()
        )),
    }
}

fn damaged_pages(report: &PageReport) -> String {
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
    format!("damaged pages: {}{more}", told.join(", "))
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
    use repmgr_verify::PageLayout;

    use super::*;

    #[test]
    fn damaged_files_are_told_on_one_line_each() {
        let path = "base/é\x1b]0;owned\x07\n".as_bytes();
        let mut found = Found::default();
        found.take(Case {
            path: path.to_vec(),
            recorded: Some(FileCheck::new(1, None)),
            pages: None,
        });
        let line = &found.files[path];
        let expected = "\"base/é\\u{1b}]0;owned\\u{7}\\n\": by backup_manifest ";
        assert!(line.starts_with(expected), "{line}");
        assert_eq!(
            not_in_backup(b"z\r\xff"),
            "\"z\\r\u{fffd}\" is in the manifest but not in the backup"
        );
        // The whole file comes once more.
        found.take(Case {
            path: path.to_vec(),
            recorded: Some(FileCheck::new(0, None)),
            pages: None,
        });
        assert!(found.files.is_empty());
    }

    #[test]
    fn pages_count_as_verified_only_if_they_were_judged_by_what_the_control_file_says() {
        let of = |checksums, layout| ClusterPages { checksums, layout };
        let (on, off) = (of(true, PageLayout::DEFAULT), of(false, PageLayout::DEFAULT));
        let large = of(true, PageLayout::new(16_384, 65_536).unwrap());
        let unknown = || Err(ControlFileError::Version(2500));
        let is_open = |judged_as: Pages, control| {
            matches!(verdict(&judged_as, control), PageChecks::NotVerified { .. })
        };
        for judged_as in [Pages::Known(on), Pages::Said(true), Pages::Untold] {
            assert_eq!(verdict(&judged_as, Ok(on)), PageChecks::Verified);
            assert_eq!(verdict(&judged_as, Ok(off)), PageChecks::NoChecksums);
            assert!(is_open(judged_as, Ok(large)));
        }
        assert_eq!(verdict(&Pages::Known(large), Ok(large)), PageChecks::Verified);
        assert_eq!(verdict(&Pages::Said(false), unknown()), PageChecks::NoChecksums);
        assert!(is_open(Pages::Said(false), Ok(on)));
        assert!(is_open(Pages::Untold, unknown()));
        assert!(is_open(Pages::Unjudged("as demanded".into()), Ok(on)));
    }
}
