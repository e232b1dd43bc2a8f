//! The configuration of a standby alone, for a program that has its own way to copy data:
//!
//!     cargo run -p repmgr-recovery --example standby_configuration -- DATA_DIRECTORY 150004 "PRIMARY_CONNINFO"
//!
//! The last but one is the server's `server_version_num`. It writes into the directory, and flushes nothing.

use std::error::Error;
use std::fs;
use std::path::Path;

use repmgr_recovery::{Mechanism, PrimaryConninfo, ReplicationSettings};
use repmgr_types::{Conninfo, PgVersion};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, version, conninfo] = arguments.as_slice() else {
        return Err("usage: DATA_DIRECTORY SERVER_VERSION_NUM CONNINFO".into());
    };
    let directory = Path::new(directory);
    let version = PgVersion::from_num(version.parse()?).ok_or("that is no version of PostgreSQL")?;
    let upstream = Conninfo::parse(conninfo)?;
    let settings = ReplicationSettings {
        primary_conninfo: PrimaryConninfo::new(&upstream, "node2").build(version).conninfo,
        ..ReplicationSettings::default()
    };
    let mechanism = Mechanism::for_version(version);
    let file = directory.join(mechanism.file());
    match mechanism {
        Mechanism::RecoveryConf => fs::write(file, settings.render_recovery_conf()?)?,
        Mechanism::StandbySignal => {
            let existing = fs::read(&file).ok();
            fs::write(&file, settings.apply_to_auto_conf(existing.as_deref())?.bytes)?;
            fs::write(directory.join("standby.signal"), Mechanism::signal_content())?;
        }
    }
    Ok(())
}
