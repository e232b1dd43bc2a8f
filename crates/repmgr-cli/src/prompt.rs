//! Questions to the user at the terminal: passphrases, passwords, new host keys.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};

use repmgr_remote::Prompt;
use repmgr_types::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::log::Log;

/// How often a waiting question looks whether somebody asked to stop.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 1024;

/// Asks at the terminal that controls this process, as `ssh` does.
pub(crate) struct TerminalPrompt {
    log: Log,
    cancel: CancelToken,
}

impl TerminalPrompt {
    /// `None` unless a user sits there: standard input and standard error are terminals.
    pub(crate) fn new(log: Log, cancel: CancelToken) -> Option<Self> {
        let is_interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
        is_interactive.then_some(Self { log, cancel })
    }

    fn ask(&self, question: &str, hidden: bool) -> io::Result<Option<String>> {
        self.log.suspend(|| {
            let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
            // First of all: whoever answers at once must not be seen, and nothing of it be lost.
            let hidden = hidden.then(|| Hidden::new(&terminal)).transpose()?;
            write!(&terminal, "{question}")?;
            let answer = read_line(&terminal, &self.cancel);
            if hidden.is_some() {
                // The user's own line feed was not shown.
                writeln!(&terminal)?;
            }
            answer
        })
    }
}

impl Prompt for TerminalPrompt {
    fn secret(&self, question: &str) -> Option<String> {
        let question = question.trim_end().trim_end_matches(':');
        self.ask(&format!("{question}: "), true).ok()?
    }

    fn confirm(&self, question: &str) -> bool {
        let question = format!("{} (yes/no)? ", question.trim_end().trim_end_matches('?'));
        let answer = self.ask(&question, false).ok().flatten();
        answer.is_some_and(|answer| answer.trim().eq_ignore_ascii_case("yes"))
    }
}

/// What is typed is not shown while this lives.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // Nothing better can be done than to try.
        _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// One line without its end; `None` at end of file or when somebody asks to stop.
fn read_line(mut terminal: &File, cancel: &CancelToken) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let mut ready = [PollFd::new(&terminal, PollFlags::IN)];
        match poll(&mut ready, Some(&TICK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 256];
        let length = match terminal.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length?,
        };
        line.extend_from_slice(&bytes[..length]);
        let end = line.iter().position(|byte| *byte == b'\n');
        if let Some(end) = end {
            line.truncate(end);
            return Ok(String::from_utf8(line).ok());
        }
        if length == 0 || line.len() > MAX_ANSWER_BYTES {
            return Ok(None);
        }
    }
}
