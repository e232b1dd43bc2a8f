use super::super::algorithms::{host_key_order, known_types_first};
use super::super::settings::home_of;
use super::super::split_words;
use super::*;

/// What `ssh -T -G -F none -o UserKnownHostsFile=%d -o IdentityAgent=%u` of OpenSSH 9.2 prints,
/// without lines nobody reads here.
const DEFAULTS: &str = "host localhost\nuser bob\nhostname localhost\nport 22\naddressfamily any\n\
    batchmode no\nhashknownhosts no\nidentitiesonly no\nkbdinteractiveauthentication yes\n\
    passwordauthentication yes\nproxyusefdpass no\npubkeyauthentication true\n\
    stricthostkeychecking ask\ntcpkeepalive yes\nserveralivecountmax 3\nserveraliveinterval 0\n\
    ciphers chacha20-poly1305@openssh.com,aes128-ctr\nhostkeyalgorithms ssh-ed25519,rsa-sha2-512\n\
    kexalgorithms curve25519-sha256\nmacs hmac-sha2-256\nidentityagent bob\n\
    identityfile ~/.ssh/id_rsa\nidentityfile ~/.ssh/id_ed25519\nconnecttimeout none\n\
    globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2\n\
    userknownhostsfile /home/bob\n";

/// The same for a host of the user's, with `lines` in the configuration: `ssh -G` prints each
/// keyword once, except the ones that repeat.
fn config(lines: &str, words: &[&str]) -> Result<ClientConfig, Kind> {
    let defaults = Settings::parse(DEFAULTS);
    let mut settings = Settings::parse(DEFAULTS);
    settings.0.remove("identityagent");
    settings.0.insert("host".into(), vec!["alias".into()]);
    settings
        .0
        .insert("hostname".into(), vec!["Barman.example".into()]);
    settings.0.insert("user".into(), vec!["barman".into()]);
    settings.0.extend(Settings::parse(lines).0);
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    interpret(
        &settings,
        &defaults,
        "barman@alias",
        &words,
        &SshOptions::default(),
    )
}

/// The setting that these lines make impossible.
fn bad_setting(lines: &str) -> &'static str {
    match config(lines, &[]).unwrap_err() {
        Kind::BadSetting { what, .. } => what,
        error => panic!("{lines}: {error}"),
    }
}

fn paths(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().map(|p| p.to_str().unwrap()).collect()
}

#[test]
fn nothing_set_gives_what_ssh_does_by_default() {
    let c = config(
        "userknownhostsfile /home/bob/.ssh/known_hosts /home/bob/.ssh/known_hosts2",
        &[],
    )
    .unwrap();
    assert_eq!(
        (c.host.as_str(), c.port, c.user.as_str()),
        ("Barman.example", 22, "barman")
    );
    assert_eq!(c.route, Route::Direct { bind: None });
    assert_eq!(
        (c.strict, c.batch_mode, c.identities_only),
        (Strict::Ask, false, false)
    );
    assert_eq!(c.connect_timeout, Duration::from_secs(30));
    assert_eq!((c.server_alive, c.tcp_keepalive), (None, true));
    assert_eq!(
        (c.known_hosts_name.as_str(), c.known_hosts_fallback),
        ("barman.example", None)
    );
    assert_eq!(
        paths(&c.user_known_hosts),
        ["/home/bob/.ssh/known_hosts", "/home/bob/.ssh/known_hosts2"]
    );
    assert_eq!(
        paths(&c.identity_files),
        ["/home/bob/.ssh/id_rsa", "/home/bob/.ssh/id_ed25519"]
    );
    assert_eq!(c.login_methods, ["publickey", "keyboard-interactive", "password"]);
    for key in ["ciphers", "macs", "kexalgorithms", "hostkeyalgorithms"] {
        assert_eq!(c.algorithms.of_user(key), None);
    }
}

#[test]
fn a_default_user_counts_where_nobody_names_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    let account = Command::new("id").arg("-un").output().unwrap().stdout;
    let account = String::from_utf8(account).unwrap().trim().to_owned();
    let user = |text: &str, destination: &str, options: SshOptions| {
        std::fs::write(&file, text).unwrap();
        let options = SshOptions {
            default_user: Some("barman".into()),
            ..options
        };
        let mut words = vec!["-F".to_owned(), file.display().to_string()];
        words.extend(split_words(&options.ssh_options).unwrap());
        resolve(destination, &words, &options).unwrap().user
    };
    let plain = SshOptions::default;
    assert_eq!(
        user("Host alias\n  HostName 127.0.0.1\n", "alias", plain()),
        "barman"
    );
    assert_eq!(user("Host alias\n  User backup\n", "alias", plain()), "backup");
    for spelling in ["User ACCOUNT", "\tuser=ACCOUNT", "USER  \"ACCOUNT\" "] {
        let text = format!("Host alias\n{}\n", spelling.replace("ACCOUNT", &account));
        assert_eq!(user(&text, "alias", plain()), account, "{text}");
    }
    let given = SshOptions {
        user: Some(account.clone()),
        ..plain()
    };
    assert_eq!(user("", "alias", given), account);
    let typed = SshOptions {
        ssh_options: format!("-o User={account}"),
        ..plain()
    };
    assert_eq!(user("", "alias", typed), account);
    assert_eq!(user("", &format!("{account}@alias"), plain()), account);
}

#[test]
fn everything_set_is_honoured() {
    let c = config(
        "port 2222\nconnecttimeout 7\nserveraliveinterval 15\nserveralivecountmax 5\nbatchmode yes\n\
         stricthostkeychecking accept-new\nidentitiesonly yes\nidentityfile %d/keys/%r@%n:%p\n\
         identityfile ~/k %u%%\ncertificatefile ~/.ssh/c-cert.pub\nhashknownhosts yes\n\
         identityagent ~/agent.sock\nciphers aes128-ctr\npasswordauthentication no\n\
         bindaddress 10.0.0.1\naddressfamily inet6\ntcpkeepalive no\nglobalknownhostsfile none",
        &[],
    )
    .unwrap();
    assert_eq!((c.port, c.connect_timeout), (2222, Duration::from_secs(7)));
    assert_eq!(c.server_alive, Some((Duration::from_secs(15), 5)));
    assert!(c.batch_mode && c.identities_only && c.hash_known_hosts && !c.tcp_keepalive);
    assert_eq!(c.strict, Strict::AcceptNew);
    assert_eq!(
        paths(&c.identity_files),
        ["/home/bob/keys/barman@alias:2222", "/home/bob/k bob%"]
    );
    assert_eq!(paths(&c.certificate_files), ["/home/bob/.ssh/c-cert.pub"]);
    assert_eq!(c.agent.unwrap(), Path::new("/home/bob/agent.sock"));
    assert_eq!(c.algorithms.of_user("ciphers"), Some("aes128-ctr"));
    assert_eq!(c.login_methods, ["publickey", "keyboard-interactive"]);
    assert_eq!(
        c.route,
        Route::Direct {
            bind: Some("10.0.0.1".into())
        }
    );
    assert_eq!(c.address_family, "inet6");
    assert!(c.global_known_hosts.is_empty());
    assert_eq!(c.known_hosts_name, "[barman.example]:2222");
    assert_eq!(c.known_hosts_fallback.as_deref(), Some("barman.example"));
}

#[test]
fn a_host_key_alias_is_the_only_name() {
    let c = config("port 2222\nhostkeyalias %h.keys", &[]).unwrap();
    assert_eq!(
        (c.known_hosts_name.as_str(), c.known_hosts_fallback),
        ("%h.keys", None)
    );
}

#[test]
fn old_and_new_spellings_of_yes_and_no_are_read() {
    let strict = |v| config(&format!("stricthostkeychecking {v}"), &[]).unwrap().strict;
    assert_eq!([strict("true"), strict("yes")], [Strict::Yes; 2]);
    assert_eq!([strict("false"), strict("no"), strict("off")], [Strict::No; 3]);
    assert_eq!(config("identityagent none", &[]).unwrap().agent, None);
    assert_eq!(
        config("proxyjump none\nproxycommand none", &[]).unwrap().route,
        Route::Direct { bind: None }
    );
}

#[test]
fn an_address_in_brackets_loses_them_but_not_in_known_hosts() {
    let c = config("hostname [::1]\nport 2200", &[]).unwrap();
    assert_eq!(
        (c.host.as_str(), c.known_hosts_name.as_str()),
        ("::1", "[::1]:2200")
    );
}

#[test]
fn proxies_get_their_tokens() {
    let c = config("port 2200\nproxycommand nc -x %r@%h %p %n 100%%", &[]).unwrap();
    assert_eq!(
        c.route,
        Route::Proxy {
            line: "nc -x barman@Barman.example 2200 alias 100%".into()
        }
    );
    assert_eq!(bad_setting("proxycommand nc %z"), "ProxyCommand");
    let passes = config("proxycommand nc\nproxyusefdpass yes", &[]).unwrap();
    assert_eq!(passes.demand, Some("ProxyUseFdpass"));
}

#[test]
fn the_last_jump_carries_us_and_the_others_lead_to_it() {
    let c = config("proxyjump a@one:3,%r.%n%%", &["-F", "/my config", "-o", "User=x"]).unwrap();
    let Route::Jump { words } = c.route else {
        panic!("{:?}", c.route)
    };
    assert_eq!(
        words.join("|"),
        "ssh|-T|-F|/my config|-o|BatchMode=yes|-J|a@one:3|-W|[Barman.example]:22|--|ssh://barman.alias%"
    );
    assert_eq!(bad_setting("proxyjump %z"), "ProxyJump");
}

#[test]
fn names_of_this_machine_and_accounts_are_expanded_as_ssh_does() {
    // ControlPath is what `ssh -G` expands itself.
    let said = Command::new("ssh")
        .args(["-G", "-F", "none", "-p", "2200", "-o", "ControlPath=/%l/%L/%C/%i"])
        .arg("barman@barman.example")
        .output()
        .unwrap();
    let said = Settings::parse(&String::from_utf8(said.stdout).unwrap());
    let c = config(
        "hostname barman.example\nport 2200\nidentityfile /%l/%L/%C/%i\nidentityfile ~root/k\n\
         identityfile ~root",
        &[],
    )
    .unwrap();
    let root = home_of("root").unwrap();
    assert_eq!(
        paths(&c.identity_files),
        [said.get("controlpath").unwrap(), &format!("{root}/k"), &root]
    );
    // Which jump counts into %C depends on the version.
    let c = config("proxyjump j\nidentityfile /%C", &[]).unwrap();
    assert!(c.identity_files.is_empty());
}

#[test]
fn a_path_with_a_blank_is_told_from_two_paths_when_it_exists() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known hosts");
    std::fs::write(&file, "").unwrap();
    let c = config(&format!("userknownhostsfile {}", file.display()), &[]).unwrap();
    assert_eq!(c.user_known_hosts, [file]);
}

#[test]
fn environment_variables_are_expanded_and_unknown_ones_leave_the_file_out() {
    let home = std::env::var("HOME").unwrap();
    let c = config(
        "identityfile ${HOME}/k\nidentityfile ${NO_SUCH_VARIABLE_}/k\nidentityfile ~no-such-account-/k",
        &[],
    )
    .unwrap();
    assert_eq!(paths(&c.identity_files), [format!("{home}/k")]);
}

#[test]
fn known_host_key_types_come_first() {
    let all = [
        "ssh-ed25519-cert-v01@openssh.com",
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "rsa-sha2-512",
        "rsa-sha2-256",
        "ssh-rsa",
    ];
    let order = |user, known: &[&str]| host_key_order(&all, user, known);
    assert_eq!(
        order(None, &[]),
        "ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256"
    );
    assert_eq!(
        order(None, &["ssh-rsa"]),
        "rsa-sha2-512,rsa-sha2-256,ssh-ed25519,ecdsa-sha2-nistp256"
    );
    assert_eq!(
        order(None, &["ecdsa-sha2-nistp256"]),
        "ecdsa-sha2-nistp256,ssh-ed25519,rsa-sha2-512,rsa-sha2-256"
    );
    assert_eq!(
        order(Some("rsa-sha2-256,x,ssh-ed25519"), &[]),
        "rsa-sha2-256,ssh-ed25519"
    );
}

#[test]
fn a_list_made_of_the_default_is_no_order_of_the_users() {
    let default = Settings::parse("hostkeyalgorithms a,b,c,d");
    for (set, first) in [
        ("a,b,c,d", true),
        ("a,b,c,d,e", true),
        ("a,c,d", true),
        ("a,b", false),
        ("d,c,b,a", false),
        ("e,a,b,c,d", false),
    ] {
        let settings = Settings::parse(&format!("hostkeyalgorithms {set}"));
        assert_eq!(known_types_first(&settings, &default), first, "{set}");
    }
}

#[test]
fn a_port_in_the_destination_is_seen() {
    for with in ["ssh://h:22", "ssh://u@h:22", "ssh://u@[::1]:22"] {
        assert!(names_port(with), "{with}");
    }
    for without in ["h", "u@h", "ssh://h", "ssh://u@[::1]", "ssh://u:x@h"] {
        assert!(!names_port(without), "{without}");
    }
}

#[test]
fn the_list_of_revoked_keys_is_found_or_nothing_goes_on() {
    let list = |line: &str| config(line, &[]).map(|c| c.revoked_host_keys);
    for none in ["", "revokedhostkeys none"] {
        assert_eq!(list(none).unwrap(), None, "{none}");
    }
    for (text, file) in [
        ("~/a b", "/home/bob/a b"),
        ("%d/%u/%%", "/home/bob/bob/%"),
        ("/r", "/r"),
    ] {
        let found = list(&format!("revokedhostkeys {text}")).unwrap();
        assert_eq!(found.unwrap(), Path::new(file));
    }
    for bad in ["~somebody/r", "%Z/r", "${NO_SUCH_VARIABLE}/r"] {
        assert_eq!(bad_setting(&format!("revokedhostkeys {bad}")), "RevokedHostKeys");
    }
}
