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
    ConnectError, ConnectErrorKind, Connection, Host, Prompt, ShellCommand, SshHost, StartOptions, run,
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
        assert!(error.hint().unwrap().contains("ssh srv"));
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
    assert!(matches!(
        fails(&second.host()).kind,
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
        assert!(question.contains("locked"), "{question}");
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
    assert!(error.hint().unwrap().contains("openssh-client"), "{error}");
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
