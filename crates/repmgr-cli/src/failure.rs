//! What ends the program early: how it is told, and the exit code it gives.

use std::path::PathBuf;

use repmgr_clone::{CloneError, ErrorKind, Hint, NodeError};
use repmgr_config::{ConfigError, Diagnostic, LogLevel};

use crate::log::{Entry, Log};
use crate::{remedies, words};

/// Exit codes, those of repmgr (`errcode.h`), which users' scripts test.
pub(crate) mod exit {
    pub(crate) const SUCCESS: u8 = 0;
    pub(crate) const BAD_CONFIG: u8 = 1;
    pub(crate) const BAD_RSYNC: u8 = 2;
    pub(crate) const DB_CONN: u8 = 6;
    pub(crate) const DB_QUERY: u8 = 7;
    pub(crate) const BAD_BASEBACKUP: u8 = 14;
    pub(crate) const INTERNAL: u8 = 15;
    pub(crate) const BARMAN: u8 = 19;
    /// Ours: the standby is complete, and did not start.
    pub(crate) const NOT_STARTED: u8 = 40;
    /// Ours: the standby is complete and runs, and does not stream in time.
    pub(crate) const NOT_STREAMING: u8 = 41;
    /// Plus the number of the signal, as shells count.
    pub(crate) const SIGNAL: u8 = 128;
}

/// Why the program ends without having done its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage {
        /// All that is wrong.
        errors: Vec<String>,
        /// The command word, for the way to its help.
        command: Option<String>,
    },
    /// The configuration file is wrong.
    Config(ConfigError),
    /// The configuration file that the user names is not there.
    NoConfiguration {
        path: PathBuf,
        source: std::io::Error,
        hint: Option<String>,
    },
    /// Something is asked for that cannot be done.
    Refused {
        text: String,
        detail: Option<String>,
        hint: Option<Hint>,
    },
    /// A command of the original's, which is not here.
    NoOriginal {
        text: String,
        detail: Option<String>,
        hint: String,
    },
    /// The clone failed.
    Clone {
        error: Box<CloneError>,
        /// The data directory, if it holds the clone as far as it came.
        unfinished: Option<PathBuf>,
        /// The signal that asked us to stop.
        signal: Option<i32>,
    },
}

/// One error, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) text: String,
    pub(crate) detail: Option<String>,
    pub(crate) hints: Vec<Hint>,
    /// Where in the configuration file.
    pub(crate) place: Option<Diagnostic>,
}

impl Failure {
    pub(crate) fn refused(text: impl Into<String>, hint: impl Into<Hint>) -> Self {
        Self::Refused {
            text: text.into(),
            detail: None,
            hint: Some(hint.into()),
        }
    }

    /// A wrong command line; `words` as far as they are known.
    pub(crate) fn usage(errors: Vec<String>, words: &[String]) -> Self {
        let command = words.first().filter(|word| words::is_command(word)).cloned();
        Self::Usage { errors, command }
    }

    /// The one table of exit codes.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. }
            | Self::Config(_)
            | Self::NoConfiguration { .. }
            | Self::Refused { .. }
            | Self::NoOriginal { .. } => exit::BAD_CONFIG,
            // Whatever failed then failed because of it, or does not matter any more.
            Self::Clone {
                signal: Some(signal), ..
            } => u8::try_from(*signal).map_or(exit::INTERNAL, |signal| exit::SIGNAL.saturating_add(signal)),
            Self::Clone { error, .. } => code_of(error.kind()),
        }
    }

    /// A word for programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Config(_) | Self::NoConfiguration { .. } => "configuration_file",
            Self::Refused { .. } => "refused",
            Self::NoOriginal { .. } => "no_original",
            Self::Clone { signal: Some(_), .. } => "interrupted",
            Self::Clone { error, .. } => match error.kind() {
                ErrorKind::Target => "target",
                ErrorKind::Barman => "barman",
                ErrorKind::Connection => "connection",
                ErrorKind::Query => "query",
                ErrorKind::Prerequisite => "prerequisite",
                ErrorKind::Copy => "copy",
                ErrorKind::ExternalFile => "external_file",
                ErrorKind::Configuration => "configuration",
                ErrorKind::Start => "start",
                ErrorKind::NotStreaming => "not_streaming",
                _ => "internal",
            },
        }
    }

    /// A finer word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Clone {
                error, signal: None, ..
            } => error.code(),
            other => other.kind(),
        }
    }

    /// What would have been warned of, had the configuration file been right.
    pub(crate) fn warnings(&self) -> &[Diagnostic] {
        match self {
            Self::Config(ConfigError::Invalid { warnings, .. }) => warnings,
            _ => &[],
        }
    }

    /// The errors in words, one or more.
    pub(crate) fn told(&self) -> Vec<Told> {
        match self {
            Self::Usage { errors, command } => {
                let told = errors.iter().map(|error| Told {
                    text: error.clone(),
                    detail: None,
                    hints: vec![try_help(command.as_deref()).into()],
                    place: None,
                });
                told.collect()
            }
            Self::Config(error) if !error.errors().is_empty() => {
                let told = error.errors().iter().map(|error| Told {
                    text: error.to_string(),
                    detail: None,
                    hints: error.hint.iter().map(|hint| hint.clone().into()).collect(),
                    place: Some(error.clone()),
                });
                told.collect()
            }
            Self::Config(error) => vec![Told {
                text: error.to_string(),
                detail: std::error::Error::source(error).map(ToString::to_string),
                hints: error.hint().into_iter().map(Into::into).collect(),
                place: None,
            }],
            Self::NoConfiguration { path, source, hint } => vec![Told {
                text: format!("provided configuration file \"{}\" not found", path.display()),
                detail: Some(source.to_string()),
                hints: hint.iter().map(|hint| hint.clone().into()).collect(),
                place: None,
            }],
            Self::Refused { text, detail, hint } => vec![Told {
                text: text.clone(),
                detail: detail.clone(),
                hints: hint.iter().cloned().collect(),
                place: None,
            }],
            Self::NoOriginal { text, detail, hint } => vec![Told {
                text: text.clone(),
                detail: detail.clone(),
                hints: vec![hint.clone().into()],
                place: None,
            }],
            Self::Clone {
                error,
                unfinished,
                signal,
            } => {
                let mut told = match signal {
                    Some(_) => vec![interrupted(error)],
                    None => told_of_clone(error),
                };
                if let (Some(path), Some(last)) = (unfinished, told.last_mut()) {
                    let hint = format!(
                        "\"{}\" holds an unfinished clone, on which PostgreSQL cannot start; run the same command \
                         again to continue it",
                        path.display()
                    );
                    last.hints.push(hint.into());
                }
                told
            }
        }
    }

    /// Writes it to the log.
    pub(crate) fn report(&self, log: &Log) {
        match self {
            // Like repmgr, without a level, and whatever the level is.
            Self::Usage { errors, command } => {
                let list: String = errors.iter().map(|error| format!("  {error}\n")).collect();
                let text = format!("{USAGE}:\n{list}{}", try_help(command.as_deref()));
                log.bare(LogLevel::Emerg, &text);
            }
            Self::Config(ConfigError::Invalid { errors, warnings, .. }) => {
                log.list(
                    LogLevel::Error,
                    "following errors were found in the configuration file:",
                    &lines(errors),
                );
                if !warnings.is_empty() && !log.is_terse() {
                    let heading = "the following problems were also found in the configuration file:";
                    log.list(LogLevel::Warning, heading, &lines(warnings));
                }
            }
            _ => {
                for told in self.told() {
                    let hints: Vec<String> = told.hints.iter().map(remedies::in_words).collect();
                    let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
                    log.write(&Entry {
                        level: LogLevel::Error,
                        text: &told.text,
                        detail: told.detail.as_deref(),
                        hints: &hints,
                    });
                }
            }
        }
    }
}

fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Target | ErrorKind::Prerequisite | ErrorKind::Configuration => exit::BAD_CONFIG,
        ErrorKind::Barman => exit::BARMAN,
        ErrorKind::Connection => exit::DB_CONN,
        ErrorKind::Query => exit::DB_QUERY,
        ErrorKind::Copy => exit::BAD_BASEBACKUP,
        ErrorKind::ExternalFile => exit::BAD_RSYNC,
        ErrorKind::Start => exit::NOT_STARTED,
        ErrorKind::NotStreaming => exit::NOT_STREAMING,
        _ => exit::INTERNAL,
    }
}

const USAGE: &str = "The following command line errors were encountered";

fn try_help(command: Option<&str>) -> String {
    match command {
        Some(command) => {
            format!("Try \"repmgr --help\" or \"repmgr {command} --help\" for more information.")
        }
        None => "Try \"repmgr --help\" for more information.".to_owned(),
    }
}

/// Errors or warnings about the configuration file, a line each.
pub(crate) fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    let line = |diagnostic: &Diagnostic| match &diagnostic.hint {
        Some(hint) => format!("{diagnostic}; {hint}"),
        None => diagnostic.to_string(),
    };
    diagnostics.iter().map(line).collect()
}

/// A connection that broke because of the signal is no advice, but may be worth knowing.
fn interrupted(error: &CloneError) -> Told {
    Told {
        text: "interrupted".to_owned(),
        detail: (error.kind() != ErrorKind::Interrupted).then(|| error.to_string()),
        hints: Vec::new(),
        place: None,
    }
}

fn told_of_clone(error: &CloneError) -> Vec<Told> {
    if let CloneError::Node(NodeError::Problems(problems)) = error
        && !problems.is_empty()
    {
        let told = problems.iter().map(|problem| Told {
            text: problem.message.clone(),
            detail: problem.detail.clone(),
            hints: problem.hint.iter().cloned().collect(),
            place: None,
        });
        return told.collect();
    }
    vec![Told {
        text: error.to_string(),
        detail: error.detail(),
        hints: error.hint().into_iter().collect(),
        place: None,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::in_memory;
    use repmgr_clone::PlaceError;
    use repmgr_types::Cancelled;

    fn clone(error: impl Into<CloneError>, unfinished: Option<&str>, signal: Option<i32>) -> Failure {
        Failure::Clone {
            error: Box::new(error.into()),
            unfinished: unfinished.map(PathBuf::from),
            signal,
        }
    }

    fn not_empty() -> CloneError {
        PlaceError::NotEmpty {
            path: "/data".into(),
            what: String::new(),
        }
        .into()
    }

    fn reported(failure: &Failure) -> String {
        let log = in_memory(LogLevel::Info);
        failure.report(&log);
        log.written()
    }

    #[test]
    fn an_interrupted_program_says_by_which_signal() {
        for (signal, code) in [(2, 130), (15, 143), (1, 129)] {
            assert_eq!(clone(Cancelled, None, Some(signal)).exit_code(), code);
            assert_eq!(clone(not_empty(), None, Some(signal)).exit_code(), code);
        }
        assert_eq!(clone(not_empty(), None, None).exit_code(), exit::BAD_CONFIG);
    }

    #[test]
    fn each_kind_of_error_has_the_code_that_scripts_know() {
        for (kind, code) in [
            (ErrorKind::Target, 1),
            (ErrorKind::Prerequisite, 1),
            (ErrorKind::Configuration, 1),
            (ErrorKind::Connection, 6),
            (ErrorKind::Query, 7),
            (ErrorKind::Copy, 14),
            (ErrorKind::ExternalFile, 2),
            (ErrorKind::Barman, 19),
        ] {
            assert_eq!(code_of(kind), code, "{kind:?}");
        }
    }

    #[test]
    fn what_else_failed_when_a_signal_came_is_a_detail() {
        let text = reported(&clone(not_empty(), None, Some(2)));
        assert!(text.starts_with("ERROR: interrupted\nDETAIL: "), "{text}");
        assert!(!text.contains("HINT"), "{text}");
        assert_eq!(reported(&clone(Cancelled, None, Some(2))), "ERROR: interrupted\n");
    }

    #[test]
    fn usage_errors_are_listed_as_repmgr_lists_them() {
        let words = ["standby".to_owned()];
        let failure = Failure::usage(vec!["no host".to_owned(), "no port".to_owned()], &words);
        assert_eq!(
            reported(&failure),
            "The following command line errors were encountered:\n  no host\n  no port\n\
             Try \"repmgr --help\" or \"repmgr standby --help\" for more information.\n"
        );
        assert!(
            reported(&Failure::usage(vec![], &[]))
                .ends_with("\nTry \"repmgr --help\" for more information.\n")
        );
    }

    #[test]
    fn a_failed_copy_tells_what_the_directory_holds() {
        let text = reported(&clone(Cancelled, Some("/data"), Some(2)));
        assert_eq!(
            text,
            "ERROR: interrupted\nHINT: \"/data\" holds an unfinished clone, on which PostgreSQL cannot start; run \
             the same command again to continue it\n"
        );
    }

    #[test]
    fn errors_in_the_configuration_file_are_listed_with_what_would_help() {
        let error = repmgr_config::parse(b"node_id='0'\nnode_nam='x'\n", "/r.conf".as_ref()).unwrap_err();
        assert_eq!(
            reported(&Failure::Config(error)),
            "ERROR: following errors were found in the configuration file:\n  \
             file \"/r.conf\", line 1: parameter \"node_id\": value must be a number from 1 to 2147483647\n\
             WARNING: the following problems were also found in the configuration file:\n  \
             file \"/r.conf\", line 2: parameter \"node_nam\": unknown, ignored; did you mean \"node_name\"?\n"
        );
    }
}
