//! A disk that is too small, or fills up.

use std::process::Command;

use predicates::str::contains;
use repmgr_lab::{Lab, Target};
use repmgr_tests::{node, output, run, skip};

use crate::shared;

/// Runs `script` with `$dir` on a disk of its own of this size and `clone` for the clone. In a mount namespace,
/// as the lab's account: needs no root, but a kernel that allows it; `None` if this one does not.
fn on_a_small_disk(lab: &Lab, target: &Target, size: &str, script: &str, more: &[&str]) -> Option<Command> {
    let account = lab.scratch().account();
    let script = format!(
        "dir=$1; shift\nmount -t tmpfs -o 'size={size},mode=0700' none \"$dir\" || exit 77\n\
         clone() {{ unshare -U --map-user={} --map-group={} \"$@\"; }}\n{script}",
        account.uid, account.gid
    );
    let inside = |program: &str| {
        let mut command = lab.scratch().command("unshare");
        command.args(["-Urm", "sh", "-c", program, "sh"]);
        command
    };
    let probe = inside("mount -t tmpfs none /mnt").output().unwrap();
    if !probe.status.success() {
        return None;
    }
    let clone = lab.clone_command(target).unwrap();
    let mut command = inside(&script);
    command
        .arg(target.data_dir.parent().unwrap())
        .arg(clone.get_program())
        .args(clone.get_args())
        .args(more);
    Some(command)
}

/// A node whose tablespaces are on another disk.
fn node_on_small_disk(lab: &Lab) -> Target {
    let mappings: Vec<String> = lab
        .mappings(8000)
        .iter()
        .map(|mapping| mapping.replace("node8000", "elsewhere"))
        .collect();
    let settings: Vec<_> = mappings
        .iter()
        .map(|mapping| ("tablespace_mapping", mapping.as_str()))
        .collect();
    node(lab, &settings)
}

#[test]
fn a_disk_too_small_is_noticed_before_anything_is_written() {
    let lab = shared();
    let target = node_on_small_disk(lab);
    let script = r#"clone "$@"; code=$?; ls -A "$dir" | sed 's/^/LEFT /'; exit $code"#;
    for more in [&["--dry-run"][..], &[]] {
        let Some(mut command) = on_a_small_disk(lab, &target, "16m", script, more) else {
            return skip(
                "a_disk_too_small_is_noticed_before_anything_is_written",
                "no user namespaces here",
            );
        };
        let refused = run(&mut command).code(1).stderr(contains("space"));
        assert!(!output(&refused).contains("LEFT"), "{}", output(&refused));
    }
}

/// Somebody else fills it while the clone copies; when they have made room, the same command completes.
#[test]
fn a_disk_that_fills_up_is_an_error_and_the_same_command_completes() {
    let lab = Lab::builder().build().unwrap();
    let target = node(&lab, &[]);
    let script = r#"
        (until [ -d "$dir/data/base" ]; do :; done; exec cat /dev/zero >"$dir/filler" 2>/dev/null) &
        clone "$@"
        echo "CODE $?"
        kill $! 2>/dev/null
        wait
        [ -e "$dir/data/global/pg_control" ] && echo "CAN START"
        rm "$dir/filler"
        clone "$@"
        echo "THEN $?"
        [ -e "$dir/data/global/pg_control" ] && echo "WHOLE""#;
    let Some(mut command) = on_a_small_disk(&lab, &target, "128m", script, &[]) else {
        return skip(
            "a_disk_that_fills_up_is_an_error_and_the_same_command_completes",
            "no user namespaces here",
        );
    };
    let done = run(&mut command)
        .success()
        .stderr(contains("No space left on device"));
    let stdout = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert_eq!(stdout, "CODE 1\nTHEN 0\nWHOLE\n", "{}", output(&done));
}
