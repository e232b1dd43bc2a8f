//! `pg_basebackup` from real servers, old and new.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{Programs, Server, wait_until};
use repmgr_types::{CancelToken, PgVersion};
use repmgr_upstream::{
    BaseBackup, BaseBackupError, Environment, ProgramError, VerifyBackup, VerifyBackupError, connect,
};

const HBA: &str = "host replication rep 127.0.0.1/32 md5\nhost all all 127.0.0.1/32 trust";

fn start(programs: Programs, conf: &str) -> Server {
    let server = Server::start_with(programs, conf, HBA, &[]);
    server.sql(
        "postgres",
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE rep LOGIN REPLICATION PASSWORD 'rep secret';
         CREATE ROLE other LOGIN REPLICATION; CREATE TABLE t AS SELECT n FROM generate_series(1, 100000) n",
    );
    server
}

fn backup(server: &Server, rest: &str, target: PathBuf) -> BaseBackup {
    let program = server.programs().path("pg_basebackup");
    let conninfo = server.conninfo(&format!("dbname=postgres {rest}"));
    BaseBackup {
        fast_checkpoint: true,
        options: vec!["--no-sync".to_owned()],
        ..BaseBackup::new(program, conninfo, target)
    }
}

fn run(backup: &BaseBackup) -> Result<Vec<String>, BaseBackupError> {
    backup.run(&Environment::empty(), &CancelToken::new(), &mut |_| ())
}

/// The command lines of all processes that have `text` among their words.
fn processes_with(text: &Path) -> Vec<String> {
    let text = text.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.contains(text))
        .collect()
}

#[test]
fn a_backup_of_any_version_with_everything_elsewhere_becomes_a_standby() {
    for major in [10, 15, 18] {
        let server = start(Programs::of_major(major), "");
        let session = connect(&server.socket("postgres", "postgres"), &Environment::empty()).unwrap();
        let copy = server.sibling();
        let mut mapping = Vec::new();
        // The last would escape the sign between old and new.
        for (n, name) in ["plain", "with blank", "a=b", "back\\=slash", "at the end\\"]
            .iter()
            .enumerate()
        {
            let old = server.make_dir(name);
            server.sql(
                "postgres",
                &format!("CREATE TABLESPACE s{n} LOCATION '{}'", old.display()),
            );
            server.sql(
                "postgres",
                &format!("CREATE TABLE t{n} TABLESPACE s{n} AS SELECT {n} AS n"),
            );
            mapping.push((old, copy.path(&format!("new {name}"))));
        }
        session.create_physical_slot("slot_1").unwrap();

        let (target, wal_dir) = (copy.path("data"), copy.path("wal"));
        let backup = BaseBackup {
            tablespace_mapping: mapping.clone(),
            slot: Some("slot_1".to_owned()),
            wal_dir: Some(wal_dir.clone()),
            ..backup(&server, "user=rep password='rep secret'", target.clone())
        };
        let program = backup
            .check(session.server_version(), &CancelToken::new())
            .unwrap();
        assert!(program.major() >= major);
        let mut seen = Vec::new();
        let said = backup.run(&Environment::empty(), &CancelToken::new(), &mut |state| {
            seen.push(state)
        });
        let said = said.unwrap_or_else(|e| panic!("{major}: {e}, {:?}", e.hint()));
        let last = seen.last().expect("no progress was reported");
        assert_eq!((last.tablespace, last.tablespaces), (6, 6), "{seen:?}");
        assert!(
            last.bytes_done > 20_000_000 && last.bytes_done <= last.bytes_total,
            "{last:?}"
        );
        assert!(said.iter().all(|line| !line.contains("kB (")), "{said:?}");

        assert_eq!(fs::read_link(target.join("pg_wal")).unwrap(), wal_dir);
        for space in session.tablespaces().unwrap() {
            let link = fs::read_link(target.join("pg_tblspc").join(space.oid.to_string())).unwrap();
            let (_, new) = mapping
                .iter()
                .find(|(old, _)| old.to_str() == Some(&space.location))
                .unwrap();
            assert_eq!(&link, new);
        }
        let verify = VerifyBackup {
            program: server.programs().path("pg_verifybackup"),
        };
        match major {
            13.. => verify.run(&target, true, &CancelToken::new()).unwrap(),
            _ => assert!(
                verify
                    .check(session.server_version(), &CancelToken::new())
                    .is_err()
            ),
        }

        copy.own_all();
        copy.up_as_standby_of(&server);
        let standby = connect(&copy.socket("postgres", "postgres"), &Environment::empty()).unwrap();
        assert!(standby.is_in_recovery().unwrap());
        copy.sql("postgres", "SELECT 1 / count(*) FROM t0, t1, t2, t3, t4");
        server.sql("postgres", "CREATE TABLE later()");
        wait_until(|| standby.current_lsn().unwrap() >= session.current_lsn().unwrap());
    }
}

#[test]
fn cancelling_midway_leaves_no_process_here_and_none_on_the_server() {
    let server = start(Programs::default(), "");
    let copy = server.sibling();
    let mut slow = backup(&server, "user=rep password='rep secret'", copy.path("data"));
    slow.options.push("--max-rate=2M".to_owned());
    let cancel = CancelToken::new();
    let mut lines = Vec::new();
    let begin = Instant::now();
    let result = slow.run(&Environment::empty(), &cancel, &mut |state| {
        if state.bytes_done > 0 {
            lines = processes_with(&slow.target);
            cancel.cancel();
        }
    });
    assert!(
        matches!(result, Err(BaseBackupError::Program(ProgramError::Cancelled))),
        "{result:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    // Both the program and its WAL receiver ran, and showed no password.
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("rep secret")), "{lines:?}");
    assert_eq!(processes_with(&slow.target), [""; 0]);
    assert!(!slow.target.join("global/pg_control").exists());
    let session = connect(&server.socket("postgres", "postgres"), &Environment::empty()).unwrap();
    wait_until(|| session.settings_snapshot().unwrap().busy_wal_senders == 0);
}

#[test]
fn who_may_not_replicate_is_told_why_and_never_asked() {
    let server = start(Programs::default(), "");
    let copy = server.sibling();
    for (rest, says, hint) in [
        (
            "user=rep password=wr0ng",
            "password authentication failed",
            ".pgpass",
        ),
        ("user=rep", "no password supplied", "PGPASSWORD"),
        (
            "user=other",
            "no pg_hba.conf entry for replication",
            "pg_hba.conf",
        ),
    ] {
        let mut backup = backup(&server, rest, copy.path("data"));
        backup.options.push("-W".to_owned());
        let error = run(&backup).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(
            error.hint().unwrap().to_string().contains(hint),
            "{:?}",
            error.hint()
        );
        assert!(!format!("{error:?}").contains("wr0ng"));
    }
    let env = Environment::empty()
        .with_variable("PGPASSWORD", "rep secret")
        .with_variable("PGUSER", "rep");
    let backup = backup(&server, "", copy.path("data"));
    backup.run(&env, &CancelToken::new(), &mut |_| ()).unwrap();
}

#[test]
fn a_server_without_a_free_wal_sender_is_named_as_the_cause() {
    let server = start(Programs::default(), "max_wal_senders = 1");
    let copy = server.sibling();
    let backup = backup(&server, "user=rep password='rep secret'", copy.path("data"));
    let error = run(&backup).unwrap_err();
    assert!(
        error.hint().unwrap().to_string().contains("max_wal_senders"),
        "{error:?}"
    );
}

#[test]
fn options_that_make_no_data_directory_are_noticed() {
    let server = start(Programs::default(), "");
    let copy = server.sibling();
    let mut backup = backup(&server, "user=rep password='rep secret'", copy.path("data"));
    backup.options.push("-Ft".to_owned());
    let error = run(&backup).unwrap_err();
    assert!(matches!(error, BaseBackupError::Incomplete { .. }), "{error:?}");
}

#[test]
fn a_program_older_than_the_server_is_refused_before_it_runs() {
    let server = Programs::of_major(15);
    let old = BaseBackup::new(
        server.path("pg_basebackup"),
        repmgr_types::Conninfo::new(),
        "/nonexistent",
    );
    let version = |num| PgVersion::from_num(num).unwrap();
    old.check(version(150_099), &CancelToken::new()).unwrap();
    let error = old.check(version(160_000), &CancelToken::new()).unwrap_err();
    assert!(matches!(error, BaseBackupError::TooOld { .. }), "{error:?}");
    assert!(error.hint().unwrap().to_string().contains("PostgreSQL 16"));
    let verify = VerifyBackup {
        program: server.path("pg_verifybackup"),
    };
    verify.check(version(150_099), &CancelToken::new()).unwrap();
    for (num, too_old) in [(120_000, true), (160_000, false), (140_000, false)] {
        let error = verify.check(version(num), &CancelToken::new()).unwrap_err();
        assert_eq!(
            matches!(error, VerifyBackupError::TooOld(_)),
            too_old,
            "{error:?}"
        );
    }
}

#[test]
fn a_damaged_backup_does_not_pass_verification() {
    let server = start(Programs::of_major(15), "");
    let copy = server.sibling();
    let backup = backup(&server, "user=rep password='rep secret'", copy.path("data"));
    run(&backup).unwrap();
    let verify = VerifyBackup {
        program: server.programs().path("pg_verifybackup"),
    };
    let check = |with_wal| verify.run(&backup.target, with_wal, &CancelToken::new());
    check(true).unwrap();
    for entry in fs::read_dir(backup.target.join("pg_wal")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(matches!(check(true), Err(VerifyBackupError::Failed(_))));
    check(false).unwrap();
    let file = backup.target.join("global/pg_filenode.map");
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = check(false).unwrap_err();
    assert!(error.to_string().contains("pg_filenode.map"), "{error}");
    fs::remove_file(backup.target.join("backup_manifest")).unwrap();
    assert!(matches!(check(false), Err(VerifyBackupError::File { .. })));
}
