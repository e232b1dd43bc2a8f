//! The source node can be reached from the Barman host, but not from here. (Defects 7, 8, 9: with the original
//! this works only if the upstream node's connection string is given by hand.)

use std::fs;
use std::sync::OnceLock;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{BackupMethod, Lab, PrimaryOptions, ServerOptions, Target};
use repmgr_tests::{Snapshot, assert_standby, clone, clone_in, node, output};

const SECRET: &str = "hush_hush";

/// Barman's server `main` needs no password to connect to the primary; `locked` needs one.
fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let lab = Lab::builder()
            .primary(PrimaryOptions {
                sql: vec![format!("create role locked superuser login password '{SECRET}'")],
                ..PrimaryOptions::default()
            })
            .build()
            .unwrap();
        let primary = lab.primary();
        let hba = primary.data_dir().join("pg_hba.conf");
        let rules = fs::read_to_string(&hba).unwrap();
        let rule = "host all,replication locked 127.0.0.1/32 scram-sha-256\n";
        lab.scratch()
            .write(&hba, &format!("{rule}{rules}"), 0o600)
            .unwrap();
        primary.sql("select pg_reload_conf()").unwrap();
        let mut locked = ServerOptions::new("locked", BackupMethod::Rsync);
        locked.conf.push(format!(
            "conninfo = host=127.0.0.1 port={} user=locked password={SECRET} dbname=postgres",
            primary.port()
        ));
        lab.add_server(&locked).unwrap();
        // A node that only its record knows.
        primary
            .sql(
                "insert into repmgr.nodes (node_id, upstream_node_id, type, node_name, conninfo, repluser, \
                 config_file) values (900, 1, 'standby', 'far', 'host=far.invalid port=5433 user=repmgr \
                 dbname=repmgr password=stale', 'replicator', '/r.conf')",
            )
            .unwrap();
        lab
    })
}

fn primary_conninfo(target: &Target) -> String {
    let text = fs::read_to_string(target.data_dir.join("postgresql.auto.conf")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("primary_conninfo = "));
    line.expect("primary_conninfo is set").to_owned()
}

#[test]
fn the_standby_follows_the_primary_that_the_barman_host_knows() {
    let lab = lab();
    for more in [&["-p", "1"][..], &["--no-upstream-connection"]] {
        let target = node(lab, &[]);
        let said = output(&clone(lab, &target, more).success());
        // A number that was mistyped: the node itself can be reached, and is checked.
        let warned =
            said.contains("WARNING: the source node cannot be reached; node 1 of repmgr's records can");
        assert_eq!(warned, more[0] == "-p", "{said}");
        assert_eq!(
            said.contains("successfully connected to source node"),
            warned,
            "{said}"
        );
        assert_eq!(
            primary_conninfo(&target),
            format!(
                "'host=127.0.0.1 port={} user=repmgr application_name=node{} connect_timeout=5'",
                lab.primary().port(),
                target.node_id
            )
        );
        drop(assert_standby(lab, &target));
    }
}

#[test]
fn another_node_is_followed_as_its_record_says() {
    let lab = lab();
    let target = node(lab, &[]);
    clone(lab, &target, &["-p", "1", "--upstream-node-id", "900"])
        .success()
        .stderr(contains(
            "cannot be reached from here, so that nothing about it is checked",
        ));
    assert_eq!(
        primary_conninfo(&target),
        format!(
            "'host=far.invalid port=5433 user=replicator application_name=node{}'",
            target.node_id
        )
    );
    let target = node(lab, &[]);
    let more = [
        "--no-upstream-connection",
        "--upstream-node-id=900",
        "--replication-user=other",
    ];
    clone(lab, &target, &more).success();
    assert!(primary_conninfo(&target).contains(" user=other "));
}

#[test]
fn the_password_that_barman_connects_with_is_used_and_not_shown() {
    let lab = lab();
    let target = node(lab, &[("barman_server", "locked")]);
    let said = output(&clone(lab, &target, &["-p", "1", "-L", "debug", "-v"]).success());
    assert!(!said.contains(SECRET), "{said}");
    assert!(!primary_conninfo(&target).contains("password"));
}

/// The one who clones may have a password that the standby will not have.
#[test]
fn a_standby_that_will_have_no_password_is_warned_of() {
    let lab = lab();
    let record = format!(
        "insert into repmgr.nodes (node_id, upstream_node_id, type, node_name, conninfo, repluser, config_file) \
         values (901, 1, 'standby', 'guarded', 'host=127.0.0.1 port={} user=locked dbname=repmgr', 'locked', '/r.conf')",
        lab.primary().port()
    );
    lab.primary().sql(&record).unwrap();
    let more = ["--upstream-node-id=901"];
    let environment = [("PGPASSWORD", SECRET)];
    let warning = "WARNING: the standby will not be able to connect to its upstream node";
    let target = node(lab, &[]);
    let said = output(&clone_in(lab, &target, &more, &environment).success());
    assert!(said.contains(warning) && !said.contains(SECRET), "{said}");
    let target = node(lab, &[("use_primary_conninfo_password", "true")]);
    let said = output(&clone_in(lab, &target, &more, &environment).success());
    assert!(!said.contains(warning), "{said}");
    assert!(primary_conninfo(&target).contains(SECRET));
}

/// What cannot be found out is an error, and nothing is changed: not even with -F.
#[test]
fn a_node_that_nobody_knows_is_named() {
    let lab = lab();
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    let before = Snapshot::inside(&target.data_dir);
    let more = ["-F", "--no-upstream-connection", "--upstream-node-id=4711"];
    clone(lab, &target, &more)
        .failure()
        .stderr(contains("ERROR: ").and(contains("4711")));
    // The first of two failures is the one that can be mended here.
    clone(lab, &target, &["-F", "-p", "1", "--upstream-node-id=4711"])
        .code(6)
        .stderr(contains("port 1"));
    clone(
        lab,
        &target,
        &["-F", "--no-upstream-connection", "-d", "nosuchdb"],
    )
    .failure()
    .stderr(contains("nosuchdb"));
    before.assert_unchanged();
}

/// Nobody can be asked for a slot: the user must know.
#[test]
fn a_slot_that_cannot_be_made_is_told() {
    let lab = lab();
    let target = node(lab, &[("use_replication_slots", "true")]);
    let more = ["--no-upstream-connection", "--upstream-node-id=900"];
    clone(lab, &target, &more).success().stderr(
        contains("WARNING: ")
            .and(contains("could not be created"))
            .and(contains("pg_create_physical_replication_slot")),
    );
}
