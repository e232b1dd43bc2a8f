//! What an incremental backup builds upon (Barman 3.11 and later, PostgreSQL 17 and later).

use repmgr_types::BackupId;

use crate::backup::Backup;
use crate::error::BarmanError;
use crate::session::Barman;

/// Far more than anybody would want to combine.
const LONGEST: usize = 1000;

impl Barman {
    /// The backups that `newest` is to be combined from: the full one first, itself last. A full backup is
    /// alone.
    ///
    /// Parents are looked up by their literal ids beside `newest`, without asking Barman, and must be
    /// complete, of the same cluster, and older. Whether their files can be read is for
    /// [`own_form`](Backup::own_form) to say.
    ///
    /// # Errors
    /// [`BarmanError::BrokenChain`] when a parent is missing or does not fit; as for
    /// [`find_backup`](Self::find_backup) when one is not complete.
    pub fn chain(&mut self, newest: &Backup) -> Result<Vec<Backup>, BarmanError> {
        chain(newest, |child, id| self.beside(child, id))
    }
}

fn chain(
    newest: &Backup,
    mut find: impl FnMut(&Backup, &BackupId) -> Result<Option<Backup>, BarmanError>,
) -> Result<Vec<Backup>, BarmanError> {
    let mut chain = Vec::new();
    let mut child = newest.clone();
    while let Some(id) = child.parent.clone() {
        let broken = |what: String| BarmanError::BrokenChain {
            server: child.server.clone(),
            id: child.id.clone(),
            what,
        };
        if chain.len() + 1 == LONGEST {
            return Err(broken(format!("it stands on more than {LONGEST} others")));
        }
        let parent = find(&child, &id)?
            .ok_or_else(|| broken(format!("backup \"{id}\", which it builds upon, is not there")))?;
        if let Some(why) = misfit(&parent, &child) {
            return Err(broken(format!("backup \"{id}\", which it builds upon, {why}")));
        }
        chain.push(child);
        child = parent;
    }
    chain.push(child);
    chain.reverse();
    Ok(chain)
}

/// Why `child` cannot be an increment of `parent`. (Tablespaces and timeline may be others.)
fn misfit(parent: &Backup, child: &Backup) -> Option<&'static str> {
    if parent.version.major() != child.version.major() {
        return Some("was taken from another major version of PostgreSQL");
    }
    if parent.system_id != child.system_id {
        return Some("was taken from another cluster");
    }
    // Positions only fall on the way, so that it has an end.
    if parent.begin_lsn >= child.begin_lsn {
        return Some("did not begin before it");
    }
    // Old pages would have none, and PostgreSQL would take them for damaged.
    if parent.data_checksums == Some(false) && child.data_checksums == Some(true) {
        return Some("was made before data page checksums were switched on");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::tests::{INFO, read};
    use crate::form::Contents;

    /// Begun at `lsn`, with further changes.
    fn backup(id: &str, parent: &str, lsn: u32, changes: &[(&str, &str)]) -> Backup {
        let mut text = INFO
            .replace("parent_backup_id=None", &format!("parent_backup_id={parent}"))
            .replace("begin_xlog=0/3000028", &format!("begin_xlog=0/{lsn:X}"))
            + "data_checksums=on\n";
        for (from, to) in changes {
            assert!(text.contains(from));
            text = text.replace(from, to);
        }
        Backup {
            id: id.parse().unwrap(),
            ..read(&text, Contents::default()).unwrap()
        }
    }

    const A: &str = "20261126T000000";
    const B: &str = "20261126T010000";
    const C: &str = "20261126T020000";

    fn of(all: &[Backup]) -> Result<Vec<String>, BarmanError> {
        let find = |_: &Backup, id: &BackupId| Ok(all.iter().find(|backup| backup.id == *id).cloned());
        let chain = chain(all.last().unwrap(), find)?;
        Ok(chain.iter().map(|backup| backup.id.to_string()).collect())
    }

    fn broken(all: &[Backup]) -> String {
        let error = of(all).unwrap_err();
        assert!(matches!(error, BarmanError::BrokenChain { .. }) && error.hint().is_some());
        error.to_string()
    }

    #[test]
    fn a_chain_begins_with_the_full_backup() {
        let all = [
            backup(A, "None", 0x10, &[]),
            backup(
                B,
                A,
                0x20,
                &[("tablespaces=[", "tablespaces=[('new', 1, '/new'), ")],
            ),
            backup(C, B, 0x30, &[("version=170011", "version=170012")]),
        ];
        assert_eq!(of(&all).unwrap(), [A, B, C]);
        assert_eq!(of(&all[..1]).unwrap(), [A]);
    }

    #[test]
    fn a_parent_that_is_missing_or_not_complete_breaks_it() {
        let newest = backup(C, B, 0x30, &[]);
        let said = broken(std::slice::from_ref(&newest));
        assert!(
            said.contains(&format!("\"{C}\""))
                && said.contains(&format!("\"{B}\", which it builds upon, is not there")),
            "{said}"
        );
        let failed = chain(&newest, |child, id| {
            Err(BarmanError::BeingDeleted {
                server: child.server.clone(),
                id: id.clone(),
            })
        });
        assert!(matches!(failed, Err(BarmanError::BeingDeleted { id, .. }) if id.to_string() == B));
    }

    #[test]
    fn a_parent_that_does_not_fit_breaks_it() {
        for (changes, says) in [
            (("version=170011", "version=180000"), "another major version"),
            (("systemid=7", "systemid=8"), "from another cluster"),
            (
                ("data_checksums=on", "data_checksums=off"),
                "checksums were switched on",
            ),
        ] {
            let said = broken(&[backup(A, "None", 0x10, &[changes]), backup(B, A, 0x20, &[])]);
            assert!(said.contains(says), "{said}");
        }
        // Switched off meanwhile: nobody looks at those there are.
        let off = backup(B, A, 0x20, &[("data_checksums=on", "data_checksums=off")]);
        assert_eq!(of(&[backup(A, "None", 0x10, &[]), off]).unwrap(), [A, B]);
    }

    #[test]
    fn a_circle_has_an_end() {
        let said = broken(&[backup(A, B, 0x10, &[]), backup(B, A, 0x20, &[])]);
        assert!(said.contains("did not begin before it"), "{said}");
        let itself = broken(&[backup(A, A, 0x10, &[])]);
        assert!(itself.contains("did not begin before it"), "{itself}");
        let mut lsn = 0x300_0000;
        let endless = chain(&backup(C, B, 0x300_0000, &[]), |_, _| {
            lsn -= 1;
            Ok(Some(backup(B, B, lsn, &[])))
        });
        assert!(endless.unwrap_err().to_string().contains("more than 1000"));
    }
}
