use std::num::NonZero;
use std::time::Duration;

use repmgr_types::CancelToken;

use crate::compression::Compression;

/// How to transfer.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sessions at most. Fewer are opened when there is little to fetch.
    pub jobs: NonZero<usize>,
    /// How bytes travel.
    pub compression: Compression,
    /// How often to try again after a passing failure without any progress in between.
    pub retries: u32,
    /// The pause before trying again; it doubles with each failure up to 30 s.
    pub retry_pause: Duration,
    /// The longest silence of the far side's tar. Disks are slow at times.
    pub idle_timeout: Duration,
    /// Ends the transfer early.
    pub cancel: CancelToken,
}

impl Default for Options {
    /// A session for each core here up to 4, automatic compression, 5 retries after 1 s and more,
    /// 2 minutes of silence.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self {
            jobs: cores.min(const { NonZero::new(4).unwrap() }),
            compression: Compression::Auto,
            retries: 5,
            retry_pause: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(120),
            cancel: CancelToken::new(),
        }
    }
}
