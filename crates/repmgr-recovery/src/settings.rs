use repmgr_guc::{SyntaxError, quote_value};
use repmgr_types::{Conninfo, PgVersion};

const STANDBY_SIGNAL: &[u8] = b"# created by repmgr\n";

/// How a PostgreSQL version is told to be a standby. The wrong way can come up read-write:
/// PostgreSQL 10 and 11 ignore `standby.signal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// `recovery.conf`: up to PostgreSQL 11.
    RecoveryConf,
    /// `standby.signal` and settings in `postgresql.auto.conf`: from PostgreSQL 12 on.
    StandbySignal,
}

impl Mechanism {
    /// The one that `version` obeys.
    pub fn for_version(version: PgVersion) -> Self {
        if version.uses_recovery_conf() {
            Self::RecoveryConf
        } else {
            Self::StandbySignal
        }
    }

    /// The file with the settings, relative to the data directory.
    pub fn file(self) -> &'static str {
        match self {
            Self::RecoveryConf => "recovery.conf",
            Self::StandbySignal => "postgresql.auto.conf",
        }
    }

    /// Files that would turn the standby into something else, or keep it from starting, if a
    /// backup brought them.
    pub fn files_to_remove(self) -> &'static [&'static str] {
        match self {
            Self::RecoveryConf => &["recovery.signal", "standby.signal"],
            Self::StandbySignal => &["recovery.signal", "recovery.conf"],
        }
    }

    /// What `standby.signal` holds. PostgreSQL looks only at whether it is there.
    pub fn standby_signal() -> &'static [u8] {
        STANDBY_SIGNAL
    }
}

/// What makes a server the standby of another.
#[derive(Debug, Clone, Default)]
pub struct ReplicationSettings {
    /// See [`PrimaryConninfo`](crate::PrimaryConninfo).
    pub primary_conninfo: Conninfo,
    /// The slot on the upstream node that keeps WAL for this standby.
    pub primary_slot_name: Option<String>,
    /// How far to stay behind, in PostgreSQL's notation: "5min".
    pub recovery_min_apply_delay: Option<String>,
    /// Fetches a WAL segment from the archive.
    pub restore_command: Option<String>,
    /// Tells the archive what is no longer needed.
    pub archive_cleanup_command: Option<String>,
    /// Write `recovery_target_timeline = 'latest'` also where it is the default (PostgreSQL 12
    /// and later): some configuration file that cannot be edited sets another.
    pub pin_latest_timeline: bool,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// PostgreSQL itself would refuse the file.
    #[error("syntax error in postgresql.auto.conf")]
    AutoConf(#[source] SyntaxError),
    /// A value PostgreSQL cannot hold.
    #[error("value of \"{name}\" contains a NUL character")]
    Nul {
        /// The setting.
        name: &'static str,
    },
}

impl RecoveryError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AutoConf(_) => Some(
                "PostgreSQL cannot start with this file either: repair it; for a clone where the backup comes \
                 from, or with ALTER SYSTEM there, and take a new backup"
                    .to_owned(),
            ),
            Self::Nul { .. } => None,
        }
    }
}

impl ReplicationSettings {
    /// A whole `recovery.conf` for PostgreSQL 11 or older, one setting per line in repmgr's order.
    pub fn render_recovery_conf(&self) -> Result<String, RecoveryError> {
        let [conninfo, rest @ ..] = self.common();
        let fixed = |name, value: &str| (name, Some(value.to_owned()));
        [
            fixed("standby_mode", "on"),
            conninfo,
            fixed("recovery_target_timeline", "latest"),
        ]
        .into_iter()
        .chain(rest)
        .filter_map(|(name, value)| Some(render_line(name, &value?)))
        .collect()
    }

    /// The lines that the mechanism's file will have, fit to be shown: secrets are hidden.
    ///
    /// # Errors
    /// A value PostgreSQL cannot hold.
    pub fn shown_lines(&self, mechanism: Mechanism) -> Result<Vec<String>, RecoveryError> {
        let mut shown = self.clone();
        for (keyword, _) in self.primary_conninfo.iter() {
            if Conninfo::is_secret(keyword) {
                shown.primary_conninfo.set(keyword, "********");
            }
        }
        let text = match mechanism {
            Mechanism::RecoveryConf => shown.render_recovery_conf()?,
            Mechanism::StandbySignal => shown.auto_conf_lines()?,
        };
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The lines to add to `postgresql.auto.conf` of PostgreSQL 12 or later.
    pub(crate) fn auto_conf_lines(&self) -> Result<String, RecoveryError> {
        let timeline = self.pin_latest_timeline.then(|| "latest".to_owned());
        self.common()
            .into_iter()
            .chain([("recovery_target_timeline", timeline)])
            .filter_map(|(name, value)| Some(render_line(name, &value?)))
            .collect()
    }

    fn common(&self) -> [(&'static str, Option<String>); 5] {
        [
            ("primary_conninfo", Some(self.primary_conninfo.to_libpq_string())),
            ("recovery_min_apply_delay", self.recovery_min_apply_delay.clone()),
            ("primary_slot_name", self.primary_slot_name.clone()),
            ("restore_command", self.restore_command.clone()),
            ("archive_cleanup_command", self.archive_cleanup_command.clone()),
        ]
    }
}

fn render_line(name: &'static str, value: &str) -> Result<String, RecoveryError> {
    if value.contains('\0') {
        return Err(RecoveryError::Nul { name });
    }
    Ok(format!("{name} = {}\n", quote_value(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> ReplicationSettings {
        ReplicationSettings {
            primary_conninfo: Conninfo::parse(r"host=h user=u password=secr\'et").unwrap(),
            primary_slot_name: Some("repmgr_slot_2".into()),
            recovery_min_apply_delay: Some("5min".into()),
            restore_command: Some("cp '/wal/%f' \"%p\"".into()),
            archive_cleanup_command: Some(r"clean \%r".into()),
            pin_latest_timeline: false,
        }
    }

    #[test]
    fn recovery_conf_says_everything_a_standby_up_to_11_needs() {
        assert_eq!(
            full().render_recovery_conf().unwrap(),
            r#"standby_mode = 'on'
primary_conninfo = 'host=h user=u password=''secr\\''et'''
recovery_target_timeline = 'latest'
recovery_min_apply_delay = '5min'
primary_slot_name = 'repmgr_slot_2'
restore_command = 'cp ''/wal/%f'' "%p"'
archive_cleanup_command = 'clean \\%r'
"#
        );
    }

    #[test]
    fn what_is_not_configured_is_not_written() {
        let settings = ReplicationSettings {
            primary_conninfo: Conninfo::parse("host=h").unwrap(),
            ..Default::default()
        };
        assert_eq!(
            settings.render_recovery_conf().unwrap(),
            "standby_mode = 'on'\nprimary_conninfo = 'host=h'\nrecovery_target_timeline = 'latest'\n"
        );
        let nul = ReplicationSettings {
            restore_command: Some("a\0b".into()),
            ..Default::default()
        };
        assert!(matches!(
            nul.render_recovery_conf(),
            Err(RecoveryError::Nul {
                name: "restore_command"
            })
        ));
    }

    #[test]
    fn each_major_gets_the_mechanism_it_obeys_and_loses_the_other() {
        for (num, mechanism, removed) in [
            (100_023, Mechanism::RecoveryConf, "standby.signal"),
            (110_022, Mechanism::RecoveryConf, "standby.signal"),
            (120_000, Mechanism::StandbySignal, "recovery.conf"),
            (150_018, Mechanism::StandbySignal, "recovery.conf"),
            (180_000, Mechanism::StandbySignal, "recovery.conf"),
        ] {
            let chosen = Mechanism::for_version(PgVersion::from_num(num).unwrap());
            assert_eq!(chosen, mechanism);
            assert!(chosen.files_to_remove().contains(&removed));
            assert!(chosen.files_to_remove().contains(&"recovery.signal"));
        }
        assert!(
            Mechanism::standby_signal().starts_with(b"#") && Mechanism::standby_signal().ends_with(b"\n")
        );
    }

    #[test]
    fn what_is_shown_is_what_is_written_without_secrets() {
        let mut settings = full();
        settings.primary_conninfo.remove("password");
        let lines = settings.shown_lines(Mechanism::RecoveryConf).unwrap();
        assert_eq!(lines.join("\n") + "\n", settings.render_recovery_conf().unwrap());
        let lines = full().shown_lines(Mechanism::StandbySignal).unwrap();
        assert_eq!(lines.len(), 5);
        assert_eq!(
            lines[0],
            "primary_conninfo = 'host=h user=u password=''********'''"
        );
    }

    #[test]
    fn debug_output_hides_the_password() {
        assert!(!format!("{:?}", full()).contains("secr"));
    }
}
