use repmgr_guc::{SyntaxError, quote_value};
use repmgr_types::{Conninfo, Hint, PgVersion};

const SIGNAL: &[u8] = b"# created by repmgr\n";

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

    /// The file whose being there tells a server with these settings what it is, where a file does.
    pub fn signal(self, settings: &ReplicationSettings) -> Option<&'static str> {
        match (self, &settings.recovery) {
            (Self::RecoveryConf, _) => None,
            (Self::StandbySignal, None) => Some("standby.signal"),
            (Self::StandbySignal, Some(_)) => Some("recovery.signal"),
        }
    }

    /// Files that would turn a server with these settings into something else, or keep it from starting, if a
    /// backup brought them.
    pub fn files_to_remove(self, settings: &ReplicationSettings) -> &'static [&'static str] {
        match (self, &settings.recovery) {
            (Self::RecoveryConf, _) => &["recovery.signal", "standby.signal"],
            (Self::StandbySignal, None) => &["recovery.signal", "recovery.conf"],
            (Self::StandbySignal, Some(_)) => &["standby.signal", "recovery.conf"],
        }
    }

    /// What a signal file holds. PostgreSQL looks only at whether it is there.
    pub fn signal_content() -> &'static [u8] {
        SIGNAL
    }
}

/// Where a server that is no standby ends its recovery, and becomes a primary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryTarget {
    /// The point; the end of the archive without.
    pub stop: Option<StopAt>,
    /// Whether it goes just past the point (PostgreSQL's default) or stops just before it.
    pub inclusive: Option<bool>,
    /// The timeline to follow, as PostgreSQL takes it: a number, "current", "latest".
    pub timeline: Option<String>,
}

/// A point where recovery stops, in PostgreSQL's notation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopAt {
    /// As soon as the data is consistent: the end of the backup.
    Consistency,
    /// A point in time.
    Time(String),
    /// A transaction.
    Transaction(String),
    /// A position in the WAL.
    Position(String),
    /// A restore point of this name.
    RestorePoint(String),
}

impl StopAt {
    fn setting(&self) -> (&'static str, &str) {
        match self {
            Self::Consistency => ("recovery_target", "immediate"),
            Self::Time(time) => ("recovery_target_time", time),
            Self::Transaction(id) => ("recovery_target_xid", id),
            Self::Position(lsn) => ("recovery_target_lsn", lsn),
            Self::RestorePoint(name) => ("recovery_target_name", name),
        }
    }
}

impl RecoveryTarget {
    /// The end of the archive.
    pub fn end_of_archive() -> Self {
        Self::default()
    }

    /// This point.
    pub fn at(stop: StopAt) -> Self {
        Self {
            stop: Some(stop),
            ..Self::default()
        }
    }

    /// The settings that say so. A server that has come to its target would wait there for somebody.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let stop = self.stop.as_ref().map(StopAt::setting);
        let inclusive = self
            .inclusive
            .map(|inclusive| if inclusive { "on" } else { "off" });
        [
            stop,
            Some("recovery_target_inclusive").zip(inclusive),
            Some((
                "recovery_target_timeline",
                self.timeline.as_deref().unwrap_or("latest"),
            )),
            stop.map(|_| ("recovery_target_action", "promote")),
        ]
        .into_iter()
        .flatten()
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
    }
}

/// What makes a server the standby of another, or one that recovers from an archive.
#[derive(Debug, Clone, Default)]
pub struct ReplicationSettings {
    /// See [`PrimaryConninfo`](crate::PrimaryConninfo). An empty one is not written.
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
    /// Take a `restore_command` that a backup brought out also where no other comes in its place: somebody else
    /// will set it.
    pub drop_restore_command: bool,
    /// It is no standby: it recovers to here, and is a primary then.
    pub recovery: Option<RecoveryTarget>,
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
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::AutoConf(_) => Some(
                "PostgreSQL cannot start with this file either: repair it; for a clone where the backup comes \
                 from, or with ALTER SYSTEM there, and take a new backup"
                    .into(),
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
        let target = self.target().into_iter().map(|(name, value)| (name, Some(value)));
        let (mode, timeline) = match self.recovery {
            Some(_) => (None, None),
            None => (
                Some(fixed("standby_mode", "on")),
                Some(fixed("recovery_target_timeline", "latest")),
            ),
        };
        mode.into_iter()
            .chain([conninfo])
            .chain(timeline)
            .chain(rest)
            .chain(target)
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
        let pinned = self.pin_latest_timeline && self.recovery.is_none();
        let timeline = pinned.then(|| "latest".to_owned());
        let target = self.target().into_iter().map(|(name, value)| (name, Some(value)));
        self.common()
            .into_iter()
            .chain([("recovery_target_timeline", timeline)])
            .chain(target)
            .filter_map(|(name, value)| Some(render_line(name, &value?)))
            .collect()
    }

    pub(crate) fn target(&self) -> Vec<(&'static str, String)> {
        self.recovery
            .as_ref()
            .map(RecoveryTarget::settings)
            .unwrap_or_default()
    }

    fn common(&self) -> [(&'static str, Option<String>); 5] {
        let conninfo = self.primary_conninfo.to_libpq_string();
        [
            ("primary_conninfo", Some(conninfo).filter(|text| !text.is_empty())),
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
            ..Default::default()
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
            let standby = ReplicationSettings::default();
            assert!(chosen.files_to_remove(&standby).contains(&removed));
            assert!(chosen.files_to_remove(&standby).contains(&"recovery.signal"));
        }
        assert!(
            Mechanism::signal_content().starts_with(b"#") && Mechanism::signal_content().ends_with(b"\n")
        );
    }

    #[test]
    fn a_server_that_recovers_is_no_standby() {
        let mut settings = ReplicationSettings {
            restore_command: Some("get %f %p".into()),
            recovery: Some(RecoveryTarget::end_of_archive()),
            ..Default::default()
        };
        let new = Mechanism::StandbySignal;
        assert_eq!(new.signal(&settings), Some("recovery.signal"));
        assert!(new.files_to_remove(&settings).contains(&"standby.signal"));
        let to_the_end = "restore_command = 'get %f %p'\nrecovery_target_timeline = 'latest'\n";
        assert_eq!(settings.auto_conf_lines().unwrap(), to_the_end);
        assert_eq!(settings.render_recovery_conf().unwrap(), to_the_end);
        let time = StopAt::Time("2026-11-30 06:00:00+00".into());
        settings.recovery = Some(RecoveryTarget {
            inclusive: Some(false),
            timeline: Some("2".into()),
            ..RecoveryTarget::at(time)
        });
        let old = b"recovery_target_name = 'x'\nprimary_conninfo = 'host=a'\nwork_mem = '8MB'\n";
        let edited = settings.apply_to_auto_conf(Some(old)).unwrap();
        assert_eq!(
            String::from_utf8(edited.bytes).unwrap(),
            "work_mem = '8MB'\nrestore_command = 'get %f %p'\nrecovery_target_time = '2026-11-30 06:00:00+00'\n\
             recovery_target_inclusive = 'off'\nrecovery_target_timeline = '2'\n\
             recovery_target_action = 'promote'\n"
        );
        assert_eq!(edited.dropped.len(), 2);
    }

    #[test]
    fn what_somebody_else_will_set_is_taken_out_and_not_written() {
        let settings = ReplicationSettings {
            drop_restore_command: true,
            ..Default::default()
        };
        let old = b"restore_command = 'x'\nprimary_conninfo = 'host=a'\nwork_mem = '8MB'\n";
        let edited = settings.apply_to_auto_conf(Some(old)).unwrap();
        assert_eq!(edited.bytes, b"work_mem = '8MB'\n");
        let dropped: Vec<&str> = edited
            .dropped
            .iter()
            .map(|setting| setting.name.as_str())
            .collect();
        assert_eq!(dropped, ["restore_command", "primary_conninfo"]);
        assert_eq!(edited.inherited_restore_command, None);
        assert_eq!(
            settings.render_recovery_conf().unwrap(),
            "standby_mode = 'on'\nrecovery_target_timeline = 'latest'\n"
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
