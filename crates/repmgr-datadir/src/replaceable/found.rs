use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use repmgr_types::{Hint, Remedy};

/// Why a directory is never replaced by a clone, forced or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// It lies inside this data directory.
    InsideDataDirectory(PathBuf),
    /// It lies inside this tablespace, or is one.
    InsideTablespace(PathBuf),
    /// It lies inside this directory of Barman's.
    InsideBarman(PathBuf),
    /// A running server uses it, or what is in it, or it is in what the server uses.
    Used {
        /// What the server uses.
        path: PathBuf,
        /// The server's process.
        pid: i32,
        /// The server's data directory.
        data: PathBuf,
    },
    /// A PostgreSQL instance is further down.
    Instance {
        /// Where.
        path: PathBuf,
        /// The process of its server, if that runs.
        pid: Option<i32>,
    },
    /// A clone of ours that was not finished, or is being made, is further down.
    Clone(PathBuf),
    /// The directory of a tablespace is in it that the instance here is not linked to.
    Tablespace(PathBuf),
    /// A server's configuration without its data.
    Configuration {
        /// Where its data are, if it says so.
        data_directory: Option<PathBuf>,
    },
    /// It is a directory of the system.
    System,
    /// It is or holds this home directory.
    Home(PathBuf),
    /// Something else.
    Other {
        /// How many entries it has.
        entries: usize,
        /// The first few of them.
        names: Vec<OsString>,
    },
}

impl fmt::Display for Found {
    /// What is to be said of the directory, after "it".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InsideDataDirectory(path) => write!(f, "lies inside the data directory {path:?}"),
            Self::InsideTablespace(path) => {
                write!(f, "is, or lies inside, the tablespace directory {path:?}")
            }
            Self::InsideBarman(path) => write!(f, "lies inside {path:?}, where Barman keeps its backups"),
            Self::Used { path, pid, data } => write!(
                f,
                "is in use: {path:?} belongs to the PostgreSQL server that runs as process {pid} in {data:?}"
            ),
            Self::Instance { path, pid: Some(pid) } => {
                write!(
                    f,
                    "holds the PostgreSQL instance {path:?}, which is running (process {pid})"
                )
            }
            Self::Instance { path, pid: None } => {
                write!(f, "holds the PostgreSQL instance {path:?}, which is not running")
            }
            Self::Clone(path) => write!(f, "holds {path:?}, where a clone was begun"),
            Self::Tablespace(path) => {
                write!(
                    f,
                    "holds {path:?}, a tablespace directory that is not known to be its own"
                )
            }
            Self::Configuration { data_directory } => {
                f.write_str("holds the configuration of a PostgreSQL server, and not its data")?;
                match data_directory {
                    Some(path) => write!(f, ": its postgresql.conf has data_directory = {path:?}"),
                    None => Ok(()),
                }
            }
            Self::System => f.write_str("is not empty and is a directory of the system"),
            Self::Home(home) => write!(f, "is not empty, and is or holds the home directory {home:?}"),
            Self::Other { entries, names } => {
                write!(
                    f,
                    "is not empty and holds no PostgreSQL instance, but {entries} other "
                )?;
                f.write_str(if *entries == 1 { "entry: " } else { "entries: " })?;
                for (n, name) in names.iter().enumerate() {
                    write!(f, "{}{name:?}", if n == 0 { "" } else { ", " })?;
                }
                f.write_str(if names.len() < *entries { ", ..." } else { "" })
            }
        }
    }
}

impl Found {
    /// What to do next.
    pub fn hint(&self) -> Hint {
        match self {
            Self::Instance { path, pid } => {
                let stop = pid.map_or("", |_| ", and stop its server first");
                let hint = Hint::new("to replace that instance, set ");
                let hint = hint.remedy_with(Remedy::DataDirectory, path.to_string_lossy());
                hint.words(stop)
            }
            Self::Clone(path) => {
                let hint = Hint::new("to go on with that clone, set ");
                hint.remedy_with(Remedy::DataDirectory, path.to_string_lossy())
            }
            Self::Configuration {
                data_directory: Some(path),
            } => {
                let hint = Hint::new("to replace that server's data, set ");
                hint.remedy_with(Remedy::DataDirectory, path.to_string_lossy())
            }
            Self::Tablespace(path) => {
                format!("see whose {path:?} is, and move it elsewhere or remove it").into()
            }
            Self::Other { .. } => {
                "choose another directory, or move away what is in this one; it is never overwritten".into()
            }
            _ => "choose a directory of its own".into(),
        }
    }
}

/// Why something cannot be removed, although the directory that it is in may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stubborn {
    /// Something is mounted on it.
    #[error("is a mount point")]
    Mounted,
    /// The file system keeps it as it is.
    #[error("is immutable (attribute \"i\")")]
    Immutable,
    /// The file system keeps what is in it.
    #[error("is append-only (attribute \"a\")")]
    AppendOnly,
    /// It belongs to another user and lies in a directory where each may remove only what is theirs.
    #[error("belongs to another user (id {owner}) and lies in a sticky directory")]
    Sticky {
        /// Its owner.
        owner: u32,
    },
}

impl Stubborn {
    /// What to do next, for what is at `path`.
    pub(crate) fn hint(self, path: &std::path::Path) -> Hint {
        match self {
            Self::Mounted => format!("unmount {path:?} for the time of the clone").into(),
            Self::Immutable => format!("run as root: chattr -i {path:?}").into(),
            Self::AppendOnly => format!("run as root: chattr -a {path:?}").into(),
            Self::Sticky { .. } => format!("let its owner or root remove {path:?}").into(),
        }
    }
}
