//! Figures of all rounds as tables.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use repmgr_lab::check;

use super::measure::Run;

/// All runs of one contender.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) runs: Vec<Run>,
}

impl Row {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            runs: Vec::new(),
        }
    }

    fn sorted(&self, figure: fn(&Run) -> f64) -> Vec<f64> {
        let mut all: Vec<f64> = self.runs.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The one in the middle, or between the two there.
    fn median(&self, figure: fn(&Run) -> f64) -> f64 {
        let all = self.sorted(figure);
        let half = all.len() / 2;
        if all.len() % 2 == 1 {
            all[half]
        } else {
            all[half - 1].midpoint(all[half])
        }
    }

    fn wall(&self) -> f64 {
        self.median(|run| run.wall)
    }
}

/// A Markdown table that is good to read on the terminal too. The first row is what others are compared to.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| way | median s | min | max | times ours | CPU s | peak MiB |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    for row in rows {
        let walls = row.sorted(|run| run.wall);
        let (Some(min), Some(max), Some(first)) = (walls.first(), walls.last(), rows.first()) else {
            continue;
        };
        let peak = row.sorted(|run| run.peak).pop().unwrap_or_default();
        text += &format!(
            "| {:width$} | {:6.2} | {min:6.2} | {max:6.2} | {:5.2} | {:6.2} | {peak:5.0} |\n",
            row.name,
            row.wall(),
            row.wall() / first.wall(),
            row.median(|run| run.cpu),
        );
    }
    text
}

/// When and on what this was measured.
pub(crate) fn machine() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let memory = read("/proc/meminfo");
    let kib = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok());
    let cores = std::thread::available_parallelism()?;
    let date = check(Command::new("date").args(["-u", "+%F"]), Duration::from_secs(10))?;
    Ok(format!(
        "{}, {cores} cores ({model}), {} GiB of memory, Linux {}, load {} at the start",
        date.trim(),
        kib.unwrap_or_default().div_ceil(1 << 20),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg")
            .split_whitespace()
            .next()
            .unwrap_or("unknown"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, walls: &[f64]) -> Row {
        let run = |wall: &f64| Run {
            wall: *wall,
            cpu: 1.0,
            peak: 10.0,
        };
        Row {
            name: name.to_owned(),
            runs: walls.iter().map(run).collect(),
        }
    }

    #[test]
    fn a_row_has_median_range_and_ratio_to_the_first() {
        let text = table(&[row("ours", &[3.0, 1.0, 2.0]), row("other", &[8.0, 4.0])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2],
            "| ours  |   2.00 |   1.00 |   3.00 |  1.00 |   1.00 |    10 |"
        );
        assert_eq!(
            lines[3],
            "| other |   6.00 |   4.00 |   8.00 |  3.00 |   1.00 |    10 |"
        );
    }
}
