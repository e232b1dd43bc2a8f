//! `--start`: the clone is complete when it streams.

use std::sync::OnceLock;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{Lab, PrimaryOptions, StopMode, Target};
use repmgr_tests::{clone, clone_in, node, output};

fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let options = PrimaryOptions {
            sql: vec!["alter system set wal_keep_size = '1GB'".to_owned()],
            ..PrimaryOptions::default()
        };
        Lab::builder().primary(options).build().unwrap()
    })
}

/// Replaces a setting of a node's repmgr.conf.
fn set(target: &Target, name: &str, value: &str) {
    let conf = std::fs::read_to_string(&target.conf).unwrap();
    let others = conf.lines().filter(|line| !line.starts_with(name));
    let own = format!("{name}='{}'", value.replace('\'', "''"));
    let lines: Vec<&str> = others.chain([own.as_str()]).collect();
    std::fs::write(&target.conf, lines.join("\n")).unwrap();
}

/// A node whose server is started by `pg_ctl` with the lab's port.
fn startable(lab: &Lab, settings: &[(&str, &str)], more: &str) -> Target {
    let target = node(lab, settings);
    let instance = lab.instance(&target);
    let command = format!(
        "{}/pg_ctl -D {} -l {} -o \"-p {} -c unix_socket_directories={} {more}\" -w -t 20 start",
        instance.install().bin_dir().display(),
        target.data_dir.display(),
        instance.log().display(),
        target.port,
        lab.scratch().join("run").display(),
    );
    set(&target, "service_start_command", &command);
    target
}

#[test]
fn it_ends_when_the_standby_streams_and_says_what_is_left_to_do() {
    let target = startable(lab(), &[("use_replication_slots", "true")], "");
    let done = clone(lab(), &target, &["--start", "--output=json"]);
    let standby = lab().instance(&target);
    let streams = standby.sql("select status from pg_stat_wal_receiver");
    standby.stop(StopMode::Fast).unwrap();
    let done = done.success().stderr(
        contains("NOTICE: starting the standby")
            .and(contains(
                "NOTICE: the standby streams from its upstream node, from ",
            ))
            .and(contains("you can now start").not())
            .and(contains(
                "HINT: register this standby with \"repmgr standby register\"",
            ))
            .and(contains("WARNING: the standby's log").not()),
    );
    assert_eq!(streams.unwrap(), "streaming");
    let said = output(&done);
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text}: {said}"));
    assert!(at("streams from its upstream") < at("NOTICE: standby clone (from Barman) complete"));
    let json = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    assert!(
        json.contains("\"event\":\"starting\"") && json.contains("\"event\":\"streaming\""),
        "{json}"
    );
}

#[test]
fn a_server_that_cannot_start_is_an_error_with_the_reason() {
    let target = startable(lab(), &[], "-c shared_buffers=none");
    clone(lab(), &target, &["--start"])
        .code(40)
        .stderr(contains("the standby could not be started").and(contains("shared_buffers")));
    // The standby is complete, and needs no second clone.
    let missing = node(lab(), &[("service_start_command", "/nonexist/start")]);
    clone(lab(), &missing, &["--start"])
        .code(40)
        .stderr(contains("exit status: 127").and(contains("/nonexist/start")));
    assert!(missing.data_dir.join("global/pg_control").exists());
}

#[test]
fn a_command_that_starts_something_else_is_noticed() {
    let target = node(lab(), &[("service_start_command", "true")]);
    clone(lab(), &target, &["--start"])
        .code(40)
        .stderr(contains("no server runs in"));
}

#[test]
fn a_standby_that_does_not_stream_is_an_error_with_its_position() {
    let target = startable(lab(), &[], "-c primary_conninfo=host=nowhere.invalid");
    clone(lab(), &target, &["--start", "--start-timeout=8"])
        .code(41)
        .stderr(
            contains("does not stream: not within 8 s")
                .and(contains("it has replayed up to"))
                .and(contains("nowhere.invalid")),
        );
    let standby = lab().instance(&target);
    assert!(standby.is_running().unwrap());
    standby.stop(StopMode::Fast).unwrap();
}

/// As on a host where `apt-get install postgresql` made the cluster.
#[test]
fn a_cluster_of_debian_is_started_and_stopped_by_debians_commands() {
    let options = PrimaryOptions {
        debian_layout: true,
        ..PrimaryOptions::default()
    };
    let lab = Lab::builder().primary(options).build().unwrap();
    let (target, places) = lab.debian_target(2, &[("barman_server", lab.server())]).unwrap();
    let root = places.conf_dir.ancestors().nth(2).unwrap().display().to_string();
    let host = [("PG_CLUSTER_CONF_ROOT", root.as_str())];
    // It would write to the host's /var/log.
    let log = lab.scratch().join("log/debian.log");
    std::os::unix::fs::symlink(&log, places.conf_dir.join("log")).unwrap();

    let done = clone_in(&lab, &target, &["-F"], &host).success();
    let start = format!("pg_ctlcluster {} main start", lab.primary().install().major);
    done.stderr(contains(format!("HINT: for example: {start}\n")));

    let done = clone_in(&lab, &target, &["-F", "--start"], &host);
    let standby = lab.instance(&target).with_conf_dir(&places.conf_dir);
    let streams = standby.sql("select status from pg_stat_wal_receiver");
    let running = clone_in(&lab, &target, &["-F"], &host);
    standby.stop(StopMode::Fast).unwrap();
    done.success();
    assert_eq!(streams.unwrap(), "streaming");
    running.failure().stderr(contains(start.replace("start", "stop")));
}
