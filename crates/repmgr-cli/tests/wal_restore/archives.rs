//! Every kind of archive Barman keeps.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use repmgr_lab::{BackupMethod, BarmanVersion, Lab, PrimaryOptions, ServerOptions, check};

use repmgr_types::{WalSegmentName, WalSegmentSize};

use crate::bench::{Bench, LIMIT, Node, SERVER};

/// Adds a server with these lines for the primary of `bench` and archives a segment in it and in `main`.
fn add_server(bench: &Bench, name: &str, lines: &[&str]) -> String {
    let mut options = ServerOptions::new(name, BackupMethod::Postgres);
    options.conf = lines.iter().map(|line| (*line).to_owned()).collect();
    let lab = &bench.lab;
    lab.barman()
        .add_server(lab.primary(), lab.sshd(), &options)
        .unwrap();
    lab.barman().run(&["archive-wal", SERVER]).unwrap();
    bench.archived(name).first().unwrap().clone()
}

/// What is stored differs from the plain segment, and the plain segment is delivered.
fn delivers_compressed(bench: &Bench, node: &Node, server: &str, name: &str) {
    let stored = fs::read(bench.stored(server, name)).unwrap();
    let plain = fs::read(bench.stored(SERVER, name)).unwrap();
    assert!(stored != plain, "{server} does not compress");
    let finished = bench.call_of(node, &["--no-prefetch"], "barmansrv", server, name);
    assert!(finished.status.success(), "{server}: {finished:?}");
    assert!(fs::read(node.destination()).unwrap() == plain, "{server}");
}

fn compressions(version: BarmanVersion) {
    let bench = Bench::new(version, 1);
    let node = bench.node("compressed");
    for compression in ["gzip", "bzip2"] {
        let name = add_server(&bench, compression, &[&format!("compression = {compression}")]);
        delivers_compressed(&bench, &node, compression, &name);
    }
    // Only Barman knows how to undo this one.
    let name = add_server(
        &bench,
        "custom",
        &[
            "compression = custom",
            "custom_compression_filter = base64",
            "custom_decompression_filter = base64 -d",
        ],
    );
    delivers_compressed(&bench, &node, "custom", &name);
    if version == BarmanVersion::V3_19 {
        let name = add_server(&bench, "xz", &["compression = xz"]);
        delivers_compressed(&bench, &node, "xz", &name);
        // The others need Python modules that are not installed; Barman recognises them by their first bytes.
        for program in ["zstd", "lz4"] {
            let stored = bench.stored("xz", &name);
            let plain = bench.stored(SERVER, &name);
            let mut compress = Command::new(program);
            check(compress.args(["-q", "-f"]).arg(plain).arg(&stored), LIMIT).unwrap();
            delivers_compressed(&bench, &node, "xz", &name);
        }
    }
}

#[test]
fn compressed_archives_of_barman_3_4() {
    compressions(BarmanVersion::V3_4);
}

#[test]
fn compressed_archives_of_barman_3_19() {
    compressions(BarmanVersion::V3_19);
}

#[test]
fn backup_files_arrive_as_barman_stored_them() {
    let bench = Bench::new(BarmanVersion::V3_4, 0);
    bench.lab.barman().backup(SERVER).unwrap();
    let node = bench.node("backup_file");
    let wals = bench
        .lab
        .barman()
        .server_dir(SERVER)
        .join("wals/0000000100000000");
    let names = fs::read_dir(wals)
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    let name = names.filter(|n| n.ends_with(".backup")).max().unwrap();
    let finished = bench.call(&node, &["--no-prefetch"], &name);
    assert!(finished.status.success(), "{finished:?}");
    bench.assert_delivered(&node, &name);
}

#[test]
fn segments_of_64_mib_come_through_the_spool_as_well() {
    let lab = Lab::builder()
        .method(BackupMethod::Postgres)
        .without_backup()
        .primary(PrimaryOptions {
            wal_segment_mib: Some(64),
            ..Default::default()
        })
        .build()
        .unwrap();
    let bench = Bench::of(lab, 3);
    let node = bench.node("large");
    for name in &bench.segments {
        bench.delivers(&node, &[], name);
    }
    assert_eq!(fs::metadata(node.destination()).unwrap().len(), 64 << 20);
}

#[test]
fn a_directory_we_may_not_look_into_is_barmans_business() {
    let bench = Bench::new(BarmanVersion::V3_4, 1);
    let node = bench.node("closed");
    let incoming = bench.lab.barman().server_dir(SERVER).join("incoming");
    let chmod = |mode: &str| check(Command::new("chmod").arg(mode).arg(&incoming), LIMIT).unwrap();
    chmod("000");
    let finished = bench.call(&node, &["--no-prefetch"], &bench.segments[0]);
    chmod("700");
    assert!(finished.status.success(), "{finished:?}");
    bench.assert_delivered(&node, &bench.segments[0]);
}

#[test]
fn a_login_shell_that_talks_does_not_get_into_the_file() {
    let bench = Bench::new(BarmanVersion::V3_19, 1);
    let node = bench.node("chatter");
    bench
        .lab
        .scratch()
        .write("home/.bashrc", "echo welcome; echo to the machine >&2\n", 0o600)
        .unwrap();
    bench
        .lab
        .scratch()
        .write("home/.profile", "echo welcome\n", 0o600)
        .unwrap();
    bench.delivers(&node, &["--no-prefetch"], &bench.segments[0]);
}

#[test]
fn a_forced_command_that_lets_only_get_wal_pass_is_enough() {
    let bench = Bench::new(BarmanVersion::V3_4, 2);
    let scratch = bench.lab.scratch();
    let guard = scratch.join("home/only-get-wal");
    let script = "#!/bin/sh\ncase $SSH_ORIGINAL_COMMAND in\n*[\\;\\&\\|\\<\\>\\`\\$]*) ;;\n\
                  barman\\ *get-wal*) exec $SSH_ORIGINAL_COMMAND ;;\nesac\necho 'not allowed' >&2\nexit 1\n";
    scratch.write(&guard, script, 0o700).unwrap();
    let keys = fs::read_to_string(scratch.join("ssh/authorized_keys")).unwrap();
    let forced = format!("command=\"{}\" {keys}", guard.display());
    scratch.write("ssh/authorized_keys", &forced, 0o600).unwrap();
    let node = bench.node("forced");
    for name in &bench.segments {
        bench.delivers(&node, &[], name);
    }
    let options = [
        "--no-prefetch",
        "--ssh-options",
        "-o 'ConnectTimeout 5' -o Compression=no",
    ];
    // The next one is not there, and the one before it proves that this is the archive.
    let last: WalSegmentName = bench.segments.last().unwrap().parse().unwrap();
    let next = last.next(WalSegmentSize::DEFAULT).to_string();
    let missing = bench.call(&node, &options, &next);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    let unproven = bench.call(&node, &options, "0000000100000000000000F0");
    assert_eq!(unproven.status.code(), Some(2), "{unproven:?}");
    let tested = repmgr_lab::run(&mut bench.command(&node, &["--test", "barmansrv", SERVER]), LIMIT).unwrap();
    assert!(tested.status.success(), "{tested:?}");
    bench.lab.sshd().stop().unwrap();
    let unreachable = bench.call(&node, &["--no-prefetch"], "0000000100000000000000F0");
    assert_eq!(unreachable.status.code(), Some(2), "{unreachable:?}");
}

/// A login that runs something else than what is asked for, and ends well, is no archive.
#[test]
fn what_answers_like_no_barman_is_exit_code_2() {
    let bench = Bench::new(BarmanVersion::V3_4, 1);
    let scratch = bench.lab.scratch();
    let keys = fs::read_to_string(scratch.join("ssh/authorized_keys")).unwrap();
    let node = bench.node("no_barman");
    let history = "00000002.history";
    for (forced, said) in [("true", "an empty answer"), ("echo Welcome", "\"Welcome\"")] {
        let line = format!("command=\"{forced}\" {keys}");
        scratch.write("ssh/authorized_keys", &line, 0o600).unwrap();
        let mut test = bench.command(&node, &["--test", "barmansrv", SERVER]);
        let mut answers = vec![repmgr_lab::run(&mut test, LIMIT).unwrap()];
        for name in [&bench.segments[0], history] {
            answers.push(bench.call(&node, &["--no-prefetch"], name));
        }
        for answer in answers {
            assert_eq!(answer.status.code(), Some(2), "{forced}: {answer:?}");
            let text = &answer.stderr;
            assert!(
                text.contains("nothing that looks like Barman"),
                "{forced}: {text}"
            );
            assert!(
                text.contains(said) && text.contains("HINT: compare with"),
                "{forced}: {text}"
            );
        }
    }
}

/// A key in a keyring that Barman finds whoever calls it. Ends the agent that gpg starts for it.
struct Key<'a> {
    lab: &'a Lab,
    keyring: PathBuf,
}

impl<'a> Key<'a> {
    const PASSPHRASE: &'static str = "open sesame";
    const OWNER: &'static str = "barman@lab.invalid";

    fn new(lab: &'a Lab) -> Self {
        let keyring = lab.scratch().dir("home/.gnupg").unwrap();
        lab.sshd()
            .set_env("GNUPGHOME", keyring.to_str().unwrap())
            .unwrap();
        let key = Self { lab, keyring };
        let options = [
            "--batch",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
        ];
        let mut gpg = key.command("gpg");
        gpg.args(options).arg(Self::PASSPHRASE);
        gpg.args(["--quick-generate-key", Self::OWNER, "rsa2048", "encrypt", "never"]);
        check(&mut gpg, LIMIT).unwrap();
        key
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.lab.scratch().command(program);
        command.env("GNUPGHOME", &self.keyring);
        command
    }

    /// It forgets the passphrase, too.
    fn end_agent(&self) {
        let mut end = self.command("gpgconf");
        check(end.args(["--kill", "gpg-agent"]), LIMIT).unwrap();
    }
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        self.end_agent();
    }
}

#[test]
fn encrypted_archives_are_decrypted_by_barman() {
    let bench = Bench::new(BarmanVersion::V3_19, 1);
    let key = Key::new(&bench.lab);
    let id = format!("encryption_key_id = {}", Key::OWNER);
    let passphrase = format!("encryption_passphrase_command = echo '{}'", Key::PASSPHRASE);
    let name = add_server(&bench, "encrypted", &["encryption = gpg", &id, &passphrase]);
    let node = bench.node("encrypted");
    delivers_compressed(&bench, &node, "encrypted", &name);

    // A failure to decrypt must not look like the end of the archive.
    key.end_agent();
    let name = add_server(
        &bench,
        "closed",
        &["encryption = gpg", &id, "encryption_passphrase_command = false"],
    );
    fs::remove_file(node.destination()).unwrap();
    let finished = bench.call_of(&node, &["--no-prefetch"], "barmansrv", "closed", &name);
    assert!(finished.status.code() > Some(1), "{finished:?}");
    assert!(!node.destination().exists());
}
