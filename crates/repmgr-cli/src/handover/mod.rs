//! What is not ours: every command but `standby clone` is done by the original repmgr.
//!
//! This process becomes the original (exec), with the same arguments, environment, working directory and
//! streams; its exit code and the signals it takes are its own. What would run if this program were not there
//! is what is looked for, and never another copy of this program: two copies that find each other
//! would hand over for ever.

mod original;
mod scan;

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::words::{self, Asked};
use original::{Lookup, Original};
use scan::Scan;

/// How often commands were handed over on the way here, where a script stands between that we cannot look through.
const COUNT: &str = "REPMGR_HANDED_OVER";
/// More than scripts that call repmgr, called by repmgr, are ever deep.
const MOST: u32 = 8;

/// Becomes the original if the command line is not ours.
///
/// # Errors
/// The original should do it, and is not there or cannot be started.
pub(crate) fn unless_ours(arguments: &[OsString]) -> Result<(), Failure> {
    let scan = Scan::of(arguments.get(1..).unwrap_or_default());
    let asked = words::asked(&scan.words);
    let is_ours = match &asked {
        Asked::Clone | Asked::Similar => true,
        Asked::Nothing => scan.is_ours,
        Asked::Incomplete | Asked::Elsewhere(_) | Asked::Unknown => false,
    };
    if is_ours {
        return Ok(());
    }
    let lookup = Lookup::new(&scan)?;
    match (lookup.find()?, asked) {
        (Some(original), _) => Err(become_it(&original, arguments)),
        (None, Asked::Elsewhere(command)) => Err(lookup.missing(&command)),
        // Our own help, version or error.
        (None, _) => Ok(()),
    }
}

/// Returns only if it cannot be done.
fn become_it(original: &Original, arguments: &[OsString]) -> Failure {
    let mut command = Command::new(&original.path);
    command.args(arguments.iter().skip(1));
    // A program that is not ours cannot lead back to us; what a script does nobody knows.
    if original.is_script {
        let count = handed_over();
        if count >= MOST {
            return in_a_circle(&original.path);
        }
        command.env(COUNT, (count + 1).to_string());
    }
    let error = command.exec();
    Failure::Refused {
        text: format!(
            "the original repmgr \"{}\" cannot be started",
            original.path.display()
        ),
        detail: Some(error.to_string()),
        hint: Some(
            format!(
                "check the file, or name another in the environment variable {}",
                original::SETTING
            )
            .into(),
        ),
    }
}

fn handed_over() -> u32 {
    let count = env::var(COUNT).ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn in_a_circle(path: &Path) -> Failure {
    Failure::refused(
        format!(
            "\"{}\" was to be the original repmgr, and leads back to this program",
            path.display()
        ),
        format!(
            "name the program itself in the environment variable {}",
            original::SETTING
        ),
    )
}
