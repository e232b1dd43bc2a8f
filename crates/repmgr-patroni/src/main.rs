//! `repmgr-patroni`: what Patroni calls to make a replica, or a new cluster, of a backup in Barman's catalogue.
//!
//! [`keys`] reads what Patroni hands over, [`request`] makes of it what `repmgr-clone` is asked for, [`patience`]
//! asks again as long as that is sensible, and [`tell`] is for Patroni's log. All else is the library's work;
//! nothing here knows repmgr's configuration or metadata.

mod keys;
mod patience;
mod request;
mod restore_command;
mod tell;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use repmgr_clone::CancelToken;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::keys::Keys;
use crate::patience::Ended;
use crate::request::Asked;
use crate::tell::Teller;

const USAGE: &str = include_str!("usage.txt");
/// What is asked for cannot be done, or was not done.
const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
/// Plus the number of the signal, as shells count.
const SIGNAL: u8 = 128;

fn main() -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        env_logger::init();
    }
    let mut words = std::env::args().skip(1);
    let first = words.next();
    let teller = Teller::new();
    ExitCode::from(match first.as_deref() {
        Some("--help" | "-h" | "help") => teller.print(USAGE),
        Some("--version" | "-V") => teller.print(concat!("repmgr-patroni ", env!("CARGO_PKG_VERSION"), "\n")),
        Some(command) => run(command, words.collect(), &teller),
        None => wrong("a command is missing", &teller),
    })
}

fn wrong(why: &str, teller: &Teller) -> u8 {
    teller.error(why, None, Some("repmgr-patroni --help"));
    WRONG_USAGE
}

fn run(command: &str, words: Vec<String>, teller: &Teller) -> u8 {
    let done = Keys::parse(words).and_then(|keys| match command {
        "replica" => make(request::replica, keys, teller),
        "bootstrap" => make(request::bootstrap, keys, teller),
        "restore_command" | "restore-command" => print_restore_command(keys, teller),
        other => Err(format!("there is no command \"{other}\"")),
    });
    done.unwrap_or_else(|why| wrong(&why, teller))
}

fn print_restore_command(mut keys: Keys, teller: &Teller) -> Result<u8, String> {
    let line = restore_command::of(&mut keys)?;
    teller.unknown(&keys);
    Ok(teller.print(&format!("{line}\n")))
}

/// Does what is asked for. Patroni sends SIGTERM and ten seconds later SIGKILL.
fn make(
    ask: fn(&mut Keys, &CancelToken) -> Result<Asked, String>,
    mut keys: Keys,
    teller: &Teller,
) -> Result<u8, String> {
    let (flag, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    for (signal, number) in [(SIGINT, 2), (SIGTERM, 15), (SIGHUP, 1)] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register_usize(signal, Arc::clone(&received), number))
            .map_err(|error| format!("cannot catch signals: {error}"))?;
    }
    let cancel = CancelToken::from_flag(flag);
    let asked = ask(&mut keys, &cancel)?;
    teller.unknown(&keys);
    let Err(ended) = patience::run(&asked, &cancel, teller) else {
        return Ok(0);
    };
    if let Ok(number @ 1..) = u8::try_from(received.load(Ordering::SeqCst)) {
        teller.error("interrupted by a signal", None, None);
        return Ok(SIGNAL + number);
    }
    match ended {
        Ended::Failed(error) => teller.failed(&error),
        Ended::TooLong(limit) => {
            let text = format!("it is not done after {} s", limit.as_secs());
            teller.error(&text, None, Some("time_limit allows more"));
        }
    }
    Ok(FAILED)
}
