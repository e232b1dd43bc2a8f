//! A whole base backup out of a full one and its increments, made by `pg_combinebackup`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use repmgr_types::{CancelToken, Hint, PgVersion};

use crate::basebackup::mapping;
use crate::program::{self, ProgramError};
use crate::{ProgramFailure, bin_dir};

/// The first major version with increments, and with the program.
const FIRST_MAJOR: u32 = 17;
/// The first major version whose program can link files instead of copying them.
const FIRST_TO_LINK: u32 = 18;

/// Makes whole base backups out of increments.
#[derive(Debug, Clone)]
pub struct CombineBackup {
    /// `pg_combinebackup` of the backups' own major version: the files of increments may be others in
    /// another. A path, or a name to be looked for in `$PATH`.
    pub program: PathBuf,
}

/// What is to be combined, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combination {
    /// Data directories with `backup_manifest`, `global/pg_control` and links to their tablespaces: the full
    /// backup first, then each increment.
    pub backups: Vec<PathBuf>,
    /// The data directory to make; it must not exist, or be empty.
    pub output: PathBuf,
    /// For each tablespace of the last backup: its place there, and where it shall be. The latter must not
    /// exist, or be empty.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// Link files that are taken over as they are instead of copying them (18 and later). All places must be
    /// on one file system, and the backups be thrown away afterwards: what changes a linked file changes both.
    pub link: bool,
}

/// Why backups were not combined.
#[derive(Debug, thiserror::Error)]
pub enum CombineBackupError {
    /// The program could not be used.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// There are no increments in that version.
    #[error("PostgreSQL {} has no incremental backups", .0.major_name())]
    TooOld(PgVersion),
    /// The program is of another major version than the backups.
    #[error(
        "\"{}\" is of PostgreSQL {}, the backup of PostgreSQL {}",
        program.display(), version.major_name(), backup.major_name()
    )]
    OtherMajor {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: PgVersion,
        /// The backups' version.
        backup: PgVersion,
    },
    /// The program failed: the backups do not fit together, or the disk is full.
    #[error(transparent)]
    Failed(#[from] Box<ProgramFailure>),
    /// The program says it succeeded, and no data directory is there.
    #[error("pg_combinebackup succeeded, but \"{}\" is no complete data directory", output.display())]
    Incomplete {
        /// Where it should be.
        output: PathBuf,
    },
}

impl CombineBackupError {
    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Program(e) => e.hint(),
            Self::OtherMajor { backup, .. } => Some(bin_dir::install(&backup.major_name())),
            Self::Failed(e) => e.hint(),
            Self::TooOld(_) | Self::Incomplete { .. } => None,
        }
    }
}

impl CombineBackup {
    /// Whether backups of `version` can be combined: to be asked before they are fetched. Gives whether
    /// files can be linked.
    ///
    /// # Errors
    /// If the program cannot be used or is of another major version.
    pub fn check(&self, version: PgVersion, cancel: &CancelToken) -> Result<bool, CombineBackupError> {
        if version.major() < FIRST_MAJOR {
            return Err(CombineBackupError::TooOld(version));
        }
        let own = program::version(&self.program, cancel)?;
        if own.major() != version.major() {
            return Err(CombineBackupError::OtherMajor {
                program: self.program.clone(),
                version: own,
                backup: version,
            });
        }
        Ok(own.major() >= FIRST_TO_LINK)
    }

    /// Combines backups. Gives what the program said, its last hundred lines: warnings, if any.
    ///
    /// Writes no manifest, which would hold for the files only until something is changed, and flushes
    /// nothing: that is left to the caller, who can flush whole file systems. There is no limit in time;
    /// `cancel` ends it. What was written then stays, as it does if this process is killed.
    ///
    /// # Errors
    /// If the program cannot be used, fails, or leaves no data directory.
    pub fn run(
        &self,
        combination: &Combination,
        cancel: &CancelToken,
    ) -> Result<Vec<String>, CombineBackupError> {
        let mut command = Command::new(&self.program);
        command.args(combination.arguments());
        let mut lines = program::last_lines();
        let status = program::run(command, None, cancel, &mut |line| {
            log::debug!("{line}");
            lines.add(line);
        })?;
        if !status.success() {
            return Err(Box::new(ProgramFailure::new(&self.program, status, lines)).into());
        }
        let output = &combination.output;
        let made = ["PG_VERSION", "backup_label", "global/pg_control"];
        if !made.iter().all(|file| output.join(file).is_file()) {
            return Err(CombineBackupError::Incomplete {
                output: output.clone(),
            });
        }
        Ok(lines.into_vec())
    }
}

impl Combination {
    /// The words after the program's name.
    pub fn arguments(&self) -> Vec<OsString> {
        let word = |path: &Path| OsString::from(path);
        let mut words: Vec<OsString> = vec!["--no-sync".into(), "--no-manifest".into()];
        if self.link {
            words.push("--link".into());
        }
        words.extend(["-o".into(), word(&self.output)]);
        for (old, new) in &self.tablespace_mapping {
            words.extend(["-T".into(), mapping(old, new)]);
        }
        words.extend(self.backups.iter().map(|path| word(path)));
        words
    }
}

#[cfg(test)]
mod tests {

    use repmgr_types::Remedy;

    use super::*;

    fn version(num: u32) -> PgVersion {
        PgVersion::from_num(num).unwrap()
    }

    fn script(dir: &Path, body: &str) -> CombineBackup {
        let program = dir.join("pg_combinebackup");
        repmgr_lab::write_program(&program, &format!("#!/bin/sh\n{body}\n")).unwrap();
        CombineBackup { program }
    }

    fn combination(dir: &Path) -> Combination {
        Combination {
            backups: vec!["/s/0/data".into(), "/s/1/data".into()],
            output: dir.join("out"),
            tablespace_mapping: vec![("/s/1/16400".into(), "/srv/a=b".into())],
            link: false,
        }
    }

    #[test]
    fn the_oldest_backup_comes_first_and_places_are_escaped() {
        let mut combination = combination(Path::new("/d"));
        let words = "--no-sync --no-manifest -o /d/out -T /s/1/16400=/srv/a\\=b /s/0/data /s/1/data";
        assert_eq!(combination.arguments().join(" ".as_ref()), words);
        combination.link = true;
        assert!(combination.arguments().contains(&"--link".into()));
    }

    #[test]
    fn only_the_program_of_the_backups_own_major_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "echo 'pg_combinebackup (PostgreSQL) 17.11'");
        let cancel = CancelToken::new();
        assert!(!program.check(version(170_000), &cancel).unwrap());
        let other = program.check(version(180_001), &cancel).unwrap_err();
        assert!(matches!(other, CombineBackupError::OtherMajor { .. }), "{other}");
        assert!(other.hint().unwrap().to_string().contains("PostgreSQL 18"));
        let old = program.check(version(160_001), &cancel).unwrap_err();
        assert!(matches!(old, CombineBackupError::TooOld(_)), "{old}");
        let newer = script(dir.path(), "echo 'pg_combinebackup (PostgreSQL) 18.6'");
        assert!(newer.check(version(180_000), &cancel).unwrap());
        let missing = CombineBackup {
            program: dir.path().join("none"),
        };
        let missing = missing.check(version(170_000), &cancel).unwrap_err();
        assert!(
            missing
                .hint()
                .unwrap()
                .remedies()
                .any(|remedy| remedy == Remedy::BinDir)
        );
    }

    #[test]
    fn what_it_says_is_kept_and_its_failure_told() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = CancelToken::new();
        let combination = combination(dir.path());
        let failing = script(
            dir.path(),
            "echo 'pg_combinebackup: error: backup at \"x\" starts at LSN 0/1' >&2; exit 1",
        );
        let error = failing.run(&combination, &cancel).unwrap_err();
        assert!(error.to_string().contains("(exit code 1)") && error.to_string().contains("starts at LSN"));
        let lying = script(dir.path(), "exit 0");
        let error = lying.run(&combination, &cancel).unwrap_err();
        assert!(matches!(error, CombineBackupError::Incomplete { .. }), "{error}");
        let body = "echo 'pg_combinebackup: warning: w' >&2; mkdir -p \"$4/global\"; for f in PG_VERSION \
                    backup_label global/pg_control; do : >\"$4/$f\"; done";
        let warning = script(dir.path(), body);
        assert_eq!(
            warning.run(&combination, &cancel).unwrap(),
            ["pg_combinebackup: warning: w"]
        );
    }
}
