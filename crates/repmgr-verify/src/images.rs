//! Which pages the WAL holds whole, as in PostgreSQL's `access/xlogrecord.h` and `access/xlog_internal.h`
//! (10 to 19): recovery puts them in place, whatever a backup has there.

use std::collections::HashSet;

use repmgr_pgfile::is_plain_wal;
use repmgr_types::{Lsn, SystemId, WalSegmentSize};

use crate::relation::{Fork, RelationFile};

/// A page, as the WAL names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    tablespace: u32,
    database: u32,
    relation: u32,
    fork: Fork,
    block: u32,
}

/// The tablespaces `pg_global` and `pg_default`, which lie in the data directory.
const GLOBAL: u32 = 1664;
const DEFAULT: u32 = 1663;

impl PageId {
    /// Block `block` of the relation that the file at `path` belongs to, all its segments counted. `None` if
    /// that is [not a relation's](RelationFile::parse).
    pub fn new(path: &[u8], block: u32) -> Option<Self> {
        let file = RelationFile::parse(path)?;
        let parts: Vec<&str> = std::str::from_utf8(file.relation).ok()?.split('/').collect();
        let number = |text: &str| text.parse::<u32>().ok();
        let (tablespace, database, relation) = match parts[..] {
            ["global", relation] => (GLOBAL, 0, number(relation)?),
            ["base", database, relation] => (DEFAULT, number(database)?, number(relation)?),
            ["pg_tblspc", tablespace, _, database, relation] => {
                (number(tablespace)?, number(database)?, number(relation)?)
            }
            _ => return None,
        };
        Some(Self {
            tablespace,
            database,
            relation,
            fork: file.fork,
            block,
        })
    }
}

/// Of which cluster the WAL is, and which part of it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalStretch {
    /// The major version of PostgreSQL that wrote it: 15, 10.
    pub major: u32,
    /// Of the cluster.
    pub system_id: SystemId,
    /// Of the cluster.
    pub segment_size: WalSegmentSize,
    /// Where a record begins: the START WAL LOCATION of a backup.
    pub begin: Lsn,
    /// Records that begin here or later do not count.
    pub end: Lsn,
}

/// Looks in WAL for full images of pages, while its bytes stream by.
#[derive(Debug)]
pub struct ImageScan {
    stretch: WalStretch,
    wanted: HashSet<PageId>,
    /// Where in the WAL the next page begins.
    position: u64,
    /// Pages before it are not looked at.
    from: u64,
    /// The beginning of a page whose rest is still to come.
    held: Vec<u8>,
    /// Known from the first page on.
    page_size: usize,
    record: Option<Record>,
    ended: bool,
}

/// Bytes that are not the WAL that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// A page that is not this one of this cluster.
    #[error("the WAL page at {0} is not what it should be")]
    Page(Lsn),
    /// A record that is damaged, or cut.
    #[error("the WAL record at {0} is damaged")]
    Record(Lsn),
}

/// A record of which not all is here yet.
#[derive(Debug)]
struct Record {
    at: u64,
    length: usize,
    seen: usize,
    /// What tells of pages is in here.
    head: Vec<u8>,
    /// Of all behind the header.
    crc: u32,
}

const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
/// Flags of a page: it begins with the rest of a record, has the long header, or what came before is void.
const CONTINUES: u16 = 1;
const LONG: u16 = 2;
const VOIDS: u16 = 8;
const RECORD_HEADER: usize = 24;
const AT_CRC: usize = 20;
/// More than 33 references to blocks take.
const HEAD: usize = 2048;
/// What every size of a WAL page lies between.
const PAGE_SIZES: std::ops::RangeInclusive<usize> = 1024..=65_536;

impl ImageScan {
    /// Looks for these pages. The bytes to come are those of whole segments, one behind the other, the first
    /// being that with `stretch.begin` in it.
    pub fn new(stretch: WalStretch, wanted: impl IntoIterator<Item = PageId>) -> Self {
        let begin = stretch.begin.0;
        Self {
            position: begin - begin % stretch.segment_size.bytes(),
            from: begin,
            wanted: wanted.into_iter().collect(),
            held: Vec::new(),
            page_size: 0,
            record: None,
            ended: false,
            stretch,
        }
    }

    /// Whether no further bytes are of use: all pages were found, or the end is reached.
    pub fn is_done(&self) -> bool {
        self.ended || self.wanted.is_empty()
    }

    /// The pages that were not found.
    pub fn missing(&self) -> &HashSet<PageId> {
        &self.wanted
    }

    /// The next bytes.
    ///
    /// # Errors
    /// When they are not what they should be. What was found before remains found.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), ScanError> {
        while !bytes.is_empty() && !self.is_done() {
            let wanted = if self.page_size == 0 {
                LONG_HEADER
            } else {
                self.page_size
            };
            let (begin, rest) = bytes.split_at(bytes.len().min(wanted - self.held.len()));
            bytes = rest;
            self.held.extend_from_slice(begin);
            if self.held.len() < wanted {
                break;
            }
            if self.page_size == 0 {
                self.page_size = self.first_page()?;
                continue;
            }
            let page = std::mem::take(&mut self.held);
            self.page(&page)?;
            self.position += page.len() as u64;
            self.held = page;
            self.held.clear();
        }
        Ok(())
    }

    /// The size of all pages, from the header of the first.
    fn first_page(&self) -> Result<usize, ScanError> {
        let wrong = ScanError::Page(Lsn(self.position));
        let page_size = u32_at(&self.held, 36).and_then(|size| usize::try_from(size).ok());
        let page_size = page_size.filter(|size| PAGE_SIZES.contains(size) && size.is_power_of_two());
        let segment_size = u32_at(&self.held, 32).map(u64::from);
        match page_size {
            Some(size) if segment_size == Some(self.stretch.segment_size.bytes()) => Ok(size),
            _ => Err(wrong),
        }
    }

    fn page(&mut self, page: &[u8]) -> Result<(), ScanError> {
        if self.position + page.len() as u64 <= self.from {
            return Ok(());
        }
        let wrong = ScanError::Page(Lsn(self.position));
        let (flags, mut at) = self.header(page).ok_or(wrong)?;
        if flags & VOIDS != 0 {
            self.record = None;
        }
        let rest = u32_at(page, 16).ok_or(wrong)? as usize;
        if let Some(record) = &self.record {
            if flags & CONTINUES == 0 || rest != record.length - record.seen {
                return Err(ScanError::Record(Lsn(record.at)));
            }
            at = self.take(page, at)?;
        }
        // The first page: what is before the begin is of no interest.
        let skipped = self.from.saturating_sub(self.position) as usize;
        at = at.max(skipped);
        while at < page.len() && !self.is_done() && self.from < self.position + page.len() as u64 {
            let start = self.position + at as u64;
            if Lsn(start) >= self.stretch.end {
                self.ended = true;
                break;
            }
            let length = u32_at(page, at).ok_or(wrong)? as usize;
            if length == 0 {
                // Nothing was written from here on.
                self.ended = true;
                break;
            }
            if length < RECORD_HEADER {
                return Err(ScanError::Record(Lsn(start)));
            }
            self.record = Some(Record {
                at: start,
                length,
                seen: 0,
                head: Vec::new(),
                crc: 0,
            });
            at = self.take(page, at)?;
        }
        Ok(())
    }

    /// Flags of a page, and where its content begins.
    fn header(&self, page: &[u8]) -> Option<(u16, usize)> {
        let flags = u16_at(page, 2)?;
        let position = u64_at(page, 8)?;
        let of_cluster = flags & LONG == 0 || u64_at(page, 24)? == self.stretch.system_id.0;
        let length = if flags & LONG == 0 {
            SHORT_HEADER
        } else {
            LONG_HEADER
        };
        (is_plain_wal(page) && of_cluster && position == self.position).then_some((flags, length))
    }

    /// Takes what a page has from `at` on of the current record; where the next one begins.
    fn take(&mut self, page: &[u8], at: usize) -> Result<usize, ScanError> {
        let Some(mut record) = self.record.take() else {
            return Ok(at);
        };
        let end = page.len().min(at.saturating_add(record.length - record.seen));
        record.add(&page[at..end]);
        if record.seen < record.length {
            self.record = Some(record);
            return Ok(end);
        }
        let wrong = ScanError::Record(Lsn(record.at));
        if record.is_switch() {
            // Nothing else is in this segment.
            let size = self.stretch.segment_size.bytes();
            self.from = (record.at / size + 1) * size;
        }
        record
            .images(self.stretch.major, &mut |page| {
                self.wanted.remove(&page);
            })
            .ok_or(wrong)?;
        Ok(end.next_multiple_of(8))
    }
}

impl Record {
    fn add(&mut self, bytes: &[u8]) {
        let header = RECORD_HEADER.saturating_sub(self.seen).min(bytes.len());
        self.crc = crc32c::crc32c_append(self.crc, &bytes[header..]);
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.seen += bytes.len();
    }

    /// `XLOG_SWITCH` of the resource manager for the WAL itself.
    fn is_switch(&self) -> bool {
        self.head.get(17) == Some(&0) && self.head.get(16).is_some_and(|info| info & 0xF0 == 0x40)
    }

    /// Tells of each page that replay of the record puts in place as a whole. `None` if it is damaged.
    fn images(&self, major: u32, found: &mut dyn FnMut(PageId)) -> Option<()> {
        let crc = crc32c::crc32c_append(self.crc, self.head.get(..AT_CRC)?);
        if u32_at(&self.head, AT_CRC)? != crc {
            return None;
        }
        let mut reader = Reader(self.head.get(RECORD_HEADER..)?);
        let mut left = self.length - RECORD_HEADER;
        let mut data = 0usize;
        let mut relation = None;
        while left > data {
            let before = reader.0.len();
            match reader.byte()? {
                255 => return Some(()),
                // The record's own data: behind it there are no more references.
                254 => return Some(()),
                253 => drop(reader.take(2)?),
                252 => drop(reader.take(4)?),
                id if id <= 32 => {
                    let block = Block::read(&mut reader, major, &mut relation)?;
                    data = data.checked_add(block.length)?;
                    if let Some(page) = block.whole {
                        found(page);
                    }
                }
                _ => return None,
            }
            left = left.checked_sub(before - reader.0.len())?;
        }
        Some(())
    }
}

/// A reference to a block.
struct Block {
    /// Bytes that belong to it, behind all references.
    length: usize,
    /// The page, if all of it is put in place.
    whole: Option<PageId>,
}

impl Block {
    fn read(reader: &mut Reader<'_>, major: u32, relation: &mut Option<[u32; 3]>) -> Option<Self> {
        const HAS_IMAGE: u8 = 0x10;
        const WILL_INIT: u8 = 0x40;
        const SAME_RELATION: u8 = 0x80;
        const HAS_HOLE: u8 = 0x01;
        // 15 brought more ways to compress.
        let (compressed, applies) = if major < 15 { (0x02, 0x04) } else { (0x1C, 0x02) };
        let flags = reader.byte()?;
        let mut length = usize::from(reader.u16()?);
        let mut whole = flags & WILL_INIT != 0;
        if flags & HAS_IMAGE != 0 {
            length += usize::from(reader.u16()?);
            let _hole = reader.u16()?;
            let image = reader.byte()?;
            whole |= image & applies != 0;
            if image & compressed != 0 && image & HAS_HOLE != 0 {
                let _hole_length = reader.u16()?;
            }
        }
        if flags & SAME_RELATION == 0 {
            *relation = Some([reader.u32()?, reader.u32()?, reader.u32()?]);
        }
        let [tablespace, database, number] = (*relation)?;
        let block = reader.u32()?;
        let fork = match flags & 0x0F {
            0 => Some(Fork::Main),
            1 => Some(Fork::FreeSpaceMap),
            2 => Some(Fork::VisibilityMap),
            3 => Some(Fork::Init),
            _ => None,
        };
        let page = |fork| PageId {
            tablespace,
            database,
            relation: number,
            fork,
            block,
        };
        Some(Self {
            length,
            whole: fork.filter(|_| whole).map(page),
        })
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        u16_at(self.take(2)?, 0)
    }

    fn u32(&mut self) -> Option<u32> {
        u32_at(self.take(4)?, 0)
    }
}

// In the machine's byte order, which a standby shares with its primary.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 8192;
    const SIZE: u64 = 1 << 20;
    const BEGIN: u64 = 2 * SIZE + 40;

    fn stretch(major: u32) -> WalStretch {
        WalStretch {
            major,
            system_id: SystemId(7),
            segment_size: WalSegmentSize::from_bytes(SIZE).unwrap(),
            begin: Lsn(BEGIN),
            end: Lsn(4 * SIZE),
        }
    }

    /// WAL from the begin of its second segment on.
    struct Wal {
        bytes: Vec<u8>,
    }

    impl Wal {
        fn new() -> Self {
            let mut wal = Self { bytes: Vec::new() };
            wal.open_page(0);
            wal
        }

        fn position(&self) -> u64 {
            2 * SIZE + self.bytes.len() as u64
        }

        fn open_page(&mut self, rest: usize) {
            let position = self.position();
            let long = position.is_multiple_of(SIZE);
            let flags = u16::from(rest > 0) | if long { LONG } else { 0 };
            self.bytes.extend(0xD110_u16.to_ne_bytes());
            self.bytes.extend(flags.to_ne_bytes());
            self.bytes.extend(1u32.to_ne_bytes());
            self.bytes.extend(position.to_ne_bytes());
            self.bytes.extend((rest as u32).to_ne_bytes());
            self.bytes.extend([0; 4]);
            if long {
                self.bytes.extend(7u64.to_ne_bytes());
                self.bytes.extend((SIZE as u32).to_ne_bytes());
                self.bytes.extend((PAGE as u32).to_ne_bytes());
            }
        }

        /// A record of this kind with this behind its header, cut into pages.
        fn record(&mut self, info: u8, body: &[u8]) {
            self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
            if self.bytes.len().is_multiple_of(PAGE) {
                self.open_page(0);
            }
            let length = RECORD_HEADER + body.len();
            let mut record = (length as u32).to_ne_bytes().to_vec();
            record.resize(16, 0);
            record.extend([info, if info == 0x40 { 0 } else { 10 }, 0, 0]);
            let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
            record.extend(crc.to_ne_bytes());
            record.extend(body);
            let mut rest = &record[..];
            loop {
                let room = PAGE - self.bytes.len() % PAGE;
                let (now, later) = rest.split_at(rest.len().min(room));
                self.bytes.extend(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
                self.open_page(rest.len());
            }
        }

        fn finish(mut self) -> Vec<u8> {
            self.bytes.resize(self.bytes.len().next_multiple_of(PAGE), 0);
            self.bytes
        }
    }

    /// A reference to a block of relation 16384, with `image` bytes of image, and what follows all references.
    fn block(fork_flags: u8, image: Option<(u8, usize)>, block: u32) -> Vec<u8> {
        let mut body = vec![0, fork_flags | if image.is_some() { 0x10 } else { 0 }];
        body.extend(0u16.to_ne_bytes());
        if let Some((info, length)) = image {
            body.extend((length as u16).to_ne_bytes());
            body.extend(0u16.to_ne_bytes());
            body.push(info);
        }
        for number in [1663, 5, 16384] {
            body.extend(u32::to_ne_bytes(number));
        }
        body.extend(block.to_ne_bytes());
        body.resize(body.len() + image.map_or(0, |(_, length)| length), 0xAB);
        body
    }

    fn page(number: u32) -> PageId {
        PageId::new(b"base/5/16384", number).unwrap()
    }

    fn missing(major: u32, bytes: &[u8], chunk: usize) -> Result<Vec<u32>, ScanError> {
        let mut scan = ImageScan::new(stretch(major), (0..10).map(page));
        for chunk in bytes.chunks(chunk) {
            scan.update(chunk)?;
        }
        let mut missing: Vec<u32> = scan.missing().iter().map(|page| page.block).collect();
        missing.sort_unstable();
        Ok(missing)
    }

    #[test]
    fn pages_are_named_as_the_wal_names_them() {
        let id = |path: &[u8]| PageId::new(path, 3).map(|id| (id.tablespace, id.database, id.relation));
        assert_eq!(id(b"global/1262"), Some((1664, 0, 1262)));
        assert_eq!(id(b"base/5/16384.1"), Some((1663, 5, 16384)));
        assert_eq!(id(b"pg_tblspc/99/PG_15_202209061/5/7_init"), Some((99, 5, 7)));
        assert_eq!(id(b"PG_VERSION"), None);
    }

    #[test]
    fn what_puts_a_whole_page_in_place_is_found_across_pages_and_segments() {
        let mut wal = Wal::new();
        wal.record(0, &block(0, Some((0x02, 8000)), 0));
        wal.record(0, &block(0x40, None, 1));
        // Only a change; only for a check of consistency; another fork.
        wal.record(0, &block(0, None, 2));
        wal.record(0, &block(0, Some((0, 100)), 3));
        wal.record(0, &block(0x41, None, 4));
        // The rest of the segment is void.
        wal.record(0x40, b"");
        wal.bytes.resize(SIZE as usize, 0);
        wal.open_page(0);
        let long = [&[254][..], &100_000u32.to_ne_bytes(), &[7; 100_000]].concat();
        wal.record(0, &long);
        wal.record(0, &block(0, Some((0x02, 8000)), 5));
        let bytes = wal.finish();
        for chunk in [1, 7, 8192, 100_000] {
            assert_eq!(missing(15, &bytes, chunk), Ok(vec![2, 3, 4, 6, 7, 8, 9]));
        }
    }

    #[test]
    fn flags_of_images_are_those_of_the_version() {
        let mut wal = Wal::new();
        wal.record(0, &block(0, Some((0x04, 10)), 0));
        wal.record(0, &block(0, Some((0x02, 10)), 1));
        let bytes = wal.finish();
        assert_eq!(missing(14, &bytes, 8192).unwrap()[0], 1);
        assert_eq!(missing(15, &bytes, 8192).unwrap()[0], 0);
    }

    #[test]
    fn damage_is_an_error_and_nothing_behind_the_end_counts() {
        let mut wal = Wal::new();
        wal.record(0, &block(0, Some((0x02, 8000)), 0));
        let good = wal.finish();
        let mut bad = good.clone();
        bad[200] ^= 1;
        assert_eq!(missing(15, &bad, 8192), Err(ScanError::Record(Lsn(BEGIN))));
        let mut other = good.clone();
        other[24] ^= 1;
        assert_eq!(missing(15, &other, 8192), Err(ScanError::Page(Lsn(2 * SIZE))));
        let mut scan = ImageScan::new(
            WalStretch {
                end: Lsn(BEGIN),
                ..stretch(15)
            },
            [page(0)],
        );
        scan.update(&good).unwrap();
        assert!(scan.is_done() && scan.missing().len() == 1);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            flip in 0usize..PAGE,
            with in any::<u8>(),
            major in 10u32..20,
        ) {
            let mut wal = Wal::new();
            wal.record(0, &body);
            wal.record(0, &block(0, Some((0x02, 3000)), 0));
            let mut bytes = wal.finish();
            let _ = missing(major, &bytes, 1000);
            bytes[flip] ^= with;
            let _ = missing(major, &bytes, 1000);
        }
    }
}
