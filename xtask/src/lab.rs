//! `cargo xtask lab`: a lab that outlives the command, for trying things by hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use repmgr_lab::{Lab, Scratch, cache_dir, packages};

use crate::demo;
use crate::prepare::{self, Steps};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Bring it up and print commands to try
    Up,
    /// Stop it and remove it
    Down,
    /// Say whether it runs, and print the commands again
    Status,
}

const COMMANDS: &str = "commands.txt";

pub(crate) fn run(task: &Task) -> Result<()> {
    match (task, current()?) {
        (Task::Up, Some(scratch)) => {
            bail!(
                "a lab is up in {}; `cargo xtask lab down` ends it",
                scratch.display()
            )
        }
        (Task::Up, None) => up(),
        (Task::Down, Some(scratch)) => down(&scratch),
        (Task::Status, Some(scratch)) => status(&scratch),
        (Task::Down | Task::Status, None) => {
            println!("no lab is up");
            Ok(())
        }
    }
}

/// Holds the path of the lab's scratch directory while there is one.
fn state_file() -> Result<PathBuf> {
    Ok(cache_dir()?.join("up"))
}

fn current() -> Result<Option<PathBuf>> {
    match fs::read_to_string(state_file()?) {
        Ok(path) => Ok(Some(PathBuf::from(path.trim_end())).filter(|path| path.is_dir())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context("could not read the state of the lab"),
    }
}

fn up() -> Result<()> {
    let steps = Steps::new();
    prepare::install(&steps, &[packages::BUILD, packages::LAB])?;
    prepare::build(&steps)?;
    let lab = demo::builder().on_step(move |what| steps.begin(what)).build()?;
    let commands = commands(&lab)?;
    lab.scratch().write(COMMANDS, &commands, 0o644)?;
    let state = state_file()?;
    fs::create_dir_all(state.parent().context("a state file has a directory")?)?;
    fs::write(&state, format!("{}\n", lab.scratch().path().display()))?;
    lab.detach()?;
    println!("\n{commands}");
    Ok(())
}

fn down(scratch: &Path) -> Result<()> {
    drop(Scratch::adopt(scratch)?);
    fs::remove_file(state_file()?)?;
    println!("the lab in {} is down", scratch.display());
    Ok(())
}

fn status(scratch: &Path) -> Result<()> {
    println!("lab in {}", scratch.display());
    for (name, file) in [
        ("primary", "primary/data/postmaster.pid"),
        ("standby", "node2/data/postmaster.pid"),
        ("sshd", "ssh/sshd.pid"),
    ] {
        let pid = fs::read_to_string(scratch.join(file)).unwrap_or_default();
        let pid = pid.lines().next().unwrap_or_default();
        let command_line = fs::read(Path::new("/proc").join(pid).join("cmdline"));
        let runs = command_line.is_ok_and(|line| !pid.is_empty() && !line.is_empty());
        println!(
            "  {name:8} {}",
            if runs {
                format!("running, process {pid}")
            } else {
                "not running".to_owned()
            }
        );
    }
    println!("\n{}", fs::read_to_string(scratch.join(COMMANDS))?);
    Ok(())
}

fn commands(lab: &Lab) -> Result<String> {
    let target = demo::target(lab)?;
    let clone = lab.clone_command(&target)?;
    let arguments: Vec<_> = clone
        .get_args()
        .map(|argument| argument.to_string_lossy())
        .collect();
    let enter = lab.enter_script()?;
    let (scratch, enter) = (lab.scratch().path().display(), enter.display());
    let (data, port, primary) = (target.data_dir.display(), target.port, lab.primary().port());
    Ok(format!(
        "The lab is up. `{enter}` starts a shell in it, or runs a command:\n\
         \n# clone a standby, start it, look at it\n\
         {enter} repmgr {clone}\n\
         {enter} pg_ctl -D {data} -o '-p {port}' -l {scratch}/log/node2.log start\n\
         {enter} psql -h {scratch}/run -p {port} -U postgres repmgr -c 'select * from pg_stat_wal_receiver' -x\n\
         \n# write on the primary, look at Barman, log in to its host\n\
         {enter} psql -h {scratch}/run -p {primary} -U postgres repmgr -c \"insert into lab_rows (note) values ('hello')\"\n\
         {enter} {barman} -c {barman_conf} list-backup {server}\n\
         {enter} ssh barmansrv\n\
         \n# the end\ncargo xtask lab down",
        clone = arguments.join(" "),
        barman = lab.barman().command_name().display(),
        barman_conf = lab.barman().config_file().display(),
        server = lab.server(),
    ))
}
