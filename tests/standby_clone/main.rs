//! `repmgr standby clone`, the whole program, against real PostgreSQL, sshd and Barman.
//!
//! A number in brackets, as in "(defect 13)", is that of a defect of the original repmgr that the test
//! shows to be beaten; the README lists them.

mod archives;
mod barman_faults;
mod conf_only;
mod config;
mod debian;
mod delta;
mod directory;
mod disk;
mod dry_run;
mod full_dry_run;
mod future;
mod handover;
mod incremental;
mod interruptions;
mod main_job;
mod options;
mod original;
mod output;
mod replication_config;
mod rsync_backups;
mod source_faults;
mod ssh;
mod start;
mod tablespaces;
mod terminal;
mod this_host;
mod unreachable;

use std::sync::OnceLock;

use repmgr_lab::{Lab, PrimaryOptions, Tablespace};

/// The lab most tests share: each has a node of its own and changes neither the primary nor the backup.
///
/// PostgreSQL 15, Barman 3.4, rsync; tablespaces with and without content and with a name full of traps;
/// settings in postgresql.auto.conf that a standby must keep, and some that it must lose.
fn shared() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let options = PrimaryOptions {
            checksums: true,
            sql: [
                r"alter system set log_line_prefix = 'it''s \ %m '",
                "alter system set search_path = \"$user\", public, \"o'clock\"",
                "alter system set primary_slot_name = 'slot_of_the_primary'",
                "alter system set recovery_target_name = 'a_point_long_gone'",
                "alter system set primary_conninfo = 'host=stale.invalid password=stale_secret'",
                "alter system set restore_command = 'false # stale'",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..PrimaryOptions::default()
        };
        let lab = Lab::builder()
            .primary(options)
            .tablespaces([
                Tablespace::from("fast"),
                Tablespace::empty("void"),
                Tablespace::from("it's a \"strange\" näme"),
            ])
            .build()
            .unwrap();
        add_hosts(&lab);
        lab
    })
}

/// Hosts that refuse, each in its own way.
fn add_hosts(lab: &Lab) {
    let ssh = lab.sshd();
    let write = |name: &str, text: &str, mode| lab.scratch().write(name, text, mode).unwrap();
    // Nobody has listened on port 1 for decades.
    ssh.add_host("closed", &[("Port", "1")]).unwrap();
    let public = std::fs::read_to_string(lab.scratch().join("ssh/id_ed25519.pub")).unwrap();
    let wrong = write(
        "ssh/wrong_known_hosts",
        &format!("[127.0.0.1]:{} {public}", ssh.port()),
        0o600,
    );
    ssh.add_host("changed", &[("UserKnownHostsFile", &wrong.display().to_string())])
        .unwrap();
    let host_key = std::fs::read_to_string(lab.scratch().join("ssh/host_ed25519")).unwrap();
    let key = write("ssh/not_authorized", &host_key, 0o600);
    ssh.add_host("stranger", &[("IdentityFile", &key.display().to_string())])
        .unwrap();
}
