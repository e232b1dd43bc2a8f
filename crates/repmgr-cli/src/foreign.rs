//! Options of repmgr's other commands, which it accepts with `standby clone`.

/// An option of another command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Without the dashes.
    pub(crate) name: &'static str,
    /// The short form.
    pub(crate) short: Option<char>,
    /// Whether it takes a value.
    pub(crate) takes: Takes,
    /// How repmgr warns of it.
    pub(crate) remark: Remark,
}

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    Value,
    /// Only after an equals sign.
    OptionalValue,
}

/// How repmgr warns of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remark {
    /// In these words, whatever the command.
    Always(&'static str),
    /// In these words, and with the command.
    Executing(&'static str),
    /// Not at all.
    Nothing,
}

const NOT_REQUIRED: Remark = Remark::Executing("not required");
const IGNORED: Remark = Remark::Executing("will be ignored");
const NOT_EFFECTIVE: Remark = Remark::Executing("is not effective");

const fn new(name: &'static str, takes: Takes, remark: Remark) -> Foreign {
    Foreign {
        name,
        short: None,
        takes,
        remark,
    }
}

const fn short(short: char, foreign: Foreign) -> Foreign {
    Foreign {
        short: Some(short),
        ..foreign
    }
}

/// In the order in which repmgr 5.3 warns of them (observed); then those it does not warn of.
pub(crate) const FOREIGN: &[Foreign] = &[
    short(
        'C',
        new(
            "remote-config-file",
            Takes::Value,
            Remark::Always("is no longer required"),
        ),
    ),
    new(
        "check-upstream-config",
        Takes::Nothing,
        Remark::Always("is deprecated; use --dry-run instead"),
    ),
    new("node-id", Takes::Value, NOT_REQUIRED),
    new("node-name", Takes::Value, NOT_REQUIRED),
    new("event", Takes::Value, NOT_REQUIRED),
    new("limit", Takes::Value, NOT_REQUIRED),
    new("all", Takes::Nothing, NOT_REQUIRED),
    short('w', new("wait", Takes::OptionalValue, IGNORED)),
    short('W', new("no-wait", Takes::Nothing, IGNORED)),
    new("action", Takes::Value, IGNORED),
    new("is-shutdown-cleanly", Takes::Nothing, IGNORED),
    new("always-promote", Takes::Nothing, IGNORED),
    new("force-rewind", Takes::OptionalValue, IGNORED),
    new("config-files", Takes::Value, IGNORED),
    new("repmgrd-no-pause", Takes::Nothing, IGNORED),
    new("repmgrd-force-unpause", Takes::Nothing, IGNORED),
    new("compact", Takes::Nothing, NOT_EFFECTIVE),
    new("detail", Takes::Nothing, NOT_EFFECTIVE),
    new("siblings-follow", Takes::Nothing, NOT_EFFECTIVE),
    new("csv", Takes::Nothing, Remark::Nothing),
    new("nagios", Takes::Nothing, Remark::Nothing),
    new("optformat", Takes::Nothing, Remark::Nothing),
    short('k', new("keep-history", Takes::Value, Remark::Nothing)),
    new("wait-start", Takes::Value, Remark::Nothing),
    new("wait-sync", Takes::OptionalValue, Remark::Nothing),
    new("remote-node-id", Takes::Value, Remark::Nothing),
    new("config-archive-dir", Takes::Value, Remark::Nothing),
    new("archive-ready", Takes::Nothing, Remark::Nothing),
    new("checkpoint", Takes::Nothing, Remark::Nothing),
    new("data-directory-config", Takes::Nothing, Remark::Nothing),
    new("db-connection", Takes::Nothing, Remark::Nothing),
    new("disable-wal-receiver", Takes::Nothing, Remark::Nothing),
    new("downstream", Takes::Nothing, Remark::Nothing),
    new("enable-wal-receiver", Takes::Nothing, Remark::Nothing),
    new("has-passfile", Takes::Nothing, Remark::Nothing),
    new("list-actions", Takes::Nothing, Remark::Nothing),
    new("missing-slots", Takes::Nothing, Remark::Nothing),
    new("replication-config-owner", Takes::Nothing, Remark::Nothing),
    new("replication-connection", Takes::Nothing, Remark::Nothing),
    new("replication-lag", Takes::Nothing, Remark::Nothing),
    new("repmgrd", Takes::Nothing, Remark::Nothing),
    new("role", Takes::Nothing, Remark::Nothing),
    new("slots", Takes::Nothing, Remark::Nothing),
    new("upstream", Takes::Nothing, Remark::Nothing),
];

impl Foreign {
    /// What repmgr says about it.
    pub(crate) fn warning(&self, command: &str) -> Option<String> {
        match self.remark {
            Remark::Always(words) => Some(format!("--{} {words}", self.name)),
            Remark::Executing(words) => Some(format!("--{} {words} when executing {command}", self.name)),
            Remark::Nothing => None,
        }
    }
}
