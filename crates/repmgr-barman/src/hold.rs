use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use repmgr_remote::{
    ConnectError, Connection, Host, Input, Process, RemoteError, ShellCommand, StartOptions, one_line, run,
};
use repmgr_types::{BackupId, Hint, Remedy};

use crate::backup::Backup;
use crate::error::as_barmans_user;
use crate::info::shown;
use crate::lock_dir;
use crate::session::ServerAddress;

/// How often the holder looks after its connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Limit for each step of taking the lock, more than the script itself waits.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONFIGURATION: usize = 1 << 20;

/// Prints Barman's configuration file: the one named by "$1", or the one Barman would find.
const CONFIGURATION: &str = r#"
if [ -n "$1" ]; then :
elif [ -n "$BARMAN_CONFIG_FILE" ]; then set -- "$BARMAN_CONFIG_FILE"
else set -- "$HOME/.barman.conf" /etc/barman.conf /etc/barman/barman.conf
fi
for file do
    case $file in "~/"*) file=$HOME/${file#"~/"} ;; esac
    if [ -f "$file" ] && [ -r "$file" ]; then exec cat "$file"; fi
done
"#;

/// Arguments: server, id, the lock directory of Barman's configuration or nothing, and directories where the lock may
/// be as well. It is in the first with locks of this server in it; where there are none, which Barman's cron sweeps
/// when nobody uses them, it is where the configuration says. Prints one line and, when that is "held", keeps the lock
/// until standard input ends.
///
/// Only the owner of the directory creates the file: Barman could not open one of another user.
const LOCK: &str = r#"
server=$1 id=$2 configured=$3
shift 2
for dir do
    if [ -z "$dir" ]; then continue; fi
    for known in "$dir/.$server-"*.lock; do
        if [ -e "$known" ]; then break 2; fi
        known=
    done
done
if [ -z "$known" ]; then
    dir=$configured
    if [ -z "$dir" ] || ! [ -d "$dir" ]; then echo none; exit; fi
fi
if ! command -v flock >/dev/null; then echo noflock; exit; fi
file=$dir/.$server-$id.lock
if ! [ -e "$file" ] && [ -O "$dir" ]; then (umask 077; : >>"$file"); fi
if ! [ -r "$file" ]; then printf 'denied %s\n' "$file"; exit; fi
(
    flock -s -w 5 9
    case $? in
        0) printf 'held %s\n' "$file"; exec cat >/dev/null ;;
        1) printf 'busy %s\n' "$file" ;;
        *) echo failed ;;
    esac
) 9<"$file"
"#;

/// A backup is not held, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// No connection of its own to the Barman host.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The lock could not be taken because the connection failed, or it is lost.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// No directory with lock files of this Barman server was found, and Barman's configuration names none.
    #[error("cannot find the lock files of Barman server \"{server}\" on \"{host}\"")]
    NotFound {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
        /// Where they were looked for.
        looked_in: Vec<String>,
        /// Barman's configuration file, if we named it.
        config: Option<String>,
    },
    /// The Barman host has no program `flock`.
    #[error("no program \"flock\" on \"{host}\"")]
    NoFlock {
        /// The Barman host.
        host: String,
    },
    /// The user we are there may not open the lock file.
    #[error("no permission for Barman's lock file \"{file}\" on \"{host}\"")]
    Denied {
        /// The Barman host.
        host: String,
        /// The lock file.
        file: String,
    },
    /// Barman is at work on this very backup, most likely deleting it.
    #[error("Barman on \"{host}\" has locked backup \"{id}\" itself (\"{file}\")")]
    Busy {
        /// The Barman host.
        host: String,
        /// The backup.
        id: BackupId,
        /// The lock file.
        file: String,
    },
    /// The script that takes the lock did not say what it must.
    #[error("unexpected output while locking backup \"{id}\" on \"{host}\": \"{output}\"")]
    Unexpected {
        /// The Barman host.
        host: String,
        /// The backup.
        id: BackupId,
        /// What it said, and how it ended.
        output: String,
    },
    /// No thread could be started here.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The thread that held the lock is gone; an earlier error said why.
    #[error("backup \"{id}\" is no longer held")]
    Gone {
        /// The backup.
        id: BackupId,
    },
}

impl HoldError {
    /// The lock cannot be taken on this host, but nothing says that the backup is in danger: a caller may
    /// go on with a warning.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::NoFlock { .. } | Self::Denied { .. }
        )
    }

    /// Whether the same may well succeed on a new connection.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(e) => e.is_transient(),
            Self::Remote(e) => e.is_transient(),
            _ => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::Connect(e) => return e.hint(),
            Self::Remote(e) => return e.hint(),
            Self::NotFound { config: Some(_), .. } => Hint::new("check that ")
                .remedy(Remedy::BarmanConfig)
                .words(
                    " is a file that the user we log in as can read, and names a directory that exists as barman_lock_directory or barman_home",
                ),
            Self::NotFound { config: None, .. } => Hint::new("set ")
                .remedy(Remedy::BarmanConfig)
                .words(" to Barman's configuration file, so that its lock directory can be found"),
            Self::NoFlock { host } => Hint::new(format!("install util-linux on \"{host}\"")),
            Self::Denied { .. } => as_barmans_user(),
            Self::Busy { .. } => {
                Hint::new("wait until Barman has finished, or choose another backup with ").remedy(Remedy::Backup)
            }
            _ => return None,
        })
    }
}

/// Keeps Barman from deleting a backup while it is copied: a shared `flock` on the backup's own lock file,
/// by a process on the Barman host that lives as long as this.
///
/// `barman delete`, retention in `barman cron` and `barman check-backup` find the lock and leave the backup
/// alone; several holders do not disturb each other. It has a connection and a thread of its own, so the
/// caller need not look after it: [`check`](Self::check) is cheap, and [`release`](Self::release) tells
/// whether the backup was held until then. Dropping it lets go at once without telling.
///
/// A backup may have been deleted between finding and holding it:
/// [`recheck`](crate::Barman::recheck) afterwards.
#[derive(Debug)]
pub struct Hold {
    id: BackupId,
    file: String,
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

enum Request {
    Check(Sender<Result<(), HoldError>>),
    Release(Sender<Result<(), HoldError>>),
}

impl Hold {
    /// Takes the lock over a new connection to `host`. Waits up to 5 s if Barman has it.
    pub fn take(host: &dyn Host, address: &ServerAddress, backup: &Backup) -> Result<Self, HoldError> {
        let mut connection = host.connect()?;
        let directories = lock_directories(&mut *connection, address, backup)?;
        let lock = Lock {
            host: connection.host().to_owned(),
            server: backup.server.clone(),
            id: backup.id.clone(),
            config: address.config.clone(),
            directories,
        };
        let id = backup.id.clone();
        let (requests, inbox) = channel();
        let (taken, taking) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("hold {id}"))
            .spawn(move || lock.keep(connection, &taken, &inbox))
            .map_err(HoldError::Thread)?;
        let mut hold = Self {
            id: id.clone(),
            file: String::new(),
            requests: Some(requests),
            thread: Some(thread),
        };
        // Every step in the thread has a limit, so this ends.
        hold.file = taking.recv().unwrap_or(Err(HoldError::Gone { id }))?;
        log::debug!("holding \"{}\"", hold.file);
        Ok(hold)
    }

    /// The lock file on the Barman host.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether the lock is still held, as far as is known here: the connection stands and nothing has said
    /// otherwise. For every few seconds.
    pub fn check(&mut self) -> Result<(), HoldError> {
        self.ask(Request::Check)
    }

    /// Lets go. `Ok` is the proof that the lock was held until now.
    pub fn release(self) -> Result<(), HoldError> {
        self.ask(Request::Release)
    }

    fn ask(&self, request: impl FnOnce(Sender<Result<(), HoldError>>) -> Request) -> Result<(), HoldError> {
        let gone = || HoldError::Gone { id: self.id.clone() };
        let (answer, answers) = channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(request(answer)).map_err(|_| gone())?;
        answers.recv().map_err(|_| gone())?
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell any more; a panic there has been reported by then.
            let _ = thread.join();
        }
    }
}

/// Where the lock may be; empty where that is not known.
struct Directories {
    /// As Barman's configuration has it.
    configured: String,
    /// Barman's home, if the backup is where it is unless configured otherwise.
    home: String,
}

/// Asks Barman's configuration.
fn lock_directories(
    connection: &mut dyn Connection,
    address: &ServerAddress,
    backup: &Backup,
) -> Result<Directories, HoldError> {
    let command = ShellCommand::script(CONFIGURATION).arg(address.config.as_deref().unwrap_or_default());
    let output = run(connection, &command, step_options(), MAX_CONFIGURATION)
        .map_err(|e| named(e, "cat barman.conf"))?;
    let configured = lock_dir::from_configuration(&String::from_utf8_lossy(&output.stdout));
    // BARMAN_HOME/SERVER/base/ID, unless configured otherwise.
    let home = backup
        .directory
        .rsplitn(4, '/')
        .nth(3)
        .filter(|home| !home.is_empty());
    Ok(Directories {
        configured: configured.unwrap_or_default(),
        home: home.unwrap_or_default().to_owned(),
    })
}

/// The script's text is of no use to anybody who reads an error.
fn named(error: RemoteError, command: &str) -> HoldError {
    HoldError::Remote(RemoteError {
        command: command.to_owned(),
        ..error
    })
}

fn step_options() -> StartOptions {
    StartOptions {
        idle_timeout: STEP_TIMEOUT,
        total_timeout: Some(STEP_TIMEOUT),
        ..Default::default()
    }
}

/// What the thread works with.
struct Lock {
    host: String,
    server: String,
    id: BackupId,
    config: Option<String>,
    directories: Directories,
}

impl Lock {
    fn keep(
        self,
        mut connection: Box<dyn Connection>,
        taken: &Sender<Result<String, HoldError>>,
        inbox: &Receiver<Request>,
    ) {
        let options = StartOptions {
            input: Input::Held,
            idle_timeout: STEP_TIMEOUT,
            ..Default::default()
        };
        let command = ShellCommand::script(LOCK)
            .args([&self.server, self.id.as_str()])
            .args([&self.directories.configured, &self.directories.home]);
        let started = connection.start(&command, options).map_err(|e| self.named(e));
        let (mut process, file) = match started.and_then(|process| self.taken(process)) {
            Ok(held) => held,
            Err(e) => {
                // Nobody hears it if the one who asked is gone; here and below.
                let _ = taken.send(Err(e));
                return;
            }
        };
        let _ = taken.send(Ok(file));
        loop {
            let request = inbox.recv_timeout(LOOK_EVERY);
            let state = process.check().map_err(|e| self.named(e));
            match request {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if state.is_ok() => {}
                Ok(Request::Check(answer)) if state.is_ok() => {
                    let _ = answer.send(state);
                }
                Ok(Request::Release(answer)) if state.is_ok() => {
                    let _ = answer.send(self.released(process));
                    return;
                }
                // Whoever asks next hears why it is lost.
                Err(RecvTimeoutError::Timeout) => {
                    if let Ok(Request::Check(answer) | Request::Release(answer)) = inbox.recv() {
                        let _ = answer.send(state);
                    }
                    return;
                }
                Ok(Request::Check(answer) | Request::Release(answer)) => {
                    let _ = answer.send(state);
                    return;
                }
            }
        }
    }

    /// Reads the script's one line.
    fn taken<'c>(
        &self,
        mut process: Box<dyn Process + 'c>,
    ) -> Result<(Box<dyn Process + 'c>, String), HoldError> {
        const LONGEST: usize = 8192;
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') && line.len() < LONGEST {
            match process
                .read(&mut byte)
                .map_err(|e| self.named(RemoteError::from_io(e)))?
            {
                0 => break,
                _ => line.push(byte[0]),
            }
        }
        let text = String::from_utf8_lossy(&line);
        let (word, file) = text.trim_end().split_once(' ').unwrap_or((text.trim_end(), ""));
        let (host, file) = (self.host.clone(), one_line(file));
        Err(match word {
            "held" => return Ok((process, file)),
            "none" => HoldError::NotFound {
                host,
                server: self.server.clone(),
                looked_in: [&self.directories.configured, &self.directories.home]
                    .into_iter()
                    .filter(|directory| !directory.is_empty())
                    .cloned()
                    .collect(),
                config: self.config.clone(),
            },
            "noflock" => HoldError::NoFlock { host },
            "denied" => HoldError::Denied { host, file },
            "busy" => HoldError::Busy {
                host,
                id: self.id.clone(),
                file,
            },
            _ => {
                let exit = process.finish().map_err(|e| self.named(e))?;
                self.unexpected(&format!("{text}{} ({})", exit.stderr_text(), exit.status()))
            }
        })
    }

    fn released(&self, process: Box<dyn Process + '_>) -> Result<(), HoldError> {
        let exit = process.finish().map_err(|e| self.named(e))?;
        if exit.success() {
            return Ok(());
        }
        Err(self.unexpected(&format!("{} ({})", exit.stderr_text(), exit.status())))
    }

    fn named(&self, error: RemoteError) -> HoldError {
        named(error, &format!("flock -s .{}-{}.lock", self.server, self.id))
    }

    fn unexpected(&self, output: &str) -> HoldError {
        HoldError::Unexpected {
            host: self.host.clone(),
            id: self.id.clone(),
            output: shown(output.as_bytes()),
        }
    }
}
