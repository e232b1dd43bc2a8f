use std::io;
use std::path::{Path, PathBuf};

use crate::ConfigError;

/// The configuration file to use, as an absolute path.
///
/// With `explicit` (made absolute with `working_directory`) that file, which must exist.
/// Otherwise the first of `./repmgr.conf`, `/etc/repmgr.conf` and `repmgr.conf` in each of
/// `sysconfdirs` that exists, as repmgr 5.5 searches; `None` if there is none. PostgreSQL's
/// sysconfdir is `/etc/postgresql-common` on Debian and `/etc/sysconfig/pgsql` in the PGDG
/// packages for Red Hat.
///
/// # Errors
/// The explicit file does not exist or cannot be reached.
pub fn find(
    explicit: Option<&Path>,
    working_directory: &Path,
    sysconfdirs: &[impl AsRef<Path>],
) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = explicit {
        let path = working_directory.join(path);
        let found = path.metadata().and_then(|metadata| match metadata.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(()),
        });
        return match found {
            Ok(()) => Ok(Some(path)),
            Err(source) => Err(ConfigError::Read { path, source }),
        };
    }
    let system = sysconfdirs.iter().map(AsRef::as_ref);
    Ok([working_directory, Path::new("/etc")]
        .into_iter()
        .chain(system)
        .map(|directory| directory.join("repmgr.conf"))
        // A file that cannot be examined is the one meant: loading it will say what is wrong.
        .find(|path| path.try_exists().unwrap_or(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_explicit_file_is_made_absolute_and_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("my.conf"), "").unwrap();
        let none: &[&Path] = &[];
        let find = |name: &str| find(Some(Path::new(name)), directory.path(), none);
        assert_eq!(find("my.conf").unwrap(), Some(directory.path().join("my.conf")));
        for wrong in ["other.conf", "."] {
            let error = find(wrong).unwrap_err();
            assert!(error.errors().is_empty() && error.hint().is_some());
            assert_eq!(error.path(), directory.path().join(wrong));
        }
    }

    #[test]
    fn the_working_directory_comes_before_the_system_directories() {
        let (here, system) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let find = || find(None, here.path(), &[system.path()]).unwrap();
        fs::write(system.path().join("repmgr.conf"), "").unwrap();
        let found = find().unwrap();
        assert!(found == system.path().join("repmgr.conf") || found == Path::new("/etc/repmgr.conf"));
        fs::write(here.path().join("repmgr.conf"), "").unwrap();
        assert_eq!(find(), Some(here.path().join("repmgr.conf")));
    }
}
