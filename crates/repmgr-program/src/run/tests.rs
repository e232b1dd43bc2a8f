use std::fs;

use super::*;

const PATIENT: Rules = Rules {
    limit: None,
    grace: Duration::from_secs(1),
    leftovers: Leftovers::Kill,
};

pub(crate) fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn output_of(script: &str, rules: &Rules, cancel: &CancelToken) -> (End, String) {
    let mut output = Vec::new();
    let end = run(sh(script), rules, cancel, &mut |bytes| output.extend(bytes)).unwrap();
    (end, String::from_utf8(output).unwrap())
}

#[track_caller]
fn assert_exited(end: End, code: i32) {
    assert!(
        matches!(end, End::Exited(status) if status.code() == Some(code)),
        "{end:?}"
    );
}

/// Whether that process is there and not only waiting to be reaped by somebody.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

pub(crate) fn wait_until_gone(pid: &str) {
    let begin = Instant::now();
    while runs(pid) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{pid} still runs");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn both_outputs_and_the_exit_code_arrive_and_there_is_no_input() {
    let script = "cat; echo err >&2; echo out; exit 3";
    let (end, output) = output_of(script, &PATIENT, &CancelToken::new());
    assert_exited(end, 3);
    assert_eq!(output, "err\nout\n");
}

#[test]
fn a_flood_arrives_whole() {
    let script = "head -c 1000000 /dev/zero | tr '\\0' x";
    let (end, output) = output_of(script, &PATIENT, &CancelToken::new());
    assert_exited(end, 0);
    assert_eq!(output.len(), 1_000_000);
}

#[test]
fn a_program_that_closes_its_output_is_still_waited_for() {
    let (end, output) = output_of("exec >&- 2>&-; sleep 0.3; exit 4", &PATIENT, &CancelToken::new());
    assert_exited(end, 4);
    assert_eq!(output, "");
}

#[test]
fn what_a_program_leaves_behind_is_killed_and_does_not_hold_us() {
    let begin = Instant::now();
    let (end, pid) = output_of("sleep 300 & echo $!", &PATIENT, &CancelToken::new());
    assert_exited(end, 0);
    wait_until_gone(&pid);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_a_program_leaves_behind_may_live_on_and_write() {
    let keep = Rules {
        leftovers: Leftovers::Keep,
        ..PATIENT
    };
    // Were its output closed, or never read, it would end at the flood, or hang.
    let script = "(trap 'exit 9' PIPE; sleep 1; head -c 300000 /dev/zero; exec sleep 300) & echo $!";
    let begin = Instant::now();
    let (end, pid) = output_of(script, &keep, &CancelToken::new());
    assert_exited(end, 0);
    let comm = || fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap();
    while !comm().starts_with("sleep\u{0}300") {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", comm());
        thread::sleep(Duration::from_millis(20));
    }
    let left = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(left, Signal::KILL).unwrap();
}

#[test]
fn cancelling_ends_a_silent_program_and_its_children() {
    for (leftovers, grace) in [
        (Leftovers::Kill, PATIENT.grace),
        (Leftovers::Keep, Duration::ZERO),
    ] {
        let rules = Rules {
            leftovers,
            grace,
            ..PATIENT
        };
        let cancel = CancelToken::new();
        let mut pid = Vec::new();
        let end = run(sh("sleep 300 & echo $!; wait"), &rules, &cancel, &mut |bytes| {
            pid.extend(bytes);
            cancel.cancel();
        });
        assert_eq!(end.unwrap(), End::Cancelled);
        wait_until_gone(&String::from_utf8(pid).unwrap());
    }
}

#[test]
fn a_program_that_ends_when_asked_to_has_its_last_words() {
    let script = "trap 'echo bye; exit' TERM; echo ready; while :; do sleep 0.1; done";
    let cancel = CancelToken::new();
    let mut output = Vec::<u8>::new();
    let rules = Rules {
        grace: Duration::from_secs(60),
        ..PATIENT
    };
    let end = run(sh(script), &rules, &cancel, &mut |bytes| {
        output.extend(bytes);
        cancel.cancel();
    });
    assert_eq!(end.unwrap(), End::Cancelled);
    assert!(output.ends_with(b"bye\n"), "{output:?}");
}

#[test]
fn a_program_that_ignores_the_request_to_end_is_killed() {
    let cancel = CancelToken::new();
    let begin = Instant::now();
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let end = run(sh(script), &PATIENT, &cancel, &mut |_| cancel.cancel());
    assert_eq!(end.unwrap(), End::Cancelled);
    let took = begin.elapsed();
    assert!(
        (PATIENT.grace..Duration::from_secs(20)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn a_limit_ends_a_program_too() {
    let limit = Duration::from_millis(200);
    let rules = Rules {
        limit: Some(limit),
        ..PATIENT
    };
    let (end, _) = output_of("sleep 300", &rules, &CancelToken::new());
    assert_eq!(end, End::TimedOut { limit });
}

#[test]
fn nothing_is_started_for_who_has_cancelled() {
    let cancel = CancelToken::new();
    cancel.cancel();
    let end = run(Command::new("/no/such/program"), &PATIENT, &cancel, &mut |_| ());
    assert_eq!(end.unwrap(), End::Cancelled);
}

#[test]
fn a_missing_program_is_named() {
    let missing = Command::new("/no/such/program");
    let error = run(missing, &PATIENT, &CancelToken::new(), &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "could not run \"/no/such/program\"");
    assert_eq!(error.source.kind(), ErrorKind::NotFound);
}
