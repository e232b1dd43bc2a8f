//! Commands over SSH against a real sshd: streams, ends, limits and faults.

mod common;

use std::io::Read;
use std::time::{Duration, Instant};

use common::{Relay, Server, eventually};
use repmgr_remote::{
    Connection, Host, Input, RemoteError, RemoteErrorKind, ShellCommand, SshHost, StartOptions, TimeLimit,
    run,
};
use repmgr_types::CancelToken;

fn sh(script: &'static str) -> ShellCommand {
    ShellCommand::script(script)
}

fn options(input: Input) -> StartOptions {
    StartOptions {
        input,
        idle_timeout: Duration::from_secs(30),
        ..Default::default()
    }
}

fn text(connection: &mut dyn Connection, command: &ShellCommand) -> String {
    let output = run(connection, command, options(Input::Empty), 1 << 20).unwrap();
    assert!(output.exit.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Reads a stream to its end or error.
fn drain(mut process: impl Read) -> (u64, Option<RemoteError>) {
    let mut total = 0;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match process.read(&mut buffer) {
            Ok(0) => return (total, None),
            Ok(n) => total += n as u64,
            Err(e) => return (total, Some(RemoteError::from_io(e))),
        }
    }
}

#[test]
fn one_connection_runs_many_commands() {
    let server = Server::start();
    let mut c = server.connect();
    assert_eq!(c.host(), "srv");
    for i in 0..30 {
        let command = ShellCommand::new("printf")
            .args(["%s|", "it's", "a\\b", "!", "ä\nb"])
            .arg(i.to_string());
        assert_eq!(text(&mut *c, &command), format!("it's|a\\b|!|ä\nb|{i}|"));
    }
    let output = run(
        &mut *c,
        &sh("echo out; echo err >&2; exit 3"),
        options(Input::Empty),
        100,
    )
    .unwrap();
    assert_eq!(
        (output.exit.code, output.stdout.as_slice()),
        (Some(3), &b"out\n"[..])
    );
    assert_eq!(output.exit.stderr_text(), "err");
    let missing = run(
        &mut *c,
        &ShellCommand::new("no-such-program"),
        options(Input::Empty),
        100,
    )
    .unwrap();
    assert_eq!(missing.exit.code, Some(127));
    assert!(missing.exit.stderr_text().contains("not found"), "{missing:?}");
}

#[test]
fn floods_in_all_directions_do_not_block_each_other() {
    let server = Server::start();
    let mut c = server.connect();
    let data: Vec<u8> = (0..10_000_000u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    let script = "head -c 8000000 /dev/zero >&2; cat; head -c 8000000 /dev/zero >&2; exit 5";
    for bulk in [false, true] {
        let options = StartOptions {
            bulk,
            ..options(Input::Bytes(data.clone()))
        };
        let output = run(&mut *c, &sh(script), options, 1 << 30).unwrap();
        assert!(output.exit.code == Some(5) && output.stdout == data);
    }
    let ignored = run(&mut *c, &sh("echo x"), options(Input::Bytes(data)), 100).unwrap();
    assert!(ignored.exit.success());
    assert_eq!(text(&mut *c, &sh("echo still there")), "still there\n");
}

#[test]
fn a_long_stream_survives_new_keys_on_the_way() {
    let server = Server::start_with("RekeyLimit 1M", &["ed25519"]);
    let mut c = server.connect();
    let options = StartOptions {
        bulk: true,
        ..options(Input::Empty)
    };
    let mut process = c
        .start(&sh("yes 0123456789abcde | head -c 64000000"), options)
        .unwrap();
    let mut all = Vec::new();
    process.read_to_end(&mut all).unwrap();
    assert!(process.received() >= 64_000_000);
    assert!(process.finish().unwrap().success());
    assert!(all.len() == 64_000_000 && all.chunks(16).all(|line| line == b"0123456789abcde\n"));
}

#[test]
fn a_killed_command_and_a_killed_shell_are_failures() {
    let server = Server::start();
    let mut c = server.connect();
    let output = run(&mut *c, &sh("kill -9 $$"), options(Input::Empty), 100).unwrap();
    assert_eq!(output.exit.code, Some(137));
    let output = run(
        &mut *c,
        &ShellCommand::new("kill").raw("-9 $$"),
        options(Input::Empty),
        100,
    )
    .unwrap();
    assert_eq!(
        (output.exit.code, output.exit.signal.as_deref()),
        (None, Some("KILL"))
    );
    assert!(!output.exit.success());
}

#[test]
fn silence_and_slowness_have_limits_and_end_the_connection() {
    let server = Server::start();
    let mut c = server.connect();
    let idle = StartOptions {
        idle_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let error = run(&mut *c, &sh("echo x; sleep 60"), idle, 100).unwrap_err();
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
    let error = run(&mut *c, &sh("true"), options(Input::Empty), 100).unwrap_err();
    assert!(matches!(error.kind, RemoteErrorKind::GivenUp), "{error}");
    let total = StartOptions {
        total_timeout: Some(Duration::from_millis(500)),
        ..Default::default()
    };
    let error = run(&mut *server.connect(), &sh("yes"), total, usize::MAX).unwrap_err();
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
}

#[test]
fn cancelling_ends_a_waiting_read() {
    let server = Server::start();
    let cancel = CancelToken::new();
    let mut ssh = server.options();
    ssh.cancel = cancel.clone();
    let host = SshHost::new("srv", ssh).unwrap();
    let mut c = host.connect().unwrap();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
        Instant::now()
    });
    let error = run(&mut *c, &sh("sleep 60"), options(Input::Empty), 100).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert!(stopper.join().unwrap().elapsed() < Duration::from_secs(1));
    assert!(host.connect().is_err());
}

#[test]
fn a_server_killed_in_mid_stream_is_an_error() {
    let server = Server::start();
    // The parent of the outermost shell is the server's process for this connection.
    let command = ShellCommand::new("head").raw("-c 5000000 /dev/zero; kill -9 $PPID; sleep 60");
    let (bytes, error) = drain(server.connect().start(&command, options(Input::Empty)).unwrap());
    let error = error.expect("a cut stream looked whole");
    assert!(bytes <= 5_000_000 && error.is_transient(), "{error}");
    assert!(
        matches!(error.kind, RemoteErrorKind::ConnectionLost { .. }),
        "{error}"
    );
}

#[test]
fn a_cut_line_is_an_error_at_whatever_moment() {
    let server = Server::start();
    for millis in [0, 1, 5, 20, 60] {
        let relay = Relay::before(&server, "");
        let mut c = server.connect();
        let process = c
            .start(&sh("head -c 2000000000 /dev/zero"), options(Input::Empty))
            .unwrap();
        let cutter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(millis));
            relay.cut();
        });
        let (bytes, error) = drain(process);
        cutter.join().unwrap();
        let error = error.expect("a cut stream looked whole");
        assert!(bytes < 2_000_000_000 && error.is_transient(), "{error}");
    }
}

#[test]
fn a_peer_that_falls_silent_is_noticed_by_signs_of_life() {
    let server = Server::start();
    let relay = Relay::before(&server, "  ServerAliveInterval 1\n  ServerAliveCountMax 2");
    let mut c = server.connect();
    // Answers count as life: nothing happens while the server is there.
    assert_eq!(text(&mut *c, &sh("sleep 4; echo alive")), "alive\n");
    let mut process = c.start(&sh("echo x; sleep 60"), options(Input::Empty)).unwrap();
    process.read_exact(&mut [0; 2]).unwrap();
    relay.fall_silent();
    let started = Instant::now();
    let error = drain(process).1.unwrap();
    assert!(error.to_string().contains("signs of life"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_channel_closed_by_the_server_does_not_look_like_success() {
    // Needs OpenSSH 9.2.
    let server = Server::start_with("ChannelTimeout session:command=5s", &["ed25519"]);
    let mut c = server.connect();
    let (bytes, error) = drain(
        c.start(&sh("echo part; sleep 60"), options(Input::Empty))
            .unwrap(),
    );
    let error = error.expect("a cut stream looked whole");
    assert!(
        bytes <= 5 && matches!(error.kind, RemoteErrorKind::Truncated { .. }),
        "{error}"
    );
    assert!(error.hint().unwrap().to_string().contains("ChannelTimeout"));
}

#[test]
fn chatter_of_the_login_shell_is_left_out() {
    let server = Server::start_with(
        "ForceCommand echo Welcome, user; printf 'no newline'; eval \"$SSH_ORIGINAL_COMMAND\"",
        &["ed25519"],
    );
    let mut c = server.connect();
    let output = run(&mut *c, &sh("echo data; exit 4"), options(Input::Empty), 100).unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.exit.code),
        (&b"data\n"[..], Some(4))
    );
}

#[test]
fn a_forced_command_is_reported_as_such() {
    for (forced, said) in [
        (
            "echo This account is not available; exit 1",
            "This account is not available",
        ),
        ("echo only rsync >&2; exit 0", "only rsync"),
        (
            "printf 'Hello\\r\\n'; printf 'no\\r\\n' >&2; exit 3",
            "(exit code 3): \"Hello; no\"",
        ),
        ("internal-sftp", "sftp connections only"),
        ("false", "said nothing (exit code 1)"),
        ("yes", "still running"),
    ] {
        let server = Server::start_with(&format!("ForceCommand {forced}"), &["ed25519"]);
        let error = run(&mut *server.connect(), &sh("echo x"), options(Input::Empty), 100).unwrap_err();
        assert!(
            matches!(error.kind, RemoteErrorKind::NoStartMark { .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains(said) && error.hint().unwrap().to_string().contains("forced command"),
            "{error}"
        );
    }
}

#[test]
fn a_held_process_lives_as_long_as_its_connection() {
    let server = Server::start();
    let mark = server.path("lock");
    let script = sh(r#"echo $$ > "$1"; echo locked; cat > /dev/null; rm "$1"; echo released"#);
    let command = script.arg(mark.to_str().unwrap());
    let mut c = server.connect();
    let hold = |c: &mut dyn Connection, how: &str| {
        let mut process = c.start(&command, options(Input::Held)).unwrap();
        process.read_exact(&mut [0; 7]).unwrap();
        for _ in 0..5 {
            process.check().unwrap();
            assert!(mark.exists());
        }
        match how {
            "close" => {
                process.close_stdin().unwrap();
                let mut rest = String::new();
                process.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, "released\n");
                assert!(process.finish().unwrap().success());
            }
            "finish" => assert!(process.finish().unwrap().success()),
            _ => drop(process),
        }
        eventually("the lock is released", || !mark.exists());
    };
    for how in ["close", "finish", "drop"] {
        hold(&mut *c, how);
    }
    assert!(c.start(&command, options(Input::Empty)).is_err());
}

#[test]
fn check_notices_that_the_command_or_the_connection_ended() {
    let server = Server::start();
    for (script, expected) in [
        ("echo full >&2; exit 4", "exit code 4"),
        ("sleep 0.3; kill -9 $1", "connection lost"),
    ] {
        let mut c = server.connect();
        let command = sh(script).raw("$PPID");
        let mut process = c.start(&command, options(Input::Held)).unwrap();
        let mut seen = None;
        eventually("check fails", || {
            seen = process.check().err();
            seen.is_some()
        });
        assert!(seen.as_ref().unwrap().to_string().contains(expected), "{seen:?}");
    }
}

#[test]
fn dropping_does_not_wait_for_the_remote_command() {
    let server = Server::start();
    let mut c = server.connect();
    let mut process = c
        .start(&sh("echo x; exec sleep 60"), options(Input::Empty))
        .unwrap();
    process.read_exact(&mut [0; 2]).unwrap();
    let started = Instant::now();
    drop(process);
    drop(c);
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_line_that_cannot_be_sent_is_refused_and_the_connection_stays_good() {
    let server = Server::start();
    let mut c = server.connect();
    let long = ShellCommand::new("echo").arg("x".repeat(100_000));
    let error = run(&mut *c, &long, options(Input::Empty), 100).unwrap_err();
    assert!(matches!(error.kind, RemoteErrorKind::Refused { .. }), "{error}");
    let error = run(
        &mut *c,
        &ShellCommand::new("echo").arg("\0"),
        options(Input::Empty),
        100,
    )
    .unwrap_err();
    assert!(matches!(error.kind, RemoteErrorKind::NulByte), "{error}");
    let fits = ShellCommand::new("printf").args(["%s", &"y".repeat(30_000)]);
    assert_eq!(text(&mut *c, &fits).len(), 30_000);
}

#[test]
fn workers_share_a_host_and_do_not_wait_for_each_other() {
    let server = Server::start();
    let host = server.host();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut c = host.connect().unwrap();
                assert_eq!(text(&mut *c, &sh("sleep 2; echo ok")), "ok\n");
            });
        }
    });
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
}
