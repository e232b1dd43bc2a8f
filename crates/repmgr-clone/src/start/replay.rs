//! Where a server is in its WAL that takes no connection yet, from what its processes call themselves.

use std::fs;

use repmgr_types::WalSegmentName;

/// How PostgreSQL's startup process says what it replays (PostgreSQL 10 to 19).
const TITLE: &str = "recovering ";

/// The segment that the server with this process id replays; `None` if that cannot be seen.
pub(super) fn replayed_segment(server: i32) -> Option<WalSegmentName> {
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).ok()?;
    let titles = children
        .split_whitespace()
        .filter_map(|child| fs::read(format!("/proc/{child}/cmdline")).ok());
    titles
        .into_iter()
        .find_map(|title| in_title(&String::from_utf8_lossy(&title)))
}

fn in_title(title: &str) -> Option<WalSegmentName> {
    let (_, rest) = title.split_once(TITLE)?;
    rest.get(..24)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_of_the_startup_process_names_the_segment() {
        let segment = in_title("postgres: 15/main: startup recovering 00000001000000000000000A\0\0").unwrap();
        assert_eq!(segment.to_string(), "00000001000000000000000A");
        assert_eq!(in_title("postgres: startup recovering 0000000"), None);
        assert_eq!(in_title("postgres: walreceiver streaming 0/3000060"), None);
        // Nothing that replays is below us.
        assert_eq!(replayed_segment(std::process::id().cast_signed()), None);
    }
}
