//! The source node and the upstream node: chosen, unknown, unfit, out of reach.

use crate::basebackup;
use crate::from_barman::{COPIED, COPIED_SLOT, run};
use crate::{plain, standby};

const REACHED: &[&str] = &["configured", "barman", "source"];
const REACHED_AND_CHECKED: &[&str] = &["configured", "barman", "source", "checked", "no slot"];

#[test]
fn a_standby_is_followed() {
    let id = standby().0.node_id.to_string();
    run("cascade", COPIED, &[], |trial| {
        trial.clone(&["--upstream-node-id", &id])
    });
}

#[test]
fn a_standby_is_followed_through_a_slot() {
    let id = standby().0.node_id.to_string();
    let settings = [("use_replication_slots", "true")];
    run("cascade, slot", COPIED_SLOT, &settings, |trial| {
        let standby = &standby().1;
        let drop_slot = format!(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = \
             'repmgr_slot_{}'",
            trial.target.node_id
        );
        standby.sql(&drop_slot).unwrap();
        let done = trial.clone(&["--upstream-node-id", &id]);
        trial.note(format!(
            "slots there {}",
            standby.sql("select count(*) from pg_replication_slots").unwrap()
        ));
        standby.sql(&drop_slot).unwrap();
        done
    });
}

#[test]
fn a_standby_is_the_source() {
    let port = standby().1.port().to_string();
    run("source is a standby", COPIED, &[], |trial| {
        trial.clone(&["-p", &port])
    });
}

#[test]
fn a_connection_string_for_the_upstream_node() {
    run("upstream conninfo", COPIED, &[], |trial| {
        let conninfo = format!(
            "host=127.0.0.1 port={} user=replicator connect_timeout=7 application_name=me",
            trial.lab.primary().port()
        );
        trial.clone(&["--upstream-conninfo", &conninfo])
    });
}

#[test]
fn a_role_for_replication() {
    run("replication user", COPIED, &[], |trial| {
        trial.clone(&["--replication-user", "replicator"])
    });
}

#[test]
fn a_role_for_replication_that_may_not() {
    run("unfit replication user", REACHED_AND_CHECKED, &[], |trial| {
        trial.clone(&["--dry-run", "--replication-user", "plain"])
    });
}

#[test]
fn the_host_as_a_word() {
    run("host as a word", basebackup::DRY, &[], |trial| {
        let port = trial.lab.primary().port().to_string();
        trial.configured(&[
            "standby",
            "clone",
            "127.0.0.1",
            "--dry-run",
            "-c",
            "--without-barman",
            "-p",
            &port,
            "-U",
            "repmgr",
            "-d",
            "repmgr",
        ])
    });
}

#[test]
fn an_unknown_upstream_node() {
    run("unknown upstream node", REACHED, &[], |trial| {
        trial.clone(&["--upstream-node-id", "4711"])
    });
}

#[test]
fn an_unknown_upstream_node_in_a_dry_run() {
    run("unknown upstream node, dry run", REACHED, &[], |trial| {
        trial.clone(&["--dry-run", "--upstream-node-id", "4711"])
    });
}

#[test]
fn a_name_that_is_taken() {
    run("name taken", REACHED, &[("node_name", "node1")], |trial| {
        trial.clone(&["--dry-run"])
    });
}

#[test]
fn no_extension() {
    run("no extension", REACHED, &[], |trial| {
        trial.clone(&["-d", "postgres", "--dry-run"])
    });
}

#[test]
fn no_extension_by_force() {
    run("no extension, forced", REACHED, &[], |trial| {
        trial.clone(&["-d", "postgres", "-F"])
    });
}

#[test]
fn no_database() {
    run(
        "no database",
        &["configured", "barman", "no source"],
        &[],
        |trial| trial.clone(&["-d", "nosuchdb"]),
    );
}

/// (Defect 7) The Barman host reaches what this host does not.
#[test]
fn nobody_listens() {
    run("unreachable", &["configured", "barman"], &[], |trial| {
        trial.clone(&["-p", "1"])
    });
}

#[test]
fn nobody_listens_in_a_dry_run() {
    run("unreachable, dry run", &["configured", "barman"], &[], |trial| {
        trial.clone(&["-p", "1", "--dry-run"])
    });
}

/// (Defect 8)
#[test]
fn no_connection_is_wanted() {
    run("no connection", &["configured", "barman"], &[], |trial| {
        trial.clone(&["--no-upstream-connection"])
    });
}

#[test]
fn no_connection_is_wanted_and_the_upstream_node_named() {
    run(
        "no connection, node",
        &["configured", "barman", "copied"],
        &[],
        |trial| trial.clone(&["--no-upstream-connection", "--upstream-node-id=1"]),
    );
}

#[test]
fn no_connection_is_wanted_and_the_connection_string_given() {
    let conninfo = format!("host=127.0.0.1 port={} user=repmgr", plain().primary().port());
    run(
        "no connection, conninfo",
        &["configured", "barman", "copied"],
        &[],
        |trial| trial.clone(&["--no-upstream-connection", "--upstream-conninfo", &conninfo]),
    );
}

/// (Defect 9)
#[test]
fn no_connection_is_wanted_in_a_dry_run() {
    run(
        "no connection, dry run",
        &["configured", "barman"],
        &[],
        |trial| trial.clone(&["--no-upstream-connection", "--dry-run", "--upstream-node-id=1"]),
    );
}
