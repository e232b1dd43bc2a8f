//! Control files of real clusters, held against what PostgreSQL's own `pg_controldata` says of them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use repmgr_lab::{PgInstall, Scratch, check};
use repmgr_pgfile::{ControlError, ControlFile, PG_CONTROL, PG_CONTROL_SIZE, PageLayout, RecordedSettings};

const LIMIT: Duration = Duration::from_secs(90);

/// None of them the default, so that none can be taken for another.
fn settings(major: u32) -> RecordedSettings {
    RecordedSettings {
        max_connections: 123,
        max_worker_processes: 9,
        max_wal_senders: (major >= 12).then_some(7),
        max_prepared_transactions: 5,
        max_locks_per_transaction: 77,
    }
}

/// Starts the server once: it writes its settings into the control file.
fn serve(scratch: &Scratch, install: &PgInstall, data_dir: &Path) {
    let conf = "max_connections = 123\nmax_worker_processes = 9\nmax_wal_senders = 7\n\
                max_prepared_transactions = 5\nmax_locks_per_transaction = 77\n";
    fs::write(data_dir.join("postgresql.auto.conf"), conf).unwrap();
    let pg_ctl = install.program("pg_ctl").unwrap();
    let mut start = scratch.command(&pg_ctl);
    start.arg("-D").arg(data_dir).args(["-w", "-l"]);
    start.arg(data_dir.join("log"));
    let options = format!(
        "-c listen_addresses='' -c unix_socket_directories='{}'",
        data_dir.display()
    );
    check(start.args(["-o", &options, "start"]), LIMIT).unwrap();
    let running = read(data_dir);
    assert!(!running.head.shut_down);
    let mut stop = scratch.command(&pg_ctl);
    check(
        stop.arg("-D").arg(data_dir).args(["-w", "-m", "fast", "stop"]),
        LIMIT,
    )
    .unwrap();
}

fn read(data_dir: &Path) -> ControlFile {
    ControlFile::parse(&fs::read(data_dir.join(PG_CONTROL)).unwrap()).unwrap()
}

/// What `pg_controldata` says: "max_connections setting:   100".
fn said(text: &str) -> HashMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name, value.trim())).collect()
}

fn compare(file: &ControlFile, said: &HashMap<&str, &str>) {
    let head = file.head;
    let state = if head.shut_down {
        "shut down"
    } else {
        "in production"
    };
    assert_eq!(said["Database cluster state"], state);
    let settings = file.settings;
    for (name, value) in [
        ("Database system identifier", head.system_id.0),
        ("pg_control version number", head.pg_control_version.into()),
        ("Catalog version number", head.catalog_version.into()),
        ("max_connections setting", settings.max_connections.into()),
        (
            "max_worker_processes setting",
            settings.max_worker_processes.into(),
        ),
        (
            "max_wal_senders setting",
            settings.max_wal_senders.unwrap().into(),
        ),
        (
            "max_prepared_xacts setting",
            settings.max_prepared_transactions.into(),
        ),
        (
            "max_locks_per_xact setting",
            settings.max_locks_per_transaction.into(),
        ),
        ("Database block size", file.layout.page_size() as u64),
        (
            "Blocks per segment of large relation",
            file.layout.segment_pages().into(),
        ),
        ("WAL block size", file.wal_page_size.into()),
        ("Bytes per WAL segment", file.wal_segment_size.bytes()),
        ("Data page checksum version", file.checksums.into()),
    ] {
        assert_eq!(said[name], value.to_string(), "{name}");
    }
}

fn of_major(major: u32) {
    let install = PgInstall::get(major).unwrap();
    let scratch = Scratch::new().unwrap();
    for checksums in [false, true] {
        let data_dir = scratch.path().join(format!("data-{checksums}"));
        let mut initdb = scratch.command(install.program("initdb").unwrap());
        initdb.arg("-D").arg(&data_dir);
        initdb.args(["-A", "trust", "-U", "postgres", "--locale=C", "-N"]);
        match (checksums, major) {
            (true, _) => drop(initdb.arg("-k")),
            (false, 18..) => drop(initdb.arg("--no-data-checksums")),
            (false, _) => {}
        }
        // Pages of another size are only for those who compile PostgreSQL; WAL segments are for everybody.
        if major >= 11 && checksums {
            initdb.arg("--wal-segsize=4");
        }
        check(&mut initdb, LIMIT).unwrap();
        serve(&scratch, &install, &data_dir);

        let file = read(&data_dir);
        assert!(file.head.shut_down);
        assert_eq!(file.settings, settings(major));
        assert_eq!((file.checksums, file.layout), (checksums, PageLayout::DEFAULT));
        let megabytes = if major >= 11 && checksums { 4 } else { 16 };
        assert_eq!(file.wal_segment_size.bytes(), megabytes << 20);

        // Of its own version only; others complain of the CRC.
        let judge = install.bin_dir().join("pg_controldata");
        if judge.exists() {
            let text = check(scratch.command(judge).arg(&data_dir), LIMIT).unwrap();
            compare(&file, &said(&text));
        }

        let mut damaged = fs::read(data_dir.join(PG_CONTROL)).unwrap();
        damaged[250] ^= 1;
        let error = ControlFile::parse(&damaged).unwrap_err();
        assert!(matches!(error, ControlError::Crc { .. }), "{error}");
    }
}

macro_rules! majors {
    ($($name:ident: $major:literal;)*) => {
        $(#[test] fn $name() { of_major($major); })*
    };
}

majors! {
    of_postgresql_10: 10;
    of_postgresql_11: 11;
    of_postgresql_12: 12;
    of_postgresql_13: 13;
    of_postgresql_15: 15;
    of_postgresql_17: 17;
    of_postgresql_18: 18;
}

/// 19 is in no registry yet. These are the beginnings of what `initdb -c max_connections=123` of Debian's 19~rc1-1
/// made, with and without `--no-data-checksums`; its `pg_controldata` said what is expected here.
#[test]
fn of_postgresql_19() {
    let samples: [&[u8]; 2] = [
        include_bytes!("samples/pg_control-19rc1"),
        include_bytes!("samples/pg_control-19rc1-no-checksums"),
    ];
    for (sample, checksums) in samples.into_iter().zip([true, false]) {
        let mut bytes = sample.to_vec();
        bytes.resize(PG_CONTROL_SIZE, 0);
        let file = ControlFile::parse(&bytes).unwrap();
        let expected = "pg_control version number: 1905\nCatalog version number: 202610061\n\
            Database cluster state: shut down\nmax_connections setting: 123\nmax_worker_processes setting: 8\n\
            max_wal_senders setting: 10\nmax_prepared_xacts setting: 0\nmax_locks_per_xact setting: 128\n\
            Database block size: 8192\nBlocks per segment of large relation: 131072\nWAL block size: 8192\n\
            Bytes per WAL segment: 16777216";
        let (id, sum) = (file.head.system_id.to_string(), u32::from(checksums).to_string());
        let mut expected = said(expected);
        expected.insert("Database system identifier", &id);
        expected.insert("Data page checksum version", &sum);
        compare(&file, &expected);
    }
}
