//! What to do next, in words that leave a front-end's own names open.

use std::borrow::Cow;
use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// What would help, as a value. A front-end has its own name for each: an option of a command line, a
/// parameter of a configuration file, a field of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remedy {
    /// Do it although what is there will be replaced, or a check stands against it.
    Force,
    /// Choose a backup.
    Backup,
    /// Go on with files that fail a check.
    AcceptDamage,
    /// Demand a manifest, or do not.
    RequireManifest,
    /// Say where a tablespace goes.
    TablespaceMapping,
    /// Say where WAL goes.
    WalDirectory,
    /// Say where the data directory is.
    DataDirectory,
    /// Say how the standby gets WAL from the archive.
    RestoreCommand,
    /// Go on although WAL that the standby needs cannot be had, as far as can be seen.
    AcceptMissingWal,
    /// Stream through a replication slot, or not.
    ReplicationSlot,
    /// Say where PostgreSQL's programs are.
    BinDir,
    /// Say how the source node is reached: host, port, database.
    Connection,
    /// Say which database holds repmgr's metadata.
    Database,
    /// Do without a connection to the upstream node.
    NoUpstreamConnection,
    /// Give the upstream node's connection string.
    UpstreamConninfo,
    /// Say which node is the upstream.
    UpstreamNode,
    /// Say which node the standby is.
    NodeId,
    /// Name a role for what the others may not do.
    Superuser,
    /// Name the role for replication connections.
    ReplicationUser,
    /// Give the standby a password.
    Password,
    /// Give the standby a password file.
    PasswordFile,
    /// Ask the source for an immediate checkpoint.
    FastCheckpoint,
    /// Options for `pg_basebackup`.
    BaseBackupOptions,
    /// Name the Barman host, and the user there.
    BarmanHost,
    /// Name the user to log in as on the Barman host.
    BarmanUser,
    /// Name the server in Barman's configuration.
    BarmanServer,
    /// Name Barman's configuration file on its host.
    BarmanConfig,
    /// Say how Barman is called on its host.
    BarmanCommand,
    /// Options for SSH.
    SshOptions,
    /// Parallel sessions.
    Jobs,
    /// Say how the server is started here.
    StartCommand,
    /// Say where configuration files outside the data directory go.
    ExternalFiles,
}

impl Remedy {
    /// Its name where no front-end has a better one; stable, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Force => "force",
            Self::Backup => "backup",
            Self::AcceptDamage => "accept_damage",
            Self::RequireManifest => "require_manifest",
            Self::TablespaceMapping => "tablespace_mapping",
            Self::WalDirectory => "wal_directory",
            Self::DataDirectory => "data_directory",
            Self::RestoreCommand => "restore_command",
            Self::AcceptMissingWal => "accept_missing_wal",
            Self::ReplicationSlot => "replication_slot",
            Self::BinDir => "bin_dir",
            Self::Connection => "connection",
            Self::Database => "database",
            Self::NoUpstreamConnection => "no_upstream_connection",
            Self::UpstreamConninfo => "upstream_conninfo",
            Self::UpstreamNode => "upstream_node_id",
            Self::NodeId => "node_id",
            Self::Superuser => "superuser",
            Self::ReplicationUser => "replication_user",
            Self::Password => "password",
            Self::PasswordFile => "passfile",
            Self::FastCheckpoint => "fast_checkpoint",
            Self::BaseBackupOptions => "base_backup_options",
            Self::BarmanHost => "barman_host",
            Self::BarmanUser => "barman_user",
            Self::BarmanServer => "barman_server",
            Self::BarmanConfig => "barman_config",
            Self::BarmanCommand => "barman_command",
            Self::SshOptions => "ssh_options",
            Self::Jobs => "jobs",
            Self::StartCommand => "start_command",
            Self::ExternalFiles => "external_files",
        }
    }
}

/// What to do next: words, and between them what would help as a [`Remedy`], which the front-end names.
///
/// ```
/// use repmgr_types::{Hint, Remedy};
///
/// let hint = Hint::new("use ").remedy(Remedy::Force).words(" to overwrite it");
/// assert_eq!(hint.to_string(), "use force to overwrite it");
/// assert_eq!(hint.render(|_, _| "-F/--force".into()), "use -F/--force to overwrite it");
/// assert_eq!(hint.remedies().collect::<Vec<_>>(), [Remedy::Force]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hint {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Words(Cow<'static, str>),
    Remedy { remedy: Remedy, value: Option<String> },
}

impl Hint {
    /// Begins with words.
    pub fn new(words: impl Into<Cow<'static, str>>) -> Self {
        Self::default().words(words)
    }

    /// Goes on with words.
    #[must_use]
    pub fn words(mut self, words: impl Into<Cow<'static, str>>) -> Self {
        self.parts.push(Part::Words(words.into()));
        self
    }

    /// Goes on with what would help.
    #[must_use]
    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.parts.push(Part::Remedy { remedy, value: None });
        self
    }

    /// Goes on with what would help, set to this value.
    #[must_use]
    pub fn remedy_with(mut self, remedy: Remedy, value: impl Into<String>) -> Self {
        let value = Some(value.into());
        self.parts.push(Part::Remedy { remedy, value });
        self
    }

    /// Goes on with another hint.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// What would help, as values.
    pub fn remedies(&self) -> impl Iterator<Item = Remedy> {
        self.parts.iter().filter_map(|part| match part {
            Part::Words(_) => None,
            Part::Remedy { remedy, .. } => Some(*remedy),
        })
    }

    /// The sentence, with a front-end's name for each remedy and the value it should have.
    pub fn render(&self, mut name: impl FnMut(Remedy, Option<&str>) -> String) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Words(words) => words.clone(),
                Part::Remedy { remedy, value } => name(*remedy, value.as_deref()).into(),
            })
            .collect()
    }
}

impl fmt::Display for Hint {
    /// With the names of [`Remedy::name`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |remedy: Remedy, value: Option<&str>| match value {
            Some(value) => format!("{}={value}", remedy.name()),
            None => remedy.name().to_owned(),
        };
        f.write_str(&self.render(named))
    }
}

/// `{"text": "use force to overwrite it", "remedies": ["force"]}`.
impl Serialize for Hint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let remedies: Vec<&str> = self.remedies().map(Remedy::name).collect();
        let mut fields = serializer.serialize_struct("Hint", 2)?;
        fields.serialize_field("text", &self.to_string())?;
        fields.serialize_field("remedies", &remedies)?;
        fields.end()
    }
}

impl From<&'static str> for Hint {
    fn from(words: &'static str) -> Self {
        Self::new(words)
    }
}

impl From<String> for Hint {
    fn from(words: String) -> Self {
        Self::new(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_with_the_name() {
        let hint = Hint::new("").remedy_with(Remedy::Backup, "20261126T010513");
        let hint = hint.then(" continues it".into());
        assert_eq!(hint.to_string(), "backup=20261126T010513 continues it");
        let option = |_, value: Option<&str>| format!("--backup-id={}", value.unwrap_or("ID"));
        assert_eq!(hint.render(option), "--backup-id=20261126T010513 continues it");
    }

    #[test]
    fn words_alone_have_no_remedy() {
        let hint = Hint::from("stop the server first");
        assert_eq!(hint.remedies().count(), 0);
        assert_eq!(hint.to_string(), "stop the server first");
    }
}
