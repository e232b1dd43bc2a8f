//! Files through `barman get-wal`: for whatever only Barman can read.

use std::io;
use std::path::Path;
use std::time::Duration;

use repmgr_remote::{Exit, ShellCommand, StartOptions, run};

use super::Archive;
use super::stream::pumped;
use crate::receive::{ReceiveError, Received, receive};
use crate::{ContentError, FetchError, WalFileName};

/// Barman may decrypt, and wait for a primary that hangs before it does anything.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

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
        let options = StartOptions {
            idle_timeout: IDLE_TIMEOUT,
            cancel: self.cancel.clone(),
            ..Default::default()
        };
        let output = self.with_session(|archive| {
            Ok(run(
                &mut **archive.connection()?,
                &command,
                options.clone(),
                64 * 1024,
            )?)
        })?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.exit.success() {
            Ok(said)
        } else {
            Err(self.barman_failed(&command, &output.exit))
        }
    }

    pub(super) fn get_wal(&mut self, name: WalFileName, dir: &Path) -> Result<Received, FetchError> {
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
        let (result, end) = pumped(process, |chunks| {
            let received = receive(name, &mut *chunks, system_id, dir);
            // Barman must be able to end, for its exit code says more than half a file.
            match io::copy(chunks, &mut io::sink()) {
                Ok(_) => received,
                Err(error) => Err(ReceiveError::Source(error)),
            }
        });
        let exit = end?.unwrap_or_default();
        if !exit.success() {
            return Err(self.get_wal_failed(name, &command, &exit));
        }
        result.map_err(|error| match error {
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

    fn get_wal_failed(&self, name: WalFileName, command: &ShellCommand, exit: &Exit) -> FetchError {
        // ERROR: WAL file '...' not found in server '...' (SSH host: ...)
        let absent = format!("ERROR: WAL file '{name}' not found in server ");
        let text = exit.stderr_text();
        if exit.code == Some(1) && text.lines().any(|line| line.starts_with(&absent)) {
            return self.not_in_archive(name);
        }
        self.barman_failed(command, exit)
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
