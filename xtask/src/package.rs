//! `cargo xtask package`: every crate that may be published can be, and builds from its package alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::prepare::{Steps, cargo};

/// What a package must hold beside its sources.
const FILES: [&str; 3] = ["Cargo.toml", "README.md", "LICENSE"];
/// What crates.io and docs.rs show, or want to know.
const FIELDS: [&str; 7] = [
    "description",
    "license",
    "repository",
    "readme",
    "rust_version",
    "keywords",
    "categories",
];

pub(crate) fn run() -> Result<()> {
    let steps = Steps::new();
    let members = members()?;
    let (published, kept): (Vec<_>, Vec<_>) = members.iter().partition(|member| is_published(member));
    steps.begin(&format!("{} crates: metadata, README, licence", published.len()));
    let mut complaints = Vec::new();
    for member in &published {
        complaints.extend(lacking(member));
        let files = said(&["package", "--list", "--allow-dirty", "--package", name(member)])?;
        let missing = FILES
            .iter()
            .filter(|file| files.lines().all(|line| line != **file));
        complaints.extend(missing.map(|file| format!("{}: no {file} in the package", name(member))));
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    steps.begin("cargo package: each is built from its package");
    forget(&published)?;
    // What is judged is the tree as it is, committed or not.
    let mut package = cargo();
    package.args(["package", "--workspace", "--allow-dirty", "--quiet"]);
    for member in kept {
        package.args(["--exclude", name(member)]);
    }
    let status = package.status().context("could not start cargo")?;
    ensure!(status.success(), "cargo package ended with {status}");
    steps.begin("All can be published");
    Ok(())
}

/// Removes what cargo keeps of a run before, built and unpacked: under the same version it would take that for the
/// crates as they are now.
fn forget(packages: &[&Value]) -> Result<()> {
    let mut arguments = vec!["clean", "--quiet"];
    arguments.extend(packages.iter().flat_map(|package| ["--package", name(package)]));
    said(&arguments)?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let Some(home) = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))) else {
        return Ok(());
    };
    for kept in ["registry/src", "registry/cache"] {
        for registry in std::fs::read_dir(home.join(kept)).into_iter().flatten().flatten() {
            for package in packages {
                let version = package["version"].as_str().unwrap_or_default();
                let unpacked = registry.path().join(format!("{}-{version}", name(package)));
                let packed = PathBuf::from(format!("{}.crate", unpacked.display()));
                if unpacked.is_dir() {
                    std::fs::remove_dir_all(&unpacked)
                        .with_context(|| format!("cannot remove \"{}\"", unpacked.display()))?;
                }
                if packed.is_file() {
                    std::fs::remove_file(&packed)
                        .with_context(|| format!("cannot remove \"{}\"", packed.display()))?;
                }
            }
        }
    }
    Ok(())
}

/// The packages of this workspace, as cargo describes them.
pub(crate) fn members() -> Result<Vec<Value>> {
    let text = said(&["metadata", "--no-deps", "--format-version", "1"])?;
    let mut metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        _ => bail!("cargo metadata has no list of packages"),
    }
}

/// Whether it may go to a registry; `publish = false` is an empty list.
pub(crate) fn is_published(package: &Value) -> bool {
    package["publish"].as_array().is_none_or(|list| !list.is_empty())
}

pub(crate) fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap_or_default()
}

/// The directory of a package.
pub(crate) fn dir(package: &Value) -> PathBuf {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    manifest.parent().unwrap_or(manifest).to_owned()
}

fn lacking(package: &Value) -> Vec<String> {
    let empty = |field: &str| match &package[field] {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    let mut found: Vec<String> = FIELDS
        .iter()
        .filter(|field| empty(field))
        .map(|field| format!("{}: no {field} in Cargo.toml", name(package)))
        .collect();
    let library = dir(package).join("src/lib.rs");
    if library.exists() && !has_example(package) {
        found.push(format!(
            "{}: no example in its documentation, README or examples/",
            name(package)
        ));
    }
    found
}

/// A doc example of the crate itself, one in its README, or a whole program.
fn has_example(package: &Value) -> bool {
    let dir = dir(package);
    let fenced = |file: &str, fence: &str| {
        std::fs::read_to_string(dir.join(file))
            .is_ok_and(|text| text.lines().any(|line| line.starts_with(fence)))
    };
    fenced("src/lib.rs", "//! ```") || fenced("README.md", "```") || dir.join("examples").is_dir()
}

/// What cargo says on standard output.
pub(crate) fn said(arguments: &[&str]) -> Result<String> {
    let output = cargo()
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("could not start cargo")?;
    ensure!(
        output.status.success(),
        "cargo {} ended with {}",
        arguments.join(" "),
        output.status
    );
    String::from_utf8(output.stdout).context("cargo's output is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn publish_false_is_an_empty_list() {
        assert!(!is_published(&json!({ "publish": [] })));
        assert!(
            is_published(&json!({ "publish": ["crates-io"] })) && is_published(&json!({ "publish": null }))
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let found = lacking(&json!({ "name": "x", "description": "", "license": "MIT", "keywords": [] }));
        assert!(
            found.contains(&"x: no description in Cargo.toml".to_owned()),
            "{found:?}"
        );
        assert!(!found.iter().any(|line| line.contains("license")), "{found:?}");
    }
}
