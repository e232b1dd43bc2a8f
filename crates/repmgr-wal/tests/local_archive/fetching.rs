use std::fs;

use repmgr_codec::Codec;
use repmgr_types::{Timeline, WalSegmentSize};
use repmgr_wal::FetchError;

use crate::bench::{Bench, ID, compressed, segment, segment_with};

const NAME: &str = "000000010000000000000003";
const HISTORY: &[u8] = b"1\t0/300100\tno recovery target specified\n";

#[test]
fn a_segment_is_read_in_every_compression() {
    for with in [
        Codec::None,
        Codec::Gzip,
        Codec::Bzip2,
        Codec::Xz,
        Codec::Zstd,
        Codec::Lz4,
    ] {
        let bench = Bench::new();
        bench.archive(NAME, &compressed(with, &segment(NAME)));
        assert!(bench.fetch(NAME).unwrap() == segment(NAME), "{with:?}");
        assert_eq!(bench.barman_calls(), 0, "{with:?}");
    }
}

#[test]
fn history_and_backup_files_are_read_plain_and_compressed() {
    let backup = "000000010000000000000003.00000028.backup";
    let label = format!("START WAL LOCATION: 0/300028 (file {NAME})\nSTOP WAL LOCATION: x\n");
    for with in [Codec::None, Codec::Gzip] {
        let bench = Bench::new();
        bench.archive("00000002.history", &compressed(with, HISTORY));
        bench.archive(backup, &compressed(with, label.as_bytes()));
        assert_eq!(bench.fetch("00000002.history").unwrap(), HISTORY);
        assert_eq!(bench.fetch(backup).unwrap(), label.as_bytes());
        assert_eq!(bench.barman_calls(), 0);
    }
}

#[test]
fn what_has_not_been_archived_yet_is_found_where_it_arrives() {
    for place in ["incoming", "streaming"] {
        let bench = Bench::new();
        bench.put(&format!("home/main/{place}/{NAME}"), &segment(NAME));
        assert!(bench.fetch(NAME).unwrap() == segment(NAME), "{place}");
    }
}

#[test]
fn segments_of_every_size_are_read() {
    for mib in [1, 16, 64] {
        let size = WalSegmentSize::from_bytes(mib << 20).unwrap();
        let bench = Bench::new();
        let bytes = segment_with(NAME.parse().unwrap(), 1, ID, size);
        bench.archive(NAME, &bytes);
        assert!(bench.fetch(NAME).unwrap() == bytes, "{mib}");
    }
}

#[test]
fn a_partial_segment_stands_for_the_whole_one_only_if_wanted() {
    for place in ["streaming", "incoming", "wals/0000000100000000"] {
        let mut bench = Bench::new();
        bench.put(
            &format!("home/main/{place}/{NAME}.partial"),
            &compressed(Codec::Gzip, &segment(NAME)),
        );
        assert!(
            matches!(bench.fetch(NAME), Err(FetchError::NotInArchive { .. })),
            "{place}"
        );
        bench.partial = true;
        assert!(bench.fetch(NAME).unwrap() == segment(NAME), "{place}");
    }
}

#[test]
fn a_partial_segment_can_be_asked_for_by_name() {
    let bench = Bench::new();
    let name = format!("{NAME}.partial");
    bench.archive(&name, &segment(NAME));
    assert!(bench.fetch(&name).unwrap() == segment(NAME));
}

#[test]
fn a_whole_segment_is_better_than_a_partial_one() {
    let mut bench = Bench::new();
    bench.partial = true;
    bench.put(&format!("home/main/streaming/{NAME}.partial"), &[0; 1 << 20]);
    bench.put(&format!("home/main/incoming/{NAME}"), &segment(NAME));
    assert!(bench.fetch(NAME).unwrap() == segment(NAME));
}

#[test]
fn directories_named_in_the_configuration_are_used() {
    let bench = Bench::new();
    let dir = bench.path("el se");
    bench.put(
        "barman.conf",
        format!(
            "[barman]\nbarman_home = {}\nconfiguration_files_directory = {}\n",
            bench.path("home").display(),
            bench.path("conf.d").display()
        )
        .as_bytes(),
    );
    let own = format!(
        "[main]\nbackup_directory = \"{}\"\nwals_directory=%(backup_directory)s/w\n",
        dir.display()
    );
    bench.put("conf.d/main.conf", own.as_bytes());
    bench.put(
        "el se/identity.json",
        format!("{{\"systemid\": \"{ID}\"}}").as_bytes(),
    );
    bench.put(&format!("el se/w/0000000100000000/{NAME}"), &segment(NAME));
    assert!(bench.fetch(NAME).unwrap() == segment(NAME));
    assert!(matches!(
        bench.fetch("000000010000000000000004"),
        Err(FetchError::NotInArchive { .. })
    ));
    assert_eq!(bench.barman_calls(), 0);
}

#[test]
fn an_absent_file_is_absent_without_asking_barman_where_the_archive_is_surely_ours() {
    let bench = Bench::new();
    assert!(matches!(bench.fetch(NAME), Err(FetchError::NotInArchive { .. })));
    assert_eq!(bench.barman_calls(), 0);
    // An older Barman writes no identity.
    fs::remove_file(bench.path("home/main/identity.json")).unwrap();
    assert!(matches!(bench.fetch(NAME), Err(FetchError::NotInArchive { .. })));
    assert_eq!(bench.barman_calls(), 1);
}

#[test]
fn barman_is_asked_where_its_configuration_leaves_a_doubt() {
    let bench = Bench::new();
    let segment_file = bench.path("elsewhere");
    fs::write(&segment_file, segment(NAME)).unwrap();
    bench.barman(&format!("cat '{}'", segment_file.display()));
    let home = bench.path("home").display().to_string();
    for conf in [
        String::new(),
        format!("[barman]\nbarman_home = {home}\n"),
        format!("[barman]\nbarman_home = {home}\n[main]\nwals_directory = s3://bucket/wals\n"),
        format!("[barman]\nbarman_home = {home}\n[main]\nwals_directory = /nowhere/at/all\n"),
        "[barman]\n[main]\n".to_owned(),
    ] {
        let before = bench.barman_calls();
        bench.put("barman.conf", conf.as_bytes());
        assert!(bench.fetch(NAME).unwrap() == segment(NAME), "{conf}");
        assert_eq!(bench.barman_calls(), before + 1, "{conf}");
    }
    bench.put(
        "barman.conf",
        format!("[barman]\nbarman_home = {home}\n[main]\n").as_bytes(),
    );
    bench.put("home/main/.active-model.auto", b"main:other\n");
    let before = bench.barman_calls();
    assert!(bench.fetch(NAME).unwrap() == segment(NAME));
    assert_eq!(bench.barman_calls(), before + 1);
}

#[test]
fn barman_reads_what_only_it_can_read() {
    let bench = Bench::new();
    let segment_file = bench.path("plain");
    fs::write(&segment_file, segment(NAME)).unwrap();
    bench.archive(NAME, b"\x85\x02\x0c\x03 packets of gpg");
    bench.barman(&format!("cat '{}'", segment_file.display()));
    assert!(bench.fetch(NAME).unwrap() == segment(NAME));
    let log = fs::read_to_string(bench.path("barman.log")).unwrap();
    assert!(log.trim_end().ends_with(&format!("get-wal main {NAME}")), "{log}");
}

#[test]
fn the_first_segment_of_a_timeline_begins_on_the_one_before() {
    // Promoted at 0/300100, in the middle of segment 3 of 1 MiB.
    let name = "000000020000000000000003";
    let bytes = segment_with(name.parse().unwrap(), 1, ID, crate::bench::size());
    let bench = Bench::new();
    bench.archive(name, &bytes);
    bench.archive("00000002.history", HISTORY);
    assert!(bench.fetch(name).unwrap() == bytes);

    // The node's own history file will do as well, and counts more.
    let bench = Bench::new();
    bench.archive(name, &bytes);
    bench.put("data/pg_wal/00000002.history", HISTORY);
    assert!(bench.fetch(name).unwrap() == bytes);

    // And where no history is to be had, PostgreSQL knows no branch either.
    let bench = Bench::new();
    bench.archive(name, &bytes);
    assert!(bench.fetch(name).unwrap() == bytes);

    let other = "1\t0/500100\telsewhere\n".as_bytes();
    let bench = Bench::new();
    bench.archive(name, &bytes);
    bench.archive("00000002.history", other);
    match bench.fetch(name) {
        Err(FetchError::Refused { source, .. }) => {
            let expected = Timeline::new(2).unwrap();
            assert_eq!(source, repmgr_wal::ContentError::Timeline { found: 1, expected });
        }
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn without_a_control_file_any_cluster_will_do() {
    let bench = Bench::new();
    fs::remove_file(bench.path("data/global/pg_control")).unwrap();
    bench.archive(NAME, &segment(NAME));
    assert!(bench.fetch(NAME).unwrap() == segment(NAME));
}

#[test]
fn barman_is_called_by_several_words_and_by_one_with_blanks() {
    let mut bench = Bench::new();
    let segment_file = bench.path("segment");
    bench.put("segment", &segment(NAME));
    bench.barman(&format!("cat '{}'", segment_file.display()));
    fs::rename(bench.path("barman"), bench.path("my barman")).unwrap();
    bench.archive(NAME, b"only Barman can read it");
    let path = format!("\"{}\"", bench.path("my barman").display());
    for command in [path.clone(), format!("env A=b {path}")] {
        bench.command = command;
        assert!(bench.fetch(NAME).unwrap() == segment(NAME), "{}", bench.command);
    }
    assert_eq!(bench.barman_calls(), 2);
}

#[test]
fn barman_is_asked_for_what_cannot_be_decoded_before_it_is_refused() {
    let gzip_around_encryption = compressed(Codec::Gzip, &b"packets of gpg, and no page of WAL".repeat(9));
    let broken_zstd = b"\x28\xb5\x2f\xfd with a dictionary";
    let armoured = b"MQkwLzMwMDEwMAlubyByZWNvdmVyeSB0YXJnZXQgc3BlY2lmaWVkCg==\n";
    for (name, stored, plain) in [
        (NAME, &gzip_around_encryption[..], segment(NAME)),
        (NAME, &broken_zstd[..], segment(NAME)),
        ("00000002.history", &armoured[..], HISTORY.to_vec()),
    ] {
        let bench = Bench::new();
        bench.archive(name, stored);
        assert!(
            matches!(bench.fetch(name), Err(FetchError::Refused { .. })),
            "{name}"
        );
        bench.put("plain", &plain);
        bench.barman(&format!("cat '{}'", bench.path("plain").display()));
        assert!(bench.fetch(name).unwrap() == plain, "{name}");
    }
}
