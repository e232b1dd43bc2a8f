//! A base backup straight from a server, made by `pg_basebackup` and checked by `pg_verifybackup`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use repmgr_types::{CancelToken, Conninfo, Hint, PgVersion, Rate, Remedy};

use crate::program::{self, ProgramError};
use crate::{Environment, ProgramFailure, bin_dir};

/// As for this crate's own connections.
const KEEPALIVES: &[(&str, &str)] = &[
    ("keepalives_idle", "30"),
    ("keepalives_interval", "10"),
    ("keepalives_count", "3"),
];

/// What `pg_basebackup` is to do.
#[derive(Debug, Clone)]
pub struct BaseBackup {
    /// `pg_basebackup`: a path, or a name to be looked for in `$PATH`.
    pub program: PathBuf,
    /// The server, and the user to replicate as. `dbname` has no effect: the password file is
    /// searched for database `replication`. The password is not shown to other users of this host.
    pub conninfo: Conninfo,
    /// The data directory to fill; it must not exist, or be empty.
    pub target: PathBuf,
    /// What the backup is called in its `backup_label`.
    pub label: String,
    /// Ask for an immediate checkpoint instead of waiting for the next one, for minutes perhaps.
    pub fast_checkpoint: bool,
    /// For each tablespace that is to lie elsewhere: its location on the server, and here.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// Receive WAL beside the copy (`-X stream`). False if `options` choose a method.
    pub stream_wal: bool,
    /// The replication slot to stream through (`-S`); needs `stream_wal`. One of the server's own
    /// making is used without. `None` if `options` name one.
    pub slot: Option<String>,
    /// Where `pg_wal` is to lie, if not in the data directory. `None` if `options` say it.
    pub wal_dir: Option<PathBuf>,
    /// The most that the server sends in a second (`--max-rate`). `None` if `options` say it.
    pub max_rate: Option<Rate>,
    /// Further words, as in repmgr's `pg_basebackup_options`.
    pub options: Vec<String>,
}

/// How far a base backup is. The sizes are the server's estimate, which leaves out WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseBackupProgress {
    /// Bytes received, rounded down to kB.
    pub bytes_done: u64,
    /// Bytes expected; never less than `bytes_done`.
    pub bytes_total: u64,
    /// Tablespaces received or under way.
    pub tablespace: u32,
    /// Tablespaces there are, the data directory among them.
    pub tablespaces: u32,
}

/// Why there is no base backup, or not a sound one.
#[derive(Debug, thiserror::Error)]
pub enum BaseBackupError {
    /// The program could not be used.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The program is older than the server.
    #[error(
        "\"{}\" is of PostgreSQL {}, too old for a server of PostgreSQL {}",
        program.display(), version.major_name(), server.major_name()
    )]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: PgVersion,
        /// The server's version.
        server: PgVersion,
    },
    /// A secret could only be passed on where all users of this host can read it.
    #[error("connection parameter \"{keyword}\" cannot be passed to pg_basebackup in private")]
    Secret {
        /// The parameter.
        keyword: String,
    },
    /// The program failed.
    #[error(transparent)]
    Failed(#[from] Box<ProgramFailure>),
    /// The program says it succeeded, and no data directory is there.
    #[error("pg_basebackup succeeded, but \"{}\" is no complete data directory", target.display())]
    Incomplete {
        /// Where it should be.
        target: PathBuf,
    },
}

impl BaseBackupError {
    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            BaseBackupError::Program(e) => e.hint(),
            BaseBackupError::TooOld { server, .. } => Some(bin_dir::install(&server.major_name())),
            BaseBackupError::Secret { keyword } => Some(
                format!(
                    "set \"{keyword}\" in a service file (~/.pg_service.conf), and name the service in the \
                 connection string"
                )
                .into(),
            ),
            BaseBackupError::Failed(e) => e.hint(),
            BaseBackupError::Incomplete { .. } => Some(
                Hint::new("check ")
                    .remedy(Remedy::BaseBackupOptions)
                    .words(": the format must be \"plain\", the target unchanged"),
            ),
        }
    }
}

impl BaseBackup {
    /// A backup over `conninfo` into `target` that streams WAL beside the copy, with the label repmgr gives it.
    pub fn new(program: impl Into<PathBuf>, conninfo: Conninfo, target: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            conninfo,
            target: target.into(),
            label: "repmgr base backup".to_owned(),
            fast_checkpoint: false,
            tablespace_mapping: Vec::new(),
            stream_wal: true,
            slot: None,
            wal_dir: None,
            max_rate: None,
            options: Vec::new(),
        }
    }

    /// The words after the program's name, in the order of repmgr 5.5. No secret is among them.
    ///
    /// Beyond repmgr's: progress is reported, a password never asked for, and a server that
    /// vanishes noticed within a minute unless the connection string says otherwise.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["-l".into(), self.label.clone().into()];
        words.extend(["-D".into(), self.target.clone().into()]);
        words.extend(["-d".into(), self.public_conninfo().to_libpq_string().into()]);
        if self.fast_checkpoint {
            words.extend(["-c".into(), "fast".into()]);
        }
        for (old, new) in &self.tablespace_mapping {
            words.extend(["-T".into(), mapping(old, new)]);
        }
        if self.stream_wal {
            words.extend(["-X".into(), "stream".into()]);
        }
        if let Some(slot) = &self.slot {
            words.extend(["-S".into(), slot.into()]);
        }
        if let Some(dir) = &self.wal_dir {
            words.extend(["--waldir".into(), dir.into()]);
        }
        if let Some(rate) = self.max_rate {
            words.push(format!("--max-rate={rate}").into());
        }
        words.extend(self.options.iter().map(OsString::from));
        // Last, so that no option before can ask for a password: in a process group of its own the
        // program would be stopped for reading from the terminal.
        words.extend(["-P".into(), "-w".into()]);
        words
    }

    /// The version of the program, checked to be one that can copy from `server`.
    ///
    /// # Errors
    /// If the program cannot be used, or its major version is lower than the server's.
    pub fn check(&self, server: PgVersion, cancel: &CancelToken) -> Result<PgVersion, BaseBackupError> {
        self.refuse_other_secrets()?;
        let version = program::version(&self.program, cancel)?;
        if version.major() < server.major() {
            return Err(BaseBackupError::TooOld {
                program: self.program.clone(),
                version,
                server,
            });
        }
        Ok(version)
    }

    /// Makes the backup; `progress` is called about once a second. Gives what the program said
    /// besides, its last hundred lines: the server's notices and warnings.
    ///
    /// There is no limit in time, because the server may wait for a checkpoint for as long as its
    /// settings allow: `cancel` ends it. The program then leaves what it copied so far, without
    /// `global/pg_control`; after a failure of its own it removes it. Should this process be
    /// killed, the program ends by itself: its next report meets a closed pipe.
    ///
    /// The program gets this process's environment, with libpq's variables and the home directory
    /// as in `env`.
    ///
    /// # Errors
    /// If the program cannot be used, fails, or leaves no data directory.
    pub fn run(
        &self,
        env: &Environment,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(BaseBackupProgress),
    ) -> Result<Vec<String>, BaseBackupError> {
        self.refuse_other_secrets()?;
        let mut command = Command::new(&self.program);
        command.args(self.arguments());
        env.apply_to(&mut command);
        if let Some(password) = self.conninfo.get("password").filter(|p| !p.is_empty()) {
            command.env("PGPASSWORD", password);
        }
        let mut lines = program::last_lines();
        let status = program::run(command, None, cancel, &mut |line| match read_progress(line) {
            Some(state) => progress(state),
            None => {
                log::debug!("{line}");
                lines.add(line);
            }
        })?;
        if !status.success() {
            return Err(Box::new(ProgramFailure::new(&self.program, status, lines)).into());
        }
        // The options may ask for another format or place.
        let made = ["PG_VERSION", "global/pg_control"];
        if !made.iter().all(|file| self.target.join(file).is_file()) {
            return Err(BaseBackupError::Incomplete {
                target: self.target.clone(),
            });
        }
        Ok(lines.into_vec())
    }

    /// What may stand in the arguments, which all users of this host can read.
    fn public_conninfo(&self) -> Conninfo {
        let mut conninfo = Conninfo::new();
        for (keyword, value) in self.conninfo.iter().filter(|(k, _)| !Conninfo::is_secret(k)) {
            conninfo.set(keyword, value);
        }
        for (keyword, value) in KEEPALIVES {
            if conninfo.get(keyword).is_none() {
                conninfo.set(keyword, *value);
            }
        }
        conninfo
    }

    /// A password can be passed in the environment, other secrets cannot.
    fn refuse_other_secrets(&self) -> Result<(), BaseBackupError> {
        let secret = |(keyword, value): &(&str, &str)| {
            Conninfo::is_secret(keyword) && *keyword != "password" && !value.is_empty()
        };
        match self.conninfo.iter().find(secret) {
            Some((keyword, _)) => Err(BaseBackupError::Secret {
                keyword: keyword.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// `OLD=NEW` as `pg_basebackup` and `pg_combinebackup` read it: `\=` is a bare `=`, any other backslash
/// itself.
pub(crate) fn mapping(old: &Path, new: &Path) -> OsString {
    let escape = |path: &Path| {
        let mut out = Vec::new();
        for &byte in path.as_os_str().as_bytes() {
            if byte == b'=' {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out
    };
    let mut word = escape(old);
    if word.ends_with(b"\\") {
        // It would escape the sign that follows. The program takes a slash at the end off.
        word.push(b'/');
    }
    word.push(b'=');
    word.extend(escape(new));
    OsString::from_vec(word)
}

/// A progress report of `pg_basebackup` 10 to 18: `  1024/40960 kB (2%), 0/3 tablespaces (/a/b/...  )`.
fn read_progress(line: &str) -> Option<BaseBackupProgress> {
    fn fraction<T: FromStr>(text: &str) -> Option<(T, T)> {
        let (part, whole) = text.split_once('/')?;
        Some((part.parse().ok()?, whole.parse().ok()?))
    }
    let mut words = line.split_whitespace();
    let (done, total): (u64, u64) = fraction(words.next()?)?;
    words.next().filter(|unit| *unit == "kB")?;
    words.next().filter(|percent| percent.ends_with("%),"))?;
    let (tablespace, tablespaces) = fraction(words.next()?)?;
    words.next().filter(|word| word.starts_with("tablespace"))?;
    Some(BaseBackupProgress {
        bytes_done: done.saturating_mul(1024),
        bytes_total: total.max(done).saturating_mul(1024),
        tablespace,
        tablespaces,
    })
}

#[cfg(test)]
#[path = "basebackup/tests.rs"]
mod tests;
