//! Lines for Patroni's log, in its form.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use repmgr_clone::{
    ByteSize, CloneError, Event, Hint, Level, Message, PlaceEvent, Progress, Remedy, StandbyEvent,
};
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use crate::keys::Keys;

/// Time between two lines about progress.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes to standard error, which is Patroni's own.
pub(crate) struct Teller {
    offset: UtcOffset,
    progress: Mutex<Option<Instant>>,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self {
            offset: UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC),
            progress: Mutex::new(None),
        }
    }

    /// To standard output, as an answer.
    pub(crate) fn print(&self, text: &str) -> u8 {
        print!("{text}");
        0
    }

    pub(crate) fn event(&self, event: Event) {
        // Patroni starts the server, and says where.
        let is_patronis = matches!(
            event,
            Event::Standby(StandbyEvent::NextSteps { .. })
                | Event::Place(PlaceEvent::DestinationProvided { .. })
        );
        if event.lasts().is_some() && !self.is_due() {
            return;
        }
        if let Some(message) = event.message().filter(|_| !is_patronis) {
            self.message(&message);
        }
    }

    pub(crate) fn progress(&self, progress: &Progress) {
        if !self.is_due() {
            return;
        }
        let (done, total) = (ByteSize(progress.bytes_done), ByteSize(progress.bytes_total));
        let percent = (u128::from(progress.bytes_done) * 100).checked_div(u128::from(progress.bytes_total));
        let percent = percent.unwrap_or(0).min(100);
        self.line("INFO", &format!("{percent}% ({done} of {total})"));
    }

    /// Whether it is time for another line about progress.
    fn is_due(&self) -> bool {
        let mut told = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let last = told.get_or_insert_with(Instant::now);
        let is_due = last.elapsed() >= INTERVAL;
        if is_due {
            *last = Instant::now();
        }
        is_due
    }

    /// Keys that are none of ours and none of Patroni's.
    pub(crate) fn unknown(&self, keys: &Keys) {
        for key in keys.rest() {
            self.line(
                "WARNING",
                &format!("key \"{key}\" is not known here and has no effect"),
            );
        }
    }

    pub(crate) fn again(&self, error: &CloneError, pause: Duration) {
        let why = error
            .detail()
            .map_or_else(String::new, |detail| format!(": {detail}"));
        self.line(
            "WARNING",
            &format!("{error}{why}; trying again in {} s", pause.as_secs()),
        );
    }

    pub(crate) fn failed(&self, error: &CloneError) {
        let hint = error.hint().as_ref().map(in_words);
        self.error(&error.to_string(), error.detail().as_deref(), hint.as_deref());
    }

    pub(crate) fn error(&self, text: &str, detail: Option<&str>, hint: Option<&str>) {
        self.line("ERROR", text);
        self.more(detail, hint);
    }

    fn message(&self, message: &Message) {
        let level = match message.level {
            Level::Warning => "WARNING",
            // Patroni has no other.
            Level::Info | Level::Notice => "INFO",
        };
        self.line(level, &message.text);
        let hint = message.hint.as_ref().map(in_words);
        self.more(message.detail.as_deref(), hint.as_deref());
    }

    fn more(&self, detail: Option<&str>, hint: Option<&str>) {
        for (what, text) in [("DETAIL", detail), ("HINT", hint)] {
            let lines = text.into_iter().flat_map(str::lines);
            lines.for_each(|line| self.line(what, line));
        }
    }

    /// Control characters are escaped, for messages quote what other hosts say.
    fn line(&self, level: &str, text: &str) {
        let format =
            format_description!("[year]-[month]-[day] [hour]:[minute]:[second],[subsecond digits:3]");
        let now = OffsetDateTime::now_utc().to_offset(self.offset);
        // A time that cannot be formatted is no reason to say nothing.
        let now = now.format(&format).unwrap_or_default();
        let mut plain = String::with_capacity(text.len());
        for c in text.chars() {
            match c.is_control() {
                true => plain.extend(c.escape_default()),
                false => plain.push(c),
            }
        }
        eprintln!("{now} {level}: repmgr-patroni: {plain}");
    }
}

/// A hint in the keys of this program.
fn in_words(hint: &Hint) -> String {
    hint.render(|remedy, value| {
        let key = match remedy {
            Remedy::Backup => "backup_id",
            Remedy::WalDirectory => "waldir",
            Remedy::Force => "keep_data",
            Remedy::Connection => "connstring",
            Remedy::BarmanUser => "USER@ in barman_host",
            Remedy::NoUpstreamConnection => "no_leader",
            other => other.name(),
        };
        match value {
            Some(value) => format!("{key}: {value}"),
            None => key.to_owned(),
        }
    })
}
