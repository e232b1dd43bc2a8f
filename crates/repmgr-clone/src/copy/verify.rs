//! Every byte of a backup read and judged as for a clone, and nothing written.

use crate::copy::chain::Copied;
use crate::copy::one_backup::Fetch;
use crate::copy::reuse::Rule;
use crate::copy::tell_of_pages;
use crate::look::BarmanBase;
use crate::source::backup::{Stored, with_session};
use crate::source::hold::Holds;
use crate::{CloneError, Context, CopyEvent, CopySummary};

/// Reads the backup, and all that it is combined from; the figures.
pub(crate) fn verify(
    base: &mut BarmanBase,
    mut holds: Holds,
    context: &Context<'_>,
) -> Result<CopySummary, CloneError> {
    let source = &mut base.backup;
    context.tell(CopyEvent::VerifyingFiles {
        backup: source.wanted.backup.id.to_string(),
        files: source.total_files(),
        bytes: source.total_size(),
    });
    let loads = source
        .chain
        .iter()
        .flat_map(|chain| &chain.below)
        .map(|below| below.load);
    let mut copied = Copied::of(loads.chain([source.wanted.load(&base.parameters)]));
    let session = &mut source.barman;
    for below in source.chain.iter().flat_map(|chain| &chain.below) {
        let (stored, mut parameters) = with_session(session, &*base.source.host, |session| {
            let stored = Stored::list(session, below.backup.clone(), context)?;
            let parameters = stored.parameters(session, &base.source.transfer, context)?;
            Ok((stored, parameters))
        })?;
        // Archives do not say it before they are unpacked.
        parameters.pages.learn(base.parameters.pages.checksums());
        let fetch = Fetch {
            barman: &base.source,
            stored: &stored,
            parameters: &parameters,
            trees: None,
            rule: Rule::Nothing,
            base: copied.progress,
        };
        let (_, summary) = fetch.run(session, &mut holds, context)?;
        copied.add(&summary, stored.load(&parameters));
    }
    let fetch = Fetch {
        barman: &base.source,
        stored: &source.wanted,
        parameters: &base.parameters,
        trees: None,
        rule: Rule::Nothing,
        base: copied.progress,
    };
    let (_, summary) = fetch.run(session, &mut holds, context)?;
    copied.add(&summary, source.wanted.load(&base.parameters));
    let summary = copied.summary(&base.parameters);
    tell_of_pages(&base.parameters.pages, &summary, context);
    context.tell(CopyEvent::FilesVerified {
        summary: summary.clone(),
    });
    Ok(summary)
}
