//! Values of options, judged all at once, so that a user sees all that is wrong with them.

use std::num::NonZeroUsize;

use repmgr_clone::{Compression, Delta, Placement};
use repmgr_config::{ApplyDelay, LogLevel, SshClient};
use repmgr_types::{Conninfo, Rate};

use crate::args::CommandLine;

/// Each costs a session and some open files, of which a process mostly has 1,024.
const MOST_JOBS: usize = 64;

/// The values of options that are more than text.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Values {
    pub(crate) port: Option<u16>,
    pub(crate) dbname: Option<Dbname>,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) upstream_node_id: Option<i32>,
    pub(crate) upstream_conninfo: Option<Conninfo>,
    pub(crate) recovery_min_apply_delay: Option<ApplyDelay>,
    pub(crate) jobs: Option<NonZeroUsize>,
    pub(crate) retries: Option<u32>,
    /// Seconds.
    pub(crate) start_timeout: Option<u32>,
    pub(crate) compression: Compression,
    pub(crate) max_rate: Option<Rate>,
    pub(crate) ssh_client: Option<SshClient>,
    pub(crate) external_files: Option<Placement>,
    pub(crate) delta: Option<Delta>,
    pub(crate) output: Output,
    pub(crate) depth: Depth,
}

/// How far to go.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// To a standby.
    #[default]
    Clone,
    /// To a plan.
    Plan,
    /// To the last byte of the backup, writing nothing.
    Verify,
}

/// What `-d` can be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Dbname {
    Name(String),
    Conninfo(Conninfo),
}

/// What goes to the standard output.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Nothing: messages go to standard error.
    #[default]
    Text,
    /// One object per line for all that happens.
    Json,
}

impl Values {
    /// Judges the values and what cannot be given together.
    ///
    /// What is wrong is in the list; the other values count nevertheless.
    pub(crate) fn read(line: &CommandLine) -> (Self, Vec<String>) {
        let mut errors = Vec::new();
        let args = &line.args;
        let values = Self {
            port: take(&args.port, &mut errors, |text| number("-p/--port", text, 1)),
            dbname: take(&args.dbname, &mut errors, dbname),
            log_level: take(&args.log_level, &mut errors, |text| {
                text.parse()
                    .map_err(|_| format!("invalid log level \"{text}\" provided"))
            }),
            upstream_node_id: take(&args.upstream_node_id, &mut errors, |text| {
                number("--upstream-node-id", text, 1)
            }),
            upstream_conninfo: take(&args.upstream_conninfo, &mut errors, |text| {
                Conninfo::parse(text).map_err(|error| format!("\"--upstream-conninfo\": {error}"))
            }),
            recovery_min_apply_delay: take(&args.recovery_min_apply_delay, &mut errors, |text| {
                text.parse().map_err(|error| {
                    format!("\"--recovery-min-apply-delay\": {error} (provided: \"{text}\")")
                })
            }),
            jobs: take(&args.jobs, &mut errors, jobs).and_then(NonZeroUsize::new),
            retries: take(&args.retries, &mut errors, |text| number("--retries", text, 0)),
            start_timeout: take(&args.start_timeout, &mut errors, |text| {
                number("--start-timeout", text, 1)
            }),
            compression: take(&args.compress, &mut errors, |text| {
                compression(text).ok_or_else(|| one_of("--compress", text, "auto, zstd, lz4, gzip, none"))
            })
            .unwrap_or_default(),
            max_rate: take(&args.max_rate, &mut errors, |text| {
                text.parse::<Rate>()
                    .map_err(|error| format!("\"--max-rate\": {error}"))
            }),
            ssh_client: take(&args.ssh_client, &mut errors, |text| {
                text.parse()
                    .map_err(|_| one_of("--ssh-client", text, "auto, libssh2, ssh"))
            }),
            delta: take(&args.delta, &mut errors, |text| match text {
                "quick" => Ok(Delta::Quick),
                "checksum" | "checksums" => Ok(Delta::Checksum),
                _ => Err(one_of("--delta", text, "quick, checksum")),
            }),
            depth: take(&args.dry_run, &mut errors, |text| match text {
                "" => Ok(Depth::Plan),
                "full" => Ok(Depth::Verify),
                _ => Err(one_of("--dry-run", text, "full")),
            })
            .unwrap_or_default(),
            output: take(&args.output, &mut errors, |text| match text {
                "text" => Ok(Output::Text),
                "json" => Ok(Output::Json),
                _ => Err(one_of("--output", text, "text, json")),
            })
            .unwrap_or_default(),
            external_files: take(&args.copy_external_config_files, &mut errors, |text| match text {
                "samepath" => Ok(Placement::SamePath),
                "pgdata" | "data_directory" => Ok(Placement::DataDirectory),
                _ => Err(
                    "value provided for \"--copy-external-config-files\" must be \"samepath\" or \"pgdata\""
                        .to_owned(),
                ),
            }),
        };
        if args.backup_id.as_deref() == Some("") {
            errors.push("value provided for \"--backup-id\" must not be empty".to_owned());
        }
        if args.delta.is_some() && !args.force {
            errors.push("--delta replaces an existing data directory and needs -F/--force".to_owned());
        }
        if line.has_foreign("wait") && line.has_foreign("no-wait") {
            errors.push("both --wait and --no-wait options provided".to_owned());
        }
        let formats = ["csv", "nagios", "optformat"];
        if formats.iter().filter(|name| line.has_foreign(name)).count() > 1 {
            errors.push("only one of --csv, --nagios and --optformat can be used".to_owned());
        }
        (values, errors)
    }
}

fn take<T>(
    text: &Option<String>,
    errors: &mut Vec<String>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    match read(text.as_deref()?) {
        Ok(value) => Some(value),
        Err(error) => {
            errors.push(error);
            None
        }
    }
}

fn number<T: TryFrom<u64>>(option: &str, text: &str, min: u64) -> Result<T, String> {
    let number: u64 = text
        .trim()
        .parse()
        .map_err(|_| format!("\"{option}\": invalid value (provided: \"{text}\")"))?;
    if number < min {
        return Err(format!(
            "\"{option}\": must be {min} or greater (provided: \"{text}\")"
        ));
    }
    T::try_from(number).map_err(|_| format!("\"{option}\": value is too large (provided: \"{text}\")"))
}

fn jobs(text: &str) -> Result<usize, String> {
    match number("--jobs", text, 1)? {
        more if more > MOST_JOBS => Err(format!(
            "\"--jobs\": must be {MOST_JOBS} or less (provided: \"{text}\")"
        )),
        jobs => Ok(jobs),
    }
}

fn one_of(option: &str, text: &str, choices: &str) -> String {
    format!("\"{option}\": value must be one of {choices} (provided: \"{text}\")")
}

fn compression(name: &str) -> Option<Compression> {
    match name {
        "auto" => Some(Compression::Auto),
        "zstd" => Some(Compression::Zstd),
        "lz4" => Some(Compression::Lz4),
        "gzip" => Some(Compression::Gzip),
        "none" => Some(Compression::None),
        _ => None,
    }
}

fn dbname(text: &str) -> Result<Dbname, String> {
    if !Conninfo::looks_like_conninfo(text) {
        return Ok(Dbname::Name(text.to_owned()));
    }
    // The text itself is not shown: it may hold a password.
    Conninfo::parse(text)
        .map(Dbname::Conninfo)
        .map_err(|error| format!("\"-d/--dbname\": {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> (Values, Vec<String>) {
        let words = std::iter::once("repmgr").chain(line.iter().copied());
        Values::read(&CommandLine::parse(words.map(Into::into)).unwrap())
    }

    #[test]
    fn values_become_what_they_mean() {
        let (values, errors) = read(&[
            "-p",
            "5433",
            "-L",
            "debug",
            "-d",
            "repmgr",
            "--upstream-node-id",
            "3",
            "--upstream-conninfo",
            "host=a",
            "--recovery-min-apply-delay",
            "5min",
            "--jobs",
            "4",
            "--retries",
            "0",
            "--start-timeout=90",
            "--output",
            "json",
            "--compress=zstd",
            "--ssh-client=ssh",
        ]);
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(values.port, Some(5433));
        assert_eq!(values.log_level, Some(LogLevel::Debug));
        assert_eq!(values.dbname, Some(Dbname::Name("repmgr".to_owned())));
        assert_eq!(values.upstream_node_id, Some(3));
        assert_eq!(values.upstream_conninfo.unwrap().get("host"), Some("a"));
        assert_eq!(values.recovery_min_apply_delay.unwrap().as_str(), "5min");
        assert_eq!((values.jobs, values.retries), (NonZeroUsize::new(4), Some(0)));
        assert_eq!(values.start_timeout, Some(90));
        assert_eq!(
            (values.output, values.compression),
            (Output::Json, Compression::Zstd)
        );
        assert_eq!(values.ssh_client, Some(SshClient::Ssh));
    }

    #[test]
    fn a_database_can_be_a_connection_string_or_a_uri() {
        for text in ["host=a user=u", "postgresql://u@a/", "postgres://u@a"] {
            let Some(Dbname::Conninfo(conninfo)) = read(&["-d", text]).0.dbname else {
                panic!("{text}");
            };
            assert_eq!(
                (conninfo.get("host"), conninfo.get("user")),
                (Some("a"), Some("u"))
            );
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let (_, errors) = read(&[
            "-p",
            "0",
            "-L",
            "loud",
            "-d",
            "hosst=x",
            "--upstream-node-id=x",
            "--recovery-min-apply-delay=5 years",
            "--jobs=0",
            "--retries=-1",
            "--start-timeout=0",
            "--compress=bzip2",
            "--output=xml",
            "--copy-external-config-files=x",
            "--backup-id=",
            "-w",
            "-W",
            "--csv",
            "--nagios",
            "--upstream-conninfo",
            "nonsense",
        ]);
        let expected = [
            "\"-p/--port\": must be 1 or greater (provided: \"0\")",
            "\"-d/--dbname\": invalid connection string: invalid connection option \"hosst\"",
            "invalid log level \"loud\" provided",
            "\"--upstream-node-id\": invalid value (provided: \"x\")",
            "\"--upstream-conninfo\": invalid connection string: missing \"=\" after a keyword",
            "\"--recovery-min-apply-delay\": value must be a number from 0 on with a unit of ms, s, min, h or d \
             (provided: \"5 years\")",
            "\"--jobs\": must be 1 or greater (provided: \"0\")",
            "\"--retries\": invalid value (provided: \"-1\")",
            "\"--start-timeout\": must be 1 or greater (provided: \"0\")",
            "\"--compress\": value must be one of auto, zstd, lz4, gzip, none (provided: \"bzip2\")",
            "\"--output\": value must be one of text, json (provided: \"xml\")",
            "value provided for \"--copy-external-config-files\" must be \"samepath\" or \"pgdata\"",
            "value provided for \"--backup-id\" must not be empty",
            "both --wait and --no-wait options provided",
            "only one of --csv, --nagios and --optformat can be used",
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn a_password_in_a_wrong_connection_string_is_not_shown() {
        let (_, errors) = read(&["-d", "password=s3cret bogus"]);
        assert!(!errors.concat().contains("s3cret"), "{errors:?}");
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(
            read(&["--jobs", "65"]).1,
            ["\"--jobs\": must be 64 or less (provided: \"65\")"]
        );
        assert_eq!(
            read(&["-p", "65536"]).1,
            ["\"-p/--port\": value is too large (provided: \"65536\")"]
        );
        assert_eq!(
            read(&["--upstream-node-id", "2147483648"]).1,
            ["\"--upstream-node-id\": value is too large (provided: \"2147483648\")"]
        );
    }
}
