//! A primary as Debian sets it up: configuration files outside the data directory.

use std::fs;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{BackupMethod, Lab, PrimaryOptions, ServerOptions};
use repmgr_tests::{assert_standby, clone, node};

use std::sync::OnceLock;

/// With two Barman servers: `main` by rsync, `streamed` by pg_basebackup.
fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let options = PrimaryOptions {
            debian_layout: true,
            ..PrimaryOptions::default()
        };
        let lab = Lab::builder().primary(options).build().unwrap();
        lab.add_server(&ServerOptions::new("streamed", BackupMethod::Postgres))
            .unwrap();
        lab
    })
}

/// Barman puts the files into the backup as they are; started with them, the standby would work on the
/// primary's directory.
#[test]
fn the_standby_does_not_go_to_the_primarys_directory() {
    let lab = lab();
    let target = node(lab, &[]);
    clone(lab, &target, &[])
        .success()
        .stderr(contains("data_directory"));
    let standby = assert_standby(lab, &target);
    let own = |name: &str| standby.sql(&format!("show {name}")).unwrap();
    let dir = target.data_dir.display();
    assert_eq!(own("data_directory"), dir.to_string());
    assert_eq!(own("hba_file"), format!("{dir}/pg_hba.conf"));
    assert_eq!(own("ident_file"), format!("{dir}/pg_ident.conf"));
    assert!(lab.primary().is_running().unwrap());
}

/// pg_basebackup leaves out what is not in the data directory: the server would not start, and the user
/// must know before.
#[test]
fn a_backup_without_the_configuration_files_is_said_to_lack_them() {
    let lab = lab();
    let target = node(lab, &[("barman_server", "streamed")]);
    clone(lab, &target, &[]).success().stderr(
        contains("WARNING: ")
            .and(contains("postgresql.conf"))
            .and(contains("pg_hba.conf")),
    );
    // What the message asks for.
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        let text = fs::read_to_string(lab.primary().conf_dir().join(name)).unwrap();
        let own = text.lines().filter(|line| {
            ![
                "data_directory",
                "hba_file",
                "ident_file",
                "external_pid_file",
                "include_dir",
            ]
            .iter()
            .any(|key| line.starts_with(key))
        });
        let own: String = own.map(|line| format!("{line}\n")).collect();
        lab.scratch()
            .write(target.data_dir.join(name), &own, 0o600)
            .unwrap();
    }
    drop(assert_standby(lab, &target));
}

/// Copied flat, the included settings would be lost, and pg_hba.conf could not be loaded.
#[test]
fn what_external_files_refer_to_comes_with_them_or_is_named() {
    let options = PrimaryOptions {
        debian_layout: true,
        ..PrimaryOptions::default()
    };
    let lab = &Lab::builder().primary(options).build().unwrap();
    lab.sshd().add_host("127.0.0.1", &[]).unwrap();
    let conf = lab.primary().conf_dir();
    let write = |name: &str, text: &str| lab.scratch().write(conf.join(name), text, 0o640).unwrap();
    let append = |name: &str, text: &str| {
        let old = fs::read_to_string(conf.join(name)).unwrap();
        write(name, &format!("{text}{old}"));
    };
    write("conf.d/deep.conf", "work_mem = '7MB'\n");
    write(
        "conf.d/10-own.conf",
        "include 'deep.conf'\nmax_locks_per_transaction = 65\n",
    );
    write("databases.txt", "postgres\nrepmgr\n");
    append("pg_hba.conf", "local @databases.txt nobody trust\n");
    lab.primary().sql("select pg_reload_conf()").unwrap();

    let without_barman = [("barman_host", ""), ("barman_server", "")];
    let copied = ["-c", "--copy-external-config-files=pgdata"];
    let target = node(lab, &without_barman);
    clone(lab, &target, &copied)
        .success()
        .stderr(contains("conf.d/deep.conf").and(contains("databases.txt")));
    let standby = assert_standby(lab, &target);
    assert_eq!(standby.sql("show work_mem").unwrap(), "7MB");
    let broken = "select count(*) from pg_hba_file_rules where error is not null";
    assert_eq!(standby.sql(broken).unwrap(), "0");

    append("pg_hba.conf", "local @/etc/no-such-names nobody trust\n");
    let other = node(lab, &without_barman);
    for dry in [&["--dry-run"][..], &[]] {
        let arguments = [&copied[..], dry].concat();
        clone(lab, &other, &arguments)
            .failure()
            .stderr(contains("/etc/no-such-names").and(contains("samepath")));
        assert!(!other.data_dir.join("PG_VERSION").exists());
    }
}
