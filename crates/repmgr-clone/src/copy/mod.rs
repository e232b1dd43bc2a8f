//! How the base backup comes here: its files or archives, one backup or a chain of them, judged on arrival.

pub(crate) mod archives;
pub(crate) mod chain;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod files;
pub(crate) mod judge;
pub(crate) mod one_backup;
pub(crate) mod reuse;
mod threads;
mod torn;
pub(crate) mod verify;
pub(crate) mod watch;

use repmgr_datadir::{Building, Tree, create_skeleton};

use crate::look::BarmanBase;
use crate::place::Places;
use crate::source::backup::{Content, Pages};
use crate::source::hold::Holds;
use crate::standby::configure::link_tablespace;
use crate::trees::{Trees, create_directories};
use crate::{CloneError, Context, CopyEvent, CopySummary, PageChecks, Progress, Remark};

use self::chain::Combine;
use self::one_backup::Fetch;
use self::reuse::{Rule, remove_others};

/// Where a backup goes: directories that are prepared, and what counts of that which is there.
pub(crate) struct Destination<'a> {
    pub(crate) building: &'a Building,
    pub(crate) places: &'a Places,
    /// In the order of the places.
    pub(crate) tablespaces: &'a [Tree],
    pub(crate) wal: Option<&'a Tree>,
    pub(crate) rule: Rule,
}

/// Brings the backup here; the control file, which goes in last, and the figures.
pub(crate) fn from_backup(
    base: &mut BarmanBase,
    to: &Destination<'_>,
    mut holds: Holds,
    context: &Context<'_>,
) -> Result<(Vec<u8>, CopySummary), CloneError> {
    context.tell(CopyEvent::RetrievingBackup {
        backup: base.backup.wanted.backup.id.to_string(),
        files: base.backup.total_files(),
        bytes: base.backup.total_size(),
    });
    context.tell(CopyEvent::ReceivingFileList);
    let data = to.building.tree();
    let trees = Trees {
        data: &data,
        tablespaces: to.tablespaces,
        wal: to.wal,
    };
    let source = &mut base.backup;
    if let Some(chain) = &source.chain {
        let combine = Combine {
            barman: &base.source,
            chain,
            wanted: &source.wanted,
            parameters: &base.parameters,
            places: to.places,
            building: to.building,
            rule: to.rule,
        };
        let combined = combine.run(&mut source.barman, holds, context)?;
        create_all_directories(base, to.places, &trees)?;
        return Ok(combined);
    }
    if let (Some(_), Content::Files(files)) = (&base.delta, &source.wanted.content) {
        remove_others(files, &trees, context)?;
    }
    create_all_directories(base, to.places, &trees)?;
    let source = &mut base.backup;
    let (files, bytes) = source.wanted.load(&base.parameters);
    let fetch = Fetch {
        barman: &base.source,
        stored: &source.wanted,
        parameters: &base.parameters,
        trees: Some(&trees),
        rule: to.rule,
        base: Progress::to_do(files, bytes),
    };
    let (control, summary) = fetch.run(&mut source.barman, &mut holds, context)?;
    tell_of_pages(&base.parameters.pages, &summary, context);
    let told = summary.clone();
    context.tell(CopyEvent::CopyFinished { summary: told });
    Ok((control, summary))
}

/// Warns of pages that turned out not to be verified; what was known before was told before.
fn tell_of_pages(known: &Pages, summary: &CopySummary, context: &Context<'_>) {
    match (&summary.pages, known) {
        (_, Pages::Unjudged(_)) | (PageChecks::Verified | PageChecks::NoChecksums, _) => {}
        (PageChecks::NotVerified { reason }, _) => context.tell(Remark::pages_not_verified(reason)),
    }
}

/// Those of the backup, and those that a server needs.
fn create_all_directories(base: &BarmanBase, places: &Places, trees: &Trees<'_>) -> Result<(), CloneError> {
    for place in &places.tablespaces {
        link_tablespace(trees.data, place.origin.oid, place.dir.path())?;
    }
    let version = base.backup.wanted.backup.version;
    if let (Some(_), Some(dir)) = (trees.wal, &places.wal) {
        let link = if version.num() < 100_000 {
            "pg_xlog"
        } else {
            "pg_wal"
        };
        trees.data.symlink(link, dir.path())?;
    }
    if let (None, Content::Files(files)) = (&base.backup.chain, &base.backup.wanted.content) {
        create_directories(files, trees)?;
    }
    create_skeleton(trees.data, trees.wal, version)?;
    // An empty tablespace without it would accept no table after a promotion.
    if let Some(catalog) = base.parameters.catalog_version {
        for tree in trees.tablespaces {
            tree.create_dir(format!("PG_{}_{catalog}", version.major_name()))?;
        }
    }
    Ok(())
}
