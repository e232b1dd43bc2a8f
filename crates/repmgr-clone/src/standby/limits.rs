//! The settings that a standby must not have lower than its primary, or it does not start, or stops replaying.

use std::path::{Path, PathBuf};

use repmgr_datadir::Tree;
use repmgr_pgfile::{ControlFile, RecordedSettings, read_beginning};
use repmgr_recovery::set_in_auto_conf;
use repmgr_types::PgVersion;
use repmgr_upstream::{LowLimit, StandbyLimit, StandbyLimits};

use super::configure::{AUTO_CONF, CLUSTER_MODE, CONF, CONF_MAX};
use super::configured::{CommandLine, ConfFiles, Configured, Here, debian_file};
use crate::plan::PlannedLimit;
use crate::source::backup::BackupSource;
use crate::source::external::Fetched;
use crate::{CloneError, Context, Hint, Remark, RemarkCode};

/// What the standby must have: what its nodes have now, and until it has replayed all WAL from its backup on also
/// what the primary had then, which the backup's control file tells.
pub(crate) fn needed(now: Option<StandbyLimits>, control: &[u8]) -> StandbyLimits {
    let now = now.unwrap_or_default();
    match ControlFile::parse(control) {
        Ok(control) => now.highest(recorded(&control.settings)),
        Err(error) => {
            log::debug!("the settings that the backup's primary had are not known: {error}");
            now
        }
    }
}

pub(crate) fn recorded(settings: &RecordedSettings) -> StandbyLimits {
    StandbyLimits {
        max_connections: settings.max_connections,
        max_worker_processes: settings.max_worker_processes,
        max_wal_senders: settings.max_wal_senders.unwrap_or(0),
        max_prepared_transactions: settings.max_prepared_transactions,
        max_locks_per_transaction: settings.max_locks_per_transaction,
    }
}

/// Raises what the standby would read too low, in the file that counts before all others. `main` is its
/// configuration file, if that is outside the data directory.
pub(crate) fn raise(
    tree: &Tree,
    version: PgVersion,
    main: Option<&Path>,
    needed: &StandbyLimits,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let data_dir = tree.path();
    let own = data_dir.join(CONF);
    let main = match main {
        Some(main) => Some(main.to_owned()),
        None if own.exists() => Some(own),
        None => debian_file(data_dir, &version.major_name()),
    };
    let low = match Configured::of(data_dir, main.as_deref(), &mut Here).limits(version) {
        Ok(limits) => needed.too_low_on(&limits),
        Err(error) => {
            let text = "the standby's configuration has a value that PostgreSQL refuses";
            context.tell(Remark::warning(RemarkCode::Configuration, text).detail(error.to_string()));
            return Ok(());
        }
    };
    if low.is_empty() {
        return Ok(());
    }
    let values: Vec<_> = low.iter().map(|low| (low.limit.name(), low.needed)).collect();
    let existing = tree.read(AUTO_CONF, CONF_MAX)?;
    let raised = set_in_auto_conf(existing.as_deref(), &values)?;
    tree.write_durable(AUTO_CONF, &raised, CLUSTER_MODE)?;
    tell(&low, context);
    Ok(())
}

/// What [`raise`] will find, as far as it can be known before the files are here; `external` are those that do not
/// come with the backup.
pub(crate) fn foresee(
    backup: &mut BackupSource,
    data_dir: &Path,
    external: Option<&Fetched>,
    had: Option<StandbyLimits>,
    needed: &StandbyLimits,
    context: &Context<'_>,
) -> Vec<PlannedLimit> {
    let version = backup.wanted.backup.version;
    let own = data_dir.join(CONF);
    let brought = external.and_then(|external| external.brought_outside(CONF));
    let main = match (brought, backup.has_conf()) {
        (Some(path), _) => Some(path.to_owned()),
        (None, _) if external.is_some_and(|external| external.content(data_dir, &own).is_some()) => Some(own),
        // What the primary ran with was in this file, or on its command line: mostly there is no need to look.
        (None, Some(true)) if had.is_some_and(|had| needed.too_low_on(&had).is_empty()) => return Vec::new(),
        (None, Some(true)) => Some(own),
        (None, Some(false)) => debian_file(data_dir, &version.major_name()),
        (None, None) => return Vec::new(),
    };
    let mut files = Coming {
        backup,
        data_dir,
        external,
        context,
    };
    let Ok(limits) = Configured::of(data_dir, main.as_deref(), &mut files).limits(version) else {
        // That is told when it is here.
        return Vec::new();
    };
    let low = needed.too_low_on(&limits).into_iter();
    low.map(|low| PlannedLimit {
        name: low.limit.name(),
        from: low.value,
        to: low.needed,
    })
    .collect()
}

/// What is set on the command line of the server here, as far as it can be known: by the service's command, by
/// Debian's `pg_ctl.conf`, by the last start of the instance that is replaced.
pub(crate) fn command_line(start_command: Option<&str>, data_dir: &Path, version: PgVersion) -> CommandLine {
    let text = |path: PathBuf| {
        let bytes = read_beginning(&path, CONF_MAX).unwrap_or_default();
        CommandLine::parse(&String::from_utf8_lossy(&bytes))
    };
    let debian = debian_file(data_dir, &version.major_name()).map(|file| file.with_file_name("pg_ctl.conf"));
    text(data_dir.join("postmaster.opts"))
        .then(debian.map(text).unwrap_or_default())
        .then(start_command.map(CommandLine::parse).unwrap_or_default())
}

/// Configuration files as they will be when the backup is here.
struct Coming<'a> {
    backup: &'a mut BackupSource,
    data_dir: &'a Path,
    external: Option<&'a Fetched>,
    context: &'a Context<'a>,
}

impl ConfFiles for Coming<'_> {
    fn read(&mut self, path: &Path) -> Vec<u8> {
        let external = self
            .external
            .and_then(|external| external.content(self.data_dir, path));
        if let Some(content) = external {
            return content.to_vec();
        }
        match path.strip_prefix(self.data_dir) {
            Ok(within) => self.backup.conf_file(within, self.context),
            Err(_) => Here.read(path),
        }
    }

    fn expand(&mut self, path: &Path) -> Vec<PathBuf> {
        let mut files = match path.strip_prefix(self.data_dir) {
            Ok(within) => {
                let files = self.backup.conf_files(within);
                files.into_iter().map(|file| self.data_dir.join(file)).collect()
            }
            Err(_) => Here.expand(path),
        };
        if let Some(external) = self.external {
            files.extend(external.conf_files(self.data_dir, path));
            files.sort();
            files.dedup();
        }
        files
    }
}

/// Warns of values on the service's command line that are too low: no file helps against them.
pub(crate) fn check_command_line(line: &CommandLine, needed: &StandbyLimits, context: &Context<'_>) {
    for limit in StandbyLimit::ALL {
        let set = line.get(limit.name()).and_then(|value| value.parse::<u32>().ok());
        let (Some(value), least) = (set, needed.get(limit)) else {
            continue;
        };
        if value < least {
            let name = limit.name();
            let text = format!(
                "the command line of the server here sets {name} = {value}, and the primary has {least}"
            );
            let hint = Hint::from(
                "a standby with a lower value does not start, or pauses; raise it there, or remove it",
            );
            context.tell(Remark::warning(RemarkCode::CommandLine, text).hint(hint));
        }
    }
}

fn tell(low: &[LowLimit], context: &Context<'_>) {
    let all: Vec<String> = low
        .iter()
        .map(|low| format!("{} from {} to {}", low.limit.name(), low.value, low.needed))
        .collect();
    let text = format!("settings were raised in {AUTO_CONF} to what the primary has");
    let hint = "a standby with lower values does not start, or pauses; give no lower ones on the server's command line, \
                which counts before the file";
    let remark = Remark::notice(RemarkCode::LimitsRaised, text);
    context.tell(remark.detail(all.join(", ")).hint(Some(hint.into())));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use repmgr_datadir::Permissions;
    use repmgr_types::CancelToken;

    use super::*;
    use crate::Environment;
    use crate::testing::Heard;

    fn needed(max_connections: u32) -> StandbyLimits {
        StandbyLimits {
            max_connections,
            max_worker_processes: 8,
            ..StandbyLimits::default()
        }
    }

    /// Raises in a directory with these files; what is in postgresql.auto.conf then, and whether it was told.
    fn raised(files: &[(&str, &str)], max_connections: u32) -> (String, bool) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let heard = Heard::default();
        let context = Context {
            observer: &heard,
            cancel: &CancelToken::new(),
            environment: &Environment::empty(),
        };
        let tree = Tree::open(dir.path(), Permissions::default()).unwrap();
        let version = PgVersion::from_num(150_018).unwrap();
        let outside = dir.path().join("outside").join(CONF);
        let copied = outside.exists().then_some(outside.as_path());
        raise(&tree, version, copied, &needed(max_connections), &context).unwrap();
        let text = fs::read_to_string(dir.path().join(AUTO_CONF)).unwrap_or_default();
        (text, !heard.0.into_inner().unwrap().is_empty())
    }

    #[test]
    fn what_is_enough_stays_and_what_is_too_low_is_raised() {
        let conf = ("postgresql.conf", "max_connections = 200\n");
        assert_eq!(raised(&[conf], 200), (String::new(), false));
        let (text, told) = raised(&[conf], 300);
        assert!(text.ends_with("max_connections = '300'\n") && told, "{text}");
        // PostgreSQL's default is 100.
        assert!(!raised(&[("postgresql.conf", "")], 100).1);
        assert!(raised(&[("postgresql.conf", "")], 101).1);
    }

    #[test]
    fn the_last_word_counts_wherever_it_stands() {
        let files = [
            ("postgresql.conf", "max_connections = 50\ninclude_dir 'conf.d'\n"),
            ("conf.d/10.conf", "max_connections = 300\n"),
            ("conf.d/20.conf", "Max_Connections = 150 # less again\n"),
            ("conf.d/.30.conf", "max_connections = 900\n"),
        ];
        assert!(!raised(&files, 150).1);
        assert!(raised(&files, 151).1);
        let (text, told) = raised(
            &[
                files[1],
                (
                    "postgresql.auto.conf",
                    "max_connections = '20'\nwork_mem = '8MB'\n",
                ),
            ],
            90,
        );
        assert!(
            told && text.contains("work_mem = '8MB'") && text.ends_with("max_connections = '90'\n"),
            "{text}"
        );
    }

    #[test]
    fn the_file_that_was_copied_to_its_own_place_counts() {
        let own = ("postgresql.conf", "max_connections = 900\n");
        let copied = ("outside/postgresql.conf", "max_connections = 200\n");
        assert!(!raised(&[own, copied], 200).1);
        assert!(raised(&[own, copied], 201).1);
    }

    #[test]
    fn files_that_include_each_other_end() {
        let circle = (
            "postgresql.conf",
            "max_connections = 200\ninclude 'postgresql.conf'\n",
        );
        assert!(!raised(&[circle], 200).1);
    }
}
