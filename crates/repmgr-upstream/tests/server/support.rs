//! A throw-away PostgreSQL server on loopback, stopped and erased when dropped.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use repmgr_lab::PgInstall;
use repmgr_types::Conninfo;
use tempfile::TempDir;

/// Where Debian's `postgresql-15` puts its programs.
const DEBIAN: &str = "/usr/lib/postgresql/15/bin";

/// The programs of one PostgreSQL: the lab's by major, or those in `REPMGR_TEST_PG_BINDIR`.
#[derive(Clone)]
pub(crate) struct Programs(PathBuf);

impl Programs {
    pub(crate) fn of_major(major: u32) -> Self {
        Self(PgInstall::get(major).unwrap().bin_dir().to_owned())
    }

    /// A client program that this PostgreSQL lacks is Debian's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let dirs = [&self.0, Path::new(DEBIAN)];
        // The one psql that finds its libraries everywhere.
        let skip = usize::from(name == "psql");
        let path = dirs
            .iter()
            .skip(skip)
            .map(|dir| dir.join(name))
            .find(|path| path.exists());
        path.unwrap_or_else(|| panic!("{name} is missing: install the package postgresql-15"))
    }
}

impl Default for Programs {
    fn default() -> Self {
        Self(
            std::env::var_os("REPMGR_TEST_PG_BINDIR")
                .unwrap_or(DEBIAN.into())
                .into(),
        )
    }
}

/// PostgreSQL refuses to run as root: then its programs run as the user `postgres`.
fn server_user() -> Option<(u32, u32)> {
    let id = |flags: &[&str]| {
        let out = Command::new("id").args(flags).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let postgres = || Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?));
    Some(postgres().expect("there is no user postgres: install the package postgresql-15"))
}

pub(crate) struct Server {
    programs: Programs,
    dir: TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// A fresh cluster whose superuser `postgres` needs no password on the socket.
    pub(crate) fn start(conf: &str, hba: &str, files: &[(&str, &str)]) -> Self {
        Self::start_with(Programs::default(), conf, hba, files)
    }

    pub(crate) fn start_with(programs: Programs, conf: &str, hba: &str, files: &[(&str, &str)]) -> Self {
        let server = Self::prepare(programs);
        server.run(
            "initdb",
            &["-D", "data", "-U", "postgres", "-A", "trust", "--no-sync"],
        );
        fs::write(
            server.path("data/pg_hba.conf"),
            format!("local all,replication all trust\n{hba}\n"),
        )
        .unwrap();
        for (name, text) in files {
            server.write(name, text);
        }
        server.configure(conf);
        server.up();
        server
    }

    /// A streaming copy of this server.
    pub(crate) fn standby(&self) -> Self {
        let copy = self.sibling();
        let source = self.socket_conninfo("postgres", "postgres");
        copy.run(
            "pg_basebackup",
            &["-d", &source, "-D", "data", "-c", "fast", "--no-sync"],
        );
        copy.up_as_standby_of(self);
        copy
    }

    /// The place for a server of the same version, still without a data directory.
    pub(crate) fn sibling(&self) -> Self {
        Self::prepare(self.programs.clone())
    }

    /// Starts what was copied from `source`. Configured by hand: `pg_basebackup -R` writes keywords
    /// that an older server does not know.
    pub(crate) fn up_as_standby_of(&self, source: &Server) {
        let (dir, port) = (source.dir.path().display(), source.port);
        let conninfo = format!("primary_conninfo = 'host={dir} port={port} user=postgres'\n");
        let version = fs::read_to_string(self.path("data/PG_VERSION")).unwrap();
        if version.trim().parse::<u32>().unwrap() < 12 {
            self.write("recovery.conf", &format!("standby_mode = on\n{conninfo}"));
            self.configure("");
        } else {
            self.write("standby.signal", "");
            self.configure(&conninfo);
        }
        self.up();
    }

    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A new directory that belongs to the server.
    pub(crate) fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        give_to_server(&path);
        path
    }

    /// Makes the server the owner of all its files.
    pub(crate) fn own_all(&self) {
        fn own(path: &Path) {
            give_to_server(path);
            if path.symlink_metadata().unwrap().is_dir() {
                fs::read_dir(path)
                    .unwrap()
                    .for_each(|entry| own(&entry.unwrap().path()));
            }
        }
        own(self.dir.path());
    }

    pub(crate) fn promote(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-s", "promote"]);
    }

    pub(crate) fn conninfo(&self, rest: &str) -> Conninfo {
        Conninfo::parse(&format!(
            "host=127.0.0.1 port={} connect_timeout=10 {rest}",
            self.port
        ))
        .unwrap()
    }

    pub(crate) fn socket(&self, user: &str, dbname: &str) -> Conninfo {
        Conninfo::parse(&self.socket_conninfo(user, dbname)).unwrap()
    }

    pub(crate) fn sql(&self, dbname: &str, sql: &str) {
        self.run(
            "psql",
            &[
                "-qX",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                &self.socket_conninfo("postgres", dbname),
                "-c",
                sql,
            ],
        );
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket_conninfo(&self, user: &str, dbname: &str) -> String {
        format!(
            "host={} port={} user={user} dbname={dbname}",
            self.dir.path().display(),
            self.port
        )
    }

    fn prepare(programs: Programs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        give_to_server(dir.path());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Self { programs, dir, port }
    }

    fn configure(&self, conf: &str) {
        let path = self.path("data/postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        let (port, dir) = (self.port, self.dir.path().display());
        let own = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{dir}'\nfsync = off\n"
        );
        fs::write(&path, format!("{text}\n{own}{conf}\n")).unwrap();
    }

    /// A file in the data directory, the server's own.
    fn write(&self, name: &str, text: &str) {
        let path = self.path("data").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        give_to_server(&path);
    }

    fn up(&self) {
        let log = self.path("log");
        self.run(
            "pg_ctl",
            &["-D", "data", "-l", log.to_str().unwrap(), "-w", "-s", "start"],
        );
    }

    fn run(&self, name: &str, args: &[&str]) {
        let mut command = Command::new(self.programs.path(name));
        command.args(args).current_dir(self.dir.path());
        if let Some((uid, gid)) = server_user() {
            command.uid(uid).gid(gid).env("HOME", self.dir.path());
        }
        // pg_ctl's server would hold pipes open for ever; files do not mind.
        let out = fs::File::create(self.path("out")).unwrap();
        let status = command
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .status()
            .unwrap();
        let text = || fs::read_to_string(self.path("out")).unwrap_or_default();
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        assert!(
            status.success(),
            "{name} {args:?}: {status}\n{}\n{}",
            text(),
            log()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.path("data/postmaster.pid").exists() {
            self.run("pg_ctl", &["-D", "data", "-w", "-s", "-m", "immediate", "stop"]);
        }
    }
}

fn give_to_server(path: &Path) {
    if let Some((uid, gid)) = server_user() {
        lchown(path, Some(uid), Some(gid)).unwrap();
    }
}

pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "timed out");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
