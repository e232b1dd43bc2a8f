//! A program and all it starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// The ends of a program's pipes, those that its [`Command`] asked for.
pub type Pipes = (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>);

/// A program in a process group of its own, which also holds what it starts.
///
/// When dropped before the program was waited for, the group is killed.
#[derive(Debug)]
pub struct Group {
    child: Child,
    /// From then on its number may be somebody else's.
    reaped: bool,
}

impl Group {
    /// Starts the program. The command is gone afterwards, and with it our copies of the ends of pipes
    /// given to it, without which their output would never end.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    pub fn start(mut command: Command) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        Ok(Self { child, reaped: false })
    }

    /// The pipes; nothing the second time.
    pub fn take_pipes(&mut self) -> Pipes {
        let child = &mut self.child;
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    }

    /// How the program ended, if it has; what it left in its group lives on.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.reaped |= status.is_some();
        Ok(status)
    }

    /// Kills the whole group, unless the program was waited for before, and waits for the program.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait();
        self.reaped = true;
        status
    }

    /// Whether it is there to be waited for. It is left so: until then the group's number is nobody else's.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        let Some(pid) = self.pid() else { return Ok(true) };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), look) {
            Ok(status) => Ok(status.is_some()),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = self.pid() {
            // An error means that the group is gone.
            let _ = kill_process_group(group, signal);
        }
    }

    /// The number of the program and of its group, as long as it is theirs.
    fn pid(&self) -> Option<Pid> {
        let number = i32::try_from(self.child.id()).ok().filter(|_| !self.reaped)?;
        Pid::from_raw(number)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            // Nobody is left to be told that it cannot be waited for.
            let _ = self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use super::*;
    use crate::run::tests::{sh, wait_until_gone};

    fn with_child(script: &str) -> (Group, String) {
        let mut command = sh(script);
        command.stdout(Stdio::piped());
        let mut group = Group::start(command).unwrap();
        let mut pid = String::new();
        let (_, output, _) = group.take_pipes();
        BufReader::new(output.unwrap()).read_line(&mut pid).unwrap();
        (group, pid.trim().to_owned())
    }

    #[test]
    fn all_of_a_group_that_is_dropped_is_killed() {
        let (group, pid) = with_child("sleep 300 & echo $!; wait");
        drop(group);
        wait_until_gone(&pid);
    }

    #[test]
    fn what_is_left_of_a_program_that_was_waited_for_lives_on() {
        let (mut group, pid) = with_child("sleep 300 & echo $!");
        let status = loop {
            match group.try_wait().unwrap() {
                Some(status) => break status,
                None => std::thread::yield_now(),
            }
        };
        assert!(status.success());
        assert_eq!(group.kill().unwrap(), status);
        drop(group);
        let process = Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(process, Signal::KILL).unwrap();
        wait_until_gone(&pid);
    }
}
