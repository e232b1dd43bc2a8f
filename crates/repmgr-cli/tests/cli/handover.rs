//! What is not ours reaches the original as it was typed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Bench, program};

/// Says what it was called with, and ends with its own exit code.
const TOLD: &str = "#!/bin/sh\nprintf '<%s>' \"$@\"; echo; cat; echo heard >&2; exit 22\n";

impl Bench {
    /// `repmgr` looking for the original as anywhere else.
    fn searching(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env_remove("REPMGR_ORIGINAL");
        command
    }

    /// An executable `NAME/repmgr`.
    fn original(&self, directory: &str, text: &str) -> PathBuf {
        fs::create_dir_all(self.path(directory)).unwrap();
        let name = format!("{directory}/repmgr");
        repmgr_lab::write_program(&self.path(&name), text).unwrap();
        self.executable(&name);
        self.path(&name)
    }
}

fn on_path(command: Command, directories: &[&Path]) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::from_std(command);
    command.env("PATH", std::env::join_paths(directories).unwrap());
    command
}

fn ours() -> &'static Path {
    program().parent().unwrap()
}

#[test]
fn arguments_streams_and_exit_code_are_the_originals() {
    let bench = Bench::new();
    bench.original("bin", TOLD);
    for (line, told) in [
        (
            &["standby", "promote", "-f", "/x y", "--log-to-file"][..],
            "<standby><promote><-f></x y><--log-to-file>\n",
        ),
        (
            &["node", "check", "--new-in-6", "--role"],
            "<node><check><--new-in-6><--role>\n",
        ),
        (&["bdr", "register"], "<bdr><register>\n"),
        (&["--version"], "<--version>\n"),
        (&["-?"], "<-?>\n"),
        (&["standby", "--help"], "<standby><--help>\n"),
        (
            &["primary", "register", "--help"],
            "<primary><register><--help>\n",
        ),
        (&["--", "cluster", "show"], "<--><cluster><show>\n"),
    ] {
        on_path(
            bench.searching(line),
            &[ours(), &bench.path("bin"), Path::new("/bin")],
        )
        .write_stdin("typed\n")
        .assert()
        .code(22)
        .stdout(format!("{told}typed\n"))
        .stderr("heard\n");
    }
}

#[test]
fn what_is_ours_stays_here() {
    let bench = Bench::new();
    bench.original("bin", TOLD);
    for (line, code, says) in [
        (&["standby", "clone", "--help"][..], 0, "--backup-id"),
        (&["standby", "clone", "--version"], 0, "repmgr "),
        (&["--dump-config"], 0, "node_id|"),
        (&["standby", "clome"], 1, "did you mean \"standby clone\"?"),
        (&["help"], 1, "did you mean \"repmgr --help\"?"),
    ] {
        let run = on_path(bench.searching(line), &[&bench.path("bin")])
            .assert()
            .code(code);
        let output = run.get_output();
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        assert!(String::from_utf8(said).unwrap().contains(says), "{line:?}");
    }
}

#[test]
fn the_environment_is_the_same() {
    let bench = Bench::new();
    fs::create_dir(bench.path("bin")).unwrap();
    let mut copy = repmgr_lab::tool("cp");
    copy.args(["/usr/bin/env".as_ref(), bench.path("bin/repmgr").as_os_str()]);
    assert!(copy.status().unwrap().success());
    bench.executable("bin/repmgr");
    let path = bench.path("bin");
    on_path(bench.searching(&[]), &[&path])
        .env("PGPASSWORD", "x")
        .assert()
        .success()
        .stdout(format!("PATH={}\nPGPASSWORD=x\n", path.display()));
}

#[test]
fn the_configuration_and_the_command_line_say_where_it_is() {
    let bench = Bench::with_conf("");
    let said = |name: &str| format!("#!/bin/sh\necho {name}\n");
    for name in ["repmgr_bindir", "pg_bindir", "option", "path", "setting"] {
        bench.original(name, &said(name));
    }
    let conf = |names: &[&str]| {
        let lines = names
            .iter()
            .map(|name| format!("{name}='{}'\n", bench.path(name).display()));
        bench.write(
            "repmgr.conf",
            &format!("node_id=1\n{}", lines.collect::<String>()),
        );
    };
    let option = format!("-b{}", bench.path("option").display());
    let found = |arguments: &[&str]| {
        let run = on_path(bench.searching(arguments), &[ours(), &bench.path("path")])
            .assert()
            .success();
        String::from_utf8(run.get_output().stdout.clone()).unwrap()
    };
    conf(&["repmgr_bindir", "pg_bindir"]);
    assert_eq!(found(&["cluster", "show"]), "repmgr_bindir\n");
    conf(&["pg_bindir"]);
    assert_eq!(found(&["cluster", "show"]), "pg_bindir\n");
    assert_eq!(found(&["cluster", &option, "show"]), "option\n");
    conf(&[]);
    assert_eq!(found(&["cluster", "show"]), "path\n");
    // One that cannot be read is for the original to complain of.
    bench.write("repmgr.conf", "node_id='x\n");
    assert_eq!(found(&["cluster", "show"]), "path\n");
    let mut named = on_path(bench.searching(&["cluster", "show"]), &[&bench.path("path")]);
    named
        .env("REPMGR_ORIGINAL", bench.path("setting/repmgr"))
        .assert()
        .success()
        .stdout("setting\n");
}

#[test]
fn neither_this_program_nor_a_copy_of_it_is_taken_for_the_original() {
    let bench = Bench::new();
    for name in ["link", "copy"] {
        fs::create_dir(bench.path(name)).unwrap();
    }
    symlink(program(), bench.path("link/repmgr")).unwrap();
    fs::copy(program(), bench.path("copy/repmgr")).unwrap();
    bench.original("bin", TOLD);
    let directories = ["link", "copy", "bin"].map(|name| bench.path(name));
    let all: Vec<&Path> = [ours()]
        .into_iter()
        .chain(directories.iter().map(PathBuf::as_path))
        .collect();
    on_path(bench.searching(&["node", "status"]), &all)
        .assert()
        .code(22);
    for name in ["link", "copy"] {
        let mut named = assert_cmd::Command::from_std(bench.searching(&["node", "status"]));
        let path = bench.path(name).join("repmgr");
        named
            .env("REPMGR_ORIGINAL", &path)
            .assert()
            .code(1)
            .stdout("")
            .stderr(format!(
                "ERROR: REPMGR_ORIGINAL=\"{}\" does not name the original repmgr\n\
             DETAIL: it is this program itself, or another copy of it\n\
             HINT: set the environment variable REPMGR_ORIGINAL to the original repmgr, or unset it\n",
                path.display()
            ));
    }
}

#[test]
fn a_script_that_leads_back_to_us_ends() {
    let bench = Bench::new();
    let script = bench.original("bin", &format!("#!/bin/sh\n{} \"$@\"\n", program().display()));
    on_path(
        bench.searching(&["node", "status"]),
        &[&bench.path("bin"), Path::new("/bin")],
    )
    .assert()
    .code(1)
    .stderr(format!(
        "ERROR: \"{}\" was to be the original repmgr, and leads back to this program\n\
             HINT: name the program itself in the environment variable REPMGR_ORIGINAL\n",
        script.display()
    ));
}

#[test]
fn without_an_original_it_is_said_what_is_missing() {
    let bench = Bench::ordinary("");
    assert_eq!(
        bench.refused(&["STANDBY", "register"]),
        "ERROR: \"repmgr standby register\" is done by the original repmgr, which was not found on this host\n\
         HINT: unset the environment variable REPMGR_ORIGINAL, which says that there is none\n"
    );
    bench.refused(&["primary", "register", "--help"]);
}
