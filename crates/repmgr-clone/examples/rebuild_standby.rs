//! A standby out of a Barman backup, made by another program than `repmgr`:
//!
//!     cargo run -p repmgr-clone --example rebuild_standby -- \
//!         BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY "PRIMARY_CONNINFO"
//!
//! This is all an HA tool has to do: fill in a request, listen, and decide what a failure means.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use repmgr_clone::{
    BarmanSource, CancelToken, CloneError, CloneRequest, Conninfo, Context, Environment, ErrorKind, Event,
    Observer, Progress, ServerAddress, SshHost, SshOptions, prepare,
};

/// Events in words, and the progress in whole percent.
struct Log;

impl Observer for Log {
    fn event(&self, event: Event) {
        if let Some(message) = event.message() {
            println!("{:?}: {}", message.level, message.text);
        }
    }

    fn progress(&self, progress: &Progress) {
        if let Some(percent) = (100 * progress.bytes_done).checked_div(progress.bytes_total) {
            print!("\r{percent} %");
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, server, data_directory, conninfo] = arguments.as_slice() else {
        return Err("usage: BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY CONNINFO".into());
    };
    // Whoever wants to stop the clone calls `cancel.cancel()`; here nobody does.
    let cancel = CancelToken::new();
    let ssh = SshOptions {
        cancel: cancel.clone(),
        ..SshOptions::default()
    };
    let barman = BarmanSource::new(Arc::new(SshHost::new(host, ssh)?), ServerAddress::new(server));
    let mut request = CloneRequest::new(data_directory, barman, Conninfo::parse(conninfo)?);
    request.replication.restore_command = Some(format!("repmgr-wal-restore {host} {server} %f %p"));
    let context = Context {
        observer: &Log,
        cancel: &cancel,
        environment: &Environment::from_process(),
    };
    let prepared = prepare(&request, &context).map_err(explain)?;
    println!("{}", prepared.plan());
    let summary = prepared.execute(&context).map_err(explain)?;
    println!("\"{}\" can be started", summary.data_directory.display());
    Ok(())
}

/// What a program may want to tell apart, and what a person may want to read.
fn explain(error: CloneError) -> String {
    let advice = match error.kind() {
        ErrorKind::Barman => "the backup server needs attention",
        ErrorKind::Connection | ErrorKind::Query => "the primary needs attention",
        ErrorKind::Interrupted => "run it again to continue",
        _ => "nothing was changed that PostgreSQL would start on",
    };
    let detail = error.detail().unwrap_or_default();
    let hint = error.hint().unwrap_or_default();
    format!("{error}\n{detail}\n{hint}\n({advice})")
}
