use repmgr_remote::ShellCommand;
use repmgr_types::{Timeline, WalSegmentName};

use crate::backup::Backup;
use crate::coverage::{self, WalCoverage};
use crate::error::BarmanError;
use crate::info::shown;
use crate::session::Barman;

impl Barman {
    /// Whether Barman has a WAL segment. Before Barman 2.10 only the archive proper counts, later also what has
    /// just arrived.
    ///
    /// Looks first where the archive usually is, beside the directory of all backups: 5 ms. If the segment is not
    /// there, Barman is asked, which takes 0.2 s and more.
    ///
    /// # Errors
    /// As for any call.
    pub fn has_wal(&mut self, backup: &Backup, name: WalSegmentName) -> Result<bool, BarmanError> {
        let text = name.to_string();
        // BARMAN_HOME/SERVER/base/ID, unless known better; archived files keep their name when they are compressed.
        let usual = backup.directory.rsplitn(3, '/').nth(2);
        let wals = self
            .wals_directory
            .clone()
            .or_else(|| usual.map(|home| format!("{home}/wals")));
        let mut places = Vec::new();
        if let (Some(wals), Some(log)) = (wals, text.get(..16)) {
            places.push(format!("{wals}/{log}/{text}"));
        }
        // What has arrived and was not put into the archive yet.
        let arrived = |home| ["incoming", "streaming"].map(|name| format!("{home}/{name}/{text}"));
        places.extend(usual.into_iter().flat_map(arrived));
        let mut look = ShellCommand::new("test");
        for (n, place) in places.iter().enumerate() {
            let or: &[&str] = if n == 0 { &[] } else { &["-o"] };
            look = look.args(or).args(["-s", place.as_str()]);
        }
        if !places.is_empty() && self.run(&look, &look, self.call_timeout)?.exit.success() {
            return Ok(true);
        }
        Ok(self.peek(name)?.is_some())
    }

    /// Which WAL the archive proper holds, from the directory with the first segment of `backup` on, by timeline;
    /// and which history files.
    ///
    /// Barman is asked once in a session where its archive is: 0.2 s and more. The listing is one command there
    /// that reads names only; a million segments are some 100 kB to send.
    ///
    /// # Errors
    /// [`BarmanError::NoArchive`] when the archive is not where Barman has it, or cannot be read; else as for any
    /// call.
    pub fn wal_coverage(&mut self, backup: &Backup) -> Result<WalCoverage, BarmanError> {
        let wals = self.wals_directory(backup)?;
        let begin = backup.begin_wal.to_string();
        let per_directory = (1_u64 << 32) / backup.segment_size.bytes();
        let list = ShellCommand::script(coverage::SCRIPT)
            .args([wals.as_str(), begin.get(..16).unwrap_or_default()])
            .arg(per_directory.to_string());
        let named = ShellCommand::new("find").arg(&wals);
        let output = self.run_script(&list, &named)?;
        let message = output.exit.stderr_text();
        let unreadable = |message: String| BarmanError::NoArchive {
            host: self.host().to_owned(),
            server: self.address.server.clone(),
            directory: wals.clone(),
            message,
        };
        if output.exit.code == Some(coverage::NO_ARCHIVE) {
            return Err(unreadable(message));
        }
        if !output.exit.success() {
            return Err(self.failed(&named, output.exit.code, &output.exit.status(), &message));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (coverage, code) =
            WalCoverage::parse(&text, backup.segment_size).map_err(|what| self.unexpected(&named, what))?;
        // Retention may remove a directory meanwhile, and what is gone is not there.
        let gone = |line: &str| line.ends_with("No such file or directory");
        let only_gone = !message.is_empty() && message.lines().all(gone);
        if code != 0 && !only_gone {
            return Err(unreadable(message));
        }
        Ok(coverage)
    }

    /// Where the archive is; `wals_directory` may lead anywhere. A path that Barman gives for a segment tells it
    /// without a look at the primary; if the archive lacks the backup's first one, Barman looks at the primary, too.
    fn wals_directory(&mut self, backup: &Backup) -> Result<String, BarmanError> {
        if let Some(known) = &self.wals_directory {
            return Ok(known.clone());
        }
        let found = match self.peek(backup.begin_wal)?.as_deref().and_then(archive_of) {
            Some(directory) => directory.to_owned(),
            None => self.directory_setting("wals_directory")?,
        };
        Ok(self.wals_directory.insert(found).clone())
    }

    /// The path that Barman would deliver a segment from.
    fn peek(&mut self, name: WalSegmentName) -> Result<Option<String>, BarmanError> {
        let name = name.to_string();
        let command = self.command(&["get-wal", "--peek", "1", &self.address.server, &name]);
        let answer = self.call(&command)?;
        match answer.trim() {
            "" => Ok(None),
            line if line.rsplit('/').next() == Some(name.as_str()) => Ok(Some(line.to_owned())),
            line => Err(self.unexpected(&command, format!("\"{}\" for {name}", shown(line.as_bytes())))),
        }
    }

    /// A whole WAL segment as Barman delivers it, decompressed: its bytes are put behind those of `into`.
    ///
    /// # Errors
    /// When Barman does not have it, or it has more than `limit` bytes; else as for any call.
    pub fn read_wal(
        &mut self,
        name: WalSegmentName,
        limit: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), BarmanError> {
        let command = self.command(&["get-wal", &self.address.server, &name.to_string()]);
        let output = self.run_up_to(&command, &command, self.call_timeout, limit)?;
        if !output.exit.success() {
            let message = output.exit.stderr_text();
            return Err(self.failed(&command, output.exit.code, &output.exit.status(), &message));
        }
        self.refuse_inactive(&output.stdout)?;
        into.extend_from_slice(&output.stdout);
        Ok(())
    }

    /// The history file of `timeline`, which says where each earlier one was left; `None` when Barman does
    /// not have it (as for timeline 1, which has none).
    pub fn timeline_history(&mut self, timeline: Timeline) -> Result<Option<Vec<u8>>, BarmanError> {
        let name = timeline.history_file_name();
        let command = self.command(&["get-wal", &self.address.server, &name]);
        let output = self.run(&command, &command, self.call_timeout)?;
        self.refuse_inactive(&output.stdout)?;
        if output.exit.success() {
            return Ok(Some(output.stdout));
        }
        let message = output.exit.stderr_text();
        if message.contains(&format!("WAL file '{name}' not found in server")) {
            return Ok(None);
        }
        Err(self.failed(&command, output.exit.code, &output.exit.status(), &message))
    }
}

/// The archive that a segment lies in: `/archive` of `/archive/0000000100000000/000000010000000000000003`. What has
/// just arrived (`incoming/000000010000000000000003`) is in none.
fn archive_of(path: &str) -> Option<&str> {
    let mut parts = path.rsplitn(3, '/');
    let (name, directory, archive) = (parts.next()?, parts.next()?, parts.next()?);
    (archive.starts_with('/') && name.get(..16) == Some(directory)).then_some(archive)
}

#[cfg(test)]
mod tests {
    use super::archive_of;

    #[test]
    fn only_an_archived_segment_tells_where_the_archive_is() {
        let name = "000000010000000000000003";
        assert_eq!(
            archive_of(&format!("/a b/wals/0000000100000000/{name}")),
            Some("/a b/wals")
        );
        for other in [
            format!("/main/incoming/{name}"),
            format!("/main/streaming/{name}"),
            format!("prefix/0000000100000000/{name}"),
            format!("/0000000100000000/{name}"),
            name.to_owned(),
        ] {
            assert_eq!(archive_of(&other), None, "{other}");
        }
    }
}
