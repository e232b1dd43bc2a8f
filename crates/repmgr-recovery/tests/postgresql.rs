//! The edited files against the judge: a real PostgreSQL server (Debian's `postgresql-15`, or
//! the programs in `REPMGR_TEST_PG_BINDIR`).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use repmgr_recovery::{LocalFiles, PrimaryConninfo, ReplicationSettings};
use repmgr_types::{Conninfo, PgVersion};
use tempfile::TempDir;

const NASTY: &[(&str, &str)] = &[
    ("log_line_prefix", r"it's \ %m \' "),
    ("cluster_name", "a 'quoted' name"),
    ("restore_command", r#"cp '/w al/%f' "%p" \\"#),
    ("log_filename", "# not a comment"),
];

struct Cluster {
    dir: TempDir,
    owner: Option<(u32, u32)>,
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = server_user();
        if let Some((uid, gid)) = owner {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let cluster = Self { dir, owner };
        cluster.run(
            "initdb",
            &["-D", "data", "-U", "postgres", "-A", "trust", "--no-sync"],
        );
        cluster
    }

    fn run(&self, name: &str, args: &[&str]) -> String {
        let bindir = std::env::var_os("REPMGR_TEST_PG_BINDIR").unwrap_or("/usr/lib/postgresql/15/bin".into());
        let program = Path::new(&bindir).join(name);
        assert!(
            program.exists(),
            "{} is missing: install the package postgresql-15",
            program.display()
        );
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path());
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        // Not a pipe: the server that pg_ctl leaves behind would keep it open.
        let out = self.dir.path().join("out");
        let file = fs::File::create(&out).unwrap();
        let status = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .status()
            .unwrap();
        let text = fs::read_to_string(out).unwrap();
        let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert!(status.success(), "{name} {args:?}: {status}\n{text}\n{}", log());
        text
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = self.owner {
            chown(self.path(name), Some(uid), Some(gid)).unwrap();
        }
    }

    fn start(&self) {
        self.run("pg_ctl", &["-D", "data", "-l", "log", "-w", "-s", "start"]);
    }

    fn stop(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-s", "-m", "immediate", "stop"]);
    }

    /// `psql` in a way that shows values as they are.
    fn sql(&self, sql: &str) -> String {
        let conninfo = format!("host={} user=postgres dbname=postgres", self.dir.path().display());
        self.run(
            "psql",
            &["-qXAt", "-v", "ON_ERROR_STOP=1", "-d", &conninfo, "-c", sql],
        )
        .trim_end_matches('\n')
        .to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.path("postmaster.pid").exists() {
            self.stop();
        }
    }
}

fn server_user() -> Option<(u32, u32)> {
    let id = |args: &[&str]| {
        let out = Command::new("id").args(args).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let postgres = || Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?));
    Some(postgres().expect("there is no user postgres: install the package postgresql-15"))
}

fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[test]
fn defect_26_a_real_server_starts_with_the_edited_files_and_shows_the_same_values() {
    let cluster = Cluster::new();
    let plain = fs::read_to_string(cluster.path("postgresql.conf")).unwrap();
    let conf = format!(
        "{plain}\nlisten_addresses = ''\nport = 5432\nfsync = off\nunix_socket_directories = '{}'\n",
        cluster.dir.path().display()
    );
    cluster.write("postgresql.conf", conf.as_bytes());
    cluster.start();
    for (name, value) in NASTY {
        cluster.sql(&format!("ALTER SYSTEM SET {name} = {}", literal(value)));
    }
    cluster.sql("ALTER SYSTEM SET recovery_target_time = '2020-01-01'");
    cluster.sql("ALTER SYSTEM SET primary_slot_name = 'gone'");
    cluster.stop();

    // As a Debian primary would have left it.
    let moved = "data_directory = '/nonexistent/main'\nhba_file = '/nonexistent/pg_hba.conf'\ninclude_dir = 'conf.d'\n\
                 recovery_target_timeline = 'current'\n";
    let conf = format!("{conf}{moved}");
    let exists = |path: &Path| path.exists();
    let data_dir = cluster.path("");
    let localized = LocalFiles {
        data_dir: &data_dir,
        exists: &exists,
        recovery: true,
    }
    .localize(&cluster.path("postgresql.conf"), conf.as_bytes());
    assert_eq!(localized.changes.len(), 4, "{:?}", localized.changes);
    cluster.write("postgresql.conf", &localized.bytes);

    let upstream = Conninfo::parse("host=127.0.0.1 port=1 user=repmgr connect_timeout=2").unwrap();
    let version = PgVersion::from_num(150_000).unwrap();
    let settings = ReplicationSettings {
        primary_conninfo: PrimaryConninfo::new(&upstream, "it's n2").build(version).conninfo,
        archive_cleanup_command: Some(r"echo '\%r'".into()),
        ..Default::default()
    };
    let existing = fs::read(cluster.path("postgresql.auto.conf")).unwrap();
    let edited = settings.apply_to_auto_conf(Some(&existing)).unwrap();
    assert_eq!(edited.dropped.len(), 2, "{:?}", edited.dropped);
    assert_eq!(edited.inherited_restore_command.as_deref(), Some(NASTY[2].1));
    cluster.write("postgresql.auto.conf", &edited.bytes);
    cluster.start();

    for (name, value) in NASTY {
        assert_eq!(cluster.sql(&format!("SHOW {name}")), *value, "{name}");
    }
    assert_eq!(
        cluster.sql("SHOW primary_conninfo"),
        settings.primary_conninfo.to_libpq_string()
    );
    assert_eq!(cluster.sql("SHOW archive_cleanup_command"), r"echo '\%r'");
    assert_eq!(cluster.sql("SHOW primary_slot_name"), "");
    assert_eq!(cluster.sql("SHOW recovery_target_timeline"), "latest");
}
