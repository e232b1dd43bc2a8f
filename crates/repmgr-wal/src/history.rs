use repmgr_types::{Lsn, Timeline};

use crate::ContentError;

/// The ancestry of a timeline, as a `.history` file tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimelineHistory {
    timeline: Timeline,
    entries: Vec<HistoryEntry>,
}

/// One ancestor, and where the next one branched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    /// The ancestor.
    pub(crate) timeline: Timeline,
    /// Its end in this history.
    pub(crate) end: Lsn,
}

impl TimelineHistory {
    /// Reads the file of `timeline` as PostgreSQL does: `TIMELINE POSITION [REASON]` on each line,
    /// timelines ascending and lower than its own, blank lines and `#` comments between.
    ///
    /// # Errors
    /// If PostgreSQL could not use it.
    pub(crate) fn parse(timeline: Timeline, bytes: &[u8]) -> Result<Self, ContentError> {
        let bad = |reason: String| ContentError::History { reason };
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
            // The reason may be in any encoding.
            let line = String::from_utf8_lossy(line);
            let mut words = line.split_whitespace();
            let Some(first) = words.next().filter(|w| !w.starts_with('#')) else {
                continue;
            };
            let entry = first
                .parse()
                .ok()
                .and_then(Timeline::new)
                .zip(words.next().and_then(|w| w.parse().ok()))
                .map(|(timeline, end)| HistoryEntry { timeline, end })
                .ok_or_else(|| bad(format!("line {} is not a timeline and a position", number + 1)))?;
            if entry.timeline >= timeline
                || entries.last().is_some_and(|last| last.timeline >= entry.timeline)
            {
                return Err(bad(format!("timelines are out of order in line {}", number + 1)));
            }
            entries.push(entry);
        }
        // PostgreSQL writes none for timeline 1, and every other one has a parent.
        if entries.is_empty() {
            return Err(bad("it names no ancestor".to_owned()));
        }
        Ok(Self { timeline, entries })
    }

    /// The timeline whose ancestry this is.
    pub(crate) fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Its ancestors, the eldest first.
    pub(crate) fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TimelineHistory, ContentError> {
        TimelineHistory::parse(Timeline::new(3).unwrap(), text.as_bytes())
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
    fn what_postgresql_would_refuse_is_refused() {
        for bad in [
            "",
            "# only a comment\n",
            "1\n",
            "0\t0/3000148\tx\n",
            "x\t0/3000148\n",
            "1\t3000148\n",
            "2\t0/3000148\tx\n1\t0/4000000\tx\n",
            "3\t0/3000148\tx\n",
            "\u{1f}\u{8b}binary",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
