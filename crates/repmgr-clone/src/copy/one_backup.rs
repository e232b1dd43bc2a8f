//! Brings the files of one backup here.

use repmgr_barman::Barman;
use repmgr_datadir::PG_CONTROL;

use crate::copy::archives::Unpack;
use crate::copy::files::Copy;
use crate::copy::judge::Judge;
use crate::copy::reuse::{Reused, Rule};
use crate::request::BarmanSource;
use crate::source::backup::{Content, ServerParameters, Stored, with_session};
use crate::source::hold::Holds;
use crate::trees::Trees;
use crate::{CloneError, Context, CopyEvent, CopySummary, Progress};

/// One backup, and where its files go.
pub(crate) struct Fetch<'a> {
    pub(crate) barman: &'a BarmanSource,
    pub(crate) stored: &'a Stored,
    pub(crate) parameters: &'a ServerParameters,
    /// Without them the files are only judged.
    pub(crate) trees: Option<&'a Trees<'a>>,
    /// By which files that are here count as those of the backup.
    pub(crate) rule: Rule,
    /// What is done already, and how much there is in all.
    pub(crate) base: Progress,
}

impl Fetch<'_> {
    /// Brings all files but the control file, which is returned whole and checked; and the figures.
    pub(crate) fn run(
        &self,
        session: &mut Barman,
        holds: &mut Holds,
        context: &Context<'_>,
    ) -> Result<(Vec<u8>, CopySummary), CloneError> {
        let Self {
            barman,
            stored,
            parameters,
            trees,
            rule,
            base,
        } = *self;
        let judge = Judge::new(parameters, stored, barman.transfer.accept_damage);
        let (control, mut summary) = match &stored.content {
            Content::Files(files) => {
                let reused = match trees {
                    Some(trees) => Reused::find(rule, files, parameters, trees, context)?,
                    None => Reused::nothing(),
                };
                if rule != Rule::Nothing {
                    let compared = !barman.host.is_local();
                    context.tell(CopyEvent::Reusing {
                        files: reused.files,
                        bytes: reused.bytes,
                        old_files: if compared { reused.old_files } else { 0 },
                        old_bytes: if compared { reused.old_bytes } else { 0 },
                    });
                }
                let copy = Copy {
                    barman,
                    files,
                    trees,
                    reused: &reused,
                    base,
                };
                (None, copy.run(&judge, holds, context)?)
            }
            Content::Archives(archives) => {
                let unpack = Unpack {
                    barman,
                    directory: stored.backup.data_directory(),
                    archives,
                    parameters,
                    trees,
                    resumed: rule != Rule::Nothing,
                    base,
                };
                let (control, summary) = unpack.run(&judge, holds, context)?;
                (
                    Some(control.ok_or_else(|| stored.incomplete(PG_CONTROL))?),
                    summary,
                )
            }
        };
        let control = match control {
            Some(control) => control,
            None => with_session(session, &*barman.host, |session| {
                stored.read_control(session, context)
            })?,
        };
        let head = stored.check_control(&control)?;
        let pages = stored.pages(&control)?;
        summary.pages = judge.conclude(pages, head.system_id, barman, session, context)?;
        summary.verified = parameters.verified_by(&summary.pages);
        let Some(trees) = trees else {
            return Ok((control, summary));
        };
        for path in ["PG_VERSION", "backup_label"] {
            if trees.data.metadata(path)?.is_none_or(|file| file.size == 0) {
                return Err(stored.incomplete(path));
            }
        }
        Ok((control, summary))
    }
}
