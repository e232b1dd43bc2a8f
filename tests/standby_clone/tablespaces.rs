//! Tablespaces: mapped, unmapped, empty, strangely named, and places that are taken.

use std::fs;
use std::path::{Path, PathBuf};

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{Lab, StopMode, Tablespace};
use repmgr_tests::{LIMIT, Snapshot, assert_standby, assert_takes_writes, clone, node, output};

use crate::shared;

/// Links of a started standby, by tablespace name.
fn locations(standby: &repmgr_lab::Instance) -> String {
    standby
        .sql(
            "select spcname || ' ' || pg_tablespace_location(oid) from pg_tablespace where spcname !~ '^pg_' \
             order by 1",
        )
        .unwrap()
}

#[test]
fn mapped_tablespaces_go_where_the_mapping_says() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    let standby = assert_standby(lab, &target);
    let dir = lab.scratch().join(format!("node{}/tablespaces", target.node_id));
    let expected = format!(
        "fast {dir}/fast\nit's a \"strange\" näme {dir}/it_s a \"strange\" näme\nvoid {dir}/void",
        dir = dir.display()
    );
    assert_eq!(locations(&standby), expected);
}

/// (Defects 12 and 14) The original drops all tablespaces when a name holds a quote, and does not make an
/// empty tablespace's version directory, so that nothing can be created there after promotion.
#[test]
fn a_promoted_standby_writes_in_empty_and_strangely_named_tablespaces() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    let void = lab
        .scratch()
        .join(format!("node{}/tablespaces/void", target.node_id));
    let version_dirs: Vec<_> = fs::read_dir(&void)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(version_dirs.len(), 1, "{version_dirs:?}");
    assert!(version_dirs[0].to_str().unwrap().starts_with("PG_15_"));
    let standby = assert_standby(lab, &target);
    assert_takes_writes(lab, &standby);
}

/// (Defect 13) The original only logs that a tablespace's place is taken, mixes old and new files, and
/// exits with 0. Here the place is the primary's own.
#[test]
fn a_place_that_holds_another_cluster_is_refused_and_untouched() {
    let lab = shared();
    let target = node(lab, &[("tablespace_mapping", "")]);
    let catalog = lab.scratch().join("primary/tablespaces");
    let before = Snapshot::of([catalog.join("void"), catalog.join("fast")]);
    clone(lab, &target, &[]).code(1);
    before.assert_unchanged();
    assert!(!target.data_dir.exists());
}

/// Force is about the data directory: what lies elsewhere and was not this instance's may be anybody's.
#[test]
fn a_place_with_foreign_content_is_refused_force_or_not() {
    let lab = shared();
    let target = node(lab, &[]);
    let dir = lab
        .scratch()
        .join(format!("node{}/tablespaces/fast", target.node_id));
    lab.scratch()
        .write(dir.join("PG_15_202209061/5/12345"), "old", 0o600)
        .unwrap();
    let before = Snapshot::of([&dir]);
    for more in [&["--dry-run"][..], &[], &["-F"]] {
        clone(lab, &target, more)
            .code(1)
            .stderr(contains("fast").and(contains(dir.to_str().unwrap())));
        before.assert_unchanged();
        assert!(
            !target.data_dir.exists(),
            "the data directory was made for a clone that was refused"
        );
    }
}

/// (Defect 13) The original's -F leaves the old files in tablespaces; one day a new relation gets the number
/// of such a file.
#[test]
fn cloning_over_an_instance_empties_its_tablespaces() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    assert_standby(lab, &target).stop(StopMode::Fast).unwrap();
    let void = lab
        .scratch()
        .join(format!("node{}/tablespaces/void", target.node_id));
    let old = lab
        .scratch()
        .write(void.join("PG_15_202209061/5/12345"), "an old relation", 0o600)
        .unwrap();
    clone(lab, &target, &["-F"]).success();
    assert!(!old.exists());
    drop(assert_standby(lab, &target));
}

/// (Defect 32) A mapping that fits no tablespace is a typing error and said to be one.
#[test]
fn a_mapping_without_its_tablespace_is_reported() {
    let lab = shared();
    let mut mappings = lab.mappings(9000);
    mappings.push("/no/such/tablespace=/elsewhere".to_owned());
    let settings: Vec<_> = mappings
        .iter()
        .map(|m| ("tablespace_mapping", m.as_str()))
        .collect();
    let target = node(lab, &settings);
    let done = clone(lab, &target, &["--dry-run"]);
    assert!(output(&done).contains("/no/such/tablespace"), "{}", output(&done));
}

#[test]
fn two_tablespaces_in_one_place_are_refused() {
    let lab = shared();
    let to = lab.scratch().join("node_overlap/ts");
    let mappings: Vec<String> = lab
        .primary()
        .tablespaces()
        .iter()
        .map(|from| format!("{}={}", from.display(), to.display()))
        .collect();
    let settings: Vec<_> = mappings
        .iter()
        .map(|m| ("tablespace_mapping", m.as_str()))
        .collect();
    let target = node(lab, &settings);
    clone(lab, &target, &[]).code(1);
    assert!(!to.exists() && !target.data_dir.exists());
}

/// (Defect 11) The original reads 1,023 bytes of the list: of these it would take 12 and lose the rest.
#[test]
fn there_may_be_many_tablespaces() {
    let names: Vec<String> = (0..30).map(|n| format!("tablespace_number_{n}")).collect();
    let lab = Lab::builder()
        .tablespaces(names.iter().map(|name| Tablespace::empty(name)))
        .build()
        .unwrap();
    let target = node(&lab, &[]);
    clone(&lab, &target, &[]).success();
    let standby = assert_standby(&lab, &target);
    let expected: Vec<String> = lab.mappings(target.node_id);
    let found = locations(&standby);
    assert_eq!(found.lines().count(), 30);
    for mapping in expected {
        let (_, place) = mapping.split_once('=').unwrap();
        assert!(
            found.lines().any(|line| line.ends_with(place)),
            "{place}:\n{found}"
        );
    }
}

/// A lab whose primary has left the place of its tablespace since the backup: only so can two nodes of one
/// host share it.
#[test]
fn an_unmapped_tablespace_goes_where_it_was() {
    let lab = Lab::builder().tablespaces(["roaming"]).build().unwrap();
    let place: PathBuf = lab.primary().tablespaces()[0].clone();
    let marker = lab.primary().sql("select count(*) from in_tablespace_0").unwrap();
    assert_eq!(marker, "500");
    lab.primary().sql("drop table in_tablespace_0").unwrap();
    lab.primary().sql("drop tablespace roaming").unwrap();
    fs::remove_dir_all(&place).unwrap();
    let target = node(&lab, &[("tablespace_mapping", "")]);
    clone(&lab, &target, &[]).success();
    assert!(holds_files(&place), "nothing in \"{}\"", place.display());
    // It replays that the tablespace was dropped.
    let standby = assert_standby(&lab, &target);
    standby
        .wait_for(
            "select count(*) from pg_tablespace where spcname = 'roaming'",
            "0",
            LIMIT,
        )
        .unwrap();
}

fn holds_files(dir: &Path) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        path.is_file() || (path.is_dir() && holds_files(&path))
    })
}
