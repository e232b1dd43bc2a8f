//! Is this the host it says it is?
//!
//! libssh2's own check is not used: it takes revoked keys for good, knows no patterns, gives up
//! at the first line it cannot read, and compares with a key type the server was free to choose.
//! `ssh-keygen -F` finds the lines, as OpenSSH understands them; the keys are compared here.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::PKey;
use openssl::sign::Signer;
use repmgr_types::CancelToken;
use ssh2::Session;

use super::config::{ClientConfig, Strict, run_tool};
use super::keyfile::first_string;
use super::options::Prompt;
use super::revoked::{is_in_its_one_form, revoked_at};
use crate::error::ConnectErrorKind as Kind;
use crate::text::shorten;

/// One line of a known hosts file that is about our host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownKey {
    marker: Option<Marker>,
    pub(super) key_type: String,
    blob: Vec<u8>,
    /// "/home/x/.ssh/known_hosts:3"
    at: String,
    /// Found by the name without its port: counts only if it matches.
    fallback: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Revoked,
    /// `@cert-authority`: who signs the keys of hosts.
    Authority,
    /// One we do not know.
    Other,
}

impl KnownKey {
    pub(super) fn is_marked(&self) -> bool {
        self.marker.is_some()
    }

    /// Whether it vouches for certificates of hosts, which are not checked here.
    pub(super) fn is_authority(&self) -> bool {
        self.marker == Some(Marker::Authority)
    }
}

/// All lines about the host, in all files.
pub(super) fn known_keys(config: &ClientConfig, cancel: &CancelToken) -> Result<Vec<KnownKey>, Kind> {
    let mut wanted = Vec::new();
    for file in config.user_known_hosts.iter().chain(&config.global_known_hosts) {
        wanted.push((&config.known_hosts_name, file, false));
        wanted.extend(
            config
                .known_hosts_fallback
                .as_ref()
                .map(|name| (name, file, true)),
        );
    }
    // A process for each; none waits for another.
    thread::scope(|scope| {
        let mut looking = Vec::new();
        for (name, file, fallback) in wanted {
            looking.push(scope.spawn(move || find(config, name, file, fallback, cancel)));
        }
        let mut keys = Vec::new();
        for look in looking {
            keys.extend(look.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(keys)
    })
}

fn find(
    config: &ClientConfig,
    name: &str,
    file: &Path,
    fallback: bool,
    cancel: &CancelToken,
) -> Result<Vec<KnownKey>, Kind> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(e) => {
            if e.kind() != std::io::ErrorKind::NotFound {
                log::warn!("cannot read \"{}\": {e}", file.display());
            }
            return Ok(Vec::new());
        }
    };
    if let Some(found) = find_plain(&String::from_utf8_lossy(&text), name) {
        return Ok(parse_found(&found, &file.to_string_lossy(), fallback));
    }
    let mut command = Command::new(&config.keygen_program);
    command.args(["-F", name, "-f"]).arg(file);
    let output = run_tool(command, cancel)?;
    match output.exit.code {
        Some(0) => {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(parse_found(&text, &file.to_string_lossy(), fallback))
        }
        Some(1) => Ok(Vec::new()),
        _ => Err(Kind::Configuration {
            program: config.keygen_program.clone(),
            message: format!(
                "\"{}\": {}",
                file.display(),
                shorten(&output.exit.stderr_text(), 200)
            ),
        }),
    }
}

/// What `ssh-keygen -F` would print, without the 5 ms its start takes; `None` where a line holds a
/// pattern or a negation, whose meaning is left to OpenSSH.
fn find_plain(text: &str, name: &str) -> Option<String> {
    let mut found = String::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace().peekable();
        words.next_if(|w| w.starts_with('@'));
        let Some(hosts) = words.next().filter(|w| !w.starts_with('#')) else {
            continue;
        };
        let matches = if let Some(hashed) = hosts.strip_prefix("|1|") {
            is_hash_of(hashed, name)
        } else if hosts.contains(['*', '?', '!']) {
            return None;
        } else {
            hosts.split(',').any(|host| host.eq_ignore_ascii_case(name))
        };
        if matches {
            // Writing to a String cannot fail.
            let _ = writeln!(found, "# Host {name} found: line {}\n{}", number + 1, line.trim());
        }
    }
    Some(found)
}

/// Whether `SALT|HASH` stands for this name.
fn is_hash_of(hashed: &str, name: &str) -> bool {
    let parts = hashed
        .split_once('|')
        .and_then(|(salt, hash)| Some((STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?)));
    parts.is_some_and(|(salt, hash)| name_mac(&salt, name).is_ok_and(|mac| mac == hash))
}

/// The output of `ssh-keygen -F`: "# Host NAME found: line N", then the line.
fn parse_found(text: &str, file: &str, fallback: bool) -> Vec<KnownKey> {
    let mut line_number = "";
    let mut keys = Vec::new();
    for line in text.lines() {
        if let Some((_, found)) = line
            .strip_prefix("# Host ")
            .and_then(|l| l.split_once(" found: line "))
        {
            line_number = found.split_whitespace().next().unwrap_or_default();
            continue;
        }
        let mut words = line.split_whitespace().peekable();
        let marker = words.next_if(|w| w.starts_with('@'));
        let (Some(_hosts), Some(key_type), Some(key)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(blob) = STANDARD.decode(key) else { continue };
        keys.push(KnownKey {
            marker: marker.map(|m| match m {
                "@revoked" => Marker::Revoked,
                "@cert-authority" => Marker::Authority,
                _ => Marker::Other,
            }),
            key_type: key_type.to_owned(),
            blob,
            at: format!("{file}:{line_number}"),
            fallback,
        });
    }
    keys
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement<'k> {
    Good,
    Revoked(&'k str),
    Changed(&'k str),
    Unknown,
}

fn judge<'k>(keys: &'k [KnownKey], offered: &[u8]) -> Judgement<'k> {
    if let Some(key) = keys
        .iter()
        .find(|k| k.marker == Some(Marker::Revoked) && k.blob == offered)
    {
        return Judgement::Revoked(&key.at);
    }
    let mut plain = keys.iter().filter(|k| k.marker.is_none());
    if plain.clone().any(|k| k.blob == offered) {
        return Judgement::Good;
    }
    plain
        .find(|k| !k.fallback)
        .map_or(Judgement::Unknown, |k| Judgement::Changed(&k.at))
}

/// Checks the key of the session, and writes it down where the configuration says so. A key that was
/// accepted is in `answers` from then on: the file that should hold it may be one that keeps nothing.
pub(super) fn verify(
    session: &Session,
    config: &ClientConfig,
    known: Vec<KnownKey>,
    prompt: Option<&dyn Prompt>,
    answers: &mut HashMap<String, String>,
    cancel: &CancelToken,
) -> Result<(), Kind> {
    let Some((offered, _)) = session.host_key() else {
        return Err(Kind::Handshake {
            reason: "the server sent no host key".to_owned(),
        });
    };
    let name = config.known_hosts_name.clone();
    let key_type = key_type(offered);
    let fingerprint = fingerprint(offered)?;
    refuse_revoked(config, &known, &name, &fingerprint, offered, cancel)?;
    let mut known = known;
    if judge(&known, offered) == Judgement::Unknown {
        // Another connection of this program may have written it down meanwhile.
        known = known_keys(config, cancel)?;
    }
    match judge(&known, offered) {
        Judgement::Good => return Ok(()),
        Judgement::Revoked(at) => {
            return Err(Kind::HostKeyRevoked {
                name,
                fingerprint,
                known_at: at.to_owned(),
            });
        }
        Judgement::Changed(at) => {
            return Err(Kind::HostKeyChanged {
                name,
                key_type,
                fingerprint,
                known_at: at.to_owned(),
            });
        }
        Judgement::Unknown => {}
    }
    let question = format!(
        "The host \"{name}\" is not known. Its {key_type} key has the fingerprint {fingerprint}. \
         Accept and remember it?"
    );
    if answers.contains_key(&question) {
        return Ok(());
    }
    let accepted = match config.strict {
        Strict::Yes => false,
        Strict::AcceptNew | Strict::No => true,
        Strict::Ask => prompt.is_some_and(|p| p.confirm(&question)),
    };
    if accepted {
        answers.insert(question, "yes".to_owned());
    } else {
        return Err(Kind::HostKeyUnknown {
            name,
            key_type,
            fingerprint,
        });
    }
    match config.user_known_hosts.first() {
        Some(file) => match remember(config, file, &name, &key_type, offered) {
            Ok(()) => {
                log::warn!(
                    "added the host key of \"{name}\" ({fingerprint}) to \"{}\"",
                    file.display()
                );
            }
            // As ssh does: accepted is accepted.
            Err(e) => log::warn!(
                "cannot add the host key of \"{name}\" to \"{}\": {e}",
                file.display()
            ),
        },
        None => log::warn!("accepted the unknown host key of \"{name}\" ({fingerprint})"),
    }
    Ok(())
}

/// Comes before any other question about the key, and nothing that is known or allowed outweighs it.
fn refuse_revoked(
    config: &ClientConfig,
    known: &[KnownKey],
    name: &str,
    fingerprint: &str,
    offered: &[u8],
    cancel: &CancelToken,
) -> Result<(), Kind> {
    let list = config.revoked_host_keys.as_deref();
    let any = list.is_some() || known.iter().any(|k| k.marker == Some(Marker::Revoked));
    if any && is_in_its_one_form(offered) != Some(true) {
        return Err(Kind::Handshake {
            reason:
                "the host key is not encoded as it must be, so it cannot be looked up among the revoked ones"
                    .to_owned(),
        });
    }
    let Some(list) = list else { return Ok(()) };
    match revoked_at(list, offered, &config.keygen_program, cancel)? {
        None => Ok(()),
        Some(known_at) => Err(Kind::HostKeyRevoked {
            name: name.to_owned(),
            fingerprint: fingerprint.to_owned(),
            known_at,
        }),
    }
}

fn remember(
    config: &ClientConfig,
    file: &Path,
    name: &str,
    key_type: &str,
    blob: &[u8],
) -> std::io::Result<()> {
    if let Some(dir) = file.parent().filter(|d| !d.exists()) {
        fs::DirBuilder::new().mode(0o700).create(dir)?;
    }
    let name = if config.hash_known_hosts {
        hashed_name(name)?
    } else {
        name.to_owned()
    };
    let mut line = format!("{name} {key_type} {}\n", STANDARD.encode(blob));
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.insert(0, '\n');
        }
    }
    file.write_all(line.as_bytes())
}

/// "|1|salt|HMAC-SHA1 of the name", as HashKnownHosts has it.
fn hashed_name(name: &str) -> Result<String, openssl::error::ErrorStack> {
    let mut salt = [0; 20];
    openssl::rand::rand_bytes(&mut salt)?;
    let mac = name_mac(&salt, name)?;
    Ok(format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(mac)))
}

fn name_mac(salt: &[u8], name: &str) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let key = PKey::hmac(salt)?;
    Signer::new(MessageDigest::sha1(), &key)?.sign_oneshot_to_vec(name.as_bytes())
}

fn fingerprint(blob: &[u8]) -> Result<String, Kind> {
    let digest = hash(MessageDigest::sha256(), blob).map_err(|e| Kind::Handshake {
        reason: e.to_string(),
    })?;
    Ok(format!("SHA256:{}", STANDARD_NO_PAD.encode(digest)))
}

/// The type a key blob begins with.
fn key_type(blob: &[u8]) -> String {
    let name = first_string(blob).map_or("unknown".into(), |(name, _)| String::from_utf8_lossy(name));
    shorten(&name, 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded from `ssh-keygen -F h -f kh` of OpenSSH 9.2, keys shortened to valid base64.
    const FOUND: &str = "# Host h found: line 2 \n\
        [h]:22,h ssh-ed25519 AAAAAQ== comment x\n\
        # Host h found: line 3 REVOKED\n\
        @revoked h ssh-rsa AAAAAg==\n\
        # Host h found: line 4 CA\n\
        @cert-authority *.x,h ssh-rsa AAAAAw==\n\
        # Host h found: line 5 \n\
        \x20 h,g\tssh-rsa AAAABA==\r\n\
        # Host h found: line 6 \n\
        |1|r2wDBIbSRZSXUoKnS1rzdnYXQdA=|hzHWzOSdFhjfphoNKxm4Tf77sXU= ecdsa-sha2-nistp256 AAAABQ==\n";

    #[test]
    fn lines_found_are_read_with_their_markers() {
        let keys = parse_found(FOUND, "/kh", false);
        let seen: Vec<_> = keys
            .iter()
            .map(|k| (k.marker, k.key_type.as_str(), k.blob[3], k.at.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                (None, "ssh-ed25519", 1, "/kh:2"),
                (Some(Marker::Revoked), "ssh-rsa", 2, "/kh:3"),
                (Some(Marker::Authority), "ssh-rsa", 3, "/kh:4"),
                (None, "ssh-rsa", 4, "/kh:5"),
                (None, "ecdsa-sha2-nistp256", 5, "/kh:6"),
            ]
        );
    }

    #[test]
    fn only_a_plain_line_with_the_same_key_makes_a_host_known() {
        let keys = parse_found(FOUND, "/kh", false);
        assert_eq!(judge(&keys, &[0, 0, 0, 1]), Judgement::Good);
        assert_eq!(judge(&keys, &[0, 0, 0, 2]), Judgement::Revoked("/kh:3"));
        assert_eq!(judge(&keys, &[0, 0, 0, 3]), Judgement::Changed("/kh:2"));
        assert_eq!(judge(&[], &[0, 0, 0, 1]), Judgement::Unknown);
        assert_eq!(judge(&keys[2..3], &[0, 0, 0, 3]), Judgement::Unknown);
    }

    #[test]
    fn a_key_both_plain_and_revoked_is_revoked() {
        let text = "# Host h found: line 1 \nh ssh-rsa AAAAAg==\n".to_owned() + FOUND;
        assert_eq!(
            judge(&parse_found(&text, "/kh", false), &[0, 0, 0, 2]),
            Judgement::Revoked("/kh:3")
        );
    }

    #[test]
    fn the_name_without_port_counts_only_when_it_matches() {
        let keys = parse_found(FOUND, "/kh", true);
        assert_eq!(judge(&keys, &[0, 0, 0, 1]), Judgement::Good);
        assert_eq!(judge(&keys, &[0, 0, 0, 9]), Judgement::Unknown);
        assert_eq!(judge(&keys, &[0, 0, 0, 2]), Judgement::Revoked("/kh:3"));
    }

    #[test]
    fn plain_and_hashed_names_are_found_as_ssh_keygen_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmOHhlXnrLJ8WwuK2rBYcUSJy6vZkjqWNLmoNXhnmW2";
        let hashed = |name| hashed_name(name).unwrap();
        let text = [
            format!("# alias {key}"),
            format!("alias {key} a comment"),
            format!("  other,ALIAS {key}"),
            format!("@revoked alias {key}"),
            format!("aliases {key}"),
            format!("[alias]:2222 {key}\r"),
            format!("{} {key}", hashed("alias")),
            format!("{} {key}", hashed("[alias]:2222")),
            format!("|1|nonsense {key}"),
            "alias".to_owned(),
            String::new(),
        ]
        .join("\n");
        fs::write(&file, &text).unwrap();
        for (name, lines) in [("alias", 4), ("[alias]:2222", 2), ("absent", 0), ("other", 1)] {
            let keygen = Command::new("ssh-keygen")
                .args(["-F", name, "-f"])
                .arg(&file)
                .output()
                .unwrap();
            let expected = parse_found(&String::from_utf8_lossy(&keygen.stdout), "f", false);
            let found = parse_found(&find_plain(&text, name).unwrap(), "f", false);
            assert_eq!(found, expected, "{name}");
            assert_eq!(found.len(), lines, "{name}");
        }
        for pattern in ["*", "al?as", "alias,!other", "@cert-authority *.example"] {
            assert_eq!(
                find_plain(&format!("{pattern} {key}\n"), "alias"),
                None,
                "{pattern}"
            );
        }
    }
}
