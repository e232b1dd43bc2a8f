//! A standby out of a Barman backup, made by another program than `repmgr`:
//!
//!     cargo run -p repmgr-clone --example rebuild_standby -- \
//!         BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY NODE_ID NODE_NAME "PRIMARY_CONNINFO"
//!
//! This is all an HA tool has to do: fill in a request, listen, and decide what a failure means.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use repmgr_clone::{
    BarmanSource, CloneError, CloneRequest, Context, Environment, ErrorKind, Event, NodeIdentity, Observer,
    Progress, ReplicationOptions, ServerAddress, Source, TransferOptions, UpstreamChoice, prepare,
};
use repmgr_remote::{SshHost, SshOptions};
use repmgr_types::{CancelToken, Conninfo};

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
    let [host, server, data_directory, node_id, node_name, conninfo] = arguments.as_slice() else {
        return Err("usage: BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY NODE_ID NODE_NAME CONNINFO".into());
    };
    // Whoever wants to stop the clone calls `cancel.cancel()`; here nobody does.
    let cancel = CancelToken::new();
    let ssh = SshOptions {
        cancel: cancel.clone(),
        ..SshOptions::default()
    };
    let request = CloneRequest {
        node: NodeIdentity {
            id: node_id.parse()?,
            name: node_name.clone(),
        },
        data_directory: PathBuf::from(data_directory),
        source: Source::Barman(BarmanSource {
            host: Arc::new(SshHost::new(host, ssh)?),
            address: ServerAddress::new(server),
            backup: "latest".to_owned(),
            transfer: TransferOptions::default(),
        }),
        connection: Conninfo::parse(conninfo)?,
        upstream: UpstreamChoice::default(),
        replication: ReplicationOptions {
            restore_command: Some(format!("repmgr-wal-restore {host} {server} %f %p")),
            ..ReplicationOptions::default()
        },
        tablespace_mapping: Vec::new(),
        wal_directory: None,
        force: false,
        delta: None,
        start_command: None,
        bin_dir: None,
        external_files: None,
        notification: None,
    };
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
    format!(
        "{error}\n{detail}\n{}\n({advice})",
        error.hint().unwrap_or_default()
    )
}
