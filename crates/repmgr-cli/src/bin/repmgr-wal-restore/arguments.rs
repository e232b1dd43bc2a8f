//! The command line: that of `barman-wal-restore` 3.19, and what is ours.

use std::borrow::Cow;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use repmgr_barman::BarmanCommand;
use repmgr_remote::SshClient;
use repmgr_types::{SystemId, WalSegmentName, WalSegmentSize};
use repmgr_wal::{Transport, WalFileName};

const EXAMPLES: &str = "\
Exit codes:
  0  the file is at WAL_DEST, whole, checked and flushed
  1  the archive answered and does not hold the file
  2  the archive cannot be reached or did not answer properly; wrong usage
  3  WAL_NAME is not the name of a WAL file, or WAL_DEST cannot be written
  4  what the archive holds is not what WAL_NAME demands

Without standby mode (recovery.signal alone), where PostgreSQL takes every failure for the end of
the archive and opens the database, only code 1 is returned; after any other failure the program
says so and tries again until it succeeds or is stopped.

Example, in postgresql.conf:
  restore_command = 'repmgr-wal-restore barmansrv main %f %p'";

/// Fetches a WAL file from Barman, as PostgreSQL's restore_command. Takes the place of
/// barman-wal-restore; runs ahead of replay in the background.
#[derive(Debug, Parser)]
#[command(name = "repmgr-wal-restore", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The Barman host: a name, an address, or a Host of the SSH configuration
    #[arg(value_name = "BARMAN_HOST")]
    pub(crate) host: String,
    /// The server as Barman's configuration names it
    #[arg(value_name = "SERVER_NAME")]
    pub(crate) server: String,
    /// %f of restore_command
    #[arg(value_name = "WAL_NAME", required_unless_present = "test")]
    pub(crate) name: Option<String>,
    /// %p of restore_command
    #[arg(value_name = "WAL_DEST", required_unless_present = "test")]
    pub(crate) destination: Option<PathBuf>,

    /// The user to log in as [default: the User of the SSH configuration, else barman]
    #[arg(short = 'U', long, value_name = "USER")]
    user: Option<String>,
    /// The port of the SSH server
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Sleep after a failure
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
    sleep: u64,
    /// Segments to hold ready ahead of replay; 0 for none
    #[arg(short, long, value_name = "SEGMENTS", default_value_t = 16)]
    parallel: u32,
    /// Where to hold them [default: in the directory of WAL_DEST]
    #[arg(long, value_name = "SPOOL_DIR")]
    pub(crate) spool_dir: Option<PathBuf>,
    /// Deliver an unfinished segment (.partial) where there is no whole one
    #[arg(short = 'P', long)]
    pub(crate) partial: bool,
    /// Transfer compressed with gzip
    #[arg(short = 'z', long, group = "compression")]
    gzip: bool,
    /// Transfer compressed with bzip2
    #[arg(short = 'j', long, group = "compression")]
    bzip2: bool,
    /// Transfer as stored
    #[arg(long, group = "compression")]
    keep_compression: bool,
    /// Barman's configuration file on its host
    #[arg(short, long, value_name = "CONFIG")]
    pub(crate) config: Option<String>,
    /// Test the connection and Barman's configuration of the server, and fetch nothing
    #[arg(short, long)]
    pub(crate) test: bool,

    /// Fetch this file only, and do not run ahead of replay
    #[arg(long)]
    no_prefetch: bool,
    /// Megabytes to hold ready at most
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    pub(crate) spool_size: u64,
    /// Barman's program on its host, with words before it if needed ("sudo -n -u barman barman"); split
    /// into words as by a shell, so that a path with blanks needs quotes of its own
    #[arg(long, value_name = "COMMAND", default_value = "barman")]
    pub(crate) barman_command: BarmanCommand,
    /// Options for SSH, as typed after "ssh"
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) ssh_options: String,
    /// What connects
    #[arg(long, value_enum, value_name = "CLIENT", default_value_t)]
    pub(crate) ssh_client: Client,
    /// Barman is on this host: no SSH, BARMAN_HOST is only a name
    #[arg(long)]
    pub(crate) local: bool,

    /// What the background process goes on behind
    #[arg(long, hide = true)]
    pub(crate) behind: Option<Behind>,
}

impl Arguments {
    /// `-U`, if given.
    pub(crate) fn user(&self) -> Option<String> {
        self.user.clone()
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    pub(crate) fn sleep(&self) -> Duration {
        Duration::from_secs(self.sleep)
    }

    /// How many segments to run ahead, if at all.
    pub(crate) fn ahead(&self) -> Option<u32> {
        (self.parallel > 0 && !self.no_prefetch).then_some(self.parallel)
    }

    pub(crate) fn transport(&self) -> Transport {
        if self.gzip {
            Transport::Gzip
        } else if self.bzip2 {
            Transport::Bzip2
        } else if self.keep_compression {
            Transport::Stored
        } else {
            Transport::Fast
        }
    }

    /// All that leads to the archive: two calls that agree in it can share a spool.
    pub(crate) fn archive_key(&self) -> [Cow<'_, str>; 7] {
        [
            if self.local { "local" } else { "ssh" }.into(),
            self.host.as_str().into(),
            self.user.as_deref().unwrap_or("").into(),
            self.server.as_str().into(),
            self.config.as_deref().unwrap_or("").into(),
            self.barman_command.to_string().into(),
            self.ssh_options.as_str().into(),
        ]
    }
}

/// What connects by SSH.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Client {
    /// libssh2, and ssh for what libssh2 cannot do
    #[default]
    Auto,
    /// libssh2 only
    Libssh2,
    /// The program ssh only
    Ssh,
}

impl From<Client> for SshClient {
    fn from(client: Client) -> Self {
        match client {
            Client::Auto => Self::Auto,
            Client::Libssh2 => Self::Libssh2,
            Client::Ssh => Self::OpenSsh,
        }
    }
}

/// A delivered segment, as it is passed to the background process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) delivered: WalSegmentName,
    pub(crate) segment_size: WalSegmentSize,
    pub(crate) system_id: SystemId,
}

impl std::fmt::Display for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.delivered,
            self.segment_size.bytes(),
            self.system_id
        )
    }
}

impl FromStr for Behind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or_else(|| "a part is missing".to_owned());
        let delivered = next()?
            .parse()
            .map_err(|e: repmgr_types::ParseError| e.to_string())?;
        let bytes = next()?
            .parse()
            .map_err(|e: std::num::ParseIntError| e.to_string())?;
        Ok(Self {
            delivered,
            segment_size: WalSegmentSize::from_bytes(bytes).ok_or("no segment size")?,
            system_id: next()?
                .parse()
                .map_err(|e: repmgr_types::ParseError| e.to_string())?,
        })
    }
}

/// `%f`, checked.
pub(crate) fn wal_name(text: &str) -> Result<WalFileName, repmgr_types::ParseError> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_option_of_barman_wal_restore_is_taken() {
        let a = parse(
            "x -U me --port 2222 -s 3 -p 8 --spool-dir /s -P --keep-compression -c /b.conf host main 000000010000000000000001 pg_wal/RECOVERYXLOG",
        );
        assert_eq!(
            (a.user(), a.port(), a.sleep()),
            (Some("me".into()), Some(2222), Duration::from_secs(3))
        );
        assert_eq!(
            (a.ahead(), a.partial, a.transport()),
            (Some(8), true, Transport::Stored)
        );
        let long = parse(
            "x --user me --sleep 3 --parallel 0 --partial --gzip --config /b.conf host main 000000010000000000000001 d",
        );
        assert_eq!((long.ahead(), long.transport()), (None, Transport::Gzip));
        assert_eq!(
            parse("x -j host main 000000010000000000000001 d").transport(),
            Transport::Bzip2
        );
        assert_eq!(long.barman_command, BarmanCommand::default());
        assert_eq!(parse("x --ssh-client ssh h m a b").ssh_client, Client::Ssh);
        assert!(parse("x -t host main").test && parse("x --test host main a b").test);
        for wrong in [
            "x host main",
            "x -z -j host main a b",
            "x host main a",
            "x -p x host main a b",
        ] {
            let error = Arguments::try_parse_from(wrong.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn barman_may_be_called_by_several_words_and_by_a_path_with_blanks() {
        let parse =
            |command| Arguments::try_parse_from(["x", "--barman-command", command, "-t", "host", "main"]);
        for (command, words) in [
            (
                "sudo -n -u barman barman",
                &["sudo", "-n", "-u", "barman", "barman"][..],
            ),
            ("'/opt/my barman/bin/barman'", &["/opt/my barman/bin/barman"]),
        ] {
            assert_eq!(parse(command).unwrap().barman_command.words(), words);
        }
        let error = parse("'/opt/my barman").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("a quote is not closed"), "{error}");
    }

    #[test]
    fn what_is_handed_to_the_background_process_comes_back() {
        let behind = Behind {
            delivered: "0000000A0000000100000004".parse().unwrap(),
            segment_size: WalSegmentSize::from_bytes(1 << 20).unwrap(),
            system_id: SystemId(7_412_345_678_901_234_567),
        };
        assert_eq!(behind.to_string().parse::<Behind>().unwrap(), behind);
        for bad in [
            "",
            "0000000A0000000100000004",
            "0000000A0000000100000004:3:4",
            "x:1048576:1",
        ] {
            assert!(bad.parse::<Behind>().is_err(), "{bad:?}");
        }
    }
}
