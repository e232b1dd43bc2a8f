//! The same scenarios done by the original repmgr (Debian's 5.3.3, with Barman 3.4 and PostgreSQL 15) and
//! by ours: exit codes, messages, files, replication configuration, records and slots are compared.
//!
//! Every difference is in the table of `differences.rs`, with its reason, and in
//! `crates/repmgr-cli/COMPATIBILITY.md`. One that is not there fails its test, and so does one that is
//! there and is no more.

mod basebackup;
mod command_line;
mod compare;
mod conf_only;
mod differences;
mod directory;
mod external;
mod from_barman;
mod hermetic;
mod notification;
mod replication;
mod trial;
mod upstream;
mod words;

use std::sync::OnceLock;

use repmgr_lab::{Instance, Lab, PrimaryOptions, ServerOptions, Tablespace, Target};
use repmgr_tests::{clone, node};

fn options() -> PrimaryOptions {
    PrimaryOptions {
        conf: [
            // It makes files at moments of its own.
            "autovacuum = off",
            // Room for all tests at once.
            "max_wal_senders = 40",
            // A checkpoint may end the WAL sender of a slot that is just being made ("terminating connection
            // due to administrator command"), if the WAL it wants could be removed.
            "wal_keep_size = '128MB'",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..PrimaryOptions::default()
    }
}

/// The plainest cluster. Barman's server `odd` has a backup from a time when postgresql.auto.conf held
/// what is easily broken.
fn plain() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let lab = Lab::builder().primary(options()).build().unwrap();
        let primary = lab.primary();
        let odd = [
            ("log_line_prefix", r"'it''s \ %m '"),
            ("search_path", "\"$user\", \"o'clock\""),
            ("primary_slot_name", "'slot_of_the_primary'"),
            ("recovery_target_name", "'a_point_long_gone'"),
            ("work_mem", "'8MB'"),
        ];
        for (name, value) in odd {
            primary
                .sql(&format!("alter system set {name} = {value}"))
                .unwrap();
        }
        lab.add_server(&ServerOptions::new("odd", repmgr_lab::BackupMethod::Rsync))
            .unwrap();
        primary.sql("alter system reset all").unwrap();
        primary
            .sql(
                "create role replicator login replication; create role plain login; grant usage on schema repmgr to \
                 plain; grant select, insert, update on all tables in schema repmgr to plain",
            )
            .unwrap();
        lab
    })
}

/// One with tablespaces.
fn spacious() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        Lab::builder()
            .primary(options())
            .tablespaces([Tablespace::from("fast"), Tablespace::empty("void")])
            .build()
            .unwrap()
    })
}

/// One with configuration files outside the data directory.
fn debian() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let lab = Lab::builder()
            .primary(PrimaryOptions {
                debian_layout: true,
                ..options()
            })
            .build()
            .unwrap();
        // The name under which both programs know the source node's host.
        lab.sshd().add_host("127.0.0.1", &[]).unwrap();
        lab
    })
}

/// A running, registered standby of [`plain`], to be followed and copied.
fn standby() -> &'static (Target, Instance) {
    static STANDBY: OnceLock<(Target, Instance)> = OnceLock::new();
    STANDBY.get_or_init(|| {
        let lab = plain();
        let target = node(lab, &[]);
        clone(lab, &target, &[]).success();
        let instance = lab.start_standby(&target).unwrap();
        register(lab, &target, 1);
        instance
            .wait_for_replay(lab.primary(), repmgr_tests::LIMIT)
            .unwrap();
        (target, instance)
    })
}

/// What `repmgr standby register` does.
fn register(lab: &Lab, target: &Target, upstream: u32) {
    let Target {
        node_id, port, conf, ..
    } = target;
    lab.primary()
        .sql(&format!(
            "insert into repmgr.nodes (node_id, upstream_node_id, type, node_name, conninfo, repluser, \
             config_file) values ({node_id}, {upstream}, 'standby', 'node{node_id}', 'host=127.0.0.1 port={port} \
             user=repmgr dbname=repmgr connect_timeout=5', 'repmgr', '{}')",
            conf.display()
        ))
        .unwrap();
}
