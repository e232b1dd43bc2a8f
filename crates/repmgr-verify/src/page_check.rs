use repmgr_types::Lsn;

use crate::PageLayout;
use crate::page::Page;
use crate::relation::RelationFile;

/// Bad pages told of one by one; of more there is only the count.
const TOLD: usize = 1000;

/// By what the pages of a backup are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRules {
    /// From the cluster's control file, or the default.
    pub layout: PageLayout,
    /// Where recovery of the backup begins (START WAL LOCATION of its label). [`Lsn`] of `u64::MAX` for a
    /// cluster that was shut down, where nothing is excused.
    pub backup_start: Lsn,
    /// Where the backup ended, or later. Without it a damaged page whose damage looks like a late LSN counts
    /// as torn.
    pub backup_end: Option<Lsn>,
}

/// The checksums of the pages of one file, while its bytes stream by.
///
/// Only for clusters with data checksums ([`ClusterPages`](crate::ClusterPages) or `SHOW data_checksums`
/// tells): in others every page would seem bad.
///
/// A page is right if its checksum is that of its content and its place, or if it is all zeros, as one that
/// was never written. A page with another checksum is no error if its LSN says that it was written after the
/// backup began: it may have been copied while half written, and recovery replaces it with a full image from
/// the WAL. So far `pg_basebackup` (the server's `basebackup.c`, 11 to 18) judges alike. Beyond it, two kinds
/// of damage are found: content under a header of zeros, and an LSN that was not yet written when the backup
/// ended.
///
/// What cannot be told apart from one page: a copy that took the beginning of a page before it was written
/// and the rest after (the server reads such a page again, rsync does not) looks like damage. Recovery repairs
/// it if the WAL since the begin of the backup has the whole page, which [`ImageScan`](crate::ImageScan) tells.
#[derive(Debug, Clone)]
pub struct PageCheck {
    rules: PageRules,
    /// The number of the next page in its relation.
    block: u32,
    /// The beginning of a page whose rest is still to come.
    held: Vec<u8>,
    report: PageReport,
}

/// What became of a file's pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageReport {
    /// Whole pages seen.
    pub pages: u64,
    /// Of these, with a wrong checksum but written after the backup began: recovery replaces them.
    pub torn: u64,
    /// Of these, bad.
    pub bad_pages: u64,
    /// The first of the bad ones, 1000 at most.
    pub bad: Vec<BadPage>,
    /// Bytes behind the last whole page. Not an error as such: a file may be copied while it grows.
    pub trailing_bytes: usize,
}

/// A page that is not as PostgreSQL wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPage {
    /// Its number in the relation, all segments counted. (Messages of PostgreSQL's own tools count from the
    /// beginning of the file.)
    pub block: u32,
    /// The position in the WAL of its last change, as the page says.
    pub lsn: Lsn,
    /// What is wrong.
    pub fault: PageFault,
}

/// What can be wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// Content and checksum do not belong together, or the page belongs elsewhere.
    #[error("calculated checksum {calculated:X} but block contains {stored:X}")]
    Checksum {
        /// Of the content, in this place.
        calculated: u16,
        /// As the page holds it.
        stored: u16,
    },
    /// The header is that of a page never written, the rest is not.
    #[error("the header is that of an unused page, but the page is not empty")]
    Header,
}

impl PageCheck {
    /// For the file at `path`, relative to the data directory; `None` if that is [not a
    /// relation's](RelationFile::parse), so that it has no pages.
    pub fn for_file(path: &[u8], rules: &PageRules) -> Option<Self> {
        let file = RelationFile::parse(path)?;
        Some(Self {
            rules: *rules,
            // A relation has less than 2^32 pages: with more, the name is not PostgreSQL's.
            block: file.segment.checked_mul(rules.layout.segment_pages())?,
            held: Vec::new(),
            report: PageReport::default(),
        })
    }

    /// The next bytes of the file. Only a page that is split between chunks is copied.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let page_size = self.rules.layout.page_size();
        if !self.held.is_empty() {
            let (begin, rest) = bytes.split_at(bytes.len().min(page_size - self.held.len()));
            self.held.extend_from_slice(begin);
            if self.held.len() < page_size {
                return;
            }
            let mut held = std::mem::take(&mut self.held);
            self.judge(Page(&held));
            held.clear();
            self.held = held;
            bytes = rest;
        }
        let pages = bytes.chunks_exact(page_size);
        let rest = pages.remainder();
        pages.for_each(|page| self.judge(Page(page)));
        if !rest.is_empty() {
            self.held.reserve_exact(page_size);
            self.held.extend_from_slice(rest);
        }
    }

    /// The verdict on what was seen.
    pub fn finish(self) -> PageReport {
        PageReport {
            trailing_bytes: self.held.len(),
            ..self.report
        }
    }

    fn judge(&mut self, page: Page<'_>) {
        let block = self.block;
        self.block = block.wrapping_add(1);
        self.report.pages += 1;
        let Some(fault) = fault(page, block) else { return };
        let lsn = page.lsn();
        if lsn >= self.rules.backup_start && self.rules.backup_end.is_none_or(|end| lsn <= end) {
            self.report.torn += 1;
            return;
        }
        self.report.bad_pages += 1;
        if self.report.bad.len() < TOLD {
            self.report.bad.push(BadPage { block, lsn, fault });
        }
    }
}

fn fault(page: Page<'_>, block: u32) -> Option<PageFault> {
    if page.is_new() {
        return (!page.is_zero()).then_some(PageFault::Header);
    }
    let (calculated, stored) = (page.checksum(block), page.stored_checksum());
    (calculated != stored).then_some(PageFault::Checksum { calculated, stored })
}

#[cfg(test)]
mod tests;
