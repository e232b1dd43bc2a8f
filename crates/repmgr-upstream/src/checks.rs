//! Whether a server can feed a standby: the checks of repmgr 5.5, in its order, over settings
//! that were fetched in one query.

use std::collections::BTreeMap;

use repmgr_types::{Hint, PgVersion, Remedy};

use crate::upstream::get;
use crate::{QueryError, Upstream};

/// What the clone will ask of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The standby will stream through a replication slot.
    pub replication_slot: bool,
    /// Nothing but the server's own `pg_wal` keeps the WAL written during the copy: no slot, no
    /// streaming beside the copy, no archive.
    pub server_keeps_wal: bool,
    /// Connections the copy itself opens to the server's WAL senders: 0 when it comes from Barman;
    /// for `pg_basebackup` 2 where it streams WAL beside the copy, else 1.
    pub wal_senders: u32,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The clone will work, but something useful will not.
    Warning,
    /// The standby could not be made, or would not stream.
    Error,
}

/// Something about the server that stands against a clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether to go on.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What was found.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<Hint>,
}

/// The settings the checks look at. One that the role may not see is not there, and not checked.
#[derive(Debug, Clone)]
pub struct SettingsSnapshot {
    /// The server's version.
    pub version: PgVersion,
    /// Values by name, in the server's base units.
    pub settings: BTreeMap<String, String>,
    /// WAL senders in use.
    pub busy_wal_senders: i64,
}

/// The settings a snapshot holds, on versions that know them.
const SETTINGS: &[&str] = &[
    "wal_level",
    "max_replication_slots",
    "wal_keep_size",
    "wal_keep_segments",
    "archive_mode",
    "archive_command",
    "archive_library",
    "hot_standby",
    "max_wal_senders",
    "data_checksums",
    "wal_log_hints",
];

const OLDEST: u32 = 100_000;

impl Upstream {
    /// Fetches what the checks look at.
    pub fn settings_snapshot(&self) -> Result<SettingsSnapshot, QueryError> {
        // The names are constants of ours.
        let sql = format!(
            "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('{}') \
             UNION ALL SELECT '', pg_catalog.count(*)::text FROM pg_catalog.pg_stat_replication",
            SETTINGS.join("', '")
        );
        const WHAT: &str = "read the server's settings";
        let rows = self.ask(WHAT, &sql, &[], |row| {
            Ok((get::<String>(row, 0)?, get::<String>(row, 1)?))
        })?;
        let mut settings: BTreeMap<_, _> = rows.into_iter().collect();
        let busy_wal_senders = settings
            .remove("")
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| self.unusable(WHAT, "no count of WAL senders".to_owned()))?;
        Ok(SettingsSnapshot {
            version: self.server_version(),
            settings,
            busy_wal_senders,
        })
    }

    /// Everything that stands against a clone from this server.
    pub fn checks(&self, requirements: &Requirements) -> Result<Vec<Problem>, QueryError> {
        Ok(self.settings_snapshot()?.evaluate(requirements))
    }
}

impl SettingsSnapshot {
    /// Everything in these settings that stands against a clone; empty if all is well.
    pub fn evaluate(&self, requirements: &Requirements) -> Vec<Problem> {
        [
            self.version_problem(),
            self.wal_level(),
            requirements
                .replication_slot
                .then(|| self.replication_slots())
                .flatten(),
            requirements.server_keeps_wal.then(|| self.kept_wal()).flatten(),
            self.archiving(),
            self.hot_standby(),
            self.wal_senders(),
            self.rewind(),
            self.free_wal_senders(requirements.wal_senders),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    fn version_problem(&self) -> Option<Problem> {
        (self.version.num() < OLDEST).then(|| {
            Problem::error("the server must run PostgreSQL 10 or later")
                .detail(format!("the server runs PostgreSQL {}", self.version))
        })
    }

    fn wal_level(&self) -> Option<Problem> {
        let level = self.get("wal_level")?;
        (!["replica", "hot_standby", "logical"].contains(&level)).then(|| {
            Problem::error("parameter \"wal_level\" must be set to \"replica\" or \"logical\"")
                .detail(current(level))
                .hint("change it on the upstream node and restart it")
        })
    }

    fn replication_slots(&self) -> Option<Problem> {
        let slots = self.number("max_replication_slots")?;
        (slots < 1).then(|| {
            Problem::error(
                "parameter \"max_replication_slots\" must be set to at least 1 to use replication slots",
            )
            .detail(current(slots))
            .hint("it should be at least the number of standbys; the upstream node must be restarted")
        })
    }

    fn kept_wal(&self) -> Option<Problem> {
        let name = if self.get("wal_keep_size").is_some() {
            "wal_keep_size"
        } else {
            "wal_keep_segments"
        };
        (self.number(name)? == 0).then(|| {
            Problem::error(format!("parameter \"{name}\" must be greater than 0"))
                .detail("nothing else keeps the WAL that is written during the copy")
                .hint(
                    Hint::new("set ")
                        .remedy(Remedy::ReplicationSlot)
                        .words(" or ")
                        .remedy(Remedy::RestoreCommand)
                        .words(", stream WAL beside the copy, or set this parameter"),
                )
        })
    }

    fn archiving(&self) -> Option<Problem> {
        let mode = self.get("archive_mode")?;
        let command = self.get("archive_command")?;
        let by_library = self
            .get("archive_library")
            .is_some_and(|library| !library.is_empty());
        (mode != "off" && command.is_empty() && !by_library).then(|| {
            Problem::error("\"archive_mode\" is set, but \"archive_command\" is empty")
                .detail(format!(
                    "\"archive_mode\" is \"{mode}\"; the server would keep all WAL until it can be archived"
                ))
                .hint("set \"archive_command\" on the upstream node and reload it")
        })
    }

    fn hot_standby(&self) -> Option<Problem> {
        (self.get("hot_standby")? != "on").then(|| {
            Problem::error("parameter \"hot_standby\" must be set to \"on\"")
                .detail("the standby takes this setting from the upstream node and would refuse connections")
                .hint("change it on the upstream node and restart it")
        })
    }

    fn wal_senders(&self) -> Option<Problem> {
        let max = self.number("max_wal_senders")?;
        (max < 1).then(|| {
            Problem::error("parameter \"max_wal_senders\" must be set to at least 1")
                .detail(current(max))
                .hint("it should be at least the number of standbys; the upstream node must be restarted")
        })
    }

    fn free_wal_senders(&self, needed_for_copy: u32) -> Option<Problem> {
        // That there are none at all has been said.
        let max = self.number("max_wal_senders").filter(|max| *max >= 1)?;
        let free = (max - self.busy_wal_senders).max(0);
        (free < needed_for_copy.into()).then(|| {
            Problem::error(format!(
                "{needed_for_copy} free WAL senders are needed, {free} are free"
            ))
            .detail(format!(
                "\"max_wal_senders\" is {max}, and {} are in use",
                self.busy_wal_senders
            ))
            .hint("increase \"max_wal_senders\" on the upstream node and restart it")
        })
    }

    fn rewind(&self) -> Option<Problem> {
        let off = |name| Some(self.get(name)? == "off");
        (off("data_checksums")? && off("wal_log_hints")?).then(|| Problem {
            severity: Severity::Warning,
            message: "data checksums are not enabled and \"wal_log_hints\" is \"off\"".to_owned(),
            detail: Some(
                "pg_rewind requires one of them; \"repmgr node rejoin\" could not use it".to_owned(),
            ),
            hint: None,
        })
    }
}

impl Problem {
    fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    fn detail(self, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    fn hint(self, hint: impl Into<Hint>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

fn current(value: impl std::fmt::Display) -> String {
    format!("current value is \"{value}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(changes: &[(&str, &str)]) -> SettingsSnapshot {
        let good = [
            ("wal_level", "replica"),
            ("max_replication_slots", "10"),
            ("wal_keep_size", "0"),
            ("archive_mode", "off"),
            ("archive_command", "(disabled)"),
            ("archive_library", ""),
            ("hot_standby", "on"),
            ("max_wal_senders", "10"),
            ("data_checksums", "on"),
            ("wal_log_hints", "off"),
        ];
        let settings = good
            .iter()
            .chain(changes)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        SettingsSnapshot {
            version: PgVersion::from_num(150_018).unwrap(),
            settings,
            busy_wal_senders: 1,
        }
    }

    fn messages(changes: &[(&str, &str)], requirements: &Requirements) -> Vec<String> {
        snapshot(changes)
            .evaluate(requirements)
            .into_iter()
            .map(|p| p.message)
            .collect()
    }

    #[test]
    fn a_server_with_default_settings_has_no_problem() {
        assert_eq!(
            messages(
                &[],
                &Requirements {
                    replication_slot: true,
                    wal_senders: 9,
                    ..Default::default()
                }
            ),
            [""; 0]
        );
        assert_eq!(
            messages(&[("wal_level", "logical")], &Requirements::default()),
            [""; 0]
        );
    }

    #[test]
    fn each_unfit_setting_is_named_with_what_was_found() {
        let all = [
            ("wal_level", "minimal"),
            ("max_replication_slots", "0"),
            ("archive_mode", "on"),
            ("archive_command", ""),
            ("hot_standby", "off"),
            ("max_wal_senders", "0"),
            ("data_checksums", "off"),
        ];
        let requirements = Requirements {
            replication_slot: true,
            server_keeps_wal: true,
            wal_senders: 2,
        };
        let problems = snapshot(&all).evaluate(&requirements);
        let named: Vec<_> = problems
            .iter()
            .map(|p| p.message.split('"').nth(1).unwrap_or(""))
            .collect();
        assert_eq!(
            named,
            [
                "wal_level",
                "max_replication_slots",
                "wal_keep_size",
                "archive_mode",
                "hot_standby",
                "max_wal_senders",
                "wal_log_hints"
            ]
        );
        assert_eq!(
            problems[0].detail.as_deref(),
            Some("current value is \"minimal\"")
        );
        assert_eq!(
            problems
                .iter()
                .filter(|p| p.severity == Severity::Warning)
                .count(),
            1
        );
    }

    #[test]
    fn slots_and_kept_wal_matter_only_if_they_are_to_be_used() {
        assert_eq!(
            messages(&[("max_replication_slots", "0")], &Requirements::default()),
            [""; 0]
        );
    }

    #[test]
    fn before_13_kept_wal_is_counted_in_segments() {
        let mut old = snapshot(&[("wal_keep_segments", "0")]);
        old.settings.remove("wal_keep_size");
        let keeps = Requirements {
            server_keeps_wal: true,
            ..Default::default()
        };
        assert!(old.evaluate(&keeps)[0].message.contains("\"wal_keep_segments\""));
        old.settings
            .insert("wal_keep_segments".to_owned(), "1".to_owned());
        assert_eq!(old.evaluate(&keeps), []);
    }

    #[test]
    fn an_archive_library_stands_in_for_the_command() {
        let on = [
            ("archive_mode", "on"),
            ("archive_command", ""),
            ("archive_library", "basic_archive"),
        ];
        assert_eq!(messages(&on, &Requirements::default()), [""; 0]);
    }

    #[test]
    fn wal_senders_in_use_are_not_free() {
        let needs_two = Requirements {
            wal_senders: 2,
            ..Default::default()
        };
        assert_eq!(
            messages(&[("max_wal_senders", "2")], &needs_two),
            ["2 free WAL senders are needed, 1 are free"]
        );
    }

    #[test]
    fn a_setting_that_cannot_be_seen_is_not_judged() {
        let mut hidden = snapshot(&[]);
        hidden.settings.clear();
        assert_eq!(
            hidden.evaluate(&Requirements {
                wal_senders: 2,
                ..Default::default()
            }),
            []
        );
    }
}
