//! TLS as libpq 15 sets it up: which certificates, which files by default, what is verified.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::{X509Lookup, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use postgres_openssl::MakeTlsConnector;

use crate::params::Params;
use crate::{ConnectError, Environment};

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// `sslmode`, PGREQUIRESSL's old way of saying `require`, or libpq's default.
    pub(crate) fn from_params(params: &Params, env: &Environment) -> Result<Self, ConnectError> {
        let system_roots = params.get("sslrootcert") == Some("system");
        let mode = match params.get("sslmode") {
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            Some("prefer") => SslMode::Prefer,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(other) => return Err(Params::invalid("sslmode", format!("unknown value \"{other}\""))),
            None if system_roots => SslMode::VerifyFull,
            None if env.variable("PGREQUIRESSL")?.is_some_and(|v| v.starts_with('1')) => SslMode::Require,
            None => SslMode::Prefer,
        };
        if system_roots && mode != SslMode::VerifyFull {
            return Err(Params::invalid(
                "sslmode",
                "only \"verify-full\" may be used with sslrootcert=system".to_owned(),
            ));
        }
        Ok(mode)
    }
}

/// The connector for `mode`, its files read and checked.
pub(crate) fn connector(
    mode: SslMode,
    params: &Params,
    env: &Environment,
) -> Result<MakeTlsConnector, ConnectError> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(ConnectError::TlsSetup)?;
    let verify = trust(&mut builder, mode, params, env)?;
    builder.set_verify(if verify {
        SslVerifyMode::PEER
    } else {
        SslVerifyMode::NONE
    });
    identify(&mut builder, params, env)?;
    let min = version(params, "ssl_min_protocol_version")?.or(Some(SslVersion::TLS1_2));
    let max = version(params, "ssl_max_protocol_version")?;
    (|| {
        builder.set_min_proto_version(min)?;
        builder.set_max_proto_version(max)?;
        if params.get("sslnegotiation") == Some("direct") {
            postgres_openssl::set_postgresql_alpn(&mut builder)?;
        }
        Ok(())
    })()
    .map_err(ConnectError::TlsSetup)?;

    let sni = params.get("sslsni") != Some("0");
    let mut connector = MakeTlsConnector::new(builder.build());
    connector.set_callback(move |connection, _host| {
        connection.set_use_server_name_indication(sni);
        connection.set_verify_hostname(mode == SslMode::VerifyFull);
        Ok(())
    });
    Ok(connector)
}

/// Loads root certificates and revocation lists. Gives whether the server's certificate is to
/// be verified: as in libpq, whenever there is a root certificate, whatever the mode.
fn trust(
    builder: &mut SslConnectorBuilder,
    mode: SslMode,
    params: &Params,
    env: &Environment,
) -> Result<bool, ConnectError> {
    let root = File::find(
        "root certificate file",
        params.get("sslrootcert"),
        env,
        "root.crt",
    );
    let system = params.get("sslrootcert") == Some("system");
    let roots = match &root {
        Some(file) if !system => match file.read()? {
            Some(pem) => X509::stack_from_pem(&pem).map_err(|e| file.bad(&e))?,
            None if file.explicit || mode >= SslMode::VerifyCa => return Err(file.missing()),
            None => return Ok(false),
        },
        None if mode >= SslMode::VerifyCa => {
            return Err(Params::invalid(
                "sslrootcert",
                "certificates are to be verified, but no file is known".to_owned(),
            ));
        }
        None => return Ok(false),
        Some(_) => Vec::new(),
    };
    if let Some(file) = root.filter(|_| roots.is_empty() && !system) {
        return Err(file.refuse("it holds no certificate"));
    }
    let crl = File::find(
        "certificate revocation list",
        params.get("sslcrl"),
        env,
        "root.crl",
    );
    let crl = match crl {
        Some(file) => match file.read()? {
            Some(_) => Some(file),
            None if file.explicit => return Err(file.missing()),
            None => None,
        },
        None => None,
    };
    // A store of its own: the system's authorities must not vouch where others are named.
    let mut store = X509StoreBuilder::new().map_err(ConnectError::TlsSetup)?;
    if system {
        store.set_default_paths().map_err(ConnectError::TlsSetup)?;
    }
    for root in roots {
        store.add_cert(root).map_err(ConnectError::TlsSetup)?;
    }
    if let Some(file) = crl {
        let lookup = store
            .add_lookup(X509Lookup::file())
            .map_err(ConnectError::TlsSetup)?;
        lookup
            .load_crl_file(&file.path, SslFiletype::PEM)
            .map_err(|e| file.bad(&e))?;
        store
            .set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)
            .map_err(ConnectError::TlsSetup)?;
    }
    builder.set_cert_store(store.build());
    Ok(true)
}

/// Loads the client's own certificate and key, if there are any.
fn identify(
    builder: &mut SslConnectorBuilder,
    params: &Params,
    env: &Environment,
) -> Result<(), ConnectError> {
    if params.get("sslcertmode") == Some("disable") {
        return Ok(());
    }
    let Some(cert) = File::find("certificate file", params.get("sslcert"), env, "postgresql.crt") else {
        return Ok(());
    };
    let Some(pem) = cert.read()? else {
        return if cert.explicit {
            Err(cert.missing())
        } else {
            Ok(())
        };
    };
    let mut chain = X509::stack_from_pem(&pem).map_err(|e| cert.bad(&e))?.into_iter();
    let leaf = chain
        .next()
        .ok_or_else(|| cert.refuse("it holds no certificate"))?;
    let key_file = File::find("private key file", params.get("sslkey"), env, "postgresql.key")
        .ok_or_else(|| cert.refuse("it has no private key: sslkey is not set"))?;
    let key = private_key(&key_file, params.get("sslpassword"))?;
    (|| {
        builder.set_certificate(&leaf)?;
        chain.try_for_each(|issuer| builder.add_extra_chain_cert(issuer))?;
        builder.set_private_key(&key)
    })()
    .map_err(|e| key_file.bad(&e))
}

fn private_key(file: &File, password: Option<&str>) -> Result<PKey<Private>, ConnectError> {
    let pem = file.read()?.ok_or_else(|| file.missing())?;
    let meta = fs::metadata(&file.path).map_err(|e| file.unreadable(e))?;
    // libpq's rule: 0600, or 0640 if root owns it.
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.mode() & forbidden != 0 {
        let mode = meta.mode() & 0o777;
        return Err(file.refuse(&format!(
            "it has mode {mode:04o}; it must not be accessible to others (0600)"
        )));
    }
    // With a password, even an empty one, OpenSSL does not ask on the terminal.
    PKey::private_key_from_pem_passphrase(&pem, password.unwrap_or_default().as_bytes())
        .map_err(|e| file.bad(&e))
}

fn version(params: &Params, keyword: &str) -> Result<Option<SslVersion>, ConnectError> {
    Ok(Some(
        match params.get(keyword).map(str::to_ascii_lowercase).as_deref() {
            None => return Ok(None),
            Some("tlsv1") => SslVersion::TLS1,
            Some("tlsv1.1") => SslVersion::TLS1_1,
            Some("tlsv1.2") => SslVersion::TLS1_2,
            Some("tlsv1.3") => SslVersion::TLS1_3,
            Some(other) => {
                return Err(Params::invalid(
                    keyword,
                    format!("unknown TLS version \"{other}\""),
                ));
            }
        },
    ))
}

/// A file named by a parameter, or the one libpq looks for in `~/.postgresql`.
struct File {
    purpose: &'static str,
    path: PathBuf,
    explicit: bool,
}

impl File {
    fn find(purpose: &'static str, named: Option<&str>, env: &Environment, default: &str) -> Option<Self> {
        let path = match named {
            Some(path) => PathBuf::from(path),
            None => env.home()?.join(".postgresql").join(default),
        };
        Some(Self {
            purpose,
            path,
            explicit: named.is_some(),
        })
    }

    /// `None` if there is no such file.
    fn read(&self) -> Result<Option<Vec<u8>>, ConnectError> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(self.unreadable(e)),
        }
    }

    fn unreadable(&self, source: io::Error) -> ConnectError {
        ConnectError::File {
            purpose: self.purpose,
            path: self.path.clone(),
            source,
        }
    }

    fn missing(&self) -> ConnectError {
        self.unreadable(io::ErrorKind::NotFound.into())
    }

    fn refuse(&self, reason: &str) -> ConnectError {
        ConnectError::BadFile {
            purpose: self.purpose,
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }

    fn bad(&self, stack: &ErrorStack) -> ConnectError {
        let reason = stack
            .errors()
            .first()
            .and_then(|e| e.reason())
            .unwrap_or("not usable as PEM");
        self.refuse(reason)
    }
}

#[cfg(test)]
#[path = "tls/tests.rs"]
mod tests;
