//! Somebody sits at a terminal: what is shown while the copy runs, and what is asked.

use std::fs;
use std::path::PathBuf;

use repmgr_lab::{Lab, check};
use repmgr_tests::{LIMIT, Relay, Terminal, assert_standby, node, screen};

use crate::shared;

const BYTES_A_SECOND: u64 = 3_000_000;

/// What is on the screen in the end, as one text.
fn left(shown: &str) -> String {
    screen(shown).join("\n")
}

#[test]
fn the_copy_is_a_bar_of_which_nothing_is_left() {
    let lab = shared();
    Relay::start(lab.sshd(), "watched", BYTES_A_SECOND).unwrap();
    let target = node(lab, &[("barman_host", "watched")]);
    let terminal = Terminal::clone(lab, &target, &[]).unwrap();
    let (status, shown) = terminal.wait().unwrap();
    assert!(status.success(), "{shown}");
    let is_bar = |line: &&str| line.starts_with('[') && line.contains("%, ");
    assert!(
        shown
            .split(['\r', '\n'])
            .any(|line| is_bar(&line.trim_start_matches("\x1b[2K"))),
        "{shown}"
    );
    let left = left(&shown);
    assert_eq!(left.lines().find(is_bar), None, "{left}");
    assert!(
        left.contains("\nNOTICE: standby clone (from Barman) complete\n"),
        "{left}"
    );
    drop(assert_standby(lab, &target));
}

/// A key of the lab's account that has a passphrase.
fn locked_key(lab: &Lab, name: &str, passphrase: &str) -> PathBuf {
    let key = lab.scratch().join(format!("ssh/{name}"));
    fs::copy(lab.sshd().client_key(), &key).unwrap();
    let owner = format!("{}:", lab.scratch().account().name);
    check(std::process::Command::new("chown").arg(owner).arg(&key), LIMIT).unwrap();
    let mut keygen = lab.scratch().command("ssh-keygen");
    keygen
        .args(["-q", "-p", "-P", "", "-N", passphrase, "-f"])
        .arg(&key);
    check(&mut keygen, LIMIT).unwrap();
    key
}

#[test]
fn a_passphrase_is_asked_for_once_and_not_shown() {
    let lab = shared();
    let passphrase = "open sesame";
    let key = locked_key(lab, "locked", passphrase);
    let key = key.to_str().unwrap();
    let settings = [("IdentityFile", key), ("BatchMode", "no")];
    lab.sshd().add_host("locked", &settings).unwrap();
    let target = node(lab, &[("barman_host", "locked")]);
    let mut terminal = Terminal::clone(lab, &target, &[]).unwrap();
    terminal.wait_for("Passphrase for key").unwrap();
    terminal.press(&format!("{passphrase}\n")).unwrap();
    let (status, shown) = terminal.wait().unwrap();
    assert!(status.success(), "{shown}");
    assert_eq!(shown.matches("Passphrase for key").count(), 1, "{shown}");
    assert!(!shown.contains(passphrase), "{shown}");
    assert!(shown.contains(" echo "), "{shown}");
    drop(assert_standby(lab, &target));
}

#[test]
fn who_is_asked_for_a_passphrase_can_interrupt() {
    let lab = shared();
    let key = locked_key(lab, "locked too", "x");
    let key = format!("\"{}\"", key.display());
    let settings = [("IdentityFile", key.as_str()), ("BatchMode", "no")];
    lab.sshd().add_host("lockedtoo", &settings).unwrap();
    let target = node(lab, &[("barman_host", "lockedtoo")]);
    let mut terminal = Terminal::clone(lab, &target, &[]).unwrap();
    terminal.wait_for("Passphrase for key").unwrap();
    terminal.press("\x03").unwrap();
    let (status, shown) = terminal.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{shown}");
    // What is typed is seen again.
    assert!(shown.contains(" echo "), "{shown}");
    assert!(!target.data_dir.exists());
}

#[test]
fn a_new_host_is_asked_about_and_remembered() {
    let lab = shared();
    let known = lab.scratch().write("ssh/known_hosts_new", "", 0o600).unwrap();
    let settings = [
        ("UserKnownHostsFile", known.to_str().unwrap()),
        ("BatchMode", "no"),
    ];
    lab.sshd().add_host("newcomer", &settings).unwrap();
    let target = node(lab, &[("barman_host", "newcomer")]);
    let answer = |answer: &str| {
        let mut terminal = Terminal::clone(lab, &target, &[]).unwrap();
        terminal.wait_for("(yes/no)").unwrap();
        terminal.press(answer).unwrap();
        terminal.wait().unwrap()
    };
    let (status, shown) = answer("no\n");
    assert!(!status.success() && shown.contains("HINT: "), "{shown}");
    assert_eq!(fs::read_to_string(&known).unwrap(), "");
    let (status, shown) = answer("yes\n");
    assert!(status.success(), "{shown}");
    assert_eq!(shown.matches("(yes/no)").count(), 1, "{shown}");
    let (status, shown) = Terminal::clone(lab, &target, &["-F"]).unwrap().wait().unwrap();
    assert!(status.success() && !shown.contains("(yes/no)"), "{shown}");
}
