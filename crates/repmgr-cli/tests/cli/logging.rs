//! What is shown, and where.

use std::fs;

use crate::program::Bench;

/// A clone whose Barman host does not exist says some lines and fails.
fn said(bench: &Bench, line: &[&str]) -> String {
    let line = [line, &["standby", "clone"]].concat();
    let assert = bench.run(&line).code(19).stdout("");
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

#[test]
fn the_level_of_the_file_counts_and_an_option_wins() {
    let bench = Bench::ordinary("log_level='WARNING'\n");
    let levels = |line: &[&str]| {
        let text = said(&bench, line);
        ["INFO: ", "NOTICE: ", "ERROR: "].map(|level| text.lines().any(|line| line.starts_with(level)))
    };
    assert_eq!(levels(&[]), [false, false, true]);
    assert_eq!(levels(&["-L", "notice"]), [false, true, true]);
    assert_eq!(levels(&["-L", "INFO"]), [true, true, true]);
    assert_eq!(levels(&["--dry-run"]), [true, true, true]);
    assert_eq!(levels(&["--dry-run", "-q"]), [false, false, true]);
    assert_eq!(levels(&["-L", "ALERT"]), [false, false, false]);
}

#[test]
fn a_log_file_takes_everything_after_a_notice() {
    let bench = Bench::ordinary("log_file='repmgr.log'\n");
    let log = bench.path("repmgr.log");
    bench.write("repmgr.log", "before\n");
    assert_eq!(
        said(&bench, &["--log-to-file"]),
        "NOTICE: redirecting logging output to \"repmgr.log\"\n"
    );
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("before\n["), "{text}");
    assert!(text.contains("] [NOTICE] destination directory "), "{text}");
    assert!(text.contains("] [ERROR] "), "{text}");
    // Without the option the file is left alone.
    assert!(said(&bench, &[]).contains("NOTICE: destination directory"));
    assert_eq!(fs::read_to_string(&log).unwrap(), text);
}

#[test]
fn a_log_that_cannot_be_written_is_an_error() {
    let bench = Bench::ordinary("log_file='/nonexistent/log'\n");
    assert_eq!(
        bench.refused(&["--log-to-file", "standby", "clone"]),
        "ERROR: unable to open specified log file \"/nonexistent/log\" for writing\n\
         DETAIL: No such file or directory (os error 2)\n\
         HINT: check \"log_file\" and \"log_facility\", or leave --log-to-file out\n"
    );
    let bench = Bench::ordinary("log_facility='kitchen'\n");
    assert_eq!(
        bench.refused(&["--log-to-file", "standby", "clone"]),
        "ERROR: invalid log facility \"kitchen\"\n\
         HINT: set \"log_facility\" to STDERR, USER or one of LOCAL0 to LOCAL7\n"
    );
}

#[test]
fn log_to_file_without_a_file_dates_the_lines() {
    let text = said(&Bench::ordinary(""), &["--log-to-file"]);
    assert!(text.lines().all(|line| line.starts_with('[')), "{text}");
    assert!(
        text.contains("] [ERROR] ") && text.contains("] [HINT] "),
        "{text}"
    );
}

#[test]
fn json_lines_end_with_the_error_and_its_exit_code() {
    let bench = Bench::ordinary("");
    let assert = bench.run(&["--output=json", "standby", "clone"]).code(19);
    let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let objects: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        objects
            .iter()
            .all(|object| object["v"] == 2 && object["event"].is_string()),
        "{text}"
    );
    assert_eq!(objects[0]["code"], "using_configuration_file");
    assert_eq!(objects[0]["level"], "notice");
    let last = objects.last().unwrap();
    assert_eq!(
        (&last["event"], &last["kind"]),
        (&"error".into(), &"barman".into())
    );
    assert_eq!(last["exit_code"], 19);
    assert!(
        last["text"].as_str().unwrap().contains("barman.invalid"),
        "{last}"
    );

    let bench = Bench::new();
    for wrong in [
        &["--output=json", "standby", "clone"][..],
        &["--output=json", "standby", "clone", "--foo"],
        &["--output", "json", "standby", "clone", "-h"],
    ] {
        let assert = bench.run(wrong).code(1);
        let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        for line in text.lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                (&object["kind"], &object["exit_code"]),
                (&"usage".into(), &1.into())
            );
        }
    }
}

fn objects(bench: &Bench, line: &[&str]) -> Vec<serde_json::Value> {
    let assert = bench.run(&[&["--output=json"], line].concat()).failure();
    let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn json_lines_have_all_that_is_told() {
    let bench = Bench::ordinary("foo=1\nnode_id=3\n");
    let told = objects(&bench, &["-c", "standby", "clone"]);
    let codes: Vec<_> = told.iter().filter_map(|object| object["code"].as_str()).collect();
    let early = [
        "using_configuration_file",
        "configuration_file",
        "configuration_file",
        "command_line",
        "no_restore_command",
    ];
    assert_eq!(codes[..5], early, "{told:?}");
    let unknown = &told[1];
    assert_eq!(
        (&unknown["line"], &unknown["parameter"]),
        (&7.into(), &"foo".into())
    );
    assert_eq!(unknown["file"], bench.path("repmgr.conf").display().to_string());
    assert!(
        told[2]["text"].as_str().unwrap().contains("set again"),
        "{told:?}"
    );
}

#[test]
fn several_errors_are_several_objects() {
    let bench = Bench::with_conf("node_id=0\nnode_nam='x'\nconninfo='hots=b'\n");
    let told = objects(&bench, &["standby", "clone"]);
    let events: Vec<String> = told
        .iter()
        .map(|object| format!("{} {} {}", object["event"], object["line"], object["kind"]))
        .collect();
    let expected = [
        "\"warning\" 2 null",
        "\"error\" 1 \"configuration_file\"",
        "\"error\" 3 \"configuration_file\"",
    ];
    assert_eq!(events, expected);
    let told = objects(&bench, &["standby", "clone", "-p", "0", "--jobs=0"]);
    let kinds: Vec<_> = told
        .iter()
        .map(|object| object["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["usage", "usage"]);
    let told = objects(&bench, &["-f", "other.conf", "standby", "clone"]);
    assert_eq!(told[0]["kind"], "configuration_file");
}
