//! `event_notification_command`.

use crate::from_barman::{COPIED, run};

const COMMAND: &str =
    "printf '<%%s>\\\\n' %n %e %s \"%d\" \"%c\" \"%p\" \"%a\" %% %x \"$(test -n \"%t\" && echo time)\" >> ";

fn clone(name: &'static str, events: Option<&str>) {
    run(name, COPIED, &[], |trial| {
        let file = trial.dir().join("outside/notified");
        trial.configure(&format!(
            "event_notification_command='{}{}'\n",
            COMMAND.replace('\'', "''"),
            file.display()
        ));
        if let Some(events) = events {
            trial.configure(&format!("event_notifications='{events}'\n"));
        }
        trial.clone(&[])
    });
}

#[test]
fn placeholders() {
    clone("notification", None);
}

#[test]
fn an_event_that_is_not_wanted() {
    clone("notification not wanted", Some("standby_register"));
}

#[test]
fn a_command_that_fails() {
    let settings = [("event_notification_command", "exit 3")];
    run("notification fails", COPIED, &settings, |trial| trial.clone(&[]));
}
