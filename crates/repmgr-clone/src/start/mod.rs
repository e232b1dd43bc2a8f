//! From a complete standby to one that streams: the server is started, and followed until then.

pub(crate) mod error;
mod follow;
mod log;
mod replay;
pub(crate) mod service;

use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use repmgr_program::{End, LastBytes, Leftovers, Rules};
use repmgr_types::{CancelToken, Conninfo, Lsn};

pub(crate) use self::follow::in_words;

use self::error::StartError;
use self::follow::Follower;
use self::log::ServerLog;
use self::service::Service;
use crate::nodes::node::Nodes;
use crate::request::Start;
use crate::{CloneError, CloneRequest, Context, StandbyEvent};

/// `pg_ctl` waits for so long, and longer for no server that replays.
const COMMAND_LIMIT: Duration = Duration::from_secs(900);
/// Of what the command says.
const WORDS: usize = 4000;

/// Starts the standby of `request`, and returns once it streams.
///
/// # Errors
/// It does not start, ends, or does not stream in time. The standby is complete all the same.
pub(crate) fn start(
    request: &CloneRequest,
    start: &Start,
    service: &Service,
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<Lsn, CloneError> {
    let (command, own_log) = service.command(&request.data_directory);
    let log = ServerLog::of(&request.data_directory, own_log);
    context.tell(StandbyEvent::Starting {
        command: command.clone(),
    });
    let target = nodes.source().and_then(|node| node.current_lsn().ok());
    let cancel = context.cancel.child();
    let mut follower = Follower::new(
        request.data_directory.clone(),
        ways_in(request),
        start,
        target,
        log,
        context,
    );
    thread::scope(|scope| {
        let (tell, hear) = channel();
        let running = {
            let (cancel, command) = (&cancel, &command);
            let run = move || {
                // Nobody listens any more once the standby streams.
                let _ = tell.send(run(command, cancel));
            };
            thread::Builder::new()
                .name("start".to_owned())
                .spawn_scoped(scope, run)
        };
        let outcome = match running {
            Ok(_) => follower.follow(&hear),
            Err(source) => Err(StartError::Command {
                reason: source.to_string(),
                said: String::new(),
                log: Vec::new(),
            }
            .into()),
        };
        // A command that still waits for what is there now, or for what never comes.
        cancel.cancel();
        outcome
    })
}

/// How the command ended.
struct Ended {
    /// Why that is no success, as a clause.
    trouble: Option<String>,
    said: String,
}

fn run(command: &str, cancel: &CancelToken) -> Ended {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).current_dir("/");
    let rules = Rules {
        limit: Some(COMMAND_LIMIT),
        grace: Duration::from_secs(2),
        // The server is one of them.
        leftovers: Leftovers::Keep,
    };
    let mut said = LastBytes::new(WORDS);
    let end = repmgr_program::run(shell, &rules, cancel, &mut |bytes| said.add(bytes));
    let trouble = match end {
        Ok(End::Exited(status)) if status.success() => None,
        Ok(End::Exited(status)) => Some(format!("it ended with {status}")),
        Ok(End::TimedOut { limit }) => Some(format!("it did not end within {} s", limit.as_secs())),
        Ok(End::Cancelled) => Some("it was stopped".to_owned()),
        Err(error) => Some(format!("{error}: {}", error.source)),
    };
    Ended {
        trouble,
        said: String::from_utf8_lossy(said.as_bytes()).trim().to_owned(),
    }
}

/// How the new server may be connected to: as the other nodes will.
fn ways_in(request: &CloneRequest) -> Option<Conninfo> {
    request.node.as_ref()?.conninfo.clone()
}
