//! What was typed: the first of two stages. Nothing is read or looked up here.
//!
//! Names, short forms and behaviour are those of repmgr 5: options stand anywhere, long ones may
//! be shortened while they are unique, the last of several counts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{Arg, ArgAction};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser};

use crate::foreign::{FOREIGN, Foreign, Takes};

pub(crate) const GENERAL: &str = "General options";
pub(crate) const CONFIGURATION: &str = "General configuration options";
pub(crate) const CONNECTION: &str = "Database connection options";
pub(crate) const NODE: &str = "Node-specific options";
pub(crate) const LOGGING: &str = "Logging options";
pub(crate) const CLONE: &str = "Options of \"standby clone\"";
pub(crate) const OURS: &str = "Options that only this repmgr has";

/// The options of `standby clone` and those of all commands. Values that need judging are kept
/// as text for [`crate::values::Values`], so that all that is wrong can be told at once.
#[derive(Debug, Default, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "repmgr",
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true,
    infer_long_args = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    /// Command, action and host
    #[arg(hide = true)]
    pub(crate) words: Vec<String>,

    /// Show this help, then exit
    #[arg(short = '?', long, help_heading = GENERAL)]
    pub(crate) help: bool,
    /// Show the version, then exit
    #[arg(short = 'V', long, help_heading = GENERAL)]
    pub(crate) version: bool,
    /// Show the version as a number, then exit
    #[arg(long, help_heading = GENERAL)]
    pub(crate) version_number: bool,
    /// Show every parameter of the configuration file and its value, then exit
    #[arg(long, help_heading = GENERAL)]
    pub(crate) dump_config: bool,

    /// Print what packages ship: man, bash, zsh or fish
    #[arg(long, value_name = "WHAT", hide = true)]
    pub(crate) generate: Option<String>,

    /// Directory of PostgreSQL's programs [default: pg_bindir in repmgr.conf, else $PATH]
    #[arg(short = 'b', long = "pg_bindir", value_name = "PATH", help_heading = CONFIGURATION)]
    pub(crate) pg_bindir: Option<PathBuf>,
    /// The configuration file [default: repmgr.conf here, in /etc, in PostgreSQL's sysconfdir]
    #[arg(short = 'f', long, value_name = "PATH", help_heading = CONFIGURATION)]
    pub(crate) config_file: Option<PathBuf>,
    /// Overwrite what is in the data directory; never that of a running server
    #[arg(short = 'F', long, help_heading = CONFIGURATION)]
    pub(crate) force: bool,

    /// Database to connect to: a name, a connection string or a URI
    #[arg(short = 'd', long, value_name = "DBNAME", help_heading = CONNECTION)]
    pub(crate) dbname: Option<String>,
    /// Host of the database server
    #[arg(short = 'h', long, value_name = "HOSTNAME", help_heading = CONNECTION)]
    pub(crate) host: Option<String>,
    /// Port of the database server
    #[arg(short = 'p', long, value_name = "PORT", help_heading = CONNECTION)]
    pub(crate) port: Option<String>,
    /// User to connect as
    #[arg(short = 'U', long, value_name = "USERNAME", help_heading = CONNECTION)]
    pub(crate) username: Option<String>,

    /// The data directory, if there is no configuration file
    #[arg(short = 'D', long, value_name = "DIR", help_heading = NODE)]
    pub(crate) pgdata: Option<PathBuf>,

    /// Check everything, and show what would be done, without doing it; with "full" all of the backup is read and
    /// verified too
    #[arg(
        long, value_name = "full", num_args = 0..=1, require_equals = true, default_missing_value = "",
        help_heading = LOGGING
    )]
    pub(crate) dry_run: Option<String>,
    /// DEBUG, INFO, NOTICE, WARNING, ERROR, ALERT, CRIT or EMERG [default: log_level in
    /// repmgr.conf, else INFO]
    #[arg(short = 'L', long, value_name = "LEVEL", help_heading = LOGGING)]
    pub(crate) log_level: Option<String>,
    /// Log to the log_file or log_facility of repmgr.conf
    #[arg(long, help_heading = LOGGING)]
    pub(crate) log_to_file: bool,
    /// Show nothing but errors
    #[arg(short = 'q', long, help_heading = LOGGING)]
    pub(crate) quiet: bool,
    /// Show no DETAIL and HINT lines and no warnings about options and parameters
    #[arg(short = 't', long, help_heading = LOGGING)]
    pub(crate) terse: bool,
    /// Show more, for example where the configuration file was looked for
    #[arg(short = 'v', long, help_heading = LOGGING)]
    pub(crate) verbose: bool,

    /// Let the source node's checkpoint be fast; no effect with Barman
    #[arg(short = 'c', long, help_heading = CLONE)]
    pub(crate) fast_checkpoint: bool,
    /// Copy configuration files from outside the source node's data directory, to the same place
    /// (the default) or into the data directory
    #[arg(
        long, value_name = "samepath|pgdata", num_args = 0..=1, require_equals = true,
        default_missing_value = "samepath", help_heading = CLONE
    )]
    pub(crate) copy_external_config_files: Option<String>,
    /// Do not connect to the upstream node; with Barman only
    #[arg(long, help_heading = CLONE)]
    pub(crate) no_upstream_connection: bool,
    /// User for SSH to the source node, for --copy-external-config-files
    #[arg(short = 'R', long, value_name = "USERNAME", help_heading = CLONE)]
    pub(crate) remote_user: Option<String>,
    /// Role for replication connections, instead of the one in the upstream node's record
    #[arg(long, value_name = "USERNAME", help_heading = CLONE)]
    pub(crate) replication_user: Option<String>,
    /// Role for what the connection's own may not do: creating a replication slot, seeing where
    /// configuration files are
    #[arg(short = 'S', long, value_name = "USERNAME", help_heading = CLONE)]
    pub(crate) superuser: Option<String>,
    /// Connection string of the upstream node, instead of the one in its record
    #[arg(long, value_name = "CONNINFO", help_heading = CLONE)]
    pub(crate) upstream_conninfo: Option<String>,
    /// The node that the standby will follow [default: the primary]
    #[arg(long, value_name = "ID", help_heading = CLONE)]
    pub(crate) upstream_node_id: Option<String>,
    /// Verify all files by the backup's manifest, and refuse a backup that has none
    #[arg(long, help_heading = CLONE)]
    pub(crate) verify_backup: bool,
    /// Clone from the source node with pg_basebackup although Barman is configured
    #[arg(long, help_heading = CLONE)]
    pub(crate) without_barman: bool,
    /// Only write the replication configuration, for an instance that is there already and stays
    #[arg(long, alias = "recovery-conf-only", help_heading = CLONE)]
    pub(crate) replication_conf_only: bool,
    /// Set recovery_min_apply_delay: a number with ms, s, min, h or d
    #[arg(long, value_name = "TIME", help_heading = CLONE)]
    pub(crate) recovery_min_apply_delay: Option<String>,

    /// The backup to clone from: an id, a name, "latest", "oldest" or another of Barman's words
    /// [default: latest]
    #[arg(long, value_name = "BACKUP", help_heading = OURS)]
    pub(crate) backup_id: Option<String>,
    /// With -F over a stopped instance: fetch only what differs. Files that are right are known by the
    /// backup's manifest, or without one by size and time (quick, the default); all others are compared
    /// block by block, and with "checksum" those that look right too
    #[arg(
        long, value_name = "quick|checksum", num_args = 0..=1, require_equals = true,
        default_missing_value = "quick", help_heading = OURS
    )]
    pub(crate) delta: Option<String>,
    /// Parallel SSH sessions [default: by the processors here]
    #[arg(long, value_name = "N", help_heading = OURS)]
    pub(crate) jobs: Option<String>,
    /// The most that is transferred in a second, in kB or with k or M behind it, from 32k to 1024M
    /// [default: max_rate in repmgr.conf, else as fast as it goes]
    #[arg(long, value_name = "RATE", help_heading = OURS)]
    pub(crate) max_rate: Option<String>,
    /// What connects by SSH: auto, libssh2 or ssh [default: ssh_client in repmgr.conf, else auto]
    #[arg(long, value_name = "CLIENT", help_heading = OURS)]
    pub(crate) ssh_client: Option<String>,
    /// Compression on the wire: auto, zstd, lz4, gzip or none [default: auto]
    #[arg(long, value_name = "METHOD", help_heading = OURS)]
    pub(crate) compress: Option<String>,
    /// How often a lost connection is made anew before the clone gives up
    #[arg(long, value_name = "N", help_heading = OURS)]
    pub(crate) retries: Option<String>,
    /// Start the server afterwards, and end when it streams
    #[arg(long, help_heading = OURS)]
    pub(crate) start: bool,
    /// How long it may take with --start until the standby streams [default: as long as it gets on]
    #[arg(long, value_name = "SECONDS", help_heading = OURS)]
    pub(crate) start_timeout: Option<String>,
    /// Accept files that fail their checksums, with a warning
    #[arg(long, help_heading = OURS)]
    pub(crate) accept_damage: bool,
    /// Do not hold data pages against their checksums, of encrypted clusters say; files are still held against the
    /// manifest
    #[arg(long, help_heading = OURS)]
    pub(crate) skip_page_checks: bool,
    /// Go on, with a warning, although WAL that the standby needs seems to be missing
    #[arg(long, help_heading = OURS)]
    pub(crate) accept_missing_wal: bool,
    /// What to write to the standard output: text (nothing) or json (an object per line for
    /// everything that happens)
    #[arg(long, value_name = "FORMAT", help_heading = OURS)]
    pub(crate) output: Option<String>,
}

/// All that was typed.
#[derive(Debug)]
pub(crate) struct CommandLine {
    /// The options we know what to do with.
    pub(crate) args: Args,
    /// Options of other commands.
    pub(crate) foreign: Vec<&'static Foreign>,
}

impl CommandLine {
    /// Reads the arguments, the first of which is the name of the program.
    ///
    /// # Errors
    /// What is wrong with an option, in words.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let matches = command()
            .try_get_matches_from(arguments)
            .map_err(|error| in_words(&error))?;
        let args = Args::from_arg_matches(&matches).map_err(|error| in_words(&error))?;
        let given = |foreign: &&Foreign| is_given(&matches, foreign.name);
        let foreign = FOREIGN.iter().filter(given).collect();
        Ok(Self { args, foreign })
    }

    /// Whether the option of another command was given.
    pub(crate) fn has_foreign(&self, name: &str) -> bool {
        self.foreign.iter().any(|foreign| foreign.name == name)
    }
}

fn is_given(matches: &ArgMatches, name: &str) -> bool {
    matches.value_source(name) == Some(ValueSource::CommandLine)
}

/// The whole command line, options of other commands among them, hidden.
pub(crate) fn command() -> Command {
    Args::command()
        .args(FOREIGN.iter().map(foreign_arg))
        .mut_args(|arg| {
            // As getopt does: what follows an option that needs a value is the value.
            let needs_value = arg.get_action().takes_values() && !arg.is_positional();
            let needs_value = needs_value && !arg.is_require_equals_set();
            arg.allow_hyphen_values(needs_value)
        })
}

fn foreign_arg(foreign: &Foreign) -> Arg {
    let arg = Arg::new(foreign.name).long(foreign.name).hide(true);
    let arg = match foreign.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match foreign.takes {
        Takes::Nothing => arg.action(ArgAction::SetTrue),
        Takes::Value => arg.action(ArgAction::Set),
        Takes::OptionalValue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value(""),
    }
}

/// What clap found wrong, as one line in the manner of our other messages.
fn in_words(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    // "--port <PORT>" is "--port" to us.
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let argument = argument.split([' ', '=', '[']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => match (candidates(argument), text(ContextKind::SuggestedArg)) {
            (Some(all), _) => format!("option \"{argument}\" is ambiguous; possibilities: {all}"),
            (None, Some(other)) => format!("unknown option \"{argument}\"; did you mean \"{other}\"?"),
            (None, None) => format!("unknown option \"{argument}\""),
        },
        ErrorKind::TooManyValues => format!("option \"{argument}\" takes no value"),
        ErrorKind::InvalidValue if text(ContextKind::InvalidValue).is_none_or(|value| value.is_empty()) => {
            format!("option \"{argument}\" needs a value")
        }
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        _ => {
            let whole = error.to_string();
            let line = whole.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    }
}

/// The options that `argument` is a shortening of.
fn candidates(argument: &str) -> Option<String> {
    let start = argument.strip_prefix("--").filter(|start| !start.is_empty())?;
    let command = command();
    let longs = command.get_arguments().filter_map(Arg::get_long);
    let all: Vec<_> = longs
        .filter(|long| long.starts_with(start))
        .map(|long| format!("--{long}"))
        .collect();
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests;
