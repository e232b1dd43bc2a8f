//! From keys to what `repmgr-clone` is asked for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use repmgr_clone::{
    BarmanSource, CancelToken, CloneRequest, Compression, Conninfo, Delta, Host, LocalHost, Outcome,
    RecoveryTarget, ServerAddress, SshHost, SshOptions, StopAt,
};

use crate::keys::Keys;
use crate::restore_command;

/// The value of `barman_host` that means this host, without SSH. No name of a host ends so.
pub(crate) const THIS_HOST: &str = "local:";
/// How long a clone that gets no further is tried again.
const RETRY_FOR: Duration = Duration::from_secs(600);

/// What is asked for, and how patiently.
pub(crate) struct Asked {
    pub(crate) request: CloneRequest,
    /// For how long a clone that gets no further is tried again.
    pub(crate) retry_for: Duration,
    /// How long all of it may take.
    pub(crate) time_limit: Option<Duration>,
}

/// Where Barman is.
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) server: ServerAddress,
    pub(crate) ssh_options: String,
}

impl Address {
    pub(crate) fn take(keys: &mut Keys) -> Result<Self, String> {
        let host = keys.needed("barman_host")?;
        let mut server = ServerAddress::new(&keys.needed("barman_server")?);
        server.config = keys.text("barman_config");
        if let Some(command) = keys.value("barman_command", "a command")? {
            server.command = command;
        }
        Ok(Self {
            host,
            server,
            ssh_options: keys.text("ssh_options").unwrap_or_default(),
        })
    }

    fn host(&self, cancel: &CancelToken) -> Result<Arc<dyn Host>, String> {
        if self.host == THIS_HOST {
            return Ok(Arc::new(LocalHost::new(cancel.clone())));
        }
        let options = SshOptions {
            ssh_options: self.ssh_options.clone(),
            connect_timeout: Duration::from_secs(10),
            cancel: cancel.clone(),
            ..SshOptions::default()
        };
        let host = SshHost::new(&self.host, options).map_err(|error| format!("\"barman_host\": {error}"))?;
        Ok(Arc::new(host))
    }
}

/// A replica, which Patroni will configure.
pub(crate) fn replica(keys: &mut Keys, cancel: &CancelToken) -> Result<Asked, String> {
    let connection = connection(keys)?;
    let keep_data = keys.switch("keep_data")?.unwrap_or(false);
    let delta = delta(keys)?;
    let mut asked = common(keys, connection, cancel)?;
    let request = &mut asked.request;
    request.upstream.no_connection = request.connection.is_empty();
    request.outcome = Outcome::ManagedStandby;
    request.force = keep_data;
    request.only_same_cluster = true;
    request.delta = delta.filter(|_| keep_data);
    // Known to Patroni alone.
    for known in ["scope", "role", "no_leader", "no_params"] {
        keys.text(known);
    }
    Ok(asked)
}

/// A new cluster.
pub(crate) fn bootstrap(keys: &mut Keys, cancel: &CancelToken) -> Result<Asked, String> {
    let target = target(keys)?;
    let mut asked = common(keys, Conninfo::new(), cancel)?;
    if asked.request.replication.restore_command.is_none() {
        return Err("a new cluster needs a \"restore_command\"".to_owned());
    }
    asked.request.outcome = Outcome::Recovered(target);
    keys.text("scope");
    Ok(asked)
}

fn common(keys: &mut Keys, connection: Conninfo, cancel: &CancelToken) -> Result<Asked, String> {
    let address = Address::take(keys)?;
    let mut barman = BarmanSource::new(address.host(cancel)?, address.server.clone());
    barman.backup = keys.text("backup_id");
    barman.transfer.jobs = keys.value("jobs", "a number above 0")?;
    barman.transfer.compression = compression(keys)?;
    barman.transfer.accept_damage = keys.switch("accept_damage")?.unwrap_or(false);
    barman.transfer.require_manifest = keys.switch("require_manifest")?.unwrap_or(false);
    let mut request = CloneRequest::new(keys.needed("datadir")?, barman, connection);
    let program = keys.text("wal_restore");
    request.replication.restore_command = match keys.text("restore_command") {
        Some(none) if none.eq_ignore_ascii_case("none") => None,
        Some(command) => Some(command),
        None => Some(restore_command::line(&address, program)),
    };
    request.tablespace_mapping = mapping(keys)?;
    request.wal_directory = keys.text("waldir").map(PathBuf::from);
    request.accept_missing_wal = keys.switch("accept_missing_wal")?.unwrap_or(false);
    request.bin_dir = keys.text("bin_dir").map(PathBuf::from);
    let seconds = "a number of seconds";
    Ok(Asked {
        request,
        retry_for: keys
            .value("retry_for", seconds)?
            .map_or(RETRY_FOR, Duration::from_secs),
        time_limit: keys.value("time_limit", seconds)?.map(Duration::from_secs),
    })
}

/// Empty when Patroni knows no leader. The text itself is not shown.
fn connection(keys: &mut Keys) -> Result<Conninfo, String> {
    let text = keys.text("connstring").unwrap_or_default();
    Conninfo::parse(&text).map_err(|error| format!("\"connstring\": {error}"))
}

fn compression(keys: &mut Keys) -> Result<Compression, String> {
    Ok(match keys.text("compress").as_deref() {
        None | Some("auto") => Compression::Auto,
        Some("zstd") => Compression::Zstd,
        Some("lz4") => Compression::Lz4,
        Some("gzip") => Compression::Gzip,
        Some("none") => Compression::None,
        Some(other) => {
            return Err(format!(
                "\"compress\" must be auto, zstd, lz4, gzip or none, and is \"{other}\""
            ));
        }
    })
}

fn delta(keys: &mut Keys) -> Result<Option<Delta>, String> {
    match keys.text("delta").as_deref() {
        None | Some("quick" | "True") => Ok(Some(Delta::Quick)),
        Some("checksum") => Ok(Some(Delta::Checksum)),
        Some("off" | "none" | "False") => Ok(None),
        Some(other) => Err(format!(
            "\"delta\" must be quick, checksum or off, and is \"{other}\""
        )),
    }
}

/// `OLD=NEW,OLD=NEW`; a map has each key only once.
fn mapping(keys: &mut Keys) -> Result<Vec<(PathBuf, PathBuf)>, String> {
    let text = keys.text("tablespace_mapping").unwrap_or_default();
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((old, new)) if old.starts_with('/') && new.starts_with('/') => {
                Ok((PathBuf::from(old), PathBuf::from(new)))
            }
            _ => Err(format!(
                "\"tablespace_mapping\" must be OLD=NEW, absolute, and has \"{pair}\""
            )),
        })
        .collect()
}

/// PostgreSQL's own names.
fn target(keys: &mut Keys) -> Result<RecoveryTarget, String> {
    let mut stops = Vec::new();
    match keys.text("recovery_target").as_deref() {
        None => {}
        Some("immediate") => stops.push(StopAt::Consistency),
        Some(other) => {
            return Err(format!(
                "\"recovery_target\" must be immediate, and is \"{other}\""
            ));
        }
    }
    stops.extend(keys.text("recovery_target_time").map(StopAt::Time));
    stops.extend(keys.text("recovery_target_xid").map(StopAt::Transaction));
    stops.extend(keys.text("recovery_target_lsn").map(StopAt::Position));
    stops.extend(keys.text("recovery_target_name").map(StopAt::RestorePoint));
    if stops.len() > 1 {
        return Err("only one recovery target can be given".to_owned());
    }
    let mut target = stops
        .pop()
        .map_or_else(RecoveryTarget::end_of_archive, RecoveryTarget::at);
    target.inclusive = keys.switch("recovery_target_inclusive")?;
    target.timeline = keys.text("recovery_target_timeline");
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARMAN: [&str; 3] = ["--barman_host=local:", "--barman_server=main", "--datadir=/data"];

    fn keys(more: &[&str]) -> Keys {
        let words = BARMAN.iter().chain(more).map(|word| (*word).to_owned());
        Keys::parse(words).unwrap()
    }

    #[test]
    fn a_call_of_patroni_is_a_request_of_a_replica() {
        let mut keys = keys(&[
            "--scope=batman",
            "--role=replica",
            "--connstring=user=replicator host=127.0.0.1 port=5432",
            "--keep_data=True",
            "--no_leader=1",
            "--tablespace_mapping=/a=/b,/c=/d",
            "--retry_for=30",
            "--colour=red",
        ]);
        let asked = replica(&mut keys, &CancelToken::new()).unwrap();
        let request = asked.request;
        assert_eq!(request.outcome, Outcome::ManagedStandby);
        assert_eq!(request.connection.get("user"), Some("replicator"));
        assert!(request.force && request.only_same_cluster && request.node.is_none());
        assert_eq!(request.delta, Some(Delta::Quick));
        assert_eq!(request.tablespace_mapping.len(), 2);
        assert_eq!(asked.retry_for, Duration::from_secs(30));
        assert_eq!(keys.rest().collect::<Vec<_>>(), ["colour"]);
    }

    #[test]
    fn without_a_leader_and_without_keep_data_nothing_is_asked_and_nothing_replaced() {
        let asked = replica(&mut keys(&["--connstring="]), &CancelToken::new()).unwrap();
        assert!(asked.request.upstream.no_connection && !asked.request.force);
        assert_eq!(asked.request.delta, None);
    }

    #[test]
    fn a_new_cluster_goes_to_one_target_at_most() {
        let time = "--recovery_target_time=2026-11-30 06:00:00+00";
        let asked = bootstrap(&mut keys(&[time]), &CancelToken::new()).unwrap();
        let Outcome::Recovered(target) = asked.request.outcome else {
            panic!("no recovery");
        };
        assert_eq!(
            target.stop,
            Some(StopAt::Time("2026-11-30 06:00:00+00".to_owned()))
        );
        let mut both = keys(&[time, "--recovery_target_xid=7"]);
        assert!(bootstrap(&mut both, &CancelToken::new()).is_err());
        let mut without = keys(&["--restore_command=none"]);
        assert!(bootstrap(&mut without, &CancelToken::new()).is_err());
    }
}
