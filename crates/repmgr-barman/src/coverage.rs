//! Which WAL an archive holds, from one listing of names.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use repmgr_types::{Lsn, Timeline, WalSegmentName, WalSegmentSize};

use crate::info::shown;

/// Arguments: the archive, the name of the first directory of interest, and the number of segments in a directory.
///
/// Prints `history TIMELINE` for each history file, and for each directory from that one on (of the same or a later
/// timeline, at the same or a later position) its name with the ranges of segments it holds: `0-4 6-255`. So a million
/// segments are some thousand short lines. Ends with `code N`, how the search ended.
pub(crate) const SCRIPT: &str = r#"
cd "$1" && names=$(ls -f .) || exit 3
directories=$(printf '%s\n' "$names" | awk -v begin="$2" '
    # The letter keeps awk from comparing 00000001000000E1 as a number.
    length($0) == 16 && !/[^0-9A-F]/ &&
    "x" $0 >= "x" begin && "x" substr($0, 9) >= "x" substr(begin, 9)') || exit 4
{
    printf '%s\n' "$names"
    # find is never without a starting point, or it would take this directory.
    printf '%s\n' "$directories" | xargs find /dev/null
    echo "code $?"
} | awk -F/ -v count="$3" '
    function flush(  i, from, line) {
        if (directory == "") return
        line = directory
        from = -1
        for (i = 0; i <= count; i++) {
            if (i in seen) { if (from < 0) from = i }
            else if (from >= 0) { line = line " " from "-" (i - 1); from = -1 }
        }
        print line
        split("", seen)
        directory = ""
    }
    BEGIN { for (i = 0; i < count; i++) number[sprintf("%08X", i)] = i }
    NF == 1 && /^code [0-9]+$/ { code = $0 }
    NF == 1 && length($0) == 16 && /\.history$/ && substr($0, 1, 8) !~ /[^0-9A-F]/ {
        print "history " substr($0, 1, 8)
    }
    NF == 2 && length($1) == 16 && length($2) == 24 && substr($2, 1, 16) == $1 && substr($2, 17) in number {
        if ($1 != directory) { flush(); directory = $1 }
        seen[number[substr($2, 17)]]
    }
    END { flush(); print code }'
"#;

/// The exit code of the script if the archive cannot be listed.
pub(crate) const NO_ARCHIVE: i32 = 3;

/// What the archive proper of a Barman server holds of the WAL from the begin of a backup on. Segments that are only
/// being received (`incoming`, `streaming`) do not count, nor do partial ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalCoverage {
    segment_size: WalSegmentSize,
    histories: Vec<Timeline>,
    /// By timeline the numbers of segments; ascending, neither overlapping nor adjacent.
    ranges: BTreeMap<Timeline, Vec<RangeInclusive<u64>>>,
}

/// Consecutive WAL segments of one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The first segment.
    pub first: WalSegmentName,
    /// The last segment.
    pub last: WalSegmentName,
}

/// The first hole in the WAL on the way from one segment to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalGap {
    /// The first segment that is missing.
    pub missing: WalSegmentName,
    /// The last segment that is there before it; `None` when the way begins with the hole.
    pub before: Option<WalSegmentName>,
    /// The next archived segment of the timeline of `missing`; `None` when the archive ends there.
    pub after: Option<WalSegmentName>,
}

/// Which timelines a server goes through to reach its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalPath {
    /// The earlier timelines, and where each was left.
    left: Vec<(Timeline, Lsn)>,
    last: Timeline,
}

/// A timeline history that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of {} is not a timeline and the position where it ended: \"{text}\"", timeline.history_file_name())]
pub struct BadHistory {
    /// Whose history it is.
    pub timeline: Timeline,
    /// Counted from 1.
    pub line: usize,
    /// The beginning of the line.
    pub text: String,
}

impl WalPath {
    /// The way that stays on one timeline.
    pub fn on(timeline: Timeline) -> Self {
        Self {
            left: Vec::new(),
            last: timeline,
        }
    }

    /// The way to `timeline`, from its history file.
    ///
    /// # Errors
    /// When a line is not as PostgreSQL writes it, or the timelines do not ascend.
    pub fn from_history(timeline: Timeline, history: &[u8]) -> Result<Self, BadHistory> {
        let mut left: Vec<(Timeline, Lsn)> = Vec::new();
        for (index, line) in history.split(|b| *b == b'\n').enumerate() {
            let text = String::from_utf8_lossy(line.trim_ascii());
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let before = left.last().map_or(0, |(timeline, _)| timeline.id());
            match switch(&text).filter(|(id, _)| before < id.id() && *id < timeline) {
                Some(entry) => left.push(entry),
                None => {
                    return Err(BadHistory {
                        timeline,
                        line: index + 1,
                        text: shown(line),
                    });
                }
            }
        }
        Ok(Self { left, last: timeline })
    }

    /// The timeline that recovery reads the segment `number` from. The segment in which a timeline was left was
    /// begun again on the next one.
    fn timeline_of(&self, number: u64, size: WalSegmentSize) -> Timeline {
        let still = self.left.iter().find(|(_, lsn)| number < lsn.0 / size.bytes());
        still.map_or(self.last, |(timeline, _)| *timeline)
    }
}

/// A line: timeline, position, reason.
fn switch(line: &str) -> Option<(Timeline, Lsn)> {
    let mut words = line.split_whitespace();
    let timeline = Timeline::new(words.next()?.parse().ok()?)?;
    Some((timeline, words.next()?.parse().ok()?))
}

impl WalCoverage {
    /// Reads what the script printed, and how its search ended.
    pub(crate) fn parse(output: &str, segment_size: WalSegmentSize) -> Result<(Self, i32), String> {
        let mut found = Self {
            segment_size,
            histories: Vec::new(),
            ranges: BTreeMap::new(),
        };
        let mut code = None;
        for line in output.lines() {
            let odd = || format!("the line \"{}\"", shown(line.as_bytes()));
            if code.is_some() {
                return Err(odd());
            }
            let (word, rest) = line.split_once(' ').ok_or_else(odd)?;
            match word {
                "code" => code = Some(rest.parse().map_err(|_| odd())?),
                "history" => found.histories.extend(hex(rest).and_then(Timeline::new)),
                directory => found.add(directory, rest).ok_or_else(odd)?,
            }
        }
        found.ranges.values_mut().for_each(merge);
        found.histories.sort_unstable();
        Ok((found, code.ok_or("it ends early")?))
    }

    /// The line of one directory. A directory of timeline 0 is none of PostgreSQL's.
    fn add(&mut self, directory: &str, ranges: &str) -> Option<()> {
        let (timeline, log) = (hex(directory.get(..8)?)?, hex(directory.get(8..)?)?);
        let per_log = (1 << 32) / self.segment_size.bytes();
        let Some(timeline) = Timeline::new(timeline) else {
            return Some(());
        };
        let known = self.ranges.entry(timeline).or_default();
        for range in ranges.split(' ') {
            let (first, last) = range.split_once('-')?;
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if first > last || last >= per_log {
                return None;
            }
            let start = u64::from(log) * per_log;
            known.push(start + first..=start + last);
        }
        Some(())
    }

    /// The timelines whose history files are in the archive, ascending. (Timeline 1 has none.)
    pub fn timelines(&self) -> &[Timeline] {
        &self.histories
    }

    /// What is there of one timeline, without holes within a range.
    pub fn ranges(&self, timeline: Timeline) -> impl Iterator<Item = WalRange> + '_ {
        self.of(timeline).iter().map(move |range| WalRange {
            first: self.name(timeline, *range.start()),
            last: self.name(timeline, *range.end()),
        })
    }

    /// The last archived segment of one timeline.
    pub fn highest(&self, timeline: Timeline) -> Option<WalSegmentName> {
        let last = self.of(timeline).last()?;
        Some(self.name(timeline, *last.end()))
    }

    /// Whether a segment is there.
    pub fn contains(&self, name: WalSegmentName) -> bool {
        self.run(name.timeline(), name.number(self.segment_size))
            .is_some()
    }

    /// The first segment on the way along `path` that is missing, from `from` on until just before `until`, which
    /// the reader gets elsewhere. Without `until` the way ends with the last archived segment of the path, and only
    /// `from` itself is missing when nothing is there at all. `None`: there is no hole.
    pub fn gap(&self, path: &WalPath, from: WalSegmentName, until: Option<WalSegmentName>) -> Option<WalGap> {
        let size = self.segment_size;
        let mut next = from.number(size);
        let end = match until {
            Some(until) => until.number(size),
            None => {
                self.highest(path.last)
                    .map_or(0, |name| name.number(size))
                    .max(next)
                    + 1
            }
        };
        let mut before = None;
        while next < end {
            let timeline = path.timeline_of(next, size);
            let Some(range) = self.run(timeline, next) else {
                let after = self.of(timeline).iter().map(|range| *range.start());
                return Some(WalGap {
                    missing: self.name(timeline, next),
                    before,
                    after: after
                        .into_iter()
                        .find(|start| *start > next)
                        .map(|n| self.name(timeline, n)),
                });
            };
            // Where the timeline is left, the next one must go on.
            let left = path.left.iter().find(|(id, _)| *id == timeline);
            let last = left.map_or(u64::MAX, |(_, lsn)| (lsn.0 / size.bytes()).saturating_sub(1));
            let last = last.min(*range.end()).max(next);
            before = Some(self.name(timeline, last));
            next = last + 1;
        }
        None
    }

    fn of(&self, timeline: Timeline) -> &[RangeInclusive<u64>] {
        self.ranges.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// The range with this segment in it.
    fn run(&self, timeline: Timeline, number: u64) -> Option<&RangeInclusive<u64>> {
        let ranges = self.of(timeline);
        let range = ranges.get(ranges.partition_point(|range| *range.end() < number))?;
        range.contains(&number).then_some(range)
    }

    fn name(&self, timeline: Timeline, number: u64) -> WalSegmentName {
        let size = self.segment_size;
        // `add` lets no number in that is no position.
        WalSegmentName::containing(timeline, Lsn(number.saturating_mul(size.bytes())), size)
    }
}

fn hex(digits: &str) -> Option<u32> {
    let all = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    all.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// Directories come in any order.
fn merge(ranges: &mut Vec<RangeInclusive<u64>>) {
    ranges.sort_unstable_by_key(|range| *range.start());
    ranges.dedup_by(|next, range| {
        let joined = *next.start() <= *range.end() + 1;
        if joined {
            *range = *range.start()..=*range.end().max(next.end());
        }
        joined
    });
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use repmgr_remote::{Host, LocalHost, ShellCommand, StartOptions, run};

    use super::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    fn name(text: &str) -> WalSegmentName {
        text.parse().unwrap()
    }

    fn timeline(id: u32) -> Timeline {
        Timeline::new(id).unwrap()
    }

    fn covered(text: &str) -> WalCoverage {
        WalCoverage::parse(&format!("{text}code 0\n"), SIZE).unwrap().0
    }

    fn list(archive: &Path, begin: &str, per_log: u32) -> (String, Option<i32>) {
        let mut here = LocalHost::default().connect().unwrap();
        let command =
            ShellCommand::script(SCRIPT).args([archive.to_str().unwrap(), begin, &per_log.to_string()]);
        let output = run(&mut *here, &command, StartOptions::default(), 1 << 20).unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.exit.code)
    }

    fn archive(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    #[test]
    fn an_archive_is_listed_from_the_begin_on_and_each_kind_of_file_is_told_apart() {
        let dir = archive(&[
            "0000000100000000/0000000100000000000000FF",
            "0000000100000001/000000010000000100000000",
            "0000000100000001/000000010000000100000001",
            "0000000100000001/000000010000000100000003",
            "0000000100000001/000000010000000100000003.00000028.backup",
            "0000000100000001/000000010000000100000004.partial",
            "0000000100000001/000000010000000100000100",
            "0000000100000001/000000020000000100000005",
            "0000000100000001/.0000000100000001000000060",
            "00000001000000E1/00000001000000E100000000",
            "0000000200000000/000000020000000000000001",
            "0000000200000001/000000020000000100000004",
            "00000002.history",
            "00000002.history.tmp",
            "xlog.db",
            "main-xlog.db",
        ]);
        let (text, code) = list(dir.path(), "0000000100000001", 256);
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.pop(), code), (Some("code 0"), Some(0)));
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "0000000100000001 0-1 3-3",
                "00000001000000E1 0-0",
                "0000000200000001 4-4",
                "history 00000002"
            ]
        );
    }

    #[test]
    fn an_archive_without_wal_is_empty_and_one_that_is_not_there_an_error() {
        let dir = archive(&["xlog.db"]);
        assert_eq!(
            list(dir.path(), "0000000100000000", 256),
            ("code 0\n".into(), Some(0))
        );
        assert_eq!(
            list(&dir.path().join("gone"), "0000000100000000", 256),
            (String::new(), Some(NO_ARCHIVE))
        );
    }

    #[test]
    fn ranges_join_across_directories_whatever_their_order_and_size() {
        let found = covered(
            "0000000100000001 0-3 5-255\nhistory 00000003\n0000000100000000 254-255\n0000000300000001 2-2\nhistory 00000002\n",
        );
        let shown: Vec<String> = found
            .ranges(timeline(1))
            .map(|r| format!("{}-{}", r.first, r.last))
            .collect();
        assert_eq!(
            shown,
            [
                "0000000100000000000000FE-000000010000000100000003",
                "000000010000000100000005-0000000100000001000000FF"
            ]
        );
        assert_eq!(found.timelines(), [timeline(2), timeline(3)]);
        assert_eq!(found.highest(timeline(3)), Some(name("000000030000000100000002")));
        assert_eq!(found.highest(timeline(2)), None);
        for (bytes, last) in [(1 << 20, 4095), (1 << 30, 3)] {
            let size = WalSegmentSize::from_bytes(bytes).unwrap();
            let text = format!("0000000100000000 {last}-{last}\n0000000100000001 0-0\ncode 0\n");
            let (found, _) = WalCoverage::parse(&text, size).unwrap();
            assert_eq!(found.ranges(timeline(1)).count(), 1, "{bytes}");
        }
    }

    #[test]
    fn the_first_hole_is_named_with_what_is_on_each_side() {
        let found = covered("0000000100000000 3-5 8-9\n");
        let one = WalPath::on(timeline(1));
        let segment = |n: u32| name(&format!("0000000100000000{n:08X}"));
        let hole = |missing, before: Option<u32>, after: Option<u32>| {
            Some(WalGap {
                missing: segment(missing),
                before: before.map(segment),
                after: after.map(segment),
            })
        };
        for (from, until, expected) in [
            (3, Some(6), None),
            (3, Some(7), hole(6, Some(5), Some(8))),
            (3, None, hole(6, Some(5), Some(8))),
            (2, Some(3), hole(2, None, Some(3))),
            (8, None, None),
            (8, Some(10), None),
            (8, Some(12), hole(10, Some(9), None)),
            (11, None, hole(11, None, None)),
            (11, Some(11), None),
        ] {
            let gap = found.gap(&one, segment(from), until.map(segment));
            assert_eq!(gap, expected, "{from} {until:?}");
        }
        assert!(found.contains(segment(8)) && !found.contains(segment(7)));
        let nothing = covered("");
        assert_eq!(nothing.gap(&one, segment(3), None), hole(3, None, None));
    }

    #[test]
    fn the_way_goes_over_to_the_next_timeline_in_the_segment_where_one_was_left() {
        let path =
            WalPath::from_history(timeline(3), b"1\t0/5000098\tno reason\n\n2\t0/7000000\tnone\n").unwrap();
        let found = covered("0000000100000000 3-9\n0000000200000000 5-6\n0000000300000000 7-8\n");
        let from = name("000000010000000000000003");
        assert_eq!(found.gap(&path, from, None), None);
        let end = found
            .gap(&path, from, Some(name("00000003000000000000000A")))
            .unwrap();
        assert_eq!(end.missing, name("000000030000000000000009"));
        assert_eq!(end.before, Some(name("000000030000000000000008")));
        let without = covered("0000000100000000 3-9\n0000000200000000 6-6\n0000000300000000 7-8\n");
        let gap = without.gap(&path, from, None).unwrap();
        assert_eq!(gap.missing, name("000000020000000000000005"));
        assert_eq!(gap.before, Some(name("000000010000000000000004")));
        assert_eq!(gap.after, Some(name("000000020000000000000006")));
    }

    #[test]
    fn a_history_that_makes_no_sense_is_refused() {
        for bad in [
            "x",
            "1",
            "1 0/G",
            "0 0/1",
            "3 0/1",
            "2 0/1\n1 0/2",
            "1 0/1\n1 0/2",
        ] {
            let error = WalPath::from_history(timeline(3), bad.as_bytes()).unwrap_err();
            assert!(
                error.to_string().contains("of 00000003.history is not"),
                "{error}"
            );
        }
    }

    #[test]
    fn other_output_is_an_error() {
        for bad in [
            "",
            "0000000100000000 0-1\n",
            "code x\n",
            "code 0\ncode 0\n",
            "0000000100000000 1-0\ncode 0\n",
            "0000000100000000 0-256\ncode 0\n",
            "00000001000000 0-1\ncode 0\n",
            "\u{fffd}000000100000000 0-1\ncode 0\n",
            "<html>\ncode 0\n",
        ] {
            assert!(WalCoverage::parse(bad, SIZE).is_err(), "{bad:?}");
        }
    }
}
