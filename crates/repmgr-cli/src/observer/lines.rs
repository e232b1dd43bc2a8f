//! Events as lines of the log, and progress as a line now and then.

use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use repmgr_clone::{CopyEvent, Event, Level, Observer, PlaceEvent, Progress, StandbyEvent};
use repmgr_config::LogLevel;

use super::rate::{Rate, in_words, percent};
use crate::log::{Entry, Log};
use crate::remedies;

/// Time between two lines about progress.
const INTERVAL: Duration = Duration::from_secs(5);

/// Tells the log what happens.
pub(crate) struct Lines(pub(crate) Log);

impl Observer for Lines {
    fn event(&self, event: Event) {
        if matches!(event, Event::Copy(CopyEvent::ReceivingFileList)) {
            // rsync's line, which users of the original know.
            self.0.bare(LogLevel::Info, "receiving file list ...");
        }
        // Where it is shown how far the copy is, and not twice.
        if event.lasts().is_some() {
            return;
        }
        let Some(message) = event.message() else { return };
        let hint = message.hint.as_ref().map(remedies::in_words);
        let mut hints: Vec<&str> = hint.as_deref().into_iter().collect();
        if let Event::Standby(StandbyEvent::NextSteps { start, registered }) = &event {
            hints.push(match registered {
                Some(true) if start.is_none() => {
                    "re-register this standby with \"repmgr standby register --force\" to update the existing node record"
                }
                _ if start.is_none() => "register this standby with \"repmgr standby register\"",
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

/// Tells the log every few seconds how far the copy is, or that something else goes on, where no bar can be shown.
pub(crate) struct ProgressLines {
    log: Log,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rate: Rate,
    /// When the last line was written; none before the first.
    told: Duration,
    /// The same of what else goes on, and what it is.
    lasting: Option<(Discriminant<PlaceEvent>, Duration)>,
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
    fn event(&self, event: Event) {
        let Some(elapsed) = event.lasts() else { return };
        let Event::Place(place) = &event else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let what = discriminant(place);
        let told = match state.lasting {
            // One that began later is another of the same sort.
            Some((told, at)) if told == what && at <= elapsed => at,
            _ => Duration::ZERO,
        };
        if elapsed < told + INTERVAL {
            return;
        }
        state.lasting = Some((what, elapsed));
        if let Some(message) = event.message() {
            self.log.line(log_level(message.level), &message.text);
        }
    }

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
    use repmgr_clone::{Method, NodeEvent};

    use super::super::samples::progress;
    use super::*;
    use crate::log::in_memory;

    #[test]
    fn the_lines_of_a_clone_are_those_that_users_know() {
        let log = in_memory(LogLevel::Info);
        let lines = Lines(log.clone());
        let events: [Event; 6] = [
            PlaceEvent::DestinationProvided {
                path: "/var/lib/postgresql/data".into(),
            }
            .into(),
            NodeEvent::SourceChecked {
                size: Some("29 MB".to_owned()),
            }
            .into(),
            CopyEvent::RetrievingBackup {
                backup: "20261126T010513".to_owned(),
                files: 1281,
                bytes: 52 << 20,
            }
            .into(),
            CopyEvent::ReceivingFileList.into(),
            StandbyEvent::Complete {
                method: Method::Barman,
            }
            .into(),
            StandbyEvent::NextSteps {
                start: Some("pg_ctl -D /var/lib/postgresql/data start".to_owned()),
                registered: Some(false),
            }
            .into(),
        ];
        events.into_iter().for_each(|event| lines.event(event));
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
        let next = StandbyEvent::NextSteps {
            start: Some("start".to_owned()),
            registered: Some(true),
        };
        Lines(log.clone()).event(next.into());
        assert!(
            log.written()
                .contains("re-register this standby with \"repmgr standby register --force\"")
        );
    }

    #[test]
    fn what_lasts_is_told_every_few_seconds_and_what_does_not_never() {
        let log = in_memory(LogLevel::Info);
        let (lines, progress) = (Lines(log.clone()), ProgressLines::new(log.clone()));
        let tell = |event: PlaceEvent| {
            lines.event(event.clone().into());
            progress.event(event.into());
        };
        let erasing = |seconds| PlaceEvent::StillErasing {
            path: "/data".into(),
            removed: seconds * 1000,
            elapsed: Duration::from_secs(seconds),
        };
        let flushing = |seconds| PlaceEvent::StillFlushing {
            elapsed: Duration::from_secs(seconds),
        };
        // A directory, then another, then the end; and one that is soon done.
        (1..12).map(erasing).for_each(tell);
        (1..7).map(erasing).for_each(tell);
        (1..7).map(flushing).for_each(tell);
        (1..4).map(erasing).for_each(tell);
        assert_eq!(
            log.written(),
            "INFO: erasing \"/data\": 5000 files and directories are gone\n\
             INFO: erasing \"/data\": 10000 files and directories are gone\n\
             INFO: erasing \"/data\": 5000 files and directories are gone\n\
             INFO: bringing the standby to disk, for 5 s now\n"
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
