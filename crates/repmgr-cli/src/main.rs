//! The `repmgr` program: arguments, the terminal, signals and exit codes around `repmgr-clone`.
//!
//! Two stages lead to a clone: [`args`] and [`values`] hold what was typed, [`request`] joins it
//! with `repmgr.conf`. What happens then is told by the [`observer`]s and ends in a [`failure`]
//! or not. Everything else another program can do with the library crates.

mod app;
mod args;
mod failure;
mod foreign;
mod handover;
mod help;
mod log;
mod observer;
mod prompt;
mod remedies;
mod request;
mod signals;
mod standby_clone;
mod syslog;
mod values;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(app::run(std::env::args_os().collect()))
}
