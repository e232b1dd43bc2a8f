//! Replication connections to real servers, old and new.

use crate::support::{Programs, Server, wait_until};
use repmgr_types::{Conninfo, Timeline};
use repmgr_upstream::{
    ConnectError, Environment, Failure, ReplicationCheckError, check_replication, connect,
    connect_replication,
};

/// `rep` may only replicate, `duo` do all, `sql` anything but replicate.
const HBA: &str = "host all sql 127.0.0.1/32 trust
host replication noattr 127.0.0.1/32 trust
host all,replication duo 127.0.0.1/32 trust
host replication rep 127.0.0.1/32 md5";
const ROLES: &str =
    "CREATE ROLE sql LOGIN REPLICATION; CREATE ROLE noattr LOGIN; CREATE ROLE duo LOGIN REPLICATION;
    SET password_encryption = 'scram-sha-256'; CREATE ROLE rep LOGIN REPLICATION PASSWORD 'rep secret'";

fn start(programs: Programs) -> Server {
    let server = Server::start_with(programs, "max_wal_senders = 3", HBA, &[]);
    server.sql("postgres", ROLES);
    server
}

fn of_check(server: &Server, rest: &str, how_many: u32) -> ReplicationCheckError {
    check_replication(&server.conninfo(rest), &Environment::empty(), how_many).unwrap_err()
}

fn failure(error: &ReplicationCheckError) -> &Failure {
    match error {
        ReplicationCheckError::Connect {
            source: ConnectError::Failed(failed),
            ..
        } => &failed.failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn servers_old_and_new_identify_themselves_and_make_slots() {
    for major in [10, 15, 18] {
        let server = start(Programs::of_major(major));
        let env = Environment::empty().with_variable("PGPASSWORD", "rep secret");
        // A database of that name is not needed, nor an entry for one.
        let rep = server.conninfo("user=rep dbname=nosuch");
        let found = check_replication(&rep, &env, 3).unwrap();
        let both = connect(&server.conninfo("user=duo dbname=postgres"), &env).unwrap();
        assert_eq!(both.server_version().major(), major);
        assert_eq!(found.system_identifier, both.system_identifier().unwrap());
        assert_eq!(found.timeline, both.timeline().unwrap());
        assert!(found.lsn.0 > 0 && found.lsn <= both.current_lsn().unwrap());

        wait_until(|| connect_replication(&rep, &env).is_ok());
        let connection = connect_replication(&rep, &env).unwrap();
        assert_eq!(
            (connection.user(), connection.endpoint().port),
            ("rep", server.port)
        );
        connection.create_physical_slot("repmgr_slot_7").unwrap();
        let slot = both.slot("repmgr_slot_7").unwrap().unwrap();
        assert!(
            slot.physical && !slot.active && slot.restart_lsn.is_some(),
            "{slot:?}"
        );
        let again = connection.create_physical_slot("repmgr_slot_7").unwrap_err();
        assert_eq!(again.sqlstate(), Some("42710"));
        // The session survives an error, and a name cannot become a command.
        let hostile = connection.create_physical_slot("x\" PHYSICAL; IDENTIFY_SYSTEM; \"");
        assert!(matches!(hostile.unwrap_err().failure, Failure::Protocol(_)));
        connection.drop_slot("repmgr_slot_7").unwrap();
        assert_eq!(both.slots().unwrap(), []);
    }
}

#[test]
fn a_timelines_history_is_read_where_there_is_one() {
    for major in [10, 18] {
        let primary = start(Programs::of_major(major));
        let standby = primary.standby();
        let env = Environment::empty();
        let connection = connect_replication(&standby.socket("postgres", "postgres"), &env).unwrap();
        assert_eq!(connection.identify_system().unwrap().timeline.id(), 1);
        let timeline = |id| Timeline::new(id).unwrap();
        assert_eq!(connection.timeline_history(timeline(1)).unwrap(), None);
        assert_eq!(connection.timeline_history(timeline(2)).unwrap(), None);
        drop(connection);

        standby.promote();
        let session = connect(&standby.socket("postgres", "postgres"), &env).unwrap();
        wait_until(|| session.timeline().unwrap().id() == 2);
        let connection = connect_replication(&standby.socket("postgres", "postgres"), &env).unwrap();
        assert_eq!(connection.identify_system().unwrap().timeline.id(), 2);
        let history = connection.timeline_history(timeline(2)).unwrap().unwrap();
        assert!(history.starts_with("1\t0/"), "{history}");
    }
}

#[test]
fn a_session_for_queries_proves_nothing_about_replication() {
    let server = start(Programs::default());
    let sql = server.conninfo("user=sql dbname=postgres");
    connect(&sql, &Environment::empty()).unwrap();
    let error = of_check(&server, "user=sql dbname=postgres", 1);
    assert!(
        matches!(failure(&error), Failure::Server(e) if e.code == "28000"),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "replication connections: 1 needed, 0 could be opened"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .to_string()
            .contains("database \"replication\""),
        "{error:?}"
    );

    let error = of_check(&server, "user=noattr", 1);
    assert!(
        error.hint().unwrap().to_string().contains("ALTER ROLE"),
        "{error:?}"
    );
    let error = of_check(&server, "user=rep password=wr0ng", 1);
    assert!(
        matches!(failure(&error), Failure::Server(e) if e.code == "28P01"),
        "{error:?}"
    );
    assert!(!format!("{error:?}").contains("wr0ng"));
    let error = of_check(&server, "user=rep", 1);
    assert!(matches!(failure(&error), Failure::PasswordMissing), "{error:?}");
}

#[test]
fn the_password_file_is_searched_for_the_database_replication() {
    use std::os::unix::fs::PermissionsExt;
    let server = start(Programs::default());
    let home = tempfile::tempdir().unwrap();
    let pgpass = home.path().join(".pgpass");
    let line = format!(
        "127.0.0.1:{0}:postgres:rep:wrong\n127.0.0.1:{0}:replication:rep:rep secret\n",
        server.port
    );
    std::fs::write(&pgpass, line).unwrap();
    std::fs::set_permissions(&pgpass, std::fs::Permissions::from_mode(0o600)).unwrap();
    let env = Environment::empty().with_home(home.path());
    check_replication(&server.conninfo("user=rep dbname=postgres"), &env, 1).unwrap();
}

#[test]
fn as_many_connections_as_are_needed_are_open_at_once() {
    let server = start(Programs::default());
    let held = connect_replication(&server.conninfo("user=duo"), &Environment::empty()).unwrap();
    let error = of_check(&server, "user=duo", 3);
    assert!(
        matches!(
            error,
            ReplicationCheckError::Connect {
                wanted: 3,
                opened: 2,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error.hint().unwrap().to_string().contains("max_wal_senders"),
        "{error:?}"
    );
    drop(held);
    let three = || check_replication(&server.conninfo("user=duo"), &Environment::empty(), 3);
    wait_until(|| three().is_ok());
}

#[test]
fn a_standby_is_told_from_a_primary_without_queries() {
    let primary = start(Programs::default());
    let standby = primary.standby();
    for (wanted, port) in [
        ("standby", standby.port),
        ("primary", primary.port),
        ("any", primary.port),
    ] {
        let text = format!(
            "host=127.0.0.1,127.0.0.1 port={},{} user=duo target_session_attrs={wanted} connect_timeout=10",
            primary.port, standby.port
        );
        let connection =
            connect_replication(&Conninfo::parse(&text).unwrap(), &Environment::empty()).unwrap();
        assert_eq!(connection.endpoint().port, port, "{wanted}");
    }
}
