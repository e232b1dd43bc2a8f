//! A lab with some archived WAL, and directories that look like a standby's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use repmgr_lab::{BackupMethod, BarmanVersion, Finished, Lab, check, run};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const SERVER: &str = "main";

pub(crate) struct Bench {
    pub(crate) lab: Lab,
    program: PathBuf,
    /// Archived segments, in order.
    pub(crate) segments: Vec<String>,
}

/// A data directory without a server, in which calls are made as PostgreSQL makes them.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
}

impl Bench {
    pub(crate) fn new(version: BarmanVersion, segments: usize) -> Self {
        let lab = Lab::builder()
            .barman(version)
            .method(BackupMethod::Postgres)
            .without_backup()
            .build()
            .unwrap();
        Self::of(lab, segments)
    }

    pub(crate) fn of(lab: Lab, segments: usize) -> Self {
        let program = lab.scratch().join("bin/repmgr-wal-restore");
        // By another process: a file that we hold open for writing while some thread forks cannot be executed.
        let built = env!("CARGO_BIN_EXE_repmgr-wal-restore");
        check(Command::new("cp").arg(built).arg(&program), LIMIT).unwrap();
        let mut bench = Self {
            lab,
            program,
            segments: Vec::new(),
        };
        for _ in 0..segments {
            bench
                .lab
                .primary()
                .sql("insert into lab_rows (note) select md5(g::text) from generate_series(1, 2000) g")
                .unwrap();
            bench.lab.barman().switch_wal(SERVER).unwrap();
        }
        bench.segments = bench.archived(SERVER);
        bench
    }

    /// Names of the whole segments in a server's archive.
    pub(crate) fn archived(&self, server: &str) -> Vec<String> {
        let wals = self.lab.barman().server_dir(server).join("wals");
        let mut names = Vec::new();
        for dir in fs::read_dir(wals)
            .unwrap()
            .flatten()
            .filter(|e| e.path().is_dir())
        {
            let files = fs::read_dir(dir.path()).unwrap().flatten();
            names.extend(
                files
                    .filter_map(|e| e.file_name().into_string().ok())
                    .filter(|n| n.len() == 24),
            );
        }
        names.sort();
        names
    }

    /// Where a file of the archive is stored.
    pub(crate) fn stored(&self, server: &str, name: &str) -> PathBuf {
        self.lab
            .barman()
            .server_dir(server)
            .join("wals")
            .join(&name[..16])
            .join(name)
    }

    /// A new data directory of the primary's cluster.
    pub(crate) fn node(&self, name: &str) -> Node {
        let scratch = self.lab.scratch();
        let dir = scratch.dir(format!("nodes/{name}")).unwrap();
        for sub in ["global", "pg_wal"] {
            scratch.dir(dir.join(sub)).unwrap();
        }
        let control = self.lab.primary().data_dir().join("global/pg_control");
        let mut copy = scratch.command("cp");
        check(copy.arg(control).arg(dir.join("global/pg_control")), LIMIT).unwrap();
        Node { dir }
    }

    /// The program with the options every call needs here.
    pub(crate) fn command(&self, node: &Node, options: &[&str]) -> Command {
        let mut command = self.lab.scratch().command(&self.program);
        command
            .current_dir(&node.dir)
            .arg("-c")
            .arg(self.lab.barman().config_file());
        let barman = self.lab.barman().command_name();
        command.arg("--barman-command").arg(barman).args(options);
        command
    }

    /// `restore_command` for one file of server `main` on `barmansrv`.
    pub(crate) fn call(&self, node: &Node, options: &[&str], name: &str) -> Finished {
        self.call_of(node, options, "barmansrv", SERVER, name)
    }

    pub(crate) fn call_of(
        &self,
        node: &Node,
        options: &[&str],
        host: &str,
        server: &str,
        name: &str,
    ) -> Finished {
        let _ = fs::remove_file(node.destination());
        let mut command = self.command(node, options);
        command.args([host, server, name, "pg_wal/RECOVERYXLOG"]);
        let finished = run(&mut command, LIMIT).unwrap();
        assert_eq!(
            finished.status.success(),
            node.destination().exists(),
            "{finished:?}"
        );
        node.assert_clean();
        finished
    }

    /// Calls and compares with what PostgreSQL archived.
    #[track_caller]
    pub(crate) fn delivers(&self, node: &Node, options: &[&str], name: &str) {
        let finished = self.call(node, options, name);
        assert!(finished.status.success(), "{name}: {finished:?}");
        self.assert_delivered(node, name);
    }

    #[track_caller]
    pub(crate) fn assert_delivered(&self, node: &Node, name: &str) {
        let delivered = fs::read(node.destination()).unwrap();
        assert!(
            delivered == fs::read(self.stored(SERVER, name)).unwrap(),
            "{name}"
        );
    }
}

impl Node {
    pub(crate) fn destination(&self) -> PathBuf {
        self.dir.join("pg_wal/RECOVERYXLOG")
    }

    /// Nothing half-made is left.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        for entry in fs::read_dir(self.dir.join("pg_wal")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            assert!(!name.starts_with('.'), "{name} is left behind");
        }
    }

    /// The background process that works for this directory.
    pub(crate) fn prefetchers(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let behind = String::from_utf8_lossy(&line).contains("--behind=");
            if behind && fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| same(&cwd, &self.dir)) {
                found.push(pid);
            }
        }
        found
    }

    /// Segments in its spool.
    pub(crate) fn ready(&self) -> Vec<String> {
        let mut names = Vec::new();
        for spool in fs::read_dir(self.dir.join("pg_wal/repmgr_spool"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let files = fs::read_dir(spool.path()).into_iter().flatten().flatten();
            names.extend(
                files
                    .filter_map(|e| e.file_name().into_string().ok())
                    .filter(|n| n.len() == 24),
            );
        }
        names.sort();
        names
    }
}

fn same(cwd: &Path, dir: &Path) -> bool {
    // The kernel adds " (deleted)" to a directory that is gone.
    cwd.to_string_lossy().starts_with(&*dir.to_string_lossy())
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// One lab for all tests that only read from it.
pub(crate) fn shared() -> &'static Bench {
    static SHARED: LazyLock<Bench> = LazyLock::new(|| Bench::new(BarmanVersion::V3_4, 6));
    &SHARED
}
