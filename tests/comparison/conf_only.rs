//! `--replication-conf-only`: the configuration of an instance that is there.

use repmgr_tests::clone;

use crate::compare::{Scenario, compare};
use crate::trial::{Files, Trial};
use crate::{plain, register};

#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Cloned,
    Registered,
    Running,
}

#[track_caller]
fn run(
    name: &'static str,
    groups: &'static [&'static str],
    before: Before,
    settings: &[(&str, &str)],
    more: &[&str],
) {
    let scenario = Scenario {
        name,
        groups,
        lab: plain(),
        settings,
        files: Files::Names,
    };
    compare(&scenario, |trial: &Trial<'_>| {
        if before != Before::Nothing {
            clone(trial.lab, &trial.target, &[]).success();
            // As it comes from elsewhere.
            std::fs::remove_file(trial.target.data_dir.join("standby.signal")).unwrap();
        }
        if matches!(before, Before::Registered | Before::Running) {
            register(trial.lab, &trial.target, 1);
        }
        let mut running = None;
        if before == Before::Running {
            trial
                .lab
                .scratch()
                .write(trial.target.data_dir.join("standby.signal"), "", 0o600)
                .unwrap();
            running = Some(trial.lab.start_standby(&trial.target).unwrap());
        }
        let mut arguments = vec!["--replication-conf-only"];
        arguments.extend(more);
        let done = trial.clone(&arguments);
        if let Some(instance) = running.take() {
            instance.stop(repmgr_lab::StopMode::Fast).unwrap();
            let conf = std::fs::read_to_string(trial.target.data_dir.join("postgresql.auto.conf")).unwrap();
            trial.note(
                conf.lines()
                    .filter(|line| !line.starts_with('#'))
                    .collect::<Vec<_>>()
                    .join("; "),
            );
            std::fs::remove_dir_all(&trial.target.data_dir).unwrap();
        }
        done
    });
}

#[test]
fn a_registered_node() {
    run(
        "conf only, stopped",
        &["configured", "conf only"],
        Before::Registered,
        &[],
        &[],
    );
}

#[test]
fn under_its_old_name() {
    run(
        "recovery conf only",
        &["configured", "conf only"],
        Before::Registered,
        &[],
        &["--dry-run", "--recovery-conf-only"],
    );
}

#[test]
fn a_dry_run() {
    run(
        "conf only dry run",
        &["configured", "conf only"],
        Before::Registered,
        &[],
        &["--dry-run"],
    );
}

#[test]
fn a_slot() {
    let settings = [("use_replication_slots", "true")];
    run(
        "conf only slot",
        &["configured", "conf only"],
        Before::Registered,
        &settings,
        &[],
    );
}

#[test]
fn a_node_without_a_record() {
    run(
        "conf only unregistered",
        &["configured", "conf only"],
        Before::Cloned,
        &[],
        &[],
    );
}

#[test]
fn a_running_node() {
    run("conf only running", &["configured"], Before::Running, &[], &[]);
}

#[test]
fn a_running_node_by_force() {
    run(
        "conf only forced",
        &["configured", "conf only"],
        Before::Running,
        &[],
        &["-F"],
    );
}

#[test]
fn no_instance() {
    run("conf only nothing", &["configured"], Before::Nothing, &[], &[]);
}
