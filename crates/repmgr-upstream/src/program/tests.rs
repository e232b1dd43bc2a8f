use std::fs;

use super::*;

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn lines_of(script: &str, cancel: &CancelToken) -> (Result<ExitStatus, ProgramError>, Vec<String>) {
    let mut lines = Vec::new();
    let result = run(sh(script), None, cancel, &mut |line| lines.push(line.to_owned()));
    (result, lines)
}

/// Whether that process is there and not only waiting to be reaped by somebody.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn wait_until_gone(pid: &str) {
    let begin = Instant::now();
    while runs(pid) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{pid} still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn lines_end_at_either_sign_and_are_made_printable() {
    let (status, lines) = lines_of(
        r"printf '  1/2 kB\r  2/2 kB\n\nwarn\033[0ming  \n' >&2; echo out; printf last; exit 3",
        &CancelToken::new(),
    );
    assert_eq!(status.unwrap().code(), Some(3));
    assert_eq!(lines, ["  1/2 kB", "  2/2 kB", "warn?[0ming", "out", "last"]);
}

#[test]
fn a_flood_without_a_line_end_takes_no_memory() {
    let (status, lines) = lines_of("head -c 1000000 /dev/zero | tr '\\0' x", &CancelToken::new());
    assert!(status.unwrap().success());
    assert_eq!(lines.iter().map(String::len).sum::<usize>(), 1_000_000);
    assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
}

#[test]
fn a_program_that_closes_its_output_is_still_waited_for() {
    let (status, lines) = lines_of("exec >&- 2>&-; sleep 0.3; exit 4", &CancelToken::new());
    assert_eq!((status.unwrap().code(), lines.len()), (Some(4), 0));
}

#[test]
fn what_a_program_leaves_behind_is_killed_and_does_not_hold_us() {
    let begin = Instant::now();
    let (status, lines) = lines_of("sleep 300 & echo $!", &CancelToken::new());
    assert!(status.unwrap().success());
    wait_until_gone(&lines[0]);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn cancelling_ends_a_silent_program_and_its_children() {
    let cancel = CancelToken::new();
    let mut pid = String::new();
    let result = run(sh("sleep 300 & echo $!; wait"), None, &cancel, &mut |line| {
        line.clone_into(&mut pid);
        cancel.cancel();
    });
    assert!(matches!(result, Err(ProgramError::Cancelled)), "{result:?}");
    wait_until_gone(&pid);
    assert!(matches!(
        lines_of("true", &cancel).0,
        Err(ProgramError::Cancelled)
    ));
}

#[test]
fn a_program_that_ignores_the_request_to_end_is_killed() {
    let cancel = CancelToken::new();
    let begin = Instant::now();
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let result = run(sh(script), None, &cancel, &mut |_| cancel.cancel());
    assert!(matches!(result, Err(ProgramError::Cancelled)), "{result:?}");
    assert!(begin.elapsed() < GRACE * 3, "{:?}", begin.elapsed());
}

#[test]
fn a_limit_ends_a_program_too() {
    let limit = Duration::from_millis(200);
    let result = run(sh("sleep 300"), Some(limit), &CancelToken::new(), &mut |_| ());
    assert!(matches!(result, Err(ProgramError::TimedOut { .. })), "{result:?}");
}

#[test]
fn a_missing_program_is_named() {
    let error = version(Path::new("/no/such/pg_basebackup"), &CancelToken::new()).unwrap_err();
    assert_eq!(error.to_string(), "program \"/no/such/pg_basebackup\" not found");
    assert!(error.hint().is_some_and(|hint| hint.contains("pg_bindir")));
    let error = version(Path::new("false"), &CancelToken::new()).unwrap_err();
    assert!(error.to_string().ends_with(", exit code 1"), "{error}");
}

#[test]
fn versions_are_read_as_each_distribution_prints_them() {
    for (answer, num) in [
        ("pg_basebackup (PostgreSQL) 10.23", Some(100_023)),
        (
            "pg_basebackup (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
            Some(150_018),
        ),
        ("pg_verifybackup (PostgreSQL) 19beta1", Some(190_000)),
        ("pg_basebackup (PostgreSQL) 9.6.24", None),
        ("pg_basebackup (PostgreSQL) x", None),
        ("Error: You must install postgresql-client", None),
        ("", None),
    ] {
        assert_eq!(read_version(answer).map(PgVersion::num), num, "{answer}");
    }
}
