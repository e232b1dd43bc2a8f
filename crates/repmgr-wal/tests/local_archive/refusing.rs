use std::fs;

use repmgr_codec::Codec;
use repmgr_types::SystemId;
use repmgr_wal::{ContentError, FetchError};

use crate::bench::{Bench, ID, compressed, segment, segment_with, size};

const NAME: &str = "000000010000000000000003";
const NEXT: &str = "000000010000000000000004";

fn refused(bench: &Bench, name: &str) -> (String, ContentError) {
    match bench.fetch(name) {
        Err(error @ FetchError::Refused { .. }) => {
            assert!(
                error.hint().is_some() && !error.to_string().contains('\n'),
                "{error}"
            );
            let FetchError::Refused { place, source, .. } = error else {
                unreachable!()
            };
            (place, source)
        }
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn a_segment_that_is_still_being_copied_is_refused() {
    let bench = Bench::new();
    let bytes = segment(NAME);
    let path = format!("home/main/incoming/{NAME}");
    for length in [0, 10, 5000, bytes.len() - 1] {
        bench.put(&path, &bytes[..length]);
        let (place, error) = refused(&bench, NAME);
        assert_eq!(place, "incoming");
        assert!(
            matches!(error, ContentError::Size { .. } | ContentError::Short { .. }),
            "{length}: {error}"
        );
    }
    bench.put(&path, &bytes);
    assert!(bench.fetch(NAME).unwrap() == bytes);
}

#[test]
fn another_clusters_segment_is_refused() {
    let bench = Bench::new();
    bench.archive(NAME, &segment_with(NAME.parse().unwrap(), 1, SystemId(5), size()));
    let expected = ContentError::SystemId {
        found: SystemId(5),
        expected: ID,
    };
    assert_eq!(refused(&bench, NAME), ("wals".to_owned(), expected));
}

#[test]
fn another_segment_under_the_name_is_refused() {
    let bench = Bench::new();
    bench.archive(NAME, &segment(NEXT));
    assert!(matches!(refused(&bench, NAME).1, ContentError::Position { .. }));
    bench.archive(NAME, &segment_with(NAME.parse().unwrap(), 2, ID, size()));
    assert!(matches!(
        refused(&bench, NAME).1,
        ContentError::Timeline { found: 2, .. }
    ));
    bench.archive(NAME, &vec![0; 1 << 20]);
    assert!(matches!(refused(&bench, NAME).1, ContentError::NotWal { .. }));
}

#[test]
fn a_damaged_compressed_file_is_refused() {
    for with in [Codec::Gzip, Codec::Bzip2, Codec::Xz, Codec::Zstd] {
        let bench = Bench::new();
        let stored = compressed(with, &segment(NAME));
        let mut cut = stored.clone();
        cut.truncate(stored.len() - 5);
        bench.archive(NAME, &cut);
        let (_, error) = refused(&bench, NAME);
        assert!(
            matches!(error, ContentError::Compression { .. }),
            "{with:?}: {error}"
        );
        let mut flipped = stored;
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;
        bench.archive(NAME, &flipped);
        // Whatever the decoder makes of it, it is not delivered.
        refused(&bench, NAME);
    }
}

#[test]
fn a_history_postgresql_could_not_read_is_refused() {
    let bench = Bench::new();
    bench.archive("00000002.history", b"nonsense\n");
    assert!(matches!(
        refused(&bench, "00000002.history").1,
        ContentError::History { .. }
    ));
}

#[test]
fn what_barman_sends_is_checked_as_well() {
    let bench = Bench::new();
    bench.put("barman.conf", b"");
    bench.barman("echo \"Skipping inactive server 'main'\"");
    let words = bench.fetch(NAME);
    assert!(matches!(words, Err(FetchError::NotBarman { .. })), "{words:?}");
    let short = bench.path("short");
    fs::write(&short, &segment(NAME)[..4000]).unwrap();
    bench.barman(&format!("cat '{}'", short.display()));
    assert!(matches!(refused(&bench, NAME).1, ContentError::Size { .. }));
}

#[test]
fn what_barman_sends_does_not_count_when_it_fails() {
    let bench = Bench::new();
    bench.put("barman.conf", b"");
    let whole = bench.path("whole");
    fs::write(&whole, segment(NAME)).unwrap();
    bench.barman(&format!(
        "cat '{}'; echo 'EXCEPTION: disk' >&2; exit 1",
        whole.display()
    ));
    match bench.fetch(NAME) {
        Err(FetchError::Barman { message, status, .. }) => {
            assert_eq!(
                (message.as_str(), status.as_str()),
                ("EXCEPTION: disk", "exit code 1")
            );
        }
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn barmans_refusals_are_no_absent_files() {
    let bench = Bench::new();
    bench.put("barman.conf", b"");
    for (script, hint) in [
        ("echo \"ERROR: Unknown server 'main'\" >&2; exit 1", true),
        (
            "echo 'ERROR: please run barman as '\\''barman'\\'' user' >&2; exit 1",
            true,
        ),
        (
            "echo \"WAL file '$5' not found in server 'main'\" >&2; exit 1",
            true,
        ),
        (
            "echo \"ERROR: WAL file '$5' not found in server 'main'\" >&2; exit 2",
            true,
        ),
        ("kill -9 $$", false),
    ] {
        bench.barman(script);
        match bench.fetch(NAME) {
            Err(error @ FetchError::Barman { .. }) => assert_eq!(error.hint().is_some(), hint, "{error}"),
            other => panic!("{script}: {:?}", other.map(|bytes| bytes.len())),
        }
    }
}

#[test]
fn a_server_that_barman_would_take_for_an_option_is_refused() {
    let bench = Bench::new();
    let mut options = repmgr_wal::ArchiveOptions {
        address: repmgr_barman::ServerAddress {
            server: "--all".into(),
            command: repmgr_barman::BarmanCommand::default(),
            config: None,
        },
        plain_host: None,
        system_id: None,
        partial: false,
        transport: repmgr_wal::Transport::Fast,
        local_wal: None,
    };
    for server in ["--all", "", " ", "a\nb"] {
        options.address.server = server.into();
        let host = std::sync::Arc::new(repmgr_remote::LocalHost::default());
        let result = repmgr_wal::Archive::new(host, options.clone());
        assert!(matches!(result, Err(FetchError::BadWord { .. })), "{server:?}");
    }
    drop(bench);
}
