//! Questions to a real primary and its real standby.

use crate::support::{Server, wait_until};
use repmgr_types::{Conninfo, WalSegmentName, WalSegmentSize};
use repmgr_upstream::{Environment, ExtensionState, Requirements, Severity, Upstream, connect};

const HBA: &str = "host all all 127.0.0.1/32 trust";

/// The tables as repmgr 4.0 to 5.5 create them.
const SCHEMA: &str = "CREATE SCHEMA repmgr;
CREATE TABLE repmgr.nodes (
  node_id integer PRIMARY KEY,
  upstream_node_id integer REFERENCES repmgr.nodes (node_id) DEFERRABLE,
  active boolean NOT NULL DEFAULT true, node_name text NOT NULL, type text NOT NULL,
  location text NOT NULL DEFAULT 'default', priority integer NOT NULL DEFAULT 100,
  conninfo text NOT NULL, repluser varchar(63) NOT NULL, slot_name text, config_file text NOT NULL);
CREATE TABLE repmgr.events (
  node_id integer NOT NULL, event text NOT NULL, successful boolean NOT NULL DEFAULT true,
  event_timestamp timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP, details text)";

fn start() -> Server {
    let server = Server::start("", HBA, &[]);
    server.sql(
        "postgres",
        "CREATE ROLE repmgr LOGIN REPLICATION; CREATE ROLE plain LOGIN",
    );
    server.sql("postgres", "CREATE DATABASE repmgr OWNER repmgr");
    server.sql("repmgr", SCHEMA);
    server.sql(
        "repmgr",
        "GRANT ALL ON SCHEMA repmgr TO repmgr; GRANT ALL ON ALL TABLES IN SCHEMA repmgr TO repmgr",
    );
    server
}

fn ask(server: &Server, user: &str) -> Upstream {
    connect(
        &server.conninfo(&format!("user={user} dbname=repmgr")),
        &Environment::empty(),
    )
    .unwrap()
}

fn register(server: &Server, id: i32, name: &str, kind: &str, port: u16) {
    server.sql(
        "repmgr",
        &format!(
            "INSERT INTO repmgr.nodes VALUES ({id}, NULL, true, '{name}', '{kind}', 'default', 100,
             'host=127.0.0.1 port={port} user=repmgr dbname=repmgr', 'repmgr', '', '/etc/repmgr.conf')"
        ),
    );
}

#[test]
fn a_primary_tells_what_a_clone_must_know() {
    let server = start();
    let tablespace = server.path("space dir");
    let made = std::process::Command::new("install")
        .args(["-d", "-o"])
        .arg(owner(&server))
        .arg(&tablespace)
        .status();
    assert!(made.unwrap().success());
    server.sql(
        "postgres",
        &format!("CREATE TABLESPACE \"sp'ace\" LOCATION '{}'", tablespace.display()),
    );

    let upstream = ask(&server, "repmgr");
    assert!(upstream.server_version().major() >= 10);
    assert!(upstream.system_identifier().unwrap().0 > 0);
    assert!(!upstream.is_in_recovery().unwrap());
    assert_eq!(upstream.timeline().unwrap().id(), 1);
    assert!(upstream.current_lsn().unwrap().0 > 0);
    assert!(upstream.database_size_pretty().unwrap().unwrap().ends_with("MB"));
    assert_eq!(upstream.setting("wal_level").unwrap().as_deref(), Some("replica"));
    assert_eq!(upstream.setting("no.such").unwrap(), None);
    // Which of the two depends on whether the original is installed beside the server.
    let extension = upstream.extension_state().unwrap();
    assert!(
        matches!(
            extension,
            ExtensionState::NotAvailable | ExtensionState::Available { .. }
        ),
        "{extension:?}"
    );
    let privileges = upstream.privileges().unwrap();
    assert!(privileges.can_replicate() && !privileges.superuser);
    assert!(!ask(&server, "plain").privileges().unwrap().can_replicate());
    let spaces = upstream.tablespaces().unwrap();
    assert_eq!(spaces.len(), 1);
    assert_eq!(
        (spaces[0].name.as_str(), spaces[0].location.as_str()),
        ("sp'ace", tablespace.to_str().unwrap())
    );
}

fn owner(server: &Server) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(server.path("data")).unwrap().uid().to_string()
}

#[test]
fn wal_segments_can_be_looked_for_by_those_who_may() {
    let server = start();
    let superuser = ask(&server, "postgres");
    let (timeline, lsn) = (superuser.timeline().unwrap(), superuser.current_lsn().unwrap());
    let current = WalSegmentName::containing(timeline, lsn, WalSegmentSize::DEFAULT);
    assert_eq!(superuser.has_wal_segment(current).unwrap(), Some(true));
    let long_gone: WalSegmentName = "000000010000000000000000".parse().unwrap();
    assert_eq!(superuser.has_wal_segment(long_gone).unwrap(), Some(false));
    assert_eq!(ask(&server, "plain").has_wal_segment(current).unwrap(), None);
}

#[test]
fn slots_are_made_found_and_dropped() {
    let server = start();
    let upstream = ask(&server, "repmgr");
    assert_eq!(upstream.slot("repmgr_slot_9").unwrap(), None);
    let from = upstream.create_physical_slot("repmgr_slot_9").unwrap();
    let slot = upstream.slot("repmgr_slot_9").unwrap().unwrap();
    assert!(slot.physical && !slot.active);
    assert_eq!(slot.restart_lsn, Some(from));
    assert_eq!(upstream.slots().unwrap(), [slot]);
    let again = upstream.create_physical_slot("repmgr_slot_9").unwrap_err();
    assert_eq!(again.sqlstate(), Some("42710"));
    assert!(
        again
            .to_string()
            .starts_with("could not create the replication slot on host"),
        "{again}"
    );
    upstream.drop_slot("repmgr_slot_9").unwrap();
    assert_eq!(upstream.slots().unwrap(), []);
    let denied = ask(&server, "plain").create_physical_slot("x").unwrap_err();
    assert!(denied.hint().is_some(), "{denied}");
}

#[test]
fn node_records_are_read_by_column_and_events_are_written() {
    let server = start();
    register(&server, 1, "node1", "primary", server.port);
    register(&server, 2, "node2", "standby", 1);
    let upstream = ask(&server, "repmgr");
    let primary = upstream.primary_node().unwrap().unwrap();
    assert_eq!((primary.node_id, primary.node_name.as_str()), (1, "node1"));
    assert_eq!(primary.conninfo.get("user"), Some("repmgr"));
    assert_eq!(primary.slot_name, None);
    assert_eq!(upstream.node_by_id(2).unwrap().unwrap().node_type, "standby");
    assert_eq!(upstream.node_by_id(3).unwrap(), None);
    assert_eq!(upstream.nodes_by_name("node1").unwrap(), [primary]);

    upstream
        .insert_event(9, "standby_clone", true, "cloned from host \"h\", it's")
        .unwrap();
    server.sql(
        "repmgr",
        "SELECT 1 / count(*) FROM repmgr.events WHERE node_id = 9 AND successful AND details = 'cloned from host \"h\", it''s'",
    );

    upstream.set_slot_name(2, "repmgr_slot_2").unwrap();
    let slot = |id| upstream.node_by_id(id).unwrap().unwrap().slot_name;
    assert_eq!((slot(1), slot(2).as_deref()), (None, Some("repmgr_slot_2")));

    server.sql(
        "repmgr",
        "UPDATE repmgr.nodes SET conninfo = 'password=s3cret bogus' WHERE node_id = 2",
    );
    let error = upstream.node_by_id(2).unwrap_err();
    assert!(error.failure.to_string().contains("node 2") && !format!("{error:?}").contains("s3cret"));
}

#[test]
fn a_database_without_repmgrs_tables_is_an_error_not_an_empty_answer() {
    let server = Server::start("", HBA, &[]);
    let conninfo = server.conninfo("user=postgres dbname=postgres");
    let error = connect(&conninfo, &Environment::empty())
        .unwrap()
        .primary_node()
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("42P01"));
}

#[test]
fn the_primary_is_found_from_its_standby() {
    let primary = start();
    let standby = primary.standby();
    let closed = 1;
    register(&primary, 1, "dead", "primary", closed);
    register(&primary, 2, "standby", "standby", standby.port);
    register(&primary, 3, "promoted", "standby", primary.port);
    register(&primary, 4, "witness", "witness", closed);
    let upstream = ask(&standby, "repmgr");
    assert!(upstream.is_in_recovery().unwrap());
    wait_until(|| upstream.node_by_id(4).is_ok_and(|node| node.is_some()));

    let search = upstream.find_primary(&Environment::empty()).unwrap();
    let (record, session) = search.found.unwrap();
    assert_eq!((record.node_id, session.endpoint().port), (3, primary.port));
    assert_eq!(
        search
            .unreachable
            .iter()
            .map(|(node, _)| node.node_id)
            .collect::<Vec<_>>(),
        [1]
    );

    assert_eq!(upstream.timeline().unwrap(), session.timeline().unwrap());
    assert_eq!(
        upstream.system_identifier().unwrap(),
        session.system_identifier().unwrap()
    );
    assert!(upstream.current_lsn().unwrap().0 > 0);
    assert!(upstream.insert_event(2, "x", true, "").is_err());

    for (wanted, port) in [
        ("any", standby.port),
        ("read-write", primary.port),
        ("primary", primary.port),
        ("standby", standby.port),
        ("read-only", standby.port),
        ("prefer-standby", standby.port),
    ] {
        let text = format!(
            "host=127.0.0.1,127.0.0.1 port={},{} user=repmgr dbname=repmgr target_session_attrs={wanted}",
            standby.port, primary.port
        );
        let session = connect(&Conninfo::parse(&text).unwrap(), &Environment::empty()).unwrap();
        assert_eq!(session.endpoint().port, port, "{wanted}");
    }
}

#[test]
fn checks_see_the_servers_own_settings() {
    let unfit = "wal_level = minimal\nmax_wal_senders = 0\nmax_replication_slots = 0\nhot_standby = off";
    let server = Server::start(unfit, HBA, &[]);
    let upstream = connect(
        &server.conninfo("user=postgres dbname=postgres"),
        &Environment::empty(),
    )
    .unwrap();
    let requirements = Requirements {
        replication_slot: true,
        ..Default::default()
    };
    let errors = upstream
        .checks(&requirements)
        .unwrap()
        .into_iter()
        .filter(|p| p.severity == Severity::Error);
    let named: Vec<_> = errors
        .map(|p| p.message.split('"').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(
        named,
        [
            "wal_level",
            "max_replication_slots",
            "hot_standby",
            "max_wal_senders"
        ]
    );
}

#[test]
fn configuration_files_outside_the_data_directory_are_told_from_those_inside() {
    // The name of the file outside begins as the data directory's does.
    let files = [
        ("../data.conf", "work_mem = 5MB\n"),
        ("inner.conf", "temp_buffers = 6MB\n"),
    ];
    let server = Server::start("include '../data.conf'\ninclude 'inner.conf'", HBA, &files);
    server.sql(
        "postgres",
        "CREATE ROLE plain LOGIN; CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher",
    );
    server.sql("postgres", "CREATE DATABASE repmgr");
    let watcher = ask(&server, "watcher");
    assert!(watcher.privileges().unwrap().can_read_settings());
    assert_eq!(watcher.data_directory().unwrap(), server.path("data"));
    let found = watcher.config_files().unwrap();
    let of = |inside: bool| {
        let files = found.iter().filter(move |file| file.in_data_directory == inside);
        files.map(|file| file.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(false), [server.path("data.conf")]);
    for name in ["inner.conf", "pg_hba.conf", "pg_ident.conf", "postgresql.conf"] {
        assert!(
            of(true).contains(&server.path("data").join(name)),
            "{name}: {found:?}"
        );
    }

    let plain = ask(&server, "plain");
    assert!(!plain.privileges().unwrap().can_read_settings());
    for error in [
        plain.data_directory().unwrap_err(),
        plain.config_files().unwrap_err(),
    ] {
        assert_eq!(error.sqlstate(), Some("42501"));
        assert!(
            error.hint().unwrap().to_string().contains("pg_monitor"),
            "{:?}",
            error.hint()
        );
    }
}
