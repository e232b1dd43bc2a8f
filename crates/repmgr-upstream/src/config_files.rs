//! The server's configuration files, of which a base backup holds only those in the data directory.

use std::path::{Path, PathBuf};

use repmgr_types::canonical_path;
use tokio_postgres::types::Type;

use crate::upstream::get;
use crate::{QueryError, Upstream};

/// A configuration file on the server's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is there. Absolute.
    pub path: PathBuf,
    /// Its name without the directory. Not unique.
    pub name: String,
    /// Whether it lies in the data directory, so that a base backup holds it. Links on the
    /// server's host are not followed.
    pub in_data_directory: bool,
    /// What the server reads it for.
    pub role: ConfigRole,
}

/// What a configuration file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigRole {
    /// `config_file`: the first that is read.
    Main,
    /// Settings, included from another file.
    Included,
    /// `hba_file` or `ident_file`.
    Rules,
}

impl Upstream {
    /// The server's data directory, as it was started with.
    ///
    /// # Errors
    /// Among others, if the role may not see it: [`Privileges::can_read_settings`](crate::Privileges::can_read_settings).
    pub fn data_directory(&self) -> Result<PathBuf, QueryError> {
        let sql = "SELECT pg_catalog.current_setting('data_directory')";
        let path: String = self.ask_scalar("read the location of the data directory", sql, &[])?;
        Ok(path.into())
    }

    /// The main configuration file, every file some setting came from, pg_hba.conf and
    /// pg_ident.conf, by path, each once. `config_file` itself is always among them, which it is
    /// not in repmgr's list when all its settings are overridden by included files.
    ///
    /// Not found: files that only pg_hba.conf or pg_ident.conf include, and certificates.
    ///
    /// # Errors
    /// As for [`Upstream::data_directory`].
    pub fn config_files(&self) -> Result<Vec<ConfigFile>, QueryError> {
        const WHAT: &str = "list the configuration files";
        // Asked first, because it is an error for those who may not see it; the list would be empty.
        let data_directory = self.data_directory()?;
        let names: &[&str] = &["config_file", "hba_file", "ident_file"];
        let sql = "SELECT path, coalesce(max(name), '') FROM \
                   (SELECT sourcefile AS path, NULL AS name FROM pg_catalog.pg_settings WHERE sourcefile IS NOT NULL \
                   UNION SELECT setting, name FROM pg_catalog.pg_settings WHERE name = ANY ($1) AND setting <> '') f \
                   GROUP BY path ORDER BY path";
        let paths: Vec<(String, String)> = self.ask(WHAT, sql, &[(&names, Type::TEXT_ARRAY)], |row| {
            Ok((get(row, 0)?, get(row, 1)?))
        })?;
        let file = |(path, setting): (String, String)| {
            let path = PathBuf::from(path);
            let name = path.file_name().and_then(|name| name.to_str());
            match name.filter(|_| path.is_absolute()) {
                Some(name) => Ok(ConfigFile {
                    name: name.to_owned(),
                    in_data_directory: is_inside(&path, &data_directory),
                    path,
                    role: match setting.as_str() {
                        "config_file" => ConfigRole::Main,
                        "" => ConfigRole::Included,
                        _ => ConfigRole::Rules,
                    },
                }),
                None => Err(self.unusable(WHAT, format!("\"{}\" is no path of a file", path.display()))),
            }
        };
        paths.into_iter().map(file).collect()
    }
}

/// By components: `/data2/x` is not in `/data`, and neither is `/data/../x`.
fn is_inside(path: &Path, directory: &Path) -> bool {
    canonical_path(path).starts_with(canonical_path(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sibling_with_the_same_beginning_is_outside() {
        for (path, inside) in [
            ("/srv/data/postgresql.conf", true),
            ("/srv/data/conf.d/a.conf", true),
            ("/srv//data/./x.conf", true),
            ("/srv/data2/postgresql.conf", false),
            ("/srv/data.conf", false),
            ("/srv/data/../etc/x.conf", false),
            ("/etc/srv/data/x.conf", false),
        ] {
            assert_eq!(
                is_inside(Path::new(path), Path::new("/srv/data/")),
                inside,
                "{path}"
            );
        }
        assert!(!is_inside(Path::new("/srvxdata/a"), Path::new("/srv.data")));
    }
}
