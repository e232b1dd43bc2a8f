//! What must be there before a task can start.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use repmgr_lab::packages::{self, Package};

/// Prints headings with the time since the start.
pub(crate) struct Steps(Instant);

impl Steps {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn begin(&self, what: &str) {
        println!("\n==> [{:3} s] {what}", self.0.elapsed().as_secs());
    }
}

/// Installs what is missing of these packages.
pub(crate) fn install(steps: &Steps, wanted: &[&[Package]]) -> Result<()> {
    let missing = packages::missing(wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    steps.begin(&format!(
        "Installing packages (no service is started): {}",
        names.join(" ")
    ));
    packages::install(&missing)
}

/// Builds the programs of this workspace; does nothing if another `repmgr` was chosen.
pub(crate) fn build(steps: &Steps) -> Result<()> {
    if let Some(chosen) = env::var_os("REPMGR_LAB_REPMGR") {
        println!("using {} (REPMGR_LAB_REPMGR)", chosen.display());
        return Ok(());
    }
    steps.begin("Building repmgr");
    let status = cargo()
        .args(["build", "--package", "repmgr-cli", "--package", "repmgr-patroni"])
        .status()
        .context("could not start cargo")?;
    ensure!(status.success(), "cargo build ended with {status}");
    Ok(())
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
