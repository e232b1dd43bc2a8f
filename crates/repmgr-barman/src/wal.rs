use repmgr_remote::ShellCommand;
use repmgr_types::{Timeline, WalSegmentName};

use crate::backup::Backup;
use crate::error::BarmanError;
use crate::info::shown;
use crate::session::Barman;

/// Names of history files in the directory.
const HISTORIES: &str = r#"
for file in "$1"/????????.history; do
    if [ -e "$file" ]; then echo "${file##*/}"; fi
done
"#;

impl Barman {
    /// Whether a WAL segment can be had from Barman; before Barman 2.10 only from the archive proper, later
    /// also from what has just arrived.
    ///
    /// Looks where the archive is unless it is configured otherwise, beside the backups of which `backup`
    /// is one: 5 ms. Where the segment is not there Barman is asked, which takes 0.2 s and more.
    ///
    /// # Errors
    /// As for any call.
    pub fn has_wal(&mut self, backup: &Backup, name: WalSegmentName) -> Result<bool, BarmanError> {
        let name = name.to_string();
        // BARMAN_HOME/SERVER/base/ID; archived files keep their name when they are compressed.
        if let (Some(server), Some(log)) = (backup.directory.rsplitn(3, '/').nth(2), name.get(..16)) {
            let look = ShellCommand::new("test").args(["-s", &format!("{server}/wals/{log}/{name}")]);
            if self.run(&look, &look, self.call_timeout)?.exit.success() {
                return Ok(true);
            }
        }
        let command = self.command(&["get-wal", "--peek", "1", &self.address.server, &name]);
        let answer = self.call(&command)?;
        match answer.trim() {
            "" => Ok(false),
            line if line.rsplit('/').next() == Some(name.as_str()) => Ok(true),
            line => Err(self.unexpected(&command, format!("\"{}\" for {name}", shown(line.as_bytes())))),
        }
    }

    /// The timelines of the history files in the archive; nothing where it is not beside the backups of which
    /// `backup` is one. Does not ask Barman.
    ///
    /// # Errors
    /// As for any call.
    pub fn archived_timelines(&mut self, backup: &Backup) -> Result<Vec<Timeline>, BarmanError> {
        let Some(server) = backup.directory.rsplitn(3, '/').nth(2) else {
            return Ok(Vec::new());
        };
        let list = ShellCommand::script(HISTORIES).arg(format!("{server}/wals"));
        let named = ShellCommand::new("ls").arg(format!("{server}/wals"));
        let output = self.run(&list, &named, self.call_timeout)?;
        if !output.exit.success() {
            return Err(self.unexpected(&named, output.exit.status()));
        }
        let names = String::from_utf8_lossy(&output.stdout);
        let id = |name: &str| u32::from_str_radix(name.strip_suffix(".history")?, 16).ok();
        Ok(names.lines().filter_map(id).filter_map(Timeline::new).collect())
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
