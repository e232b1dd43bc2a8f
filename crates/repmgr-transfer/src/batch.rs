//! What to fetch, cut into batches as they are asked for.

use std::time::Duration;

use crate::listing::{EntryKind, Listing};

/// What a file costs beyond its bytes, in bytes that could be moved in that time.
const FILE_COST: u64 = 16 << 10;
/// From here on the largest go first; smaller ones keep the order of the directory.
const LARGE: u64 = 16 << 20;
/// A batch is what is repeated after a lost connection, so it must not have too many bytes...
const MOST: u64 = 256 << 20;
/// ...and each costs some round trips, so not too small: of a host that is near...
const LEAST: u64 = 4 << 20;
/// ...and of the farthest.
const LEAST_FAR: u64 = 128 << 20;
/// A batch costs so many round trips, and so many bytes could be moved in a microsecond of them.
const ROUND_TRIPS: u64 = 4;
const BYTES_PER_MICROSECOND: u64 = 400;
/// Their names are sent in one piece.
const MOST_FILES: usize = 32 * 1024;
/// A connection has to have this much to do, or the login takes longer than it saves.
const WORTH_A_LOGIN: u64 = 8 << 20;

/// Files of one source that travel in one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) source: usize,
    /// Numbers in its listing.
    pub(crate) files: Vec<u32>,
    /// How often the first file was under way when it failed.
    pub(crate) attempts: u32,
    /// They are here in an older state.
    pub(crate) old: bool,
}

impl Batch {
    /// After a failure with file `at` under way: what was before it, it alone, what comes after.
    /// Each repetition gets past the place where the one before broke.
    pub(crate) fn split(mut self, at: usize) -> Vec<Self> {
        let after = self.files.split_off((at + 1).min(self.files.len()));
        let failed = self.files.split_off(at.min(self.files.len()));
        let parts = [(self.files, 0), (failed, self.attempts + 1), (after, 0)];
        let (source, old) = (self.source, self.old);
        let part = |(files, attempts)| Self {
            source,
            files,
            attempts,
            old,
        };
        parts
            .into_iter()
            .map(part)
            .filter(|b| !b.files.is_empty())
            .collect()
    }
}

/// A file.
#[derive(Clone, Copy)]
struct Place {
    source: u32,
    index: u32,
    old: bool,
}

/// All files that were wanted and are in no batch yet.
pub(crate) struct Plan<'l> {
    sources: &'l [Listing],
    order: Vec<Place>,
    next: usize,
    cost_left: u64,
    workers: usize,
}

impl<'l> Plan<'l> {
    /// Takes the regular files that are `wanted`; those that are `old` come in batches of their own. The
    /// error is the first that cannot be read.
    pub(crate) fn new(
        sources: &'l [Listing],
        wanted: &dyn Fn(usize, usize) -> bool,
        old: &dyn Fn(usize, usize) -> bool,
        jobs: usize,
    ) -> Result<Self, (usize, usize)> {
        let (mut large, mut small, mut small_old) = (Vec::new(), Vec::new(), Vec::new());
        let mut cost_left = 0u64;
        for (source, listing) in sources.iter().enumerate() {
            for (index, entry) in listing.iter().enumerate() {
                if entry.kind != EntryKind::File || !wanted(source, index) {
                    continue;
                }
                if !entry.readable {
                    return Err((source, index));
                }
                cost_left = cost_left.saturating_add(cost(entry.size));
                // A listing has fewer entries than bytes of paths, which fit; so do the sources.
                let place = Place {
                    source: source as u32,
                    index: index as u32,
                    old: old(source, index),
                };
                match entry.size {
                    LARGE.. => large.push((entry.size, place)),
                    _ if place.old => small_old.push(place),
                    _ => small.push(place),
                }
            }
        }
        large.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        let mut order: Vec<_> = large.into_iter().map(|(_, place)| place).collect();
        order.append(&mut small);
        order.append(&mut small_old);
        Ok(Self {
            sources,
            order,
            next: 0,
            cost_left,
            workers: useful_sessions(cost_left, jobs),
        })
    }

    /// How many connections are of use; at least one.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.order.len()
    }

    /// The next batch, for a host that is so far away: a share of what is left, smaller and smaller, so
    /// that all workers end at about the same time.
    pub(crate) fn next(&mut self, round_trip: Duration) -> Option<Batch> {
        let away = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        let least = away
            .saturating_mul(ROUND_TRIPS * BYTES_PER_MICROSECOND)
            .clamp(LEAST, LEAST_FAR);
        // Small files from far away: their bytes are few, their batches many.
        let most = MOST.max(8 * least);
        let target = (self.cost_left / (3 * self.workers as u64)).clamp(least, most);
        let Place { source, old, .. } = *self.order.get(self.next)?;
        let mut files = Vec::new();
        let (mut taken, mut bytes) = (0u64, 0u64);
        let like_it = |place: &&Place| place.source == source && place.old == old;
        for Place { index, .. } in self.order[self.next..].iter().take_while(like_it) {
            let size = self.sources[source as usize].get(*index as usize).size;
            let with_it = (taken.saturating_add(cost(size)), bytes.saturating_add(size));
            let full = with_it.0 > target || with_it.1 > MOST || files.len() == MOST_FILES;
            if full && !files.is_empty() {
                break;
            }
            (taken, bytes) = with_it;
            files.push(*index);
        }
        self.next += files.len();
        self.cost_left = self.cost_left.saturating_sub(taken);
        Some(Batch {
            source: source as usize,
            files,
            attempts: 0,
            old,
        })
    }
}

/// How many connections are of use; at least one.
fn useful_sessions(cost: u64, most: usize) -> usize {
    let useful = usize::try_from(cost / WORTH_A_LOGIN).unwrap_or(usize::MAX);
    most.min(useful).max(1)
}

fn cost(size: u64) -> u64 {
    size.saturating_add(FILE_COST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::tests::file;
    use proptest::prelude::*;

    fn listing(sizes: &[u64]) -> Listing {
        let mut listing = Listing::new("/d");
        for (number, size) in sizes.iter().enumerate() {
            listing
                .push(&file(format!("f{number}").as_bytes(), *size))
                .unwrap();
        }
        listing
    }

    fn all(sources: &[Listing], jobs: usize) -> Vec<Batch> {
        let mut plan = Plan::new(sources, &|_, _| true, &|_, _| false, jobs).unwrap();
        std::iter::from_fn(|| plan.next(Duration::ZERO)).collect()
    }

    const GB: u64 = 1 << 30;

    #[test]
    fn a_segment_of_a_gigabyte_is_a_batch_of_its_own_and_goes_first() {
        let batches = all(&[listing(&[8192, GB, 100, GB, 8192])], 2);
        let files: Vec<_> = batches.iter().map(|b| b.files.clone()).collect();
        assert_eq!(files, [vec![1], vec![3], vec![0, 2, 4]]);
    }

    #[test]
    fn batches_get_smaller_towards_the_end() {
        let sizes = vec![1 << 20; 1600];
        let counts: Vec<_> = all(&[listing(&sizes)], 2).iter().map(|b| b.files.len()).collect();
        assert!(counts[0] > 200 && *counts.last().unwrap() <= 4, "{counts:?}");
        assert!(counts.len() < 40, "{counts:?}");
    }

    #[test]
    fn two_hundred_thousand_small_files_need_few_round_trips() {
        let batches = all(&[listing(&vec![8192; 200_000])], 4);
        assert!(batches.len() < 80, "{}", batches.len());
    }

    #[test]
    fn a_host_that_is_far_away_is_asked_less_often() {
        let batches = |away| {
            let sources = [listing(&vec![8192; 200_000])];
            let mut plan = Plan::new(&sources, &|_, _| true, &|_, _| false, 2).unwrap();
            std::iter::from_fn(|| plan.next(Duration::from_millis(away))).count()
        };
        assert_eq!([0, 1, 50, 1000].map(batches), [42, 42, 20, 16]);
    }

    #[test]
    fn few_bytes_are_not_worth_many_logins() {
        let workers = |sizes: &[u64]| {
            Plan::new(&[listing(sizes)], &|_, _| true, &|_, _| false, 4)
                .unwrap()
                .workers()
        };
        assert_eq!(
            (
                workers(&[]),
                workers(&[100]),
                workers(&[20 << 20]),
                workers(&[GB])
            ),
            (1, 1, 2, 4)
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_found_before_anything_is_fetched() {
        let mut secret = listing(&[1]);
        let entry = crate::Entry {
            readable: false,
            ..file(b"secret", 1)
        };
        secret.push(&entry).unwrap();
        let sources = [listing(&[1]), secret];
        assert_eq!(
            Plan::new(&sources, &|_, _| true, &|_, _| false, 1).err(),
            Some((1, 1))
        );
        assert!(Plan::new(&sources, &|s, i| (s, i) != (1, 1), &|_, _| false, 1).is_ok());
    }

    #[test]
    fn only_regular_files_are_taken() {
        let mut listing = Listing::new("/d");
        for (path, kind) in [
            ("d", EntryKind::Directory),
            ("l", EntryKind::Symlink),
            ("f", EntryKind::File),
        ] {
            let entry = crate::Entry {
                kind,
                ..file(path.as_bytes(), 5)
            };
            listing.push(&entry).unwrap();
        }
        assert_eq!(all(&[listing], 1)[0].files, [2]);
    }

    proptest! {
        #[test]
        fn every_wanted_file_is_in_exactly_one_batch(
            sizes in proptest::collection::vec(proptest::collection::vec(0u64..40 << 20, 0..300), 0..4),
            jobs in 1usize..9,
            odd: bool,
            away in 0u64..1000,
        ) {
            let sources: Vec<_> = sizes.iter().map(|s| listing(s)).collect();
            let wanted = |_, index: usize| !odd || index % 2 == 1;
            let old = |source: usize, index: usize| (source + index).is_multiple_of(3);
            let mut plan = Plan::new(&sources, &wanted, &old, jobs).unwrap();
            let mut seen = Vec::new();
            while let Some(batch) = plan.next(Duration::from_millis(away)) {
                prop_assert!(!batch.files.is_empty() && batch.files.len() <= MOST_FILES);
                let size = |i: &u32| sources[batch.source].get(*i as usize).size;
                let total: u64 = batch.files.iter().map(size).sum();
                prop_assert!(batch.files.len() == 1 || total <= MOST);
                prop_assert!(batch.files.iter().all(|i| old(batch.source, *i as usize) == batch.old));
                seen.extend(batch.files.iter().map(|i| (batch.source, *i as usize)));
            }
            prop_assert!(plan.is_empty());
            seen.sort_unstable();
            let expected: Vec<_> = (0..sources.len())
                .flat_map(|s| (0..sources[s].len()).map(move |i| (s, i)))
                .filter(|(s, i)| wanted(*s, *i))
                .collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn splitting_loses_nothing(count in 1u32..50, at in 0usize..60) {
            let batch = Batch { source: 1, files: (0..count).collect(), attempts: 2, old: true };
            let parts = batch.clone().split(at);
            let files: Vec<_> = parts.iter().flat_map(|b| b.files.clone()).collect();
            prop_assert_eq!(files, batch.files);
            for part in parts {
                let failed = part.files.contains(&(at as u32));
                prop_assert_eq!(part.attempts, if failed { 3 } else { 0 });
                prop_assert!(!failed || part.files.len() == 1);
                prop_assert!(part.old);
            }
        }
    }
}
