//! The backups of a Barman server as JSON, the newest first:
//!
//!     cargo run -p repmgr-barman --example list_backups -- BARMAN_HOST BARMAN_SERVER
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;

use repmgr_barman::{Barman, ServerAddress};
use repmgr_remote::{SshHost, SshOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, server] = arguments.as_slice() else {
        return Err("usage: BARMAN_HOST BARMAN_SERVER".into());
    };
    let host = SshHost::new(host, SshOptions::default())?;
    let mut barman = Barman::connect(&host, ServerAddress::new(server))?;
    println!("{}", serde_json::to_string_pretty(&barman.backups()?)?);
    Ok(())
}
