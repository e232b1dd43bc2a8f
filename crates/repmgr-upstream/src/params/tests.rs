use super::*;
use crate::ConnectErrorKind;

fn request(conninfo: &str, env: &Environment) -> Result<Request, ConnectError> {
    Request::new(&Conninfo::parse(conninfo).unwrap(), env)
}

fn env() -> Environment {
    Environment::empty().with_os_user("osuser")
}

fn error(conninfo: &str) -> String {
    request(conninfo, &env()).map(|_| ()).unwrap_err().to_string()
}

fn endpoints(conninfo: &str) -> Vec<String> {
    let request = request(conninfo, &env()).unwrap();
    request
        .targets
        .iter()
        .map(|t| format!("{}:{}", t.endpoint().host, t.port))
        .collect()
}

#[test]
fn the_string_comes_before_the_service_before_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join(".pg_service.conf"),
        "[s]\nhost=service\nuser=service\n",
    )
    .unwrap();
    let env = env()
        .with_home(dir.path())
        .with_variable("PGHOST", "env")
        .with_variable("PGUSER", "env")
        .with_variable("PGPORT", "7777")
        .with_variable("PGDATABASE", "")
        .with_variable("PGSERVICE", "s");
    let request = request("host=string", &env).unwrap();
    assert_eq!(
        request.targets[0].endpoint(),
        Endpoint {
            host: "string".into(),
            port: 7777
        }
    );
    assert_eq!(
        (request.user.as_str(), request.dbname.as_str()),
        ("service", "service")
    );
}

#[test]
fn user_defaults_to_the_system_user_and_database_to_the_user() {
    let plain = request("host=h", &env()).unwrap();
    assert_eq!((plain.user.as_str(), plain.dbname.as_str()), ("osuser", "osuser"));
    assert_eq!(request("host=h user=u", &env()).unwrap().dbname, "u");
    assert!(request("host=h", &Environment::empty()).is_err());
}

#[test]
fn hosts_addresses_and_ports_pair_up() {
    assert_eq!(endpoints("host=a,b port=1,2"), ["a:1", "b:2"]);
    assert_eq!(endpoints("host=a,b port=1"), ["a:1", "b:1"]);
    assert_eq!(endpoints("host=a,b port=1,"), ["a:1", "b:5432"]);
    assert_eq!(
        endpoints("hostaddr=127.0.0.1,::1"),
        ["127.0.0.1:5432", "::1:5432"]
    );
    assert_eq!(endpoints("host=/run/pg port=1"), ["/run/pg:1"]);
    let named = request("host=name hostaddr=127.0.0.1", &env()).unwrap();
    assert_eq!(
        named.targets[0].place,
        Place::Tcp {
            host: Some("name".into()),
            addr: Some([127, 0, 0, 1].into())
        }
    );
    assert!(matches!(
        request("", &env()).unwrap().targets[0].place,
        Place::Socket(_)
    ));
}

#[test]
fn what_libpq_would_refuse_is_refused_by_name() {
    assert_eq!(
        error("host=a,b port=1,2,3"),
        "invalid connection parameter \"port\": 3 ports do not match 2 hosts"
    );
    assert!(error("host=a,b hostaddr=127.0.0.1").contains("\"hostaddr\""));
    for (conninfo, keyword) in [
        ("port=0", "port"),
        ("port=65536", "port"),
        ("hostaddr=name", "hostaddr"),
        ("connect_timeout=soon", "connect_timeout"),
        ("sslmode=maybe", "sslmode"),
        ("target_session_attrs=secondary", "target_session_attrs"),
        ("channel_binding=yes", "channel_binding"),
        ("sslnegotiation=direct sslmode=prefer", "sslnegotiation"),
        ("sslrootcert=system sslmode=require", "sslmode"),
        ("host=@abstract", "host"),
    ] {
        assert!(
            error(conninfo).contains(&format!("\"{keyword}\"")),
            "{conninfo}: {}",
            error(conninfo)
        );
    }
}

#[test]
fn protection_that_cannot_be_given_is_refused_not_dropped() {
    for conninfo in [
        "gssencmode=require",
        "require_auth=scram-sha-256",
        "requirepeer=postgres",
        "sslcrldir=/etc/crl",
        "sslcertmode=require",
        "min_protocol_version=3.2",
    ] {
        let refused = request(conninfo, &env()).map(|_| ()).unwrap_err();
        assert!(
            matches!(refused, ConnectError::Unsupported { .. }),
            "{conninfo}: {refused}"
        );
        assert_eq!(refused.kind(), ConnectErrorKind::Configuration);
        assert!(refused.hint().is_some());
    }
    let from_env = env().with_variable("PGREQUIREAUTH", "scram-sha-256");
    assert!(matches!(
        request("host=h", &from_env),
        Err(ConnectError::Unsupported { .. })
    ));
    assert!(request("gssencmode=prefer sslcertmode=allow krbsrvname=x", &env()).is_ok());
}

#[test]
fn waiting_has_an_end() {
    let seconds = |conninfo| request(conninfo, &env()).unwrap().timeout.as_secs();
    assert_eq!(seconds("host=h"), 2);
    assert_eq!(seconds("connect_timeout=1"), 2);
    assert_eq!(seconds("connect_timeout=10"), 10);
    assert_eq!(seconds("connect_timeout=0"), 60);
    assert_eq!(
        request("", &env().with_variable("PGCONNECT_TIMEOUT", "7"))
            .unwrap()
            .timeout
            .as_secs(),
        7
    );
}

#[test]
fn sslmode_follows_string_and_environment() {
    let mode = |conninfo, env: Environment| request(conninfo, &env).unwrap().sslmode;
    assert_eq!(mode("", env()), SslMode::Prefer);
    assert_eq!(
        mode("", env().with_variable("PGREQUIRESSL", "1")),
        SslMode::Require
    );
    assert_eq!(
        mode("sslmode=disable", env().with_variable("PGREQUIRESSL", "1")),
        SslMode::Disable
    );
    assert_eq!(
        mode("", env().with_variable("PGSSLMODE", "verify-ca")),
        SslMode::VerifyCa
    );
    assert_eq!(mode("sslrootcert=system", env()), SslMode::VerifyFull);
}

#[test]
fn the_password_file_is_asked_per_host_and_a_given_password_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".pgpass");
    std::fs::write(&path, "a:1:*:*:for-a\nlocalhost:*:*:*:for-local\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let env = env().with_home(dir.path());
    let passwords = |conninfo| {
        let request = request(conninfo, &env).unwrap();
        let text = |t| request.password(t).map(|p| String::from_utf8(p).unwrap());
        request.targets.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(passwords("host=a,b port=1"), [Some("for-a".to_owned()), None]);
    assert_eq!(passwords("host=/tmp"), [Some("for-local".to_owned())]);
    assert_eq!(
        passwords("host=a port=1 password=given"),
        [Some("given".to_owned())]
    );
}

#[test]
fn no_debug_output_holds_a_secret() {
    let env = env().with_variable("PGPASSWORD", "s3cret");
    assert!(!format!("{env:?}").contains("s3cret"));
}
