//! How this program calls what would help: its options and the parameters of `repmgr.conf`.

use repmgr_types::{Hint, Remedy};

/// A hint in the words of this program.
pub(crate) fn in_words(hint: &Hint) -> String {
    hint.render(|remedy, value| match value {
        Some(value) => with_value(remedy, value),
        None => named(remedy).to_owned(),
    })
}

/// Options take their value after `=`; parameters are shown as the file has them.
fn with_value(remedy: Remedy, value: &str) -> String {
    match remedy {
        Remedy::BarmanHost => format!("barman_host = '{value}'"),
        Remedy::DataDirectory => format!("data_directory = '{value}' in repmgr.conf"),
        _ => format!("{}={value}", named(remedy)),
    }
}

fn named(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Force => "-F/--force",
        Remedy::Backup => "--backup-id",
        Remedy::AcceptDamage => "--accept-damage",
        Remedy::RequireManifest => "--verify-backup",
        Remedy::TablespaceMapping => "tablespace_mapping in repmgr.conf",
        Remedy::WalDirectory => "--waldir in pg_basebackup_options",
        Remedy::DataDirectory => "data_directory in repmgr.conf",
        Remedy::RestoreCommand => "restore_command in repmgr.conf",
        Remedy::AcceptMissingWal => "--accept-missing-wal",
        Remedy::ReplicationSlot => "use_replication_slots in repmgr.conf",
        Remedy::BinDir => "\"pg_bindir\"",
        Remedy::Connection => "-h, -p and -d",
        Remedy::Database => "-d",
        Remedy::NoUpstreamConnection => "--no-upstream-connection",
        Remedy::UpstreamConninfo => "--upstream-conninfo",
        Remedy::UpstreamNode => "--upstream-node-id",
        Remedy::NodeId => "node_id in repmgr.conf",
        Remedy::Superuser => "-S/--superuser",
        Remedy::ReplicationUser => "--replication-user",
        Remedy::Password => "use_primary_conninfo_password in repmgr.conf",
        Remedy::PasswordFile => "passfile in repmgr.conf",
        Remedy::FastCheckpoint => "-c/--fast-checkpoint",
        Remedy::BaseBackupOptions => "\"pg_basebackup_options\"",
        Remedy::BarmanHost => "barman_host",
        Remedy::BarmanUser => "USER@ in barman_host",
        Remedy::BarmanServer => "barman_server",
        Remedy::BarmanConfig => "barman_config",
        Remedy::BarmanCommand => "barman_command",
        Remedy::SshOptions => "ssh_options",
        Remedy::Jobs => "--jobs",
        Remedy::StartCommand => "service_start_command in repmgr.conf",
        Remedy::ExternalFiles => "--copy-external-config-files",
        other => other.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_what_a_user_can_type() {
        let hint = Hint::new("use ")
            .remedy(Remedy::Force)
            .words(" to overwrite it, or ")
            .remedy_with(Remedy::Backup, "20261126T010513");
        assert_eq!(
            in_words(&hint),
            "use -F/--force to overwrite it, or --backup-id=20261126T010513"
        );
        let host = Hint::new("log in as Barman: ").remedy_with(Remedy::BarmanHost, "barman@HOST");
        assert_eq!(in_words(&host), "log in as Barman: barman_host = 'barman@HOST'");
        let there = Hint::new("to replace it, set ").remedy_with(Remedy::DataDirectory, "/srv/15");
        assert_eq!(
            in_words(&there),
            "to replace it, set data_directory = '/srv/15' in repmgr.conf"
        );
    }
}
