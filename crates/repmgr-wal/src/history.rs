use repmgr_pgfile::HistoryError;
pub(crate) use repmgr_pgfile::TimelineHistory;

use crate::ContentError;

impl From<HistoryError> for ContentError {
    fn from(error: HistoryError) -> Self {
        Self::History {
            reason: error.to_string(),
        }
    }
}
