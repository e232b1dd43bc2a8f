//! The lab itself: every combination of PostgreSQL and Barman that other tests build on.

use repmgr_lab::{BackupMethod, BarmanVersion, Lab, PrimaryOptions, Tablespace};

use BackupMethod::{Postgres, Rsync};
use BarmanVersion::{V2_19, V3_4, V3_19};

#[test]
fn brings_up_a_primary_and_takes_a_backup() {
    let lab = Lab::builder()
        .tablespaces([Tablespace::from("it's \"ü\""), Tablespace::empty("void")])
        .build()
        .unwrap();
    let dir = lab.barman().backup_dir(lab.server(), lab.backup_id().unwrap());
    let listed = std::fs::read_to_string(dir.join("backup.info")).unwrap();
    assert!(
        listed.contains("status=DONE") && listed.contains("s \"ü\"") && listed.contains("void"),
        "{listed}"
    );
    assert_eq!(
        lab.primary().sql("select node_name from repmgr.nodes").unwrap(),
        "node1"
    );
    assert!(!lab.primary().is_in_recovery().unwrap());
    let before = lab.primary().fingerprint().unwrap();
    assert!(before.contains("lab_rows 1000 "), "{before}");
    lab.primary()
        .sql("insert into lab_rows (note) values ('more')")
        .unwrap();
    assert_ne!(lab.primary().fingerprint().unwrap(), before);
    let second = lab.barman().backup(lab.server()).unwrap();
    assert!(second.as_str() > lab.backup_id().unwrap());
}

#[test]
fn a_killed_sshd_refuses_and_a_restarted_one_lets_in() {
    let lab = Lab::builder().without_backup().build().unwrap();
    let mut long = lab.sshd().ssh("barmansrv", "sleep 100").spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    lab.sshd().kill().unwrap();
    assert_eq!(long.wait().unwrap().code(), Some(255));
    assert_eq!(
        lab.sshd().ssh("barmansrv", "true").status().unwrap().code(),
        Some(255)
    );
    lab.sshd().restart().unwrap();
    assert!(lab.sshd().ssh("primary", "true").status().unwrap().success());
}

#[test]
fn a_debian_layout_keeps_its_configuration_elsewhere() {
    let options = PrimaryOptions {
        debian_layout: true,
        checksums: true,
        group_access: true,
        ..Default::default()
    };
    let lab = Lab::builder().primary(options).without_backup().build().unwrap();
    let conf = lab.primary().sql("show config_file").unwrap();
    assert_eq!(
        conf,
        lab.primary().conf_dir().join("postgresql.conf").to_string_lossy()
    );
    assert!(!lab.primary().data_dir().join("postgresql.conf").exists());
    assert_eq!(lab.primary().sql("show data_checksums").unwrap(), "on");
    assert_eq!(lab.primary().sql("show data_directory_mode").unwrap(), "0750");
}

#[test]
fn a_debian_standby_host_has_an_empty_cluster_of_its_own() {
    let lab = Lab::builder().without_backup().build().unwrap();
    let (target, places) = lab.debian_target(2, &[]).unwrap();
    assert_eq!(target.data_dir, places.data_dir);
    assert!(places.conf_dir.ends_with("etc/postgresql/15/main") && places.conf_dir.join("conf.d").is_dir());
    let cluster = lab.instance(&target).with_conf_dir(&places.conf_dir);
    cluster.start().unwrap();
    let shown = cluster.sql_in("postgres", "show data_directory").unwrap();
    assert_eq!(shown, places.data_dir.display().to_string());
}

/// One of each version and each way to get it; `tests/standby_clone/main_job.rs` has them all.
fn works(pg: u32, barman: BarmanVersion, method: BackupMethod) {
    let lab = Lab::builder()
        .pg(pg)
        .barman(barman)
        .method(method)
        .tablespaces(["fast"])
        .build()
        .unwrap();
    let info = lab
        .barman()
        .run(&["show-backup", "main", lab.backup_id().unwrap()])
        .unwrap();
    assert!(info.contains("fast"), "{info}");
    assert_eq!(
        lab.primary()
            .sql("show server_version_num")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            / 10_000,
        pg
    );
}

macro_rules! combinations {
    ($($name:ident: $pg:literal $barman:ident $method:ident;)*) => {
        $(#[test] fn $name() { works($pg, $barman, $method); })*
    };
}

combinations! {
    pg10_barman_2_19_rsync: 10 V2_19 Rsync;
    pg15_barman_3_4_postgres: 15 V3_4 Postgres;
    pg18_barman_3_19_postgres: 18 V3_19 Postgres;
}
