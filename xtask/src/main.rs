//! Development tasks, run as `cargo xtask …`: the demo, a lab to try things in, all tests.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod bench;
mod demo;
mod dist;
mod lab;
mod package;
mod prepare;
mod test;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Development tasks of repmgr-rs",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure our programs beside others that do the same work
    #[command(subcommand)]
    Bench(bench::Task),
    /// Clone a standby from a real Barman backup, show that it works, and clean up
    Demo {
        #[arg(value_enum)]
        of: Option<Demo>,
    },
    /// Make the .deb, the .rpm and the archive of a release, in target/dist
    Dist,
    /// A primary, sshd and Barman to try things on by hand
    #[command(subcommand)]
    Lab(lab::Task),
    /// Check that every crate can be published: metadata, files, and a build from the package alone
    Package,
    /// Disturb clones at random: kills, failing system calls, a host that lies
    Torture(torture::Options),
    /// Install and fetch what the tests need, then run them all
    Test {
        /// Arguments for `cargo test`, for example `-p repmgr-types` or `-- some_name`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Demo {
    /// A cluster of Patroni's gets a replica from Barman, and has it rebuilt
    Patroni,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Bench(task) => bench::run(&task),
        Task::Demo { of: None } => demo::run(),
        Task::Demo {
            of: Some(Demo::Patroni),
        } => demo::run_patroni(),
        Task::Dist => dist::run(),
        Task::Lab(task) => lab::run(&task),
        Task::Package => package::run(),
        Task::Torture(options) => torture::run(&options),
        Task::Test { arguments } => test::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace: it is a program on this machine that failed, not our code.
            eprintln!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
