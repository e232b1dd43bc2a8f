//! Who is there, and who are we: host keys, logins and ways to a real sshd.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Relay, Server, eventually, free_port, keygen};
use repmgr_remote::{
    ConnectError, ConnectErrorKind, Connection, Host, Input, Obstacle, Prompt, RemoteError, ShellCommand,
    SshClient, SshHost, SshOptions, StartOptions, run,
};
use repmgr_types::CancelToken;

fn works(mut connection: Box<dyn Connection>) {
    let output = run(
        &mut *connection,
        &ShellCommand::new("echo").arg("hi"),
        StartOptions::default(),
        10,
    )
    .unwrap();
    assert_eq!(output.stdout, b"hi\n");
}

fn fails(host: &SshHost) -> ConnectError {
    match host.connect() {
        Ok(_) => panic!("connected"),
        Err(e) => e,
    }
}

/// Cancels a little later.
fn soon(cancel: CancelToken) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
    });
}

// Host keys.

#[test]
fn an_unknown_host_is_refused_with_its_fingerprint_and_what_to_do() {
    let server = Server::start();
    server.known_hosts("");
    for strict in ["", "-o StrictHostKeyChecking=yes"] {
        let error = fails(&server.host_with(strict));
        assert!(
            matches!(error.kind, ConnectErrorKind::HostKeyUnknown { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("ssh-ed25519 SHA256:"), "{error}");
        let hint = error.hint().unwrap().to_string();
        // With the options that lead there.
        assert!(hint.contains("ssh ") && hint.contains(" srv"), "{hint}");
    }
    assert_eq!(fs::read_to_string(server.path("known_hosts")).unwrap(), "");
}

#[test]
fn a_new_key_is_written_down_when_the_configuration_says_so() {
    for (strict, hash) in [("accept-new", "no"), ("no", "yes")] {
        let server = Server::start();
        let file = server.path("known_hosts");
        fs::remove_file(&file).unwrap();
        let lenient = format!("-o StrictHostKeyChecking={strict} -o HashKnownHosts={hash}");
        works(server.host_with(&lenient).connect().unwrap());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.starts_with("|1|"), hash == "yes", "{text}");
        works(
            server
                .host_with("-o StrictHostKeyChecking=yes")
                .connect()
                .unwrap(),
        );
        // OpenSSH reads what we wrote.
        let status = Command::new("ssh")
            .args([
                "-F",
                server.path("config").to_str().unwrap(),
                "-o",
                "StrictHostKeyChecking=yes",
                "srv",
                "true",
            ])
            .status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn a_key_is_appended_behind_a_line_without_end_and_only_once() {
    let server = Server::start();
    server.known_hosts("other ssh-ed25519 AAAA");
    let host = server.host_with("-o StrictHostKeyChecking=accept-new");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| works(host.connect().unwrap()));
        }
    });
    let text = fs::read_to_string(server.path("known_hosts")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "other ssh-ed25519 AAAA"), "{text}");
}

#[test]
fn a_changed_key_is_refused_whatever_the_configuration_says() {
    let server = Server::start();
    server.known_hosts(&format!(
        "\n# c\n[127.0.0.1]:{} {}\n",
        server.port,
        server.public_key("id")
    ));
    for strict in ["yes", "no", "accept-new", "ask"] {
        let error = fails(&server.host_with(&format!("-o StrictHostKeyChecking={strict}")));
        let ConnectErrorKind::HostKeyChanged {
            known_at,
            fingerprint,
            ..
        } = &error.kind
        else {
            panic!("{error}")
        };
        assert!(
            known_at.ends_with("known_hosts:3") && fingerprint.starts_with("SHA256:"),
            "{error}"
        );
        assert!(!error.is_transient());
    }
}

#[test]
fn a_revoked_key_is_refused_even_when_it_is_also_known() {
    let server = Server::start();
    let key = server.public_key("host_ed25519");
    let name = format!("[127.0.0.1]:{}", server.port);
    server.known_hosts(&format!("{name} {key}\n@revoked * {key}\n"));
    let error = fails(&server.host());
    assert!(
        matches!(error.kind, ConnectErrorKind::HostKeyRevoked { .. }),
        "{error}"
    );
}

/// Whether OpenSSH itself logs in.
fn ssh_works(server: &Server, options: &[&str]) -> bool {
    let config = server.path("config");
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config).args(options);
    ssh.args(["-o", "BatchMode=yes", "srv", "true"]);
    ssh.stdin(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_key_on_the_list_of_revoked_keys_is_refused_whatever_else_is_set() {
    let server = Server::start();
    let path = |name: &str| server.path(name).display().to_string();
    let write = |name: &str, text: &str| fs::write(server.path(name), text).unwrap();
    let (key, other) = (server.public_key("host_ed25519"), server.public_key("id"));
    write("text", &format!("# lost\n{other}\n{key} srv\n"));
    keygen(&[
        "-k",
        "-f",
        &path("krl"),
        &path("id.pub"),
        &path("host_ed25519.pub"),
    ]);
    write("hashes", &format!("sha256: {key}\n"));
    keygen(&["-k", "-f", &path("hash krl"), &path("hashes")]);
    for (list, at) in [("text", "text:3"), ("krl", "krl"), ("hash krl", "hash krl")] {
        server.configure(&format!("RevokedHostKeys \"{}\"", path(list)));
        assert!(!ssh_works(&server, &[]), "{list}");
        for (known, strict) in [
            (true, "yes"),
            (true, "no"),
            (false, "no"),
            (false, "accept-new"),
            (false, "ask"),
        ] {
            server.known_hosts("");
            if known {
                server.trust("ed25519");
            }
            let strict_option = format!("-o StrictHostKeyChecking={strict}");
            let (host, prompt) = with_prompt(&server, "yes", &strict_option);
            let error = fails(&host);
            assert!(
                matches!(&error.kind, ConnectErrorKind::HostKeyRevoked { known_at, .. } if *known_at == path(at)),
                "{list}, {strict}: {error}"
            );
            assert!(error.to_string().contains("is revoked by"), "{error}");
            assert!(!error.is_transient());
            assert_eq!(prompt.1.load(Ordering::SeqCst), 0, "asked");
            let text = fs::read_to_string(server.path("known_hosts")).unwrap();
            assert_eq!(text.is_empty(), !known, "{text}");
        }
    }
}

#[test]
fn a_list_of_revoked_keys_that_holds_others_hinders_nobody_and_one_that_cannot_be_read_everybody() {
    let kinds = ["ed25519", "ecdsa", "rsa"];
    let server = Server::start_with("", &kinds);
    let path = |name: &str| server.path(name).display().to_string();
    let other = server.public_key("id");
    fs::write(path("text"), format!("\n# c\n{other}\n")).unwrap();
    keygen(&["-k", "-f", &path("krl"), &path("id.pub")]);
    fs::write(path("empty"), "").unwrap();
    fs::write(path("broken"), format!("{other}\nno key\n")).unwrap();
    let krl = fs::read(path("krl")).unwrap();
    fs::write(path("broken krl"), &krl[..krl.len() - 9]).unwrap();
    for (list, good) in [
        ("text", true),
        ("krl", true),
        ("empty", true),
        ("none", true),
        ("missing", false),
        ("broken", false),
        ("broken krl", false),
    ] {
        let file = if list == "none" {
            "none".to_owned()
        } else {
            path(list)
        };
        server.configure(&format!("RevokedHostKeys \"{file}\""));
        assert_eq!(ssh_works(&server, &[]), good, "ssh with {list}");
        if good {
            for kind in kinds {
                server.trust(kind);
                works(server.connect());
            }
            continue;
        }
        for strict in ["yes", "no", "accept-new"] {
            let error = fails(&server.host_with(&format!("-o StrictHostKeyChecking={strict}")));
            assert!(
                matches!(error.kind, ConnectErrorKind::RevokedKeysUnreadable { .. }),
                "{list}: {error}"
            );
            assert!(
                error.to_string().contains(&file) && error.hint().is_some(),
                "{error}"
            );
            assert!(!error.is_transient());
        }
    }
}

#[test]
fn the_key_type_that_is_known_is_the_one_asked_for() {
    let server = Server::start_with("", &["ed25519", "ecdsa", "rsa"]);
    for kind in ["rsa", "ecdsa", "ed25519"] {
        server.trust(kind);
        works(server.connect());
    }
}

#[test]
fn a_host_certificate_on_the_server_does_not_hide_the_plain_key() {
    let server = Server::start();
    let path = |name: &str| server.path(name).display().to_string();
    keygen(&["-t", "ed25519", "-N", "", "-f", &path("ca")]);
    keygen(&["-s", &path("ca"), "-I", "id", "-h", &path("host_ed25519.pub")]);
    let second = Server::start_with(
        &format!(
            "HostKey {}\nHostCertificate {}",
            path("host_ed25519"),
            path("host_ed25519-cert.pub")
        ),
        &["rsa"],
    );
    second.known_hosts(&format!(
        "[127.0.0.1]:{} {}\n",
        second.port,
        server.public_key("host_ed25519")
    ));
    works(second.connect());
    second.known_hosts(&format!("@cert-authority * {}\n", server.public_key("ca")));
    // Certificates are for ssh to check.
    assert!(matches!(
        fails(&by(&second, SshClient::Libssh2)).kind,
        ConnectErrorKind::HostKeyUnknown { .. }
    ));
}

#[test]
fn hashes_patterns_aliases_and_names_without_port_are_found() {
    let server = Server::start();
    let key = server.public_key("host_ed25519");
    let bad = "this line is broken\nx ssh-ed25519 !!!\n";
    for line in [
        "127.0.0.*",
        "127.0.0.1",
        "a,127.0.0.1,b",
        &format!("[127.0.0.*]:{}", server.port),
    ] {
        server.known_hosts(&format!("{bad}{line} {key}\r\n"));
        works(server.connect());
    }
    server.trust("ed25519");
    keygen(&["-H", "-f", server.path("known_hosts").to_str().unwrap()]);
    assert!(
        fs::read_to_string(server.path("known_hosts"))
            .unwrap()
            .starts_with("|1|")
    );
    works(server.connect());
    server.known_hosts(&format!("barman {key}\n"));
    works(server.host_with("-o HostKeyAlias=barman").connect().unwrap());
}

// Logins.

/// Says the same to every question and counts them.
struct Answer(&'static str, AtomicUsize);

impl Answer {
    fn count(&self) {
        assert_ne!(
            std::thread::current().name(),
            Some("ssh-ahead"),
            "asked in the background"
        );
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

impl Prompt for Answer {
    fn secret(&self, question: &str) -> Option<String> {
        let expected = ["locked", "Password of"]
            .iter()
            .any(|part| question.contains(part));
        assert!(expected, "{question}");
        self.count();
        Some(self.0.to_owned())
    }

    fn confirm(&self, question: &str) -> bool {
        assert!(question.contains("SHA256:"), "{question}");
        self.count();
        self.0 == "yes"
    }
}

fn with_prompt(server: &Server, answer: &'static str, ssh_options: &str) -> (SshHost, Arc<Answer>) {
    let prompt = Arc::new(Answer(answer, AtomicUsize::new(0)));
    let mut options = server.options();
    options.ssh_options += " ";
    options.ssh_options += ssh_options;
    options.prompt = Some(prompt.clone());
    (SshHost::new("srv", options).unwrap(), prompt)
}

#[test]
fn a_new_key_can_be_confirmed_by_the_user() {
    let server = Server::start();
    server.known_hosts("");
    let (host, prompt) = with_prompt(&server, "no", "");
    assert!(matches!(
        fails(&host).kind,
        ConnectErrorKind::HostKeyUnknown { .. }
    ));
    let (host, _) = with_prompt(&server, "yes", "-o BatchMode=yes");
    assert!(matches!(
        fails(&host).kind,
        ConnectErrorKind::HostKeyUnknown { .. }
    ));
    let (host, again) = with_prompt(&server, "yes", "");
    works(host.connect().unwrap());
    works(host.connect().unwrap());
    assert_eq!(
        (prompt.1.load(Ordering::SeqCst), again.1.load(Ordering::SeqCst)),
        (1, 1)
    );
}

#[test]
fn a_refused_login_says_what_was_tried() {
    let server = Server::start();
    let path = |name: &str| server.path(name).display().to_string();
    keygen(&["-t", "ed25519", "-N", "", "-f", &path("wrong")]);
    keygen(&["-t", "ed25519", "-N", "secret", "-f", &path("locked")]);
    fs::write(
        path("broken"),
        "-----BEGIN OPENSSH PRIVATE KEY-----\nxx\n-----END OPENSSH PRIVATE KEY-----\n",
    )
    .unwrap();
    fs::set_permissions(path("broken"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path("authorized_keys"), "").unwrap();
    let error = fails(&server.host_with(&format!(
        "-i {} -i {} -i {}",
        path("wrong"),
        path("locked"),
        path("broken")
    )));
    let text = error.to_string();
    assert!(
        matches!(error.kind, ConnectErrorKind::Authentication { .. }),
        "{text}"
    );
    for part in [
        path("wrong"),
        path("id"),
        "locked (it has a passphrase".into(),
        "broken (".into(),
        "accepts: publickey".into(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    let hint = error.hint().unwrap().to_string();
    let call = format!("ssh -o BatchMode=yes -F {} -i {}", path("config"), path("wrong"));
    assert!(hint.contains("ssh-agent") && hint.contains(&call), "{hint}");
    fs::remove_file(path("id")).unwrap();
    fs::remove_file(path("id.pub")).unwrap();
    assert!(fails(&server.host()).to_string().contains("no key found"));
}

#[test]
fn too_many_keys_are_told_from_wrong_ones() {
    let server = Server::start();
    let mut options = String::new();
    for i in 0..8 {
        let key = server.path(&format!("k{i}")).display().to_string();
        keygen(&["-t", "ed25519", "-N", "", "-f", &key]);
        options += &format!(" -i {key}");
    }
    let error = fails(&server.host_with(&options));
    assert!(error.to_string().contains("hung up"), "{error}");
    assert_eq!(obstacle(&error), Some(Obstacle::TooManyKeys), "{error}");
}

fn obstacle(error: &ConnectError) -> Option<Obstacle> {
    match &error.kind {
        ConnectErrorKind::Authentication { obstacle, .. } => *obstacle,
        kind => panic!("{kind}"),
    }
}

#[test]
fn after_a_key_that_is_not_enough_the_server_gets_what_it_wants_besides() {
    let server = Server::start_with(
        "PasswordAuthentication yes\nAuthenticationMethods publickey,password",
        &["ed25519"],
    );
    let key = server.path("id").display().to_string();
    let incomplete = |error: &ConnectError| {
        let text = error.to_string();
        assert!(
            matches!(error.kind, ConnectErrorKind::Incomplete { .. }),
            "{text}"
        );
        assert!(
            text.contains(&format!("accepted {key} and wants password as well")),
            "{text}"
        );
        text
    };
    let text = incomplete(&fails(&server.host()));
    assert!(!text.contains("denied") && !text.contains("tried"), "{text}");
    // The user is asked for the password, and what was typed is wrong.
    let (host, prompt) = with_prompt(&server, "wrong", "");
    let text = incomplete(&fails(&host));
    assert!(
        prompt.1.load(Ordering::SeqCst) > 0 && text.contains("tried: password"),
        "{text}"
    );
    // The same by an agent.
    let socket = server.path("agent");
    let _agent = Agent::start(&socket);
    Agent::add(&socket, &server.path("id"));
    let error = fails(&server.host_with(&format!("-o IdentityAgent={}", socket.display())));
    assert!(
        error.to_string().contains("accepted a key of the agent ("),
        "{error}"
    );
}

#[test]
fn a_server_that_wants_two_keys_gets_two() {
    let server = Server::start_with("AuthenticationMethods publickey,publickey", &["ed25519"]);
    let second = server.path("second").display().to_string();
    keygen(&["-t", "ed25519", "-N", "", "-f", &second]);
    let mut keys = fs::read_to_string(server.path("id.pub")).unwrap();
    keys += &fs::read_to_string(server.path("second.pub")).unwrap();
    fs::write(server.path("authorized_keys"), keys).unwrap();
    works(server.host_with(&format!("-i {second}")).connect().unwrap());
}

#[test]
fn an_agent_with_more_keys_than_the_server_hears_is_what_the_advice_is_about() {
    let server = Server::start();
    let socket = server.path("agent");
    let _agent = Agent::start(&socket);
    for i in 0..12 {
        let key = server.path(&format!("k{i}"));
        keygen(&["-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
        Agent::add(&socket, &key);
    }
    let options = format!("-o IdentitiesOnly=no -o IdentityAgent={}", socket.display());
    let error = fails(&server.host_with(&options));
    assert_eq!(obstacle(&error), Some(Obstacle::TooManyKeys), "{error}");
    let hint = error.hint().unwrap().to_string();
    assert!(
        hint.contains("IdentitiesOnly") && !hint.contains("ssh-copy-id"),
        "{hint}"
    );
}

#[test]
fn a_passphrase_is_asked_for_once_for_all_workers() {
    let server = Server::start();
    let path = |name: &str| server.path(name).display().to_string();
    keygen(&["-t", "ed25519", "-N", "open sesame", "-f", &path("locked")]);
    fs::copy(path("locked.pub"), path("authorized_keys")).unwrap();
    let identity = format!("-i {}", path("locked"));
    let (host, prompt) = with_prompt(&server, "open sesame", &identity);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| works(host.connect().unwrap()));
        }
    });
    assert_eq!(prompt.1.load(Ordering::SeqCst), 1);
    let (host, prompt) = with_prompt(&server, "wrong", &identity);
    let error = fails(&host);
    assert!(error.to_string().contains("wrong passphrase"), "{error}");
    assert_eq!(prompt.1.load(Ordering::SeqCst), 3);
}

#[test]
fn all_usual_key_types_log_in() {
    let server = Server::start();
    for (kind, format) in [
        ("rsa", "RFC4716"),
        ("rsa", "PEM"),
        ("ecdsa", "PKCS8"),
        ("ecdsa", "RFC4716"),
    ] {
        let key = server.path(&format!("{kind}-{format}")).display().to_string();
        keygen(&["-t", kind, "-m", format, "-N", "", "-f", &key]);
        fs::copy(format!("{key}.pub"), server.path("authorized_keys")).unwrap();
        fs::remove_file(format!("{key}.pub")).unwrap();
        works(server.host_with(&format!("-i {key}")).connect().unwrap());
    }
}

#[test]
fn a_user_certificate_logs_in() {
    let server = Server::start();
    let path = |name: &str| server.path(name).display().to_string();
    keygen(&["-t", "ed25519", "-N", "", "-f", &path("ca")]);
    keygen(&[
        "-s",
        &path("ca"),
        "-I",
        "id",
        "-n",
        &common::user(),
        &path("id.pub"),
    ]);
    let ca = server.public_key("ca");
    fs::write(path("authorized_keys"), format!("cert-authority {ca}\n")).unwrap();
    works(server.connect());
    fs::rename(path("id-cert.pub"), path("elsewhere.pub")).unwrap();
    assert!(server.host().connect().is_err());
    works(
        server
            .host_with(&format!("-o CertificateFile={}", path("elsewhere.pub")))
            .connect()
            .unwrap(),
    );
}

struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let child = Command::new("ssh-agent")
            .args(["-D", "-a", socket.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent is missing: install the package openssh-client");
        eventually("the agent listens", || socket.exists());
        Self(child)
    }

    fn add(socket: &Path, key: &Path) {
        let out = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", socket)
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn keys_of_the_agent_are_used_as_the_configuration_allows() {
    let server = Server::start();
    let path = |name: &str| server.path(name);
    let socket = path("agent");
    let _agent = Agent::start(&socket);
    for key in ["other", "id"] {
        if key != "id" {
            keygen(&["-t", "ed25519", "-N", "", "-f", path(key).to_str().unwrap()]);
        }
        Agent::add(&socket, &path(key));
    }
    // The private key is only in the agent now.
    fs::remove_file(path("id")).unwrap();
    let agent = format!("-o IdentityAgent={}", socket.display());
    works(server.host_with(&agent).connect().unwrap());
    fs::remove_file(path("id.pub")).unwrap();
    let error = fails(&server.host_with(&agent));
    assert!(
        error.to_string().contains("no key found"),
        "IdentitiesOnly lets no other key through: {error}"
    );
    works(
        server
            .host_with(&format!("{agent} -o IdentitiesOnly=no"))
            .connect()
            .unwrap(),
    );
    let error = fails(&server.host_with("-o IdentityAgent=/nowhere"));
    assert!(error.to_string().contains("agent at /nowhere"), "{error}");
}

/// What the agent holds and what lies on the disk; `ssh` itself says that each gets in.
#[test]
fn certificates_log_in_wherever_they_and_their_keys_are() {
    let server = Server::start();
    let path = |name: &str| server.path(name).display().to_string();
    keygen(&["-t", "ed25519", "-N", "", "-f", &path("ca")]);
    let ca = server.public_key("ca");
    fs::write(path("authorized_keys"), format!("cert-authority {ca}\n")).unwrap();
    let sign = |validity: &str| {
        let user = common::user();
        let (ca, public) = (path("ca"), path("id.pub"));
        keygen(&["-s", &ca, "-I", "id", "-n", &user, "-V", validity, &public]);
    };
    let add = |socket: &str| Agent::add(Path::new(socket), &server.path("id"));
    let agents = ["plain", "old", "both"].map(|name| {
        let socket = path(name);
        let agent = Agent::start(Path::new(&socket));
        (name, socket, agent)
    });
    let [plain, old, both] = &agents;
    add(&plain.1);
    sign("20200101:20200102");
    add(&old.1);
    sign("always:forever");
    add(&both.1);
    fs::copy(path("id-cert.pub"), path("elsewhere.pub")).unwrap();
    let try_with = |what: &str, socket: &str, more: &str, client: SshClient| {
        let words = format!("-o IdentityAgent={socket} {more}");
        let list: Vec<&str> = words.split_whitespace().collect();
        assert!(ssh_works(&server, &list), "{what} {more}: ssh itself");
        let mut options = server.options();
        options.client = client;
        options.ssh_options = format!("{} {words}", options.ssh_options);
        let host = SshHost::new("srv", options).unwrap();
        works(host.connect().unwrap_or_else(|e| panic!("{what} {more}: {e}")));
    };
    // Key and certificate on the disk, whatever the agent holds of them.
    for (what, socket, _) in &agents {
        try_with(what, socket, "-o IdentitiesOnly=no", SshClient::Libssh2);
        try_with(what, socket, "-o IdentitiesOnly=yes", SshClient::Libssh2);
    }
    // The private key is only in the agent.
    fs::remove_file(path("id")).unwrap();
    try_with(
        "only the agent",
        &both.1,
        "-o IdentitiesOnly=yes",
        SshClient::Libssh2,
    );
    // A certificate of the disk with a key of the agent: what `ssh` is for.
    fs::remove_file(path("id-cert.pub")).unwrap();
    let elsewhere = format!("-o CertificateFile={}", path("elsewhere.pub"));
    try_with("certificate elsewhere", &plain.1, &elsewhere, SshClient::Auto);
}

/// An agent that has a thread for each connection.
fn fake_agent(socket: &Path, serve: impl Fn(UnixStream) + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let serve = Arc::new(serve);
    // The threads end with the test program.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
}

/// Reads all and says nothing.
fn stay_silent(mut stream: UnixStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

#[test]
fn an_agent_that_never_answers_is_skipped() {
    let server = Server::start();
    let socket = server.path("agent");
    fake_agent(&socket, stay_silent);
    let agent = format!("-o IdentityAgent={}", socket.display());
    let started = Instant::now();
    works(server.host_with(&agent).connect().unwrap());
    assert!(started.elapsed() < Duration::from_secs(15));

    let mut options = server.options();
    options.ssh_options += &format!(" {agent}");
    soon(options.cancel.clone());
    let started = Instant::now();
    let error = fails(&SshHost::new("srv", options).unwrap());
    assert!(matches!(error.kind, ConnectErrorKind::Cancelled(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));

    fs::write(server.path("authorized_keys"), "").unwrap();
    let error = fails(&server.host_with(&agent)).to_string();
    let skipped = format!("agent at {} (no answer within 5 s)", socket.display());
    assert!(
        error.contains(&skipped) && error.contains(&server.path("id").display().to_string()),
        "{error}"
    );
}

// Ways and obstacles.

#[test]
fn proxies_carry_the_connection() {
    let server = Server::start();
    let sshd = format!("/usr/sbin/sshd -i -f {}", server.path("sshd_config").display());
    works(
        server
            .host_with(&format!("-o 'ProxyCommand={sshd}'"))
            .connect()
            .unwrap(),
    );
    server.configure(&format!("Host far\n  HostName 127.0.0.1\n  ProxyJump srv\n  HostKeyAlias [127.0.0.1]:{0}\n  Port {0}\n  IdentityFile {1}\n  UserKnownHostsFile {2}\n",
        server.port, server.path("id").display(), server.path("known_hosts").display()));
    let host = SshHost::new(&format!("{}@far", common::user()), server.options()).unwrap();
    works(host.connect().unwrap());
}

#[test]
fn a_proxy_that_fails_is_quoted() {
    let server = Server::start();
    let error = fails(&server.host_with("-o 'ProxyCommand=sh -c \"echo no way through >&2; exit 1\"'"));
    assert!(matches!(error.kind, ConnectErrorKind::HungUp { .. }), "{error}");
    assert!(
        error.to_string().contains("no way through") && error.is_transient(),
        "{error}"
    );
}

#[test]
fn user_and_port_can_be_given_apart_from_the_configuration() {
    let server = Server::start();
    let mut options = server.options();
    options.user = Some(common::user());
    options.port = Some(server.port);
    options.ssh_options = format!(
        "-F none -o UserKnownHostsFile={} -o IdentityAgent=none -i {}",
        server.path("known_hosts").display(),
        server.path("id").display()
    );
    works(
        SshHost::new("127.0.0.1", options.clone())
            .unwrap()
            .connect()
            .unwrap(),
    );
    options.port = Some(free_port());
    let error = fails(&SshHost::new("127.0.0.1", options.clone()).unwrap());
    assert!(
        matches!(error.kind, ConnectErrorKind::Network { .. }) && error.is_transient(),
        "{error}"
    );
    let url = format!("ssh://{}@127.0.0.1:{}", common::user(), server.port);
    works(SshHost::new(&url, options).unwrap().connect().unwrap());
}

#[test]
fn a_name_without_address_says_so() {
    let server = Server::start();
    let error = fails(&server.host_with("-o HostName=no-such-host.invalid"));
    assert!(matches!(error.kind, ConnectErrorKind::Resolve { .. }), "{error}");
}

#[test]
fn something_that_is_no_ssh_server_does_not_hold_us() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let started = Instant::now();
    let error = fails(&server.host_with(&format!("-p {port} -o ConnectTimeout=1")));
    assert!(matches!(error.kind, ConnectErrorKind::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    let mut options = server.options();
    options.ssh_options += &format!(" -p {port}");
    soon(options.cancel.clone());
    let error = fails(&SshHost::new("srv", options).unwrap());
    assert!(matches!(error.kind, ConnectErrorKind::Cancelled(_)), "{error}");
}

#[test]
fn ciphers_of_the_user_are_honoured() {
    let server = Server::start_with("Ciphers aes256-ctr,aes128-gcm@openssh.com", &["ed25519"]);
    works(server.host_with("-c aes256-ctr").connect().unwrap());
    let error = fails(&server.host_with("-c aes192-ctr"));
    assert!(
        matches!(error.kind, ConnectErrorKind::Handshake { .. }),
        "{error}"
    );
    let error = fails(&server.host_with("-o HostKeyAlgorithms=sk-ssh-ed25519@openssh.com"));
    assert!(
        matches!(error.kind, ConnectErrorKind::BadSetting { .. }),
        "{error}"
    );
}

#[test]
fn a_broken_configuration_and_a_missing_client_are_named() {
    let server = Server::start();
    let error = fails(&server.host_with("-o NoSuchOption=1"));
    assert!(
        matches!(error.kind, ConnectErrorKind::Configuration { .. }),
        "{error}"
    );
    assert!(
        error.to_string().to_lowercase().contains("nosuchoption"),
        "{error}"
    );
    let mut options = server.options();
    options.ssh_program = "/nowhere/ssh".to_owned();
    let error = fails(&SshHost::new("srv", options).unwrap());
    assert!(
        error.hint().unwrap().to_string().contains("openssh-client"),
        "{error}"
    );
}

// Connections made ahead.

#[test]
fn connections_made_ahead_are_the_next_ones() {
    let server = Server::start();
    let relay = Relay::before(&server, "");
    let host = server.host();
    assert_eq!(host.round_trip(), None);
    works(host.connect().unwrap());
    assert!(host.round_trip().is_some());
    host.connect_ahead(2);
    eventually("two more connections", || relay.accepted() == 3);
    for expected in [3, 3, 4] {
        works(host.connect().unwrap());
        assert_eq!(relay.accepted(), expected);
    }
}

#[test]
fn a_connection_made_ahead_that_broke_is_made_again() {
    let server = Server::start();
    let relay = Relay::before(&server, "");
    let host = server.host();
    for moment in [0, 300] {
        host.connect_ahead(1);
        std::thread::sleep(Duration::from_millis(moment));
        relay.cut_once();
        works(host.connect().unwrap());
    }
    server.known_hosts("");
    host.connect_ahead(1);
    let error = fails(&host);
    assert!(
        matches!(error.kind, ConnectErrorKind::HostKeyUnknown { .. }),
        "{error}"
    );
}

#[test]
fn nothing_is_made_ahead_where_the_user_had_to_answer() {
    let server = Server::start();
    let relay = Relay::before(&server, "");
    let key = server.path("locked").display().to_string();
    keygen(&["-t", "ed25519", "-N", "secret", "-f", &key]);
    let public = fs::read_to_string(server.path("locked.pub")).unwrap();
    fs::write(server.path("authorized_keys"), public).unwrap();
    let (host, prompt) = with_prompt(
        &server,
        "secret",
        &format!("-o IdentityFile={key} -o BatchMode=no"),
    );
    works(host.connect().unwrap());
    host.connect_ahead(2);
    works(host.connect().unwrap());
    assert_eq!((prompt.1.load(Ordering::SeqCst), relay.accepted()), (1, 2));
}

#[test]
fn logins_made_ahead_ask_nothing() {
    let server = Server::start();
    let relay = Relay::before(&server, "");
    let ask = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=ask";
    let asked = |prompt: &Answer| prompt.1.load(Ordering::SeqCst);
    // Where the user had to answer, nothing is made ahead; an accepted key is accepted for all.
    let (host, prompt) = with_prompt(&server, "yes", ask);
    works(host.connect().unwrap());
    assert_eq!((asked(&prompt), relay.accepted()), (1, 1));
    host.connect_ahead(2);
    for _ in 0..3 {
        works(host.connect().unwrap());
    }
    assert_eq!((asked(&prompt), relay.accepted()), (1, 4));
    // Where nobody knew yet, they fail, and the login is made again.
    let (host, prompt) = with_prompt(&server, "yes", ask);
    host.connect_ahead(2);
    eventually("two logins", || relay.accepted() == 6);
    for _ in 0..2 {
        works(host.connect().unwrap());
    }
    assert_eq!((asked(&prompt), relay.accepted()), (1, 8));
}

#[test]
fn a_login_made_ahead_that_hangs_can_be_cancelled() {
    let server = Server::start();
    let socket = server.path("agent");
    let key = server.public_key("id");
    let blob = STANDARD.decode(key.split_once(' ').unwrap().1).unwrap();
    let length = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
    let body = [&[12, 0, 0, 0, 1], &length(blob.len())[..], &blob, &length(0)].concat();
    let answer = [&length(body.len())[..], &body].concat();
    let to_sign = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&to_sign);
    // It lists the key, but the user who should allow its use is away.
    fake_agent(&socket, move |mut stream| {
        let mut request = [0; 5];
        while stream.read_exact(&mut request).is_ok() && request[4] == 11 {
            stream.write_all(&answer).unwrap();
        }
        if request[4] != 11 {
            seen.fetch_add(1, Ordering::SeqCst);
            stay_silent(stream);
        }
    });
    let mut options = server.options();
    options.ssh_options += &format!(" -o IdentityAgent={}", socket.display());
    let cancel = options.cancel.clone();
    let host = SshHost::new("srv", options).unwrap();
    host.connect_ahead(1);
    eventually("the agent is to sign", || to_sign.load(Ordering::SeqCst) == 1);
    soon(cancel);
    let started = Instant::now();
    let error = fails(&host);
    assert!(matches!(error.kind, ConnectErrorKind::Cancelled(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

// By the user's own ssh.

fn by(server: &Server, client: SshClient) -> SshHost {
    let options = SshOptions {
        client,
        ..server.options()
    };
    SshHost::new("srv", options).unwrap()
}

fn says(connection: &mut dyn Connection, command: &ShellCommand, input: Input) -> String {
    let options = StartOptions {
        input,
        ..Default::default()
    };
    let output = run(connection, command, options, 1 << 20).unwrap();
    assert!(output.exit.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_users_own_ssh_runs_commands_over_one_login() {
    let server = Server::start();
    let relay = Relay::before(&server, "");
    server.known_hosts(&format!("k {}\n", server.public_key("host_ed25519")));
    let host = by(&server, SshClient::OpenSsh);
    let mut connection = host.connect().unwrap();
    for n in 0..3 {
        let word = format!("it's {n}");
        let said = says(
            &mut *connection,
            &ShellCommand::new("echo").arg(&word),
            Input::Empty,
        );
        assert_eq!(said, format!("{word}\n"));
    }
    let cat = ShellCommand::new("cat");
    assert_eq!(
        says(&mut *connection, &cat, Input::Bytes(b"a\0b".to_vec())),
        "a\0b"
    );
    let wrong = ShellCommand::new("sh").args(["-c", "echo no >&2; exit 3"]);
    let output = run(&mut *connection, &wrong, StartOptions::default(), 10).unwrap();
    assert_eq!(
        (output.exit.code, output.exit.stderr_text().as_str()),
        (Some(3), "no")
    );
    assert_eq!(relay.accepted(), 1);
}

#[test]
fn with_one_session_at_a_time_the_users_own_ssh_logs_in_for_each_command() {
    let server = Server::start_with("MaxSessions 1", &["ed25519"]);
    let host = by(&server, SshClient::OpenSsh);
    let mut connection = host.connect().unwrap();
    for _ in 0..2 {
        assert_eq!(
            says(
                &mut *connection,
                &ShellCommand::new("echo").arg("a"),
                Input::Empty
            ),
            "a\n"
        );
    }
}

#[test]
fn a_stream_by_the_users_own_ssh_that_is_cut_is_an_error() {
    let server = Server::start();
    let relay = Relay::before(&server, "");
    server.known_hosts(&format!("k {}\n", server.public_key("host_ed25519")));
    let mut connection = by(&server, SshClient::OpenSsh).connect().unwrap();
    let endless = ShellCommand::new("cat").arg("/dev/zero");
    let mut process = connection.start(&endless, StartOptions::default()).unwrap();
    let mut some = vec![0; 1 << 20];
    process.read_exact(&mut some).unwrap();
    relay.cut();
    let error = loop {
        match process.read(&mut some) {
            Ok(0) => panic!("it looks whole"),
            Ok(_) => {}
            Err(error) => break RemoteError::from_io(error),
        }
    };
    assert!(error.is_transient(), "{error}");
}

#[test]
fn commands_by_the_users_own_ssh_end_with_their_process_and_by_cancelling() {
    let server = Server::start();
    let cancel = CancelToken::new();
    let options = SshOptions {
        client: SshClient::OpenSsh,
        cancel: cancel.clone(),
        ..server.options()
    };
    let mut connection = SshHost::new("srv", options).unwrap().connect().unwrap();
    let held = StartOptions {
        input: Input::Held,
        ..Default::default()
    };
    let lock = server.path("lock");
    let hold = ShellCommand::script(r#"echo $$ >"$1"; cat; rm "$1""#).arg(lock.to_str().unwrap());
    let process = connection.start(&hold, held).unwrap();
    eventually("it runs", || {
        fs::read_to_string(&lock).is_ok_and(|t| !t.is_empty())
    });
    drop(process);
    eventually("it ended", || !lock.exists());
    let mut process = connection
        .start(&ShellCommand::new("sleep").arg("60"), StartOptions::default())
        .unwrap();
    soon(cancel);
    let error = RemoteError::from_io(process.read(&mut [0]).unwrap_err());
    assert!(error.is_cancelled(), "{error}");
}

#[test]
fn where_libssh2_cannot_the_users_own_ssh_does() {
    // Neither has libssh2.
    let kex = Server::start_with("KexAlgorithms sntrup761x25519-sha512@openssh.com", &["ed25519"]);
    assert!(ssh_works(&kex, &[]));
    works(kex.connect());
    let error = fails(&by(&kex, SshClient::Libssh2));
    assert!(
        matches!(error.kind, ConnectErrorKind::Handshake { .. }),
        "{error}"
    );
    // Nothing helps.
    kex.configure("KexAlgorithms curve25519-sha256");
    let error = fails(&kex.host());
    let error = error.to_string();
    for list in ["Their offer: sntrup761", "our offer: curve25519-sha256"] {
        assert!(error.contains(list), "{error}");
    }

    let mac = Server::start_with("MACs umac-128@openssh.com\nCiphers aes128-ctr", &["ed25519"]);
    works(mac.connect());

    let banner = Server::start();
    banner.configure("NoHostAuthenticationForLocalhost yes");
    banner.known_hosts("");
    assert!(ssh_works(&banner, &[]));
    works(banner.connect());
    // Policy of the user that libssh2 knows nothing of.
    banner.trust("ed25519");
    banner.configure("PubkeyAcceptedAlgorithms rsa-sha2-512");
    assert!(!ssh_works(&banner, &[]));
    fails(&banner.host());
    banner.configure("PreferredAuthentications password");
    assert!(!ssh_works(&banner, &[]));
    fails(&banner.host());
}

#[test]
fn a_host_certificate_is_checked_by_the_users_own_ssh() {
    let server = Server::start();
    let path = |name: &str| server.path(name).display().to_string();
    keygen(&["-t", "ed25519", "-N", "", "-f", &path("ca")]);
    keygen(&[
        "-s",
        &path("ca"),
        "-I",
        "h",
        "-h",
        "-n",
        "127.0.0.1",
        &path("host_ed25519.pub"),
    ]);
    let certificate = format!("HostCertificate {}", path("host_ed25519-cert.pub"));
    fs::write(
        server.path("sshd_config"),
        format!(
            "{certificate}\n{}",
            fs::read_to_string(server.path("sshd_config")).unwrap()
        ),
    )
    .unwrap();
    let server = server.restarted();
    let authority = format!("@cert-authority * {}\n", server.public_key("ca"));
    server.known_hosts(&authority);
    assert!(ssh_works(&server, &[]));
    works(server.connect());
    // Another authority's.
    let other = format!("@cert-authority * {}\n", server.public_key("id"));
    server.known_hosts(&other);
    assert!(!ssh_works(&server, &[]));
    fails(&server.host());
}

#[test]
fn a_connection_of_the_user_that_is_open_is_a_way_in() {
    let server = Server::start();
    let socket = server.path("cm").display().to_string();
    server.configure(&format!("ControlPath {socket}"));
    let config = server.path("config");
    let mut master = Command::new("ssh");
    master.arg("-F").arg(&config).args(["-M", "-N", "srv"]);
    let mut master = master.stdin(Stdio::null()).spawn().unwrap();
    eventually("the master is there", || Path::new(&socket).exists());
    // No other way in any more.
    fs::remove_file(server.path("authorized_keys")).unwrap();
    assert!(ssh_works(&server, &[]));
    works(server.connect());
    master.kill().unwrap();
    master.wait().unwrap();
    fails(&server.host());
}

#[test]
fn a_host_that_is_not_the_known_one_is_never_tried_again_by_ssh() {
    let server = Server::start();
    let relay = Relay::before(&server, "");
    server.known_hosts(&format!("k {}\n", server.public_key("id")));
    let error = fails(&server.host_with("-o StrictHostKeyChecking=no"));
    assert!(
        matches!(error.kind, ConnectErrorKind::HostKeyChanged { .. }),
        "{error}"
    );
    assert_eq!(relay.accepted(), 1);
}

#[test]
fn what_the_users_own_ssh_says_is_told() {
    let server = Server::start();
    server.known_hosts("");
    let error = fails(&by(&server, SshClient::OpenSsh));
    assert!(
        error.to_string().contains("Host key verification failed"),
        "{error}"
    );
    assert!(!error.is_transient() && error.hint().is_some());
    server.trust("ed25519");
    server.configure("Host srv\n  Port 1\n");
    let error = fails(&by(&server, SshClient::OpenSsh));
    assert!(
        error.to_string().contains("Connection refused") && error.is_transient(),
        "{error}"
    );
}
