//! One WAL file out of a Barman server's archive, checked and whole:
//!
//!     cargo run -p repmgr-wal --example one_segment -- BARMAN_HOST BARMAN_SERVER 000000010000000000000042 /tmp/segment

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use repmgr_barman::ServerAddress;
use repmgr_remote::{SshHost, SshOptions};
use repmgr_wal::{Archive, ArchiveOptions, Transport, restore};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, server, name, destination] = arguments.as_slice() else {
        return Err("usage: BARMAN_HOST BARMAN_SERVER WAL_FILE DESTINATION".into());
    };
    let open = || {
        let options = ArchiveOptions {
            address: ServerAddress::new(server),
            plain_host: None,
            // Of whatever cluster: a standby would give its own.
            system_id: None,
            partial: false,
            transport: Transport::Fast,
            local_wal: None,
        };
        Archive::new(Arc::new(SshHost::new(host, SshOptions::default())?), options)
    };
    restore(name.parse()?, Path::new(destination), None, false, open)?;
    Ok(())
}
