//! That Barman, asked for a file it does not find, looks at an archive at all.
//!
//! A directory that is not mounted holds nothing, and Barman says of each file that it is not found. Taken
//! for the end of the archive this opens a database far too early.

use std::io::Read;

use repmgr_pgfile::open_file;
use repmgr_types::WalSegmentName;

use super::Archive;
use crate::{Cluster, FetchError, WalFileName};

impl Archive {
    /// Whether Barman finds a segment that an archive without `absent` would hold: the one before it, or
    /// the one in which the base backup of this cluster began.
    ///
    /// With `--peek` it says so without sending the segment.
    pub(super) fn barman_shows_wal(&mut self, absent: WalFileName) -> Result<bool, FetchError> {
        let before = absent
            .segment()
            .and_then(|segment| segment.previous(self.segment_size));
        let begin = self.options.local_wal.as_ref().and_then(|wal| {
            let cluster = Cluster::of_destination(&wal.join("RECOVERYXLOG"));
            ["backup_label", "backup_label.old"]
                .iter()
                .find_map(|label| begin_of(&mut open_file(&cluster.file(label)).ok()?))
        });
        let server = self.options.address.server.clone();
        for segment in [before, begin].into_iter().flatten() {
            let name = segment.to_string();
            let command = self.barman(&["get-wal", "--peek", "1", &server, &name]);
            // A name alone, or with its directory.
            let is_it = |line: &str| line.trim().rsplit('/').next() == Some(name.as_str());
            if self.said(&command)?.lines().any(is_it) {
                return Ok(true);
            }
        }
        log::debug!("nothing shows that Barman looks at the archive of \"{server}\"");
        Ok(false)
    }
}

/// What a backup label says: `START WAL LOCATION: 0/3000028 (file 000000010000000000000003)`.
fn begin_of(label: &mut dyn Read) -> Option<WalSegmentName> {
    const LONGEST: u64 = 64 << 10;
    let mut text = String::new();
    label.take(LONGEST).read_to_string(&mut text).ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("START WAL LOCATION: "))?;
    let (_, file) = line.split_once("(file ")?;
    file.strip_suffix(')')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_label_names_the_segment_in_which_the_backup_began() {
        let label = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\nCHECKPOINT LOCATION: x\n";
        let begin = begin_of(&mut label.as_bytes()).unwrap();
        assert_eq!(begin.to_string(), "000000010000000000000003");
        for other in [
            "",
            "START WAL LOCATION: 0/3000028\n",
            "START WAL LOCATION: 0/3 (file x)\n",
        ] {
            assert_eq!(begin_of(&mut other.as_bytes()), None, "{other:?}");
        }
    }
}
