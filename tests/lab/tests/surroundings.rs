//! A lab does not depend on whose machine it is: neither on programs that come first on the PATH, nor on
//! the user's files, variables and umask.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use repmgr_lab::{Lab, check, in_odd_surroundings};

const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn a_lab_works_and_its_children_see_nothing_of_ours() {
    let lab = Lab::builder().tablespaces(["fast"]).build().unwrap();
    let home = lab.scratch().join("home").display().to_string();
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let seen = "echo $PATH $HOME $(umask) $LC_ALL $PGHOST $TMPDIR; command -v barman; command -v rsync";
    let session = check(&mut lab.sshd().ssh("barmansrv", seen), LIMIT).unwrap();
    assert_eq!(
        session,
        format!("{path} {home} 0022\n/usr/bin/barman\n/usr/bin/rsync\n")
    );
    let child = check(lab.scratch().command("sh").args(["-c", seen]), LIMIT).unwrap();
    let bin = lab.scratch().join("bin").display().to_string();
    assert_eq!(
        child,
        format!("{bin}:{path} {home} 0022\n/usr/bin/barman\n/usr/bin/rsync\n")
    );
    assert_eq!(lab.barman().command_name().to_str(), Some("barman"));
    assert_eq!(lab.primary().sql("show lc_messages").unwrap(), "C");
    assert_eq!(lab.primary().sql("show timezone").unwrap(), "Etc/UTC");
    let mode = |name: &str| {
        let meta = std::fs::metadata(lab.scratch().join(name)).unwrap();
        meta.permissions().mode() & 0o777
    };
    assert_eq!((mode("home"), mode("bin/ssh")), (0o700, 0o755));
}

#[test]
fn it_does_so_on_a_machine_set_up_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let mut again = in_odd_surroundings(&own, dir.path()).unwrap();
    again.args(["--exact", "a_lab_works_and_its_children_see_nothing_of_ours"]);
    let said = check(&mut again, LIMIT).unwrap();
    assert!(said.contains("1 passed"), "{said}");
}
