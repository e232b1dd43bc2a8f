use proptest::prelude::*;

use super::*;

const PAGE: usize = 8192;
const START: Lsn = Lsn(0x10_0000_0000);

const RULES: PageRules = PageRules {
    layout: PageLayout::DEFAULT,
    backup_start: START,
    backup_end: None,
};

/// A page with a header like PostgreSQL's, some content, and the checksum it needs as block `block`.
fn page(block: u32, lsn: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..PAGE as u32)
        .map(|n| (n.wrapping_mul(block.wrapping_add(7)) >> 3) as u8)
        .collect();
    bytes[..4].copy_from_slice(&((lsn >> 32) as u32).to_ne_bytes());
    bytes[4..8].copy_from_slice(&(lsn as u32).to_ne_bytes());
    bytes[14..16].copy_from_slice(&8000_u16.to_ne_bytes());
    let sum = Page(&bytes).checksum(block);
    bytes[8..10].copy_from_slice(&sum.to_ne_bytes());
    bytes
}

fn check(path: &str, rules: &PageRules, bytes: &[u8]) -> PageReport {
    let mut check = PageCheck::for_file(path.as_bytes(), rules).unwrap();
    check.update(bytes);
    check.finish()
}

/// The same again, as simply as the definition reads.
fn reference(page: &[u8], block: u32) -> u16 {
    let mut sums = crate::page::OFFSETS;
    let round = |sum: u32, value: u32| {
        let mixed = sum ^ value;
        mixed.wrapping_mul(16_777_619) ^ (mixed >> 17)
    };
    for at in (0..page.len()).step_by(4) {
        let mut word = [page[at], page[at + 1], page[at + 2], page[at + 3]];
        if at == 8 {
            word[..2].fill(0);
        }
        let lane = at / 4 % 32;
        sums[lane] = round(sums[lane], u32::from_ne_bytes(word));
    }
    let all = sums.map(|sum| round(round(sum, 0), 0));
    ((all.iter().fold(0, |all, sum| all ^ sum) ^ block) % 65_535 + 1) as u16
}

#[test]
fn checksums_are_those_of_postgresql() {
    // From PostgreSQL 15: page_checksum() of its pageinspect 1.11.
    let counting: Vec<u8> = (0..PAGE).map(|n| n as u8).collect();
    let sums = [0, 1, 131_072, u32::MAX - 1].map(|block| Page(&counting).checksum(block));
    assert_eq!(sums, [59_142, 59_143, 59_144, 6394]);
}

#[test]
fn right_pages_and_unused_ones_pass() {
    let file = [
        page(0, 5),
        vec![0; PAGE],
        page(2, START.0 - 1),
        page(3, START.0 + 1),
    ]
    .concat();
    let report = check("base/5/16384", &RULES, &file);
    assert_eq!(
        report,
        PageReport {
            pages: 4,
            ..PageReport::default()
        }
    );
    assert!(PageCheck::for_file(b"global/pg_control", &RULES).is_none());
    assert!(PageCheck::for_file(b"base/5/16384.32768", &RULES).is_none());
}

#[test]
fn a_flipped_bit_anywhere_is_found_with_its_block() {
    for at in [0, 8, 9, 10, 14, 16, 127, 128, 4096, 8191] {
        let mut file = [page(0, 5), page(1, 5), page(2, 5)].concat();
        file[PAGE + at] ^= 1;
        let report = check("global/1262_vm", &RULES, &file);
        assert_eq!((report.pages, report.bad_pages, report.torn), (3, 1, 0), "{at}");
        assert_eq!(report.bad[0].block, 1, "{at}");
    }
}

#[test]
fn blocks_are_counted_over_segments() {
    let path = "pg_tblspc/16390/PG_15_202209061/5/16384.2";
    let mut file = [page(262_144, 5), page(262_145, 5)].concat();
    assert_eq!(check(path, &RULES, &file).bad_pages, 0);
    file[PAGE + 100] ^= 0x80;
    let report = check(path, &RULES, &file);
    assert_eq!(
        report.bad.iter().map(|bad| bad.block).collect::<Vec<_>>(),
        [262_145]
    );
    // In its place, but of another segment.
    assert_eq!(check("base/5/16384.1", &RULES, &page(262_144, 5)).bad_pages, 1);
    let rules = PageRules {
        layout: PageLayout::new(8192, 16).unwrap(),
        ..RULES
    };
    assert_eq!(check("base/5/16384.2", &rules, &page(32, 5)).bad_pages, 0);
}

#[test]
fn a_page_written_during_the_backup_may_be_torn() {
    let torn = |lsn: u64| {
        let mut page = page(0, lsn);
        page[5000] ^= 1;
        page
    };
    let judge = |rules: &PageRules, lsn: u64| {
        let report = check("base/5/16384", rules, &torn(lsn));
        (report.torn, report.bad_pages)
    };
    assert_eq!(judge(&RULES, START.0 - 1), (0, 1));
    assert_eq!(judge(&RULES, START.0), (1, 0));
    assert_eq!(judge(&RULES, u64::MAX), (1, 0));
    let bounded = PageRules {
        backup_end: Some(Lsn(START.0 + 10)),
        ..RULES
    };
    assert_eq!(judge(&bounded, START.0), (1, 0));
    assert_eq!(judge(&bounded, START.0 + 10), (1, 0));
    assert_eq!(judge(&bounded, START.0 + 11), (0, 1));
    // Right all the same.
    assert_eq!(
        check("base/5/16384", &bounded, &page(0, START.0 + 11)).bad_pages,
        0
    );
}

#[test]
fn a_lost_header_over_content_is_found() {
    let mut lost = page(0, 5);
    lost[..4096].fill(0);
    let report = check("base/5/16384", &RULES, &lost);
    assert_eq!(
        report.bad,
        [BadPage {
            block: 0,
            lsn: Lsn(0),
            fault: PageFault::Header
        }]
    );
    let mut last = vec![0; PAGE];
    last[PAGE - 1] = 1;
    assert_eq!(check("base/5/16384", &RULES, &last).bad_pages, 1);
}

#[test]
fn many_bad_pages_are_counted_and_few_kept() {
    let file: Vec<u8> = (0..1100).flat_map(|_| page(2000, 5)).collect();
    let report = check("base/5/16384", &RULES, &file);
    assert_eq!((report.bad_pages, report.bad.len()), (1100, 1000));
    let first = Page(&file[..PAGE]);
    let expected = first.checksum(15);
    let fault = report.bad[15].fault;
    assert_eq!(
        fault.to_string(),
        format!(
            "calculated checksum {expected:X} but block contains {:X}",
            first.checksum(2000)
        )
    );
}

#[test]
fn the_beginning_of_a_page_at_the_end_is_told() {
    let file = [page(0, 5), page(1, 5)].concat();
    for cut in [1, 100, 8191] {
        let report = check("base/5/16384", &RULES, &file[..PAGE + cut]);
        assert_eq!(
            (report.pages, report.bad_pages, report.trailing_bytes),
            (1, 0, cut)
        );
    }
    let empty = check("base/5/16384", &RULES, &[]);
    assert_eq!(empty, PageReport::default());
}

proptest! {
    #[test]
    fn the_fast_checksum_is_the_simple_one(seed in prop::collection::vec(any::<u8>(), 64), block in any::<u32>(), power in 10..=15_u32) {
        let bytes: Vec<u8> = (0..1_usize << power).map(|n| seed[n * 31 % 64].wrapping_mul(n as u8)).collect();
        prop_assert_eq!(Page(&bytes).checksum(block), reference(&bytes, block));
    }

    #[test]
    fn chunks_make_no_difference(mut cuts in prop::collection::vec(0..4 * PAGE + 100, 0..12), flip in 0..4 * PAGE) {
        let mut file = [page(0, 5), vec![0; PAGE], page(2, 5), page(3, START.0 + 5), page(4, 5)].concat();
        file.truncate(4 * PAGE + 100);
        file[flip] ^= 1;
        cuts.extend([0, file.len()]);
        cuts.sort_unstable();
        let mut check = PageCheck::for_file(b"base/5/16384", &RULES).unwrap();
        for cut in cuts.windows(2) {
            check.update(&file[cut[0]..cut[1]]);
        }
        prop_assert_eq!(check.finish(), self::check("base/5/16384", &RULES, &file));
    }
}
