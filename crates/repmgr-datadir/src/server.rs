//! Whether a PostgreSQL server runs on a data directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use repmgr_pgfile::{POSTMASTER_PID, postmaster_pid, read_beginning};
use rustix::io::Errno;
use rustix::process::{Pid, getpid, getppid, test_kill_process};

/// Its first line, a few bytes, is all that counts.
const PID_FILE_MAX: u64 = 4096;

/// Whether a server runs on a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerState {
    /// No sign of one; perhaps a `postmaster.pid` that is left over.
    Stopped {
        /// The file that a server left when it did not end in an orderly way.
        stale: Option<StalePidFile>,
    },
    /// A process that is the server, or must be taken for it.
    Running {
        /// Its process id.
        pid: i32,
        /// Its program's name, as far as it could be seen.
        command: Option<String>,
    },
}

/// A `postmaster.pid` whose server is not there any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StalePidFile {
    /// Empty or without a number in its first line.
    #[error("{0:?} is empty or damaged")]
    Invalid(PathBuf),
    /// No process has that id.
    #[error("{path:?} is left over from process {pid}, which is gone")]
    Gone {
        /// The pid file.
        path: PathBuf,
        /// The id in it.
        pid: i32,
    },
    /// Another process has that id now.
    #[error("{path:?} is left over: process {pid} is now {command:?} and works elsewhere")]
    Reused {
        /// The pid file.
        path: PathBuf,
        /// The id in it.
        pid: i32,
        /// The program that has it.
        command: String,
    },
}

/// It could not be found out whether a server runs.
#[derive(Debug, thiserror::Error)]
#[error("could not read {path:?} to see whether PostgreSQL is running")]
pub struct RunningError {
    /// The pid file, or `/proc`.
    pub path: PathBuf,
    #[source]
    source: io::Error,
}

/// Looks whether a PostgreSQL server runs on `dir`. In doubt the answer is yes.
///
/// Two things are evidence, and either is enough:
///
/// - A PostgreSQL process works in that directory (every one does, by its current directory). This
///   also finds servers in containers that share the host's directory, and session processes that
///   outlived their postmaster or its pid file, as long as we may look at them: they must be of our
///   user, or we are root.
/// - The process named in `postmaster.pid` is alive, whoever owns it. (The original takes a process of
///   another user for absent.) It does not count when it is ourselves or our parent, or when it can be
///   seen that it works elsewhere and is not PostgreSQL.
///
/// What cannot be seen from here: a server on another host that has the same storage, and one in a
/// container whose process ids mean something else here and whose user is not ours.
///
/// # Errors
/// When the pid file or `/proc` cannot be read.
pub fn server_state(dir: &Path) -> Result<ServerState, RunningError> {
    let identity = fs::metadata(dir).ok().map(|meta| (meta.dev(), meta.ino()));
    if let Some(server) = servers()?
        .into_iter()
        .find(|server| Some(server.identity) == identity)
    {
        return Ok(ServerState::Running {
            pid: server.pid,
            command: command_of(server.pid),
        });
    }
    let path = dir.join(POSTMASTER_PID);
    let content = match read_beginning(&path, PID_FILE_MAX) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(ServerState::Stopped { stale: None });
        }
        Err(source) => return Err(RunningError { path, source }),
    };
    let stale = |stale| Ok(ServerState::Stopped { stale: Some(stale) });
    let Some((pid, process)) = postmaster_pid(&content).and_then(|pid| Some((pid, Pid::from_raw(pid)?)))
    else {
        return stale(StalePidFile::Invalid(path));
    };
    if process == getpid() || Some(process) == getppid() || !is_alive(process) {
        return stale(StalePidFile::Gone { path, pid });
    }
    let command = command_of(pid);
    match (working_directory(pid), &command) {
        (Some(place), Some(command)) if Some(place) != identity && !is_postgres(pid) => {
            stale(StalePidFile::Reused {
                path,
                pid,
                command: command.clone(),
            })
        }
        _ => Ok(ServerState::Running { pid, command }),
    }
}

/// A running PostgreSQL process and the data directory it works in.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pid: i32,
    /// The directory as this process can reach it.
    pub(crate) dir: PathBuf,
    identity: (u64, u64),
}

/// One process of every PostgreSQL server on this host that we may look at.
pub(crate) fn servers() -> Result<Vec<Server>, RunningError> {
    let failed = |source| RunningError {
        path: "/proc".into(),
        source,
    };
    let mut found: Vec<Server> = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !is_postgres(pid) {
            continue;
        }
        let Some(identity) = working_directory(pid) else {
            continue;
        };
        if !found.iter().any(|server| server.identity == identity) {
            found.push(Server {
                pid,
                dir: format!("/proc/{pid}/cwd").into(),
                identity,
            });
        }
    }
    Ok(found)
}

/// Alive, and not merely waiting for its parent to notice that it ended.
fn is_alive(process: Pid) -> bool {
    let ended = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))?;
        io::Result::Ok(
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        )
    };
    match test_kill_process(process) {
        Err(Errno::SRCH) => false,
        Ok(()) | Err(_) => !ended().unwrap_or(false),
    }
}

fn working_directory(pid: i32) -> Option<(u64, u64)> {
    let meta = fs::metadata(format!("/proc/{pid}/cwd")).ok()?;
    Some((meta.dev(), meta.ino()))
}

fn command_of(pid: i32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// By the name it shows or the program it is; vendors call it `edb-postgres` and the like.
fn is_postgres(pid: i32) -> bool {
    let known = |name: &str| name.contains("postgres") || name == "postmaster";
    let program = || {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some(known(&exe.file_name()?.to_string_lossy()))
    };
    command_of(pid).is_some_and(|name| known(&name)) || program().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Sleeper;
    use std::process::Command;

    fn pid_file(dir: &Path, content: impl ToString) {
        fs::write(dir.join("postmaster.pid"), content.to_string()).unwrap();
    }

    fn pid_when_running(dir: &Path) -> Option<i32> {
        match server_state(dir).unwrap() {
            ServerState::Running { pid, .. } => Some(pid),
            ServerState::Stopped { .. } => None,
        }
    }

    #[test]
    fn a_live_process_in_the_directory_is_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let process = Sleeper::in_dir(dir.path());
        let pid = process.pid();
        assert_eq!(
            pid_when_running(dir.path()),
            None,
            "without a pid file a foreign program is nothing"
        );
        pid_file(dir.path(), format!("{pid}\n/data\n"));
        assert_eq!(pid_when_running(dir.path()), Some(pid));
        pid_file(dir.path(), -pid);
        assert_eq!(pid_when_running(dir.path()), Some(pid), "a stand-alone backend");
    }

    #[test]
    fn a_postgres_in_the_directory_counts_without_a_pid_file() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let process = Sleeper::postgres_in_dir(dir.path());
        let pid = process.pid();
        let link = other.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert_eq!(pid_when_running(dir.path()), Some(pid));
        assert_eq!(pid_when_running(&link), Some(pid), "whatever path leads there");
        assert_eq!(pid_when_running(other.path()), None);
        pid_file(other.path(), pid);
        assert_eq!(
            pid_when_running(other.path()),
            Some(pid),
            "a postgres elsewhere is doubt enough"
        );
    }

    #[test]
    fn ids_of_other_programs_and_of_the_dead_are_stale() {
        let dir = tempfile::tempdir().unwrap();
        let process = Sleeper::in_dir(Path::new("/"));
        let pid = process.pid();
        pid_file(dir.path(), pid);
        let state = server_state(dir.path()).unwrap();
        assert!(
            matches!(&state, ServerState::Stopped { stale: Some(StalePidFile::Reused { command, .. }) } if command == "sleep"),
            "{state:?}"
        );
        drop(process);
        let gone = ServerState::Stopped {
            stale: Some(StalePidFile::Gone {
                path: dir.path().join("postmaster.pid"),
                pid,
            }),
        };
        assert_eq!(server_state(dir.path()).unwrap(), gone);
    }

    #[test]
    fn a_process_that_only_waits_to_be_reaped_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("true").current_dir(dir.path()).spawn().unwrap();
        pid_file(dir.path(), child.id());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while pid_when_running(dir.path()).is_some() {
            assert!(
                std::time::Instant::now() < deadline,
                "a zombie is taken for a server"
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        child.wait().unwrap();
    }

    #[test]
    fn another_users_process_counts_unless_it_can_be_seen_to_be_something_else() {
        let dir = tempfile::tempdir().unwrap();
        pid_file(dir.path(), "1\n");
        // Root can see where process 1 works; others cannot and must assume the worst.
        let seen = fs::read_link("/proc/1/cwd").is_ok();
        assert_eq!(pid_when_running(dir.path()).is_some(), !seen);
    }

    #[test]
    fn damaged_pid_files_are_stale_and_unreadable_ones_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "\n", "abc\n", "0\n", "99999999999\n", "-2147483648\n"] {
            pid_file(dir.path(), content);
            let state = server_state(dir.path()).unwrap();
            assert!(
                matches!(
                    state,
                    ServerState::Stopped {
                        stale: Some(StalePidFile::Invalid(_))
                    }
                ),
                "{content:?}"
            );
        }
        fs::remove_file(dir.path().join("postmaster.pid")).unwrap();
        assert_eq!(
            server_state(dir.path()).unwrap(),
            ServerState::Stopped { stale: None }
        );
        fs::create_dir(dir.path().join("postmaster.pid")).unwrap();
        assert!(
            server_state(dir.path())
                .unwrap_err()
                .path
                .ends_with("postmaster.pid")
        );
    }

    #[test]
    fn a_fifo_in_place_of_the_pid_file_is_an_error_at_once() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postmaster.pid");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(server_state(dir.path()).unwrap_err().path, path);
    }
}
