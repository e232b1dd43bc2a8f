//! What is written into the standby's configuration.

use repmgr_tests::run as run_command;

use crate::from_barman::{COPIED, run};
use crate::plain;

#[test]
fn settings_of_the_standby() {
    // It is tried before anything is copied.
    let restore_command = format!("{} # it's \"%f\"", plain().restore_command());
    let settings = [
        ("recovery_min_apply_delay", "5min"),
        ("archive_cleanup_command", r"true \\ '%r'"),
        ("passfile", "/home/it's mine/.pgpass"),
        ("restore_command", restore_command.as_str()),
    ];
    run("settings", COPIED, &settings, |trial| trial.clone(&[]));
}

#[test]
fn a_delay_given_as_an_option_and_fewer_messages() {
    let settings = [("recovery_min_apply_delay", "5min")];
    run("delay and level", &["configured", "level"], &settings, |trial| {
        trial.clone(&["--recovery-min-apply-delay=2h", "-L", "NOTICE"])
    });
}

#[test]
fn no_restore_command() {
    run(
        "no restore_command",
        COPIED,
        &[("restore_command", "")],
        |trial| trial.clone(&[]),
    );
}

#[test]
fn a_password_that_is_wanted() {
    let settings = [("use_primary_conninfo_password", "true")];
    run("password", COPIED, &settings, |trial| {
        run_command(trial.clone_command(&[]).env("PGPASSWORD", r"it's \ secret"))
    });
}

#[test]
fn a_password_that_is_not_wanted() {
    run("unwanted password", COPIED, &[], |trial| {
        let port = trial.lab.primary().port();
        let conninfo = format!("host=127.0.0.1 port={port} user=repmgr dbname=repmgr password=secret");
        trial.configured(&["-d", &conninfo, "standby", "clone"])
    });
}

/// What was typed for the connection is not how the standby reaches its upstream node.
#[test]
fn parameters_of_the_command_line() {
    run("typed parameters", COPIED, &[], |trial| {
        let port = trial.lab.primary().port();
        let conninfo = format!(
            "host=127.0.0.1 port={port} user=repmgr dbname=repmgr application_name=me keepalives_idle=7 \
             options='-c work_mem=8MB'"
        );
        trial.configured(&["-d", &conninfo, "standby", "clone"])
    });
}

#[test]
fn what_postgresql_auto_conf_held() {
    run("odd auto.conf", COPIED, &[("barman_server", "odd")], |trial| {
        trial.clone(&[])
    });
}
