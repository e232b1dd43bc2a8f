//! What decides whether a standby can stream and go on streaming, asked of real servers, old and new.

use crate::support::{Programs, Server, wait_until};
use repmgr_types::{WalSegmentName, WalSegmentSize};
use repmgr_upstream::{Environment, SlotState, StandbyLimits, Upstream, connect};

const HBA: &str = "host all all 127.0.0.1/32 trust";

fn ask(server: &Server, user: &str) -> Upstream {
    let conninfo = server.conninfo(&format!("user={user} dbname=postgres"));
    connect(&conninfo, &Environment::empty()).unwrap()
}

/// Fills and leaves the present segment, often enough that the next checkpoint removes some.
fn switch_segments(server: &Server) {
    for _ in 0..4 {
        server.sql("postgres", "CREATE TABLE IF NOT EXISTS t (); DROP TABLE t");
        server.sql("postgres", "SELECT pg_switch_wal()");
    }
    server.sql("postgres", "CHECKPOINT");
}

#[test]
fn limits_are_those_the_server_runs_with() {
    for major in [10, 18] {
        let conf = "max_connections = 33\nmax_wal_senders = 7\nmax_worker_processes = 9\nmax_prepared_transactions = 2";
        let server = Server::start_with(Programs::of_major(major), conf, HBA, &[]);
        server.sql("postgres", "CREATE ROLE plain LOGIN");
        server.sql("postgres", "ALTER SYSTEM SET max_connections = 500");
        let expected = StandbyLimits {
            max_connections: 33,
            max_worker_processes: 9,
            max_wal_senders: if major < 12 { 0 } else { 7 },
            max_prepared_transactions: 2,
            max_locks_per_transaction: 64,
        };
        assert_eq!(ask(&server, "plain").standby_limits().unwrap(), expected);
    }
}

#[test]
fn wal_that_is_there_is_told_from_names_of_the_future() {
    for major in [10, 18] {
        let server = Server::start_with(Programs::of_major(major), "max_wal_size = '200MB'", HBA, &[]);
        server.sql("postgres", "CREATE ROLE plain LOGIN");
        let first = ask(&server, "postgres").wal().unwrap().current_segment();
        switch_segments(&server);
        server.sql("postgres", "CHECKPOINT");
        let superuser = ask(&server, "postgres");
        let wal = superuser.wal().unwrap();
        assert_eq!(wal.segment_size, WalSegmentSize::DEFAULT);
        assert_eq!(wal.timeline, superuser.timeline().unwrap());
        assert!(wal.position >= superuser.current_lsn().unwrap());
        let current = wal.current_segment();
        assert!(current > first);
        let oldest = wal.oldest().unwrap();
        assert!(oldest > first && oldest <= current, "{wal:?}");
        let files = wal.files.unwrap();
        assert!(files.has(current) && !files.has(first));
        // There is a file of that name all the same.
        let next = current.next(wal.segment_size);
        assert_eq!(superuser.has_wal_segment(next).unwrap(), Some(true));
        assert!(!files.has(next));

        assert_eq!(ask(&server, "plain").wal().unwrap().files, None);
    }
}

#[test]
fn a_standby_tells_what_it_has_itself() {
    let primary = Server::start("", HBA, &[]);
    let standby = primary.standby();
    switch_segments(&primary);
    let target = ask(&primary, "postgres").wal().unwrap();
    let there = ask(&standby, "postgres");
    wait_until(|| there.wal().unwrap().position >= target.position);
    let wal = there.wal().unwrap();
    assert_eq!(wal.current_segment(), target.current_segment());
    assert!(
        wal.oldest().unwrap() <= WalSegmentName::containing(wal.timeline, wal.position, wal.segment_size)
    );
}

#[test]
fn a_slot_that_keeps_nothing_is_told_from_one_that_does() {
    for major in [10, 15, 18] {
        let conf = match major {
            10 => "",
            18 => "max_slot_wal_keep_size = '1MB'\nidle_replication_slot_timeout = '1s'",
            _ => "max_slot_wal_keep_size = '1MB'",
        };
        let server = Server::start_with(Programs::of_major(major), conf, HBA, &[]);
        let upstream = ask(&server, "postgres");
        let state = |name| upstream.slot_state(name).unwrap();
        assert_eq!(state("nosuch"), SlotState::Absent);
        let restart_lsn = upstream.create_physical_slot("repmgr_slot_2").unwrap();
        assert_eq!(state("repmgr_slot_2"), SlotState::Usable { restart_lsn });
        server.sql("postgres", "SELECT pg_create_physical_replication_slot('empty')");
        assert_eq!(state("empty"), SlotState::KeepsNoWal);
        if major == 18 {
            // It keeps its position.
            std::thread::sleep(std::time::Duration::from_millis(1500));
            server.sql("postgres", "CHECKPOINT");
            let slot = upstream.slot("repmgr_slot_2").unwrap().unwrap();
            assert_eq!(slot.restart_lsn, Some(restart_lsn), "{slot:?}");
            let reason = "idle_timeout".to_owned();
            assert_eq!(slot.state(), SlotState::Invalidated { reason });
            assert_eq!(slot.keeps_wal_from(), None);
            continue;
        }
        switch_segments(&server);
        match state("repmgr_slot_2") {
            SlotState::Usable { .. } => assert_eq!(major, 10),
            SlotState::Invalidated { reason } => assert_eq!((major, reason.as_str()), (15, "lost")),
            other => panic!("{major}: {other:?}"),
        }
    }
}
