//! The holds on the backups that are read, against Barman's retention.

use std::time::{Duration, Instant};

use repmgr_barman::{Backup, Hold, HoldError};

use crate::request::BarmanSource;
use crate::{CloneError, Context, Event};

/// How often a hold that was lost is tried to be had again.
const TRY_EVERY: Duration = Duration::from_secs(30);

/// A hold on each backup that is read: retention deletes an obsolete full backup although an increment of it
/// is held.
pub(crate) struct Holds<'r> {
    barman: &'r BarmanSource,
    held: Vec<(Backup, Hold)>,
    /// Backups whose hold was lost, and when it was tried last to have it again.
    lost: Vec<(Backup, Instant)>,
}

impl<'r> Holds<'r> {
    /// Holds all of them. Where the lock cannot be had the clone goes on: that all is still whole is looked at in
    /// the end anyway.
    ///
    /// # Errors
    /// When Barman is at work on one of them: most likely it deletes it.
    pub(crate) fn take(
        barman: &'r BarmanSource,
        backups: &[Backup],
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let mut holds = Self {
            barman,
            held: Vec::new(),
            lost: Vec::new(),
        };
        for backup in backups {
            match Hold::take(&*barman.host, &barman.address, backup) {
                Ok(hold) => holds.held.push((backup.clone(), hold)),
                Err(error @ HoldError::Busy { .. }) => return Err(error.into()),
                Err(error) => {
                    context.cancel.check()?;
                    let is_general = error.is_unsupported();
                    context.observer.event(Event::Warning {
                        text: "the backup cannot be held against Barman's retention while it is copied"
                            .to_owned(),
                        detail: Some(error.to_string()),
                        hint: error.hint(),
                    });
                    if is_general {
                        break;
                    }
                }
            }
        }
        Ok(holds)
    }

    /// Looks after them, and tries to have back what was lost.
    pub(crate) fn look_after(&mut self, context: &Context<'_>) {
        let Self { barman, held, lost } = self;
        held.retain_mut(|(backup, hold)| {
            let Err(error) = hold.check() else { return true };
            // The backup is looked at again when the copy is done; until then nothing is wrong.
            context.observer.event(Event::Warning {
                text: format!(
                    "backup {} is no longer held against Barman's retention",
                    backup.id
                ),
                detail: Some(error.to_string()),
                hint: None,
            });
            lost.push((backup.clone(), Instant::now()));
            false
        });
        lost.retain_mut(|(backup, tried)| {
            if tried.elapsed() < TRY_EVERY {
                return true;
            }
            *tried = Instant::now();
            match Hold::take(&*barman.host, &barman.address, backup) {
                Ok(hold) => {
                    log::info!("backup {} is held again", backup.id);
                    held.push((backup.clone(), hold));
                    false
                }
                Err(error) => {
                    log::debug!("backup {} is still not held: {error}", backup.id);
                    true
                }
            }
        });
    }
}
