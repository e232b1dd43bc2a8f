//! Whether the standby's `restore_command` delivers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use repmgr_barman::Backup;
use repmgr_pgfile::{read_beginning, wal_system_id};
use repmgr_program::{End, LastBytes, Leftovers, Rules};
use repmgr_types::{Cancelled, SystemId, WalSegmentName, WalSegmentSize};

use crate::error::Explain;
use crate::nodes::node::Nodes;
use crate::nodes::reach::FirstWal;
use crate::{CancelToken, CloneError, Context, Hint, NodeError, NodeEvent, Remark, RemarkCode, Remedy};

/// A standby would wait longer; whoever makes one does not.
const LIMIT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(2);
/// PostgreSQL takes a higher exit code for more than a file that is not there.
const LAST_HARMLESS: i32 = 125;
/// Of what it says.
const WORDS: usize = 2000;
/// Where PostgreSQL has a segment delivered to, below its working directory. Not its own `RECOVERYXLOG`: that
/// would be taken for a recovery under way.
const WAL_DIR: &str = "pg_wal";
const DELIVERED: &str = "pg_wal/repmgr_check";
/// Enough of a segment to know its cluster.
const BEGINNING: u64 = 512;

/// One run of a `restore_command`, as PostgreSQL would run it, in a directory of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial<'a> {
    pub(crate) command: &'a str,
    /// A segment that the archive holds.
    pub(crate) segment: WalSegmentName,
    pub(crate) segment_size: WalSegmentSize,
}

/// Why it did not deliver the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// As a clause.
    reason: String,
    /// PostgreSQL ends when a command ends like this, as the shell does for a program that is not there
    /// (PostgreSQL 10 to 19, `RestoreArchivedFile`).
    ends_server: bool,
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self {
            reason,
            ends_server: false,
        }
    }
}

/// The cluster whose segment was delivered, where that can be told: an encrypted one's cannot.
pub(crate) type Delivered = Result<Option<SystemId>, Trouble>;

impl<'a> Trial<'a> {
    /// For a standby that is made of `backup` with this command.
    pub(crate) fn of(command: &'a str, backup: &Backup) -> Self {
        Self {
            command,
            segment: backup.begin_wal,
            segment_size: backup.segment_size,
        }
    }

    /// For a standby of these nodes, where one of them archives its WAL. The standby can have that from a node too,
    /// so what is wrong is warned of, and an error only if PostgreSQL would not start: unless that is `accepted`.
    pub(crate) fn of_nodes(
        command: &str,
        nodes: &Nodes,
        expected: SystemId,
        accepted: bool,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let Some((segment, segment_size)) = nodes.archived_segment()? else {
            log::debug!("no WAL segment is known to be in the archive: \"restore_command\" is not tried");
            return Ok(());
        };
        let trial = Trial {
            command,
            segment,
            segment_size,
        };
        log::debug!("\"restore_command\" is tried with WAL segment {segment}");
        let delivered = trial.run(context.cancel)?;
        match trouble(delivered, expected) {
            // repmgr says nothing here when all is well.
            None => Ok(()),
            Some(trouble) => trial.complain(trouble, FirstWal::Node, accepted, context),
        }
    }

    /// Runs it. What it delivers is removed again.
    pub(crate) fn run(&self, cancel: &CancelToken) -> Result<Delivered, Cancelled> {
        match self.attempt(cancel) {
            Ok(outcome) => outcome,
            Err(error) => Ok(Err(format!("it could not be tried: {error}").into())),
        }
    }

    fn attempt(&self, cancel: &CancelToken) -> io::Result<Result<Delivered, Cancelled>> {
        let dir = tempfile::Builder::new().prefix(".repmgr-").tempdir()?;
        fs::create_dir(dir.path().join(WAL_DIR))?;
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(self.words()).current_dir(dir.path());
        let rules = Rules {
            limit: Some(LIMIT),
            grace: GRACE,
            leftovers: Leftovers::Kill,
        };
        let mut said = LastBytes::new(WORDS);
        let end = repmgr_program::run(shell, &rules, cancel, &mut |bytes| said.add(bytes));
        let end = end.map_err(|error| error.source)?;
        let delivered = dir.path().join(DELIVERED);
        let outcome = match end {
            End::Cancelled => return Ok(Err(Cancelled)),
            End::TimedOut { limit } => Err(format!("it did not end within {} s", limit.as_secs()).into()),
            End::Exited(status) if status.success() => self.judge(&delivered).map_err(Trouble::from),
            End::Exited(status) => Err(Trouble {
                reason: format!("it ended with {status}"),
                ends_server: status.code().is_none_or(|code| code > LAST_HARMLESS),
            }),
        };
        let said = String::from_utf8_lossy(said.as_bytes()).trim().to_owned();
        Ok(Ok(outcome.map_err(|mut trouble| {
            if !said.is_empty() {
                trouble.reason += &format!(" and said: {said}");
            }
            trouble
        })))
    }

    /// The command with its places filled in, as PostgreSQL does it.
    fn words(&self) -> String {
        let segment = self.segment.to_string();
        let mut words = String::with_capacity(self.command.len() + 2 * segment.len());
        let mut rest = self.command;
        while let Some((before, after)) = rest.split_once('%') {
            words += before;
            let mut chars = after.chars();
            match chars.next() {
                Some('f' | 'r') => words += &segment,
                Some('p') => words += DELIVERED,
                Some('%') => words.push('%'),
                Some(other) => words.extend(['%', other]),
                None => words.push('%'),
            }
            rest = chars.as_str();
        }
        words + rest
    }

    fn judge(&self, delivered: &Path) -> Result<Option<SystemId>, String> {
        let meta = match fs::symlink_metadata(delivered) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err("it ended as if all were well, and delivered nothing".to_owned());
            }
            Err(error) => return Err(format!("what it delivered cannot be looked at: {error}")),
        };
        let wanted = self.segment_size.bytes();
        // A link to the archive's file is as good to PostgreSQL.
        let size = fs::metadata(delivered).map_or(meta.len(), |meta| meta.len());
        if size != wanted {
            return Err(format!("it delivered {size} bytes, and a segment has {wanted}"));
        }
        let first = read_beginning(delivered, BEGINNING)
            .map_err(|error| format!("what it delivered cannot be read: {error}"))?;
        Ok(wal_system_id(&first))
    }

    /// Says that it delivers, or [complains](Self::complain).
    pub(crate) fn conclude(
        &self,
        delivered: Delivered,
        expected: SystemId,
        need: FirstWal,
        accepted: bool,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let Some(trouble) = trouble(delivered, expected) else {
            let text = format!("\"restore_command\" delivers WAL: segment {}", self.segment);
            context.tell(NodeEvent::checked(text));
            return Ok(());
        };
        self.complain(trouble, need, accepted, context)
    }

    /// Says what is wrong: an error if the standby cannot do without, a warning if it can, or if that is accepted.
    fn complain(
        &self,
        trouble: Trouble,
        need: FirstWal,
        accepted: bool,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let Trouble {
            mut reason,
            ends_server,
        } = trouble;
        if ends_server {
            reason += "; PostgreSQL does not start with such a command";
        }
        let error = NodeError::RestoreCommand {
            segment: self.segment,
            reason,
        };
        let may_go_on = accepted || (need == FirstWal::Node && !ends_server);
        if !may_go_on {
            return Err(error.into());
        }
        let text = format!(
            "\"restore_command\" does not deliver WAL segment {}",
            self.segment
        );
        let hint = Hint::new("run it by hand as the user that the server runs as, and mend ")
            .remedy(Remedy::RestoreCommand)
            .words(": the standby falls back to it when streaming breaks");
        let remark = Remark::warning(RemarkCode::RestoreCommandFails, text);
        context.tell(remark.detail(error.detail()).hint(hint));
        Ok(())
    }
}

/// What is wrong with what was delivered.
fn trouble(delivered: Delivered, expected: SystemId) -> Option<Trouble> {
    match delivered {
        Ok(Some(found)) if found != expected => Some(Trouble::from(format!(
            "it delivered WAL of the cluster with system identifier {found}, not {expected}"
        ))),
        Ok(_) => None,
        Err(trouble) => Some(trouble),
    }
}

#[cfg(test)]
mod tests {
    use repmgr_types::{Lsn, Timeline};

    use super::*;

    const SIZE: u64 = 1 << 20;

    fn run(command: &str) -> Delivered {
        let segment_size = WalSegmentSize::from_bytes(SIZE).unwrap();
        let trial = Trial {
            command,
            segment: WalSegmentName::containing(Timeline::new(1).unwrap(), Lsn(0x10_0000), segment_size),
            segment_size,
        };
        trial.run(&CancelToken::new()).unwrap()
    }

    fn archive() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut segment = vec![0; SIZE as usize];
        segment[..2].copy_from_slice(&0xd113_u16.to_ne_bytes());
        segment[2..4].copy_from_slice(&2_u16.to_ne_bytes());
        segment[24..32].copy_from_slice(&7_u64.to_ne_bytes());
        fs::write(dir.path().join("000000010000000000000001"), &segment).unwrap();
        dir
    }

    #[test]
    fn a_command_is_run_as_postgresql_does() {
        let dir = archive();
        let at = dir.path().display();
        for command in [
            format!("cp {at}/%f %p && test %r = %f && test 5%% = '5%'"),
            format!("cp {at}/%f \"$PWD/%p\""),
            format!("ln -s {at}/%f %p"),
        ] {
            assert_eq!(run(&command), Ok(Some(SystemId(7))), "{command}");
        }
    }

    #[test]
    fn every_way_not_to_deliver_is_told() {
        let dir = archive();
        let at = dir.path().display();
        for (command, why, ends_server) in [
            ("/nonexist/cmd %f %p".to_owned(), "127", true),
            ("kill -9 $$".to_owned(), "signal", true),
            ("echo no such host >&2; exit 2".to_owned(), "no such host", false),
            ("exit 125".to_owned(), "125", false),
            ("true".to_owned(), "delivered nothing", false),
            (format!("cp {at} %p"), "said: cp:", false),
            ("echo %f > %p".to_owned(), "25 bytes", false),
            ("mkdir %p".to_owned(), "it delivered", false),
            ("mkfifo %p".to_owned(), "0 bytes", false),
        ] {
            let trouble = run(&command).unwrap_err();
            assert!(trouble.reason.contains(why), "{command}: {trouble:?}");
            assert_eq!(trouble.ends_server, ends_server, "{command}");
        }
    }

    #[test]
    fn a_clone_that_is_given_up_does_not_wait_for_it() {
        let cancel = CancelToken::new();
        cancel.cancel();
        let segment_size = WalSegmentSize::from_bytes(SIZE).unwrap();
        let trial = Trial {
            command: "sleep 60",
            segment: WalSegmentName::containing(Timeline::new(1).unwrap(), Lsn(0), segment_size),
            segment_size,
        };
        assert!(trial.run(&cancel).is_err());
    }
}
