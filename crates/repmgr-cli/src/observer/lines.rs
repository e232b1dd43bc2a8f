//! Events as lines of the log, and progress as a line now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use repmgr_clone::{Event, Level, Observer, Progress};
use repmgr_config::LogLevel;

use super::rate::{Rate, in_words, percent};
use crate::log::{Entry, Log};

/// Time between two lines about progress.
const INTERVAL: Duration = Duration::from_secs(5);

/// Tells the log what happens.
pub(crate) struct Lines(pub(crate) Log);

impl Observer for Lines {
    fn event(&self, event: Event) {
        if matches!(event, Event::ReceivingFileList) {
            // rsync's line, which users of the original know.
            self.0.bare(LogLevel::Info, "receiving file list ...");
        }
        let Some(message) = event.message() else { return };
        let mut hints: Vec<&str> = message.hint.as_deref().into_iter().collect();
        if let Event::NextSteps { registered, .. } = event {
            hints.push(match registered {
                Some(true) => {
                    "after starting the server, you need to re-register this standby with \"repmgr standby register \
                     --force\" to update the existing node record"
                }
                _ => "after starting the server, you need to register this standby with \"repmgr standby register\"",
            });
        }
        self.0.write(&Entry {
            level: log_level(message.level),
            text: &message.text,
            detail: message.detail.as_deref(),
            hints: &hints,
        });
    }
}

/// The same level in the words of the configuration file.
pub(super) fn log_level(level: Level) -> LogLevel {
    match level {
        Level::Info => LogLevel::Info,
        Level::Notice => LogLevel::Notice,
        Level::Warning => LogLevel::Warning,
    }
}

/// Tells the log every few seconds how far the copy is, where no bar can be shown.
pub(crate) struct ProgressLines {
    log: Log,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rate: Rate,
    /// When the last line was written; none before the first.
    told: Duration,
}

impl ProgressLines {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            log,
            state: Mutex::default(),
        }
    }
}

impl Observer for ProgressLines {
    fn event(&self, _event: Event) {}

    fn progress(&self, progress: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = state.rate.update(progress);
        if progress.elapsed < state.told + INTERVAL {
            return;
        }
        state.told = progress.elapsed;
        let text = format!("{}% ({})", percent(progress), in_words(progress, rate));
        self.log.line(LogLevel::Info, &text);
    }
}

#[cfg(test)]
mod tests {
    use repmgr_clone::Method;

    use super::super::samples::progress;
    use super::*;
    use crate::log::in_memory;

    #[test]
    fn the_lines_of_a_clone_are_those_that_users_know() {
        let log = in_memory(LogLevel::Info);
        let lines = Lines(log.clone());
        lines.event(Event::DestinationProvided {
            path: "/var/lib/postgresql/data".into(),
        });
        lines.event(Event::SourceChecked {
            size: Some("29 MB".to_owned()),
        });
        lines.event(Event::RetrievingBackup {
            backup: "20261126T010513".to_owned(),
            files: 1281,
            bytes: 52 << 20,
        });
        lines.event(Event::ReceivingFileList);
        lines.event(Event::Complete {
            method: Method::Barman,
        });
        lines.event(Event::NextSteps {
            start: "pg_ctl -D /var/lib/postgresql/data start".to_owned(),
            registered: Some(false),
        });
        assert_eq!(
            log.written(),
            "NOTICE: destination directory \"/var/lib/postgresql/data\" provided\n\
             INFO: successfully connected to source node\n\
             DETAIL: current installation size is 29 MB\n\
             NOTICE: retrieving backup from Barman...\n\
             DETAIL: backup 20261126T010513: 1281 files, 52 MB\n\
             receiving file list ...\n\
             NOTICE: standby clone (from Barman) complete\n\
             NOTICE: you can now start your PostgreSQL server\n\
             HINT: for example: pg_ctl -D /var/lib/postgresql/data start\n\
             HINT: after starting the server, you need to register this standby with \"repmgr standby register\"\n"
        );
    }

    #[test]
    fn a_node_with_a_record_is_to_be_registered_again() {
        let log = in_memory(LogLevel::Info);
        let next = Event::NextSteps {
            start: "start".to_owned(),
            registered: Some(true),
        };
        Lines(log.clone()).event(next);
        assert!(
            log.written()
                .contains("re-register this standby with \"repmgr standby register --force\"")
        );
    }

    #[test]
    fn progress_is_told_every_few_seconds() {
        let log = in_memory(LogLevel::Info);
        let lines = ProgressLines::new(log.clone());
        for second in 0..12 {
            lines.progress(&progress(second, second * 10));
        }
        assert_eq!(
            log.written(),
            "INFO: 5% (50 MB of 1000 MB, 10 MB/s, 1 min 35 s left, 50 of 1000 files)\n\
             INFO: 10% (100 MB of 1000 MB, 10 MB/s, 1 min 30 s left, 100 of 1000 files)\n"
        );
    }
}
