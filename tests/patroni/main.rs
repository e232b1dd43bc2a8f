//! `repmgr-patroni` as a real Patroni calls it, against real PostgreSQL, etcd, sshd and Barman.

mod bootstrap;
mod calls;
mod replicas;

use repmgr_lab::PatroniNode;

/// Where everything is equal, and a row written now arrives.
#[track_caller]
fn assert_replicates(leader: &PatroniNode, replica: &PatroniNode) {
    let here = "select count(*) from lab_rows where note = 'now'";
    leader
        .instance()
        .sql("insert into lab_rows (note) values ('now')")
        .unwrap();
    let there = leader.instance().sql(here).unwrap();
    replica.wait_for(here, &there, repmgr_tests::LIMIT).unwrap();
    replica
        .wait_for(
            "select status from pg_stat_wal_receiver",
            "streaming",
            repmgr_tests::LIMIT,
        )
        .unwrap();
    assert_eq!(
        leader.instance().fingerprint().unwrap(),
        replica.instance().fingerprint().unwrap()
    );
}
