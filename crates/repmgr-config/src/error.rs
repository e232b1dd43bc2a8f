use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One error or warning about a configuration file. Values are not quoted: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, which may be an included one.
    pub file: PathBuf,
    /// Line number, from 1; `None` for what is missing from the file.
    pub line: Option<usize>,
    /// The parameter, where there is one.
    pub parameter: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file \"{}\"", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(parameter) = &self.parameter {
            write!(f, ": parameter \"{parameter}\"")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read configuration file \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and is wrong.
    #[error("configuration file \"{}\" has {}", path.display(), count(errors.len()))]
    Invalid {
        /// The file that was to be loaded.
        path: PathBuf,
        /// All that is wrong, syntax first. Never empty.
        errors: Vec<Diagnostic>,
        /// What would have been warned of.
        warnings: Vec<Diagnostic>,
    },
}

impl ConfigError {
    /// All that is wrong inside the file; empty if it could not be read.
    pub fn errors(&self) -> &[Diagnostic] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { errors, .. } => errors,
        }
    }

    /// The file that was to be loaded.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. } | Self::Invalid { path, .. } => path,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("check the path and that this user may read the file".to_owned()),
            Self::Invalid { errors, .. } => errors.iter().find_map(|error| error.hint.clone()),
        }
    }
}

fn count(errors: usize) -> String {
    match errors {
        1 => "an error".to_owned(),
        n => format!("{n} errors"),
    }
}
