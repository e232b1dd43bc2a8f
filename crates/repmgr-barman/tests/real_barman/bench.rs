//! A lab for each Barman, shared by all tests of that Barman and used by one at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use repmgr_barman::{Backup, Barman, BarmanError, ServerAddress};
use repmgr_lab::{BackupMethod, BarmanVersion, Lab, Tablespace};
use repmgr_remote::{SshHost, SshOptions};

pub(crate) struct Bench {
    pub(crate) lab: Lab,
}

/// The lab of this Barman, all its parts running.
pub(crate) fn bench(version: BarmanVersion, method: BackupMethod) -> MutexGuard<'static, Bench> {
    static LABS: [OnceLock<Mutex<Bench>>; 3] = [const { OnceLock::new() }; 3];
    let place = BarmanVersion::ALL.iter().position(|v| *v == version).unwrap();
    let bench = LABS[place].get_or_init(|| {
        let lab = Lab::builder()
            .barman(version)
            .method(method)
            .tablespaces([Tablespace::from("it's \"ü\""), Tablespace::empty("void")])
            .build()
            .unwrap();
        Mutex::new(Bench { lab })
    });
    let bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    if !bench.lab.primary().is_running().unwrap() {
        bench.lab.primary().start().unwrap();
    }
    bench
}

impl Bench {
    /// The Barman host, as a user's `ssh barmansrv` reaches it.
    pub(crate) fn host(&self) -> SshHost {
        let options = SshOptions {
            ssh_options: format!("-F {}", self.lab.sshd().client_config().display()),
            ..Default::default()
        };
        SshHost::new("barmansrv", options).unwrap()
    }

    pub(crate) fn address(&self) -> ServerAddress {
        ServerAddress {
            server: self.lab.server().to_owned(),
            command: text(self.lab.barman().command_name()).parse().unwrap(),
            config: Some(text(&self.lab.barman().config_file())),
        }
    }

    pub(crate) fn barman(&self) -> Barman {
        Barman::connect(&self.host(), self.address()).unwrap()
    }

    pub(crate) fn first(&self) -> Backup {
        self.barman().find_backup(self.lab.backup_id().unwrap()).unwrap()
    }

    /// What comes of looking a backup up with another address.
    pub(crate) fn find(
        &self,
        change: impl FnOnce(&mut ServerAddress),
        wanted: &str,
    ) -> Result<Backup, BarmanError> {
        let mut address = self.address();
        change(&mut address);
        Barman::connect(&self.host(), address)?.find_backup(wanted)
    }

    /// The file that Barman reads first.
    pub(crate) fn info_file(&self, id: &str) -> PathBuf {
        let main = self.lab.barman().server_dir(self.lab.server());
        let newer = main.join(format!("meta/{id}-backup.info"));
        if newer.exists() {
            newer
        } else {
            main.join("base").join(id).join("backup.info")
        }
    }

    /// Where this Barman puts a mark on a backup.
    pub(crate) fn mark_file(&self, id: &str, mark: &str) -> PathBuf {
        let main = self.lab.barman().server_dir(self.lab.server());
        match main.join("meta").exists() {
            true => main.join(format!("meta/{id}-{mark}")),
            false => {
                let directory = main.join("base").join(id).join("annotations");
                fs::create_dir_all(&directory).unwrap();
                directory.join(mark)
            }
        }
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A file that is as before when this goes.
pub(crate) struct Edited(PathBuf, Option<Vec<u8>>);

impl Edited {
    /// The owner stays: the file is written in place.
    pub(crate) fn write(path: &Path, text: &str) -> Self {
        let before = fs::read(path).ok();
        fs::write(path, text).unwrap();
        Self(path.to_owned(), before)
    }

    pub(crate) fn replace(path: &Path, from: &str, to: &str) -> Self {
        let before = fs::read_to_string(path).unwrap();
        assert!(before.contains(from), "{before}");
        Self::write(path, &before.replace(from, to))
    }
}

impl Drop for Edited {
    fn drop(&mut self) {
        match &self.1 {
            Some(before) => fs::write(&self.0, before).unwrap(),
            None => fs::remove_file(&self.0).unwrap(),
        }
    }
}
