use repmgr_types::{Lsn, Timeline};

/// The ancestry of a timeline, as a `.history` file tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: Timeline,
    entries: Vec<HistoryEntry>,
}

/// One ancestor, and where the next one branched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The ancestor.
    pub timeline: Timeline,
    /// Its end in this history.
    pub end: Lsn,
}

/// A timeline history that PostgreSQL could not use. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line is something else.
    #[error("line {0} is not a timeline and a position")]
    Line(usize),
    /// A timeline does not come after the one before it and before the file's own.
    #[error("timelines are out of order in line {0}")]
    Order(usize),
    /// PostgreSQL writes no history for timeline 1, and every other one has a parent.
    #[error("it names no ancestor")]
    Empty,
}

impl TimelineHistory {
    /// Reads the file of `timeline` as PostgreSQL does: `TIMELINE POSITION [REASON]` on each line,
    /// timelines ascending and lower than its own, blank lines and `#` comments between.
    ///
    /// # Errors
    /// If PostgreSQL could not use it.
    pub fn parse(timeline: Timeline, bytes: &[u8]) -> Result<Self, HistoryError> {
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for (number, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
            let Some(entry) = parse_line(line).map_err(|()| HistoryError::Line(number))? else {
                continue;
            };
            let eldest = entries.last().map(|last| last.timeline);
            if entry.timeline >= timeline || eldest >= Some(entry.timeline) {
                return Err(HistoryError::Order(number));
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(HistoryError::Empty);
        }
        Ok(Self { timeline, entries })
    }

    /// The timeline whose ancestry this is.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Its ancestors, the eldest first.
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// Where the next timeline branched off an ancestor; `None` if it is no ancestor.
    pub fn left_at(&self, ancestor: Timeline) -> Option<Lsn> {
        let entry = self.entries.iter().find(|entry| entry.timeline == ancestor)?;
        Some(entry.end)
    }
}

/// `None` for a line that says nothing.
fn parse_line(line: &[u8]) -> Result<Option<HistoryEntry>, ()> {
    // The reason may be in any encoding.
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let Some(first) = words.next().filter(|word| !word.starts_with('#')) else {
        return Ok(None);
    };
    let timeline = first.parse().ok().and_then(Timeline::new).ok_or(())?;
    let end = words.next().and_then(|word| word.parse().ok()).ok_or(())?;
    Ok(Some(HistoryEntry { timeline, end }))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn timeline(id: u32) -> Timeline {
        Timeline::new(id).unwrap()
    }

    fn parse(text: &str) -> Result<TimelineHistory, HistoryError> {
        TimelineHistory::parse(timeline(3), text.as_bytes())
    }

    #[test]
    fn ancestors_read_in_order() {
        let history =
            parse("1\t0/3000148\tno recovery target specified\n\n# note\n2\tA/5000000\tbefore 2026\n")
                .unwrap();
        let seen: Vec<_> = history
            .entries()
            .iter()
            .map(|e| (e.timeline.id(), e.end.to_string()))
            .collect();
        assert_eq!(seen, [(1, "0/3000148".into()), (2, "A/5000000".into())]);
    }

    #[test]
    fn it_tells_where_an_ancestor_was_left() {
        let history = parse("1\t0/5000000\tx\n2\t1/A0\tbefore 2026\n").unwrap();
        assert_eq!(history.left_at(timeline(1)), Some(Lsn(0x500_0000)));
        assert_eq!(history.left_at(timeline(2)), Some(Lsn(0x1_0000_00A0)));
        assert_eq!(history.left_at(timeline(3)), None);
    }

    #[test]
    fn what_postgresql_would_refuse_is_refused() {
        use HistoryError::{Empty, Line, Order};
        for (bad, error) in [
            ("", Empty),
            ("# only a comment\n", Empty),
            ("1\n", Line(1)),
            ("0\t0/3000148\tx\n", Line(1)),
            ("\nx\t0/3000148\n", Line(2)),
            ("1\t3000148\n", Line(1)),
            ("2\t0/3000148\tx\n1\t0/4000000\tx\n", Order(2)),
            ("1\t0/3000148\tx\n1\t0/4000000\tx\n", Order(2)),
            ("3\t0/3000148\tx\n", Order(1)),
            ("\u{1f}\u{8b}binary", Line(1)),
        ] {
            assert_eq!(parse(bad), Err(error), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_history_is_read_as_it_was_written(
            ancestors in btree_map(1..u32::MAX, any::<u64>(), 1..9),
            reasons in vec("[ -~äß\t]{0,20}", 9),
        ) {
            let entries: Vec<_> = ancestors
                .iter()
                .map(|(id, end)| HistoryEntry { timeline: timeline(*id), end: Lsn(*end) })
                .collect();
            let text: String = entries
                .iter()
                .zip(&reasons)
                .map(|(e, reason)| format!("{}\t{}\t{reason}\n", e.timeline, e.end))
                .collect();
            let history = TimelineHistory::parse(timeline(u32::MAX), text.as_bytes()).unwrap();
            prop_assert_eq!(history.entries(), entries);
        }

        #[test]
        fn whatever_it_holds_nothing_panics(id in 1..=u32::MAX, bytes: Vec<u8>, text in "([0-9/A-F#\t ]*\n)*") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                if let Ok(history) = TimelineHistory::parse(timeline(id), bytes) {
                    prop_assert!(history.entries().iter().all(|e| e.timeline < timeline(id)));
                }
            }
        }
    }
}
