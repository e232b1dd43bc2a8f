//! What starts the server here: what the request says, or what this host has for its data directory.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use repmgr_pgfile::read_beginning;
use repmgr_remote::quote;
use repmgr_types::PgVersion;

use crate::CloneRequest;
use crate::standby::configured::debian_file;

/// What the server writes before it has a log of its own, when nobody else says where.
const LOG: &str = "repmgr_start.log";
/// A unit file is no larger.
const UNIT_MAX: u64 = 1 << 18;
/// Where systemd looks, what counts first before the others.
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// It is there where systemd runs.
const SYSTEMD: &str = "/run/systemd/system";
/// Where packages put `pg_ctl`, with the major version in the place of `{}`.
const PROGRAMS: [&str; 2] = ["/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin"];

/// What starts the server with a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Service {
    /// The command that was given.
    Given(String),
    /// One of Debian's clusters: major version and name.
    Debian { major: String, name: String },
    /// A unit of systemd.
    Unit(String),
    /// Nobody but `pg_ctl`: as it is called here.
    PgCtl(PathBuf),
}

impl Service {
    /// That of the request's data directory on this host.
    pub(crate) fn of(request: &CloneRequest, version: PgVersion) -> Self {
        if let Some(command) = &request.start_command {
            return Self::Given(command.clone());
        }
        let major = version.major_name();
        let of_host = Self::of_host(&request.data_directory, &major);
        of_host.unwrap_or_else(|| Self::PgCtl(pg_ctl(request.bin_dir.as_deref(), &major)))
    }

    /// Debian's cluster or the unit with this data directory, if this host has one.
    fn of_host(data_dir: &Path, major: &str) -> Option<Self> {
        if let Some(cluster) = debian_file(data_dir, major).and_then(|conf| Self::debian(&conf)) {
            return Some(cluster);
        }
        let units = UNITS.map(Path::new);
        let unit = Path::new(SYSTEMD).exists().then(|| unit(&units, data_dir))?;
        unit.map(Self::Unit)
    }

    /// By its configuration file, `/etc/postgresql/MAJOR/NAME/postgresql.conf`.
    fn debian(conf: &Path) -> Option<Self> {
        let cluster = conf.parent()?;
        let word = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
        Some(Self::Debian {
            major: word(cluster.parent()?)?,
            name: word(cluster)?,
        })
    }

    /// The command that starts it, for a person to type.
    pub(crate) fn advice(&self, data_dir: &Path) -> String {
        self.to_type("start", data_dir)
    }

    /// What was given only starts it.
    fn to_type(&self, verb: &str, data_dir: &Path) -> String {
        match self {
            Self::Given(command) => command.clone(),
            Self::Debian { major, name } => format!("pg_ctlcluster {} {} {verb}", quote(major), quote(name)),
            Self::Unit(unit) => format!("sudo systemctl {verb} {}", quote(unit)),
            Self::PgCtl(program) => format!("{} -D {} {verb}", word(program), word(data_dir)),
        }
    }

    /// The command that returns when the server is there, and where the server's first words go if that is of our
    /// choice.
    pub(super) fn command(&self, data_dir: &Path) -> (String, Option<PathBuf>) {
        match self {
            Self::Given(_) | Self::Debian { .. } => (self.advice(data_dir), None),
            Self::Unit(unit) => (format!("systemctl --no-ask-password start {}", quote(unit)), None),
            Self::PgCtl(program) => {
                let log = data_dir.join(LOG);
                let command = format!(
                    "{} -D {} -l {} -w start",
                    word(program),
                    word(data_dir),
                    word(&log)
                );
                (command, Some(log))
            }
        }
    }
}

/// The command that stops the server in this directory, if this host has its own for it.
pub(crate) fn stop_command(data_dir: &Path) -> Option<String> {
    let major = read_beginning(&data_dir.join("PG_VERSION"), 16).ok()?;
    let major = String::from_utf8(major).ok()?;
    let service = Service::of_host(data_dir, major.trim())?;
    Some(service.to_type("stop", data_dir))
}

fn word(path: &Path) -> String {
    quote(&path.to_string_lossy()).into_owned()
}

/// As a shell finds it: by its name alone where that does.
fn pg_ctl(bin_dir: Option<&Path>, major: &str) -> PathBuf {
    const NAME: &str = "pg_ctl";
    if let Some(dir) = bin_dir {
        return dir.join(NAME);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|dir| dir.join(NAME).is_file()) {
        return NAME.into();
    }
    let packaged = PROGRAMS.map(|place| Path::new(&place.replace("{}", major)).join(NAME));
    let found = packaged.into_iter().find(|program| program.is_file());
    found.unwrap_or_else(|| NAME.into())
}

/// The unit in one of these directories that starts a server with this data directory.
fn unit(directories: &[&Path], data_dir: &Path) -> Option<String> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let wanted = real(data_dir);
    let mut units: Vec<String> = directories
        .iter()
        .flat_map(|dir| names(dir, ".service"))
        .collect();
    units.sort();
    units.dedup();
    units.into_iter().find(|unit| {
        let text = unit_text(directories, unit);
        data_directory(&text).is_some_and(|named| real(Path::new(&named)) == wanted)
    })
}

/// The unit's own file and what is dropped in beside it, in the order in which it counts.
fn unit_text(directories: &[&Path], unit: &str) -> String {
    let text = |path: &Path| {
        let bytes = read_beginning(path, UNIT_MAX).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned() + "\n"
    };
    let mut files: Vec<PathBuf> = directories.iter().map(|dir| dir.join(unit)).collect();
    files.retain(|file| file.is_file());
    files.truncate(1);
    let dropped = directories.iter().rev().map(|dir| dir.join(format!("{unit}.d")));
    files.extend(dropped.flat_map(|dir| names(&dir, ".conf").into_iter().map(move |name| dir.join(name))));
    files.iter().map(|file| text(file)).collect()
}

fn names(dir: &Path, end: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(end)).collect();
    names.sort();
    names
}

/// `PGDATA` of its environment, or `-D` of its command: the last that is said.
fn data_directory(unit: &str) -> Option<String> {
    let mut named = None;
    let lines = unit.lines().map(str::trim);
    for (key, value) in lines.filter_map(|line| line.split_once('=')) {
        let words = || {
            value
                .split([' ', '\t', '"', '\''])
                .filter(|word| !word.is_empty())
        };
        match key.trim_end() {
            "Environment" => {
                let mut data = words().filter_map(|word| word.strip_prefix("PGDATA="));
                named = data.next_back().map(str::to_owned).or(named);
            }
            "ExecStart" => {
                let mut after = words().skip_while(|word| *word != "-D").skip(1);
                // `-D ${PGDATA}` says nothing new.
                let data = after.next().filter(|word| word.starts_with('/'));
                named = data.map(str::to_owned).or(named);
            }
            _ => {}
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_found_by_its_data_directory() {
        let root = tempfile::tempdir().unwrap();
        let (own, packaged, data) = (
            root.path().join("etc"),
            root.path().join("lib"),
            root.path().join("data"),
        );
        for dir in [&own, &packaged, &data, &own.join("postgresql-16.service.d")] {
            fs::create_dir_all(dir).unwrap();
        }
        let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
        write(
            packaged.join("other.service"),
            "[Service]\nExecStart=/bin/true -D /elsewhere\n",
        );
        write(
            packaged.join("postgresql-15.service"),
            "[Service]\nEnvironment=PGDATA=/var/lib/pgsql/15/data/\nExecStart=/usr/pgsql-15/bin/postmaster -D ${PGDATA}\n",
        );
        write(
            packaged.join("postgresql-16.service"),
            "Environment=PGDATA=/var/lib/pgsql/16/data/\n",
        );
        let dirs = [own.as_path(), packaged.as_path()];
        assert_eq!(
            unit(&dirs, Path::new("/var/lib/pgsql/15/data")).as_deref(),
            Some("postgresql-15.service")
        );
        assert_eq!(unit(&dirs, &data), None);
        // As `systemctl edit` writes it.
        let text = format!("[Service]\nEnvironment=\"PGDATA={}/\" X=1\n", data.display());
        write(own.join("postgresql-16.service.d/override.conf"), &text);
        assert_eq!(unit(&dirs, &data).as_deref(), Some("postgresql-16.service"));
        // A file of the administrator's takes the place of the package's.
        write(
            own.join("postgresql-15.service"),
            &format!("ExecStart=/x/postgres -D {}\n", data.display()),
        );
        assert_eq!(unit(&dirs, &data).as_deref(), Some("postgresql-15.service"));
        assert_eq!(unit(&dirs, Path::new("/var/lib/pgsql/15/data")), None);
    }

    #[test]
    fn each_is_started_in_its_own_way() {
        let cluster = Service::debian(Path::new("/etc/postgresql/15/my db/postgresql.conf")).unwrap();
        let data = Path::new("/data dir");
        assert_eq!(cluster.advice(data), "pg_ctlcluster 15 'my db' start");
        assert_eq!(cluster.to_type("stop", data), "pg_ctlcluster 15 'my db' stop");
        let unit = Service::Unit("postgresql-15.service".to_owned());
        assert_eq!(unit.advice(data), "sudo systemctl start postgresql-15.service");
        assert_eq!(
            unit.command(data).0,
            "systemctl --no-ask-password start postgresql-15.service"
        );
        let by_hand = Service::PgCtl(pg_ctl(Some(Path::new("/opt/pg/bin")), "15"));
        assert_eq!(by_hand.advice(data), "/opt/pg/bin/pg_ctl -D '/data dir' start");
        let (command, log) = by_hand.command(data);
        assert_eq!(log, Some(data.join(LOG)));
        assert!(
            command.ends_with("-l '/data dir/repmgr_start.log' -w start"),
            "{command}"
        );
    }
}
