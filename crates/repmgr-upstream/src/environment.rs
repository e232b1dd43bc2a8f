use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ConnectError;

/// Connection parameters and the environment variables libpq 18 takes their defaults from.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("application_name", "PGAPPNAME"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslsni", "PGSSLSNI"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("requirepeer", "PGREQUIREPEER"),
    ("require_auth", "PGREQUIREAUTH"),
    ("gssencmode", "PGGSSENCMODE"),
    ("min_protocol_version", "PGMINPROTOCOLVERSION"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

/// Read, but not the default of one parameter.
const OTHER_VARIABLES: &[&str] = &["PGREQUIRESSL", "PGSYSCONFDIR"];

/// What libpq would take from the process it runs in: `PG...` variables, the home directory
/// and the operating system's user name. Nothing else in this crate looks at the process.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<&'static str, OsString>,
    home: Option<PathBuf>,
    os_user: Option<String>,
}

impl Environment {
    /// Reads this process's environment variables, home directory and effective user.
    pub fn from_process() -> Self {
        Self {
            variables: Self::known_variables()
                .filter_map(|name| Some((name, std::env::var_os(name)?)))
                .collect(),
            home: std::env::home_dir(),
            os_user: whoami::username().ok(),
        }
    }

    /// An environment in which nothing is set.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Sets an environment variable; one that libpq does not read has no effect.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        if let Some(known) = Self::known_variables().find(|known| *known == name) {
            self.variables.insert(known, value.into());
        }
        self
    }

    /// This one without a password and the name of a password file; `None` if it has neither.
    pub fn without_password(&self) -> Option<Self> {
        let mut without = self.clone();
        let password = without.variables.remove("PGPASSWORD");
        let file = without.variables.remove("PGPASSFILE");
        password.or(file).map(|_| without)
    }

    /// Sets the directory in which `.pgpass`, `.pg_service.conf` and `.postgresql` are looked for.
    #[must_use]
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// Sets the name that serves as PostgreSQL user where none is given.
    #[must_use]
    pub fn with_os_user(mut self, name: impl Into<String>) -> Self {
        self.os_user = Some(name.into());
        self
    }

    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    pub(crate) fn os_user(&self) -> Option<&str> {
        self.os_user.as_deref()
    }

    /// A variable's value; an empty one counts as unset.
    pub(crate) fn variable(&self, name: &str) -> Result<Option<&str>, ConnectError> {
        let Some(value) = self.variables.get(name) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or_else(|| ConnectError::Parameter {
            keyword: name.to_owned(),
            reason: "the environment variable is not valid UTF-8".to_owned(),
        })?;
        Ok((!text.is_empty()).then_some(text))
    }

    /// Makes libpq in a program see what this environment holds, and none of our process's own.
    pub(crate) fn apply_to(&self, command: &mut Command) {
        for name in Self::known_variables() {
            match self.variables.get(name) {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let (Some(user), false) = (&self.os_user, self.variables.contains_key("PGUSER")) {
            command.env("PGUSER", user);
        }
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
    }

    fn known_variables() -> impl Iterator<Item = &'static str> {
        VARIABLES
            .iter()
            .map(|(_, name)| *name)
            .chain(OTHER_VARIABLES.iter().copied())
    }
}

/// Names only: `PGPASSWORD` may be among them.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .field("home", &self.home)
            .field("os_user", &self.os_user)
            .finish()
    }
}
