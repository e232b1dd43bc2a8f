//! In an asynchronous program: planned in one task, approved, executed in another, with progress in a channel, and
//! cancelled by Ctrl-C.
//!
//!     cargo run -p repmgr-clone --example with_tokio -- BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY "PRIMARY_CONNINFO"
//!
//! A clone blocks its thread: it belongs into `spawn_blocking`.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::sync::Arc;

use repmgr_clone::{
    BarmanSource, CancelToken, CloneRequest, Conninfo, Context, Environment, Event, Observer, PreparedClone,
    Progress, ServerAddress, SshHost, SshOptions, prepare,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;

/// What the tasks hear from the clone.
enum Word {
    Text(String),
    Percent(u64),
}

#[derive(Clone)]
struct Channel(UnboundedSender<Word>);

impl Observer for Channel {
    fn event(&self, event: Event) {
        if let Some(message) = event.message() {
            // Nobody may be listening any more; the clone does not mind.
            let _ = self.0.send(Word::Text(message.text));
        }
    }

    fn progress(&self, progress: &Progress) {
        if let Some(percent) = (100 * progress.bytes_done).checked_div(progress.bytes_total) {
            let _ = self.0.send(Word::Percent(percent));
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, server, data_directory, conninfo] = arguments.as_slice() else {
        return Err("usage: BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY CONNINFO".into());
    };
    let cancel = CancelToken::new();
    // Shared with the host, so that its waits end too.
    let ssh = SshOptions {
        cancel: cancel.clone(),
        ..SshOptions::default()
    };
    let barman = BarmanSource::new(Arc::new(SshHost::new(host, ssh)?), ServerAddress::new(server));
    let request = CloneRequest::new(data_directory, barman, Conninfo::parse(conninfo)?);

    let (words, heard) = unbounded_channel();
    let told = tokio::spawn(tell(heard));
    let on_interrupt = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_interrupt.cancel();
        }
    });

    let (observer, token) = (Channel(words.clone()), cancel.clone());
    let prepared =
        spawn_blocking(move || in_context(&observer, &token, |context| prepare(&request, context))).await??;
    println!("{}", prepared.plan());
    // Here a person, or another program, may think about it: the directory is taken, the backup held.
    let done = spawn_blocking(move || execute(prepared, &Channel(words), &cancel)).await?;
    told.await?;
    println!("\"{}\" can be started", done?.display());
    Ok(())
}

fn execute(
    prepared: PreparedClone,
    observer: &Channel,
    cancel: &CancelToken,
) -> Result<std::path::PathBuf, repmgr_clone::CloneError> {
    in_context(observer, cancel, |context| {
        Ok(prepared.execute(context)?.data_directory)
    })
}

fn in_context<T>(observer: &Channel, cancel: &CancelToken, work: impl FnOnce(&Context<'_>) -> T) -> T {
    work(&Context {
        observer,
        cancel,
        environment: &Environment::from_process(),
    })
}

async fn tell(mut heard: UnboundedReceiver<Word>) {
    let mut last = None;
    while let Some(word) = heard.recv().await {
        match word {
            Word::Text(text) => println!("{text}"),
            Word::Percent(percent) if last != Some(percent) => {
                println!("{percent} %");
                last = Some(percent);
            }
            Word::Percent(_) => {}
        }
    }
}
