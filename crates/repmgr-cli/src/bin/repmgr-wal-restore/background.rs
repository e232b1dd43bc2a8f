//! The process that runs ahead of replay: this program once more, in a session of its own.

use std::env;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use repmgr_types::CancelToken;
use repmgr_wal::{Cluster, PrefetchOptions, PrefetchStart, prefetch};

use crate::arguments::{Arguments, Behind};

/// A standby that has fallen back to the archive calls every few seconds
/// (`wal_retrieve_retry_interval`); one that streams does not call at all.
const IDLE: Duration = Duration::from_secs(60);

/// Starts it behind the segment just delivered, and does not wait for it.
pub(crate) fn start(start: PrefetchStart) -> io::Result<()> {
    let behind = Behind {
        delivered: start.delivered,
        segment_size: start.header.segment_size,
        system_id: start.header.system_id,
    };
    Command::new(env::current_exe()?)
        .arg(format!("--behind={behind}"))
        .args(env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

/// Its work. Always ends with code 0: where PostgreSQL is process 1 of a container it inherits us, and
/// takes any other code for a crash of one of its own.
pub(crate) fn run(arguments: &Arguments, behind: Behind) -> ExitCode {
    // What ends the caller's process group, or its terminal, does not end us.
    if let Err(error) = rustix::process::setsid() {
        log::debug!("no session of our own: {error}");
    }
    let done = catch_unwind(AssertUnwindSafe(|| serve(arguments, behind)));
    log::debug!("the prefetcher ends: {done:?}");
    ExitCode::SUCCESS
}

fn serve(arguments: &Arguments, behind: Behind) -> Result<(), String> {
    let destination = arguments.destination.as_deref().ok_or("no destination")?;
    let cluster = Cluster::of_destination(destination);
    let spool = crate::spool(arguments, &cluster, cluster.system_id());
    // From here on only what belongs to the segment delivered counts, also where nobody knew before.
    let open = |cancel: &CancelToken| crate::archive(arguments, Some(behind.system_id), &cluster, cancel);
    let options = PrefetchOptions {
        delivered: behind.delivered,
        segment_size: behind.segment_size,
        system_id: behind.system_id,
        max_segments: arguments.ahead().unwrap_or(1),
        max_bytes: arguments.spool_size << 20,
        idle: IDLE,
    };
    let end = prefetch(open, spool, &cluster, options, &CancelToken::new()).map_err(|e| e.to_string())?;
    log::debug!("{end:?}");
    Ok(())
}
