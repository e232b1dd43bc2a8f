//! The order of a clone without servers: a handmade backup on this host, a script for Barman, and no
//! connection to any node. What needs real parts is in the whole-program tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use repmgr_clone::{
    BarmanSource, CancelToken, CloneError, CloneRequest, Compression, Conninfo, Context, CopyEvent,
    Environment, ErrorKind, Event, LocalHost, NodeIdentity, Observer, PlaceEvent, Plan, PreparedClone,
    Present, RemarkCode, ServerAddress, Source, StandbyEvent, Summary, plan, prepare,
};

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
            "#!/bin/sh\ncase \"$*\" in\n\"list-files\"*) echo {}/data/PG_VERSION ;;\n{} ;;\n*) exit 3 ;;\nesac\n",
            bench.backup().display(),
            bench.peek(),
        );
        bench.archive(["000000010000000000000002", "000000010000000000000003"]);
        write(&bench.path("barman"), script.as_bytes());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn backup(&self) -> PathBuf {
        self.path("home/main/base").join(ID)
    }

    fn wals(&self) -> PathBuf {
        self.path("home/main/wals")
    }

    /// How the script answers where a segment is: nothing where there is none.
    fn peek(&self) -> String {
        let wals = self.wals().display().to_string();
        format!(
            "*peek*) [ ! -e {wals}/0000000100000000/$5 ] || echo {wals}/0000000100000000/$5 ;;\n\
             \"show-server\"*) printf 'Server main:\\n\\twals_directory: {wals}\\n'"
        )
    }

    fn archive<const N: usize>(&self, segments: [&str; N]) {
        let _ = fs::remove_dir_all(self.wals());
        for segment in segments {
            write(&self.wals().join("0000000100000000").join(segment), b"WAL");
        }
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
        put(228, 16 << 20);
        put(252, checksums.into());
        let crc = crc32c::crc32c(&control[..288]);
        control[288..292].copy_from_slice(&crc.to_ne_bytes());
        write(&self.backup().join("data/global/pg_control"), &control);
    }

    fn request(&self, cancel: &CancelToken) -> CloneRequest {
        let mut address = ServerAddress::new("main");
        // By its interpreter: what another thread's child still has open for writing cannot be executed.
        address.command = format!("sh {}", self.path("barman").display()).parse().unwrap();
        let mut source = BarmanSource::new(Arc::new(LocalHost::new(cancel.clone())), address);
        source.transfer.compression = Compression::None;
        let mut request = CloneRequest::new(self.target(), source, Conninfo::new());
        request.node = Some(NodeIdentity::new(2, "node2"));
        request.upstream.conninfo = Some(Conninfo::parse("host=node1 user=repmgr password=s3cret").unwrap());
        request.upstream.no_connection = true;
        // It is tried: what it delivers must have the size of a segment.
        request.replication.restore_command = Some("truncate -s 16M %p # %f".to_owned());
        request.tablespace_mapping = vec![("/fast".into(), self.path("node2/fast"))];
        request
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
        if matches!(event, Event::Copy(CopyEvent::RetrievingBackup { .. })) {
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
         restore_command = 'truncate -s 16M %p # %f'\n"
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
        matches!(
            done.events.last(),
            Some(Event::Standby(StandbyEvent::NextSteps { .. }))
        ),
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
        second.events.contains(&Event::Place(PlaceEvent::Resuming)),
        "{:?}",
        second.events
    );
    assert!(can_start(&bench.target()));
}

/// A newer backup came into the catalogue meanwhile.
fn add_newer_backup(bench: &Bench) -> PathBuf {
    let newer = bench.path("home/main/base/20260825T101530");
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([bench.backup(), newer.clone()])
        .status();
    assert!(status.unwrap().success());
    let old = bench.backup().display().to_string();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n\"list-files\"*{ID}*) [ -e {old} ] && echo {old}/data/PG_VERSION || exit 1 ;;\n\
         \"list-files\"*) echo {}/data/PG_VERSION ;;\n{} ;;\n*) exit 3 ;;\nesac\n",
        newer.display(),
        bench.peek(),
    );
    write(&bench.path("barman"), script.as_bytes());
    newer
}

fn backup_of(outcome: &Outcome) -> Option<&str> {
    outcome.result.as_ref().unwrap().plan.source.backup()
}

#[test]
fn an_interrupted_clone_is_continued_although_a_newer_backup_came() {
    let bench = Bench::new();
    let first = clone(&bench, |_| {}, &|cancel| cancel.cancel());
    first.failed(ErrorKind::Interrupted);
    add_newer_backup(&bench);
    let second = simply(&bench);
    assert_eq!(backup_of(&second), Some(ID));
    assert!(second.events.contains(&Event::Place(PlaceEvent::Resuming)));
    // Whoever names a backup gets it.
    let bench = Bench::new();
    clone(&bench, |_| {}, &|cancel| cancel.cancel()).failed(ErrorKind::Interrupted);
    add_newer_backup(&bench);
    let choose = |request: &mut CloneRequest| {
        if let Source::Barman(barman) = &mut request.source {
            barman.backup = Some("latest".to_owned());
        }
    };
    assert_eq!(
        backup_of(&clone(&bench, choose, &|_| {})),
        Some("20260825T101530")
    );
}

#[test]
fn an_interrupted_clone_whose_backup_is_gone_makes_way_for_the_latest() {
    let bench = Bench::new();
    clone(&bench, |_| {}, &|cancel| cancel.cancel()).failed(ErrorKind::Interrupted);
    add_newer_backup(&bench);
    fs::remove_dir_all(bench.backup()).unwrap();
    assert_eq!(look(&bench).unwrap().present, Present::OtherClone);
    let second = simply(&bench);
    assert_eq!(backup_of(&second), Some("20260825T101530"));
    let told =
        |event: &Event| matches!(event, Event::Remark(remark) if remark.code == RemarkCode::CloneGivenUp);
    assert!(second.events.iter().any(told), "{:?}", second.events);
}

#[test]
fn a_hole_in_the_archive_is_found_before_anything_is_touched() {
    let bench = Bench::new();
    bench.archive(["000000010000000000000002", "000000010000000000000004"]);
    let error = look(&bench).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Prerequisite, "no_wal"));
    let text = error.to_string();
    assert!(
        text.contains("000000010000000000000003 is not in Barman's archive"),
        "{text}"
    );
    assert!(
        text.contains("goes to 000000010000000000000002 and on from 000000010000000000000004"),
        "{text}"
    );
    assert!(!bench.path("node2").exists());
    bench.archive(["000000010000000000000003"]);
    assert!(
        look(&bench)
            .unwrap_err()
            .to_string()
            .contains("000000010000000000000002 is not")
    );
}

#[test]
fn one_thread_plans_and_another_executes() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let bench = Bench::new();
    let cancel = CancelToken::new();
    let listener = Listener {
        heard: Mutex::default(),
        when_copying: &|| {},
    };
    let environment = Environment::empty();
    let context = Context {
        observer: &listener,
        cancel: &cancel,
        environment: &environment,
    };
    let prepared: PreparedClone = {
        let request = bench.request(&cancel);
        is_send(prepare(&request, &context).unwrap())
    };
    std::thread::scope(|scope| {
        let executing = scope.spawn(|| prepared.execute(&context));
        executing.join().unwrap().unwrap();
    });
    assert!(can_start(&bench.target()));
}

#[test]
fn a_standby_that_repmgr_does_not_manage_has_no_name_and_no_slot() {
    let bench = Bench::new();
    clone(&bench, |request| request.node = None, &|_| {})
        .result
        .unwrap();
    let conf = read(&bench.target().join("postgresql.auto.conf"));
    assert!(
        conf.contains("primary_conninfo = 'host=node1 user=repmgr'\n"),
        "{conf}"
    );
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
        |event: &Event| matches!(event, Event::Remark(remark) if remark.code == RemarkCode::DamageAccepted);
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
