//! What ends the program early: how it is told, and the exit code it gives.

use std::path::PathBuf;

use repmgr_clone::{CloneError, ErrorKind};
use repmgr_config::{ConfigError, Diagnostic, LogLevel};

use crate::log::{Entry, Log};
use crate::words;

/// Exit codes, those of repmgr (`errcode.h`), which users' scripts test.
pub(crate) mod exit {
    pub(crate) const SUCCESS: u8 = 0;
    pub(crate) const BAD_CONFIG: u8 = 1;
    pub(crate) const DB_CONN: u8 = 6;
    pub(crate) const DB_QUERY: u8 = 7;
    pub(crate) const BAD_BASEBACKUP: u8 = 14;
    pub(crate) const INTERNAL: u8 = 15;
    pub(crate) const BARMAN: u8 = 19;
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
    /// Something is asked for that cannot be done.
    Refused {
        text: String,
        detail: Option<String>,
        hint: Option<String>,
    },
    /// The clone failed.
    Clone {
        error: Box<CloneError>,
        /// The data directory, if it holds the clone as far as it came.
        unfinished: Option<PathBuf>,
    },
}

/// One error, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) text: String,
    pub(crate) detail: Option<String>,
    pub(crate) hints: Vec<String>,
}

impl Failure {
    pub(crate) fn refused(text: impl Into<String>, hint: impl Into<String>) -> Self {
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

    /// The one table of exit codes. `signal` is the one that asked us to stop.
    pub(crate) fn exit_code(&self, signal: Option<i32>) -> u8 {
        match self {
            Self::Usage { .. } | Self::Config(_) | Self::Refused { .. } => exit::BAD_CONFIG,
            Self::Clone { error, .. } => match error.kind() {
                ErrorKind::Target | ErrorKind::Prerequisite | ErrorKind::Configuration => exit::BAD_CONFIG,
                ErrorKind::Barman => exit::BARMAN,
                ErrorKind::Connection => exit::DB_CONN,
                ErrorKind::Query => exit::DB_QUERY,
                ErrorKind::Copy => exit::BAD_BASEBACKUP,
                ErrorKind::Interrupted => signal
                    .and_then(|signal| u8::try_from(signal).ok())
                    .map_or(exit::INTERNAL, |signal| exit::SIGNAL.saturating_add(signal)),
                _ => exit::INTERNAL,
            },
        }
    }

    /// A word for programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Config(_) => "configuration_file",
            Self::Refused { .. } => "refused",
            Self::Clone { error, .. } => match error.kind() {
                ErrorKind::Target => "target",
                ErrorKind::Barman => "barman",
                ErrorKind::Connection => "connection",
                ErrorKind::Query => "query",
                ErrorKind::Prerequisite => "prerequisite",
                ErrorKind::Copy => "copy",
                ErrorKind::Configuration => "configuration",
                ErrorKind::Interrupted => "interrupted",
                _ => "internal",
            },
        }
    }

    /// The errors in words, one or more.
    pub(crate) fn told(&self) -> Vec<Told> {
        match self {
            Self::Usage { errors, command } => vec![Told {
                text: USAGE.to_owned(),
                detail: Some(errors.join("\n")),
                hints: vec![try_help(command.as_deref())],
            }],
            Self::Config(error) => vec![Told {
                text: error.to_string(),
                detail: match error.errors() {
                    [] => std::error::Error::source(error).map(ToString::to_string),
                    errors => Some(lines(errors).join("\n")),
                },
                hints: error.hint().into_iter().collect(),
            }],
            Self::Refused { text, detail, hint } => vec![Told {
                text: text.clone(),
                detail: detail.clone(),
                hints: hint.iter().cloned().collect(),
            }],
            Self::Clone { error, unfinished } => {
                let mut told = told_of_clone(error);
                if let (Some(path), Some(last)) = (unfinished, told.last_mut()) {
                    last.hints.push(format!(
                        "\"{}\" holds an unfinished clone, on which PostgreSQL cannot start; run the same command \
                         again to continue it",
                        path.display()
                    ));
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
                    let hints: Vec<&str> = told.hints.iter().map(String::as_str).collect();
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

fn told_of_clone(error: &CloneError) -> Vec<Told> {
    if let CloneError::Problems(problems) = error
        && !problems.is_empty()
    {
        let told = |text: &String, detail: &Option<String>, hint: &Option<String>| Told {
            text: text.clone(),
            detail: detail.clone(),
            hints: hint.iter().cloned().collect(),
        };
        return problems
            .iter()
            .map(|problem| told(&problem.message, &problem.detail, &problem.hint))
            .collect();
    }
    vec![Told {
        text: error.to_string(),
        detail: error.detail(),
        hints: error.hint().into_iter().collect(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::in_memory;
    use repmgr_types::Cancelled;

    fn clone(error: impl Into<CloneError>, unfinished: Option<&str>) -> Failure {
        Failure::Clone {
            error: Box::new(error.into()),
            unfinished: unfinished.map(PathBuf::from),
        }
    }

    fn damaged() -> CloneError {
        CloneError::Damaged {
            damages: vec![
                "base/1/2: wrong checksum".to_owned(),
                "base/1/3: too short".to_owned(),
            ],
        }
    }

    fn reported(failure: &Failure) -> String {
        let log = in_memory(LogLevel::Info);
        failure.report(&log);
        log.written()
    }

    #[test]
    fn exit_codes_are_the_numbers_of_repmgr() {
        assert_eq!(
            [
                exit::SUCCESS,
                exit::BAD_CONFIG,
                exit::DB_CONN,
                exit::DB_QUERY,
                exit::BAD_BASEBACKUP,
                exit::INTERNAL,
                exit::BARMAN
            ],
            [0, 1, 6, 7, 14, 15, 19]
        );
    }

    #[test]
    fn an_interrupted_program_says_by_which_signal() {
        let failure = clone(Cancelled, None);
        assert_eq!(failure.exit_code(Some(2)), 130);
        assert_eq!(failure.exit_code(Some(15)), 143);
        assert_eq!(failure.exit_code(Some(1)), 129);
        assert_eq!(clone(damaged(), None).exit_code(Some(2)), exit::BAD_BASEBACKUP);
        assert_eq!(
            clone(CloneError::Problems(Vec::new()), None).exit_code(None),
            exit::BAD_CONFIG
        );
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
        let text = reported(&clone(Cancelled, Some("/data")));
        assert_eq!(
            text,
            "ERROR: interrupted\nHINT: \"/data\" holds an unfinished clone, on which PostgreSQL cannot start; run \
             the same command again to continue it\n"
        );
        assert!(!reported(&clone(Cancelled, None)).contains("HINT"));
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
