//! The order of a clone without servers: a handmade backup on this host, a script for Barman, and no
//! connection to any node. What needs real parts is in the whole-program tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use repmgr_clone::{
    BarmanSource, CloneError, CloneRequest, Compression, Context, Environment, ErrorKind, Event,
    NodeIdentity, Observer, Plan, ReplicationOptions, ServerAddress, Source, Summary, TransferOptions,
    UpstreamChoice, plan, prepare,
};
use repmgr_remote::LocalHost;
use repmgr_types::{CancelToken, Conninfo};

const ID: &str = "20260824T101530";
const SYSTEM_ID: u64 = 7_412_345_678_901_234_567;

/// A Barman host in a directory, and a place for standbys.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let data = bench.backup().join("data");
        for (path, content) in [
            ("PG_VERSION", &b"15\n"[..]),
            ("backup_label", b"START WAL LOCATION: 0/2000028\n"),
            ("postgresql.conf", b"data_directory = '/primary'\nport = 5433\n"),
            (
                "postgresql.auto.conf",
                b"work_mem = '8MB'\nrecovery_target = 'immediate'\n",
            ),
            ("pg_hba.conf", b""),
            ("pg_ident.conf", b""),
            ("base/5/1259", &[0; 16384]),
            ("base/5/16384", &[0; 8192]),
            ("base/5/16390", b"unlogged, and of no use"),
            ("base/5/16390_init", &[0; 8192]),
            ("postmaster.pid", b"1\n"),
            ("tablespace_map", b"16400 /elsewhere\n"),
        ] {
            write(&data.join(path), content);
        }
        // As initdb makes it without group access.
        fs::set_permissions(data.join("base"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(data.join("pg_commit_ts")).unwrap();
        fs::create_dir_all(data.join("pg_wal")).unwrap();
        write(&bench.backup().join("16400/PG_15_202209061/5/16401"), &[0; 8192]);
        bench.write_control(false);
        bench.write_info("");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n\"list-files\"*) echo {}/data/PG_VERSION ;;\n*peek*) echo /wals/$5 ;;\n\
             *) exit 3 ;;\nesac\n",
            bench.backup().display()
        );
        write(&bench.path("barman"), script.as_bytes());
        fs::set_permissions(bench.path("barman"), fs::Permissions::from_mode(0o755)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn backup(&self) -> PathBuf {
        self.path("home/main/base").join(ID)
    }

    fn target(&self) -> PathBuf {
        self.path("node2/data")
    }

    fn write_info(&self, more: &str) {
        let info = format!(
            "status=DONE\nmode=rsync-concurrent\nversion=150018\ntimeline=1\nsystemid={SYSTEM_ID}\n\
             begin_wal=000000010000000000000002\nend_wal=000000010000000000000002\nbegin_xlog=0/2000028\n\
             end_xlog=0/2000100\nbegin_time=2026-08-24 10:15:30+00:00\nend_time=2026-08-24 10:16:30+00:00\n\
             pgdata=/primary\ntablespaces=[('fast', 16400, '/fast')]\n{more}"
        );
        write(&self.backup().join("backup.info"), info.as_bytes());
    }

    /// As PostgreSQL 15 has it.
    fn write_control(&self, checksums: bool) {
        let mut control = vec![0; 8192];
        control[..8].copy_from_slice(&SYSTEM_ID.to_ne_bytes());
        let mut put = |at: usize, word: u32| control[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        put(8, 1300);
        put(12, 202_209_061);
        put(216, 8192);
        put(220, 131_072);
        put(252, checksums.into());
        let crc = crc32c::crc32c(&control[..288]);
        control[288..292].copy_from_slice(&crc.to_ne_bytes());
        write(&self.backup().join("data/global/pg_control"), &control);
    }

    fn request(&self, cancel: &CancelToken) -> CloneRequest {
        CloneRequest {
            node: NodeIdentity {
                id: 2,
                name: "node2".to_owned(),
            },
            data_directory: self.target(),
            source: Source::Barman(BarmanSource {
                host: Arc::new(LocalHost::new(cancel.clone())),
                address: ServerAddress {
                    server: "main".to_owned(),
                    command: self.path("barman").display().to_string().parse().unwrap(),
                    config: None,
                },
                backup: "latest".to_owned(),
                transfer: TransferOptions {
                    compression: Compression::None,
                    ..TransferOptions::default()
                },
            }),
            connection: Conninfo::new(),
            upstream: UpstreamChoice {
                conninfo: Some(Conninfo::parse("host=node1 user=repmgr password=s3cret").unwrap()),
                no_connection: true,
                ..UpstreamChoice::default()
            },
            replication: ReplicationOptions {
                restore_command: Some("fetch %f %p".to_owned()),
                ..ReplicationOptions::default()
            },
            tablespace_mapping: vec![("/fast".into(), self.path("node2/fast"))],
            wal_directory: None,
            force: false,
            delta: None,
            start_command: None,
            bin_dir: None,
            external_files: None,
            notification: None,
        }
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Keeps events; does something when the copy begins.
struct Listener<'a> {
    heard: Mutex<Vec<Event>>,
    when_copying: &'a (dyn Fn() + Sync),
}

impl Observer for Listener<'_> {
    fn event(&self, event: Event) {
        if matches!(event, Event::RetrievingBackup { .. }) {
            (self.when_copying)();
        }
        self.heard.lock().unwrap().push(event);
    }
}

struct Outcome {
    result: Result<Summary, CloneError>,
    events: Vec<Event>,
}

impl Outcome {
    fn failed(&self, kind: ErrorKind) -> String {
        let error = self.result.as_ref().expect_err("it should have failed");
        assert_eq!(error.kind(), kind, "{error:?}");
        format!("{error}\n{}", error.detail().unwrap_or_default())
    }
}

fn clone(
    bench: &Bench,
    change: impl Fn(&mut CloneRequest),
    when_copying: &(dyn Fn(&CancelToken) + Sync),
) -> Outcome {
    let cancel = CancelToken::new();
    let mut request = bench.request(&cancel);
    change(&mut request);
    let act = || when_copying(&cancel);
    let listener = Listener {
        heard: Mutex::default(),
        when_copying: &act,
    };
    let context = Context {
        observer: &listener,
        cancel: &cancel,
        environment: &Environment::empty(),
    };
    let result = prepare(&request, &context).and_then(|prepared| prepared.execute(&context));
    Outcome {
        result,
        events: listener.heard.into_inner().unwrap(),
    }
}

fn simply(bench: &Bench) -> Outcome {
    clone(bench, |_| {}, &|_| {})
}

fn look(bench: &Bench) -> Result<Plan, CloneError> {
    let cancel = CancelToken::new();
    let request = bench.request(&cancel);
    let listener = Listener {
        heard: Mutex::default(),
        when_copying: &|| {},
    };
    let context = Context {
        observer: &listener,
        cancel: &cancel,
        environment: &Environment::empty(),
    };
    plan(&request, &context)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn can_start(dir: &Path) -> bool {
    dir.join("global/pg_control").exists()
}

#[test]
fn a_clone_is_complete_and_configured() {
    let bench = Bench::new();
    let done = simply(&bench);
    done.result.as_ref().unwrap();
    let data = bench.target();
    assert!(can_start(&data) && !data.join("repmgr").exists());
    assert_eq!(fs::read(data.join("base/5/1259")).unwrap(), [0; 16384]);
    assert!(data.join("pg_commit_ts").is_dir() && data.join("pg_wal/archive_status").is_dir());
    for gone in [
        "postmaster.pid",
        "tablespace_map",
        "base/5/16390",
        "recovery.signal",
    ] {
        assert!(!data.join(gone).exists(), "{gone}");
    }
    assert!(data.join("base/5/16390_init").exists() && data.join("standby.signal").exists());
    assert_eq!(
        read(&data.join("postgresql.auto.conf")),
        "work_mem = '8MB'\nprimary_conninfo = 'host=node1 user=repmgr application_name=node2'\n\
         restore_command = 'fetch %f %p'\n"
    );
    assert!(read(&data.join("postgresql.conf")).contains("#repmgr: data_directory"));
    assert_eq!(
        fs::read_link(data.join("pg_tblspc/16400")).unwrap(),
        bench.path("node2/fast")
    );
    assert!(bench.path("node2/fast/PG_15_202209061/5/16401").exists());
    let mode = fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    assert!(
        matches!(done.events.last(), Some(Event::NextSteps { .. })),
        "{:?}",
        done.events
    );
}

#[test]
fn a_plan_touches_nothing_and_shows_no_secret() {
    let bench = Bench::new();
    let text = look(&bench).unwrap().to_string();
    assert!(
        text.contains("will be created") && text.contains("\"fast\" (16400)"),
        "{text}"
    );
    assert!(!text.contains("s3cret"), "{text}");
    assert!(!bench.path("node2").exists());
}

#[test]
fn an_interrupted_clone_cannot_start_and_is_continued() {
    let bench = Bench::new();
    let first = clone(&bench, |_| {}, &|cancel| cancel.cancel());
    first.failed(ErrorKind::Interrupted);
    assert!(bench.target().join("repmgr/clone.json").exists() && !can_start(&bench.target()));
    let second = simply(&bench);
    second.result.as_ref().unwrap();
    assert!(
        second.events.iter().any(|event| matches!(event, Event::Resuming)),
        "{:?}",
        second.events
    );
    assert!(can_start(&bench.target()));
}

#[test]
fn a_damaged_page_is_found_with_its_block() {
    let bench = Bench::new();
    bench.write_control(true);
    let mut pages = vec![0; 16384];
    // A header that claims to be one, before the backup's start, and a checksum that is not its own.
    pages[8192 + 8..8192 + 20].copy_from_slice(&[1, 0, 0, 0, 24, 0, 0, 32, 0, 32, 4, 32]);
    write(&bench.backup().join("data/base/5/1259"), &pages);
    let text = simply(&bench).failed(ErrorKind::Copy);
    assert!(
        text.contains("\"base/5/1259\"") && text.contains("block 1"),
        "{text}"
    );
    assert!(!can_start(&bench.target()));
    let accept = |request: &mut CloneRequest| {
        if let Source::Barman(barman) = &mut request.source {
            barman.transfer.accept_damage = true;
        }
    };
    let accepted = clone(&bench, accept, &|_| {});
    accepted.result.as_ref().unwrap();
    let warned =
        |event: &Event| matches!(event, Event::Warning { text, .. } if text.contains("accepted as they are"));
    assert!(accepted.events.iter().any(warned), "{:?}", accepted.events);
}

#[test]
fn a_backup_that_is_not_whole_costs_the_old_directory_nothing() {
    let bench = Bench::new();
    simply(&bench).result.unwrap();
    fs::remove_file(bench.backup().join("data/backup_label")).unwrap();
    let refused = clone(&bench, |request| request.force = true, &|_| {});
    assert!(refused.failed(ErrorKind::Barman).contains("backup_label"));
    assert!(can_start(&bench.target()) && !bench.target().join("repmgr").exists());
    let without_force = simply(&bench);
    assert!(without_force.failed(ErrorKind::Target).contains("not empty"));
}

#[test]
fn a_backup_that_changes_while_it_is_copied_is_not_called_complete() {
    let bench = Bench::new();
    let changed = clone(&bench, |_| {}, &|_| bench.write_info("status=FAILED\n"));
    changed.failed(ErrorKind::Barman);
    assert!(!can_start(&bench.target()));
    bench.write_info("");
    simply(&bench).result.unwrap();
}

#[test]
fn a_file_that_vanishes_while_it_is_copied_is_named() {
    let bench = Bench::new();
    let lost = bench.backup().join("data/base/5/16384");
    let outcome = clone(&bench, |_| {}, &|_| fs::remove_file(&lost).unwrap());
    assert!(outcome.failed(ErrorKind::Barman).contains("base/5/16384"));
    assert!(!can_start(&bench.target()));
}

#[test]
fn a_mapping_into_the_data_directory_is_refused() {
    let bench = Bench::new();
    let inside = bench.target().join("ts");
    let refused = clone(
        &bench,
        |request| request.tablespace_mapping[0].1 = inside.clone(),
        &|_| {},
    );
    assert!(
        refused.failed(ErrorKind::Target).contains("overlap"),
        "{:?}",
        refused.result
    );
    assert!(!bench.target().exists());
}
