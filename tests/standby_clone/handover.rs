//! A cluster of the original's repmgr and repmgrd, with ours first on every PATH.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use predicates::str::contains;
use repmgr_lab::{Lab, PrimaryOptions, StopMode, Target, original_repmgr};
use repmgr_tests::{LIMIT, assert_standby, clone, node, run};

/// Ended when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ours(lab: &Lab, conf: &std::path::Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    run(lab.repmgr().unwrap().arg("-f").arg(conf).args(arguments))
}

/// What a DBA writes into repmgr.conf for automatic failover: `repmgr` is whatever the PATH has first.
fn automatic(lab: &Lab, id: u32) -> Vec<(&'static str, String)> {
    let conf = lab.scratch().join(format!("repmgr-{id}.conf"));
    let conf = conf.display();
    vec![
        ("failover", "automatic".to_owned()),
        (
            "promote_command",
            format!("repmgr -f {conf} standby promote --log-to-file"),
        ),
        (
            "follow_command",
            format!("repmgr -f {conf} standby follow --upstream-node-id=%n"),
        ),
        ("monitor_interval_secs", "1".to_owned()),
        ("reconnect_attempts", "2".to_owned()),
        ("reconnect_interval", "1".to_owned()),
    ]
}

fn repmgrd(lab: &Lab, target: &Target) -> (Daemon, std::path::PathBuf) {
    let program = original_repmgr().unwrap().with_file_name("repmgrd");
    let log = lab.scratch().join("log/repmgrd.log");
    let file = File::create(&log).unwrap();
    let mut daemon: Command = lab.scratch().command(program);
    daemon
        .arg("-f")
        .arg(&target.conf)
        .args(["--daemonize=false", "--no-pid-file"]);
    daemon
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    (Daemon(daemon.spawn().unwrap()), log)
}

fn wait_for_words(log: &std::path::Path, words: &str) {
    let said = || fs::read_to_string(log).unwrap_or_default();
    let deadline = Instant::now() + LIMIT;
    while !said().contains(words) {
        assert!(Instant::now() < deadline, "{}", said());
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_cluster_fails_over_and_is_mended_with_ours_first_on_the_path() {
    let options = PrimaryOptions {
        conf: vec!["shared_preload_libraries = 'repmgr'".to_owned()],
        ..PrimaryOptions::default()
    };
    let lab = Lab::builder().primary(options).build().unwrap();
    let mut target = node(&lab, &[]);
    let settings = automatic(&lab, target.node_id);
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    target = lab.target(target.node_id, &settings).unwrap();
    clone(&lab, &target, &[]).success();
    let standby = assert_standby(&lab, &target);

    let conf = lab.scratch().join("repmgr-1.conf");
    ours(&lab, &conf, &["primary", "register", "--force"]).success();
    // Our own closing hint, as it stands there.
    ours(&lab, &target.conf, &["standby", "register"])
        .success()
        .stderr(contains("registration complete"));
    ours(&lab, &target.conf, &["cluster", "show"])
        .success()
        .stdout(contains("node1"));
    ours(&lab, &target.conf, &["--version"])
        .success()
        .stdout(contains("repmgr 5."));

    let (_daemon, log) = repmgrd(&lab, &target);
    wait_for_words(&log, "monitoring connection to upstream node");
    lab.primary().stop(StopMode::Fast).unwrap();
    if let Err(error) = standby.wait_for("select pg_is_in_recovery()", "f", LIMIT) {
        panic!("{error:#}\n{}", fs::read_to_string(log).unwrap());
    }
    let promoted = "select type from repmgr.nodes where node_id = ".to_owned() + &target.node_id.to_string();
    standby.wait_for(&promoted, "primary", LIMIT).unwrap();

    // The failed primary comes back as a standby of the new one.
    let (bin, data) = (
        lab.primary().install().bin_dir().display(),
        lab.primary().data_dir().display(),
    );
    let start = format!(
        "{bin}/pg_ctl -D {data} -w -l {} start",
        lab.primary().log().display()
    );
    let text = fs::read_to_string(&conf).unwrap() + &format!("service_start_command='{start}'\n");
    lab.scratch().write(&conf, &text, 0o600).unwrap();
    let upstream = format!("host=127.0.0.1 port={} user=repmgr dbname=repmgr", target.port);
    // What the rejoining node is told of the new timeline comes from the last checkpoint.
    standby.sql("checkpoint").unwrap();
    ours(&lab, &conf, &["node", "rejoin", "-d", &upstream]).success();
    lab.primary().wait_for_streaming(LIMIT).unwrap();
    ours(&lab, &conf, &["cluster", "show"])
        .success()
        .stdout(contains("standby"));
}
