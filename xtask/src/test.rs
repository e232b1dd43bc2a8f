//! `cargo xtask test`: everything, real servers included.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use repmgr_lab::{BarmanInstall, BarmanVersion, PgInstall, calm, packages};

use crate::prepare::{self, Steps};

/// Whether the arguments choose packages themselves.
fn names_package(arguments: &[String]) -> bool {
    let own = arguments.iter().take_while(|argument| *argument != "--");
    own.into_iter()
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

/// Two tests for each processor: most of their time they wait, for servers, disks and timers.
fn threads() -> Option<(&'static str, String)> {
    const VARIABLE: &str = "RUST_TEST_THREADS";
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::env::var_os(VARIABLE)
        .is_none()
        .then(|| (VARIABLE, (2 * processors).to_string()))
}

/// The majors the tests run on.
const MAJORS: [u32; 5] = [10, 11, 15, 17, 18];

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let steps = Steps::new();
    prepare::install(
        &steps,
        &[packages::BUILD, packages::LAB, packages::TESTS, packages::PATRONI],
    )?;
    steps.begin("PostgreSQL 10, 11, 15, 17, 18 and Barman 2.19, 3.4, 3.19 (fetched once)");
    for major in MAJORS {
        println!(
            "PostgreSQL {major}: {}",
            PgInstall::get(major)?.bin_dir().display()
        );
    }
    for version in BarmanVersion::ALL {
        println!(
            "Barman {}: {}",
            version.number(),
            BarmanInstall::get(version)?.program().display()
        );
    }
    // The whole-program tests start it; cargo builds no binary for another package's tests.
    prepare::build(&steps)?;
    steps.begin("cargo test --workspace");
    let everything = (!names_package(arguments)).then_some("--workspace");
    let mut cargo = prepare::cargo();
    let program = PathBuf::from(cargo.get_program());
    calm(&mut cargo, program.parent().unwrap_or(Path::new("")));
    cargo
        .arg("test")
        .args(everything)
        .arg("--no-fail-fast")
        .args(arguments)
        .envs(threads())
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("could not start cargo")?;
    let mut total = Total::default();
    for line in BufReader::new(child.stdout.take().context("piped above")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        total.add(&line);
    }
    let status = child.wait()?;
    steps.begin(&format!(
        "{} passed, {} failed, {} ignored",
        total.passed, total.failed, total.ignored
    ));
    ensure!(status.success(), "cargo test ended with {status}");
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Total {
    /// Adds the numbers of a line `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_before_the_double_dash_only() {
        let named = |line: &str| names_package(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(named("-p repmgr-types") && named("--package=x -- y") && named("--lib -px"));
        assert!(!named("--lib") && !named("name -- -p"));
    }

    #[test]
    fn results_are_summed_and_other_lines_are_not() {
        let mut total = Total::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.0s",
            "test passes_things ... ok",
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s",
        ] {
            total.add(line);
        }
        assert_eq!(
            total,
            Total {
                passed: 5,
                failed: 4,
                ignored: 1
            }
        );
    }
}
