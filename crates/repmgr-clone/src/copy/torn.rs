//! Pages that were copied while the server wrote them: half old, half new. rsync takes them as they are, and that is
//! no harm: the server wrote the whole page into the WAL before, and recovery of the backup puts it in place.

use std::collections::{BTreeMap, HashSet};

use repmgr_barman::{Backup, Barman};
use repmgr_types::SystemId;
use repmgr_verify::{ImageScan, PageId, PageReport, WalStretch};

use crate::copy::judge::shown;
use crate::error::with_causes;
use crate::request::BarmanSource;
use crate::source::backup::with_session;
use crate::{BackupError, CloneError, Context, ErrorKind, Remark, RemarkCode};

const MAX_TOLD: usize = 5;

/// A backup that may have such pages.
pub(crate) struct Torn<'a> {
    pub(crate) backup: &'a Backup,
    pub(crate) system_id: SystemId,
}

impl Torn<'_> {
    /// Takes the files out of `bad` all whose bad pages are whole in the WAL of the backup's duration, which recovery
    /// needs in any case. What to say of the others.
    pub(crate) fn sort_out(
        &self,
        bad: &mut BTreeMap<Vec<u8>, PageReport>,
        barman: &BarmanSource,
        session: &mut Barman,
        context: &Context<'_>,
    ) -> Result<&'static str, CloneError> {
        let wanted = bad.iter().flat_map(|(path, report)| pages(path, report));
        let mut scan = ImageScan::new(
            WalStretch {
                major: self.backup.version.major(),
                system_id: self.system_id,
                segment_size: self.backup.segment_size,
                begin: self.backup.begin_lsn,
                end: self.backup.end_lsn,
            },
            wanted,
        );
        let read = self.read_wal(&mut scan, barman, session, context);
        let missing = scan.missing();
        let repaired = take_repaired(bad, missing);
        if let Some((first, pages)) = repaired {
            let text = format!(
                "{pages} pages of the backup were copied while the server wrote them, and are replaced in recovery"
            );
            let detail = format!(
                "each is whole in the WAL between {} and {}, which the standby replays first; in {first}",
                self.backup.begin_lsn, self.backup.end_lsn
            );
            context.tell(Remark::notice(RemarkCode::TornPages, text).detail(detail));
        }
        if bad.is_empty() {
            return Ok("");
        }
        match read {
            Ok(()) => Ok(" (and the WAL of the backup's duration does not have them)"),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let text = "whether pages of the backup are damaged cannot be told apart from pages that were copied \
                            while the server wrote them";
                context.tell(Remark::warning(RemarkCode::NotVerified, text).detail(with_causes(&error)));
                Ok(" (and not all WAL of the backup's duration can be read)")
            }
        }
    }

    /// As much WAL of the backup's duration as it takes to find all.
    fn read_wal(
        &self,
        scan: &mut ImageScan,
        barman: &BarmanSource,
        session: &mut Barman,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let (size, last) = (self.backup.segment_size, self.backup.end_wal);
        let mut next = self.backup.begin_wal;
        while !scan.is_done() && next.number(size) <= last.number(size) {
            context.cancel.check()?;
            let mut bytes = Vec::new();
            with_session(session, &*barman.host, |session| {
                bytes.clear();
                let limit = usize::try_from(size.bytes()).unwrap_or(usize::MAX);
                Ok(session.read_wal(next, limit, &mut bytes)?)
            })?;
            scan.update(&bytes).map_err(|source| BackupError::Wal {
                segment: next,
                source,
            })?;
            next = next.next(size);
        }
        Ok(())
    }
}

/// The bad pages of a file; one that is in no WAL, if they are not all known.
fn pages<'a>(path: &'a [u8], report: &'a PageReport) -> impl Iterator<Item = PageId> + 'a {
    report
        .bad
        .iter()
        .filter_map(move |page| PageId::new(path, page.block))
}

/// Removes the files of which no page is missing; the first of them for people, and how many pages there were.
fn take_repaired(
    bad: &mut BTreeMap<Vec<u8>, PageReport>,
    missing: &HashSet<PageId>,
) -> Option<(String, u64)> {
    let (mut names, mut count, mut files) = (Vec::new(), 0, 0usize);
    bad.retain(|path, report| {
        let all_known = report.bad.len() as u64 == report.bad_pages;
        let repaired = all_known && pages(path, report).all(|page| !missing.contains(&page));
        if repaired {
            count += report.bad_pages;
            files += 1;
            if names.len() < MAX_TOLD {
                names.push(format!("\"{}\"", shown(path)));
            }
        } else {
            report
                .bad
                .retain(|page| PageId::new(path, page.block).is_none_or(|page| missing.contains(&page)));
            // Only of known ones it is known that they are repaired.
            if all_known {
                report.bad_pages = report.bad.len() as u64;
            }
        }
        !repaired
    });
    let more = files - names.len();
    let more = if more > 0 {
        format!(" and {more} more files")
    } else {
        String::new()
    };
    (files > 0).then(|| (names.join(", ") + &more, count))
}

#[cfg(test)]
mod tests {
    use repmgr_types::Lsn;
    use repmgr_verify::{BadPage, PageFault};

    use super::*;

    fn report(blocks: &[u32], more: u64) -> PageReport {
        let bad = |block: &u32| BadPage {
            block: *block,
            lsn: Lsn(1),
            fault: PageFault::Header,
        };
        PageReport {
            pages: 100,
            torn: 0,
            bad_pages: blocks.len() as u64 + more,
            bad: blocks.iter().map(bad).collect(),
            trailing_bytes: 0,
        }
    }

    #[test]
    fn a_file_is_repaired_when_all_its_bad_pages_are() {
        let paths = [b"base/5/1", b"base/5/2", b"base/5/3"].map(|path| path.to_vec());
        let mut bad: BTreeMap<_, _> = [
            (paths[0].clone(), report(&[1, 2], 0)),
            (paths[1].clone(), report(&[1, 2], 0)),
            (paths[2].clone(), report(&[1], 7)),
        ]
        .into();
        let missing = HashSet::from([PageId::new(&paths[1], 2).unwrap()]);
        let repaired = take_repaired(&mut bad, &missing).unwrap();
        assert_eq!(repaired, ("\"base/5/1\"".to_owned(), 2));
        assert_eq!(bad.len(), 2);
        let left = &bad[&paths[1]];
        assert_eq!((left.bad_pages, left.bad[0].block), (1, 2));
        assert_eq!(bad[&paths[2]].bad_pages, 8);
    }
}
