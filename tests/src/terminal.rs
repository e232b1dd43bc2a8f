//! Runs `repmgr` where somebody sits: in a terminal of its own.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use repmgr_lab::{Lab, Target};

use crate::LIMIT;

/// A clone in a terminal, made by `script`. Killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    script: Child,
    keyboard: ChildStdin,
    shown: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts `repmgr … standby clone MORE`. When it has ended, the terminal shows its own settings.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn clone(lab: &Lab, target: &Target, more: &[&str]) -> Result<Self> {
        let clone = lab.clone_command(target)?;
        let words = [clone.get_program()].into_iter().chain(clone.get_args());
        let mut line = String::new();
        for word in words
            .map(|word| word.to_str())
            .chain(more.iter().map(|word| Some(*word)))
        {
            let word = word.context("a word of the command is not UTF-8")?;
            line += &format!("'{}' ", word.replace('\'', r"'\''"));
        }
        // The shell outlives an interrupt from the keyboard, which is for all who sit there.
        let line = format!("trap : INT; {line}; code=$?; stty -a; exit $code");
        // Tests that a shell runs in the background are started to ignore SIGINT.
        let mut script = lab
            .scratch()
            .command("env")
            .env("TERM", "xterm")
            .args([
                "--default-signal=INT",
                "script",
                "-q",
                "-e",
                "-f",
                "-c",
                &line,
                "/dev/null",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let keyboard = script.stdin.take().context("no keyboard")?;
        let mut screen = script.stdout.take().context("no screen")?;
        let shown = Arc::<Mutex<String>>::default();
        let seen = Arc::clone(&shown);
        let reader = spawn(move || {
            let mut bytes = [0; 4096];
            // At the end the terminal is gone, which some systems call an error.
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                lock(&seen).push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Ok(Self {
            script,
            keyboard,
            shown,
            reader: Some(reader),
        })
    }

    /// Waits until these words were shown.
    ///
    /// # Errors
    /// If they are not within a minute.
    pub fn wait_for(&self, words: &str) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !lock(&self.shown).contains(words) {
            if Instant::now() > deadline {
                bail!("no \"{words}\":\n{}", lock(&self.shown));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Presses keys.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// Waits for its end: how it was, and all that was shown, control sequences included.
    ///
    /// # Errors
    /// If it does not end within two minutes.
    pub fn wait(mut self) -> Result<(ExitStatus, String)> {
        let deadline = Instant::now() + 2 * LIMIT;
        let status = loop {
            if let Some(status) = self.script.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("it does not end:\n{}", lock(&self.shown));
            }
            sleep(Duration::from_millis(10));
        };
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            bail!("the screen could not be read");
        }
        let shown = lock(&self.shown).clone();
        Ok((status, shown))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended, which is as well.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// What is left to see of what was shown: lines that were drawn over or erased are gone.
pub fn screen(shown: &str) -> Vec<String> {
    const ERASE_LINE: &str = "\x1b[2K";
    shown
        .split('\n')
        .map(|line| {
            let line = line.trim_end_matches('\r');
            let line = line.rsplit(ERASE_LINE).next().unwrap_or_default();
            line.rsplit('\r').next().unwrap_or_default().to_owned()
        })
        .collect()
}

/// Whoever panicked while reading it left it whole.
fn lock(shown: &Mutex<String>) -> MutexGuard<'_, String> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}
