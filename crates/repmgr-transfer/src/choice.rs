//! Which codec suits the network and the two machines: seen from the batches themselves.

use std::time::Duration;

use repmgr_codec::Codec;

/// So many batches go with the better codec before the other gets another chance.
const TRUST: u32 = 32;

/// zstd or lz4 for the next batch of [`Compression::Auto`](crate::Compression::Auto).
///
/// Where the network is what is short, zstd moves half as much again as lz4; where the cores of the two
/// machines are (10 Gbit/s, or a small Barman host), it is the other way round. lz4 begins, for it loses
/// little where it is the wrong one; the first batch that arrives gives zstd its turn.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    zstd: Rate,
    lz4: Rate,
    zstd_was_tried: bool,
    /// Batches handed out since both were tried.
    trusted: u32,
}

#[derive(Debug, Default)]
struct Rate {
    /// Bytes of files and seconds, the older ones counting less.
    bytes: f64,
    seconds: f64,
}

impl Rate {
    fn add(&mut self, bytes: u64, took: Duration) {
        self.bytes = self.bytes / 2.0 + bytes as f64;
        self.seconds = self.seconds / 2.0 + took.as_secs_f64();
    }

    /// `None` as long as nothing is known.
    fn get(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.bytes / self.seconds)
    }
}

impl Choice {
    /// What the far side may take for the next batch, best first.
    pub(crate) fn next(&mut self) -> &'static str {
        let zstd_is_better = match (self.zstd.get(), self.lz4.get()) {
            (Some(zstd), Some(lz4)) => {
                self.trusted += 1;
                (zstd >= lz4) != self.trusted.is_multiple_of(TRUST)
            }
            (None, Some(_)) => !self.zstd_was_tried,
            (_, None) => false,
        };
        if zstd_is_better {
            self.zstd_was_tried = true;
            "zstd lz4 none"
        } else {
            "lz4 zstd none"
        }
    }

    /// A batch of so many bytes came with `codec`.
    pub(crate) fn learn(&mut self, codec: Codec, bytes: u64, took: Duration) {
        match codec {
            Codec::Zstd => self.zstd.add(bytes, took),
            Codec::Lz4 => self.lz4.add(bytes, took),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(choice: &mut Choice, count: usize) -> Vec<&'static str> {
        let first = |list: &'static str| list.split(' ').next().unwrap();
        (0..count).map(|_| first(choice.next())).collect()
    }

    #[test]
    fn lz4_begins_and_zstd_is_tried_once_until_both_are_known() {
        let mut choice = Choice::default();
        assert_eq!(names(&mut choice, 3), ["lz4"; 3]);
        choice.learn(Codec::Lz4, 100, SECOND);
        assert_eq!(names(&mut choice, 3), ["zstd", "lz4", "lz4"]);
    }

    #[test]
    fn zstd_from_a_far_side_that_has_no_lz4_changes_nothing() {
        let mut choice = Choice::default();
        choice.learn(Codec::Zstd, 100, SECOND);
        assert_eq!(names(&mut choice, 2), ["lz4"; 2]);
    }

    #[test]
    fn the_faster_one_is_taken_and_the_other_tried_now_and_then() {
        let mut choice = Choice::default();
        choice.learn(Codec::Zstd, 100, SECOND);
        choice.learn(Codec::Lz4, 150, SECOND);
        let taken = names(&mut choice, 320);
        assert_eq!(taken.iter().filter(|name| **name == "zstd").count(), 10);
        // The network got slower.
        for _ in 0..5 {
            choice.learn(Codec::Zstd, 50, SECOND);
            choice.learn(Codec::Lz4, 30, SECOND);
        }
        assert_eq!(names(&mut choice, 3), ["zstd"; 3]);
    }
}
