//! Which codec suits the network and the two machines: seen from the batches themselves.

use std::time::Duration;

use crate::codec::Codec;

/// So many batches go with the better codec before the other gets another chance.
const TRUST: u32 = 32;

/// zstd or lz4 for the next batch of [`Compression::Auto`](crate::Compression::Auto).
///
/// Where the network is what is short, zstd moves half as much again as lz4; where the cores of the two
/// machines are (10 Gbit/s, or a small Barman host), it is the other way round. Batches of both are under
/// way at the same time first, so they are compared under the same conditions.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    zstd: Rate,
    lz4: Rate,
    /// Batches handed out since both were tried.
    trusted: u32,
}

#[derive(Debug, Default)]
struct Rate {
    started: u32,
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
            _ => self.zstd.started <= self.lz4.started,
        };
        if zstd_is_better {
            self.zstd.started += 1;
            "zstd lz4 none"
        } else {
            self.lz4.started += 1;
            "lz4 zstd none"
        }
    }

    /// A batch of so many bytes came with `codec`.
    pub(crate) fn learn(&mut self, codec: Codec, bytes: u64, took: Duration) {
        match codec {
            Codec::Zstd => self.zstd.add(bytes, took),
            Codec::Lz4 => self.lz4.add(bytes, took),
            Codec::Gzip | Codec::None => {}
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
    fn both_are_tried_by_turns_until_both_are_known() {
        let mut choice = Choice::default();
        assert_eq!(names(&mut choice, 4), ["zstd", "lz4", "zstd", "lz4"]);
        choice.learn(Codec::Zstd, 100, SECOND);
        assert_eq!(names(&mut choice, 2), ["zstd", "lz4"]);
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
