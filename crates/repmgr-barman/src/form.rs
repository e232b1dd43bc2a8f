use repmgr_types::{BackupId, Hint, Remedy};

use crate::backup::Backup;
use crate::error::as_barmans_user;
use crate::kind::BackupMode;

/// How the files of a backup lie on the Barman host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they were: `data`, and a directory for each tablespace.
    Plain,
    /// `base.tar*` and a `OID.tar*` for each tablespace, all in `data` (Barman 3.0 and later).
    Tar {
        /// What the tar files are compressed with.
        codec: TarCodec,
    },
}

/// What a tar file is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarCodec {
    /// Nothing: `.tar`.
    None,
    /// `.tar.gz`.
    Gzip,
    /// `.tar.lz4`.
    Lz4,
    /// `.tar.zst`.
    Zstd,
}

impl TarCodec {
    const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Lz4, Self::Zstd];

    /// How the names of such files end.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => ".tar",
            Self::Gzip => ".tar.gz",
            Self::Lz4 => ".tar.lz4",
            Self::Zstd => ".tar.zst",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// A complete backup whose files cannot be read without Barman, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("backup \"{id}\" of Barman server \"{server}\" cannot be read directly: {reason}")]
pub struct Unreadable {
    /// The Barman server.
    pub server: String,
    /// The backup.
    pub id: BackupId,
    /// Why.
    pub reason: UnreadableReason,
}

/// Why a backup cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableReason {
    /// Snapshots of cloud disks (Barman 3.4 and later).
    #[error("it consists of disk snapshots (mode \"{mode}\")")]
    Snapshot {
        /// The key `mode`.
        mode: String,
    },
    /// Nothing of it is on the Barman host (Barman 3.18 and later).
    #[error("it lies in an object store")]
    Cloud,
    /// Encrypted (Barman 3.14 and later): only Barman can get at the passphrase.
    #[error("it is encrypted with {method}")]
    Encrypted {
        /// The key `encryption`.
        method: String,
    },
    /// Only what changed since another backup (Barman 3.11 and later, PostgreSQL 17 and later).
    #[error("it is an increment of backup \"{parent}\"")]
    Incremental {
        /// The backup it builds upon.
        parent: BackupId,
    },
    /// A part of it is not there.
    #[error("\"{path}\" is missing on the Barman host")]
    Incomplete {
        /// The part.
        path: String,
    },
    /// The user we are on the Barman host may not read it.
    #[error("no permission to read \"{path}\" on the Barman host")]
    Denied {
        /// The directory.
        path: String,
    },
    /// Made in a way that is newer than this program.
    #[error("its {key} \"{value}\" is not known")]
    Unknown {
        /// Of backup.info.
        key: &'static str,
        /// The value.
        value: String,
    },
}

impl Unreadable {
    /// What to do about it.
    pub fn hint(&self) -> Hint {
        use UnreadableReason as R;
        let Self { server, id, .. } = self;
        // `recover` is understood by every version; 3.12 calls it `restore` as well.
        let barman =
            format!("barman recover --remote-ssh-command \"ssh postgres@THIS_HOST\" {server} {id} DIRECTORY");
        let choose = |what: &str| Hint::new(format!("choose {what} with ")).remedy(Remedy::Backup);
        match &self.reason {
            R::Snapshot { .. } => choose("a backup of method rsync or postgres").words(format!(
                ", or restore the snapshots first and then \"barman recover\"; \"barman show-backup {server} {id}\" names them"
            )),
            R::Cloud => choose("a backup on the Barman host")
                .words(format!(", or let Barman restore it: {barman}")),
            R::Encrypted { .. } => {
                choose("an unencrypted backup").words(format!(", or let Barman restore it: {barman}"))
            }
            R::Incremental { .. } => choose("a full backup").words(format!(
                " (\"barman list-backup {server}\" marks it F or R), or let Barman combine it: {barman}"
            )),
            R::Incomplete { .. } => Hint::new("the backup is damaged or being deleted; ")
                .then(choose("another"))
                .words(format!(" (\"barman list-backup {server}\")")),
            R::Denied { .. } => as_barmans_user(),
            R::Unknown { .. } => {
                choose("another backup").words(format!(", or let Barman restore it: {barman}"))
            }
        }
    }
}

/// What is at the top of a backup's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// There is a directory `data`.
    pub(crate) data: bool,
    /// It may not be read by us.
    pub(crate) denied: bool,
    /// It holds PG_VERSION.
    pub(crate) plain: bool,
    /// Tar files in `data`, in order.
    pub(crate) tars: Vec<String>,
    /// Directories named by a number, in order.
    pub(crate) tablespaces: Vec<u32>,
}

impl Contents {
    /// The form of its own files, whether or not they are of use alone.
    pub(crate) fn form(&self, backup: &Backup) -> Result<Form, UnreadableReason> {
        use UnreadableReason as R;
        match &backup.mode {
            BackupMode::Snapshot(mode) => return Err(R::Snapshot { mode: mode.clone() }),
            BackupMode::LocalToCloud => return Err(R::Cloud),
            BackupMode::RsyncExclusive
            | BackupMode::RsyncConcurrent
            | BackupMode::Postgres
            | BackupMode::Other(_) => {}
        }
        if let Some(method) = &backup.encryption {
            return Err(R::Encrypted {
                method: method.clone(),
            });
        }
        let data = backup.data_directory();
        // A passive node has its own word for whatever the origin made, and later versions may have others: what counts
        // are the files.
        let missing = |path| match &backup.mode {
            BackupMode::Other(mode) => Err(R::Unknown {
                key: "mode",
                value: mode.clone(),
            }),
            _ => Err(R::Incomplete { path }),
        };
        if !self.data {
            return missing(data);
        }
        if self.denied {
            return Err(R::Denied { path: data });
        }
        let Some(compression) = &backup.compression else {
            if !self.plain {
                return missing(format!("{data}/PG_VERSION"));
            }
            let gone = backup
                .tablespaces
                .iter()
                .find(|t| !self.tablespaces.contains(&t.oid));
            return gone.map_or(Ok(Form::Plain), |t| missing(backup.tablespace_directory(t.oid)));
        };
        let codec = TarCodec::ALL.into_iter().find(|c| c.key() == compression);
        let Some(codec) = codec else {
            return Err(R::Unknown {
                key: "compression",
                value: compression.clone(),
            });
        };
        let base = std::iter::once("base".to_owned());
        let mut names = base
            .chain(backup.tablespaces.iter().map(|t| t.oid.to_string()))
            .map(|name| name + codec.suffix());
        let gone = names.find(|name| !self.tars.contains(name));
        gone.map_or(Ok(Form::Tar { codec }), |name| missing(format!("{data}/{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::tests::{INFO, read};

    fn plain() -> Contents {
        Contents {
            data: true,
            plain: true,
            tablespaces: vec![16396],
            ..Default::default()
        }
    }

    fn reason(from: &str, to: &str, contents: Contents) -> UnreadableReason {
        let unreadable = read(&INFO.replace(from, to), contents)
            .unwrap()
            .form()
            .unwrap_err();
        assert!(unreadable.hint().remedies().next().is_some());
        unreadable.reason
    }

    #[test]
    fn files_as_they_were_and_tar_files_are_told_apart() {
        assert_eq!(read(INFO, plain()).unwrap().form(), Ok(Form::Plain));
        for codec in TarCodec::ALL {
            let tar = Contents {
                data: true,
                tars: vec![
                    format!("16396{}", codec.suffix()),
                    format!("base{}", codec.suffix()),
                ],
                tablespaces: vec![16396],
                ..Default::default()
            };
            let info = INFO.replace("compression=None", &format!("compression={}", codec.key()));
            assert_eq!(read(&info, tar).unwrap().form(), Ok(Form::Tar { codec }));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        use UnreadableReason as R;
        let mode = |text: &str| reason("mode=postgres", &format!("mode={text}"), plain());
        assert_eq!(
            mode("snapshot-aws"),
            R::Snapshot {
                mode: "snapshot-aws".into()
            }
        );
        assert_eq!(mode("local-to-cloud"), R::Cloud);
        let passive = INFO.replace("mode=postgres", "mode=passive");
        assert_eq!(read(&passive, plain()).unwrap().form(), Ok(Form::Plain));
        let other = reason("mode=postgres", "mode=magic", Contents::default());
        assert!(matches!(other, R::Unknown { key: "mode", .. }));
        let method = "gpg".to_owned();
        assert_eq!(
            reason("encryption=None", "encryption=gpg", plain()),
            R::Encrypted { method }
        );
        let parent: BackupId = "20261125T000000".parse().unwrap();
        let increment = INFO.replace("parent_backup_id=None", "parent_backup_id=20261125T000000");
        let increment = read(&increment, plain()).unwrap();
        assert_eq!(increment.form().unwrap_err().reason, R::Incremental { parent });
        assert_eq!(increment.own_form(), Ok(Form::Plain));
        let found = reason("compression=None", "compression=brotli", plain());
        assert!(matches!(
            found,
            R::Unknown {
                key: "compression",
                ..
            }
        ));
    }

    #[test]
    fn parts_that_are_missing_are_named() {
        let missing = |contents, to: &str| match reason("compression=None", to, contents) {
            UnreadableReason::Incomplete { path } => path.rsplit('/').next().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        let none = "compression=None";
        assert_eq!(missing(Contents::default(), none), "data");
        assert_eq!(
            missing(
                Contents {
                    plain: false,
                    ..plain()
                },
                none
            ),
            "PG_VERSION"
        );
        assert_eq!(
            missing(
                Contents {
                    tablespaces: vec![1],
                    ..plain()
                },
                none
            ),
            "16396"
        );
        let tars = vec!["base.tar.gz".to_owned()];
        assert_eq!(
            missing(Contents { tars, ..plain() }, "compression=gzip"),
            "16396.tar.gz"
        );
        let denied = Contents {
            denied: true,
            ..plain()
        };
        assert!(matches!(
            reason(none, none, denied),
            UnreadableReason::Denied { .. }
        ));
    }
}
