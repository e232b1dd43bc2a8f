//! Keys and certificates in files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// An identity of the configuration that is there.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// Its public key, when a file tells it.
    pub(super) public: Option<Vec<u8>>,
    /// Whether there is a private key, and whether it has a passphrase.
    pub(super) private: Option<Lock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Open,
    Passphrase,
}

pub(super) fn certificate_beside(key: &Path) -> PathBuf {
    with_suffix(key, "-cert.pub")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// What is there for one `IdentityFile`; `None` when nothing is.
pub(super) fn key_file(path: &Path) -> Option<KeyFile> {
    let text = readable_private_key(path);
    let public = public_blob_of(&with_suffix(path, ".pub"))
        .or_else(|| public_blob_of(path))
        .or_else(|| text.as_deref().and_then(openssh_parts).map(|(_, public)| public));
    let private = text
        .filter(|t| t.contains("PRIVATE KEY-----"))
        .map(|t| lock_of(&t));
    (public.is_some() || private.is_some()).then(|| KeyFile {
        path: path.to_owned(),
        public,
        private,
    })
}

/// A key that others may read is not used, as in OpenSSH (for files of one's own).
fn readable_private_key(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    if meta.uid() == rustix::process::getuid().as_raw() && meta.mode() & 0o077 != 0 {
        // Public keys may be open; only this one is refused.
        let text = fs::read_to_string(path).ok()?;
        if text.contains("PRIVATE KEY-----") {
            log::warn!(
                "private key \"{}\" is not used: others may read it (mode {:04o})",
                path.display(),
                meta.mode() & 0o7777
            );
            return None;
        }
        return Some(text);
    }
    fs::read_to_string(path)
        .inspect_err(|e| log::warn!("cannot read \"{}\": {e}", path.display()))
        .ok()
}

/// The blob in a public key or certificate file: "type base64 comment".
pub(super) fn public_blob_of(path: &Path) -> Option<Vec<u8>> {
    let text = fs::read_to_string(path).ok()?;
    STANDARD
        .decode(text.lines().next()?.split_whitespace().nth(1)?)
        .ok()
}

fn lock_of(text: &str) -> Lock {
    let locked = match openssh_parts(text) {
        Some((cipher, _)) => cipher != b"none",
        // "Proc-Type: 4,ENCRYPTED" of PEM, "BEGIN ENCRYPTED PRIVATE KEY" of PKCS#8.
        None => text.contains("ENCRYPTED"),
    };
    if locked { Lock::Passphrase } else { Lock::Open }
}

/// Cipher and public key of a file in OpenSSH's own format, where both are in the clear.
fn openssh_parts(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let body = text
        .split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?
        .1
        .split_once("-----END")?
        .0;
    let compact: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(compact).ok()?;
    let (cipher, rest) = first_string(bytes.strip_prefix(b"openssh-key-v1\0")?)?;
    let (_kdf, rest) = first_string(rest)?;
    let (_kdf_options, rest) = first_string(rest)?;
    let (public, _) = first_string(rest.strip_prefix(&1u32.to_be_bytes())?)?;
    Some((cipher.to_vec(), public.to_vec()))
}

/// Splits off the string an SSH encoding begins with: four bytes of length, then so many bytes.
pub(super) fn first_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// Whether a certificate is for this key: all formats hold the key's own fields in one piece.
pub(super) fn certifies(certificate: &[u8], public: &[u8]) -> bool {
    let Some((_, fields)) = first_string(public) else {
        return false;
    };
    !fields.is_empty() && certificate.windows(fields.len()).any(|w| w == fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn keygen(args: &[&str]) {
        let out = Command::new("ssh-keygen")
            .arg("-q")
            .args(args)
            .output()
            .expect("ssh-keygen (openssh-client)");
        assert!(out.status.success(), "{out:?}");
    }

    #[test]
    fn private_keys_tell_their_public_key_and_whether_they_are_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (kind, extra, passphrase) in [
            ("ed25519", None, ""),
            ("ed25519", None, "secret"),
            ("rsa", Some("PEM"), ""),
            ("rsa", Some("PEM"), "secret"),
            ("ecdsa", Some("PKCS8"), "secret"),
        ] {
            let key = path(&format!("{kind}-{extra:?}-{passphrase}"));
            let mut args = vec!["-t", kind, "-N", passphrase, "-f", key.to_str().unwrap()];
            args.extend(extra.iter().flat_map(|format| ["-m", format]));
            keygen(&args);
            let with_pub = key_file(&key).unwrap();
            let lock = if passphrase.is_empty() {
                Lock::Open
            } else {
                Lock::Passphrase
            };
            assert_eq!(with_pub.private, Some(lock), "{}", key.display());
            fs::remove_file(with_suffix(&key, ".pub")).unwrap();
            let alone = key_file(&key).unwrap();
            assert_eq!(alone.public.is_some(), extra.is_none());
            assert!(alone.public.is_none_or(|p| Some(p) == with_pub.public));
        }
        assert!(key_file(&path("missing")).is_none());
    }

    #[test]
    fn a_certificate_belongs_to_its_own_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for key in ["ca", "a", "b"] {
            keygen(&["-t", "ed25519", "-N", "", "-f", &path(key)]);
        }
        keygen(&["-s", &path("ca"), "-I", "id", &path("a.pub")]);
        let blob = |name: &str| public_blob_of(Path::new(&path(name))).unwrap();
        assert!(certifies(&blob("a-cert.pub"), &blob("a.pub")));
        assert!(!certifies(&blob("a-cert.pub"), &blob("b.pub")));
    }

    #[test]
    fn a_private_key_open_to_others_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("k");
        keygen(&["-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let found = key_file(&key).unwrap();
        assert!(found.private.is_none() && found.public.is_some());
    }

    #[test]
    fn cut_encodings_are_no_strings() {
        assert_eq!(
            first_string(&[0, 0, 0, 2, 7, 8, 9]),
            Some((&[7, 8][..], &[9][..]))
        );
        for bad in [&[0, 0, 0][..], &[0, 0, 0, 1], &[255, 255, 255, 255, 1]] {
            assert_eq!(first_string(bad), None);
        }
    }
}
