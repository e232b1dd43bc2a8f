//! Where messages go and how they look: `LEVEL: text`, with lines for DETAIL and HINT.
//!
//! All of it goes to standard error, or with `--log-to-file` to a file or to syslog, where
//! repmgr writes `[time] [LEVEL] text`. A progress bar on standard error is taken away while a
//! line is written, so that they cannot garble each other.
//!
//! Control and format characters are escaped, for messages quote what other hosts say.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use repmgr_config::LogLevel;
use repmgr_types::text::escape;
use time::{OffsetDateTime, UtcOffset};

use crate::syslog::{Facility, Syslog};

/// One message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) level: LogLevel,
    pub(crate) text: &'a str,
    pub(crate) detail: Option<&'a str>,
    pub(crate) hints: &'a [&'a str],
}

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    /// The least important level.
    pub(crate) level: LogLevel,
    /// No DETAIL and HINT.
    pub(crate) terse: bool,
}

/// The log of this run. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    filter: Filter,
    /// With time stamps, as repmgr does once `--log-to-file` is given, even on standard error.
    dated: bool,
    offset: UtcOffset,
    out: Mutex<Out>,
}

struct Out {
    sink: Sink,
    /// Shown on standard error just now.
    bar: Option<ProgressBar>,
}

/// Where lines go.
pub(crate) enum Sink {
    Stderr,
    File(File),
    Syslog(Syslog),
    #[cfg(test)]
    Memory(Vec<u8>),
}

/// Where `--log-to-file` leads.
pub(crate) enum Destination<'a> {
    File(&'a Path),
    Syslog(Facility),
    Stderr,
}

impl Filter {
    /// What the options and the file say together, as in repmgr: `-q` wins over everything, and
    /// nobody asks for a dry run or `-v` to see nothing.
    pub(crate) fn new(
        option: Option<LogLevel>,
        file: LogLevel,
        quiet: bool,
        at_least_info: bool,
        terse: bool,
    ) -> Self {
        let level = match option.unwrap_or(file) {
            _ if quiet => LogLevel::Error,
            level if at_least_info && severity(level) < severity(LogLevel::Info) => LogLevel::Info,
            level => level,
        };
        Self { level, terse }
    }

    fn shows(self, level: LogLevel) -> bool {
        severity(level) <= severity(self.level)
    }
}

/// As in syslog: 0 is the worst.
pub(crate) fn severity(level: LogLevel) -> u8 {
    match level {
        LogLevel::Emerg => 0,
        LogLevel::Alert => 1,
        LogLevel::Crit => 2,
        LogLevel::Error => 3,
        LogLevel::Warning => 4,
        LogLevel::Notice => 5,
        LogLevel::Info => 6,
        LogLevel::Debug => 7,
    }
}

impl Log {
    /// A log on standard error, or wherever the sink leads.
    ///
    /// To be called while there is one thread: the time zone can be asked for only then.
    pub(crate) fn new(filter: Filter, dated: bool, sink: Sink) -> Self {
        Self(Arc::new(Shared {
            filter,
            dated,
            offset: UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC),
            out: Mutex::new(Out { sink, bar: None }),
        }))
    }

    /// Opens what `--log-to-file` leads to.
    pub(crate) fn open(filter: Filter, destination: &Destination<'_>) -> io::Result<Self> {
        Ok(match destination {
            Destination::Stderr => Self::new(filter, true, Sink::Stderr),
            Destination::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                Self::new(filter, true, Sink::File(file))
            }
            // Syslog adds the time itself.
            Destination::Syslog(facility) => Self::new(filter, false, Sink::Syslog(Syslog::open(*facility)?)),
        })
    }

    /// Takes the `log` records of our libraries too: warnings always, the rest as the level
    /// says. `$RUST_LOG` chooses otherwise, for those who look for a fault.
    pub(crate) fn install(&self) {
        let level = match self.0.filter.level {
            LogLevel::Debug => log::LevelFilter::Debug,
            LogLevel::Info => log::LevelFilter::Info,
            LogLevel::Notice | LogLevel::Warning => log::LevelFilter::Warn,
            LogLevel::Error => log::LevelFilter::Error,
            LogLevel::Alert | LogLevel::Crit | LogLevel::Emerg => log::LevelFilter::Off,
        };
        let chosen = env_logger::Builder::new()
            .filter_level(level.min(log::LevelFilter::Warn))
            .filter_module("repmgr", level)
            .parse_default_env()
            .build();
        let max = chosen.filter();
        let bridge = Bridge {
            log: self.clone(),
            chosen,
        };
        // Fails only if there is a logger already, and this is the one place that sets one.
        if log::set_boxed_logger(Box::new(bridge)).is_ok() {
            log::set_max_level(max);
        }
    }

    pub(crate) fn shows(&self, level: LogLevel) -> bool {
        self.0.filter.shows(level)
    }

    pub(crate) fn is_terse(&self) -> bool {
        self.0.filter.terse
    }

    /// Writes a message, if its level is shown.
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        if self.shows(entry.level) {
            self.write_unfiltered(entry);
        }
    }

    /// Writes a message of one line.
    pub(crate) fn line(&self, level: LogLevel, text: &str) {
        self.write(&Entry {
            level,
            text,
            detail: None,
            hints: &[],
        });
    }

    /// Writes text as it is, where people read; elsewhere it is a message like any other.
    pub(crate) fn bare(&self, level: LogLevel, text: &str) {
        if !self.shows(level) {
            return;
        }
        if self.0.dated {
            return self.line(level, text);
        }
        self.out().put(level, &format!("{text}\n"));
    }

    /// A heading with a list below it, as repmgr tells of several mistakes.
    pub(crate) fn list(&self, level: LogLevel, heading: &str, items: &[String]) {
        if self.shows(level) {
            let mut text = self.labelled(level.as_str(), heading);
            for item in items {
                _ = writeln!(text, "  {item}");
            }
            self.out().put(level, &text);
        }
    }

    /// Shows a progress bar below the lines, or takes it away.
    pub(crate) fn set_bar(&self, bar: Option<ProgressBar>) {
        let old = std::mem::replace(&mut self.out().bar, bar);
        if let Some(old) = old {
            old.finish_and_clear();
        }
    }

    /// Runs `dialogue` with the terminal for itself.
    pub(crate) fn suspend<T>(&self, dialogue: impl FnOnce() -> T) -> T {
        let out = self.out();
        match &out.bar {
            Some(bar) => bar.suspend(dialogue),
            None => dialogue(),
        }
    }

    fn write_unfiltered(&self, entry: &Entry<'_>) {
        let mut text = self.labelled(entry.level.as_str(), entry.text);
        if !self.0.filter.terse {
            for (label, lines) in [("DETAIL", entry.detail.as_slice()), ("HINT", entry.hints)] {
                for line in lines {
                    text.push_str(&self.labelled(label, line));
                }
            }
        }
        self.out().put(entry.level, &text);
    }

    /// The text with its label; further lines of it are indented.
    fn labelled(&self, label: &str, text: &str) -> String {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let mut labelled = match self.0.dated {
            true => format!("[{}] [{label}] {first}\n", self.now()),
            false => format!("{label}: {first}\n"),
        };
        for line in lines {
            _ = writeln!(labelled, "  {line}");
        }
        labelled
    }

    fn now(&self) -> String {
        let now = OffsetDateTime::now_utc().to_offset(self.0.offset);
        let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
        now.format(&format).unwrap_or_else(|_| now.to_string())
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.0.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn written(&self) -> String {
        match &self.out().sink {
            Sink::Memory(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            _ => panic!("this log is not kept in memory"),
        }
    }
}

impl Out {
    /// There is nobody to tell if standard error fails; what a file or syslog does not take
    /// goes there.
    fn put(&mut self, level: LogLevel, text: &str) {
        let text = &*printable(text);
        let written = match &mut self.sink {
            Sink::Stderr => return self.put_stderr(text),
            Sink::File(file) => file.write_all(text.as_bytes()),
            Sink::Syslog(syslog) => syslog.send(severity(level), text),
            #[cfg(test)]
            Sink::Memory(bytes) => bytes.write_all(text.as_bytes()),
        };
        if written.is_err() {
            self.put_stderr(text);
        }
    }

    fn put_stderr(&self, text: &str) {
        let write = || _ = io::stderr().lock().write_all(text.as_bytes());
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// `text` without characters that drive a terminal, but for the line feeds and tabs of our own messages:
/// whatever text from afar got into them must not do so, now or when the file is read.
fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n' || c == '\t')
}

/// Records of the `log` crate on their way to our log.
struct Bridge {
    log: Log,
    chosen: env_logger::Logger,
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.chosen.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.chosen.matches(record) {
            return;
        }
        let level = match record.level() {
            log::Level::Error => LogLevel::Error,
            log::Level::Warn => LogLevel::Warning,
            log::Level::Info => LogLevel::Info,
            log::Level::Debug | log::Level::Trace => LogLevel::Debug,
        };
        self.log.write_unfiltered(&Entry {
            level,
            text: &record.args().to_string(),
            detail: None,
            hints: &[],
        });
    }

    fn flush(&self) {}
}

#[cfg(test)]
pub(crate) fn in_memory(level: LogLevel) -> Log {
    let filter = Filter { level, terse: false };
    Log::new(filter, false, Sink::Memory(Vec::new()))
}

#[cfg(test)]
mod tests;
