//! What a user sees: the lines, their levels and their order.

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::StopMode;
use repmgr_tests::{assert_standby, clone, node, output, said};

use crate::shared;

/// The customer's example, line by line.
#[test]
fn a_standard_run_says_what_the_original_says_in_the_same_order() {
    let lab = shared();
    let target = node(lab, &[]);
    lab.scratch().dir(&target.data_dir).unwrap();
    let done = clone(lab, &target, &[]).success();
    let dir = target.data_dir.display().to_string();
    let expected = [
        format!("NOTICE: using configuration file \"{}\"", target.conf.display()),
        format!("NOTICE: destination directory \"{dir}\" provided"),
        "INFO: connecting to Barman server to verify backup for main".to_owned(),
        format!("INFO: checking and correcting permissions on existing directory \"{dir}\""),
        "INFO: connecting to Barman server to fetch server parameters".to_owned(),
        "INFO: connecting to upstream node".to_owned(),
        "INFO: connected to source node, checking its state".to_owned(),
        "INFO: successfully connected to source node".to_owned(),
        "DETAIL: current installation size is ".to_owned(),
        "NOTICE: retrieving backup from Barman...".to_owned(),
        "receiving file list ...".to_owned(),
        "NOTICE: standby clone (from Barman) complete".to_owned(),
        "NOTICE: you can now start your PostgreSQL server".to_owned(),
        format!("HINT: for example: /usr/lib/postgresql/15/bin/pg_ctl -D {dir} start"),
    ];
    let lines = said(&done);
    let mut rest = lines.iter();
    for wanted in &expected {
        assert!(
            rest.any(|line| line.starts_with(wanted.as_str())),
            "no \"{wanted}\" in its place:\n{}",
            output(&done)
        );
    }
    // Every line has a level, but for the one rsync printed.
    let levels = ["INFO: ", "NOTICE: ", "WARNING: ", "DETAIL: ", "HINT: "];
    let odd: Vec<_> = lines
        .iter()
        .filter(|line| !levels.iter().any(|level| line.starts_with(level)))
        .collect();
    assert_eq!(odd, ["receiving file list ..."], "{}", output(&done));
}

#[test]
fn the_closing_hint_is_the_command_that_starts_this_service() {
    let lab = shared();
    let target = node(
        lab,
        &[("service_start_command", "sudo systemctl start postgresql@15-main")],
    );
    clone(lab, &target, &[]).success().stderr(contains(
        "HINT: for example: sudo systemctl start postgresql@15-main",
    ));
}

#[test]
fn a_new_node_is_told_to_register_and_a_known_one_to_do_so_by_force() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &[])
        .success()
        .stderr(contains("standby register").and(contains("standby register --force").not()));
    let id = target.node_id;
    lab.primary()
        .sql(&format!(
            "insert into repmgr.nodes (node_id, type, upstream_node_id, node_name, conninfo, repluser, \
             config_file, active) values ({id}, 'standby', 1, 'node{id}', 'host=nowhere.invalid', 'repmgr', 'x', \
             false)"
        ))
        .unwrap();
    let again = clone(lab, &target, &["-F"]);
    lab.primary()
        .sql(&format!("delete from repmgr.nodes where node_id = {id}"))
        .unwrap();
    again.success().stderr(contains("standby register --force"));
}

/// A script reads standard output; everything for people goes to standard error.
#[test]
fn json_lines_tell_programs_what_happens() {
    let lab = shared();
    let target = node(lab, &[]);
    let done = clone(lab, &target, &["--output", "json"]).success();
    let stdout = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    assert!(stdout.lines().count() > 10, "{stdout}");
    for line in stdout.lines() {
        assert!(line.starts_with("{\"") && line.ends_with('}'), "{line}");
    }
    assert!(stdout.contains("\"event\":\"complete\""), "{stdout}");
    assert!(output(&done).contains("NOTICE: standby clone (from Barman) complete"));
}

#[test]
fn success_is_recorded_on_the_primary() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    let row = lab
        .primary()
        .sql(&format!(
            "select event, successful, details from repmgr.events where node_id = {}",
            target.node_id
        ))
        .unwrap();
    assert_eq!(
        row,
        format!(
            "standby_clone|t|cloned from host \"127.0.0.1\", port {}; backup method: barman; --force: N",
            lab.primary().port()
        )
    );
    assert_standby(lab, &target).stop(StopMode::Fast).unwrap();
}
