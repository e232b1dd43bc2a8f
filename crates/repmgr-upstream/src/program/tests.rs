use super::*;

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn lines_come_in_english_and_the_last_needs_no_end() {
    let mut lines = Vec::new();
    let script = r"printf '1/2 kB\r2/2 kB\n' >&2; echo $LC_ALL $PG_COLOR; printf last; exit 3";
    let status = run(sh(script), None, &CancelToken::new(), &mut |line| {
        lines.push(line.to_owned());
    });
    assert_eq!(status.unwrap().code(), Some(3));
    assert_eq!(lines, ["1/2 kB", "2/2 kB", "C never", "last"]);
}

#[test]
fn cancelling_is_told_from_a_failure() {
    let cancel = CancelToken::new();
    let result = run(sh("echo; echo x; exec sleep 300"), None, &cancel, &mut |_| {
        cancel.cancel()
    });
    assert!(matches!(result, Err(ProgramError::Cancelled)), "{result:?}");
    let result = run(sh("true"), None, &cancel, &mut |_| ());
    assert!(matches!(result, Err(ProgramError::Cancelled)), "{result:?}");
}

#[test]
fn what_a_program_leaves_behind_does_not_hold_us() {
    let begin = std::time::Instant::now();
    let status = run(sh("sleep 300 &"), None, &CancelToken::new(), &mut |_| ());
    assert!(status.unwrap().success());
    assert!(begin.elapsed() < Duration::from_secs(20));
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
    assert_eq!(
        error.hint().unwrap().to_string(),
        "install PostgreSQL's client programs, and name their directory with bin_dir"
    );
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
