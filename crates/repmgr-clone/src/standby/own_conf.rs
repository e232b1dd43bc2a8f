//! Configuration files for a directory whose backup brought none, as those of servers that have theirs elsewhere.

use std::path::Path;

use repmgr_datadir::Tree;
use repmgr_pgfile::read_beginning;
use repmgr_types::PgVersion;

use super::configure::{CLUSTER_MODE, CONF, CONF_MAX};
use super::configured::debian_file;
use crate::{CloneError, Context, Hint, Remark, RemarkCode};

const HBA: &str = "pg_hba.conf";
/// Nobody from elsewhere, and here only who is who they say.
const LOCAL_ONLY: &str =
    "# created by repmgr: the backup has none\nlocal all all peer\nlocal replication all peer\n";
const DEFAULTS: &str = "# created by repmgr: the backup has none, and all settings are PostgreSQL's own\n";

/// Sees to it that a server finds its files in the directory itself: those of this host's cluster of this
/// directory, or ones that set nothing and let nobody in from elsewhere.
pub(crate) fn supply(tree: &Tree, version: PgVersion, context: &Context<'_>) -> Result<(), CloneError> {
    for (name, plain) in [(CONF, DEFAULTS), (HBA, LOCAL_ONLY)] {
        if tree.metadata(name)?.is_some() {
            continue;
        }
        let here = debian_file(tree.path(), &version.major_name()).map(|conf| conf.with_file_name(name));
        let content = here
            .as_deref()
            .and_then(|path| read_beginning(path, CONF_MAX).ok());
        let from = here.as_deref().filter(|_| content.is_some());
        tree.write_durable(name, content.as_deref().unwrap_or(plain.as_bytes()), CLUSTER_MODE)?;
        context.tell(remark(name, from));
    }
    Ok(())
}

fn remark(name: &str, from: Option<&Path>) -> Remark {
    let code = RemarkCode::ConfigurationMissing;
    match from {
        Some(path) => {
            let text = format!("the backup has no {name}; that of this host was taken");
            Remark::notice(code, text).detail(Some(format!("it is \"{}\"", path.display())))
        }
        None => {
            let text = format!("the backup has no {name}; a plain one was written");
            let hint = "what the primary had in its own has to be configured anew";
            Remark::warning(code, text).hint(Hint::from(hint))
        }
    }
}
