//! The configuration file.

use crate::program::Bench;

#[test]
fn a_missing_file_is_named_and_nothing_else_is_tried() {
    let bench = Bench::ordinary("");
    let path = bench.path("other.conf");
    assert_eq!(
        bench.refused(&["-f", "other.conf", "standby", "clone"]),
        format!(
            "ERROR: provided configuration file \"{}\" not found\nDETAIL: No such file or directory (os error 2)\n",
            path.display()
        )
    );
}

#[test]
fn all_errors_are_listed_with_file_line_and_parameter() {
    let bench =
        Bench::with_conf("node_id=0\nnode_nam='x'\nuse_replication_slots='perhaps'\nconninfo='hots=b'\n");
    let file = bench.path("repmgr.conf");
    let file = file.display();
    assert_eq!(
        bench.refused(&["standby", "clone"]),
        format!(
            "ERROR: following errors were found in the configuration file:\n  \
             file \"{file}\", line 1: parameter \"node_id\": value must be a number from 1 to 2147483647\n  \
             file \"{file}\", line 3: parameter \"use_replication_slots\": value must be one of true, false, on, off, \
             yes, no, 1, 0\n  \
             file \"{file}\", line 4: parameter \"conninfo\": invalid connection string: invalid connection option \"hots\"\n\
             WARNING: the following problems were also found in the configuration file:\n  \
             file \"{file}\", line 2: parameter \"node_nam\": unknown, ignored; did you mean \"node_name\"?\n"
        )
    );
}

#[test]
fn required_parameters_are_named() {
    let bench = Bench::with_conf("node_id=2\nbarman_host='b'\nbarman_server='s'\n");
    let file = bench.path("repmgr.conf");
    let missing = |name: &str| {
        format!(
            "  file \"{}\": parameter \"{name}\": required but not set\n",
            file.display()
        )
    };
    assert_eq!(
        bench.refused(&["standby", "clone"]),
        format!(
            "ERROR: following errors were found in the configuration file:\n{}{}{}",
            missing("node_name"),
            missing("conninfo"),
            missing("data_directory")
        )
    );
}

#[test]
fn every_parameter_can_be_dumped() {
    let bench = Bench::ordinary("use_replication_slots=on\nevent_notifications='a, b'\n");
    let assert = bench.run(&["--dump-config"]).success().stderr("");
    let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    assert!(text.starts_with("node_id|2\nnode_name|node2\n"), "{text}");
    for line in [
        "conninfo|host=node2.invalid user=repmgr dbname=repmgr",
        "use_replication_slots|true",
        "event_notifications|a,b",
        "log_file|",
        "promote_check_timeout|60",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn warnings_are_told_and_terse_hides_them() {
    let bench = Bench::ordinary("foo=1\n");
    let said = |line: &[&str]| {
        let assert = bench.run(line).code(19);
        String::from_utf8(assert.get_output().stderr.clone()).unwrap()
    };
    let warning = format!(
        "WARNING: the following problems were found in the configuration file:\n  file \"{}\", line 7: parameter \
         \"foo\": unknown, ignored\n",
        bench.path("repmgr.conf").display()
    );
    assert!(said(&["standby", "clone"]).contains(&warning));
    assert!(!said(&["-t", "standby", "clone"]).contains("foo"));
}

#[test]
fn verbose_shows_where_the_file_was_looked_for() {
    let bench = Bench::ordinary("restore_command='fetch %f %p'\n");
    let assert = bench.run(&["-v", "standby", "clone"]).code(19).stdout("");
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let path = bench.path("repmgr.conf");
    let path = path.display();
    let data = bench.path("data");
    let data = data.display();
    let expected = format!(
        "INFO: configuration file found at: \"{path}\"\nNOTICE: using configuration file \"{path}\"\n\
         NOTICE: destination directory \"{data}\" provided\n"
    );
    assert!(said.starts_with(&expected), "{said}");
}
