//! Whether a directory has the programs of one major version of PostgreSQL.

use std::path::{Path, PathBuf};

use repmgr_types::{CancelToken, Hint, PgVersion, Remedy};

use crate::program::{self, ProgramError};

/// What is wrong with a directory that is to have PostgreSQL's programs.
#[derive(Debug, thiserror::Error)]
pub enum BinDirError {
    /// A program is missing, or does not run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A program is of another major version.
    #[error(
        "\"{}\" is of PostgreSQL {}, the standby of PostgreSQL {}",
        program.display(), version.major_name(), wanted.major_name()
    )]
    OtherMajor {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: PgVersion,
        /// The standby's version.
        wanted: PgVersion,
    },
}

impl BinDirError {
    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Program(error) => error.hint(),
            Self::OtherMajor { wanted, .. } => Some(install(&wanted.major_name())),
        }
    }
}

/// Checks that each of `programs` in `dir` runs and is of the major version of `wanted`. `postgres` is what
/// a standby is started with.
///
/// # Errors
/// The first that does not.
pub fn check_bin_dir(
    dir: &Path,
    programs: &[&str],
    wanted: PgVersion,
    cancel: &CancelToken,
) -> Result<(), BinDirError> {
    for name in programs {
        let program = dir.join(name);
        let version = program::version(&program, cancel)?;
        if !version.same_major(wanted) {
            return Err(BinDirError::OtherMajor {
                program,
                version,
                wanted,
            });
        }
    }
    Ok(())
}

/// What to do where programs of `major` are missing.
pub(crate) fn install(major: &str) -> Hint {
    Hint::new(format!("install the programs of PostgreSQL {major} and set "))
        .remedy(Remedy::BinDir)
        .words(" to their directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin_dir(answer: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgres");
        repmgr_lab::write_program(&path, &format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        dir
    }

    #[test]
    fn programs_must_be_there_and_of_the_standbys_version() {
        let version = PgVersion::from_num(150_018).unwrap();
        let check = |dir: &tempfile::TempDir, programs: &[&str]| {
            check_bin_dir(dir.path(), programs, version, &CancelToken::new())
        };
        let good = bin_dir("postgres (PostgreSQL) 15.3");
        check(&good, &["postgres"]).unwrap();
        let missing = check(&good, &["postgres", "pg_ctl"]).unwrap_err();
        assert!(
            matches!(missing, BinDirError::Program(ProgramError::NotFound(_))),
            "{missing}"
        );
        let other = check(&bin_dir("postgres (PostgreSQL) 16.1"), &["postgres"]).unwrap_err();
        assert!(
            other
                .to_string()
                .ends_with("is of PostgreSQL 16, the standby of PostgreSQL 15"),
            "{other}"
        );
        assert_eq!(
            other.hint().unwrap().to_string(),
            "install the programs of PostgreSQL 15 and set bin_dir to their directory"
        );
        assert!(matches!(
            check(&bin_dir("hello"), &["postgres"]),
            Err(BinDirError::Program(ProgramError::Version { .. }))
        ));
    }
}
