//! The configuration files that make a data directory a standby's.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use repmgr_datadir::{Tree, TreeError};
use repmgr_recovery::{
    ConfKind, DroppedSetting, LocalFiles, LocalizedConf, Mechanism, Reference, ReplicationSettings,
    references,
};
use repmgr_types::PgVersion;

use crate::{CloneError, Context, Hint, Remark, RemarkCode};

pub(crate) const CONF: &str = "postgresql.conf";
pub(super) const AUTO_CONF: &str = "postgresql.auto.conf";
pub(crate) const STANDBY_SIGNAL: &str = "standby.signal";
/// Who may connect, and as whom.
const RULES: [&str; 2] = ["pg_hba.conf", "pg_ident.conf"];
/// No configuration file is larger.
pub(super) const CONF_MAX: u64 = 16 << 20;
/// The mode of files that PostgreSQL itself creates: what the cluster allows.
pub(super) const CLUSTER_MODE: u32 = 0o640;
/// `recovery.conf` may hold a password.
const SECRET_MODE: u32 = 0o600;

/// Makes the copied files those of a standby of this host, and writes the replication settings.
pub(crate) fn configure(
    tree: &Tree,
    version: PgVersion,
    settings: &ReplicationSettings,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    // Another node's, and of no use to anybody here.
    tree.remove("recovery.done")?;
    localize(tree, context)?;
    look_at_rules(tree, context)?;
    let files = StandbyFiles::render(tree, version, settings)?;
    if !files.dropped.is_empty() {
        let names: Vec<&str> = files
            .dropped
            .iter()
            .map(|setting| setting.name.as_str())
            .collect();
        log::debug!("dropped from {AUTO_CONF}: {}", names.join(", "));
    }
    if let Some(command) = &files.inherited_restore_command {
        context.tell(
            Remark::warning(
                RemarkCode::RestoreCommandStays,
                format!("\"restore_command\" is not configured; the one in {AUTO_CONF} of the backup stays"),
            )
            .detail(format!("it is \"{command}\""))
            .hint(Hint::from("check that it works on this host")),
        );
    }
    files.write(tree)?;
    Ok(())
}

/// The files that make PostgreSQL a standby, with their content.
pub(crate) struct StandbyFiles {
    mechanism: Mechanism,
    signal: Option<&'static str>,
    remove: &'static [&'static str],
    /// Of the file with the settings.
    content: Vec<u8>,
    /// Settings that were in it and will not be.
    pub(crate) dropped: Vec<DroppedSetting>,
    /// The `restore_command` that was in it and stays, because no other is configured.
    pub(crate) inherited_restore_command: Option<String>,
}

impl StandbyFiles {
    /// As they will be when `settings` are added to what is in `tree`.
    pub(crate) fn render(
        tree: &Tree,
        version: PgVersion,
        settings: &ReplicationSettings,
    ) -> Result<Self, CloneError> {
        let mechanism = Mechanism::for_version(version);
        let (signal, remove) = (mechanism.signal(settings), mechanism.files_to_remove(settings));
        Ok(match mechanism {
            Mechanism::RecoveryConf => Self {
                mechanism,
                signal,
                remove,
                content: settings.render_recovery_conf()?.into_bytes(),
                dropped: Vec::new(),
                inherited_restore_command: None,
            },
            Mechanism::StandbySignal => {
                let existing = tree.read(AUTO_CONF, CONF_MAX)?;
                let edited = settings.apply_to_auto_conf(existing.as_deref())?;
                Self {
                    mechanism,
                    signal,
                    remove,
                    content: edited.bytes,
                    dropped: edited.dropped,
                    inherited_restore_command: edited.inherited_restore_command,
                }
            }
        })
    }

    /// The name of the file with the settings.
    pub(crate) fn name(&self) -> &'static str {
        self.mechanism.file()
    }

    /// Writes them, in an order in which an interruption makes no primary of a standby, and removes
    /// what would contradict them. The names of what was removed.
    pub(crate) fn write(&self, tree: &Tree) -> Result<Vec<&'static str>, CloneError> {
        let mode = match self.mechanism {
            Mechanism::RecoveryConf => SECRET_MODE,
            Mechanism::StandbySignal => CLUSTER_MODE,
        };
        tree.write_durable(self.mechanism.file(), &self.content, mode)?;
        if let Some(signal) = self.signal {
            tree.write_durable(signal, Mechanism::signal_content(), SECRET_MODE)?;
        }
        let mut removed = Vec::new();
        for file in self.remove {
            if tree.remove(file)? {
                removed.push(*file);
            }
        }
        Ok(removed)
    }
}

/// Takes out of the configuration files what would send the standby to its primary's places.
fn localize(tree: &Tree, context: &Context<'_>) -> Result<(), CloneError> {
    for_each_conf(tree, &mut |rel, localized| {
        report(rel, localized, context);
        if !localized.changes.is_empty() {
            let mode = tree.metadata(rel)?.map_or(CLUSTER_MODE, |meta| meta.mode);
            tree.write_durable(rel, &localized.bytes, mode)?;
        }
        Ok(())
    })
}

/// Warns of files that the rules for clients need and that do not exist here: the server refuses to start without
/// some, and lets nobody in without others.
fn look_at_rules(tree: &Tree, context: &Context<'_>) -> Result<(), CloneError> {
    for rules in RULES {
        let text = tree.read(rules, CONF_MAX)?.unwrap_or_default();
        for reference in references(ConfKind::Rules, &text) {
            let (Reference::Names(name)
            | Reference::Directory(name)
            | Reference::File {
                name,
                optional: false,
            }) = reference
            else {
                continue;
            };
            let path = tree.path().join(name);
            if !path.exists() {
                let text = format!(
                    "{rules} refers to \"{}\", which does not exist on this host",
                    path.display()
                );
                let hint = Hint::from("create it, or change the line, before you start the standby");
                context.tell(Remark::warning(RemarkCode::Configuration, text).hint(hint));
            }
        }
    }
    Ok(())
}

/// Sees to what the instance's own configuration files, which stay as they are, say against
/// `settings`.
pub(crate) fn heed_own_conf(
    tree: &Tree,
    settings: &mut ReplicationSettings,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    for_each_conf(tree, &mut |rel, conf| {
        // This one is edited.
        if rel == Path::new(AUTO_CONF) {
            return Ok(());
        }
        for change in &conf.changes {
            let name = change.name.to_ascii_lowercase();
            if name == "recovery_target_timeline" {
                settings.pin_latest_timeline = true;
            } else if name.starts_with("recovery_target")
                || (name == "primary_slot_name" && settings.primary_slot_name.is_none())
            {
                context.tell(
                    Remark::warning(
                        RemarkCode::Configuration,
                        format!(
                            "\"{}\" is set in {}, line {}: {}",
                            change.name,
                            rel.display(),
                            change.line,
                            change.reason
                        ),
                    )
                    .detail(format!("its value is \"{}\"", change.value))
                    .hint(Hint::from(
                        "remove it there before the configuration takes effect",
                    )),
                );
            }
        }
        Ok(())
    })
}

/// Goes through `postgresql.conf`, `postgresql.auto.conf` and all that they include.
fn for_each_conf(
    tree: &Tree,
    visit: &mut dyn FnMut(&Path, &LocalizedConf) -> Result<(), CloneError>,
) -> Result<(), CloneError> {
    let data_dir = tree.path();
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
        let files = LocalFiles {
            data_dir,
            exists: &|path: &Path| path.exists(),
            recovery: rel != Path::new(AUTO_CONF),
        };
        let localized = files.localize(&path, &text);
        visit(&rel, &localized)?;
        for include in localized.includes {
            queue.extend(conf_files(&include));
        }
    }
    Ok(())
}

/// The file itself, or what PostgreSQL reads of a directory: `*.conf` without a leading dot.
pub(super) fn conf_files(path: &Path) -> Vec<PathBuf> {
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
        context.tell(
            Remark::notice(
                RemarkCode::Configuration,
                format!(
                    "\"{}\" in {file}, line {}, was turned into a comment: {}",
                    change.name, change.line, change.reason
                ),
            )
            .detail(format!("its value was \"{}\"", change.value)),
        );
    }
    for absent in &conf.absent {
        context.tell(
            Remark::warning(
                RemarkCode::Configuration,
                format!(
                    "\"{}\" in {file}, line {}, names \"{}\", which does not exist on this host",
                    absent.name,
                    absent.line,
                    absent.path.display()
                ),
            )
            .hint(Hint::from(
                "create it or change the setting before you start the standby",
            )),
        );
    }
    for broken in &conf.broken {
        context.tell(
            Remark::warning(
                RemarkCode::Configuration,
                format!("{file} has a line that PostgreSQL does not accept"),
            )
            .detail(broken.to_string()),
        );
    }
}

/// Where the tablespaces are, as PostgreSQL finds them.
pub(crate) fn link_tablespace(tree: &Tree, oid: u32, location: &Path) -> Result<(), TreeError> {
    tree.symlink(format!("pg_tblspc/{oid}"), location)
}
