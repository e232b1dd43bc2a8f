//! A throw-away PostgreSQL server on loopback, stopped and erased when dropped.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use repmgr_types::Conninfo;
use tempfile::TempDir;

/// Where Debian's `postgresql-15` puts its programs; another server's can be named.
fn program(name: &str) -> PathBuf {
    let dir = std::env::var_os("REPMGR_TEST_PG_BINDIR").unwrap_or("/usr/lib/postgresql/15/bin".into());
    let path = Path::new(&dir).join(name);
    assert!(
        path.exists(),
        "{} is missing: install the package postgresql-15",
        path.display()
    );
    path
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
    dir: TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// A fresh cluster whose superuser `postgres` needs no password on the socket.
    pub(crate) fn start(conf: &str, hba: &str, files: &[(&str, &str)]) -> Self {
        let server = Self::prepare();
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

    /// A streaming copy of this server. Configured by hand: `pg_basebackup -R` writes keywords
    /// that an older server does not know.
    pub(crate) fn standby(&self) -> Self {
        let copy = Self::prepare();
        let source = self.socket_conninfo("postgres", "postgres");
        copy.run(
            "pg_basebackup",
            &["-d", &source, "-D", "data", "-c", "fast", "--no-sync"],
        );
        let source = format!(
            "host={} port={} user=postgres",
            self.dir.path().display(),
            self.port
        );
        let conninfo = format!("primary_conninfo = '{source}'\n");
        let version = fs::read_to_string(copy.path("data/PG_VERSION")).unwrap();
        if version.trim().parse::<u32>().unwrap() < 12 {
            copy.write("recovery.conf", &format!("standby_mode = on\n{conninfo}"));
            copy.configure("");
        } else {
            copy.write("standby.signal", "");
            copy.configure(&conninfo);
        }
        copy.up();
        copy
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

    fn prepare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        give_to_server(dir.path());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Self { dir, port }
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
        let mut command = Command::new(program(name));
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
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}
