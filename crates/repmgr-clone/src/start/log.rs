//! The first errors in the server's log.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use repmgr_pgfile::{open_file, read_beginning};

/// Of the log, at most.
const READ_MAX: u64 = 1 << 20;
/// So many errors are told.
const ERRORS: usize = 5;
/// The name of the file in which a server says where it logs to (PostgreSQL 10 and later).
const CURRENT_LOGFILES: &str = "current_logfiles";
/// Longer lines are cut.
const LINE_MAX: usize = 500;

/// Where the server writes, as far as it can be known, and where it was before it was started.
pub(super) struct ServerLog {
    data_dir: PathBuf,
    known: Vec<(PathBuf, u64)>,
    told: Vec<String>,
}

impl ServerLog {
    /// `own` is a file that the command which starts it was given.
    pub(super) fn of(data_dir: &Path, own: Option<PathBuf>) -> Self {
        let debian = debian_log(data_dir);
        let known = own.into_iter().chain(debian);
        Self {
            data_dir: data_dir.to_owned(),
            known: known
                .map(|path| {
                    let size = fs::metadata(&path).map_or(0, |meta| meta.len());
                    (path, size)
                })
                .collect(),
            told: Vec::new(),
        }
    }

    /// The errors that were not told yet.
    pub(super) fn new_errors(&mut self) -> Vec<String> {
        let errors = self.errors();
        let new: Vec<String> = errors
            .into_iter()
            .filter(|line| !self.told.iter().any(|told| message(told) == message(line)))
            .take(ERRORS.saturating_sub(self.told.len()))
            .collect();
        self.told.extend(new.iter().cloned());
        new
    }

    /// The first errors since the server was started.
    pub(super) fn errors(&self) -> Vec<String> {
        let mut errors: Vec<String> = Vec::new();
        let collected = current_logfiles(&self.data_dir);
        let collected = collected.into_iter().map(|path| (path, 0));
        for (path, from) in self.known.iter().cloned().chain(collected) {
            let text = read_from(&path, from).unwrap_or_default();
            for line in text.lines().filter(|line| is_error(line)) {
                let line: String = line.chars().take(LINE_MAX).collect();
                if errors.len() < ERRORS && !errors.iter().any(|known| message(known) == message(&line)) {
                    errors.push(line);
                }
            }
        }
        errors
    }
}

/// Without what differs from line to line: time, process.
fn message(line: &str) -> &str {
    let levels = ["PANIC:", "FATAL:", "ERROR:", "WARNING:"];
    levels
        .iter()
        .find_map(|level| line.find(level))
        .map_or(line, |at| &line[at..])
}

/// What a server says that does not get on; not what it says to those who come too early.
fn is_error(line: &str) -> bool {
    let found = message(line);
    let early = [
        "the database system is starting up",
        "the database system is not yet accepting",
    ];
    match found.split_once(':') {
        Some(("PANIC" | "FATAL" | "ERROR", _)) => !early.iter().any(|early| found.contains(early)),
        Some(("WARNING", said)) => said.contains("hot standby is not possible"),
        _ => false,
    }
}

/// The log of Debian's cluster with this data directory: `/var/log/postgresql/postgresql-15-main.log`.
fn debian_log(data_dir: &Path) -> Option<PathBuf> {
    let cluster = data_dir.file_name()?.to_str()?;
    let major = data_dir.parent()?.file_name()?.to_str()?;
    let log = PathBuf::from(format!("/var/log/postgresql/postgresql-{major}-{cluster}.log"));
    log.exists().then_some(log)
}

fn current_logfiles(data_dir: &Path) -> Vec<PathBuf> {
    let text = read_beginning(&data_dir.join(CURRENT_LOGFILES), 4096).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(kind, _)| *kind == "stderr")
        .map(|(_, path)| data_dir.join(path))
        .collect()
}

fn read_from(path: &Path, from: u64) -> Option<String> {
    let mut file = open_file(path).ok()?;
    // A file that is shorter now was begun anew.
    let from = if file.metadata().ok()?.len() < from {
        0
    } else {
        from
    };
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_since_the_start_are_told_once_each() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own.log");
        fs::write(&own, "FATAL:  of an earlier run\n").unwrap();
        let mut log = ServerLog::of(dir.path(), Some(own.clone()));
        let more = "FATAL:  of an earlier run\n\
                    10:00 [7] LOG:  starting PostgreSQL\n\
                    10:01 [8] FATAL:  the database system is starting up\n\
                    10:02 [9] FATAL:  could not connect to the primary server: no password supplied\n\
                    10:07 [10] FATAL:  could not connect to the primary server: no password supplied\n\
                    10:08 [7] WARNING:  hot standby is not possible because of insufficient parameter settings\n\
                    10:08 [7] WARNING:  something else\n";
        fs::write(&own, more).unwrap();
        let told = log.new_errors();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("10:02") && told[1].contains("hot standby"));
        assert!(log.new_errors().is_empty());
        assert_eq!(log.errors().len(), 2);
    }

    #[test]
    fn a_log_of_the_servers_own_choice_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        fs::write(
            dir.path().join("log/a.log"),
            "x PANIC:  could not locate a valid checkpoint record\n",
        )
        .unwrap();
        fs::write(
            dir.path().join(CURRENT_LOGFILES),
            "stderr log/a.log\ncsvlog log/a.csv\n",
        )
        .unwrap();
        let errors = ServerLog::of(dir.path(), None).errors();
        assert_eq!(errors, ["x PANIC:  could not locate a valid checkpoint record"]);
    }
}
