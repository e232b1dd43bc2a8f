//! Processes that stand in for PostgreSQL servers in this crate's tests.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A process that sleeps in a directory; ended when dropped.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    /// Called `sleep`, as any program might be.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self::start(Path::new("sleep"), dir)
    }

    /// Called `postgres`.
    pub(crate) fn postgres_in_dir(dir: &Path) -> Self {
        let bin = tempfile::tempdir().unwrap();
        // A link: a program just written may still be open in a child forked elsewhere ("text file busy").
        std::os::unix::fs::symlink("/bin/sleep", bin.path().join("postgres")).unwrap();
        Self::start(&bin.path().join("postgres"), dir)
    }

    fn start(program: &Path, dir: &Path) -> Self {
        let this = Self(Command::new(program).arg("600").current_dir(dir).spawn().unwrap());
        // The kernel lets us go on shortly before it gives the process its new name.
        let name = program.file_name().unwrap().to_str().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(format!("/proc/{}/comm", this.0.id()))
            .unwrap()
            .trim_end()
            != name
        {
            assert!(Instant::now() < deadline, "{name} does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        this
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
