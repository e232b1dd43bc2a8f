use repmgr_remote::{ShellCommand, one_line};
use repmgr_types::BackupId;

use crate::backup::{self, Backup};
use crate::complaint::complaint;
use crate::describe::{self, Description};
use crate::error::BarmanError;
use crate::form::{Unreadable, UnreadableReason};
use crate::info::{Info, InfoError, shown};
use crate::kind::BackupStatus;
use crate::session::{Barman, check_word};

/// Runs its arguments, prints the first line of the output, and how they ended. The rest of a long list
/// is never made: Barman is cut off at its next write.
const FIRST_LINE: &str = r#"
exec 3>&1
code=$({ { "$@" 3>&- 4>&-; echo "$?" >&4; } | head -n 1 >&3; } 4>&1)
printf '\nexit %s\n' "$code"
"#;

/// More than Linux allows.
const LONGEST_PATH: usize = 16 << 10;
/// Nobody nests so many directories named like backups above the one that matters, which comes early.
const MOST_CANDIDATES: usize = 16;

/// A place where a backup may be: the directory of all backups, and an id in it.
pub(crate) type Candidate = (String, BackupId);

impl Barman {
    /// Finds a backup by its id, a shortcut of Barman (`latest`, `oldest`, `latest-full`, ...) or, from
    /// Barman 3.3 on, its name; refuses one that is not complete.
    ///
    /// The word is resolved once; everything later goes by the literal id. Takes no lock of Barman's and
    /// asks it once, for a list of files that is cut after the first.
    pub fn find_backup(&mut self, wanted: &str) -> Result<Backup, BarmanError> {
        check_word("backup", wanted)?;
        // Barman (up to 3.19 at least) takes each part of this word for it, the empty one included.
        if "last-failed".contains(wanted) && wanted != "last" {
            return Err(BarmanError::BadWord {
                what: "backup",
                word: wanted.to_owned(),
                reason: "Barman would choose a failed backup",
            });
        }
        let (found, meta, description) = self.locate(wanted)?;
        self.read(found, meta, &description)
    }

    /// Where a backup is that Barman knows by this word, and where its notes are if not in the usual place.
    pub(crate) fn locate(
        &mut self,
        wanted: &str,
    ) -> Result<(Candidate, Option<String>, Description), BarmanError> {
        let server = self.address.server.clone();
        let list = self.command(&["list-files", "--target", "data", &server, wanted]);
        let Some(line) = self.first_line(&list, wanted)? else {
            return Err(self.explain_no_files(&list, wanted)?);
        };
        let candidates = self.candidates(&list, &line, wanted.parse().ok())?;
        if let Some((found, description)) = self.describe(None, &candidates)? {
            return Ok((found, None, description));
        }
        // Backups that are kept elsewhere: only Barman knows where its notes on them are.
        let meta = self.meta_directory()?;
        match self.describe(Some(&meta), &candidates)? {
            Some((found, description)) => Ok((found, Some(meta), description)),
            None => {
                let (base, id) = candidates[0].clone();
                Err(self.metadata_missing(id, vec![format!("{base}/../meta"), meta, base]))
            }
        }
    }

    /// Looks again at a backup that was found: it must still be complete, not being deleted, and the same.
    ///
    /// To be called after [`Hold::take`](crate::Hold::take), and when all is copied.
    pub fn recheck(&mut self, known: &Backup) -> Result<(), BarmanError> {
        let changed = |what: &str| BarmanError::Changed {
            server: known.server.clone(),
            id: known.id.clone(),
            what: what.to_owned(),
        };
        let Some(now) = self.beside(known, &known.id)? else {
            return Err(changed("its backup.info is gone"));
        };
        match known.difference(&now) {
            None => Ok(()),
            Some(key) => Err(changed(&format!("{key} is not what it was"))),
        }
    }

    /// The backup `id` of the same server as `known`, if it is there. Does not ask Barman.
    pub(crate) fn beside(&mut self, known: &Backup, id: &BackupId) -> Result<Option<Backup>, BarmanError> {
        let base = known
            .directory
            .strip_suffix(known.id.as_str())
            .unwrap_or(&known.directory);
        let base = base
            .strip_suffix('/')
            .filter(|base| !base.is_empty())
            .unwrap_or("/");
        let candidate = (base.to_owned(), id.clone());
        match self.describe(known.meta.as_deref(), &[candidate])? {
            Some((found, description)) => self.read(found, known.meta.clone(), &description).map(Some),
            None => Ok(None),
        }
    }

    /// The first line of a list of files; `None` if it is empty.
    fn first_line(&mut self, list: &ShellCommand, wanted: &str) -> Result<Option<Vec<u8>>, BarmanError> {
        let server = self.address.server.clone();
        let words = self
            .calling
            .words(&["list-files", "--target", "data", &server, wanted]);
        let output = self.run_script(&ShellCommand::script(FIRST_LINE).args(words), list)?;
        let Some((line, code)) = split_first_line(&output.stdout) else {
            return Err(self.unexpected(list, format!("it ends with {}", output.exit.status())));
        };
        self.refuse_inactive(line)?;
        // With a first line Barman was cut off and its exit code is about that.
        if !line.is_empty() {
            return Ok(Some(line.to_vec()));
        }
        if code == 0 {
            return Ok(None);
        }
        let stderr = output.exit.stderr_text();
        if complaint(&stderr).contains("Unknown backup '") {
            return Err(self.unknown_backup(wanted));
        }
        Err(self.failed(list, Some(code), &format!("exit code {code}"), &stderr))
    }

    fn unknown_backup(&mut self, wanted: &str) -> BarmanError {
        let server = self.address.server.clone();
        let lines = self.side_call(&["list-backup", "--minimal", &server]);
        let known: Vec<BackupId> = lines.iter().filter_map(|line| line.parse().ok()).collect();
        let host = self.host().to_owned();
        const ANY: [&str; 6] = ["latest", "last", "oldest", "first", "latest-full", "last-full"];
        if known.is_empty() || ANY.contains(&wanted) {
            return BarmanError::NoBackup {
                host,
                server,
                incomplete: known.len(),
            };
        }
        BarmanError::UnknownBackup {
            host,
            server,
            wanted: wanted.to_owned(),
            known: known.into_iter().take(5).collect(),
        }
    }

    /// Why a backup that Barman knows has no files.
    fn explain_no_files(&mut self, list: &ShellCommand, wanted: &str) -> Result<BarmanError, BarmanError> {
        let server = self.address.server.clone();
        let show = self.command(&["show-backup", &server, wanted]);
        let text = self.call(&show)?;
        let Some(shown) = Shown::parse(&text) else {
            return Err(self.unexpected(&show, "neither an id nor a status".to_owned()));
        };
        Ok(if shown.status.is_complete() {
            self.unexpected(
                list,
                format!("no file of backup {}, which is {}", shown.id, shown.status),
            )
        } else {
            BarmanError::NotDone {
                server,
                id: shown.id,
                status: shown.status,
                error: shown.error,
            }
        })
    }

    /// Where the backup may be to which a listed file belongs. There are several if directories above or
    /// below it are named like backups, too.
    fn candidates(
        &self,
        list: &ShellCommand,
        line: &[u8],
        wanted: Option<BackupId>,
    ) -> Result<Vec<Candidate>, BarmanError> {
        let odd = |why: &str| self.unexpected(list, format!("{why} in \"{}\"", shown(line)));
        if line.len() > LONGEST_PATH {
            return Err(odd("a path too long"));
        }
        let found = candidates(line, wanted.as_ref());
        let Some((base, id)) = found.first() else {
            return Err(odd("no backup"));
        };
        if !base.starts_with('/') {
            // The key of an object in a bucket (Barman 3.18 and later).
            return Err(Unreadable {
                server: self.address.server.clone(),
                id: id.clone(),
                reason: UnreadableReason::Cloud,
            }
            .into());
        }
        if base.split('/').any(|part| part == ".." || part == ".") {
            return Err(odd("a relative path"));
        }
        Ok(found)
    }

    fn describe(
        &mut self,
        meta: Option<&str>,
        candidates: &[Candidate],
    ) -> Result<Option<(Candidate, Description)>, BarmanError> {
        let pairs = candidates
            .iter()
            .flat_map(|(base, id)| [base.as_str(), id.as_str()]);
        let command = ShellCommand::script(describe::SCRIPT)
            .arg(meta.unwrap_or_default())
            .args(pairs);
        let (base, id) = &candidates[0];
        let shown = ShellCommand::new("sed")
            .arg("")
            .arg(format!("{base}/{id}/backup.info"));
        let output = self.run_script(&command, &shown)?;
        let (code, message) = (output.exit.code, output.exit.stderr_text());
        if code == Some(describe::CANNOT_READ) {
            return Err(BarmanError::MetadataDenied {
                host: self.host().to_owned(),
                server: self.address.server.clone(),
                id: id.clone(),
                message,
            });
        }
        if !output.exit.success() {
            return Err(self.failed(&shown, code, &output.exit.status(), &message));
        }
        let parsed = Description::parse(&output.stdout).map_err(|what| self.unexpected(&shown, what))?;
        parsed
            .map(|description| match candidates.get(description.candidate) {
                Some(candidate) => Ok((candidate.clone(), description)),
                None => Err(self.unexpected(&shown, format!("candidate {}", description.candidate))),
            })
            .transpose()
    }

    fn read(
        &self,
        (base, id): Candidate,
        meta: Option<String>,
        description: &Description,
    ) -> Result<Backup, BarmanError> {
        let server = &self.address.server;
        let unusable = |source: InfoError| BarmanError::Metadata {
            host: self.host().to_owned(),
            server: server.clone(),
            id: id.clone(),
            source: Box::new(source),
        };
        if description.being_deleted {
            return Err(BarmanError::BeingDeleted {
                server: server.clone(),
                id,
            });
        }
        let found = description.found();
        let info = Info::parse(found.info).map_err(unusable)?;
        let status = backup::status(&info).map_err(unusable)?;
        if !status.is_complete() {
            return Err(BarmanError::NotDone {
                server: server.clone(),
                error: info.text("error").map_err(unusable)?.map(one_line),
                id,
                status,
            });
        }
        let directory = format!("{}/{id}", base.trim_end_matches('/'));
        Backup::read(server, id.clone(), directory, meta, &info, found).map_err(unusable)
    }

    /// Where a Barman of 3.13.2 or later has its notes on this server's backups.
    pub(crate) fn meta_directory(&mut self) -> Result<String, BarmanError> {
        Ok(format!("{}/meta", self.directory_setting("backup_directory")?))
    }

    /// A directory of Barman's configuration for this server, without a slash at its end. Barman asks the primary
    /// as well, which may take until the limit.
    pub(crate) fn directory_setting(&mut self, key: &str) -> Result<String, BarmanError> {
        let server = self.address.server.clone();
        let show = self.command(&["show-server", &server]);
        let text = self.call(&show)?;
        let value = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        match value {
            Some(directory) if directory.starts_with('/') => Ok(directory.trim_end_matches('/').to_owned()),
            _ => Err(self.unexpected(&show, format!("no directory for {key}"))),
        }
    }

    fn metadata_missing(&self, id: BackupId, looked_in: Vec<String>) -> BarmanError {
        BarmanError::MetadataMissing {
            host: self.host().to_owned(),
            server: self.address.server.clone(),
            id,
            looked_in,
        }
    }
}

fn split_first_line(output: &[u8]) -> Option<(&[u8], i32)> {
    let output = output.strip_suffix(b"\n")?;
    let at = output.iter().rposition(|b| *b == b'\n')?;
    let code = std::str::from_utf8(&output[at + 1..])
        .ok()?
        .strip_prefix("exit ")?;
    Some((output[..at].trim_ascii(), code.parse().ok()?))
}

/// The outermost first: what lies inside a backup may be anything.
fn candidates(line: &[u8], wanted: Option<&BackupId>) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut start = 0;
    for part in line.split(|b| *b == b'/') {
        let id = std::str::from_utf8(part).ok().and_then(|part| part.parse().ok());
        if let Some(id) = id.filter(|id| wanted.is_none_or(|wanted| wanted == id))
            && let Ok(base) = std::str::from_utf8(&line[..start])
        {
            let base = if base.len() > 1 {
                base.trim_end_matches('/')
            } else {
                base
            };
            found.push((base.to_owned(), id));
            if found.len() == MOST_CANDIDATES {
                break;
            }
        }
        start += part.len() + 1;
    }
    found
}

/// What `show-backup` prints about a backup that has no files.
struct Shown {
    id: BackupId,
    status: BackupStatus,
    error: Option<String>,
}

impl Shown {
    fn parse(text: &str) -> Option<Self> {
        let value = |label: &str| {
            let mut pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
            let value = pairs.find(|(key, _)| key.trim() == label)?.1;
            // 2.x prints "Error:            : text".
            Some(value.trim_start_matches([':', ' ']).trim())
        };
        let id = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Backup ")?.strip_suffix(':'))?;
        Some(Self {
            id: id.parse().ok()?,
            status: value("Status")?.parse().ok()?,
            error: value("Error")
                .filter(|text| !text.is_empty() && *text != "None")
                .map(one_line),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repmgr_remote::{Host, LocalHost, StartOptions, run};

    fn first_line(script: &str) -> (String, i32) {
        let mut here = LocalHost::default().connect().unwrap();
        let command = ShellCommand::script(FIRST_LINE).args(["sh", "-c", script]);
        let output = run(&mut *here, &command, StartOptions::default(), 1 << 20).unwrap();
        assert!(output.exit.success(), "{output:?}");
        let (line, code) = split_first_line(&output.stdout).unwrap();
        (String::from_utf8(line.to_vec()).unwrap(), code)
    }

    #[test]
    fn a_list_is_cut_after_its_first_line_and_keeps_its_exit_code() {
        assert_eq!(first_line("echo '/a b'; exit 3"), ("/a b".into(), 3));
        assert_eq!(first_line("exit 1"), (String::new(), 1));
        assert_eq!(
            first_line("exec no-such-program 2>/dev/null"),
            (String::new(), 127)
        );
        assert_eq!(first_line("printf /x"), ("/x".into(), 0));
        assert_eq!(
            first_line("while echo /endless 2>/dev/null; do :; done; exit 1"),
            ("/endless".into(), 141)
        );
        for bad in ["", "\n", "/x\n", "/x\nexit \n", "/x\nexit 0"] {
            assert_eq!(split_first_line(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn the_directory_of_a_backup_is_found_in_the_path_of_any_of_its_files() {
        let id = |text: &str| text.parse::<BackupId>().unwrap();
        let a = "20261126T004606";
        let base = "/srv/20200101T000000/main/base";
        let line = format!("{base}/{a}/data/20210101T000000/x");
        let both = candidates(line.as_bytes(), None);
        let bases: Vec<&str> = both.iter().map(|(base, _)| base.as_str()).collect();
        assert_eq!(bases, ["/srv", base, &format!("{base}/{a}/data")]);
        assert_eq!(
            candidates(line.as_bytes(), Some(&id(a))),
            [(base.to_owned(), id(a))]
        );
        let inside = format!("{base}/{a}/data/\u{fffd}");
        let mut inside = inside.into_bytes();
        inside.extend(b"\xff");
        assert_eq!(candidates(&inside, Some(&id(a))).len(), 1);
        assert_eq!(candidates(b"/20261126T004606/x", None), [("/".to_owned(), id(a))]);
        assert_eq!(
            candidates(b"prefix/main/base/20261126T004606/x", None)[0].0,
            "prefix/main/base"
        );
        let many = "/20261126T004606".repeat(1000);
        assert_eq!(candidates(many.as_bytes(), None).len(), MOST_CANDIDATES);
        assert_eq!(candidates(b"Skipping inactive server 'x'", None), []);
    }

    #[test]
    fn a_backup_without_files_is_explained_by_every_version() {
        let v2_19 = "Backup 20260101T000006:\n  Server Name            : main\n  Status                 : FAILED\n  Error:            : failure copying\n";
        let v3_19 = "Backup 20260101T000006:\n  Server Name            : main\n  Status                 : FAILED\n\n  Error                  : failure copying\n";
        for text in [v2_19, v3_19] {
            let shown = Shown::parse(text).unwrap();
            assert_eq!(
                (shown.status, shown.error.as_deref()),
                (BackupStatus::Failed, Some("failure copying"))
            );
        }
        let done = "Backup 20260101T000006:\n  Status : WAITING_FOR_WALS\n";
        assert_eq!(Shown::parse(done).unwrap().status, BackupStatus::WaitingForWals);
        for bad in [
            "",
            "Status : DONE",
            "Backup x:\n Status: DONE",
            "Backup 20260101T000006:\n Status : FINE",
        ] {
            assert!(Shown::parse(bad).is_none(), "{bad}");
        }
    }
}
