//! What a standby will read: its configuration files, wherever they lie, and the command line of its service.

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use repmgr_guc::{Entry, scan};
use repmgr_pgfile::read_beginning;
use repmgr_types::PgVersion;
use repmgr_upstream::{LimitError, StandbyLimits};

use super::configure::{AUTO_CONF, CONF, CONF_MAX, conf_files};

/// As deep as PostgreSQL goes.
const MAX_DEPTH: usize = 10;
const INCLUDES: [&str; 3] = ["include", "include_if_exists", "include_dir"];

/// Where configuration files are read from.
pub(crate) trait ConfFiles {
    /// What is in a file. What cannot be read says nothing: PostgreSQL will tell of it, and what is raised for nothing
    /// does no harm.
    fn read(&mut self, path: &Path) -> Vec<u8>;

    /// The file itself, or what PostgreSQL reads of a directory, in its order.
    fn expand(&mut self, path: &Path) -> Vec<PathBuf>;
}

/// Those on this host.
pub(crate) struct Here;

impl ConfFiles for Here {
    fn read(&mut self, path: &Path) -> Vec<u8> {
        read_beginning(path, CONF_MAX).unwrap_or_default()
    }

    fn expand(&mut self, path: &Path) -> Vec<PathBuf> {
        let mut files = conf_files(path);
        files.sort();
        files
    }
}

/// The last word for each name.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    values: HashMap<String, String>,
    /// Files on the way to the one that is read, against circles.
    open: HashSet<PathBuf>,
}

impl Configured {
    /// What a server with this data directory reads: `main`, if it has one, and its `postgresql.auto.conf`.
    pub(crate) fn of(data_dir: &Path, main: Option<&Path>, files: &mut dyn ConfFiles) -> Self {
        let mut configured = Self::default();
        if let Some(main) = main {
            configured.read(main, 0, files);
        }
        configured.read(&data_dir.join(AUTO_CONF), 0, files);
        configured
    }

    /// The settings that a standby must not have too low.
    pub(crate) fn limits(&self, version: PgVersion) -> Result<StandbyLimits, LimitError> {
        StandbyLimits::configured(version, |name| self.values.get(name).map(String::as_str))
    }

    fn read(&mut self, path: &Path, depth: usize, files: &mut dyn ConfFiles) {
        if depth > MAX_DEPTH || !self.open.insert(path.to_owned()) {
            return;
        }
        let text = files.read(path);
        for entry in scan(&text).filter_map(|line| line.content.ok().flatten()) {
            self.heed(&entry, path, depth, files);
        }
        self.open.remove(path);
    }

    fn heed(&mut self, entry: &Entry, file: &Path, depth: usize, files: &mut dyn ConfFiles) {
        let Some(value) = entry.value_str() else { return };
        if INCLUDES.iter().any(|name| entry.is(name)) {
            let included = file.parent().unwrap_or(Path::new("/")).join(value);
            for file in files.expand(&included) {
                self.read(&file, depth + 1, files);
            }
        } else {
            self.values
                .insert(entry.name.to_ascii_lowercase(), value.to_owned());
        }
    }
}

/// Where Debian has the configuration of the cluster with this data directory. As its postgresql-common (248) does,
/// `PG_CLUSTER_CONF_ROOT` is heeded.
pub(crate) fn debian_file(data_dir: &Path, major: &str) -> Option<PathBuf> {
    let root = env::var_os("PG_CLUSTER_CONF_ROOT").filter(|root| !root.is_empty());
    let root = root.map_or_else(|| PathBuf::from("/etc/postgresql"), PathBuf::from);
    debian_file_below(&root.join(major), data_dir)
}

fn debian_file_below(clusters: &Path, data_dir: &Path) -> Option<PathBuf> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let files = fs::read_dir(clusters)
        .ok()?
        .flatten()
        .map(|entry| entry.path().join(CONF));
    files.into_iter().find(|file| {
        let mut configured = Configured::default();
        configured.read(file, 0, &mut Here);
        let named = configured.values.get("data_directory");
        named.is_some_and(|named| real(Path::new(named)) == real(data_dir))
    })
}

/// What a command line that starts a server sets, as far as it can be read. It counts before all files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    values: HashMap<String, String>,
}

impl CommandLine {
    /// Of `postmaster.opts`, a service's command, Debian's `pg_ctl.conf`: quotes at any depth.
    pub(crate) fn parse(text: &str) -> Self {
        let mut values = HashMap::new();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let words: Vec<&str> = lines
            .flat_map(|line| line.split([' ', '\t', '"', '\'', '\\']))
            .filter(|word| !word.is_empty())
            .collect();
        for (n, word) in words.iter().enumerate() {
            let follows_c = n > 0 && words[n - 1].ends_with("-c");
            let setting = match word.strip_prefix("--").or(word.strip_prefix("-c")) {
                Some(rest) => rest,
                None if follows_c => word,
                None => continue,
            };
            if let Some((name, value)) = setting.split_once('=') {
                values.insert(name.to_ascii_lowercase().replace('-', "_"), value.to_owned());
            }
        }
        Self { values }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// What `other` sets comes last.
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.values.extend(other.values);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_cluster_is_found_by_its_data_directory() {
        let (clusters, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, dir) in [("other", Path::new("/elsewhere")), ("main", data.path())] {
            fs::create_dir(clusters.path().join(name)).unwrap();
            let text = format!("data_directory = '{}'\n", dir.display());
            fs::write(clusters.path().join(name).join(CONF), text).unwrap();
        }
        let found = debian_file_below(clusters.path(), data.path());
        assert_eq!(found, Some(clusters.path().join("main").join(CONF)));
        assert_eq!(debian_file_below(clusters.path(), Path::new("/no")), None);
    }

    #[test]
    fn a_command_line_is_read_in_every_way_it_is_written() {
        for text in [
            r#"/usr/lib/postgresql/15/bin/postgres "-D" "/data" "-c" "max_connections=50""#,
            "pg_ctl -D /data -o '-c max_connections=50' start",
            "pg_ctl_options = '-o \"-cmax_connections=50\"'",
            "postgres -D /data --max-connections=50",
            "postgres -c Max_Connections=90 -c max_connections=50",
        ] {
            assert_eq!(
                CommandLine::parse(text).get("max_connections"),
                Some("50"),
                "{text}"
            );
        }
        let commented = "# pg_ctl_options = '-o \"-c max_connections=50\"'\npg_ctl_options = ''";
        assert_eq!(CommandLine::parse(commented), CommandLine::default());
        assert_eq!(
            CommandLine::parse("systemctl start postgresql@15-main"),
            CommandLine::default()
        );
        let both = CommandLine::parse("-c a=1 -c b=1").then(CommandLine::parse("-c b=2"));
        assert_eq!((both.get("a"), both.get("b")), (Some("1"), Some("2")));
    }
}
