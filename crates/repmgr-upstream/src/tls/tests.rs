use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use repmgr_types::Conninfo;

use super::*;
use crate::params::Request;

fn build(conninfo: &str, home: &Path) -> Result<(), ConnectError> {
    let env = Environment::empty().with_os_user("u").with_home(home);
    let request = Request::new(&Conninfo::parse(conninfo).unwrap(), &env)?;
    connector(request.sslmode, &request.params, &env).map(|_| ())
}

fn home_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".postgresql")).unwrap();
    for (name, text) in files {
        fs::write(home.path().join(".postgresql").join(name), text).unwrap();
    }
    home
}

/// A key and a certificate it signed itself, as PEM.
fn identity() -> (String, String) {
    let key = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    let mut cert = X509::builder().unwrap();
    cert.set_pubkey(&key).unwrap();
    cert.set_not_before(&openssl::asn1::Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    cert.set_not_after(&openssl::asn1::Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    cert.sign(&key, openssl::hash::MessageDigest::sha256()).unwrap();
    let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
    (
        text(key.private_key_to_pem_pkcs8().unwrap()),
        text(cert.build().to_pem().unwrap()),
    )
}

#[test]
fn verification_needs_a_root_certificate() {
    let home = home_with(&[]);
    assert!(build("sslmode=require", home.path()).is_ok());
    for conninfo in [
        "sslmode=verify-ca",
        "sslmode=verify-full",
        "sslmode=prefer sslrootcert=/nonexistent",
    ] {
        let error = build(conninfo, home.path()).unwrap_err();
        assert!(
            matches!(
                error,
                ConnectError::File {
                    purpose: "root certificate file",
                    ..
                }
            ),
            "{error}"
        );
    }
    assert!(build("sslrootcert=system", home.path()).is_ok());
}

#[test]
fn a_root_certificate_that_is_none_is_refused() {
    let home = home_with(&[("root.crt", "nothing of the kind")]);
    let error = build("sslmode=verify-ca", home.path()).unwrap_err();
    assert!(matches!(error, ConnectError::BadFile { .. }), "{error}");
}

#[test]
fn the_clients_key_must_be_there_private_and_readable_without_asking() {
    let (key, cert) = identity();
    let home = home_with(&[("postgresql.crt", &cert)]);
    assert!(
        build("sslmode=require", home.path())
            .unwrap_err()
            .to_string()
            .contains("private key file")
    );

    let key_path = home.path().join(".postgresql/postgresql.key");
    fs::write(&key_path, &key).unwrap();
    fs::set_permissions(&key_path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        build("sslmode=require", home.path())
            .unwrap_err()
            .to_string()
            .contains("0644")
    );
    fs::set_permissions(&key_path, fs::Permissions::from_mode(0o600)).unwrap();
    build("sslmode=require", home.path()).unwrap();
    build(
        "sslmode=require sslcertmode=disable sslkey=/nonexistent",
        home.path(),
    )
    .unwrap();

    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let locked = PKey::private_key_from_pem(key.as_bytes()).unwrap();
    fs::write(
        &key_path,
        locked
            .private_key_to_pem_pkcs8_passphrase(cipher, b"s3cret")
            .unwrap(),
    )
    .unwrap();
    build("sslmode=require sslpassword=s3cret", home.path()).unwrap();
    for conninfo in ["sslmode=require", "sslmode=require sslpassword=wr0ng"] {
        let error = build(conninfo, home.path()).unwrap_err();
        assert!(
            matches!(
                error,
                ConnectError::BadFile {
                    purpose: "private key file",
                    ..
                }
            ),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("wr0ng"));
    }
}

#[test]
fn tls_versions_are_named_as_in_libpq() {
    let home = home_with(&[]);
    assert!(build("sslmode=require ssl_min_protocol_version=TLSv1.3", home.path()).is_ok());
    assert!(build("sslmode=require ssl_min_protocol_version=SSLv3", home.path()).is_err());
}
