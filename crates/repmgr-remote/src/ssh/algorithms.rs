//! Which algorithms are offered in the key exchange, and in which order.

use ssh2::{MethodType, Session};

use super::settings::Settings;
use crate::error::ConnectErrorKind as Kind;
use crate::text::{printable, shorten};

/// Lists by their names in `ssh -G`, and in OpenSSH's message when nothing of one is common.
const LISTS: [(&str, &str); 4] = [
    ("kexalgorithms", "key exchange method"),
    (HOST_KEYS, "host key type"),
    ("ciphers", "cipher"),
    ("macs", "MAC"),
];
const HOST_KEYS: &str = "hostkeyalgorithms";

/// What the configuration says of algorithms.
#[derive(Debug, Clone)]
pub(super) struct Algorithms {
    lists: Vec<List>,
    /// Whether types that are known go before the order of the list of host key algorithms.
    known_types_first: bool,
}

/// What `ssh` would offer of one kind.
#[derive(Debug, Clone)]
struct List {
    key: &'static str,
    title: &'static str,
    names: String,
    /// Those of the default are left to libssh2.
    is_of_user: bool,
}

impl Algorithms {
    pub(super) fn new(settings: &Settings, defaults: &Settings) -> Self {
        let list = |(key, title)| {
            let names = settings.get(key)?;
            Some(List {
                key,
                title,
                names: names.to_owned(),
                is_of_user: defaults.get(key) != Some(names),
            })
        };
        Self {
            lists: LISTS.into_iter().filter_map(list).collect(),
            known_types_first: known_types_first(settings, defaults),
        }
    }

    /// OpenSSH's message with our list beside the server's, where the two hold nothing in common.
    pub(super) fn with_our_offer(&self, message: String) -> String {
        let named = |name: &str| message.contains(&format!("no matching {name} found"));
        match self.lists.iter().find(|list| named(list.title)) {
            Some(list) => format!("{message}; our offer: {}", shorten(&list.names, 600)),
            None => message,
        }
    }

    /// The list by its name in `ssh -G`, if the user set it.
    pub(super) fn of_user(&self, key: &str) -> Option<&str> {
        let list = self.lists.iter().find(|list| list.key == key && list.is_of_user);
        list.map(|list| list.names.as_str())
    }

    /// Sets what must be set before the handshake: lists of the user's, and host key types we know.
    pub(super) fn prefer(&self, session: &Session, known_types: &[&str]) -> Result<(), Kind> {
        let lists = [
            ("ciphers", &[MethodType::CryptCs, MethodType::CryptSc][..]),
            ("macs", &[MethodType::MacCs, MethodType::MacSc][..]),
            ("kexalgorithms", &[MethodType::Kex][..]),
        ];
        for (key, methods) in lists {
            let Some(list) = self.of_user(key) else {
                continue;
            };
            for method in methods {
                set_preference(session, *method, key, list)?;
            }
        }
        let all = session
            .supported_algs(MethodType::HostKey)
            .map_err(|e| handshake(&e))?;
        let list = host_key_order(
            &all,
            self.of_user(HOST_KEYS),
            if self.known_types_first { known_types } else { &[] },
        );
        set_preference(session, MethodType::HostKey, HOST_KEYS, &list)
    }
}

fn handshake(error: &ssh2::Error) -> Kind {
    Kind::Handshake {
        reason: printable(error.message().as_bytes()),
    }
}

fn set_preference(session: &Session, method: MethodType, what: &'static str, list: &str) -> Result<(), Kind> {
    session.method_pref(method, list).map_err(|_| Kind::BadSetting {
        what,
        text: shorten(list, 200),
        reason: "none of these algorithms is supported here",
    })
}

/// Host key algorithms to offer: types that known hosts files hold come first (or the server
/// chooses one we cannot compare, which looks like an attack), unless the user set an order.
/// No certificates: nobody here would check the authority's signature.
pub(super) fn host_key_order(supported: &[&str], user_set: Option<&str>, known_types: &[&str]) -> String {
    let base: Vec<&str> = match user_set {
        Some(list) => list.split(',').filter(|a| supported.contains(a)).collect(),
        None => supported.to_vec(),
    };
    let mut base: Vec<&str> = base
        .into_iter()
        .filter(|a| !a.contains("-cert-") && *a != "ssh-rsa")
        .collect();
    let known = |algorithm: &str| {
        known_types
            .iter()
            .any(|t| *t == algorithm || *t == "ssh-rsa" && algorithm.starts_with("rsa-sha2-"))
    };
    base.sort_by_key(|algorithm| !known(algorithm));
    base.join(",")
}

/// `ssh` orders host key types by what is known, unless the user set a list. One that was made of the default by
/// `+` or `-` is none, and `ssh -G` shows only what came of it.
pub(super) fn known_types_first(settings: &Settings, defaults: &Settings) -> bool {
    let (Some(set), Some(default)) = (settings.get(HOST_KEYS), defaults.get(HOST_KEYS)) else {
        return true;
    };
    let default: Vec<&str> = default.split(',').collect();
    let set: Vec<&str> = set.split(',').collect();
    let mut rest = default.iter();
    let in_order = set.iter().all(|name| rest.any(|known| known == name));
    set.starts_with(&default) || in_order && set.len() * 2 > default.len()
}
