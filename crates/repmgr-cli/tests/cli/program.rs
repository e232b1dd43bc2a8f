//! Runs the program as a user who is not root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use assert_cmd::assert::Assert;
use tempfile::TempDir;

/// `nobody`, whom we become when the tests run as root.
const NOBODY: u32 = 65_534;

/// A directory for one test, which is the working directory of its commands.
pub(crate) struct Bench(TempDir);

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        give(directory.path(), 0o755);
        Self(directory)
    }

    /// With this `repmgr.conf`.
    pub(crate) fn with_conf(text: &str) -> Self {
        let bench = Self::new();
        bench.write("repmgr.conf", text);
        bench
    }

    /// With an ordinary `repmgr.conf` of six lines, whose Barman host does not exist, and `more`.
    pub(crate) fn ordinary(more: &str) -> Self {
        let bench = Self::new();
        let data = bench.path("data");
        let text = format!(
            "node_id=2\nnode_name='node2'\nconninfo='host=node2.invalid user=repmgr dbname=repmgr'\n\
             data_directory='{}'\nbarman_host='barman.invalid'\nbarman_server='main'\n{more}",
            data.display()
        );
        bench.write("repmgr.conf", &text);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        give(&path, 0o644);
    }

    pub(crate) fn executable(&self, name: &str) {
        give(&self.path(name), 0o755);
    }

    /// `repmgr` with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.0.path()).env_clear();
        // What this machine has installed must not answer for us.
        command.env("REPMGR_ORIGINAL", "none");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs `repmgr` with these arguments to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Assert {
        assert_cmd::Command::from_std(self.command(arguments)).assert()
    }

    /// Runs `repmgr` and gives what it wrote to standard error; nothing goes to standard output.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let assert = self.run(arguments).code(1).stdout("");
        String::from_utf8(assert.get_output().stderr.clone()).unwrap()
    }
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// The program, where `nobody` can run it.
pub(crate) fn program() -> &'static Path {
    static COPY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = COPY.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        give(directory.path(), 0o755);
        let path = directory.path().join("repmgr");
        // By another process: see repmgr_lab::write_program.
        let mut copy = repmgr_lab::tool("cp");
        copy.arg(env!("CARGO_BIN_EXE_repmgr")).arg(&path);
        assert!(copy.status().unwrap().success());
        give(&path, 0o755);
        (directory, path)
    });
    path
}

fn give(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}
