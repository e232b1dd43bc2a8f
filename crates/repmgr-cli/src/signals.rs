//! Signals set a flag; the work looks at it and ends in good order.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use repmgr_types::CancelToken;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// The signals that ask this program to stop.
pub(crate) struct Signals {
    flag: Arc<AtomicBool>,
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP. A second one ends the program at once, as if it were
    /// not caught. A signal that we were started to ignore (`nohup`) stays ignored.
    pub(crate) fn catch() -> io::Result<Self> {
        let signals = Self {
            flag: Arc::default(),
            received: Arc::default(),
        };
        let ignored = fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_signals(&status));
        for (signal, number) in [(SIGINT, 2), (SIGTERM, 15), (SIGHUP, 1)] {
            if ignored >> (number - 1) & 1 == 1 {
                continue;
            }
            // In this order: the default action comes first, and only the second time.
            flag::register_conditional_default(signal, Arc::clone(&signals.flag))?;
            flag::register(signal, Arc::clone(&signals.flag))?;
            flag::register_usize(signal, Arc::clone(&signals.received), number)?;
        }
        Ok(signals)
    }

    /// Cancelled by a signal.
    pub(crate) fn token(&self) -> CancelToken {
        CancelToken::from_flag(Arc::clone(&self.flag))
    }

    /// The signal that came last.
    pub(crate) fn received(&self) -> Option<i32> {
        match self.received.load(Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }
}

/// The set of ignored signals from the text of `/proc/self/status`, signal 1 in bit 0.
fn ignored_signals(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_kernel() {
        let status = "Name:\trepmgr\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored_signals(status), 0x1001);
        assert_eq!(ignored_signals("Name:\tx\n"), 0);
        // Rust ignores SIGPIPE (13) in every program.
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(ignored_signals(&own) >> 12 & 1, 1);
    }
}
