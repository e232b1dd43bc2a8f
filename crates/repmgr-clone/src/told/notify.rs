//! `event_notification_command`: telling a program of the user's what happened.

use std::io;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use repmgr_program::{End, LastBytes, Leftovers, Rules};
use repmgr_remote::{one_line, quote};
use repmgr_types::CancelToken;

/// A command that the user wants to be run for events, and for which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The command line with its placeholders, see [`Notification::render`].
    pub command: String,
    /// Names of events; all when empty.
    pub events: Vec<String>,
}

/// What a notification tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifiedEvent<'a> {
    /// `%n`.
    pub node_id: i32,
    /// `%e`: "standby_clone".
    pub event: &'a str,
    /// `%s`: 1 or 0.
    pub successful: bool,
    /// `%t`.
    pub timestamp: &'a str,
    /// `%d`.
    pub details: &'a str,
}

/// Where in a shell command a placeholder stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    None,
    Single,
    Double,
}

/// How long a command may take that is run for a clone that was cancelled.
const LIMIT_IF_CANCELLED: Duration = Duration::from_secs(5);
/// Bytes of output that are kept: the last ones, which tell why a script failed.
const KEPT: usize = 4096;

/// The command did not end with 0. Each but the first shows the last of what it wrote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// No shell.
    #[error("could not run the event notification command")]
    Start(#[source] io::Error),
    /// It failed.
    #[error("the event notification command ended with {status}{}", after_colon(.output))]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The last of what it wrote, printable.
        output: String,
    },
    /// It took too long, and was killed with its process group.
    #[error(
        "the event notification command did not end within {} s and was killed{}",
        .limit.as_secs(), after_colon(.output)
    )]
    TimedOut {
        /// The time it was given.
        limit: Duration,
        /// The last of what it wrote, printable.
        output: String,
    },
    /// The token was cancelled, and it was killed with its process group.
    #[error("interrupted; the event notification command was killed{}", after_colon(.output))]
    Cancelled {
        /// The last of what it wrote, printable.
        output: String,
    },
}

fn after_colon(output: &str) -> String {
    match output {
        "" => String::new(),
        output => format!(": {output}"),
    }
}

impl Notification {
    /// How long [`run`](Self::run) waits for the command.
    pub const LIMIT: Duration = Duration::from_secs(60);

    /// Whether the user wants to hear of `event`.
    pub fn wants(&self, event: &str) -> bool {
        self.events.is_empty() || self.events.iter().any(|wanted| wanted == event)
    }

    /// The command line with the placeholders of repmgr 5.5 filled in: `%n` node id, `%e` event, `%s`
    /// success (1 or 0), `%t` time, `%d` details; `%c`, `%p` and `%a` are empty for a clone, `%%` is a
    /// percent sign, and anything else stays.
    ///
    /// A value goes in so that the shell takes it for text, whatever is in it: by the quotes the
    /// user put around the placeholder, and as one word where there are none.
    pub fn render(&self, event: &NotifiedEvent<'_>) -> String {
        let mut line = String::with_capacity(self.command.len() + event.details.len());
        let mut quoting = Quoting::None;
        let mut chars = self.command.chars();
        while let Some(c) = chars.next() {
            match (c, quoting) {
                ('%', _) => match chars.next() {
                    Some(placeholder) => match value(placeholder, event) {
                        Some(value) => line.push_str(&fit(&value, quoting)),
                        None if placeholder == '%' => line.push('%'),
                        None => line.extend(['%', placeholder]),
                    },
                    None => line.push('%'),
                },
                ('\\', Quoting::None | Quoting::Double) => {
                    line.push(c);
                    line.extend(chars.next());
                }
                _ => {
                    quoting = match (c, quoting) {
                        ('\'', Quoting::None) => Quoting::Single,
                        ('\'', Quoting::Single) => Quoting::None,
                        ('"', Quoting::None) => Quoting::Double,
                        ('"', Quoting::Double) => Quoting::None,
                        _ => quoting,
                    };
                    line.push(c);
                }
            }
        }
        line
    }

    /// Runs the command by `sh`, without input, and waits for it, [`LIMIT`](Self::LIMIT) at most, or until
    /// `cancel` says to stop; then its process group is killed. If `cancel` has said so before, the command
    /// is run all the same, for it tells how the clone ended, but has five seconds only.
    ///
    /// As with the original's `system()`, it is the shell that is waited for: what it leaves in the
    /// background lives on. The last of the output is part of the error, or a message of level debug; what
    /// is written in the background after that is read away, as long as this process lives.
    ///
    /// # Errors
    /// It could not be run, did not end with 0, or not in time.
    pub fn run(&self, event: &NotifiedEvent<'_>, cancel: &CancelToken) -> Result<(), NotifyError> {
        match cancel.is_cancelled() {
            false => self.run_within(Self::LIMIT, event, cancel),
            true => self.run_within(LIMIT_IF_CANCELLED, event, &CancelToken::new()),
        }
    }

    fn run_within(
        &self,
        limit: Duration,
        event: &NotifiedEvent<'_>,
        cancel: &CancelToken,
    ) -> Result<(), NotifyError> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(self.render(event));
        let rules = Rules {
            limit: Some(limit),
            grace: Duration::ZERO,
            leftovers: Leftovers::Keep,
        };
        let mut last = LastBytes::new(KEPT);
        let end = repmgr_program::run(shell, &rules, cancel, &mut |bytes| last.add(bytes))
            .map_err(|e| NotifyError::Start(e.source))?;
        let output = one_line(String::from_utf8_lossy(last.as_bytes()).trim());
        match end {
            End::Exited(status) if status.success() => {
                if !output.is_empty() {
                    log::debug!("the event notification command wrote: {output}");
                }
                Ok(())
            }
            End::Exited(status) => Err(NotifyError::Failed { status, output }),
            End::TimedOut { limit } => Err(NotifyError::TimedOut { limit, output }),
            End::Cancelled => Err(NotifyError::Cancelled { output }),
        }
    }
}

fn value(placeholder: char, event: &NotifiedEvent<'_>) -> Option<String> {
    Some(match placeholder {
        'n' => event.node_id.to_string(),
        'e' => event.event.to_owned(),
        's' => u8::from(event.successful).to_string(),
        't' => event.timestamp.to_owned(),
        'd' => event.details.to_owned(),
        'c' | 'p' | 'a' => String::new(),
        _ => return None,
    })
}

fn fit(value: &str, quoting: Quoting) -> String {
    match quoting {
        // An empty word would shift the arguments of those who write no quotes, as in the original.
        Quoting::None if value.is_empty() => String::new(),
        Quoting::None => quote(value).into_owned(),
        Quoting::Single => value.replace('\'', r"'\''"),
        Quoting::Double => {
            let mut escaped = String::with_capacity(value.len());
            for c in value.chars() {
                if matches!(c, '"' | '$' | '`' | '\\') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            escaped
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    const A_MOMENT: Duration = Duration::from_millis(20);

    const EVENT: NotifiedEvent<'_> = NotifiedEvent {
        node_id: 2,
        event: "standby_clone",
        successful: true,
        timestamp: "2026-01-02 03:04:05+00",
        details: "cloned from host \"a'b\"; $(touch /tmp/x) `id` \\ %n",
    };

    fn notification(command: &str) -> Notification {
        Notification {
            command: command.to_owned(),
            events: Vec::new(),
        }
    }

    /// What the shell makes of the command's arguments.
    fn words(command: &str) -> Vec<String> {
        let line = notification(command).render(&EVENT);
        let out = Command::new("sh").arg("-c").arg(&line).output().unwrap();
        assert!(out.status.success(), "{line}: {out:?}");
        let text = String::from_utf8(out.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn values_arrive_as_text_however_the_user_quotes_them() {
        for command in [
            r"printf '%%s\0' %d %e %s",
            r#"printf '%%s\0' "%d" "%e" "%s""#,
            r"printf '%%s\0' '%d' '%e' '%s'",
        ] {
            assert_eq!(words(command), [EVENT.details, "standby_clone", "1"], "{command}");
        }
    }

    #[test]
    fn every_placeholder_has_its_value_and_others_stay() {
        let rendered = notification("x %n %e %s '%t' %c%p%a %% %x %").render(&EVENT);
        assert_eq!(rendered, "x 2 standby_clone 1 '2026-01-02 03:04:05+00'  % %x %");
    }

    #[test]
    fn a_quote_after_a_backslash_is_none() {
        assert_eq!(words(r#"printf '%%s\0' \"%e\""#), ["\"standby_clone\""]);
    }

    #[test]
    fn only_wanted_events_are_notified_and_failures_are_told() {
        let some = Notification {
            events: vec!["standby_clone".into()],
            ..notification("exit 3")
        };
        assert!(some.wants("standby_clone") && !some.wants("standby_follow"));
        assert!(notification("").wants("anything"));
        let error = some.run(&EVENT, &CancelToken::new()).unwrap_err();
        // As it is compared with the original's.
        assert_eq!(
            error.to_string(),
            "the event notification command ended with exit status: 3"
        );
    }

    #[test]
    fn the_last_output_is_told_of_a_command_that_fails_and_nothing_is_read() {
        let script = "cat; head -c 300000 /dev/zero | tr '\\0' x; echo; printf 'a\\033b' >&2; exit 1";
        let error = notification(script).run(&EVENT, &CancelToken::new()).unwrap_err();
        let NotifyError::Failed { output, .. } = &error else {
            panic!("{error}");
        };
        assert!(output.ends_with("xx\\na\\u{1b}b"), "{output}");
        assert!(output.len() < KEPT + 20 && error.to_string().ends_with(output.as_str()));
    }

    /// Runs a command that starts another one and waits; how it ended, and how soon. Nothing of it may be left.
    #[track_caller]
    fn killed(limit: Duration, cancel: &CancelToken) -> (NotifyError, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let begin = Instant::now();
        let error = notification(&format!(
            "sleep 600 & echo $! > {}; echo said; wait",
            pid.display()
        ))
        .run_within(limit, &EVENT, cancel)
        .unwrap_err();
        let took = begin.elapsed();
        assert!(error.to_string().ends_with("killed: said"), "{error}");
        let pid = std::fs::read_to_string(pid).unwrap();
        let process = format!("/proc/{}/stat", pid.trim());
        let gone = || std::fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(Instant::now() < deadline, "{process} is left");
            thread::sleep(A_MOMENT);
        }
        (error, took)
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_with_its_group() {
        let (error, took) = killed(Duration::from_secs(2), &CancelToken::new());
        assert!(matches!(error, NotifyError::TimedOut { .. }), "{error}");
        assert!(error.to_string().contains("within 2 s"), "{error}");
        assert!(took < Duration::from_secs(60), "{took:?}");
    }

    #[test]
    fn cancelling_ends_a_command_early() {
        let cancel = CancelToken::new();
        let (error, took) = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_secs(2));
                cancel.cancel();
            });
            killed(Notification::LIMIT, &cancel)
        });
        assert!(matches!(error, NotifyError::Cancelled { .. }), "{error}");
        assert!(took < Notification::LIMIT / 2, "{took:?}");
    }

    #[test]
    fn a_clone_that_was_cancelled_is_told_of_all_the_same() {
        let cancel = CancelToken::new();
        cancel.cancel();
        notification("true").run(&EVENT, &cancel).unwrap();
        let error = notification("exit 4").run(&EVENT, &cancel).unwrap_err();
        assert!(matches!(error, NotifyError::Failed { .. }), "{error}");
    }

    #[test]
    fn what_a_command_leaves_in_the_background_is_not_waited_for_and_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let [go, done] = ["go", "done"].map(|name| dir.path().join(name));
        let script = format!(
            "cd {}; (until test -e go; do test -e . || exit; sleep 0.1; done; echo late && touch done) & echo early",
            dir.path().display()
        );
        notification(&script).run(&EVENT, &CancelToken::new()).unwrap();
        std::fs::write(go, "").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done.exists() {
            assert!(Instant::now() < deadline, "it was killed");
            thread::sleep(A_MOMENT);
        }
    }
}
