//! Files through `barman get-wal`: for whatever only Barman can read.

use std::io::{self, Read};
use std::time::Duration;

use repmgr_remote::{Exit, ShellCommand, StartOptions, run, shorten};

use super::Archive;
use super::stream::pumped;
use crate::decode;
use crate::deliver::Shelf;
use crate::receive::{ReceiveError, Received, receive};
use crate::{ContentError, FetchError, WalFileName};

/// Barman may decrypt, and wait for a primary that hangs before it does anything.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// So much of an answer is looked at to tell a file from words.
const FIRST: u64 = 512;
/// How Barman begins to say that it is ready to deliver WAL.
const READY: &str = "Ready to retrieve WAL files";

impl Archive {
    /// Barman with its global options.
    pub(super) fn barman(&self, words: &[&str]) -> ShellCommand {
        self.options.address.call(words)
    }

    /// Asks Barman whether it is ready to deliver WAL of the server; what it said.
    ///
    /// # Errors
    /// [`FetchError::Barman`] if it is not, and whatever else went wrong.
    pub fn test(&mut self) -> Result<String, FetchError> {
        // Any name will do for Barman 2.8 and later, which does not look at it.
        let server = self.options.address.server.clone();
        let command = self.barman(&["get-wal", "--test", &server, "000000010000000000000001"]);
        let said = self.with_session(|archive| archive.said(&command))?;
        // A login shell that runs nothing also ends with code 0.
        match said.lines().any(|line| line.trim_start().starts_with(READY)) {
            true => Ok(said),
            false => Err(self.not_barman(&command, &said)),
        }
    }

    /// What Barman says when all is well.
    pub(super) fn said(&mut self, command: &ShellCommand) -> Result<String, FetchError> {
        let options = StartOptions {
            idle_timeout: IDLE_TIMEOUT,
            cancel: self.cancel.clone(),
            ..Default::default()
        };
        let output = run(&mut **self.connection()?, command, options, 64 * 1024)?;
        if output.exit.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(self.barman_failed(command, &output.exit))
        }
    }

    /// What Barman delivers; `None` when it says that it has no such file.
    pub(super) fn get_wal(&mut self, name: WalFileName, dir: &Shelf) -> Result<Option<Received>, FetchError> {
        let mut words = vec!["get-wal"];
        if self.options.partial {
            words.push("--partial");
        }
        let (server, file) = (self.options.address.server.clone(), name.to_string());
        words.extend([server.as_str(), &file]);
        let command = self.barman(&words);
        let options = StartOptions {
            idle_timeout: IDLE_TIMEOUT,
            bulk: true,
            cancel: self.cancel.clone(),
            ..Default::default()
        };
        let system_id = self.options.system_id;
        let process = self.connection()?.start(&command, options)?;
        let mut first = Vec::new();
        let (result, end) = pumped(process, |chunks| {
            chunks.by_ref().take(FIRST).read_to_end(&mut first)?;
            let received = receive(name, first.chain(&mut *chunks), system_id, dir);
            // Barman must be able to end, for its exit code says more than half a file.
            match io::copy(chunks, &mut io::sink()) {
                Ok(_) => received,
                Err(error) => Err(ReceiveError::Source(error)),
            }
        });
        let exit = end?.unwrap_or_default();
        if !exit.success() {
            return match says_absent(name, &exit) {
                true => Ok(None),
                false => Err(self.barman_failed(&command, &exit)),
            };
        }
        result.map(Some).map_err(|error| match error {
            ReceiveError::Unknown | ReceiveError::Content(_) if !self.may_be_a_file(name, &first) => {
                self.not_barman(&command, &String::from_utf8_lossy(&first))
            }
            ReceiveError::Content(source) => self.refused(name, "barman get-wal", source),
            ReceiveError::Unknown => {
                let first = "unknown".to_owned();
                self.refused(name, "barman get-wal", ContentError::NotWal { first })
            }
            ReceiveError::File(error) => error.into(),
            ReceiveError::Source(error) => FetchError::Garbled {
                host: self.host.name().to_owned(),
                reason: error.to_string(),
            },
        })
    }

    /// Whether an answer may be a file of an archive: a login shell or a forced command that does something else
    /// answers with nothing, or with words.
    fn may_be_a_file(&self, name: WalFileName, first: &[u8]) -> bool {
        let words = !self.framed || name.segment().is_some();
        !(first.is_empty() || words && decode::is_text(first))
    }

    fn not_barman(&self, command: &ShellCommand, said: &str) -> FetchError {
        FetchError::NotBarman {
            host: self.host.name().to_owned(),
            command: command.shown(),
            said: shorten(said.trim(), 200),
        }
    }

    fn barman_failed(&self, command: &ShellCommand, exit: &Exit) -> FetchError {
        let text = exit.stderr_text();
        // Other lines are warnings, or the log where Barman cannot write it.
        let said = text
            .lines()
            .filter(|line| line.starts_with("ERROR: ") || line.starts_with("EXCEPTION: "));
        let said: Vec<&str> = said.collect();
        FetchError::Barman {
            host: self.host.name().to_owned(),
            command: command.shown(),
            status: exit.status(),
            message: if said.is_empty() {
                text.replace('\n', "; ")
            } else {
                said.join("; ")
            },
        }
    }
}

fn says_absent(name: WalFileName, exit: &Exit) -> bool {
    // ERROR: WAL file '...' not found in server '...' (SSH host: ...)
    let absent = format!("ERROR: WAL file '{name}' not found in server ");
    exit.code == Some(1) && exit.stderr_text().lines().any(|line| line.starts_with(&absent))
}
