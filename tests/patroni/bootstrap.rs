use repmgr_lab::{Lab, NodeOptions, Patroni, PrimaryOptions, StopMode, replicator};
use repmgr_tests::LIMIT;

#[test]
fn a_new_cluster_begins_at_the_end_of_the_archive_or_at_a_target() {
    let primary = PrimaryOptions {
        sql: vec![replicator()],
        ..PrimaryOptions::default()
    };
    let lab = Lab::builder().primary(primary).build().unwrap();
    let patroni = Patroni::start(&lab).unwrap();
    let insert = |note: &str| {
        lab.primary()
            .sql(&format!("insert into lab_rows (note) values ('{note}')"))
            .unwrap();
    };
    insert("before");
    lab.primary()
        .sql("select pg_create_restore_point('midday')")
        .unwrap();
    insert("after");
    lab.barman().switch_wal(lab.server()).unwrap();
    lab.primary().stop(StopMode::Fast).unwrap();

    let whole = patroni
        .node(&lab, "whole", &NodeOptions::bootstrap(&lab, "whole", ""))
        .unwrap();
    let target = "    recovery_target_name: midday\n";
    let part = patroni
        .node(&lab, "part", &NodeOptions::bootstrap(&lab, "part", target))
        .unwrap();
    let rows = "select string_agg(note, ' ' order by id) from lab_rows where note in ('before', 'after')";
    for (node, expected) in [(&whole, "before after"), (&part, "before")] {
        node.wait_for("select pg_is_in_recovery()", "f", LIMIT).unwrap();
        assert_eq!(
            node.instance().sql(rows).unwrap(),
            expected,
            "{}",
            node.log_tail()
        );
        let data = node.instance().data_dir();
        assert!(!data.join("standby.signal").exists() && !data.join("recovery.signal").exists());
    }
}
