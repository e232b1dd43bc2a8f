//! Those who take part, and how each is called as its users would.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use repmgr_lab::{Lab, Target, check, original_repmgr};

use super::clone::NEAR;
use super::data::TABLESPACES;

const LIMIT: Duration = Duration::from_secs(600);
const STANZA: &str = "bench";

/// One way to a copy of the primary.
pub(crate) struct Contender {
    /// For the table.
    pub(crate) name: String,
    /// Where it puts the copy: `data` in it, and `tablespaces`.
    pub(crate) dir: PathBuf,
    pub(crate) command: Vec<OsString>,
    /// Where a standby comes out, the place to start it.
    pub(crate) target: Option<Target>,
}

/// Makes contenders for one lab.
pub(crate) struct Contenders<'a> {
    lab: &'a Lab,
    repmgr: PathBuf,
    next: u32,
}

fn words<const N: usize>(words: [&str; N]) -> impl Iterator<Item = OsString> {
    words.map(OsString::from).into_iter()
}

impl<'a> Contenders<'a> {
    /// `repmgr` is the program to measure; the lab's account gets a copy, which it can reach.
    pub(crate) fn new(lab: &'a Lab, repmgr: &Path) -> Result<Self> {
        let copy = lab.scratch().join("bin/repmgr");
        fs::copy(repmgr, &copy).with_context(|| format!("could not copy \"{}\"", repmgr.display()))?;
        Ok(Self {
            lab,
            repmgr: copy,
            next: 2,
        })
    }

    fn place(&mut self) -> Result<(u32, PathBuf)> {
        let id = self.next;
        self.next += 1;
        Ok((id, self.lab.scratch().dir(format!("node{id}"))?))
    }

    fn tablespaces(&self, dir: &Path) -> impl Iterator<Item = (String, String)> {
        let new = move |name: &Path| dir.join("tablespaces").join(name).display().to_string();
        let locations = self.lab.primary().tablespaces().iter();
        locations
            .filter_map(move |old| Some((old.display().to_string(), new(Path::new(old.file_name()?)))))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// `repmgr standby clone` by `program`, with Barman on the host `barman`.
    fn repmgr(&mut self, name: &str, program: &Path, barman: &str, more: &[&str]) -> Result<Contender> {
        let (id, dir) = self.place()?;
        let mappings = self.lab.mappings(id);
        let mut settings = vec![("barman_host", barman)];
        settings.extend(
            mappings
                .iter()
                .map(|mapping| ("tablespace_mapping", mapping.as_str())),
        );
        let target = self.lab.target(id, &settings)?;
        let port = self.lab.primary().port().to_string();
        let mut command = vec![program.into(), "-f".into(), target.conf.clone().into()];
        command.extend(words([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "repmgr",
            "-d",
            "repmgr",
        ]));
        command.extend(words(["standby", "clone"]).chain(more.iter().map(OsString::from)));
        Ok(Contender {
            name: name.to_owned(),
            dir,
            command,
            target: Some(target),
        })
    }

    /// Ours.
    pub(crate) fn ours(&mut self, name: &str, barman: &str, more: &[&str]) -> Result<Contender> {
        let program = self.repmgr.clone();
        self.repmgr(name, &program, barman, more)
    }

    /// The original, from the Debian package.
    pub(crate) fn original(&mut self, more: &[&str]) -> Result<Contender> {
        let program = original_repmgr().context("the package repmgr has no program")?;
        let version = version(self.lab, &program, &["--version"])?;
        let name = [&["original", &version], more].concat().join(" ");
        self.repmgr(&name, &program, NEAR, more)
    }

    /// `pg_basebackup` from the primary, over TCP without TLS.
    pub(crate) fn pg_basebackup(&mut self) -> Result<Contender> {
        let program = self.lab.primary().install().program("pg_basebackup")?;
        let version = version(self.lab, &program, &["--version"])?;
        let (_, dir) = self.place()?;
        let port = self.lab.primary().port().to_string();
        let mut command = vec![program.into(), "-D".into(), dir.join("data").into()];
        command.extend(words([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "repmgr",
            "--checkpoint=fast",
        ]));
        for (old, new) in self.tablespaces(&dir) {
            command.extend(["-T".into(), format!("{old}={new}").into()]);
        }
        Ok(Contender {
            name: format!("{version} from the primary, TCP"),
            dir,
            command,
            target: None,
        })
    }

    /// `pgbackrest restore` from an lz4 repository over ssh; takes the backup first.
    pub(crate) fn pgbackrest(&mut self, more: &[&str]) -> Result<Contender> {
        let (lab, scratch) = (self.lab, self.lab.scratch());
        for dir in ["repo", "log", "lock", "spool"] {
            scratch.dir(Path::new("pgbackrest").join(dir))?;
        }
        let dir = scratch.join("pgbackrest").display().to_string();
        let common =
            format!("log-path={dir}/log\nlock-path={dir}/lock\nspool-path={dir}/spool\nprocess-max=2\n");
        let socket = scratch.join("run").display().to_string();
        let (data, port) = (lab.primary().data_dir().display(), lab.primary().port());
        let section = format!(
            "[{STANZA}]\npg1-path={data}\npg1-port={port}\npg1-socket-path={socket}\npg1-user=postgres\n"
        );
        let repository = format!(
            "[global]\n{common}repo1-path={dir}/repo\ncompress-type=lz4\nstart-fast=y\narchive-check=n\narchive-copy=n\n"
        );
        let server = scratch.write("pgbackrest/server.conf", &(repository + &section), 0o600)?;
        for what in ["stanza-create", "backup"] {
            let mut command = scratch.command("pgbackrest");
            command.arg(format!("--config={}", server.display()));
            check(command.arg(format!("--stanza={STANZA}")).arg(what), LIMIT)?;
        }
        let (_, target) = self.place()?;
        let user = &scratch.account().name;
        let ssh = scratch.join("bin/ssh").display().to_string();
        let client = format!(
            "[global]\n{common}repo1-host={NEAR}\nrepo1-host-user={user}\nrepo1-host-config={}\ncmd-ssh={ssh}\n",
            server.display()
        );
        let client = scratch.write("pgbackrest/client.conf", &client, 0o600)?;
        let mut command: Vec<OsString> = vec!["pgbackrest".into()];
        command.push(format!("--config={}", client.display()).into());
        command.push(format!("--stanza={STANZA}").into());
        command.push(format!("--pg1-path={}", target.join("data").display()).into());
        for (name, (_, new)) in TABLESPACES.iter().zip(self.tablespaces(&target)) {
            command.push(format!("--tablespace-map={name}={new}").into());
        }
        command.extend(more.iter().map(OsString::from));
        command.push("restore".into());
        let version = version(lab, Path::new("pgbackrest"), &["version"])?;
        let restore = [&["restore"], more].concat().join(" ");
        Ok(Contender {
            name: format!("{version} {restore}, lz4 over ssh, 2 processes"),
            dir: target,
            command,
            target: None,
        })
    }

    /// `barman recover` to this host over ssh.
    pub(crate) fn barman(&mut self) -> Result<Contender> {
        let (_, dir) = self.place()?;
        let barman = self.lab.barman();
        let ssh = format!("ssh -F {} primary", self.lab.sshd().client_config().display());
        let mut command: Vec<OsString> = vec![barman.install().program().into(), "-c".into()];
        command.push(barman.config_file().into());
        command.extend(words(["recover", "--remote-ssh-command", &ssh, "--jobs", "2"]));
        for (name, (_, new)) in TABLESPACES.iter().zip(self.tablespaces(&dir)) {
            command.extend(["--tablespace".into(), format!("{name}:{new}").into()]);
        }
        command.extend(words([self.lab.server(), self.lab.backup_id()?]));
        command.push(dir.join("data").into());
        let version = barman.install().version().number();
        Ok(Contender {
            name: format!("Barman {version} recover, 2 jobs"),
            dir,
            command,
            target: None,
        })
    }

    /// The files of the backup by rsync, and then to disk. Not a standby.
    pub(crate) fn rsync(&mut self, more: &[&str]) -> Result<Contender> {
        const SCRIPT: &str = r#"set -e
to=$1 from=$2
shift 2
rsync -a --delete --inplace "$@" "$from/" "$to"
sync -f "$to""#;
        let (_, dir) = self.place()?;
        let backup = self.backup()?;
        let from = format!("{NEAR}:{}", backup.display());
        let mut command: Vec<OsString> = words(["bash", "-c", SCRIPT, "bash"]).collect();
        command.extend([dir.clone().into(), from.into()]);
        command.extend(more.iter().map(OsString::from));
        let name = [&["rsync"], more].concat().join(" ");
        Ok(Contender {
            name: format!("{name} over ssh, and sync (no standby)"),
            dir,
            command,
            target: None,
        })
    }

    fn backup(&self) -> Result<PathBuf> {
        let barman = self.lab.barman();
        Ok(barman.backup_dir(self.lab.server(), self.lab.backup_id()?))
    }

    /// The least there is: tar through ssh, and then to disk. Not a standby.
    pub(crate) fn tar(&mut self, name: &str, host: &str) -> Result<Contender> {
        const SCRIPT: &str = r#"set -e
ssh -c aes128-gcm@openssh.com "$1" "tar -C $2 -cf - ." | tar -C "$3" -xf -
sync -f "$3""#;
        let (_, dir) = self.place()?;
        let backup = self.backup()?;
        let mut command: Vec<OsString> =
            words(["bash", "-o", "pipefail", "-c", SCRIPT, "bash", host]).collect();
        command.extend([backup.into(), dir.clone().into()]);
        Ok(Contender {
            name: name.to_owned(),
            dir,
            command,
            target: None,
        })
    }
}

/// The first line a program says of its version, without what is in parentheses.
fn version(lab: &Lab, program: &Path, arguments: &[&str]) -> Result<String> {
    let said = check(lab.scratch().command(program).args(arguments), LIMIT)?;
    let line = said.lines().next().unwrap_or_default();
    Ok(line.split('(').next().unwrap_or_default().trim().to_owned())
}
