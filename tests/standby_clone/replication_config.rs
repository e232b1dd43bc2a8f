//! What is written into the standby's configuration, to the letter.

use std::fs;
use std::path::Path;

use repmgr_lab::{Lab, StopMode, Target};
use repmgr_tests::{Snapshot, assert_standby, clone, clone_in, node, output};

use crate::shared;

/// Active lines of a configuration file, in order.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let active = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    active.map(str::to_owned).collect()
}

fn conninfo(lab: &Lab, target: &Target) -> String {
    format!(
        "host=127.0.0.1 port={} user=repmgr application_name=node{} connect_timeout=5",
        lab.primary().port(),
        target.node_id
    )
}

/// (Defect 26) The original unescapes what it keeps, so that the server does not start, and keeps what must
/// go: a recovery target would end replication, another node's slot would never let it begin.
#[test]
fn postgresql_auto_conf_keeps_settings_and_loses_stale_ones() {
    let lab = shared();
    let target = node(lab, &[("restore_command", &lab.restore_command())]);
    clone(lab, &target, &[]).success();
    let expected = [
        r"log_line_prefix = 'it''s \\ %m '".to_owned(),
        r#"search_path = '"$user", public, "o''clock"'"#.to_owned(),
        format!("primary_conninfo = '{}'", conninfo(lab, &target)),
        format!("restore_command = '{}'", lab.restore_command()),
    ];
    let mut found = lines(&target.data_dir.join("postgresql.auto.conf"));
    let mut expected = expected.to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let standby = assert_standby(lab, &target);
    assert_eq!(standby.sql("show log_line_prefix").unwrap(), r"it's \ %m");
    assert_eq!(
        standby.sql("show search_path").unwrap(),
        r#""$user", public, "o'clock""#
    );
    let setting = |name: &str| standby.sql(&format!("select current_setting('{name}')")).unwrap();
    assert_eq!(setting("primary_conninfo"), conninfo(lab, &target));
    assert_eq!(setting("restore_command"), lab.restore_command());
    assert_eq!(
        setting("primary_slot_name") + &setting("recovery_target_name"),
        ""
    );
}

#[test]
fn old_majors_get_a_recovery_conf() {
    for pg in [10, 11] {
        let lab = Lab::builder().pg(pg).build().unwrap();
        let target = node(
            &lab,
            &[
                ("recovery_min_apply_delay", "0"),
                ("restore_command", &lab.restore_command()),
            ],
        );
        clone(&lab, &target, &[]).success();
        let expected = [
            "standby_mode = 'on'".to_owned(),
            format!("primary_conninfo = '{}'", conninfo(&lab, &target)),
            "recovery_target_timeline = 'latest'".to_owned(),
            "recovery_min_apply_delay = '0'".to_owned(),
            format!("restore_command = '{}'", lab.restore_command()),
        ];
        assert_eq!(lines(&target.data_dir.join("recovery.conf")), expected);
        drop(assert_standby(&lab, &target));
    }
}

#[test]
fn a_slot_is_made_named_and_used() {
    let lab = shared();
    let target = node(lab, &[("use_replication_slots", "true")]);
    let slot = format!("repmgr_slot_{}", target.node_id);
    clone(lab, &target, &[]).success();
    let written = lines(&target.data_dir.join("postgresql.auto.conf"));
    assert!(
        written.contains(&format!("primary_slot_name = '{slot}'")),
        "{written:?}"
    );
    // (Defect 19) It keeps the WAL from before the copy on.
    let reserved = lab
        .primary()
        .sql(&format!(
            "select restart_lsn is not null from pg_replication_slots where slot_name = '{slot}'"
        ))
        .unwrap();
    assert_eq!(reserved, "t");
    let standby = assert_standby(lab, &target);
    let active = format!("select active from pg_replication_slots where slot_name = '{slot}'");
    lab.primary().wait_for(&active, "t", repmgr_tests::LIMIT).unwrap();
    standby.stop(StopMode::Fast).unwrap();
    lab.primary().wait_for(&active, "f", repmgr_tests::LIMIT).unwrap();
    lab.primary()
        .sql(&format!("select pg_drop_replication_slot('{slot}')"))
        .unwrap();
}

/// Where `needle` stands in a file below `dir`.
fn holding(dir: &Path, needle: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holding(&path, needle, found);
        } else if let Ok(bytes) = fs::read(&path)
            && bytes
                .windows(needle.len())
                .any(|window| window == needle.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
}

/// (Defects 27 and 28) The original prints the source's connection string with its password, writes the
/// password to `primary_conninfo` unasked, and mixes in what was typed for another server.
#[test]
fn a_password_given_to_us_is_nowhere_afterwards() {
    let lab = shared();
    let target = node(lab, &[]);
    let secret = "tr0ub4dor&3";
    let dbname = format!(
        "host=127.0.0.1 port={} user=repmgr dbname=repmgr password={secret} options='-c work_mem=8MB'",
        lab.primary().port()
    );
    for more in [&["--dry-run"][..], &[]] {
        let mut arguments = vec!["-L", "debug", "-v", "-d", &dbname];
        arguments.extend(more);
        let done = clone_in(lab, &target, &arguments, &[("PGPASSWORD", "env_secret")]).success();
        let said = output(&done);
        assert!(!said.contains(secret) && !said.contains("env_secret"), "{said}");
        assert!(!said.contains("stale_secret"), "{said}");
    }
    let mut found = Vec::new();
    for secret in [secret, "env_secret"] {
        holding(&target.data_dir, secret, &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
    let written = lines(&target.data_dir.join("postgresql.auto.conf"));
    assert!(
        written.contains(&format!("primary_conninfo = '{}'", conninfo(lab, &target))),
        "{written:?}"
    );
}

#[test]
fn a_password_is_written_when_asked_for_and_still_not_shown() {
    let lab = shared();
    let target = node(lab, &[("use_primary_conninfo_password", "true")]);
    let done = clone_in(
        lab,
        &target,
        &["-L", "debug"],
        &[("PGPASSWORD", "it's \\ secret")],
    )
    .success();
    assert!(!output(&done).contains("it's \\"), "{}", output(&done));
    let written = lines(&target.data_dir.join("postgresql.auto.conf"));
    // Escaped for libpq, and that for PostgreSQL's configuration file.
    let expected = format!(
        r"primary_conninfo = '{} password=''it\\''s \\\\ secret'''",
        conninfo(lab, &target)
    );
    assert!(written.contains(&expected), "{written:?}\n{expected}");
    drop(assert_standby(lab, &target));
}

/// What `repmgr.conf` says with blanks, quotes and all must arrive as it was meant.
#[test]
fn commands_with_quotes_arrive_unharmed() {
    let lab = shared();
    let command = format!("true 'it''s' \"%f\"; {}", lab.restore_command());
    let target = node(
        lab,
        &[
            ("restore_command", &command),
            ("archive_cleanup_command", "true '%r'"),
        ],
    );
    clone(lab, &target, &[]).success();
    let standby = assert_standby(lab, &target);
    assert_eq!(standby.sql("show restore_command").unwrap(), command);
    assert_eq!(standby.sql("show archive_cleanup_command").unwrap(), "true '%r'");
}

#[test]
fn the_backup_in_the_catalogue_is_never_changed() {
    let lab = shared();
    let dir = lab.barman().backup_dir(lab.server(), lab.backup_id().unwrap());
    let before = Snapshot::of([dir.join("data/base"), dir.join("data/postgresql.auto.conf")]);
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    drop(assert_standby(lab, &target));
    before.assert_unchanged();
}
