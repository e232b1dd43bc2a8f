//! `cargo api`: whether the library crates still offer what `listings/` says; `cargo api --bless` writes it anew.
//!
//! No registry is asked, and no older version is built: what was agreed lies in the repository, so that a
//! change of the public API is seen in review. It does not see changes of behaviour.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Set for ourselves when cargo calls us as its rustdoc.
const AS_RUSTDOC: &str = "XTASK_API_RUSTDOC";

fn main() -> ExitCode {
    if let Some(rustdoc) = env::var_os(AS_RUSTDOC) {
        // Its JSON is not stable. Set here and not for cargo, which would build every dependency anew.
        let error = Command::new(rustdoc)
            .args(env::args_os().skip(1))
            .env("RUSTC_BOOTSTRAP", "1")
            .exec();
        eprintln!("could not start rustdoc: {error}");
        return ExitCode::FAILURE;
    }
    match run(env::args().any(|argument| argument == "--bless")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!(
                "\nThe public API is not what xtask/api/listings says. A line with \"-\" breaks callers: see \"Versions\" \
                 in crates/ARCHITECTURE.md.\nIf all of it is meant: cargo api --bless, and a line in CHANGELOG.md."
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it was; always so with `bless`.
fn run(bless: bool) -> Result<bool> {
    let listings = Path::new(env!("CARGO_MANIFEST_DIR")).join("listings");
    fs::create_dir_all(&listings)?;
    let crates = libraries()?;
    let mut same = true;
    for name in &crates {
        let json = document(name)?;
        if let Some(format) = other_format(&json)? {
            println!(
                "SKIPPED: this Rust's rustdoc writes JSON of format {format}, not {}",
                rustdoc_types::FORMAT_VERSION
            );
            return Ok(true);
        }
        let path = listings.join(format!("{name}.txt"));
        let now = listing(&json).with_context(|| format!("cannot list {name}"))?;
        if bless {
            fs::write(&path, &now)?;
        } else {
            // A crate that is new has offered nothing before.
            let before = fs::read_to_string(&path).unwrap_or_default();
            same &= tell(name, &before, &now);
        }
    }
    same &= forget_others(&listings, &crates, bless)?;
    if same {
        println!(
            "public API of {} crates: {}",
            crates.len(),
            if bless { "written" } else { "as agreed" }
        );
    }
    Ok(same)
}

/// The published crates that have a library.
fn libraries() -> Result<Vec<String>> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("could not start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata ended with {}",
        output.status
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("no packages in cargo metadata")?;
    let published = |package: &&Value| package["publish"].as_array().is_none_or(|list| !list.is_empty());
    let library = |package: &&Value| {
        let targets = package["targets"].as_array().into_iter().flatten();
        targets
            .flat_map(|target| target["kind"].as_array().into_iter().flatten())
            .any(|kind| kind == "lib")
    };
    let mut names: Vec<String> = packages
        .iter()
        .filter(published)
        .filter(library)
        .filter_map(|package| Some(package["name"].as_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    cargo
}

/// Has rustdoc describe a crate; the file it wrote.
fn document(name: &str) -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let target = env::var_os("CARGO_TARGET_DIR").map_or(target, PathBuf::from);
    let rustdoc = env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into());
    let status = cargo()
        .args(["rustdoc", "--quiet", "--lib", "--package", name])
        .args([
            "--",
            "-Z",
            "unstable-options",
            "--output-format",
            "json",
            "--cap-lints",
            "allow",
        ])
        .env("RUSTDOC", env::current_exe()?)
        .env(AS_RUSTDOC, rustdoc)
        .status()
        .context("could not start cargo")?;
    ensure!(status.success(), "cargo rustdoc of {name} ended with {status}");
    Ok(target
        .join("doc")
        .join(format!("{}.json", name.replace('-', "_"))))
}

/// The format of the JSON, if it is not the one we read.
fn other_format(json: &Path) -> Result<Option<u64>> {
    let text = fs::read_to_string(json).with_context(|| format!("no \"{}\"", json.display()))?;
    let value: Value = serde_json::from_str(&text)?;
    let Some(format) = value["format_version"].as_u64() else {
        bail!("\"{}\" has no format_version", json.display());
    };
    Ok((format != u64::from(rustdoc_types::FORMAT_VERSION)).then_some(format))
}

/// One line for each item; without what every type has.
fn listing(json: &Path) -> Result<String> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}

/// Says what is gone and what is new; whether neither is.
fn tell(name: &str, before: &str, now: &str) -> bool {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (before.lines().collect(), now.lines().collect());
    if old == new {
        return true;
    }
    println!("{name}:");
    for line in old.difference(&new) {
        println!("- {line}");
    }
    for line in new.difference(&old) {
        println!("+ {line}");
    }
    false
}

/// A listing of a crate that is no more is a change too.
fn forget_others(listings: &Path, crates: &[String], bless: bool) -> Result<bool> {
    let mut none = true;
    for entry in fs::read_dir(listings)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if crates.contains(&name) {
            continue;
        }
        if bless {
            fs::remove_file(&path)?;
        } else {
            println!("{name}: the crate is gone");
            none = false;
        }
    }
    Ok(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_a_change_does() {
        assert!(tell("x", "a\nb\n", "b\na\n"));
        assert!(!tell("x", "a\n", "a\nb\n"));
    }
}
