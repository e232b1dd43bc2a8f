//! What holds nothing at all is no archive, and says nothing about a file.

use std::fs;

use repmgr_wal::FetchError;

use crate::bench::{Bench, segment};

const NAME: &str = "000000010000000000000003";
const HISTORY: &str = "00000002.history";
const ARCHIVED: &str = "000000010000000000000001";

#[track_caller]
fn no_answer(bench: &Bench, what: &str) {
    for name in [NAME, HISTORY] {
        let error = bench.fetch(name).expect_err(what);
        assert!(
            matches!(error, FetchError::NothingThere { .. }),
            "{what}: {error}"
        );
        assert!(error.hint().is_some());
    }
}

#[track_caller]
fn absent(bench: &Bench, name: &str) {
    let error = bench.fetch(name).unwrap_err();
    assert!(matches!(error, FetchError::NotInArchive { .. }), "{error}");
}

#[test]
fn a_directory_without_wal_is_no_answer() {
    for gone in ["home/main/wals", "home/main", "home", "barman.conf"] {
        let bench = Bench::new();
        absent(&bench, NAME);
        // Not mounted, a directory is empty, or not there.
        for again in [true, false] {
            let path = bench.path(gone);
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            if gone == "barman.conf" {
                fs::remove_dir_all(bench.path("home")).unwrap_or_default();
            } else if again {
                fs::create_dir_all(&path).unwrap();
            }
            no_answer(&bench, gone);
        }
    }
}

#[test]
fn what_arrives_from_the_primary_does_not_make_an_archive() {
    let bench = Bench::new();
    fs::remove_dir_all(bench.path("home/main/wals")).unwrap();
    fs::create_dir_all(bench.path("home/main/wals")).unwrap();
    bench.put(
        "home/main/incoming/000000010000000000000009",
        &segment("000000010000000000000009"),
    );
    no_answer(&bench, "incoming");
    // Neither do directories, and what is no WAL.
    bench.put("home/main/wals/xlog.db", b"");
    fs::create_dir_all(bench.path("home/main/wals/0000000100000000/lost")).unwrap();
    no_answer(&bench, "directories");
}

#[test]
fn barman_alone_is_believed_when_it_finds_what_an_archive_would_hold() {
    let bench = Bench::new();
    // Nothing to look at but what Barman says.
    bench.put("barman.conf", b"");
    no_answer(&bench, "neither the segment before nor the first one is known");
    absent(&bench, "000000010000000000000002");
    let label = format!("START WAL LOCATION: 0/1000028 (file {ARCHIVED})\nCHECKPOINT LOCATION: 0/1000060\n");
    for file in ["data/backup_label", "data/backup_label.old"] {
        bench.put(file, label.as_bytes());
        absent(&bench, NAME);
        absent(&bench, HISTORY);
        fs::remove_file(bench.path(file)).unwrap();
    }
    bench.put("data/backup_label", label.as_bytes());
    fs::remove_dir_all(bench.path("home/main/wals")).unwrap();
    no_answer(&bench, "not mounted");
    absent_again_when_mounted(&bench);
}

fn absent_again_when_mounted(bench: &Bench) {
    bench.archive(ARCHIVED, b"long ago");
    absent(bench, NAME);
    bench.archive(NAME, &segment(NAME));
    let file = bench.path(&format!("home/main/wals/0000000100000000/{NAME}"));
    bench.barman(&format!("cat '{}'", file.display()));
    assert!(bench.fetch(NAME).unwrap() == segment(NAME));
}

#[test]
fn barman_may_find_what_the_directories_do_not_show() {
    let bench = Bench::new();
    fs::remove_dir_all(bench.path("home/main/wals")).unwrap();
    fs::create_dir_all(bench.path("home/main/wals")).unwrap();
    let file = bench.path("elsewhere");
    bench.put("elsewhere", &segment(NAME));
    bench.barman(&format!("cat '{}'", file.display()));
    assert!(bench.fetch(NAME).unwrap() == segment(NAME));
}
