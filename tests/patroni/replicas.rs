use std::time::Duration;

use repmgr_lab::{Lab, NodeOptions, Patroni, PrimaryOptions, replicator};
use repmgr_tests::{LIMIT, Relay};

use crate::assert_replicates;

const MADE: &str = "replica has been created using barman";

fn lab() -> Lab {
    let options = PrimaryOptions {
        rows: 20_000,
        checksums: true,
        sql: vec![replicator()],
        ..PrimaryOptions::default()
    };
    Lab::builder().primary(options).build().unwrap()
}

#[test]
fn replicas_come_from_barman_are_rebuilt_by_delta_and_survive_what_happens_meanwhile() {
    let lab = lab();
    let patroni = Patroni::start(&lab).unwrap();
    let mut first = patroni.lead(&lab).unwrap();

    // Only from Barman: the leader is not asked for a base backup.
    let keep = "    keep_data: true\n    no_leader: 1\n    colour: red\n";
    let second = patroni
        .node(
            &lab,
            "node2",
            &NodeOptions::replica(&lab, "barman", "barmansrv", keep),
        )
        .unwrap();
    second.wait_for_words(MADE, LIMIT).unwrap();
    assert_replicates(&first, &second);
    let said = second.said().unwrap();
    assert!(
        said.contains("WARNING: repmgr-patroni: key \"colour\" is not known"),
        "{said}"
    );
    assert!(!said.contains("key \"keep_data\""), "{said}");

    // A reinitialisation finds most of it there.
    patroni
        .ctl(&second, &["reinit", "lab", "node2", "--force"])
        .unwrap();
    second
        .wait_for_words("Leaving data directory uncleaned", LIMIT)
        .unwrap();
    let again = || second.said().unwrap().matches(MADE).count() == 2;
    assert!(
        (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            again()
        }),
        "{}",
        second.log_tail()
    );
    assert_replicates(&first, &second);
    let said = second.said().unwrap();
    assert!(said.contains(" MB were here already"), "{said}");

    // Barman's host is down, and comes back.
    lab.sshd().stop().unwrap();
    let relay = Relay::start(lab.sshd(), "slowsrv", 3 << 20).unwrap();
    let third = patroni
        .node(
            &lab,
            "node3",
            &NodeOptions::replica(&lab, "barman", "slowsrv", keep),
        )
        .unwrap();
    third.wait_for_words("trying again in 2 s", LIMIT).unwrap();
    lab.sshd().restart().unwrap();
    // The leader is lost while the copy is under way; another takes its place.
    third
        .wait_for_words("retrieving backup from Barman", LIMIT)
        .unwrap();
    first.crash().unwrap();
    third.wait_for_words(MADE, LIMIT).unwrap();
    assert!(relay.forwarded() > 0);
    second.wait_for("select pg_is_in_recovery()", "f", LIMIT).unwrap();
    assert_replicates(&second, &third);

    // A method that fails gives way to the next.
    let other = NodeOptions::replica(
        &lab,
        "barman, basebackup",
        "barmansrv",
        "    backup_id: 20200101T000000\n",
    );
    let fourth = patroni.node(&lab, "node4", &other).unwrap();
    fourth
        .wait_for_words("replica has been created using basebackup", LIMIT)
        .unwrap();
    assert!(
        fourth
            .said()
            .unwrap()
            .contains("Error creating replica using method barman"),
        "{}",
        fourth.log_tail()
    );
    assert_replicates(&second, &fourth);
}
