//! The `restore_command` that fetches WAL from the same Barman, for Patroni's configuration and our checks.

use repmgr_clone::BarmanCommand;
use repmgr_remote::quote;

use crate::keys::Keys;
use crate::request::{Address, THIS_HOST};

const PROGRAM: &str = "repmgr-wal-restore";

/// The sub command: the line for Patroni's configuration.
pub(crate) fn of(keys: &mut Keys) -> Result<String, String> {
    Ok(line(&Address::take(keys)?, keys.text("wal_restore")))
}

/// By `repmgr-wal-restore`: this one, the one beside our own program, or the one on the PATH.
pub(crate) fn line(address: &Address, program: Option<String>) -> String {
    let beside_us = || {
        let program = std::env::current_exe().ok()?.with_file_name(PROGRAM);
        program.is_file().then(|| program.to_str().map(str::to_owned))?
    };
    let program = program.or_else(beside_us).unwrap_or_else(|| PROGRAM.to_owned());
    let mut words = vec![program];
    if let Some(config) = &address.server.config {
        words.extend(["--config".to_owned(), config.clone()]);
    }
    if address.server.command != BarmanCommand::default() {
        words.extend(["--barman-command".to_owned(), address.server.command.to_string()]);
    }
    if address.host == THIS_HOST {
        words.push("--local".to_owned());
    }
    if !address.ssh_options.is_empty() {
        // In one word, for it begins with a dash.
        words.push(format!("--ssh-options={}", address.ssh_options));
    }
    words.extend([
        "--".to_owned(),
        address.host.clone(),
        address.server.server.clone(),
    ]);
    let quoted = words.iter().map(|word| quote(word).replace('%', "%%"));
    quoted.collect::<Vec<_>>().join(" ") + " %f %p"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> String {
        let words = words.iter().map(|word| (*word).to_owned());
        super::of(&mut Keys::parse(words).unwrap()).unwrap()
    }

    #[test]
    fn the_line_leads_to_the_same_barman() {
        let own = "--wal_restore=/usr/bin/repmgr-wal-restore";
        assert_eq!(
            of(&["--barman_host=barmansrv", "--barman_server=main", own]),
            "/usr/bin/repmgr-wal-restore -- barmansrv main %f %p"
        );
        assert_eq!(
            of(&[
                "--barman_host=local:",
                "--barman_server=100%",
                "--barman_config=/etc/my barman.conf",
                "--barman_command=sudo -u barman barman",
                own
            ]),
            "/usr/bin/repmgr-wal-restore --config '/etc/my barman.conf' --barman-command 'sudo -u barman barman' \
             --local -- local: 100%% %f %p"
        );
        assert_eq!(
            of(&[
                "--barman_host=b",
                "--barman_server=m",
                "--ssh_options=-p 2222",
                own
            ]),
            "/usr/bin/repmgr-wal-restore '--ssh-options=-p 2222' -- b m %f %p"
        );
    }
}
