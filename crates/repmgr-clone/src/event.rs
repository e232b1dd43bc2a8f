//! What a clone tells while it works. Each part of the story has its own events, beside what they speak of.

use std::fmt;
use std::time::Duration;

use repmgr_types::Hint;
use serde::{Serialize, Serializer};

pub use crate::copy::event::CopyEvent;
pub use crate::nodes::event::NodeEvent;
pub use crate::place::event::PlaceEvent;
pub use crate::remark::{Remark, RemarkCode};
pub use crate::source::event::BackupEvent;
pub use crate::standby::event::{Effective, StandbyEvent};

/// Hears what a clone does. Called from several threads.
pub trait Observer: Sync {
    /// Something happened, in the order in which it did.
    fn event(&self, event: Event);

    /// How far the copy is; about ten times a second.
    fn progress(&self, progress: &Progress) {
        let _ = progress;
    }
}

/// How much a message matters, as repmgr grades it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What is being done.
    Info,
    /// What the user should know.
    Notice,
    /// What may be wrong.
    Warning,
}

/// An event in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How much it matters.
    pub level: Level,
    /// One line.
    pub text: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<Hint>,
}

impl Message {
    pub(crate) fn new(level: Level, text: impl Into<String>) -> Self {
        Self {
            level,
            text: text.into(),
            detail: None,
            hint: None,
        }
    }

    pub(crate) fn info(text: impl Into<String>) -> Self {
        Self::new(Level::Info, text)
    }

    pub(crate) fn notice(text: impl Into<String>) -> Self {
        Self::new(Level::Notice, text)
    }

    pub(crate) fn detail(self, detail: impl Into<Option<String>>) -> Self {
        let detail = detail.into();
        Self { detail, ..self }
    }

    pub(crate) fn hint(self, hint: impl Into<Option<Hint>>) -> Self {
        let hint = hint.into();
        Self { hint, ..self }
    }
}

/// Something that happened. [`Event::message`] has the words, those of repmgr where repmgr has any.
///
/// It serialises as one flat object whose `event` names the variant of the part: `{"event":
/// "backup_found", ...}`; a remark is named by its level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Event {
    /// The directories on this host.
    Place(PlaceEvent),
    /// The backup.
    Backup(BackupEvent),
    /// The servers.
    Node(NodeEvent),
    /// The base backup on its way.
    Copy(CopyEvent),
    /// The standby as a whole.
    Standby(StandbyEvent),
    /// Something that may be wrong, or that the user should know; it stops nothing.
    Remark(Remark),
}

impl Event {
    /// The event in words; `None` for one that only programs want to know.
    pub fn message(&self) -> Option<Message> {
        Some(match self {
            Self::Place(event) => event.message(),
            Self::Backup(event) => event.message(),
            Self::Node(event) => event.message(),
            Self::Copy(event) => return event.message(),
            Self::Standby(event) => event.message(),
            Self::Remark(remark) => remark.message(),
        })
    }

    /// Of an event that says only that something goes on: for how long it has. Such come about once a second,
    /// and none comes of what takes less; a log will not want them all.
    pub fn lasts(&self) -> Option<Duration> {
        match self {
            Self::Place(event) => event.lasts(),
            _ => None,
        }
    }

    /// Whether only who plans hears of it, as with repmgr: that a check was passed.
    pub(crate) fn is_of_a_plan(&self) -> bool {
        match self {
            Self::Backup(event) => matches!(
                event,
                BackupEvent::BackupFound { .. } | BackupEvent::ServerParametersFetched
            ),
            Self::Node(event) => matches!(
                event,
                NodeEvent::ExtensionInstalled { .. }
                    | NodeEvent::UpstreamChosen { .. }
                    | NodeEvent::SettingChecked { .. }
            ),
            _ => false,
        }
    }
}

/// Makes an event of each part's, and of a remark.
macro_rules! parts {
    ($($part:ident($event:ty)),*) => {$(
        impl From<$event> for Event {
            fn from(event: $event) -> Self {
                Self::$part(event)
            }
        }
    )*};
}
parts!(
    Place(PlaceEvent),
    Backup(BackupEvent),
    Node(NodeEvent),
    Copy(CopyEvent),
    Standby(StandbyEvent),
    Remark(Remark)
);

/// Passes on what is of interest when a clone is made and not only planned.
pub(crate) struct WithoutChecks<'a>(pub(crate) &'a dyn Observer);

impl Observer for WithoutChecks<'_> {
    fn event(&self, event: Event) {
        if !event.is_of_a_plan() {
            self.0.event(event);
        }
    }

    fn progress(&self, progress: &Progress) {
        self.0.progress(progress);
    }
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Files that are complete.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes that are here, those of reused files among them.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Bytes that need no fetching; they say nothing about the rate.
    pub bytes_reused: u64,
    /// Bytes received over the network.
    pub wire_bytes: u64,
    /// Since the copy began.
    #[serde(rename = "elapsed_seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
}

impl Progress {
    /// Nothing is done yet.
    pub(crate) fn to_do(files: u64, bytes: u64) -> Self {
        Self {
            files_done: 0,
            files_total: files,
            bytes_done: 0,
            bytes_total: bytes,
            bytes_reused: 0,
            wire_bytes: 0,
            elapsed: Duration::ZERO,
        }
    }
}

/// As a number with milliseconds, which every program can read.
pub(crate) fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// A number of bytes as PostgreSQL's `pg_size_pretty` prints it: "29 MB".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
        let (mut value, mut unit) = (self.0, 0);
        // As in pg_size_pretty: up to 10239 of one unit, then half a unit rounds up.
        while value >= 10 * 1024 && unit + 1 < UNITS.len() {
            value = (value + 512) / 1024;
            unit += 1;
        }
        write!(f, "{value} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_postgresql_prints_them() {
        let text = |bytes| ByteSize(bytes).to_string();
        assert_eq!(text(0), "0 bytes");
        assert_eq!(text(10_239), "10239 bytes");
        assert_eq!(text(10_240), "10 kB");
        assert_eq!(text(30_408_704), "29 MB");
        assert_eq!(text(1 << 42), "4096 GB");
    }

    #[test]
    fn times_are_seconds_for_programs() {
        let progress = Progress {
            elapsed: Duration::from_micros(1_234_567),
            ..Progress::to_do(2, 4)
        };
        assert_eq!(serde_json::to_value(progress).unwrap()["elapsed_seconds"], 1.235);
    }

    #[test]
    fn events_are_flat_objects_for_programs() {
        let event = Event::from(BackupEvent::VerifyingBackup {
            server: "main".into(),
        });
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            serde_json::json!({"event": "verifying_backup", "server": "main"})
        );
        let remark = Event::from(Remark::warning(RemarkCode::NothingReusable, "odd"));
        let value = serde_json::to_value(&remark).unwrap();
        assert_eq!(
            (&value["event"], &value["code"]),
            (&"warning".into(), &"nothing_reusable".into())
        );
    }
}
