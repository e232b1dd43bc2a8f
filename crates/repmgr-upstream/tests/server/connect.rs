//! Connecting to a real server the ways libpq can, and failing to.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::support::Server;
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};
use repmgr_types::Conninfo;
use repmgr_upstream::{
    ConnectError, ConnectErrorKind, Environment, Failure, Upstream, connect, connect_replication,
};
use tokio::runtime::{Builder, Runtime};

/// Each user can come in one way only.
const HBA: &str = "host all trusted 127.0.0.1/32 trust
host all scram 127.0.0.1/32 scram-sha-256
host all md5user 127.0.0.1/32 md5
hostssl all,replication tlsonly 127.0.0.1/32 trust
hostnossl all,replication plainonly 127.0.0.1/32 trust
host replication scram 127.0.0.1/32 scram-sha-256";

/// One server for the tests that run at the same time.
fn server() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let (key, cert) = self_signed("localhost");
    let server = Server::start("ssl = on", HBA, &[("server.key", &key), ("server.crt", &cert)]);
    server.sql(
        "postgres",
        "CREATE ROLE trusted LOGIN; CREATE ROLE tlsonly LOGIN REPLICATION; CREATE ROLE plainonly LOGIN REPLICATION;
         SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN REPLICATION PASSWORD 'pa:ss\\word'; CREATE ROLE nobody LOGIN;
         SET password_encryption = 'md5'; CREATE ROLE md5user LOGIN PASSWORD 'md5 secret'",
    );
    let server = Arc::new(server);
    *shared = Arc::downgrade(&server);
    server
}

fn self_signed(name: &str) -> (String, String) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut cert = X509::builder().unwrap();
    cert.set_version(2).unwrap();
    cert.set_subject_name(&subject).unwrap();
    cert.set_issuer_name(&subject).unwrap();
    cert.set_pubkey(&key).unwrap();
    cert.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    cert.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    let names = SubjectAlternativeName::new()
        .dns(name)
        .build(&cert.x509v3_context(None, None))
        .unwrap();
    cert.append_extension(names).unwrap();
    cert.sign(&key, MessageDigest::sha256()).unwrap();
    let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
    (
        text(key.private_key_to_pem_pkcs8().unwrap()),
        text(cert.build().to_pem().unwrap()),
    )
}

fn environment() -> Environment {
    Environment::empty().with_os_user("trusted")
}

/// Whether the session `conninfo` gives is encrypted, or how it failed.
fn encrypted(server: &Server, conninfo: &str) -> Result<bool, ConnectError> {
    let upstream = connect(
        &server.conninfo(&format!("dbname=postgres {conninfo}")),
        &environment(),
    )?;
    let ssl = upstream.is_encrypted().unwrap();
    Ok(ssl)
}

fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// As a program that embeds this crate may have them.
fn runtimes() -> [Runtime; 2] {
    [Builder::new_current_thread(), Builder::new_multi_thread()].map(|mut kind| kind.build().unwrap())
}

fn failure(error: &ConnectError) -> &Failure {
    match error {
        ConnectError::Failed(failed) => &failed.failure,
        other => panic!("no server was asked: {other}"),
    }
}

#[test]
fn the_environment_fills_in_what_the_string_lacks() {
    let server = server();
    let env = environment()
        .with_variable("PGHOST", "127.0.0.1")
        .with_variable("PGPORT", server.port.to_string())
        .with_variable("PGDATABASE", "postgres");
    let upstream = connect(&Conninfo::new(), &env).unwrap();
    assert_eq!((upstream.user(), upstream.dbname()), ("trusted", "postgres"));
    assert_eq!(upstream.setting("search_path").unwrap().as_deref(), Some(""));
    assert_eq!(
        upstream.setting("synchronous_commit").unwrap().as_deref(),
        Some("local")
    );
    assert_eq!(
        upstream.setting("statement_timeout").unwrap().as_deref(),
        Some("30s")
    );
    assert_eq!(
        upstream.setting("application_name").unwrap().as_deref(),
        Some("repmgr")
    );
}

#[test]
fn a_socket_directory_is_a_host() {
    let server = server();
    let upstream = connect(&server.socket("postgres", "postgres"), &Environment::empty()).unwrap();
    assert!(upstream.privileges().unwrap().superuser);
    assert_eq!(upstream.endpoint().port, server.port);
}

#[test]
fn passwords_come_from_string_environment_and_password_file() {
    let server = server();
    let plain = server.conninfo("user=scram dbname=postgres");
    let mut given = plain.clone();
    given.set("password", "pa:ss\\word");
    connect(&given, &environment()).unwrap();
    connect(&plain, &environment().with_variable("PGPASSWORD", "pa:ss\\word")).unwrap();
    let md5 = server.conninfo("user=md5user dbname=postgres password='md5 secret'");
    connect(&md5, &environment()).unwrap();

    let home = tempfile::tempdir().unwrap();
    let pgpass = home.path().join(".pgpass");
    let line = format!("127.0.0.1:{}:postgres:scram:pa\\:ss\\\\word\n", server.port);
    fs::write(&pgpass, line).unwrap();
    fs::set_permissions(&pgpass, fs::Permissions::from_mode(0o600)).unwrap();
    connect(&plain, &environment().with_home(home.path())).unwrap();

    fs::set_permissions(&pgpass, fs::Permissions::from_mode(0o644)).unwrap();
    let error = connect(&plain, &environment().with_home(home.path())).unwrap_err();
    assert!(matches!(failure(&error), Failure::PasswordMissing), "{error:?}");
    assert!(
        error.hint().unwrap().to_string().contains("0644"),
        "{:?}",
        error.hint()
    );
}

#[test]
fn a_wrong_password_is_an_authentication_failure_that_does_not_repeat_it() {
    let server = server();
    let conninfo = server.conninfo("user=scram dbname=postgres password=wr0ng");
    let error = connect(&conninfo, &environment()).unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Authentication);
    assert_eq!(
        error.to_string(),
        format!(
            "could not connect to host \"127.0.0.1\", port {} as user \"scram\" to database \"postgres\"",
            server.port
        )
    );
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "FATAL: password authentication failed for user \"scram\""
    );
    assert!(!format!("{error:?} {:?}", error.hint()).contains("wr0ng"));
}

#[test]
fn a_user_without_an_hba_entry_and_a_missing_database_are_told_apart() {
    let server = server();
    let refused = connect(&server.conninfo("user=nobody dbname=postgres"), &environment()).unwrap_err();
    assert_eq!(refused.kind(), ConnectErrorKind::Authentication);
    assert!(refused.hint().unwrap().to_string().contains("pg_hba.conf"));
    let missing = connect(&server.conninfo("user=trusted dbname=nosuch"), &environment()).unwrap_err();
    assert_eq!(missing.kind(), ConnectErrorKind::Rejected);
    assert!(matches!(failure(&missing), Failure::Server(e) if e.code == "3D000"));
}

#[test]
fn sslmode_decides_about_encryption_as_in_libpq() {
    let server = server();
    for (mode, trusted, tlsonly, plainonly) in [
        ("disable", Some(false), None, Some(false)),
        ("allow", Some(false), Some(true), Some(false)),
        ("prefer", Some(true), Some(true), Some(false)),
        ("require", Some(true), Some(true), None),
    ] {
        for (user, expected) in [
            ("trusted", trusted),
            ("tlsonly", tlsonly),
            ("plainonly", plainonly),
        ] {
            let got = encrypted(&server, &format!("sslmode={mode} user={user}"));
            assert_eq!(got.as_ref().ok().copied(), expected, "{mode} {user}: {got:?}");
        }
    }
}

#[test]
fn replication_connections_are_encrypted_likewise() {
    let server = server();
    let open = |rest: &str| {
        let connection = connect_replication(&server.conninfo(rest), &environment());
        connection.map(|open| open.identify_system().unwrap())
    };
    for (mode, tlsonly, plainonly) in [
        ("disable", false, true),
        ("allow", true, true),
        ("prefer", true, true),
        ("require", true, false),
    ] {
        for (user, expected) in [("tlsonly", tlsonly), ("plainonly", plainonly)] {
            let got = open(&format!("sslmode={mode} user={user}"));
            assert_eq!(got.is_ok(), expected, "{mode} {user}: {got:?}");
        }
    }
    let verified = format!(
        "user=tlsonly sslmode=verify-full host=localhost hostaddr=127.0.0.1 sslrootcert='{}'",
        server.path("data/server.crt").display()
    );
    open(&verified).unwrap();
    let mismatch = open(&verified.replace("host=localhost", "host=elsewhere")).unwrap_err();
    assert_eq!(mismatch.kind(), ConnectErrorKind::Tls, "{mismatch:?}");
    open("user=scram password='pa:ss\\\\word' sslmode=require").unwrap();
}

#[test]
fn certificates_are_verified_when_asked_or_when_a_root_is_at_hand() {
    let server = server();
    let cert = server.path("data/server.crt");
    let (_, stranger) = self_signed("localhost");
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.crt");
    fs::write(&other, stranger).unwrap();
    let root = |path: &std::path::Path, rest: &str| {
        encrypted(
            &server,
            &format!("user=trusted sslrootcert='{}' {rest}", path.display()),
        )
    };
    assert!(root(&cert, "sslmode=verify-ca").unwrap());
    // The certificate is for localhost, not for 127.0.0.1.
    let mismatch = root(&cert, "sslmode=verify-full").unwrap_err();
    assert_eq!(mismatch.kind(), ConnectErrorKind::Tls, "{mismatch:?}");
    assert!(root(&cert, "sslmode=verify-full host=localhost hostaddr=127.0.0.1").unwrap());
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = root(&other, &format!("sslmode={mode}")).unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Tls, "{mode}: {error:?}");
        assert!(
            failure(&error).to_string().contains("self"),
            "{}",
            failure(&error)
        );
    }
    // As libpq: preferring TLS means going without where it fails.
    assert!(!root(&other, "sslmode=prefer").unwrap());
}

#[test]
fn channel_binding_is_used_where_demanded_or_the_connection_refused() {
    let server = server();
    let demand = "user=scram password='pa:ss\\\\word' channel_binding=require";
    let unbound = encrypted(&server, &format!("{demand} sslmode=disable")).unwrap_err();
    assert_eq!(unbound.kind(), ConnectErrorKind::Authentication);
    let bound = encrypted(&server, &format!("{demand} sslmode=require"));
    let trusted = connect(&server.conninfo("dbname=postgres"), &environment()).unwrap();
    // Servers have it from 11 on.
    match trusted.server_version().major() {
        11.. => assert!(bound.unwrap()),
        _ => assert_eq!(bound.unwrap_err().kind(), ConnectErrorKind::Authentication),
    }
}

#[test]
fn a_closed_port_is_unreachable() {
    let port = closed_port();
    let conninfo = Conninfo::parse(&format!("host=127.0.0.1 port={port} user=u password=s3cret")).unwrap();
    let error = connect(&conninfo, &Environment::empty()).unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
    assert!(
        matches!(failure(&error), Failure::Network(e) if e.kind() == std::io::ErrorKind::ConnectionRefused)
    );
    assert!(!format!("{error:?}").contains("s3cret"));
}

#[test]
fn a_server_that_accepts_and_never_answers_times_out() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    for sslmode in ["disable", "prefer", "require"] {
        let conninfo =
            Conninfo::parse(&format!("host=127.0.0.1 port={port} user=u sslmode={sslmode}")).unwrap();
        let begin = Instant::now();
        let error = connect(&conninfo, &Environment::empty()).unwrap_err();
        assert!(matches!(failure(&error), Failure::Timeout(_)), "{error:?}");
        assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{sslmode}: {:?}",
            begin.elapsed()
        );
    }
}

#[test]
fn the_next_host_is_tried_if_one_is_unreachable_but_not_if_it_refuses() {
    let server = server();
    let closed = closed_port();
    let both = |user: &str, first: u16, second: u16| {
        let text = format!("host=127.0.0.1,127.0.0.1 port={first},{second} user={user} dbname=postgres");
        connect(&Conninfo::parse(&text).unwrap(), &environment())
    };
    assert_eq!(
        both("trusted", closed, server.port).unwrap().endpoint().port,
        server.port
    );
    let refused = both("nobody", server.port, closed).unwrap_err();
    assert_eq!(refused.kind(), ConnectErrorKind::Authentication);
    let dead = both("trusted", closed, closed).unwrap_err().to_string();
    assert!(dead.contains("tried before: host \"127.0.0.1\", port"), "{dead}");
}

#[test]
fn a_service_file_can_hold_it_all() {
    let server = server();
    let home = tempfile::tempdir().unwrap();
    let text = format!(
        "[up]\nhost=127.0.0.1\nport={}\nuser=trusted\ndbname=postgres\n",
        server.port
    );
    fs::write(home.path().join(".pg_service.conf"), text).unwrap();
    let conninfo = Conninfo::parse("service=up").unwrap();
    connect(&conninfo, &Environment::empty().with_home(home.path())).unwrap();
}

#[test]
fn inside_a_runtime_a_closed_port_is_unreachable_too() {
    // By name: looking it up takes a thread of the runtime's own.
    let text = format!("host=localhost port={} user=u", closed_port());
    let conninfo = Conninfo::parse(&text).unwrap();
    for runtime in runtimes() {
        let error = runtime.block_on(async { connect(&conninfo, &Environment::empty()).unwrap_err() });
        assert_eq!(error.kind(), ConnectErrorKind::Unreachable, "{error:?}");
    }
}

#[test]
fn inside_a_runtime_sessions_work_and_can_be_dropped() {
    async fn session(server: Arc<Server>) -> Upstream {
        let upstream = connect(&server.conninfo("dbname=postgres"), &environment()).unwrap();
        let replication = server.conninfo("user=scram password='pa:ss\\\\word'");
        let walsender = connect_replication(&replication, &environment()).unwrap();
        let id = upstream.system_identifier().unwrap();
        assert_eq!(walsender.identify_system().unwrap().system_identifier, id);
        upstream
    }
    let server = server();
    for runtime in runtimes() {
        runtime.block_on(async {
            drop(session(server.clone()).await);
            let upstream = tokio::spawn(session(server.clone())).await.unwrap();
            let blocking = tokio::task::spawn_blocking(move || upstream.is_in_recovery().unwrap());
            assert!(!blocking.await.unwrap());
        });
    }
}
