use super::*;

fn words(backup: &BaseBackup) -> Vec<String> {
    let words = backup.arguments().into_iter();
    words.map(|word| word.into_string().unwrap()).collect()
}

fn backup(conninfo: &str) -> BaseBackup {
    BaseBackup::new("pg_basebackup", Conninfo::parse(conninfo).unwrap(), "/data dir")
}

#[test]
fn the_words_stand_in_repmgrs_order() {
    let given = "host=a keepalives_idle=5 keepalives_interval=0 keepalives_count=9";
    assert_eq!(
        words(&backup(given)),
        [
            "-l",
            "repmgr base backup",
            "-D",
            "/data dir",
            "-d",
            given,
            "-X",
            "stream",
            "-P",
            "-w"
        ]
    );
    let all = BaseBackup {
        fast_checkpoint: true,
        tablespace_mapping: vec![("/a".into(), "/b c".into()), ("/d".into(), "/e".into())],
        slot: Some("repmgr_slot_2".to_owned()),
        wal_dir: Some("/wal".into()),
        options: vec!["--max-rate=10M".to_owned(), "-v".to_owned()],
        ..backup(given)
    };
    assert_eq!(
        words(&all)[6..],
        [
            "-c",
            "fast",
            "-T",
            "/a=/b c",
            "-T",
            "/d=/e",
            "-X",
            "stream",
            "-S",
            "repmgr_slot_2",
            "--waldir",
            "/wal",
            "--max-rate=10M",
            "-v",
            "-P",
            "-w"
        ]
    );
    let own_method = BaseBackup {
        stream_wal: false,
        options: vec!["-Xfetch".to_owned()],
        ..backup(given)
    };
    assert_eq!(words(&own_method)[6..], ["-Xfetch", "-P", "-w"]);
}

#[test]
fn a_vanished_server_is_noticed_unless_told_otherwise() {
    let text = words(&backup("host=a keepalives_count=9")).remove(5);
    assert_eq!(
        text,
        "host=a keepalives_count=9 keepalives_idle=30 keepalives_interval=10"
    );
}

#[test]
fn no_secret_is_among_the_words() {
    let secrets = backup("host=a password=s3cret sslpassword=s3cret scram_client_key=s3cret");
    assert!(!words(&secrets).concat().contains("s3cret"));
    let run = secrets.run(&Environment::empty(), &CancelToken::new(), &mut |_| ());
    let error = run.unwrap_err();
    assert!(
        matches!(&error, BaseBackupError::Secret { keyword } if keyword == "sslpassword"),
        "{error}"
    );
    assert!(error.hint().unwrap().to_string().contains("service"));
}

#[test]
fn progress_is_read_as_each_version_prints_it() {
    let state = |kb: (u64, u64), tablespace, tablespaces| BaseBackupProgress {
        bytes_done: kb.0 * 1024,
        bytes_total: kb.1 * 1024,
        tablespace,
        tablespaces,
    };
    for (line, expected) in [
        ("    0/23026 kB (0%), 0/1 tablespace", state((0, 23026), 0, 1)),
        (
            "23036/23036 kB (100%), 1/1 tablespace                                         ",
            state((23036, 23036), 1, 1),
        ),
        (
            "   10/23026 kB (0%), 1/3 tablespaces (...lib/data dir/base/1/2.3)",
            state((10, 23026), 1, 3),
        ),
        ("40/30 kB (133%), 2/2 tablespaces", state((40, 40), 2, 2)),
    ] {
        assert_eq!(read_progress(line), Some(expected), "{line}");
    }
    for line in [
        "waiting for checkpoint",
        "pg_basebackup: error: 1/2 kB",
        "1/2",
        "1/2 kB",
        "-1/2 kB (0%), 0/1 tablespace",
        "99999999999999999999/1 kB (0%), 0/1 tablespace",
        "",
    ] {
        assert_eq!(read_progress(line), None, "{line}");
    }
    let huge = format!("{}/1 kB (0%), 0/1 tablespace", u64::MAX);
    assert_eq!(read_progress(&huge).map(|state| state.bytes_done), Some(u64::MAX));
}
