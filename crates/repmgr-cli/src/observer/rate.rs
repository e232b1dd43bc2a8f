//! How fast a copy is, and how long it will take.

use std::collections::VecDeque;
use std::time::Duration;

use repmgr_clone::{ByteSize, Progress};

/// The rate is that of this time past, so that a stall shows and a burst does not mislead.
const WINDOW: Duration = Duration::from_secs(15);

/// Watches a copy.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// Time since the start and bytes fetched, oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// Bytes per second, once it can be told.
    pub(crate) fn update(&mut self, progress: &Progress) -> Option<u64> {
        let fetched = progress.bytes_done.saturating_sub(progress.bytes_reused);
        self.samples.push_back((progress.elapsed, fetched));
        // One sample older than the window stays: the rate is measured from there.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| progress.elapsed.saturating_sub(*at) >= WINDOW)
        {
            self.samples.pop_front();
        }
        let (start, before) = *self.samples.front()?;
        let seconds = progress.elapsed.checked_sub(start)?.as_secs_f64();
        (seconds >= 0.5).then(|| (fetched.saturating_sub(before) as f64 / seconds) as u64)
    }
}

/// Whole percent; 100 only at the end, 0 while the whole is not known.
pub(crate) fn percent(progress: &Progress) -> u64 {
    let Progress {
        bytes_done,
        bytes_total,
        files_done,
        files_total,
        ..
    } = *progress;
    if bytes_total == 0 {
        return 0;
    }
    if bytes_done >= bytes_total && files_done >= files_total {
        return 100;
    }
    let percent = u128::from(bytes_done) * 100 / u128::from(bytes_total);
    percent.min(99) as u64
}

/// "512 MB of 1049 MB, 102 MB/s, 12 s left, 120 of 1600 files", as far as it is known.
pub(crate) fn in_words(progress: &Progress, rate: Option<u64>) -> String {
    let part = |part: Option<String>| part.unwrap_or_default();
    amount(progress) + &part(speed(rate)) + &part(left(progress, rate)) + &part(files(progress))
}

/// The percentage and as much of the rest as has room, what matters most first.
pub(crate) fn fitted(progress: &Progress, rate: Option<u64>, columns: usize) -> String {
    let percent = format!("{}%", percent(progress));
    let amount = Some(format!(", {}", amount(progress)));
    let parts = [
        (1, amount),
        (2, speed(rate)),
        (3, left(progress, rate)),
        (0, files(progress)),
    ];
    let words = |least| {
        let kept = parts.iter().filter(|(worth, _)| *worth >= least);
        kept.filter_map(|(_, part)| part.as_deref())
            .fold(percent.clone(), |words, part| words + part)
    };
    let fitting = (0..=4).map(words).find(|words| words.len() <= columns);
    fitting.unwrap_or(percent)
}

fn amount(progress: &Progress) -> String {
    let done = ByteSize(progress.bytes_done);
    match progress.bytes_total {
        0 => done.to_string(),
        total => format!("{done} of {}", ByteSize(total)),
    }
}

fn speed(rate: Option<u64>) -> Option<String> {
    rate.map(|rate| format!(", {}/s", ByteSize(rate)))
}

fn left(progress: &Progress, rate: Option<u64>) -> Option<String> {
    let left = progress
        .bytes_total
        .checked_sub(progress.bytes_done)
        .filter(|_| progress.bytes_total > 0)?;
    let seconds = left.checked_div(rate?)?;
    Some(format!(", {} left", time_in_words(seconds)))
}

/// pg_basebackup does not count them.
fn files(progress: &Progress) -> Option<String> {
    let Progress {
        files_done,
        files_total,
        ..
    } = progress;
    (*files_total > 0).then(|| format!(", {files_done} of {files_total} files"))
}

fn time_in_words(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::progress;
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.update(&progress(0, 0)), None);
        assert_eq!(rate.update(&progress(10, 100)), Some(10 << 20));
        assert_eq!(rate.update(&progress(15, 150)), Some(10 << 20));
        // 50 MB in the 15 s from second 15 on: the first 15 s no longer count.
        assert_eq!(rate.update(&progress(30, 200)), Some((50 << 20) / 15));
        assert!(rate.samples.len() <= 3);
    }

    #[test]
    fn bytes_that_were_here_already_are_not_fast() {
        let mut rate = Rate::default();
        let at = |seconds, megabytes| Progress {
            bytes_reused: 500 << 20,
            ..progress(seconds, megabytes)
        };
        rate.update(&at(0, 500));
        assert_eq!(rate.update(&at(10, 510)), Some(1 << 20));
    }

    #[test]
    fn progress_reads_well() {
        assert_eq!(
            in_words(&progress(10, 250), Some(25 << 20)),
            "250 MB of 1000 MB, 25 MB/s, 30 s left, 250 of 1000 files"
        );
        assert_eq!(
            in_words(&progress(10, 250), Some(0)),
            "250 MB of 1000 MB, 0 bytes/s, 250 of 1000 files"
        );
        assert_eq!(
            in_words(&progress(0, 0), None),
            "0 bytes of 1000 MB, 0 of 1000 files"
        );
        assert_eq!(time_in_words(61), "1 min 1 s");
        assert_eq!(time_in_words(7384), "2 h 3 min");
        assert_eq!(time_in_words(100_000), "1 d 3 h");
    }

    #[test]
    fn a_narrow_terminal_loses_what_matters_least() {
        let said = |columns| fitted(&progress(10, 250), Some(25 << 20), columns);
        assert_eq!(
            said(70),
            "25%, 250 MB of 1000 MB, 25 MB/s, 30 s left, 250 of 1000 files"
        );
        assert_eq!(said(50), "25%, 250 MB of 1000 MB, 25 MB/s, 30 s left");
        assert_eq!(said(27), "25%, 25 MB/s, 30 s left");
        assert_eq!(said(20), "25%, 30 s left");
        assert_eq!(said(5), "25%");
    }

    #[test]
    fn a_hundred_percent_means_all() {
        assert_eq!(percent(&progress(0, 0)), 0);
        assert_eq!(percent(&progress(0, 459)), 45);
        assert_eq!(percent(&progress(0, 1000)), 100);
        assert_eq!(
            percent(&Progress {
                files_done: 999,
                ..progress(0, 1000)
            }),
            99
        );
    }

    #[test]
    fn what_pg_basebackup_does_not_tell_is_left_out() {
        let unknown = Progress {
            files_done: 0,
            files_total: 0,
            bytes_total: 0,
            ..progress(1, 25)
        };
        assert_eq!(percent(&unknown), 0);
        assert_eq!(in_words(&unknown, Some(25 << 20)), "25 MB, 25 MB/s");
        let bytes_only = Progress {
            bytes_total: 1000 << 20,
            ..unknown
        };
        assert_eq!(percent(&bytes_only), 2);
        assert_eq!(in_words(&bytes_only, None), "25 MB of 1000 MB");
    }
}
