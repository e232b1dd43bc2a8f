//! Page checksums of real clusters, judged beside PostgreSQL's own `pg_checksums`.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use repmgr_lab::{PgInstall, Primary, PrimaryOptions, Scratch, StopMode, Tablespace, run};
use repmgr_types::Lsn;
use repmgr_verify::{ClusterPages, PageCheck, PageLayout, PageReport, PageRules, RelationFile};

use common::{files, shown, stream};

/// Of a cluster that was shut down: nothing is torn.
const RULES: PageRules = PageRules {
    layout: PageLayout::DEFAULT,
    backup_start: Lsn(u64::MAX),
    backup_end: None,
};

/// A cluster with every kind of relation file.
fn cluster(major: u32) -> Result<(Arc<Scratch>, Primary)> {
    let scratch = Scratch::new()?;
    let options = PrimaryOptions {
        checksums: true,
        rows: 5000,
        tablespaces: vec![Tablespace::from("fast")],
        ..Default::default()
    };
    let primary = Primary::create(&scratch, &PgInstall::get(major)?, "primary", &options)?;
    primary.sql(
        "create unlogged table passing as select g as id, repeat('x', 500) as note from generate_series(1, 500) g",
    )?;
    primary.sql("create index on passing (id)")?;
    primary.sql("create index on lab_rows using gin (to_tsvector('simple', note))")?;
    primary.sql("vacuum")?;
    primary.sql("delete from lab_rows where id % 3 = 0")?;
    primary.sql("checkpoint")?;
    Ok((scratch, primary))
}

fn reports(data_dir: &Path) -> Result<BTreeMap<Vec<u8>, PageReport>> {
    let mut reports = BTreeMap::new();
    for (path, file) in files(data_dir)? {
        if let Some(mut pages) = PageCheck::for_file(&path, &RULES) {
            stream(&file, |bytes| pages.update(bytes))?;
            reports.insert(path, pages.finish());
        }
    }
    Ok(reports)
}

/// What `pg_checksums` says: files, blocks, and the bad ones as (path, block in the file, its two checksums).
struct Judgement {
    files: usize,
    blocks: u64,
    bad: BTreeSet<(String, u32, String)>,
}

fn pg_checksums(scratch: &Scratch, primary: &Primary) -> Result<Judgement> {
    let mut command = scratch.command(primary.install().program("pg_checksums")?);
    command.arg("--check").arg("-D").arg(primary.data_dir());
    let said = run(&mut command, Duration::from_secs(90))?;
    let number = |name: &str| {
        let line = said.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse::<u64>().ok())
            .with_context(|| format!("no \"{name}\" in {said:?}"))
    };
    let in_data_dir = format!("{}/", primary.data_dir().display());
    let bad = said
        .stderr
        .lines()
        .filter_map(|line| line.split_once("checksum verification failed in file \""))
        .map(|(_, rest)| {
            let (path, rest) = rest.split_once("\", block ").context("no block")?;
            let (block, what) = rest.split_once(": ").context("no checksums")?;
            let path = path.strip_prefix(&in_data_dir).unwrap_or(path);
            Ok((path.to_owned(), block.parse()?, what.to_owned()))
        })
        .collect::<Result<_>>()?;
    Ok(Judgement {
        files: number("Files scanned:")? as usize,
        blocks: number("Blocks scanned:")?,
        bad,
    })
}

fn every_page_is_right(major: u32) {
    let (scratch, primary) = cluster(major).unwrap();
    primary.stop(StopMode::Fast).unwrap();
    let control = fs::read(primary.data_dir().join("global/pg_control")).unwrap();
    let pages = ClusterPages::from_pg_control(&control).unwrap();
    assert!(pages.checksums && pages.layout == RULES.layout);

    let reports = reports(primary.data_dir()).unwrap();
    let mut forks = BTreeSet::new();
    for (path, report) in &reports {
        assert!(
            report.bad_pages + report.torn + report.trailing_bytes as u64 == 0,
            "{}: {report:?}",
            shown(path)
        );
        let place = path.split(|byte| *byte == b'/').next().unwrap();
        let fork = RelationFile::parse(path).unwrap().fork;
        forks.insert(format!("{} {fork:?}", shown(place)));
    }
    for expected in [
        "base Main",
        "base FreeSpaceMap",
        "base VisibilityMap",
        "base Init",
    ] {
        assert!(forks.contains(expected), "{forks:?}");
    }
    assert!(
        forks.contains("global Main") && forks.contains("pg_tblspc Main"),
        "{forks:?}"
    );

    // The programs of 10 and 11 have none, and one of another version refuses.
    if primary.install().bin_dir().join("pg_checksums").exists() {
        let judged = pg_checksums(&scratch, &primary).unwrap();
        assert!(judged.bad.is_empty());
        let blocks = reports.values().map(|report| report.pages).sum::<u64>();
        assert_eq!((reports.len(), blocks), (judged.files, judged.blocks));
    } else {
        assert!(major < 14);
    }
}

/// Bytes of these pages of a file, changed.
fn damage(path: &Path, blocks: &[u64]) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    for (n, block) in blocks.iter().enumerate() {
        // In the middle, in the checksum, in the line pointers, in the LSN: 0 to 7 hold it.
        let at = block * 8192 + [4001, 8, 25, 3][n % 4];
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 0x10], at)?;
    }
    Ok(())
}

fn damage_is_found_where_pg_checksums_finds_it(major: u32) {
    let (scratch, primary) = cluster(major).unwrap();
    let path = |what: &str| {
        primary
            .sql(&format!("select pg_relation_filepath({what})"))
            .unwrap()
    };
    let (table, index) = (path("'lab_rows'"), path("'lab_rows_pkey'"));
    let (catalog, elsewhere) = (path("'pg_catalog.pg_authid'"), path("'in_tablespace_0'"));
    primary.stop(StopMode::Fast).unwrap();
    let in_data_dir = |path: &str| primary.data_dir().join(path);
    damage(&in_data_dir(&table), &[0, 3, 4, 77]).unwrap();
    damage(&in_data_dir(&index), &[1]).unwrap();
    damage(&in_data_dir(&catalog), &[0]).unwrap();
    damage(&in_data_dir(&elsewhere), &[2]).unwrap();
    damage(&in_data_dir(&format!("{table}_fsm")), &[1]).unwrap();

    let mut ours = BTreeSet::new();
    for (path, report) in reports(primary.data_dir()).unwrap() {
        for bad in &report.bad {
            ours.insert((shown(&path), bad.block, bad.fault.to_string()));
        }
        assert_eq!(report.bad.len() as u64, report.bad_pages);
    }
    let theirs = pg_checksums(&scratch, &primary).unwrap().bad;
    assert_eq!(ours.len(), 8, "{ours:?}");
    assert_eq!(ours, theirs);
}

/// PostgreSQL itself says which checksum a page needs in the second gigabyte of its relation.
#[test]
fn a_page_of_a_second_segment_has_the_checksum_postgresql_gives_it() {
    let (_scratch, primary) = cluster(15).unwrap();
    primary.sql("create extension pageinspect").unwrap();
    let block = 131_072 + 3;
    let row = primary
        .sql(&format!(
            "select page_checksum(page, {block}), encode(page, 'hex') from get_raw_page('lab_rows', 0) page"
        ))
        .unwrap();
    let (checksum, digits) = row.split_once('|').unwrap();
    let mut page: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect();
    page[8..10].copy_from_slice(&checksum.parse::<i16>().unwrap().to_ne_bytes());

    let unused = vec![0; 3 * 8192];
    let judge = |name: &str, page: &[u8]| {
        let mut pages = PageCheck::for_file(name.as_bytes(), &RULES).unwrap();
        pages.update(&unused);
        pages.update(page);
        pages.finish()
    };
    assert_eq!(judge("base/5/16384.1", &page).bad_pages, 0);
    assert_eq!(judge("base/5/16384", &page).bad_pages, 1);
    page[6000] ^= 1;
    let report = judge("base/5/16384.1", &page);
    assert_eq!(
        report.bad.iter().map(|bad| bad.block).collect::<Vec<_>>(),
        [block]
    );
}

macro_rules! majors {
    ($judge:ident: $($name:ident: $major:literal;)*) => {
        $(#[test] fn $name() { $judge($major); })*
    };
}

majors! { every_page_is_right:
    every_page_of_postgresql_10_is_right: 10;
    every_page_of_postgresql_11_is_right: 11;
    every_page_of_postgresql_15_is_right: 15;
    every_page_of_postgresql_17_is_right: 17;
    every_page_of_postgresql_18_is_right: 18;
}

majors! { damage_is_found_where_pg_checksums_finds_it:
    damage_in_postgresql_15_is_found_where_pg_checksums_finds_it: 15;
    damage_in_postgresql_17_is_found_where_pg_checksums_finds_it: 17;
    damage_in_postgresql_18_is_found_where_pg_checksums_finds_it: 18;
}
