//! Checking a base backup against its manifest with `pg_verifybackup`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use repmgr_types::{CancelToken, Hint, PgVersion, Remedy};

use crate::program::{self, ProgramError};
use crate::{ProgramFailure, bin_dir};

/// The first major version whose base backups have a manifest.
const FIRST_MAJOR: u32 = 13;

/// Checks base backups by size and checksum of each file and, where they hold the WAL they need,
/// that this can be read.
#[derive(Debug, Clone)]
pub struct VerifyBackup {
    /// `pg_verifybackup` of the backup's own major version: others cannot read its WAL, and from
    /// 17 on not its `pg_control` either. It needs `pg_waldump` beside it.
    pub program: PathBuf,
}

/// Why a base backup does not count as verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyBackupError {
    /// The program could not be used.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The server makes no manifests.
    #[error("base backups of PostgreSQL {} cannot be verified", .0.major_name())]
    TooOld(PgVersion),
    /// The program is of another major version than the backup.
    #[error(
        "\"{}\" is of PostgreSQL {}, the backup of PostgreSQL {backup}",
        program.display(), version.major_name()
    )]
    OtherMajor {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: PgVersion,
        /// The backup's major version.
        backup: String,
    },
    /// A file that says what to verify is not there.
    #[error("could not read \"{}\"", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The backup is damaged or incomplete, or could not be read.
    #[error(transparent)]
    Failed(#[from] Box<ProgramFailure>),
}

impl VerifyBackupError {
    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            VerifyBackupError::Program(e) => e.hint(),
            VerifyBackupError::TooOld(_) => Some(
                format!("backups have a manifest from PostgreSQL {FIRST_MAJOR} on; do not ask for it").into(),
            ),
            VerifyBackupError::OtherMajor { backup, .. } => Some(bin_dir::install(backup)),
            VerifyBackupError::File { .. } => Some(
                Hint::new("no backup can be verified if \"--no-manifest\" is among ")
                    .remedy(Remedy::BaseBackupOptions),
            ),
            VerifyBackupError::Failed(_) => None,
        }
    }
}

impl VerifyBackup {
    /// Whether backups of `server` can be verified: to be asked before one is made.
    ///
    /// # Errors
    /// If the program cannot be used or is of another major version, or the server is older than 13.
    pub fn check(&self, server: PgVersion, cancel: &CancelToken) -> Result<(), VerifyBackupError> {
        if server.major() < FIRST_MAJOR {
            return Err(VerifyBackupError::TooOld(server));
        }
        self.check_major(&server.major_name(), cancel)
    }

    /// Verifies the backup in `data_directory`, to which nothing may have been done since it was
    /// made. `with_wal`: it holds the WAL it needs, as it does unless made with `-X none`.
    ///
    /// # Errors
    /// If the backup is not as its manifest says, or that cannot be told.
    pub fn run(
        &self,
        data_directory: &Path,
        with_wal: bool,
        cancel: &CancelToken,
    ) -> Result<(), VerifyBackupError> {
        let file = |path: PathBuf| move |source| VerifyBackupError::File { path, source };
        let path = data_directory.join("PG_VERSION");
        let backup = fs::read_to_string(&path).map_err(file(path))?;
        self.check_major(backup.trim(), cancel)?;
        let path = data_directory.join("backup_manifest");
        fs::metadata(&path).map_err(file(path))?;

        let mut command = Command::new(&self.program);
        if !with_wal {
            command.arg("-n");
        }
        command.arg(data_directory);
        let mut lines = program::last_lines();
        let status = program::run(command, None, cancel, &mut |line| {
            log::debug!("{line}");
            lines.add(line);
        })?;
        match status.success() {
            true => Ok(()),
            false => Err(Box::new(ProgramFailure::new(&self.program, status, lines)).into()),
        }
    }

    fn check_major(&self, backup: &str, cancel: &CancelToken) -> Result<(), VerifyBackupError> {
        let version = program::version(&self.program, cancel)?;
        if version.major_name() == backup {
            return Ok(());
        }
        Err(VerifyBackupError::OtherMajor {
            program: self.program.clone(),
            version,
            backup: backup.to_owned(),
        })
    }
}
