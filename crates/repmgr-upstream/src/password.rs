//! Whether a standby will have a password when its upstream node asks for one.

use std::path::PathBuf;

use repmgr_types::Conninfo;

use crate::params::Request;
use crate::passfile::Passfile;
use crate::{ConnectError, Endpoint, Environment};

/// Where a standby's password comes from. Holds none itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// The connection string has it, or the service that it names.
    Conninfo,
    /// A line of this file matches.
    Passfile(PathBuf),
    /// There is none.
    Missing {
        /// The first server for which there is none.
        server: Endpoint,
        /// Where it was looked for, if anywhere.
        passfile: Option<PathBuf>,
        /// Why that file does not help, as a clause: "it does not exist".
        reason: String,
    },
}

/// Where the WAL receiver of a standby with this `primary_conninfo` takes a password from, if it is
/// asked for one. Of `env` only the home directory counts, that of the user the standby runs as: what is set in
/// this process's environment is not set in the server's.
///
/// # Errors
/// As for [`connect`](crate::connect), where no server needs to be asked.
pub fn standby_password(
    primary_conninfo: &Conninfo,
    env: &Environment,
) -> Result<PasswordSource, ConnectError> {
    let mut conninfo = primary_conninfo.clone();
    // For which a WAL receiver searches the file.
    conninfo.set("dbname", "replication");
    let env = env.without_password().unwrap_or_else(|| env.clone());
    let request = Request::new(&conninfo, &env)?;
    if request.params.get("password").is_some() {
        return Ok(PasswordSource::Conninfo);
    }
    let without = request
        .targets
        .iter()
        .find(|target| request.password(target).is_none());
    Ok(match (without, request.passfile_path) {
        (None, Some(path)) => PasswordSource::Passfile(path),
        (None, None) => PasswordSource::Conninfo,
        (Some(target), passfile) => PasswordSource::Missing {
            server: target.endpoint(),
            reason: match request.passfile {
                Passfile::Text(_) => format!(
                    "no line of it is for {}, database \"replication\", user \"{}\"",
                    target.endpoint(),
                    request.user
                ),
                Passfile::Ignored(why) => why,
                Passfile::Absent if passfile.is_some() => "it does not exist".to_owned(),
                Passfile::Absent => "the user has no home directory".to_owned(),
            },
            passfile,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn source(conninfo: &str, env: &Environment) -> PasswordSource {
        standby_password(&Conninfo::parse(conninfo).unwrap(), env).unwrap()
    }

    fn reason(conninfo: &str, env: &Environment) -> String {
        match source(conninfo, env) {
            PasswordSource::Missing { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_counts_is_what_the_standby_will_have() {
        let dir = tempfile::tempdir().unwrap();
        let own = Environment::empty().with_os_user("u").with_home(dir.path());
        let ours = own.clone().with_variable("PGPASSWORD", "ours");
        assert_eq!(source("host=h password=p", &own), PasswordSource::Conninfo);
        assert_eq!(reason("host=h", &ours), "it does not exist");

        let path = dir.path().join(".pgpass");
        fs::write(&path, "h:5432:replication:u:secret\ng:*:postgres:*:x\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(source("host=h", &own), PasswordSource::Passfile(path.clone()));
        assert!(reason("host=g", &own).contains("database \"replication\""));
        // Each of several servers must let it in.
        assert!(reason("host=h,g", &own).contains("host \"g\""));

        let other = dir.path().join("other");
        fs::write(&other, "*:*:*:*:x\n").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
        let named = format!("host=h passfile={}", other.display());
        assert!(reason(&named, &own).contains("0644"));
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(source(&named, &own), PasswordSource::Passfile(other));
        let debug = format!("{:?}", source("host=g", &own));
        assert!(!debug.contains("secret"), "{debug}");
    }
}
