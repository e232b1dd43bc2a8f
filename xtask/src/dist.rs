//! `cargo xtask dist`: what a release is made of, in `target/dist`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::package::said;
use crate::prepare::{Steps, cargo};

/// What cargo has to be able to do.
const TOOLS: [&str; 2] = ["cargo-deb", "cargo-generate-rpm"];
const PROGRAMS: [&str; 2] = ["repmgr", "repmgr-wal-restore"];

pub(crate) fn run() -> Result<()> {
    let steps = Steps::new();
    let target = target_dir()?;
    let dist = target.join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("cannot remove \"{}\"", dist.display()))?;
    }
    steps.begin("programs");
    do_it(cargo().args(["build", "--release", "--locked", "-p", "repmgr-cli"]))?;
    steps.begin("man page, completions, licences");
    generate(&target.join("release/repmgr"), &dist)?;
    fs::write(dist.join("LICENCES.md"), licences()?)?;
    steps.begin("packages");
    packages(&dist)?;
    archive(&target, &dist)?;
    steps.begin("checksums");
    checksums(&dist)?;
    steps.begin(&format!("All is in {}", dist.display()));
    Ok(())
}

fn target_dir() -> Result<PathBuf> {
    let metadata: Value = serde_json::from_str(&said(&["metadata", "--no-deps", "--format-version", "1"])?)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo names no target directory")?;
    Ok(target.into())
}

/// The program itself knows its options; each file is made by it.
fn generate(program: &Path, dist: &Path) -> Result<()> {
    for (what, path) in [
        ("man", "man/repmgr-standby-clone.1"),
        ("bash", "completions/repmgr-rs.bash"),
        ("zsh", "completions/_repmgr-rs"),
        ("fish", "completions/repmgr-rs.fish"),
    ] {
        let made = Command::new(program).arg(format!("--generate={what}")).output()?;
        ensure!(
            made.status.success(),
            "\"{} --generate={what}\" ended with {}",
            program.display(),
            made.status
        );
        let path = dist.join(path);
        fs::create_dir_all(path.parent().context("below target/dist")?)?;
        fs::write(path, made.stdout)?;
    }
    Ok(())
}

/// The crates that are linked, by licence.
fn licences() -> Result<String> {
    let tree = said(&[
        "tree",
        "-p",
        "repmgr-cli",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "-f",
        "{l}\t{p}",
    ])?;
    let mut crates: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let (licence, package) = line.split_once('\t').unwrap_or(("", line));
        // Behind the version may be a path, and "(*)" for one that was there before.
        let package = package.split(" (").next().unwrap_or(package);
        let list = crates.entry(licence).or_default();
        if !package.is_empty() && !list.contains(&package) {
            list.push(package);
        }
    }
    let mut text = "# Licences of what is linked into the programs\n".to_owned();
    for (licence, packages) in crates.iter().filter(|(_, packages)| !packages.is_empty()) {
        write!(text, "\n## {licence}\n\n{}\n", packages.join(", "))?;
    }
    Ok(text)
}

fn packages(dist: &Path) -> Result<()> {
    for tool in TOOLS {
        let name = tool.trim_start_matches("cargo-");
        let found = cargo().args([name, "--version"]).output()?.status.success();
        ensure!(found, "cargo cannot {name}; run: cargo install --locked {tool}");
    }
    let mut deb = cargo();
    deb.args(["deb", "--no-build", "-p", "repmgr-cli", "-o"])
        .arg(dist);
    do_it(&mut deb)?;
    let mut rpm = cargo();
    rpm.args(["generate-rpm", "-p", "crates/repmgr-cli", "-o"])
        .arg(dist);
    do_it(&mut rpm)
}

fn archive(target: &Path, dist: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-czf"])
        .arg(dist.join("repmgr-rs.tar.gz"));
    tar.arg("-C").arg(target.join("release")).args(PROGRAMS);
    tar.arg("-C")
        .arg(dist)
        .args(["man", "completions", "LICENCES.md"]);
    let docs = Path::new("crates/repmgr-cli").canonicalize()?;
    tar.arg("-C")
        .arg(docs)
        .args(["README.md", "COMPATIBILITY.md", "docs", "dist/repmgr.conf.sample"]);
    do_it(&mut tar)
}

fn checksums(dist: &Path) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(dist)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| dist.join(name).is_file())
        .collect();
    names.sort();
    let sums = Command::new("sha256sum")
        .args(&names)
        .current_dir(dist)
        .output()?;
    ensure!(sums.status.success(), "sha256sum ended with {}", sums.status);
    Ok(fs::write(dist.join("SHA256SUMS"), sums.stdout)?)
}

fn do_it(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
