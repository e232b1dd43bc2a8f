//! Not faster than it is allowed.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use repmgr_types::Rate;

/// What was not used of the rate may be used for so long.
const CREDIT: Duration = Duration::from_millis(500);
/// So often at least something is read of each of a few sessions.
const READS_PER_SECOND: u64 = 20;

/// The common pace of all sessions.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Rate,
    /// When what has passed is within the rate.
    settled: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            settled: Mutex::new(None),
        }
    }

    /// How much to read at once, so that nobody sleeps for long after it.
    pub(crate) fn portion(&self, length: usize) -> usize {
        let portion = usize::try_from(self.rate.bytes() / READS_PER_SECOND).unwrap_or(usize::MAX);
        length.min(portion.max(1))
    }

    /// After `bytes` have come: waits as long as they should have taken.
    pub(crate) fn pass(&self, bytes: u64) {
        let wait = self.charge(bytes, Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
    }

    fn charge(&self, bytes: u64, now: Instant) -> Duration {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let from = settled.map_or(now, |settled| settled.max(earliest));
        let until = from + Duration::from_secs_f64(bytes as f64 / self.rate.bytes() as f64);
        *settled = Some(until);
        until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: &str) -> Pace {
        Pace::new(rate.parse().unwrap())
    }

    #[test]
    fn what_comes_takes_its_time_whoever_reads_it() {
        let (pace, start) = (pace("1M"), Instant::now());
        // Two sessions, by a clock of our own: each sleeps as it is told.
        let mut clocks = [start, start];
        for turn in 0..320 {
            let clock = &mut clocks[turn % 2];
            *clock += pace.charge(32 * 1024, *clock);
        }
        let taken = clocks
            .into_iter()
            .max()
            .unwrap()
            .duration_since(start)
            .as_secs_f64();
        assert!((taken - 10.0).abs() < 0.1, "{taken}");
    }

    #[test]
    fn a_pause_gives_no_more_than_a_little_credit() {
        let (pace, start) = (pace("1M"), Instant::now());
        assert_eq!(pace.charge(1 << 20, start), Duration::from_secs(1));
        let later = start + Duration::from_secs(60);
        let credited = (CREDIT.as_secs_f64() * 1024.0 * 1024.0) as u64;
        assert!(pace.charge(credited, later) < Duration::from_millis(1));
        assert!(pace.charge(1 << 20, later) > Duration::from_millis(990));
    }

    #[test]
    fn a_slow_pace_reads_little_at_once() {
        assert_eq!(pace("32k").portion(1 << 20), 1638);
        assert_eq!(pace("1024M").portion(1 << 16), 1 << 16);
    }
}
