//! The standby's configuration files in the copied data directory.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use repmgr_datadir::{Tree, TreeError};
use repmgr_recovery::{LocalFiles, LocalizedConf, Mechanism, ReplicationSettings};
use repmgr_types::PgVersion;

use crate::{CloneError, Context, Event};

const CONF: &str = "postgresql.conf";
const AUTO_CONF: &str = "postgresql.auto.conf";
/// No configuration file is larger.
const CONF_MAX: u64 = 16 << 20;
/// The mode of files that PostgreSQL itself creates: what the cluster allows.
const CLUSTER_MODE: u32 = 0o640;
/// `recovery.conf` may hold a password.
const SECRET_MODE: u32 = 0o600;

/// Makes the copied files those of a standby of this host, and writes the replication settings.
pub(crate) fn configure(
    tree: &Tree,
    version: PgVersion,
    settings: &ReplicationSettings,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let mechanism = Mechanism::for_version(version);
    for file in mechanism.files_to_remove() {
        tree.remove(file)?;
    }
    localize(tree, context)?;
    match mechanism {
        Mechanism::RecoveryConf => {
            let conf = settings.render_recovery_conf()?;
            tree.write_durable("recovery.conf", conf.as_bytes(), SECRET_MODE)?;
        }
        Mechanism::StandbySignal => {
            write_auto_conf(tree, settings, context)?;
            tree.write_durable("standby.signal", Mechanism::standby_signal(), SECRET_MODE)?;
        }
    }
    Ok(())
}

fn write_auto_conf(
    tree: &Tree,
    settings: &ReplicationSettings,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let existing = tree.read(AUTO_CONF, CONF_MAX)?;
    let edited = settings.apply_to_auto_conf(existing.as_deref())?;
    if !edited.dropped.is_empty() {
        let names: Vec<&str> = edited
            .dropped
            .iter()
            .map(|setting| setting.name.as_str())
            .collect();
        log::debug!("dropped from {AUTO_CONF}: {}", names.join(", "));
    }
    if let Some(command) = edited.inherited_restore_command {
        context.observer.event(Event::Warning {
            text: format!(
                "\"restore_command\" is not configured; the one in {AUTO_CONF} of the backup stays"
            ),
            detail: Some(format!("it is \"{command}\"")),
            hint: Some("check that it works on this host".to_owned()),
        });
    }
    tree.write_durable(AUTO_CONF, &edited.bytes, CLUSTER_MODE)?;
    Ok(())
}

/// Takes out of the configuration files what would send the standby to its primary's places.
fn localize(tree: &Tree, context: &Context<'_>) -> Result<(), CloneError> {
    let data_dir = tree.path();
    let files = LocalFiles {
        data_dir,
        exists: &|path: &Path| path.exists(),
    };
    let mut seen = HashSet::new();
    let mut queue = vec![data_dir.join(CONF), data_dir.join(AUTO_CONF)];
    while let Some(path) = queue.pop() {
        // Files elsewhere belong to whoever put them on this host.
        let Ok(rel) = path.strip_prefix(data_dir).map(Path::to_owned) else {
            continue;
        };
        if !seen.insert(rel.clone()) {
            continue;
        }
        let Some(text) = tree.read(&rel, CONF_MAX)? else {
            continue;
        };
        let localized = files.localize(&path, &text);
        report(&rel, &localized, context);
        if !localized.changes.is_empty() {
            let mode = tree.metadata(&rel)?.map_or(CLUSTER_MODE, |meta| meta.mode);
            tree.write_durable(&rel, &localized.bytes, mode)?;
        }
        for include in localized.includes {
            queue.extend(conf_files(&include));
        }
    }
    Ok(())
}

/// The file itself, or what PostgreSQL reads of a directory: `*.conf` without a leading dot.
fn conf_files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.ends_with(".conf") && !name.starts_with('.'))
        })
        .collect()
}

fn report(file: &Path, conf: &LocalizedConf, context: &Context<'_>) {
    let file = file.display();
    for change in &conf.changes {
        context.observer.event(Event::Notice {
            text: format!(
                "\"{}\" in {file}, line {}, was turned into a comment: {}",
                change.name, change.line, change.reason
            ),
            detail: Some(format!("its value was \"{}\"", change.value)),
            hint: None,
        });
    }
    for absent in &conf.absent {
        context.observer.event(Event::Warning {
            text: format!(
                "\"{}\" in {file}, line {}, names \"{}\", which does not exist on this host",
                absent.name,
                absent.line,
                absent.path.display()
            ),
            detail: None,
            hint: Some("create it or change the setting before you start the standby".to_owned()),
        });
    }
    for broken in &conf.broken {
        context.observer.event(Event::Warning {
            text: format!("{file} has a line that PostgreSQL does not accept"),
            detail: Some(broken.to_string()),
            hint: None,
        });
    }
}

/// Where the tablespaces are, as PostgreSQL finds them.
pub(crate) fn link_tablespace(tree: &Tree, oid: u32, location: &Path) -> Result<(), TreeError> {
    tree.symlink(format!("pg_tblspc/{oid}"), location)
}
