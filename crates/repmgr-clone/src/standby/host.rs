//! What this host must have for the standby once it runs.

use std::fs;
use std::io;
use std::path::Path;

use repmgr_types::PgVersion;
use repmgr_upstream::{Tablespace, check_bin_dir};

use crate::error::{said, with_causes};
use crate::nodes::node::Nodes;
use crate::place::Origin;
use crate::{CloneError, CloneRequest, Context, Hint, Remark, RemarkCode};

/// What a standby is started with.
const SERVER: &str = "postgres";

/// That the programs are there with which it will be started, where it is said where they are.
pub(crate) fn check_programs(request: &CloneRequest, version: PgVersion, context: &Context<'_>) {
    let Some(dir) = &request.bin_dir else { return };
    if let Err(error) = check_bin_dir(dir, &[SERVER], version, context.cancel) {
        let text = format!(
            "the standby cannot be started with the programs in \"{}\"",
            dir.display()
        );
        let remark = Remark::warning(RemarkCode::Programs, text);
        context.tell(remark.detail(with_causes(&error)).hint(said(error.hint())));
    }
}

/// That replay will find a place for the tablespaces that were made since the backup: at the very path that they
/// have on the source, for a mapping is unknown to WAL.
pub(crate) fn check_newer_tablespaces(
    copied: &[Origin],
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let Some(source) = nodes.source() else {
        return Ok(());
    };
    let now = source.tablespaces()?;
    for tablespace in now.iter().filter(|tablespace| is_newer(tablespace, copied)) {
        if let Err(why) = will_take(Path::new(&tablespace.location)) {
            context.tell(warning(tablespace, why));
        }
    }
    Ok(())
}

/// PostgreSQL 10 and later may have tablespaces below the data directory; those are made by replay.
fn is_newer(tablespace: &Tablespace, copied: &[Origin]) -> bool {
    Path::new(&tablespace.location).is_absolute() && !copied.iter().any(|origin| origin.oid == tablespace.oid)
}

/// Whether replay can make a tablespace there; else why not, as a clause.
fn will_take(location: &Path) -> Result<(), String> {
    let mut entries = match fs::read_dir(location) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("that directory does not exist on this host".to_owned());
        }
        Err(error) => return Err(format!("that directory cannot be used on this host: {error}")),
    };
    match entries.next() {
        None => Ok(()),
        // Replay would take what is there for its own.
        Some(_) => Err("that directory is not empty on this host".to_owned()),
    }
}

fn warning(tablespace: &Tablespace, why: String) -> Remark {
    let Tablespace { name, location, .. } = tablespace;
    let text = format!("tablespace \"{name}\" was made after the backup, in \"{location}\"");
    Remark::warning(RemarkCode::NewerTablespace, text)
        .detail(format!("{why}; the standby makes the tablespace there when it replays, or stops"))
        .hint(Hint::from(
            "before you start the standby, make the directory and give it to the user that runs the server; or take a \
             new backup",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(will_take(dir.path()), Ok(()));
        let missing = will_take(&dir.path().join("missing")).unwrap_err();
        assert!(missing.contains("does not exist"), "{missing}");
        fs::write(dir.path().join("PG_VERSION"), "15").unwrap();
        assert!(will_take(dir.path()).unwrap_err().contains("not empty"));
        let file = will_take(&dir.path().join("PG_VERSION")).unwrap_err();
        assert!(file.contains("cannot be used"), "{file}");
    }

    #[test]
    fn a_tablespace_is_known_by_its_oid() {
        let made = |oid, location: &str| Tablespace {
            oid,
            name: "fast".to_owned(),
            location: location.to_owned(),
        };
        let copied = [Origin {
            oid: 16400,
            name: "renamed".to_owned(),
            location: "/elsewhere".into(),
        }];
        assert!(!is_newer(&made(16400, "/fast"), &copied));
        assert!(is_newer(&made(16401, "/elsewhere"), &copied));
        assert!(!is_newer(&made(16402, "pg_tblspc/16402"), &copied));
    }
}
