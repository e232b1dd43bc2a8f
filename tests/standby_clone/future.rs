//! What a standby will need once it runs is looked at before it is made: "complete" means that it can stream.

use std::fs;
use std::sync::OnceLock;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{Lab, PrimaryOptions, StopMode, Target};
use repmgr_tests::{assert_standby, clone, node};

/// A lab whose primary still has all WAL since the backup.
fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let options = PrimaryOptions {
            sql: vec![
                "alter system set wal_keep_size = '1GB'".to_owned(),
                "select pg_reload_conf()".to_owned(),
            ],
            ..PrimaryOptions::default()
        };
        Lab::builder().primary(options).build().unwrap()
    })
}

#[test]
fn a_restore_command_is_tried_and_what_is_wrong_with_it_is_told() {
    let told = "\"restore_command\" does not deliver WAL segment";
    for (command, why) in [
        ("echo no route to archive >&2; exit 1", "no route to archive"),
        ("true", "delivered nothing"),
        ("false", "exit status: 1"),
    ] {
        let target = node(lab(), &[("restore_command", command)]);
        for more in [&["--dry-run"][..], &["--dry-run", "--without-barman"], &[]] {
            clone(lab(), &target, more)
                .success()
                .stderr(contains(told).and(contains(why)));
        }
        // The primary still has all WAL: it is a standby all the same.
        drop(assert_standby(lab(), &target));
    }
}

/// PostgreSQL gives up for good where it only should have looked elsewhere.
#[test]
fn a_restore_command_with_which_no_server_starts_is_refused() {
    let target = node(lab(), &[("restore_command", "/nonexist/get-wal %f %p")]);
    for more in [&["--dry-run"][..], &[], &["--without-barman", "-c"]] {
        clone(lab(), &target, more)
            .failure()
            .stderr(contains("127").and(contains("PostgreSQL does not start with such a command")));
    }
    assert!(!target.data_dir.exists());
}

/// The server that fills the archive knows what it holds.
#[test]
fn a_restore_command_is_tried_without_a_backup_too() {
    let target = node(
        lab(),
        &[
            ("restore_command", ""),
            ("barman_host", ""),
            ("barman_server", ""),
        ],
    );
    clone(lab(), &target, &["-c"]).success();
    let Target { node_id, port, .. } = &target;
    lab()
        .primary()
        .sql(&format!(
            "insert into repmgr.nodes (node_id, upstream_node_id, node_name, type, conninfo, repluser, config_file) \
             values ({node_id}, 1, 'node{node_id}', 'standby', 'host=127.0.0.1 port={port}', 'repmgr', '')"
        ))
        .unwrap();
    let conf = fs::read_to_string(&target.conf).unwrap();
    for (command, told) in [
        (lab().restore_command(), "would write \"standby.signal\""),
        ("false".to_owned(), "does not deliver WAL segment"),
        (
            "/nonexist/get-wal %f %p".to_owned(),
            "PostgreSQL does not start with such a command",
        ),
    ] {
        fs::write(&target.conf, format!("{conf}restore_command = '{command}'\n")).unwrap();
        clone(lab(), &target, &["--replication-conf-only", "--dry-run"])
            .success()
            .stderr(contains(told));
    }
}

#[test]
fn a_restore_command_without_which_there_is_no_standby_is_refused() {
    let target = node(
        lab(),
        &[("restore_command", "false"), ("use_replication_slots", "no")],
    );
    // Nobody can say what the primary has.
    let blind = [
        "--no-upstream-connection",
        "--upstream-conninfo",
        "host=nowhere.invalid user=repmgr",
    ];
    clone(lab(), &target, &blind)
        .failure()
        .stderr(contains("does not deliver WAL segment").and(contains("--accept-missing-wal")));
    assert!(!target.data_dir.exists());
    let knowing: Vec<&str> = blind.iter().copied().chain(["--accept-missing-wal"]).collect();
    clone(lab(), &target, &knowing)
        .success()
        .stderr(contains("WARNING: \"restore_command\" does not deliver"));
}

#[test]
fn the_restore_command_that_is_made_when_none_is_given_is_tried_too() {
    let target = node(lab(), &[("restore_command", "")]);
    clone(lab(), &target, &["--dry-run"])
        .success()
        .stderr(contains("\"restore_command\" delivers WAL").and(contains("does not deliver").not()));
}

#[test]
fn settings_that_a_standby_must_not_have_lower_are_in_the_plan() {
    let own = Lab::builder().build().unwrap();
    let primary = own.primary();
    primary.sql("alter system set max_connections = 150").unwrap();
    primary
        .sql("alter system set max_prepared_transactions = 7")
        .unwrap();
    primary.stop(StopMode::Fast).unwrap();
    primary.start().unwrap();
    let target = node(&own, &[]);
    let raised = "max_connections will be raised from 50 to 150, as the primary has it";
    clone(&own, &target, &["--dry-run"]).success().stderr(
        contains(raised)
            .and(contains("max_prepared_transactions will be raised from 0 to 7"))
            .and(contains("max_worker_processes").not()),
    );
    clone(&own, &target, &[])
        .success()
        .stderr(contains("max_connections from 50 to 150").and(contains("WARNING: the command line").not()));
    drop(assert_standby(&own, &target));
    let hindered = node(
        &own,
        &[("service_start_command", "pg_ctl start -o '-c max_connections=45'")],
    );
    clone(&own, &hindered, &["--dry-run"]).success().stderr(contains(
        "the command line of the server here sets max_connections = 45, and the primary has 150",
    ));
}

#[test]
fn a_tablespace_that_is_newer_than_the_backup_needs_a_place() {
    let own = Lab::builder().build().unwrap();
    let place = own.scratch().dir("newer").unwrap();
    let sql = format!("create tablespace newer location '{}'", place.display());
    own.primary().sql(&sql).unwrap();
    let target = node(&own, &[]);
    let told = format!(
        "tablespace \"newer\" was made after the backup, in \"{}\"",
        place.display()
    );
    for more in [&["--dry-run"][..], &[]] {
        clone(&own, &target, more)
            .success()
            .stderr(contains(&told).and(contains("not empty on this host")));
    }
}

#[test]
fn programs_of_another_major_version_are_told() {
    let target = node(lab(), &[]);
    let dir = lab().scratch().dir("bin18").unwrap();
    let script = "#!/bin/sh\necho 'postgres (PostgreSQL) 18.1'\n";
    lab().scratch().write("bin18/postgres", script, 0o755).unwrap();
    let conf = std::fs::read_to_string(&target.conf).unwrap();
    let others = conf.lines().filter(|line| !line.starts_with("pg_bindir"));
    let own = format!("pg_bindir='{}'", dir.display());
    let lines: Vec<&str> = others.chain([own.as_str()]).collect();
    std::fs::write(&target.conf, lines.join("\n")).unwrap();
    clone(lab(), &target, &["--dry-run"])
        .success()
        .stderr(contains("cannot be started with the programs in").and(contains("is of PostgreSQL 18")));
}
