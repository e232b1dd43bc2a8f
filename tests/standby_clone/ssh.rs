//! Where `ssh` gets in, the clone does, and only there. What is expected is what `ssh` itself does in the same run.

use std::fs;
use std::time::Duration;

use repmgr_lab::{Lab, check, run};
use repmgr_tests::{assert_standby, clone, node, output};

use crate::shared;

const LIMIT: Duration = Duration::from_secs(60);

/// One set-up: a name, settings of the client, and lines of the server.
struct Row {
    name: &'static str,
    client: Vec<(&'static str, String)>,
    server: String,
    /// Only the user's own `ssh` can, so the line that says so is looked for.
    by_ssh: bool,
}

fn row(name: &'static str, client: &[(&'static str, &str)], server: &str) -> Row {
    let client = client.iter().map(|(key, value)| (*key, (*value).to_owned()));
    Row {
        name,
        client: client.collect(),
        server: server.to_owned(),
        by_ssh: false,
    }
}

fn by_ssh(row: Row) -> Row {
    Row { by_ssh: true, ..row }
}

/// Keys and lists that rows name, in the directory of the lab's SSH files.
fn prepare(lab: &Lab) {
    let scratch = lab.scratch();
    let dir = scratch.join("ssh");
    let keygen = |args: &[&str]| {
        let mut keygen = scratch.command("ssh-keygen");
        check(keygen.current_dir(&dir).arg("-q").args(args), LIMIT).unwrap();
    };
    for key in ["ca", "stranger", "second"] {
        keygen(&["-t", "ed25519", "-N", "", "-f", key]);
    }
    let sign = ["-s", "ca", "-I", "h", "-h", "-n", "parity", "host_ed25519.pub"];
    keygen(&sign);
    let key = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let write = |name: &str, text: &str| scratch.write(dir.join(name), text, 0o600).unwrap();
    write("known_plain", &format!("parity {}", key("host_ed25519.pub")));
    write("known_rsa", &format!("parity {}", key("host_rsa.pub")));
    write("known_ca", &format!("@cert-authority parity {}", key("ca.pub")));
    write("known_other", &format!("parity {}", key("stranger.pub")));
    write("known_none", "");
    write("revoked", &key("host_ed25519.pub"));
    write("two_keys", &(key("id_ed25519.pub") + &key("second.pub")));
}

fn rows(dir: &str) -> Vec<Row> {
    let known = |file: &str| ("UserKnownHostsFile", format!("{dir}/{file}"));
    let with = |mut row: Row, (key, value): (&'static str, String)| {
        row.client.push((key, value));
        row
    };
    let certificate = format!("HostCertificate {dir}/host_ed25519-cert.pub");
    let two = format!("AuthenticationMethods publickey,publickey\nAuthorizedKeysFile {dir}/two_keys");
    let second = ("IdentityFile", format!("{dir}/second"));
    vec![
        row("as it is", &[], ""),
        row("another cipher", &[("Ciphers", "aes256-gcm@openssh.com")], ""),
        row("compression", &[("Compression", "yes")], ""),
        row("known by another key type", &[], "").with(known("known_rsa")),
        row(
            "known by another key type, with one type less",
            &[("HostKeyAlgorithms", "-ecdsa-sha2-nistp521")],
            "",
        )
        .with(known("known_rsa")),
        row("an unknown host", &[], "").with(known("known_none")),
        with(
            row("a new host", &[("StrictHostKeyChecking", "accept-new")], ""),
            known("known_none"),
        ),
        row("another host", &[], "").with(known("known_other")),
        row("a revoked host", &[], "").with(("RevokedHostKeys", format!("{dir}/revoked"))),
        row("a wrong key", &[], "").with(("IdentityFile", format!("{dir}/stranger"))),
        row("passwords only", &[("PreferredAuthentications", "password")], ""),
        row(
            "RSA keys only",
            &[("PubkeyAcceptedAlgorithms", "rsa-sha2-512")],
            "",
        ),
        row("one session at a time", &[], "MaxSessions 1"),
        by_ssh(row(
            "a newer key exchange",
            &[],
            "KexAlgorithms sntrup761x25519-sha512@openssh.com",
        )),
        by_ssh(row(
            "other sums",
            &[],
            "MACs umac-128-etm@openssh.com\nCiphers aes128-ctr",
        )),
        by_ssh(with(
            row("a certified host", &[], &certificate),
            known("known_ca"),
        )),
        by_ssh(with(
            row("a command for known hosts", &[], "").with(known("known_none")),
            ("KnownHostsCommand", format!("/bin/cat {dir}/known_plain")),
        )),
        with(row("two keys", &[], &two), second),
        row(
            "no key exchange in common",
            &[("KexAlgorithms", "curve25519-sha256")],
            "KexAlgorithms ecdh-sha2-nistp256",
        ),
    ]
}

impl Row {
    fn with(mut self, setting: (&'static str, String)) -> Self {
        self.client.push(setting);
        self
    }

    /// The name of a host that is set up so; the server runs behind a pipe.
    fn set_up(&self, lab: &Lab, number: usize) -> String {
        let scratch = lab.scratch();
        let usual = fs::read_to_string(lab.sshd().server_config()).unwrap();
        let config = format!("ssh/parity_{number}.conf");
        let config = scratch
            .write(&config, &format!("{}\n{usual}", self.server), 0o600)
            .unwrap();
        let host = format!("parity{number}");
        let proxy = format!("/usr/sbin/sshd -i -f {}", config.display());
        let known = scratch.join("ssh/known_plain").display().to_string();
        let mut settings = vec![("ProxyCommand", proxy.as_str()), ("HostKeyAlias", "parity")];
        let given = |key: &str| self.client.iter().any(|(given, _)| *given == key);
        if !given("UserKnownHostsFile") {
            settings.push(("UserKnownHostsFile", &known));
        }
        let key = lab.sshd().client_key().display().to_string();
        if self.name == "two keys" {
            settings.push(("IdentityFile", &key));
        }
        settings.extend(self.client.iter().map(|(key, value)| (*key, value.as_str())));
        lab.sshd().add_host(&host, &settings).unwrap();
        host
    }
}

#[test]
fn the_clone_gets_in_where_ssh_does_and_only_there() {
    let lab = shared();
    prepare(lab);
    let dir = lab.scratch().join("ssh").display().to_string();
    let mut wrong = Vec::new();
    for (number, row) in rows(&dir).into_iter().enumerate() {
        let host = row.set_up(lab, number);
        let target = node(lab, &[("barman_host", &host)]);
        // Ours first: what it accepts of a new host ssh would know already.
        let ours = clone(lab, &target, &["--dry-run"]);
        let words = output(&ours);
        let gets_in = ours.get_output().status.success();
        let ssh = run(&mut lab.sshd().ssh(&host, "true"), LIMIT).unwrap();
        if gets_in != ssh.status.success() {
            wrong.push(format!("{}: ssh says {ssh:?}\nours {words}", row.name));
        }
        let said = words.contains("with \"ssh\": ");
        if row.by_ssh && !(gets_in && said) {
            wrong.push(format!("{}: not by ssh: {words}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_clone_and_its_delta_by_the_users_own_ssh_give_a_standby() {
    let lab = shared();
    let target = node(lab, &[("ssh_client", "ssh")]);
    clone(lab, &target, &["--jobs=3"]).success();
    let standby = assert_standby(lab, &target);
    standby.stop(repmgr_lab::StopMode::Fast).unwrap();
    clone(lab, &target, &["-F", "--delta"]).success();
    assert_standby(lab, &target);
}
