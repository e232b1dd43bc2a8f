//! `--replication-conf-only`: the replication configuration of an instance that is there already.

use std::fs;
use std::path::Path;

use assert_cmd::assert::Assert;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{Instance, Lab, Primary, PrimaryOptions, StopMode, Target};
use repmgr_tests::{LIMIT, Snapshot, assert_standby, clone, node, output};

const CONF_ONLY: &str = "--replication-conf-only";

fn lab(pg: u32) -> Lab {
    // WAL comes from nowhere else.
    let keep = if pg < 13 {
        "wal_keep_segments = 20"
    } else {
        "wal_keep_size = 320MB"
    };
    let options = PrimaryOptions {
        conf: vec![keep.to_owned()],
        ..PrimaryOptions::default()
    };
    Lab::builder()
        .pg(pg)
        .primary(options)
        .without_backup()
        .build()
        .unwrap()
}

/// A standby of the primary, stopped, by pg_basebackup.
fn stopped_standby(lab: &Lab, settings: &[(&str, &str)]) -> Target {
    let programs = lab.primary().install().client_bin_dir().unwrap();
    let programs = programs.display().to_string();
    let mut all = vec![
        ("restore_command", ""),
        ("pg_bindir", &programs),
        ("barman_host", ""),
        ("barman_server", ""),
    ];
    all.extend(settings);
    let target = node(lab, &all);
    clone(lab, &target, &["-c"]).success();
    target
}

/// As `repmgr standby register` would.
fn register(lab: &Lab, target: &Target) {
    let Target { node_id, port, .. } = target;
    lab.primary()
        .sql(&format!(
            "insert into repmgr.nodes (node_id, upstream_node_id, node_name, type, conninfo, repluser, config_file) \
             values ({node_id}, 1, 'node{node_id}', 'standby', \
             'host=127.0.0.1 port={port} user=repmgr dbname=repmgr', 'repmgr', '')"
        ))
        .unwrap();
}

fn add_to_conf(target: &Target, line: &str) {
    let text = fs::read_to_string(&target.conf).unwrap();
    fs::write(&target.conf, format!("{text}{line}\n")).unwrap();
}

/// The value of a setting in the file that PostgreSQL will read.
fn setting(file: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).unwrap();
    let start = format!("{name} = ");
    let mut found = text.lines().filter_map(|line| line.strip_prefix(&start));
    let value = found.next().map(str::to_owned);
    assert_eq!(found.next(), None, "{text}");
    value
}

fn conninfo(port: u16, target: &Target) -> String {
    format!(
        "'host=127.0.0.1 port={port} user=repmgr application_name=node{}'",
        target.node_id
    )
}

/// Everything that must not change: the data directory, and what the primary knows of the node.
struct Untouched<'a> {
    lab: &'a Lab,
    target: &'a Target,
    files: Snapshot,
    known: String,
}

impl<'a> Untouched<'a> {
    fn new(lab: &'a Lab, target: &'a Target) -> Self {
        // A running server touches others of its files.
        let files = [
            "postgresql.auto.conf",
            "postgresql.conf",
            "standby.signal",
            "recovery.conf",
            "repmgr",
        ];
        Self {
            lab,
            target,
            files: Snapshot::of(files.map(|file| target.data_dir.join(file))),
            known: Self::known(lab, target),
        }
    }

    fn stopped(lab: &'a Lab, target: &'a Target) -> Self {
        Self {
            files: Snapshot::of([&target.data_dir]),
            ..Self::new(lab, target)
        }
    }

    fn known(lab: &Lab, target: &Target) -> String {
        let id = target.node_id;
        let sql = format!(
            "select (select count(*) from pg_replication_slots), (select count(*) from repmgr.events where node_id = \
             {id}), (select slot_name from repmgr.nodes where node_id = {id})"
        );
        lab.primary().sql(&sql).unwrap()
    }

    #[track_caller]
    fn check(self) {
        self.files.assert_unchanged();
        assert_eq!(Self::known(self.lab, self.target), self.known);
    }
}

fn streams_from(standby: &Instance, port: u16) {
    let sql = "select status || ' ' || (regexp_match(conninfo, 'port=(\\d+)'))[1] from pg_stat_wal_receiver";
    standby
        .wait_for(sql, &format!("streaming {port}"), LIMIT)
        .unwrap();
}

#[test]
fn a_stopped_standby_follows_another_node() {
    let lab = lab(15);
    let upstream = stopped_standby(&lab, &[]);
    let target = stopped_standby(&lab, &[]);
    let upstream_instance = assert_standby(&lab, &upstream);
    register(&lab, &upstream);
    let id = upstream.node_id.to_string();
    let line = [CONF_ONLY, "--upstream-node-id", &id];

    // Nothing is known of it yet.
    let untouched = Untouched::stopped(&lab, &target);
    clone(&lab, &target, &line)
        .code(1)
        .stderr(contains("unable to retrieve node record").and(contains("standby register")));
    untouched.check();

    register(&lab, &target);
    let untouched = Untouched::stopped(&lab, &target);
    let told = clone(&lab, &target, &[&line[..], &["--dry-run"]].concat()).success();
    untouched.check();
    let expected = format!("primary_conninfo = {}", conninfo(upstream.port, &target));
    assert!(output(&told).contains(&expected), "{}", output(&told));

    // What somebody has left behind must not send it astray.
    let auto_conf = target.data_dir.join("postgresql.auto.conf");
    let left = fs::read_to_string(&auto_conf).unwrap()
        + "log_line_prefix = 'it''s %m '\nrecovery_target_name = 'gone'\nprimary_slot_name = 'gone'\n";
    fs::write(&auto_conf, left).unwrap();
    fs::remove_file(target.data_dir.join("standby.signal")).unwrap();
    lab.scratch()
        .write(target.data_dir.join("recovery.signal"), "", 0o600)
        .unwrap();
    clone(&lab, &target, &line).success().stderr(
        contains("\"recovery_target_name\" was removed").and(contains("\"recovery.signal\" was removed")),
    );
    assert_eq!(
        setting(&auto_conf, "primary_conninfo"),
        Some(conninfo(upstream.port, &target))
    );
    assert_eq!(
        setting(&auto_conf, "log_line_prefix").as_deref(),
        Some("'it''s %m '")
    );
    assert_eq!(setting(&auto_conf, "recovery_target_name"), None);
    assert_eq!(setting(&auto_conf, "primary_slot_name"), None);
    let standby = assert_standby(&lab, &target);
    streams_from(&standby, upstream.port);
    drop(upstream_instance);
    // There is no event, as in repmgr.
    let events = format!(
        "select count(*) from repmgr.events where node_id = {}",
        target.node_id
    );
    assert_eq!(lab.primary().sql(&events).unwrap(), "1", "of the clone itself");
}

#[test]
fn a_running_standby_is_configured_only_by_force() {
    let lab = lab(15);
    let target = stopped_standby(&lab, &[]);
    register(&lab, &target);
    let standby = assert_standby(&lab, &target);
    let slot = format!("repmgr_slot_{}", target.node_id);
    add_to_conf(&target, "use_replication_slots=true");
    for line in [&[CONF_ONLY][..], &[CONF_ONLY, "--dry-run"]] {
        let untouched = Untouched::new(&lab, &target);
        clone(&lab, &target, line)
            .code(1)
            .stderr(contains("running PostgreSQL instance").and(contains("-F/--force")));
        untouched.check();
    }
    let untouched = Untouched::new(&lab, &target);
    let told = clone(&lab, &target, &[CONF_ONLY, "-F", "--dry-run"])
        .success()
        .stderr(contains(format!("replication slot \"{slot}\" would be created")));
    untouched.check();
    assert!(
        output(&told).contains(&format!("primary_slot_name = '{slot}'")),
        "{}",
        output(&told)
    );

    clone(&lab, &target, &[CONF_ONLY, "-F"])
        .success()
        .stderr(contains("must be reloaded"));
    let record = format!(
        "select slot_name from repmgr.nodes where node_id = {}",
        target.node_id
    );
    assert_eq!(lab.primary().sql(&record).unwrap(), slot);
    standby.sql("select pg_reload_conf()").unwrap();
    let active = format!("select active from pg_replication_slots where slot_name = '{slot}'");
    lab.primary().wait_for(&active, "t", LIMIT).unwrap();
    streams_from(&standby, lab.primary().port());

    // Its own slot, in use by itself.
    clone(&lab, &target, &[CONF_ONLY, "-F"])
        .success()
        .stderr(contains("an active replication slot"));
    // In use while it is stopped, it is another's.
    standby.stop(StopMode::Fast).unwrap();
    lab.primary().wait_for(&active, "f", LIMIT).unwrap();
    clone(&lab, &target, &[CONF_ONLY]).success();
    drop(assert_standby(&lab, &target));
}

#[test]
fn a_configuration_that_cannot_be_written_is_an_error_and_leaves_no_slot() {
    let lab = lab(15);
    let target = stopped_standby(&lab, &[]);
    register(&lab, &target);
    add_to_conf(&target, "use_replication_slots=true");
    // In the way of the temporary file.
    let obstacle = target.data_dir.join(".postgresql.auto.conf.repmgr-new");
    lab.scratch().dir(&obstacle).unwrap();
    let untouched = Untouched::stopped(&lab, &target);
    clone(&lab, &target, &[CONF_ONLY])
        .code(1)
        .stderr(contains("postgresql.auto.conf"));
    untouched.check();
    fs::remove_dir(&obstacle).unwrap();
    // A node record that is no standby's place is no place either: it cannot follow itself.
    let own = target.node_id.to_string();
    clone(&lab, &target, &[CONF_ONLY, "--upstream-node-id", &own])
        .code(1)
        .stderr(contains("its own upstream"));
    // An upstream node that is not there.
    clone(
        &lab,
        &target,
        &[CONF_ONLY, "--upstream-conninfo", "host=127.0.0.1 port=1"],
    )
    .code(1)
    .stderr(contains("unable to connect to the upstream node"));
    // No source node.
    clone(&lab, &target, &[CONF_ONLY, "-p", "1"]).code(6);
}

#[test]
fn an_instance_of_another_cluster_is_refused() {
    let lab = lab(15);
    let options = PrimaryOptions::default();
    let other = Primary::create(lab.scratch(), lab.primary().install(), "other", &options).unwrap();
    other.stop(StopMode::Fast).unwrap();
    let path = other.data_dir().display().to_string();
    let target = node(&lab, &[("data_directory", &path)]);
    register(&lab, &target);
    let untouched = Untouched::stopped(&lab, &target);
    for line in [&[CONF_ONLY][..], &[CONF_ONLY, "-F"]] {
        clone(&lab, &target, line)
            .code(1)
            .stderr(contains("another cluster"));
    }
    untouched.check();
    let nowhere = node(&lab, &[]);
    clone(&lab, &nowhere, &[CONF_ONLY])
        .code(1)
        .stderr(contains("it does not exist"));
}

#[test]
fn up_to_postgresql_11_it_is_recovery_conf() {
    let lab = lab(11);
    let target = stopped_standby(&lab, &[("archive_cleanup_command", "true '%r'")]);
    register(&lab, &target);
    let file = target.data_dir.join("recovery.conf");
    let refused = |done: Assert| {
        done.code(1)
            .stderr(contains("recovery.conf").and(contains("-F/--force")));
    };
    let untouched = Untouched::stopped(&lab, &target);
    refused(clone(&lab, &target, &[CONF_ONLY]));
    refused(clone(&lab, &target, &["--recovery-conf-only", "--dry-run"]));
    untouched.check();

    fs::write(
        &file,
        "standby_mode = 'on'\nprimary_conninfo = 'host=nowhere.invalid'\n",
    )
    .unwrap();
    clone(&lab, &target, &["--recovery-conf-only", "-F"]).success();
    let text = fs::read_to_string(&file).unwrap();
    let expected = format!(
        "standby_mode = 'on'\nprimary_conninfo = 'host=127.0.0.1 port={} user=repmgr application_name=node{} \
         connect_timeout=5'\nrecovery_target_timeline = 'latest'\narchive_cleanup_command = 'true ''%r'''\n",
        lab.primary().port(),
        target.node_id
    );
    assert_eq!(text, expected);
    assert!(!target.data_dir.join("standby.signal").exists());
    let standby = assert_standby(&lab, &target);
    clone(&lab, &target, &[CONF_ONLY, "-F"])
        .success()
        .stderr(contains("must be restarted"));
    drop(standby);
    // One that has none, as after a restore by other means.
    fs::remove_file(&file).unwrap();
    clone(&lab, &target, &[CONF_ONLY]).success();
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    drop(assert_standby(&lab, &target));
}
