//! Brings the files of one backup here.

use repmgr_barman::Barman;
use repmgr_datadir::PG_CONTROL;

use crate::barman::{Content, ServerParameters, Stored, with_session};
use crate::copy::{Copy, Trees};
use crate::hold::Holds;
use crate::judge::Judge;
use crate::request::BarmanSource;
use crate::reuse::{Reused, Rule};
use crate::unpack::Unpack;
use crate::{CloneError, Context, CopySummary, Event, Progress};

/// One backup, and where its files go.
pub(crate) struct Fetch<'a> {
    pub(crate) barman: &'a BarmanSource,
    pub(crate) stored: &'a Stored,
    pub(crate) parameters: &'a ServerParameters,
    pub(crate) trees: &'a Trees<'a>,
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
        holds: &mut Holds<'_>,
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
        let judge = Judge::new(parameters, &stored.backup, barman.transfer.accept_damage);
        let (control, summary) = match &stored.content {
            Content::Files(files) => {
                let reused = Reused::find(rule, files, parameters, trees, context)?;
                if rule != Rule::Nothing {
                    let compared = !barman.host.is_local();
                    context.observer.event(Event::Reusing {
                        files: reused.files,
                        bytes: reused.bytes,
                        old_files: if compared { reused.old_files } else { 0 },
                        old_bytes: if compared { reused.old_bytes } else { 0 },
                    });
                }
                let copy = Copy {
                    barman,
                    files,
                    parameters,
                    trees,
                    reused: &reused,
                    base,
                };
                (None, copy.run(judge, holds, context)?)
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
                let (control, summary) = unpack.run(judge, holds, context)?;
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
        stored.check_control(&control)?;
        stored.pages(&control)?;
        for path in ["PG_VERSION", "backup_label"] {
            if trees.data.metadata(path)?.is_none_or(|file| file.size == 0) {
                return Err(stored.incomplete(path));
            }
        }
        Ok((control, summary))
    }
}
