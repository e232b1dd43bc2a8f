//! The holds on the backups that are read, against Barman's retention.

use std::time::{Duration, Instant};

use repmgr_barman::{Backup, Hold, HoldError};

use crate::error::said;
use crate::request::{BarmanSource, Source};
use crate::{CloneError, Context, Remark, RemarkCode};

/// How often a hold that was lost is tried to be had again.
const TRY_EVERY: Duration = Duration::from_secs(30);

/// A hold on each backup that is read: retention deletes an obsolete full backup although an increment of it
/// is held.
#[derive(Default)]
pub(crate) struct Holds {
    held: Vec<(Held, Hold)>,
    /// Backups whose hold was lost, and when it was tried last to have it again.
    lost: Vec<(Held, Instant)>,
}

/// A backup, and the Barman that has it.
struct Held {
    backup: Backup,
    source: BarmanSource,
}

impl Held {
    fn take(&self) -> Result<Hold, HoldError> {
        Hold::take(&*self.source.host, &self.source.address, &self.backup)
    }
}

impl Holds {
    /// Holds all of them; nothing where the base backup is no Barman's. Where the lock cannot be taken the clone goes on:
    /// whether all is still whole is looked at in
    /// the end anyway.
    ///
    /// # Errors
    /// When Barman is at work on one of them: most likely it deletes it.
    pub(crate) fn take(
        source: &Source,
        backups: &[Backup],
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let mut holds = Self::default();
        let Source::Barman(source) = source else {
            return Ok(holds);
        };
        for backup in backups {
            let held = Held {
                backup: backup.clone(),
                source: source.clone(),
            };
            match held.take() {
                Ok(hold) => holds.held.push((held, hold)),
                Err(error @ HoldError::Busy { .. }) => return Err(error.into()),
                Err(error) => {
                    context.cancel.check()?;
                    let is_general = error.is_unsupported();
                    context.tell(
                        Remark::warning(
                            RemarkCode::NotHeld,
                            "the backup cannot be held against Barman's retention while it is copied",
                        )
                        .detail(error.to_string())
                        .hint(said(error.hint())),
                    );
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
        for (held, mut hold) in std::mem::take(&mut self.held) {
            let Err(error) = hold.check() else {
                self.held.push((held, hold));
                continue;
            };
            // The backup is looked at again when the copy is done; until then nothing is wrong.
            let id = &held.backup.id;
            let text = format!("backup {id} is no longer held against Barman's retention");
            context.tell(Remark::warning(RemarkCode::NotHeld, text).detail(error.to_string()));
            self.lost.push((held, Instant::now()));
        }
        for (held, tried) in std::mem::take(&mut self.lost) {
            if tried.elapsed() < TRY_EVERY {
                self.lost.push((held, tried));
                continue;
            }
            match held.take() {
                Ok(hold) => {
                    log::info!("backup {} is held again", held.backup.id);
                    self.held.push((held, hold));
                }
                Err(error) => {
                    log::debug!("backup {} is still not held: {error}", held.backup.id);
                    self.lost.push((held, Instant::now()));
                }
            }
        }
    }
}
