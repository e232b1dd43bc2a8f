use std::io::Read;
use std::time::{Duration, Instant};

use super::*;
use crate::{Exit, Input, RemoteErrorKind, TimeLimit, run};

fn sh(script: &'static str) -> ShellCommand {
    ShellCommand::script(script)
}

fn with_input(input: Input) -> StartOptions {
    StartOptions {
        input,
        idle_timeout: Duration::from_secs(20),
        ..Default::default()
    }
}

#[test]
fn both_outputs_and_the_exit_code_arrive() {
    let out = run(
        &mut LocalHost::default(),
        &sh("echo out; echo err >&2; exit 3"),
        with_input(Input::Empty),
        100,
    )
    .unwrap();
    assert_eq!(out.stdout, b"out\n");
    assert_eq!(
        out.exit,
        Exit {
            code: Some(3),
            signal: None,
            stderr: b"err\n".to_vec()
        }
    );
    assert!(!out.exit.success());
}

#[test]
fn floods_in_all_directions_do_not_block_each_other() {
    let data: Vec<u8> = (0..10_000_000u32).map(|i| (i * 7) as u8).collect();
    let script = "head -c 8000000 /dev/zero >&2; cat; head -c 8000000 /dev/zero >&2";
    let out = run(
        &mut LocalHost::default(),
        &sh(script),
        with_input(Input::Bytes(data.clone())),
        1 << 30,
    )
    .unwrap();
    assert!(out.exit.success() && out.stdout == data);
    assert!(out.exit.stderr.len() < 100_000);
}

#[test]
fn a_command_that_does_not_read_its_input_is_no_error() {
    let input = with_input(Input::Bytes(vec![b'x'; 5_000_000]));
    let out = run(&mut LocalHost::default(), &sh("echo done"), input, 100).unwrap();
    assert!(out.exit.success());
}

#[test]
fn a_signal_is_told_from_an_exit_code() {
    let out = run(
        &mut LocalHost::default(),
        &ShellCommand::new("kill").raw("-9 $$"),
        StartOptions::default(),
        100,
    );
    let exit = out.unwrap().exit;
    assert_eq!(
        (exit.code, exit.signal.as_deref(), exit.success()),
        (None, Some("KILL"), false)
    );
    assert_eq!(exit.status(), "killed by signal KILL");
}

#[test]
fn silence_and_slowness_have_limits_of_their_own() {
    let started = Instant::now();
    let idle = StartOptions {
        idle_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let error = run(&mut LocalHost::default(), &sh("sleep 60"), idle, 100).unwrap_err();
    assert!(
        matches!(
            error.kind,
            RemoteErrorKind::TimedOut {
                limit: TimeLimit::Idle,
                ..
            }
        ),
        "{error}"
    );
    let total = StartOptions {
        total_timeout: Some(Duration::from_millis(300)),
        ..Default::default()
    };
    let error = run(&mut LocalHost::default(), &sh("yes"), total, usize::MAX).unwrap_err();
    assert!(
        matches!(
            error.kind,
            RemoteErrorKind::TimedOut {
                limit: TimeLimit::Total,
                ..
            }
        ),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn cancelling_ends_a_waiting_read() {
    let cancel = CancelToken::new();
    let mut host = LocalHost::new(cancel.clone());
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        cancel.cancel();
    });
    let error = run(&mut host, &sh("sleep 60"), StartOptions::default(), 100).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    stopper.join().unwrap();
    assert!(
        run(&mut host, &sh("true"), StartOptions::default(), 100)
            .unwrap_err()
            .is_cancelled()
    );
}

#[test]
fn a_command_has_a_token_of_its_own_too() {
    let cancel = CancelToken::new();
    let options = StartOptions {
        cancel: cancel.child(),
        ..Default::default()
    };
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        cancel.cancel();
    });
    let mut host = LocalHost::default();
    let error = run(&mut host, &sh("sleep 60"), options, 100).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    stopper.join().unwrap();
    assert!(run(&mut host, &sh("true"), StartOptions::default(), 100).is_ok());
}

#[test]
fn too_much_output_is_refused_at_the_limit() {
    let mut host = LocalHost::default();
    assert_eq!(
        run(&mut host, &sh("printf 12345"), StartOptions::default(), 5)
            .unwrap()
            .stdout,
        b"12345"
    );
    let error = run(&mut host, &sh("yes"), StartOptions::default(), 5).unwrap_err();
    assert!(
        matches!(error.kind, RemoteErrorKind::OutputTooLong { limit: 5 }),
        "{error}"
    );
}

#[test]
fn held_input_keeps_a_command_alive_until_it_is_closed() {
    let mut host = LocalHost::default();
    let mut process = host
        .start(
            &sh("echo locked; cat >/dev/null; echo released"),
            with_input(Input::Held),
        )
        .unwrap();
    let mut line = [0; 7];
    process.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"locked\n");
    for _ in 0..3 {
        process.check().unwrap();
    }
    process.close_stdin().unwrap();
    let mut rest = String::new();
    process.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "released\n");
    assert!(process.finish().unwrap().success());
}

#[test]
fn check_notices_a_command_that_ended() {
    let mut host = LocalHost::default();
    let mut process = host
        .start(&sh("echo no >&2; exit 4"), with_input(Input::Held))
        .unwrap();
    let started = Instant::now();
    let error = loop {
        match process.check() {
            Err(error) => break error,
            Ok(()) => assert!(started.elapsed() < Duration::from_secs(20), "never noticed"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(
        error.to_string().contains("exit code 4") && error.to_string().contains("no"),
        "{error}"
    );
}

#[test]
fn dropping_a_process_kills_its_whole_group() {
    let mut host = LocalHost::default();
    let mut process = host
        .start(&sh("sleep 300 & echo $!; wait"), with_input(Input::Empty))
        .unwrap();
    let mut text = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        process.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    drop(process);
    let pid = String::from_utf8(text).unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let started = Instant::now();
    while !(stat().is_empty() || stat().contains(") Z ")) {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "still running: {}",
            stat()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_nul_byte_is_refused() {
    let error = run(
        &mut LocalHost::default(),
        &ShellCommand::new("echo").arg("a\0b"),
        StartOptions::default(),
        9,
    );
    assert!(matches!(error.unwrap_err().kind, RemoteErrorKind::NulByte));
}
