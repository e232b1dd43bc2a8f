//! `event_notification_command`: telling a program of the user's what happened.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

use repmgr_remote::quote;

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

/// The command did not end with 0.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// No shell.
    #[error("could not run the event notification command")]
    Start(#[source] io::Error),
    /// It failed.
    #[error("the event notification command ended with {0}")]
    Failed(ExitStatus),
}

impl Notification {
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

    /// Runs the command by `sh` and waits for it. Its output goes where ours goes.
    ///
    /// # Errors
    /// It could not be run, or did not end with 0.
    pub fn run(&self, event: &NotifiedEvent<'_>) -> Result<(), NotifyError> {
        let status = Command::new("sh")
            .arg("-c")
            .arg(self.render(event))
            .stdin(Stdio::null())
            .process_group(0)
            .status()
            .map_err(NotifyError::Start)?;
        match status.success() {
            true => Ok(()),
            false => Err(NotifyError::Failed(status)),
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
    use super::*;

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
        let error = some.run(&EVENT).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }
}
